"""The spawner over real namespaces and cgroups: isolation, leases, ends, sharing, speed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fl_node.spawner.__main__ import FIXED_ENVIRONMENT
from fl_node.spawner_client import Spawned, Spawner, SpawnerError
from tests.fl_node.nodes import Nest, alive, pss_kib, wait_until

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "tests.fl_node.fakes.spawner"]
PROBE = """
import json, os, socket, sys, threading
print(json.dumps({
    "pid": os.getpid(), "host": socket.gethostname(), "links": sorted(n for _, n in socket.if_nameindex()),
    "argv": sys.argv, "env": dict(os.environ), "cwd": os.getcwd(), "threads": threading.active_count(),
    "ns": {n: os.readlink(f"/proc/self/ns/{n}") for n in ("net", "mnt", "uts", "ipc", "pid")},
    "fds": sorted(os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
                  if os.path.exists(f"/proc/self/fd/{n}")),
    "session": os.getsid(0), "cgroup": open("/proc/self/cgroup").read(),
}))
"""

pytestmark = pytest.mark.live


def start_nest(folder: Path, shipped: Path | None = None) -> Nest:
    """A spawner for which all applications below `shipped` are the project's own (default: every test's)."""
    assert os.geteuid() == 0, "these tests make namespaces: run them as root"
    environment = {**os.environ, **FIXED_ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    environment["TEST_SHIPPED"] = str(shipped or folder.parent)
    return Nest(folder, COMMAND, environment)


@pytest.fixture(scope="module")
def nest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nest]:
    """One spawner with nodes a, b and c for the tests that leave it as they found it."""
    with contextlib.closing(start_nest(tmp_path_factory.mktemp("nest"))) as made:
        made.add("a", "b", "c")
        made.write()
        yield made


@pytest.fixture
def own_nest(tmp_path: Path) -> Iterator[Nest]:
    """A spawner of the test's own, to be killed."""
    with contextlib.closing(start_nest(tmp_path)) as made:
        yield made


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """A folder of modules that processes in nodes can run with -m."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "probe.py").write_text(PROBE)
    (folder / "sleeper.py").write_text("import time\nprint('up', flush=True)\ntime.sleep(600)\n")
    (folder / "stubborn.py").write_text(
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('up', flush=True)\ntime.sleep(600)\n"
    )
    (folder / "ending.py").write_text("import sys\nsys.exit(int(sys.argv[1]))\n")
    (folder / "raising.py").write_text("raise RuntimeError('as it should')\n")
    return folder


def run(nest: Nest, modules: Path, node: str, *argv: str, log: str = "log", **options: Any) -> Spawned:
    """`python -m argv` in `node`. The modules' folder is put on the path by a line of Python."""
    module, *rest = argv
    start = ["python", "-m", "tests.fl_node.fakes.from_folder", str(modules), module, *rest]
    return Spawner(nest.socket).start(node, start, {"HERE": "1"}, modules / log, **options)


def test_a_module_runs_inside_the_node(nest: Nest, modules: Path) -> None:
    """Network, mounts, host name, IPC and PIDs are the node's; so is the cgroup; nothing else comes along."""
    child = run(nest, modules, "a", "probe", "--x", "1")
    assert child.wait(10) == 0
    seen = json.loads((modules / "log").read_text())
    init = nest.nodes["a"].pid
    assert seen["ns"] == {name: os.readlink(f"/proc/{init}/ns/{name}") for name in seen["ns"]}
    assert seen["host"] == "a" and seen["links"] == ["lo"]
    assert seen["pid"] == child.node_pid != child.pid
    assert seen["argv"][1:] == ["--x", "1"] and seen["threads"] == 1
    assert seen["env"] == {"HERE": "1", "PATH": seen["env"]["PATH"]} and seen["cwd"] == "/"
    assert nest.nodes["a"].cgroup.name in seen["cgroup"]
    assert seen["session"] == seen["pid"]
    strange = [
        fd for fd in seen["fds"] if fd not in ("/dev/null", str(modules / "log")) and "/proc/" not in fd
    ]
    assert not strange, f"descriptors that came along: {strange}"


def test_another_program_is_executed_inside_the_node(nest: Nest, modules: Path) -> None:
    child = Spawner(nest.socket).start(
        "b",
        ["sh", "-c", "hostname; echo $HERE; cat /proc/self/cgroup; exit 7"],
        {"HERE": "there"},
        modules / "log",
    )
    assert child.wait(10) == 7
    lines = (modules / "log").read_text().splitlines()
    assert lines[:2] == ["b", "there"]
    assert any(nest.nodes["b"].cgroup.name in line for line in lines[2:])


def test_exit_codes_are_those_of_the_interpreter(nest: Nest, modules: Path) -> None:
    assert run(nest, modules, "a", "ending", "5").wait(10) == 5
    assert run(nest, modules, "a", "raising", log="raising.log").wait(10) == 1
    assert "RuntimeError: as it should" in (modules / "raising.log").read_text()
    child = run(nest, modules, "a", "sleeper")
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait(10) == -signal.SIGKILL


def test_what_cannot_be_started_is_refused_by_name(nest: Nest, modules: Path) -> None:
    spawner = Spawner(nest.socket)
    with pytest.raises(SpawnerError, match="'nowhere' is not in"):
        spawner.start("nowhere", ["true"], {}, modules / "log")
    with pytest.raises(SpawnerError, match="node 'a'.*cannot open log"):
        spawner.start("a", ["true"], {}, "/no/such/folder/log")
    with pytest.raises(SpawnerError, match="cannot execute no-such-program"):
        spawner.start("a", ["no-such-program"], {}, modules / "log")
    with pytest.raises(SpawnerError, match="argv must be"):
        spawner.start("a", [], {}, modules / "log")
    with pytest.raises(SpawnerError, match="absolute path of a folder"):
        spawner.start("a", ["true"], {}, modules / "log", application="/no/such/app")
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(nest.socket))
        raw.settimeout(5)
        raw.sendall(b"no json\n")
        assert b"not a JSON line" in raw.recv(4096)
        raw.sendall(b'{"op": "dance"}\n')
        assert b"allowed are start" in raw.recv(4096)
        with contextlib.suppress(ConnectionError):
            raw.sendall(b"x" * (2 << 20))
            while raw.recv(65536):
                pass
    assert spawner.status()["children"] == []


def test_a_node_whose_init_has_ended(own_nest: Nest, modules: Path) -> None:
    """The namespaces are gone: the error names the node, the process inside is reported, the spawner
    lives."""
    own_nest.add("gone", "here")
    own_nest.write()
    child = run(own_nest, modules, "gone", "sleeper")
    own_nest.nodes["gone"].end_init()
    assert child.wait(10) == -signal.SIGKILL
    with pytest.raises(SpawnerError, match="node 'gone'"):
        run(own_nest, modules, "gone", "sleeper")
    assert run(own_nest, modules, "here", "ending", "0").wait(10) == 0
    # A number that is used again by a process that is no init must not be entered.
    own_nest.nodes["here"].pid, real = os.getpid(), own_nest.nodes["here"].pid
    own_nest.write()
    own_nest.nodes["here"].pid = real
    with pytest.raises(SpawnerError, match="is not the init"):
        run(own_nest, modules, "here", "sleeper")


def test_a_start_waits_for_a_testbed_that_is_being_raised(own_nest: Nest, modules: Path) -> None:
    own_nest.add("late")
    own_nest.write("raising", pids=False)
    threading.Timer(0.5, own_nest.write).start()
    began = time.monotonic()
    assert run(own_nest, modules, "late", "ending", "0").wait(10) == 0
    assert time.monotonic() - began > 0.4


def test_a_lease_ends_with_its_connection(nest: Nest, modules: Path) -> None:
    leased = run(nest, modules, "a", "sleeper", lease=True)
    kept = run(nest, modules, "a", "sleeper", log="kept.log")
    leased.close()
    kept.close()
    wait_until(lambda: not alive(leased.pid), 3, "the end of a leased process")
    assert alive(kept.pid)
    os.kill(kept.pid, signal.SIGTERM)
    wait_until(lambda: not Spawner(nest.socket).status()["children"], 3, "the end of all children")


def test_stop_is_sigterm_then_sigkill(nest: Nest, modules: Path) -> None:
    polite, stubborn = (
        run(nest, modules, "b", "sleeper", log="polite"),
        run(nest, modules, "c", "stubborn", log="stubborn"),
    )
    wait_until(lambda: "up" in (modules / "stubborn").read_text(), 5, "the stubborn process")
    began = time.monotonic()
    polite.stop()
    stubborn.stop()
    assert polite.wait(3) == -signal.SIGTERM
    assert stubborn.wait(10) == -signal.SIGKILL
    assert 4.5 < time.monotonic() - began < 7


def test_templates_share_what_they_have_warmed(nest: Nest, modules: Path) -> None:
    """A fork of a warmed template has PyTorch and the data, and costs a few MiB; a failed warming is told."""
    spawner = Spawner(nest.socket)
    seconds = spawner.warm(modules, {"x": 1})
    again = spawner.warm(modules, {"x": 1})
    (modules / "user.py").write_text(
        "import sys\nassert 'torch' in sys.modules\nimport torch, time\n"
        "x = torch.ones(10, requires_grad=True)\n"
        "x.sum().backward()\nprint('up', torch.get_num_threads(), flush=True)\ntime.sleep(600)\n"
    )
    children = [
        run(nest, modules, node, "user", log=f"user-{node}-{index}", lease=True, application=modules)
        for node in ("a", "b", "c")
        for index in range(4)
    ]
    logs = [modules / f"user-{node}-{index}" for node in ("a", "b", "c") for index in range(4)]
    wait_until(lambda: all("up 1" in log.read_text() for log in logs), 30, "the forks of the template")
    shared = [pss_kib(child.pid) for child in children]
    template = spawner.status()["templates"][0]
    print(
        f"\nwarmed in {seconds:.2f} s (again {again:.2f} s), {template['threads']} thread(s); PSS a child "
        f"{min(shared)} to {max(shared)} KiB"
    )
    assert seconds > 0.2 and again == 0.0 and template["children"] == 12 and template["threads"] == 1
    assert max(shared) < 60 << 10, (
        f"PSS of forks in KiB: {shared}, 64 MiB of data and PyTorch should be shared"
    )
    with pytest.raises(SpawnerError, match="the data set is not installed"):
        spawner.warm(modules, {"fail": True})
    for child in children:
        child.close()
    wait_until(lambda: not spawner.status()["children"], 10, "the end of all children")


ECHO = """
import grpc
from concurrent import futures

class Echo(grpc.GenericRpcHandler):
    def service(self, call):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: request)

server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Echo()])
port = server.add_insecure_port("127.0.0.1:0")
server.start()
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    assert channel.unary_unary("/t/Echo")(b"hello", timeout=10, wait_for_ready=True) == b"hello"
server.stop(0)
print("echoed")
"""


def test_grpc_and_threads_work_in_forks(nest: Nest, modules: Path) -> None:
    """gRPC, imported but not used before the fork, works in forks of the base and of a template."""
    (modules / "echo.py").write_text(ECHO)
    for number, application in enumerate((None, modules, None, modules)):
        child = run(nest, modules, "a", "echo", log=f"echo-{number}", application=application)
        assert child.wait(30) == 0, (modules / f"echo-{number}").read_text()
        # Beside it gRPC may say that a channel was told to go away.
        assert "echoed" in (modules / f"echo-{number}").read_text().splitlines()


def test_a_template_that_dies_takes_its_children_and_is_replaced(nest: Nest, modules: Path) -> None:
    spawner = Spawner(nest.socket)
    child = run(nest, modules, "a", "sleeper", lease=True, application=modules)
    template = next(item for item in spawner.status()["templates"] if item["application"] == str(modules))
    os.kill(template["pid"], signal.SIGKILL)
    assert child.wait(5) == -signal.SIGKILL
    wait_until(lambda: not alive(child.pid), 3, "the child's end")
    assert run(nest, modules, "a", "ending", "4", application=modules).wait(20) == 4


def test_fifty_starts_at_once(nest: Nest, modules: Path) -> None:
    spawner = Spawner(nest.socket)
    before = spawner.status()["base"]
    names = [f"many-{number}" for number in range(50)]
    began = time.monotonic()
    with ThreadPoolExecutor(50) as pool:
        futures = [
            pool.submit(run, nest, modules, "abc"[number % 3], "sleeper", log=name, lease=True)
            for number, name in enumerate(names)
        ]
        children = [future.result(30) for future in futures]
    seconds = time.monotonic() - began
    wait_until(lambda: all((modules / name).read_text() == "up\n" for name in names), 20, "50 sleepers")
    up = time.monotonic() - began
    after = spawner.status()["base"]
    fork_ms = 1000 * (after["fork_seconds"] - before["fork_seconds"]) / (after["forks"] - before["forks"])
    sizes = sorted(pss_kib(child.pid) for child in children)
    print(
        f"\n50 starts answered in {seconds:.2f} s ({50 / seconds:.0f} a second), all run after {up:.2f} s; "
        f"a fork {fork_ms:.1f} ms; PSS median {sizes[25]} KiB, most {sizes[-1]} KiB"
    )
    assert seconds < 6, f"50 starts took {seconds:.1f} s, at most 6 expected (1 on a quiet machine)"
    assert sizes[25] < 12 << 10, f"median PSS {sizes[25]} KiB, at most 12288 expected"
    for child in children:
        child.close()
    wait_until(lambda: not spawner.status()["children"], 10, "the end of all children")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_everything_ends_with_the_spawner(own_nest: Nest, modules: Path, number: signal.Signals) -> None:
    """Also forks of a template, whose parent is not the spawner itself."""
    own_nest.add("a")
    own_nest.write()
    children = [
        run(own_nest, modules, "a", "sleeper", log="1"),
        run(own_nest, modules, "a", "sleeper", log="2", application=modules),
    ]
    template = Spawner(own_nest.socket).status()["templates"][0]["pid"]
    own_nest.process.send_signal(number)
    assert own_nest.process.wait(10) == (0 if number == signal.SIGTERM else -number)
    left = [template, *(child.pid for child in children)]
    wait_until(lambda: not any(alive(pid) for pid in left), 3, f"the end of {left}")
    if number == signal.SIGTERM:
        assert not own_nest.socket.exists()
        assert children[0].wait(1) == -signal.SIGTERM


def test_a_second_spawner_on_the_socket_is_refused(nest: Nest) -> None:
    import subprocess

    environment = {**os.environ, **FIXED_ENVIRONMENT, "PYTHONPATH": str(ROOT), "TEST_SHIPPED": "/"}
    second = subprocess.run(
        [*COMMAND, "--inventory", str(nest.inventory), "--socket", str(nest.socket)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert second.returncode == 1 and "another spawner listens there" in second.stderr
    assert Spawner(nest.socket).status()["ok"]
    assert os.stat(nest.socket).st_mode & 0o777 == 0o600
