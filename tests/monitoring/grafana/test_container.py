"""`cohortnet grafana` with a real Docker daemon and a stand-in image that looks at what it gets; `down` removes it."""

from __future__ import annotations

import io
import json
import os
import socket
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import docker
import pytest
import requests
from click.testing import Result
from docker.errors import NotFound
from typer.testing import CliRunner

from cohortnet.cli import app
from monitoring.grafana import container
from monitoring.grafana.bundle import BundleError, Source
from tests.monitoring.grafana.test_bundle import cohortnet
from tests.system.leftovers import wait_for_none

pytestmark = [pytest.mark.live, pytest.mark.docker]

TESTBED = "t-grafana-down"
DOCKERFILE = """FROM python:3.11-slim
COPY stand_in.py /
USER 472
VOLUME /var/lib/grafana
ENTRYPOINT ["python", "/stand_in.py"]
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def client() -> Iterator[docker.APIClient]:
    client = docker.APIClient(base_url=os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock", timeout=60)
    yield client
    client.close()


def _image(client: docker.APIClient, tag: str, more: str = "") -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in (("Dockerfile", (DOCKERFILE + more).encode()),
                              ("stand_in.py", Path(__file__).with_name("stand_in.py").read_bytes())):  # fmt: skip
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    archive.seek(0)
    said = list(client.build(fileobj=archive, custom_context=True, tag=tag, rm=True, pull=False, decode=True))
    assert any("Successfully built" in str(line.get("stream")) for line in said), said


@pytest.fixture(scope="module")
def images(client: docker.APIClient) -> Iterator[tuple[str, str]]:
    """(one that works, one that ends at once)."""
    names = (f"cohortnet-test/grafana-{os.getpid()}:works", f"cohortnet-test/grafana-{os.getpid()}:ends")
    try:
        _image(client, names[0])
        _image(client, names[1], "ENV STAND_IN_FAILS=1\n")
        yield names
    finally:
        for name in names:
            with suppress(NotFound):
                client.remove_image(name, force=True)


def _containers(client: docker.APIClient, testbed: str) -> list[dict[str, Any]]:
    return list(client.containers(all=True, filters={"label": [f"cohortnet.testbed={testbed}"]}))


@contextmanager
def _removed(client: docker.APIClient, testbed: str) -> Iterator[None]:
    try:
        yield
    finally:
        for found in _containers(client, testbed):
            client.remove_container(found["Id"], force=True, v=True)


def grafana(*arguments: str) -> Result:
    """The command, in this process: its imports take longer than itself."""
    return CliRunner().invoke(app, ["grafana", "--testbed", TESTBED, *arguments])


def test_grafana_gets_its_files_and_settings_and_down_removes_it(
    tmp_path: Path, client: docker.APIClient, images: tuple[str, str]
) -> None:
    port = free_port()
    file = tmp_path / "testbed.yaml"
    file.write_text(json.dumps({"name": TESTBED, "runtime": "namespace", "nodes": [{"name": "a"}, {"name": "b"}],
                                "switches": [{"name": "s1"}], "controller": {"kind": "none"},
                                "links": [{"a": "a", "b": "s1"}, {"a": "b", "b": "s1"}]}))  # fmt: skip
    with _removed(client, TESTBED):
        try:
            up = cohortnet("up", str(file), "--runs", str(tmp_path / "runs"))
            assert up.returncode == 0, up.stderr
            state = Path("/run/cohortnet") / TESTBED
            done = grafana("--image", images[0], "--port", str(port))
            assert done.exit_code == 1 and "without monitoring" in done.stderr and "--monitoring" in done.stderr

            inventory = state / "shared" / "inventory.json"
            facts = json.loads(inventory.read_text())
            facts["monitoring"] = {"prometheus": "host", "period_s": 2.0, "prometheus_address": "127.0.0.1:18490"}
            inventory.write_text(json.dumps(facts))
            done = grafana("--image", "cohortnet-test/none:1")
            assert done.exit_code == 1 and not (state / "grafana").exists()
            for words in ("docker pull cohortnet-test/none:1 && sudo cohortnet grafana", "--image IMAGE", "--out"):
                assert words in done.stderr
            done = grafana("--image", images[0], "--port", str(port))
            assert done.exit_code == 0, done.stderr
            assert f"http://127.0.0.1:{port}" in done.stdout and "127.0.0.1:18490" in done.stdout
            found = requests.get(f"http://127.0.0.1:{port}/", timeout=5).json()
            assert found["dashboards"] == {name: f"cohortnet-{name}" for name in
                                           ("overview", "fl-run", "network", "nodes", "mlfo")}  # fmt: skip
            assert (found["url"], found["interval"]) == ("http://127.0.0.1:18490", "2s")
            secret = (state / "grafana" / "admin-password").read_text().strip()
            assert found["environment"]["GF_SECURITY_ADMIN_PASSWORD"] == secret and len(secret) >= 12
            assert (state / "grafana" / "admin-password").stat().st_mode & 0o077 == 0
            assert secret not in done.stdout + done.stderr

            again = grafana("--image", images[0], "--port", str(port), "--json")
            assert again.exit_code == 0, again.stderr
            assert json.loads(again.stdout)["url"] == f"http://127.0.0.1:{port}"
            assert len(_containers(client, TESTBED)) == 1, "a second start takes the first one's place"
        finally:
            down = cohortnet("down", TESTBED)
        assert down.returncode == 0, down.stderr
        assert _containers(client, TESTBED) == [] and wait_for_none(TESTBED) == []
        with pytest.raises(requests.ConnectionError):
            requests.get(f"http://127.0.0.1:{port}/", timeout=5)


def test_without_the_image_the_command_says_what_to_type(tmp_path: Path, client: docker.APIClient) -> None:
    with pytest.raises(container.MissingImage, match="cohortnet-test/none"), _removed(client, "t-grafana-none"):
        container.start("t-grafana-none", tmp_path, Source(), image="cohortnet-test/none:1", port=free_port())
    assert list(tmp_path.iterdir()) == [], "nothing is written for an image that is not there"


def test_a_grafana_that_ends_leaves_its_last_words_and_nothing_else(
    tmp_path: Path, client: docker.APIClient, images: tuple[str, str]
) -> None:
    with _removed(client, "t-grafana-ends"):
        with pytest.raises(BundleError, match="status 3: stand-in: told to fail"):
            container.start("t-grafana-ends", tmp_path, Source(), image=images[1], port=free_port())
        assert _containers(client, "t-grafana-ends") == []


def test_a_port_or_a_name_that_is_taken_is_said(
    tmp_path: Path, client: docker.APIClient, images: tuple[str, str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(BundleError, match="--port"):
        container.start("t-grafana-port", tmp_path, Source(), image=images[0], port=taken.getsockname()[1])
    name = container.container_name("t-grafana-name")
    client.create_container(images[0], name=name)
    try:
        with pytest.raises(BundleError, match="not this testbed's"):
            container.start("t-grafana-name", tmp_path, Source(), image=images[0], port=free_port())
        assert client.inspect_container(name)["Name"] == f"/{name}", "somebody else's container stays"
    finally:
        client.remove_container(name, force=True, v=True)


def test_without_docker_the_command_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
        with pytest.raises(BundleError, match="does not answer.*--out DIR"):
            container.start("t-grafana-no", tmp_path, Source())
        patch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2375")
        with pytest.raises(BundleError, match="not on this machine.*unset DOCKER_HOST"):
            container.start("t-grafana-no", tmp_path, Source())
