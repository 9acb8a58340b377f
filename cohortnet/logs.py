"""Finds and reads the logs of a testbed: of nodes' programs, of a run's processes, of daemons."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests

from topology.errors import TopologyError


def read_log(inventory: Mapping[str, Any], name: str, run: str | None, tail: int) -> str:
    """The last `tail` lines.

    Raises:
        TopologyError: where there is no such node or log, with those that there are.
    """
    nodes = {node["name"]: node for node in inventory["nodes"]}
    if name in nodes:
        return _of_run(nodes[name], run, tail) if run else _of_program(nodes[name], tail)
    file = Path(inventory["paths"]["logs"]) / f"{name}.log"
    if "/" in name or not file.exists():
        known = sorted(path.stem for path in Path(inventory["paths"]["logs"]).glob("*.log"))
        raise TopologyError(f"no node or daemon is called {name!r}; daemons with a log: {', '.join(known)}")
    return _last_lines(file, tail)


def _last_lines(file: Path, tail: int) -> str:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    except OSError as error:
        raise TopologyError(f"{file} cannot be read: {error.strerror}") from None
    return "".join(lines[-tail:])


def _of_program(node: Mapping[str, Any], tail: int) -> str:
    if not node["container"]:
        return _last_lines(Path(node["log"]), tail)
    command = ["docker", "logs", "--tail", str(tail), str(node["container"])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise TopologyError(f"{node['name']}: {done.stderr.strip()}")
    return done.stdout + done.stderr


def _of_run(node: Mapping[str, Any], run: str, tail: int) -> str:
    kind = "server" if node["role"] == "server" else "client"
    url = f"http://{node['management_address']}:5000/v1/logs/{run}"
    with requests.Session() as session:
        session.trust_env = False
        try:
            answer = session.get(url, params={"kind": kind, "tail": str(tail)}, timeout=(3.0, 15.0))
        except requests.RequestException as error:
            raise TopologyError(f"{node['name']}: its agent does not answer: {error}") from None
    if answer.status_code != 200:
        raise TopologyError(f"{node['name']}: {answer.text.strip()}")
    return answer.text
