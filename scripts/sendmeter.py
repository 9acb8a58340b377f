#!/usr/bin/env python3
"""Sets meters (limits of bandwidth) at the controller of a testbed: on cohorts, or the classic limit of the campuses.

Examples:
  scripts/sendmeter.py --cohort 1 --up 100mbit --down 100mbit
  scripts/sendmeter.py --cohort 1 --cohort 3 --up 20mbit
  scripts/sendmeter.py --cohorts 12 --up 20mbit --down 50mbit
  scripts/sendmeter.py --preset campus33
  scripts/sendmeter.py --show --json
  scripts/sendmeter.py --remove --cohorts 12

Each cohort K gets the meters cohort-K.up and cohort-K.down, of which each is one total for all its clients. The
preset campus33 limits swCampus1, swCampus2 and swCampus3, each to 33 Mbit/s upwards at the port towards the servers
(the port is looked up in the controller's topology); --up and --down change its rates. A second run changes nothing:
one meter each, with the same id.

Where the controller wants a token, COHORTNET_CONTROLLER_TOKEN holds it.

Exit status: 0 done, 1 the controller refused, 2 wrong use or no answer.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import deque
from typing import Any
from urllib.parse import quote

import requests

DEFAULT_URL = "http://127.0.0.1:8080"
CAMPUSES = ("swCampus1", "swCampus2", "swCampus3")
PRESETS = {"campus33": "33mbit"}
TIMEOUT = (5.0, 60.0)
MOST_COHORTS = 2000


class Wrong(Exception):
    """Wrong use, or nobody answers: exit status 2."""


class Refused(Exception):
    """The controller refused: exit status 1. Holds its errors."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__("\n".join(describe(error) for error in errors))
        self.errors = errors


def describe(error: dict[str, Any]) -> str:
    """One error of the controller as a line."""
    text = f"{error.get('path') or 'request'}: {error.get('message', '')} [{error.get('code', 'error')}]"
    return f"{text}\n    -> {error['hint']}" if error.get("hint") else text


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--url", default=DEFAULT_URL, help="the controller's REST (default: %(default)s)")
    p.add_argument("--cohort", action="append", default=[], metavar="NAME", help="a cohort; can be repeated")
    p.add_argument("--cohorts", type=int, metavar="N", help="all cohorts from 1 to N")
    p.add_argument("--preset", choices=PRESETS, help="33 Mbit/s upwards on each of three campus switches")
    p.add_argument("--up", metavar="RATE", help="from client to server, such as 100mbit")
    p.add_argument("--down", metavar="RATE", help="from server to client")
    p.add_argument("--burst", metavar="SIZE", help="such as 10mbit (default: 1 s of the rate; 50 ms of a queue)")
    p.add_argument("--enforce", choices=("auto", "drop", "queue"), help="how (default: auto)")
    p.add_argument("--show", action="store_true", help="show the meters (only those named, where some are)")
    p.add_argument("--remove", action="store_true", help="take the named meters away")
    p.add_argument("--json", action="store_true", help="print one JSON document")
    return p


def call(url: str, method: str, path: str, body: Any = None) -> Any:
    """One request. Raises Wrong where nobody answers, Refused with the controller's errors."""
    token = os.environ.get("COHORTNET_CONTROLLER_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with requests.Session() as session:
        session.trust_env = False  # a proxy of the environment is no way to a controller
        try:
            answer = session.request(method, url + path, json=body, headers=headers, timeout=TIMEOUT)
        except requests.RequestException as error:
            raise Wrong(f"no controller answers at {url}: is the testbed up? (--url names another): {error}") from error
    try:
        content = answer.json() if answer.content else {}
    except ValueError:
        content = {}
    if answer.status_code >= 400:
        errors = content.get("errors") if isinstance(content, dict) else None
        raise Refused(errors or [{"path": path, "code": str(answer.status_code), "message": answer.text[:300]}])
    return content


def uplink(topology: dict[str, Any], campus: str) -> int:
    """The port of that switch that leads towards the servers: the first step of a shortest path to `fed.*`. Pure.

    Raises Wrong where the switch or the servers are not there.
    """
    ways: dict[str, list[tuple[int, str]]] = {switch["name"]: [] for switch in topology["switches"]}
    if campus not in ways:
        campuses = [name for name in ways if name.startswith("swCampus")]
        raise Wrong(f"the preset needs {', '.join(CAMPUSES)}, and this testbed has "
                    f"{', '.join(campuses) or 'no campus switch'}; raise it with --campuses 3")  # fmt: skip
    servers = {node["switch"] for node in topology["nodes"] if node["name"].startswith("fed.")}
    if not servers:
        raise Wrong("the preset needs FL servers called fed.1, fed.2, ..., and this testbed has none; "
                    "`cohortnet meter set NAME --switch S --port N --up 33mbit` limits any port")  # fmt: skip
    for link in topology["links"]:
        ways[link["a"]].append((link["a_port"], link["b"]))
        ways[link["b"]].append((link["b_port"], link["a"]))
    todo = deque((port, peer) for port, peer in ways[campus])
    seen = {campus}
    while todo:
        first, switch = todo.popleft()
        if switch in servers:
            return first
        if switch not in seen:
            seen.add(switch)
            todo.extend((first, peer) for _, peer in ways[switch])
    raise Wrong(f"no path leads from {campus} to the FL servers")


def bases(args: argparse.Namespace) -> list[tuple[str, dict[str, Any]]]:
    """(name, target) of all that the options name, without directions."""
    if args.cohorts is not None and not 1 <= args.cohorts <= MOST_COHORTS:
        raise Wrong(f"--cohorts {args.cohorts}: a number from 1 to {MOST_COHORTS} is wanted")
    cohorts = dict.fromkeys([*args.cohort, *(str(k) for k in range(1, (args.cohorts or 0) + 1))])
    named: list[tuple[str, dict[str, Any]]] = [(f"cohort-{c}", {"kind": "cohort", "name": c}) for c in cohorts]
    if args.preset:
        topology = call(args.url, "GET", "/v1/topology")
        for campus in CAMPUSES:
            target = {"kind": "port", "switch": campus, "port": uplink(topology, campus)}
            named.append((f"{args.preset}-{campus}", target))
    return named


def wanted(args: argparse.Namespace, named: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """The meters to set. Raises Wrong where a rate is missing."""
    rates = {"up": args.up, "down": args.down}
    if args.preset and not (args.up or args.down):
        rates["up"] = PRESETS[args.preset]
    if not any(rates.values()):
        raise Wrong("which rate? Give --up 100mbit, --down 100mbit or both")
    more = {key: value for key, value in (("burst", args.burst), ("enforce", args.enforce)) if value is not None}
    return [
        {"name": f"{base}.{way}", "target": target, "direction": way, "rate": rate, **more}
        for base, target in named
        for way, rate in rates.items()
        if rate
    ]


def line(meter: dict[str, Any]) -> str:
    """A meter for people."""
    rate = f"{meter['rate'] / 1e6:g} Mbit/s" if meter["unit"] == "bit/s" else f"{meter['rate']} packet/s"
    places = [
        f"{e['switch']} meter {e['meter_id']}" if e.get("meter_id") is not None else f"queue at {e.get('interface')}"
        for e in meter.get("entries") or ()
    ]
    state = "pending" if meter.get("pending") else meter["in_force"]
    return f"{meter['name']}: {rate} {meter['direction']}, {state}" + (f" at {', '.join(places)}" if places else "")


def work(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Do what the options say; gives the meters that were set, shown or removed."""
    named = bases(args)
    if args.show or args.remove:
        if args.up or args.down or args.burst or args.enforce:
            raise Wrong("rates, --burst and --enforce have no effect with --show and --remove")
        if args.show and args.remove:
            raise Wrong("--show and --remove cannot be combined")
        if args.remove and not named:
            raise Wrong("remove what? Give --cohort 1, --cohorts N or --preset campus33")
        ours = {f"{base}.{way}" for base, _ in named for way in ("up", "down")}
        meters = [m for m in call(args.url, "GET", "/v1/meters")["meters"] if not named or m["name"] in ours]
        if args.remove:
            for meter in meters:
                call(args.url, "DELETE", f"/v1/meters/{quote(meter['name'], safe='')}")
        return meters
    if not named:
        raise Wrong("limit what? Give --cohort 1, --cohorts N or --preset campus33 (--help shows examples)")
    meters = wanted(args, named)
    call(args.url, "PUT", "/v1/meters", {"meters": meters})
    names = {meter["name"] for meter in meters}
    return [meter for meter in call(args.url, "GET", "/v1/meters")["meters"] if meter["name"] in names]


def main(argv: list[str] | None = None) -> int:
    """Exit status."""
    args = parser().parse_args(argv)
    args.url = args.url.rstrip("/")
    try:
        meters = work(args)
    except Wrong as error:
        if args.json:
            print(json.dumps({"errors": [{"message": str(error)}]}, indent=1))
        print(f"sendmeter: {error}", file=sys.stderr)
        return 2
    except Refused as error:
        if args.json:
            print(json.dumps({"errors": error.errors}, indent=1))
        print(f"sendmeter: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps({"removed" if args.remove else "meters": meters}, indent=1))
        return 0
    for meter in meters:
        print(("removed " if args.remove else "") + line(meter))
    if not meters:
        print("no meter of that name" if args.cohort or args.cohorts or args.preset else "no meters")
    return 0


if __name__ == "__main__":
    sys.exit(main())
