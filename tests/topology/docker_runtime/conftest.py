"""A Docker daemon and small images for live tests, made offline, all removed at the end."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from topology.engine.docker_runtime import DockerRuntime
from topology.model import parse_testbed
from topology.plan import Plan
from topology.planning import make_plan

DEFAULT_SOCKET = "/var/run/docker.sock"
TOOLS = ("sh", "sleep", "cat", "ip", "ping", "hostname", "nproc", "touch")
ENTRY = b'#!/bin/sh\nexport CAME_THROUGH_ENTRY=yes\nexec "$@"\n'
LEFT_OUT = (
    "site-packages",
    "test",
    "__pycache__",
    "idlelib",
    "ensurepip",
    "tkinter",
    "lib-dynload",
    "config-",
)


def _libraries(program: str) -> list[str]:
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False, timeout=10).stdout
    return [word for line in listed.splitlines() for word in line.split() if word.startswith("/")]


def small_root() -> bytes:
    """A root file system (tar) with a shell, `ip`, `ping`, and as `python` the interpreter of this test."""
    buffer = io.BytesIO()
    done: set[str] = set()
    with tarfile.open(fileobj=buffer, mode="w") as archive:

        def add(path: str, name: str) -> None:
            if name not in done:
                done.add(name)
                archive.add(os.path.realpath(path), name.lstrip("/"), recursive=False)

        def data(name: str, content: bytes, mode: int = 0o755) -> None:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))

        for tool in TOOLS:
            path = shutil.which(tool)
            assert path, f"the program {tool} is not installed here, and the test image needs it"
            add(path, f"/bin/{tool}")
            for library in _libraries(path):
                add(library, library)
        interpreter = os.path.realpath(sys.executable)
        add(interpreter, interpreter)
        for library in _libraries(interpreter):
            add(library, library)
        standard = sysconfig.get_path(
            "stdlib", vars={"installed_base": sys.base_prefix, "base": sys.base_prefix}
        )

        def wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
            return None if any(Path(entry.name).name.startswith(name) for name in LEFT_OUT) else entry

        archive.add(standard, standard.lstrip("/"), filter=wanted)
        link = tarfile.TarInfo("bin/python")
        link.type, link.linkname = tarfile.SYMTYPE, interpreter
        archive.addfile(link)
        data("bin/entry", ENTRY)
        data("etc/passwd", b"root:x:0:0:root:/:/bin/sh\n", 0o644)
        for folder in ("tmp", "proc", "sys", "dev", "run"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            archive.addfile(entry)
    return buffer.getvalue()


@dataclass
class Daemon:
    """A dockerd of the test's own, with its own folder and socket.

    It has a network namespace of its own: without it, a second daemon would take the first one's bridge away.
    """

    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.folder}/d.sock"

    def start(self) -> None:
        assert shutil.which("dockerd"), "dockerd is not installed here: `apt-get install docker.io`"
        options = {"host": self.url, "data-root": f"{self.folder}/data", "exec-root": f"{self.folder}/exec"}
        options |= {
            "pidfile": f"{self.folder}/pid",
            "bridge": "none",
            "iptables": "false",
            "ip-masq": "false",
        }
        command = ["unshare", "--net", "dockerd", *(f"--{key}={value}" for key, value in options.items())]
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with (
                contextlib.suppress(Exception),
                contextlib.closing(docker.APIClient(self.url, timeout=5)) as c,
            ):
                c.ping()
                return
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.1)
        raise AssertionError(
            "the test's dockerd did not come up in 30 s: " + (self.folder / "log").read_text()[-2000:]
        )

    def kill(self) -> None:
        """As a crash: its containers' processes stay, its containerd goes with it."""
        assert self.process
        self.process.kill()
        self.process.wait(10)
        # Where process 1 reaps nothing, the dead containerd looks alive to the next daemon.
        self._end_containerd()

    def _end_containerd(self) -> None:
        file = self.folder / "exec/containerd/containerd.pid"
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(file.read_text()), signal.SIGKILL)
        file.unlink(missing_ok=True)

    def _end_containers(self) -> None:
        # They outlive daemons that were killed; our folder in the shims' command lines marks them.
        shims = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"{self.folder}/".encode() in (folder / "cmdline").read_bytes():
                    shims.append(folder)
        for folder in shims:
            pids = [int(folder.name)]
            with contextlib.suppress(OSError):
                pids += [int(pid) for pid in (folder / "task" / folder.name / "children").read_text().split()]
            for pid in reversed(pids):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
            if self.process.poll() is None:
                self.process.kill()
        self._end_containerd()
        self._end_containers()
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            point = line.split()[4]
            if point.startswith(f"{self.folder}/"):
                subprocess.run(["umount", "-l", point], check=False, timeout=10)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def root_file_system() -> bytes:
    return small_root()


@pytest.fixture(scope="session")
def docker_url() -> Iterator[str]:
    """The daemon that answers on this machine, else one of our own for the time of the tests."""
    try:
        with contextlib.closing(docker.APIClient(f"unix://{DEFAULT_SOCKET}", timeout=5)) as client:
            client.ping()
    except Exception:
        daemon = Daemon(Path(tempfile.mkdtemp(prefix="cnd")))
        try:
            daemon.start()
            yield daemon.url
        finally:
            daemon.close()
        return
    yield f"unix://{DEFAULT_SOCKET}"


@pytest.fixture(scope="session")
def client(docker_url: str) -> Iterator[docker.APIClient]:
    with contextlib.closing(docker.APIClient(docker_url, timeout=60)) as api:
        yield api


@dataclass(frozen=True)
class Images:
    """`bare` has no command, `shell` has `sh` as its command, `entry` an entry point, `user` a user."""

    bare: str
    shell: str
    entry: str
    user: str


@pytest.fixture(scope="session")
def images(client: docker.APIClient, root_file_system: bytes) -> Iterator[Images]:
    tag = f"t-docker-{os.getpid()}"
    changes: dict[str, list[str]] = {
        "bare": [],
        "shell": ['CMD ["sh"]'],
        "entry": ['ENTRYPOINT ["/bin/entry"]'],
        "user": ["USER 1000"],
    }
    made = {}
    path = "ENV PATH=/bin"
    try:
        for name, lines in changes.items():
            client.import_image_from_data(root_file_system, repository=tag, tag=name, changes=[path, *lines])
            made[name] = f"{tag}:{name}"
        yield Images(**made)
    finally:
        for image in made.values():
            client.remove_image(image, force=True)


Raise = Callable[..., Plan]


@pytest.fixture
def make(request: pytest.FixtureRequest, images: Images, docker_url: str) -> Iterator[Raise]:
    """Gives plans of testbeds with names of this test's own; removes containers and folders at the end."""
    plans: list[Plan] = []

    def plan(nodes: int | list[dict[str, Any]], suffix: str = "", **top: Any) -> Plan:
        entries = [{} for _ in range(nodes)] if isinstance(nodes, int) else nodes
        name = f"t-docker-{os.getpid()}{suffix}"
        data: dict[str, Any] = {
            "name": name,
            "container_prefix": f"{name}.",
            "image": images.bare,
            "nodes": [{"name": f"h.{i}", **entry} for i, entry in enumerate(entries)],
            "switches": [{"name": "s1"}],
            "links": [{"a": f"h.{i}", "b": "s1"} for i in range(len(entries))],
        }
        plans.append(make_plan(parse_testbed({**data, **top})))
        return plans[-1]

    try:
        yield plan
    finally:
        for item in plans:
            DockerRuntime(docker_url).remove(item.testbed, item.state, lambda *_: None)
            shutil.rmtree(item.state, ignore_errors=True)


@pytest.fixture
def own_daemon(root_file_system: bytes) -> Iterator[Daemon]:
    daemon = Daemon(Path(tempfile.mkdtemp(prefix="cnd")))
    try:
        daemon.start()
        with contextlib.closing(docker.APIClient(daemon.url, timeout=60)) as api:
            api.import_image_from_data(
                root_file_system, repository="t-docker", tag="own", changes=["ENV PATH=/bin"]
            )
        yield daemon
    finally:
        daemon.close()
