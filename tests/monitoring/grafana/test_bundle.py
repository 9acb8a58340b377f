"""`cohortnet grafana --out` and the files it writes; without Docker, without root, without a testbed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.grafana import DASHBOARDS, DATASOURCE_UID, PROVISIONING
from monitoring.grafana.bundle import BundleError, Source, interval, source_of, write
from monitoring.grafana.container import DASHBOARDS_PATH, environment

REPOSITORY = Path(__file__).parents[3]


def read(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(path.read_text())
    return data


def cohortnet(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "cohortnet", *arguments], capture_output=True, text=True, timeout=60,
                          check=False, cwd=REPOSITORY, env={**os.environ, **environ})  # fmt: skip


def test_the_shipped_provisioning_fits_the_dashboards_and_the_container() -> None:
    (source,) = read(PROVISIONING / "datasources/cohortnet.yaml")["datasources"]
    assert (source["uid"], source["type"], source["url"]) == (DATASOURCE_UID, "prometheus", "http://127.0.0.1:9090")
    (provider,) = read(PROVISIONING / "dashboards/cohortnet.yaml")["providers"]
    assert provider["options"]["path"] == DASHBOARDS_PATH
    settings = environment(3000, "secret")
    assert settings["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    assert settings["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == f"{DASHBOARDS_PATH}/overview.json"
    assert (DASHBOARDS / "overview.json").exists()


def test_a_bundle_names_the_testbeds_prometheus_and_its_period(tmp_path: Path) -> None:
    files = write(tmp_path / "g", Source("127.0.0.1:18499", 0.5))
    assert {path.suffix for path in files} == {".json", ".yaml"} and all(path.exists() for path in files)
    (source,) = read(tmp_path / "g/provisioning/datasources/cohortnet.yaml")["datasources"]
    assert (source["url"], source["jsonData"]["timeInterval"]) == ("http://127.0.0.1:18499", "500ms")
    (provider,) = read(tmp_path / "g/provisioning/dashboards/cohortnet.yaml")["providers"]
    written = sorted(path.name for path in Path(provider["options"]["path"]).glob("*.json"))
    assert written == sorted(path.name for path in DASHBOARDS.glob("*.json"))
    assert write(tmp_path / "g", Source()) == files, "a second time replaces the first"


def test_a_bundle_is_readable_for_grafanas_own_user(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        files = write(tmp_path / "g", Source())
    finally:
        os.umask(before)
    assert all(path.stat().st_mode & 0o044 == 0o044 and path.parent.stat().st_mode & 0o055 == 0o055 for path in files)


def test_a_bundle_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="choose another folder"):
        write(tmp_path / "file" / "g", Source())


@pytest.mark.parametrize(("seconds", "text"), [(5.0, "5s"), (1, "1s"), (0.5, "500ms"), (1.5, "1500ms"), (60, "60s")])
def test_a_period_is_written_as_grafana_reads_it(seconds: float, text: str) -> None:
    assert interval(seconds) == text


def test_the_source_of_a_testbed_comes_from_its_inventory() -> None:
    monitoring = {"prometheus": "host", "period_s": 2.0, "prometheus_address": "127.0.0.1:9091"}
    assert source_of({"testbed": "lab", "monitoring": monitoring}) == Source("127.0.0.1:9091", 2.0)
    with pytest.raises(BundleError, match="without monitoring.*--monitoring"):
        source_of({"testbed": "lab", "monitoring": None})
    with pytest.raises(BundleError, match="no Prometheus"):
        source_of({"testbed": "lab", "monitoring": {**monitoring, "prometheus": "none", "prometheus_address": None}})
    with pytest.raises(BundleError, match="not HOST:PORT"):
        source_of({"testbed": "lab", "monitoring": {**monitoring, "prometheus_address": "http://x"}})


def test_the_command_writes_the_files_without_docker(tmp_path: Path) -> None:
    done = cohortnet("grafana", "--out", str(tmp_path / "g"), DOCKER_HOST="unix:///nowhere/docker.sock")
    assert done.returncode == 0, done.stderr
    assert "Wrote 5 dashboards" in done.stdout and f"{tmp_path}/g/dashboards" in done.stdout
    assert json.loads((tmp_path / "g/dashboards/overview.json").read_text())["uid"] == "cohortnet-overview"
    done = cohortnet("grafana", "--out", str(tmp_path / "h"), "--json")
    assert len(json.loads(done.stdout)["files"]) == 7


def test_the_command_names_what_is_wrong(tmp_path: Path) -> None:
    done = cohortnet("grafana", "--testbed", "t-grafana-none", "--out", str(tmp_path))
    assert done.returncode == 2 and "t-grafana-none" in done.stderr and "Traceback" not in done.stderr
    done = cohortnet("grafana", "--port", "70000")
    assert done.returncode == 2 and "70000" in done.stderr
    (tmp_path / "file").write_text("")
    done = cohortnet("grafana", "--out", str(tmp_path / "file"))
    assert done.returncode == 1 and "choose another folder" in done.stderr


def test_the_command_has_help_and_leaves_an_example() -> None:
    done = cohortnet("grafana", "--help")
    assert done.returncode == 0 and "Example: " in done.stdout and "--out" in done.stdout
