"""Finds and reads the logs of a testbed: of nodes' programs, of a run's processes, of daemons."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests

from cohortnet.terminal import known_node
from topology.errors import TopologyError

DOCKER_S = 30.0


def read_log(inventory: Mapping[str, Any], name: str, run: str | None, tail: int) -> str:
    """The last `tail` lines.

    Raises:
        TestbedProblems: where there is no such node or daemon, with those that there are.
        TopologyError: where its log cannot be read.
    """
    folder = Path(inventory["paths"]["logs"])
    node = known_node(inventory, name, sorted(path.stem for path in folder.glob("*.log")))
    if node is None:
        return _read(folder / f"{name}.log", tail)
    return _of_run(node, run, tail) if run else _of_program(node, tail)


def last_lines(file: Path, count: int) -> str:
    """The last `count` lines of a file, as they stand. Raises OSError where it cannot be read."""
    return "".join(file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)[-count:])


def end_of(file: Path, count: int = 8) -> str:
    """The end of a log for an error's text; "(no log)" where there is none."""
    try:
        return last_lines(file, count).rstrip("\n")
    except OSError:
        return "(no log)"


def _read(file: Path, tail: int) -> str:
    try:
        return last_lines(file, tail)
    except OSError as error:
        raise TopologyError(f"{file} cannot be read: {error.strerror}") from None


def _of_program(node: Mapping[str, Any], tail: int) -> str:
    if not node["container"] and not node["program"]:
        raise TopologyError(f"node {node['name']!r} runs no program of its own, so it has no log")
    if not node["container"]:
        return _read(Path(node["log"]), tail)
    command = ["docker", "logs", "--tail", str(tail), str(node["container"])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOCKER_S, check=False)
    except FileNotFoundError:
        raise TopologyError(f"{node['name']}: its log is Docker's, and the program `docker` is not installed here; "
                            "`cohortnet doctor` says how to install it") from None  # fmt: skip
    except subprocess.TimeoutExpired:
        raise TopologyError(f"{node['name']}: `{' '.join(command)}` did not answer within {DOCKER_S:g} s; "
                            "`docker info` says whether the daemon is well") from None  # fmt: skip
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
