"""With `prometheus: none` the daemon starts none, and keeps the files of another one as the inventory is."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

from monitoring.__main__ import Daemon
from tests.monitoring.exporter import data
from tests.monitoring.prometheus.prom_lab import free_port, wait_for


def test_the_files_for_another_prometheus_follow_the_inventory(tmp_path: Path) -> None:
    folder = tmp_path / "prometheus"
    exporter = f"127.0.0.1:{free_port()}"
    monitoring = {"prometheus": "none", "period_s": 5.0, "retention_s": 60.0, "exporter": exporter,
                  "prometheus_address": None, "folder": str(folder), "node": None}  # fmt: skip
    program = ["python", "-m", "fl_node.agent"]

    def write(pid: int | None) -> Path:
        nodes = [data.node("fc.1", 1, program=program, pid=pid), data.node("fed.1", 2, program=program)]
        paths = {"state": str(tmp_path), "logs": str(tmp_path)}
        return data.write(tmp_path, nodes=nodes, monitoring=monitoring, paths=paths)

    def agents() -> list[str]:
        path = folder / "targets" / "agents.json"
        groups = json.loads(path.read_text()) if path.exists() else []
        return [target for group in groups for target in group["targets"]]

    stopping = threading.Event()
    daemon = threading.Thread(target=Daemon(write(None), stopping).run)
    daemon.start()
    try:
        wait_for(lambda: (folder / "targets" / "exporter.json").exists(), 10, "the target files")
        told = json.loads((folder / "targets" / "exporter.json").read_text())
        assert [group["targets"] for group in told] == [[exporter]]
        assert (folder / "rules.yml").exists() and (folder / "prometheus.yml").exists()
        assert agents() == []
        write(os.getpid())
        wait_for(lambda: agents() == ["100.64.0.1:9300"], 10, "the target of the node that came")
        write(None)
        wait_for(lambda: agents() == [], 10, "its end")
    finally:
        stopping.set()
        daemon.join(20)
    assert not daemon.is_alive()
