"""A testbed under a controller that is not ours, and one under none, raised through the command line."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.conftest import REPOSITORY, Raise, delay_options, run
from tests.system.leftovers import wait_for_none
from tests.topology.engine.lab import free_port

pytestmark = pytest.mark.live


def write_testbed(folder: Path, name: str, controller: dict[str, Any], **more: Any) -> str:
    """A network of two switches without programs in its nodes; YAML is a superset of JSON."""
    nodes = [{"name": node} for node in ("a", "b", "c", "d")]
    links = [{"a": "a", "b": "s1"}, {"a": "b", "b": "s1"}, {"a": "c", "b": "s2"}, {"a": "d", "b": "s2"}]
    data = {"name": name, "runtime": "namespace", "nodes": nodes, "switches": [{"name": "s1"}, {"name": "s2"}],
            "links": [*links, {"a": "s1", "b": "s2"}], "publish": [], "controller": controller, **more}  # fmt: skip
    file = folder / f"{name}.yaml"
    file.write_text(json.dumps(data))
    return str(file)


@contextlib.contextmanager
def learning_switch(port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The controller process, listening."""
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "tests.system.learning_switch", str(port)],
                                   cwd=REPOSITORY, stdout=output, stderr=subprocess.STDOUT)  # fmt: skip
        try:
            deadline = time.monotonic() + 30
            while True:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                time.sleep(0.1)
            yield process
        finally:
            process.kill()
            process.wait()


def lost_percent(name: str, source: str, target: str, count: int = 3) -> float:
    done = run("exec", "--testbed", name, source, "ping", "-q", "-i", "0.2", "-c", str(count), "-W", "2", target,
               check=False)  # fmt: skip
    words = done.stdout.split()
    return float(next(word for word in words if word.endswith("%")).rstrip("%"))


def pings(name: str) -> None:
    """Every pair answers."""
    for source, targets in (("a", "bcd"), ("b", "cd"), ("c", "d")):
        for target in targets:
            assert lost_percent(name, source, target) == 0, f"{source} -> {target}"


def test_switches_are_steered_by_an_external_controller(testbed: Raise, tmp_path: Path) -> None:
    port = free_port()
    with learning_switch(port, tmp_path / "controller.log") as controller:
        address = f"127.0.0.1:{port}"
        name = "t-user-ext"
        inventory = testbed(name, write_testbed(tmp_path, name, {"kind": "external", "address": address}))
        assert inventory["core"]["controller"] == {
            "kind": "external", "openflow": "127.0.0.1:6653", "rest": "127.0.0.1:8080", "address": address,
        }  # fmt: skip
        assert inventory["core"]["fail_mode"] == "secure"
        assert [port for port in inventory["published"] if port["node"] is None] == []
        pings(name)
        done = run("meter", "show", "--testbed", name, check=False)
        assert done.returncode == 1 and address in done.stderr, done.stderr
        # Fail mode secure: what the controller installed stays in force without it.
        controller.kill()
        controller.wait()
        assert lost_percent(name, "a", "d", count=5) == 0
    run("down", name)
    assert wait_for_none(name) == []


def test_a_controller_that_comes_back_is_found_again(testbed: Raise, tmp_path: Path) -> None:
    port = free_port()
    name = "t-user-back"
    with learning_switch(port, tmp_path / "first.log"):
        testbed(name, write_testbed(tmp_path, name, {"kind": "external", "address": f"127.0.0.1:{port}"}))
    with learning_switch(port, tmp_path / "second.log"):
        deadline = time.monotonic() + 15
        while lost_percent(name, "a", "c", count=1) > 0:  # nothing was learnt before: only a controller forwards
            assert time.monotonic() < deadline, "the switches did not come back to their controller"
        pings(name)


@pytest.mark.parametrize("answers", [False, True])
def test_a_controller_that_is_not_there_is_named_and_nothing_is_left(tmp_path: Path, answers: bool) -> None:
    name = f"t-user-no{int(answers)}"
    with socket.create_server(("127.0.0.1", 0)) as listening:  # takes connections and never says a word
        port = listening.getsockname()[1] if answers else free_port()
        file = write_testbed(tmp_path, name, {"kind": "external", "address": f"127.0.0.1:{port}"})
        start = time.monotonic()
        done = run("up", file, *delay_options(), check=False)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert f"127.0.0.1:{port}" in done.stderr and "s1, s2" in done.stderr
        assert ("OpenFlow 1.3" if answers else "refused") in done.stderr
        assert time.monotonic() - start < 60
    assert wait_for_none(name) == []


def test_learning_switches_without_controller_forward(testbed: Raise, tmp_path: Path) -> None:
    name = "t-user-none"
    inventory = testbed(name, write_testbed(tmp_path, name, {"kind": "none"}))
    assert inventory["core"]["fail_mode"] == "standalone"
    pings(name)
    done = run("show", "flows", "--testbed", name, check=False)
    assert done.returncode == 1 and "no controller" in done.stderr
