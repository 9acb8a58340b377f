"""The guest: a virtual machine that boots, runs pytest on the tests of `inside/`, sends each result, and ends.

It sees the host through four read-only shares (/usr, the Python environment, its interpreter, this checkout) and has no
network card and no disk: what its tests do stays within it. Results come as JSON lines over its second serial port,
so there is nothing that it can write. The whole guest has a deadline, and ends with the process that started it.
COHORTNET_KERNEL_CONSOLE=FILE keeps what it printed, COHORTNET_KERNEL_DEADLINE_S changes the deadline.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.kernel import initrd, kernel_package

DEADLINE_S = float(os.environ.get("COHORTNET_KERNEL_DEADLINE_S", "900"))
"""From power on to power off: several times what all tests together take on two quiet cores (TCG is slow on busy ones).
"""
RESULTS = "/dev/ttyS1"
_MEMORY_MIB = 2048
_FIRST_MODULES = ("virtio_pci", "9p", "9pnet_virtio")
_OF_ETC = ("passwd", "group", "nsswitch.conf", "ld.so.cache", "protocols", "services", "alternatives", "iproute2")
_PR_SET_PDEATHSIG = 1
_END_S = 15.0

_INIT = """#!/bench/busybox sh
# The first program of the guest. Whatever fails, the machine goes off.
b=/bench/busybox
off() { echo "bench: $*"; $b sync; echo o > /proc/sysrq-trigger; $b sleep 5; $b poweroff -f; }
$b mount -t proc proc /proc || exec $b poweroff -f
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs devtmpfs /dev
$b mkdir -p /dev/pts /dev/shm
$b mount -t devpts devpts /dev/pts
for place in /dev/shm /run /tmp; do $b mount -t tmpfs -o mode=1777 tmpfs $place; done
$b mount -t cgroup2 cgroup2 /sys/fs/cgroup
for module in @MODULES@; do $b insmod /bench/modules/$module || off "module $module"; done
share() {
    $b mkdir -p "$2"
    $b mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=262144,cache=loose "$1" "$2" || off "share $1"
}
@SHARES@
echo /bench/modprobe > /proc/sys/kernel/modprobe
$b ip link set lo up
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb
export PYTHONPATH=@ROOT@ PYTHONDONTWRITEBYTECODE=1 COHORTNET_KERNEL_BENCH=inside OMP_NUM_THREADS=1
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
$b stty raw -echo < @RESULTS@
echo "bench: shares mounted at $($b cut -d' ' -f1 /proc/uptime) s"
# Before, Open vSwitch 3.1 counts no processors, starts no handler and drops the first packet of each flow.
while [ "$($b cut -d. -f1 /proc/uptime)" -lt 11 ]; do $b sleep 0.2; done
cd @ROOT@
echo "bench: pytest starts at $($b cut -d' ' -f1 /proc/uptime) s"
options="-p pytest_timeout -p no:cacheprovider --timeout=@TEST_S@ --durations=0 -rA"
$b xargs -0 @PYTHON@ -m pytest $options < /bench/tests > /dev/console 2>&1
off "pytest ended with $? at $($b cut -d' ' -f1 /proc/uptime) s"
"""


class GuestError(Exception):
    """The guest did not boot, ended early or took too long; with the end of its console."""


class Guest:
    """One boot. `results` gives what the tests report, line by line; `end` makes sure that nothing of it is left."""

    def __init__(self, tests: Sequence[str]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="cohortnet-kernel-"))
        self._started = time.monotonic()
        self._lines: queue.Queue[str | None] = queue.Queue(maxsize=10_000)
        kernel = kernel_package.kernel()
        self.release = kernel.release
        shares = _shares(kernel)
        archive = self._folder / "initrd"
        archive.write_bytes(initrd.pack(_entries(kernel, shares, tests)))
        self.console = self._folder / "console"
        self.console.touch()
        self._process = subprocess.Popen(
            _command(kernel, archive, self.console, shares), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, errors="replace", preexec_fn=_end_with_parent,
        )  # fmt: skip
        threading.Thread(target=self._read, name="guest-results", daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def results(self) -> Iterator[dict[str, Any]]:
        """What the guest sends, until it goes off. Raises GuestError after the deadline."""
        while True:
            left = self._started + DEADLINE_S - time.monotonic()
            try:
                line = self._lines.get(timeout=max(0.0, left))
            except queue.Empty:
                self.end()
                raise GuestError(f"the guest was not done after {DEADLINE_S:g} s\n{self.tail()}") from None
            if line is None:
                return
            if line.startswith("{"):
                yield json.loads(line)

    def tail(self, lines: int = 60) -> str:
        """The end of what the guest printed, and qemu's own words."""
        text = self.console.read_text(encoding="utf-8", errors="replace") if self.console.exists() else ""
        said = ""
        if self._process.poll() is not None and self._process.stderr is not None and not self._process.stderr.closed:
            said = self._process.stderr.read()
        return "\n".join([*text.splitlines()[-lines:], said]).strip()

    @property
    def seconds(self) -> float:
        """Since power on."""
        return time.monotonic() - self._started

    def wait_for_end(self) -> int | None:
        """The status of the machine's end once its tests are done; None where it had to be ended."""
        try:
            return self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> None:
        """End the machine where it still runs, and remove its folder."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(_END_S)
        keep = os.environ.get("COHORTNET_KERNEL_CONSOLE")
        if keep and self.console.exists():
            shutil.copy(self.console, keep)
        shutil.rmtree(self._folder, ignore_errors=True)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _shares(kernel: kernel_package.Kernel) -> dict[str, tuple[Path, str]]:
    """Tag -> folder of the host and where the guest sees it. What lies in a share already needs none of its own."""
    wanted = [Path("/usr"), kernel_package.ROOT, *(Path(os.path.realpath(p)) for p in (sys.base_prefix, sys.prefix)),
              Path(sys.prefix)]  # fmt: skip
    shares = {"kernel": (kernel.modules, "/bench/kernel")}
    taken: list[Path] = []
    for path in wanted:
        if not any(path.is_relative_to(other) for other in taken):
            taken.append(path)
            shares[f"host{len(taken)}"] = (path, str(path))
    return shares


def _entries(
    kernel: kernel_package.Kernel, shares: dict[str, tuple[Path, str]], tests: Sequence[str]
) -> dict[str, initrd.Entry]:
    modules = kernel_package.first_modules(kernel, _FIRST_MODULES)
    words = {
        "@MODULES@": " ".join(path.name for path in modules),
        "@SHARES@": "\n".join(f"share {tag} '{place}'" for tag, (_, place) in shares.items()),
        "@ROOT@": f"'{kernel_package.ROOT}'",
        "@RESULTS@": RESULTS,
        "@TEST_S@": f"{DEADLINE_S / 2:g}",
        "@PYTHON@": f"'{sys.executable}'",
    }
    script = _INIT
    for word, value in words.items():
        script = script.replace(word, value)
    entries = {
        "init": initrd.file(script.encode(), 0o755),
        "bench/busybox": initrd.file(kernel.busybox.read_bytes(), 0o755),
        "bench/modprobe": initrd.file(b'#!/bench/busybox sh\nexec /usr/sbin/modprobe -d /bench/kernel "$@"\n', 0o755),
        "bench/tests": initrd.file(b"\0".join(test.encode() for test in tests)),
        **{f"bench/modules/{path.name}": initrd.file(path.read_bytes()) for path in modules},
        **{name: initrd.link(f"usr/{name}") for name in ("bin", "sbin", "lib", "lib64")},
        **{name: initrd.folder() for name in ("proc", "sys", "dev", "run", "tmp", "root", "usr", "etc", "mnt")},
        "var/tmp": initrd.folder(0o1777), "var/log": initrd.folder(), "var/lib": initrd.folder(),
        "var/run": initrd.link("/run"),
        "etc/hosts": initrd.file(b"127.0.0.1 localhost\n"),
    }  # fmt: skip
    for name in _OF_ETC:
        top = Path("/etc", name)
        for path in (top, *sorted(top.rglob("*"))) if top.is_dir() else (top,):
            if path.is_symlink():
                entries[str(path)[1:]] = initrd.link(os.readlink(path))
            elif path.is_file():
                entries[str(path)[1:]] = initrd.file(path.read_bytes())
    return entries


def _command(
    kernel: kernel_package.Kernel, archive: Path, console: Path, shares: dict[str, tuple[Path, str]]
) -> list[str]:
    command = [
        "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "Nehalem", "-smp", "2", "-m", str(_MEMORY_MIB),
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none",
        "-kernel", str(kernel.image), "-initrd", str(archive),
        "-append", "console=ttyS0 quiet panic=-1 cgroup_no_v1=all mitigations=off",
        "-chardev", f"file,id=console,path={console}", "-serial", "chardev:console",
        "-chardev", "stdio,id=results,signal=off", "-serial", "chardev:results",
    ]  # fmt: skip
    for tag, (path, _) in shares.items():
        command += ["-virtfs", f"local,path={path},mount_tag={tag},security_model=none,readonly=on,multidevs=remap"]
    return command
