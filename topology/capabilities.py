"""What this machine can do, found out by trying: kernel features, cgroups, Docker, Open vSwitch, programs.

Every kernel feature is tried in a network namespace that lives as long as the one command that tries it, so
nothing is left and nothing of the host is touched (but that the kernel may load the module that was asked
for). Never judges: `topology.doctor` does. Without root the same is tried in a user namespace; where that is
forbidden, the answer is None: not known.
"""

from __future__ import annotations

import functools
import http.client
import json
import os
import platform
import shutil
import socket
import struct
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from topology import cgroup_mounts

PROBE_TIMEOUT_S = 1.5
TRIAL_TIMEOUT_S = 10.0
"""For a kernel feature: what is tried first on a slow machine waits for its module to be loaded."""
SEARCH_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"))
"""A user's own PATH often lacks the folders in which network programs are."""

PROGRAMS = (
    *("ip", "tc", "nft", "unshare", "nsenter", "modprobe", "ethtool", "iptables"),
    *("ovs-vswitchd", "ovsdb-server", "ovs-vsctl", "ovs-ofctl", "ovsdb-tool"),
    *("ping", "iperf3", "dockerd", "docker-init", "prometheus"),
)


@dataclass(frozen=True)
class DockerFacts:
    """The daemon, or in `error` why it does not answer; not `permitted` where the user lacks the right."""

    answers: bool
    version: str | None = None
    cgroup_driver: str | None = None
    cgroup_version: int | None = None
    storage_driver: str | None = None
    error: str | None = None
    permitted: bool = True


@dataclass(frozen=True)
class Capabilities:
    """What was found. None for a feature means that it could not be tried; memory in bytes."""

    root: bool
    kernel: str
    python: str
    cores: int
    """Processors that this process may use."""
    processors: tuple[int, ...]
    memory_bytes: int
    memory_available_bytes: int
    netem: bool | None
    htb: bool | None
    tbf: bool | None
    veth: bool | None
    bridge_isolation: bool | None
    nft_bridge: bool | None
    kernel_datapath: bool | None
    tun: bool | None
    """Whether /dev/net/tun can be opened: Open vSwitch's own datapath needs it."""
    cgroup_version: int | None
    """2 where the unified hierarchy holds the controllers, 1 where the older ones do, None where none does.
    """
    controllers: tuple[str, ...]
    cpu_quota: bool
    docker: DockerFacts
    ovs_version: str | None
    programs: dict[str, str | None]
    """Program -> its path, None where it is missing."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON and the run record."""
        return asdict(self)


def find_program(name: str) -> str | None:
    """The program's path, also in the folders for administrators."""
    return shutil.which(name, path=SEARCH_PATH)


def run(
    command: Sequence[str], text: str | None = None, timeout_s: float = PROBE_TIMEOUT_S
) -> tuple[int | None, str]:
    """Exit status (None: missing, or too slow) and output of a short command, both streams."""
    try:
        done = subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            env={**os.environ, "PATH": SEARCH_PATH, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    return done.returncode, done.stdout + done.stderr


def _namespace() -> list[str]:
    command = ["unshare", "--net"]
    return command if os.geteuid() == 0 else [*command, "--user", "--map-root-user"]


def _tried(command: Sequence[str], text: str | None, ground: bool) -> bool | None:
    # `ground` says whether a namespace can be made here at all; only then does a failure tell something
    # about the kernel.
    if not ground or find_program(command[0]) is None:
        return None
    status, _ = run([*_namespace(), *command], text, TRIAL_TIMEOUT_S)
    return None if status is None else status == 0


_QDISC = ("tc", "qdisc", "replace", "dev", "lo", "root")
_BRIDGE = """link add name cnp0 type bridge
link add name cnp1 type veth peer name cnp2
link set dev cnp1 master cnp0
link set dev cnp1 type bridge_slave isolated on
"""
_VETH = "link add name cnp1 type veth peer name cnp2\n"
_NFT = "table bridge cnp { chain forward { type filter hook forward priority 0; iifname cnp1 drop; }; }\n"

_TRIALS: dict[str, tuple[tuple[str, ...], str | None]] = {
    "netem": ((*_QDISC, "netem", "delay", "1ms", "loss", "1%"), None),
    "htb": ((*_QDISC, "handle", "1:", "htb", "default", "1"), None),
    "tbf": ((*_QDISC, "tbf", "rate", "10mbit", "burst", "16kb", "latency", "50ms"), None),
    "veth": (("ip", "-batch", "-"), _VETH),
    "bridge_isolation": (("ip", "-batch", "-"), _BRIDGE),
    "nft_bridge": (("nft", "-f", "-"), _NFT),
}


def has_netlink_family(name: str) -> bool:
    """Whether the kernel knows this generic netlink family; asking loads the family's module, if any.

    Constants: linux/genetlink.h (GENL_ID_CTRL 16, CTRL_CMD_GETFAMILY 3, CTRL_ATTR_FAMILY_NAME 2).
    """
    value = name.encode() + b"\0"
    attribute = struct.pack("=HH", 4 + len(value), 2) + value
    attribute += b"\0" * (-len(attribute) % 4)
    body = struct.pack("=BBH", 3, 1, 0) + attribute
    request = struct.pack("=IHHII", 16 + len(body), 16, 1, 1, 0) + body
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16) as link:
            link.settimeout(PROBE_TIMEOUT_S)
            link.bind((0, 0))
            link.send(request)
            answer = link.recv(65536)
    except OSError:
        return False
    # An error message (type 2) carries a negative errno; a family is answered with the family.
    return len(answer) >= 20 and struct.unpack_from("=IHHII", answer)[1] == 16


def _kernel_datapath() -> bool:
    if has_netlink_family("ovs_datapath"):
        return True
    if os.geteuid() == 0:
        return False
    # Asked without root the kernel may not load it; a module that could be loaded counts.
    status, _ = run(["modprobe", "--dry-run", "--quiet", "openvswitch"])
    return status == 0


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PROBE_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _docker() -> DockerFacts:
    # By hand and not through Docker's SDK, whose import alone takes longer than all other probes together.
    address = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if not address.startswith("unix://"):
        return DockerFacts(False, error=f"DOCKER_HOST is {address}, which is not a socket of this machine")
    path = address.removeprefix("unix://")
    connection = _UnixConnection(path)
    try:
        connection.request("GET", "/info")
        data = json.loads(connection.getresponse().read())
    except PermissionError:
        return DockerFacts(False, error=f"{path} may not be used by this user", permitted=False)
    except FileNotFoundError:
        return DockerFacts(False, error=f"there is no socket {path}")
    except (OSError, http.client.HTTPException, ValueError) as error:
        return DockerFacts(False, error=f"nobody answers on {path} ({error})")
    finally:
        connection.close()
    if "ServerVersion" not in data:
        return DockerFacts(False, error=f"{path}: {data.get('message', 'an unknown answer')}")
    version = str(data.get("CgroupVersion") or "1")
    return DockerFacts(
        answers=True,
        version=data["ServerVersion"],
        cgroup_driver=data.get("CgroupDriver"),
        cgroup_version=int(version) if version.isdigit() else None,
        storage_driver=data.get("Driver"),
    )


def _ovs_version() -> str | None:
    status, output = run(["ovs-vswitchd", "--version"], timeout_s=TRIAL_TIMEOUT_S)
    first = output.splitlines()[0].split() if status == 0 and output.strip() else []
    return first[-1] if first else None


def _cgroups() -> tuple[int | None, tuple[str, ...], bool]:
    hierarchies = cgroup_mounts.mounts()
    older = [mount for mount in hierarchies if mount.version == 1 and mount.controllers]
    unified = [mount for mount in hierarchies if mount.version == 2 and mount.controllers]
    used = older or unified
    controllers = tuple(dict.fromkeys(name for mount in used for name in mount.controllers))
    if older:
        cpu = next((mount.folder for mount in older if "cpu" in mount.controllers), None)
        return 1, controllers, cpu is not None and (cpu / "cpu.cfs_quota_us").exists()
    # Version 2 shows cpu.max in every group but the root, so the controller's presence has to do.
    return (2 if unified else None), controllers, "cpu" in controllers


def _memory() -> tuple[int, int]:
    values = {}
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        key, _, rest = line.partition(":")
        values[key] = int(rest.split()[0]) * 1024
    return values["MemTotal"], values.get("MemAvailable", values["MemTotal"])


def _tun() -> bool | None:
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
    except PermissionError:
        return False if os.geteuid() == 0 else None
    except OSError:
        return False
    return True


@functools.cache
def capabilities() -> Capabilities:
    """Try everything at once: 0.1 s, where commands hang some `TRIAL_TIMEOUT_S`. Cached for this process."""
    ground = run([*_namespace(), "true"], timeout_s=TRIAL_TIMEOUT_S)[0] == 0
    with ThreadPoolExecutor(max_workers=6, thread_name_prefix="probe") as pool:
        trials = {
            name: pool.submit(_tried, command, text, ground) for name, (command, text) in _TRIALS.items()
        }
        datapath, daemon, version = (
            pool.submit(_kernel_datapath),
            pool.submit(_docker),
            pool.submit(_ovs_version),
        )
        results = {name: future.result() for name, future in trials.items()}
    cgroup_version, controllers, quota = _cgroups()
    total, available = _memory()
    processors = tuple(sorted(os.sched_getaffinity(0)))
    return Capabilities(
        root=os.geteuid() == 0,
        kernel=platform.release(),
        python=platform.python_version(),
        cores=len(processors),
        processors=processors,
        memory_bytes=total,
        memory_available_bytes=available,
        **results,
        kernel_datapath=datapath.result(),
        tun=_tun(),
        cgroup_version=cgroup_version,
        controllers=controllers,
        cpu_quota=quota,
        docker=daemon.result(),
        ovs_version=version.result(),
        programs={name: find_program(name) for name in PROGRAMS},
    )
