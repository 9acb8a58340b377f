"""Writes the shipped dashboards: `python -m monitoring.grafana.build`; with --check says whether they are up to date.

Needs the Grafana Foundation SDK (requirements-dev.txt). Whoever only uses the dashboards needs `dashboards/` alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from monitoring.grafana import DASHBOARDS
from monitoring.grafana.boards.fl_run import fl_run
from monitoring.grafana.boards.frame import ANNOTATIONS, annotation_extras
from monitoring.grafana.boards.mlfo import mlfo
from monitoring.grafana.boards.network import network
from monitoring.grafana.boards.nodes import nodes
from monitoring.grafana.boards.overview import overview
from monitoring.grafana.queries import panels

BOARDS = {"overview": overview, "fl-run": fl_run, "network": network, "nodes": nodes, "mlfo": mlfo}
"""File name without `.json` -> what builds it."""


def finished(builder: dashboard.Dashboard) -> dict[str, Any]:
    """A dashboard as Grafana's JSON: encoded by the SDK, every panel numbered, annotations with the keys that belong
    to the data source."""
    data: dict[str, Any] = json.loads(JSONEncoder(sort_keys=True).encode(builder.build()))
    data["id"] = None
    number = 0
    for panel in data["panels"]:
        number += 1
        panel["id"] = number
        for inner in panel.get("panels") or () if panel["type"] == "row" else ():
            number += 1
            inner["id"] = number
    for variable in data["templating"]["list"]:
        for unused in ("auto", "auto_count", "auto_min"):  # of variables that are intervals; the SDK gives them to all
            variable.pop(unused, None)
    extras = {annotation.name: annotation_extras(annotation) for annotation in ANNOTATIONS}
    for annotation in data["annotations"]["list"]:
        annotation.update(extras[annotation["name"]])
    for panel in panels(data):
        # A panel without a title or a description is a mistake of its builder.
        if not panel.get("title") or not panel.get("description"):
            raise ValueError(f"{data['title']}: panel {panel['id']} has no title or no description")
    return data


def text(data: dict[str, Any]) -> str:
    """The file's content."""
    return json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def contents() -> dict[str, str]:
    """File name -> content, of all dashboards."""
    return {f"{name}.json": text(finished(make())) for name, make in BOARDS.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; gives its exit status."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.grafana.build", description="Write the dashboards.")
    parser.add_argument("--out", type=Path, default=DASHBOARDS, metavar="DIR", help="folder (default: the shipped one)")
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 where a file is out of date")
    options = parser.parse_args(arguments)
    stale = []
    for name, content in contents().items():
        path = options.out / name
        if options.check:
            stale += [name] if not path.exists() or path.read_text(encoding="utf-8") != content else []
            continue
        options.out.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        print(path)
    if stale:
        print(f"out of date: {', '.join(stale)}; `python -m monitoring.grafana.build` writes them", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
