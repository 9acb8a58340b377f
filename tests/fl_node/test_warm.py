"""Processes forked from a warmed parent run, stay small, and give the bits of processes started cold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fl_node.harness import REPOSITORY, Cohort, free_port

CONFIG: dict[str, Any] = {
    "model": "lenet",
    "dataset": "fashionmnist",
    "num-server-rounds": 1,
    "samples-per-client": 500,
}


def test_forked_processes_give_the_weights_of_cold_ones(cohort: Callable[..., Cohort]) -> None:
    """One thread in the parent, exit code 0 for all, small children, and the same hash."""
    cold = cohort(3, config=CONFIG).start()
    assert cold.wait() == 0, cold.log("server")

    port = free_port()
    forked = cohort(3, config=CONFIG, run="forked", server={"port": port}, client={"connect_timeout_s": 60})
    bodies: list[tuple[str, dict[str, Any]]] = []
    forked.spawn = lambda name, module, body: bodies.append((name, body))  # type: ignore[method-assign]
    forked.wait_event = lambda *a, **k: {"address": f"127.0.0.1:{port}"}  # type: ignore[method-assign]
    forked.start()
    forked.folder.mkdir(parents=True)
    files = []
    for name, body in bodies:
        files.append(str(forked.folder / f"{name}.json"))
        Path(files[-1]).write_text(json.dumps(body))
    done = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("warmed.py")),
            "image_classification",
            json.dumps(CONFIG),
            *files,
        ],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
        cwd=forked.folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert (report["threads"], report["tasks"]) == (1, 1)
    assert report["codes"] == [0, 0, 0, 0], forked.log("server") + forked.log("fc.10")
    assert report["pss_bytes"] < 200e6, report
    hashes = [each.events("run.finished")[0]["weights_sha256"] for each in (cold, forked)]
    assert hashes[0] == hashes[1]
