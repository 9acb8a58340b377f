"""Grafana as a container on this host: started with the dashboards in place, found and replaced by its name.

Takes a testbed's name, its state folder and a Prometheus; speaks to the Docker daemon. The container carries the
testbed's label, so taking the testbed down takes it too. Never pulls an image, never touches a container of another
testbed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import LogConfig

from monitoring.grafana import bundle
from monitoring.grafana.bundle import BundleError, Source

IMAGE = "grafana/grafana-oss:latest"
PORT = 3000
TESTBED_LABEL = "cohortnet.testbed"
CONTAINERS_MARK = "containers"
"""File in a testbed's state folder: it owns containers beside its nodes, so `down` has to ask Docker."""
PROVISIONING_PATH = "/etc/grafana/provisioning"
DASHBOARDS_PATH = "/var/lib/cohortnet/dashboards"
START_TIMEOUT_S = 90.0
"""Grafana's first start fills its database: seconds on an idle machine, much longer on a loaded one."""
_CALL_TIMEOUT_S = 60.0
_LOGS = LogConfig(type=LogConfig.types.JSON, config={"max-size": "16m", "max-file": "2"})


@dataclass(frozen=True)
class Running:
    """A Grafana that answers. `password` is that of `admin`; looking needs none."""

    container: str
    url: str
    password: str


class MissingImage(BundleError):
    """The image is not on this machine."""


def container_name(testbed: str) -> str:
    """The name of a testbed's Grafana."""
    return f"cohortnet-grafana-{testbed}"


def environment(port: int, password: str) -> dict[str, str]:
    """Grafana's settings: loopback only, everybody who reaches it may look, `admin` may change, nothing calls home."""
    return {
        "GF_SERVER_HTTP_ADDR": "127.0.0.1",
        "GF_SERVER_HTTP_PORT": str(port),
        "GF_PATHS_PROVISIONING": PROVISIONING_PATH,
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": f"{DASHBOARDS_PATH}/overview.json",
        "GF_DASHBOARDS_MIN_REFRESH_INTERVAL": "1s",
        "GF_AUTH_ANONYMOUS_ENABLED": "true",
        "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
        "GF_SECURITY_ADMIN_PASSWORD": password,
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
        "GF_NEWS_NEWS_FEED_ENABLED": "false",
        "GF_PLUGINS_PREINSTALL_DISABLED": "true",
    }


def start(testbed: str, state: Path, source: Source, *, image: str = IMAGE, port: int = PORT) -> Running:
    """Start the testbed's Grafana, in place of one that it already has, and wait until it answers.

    Raises:
        MissingImage: with what to type next.
        BundleError: no Docker, the port is taken, or Grafana did not start (with its last words); nothing is left then.
    """
    name = container_name(testbed)
    with _client() as client:
        try:
            client.inspect_image(image)
        except ImageNotFound:
            raise MissingImage(f"the image {image!r} is not on this machine") from None
        _remove_old(client, name, testbed)
        _need_port(port)
        folder = state / "grafana"
        password = secrets.token_urlsafe(12)
        bundle.write(folder, source, dashboards_path=DASHBOARDS_PATH)
        _keep_secret(folder / "admin-password", password)
        # Before the container: whoever is killed in between leaves one question too many, not one container.
        (state / CONTAINERS_MARK).touch()
        binds = [f"{folder}/provisioning:{PROVISIONING_PATH}:ro", f"{folder}/dashboards:{DASHBOARDS_PATH}:ro"]
        host = client.create_host_config(network_mode="host", binds=binds, log_config=_LOGS,
                                         restart_policy={"Name": "no"}, init=True)  # fmt: skip
        try:
            client.create_container(image, name=name, labels={TESTBED_LABEL: testbed}, detach=True,
                                    environment=environment(port, password), host_config=host)  # fmt: skip
            client.start(name)
            _wait(client, name, f"http://127.0.0.1:{port}")
        except BaseException:
            with contextlib.suppress(NotFound, APIError):
                client.remove_container(name, force=True, v=True)
            raise
    return Running(name, f"http://127.0.0.1:{port}", password)


@contextmanager
def _client() -> Iterator[docker.APIClient]:
    address = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if not address.startswith("unix://"):
        raise BundleError(f"the Docker daemon at {address} (DOCKER_HOST) is not on this machine, and Prometheus is; "
                          "unset DOCKER_HOST, or take `--out DIR` for a Grafana of your own")  # fmt: skip
    try:
        client = docker.APIClient(base_url=address, timeout=_CALL_TIMEOUT_S)
        client.ping()
    except (DockerException, requests.RequestException) as error:
        raise BundleError(f"the Docker daemon does not answer at {address} ({_words(error)}); start it: `sudo "
                          f"systemctl "
                          "start docker` (without systemd: `sudo dockerd &`), or take `--out DIR` for a Grafana of "
                          "your "
                          "own") from None  # fmt: skip
    try:
        yield client
    except (DockerException, requests.RequestException) as error:
        raise BundleError(f"Docker: {_words(error)}") from error
    finally:
        client.close()


def _remove_old(client: docker.APIClient, name: str, testbed: str) -> None:
    try:
        found = client.inspect_container(name)
    except NotFound:
        return
    if (found["Config"].get("Labels") or {}).get(TESTBED_LABEL) != testbed:
        raise BundleError(f"a container that is not this testbed's is called {name!r}; `docker rm -f {name}` where it "
                          "is not needed")  # fmt: skip
    client.remove_container(name, force=True, v=True)


def _need_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise BundleError(f"127.0.0.1:{port}: {error.strerror}; choose another one with --port") from None


def _keep_secret(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text + "\n")


def _wait(client: docker.APIClient, name: str, url: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    with requests.Session() as session:
        session.trust_env = False
        while True:
            state = client.inspect_container(name)["State"]
            if not state["Running"]:
                raise BundleError(f"Grafana ended with status {state['ExitCode']}: {_last_words(client, name)}")
            with contextlib.suppress(requests.RequestException):
                if session.get(f"{url}/api/health", timeout=(1.0, 5.0)).status_code == 200:
                    return
            if time.monotonic() > deadline:
                raise BundleError(f"Grafana does not answer at {url} within {START_TIMEOUT_S:.0f} s: "
                                  f"{_last_words(client, name)}")  # fmt: skip
            time.sleep(0.25)


def _last_words(client: docker.APIClient, name: str) -> str:
    text: str = client.logs(name, stdout=True, stderr=True, tail=5).decode(errors="replace").strip()
    return text[-600:] or "it said nothing"


def _words(error: Exception) -> str:
    if isinstance(error, APIError) and error.explanation:
        return str(error.explanation).strip()
    return str(error).strip() or type(error).__name__
