#!/usr/bin/env python3
"""Sends intents to an edge MLFO: one after another, each to its own run of consecutive clients.

Examples:
  scripts/sendintent.py --intent intents/drilling.yaml --sizes 4,4 --rounds 3 --wait
  scripts/sendintent.py --preset 30-10-10 --wait --json
  scripts/sendintent.py --intent intents/welding.yaml --intent intents/cutting.yaml --preset 5x10
  scripts/sendintent.py --scenario scenario.yaml --wait

A scenario is a YAML file; every key but "intent" may be left out:
  url: http://127.0.0.1:8000
  intents:
    - {intent: intents/welding.yaml, ipstart: 10, cohortsize: 4, numround: 3, fracfit: 1.0, minfit: 4, minav:
    4}
    - {intent: intents/drilling.yaml, cohort: "2", delay_s: 5}

Exit status: 0 all accepted (with --wait: all succeeded), 1 some refused or failed, 2 wrong use or no answer.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import requests
import yaml

# The cohort sizes that senders of this family know by number.
PRESETS = {
    "30-10-10": [30, 10, 10],
    "5x10": [10] * 5,
    "12x4": [4] * 12,
    "8x6": [6] * 8,
    "1x50": [50],
    "3x10": [10] * 3,
    "1x30": [30],
}
FIELDS = (
    "ipstart",
    "cohortsize",
    "sameserver",
    "avgalgo",
    "fracfit",
    "minfit",
    "minav",
    "numround",
    "cohort",
)
ENDED = ("succeeded", "failed", "cancelled")
ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = (5.0, 30.0)


class Wrong(Exception):
    """Wrong use, or nobody answers: exit status 2."""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--url", help="the edge MLFO (default: http://127.0.0.1:8000)")
    p.add_argument(
        "--intent",
        action="append",
        metavar="FILE",
        help="intent file; several are sent in turn (default: intents/drilling.yaml)",
    )
    which = p.add_mutually_exclusive_group()
    which.add_argument("--preset", choices=PRESETS, help="cohort sizes by name")
    which.add_argument("--sizes", help="cohort sizes, e.g. 4,4")
    which.add_argument("--scenario", type=Path, metavar="FILE", help="a scenario file (see above)")
    p.add_argument(
        "--first", type=int, default=10, metavar="N", help="first client is 10.0.1.N (default: %(default)s)"
    )
    p.add_argument("--rounds", type=int, help="rounds (default: 20)")
    p.add_argument("--fracfit", type=float, help="share of clients a round (default: 0.5)")
    p.add_argument("--minfit", type=int, help="least clients a round (default: 1)")
    p.add_argument("--minav", type=int, help="least clients present (default: 1)")
    p.add_argument("--avgalgo", help="strategy (default: FedAvg)")
    p.add_argument("--delay", type=float, default=0.0, metavar="S", help="wait between intents (default: 0)")
    p.add_argument("--wait", action="store_true", help="follow the intents to their ends, with progress")
    p.add_argument(
        "--timeout",
        type=float,
        default=3600.0,
        metavar="S",
        help="with --wait: give up after this (default: %(default)s)",
    )
    p.add_argument("--json", action="store_true", help="print one JSON document at the end")
    return p


def planned(args: argparse.Namespace) -> tuple[str, list[dict[str, Any]]]:
    """The URL and what to send: a list of {intent, delay_s, form fields}."""
    if args.scenario:
        given = [
            o
            for o in ("intent", "rounds", "fracfit", "minfit", "minav", "avgalgo")
            if getattr(args, o) is not None
        ]
        if given:
            raise Wrong(f"--{given[0]} has no effect with --scenario: write it into {args.scenario}")
        return scenario(args.scenario, args.url)
    try:
        sizes = PRESETS[args.preset] if args.preset else [int(s) for s in (args.sizes or "4").split(",")]
    except ValueError as error:
        raise Wrong(f"--sizes {args.sizes!r}: whole numbers with commas are wanted, e.g. 4,4") from error
    if any(s < 1 for s in sizes):
        raise Wrong(f"--sizes {args.sizes}: each must be 1 or more")
    files = args.intent or [str(ROOT / "intents" / "drilling.yaml")]
    sends, first = [], args.first
    for index, size in enumerate(sizes):
        sends.append(
            {
                "intent": files[index % len(files)],
                "delay_s": args.delay if index else 0.0,
                "ipstart": first,
                "cohortsize": size,
                "sameserver": "no" if index else "nor",
                "avgalgo": args.avgalgo or "FedAvg",
                "fracfit": 0.5 if args.fracfit is None else args.fracfit,
                "minfit": 1 if args.minfit is None else args.minfit,
                "minav": 1 if args.minav is None else args.minav,
                "numround": 20 if args.rounds is None else args.rounds,
            }
        )
        first += size
    return args.url or "http://127.0.0.1:8000", sends


def scenario(path: Path, url: str | None) -> tuple[str, list[dict[str, Any]]]:
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise Wrong(f"scenario {path} cannot be read: {error}") from error
    faults = []
    if (
        not isinstance(content, dict)
        or not isinstance(content.get("intents"), list)
        or not content["intents"]
    ):
        raise Wrong(f"scenario {path}: a mapping with a list 'intents' is wanted, see --help")
    faults += [f"unknown key '{k}'; known: url, intents" for k in content if k not in ("url", "intents")]
    for i, entry in enumerate(content["intents"]):
        if not isinstance(entry, dict) or not isinstance(entry.get("intent"), str):
            faults.append(f"intents[{i}]: a mapping with 'intent: FILE' is wanted")
            continue
        known = ("intent", "delay_s", *FIELDS)
        faults += [
            f"intents[{i}]: unknown key '{k}'; known: {', '.join(known)}" for k in entry if k not in known
        ]
        delay = entry.get("delay_s", 0)
        if isinstance(delay, bool) or not isinstance(delay, (int, float)) or not 0 <= delay <= 86400:
            faults.append(f"intents[{i}].delay_s: seconds from 0 to 86400 are wanted, found {delay!r}")
    if faults:
        raise Wrong(f"scenario {path} has {len(faults)} fault(s):\n  " + "\n  ".join(faults))
    return str(url or content.get("url") or "http://127.0.0.1:8000"), [
        {"delay_s": 0.0, **e} for e in content["intents"]
    ]


def send(url: str, entry: dict[str, Any]) -> dict[str, Any]:
    """Posts one intent; the answer, with its HTTP status."""
    path = Path(entry["intent"])
    try:
        text = path.read_bytes()
    except OSError as error:
        raise Wrong(f"intent {path} cannot be read: {error}") from error
    # YAML reads "no" as false: a scenario's sameserver means the word.
    words = {True: "yes", False: "no"}
    data = {k: words[entry[k]] if isinstance(entry[k], bool) else str(entry[k]) for k in FIELDS if k in entry}
    answer = call("POST", f"{url}/receive", files={"file": (path.name, text)}, data=data)
    return {**answer[1], "http_status": answer[0], "file": str(path)}


def call(method: str, url: str, **rest: Any) -> tuple[int, dict[str, Any]]:
    try:
        answer = requests.request(method, url, timeout=TIMEOUT, **rest)
        content = answer.json()
    except requests.ConnectionError as error:
        raise Wrong(f"nobody answers at {url}: is the testbed up? (--url names the edge MLFO)") from error
    except (requests.RequestException, ValueError) as error:
        raise Wrong(f"{method} {url}: {error}") from error
    return answer.status_code, content if isinstance(content, dict) else {"answer": content}


def wait(url: str, runs: list[str], timeout_s: float, say: Any) -> dict[str, dict[str, Any]]:
    """Follows the intents until all have ended; their last records."""
    end = time.monotonic() + timeout_s
    since = dict.fromkeys(runs, 0)
    records: dict[str, dict[str, Any]] = {}
    while True:
        for run in runs:
            if records.get(run, {}).get("state") in ENDED:
                continue
            records[run] = call("GET", f"{url}/v1/intents/{run}")[1]
            since[run] = progress(url, run, since[run], say)
        left = [r for r in runs if records[r].get("state") not in ENDED]
        if not left:
            return records
        if time.monotonic() > end:
            raise Wrong(f"not ended after {timeout_s:g} s: {', '.join(left)}")
        time.sleep(0.5)


def progress(url: str, run: str, since: int, say: Any) -> int:
    """Says what is new in a run; the number of its last event."""
    try:
        text = requests.get(
            f"{url}/v1/intents/{run}/events", params={"since": str(since), "follow": "false"}, timeout=TIMEOUT
        ).text
    except requests.RequestException:
        return since  # the next look brings it
    for line in text.splitlines():
        if not line.startswith("data: "):
            continue
        event = json.loads(line[6:])
        since = event["seq"]
        kind, metrics = event["kind"], event.get("metrics") or {}
        if kind == "round.metrics" and "accuracy" in metrics:
            say(f"{run}: round {event.get('round')} {event.get('source')} accuracy {metrics['accuracy']:.4f}")
        elif kind.startswith("intent.") and kind != "intent.resolved":
            extra = event.get("reason") or event.get("server") or ""
            say(f"{run}: {kind.removeprefix('intent.')}{f' ({extra})' if extra else ''}")
    return since


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)

    def say(text: str) -> None:
        print(text, file=sys.stderr if args.json else sys.stdout, flush=True)

    try:
        url, sends = planned(args)
        url = url.rstrip("/")
        answers = []
        for entry in sends:
            time.sleep(entry["delay_s"])
            answer = send(url, entry)
            answers.append(answer)
            if answer["http_status"] == 202:
                say(f"{answer['id']}: accepted, server {answer['server']}, {len(answer['clients'])} clients")
                for note in answer.get("notes", []):
                    say(f"{answer['id']}: note: {note}")
            else:
                for problem in answer.get("errors", [{"message": str(answer)}]):
                    hint = f" ({problem['hint']})" if problem.get("hint") else ""
                    say(
                        f"{answer['file']}: refused: {problem.get('path', '')}: "
                        f"{problem.get('message')}{hint}"
                    )
        runs = [a["id"] for a in answers if a["http_status"] == 202]
        records = wait(url, runs, args.timeout, say) if args.wait else {}
    except Wrong as error:
        print(f"sendintent: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps({"intents": [records.get(a.get("id", ""), a) for a in answers]}, indent=2))
    refused = len(runs) < len(answers)
    unmet = any(r.get("state") != "succeeded" for r in records.values())
    return 1 if refused or unmet else 0


if __name__ == "__main__":
    sys.exit(main())
