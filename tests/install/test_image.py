"""The node image: built from these sources, able to run a node's programs offline, and nothing more in it.

scripts/test.sh builds the image before pytest starts; these tests look at what it built.
"""

import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "cohortnet/node:latest"

pytestmark = [pytest.mark.docker, pytest.mark.live]


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{command} ended with {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


def in_image(*command: str) -> str:
    return run("docker", "run", "--rm", "--network", "none", IMAGE, *command)


@pytest.fixture
def container() -> Iterator[str]:
    """An idle container of the image, without a command of its own."""
    name = f"t-install-{uuid.uuid4().hex[:8]}"
    run("docker", "run", "-d", "--name", name, "--network", "none", IMAGE)
    yield name
    subprocess.run(["docker", "rm", "-f", name], capture_output=True, timeout=60)


def test_the_image_is_of_these_sources() -> None:
    run("scripts/build_image.sh", "--check")


def test_programs_of_a_node_are_there() -> None:
    for program in ("python", "ip", "tc", "ping", "iperf3", "ethtool", "ps", "tini"):
        in_image("sh", "-c", f"command -v {program}")
    assert "train-images-idx3-ubyte.gz" in in_image("ls", "/usr/share/datasets/fashion-mnist")


def test_python_of_a_node_runs_without_a_network() -> None:
    code = (
        "import torch, flwr, grpc, flask, waitress, pydantic, yaml, requests, prometheus_client, sys, json;"
        "import fl_node, mlfo;"
        "print(json.dumps([sys.version_info[:2], torch.__version__, torch.version.cuda, fl_node.__file__]))"
    )
    version, torch_version, cuda, file = json.loads(in_image("python", "-c", code))
    assert version == [3, 11] and cuda is None, f"torch {torch_version} is a CUDA build"
    assert file == "/opt/cohortnet/fl_node/__init__.py"


def test_nothing_else_is_in_the_image() -> None:
    assert set(in_image("ls", "-A", "/opt/cohortnet").split()) == {"fl_node", "mlfo", "intents"}
    traces = "/wheels /etc/pip.conf /etc/xdg/pip /root/.config/pip /root/.cache/pip"
    assert in_image("sh", "-c", f"ls -d {traces} 2>/dev/null; true") == ""
    settings = json.loads(run("docker", "image", "inspect", "--format", "{{json .Config}}", IMAGE))
    assert not settings.get("Entrypoint"), "the engine gives each container its program"
    assert not [text for text in settings["Env"] if text.startswith(("PIP_", "SSL_", "http", "HTTP"))]
    history = run("docker", "history", "--no-trunc", "--format", "{{.CreatedBy}}", IMAGE)
    assert "PIP_" not in history and "http" not in history


def test_an_idle_container_ends_at_once_on_sigterm(container: str) -> None:
    started = time.monotonic()
    run("docker", "stop", "--time", "20", container)
    seconds = time.monotonic() - started
    assert seconds < 10, f"{seconds:.1f} s: it was killed, not ended"
