"""Who may call REST: nobody has to say anything on loopback, everybody has to know the token elsewhere.

Takes the token from a file or from the environment; never writes it anywhere, never compares it with an
operator that stops at the first difference.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import string
from collections.abc import MutableMapping
from pathlib import Path

from flask import Flask, Response, jsonify, request

from topology.errors import Problem, TopologyError

TOKEN_VARIABLE = "COHORTNET_CONTROLLER_TOKEN"
SHORTEST, LONGEST = 16, 1024
BASIC_PATHS = "/onos/"
"""Below here Basic authentication is taken too, as ONOS's scripts send it: any user, the token as
password."""

_ALLOWED = frozenset(string.ascii_letters + string.digits + string.punctuation)


def is_loopback(host: str) -> bool:
    """Whether only this machine (or network namespace) can reach a server bound to `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_token(file: Path | None, environment: MutableMapping[str, str]) -> str | None:
    """The token from the file, else from the environment, else None.

    It is taken out of the environment either way: no child inherits it.

    Raises:
        TopologyError: where the file cannot be read, or the token is too short or has odd characters.
    """
    text = environment.pop(TOKEN_VARIABLE, None)
    source = f"the environment variable {TOKEN_VARIABLE}"
    if file is not None:
        source = f"the token file {file}"
        try:
            with file.open("rb") as stream:
                data = stream.read(LONGEST + 16)
            text = data.decode("ascii")
        except OSError as error:
            raise TopologyError(f"{source} cannot be read: {error.strerror or error}") from error
        except UnicodeDecodeError:
            raise TopologyError(f"{source} holds characters that are not ASCII") from None
    if text is None:
        return None
    token = text.strip()
    if not SHORTEST <= len(token) <= LONGEST or not set(token) <= _ALLOWED:
        raise TopologyError(
            f"the token in {source} has {len(token)} characters or some that cannot be typed into a header; "
            f"{SHORTEST} to {LONGEST} printable ASCII characters without blanks are needed: "
            "`openssl rand -hex 32` makes one"
        )
    return token


def token_for(host: str, file: Path | None, environment: MutableMapping[str, str]) -> str | None:
    """The token that callers of a server bound to `host` must know; None on loopback, where none is needed.

    Raises:
        TopologyError: where others could reach the server and there is no token.
    """
    token = read_token(file, environment)
    if is_loopback(host):
        return None
    if token is None:
        raise TopologyError(
            f"REST on {host} can be reached by others, and there is no token: "
            f"put one into a file and give --token-file FILE (or set {TOKEN_VARIABLE}), or bind to 127.0.0.1"
        )
    return token


def _presented(header: str, basic: bool) -> str | None:
    """What the caller says the token is; None where it says nothing that can be read."""
    scheme, _, rest = header.partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer":
        return rest
    if basic and scheme.lower() == "basic":
        try:
            _, colon, password = base64.b64decode(rest, validate=True).decode("utf-8").partition(":")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return None
        return password if colon else None
    return None


def protect(app: Flask, token: str | None) -> None:
    """Refuse every call (unknown paths too) that does not know the token; with None everything is let in."""
    if token is None:
        return
    secret = token.encode()

    def check() -> Response | None:
        basic = request.path.startswith(BASIC_PATHS)
        presented = _presented(request.headers.get("Authorization", ""), basic)
        given = (presented or "").encode("utf-8", "surrogatepass")
        if hmac.compare_digest(given, secret):
            return None
        hint = "send `Authorization: Bearer TOKEN`"
        hint += ", or Basic authentication with the token as password" if basic else ""
        problem = Problem("Authorization", "unauthorised", "this call needs the controller's token", hint)
        answer = jsonify({"errors": [problem.as_dict()]})
        answer.status_code = 401
        answer.headers.add("WWW-Authenticate", 'Bearer realm="cohortnet"')
        if basic:
            answer.headers.add("WWW-Authenticate", 'Basic realm="cohortnet", charset="UTF-8"')
        return answer

    app.before_request(check)
