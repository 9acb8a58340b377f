"""Code of applications that are not shipped is never run on the host: the real spawner, agent and server."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fl_node import applications
from fl_node.spawner.__main__ import FIXED_ENVIRONMENT
from fl_node.spawner_client import Spawner, SpawnerError
from tests.fl_node.nodes import Nest, wait_until
from tests.fl_node.test_agent_in_node import AgentInNode
from tests.fl_node.test_spawner import ROOT

SPAWNER = [sys.executable, "-m", "fl_node.spawner"]
ENVIRONMENT = {**os.environ, **FIXED_ENVIRONMENT, "PYTHONPATH": str(ROOT)}
CUSTOM = ROOT / "tests" / "fl_node" / "apps" / "custom"
RECORD = """
import json, os
with open({path!r}, "a") as file:
    where = {{"net": os.readlink("/proc/self/ns/net"), "pid": os.getpid(),
              "cgroup": open("/proc/self/cgroup").read()}}
    file.write(json.dumps(where) + "\\n")
"""


@pytest.fixture
def nest(tmp_path: Path) -> Iterator[Nest]:
    assert os.geteuid() == 0, "these tests make namespaces: run them as root"
    with contextlib.closing(Nest(tmp_path, SPAWNER, ENVIRONMENT)) as made:
        made.add("fed.1")
        made.write()
        yield made


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """An application outside the project, whose package writes down where it is imported."""
    folder = tmp_path / "custom"
    package = folder / "custom_app"
    package.mkdir(parents=True)
    for path in (CUSTOM / "pyproject.toml", *(CUSTOM / "custom_app").glob("*.py")):
        (folder / path.relative_to(CUSTOM)).write_text(path.read_text())
    (package / "__init__.py").write_text(RECORD.format(path=str(tmp_path / "imports")))
    return folder


@pytest.mark.live
def test_its_code_is_first_imported_inside_the_node(nest: Nest, foreign: Path) -> None:
    """A server and a client of it run, without any template; every import is in the node and its cgroup."""
    agent = AgentInNode(nest, "fed.1", "fl_node.agent")
    body = {"run_id": "foreign", "application": str(foreign), "config": {}}
    agent.call("POST", "/v1/server", {**body, "clients": ["fc.1"], "join_timeout_s": 60})
    agent.wait("foreign", "listening", 60)
    client = {"server": "127.0.0.1:6000", "partition_id": 0, "num_partitions": 1, "name": "fc.1"}
    started = agent.call("POST", "/v1/client", {**body, **client})
    assert "errors" not in started, started
    wait_until(lambda: len(imports(nest)) >= 2, 60, "both imports")
    seen = imports(nest)
    node = os.readlink(f"/proc/{agent.init}/ns/net")
    assert {item["net"] for item in seen} == {node} != {os.readlink("/proc/self/ns/net")}
    assert all(nest.nodes["fed.1"].cgroup.name in item["cgroup"] for item in seen)
    assert {item["pid"] for item in seen} == {
        agent.call("GET", f"/v1/{kind}/foreign")["pid"] for kind in ("server", "client")
    }
    status = Spawner(nest.socket).status()
    assert status["templates"] == []
    assert {child["application"] for child in status["children"]} == {None, str(foreign)}


@pytest.mark.live
def test_it_is_not_warmed(nest: Nest, foreign: Path) -> None:
    """Neither by its folder nor through a link or `..` that goes out of the shipped ones."""
    around = f"{applications.SHIPPED}/{os.path.relpath(foreign, applications.SHIPPED)}"
    for folder in (str(foreign), around, str(applications.SHIPPED)):
        with pytest.raises(SpawnerError, match="only shipped applications are imported on the host"):
            Spawner(nest.socket).warm(folder)
    assert imports(nest) == [] and Spawner(nest.socket).status()["templates"] == []


def test_it_is_not_warmed_at_start(foreign: Path, tmp_path: Path) -> None:
    paths = ["--inventory", str(tmp_path / "i.json"), "--socket", str(tmp_path / "x.sock")]
    done = subprocess.run(
        [*SPAWNER, *paths, "--warm", str(foreign)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1 and "only shipped applications are warmed: image_classification" in done.stderr
    assert not (tmp_path / "imports").exists()


def test_links_are_followed_before_a_folder_is_called_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped, outside = tmp_path / "apps", tmp_path / "outside"
    for folder in (shipped / "own", outside):
        folder.mkdir(parents=True)
    (shipped / "escape").symlink_to(outside)
    (tmp_path / "entry").symlink_to(shipped / "own")
    monkeypatch.setattr(applications, "SHIPPED", shipped)
    assert applications.shipped_folder(shipped / "own") == shipped / "own"
    assert applications.shipped_folder(tmp_path / "entry") == shipped / "own"
    for folder in (outside, shipped, shipped / "escape", shipped / "own/../../outside", tmp_path / "apps2"):
        assert applications.shipped_folder(folder) is None, folder


def imports(nest: Nest) -> list[dict[str, Any]]:
    path = nest.folder / "imports"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
