"""Raising a whole testbed (network, programs of nodes, recorder) and removing it. The only place that knows the order
of all of it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import requests
import yaml

from cohortnet import monitoring_daemon
from cohortnet.logs import end_of
from cohortnet.series_keeper import wait_kept
from fl_node.spawner_client import Spawned, Spawner, SpawnerError
from topology.engine import engine, interrupts, launch, state
from topology.engine.removal import Removal
from topology.errors import TopologyError
from topology.model import Testbed
from topology.plan import Plan
from topology.traffic import client as traffic

ProgressCall = Callable[[str, int, int], None]
AGENT_ROLES = ("client", "server")
MLFO_ROLES = ("mlfo-edge", "mlfo-central")
WORKERS = 16
DEFAULT_APPLICATION = "image_classification"


def raise_all(plan: Plan, testbed: Testbed, runs: Path, progress: ProgressCall) -> dict[str, Any]:
    """Raise the testbed completely: when this returns, every agent and MLFO answers. Gives the inventory.

    Whatever fails, nothing is left behind.

    Raises:
        TopologyError: naming the part that failed.
    """
    spawns = plan.runtime == "namespace" and any(node.program for node in plan.nodes)

    spawner: list[subprocess.Popen[bytes]] = []

    def before_nodes(_: Mapping[str, Any]) -> None:
        # Its imports take seconds: they pass while the network is being made.
        if spawns:
            spawner.append(_start_spawner(plan))

    inventory = engine.raise_testbed(plan, progress, before_nodes_start=before_nodes)
    try:
        (plan.state / "testbed.yaml").write_text(_testbed_text(testbed), encoding="utf-8")
        runs_file(plan.testbed).write_text(str(runs.resolve()), encoding="utf-8")
        (plan.state / "plan.json").write_text(json.dumps(plan.as_dict(), indent=1) + "\n", encoding="utf-8")
        monitoring = None if plan.monitoring is None else monitoring_daemon.begin(plan)
        programs = _start_programs(plan, spawner[0], inventory, progress) if spawns else {}
        wait_ready(inventory, programs, progress)
        if monitoring is not None:
            monitoring_daemon.wait(plan, monitoring, progress)
        if any(node.role == "mlfo-edge" for node in plan.nodes):
            argv = [sys.executable, "-m", "cohortnet.recorder", "--inventory", str(plan.inventory),
                    "--runs", str(runs.resolve())]  # fmt: skip
            launch.start_daemon(plan.testbed, argv, plan.logs / "recorder.log")
        for problem in traffic.begin(inventory):
            print(f"cohortnet: {problem}", file=sys.stderr)
    except BaseException as error:
        with interrupts.uninterrupted():
            removal = engine.remove_testbed(plan.testbed, lambda *_: None)
        if removal.left:
            error.add_note(f"and these could not be removed: {'; '.join(removal.left)}; "
                           f"`sudo cohortnet down {plan.testbed}` tries again")  # fmt: skip
        raise
    return inventory


def runs_file(testbed: str) -> Path:
    """Where a testbed's state says which folder its runs are recorded in."""
    return state.folder(testbed) / "runs"


def remove_all(name: str, progress: ProgressCall) -> Removal:
    """Remove a testbed in whatever state it is. Recorded runs stay; those that have just ended get their series first.
    """
    with suppress(OSError):
        wait_kept(Path(runs_file(name).read_text(encoding="utf-8")), name, progress)
    return engine.remove_testbed(name, progress)


def _testbed_text(testbed: Testbed) -> str:
    # SI numbers in a comment-free form: the plan beside it is what was built, this is what was asked for.
    return yaml.safe_dump(testbed.model_dump(mode="json", exclude_defaults=True), sort_keys=False)


def _start_spawner(plan: Plan) -> subprocess.Popen[bytes]:
    argv = [
        sys.executable,
        "-m",
        "fl_node.spawner",
        "--inventory",
        str(plan.inventory),
        "--socket",
        str(plan.spawner),
    ]
    if any(node.role == "client" for node in plan.nodes):
        argv += ["--warm", DEFAULT_APPLICATION]
    return launch.start_daemon(plan.testbed, argv, plan.logs / "spawner.log")


def _start_programs(
    plan: Plan, process: subprocess.Popen[bytes], inventory: Mapping[str, Any], progress: ProgressCall
) -> dict[str, Spawned]:
    nodes = [node for node in inventory["nodes"] if node["program"]]
    deadline = time.monotonic() + 60.0
    while not plan.spawner.exists():
        if time.monotonic() > deadline or process.poll() is not None:
            raise TopologyError(f"the spawner did not start; {plan.logs}/spawner.log says why")
        time.sleep(0.05)
    spawner = Spawner(plan.spawner)
    started: dict[str, Spawned] = {}
    progress("programs", 0, len(nodes))

    def start(node: Mapping[str, Any]) -> tuple[str, Spawned]:
        try:
            return node["name"], spawner.start(
                node["name"], node["program"], env=node["environment"], log=node["log"], lease=False
            )
        except SpawnerError as error:
            raise TopologyError(f"{node['name']}: its program did not start: {error}") from None

    with ThreadPoolExecutor(WORKERS) as pool:
        for name, spawned in pool.map(start, nodes):
            started[name] = spawned
            progress("programs", len(started), len(nodes))
    return started


def wait_ready(inventory: Mapping[str, Any], programs: Mapping[str, Spawned], progress: ProgressCall) -> None:
    """Wait until every agent and MLFO answers; the deadline grows with their number (they share the processors)."""
    watched = [n for n in inventory["nodes"] if n["program"] and n["role"] in (*AGENT_ROLES, *MLFO_ROLES)]
    deadline = time.monotonic() + 60.0 + 2.0 * len(watched)
    progress("agents ready", 0, len(watched))

    def wait(node: Mapping[str, Any]) -> None:
        port = 8000 if node["role"] in MLFO_ROLES else 5000
        url = f"http://{node['management_address']}:{port}/v1/status"
        with requests.Session() as session:
            session.trust_env = False
            while True:
                try:
                    if session.get(url, timeout=(1.0, 5.0)).status_code == 200:
                        return
                except requests.RequestException:
                    pass
                if _ended(node, programs.get(node["name"])):
                    raise TopologyError(f"{node['name']}: its program has ended; {_tail(node)}")
                if time.monotonic() > deadline:
                    raise TopologyError(f"{node['name']}: its program does not answer at {url}; {_tail(node)}")
                time.sleep(0.1)

    with ThreadPoolExecutor(WORKERS) as pool:
        for done, _ in enumerate(pool.map(wait, watched), start=1):
            progress("agents ready", done, len(watched))


def _ended(node: Mapping[str, Any], program: Spawned | None) -> bool:
    # A container ends with its program; in the namespace runtime the spawner knows.
    if program is None:
        return not Path(f"/proc/{node['pid']}").exists()
    return program.wait(0.01) is not None


def _tail(node: Mapping[str, Any]) -> str:
    if node["container"]:
        return f"`docker logs {node['container']}` says why"
    return f"last lines of {node['log']}:\n{end_of(Path(node['log']))}"
