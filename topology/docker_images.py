"""What an image brings: its own command, its user, and whether it holds what a node of ours needs.

Looks into an image by running one short-lived container of it without network; that container carries the
testbed's label until it is removed, so that `down` finds it too.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import docker
import requests
from docker.errors import APIError, DockerException, NotFound

from topology.errors import Problem

LINT_TIMEOUT_S = 20.0
BUILD_HINT = "build it: `sudo ./scripts/build_image.sh`"

_SCRIPT = """
while [ "$1" != -- ]; do command -v "$1" >/dev/null 2>&1 || echo "program $1"; shift; done; shift
if [ $# -gt 0 ] && command -v python >/dev/null 2>&1; then
  python -c 'import importlib.util, sys
for name in sys.argv[1:]:
    if importlib.util.find_spec(name) is None: print("module", name)' "$@"
fi
"""


@dataclass(frozen=True)
class ImageFacts:
    """`identity` is the image's digest, `user` empty for root; `has_command` is false for one without CMD and
    ENTRYPOINT.
    """

    name: str
    identity: str
    has_entrypoint: bool
    has_command: bool
    user: str


@dataclass(frozen=True)
class ImageNeeds:
    """What the nodes of one image expect in it: programs by name and Python packages by name."""

    programs: tuple[str, ...]
    modules: tuple[str, ...]


def image_facts(client: docker.APIClient, image: str) -> ImageFacts:
    """Raises docker.errors.ImageNotFound where there is no such image here."""
    data = client.inspect_image(image)
    config = data.get("Config") or {}
    entrypoint, command = config.get("Entrypoint"), config.get("Cmd")
    return ImageFacts(
        image, str(data["Id"]), bool(entrypoint), bool(entrypoint or command), config.get("User") or ""
    )


def missing_image(image: str) -> Problem:
    """The problem that an image is not on this machine, with the command that brings it."""
    ours = image.startswith("cohortnet/node")
    hint = BUILD_HINT if ours else f"`docker pull {image}`, build it, or choose another `image:`"
    return Problem("image", "missing-image", f"the image {image!r} is not on this machine", hint)


def image_needs(programs: Sequence[tuple[str, ...]], *, has_entrypoint: bool) -> ImageNeeds:
    """What these commands of nodes need; with an entry point the first word is only its argument."""
    tools: dict[str, None] = {"ip": None, "ping": None}
    modules: dict[str, None] = {}
    for program in programs:
        if not has_entrypoint:
            tools[program[0]] = None
        if program[0] == "python" and len(program) > 2 and program[1] == "-m":
            modules[program[2].split(".")[0]] = None
    return ImageNeeds(tuple(tools), tuple(modules))


_linted: dict[tuple[str, ImageNeeds], list[Problem]] = {}


def lint_image(
    client: docker.APIClient, image: ImageFacts, needs: ImageNeeds, labels: Mapping[str, str]
) -> list[Problem]:
    """What the image lacks of `needs`, by looking inside; remembered by its digest for this process."""
    key = (image.identity, needs)
    if key not in _linted:
        try:
            lacking = _look_inside(client, image.name, needs, labels)
        except (DockerException, requests.RequestException) as error:
            # Not remembered: the daemon may answer the next time.
            return [_problem(image.name, f"could not be looked into: {explanation(error)}")]
        _linted[key] = [_problem(image.name, f"lacks {what}") for what in lacking]
    return _linted[key]


def _problem(image: str, what: str) -> Problem:
    ours = image.startswith("cohortnet/node")
    hint = (
        BUILD_HINT
        if ours
        else "add it to the image, or choose another `image:` (docs/architecture.md says what nodes run)"
    )
    return Problem("image", "unfit-image", f"the image {image!r} {what}", hint)


def _look_inside(
    client: docker.APIClient, image: str, needs: ImageNeeds, labels: Mapping[str, str]
) -> list[str]:
    name = f"cohortnet-check-{uuid.uuid4().hex[:12]}"
    container = client.create_container(
        image,
        command=["-c", _SCRIPT, "sh", *needs.programs, "--", *needs.modules],
        entrypoint=["sh"],
        name=name,
        labels=dict(labels),
        host_config=client.create_host_config(network_mode="none", mem_limit=512 * 2**20, init=True),
    )["Id"]
    try:
        client.start(container)
        status = client.wait(container, timeout=LINT_TIMEOUT_S)["StatusCode"]
        output = client.logs(container, stdout=True, stderr=True, tail=50).decode(errors="replace")
    finally:
        with contextlib.suppress(NotFound):
            client.remove_container(container, force=True, v=True)
    found = [line.split(" ", 1) for line in output.splitlines() if line.startswith(("program ", "module "))]
    if status != 0:
        return [f"a working shell (status {status}: {output.strip()[-200:] or 'no message'})"]
    kinds = (("program", "program"), ("module", "Python package"))
    return [f"the {word} `{name}`" for kind, word in kinds for key, name in found if key == kind]


def explanation(error: Exception) -> str:
    """The daemon's own words, without the HTTP around them."""
    if isinstance(error, APIError) and error.explanation:
        return str(error.explanation).strip()
    if isinstance(error, requests.Timeout):
        return "the Docker daemon did not answer in time"
    return str(error).strip() or type(error).__name__
