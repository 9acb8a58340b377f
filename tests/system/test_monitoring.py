"""Monitoring as users get it, on real testbeds: what is scraped, what a run keeps, in band in both runtimes, what
happens where parts of it are away, and that nothing of it stays. And docs/monitoring.md, as it stands there."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from monitoring.series import read
from tests.monitoring.prometheus.prom_lab import free_port, need, query, wait_for
from tests.system.conftest import Raise, delay_options, run
from tests.system.leftovers import wait_for_none

pytestmark = pytest.mark.live


def written(folder: Path, name: str, **changes: Any) -> Path:
    """A small testbed on the namespace runtime with ports of its own, measured each second."""
    need("prometheus")
    monitoring = {"period": "1 s", "port": free_port(), "exporter_port": free_port(), **changes.pop("monitoring", {})}
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps({
        "name": name, "runtime": "namespace", "preset": {"cohorts": 1, "clients": 3, "campuses": 1}, "publish": [],
        "controller": {"rest_host_port": free_port()}, "monitoring": monitoring, **changes,
    }))  # fmt: skip
    return path


def targets(url: str) -> dict[str, list[tuple[str, str, str]]]:
    """Job -> (address, health, error) of each target that has been scraped."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for target in requests.get(f"{url}/api/v1/targets?state=active", timeout=5).json()["data"]["activeTargets"]:
        found.setdefault(target["labels"]["job"], []).append(
            (target["labels"]["instance"], target["health"], target["lastError"])
        )
    return found


def wait_all_up(url: str, jobs: dict[str, int]) -> dict[str, list[tuple[str, str, str]]]:
    """Every target, so many of each job, has answered."""

    def ready() -> Any:
        found = targets(url)
        sizes = {job: len(found.get(job, ())) for job in jobs}
        return found if sizes == jobs and all(t[1] == "up" for job in jobs for t in found[job]) else None

    try:
        return wait_for(ready, 30)  # type: ignore[no-any-return]
    except AssertionError:
        raise AssertionError(json.dumps(targets(url), indent=1)) from None


def url_of(inventory: dict[str, Any]) -> str:
    return f"http://{inventory['monitoring']['prometheus_address']}"


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).status_code == 200
    except requests.ConnectionError:
        return False


def processes(words: str) -> list[int]:
    """Pids of the processes whose command line has these words."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if words in command and "/bin/sh" not in command:
                found.append(int(folder.name))
    return found


def learn(name: str, runs: Path, rounds: int = 2) -> Path:
    """Run the drilling intent to its end; gives the folder of its record."""
    before = set(runs.glob("*"))
    run("intent", "send", "intents/drilling.yaml", "--ipstart", "10", "--cohortsize", "3", "--numround", str(rounds),
        "--wait", "--testbed", name, "--runs", str(runs))  # fmt: skip
    (folder,) = set(runs.glob("*")) - before
    return folder


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], Path]]:
    """One monitored testbed for several tests, and the folder of its records."""
    folder = tmp_path_factory.mktemp("measured")
    name = "t-prom-user"
    try:
        done = run("up", str(written(folder, name)), *delay_options(), "--runs", str(folder / "runs"), "--json")
        yield json.loads(done.stdout), folder / "runs"
    finally:
        run("down", name)
    assert wait_for_none(name) == []


def test_everything_is_scraped_and_a_run_keeps_its_series(measured: tuple[dict[str, Any], Path]) -> None:
    inventory, runs = measured
    url = url_of(inventory)
    assert set(targets(url)) == {"exporter", "agents", "mlfo", "controller", "prometheus"}, "up has waited for them"
    wait_all_up(url, {"exporter": 1, "agents": 4, "mlfo": 2, "controller": 1, "prometheus": 1})
    assert set(query(url, "sum by (node) (node_up == 1)")) == {f"node={node['name']}" for node in inventory["nodes"]}
    folder = learn(inventory["testbed"], runs)
    manifest = json.loads((folder / "manifest.json").read_text())
    summary = manifest["series"]
    print(f"{summary['samples']} samples of {summary['series']} series, kept in {summary['seconds']} s")
    assert summary["state"] == "kept" and summary["left_out"] == [] and summary["thinned_step_s"] is None
    series = read(folder)
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    begin, end = min(e["time"] for e in events), max(e["time"] for e in events)
    assert series.span is not None and series.span[0] < begin and series.span[1] >= end

    # What the interfaces counted holds the messages, and no more than a fifth beside them.
    with open(folder / "rounds.csv", newline="", encoding="utf-8") as file:
        rounds = list(csv.DictReader(file))
    sent = sum(int(row["bytes_down"] or 0) for row in rounds)
    ((_, (times, values)),) = series.select("node_network_transmit_bytes_total", node="fed.1").items()
    assert sent <= values[-1] - values[0] <= 1.2 * sent + 500_000
    # A busy machine may lose scrapes; never silently.
    up = np.concatenate([values for _, values in series.select("up").values()])
    assert summary["missed_scrapes"] == (up == 0).sum() < 0.1 * len(up)
    if np.diff(times).max() > 1.6:
        assert summary["overruns"] > 0, f"a gap of {np.diff(times).max():.1f} s at a period of 1 s, and nobody said it"
    # The last accuracy is the one in the tables; series of other runs are not there.
    ((labels, (_, accuracies)),) = series.select("model_accuracy", source="server", role="server").items()
    assert dict(labels)["run"] == folder.name == manifest["run"]
    assert accuracies[-1] == pytest.approx(float(rounds[-1]["server_accuracy"]), abs=1e-6)
    assert {"tcp_rtt", "tcprtt_bucket", "fl_round", "mlfo_intents", "cohortnet_link_bytes_total",
            "cohortnet:cohort_transmit:bits_per_second"} <= set(series.metrics)  # fmt: skip


def test_targets_follow_an_inventory_that_is_rewritten(measured: tuple[dict[str, Any], Path]) -> None:
    inventory, _ = measured
    url, path = url_of(inventory), Path(inventory["paths"]["shared"]) / "inventory.json"
    before = path.read_text()

    def rewrite(text: str) -> None:
        path.with_suffix(".test").write_text(text)
        os.replace(path.with_suffix(".test"), path)

    changed = json.loads(before)
    gone = next(node for node in changed["nodes"] if node["name"] == "fc.12")
    gone["pid"] = None
    try:
        rewrite(json.dumps(changed))
        wait_for(lambda: len(targets(url)["agents"]) == 3, 15, "a node without a process is no target")
        wait_for(lambda: not query(url, 'up{node="fc.12",job="agents"}'), 15)
    finally:
        rewrite(before)
    wait_for(lambda: len(targets(url)["agents"]) == 4, 15, "the node's target is back")
    wait_for(lambda: query(url, 'up{node="fc.12",job="agents"} == 1'), 15)


def test_prometheus_killed_comes_back_and_without_it_runs_go_on_and_say_so(
    measured: tuple[dict[str, Any], Path],
) -> None:
    inventory, runs = measured
    name, url = inventory["testbed"], url_of(inventory)
    words = f"prometheus --config.file=/run/cohortnet/{name}/"
    (old,) = processes(words)
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: processes(words) not in ([], [old]), 15, "it is started again")
    wait_for(lambda: answers(f"{url}/-/ready"), 30)
    assert "it is started again" in run("logs", "monitoring", "--testbed", name).stdout
    # Without the daemon there is no Prometheus either, whatever ended it.
    (daemon,) = processes(f"monitoring --inventory /run/cohortnet/{name}/")
    os.kill(daemon, signal.SIGKILL)
    wait_for(lambda: not processes(words), 5, "Prometheus ends with its parent")
    folder = learn(name, runs, rounds=1)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["state"] == "succeeded" and manifest["complete"]
    assert manifest["series"]["state"] == "away" and "does not answer" in manifest["series"]["reason"]
    assert not list(folder.glob("series.*")) and len(read(folder)) == 0


IN_BAND = ["namespace", pytest.param("docker", marks=pytest.mark.docker)]


@pytest.mark.parametrize("runtime", IN_BAND)
def test_in_band_scrapes_pass_the_emulated_network(testbed: Raise, tmp_path: Path, runtime: str) -> None:
    name = f"t-prom-in-{runtime[:4]}"
    file = written(tmp_path, name, runtime=runtime, monitoring={"prometheus": "in-band"},
                        preset={"cohorts": 1, "clients": 2, "campuses": 1})  # fmt: skip
    inventory = testbed(name, str(file))
    url = url_of(inventory)
    nodes = len(inventory["nodes"])
    found = wait_all_up(url, {"exporter": 2 * nodes + 1, "agents": 3, "mlfo": 2, "controller": 1, "prometheus": 1})
    addresses = {node["address"] for node in inventory["nodes"]} | {"127.0.0.1"}
    assert {target[0].partition(":")[0] for job in found.values() for target in job} == addresses
    # It runs in prom.0: in its network and its groups. What it asks for comes in at that node's own interface.
    prom = next(node for node in inventory["nodes"] if node["name"] == "prom.0")
    (pid,) = processes(f"prometheus --config.file=/run/cohortnet/{name}/")
    assert os.readlink(f"/proc/{pid}/ns/net") == os.readlink(f"/proc/{prom['pid']}/ns/net")
    for group in prom["cgroups"]:
        assert str(pid) in Path(group, "cgroup.procs").read_text().split()
    received = 'rate(node_network_receive_bytes_total{node="prom.0"}[10s])'
    rate = wait_for(lambda: max(query(url, received).values(), default=0.0), 15)
    print(f"in band, {runtime}: {nodes} nodes each second bring prom.0 {8 * rate / 1e3:.0f} kbit/s")
    assert rate > 1000
    assert query(url, "sum(cohortnet_link_up)") and query(url, "cohortnet_controller_switches")
    run("down", name)
    assert wait_for_none(name) == []
    # A group with a process in it could not be removed, so that one is a sign of something left.
    assert [group for group in prom["cgroups"] if Path(group).exists()] == []


def test_what_stands_against_it_is_said_before_anything_starts(tmp_path: Path) -> None:
    name = "t-prom-taken"
    taken = free_port()
    file = written(tmp_path, name, monitoring={"port": taken})
    with subprocess.Popen([sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(taken)],
                          stderr=subprocess.DEVNULL) as other:  # fmt: skip
        try:
            wait_for(lambda: subprocess.run(["ss", "-Hltn", f"sport = :{taken}"], capture_output=True, text=True,
                                            check=True).stdout)  # fmt: skip
            done = run("up", str(file), *delay_options(), check=False)
        finally:
            other.terminate()
    assert done.returncode == 2 and "nothing was done" in done.stderr
    assert f"monitoring.port: port {taken} of this host is in use" in done.stderr
    assert f"(pid {other.pid})" in done.stderr and "write `monitoring: {port: PORT}`" in done.stderr
    assert wait_for_none(name) == []


def test_down_right_after_a_run_still_keeps_its_series(testbed: Raise, tmp_path: Path) -> None:
    name = "t-prom-down"
    inventory = testbed(name, str(written(tmp_path, name, monitoring={"period": "2 s"})))
    wait_for(lambda: query(url_of(inventory), "node_up"), 20)
    answer = run("intent", "send", "intents/drilling.yaml", "--ipstart", "10", "--cohortsize", "3", "--numround", "1",
                 "--testbed", name, "--json")  # fmt: skip
    folder = tmp_path / "runs" / json.loads(answer.stdout)["id"]

    def ended() -> Any:
        path = folder / "manifest.json"
        return json.loads(path.read_text()).get("complete") if path.exists() else None

    wait_for(ended, 60)
    assert json.loads((folder / "manifest.json").read_text())["series"]["state"] == "pending"
    start = time.monotonic()
    run("down", name)
    print(f"down waited for the series: {time.monotonic() - start:.1f} s")
    assert json.loads((folder / "manifest.json").read_text())["series"]["state"] == "kept"
    assert read(folder).select("node_network_receive_bytes_total", node="fed.1")
    assert wait_for_none(name) == []
