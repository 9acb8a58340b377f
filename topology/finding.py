"""What the doctor's tables share: a finding, the wording of numbers, which package brings which program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

Status = Literal["ok", "warning", "missing"]

NETEM_REMEDY = (
    "`sudo modprobe sch_netem`; where that fails, install the distribution's full kernel "
    "(Ubuntu: `linux-modules-extra-$(uname -r)`, Fedora: `kernel-modules-extra`)"
)
_PACKAGES = {
    "iproute2": ("ip", "tc"),
    "nftables": ("nft",),
    "util-linux": ("unshare", "nsenter"),
    "kmod": ("modprobe",),
    "ethtool": ("ethtool",),
    "iptables": ("iptables",),
    "openvswitch-switch": ("ovs-vswitchd", "ovsdb-server", "ovsdb-tool", "ovs-vsctl", "ovs-ofctl"),
    "iputils-ping": ("ping",),
    "iperf3": ("iperf3",),
    "docker.io": ("dockerd", "docker-init"),
    "prometheus": ("prometheus",),
}
ENGINE_PROGRAMS = ("ip", "tc", "nft", "unshare")
SWITCH_PROGRAMS = ("ovs-vswitchd", "ovsdb-server", "ovsdb-tool", "ovs-vsctl")


@dataclass(frozen=True)
class Finding:
    """One line of `cohortnet doctor`: what was looked at, how it is, what that costs, and how to mend it."""

    name: str
    status: Status
    detail: str
    cost: str = ""
    remedy: str = ""

    def as_dict(self) -> dict[str, str]:
        """Plain data, for `--json`."""
        return asdict(self)


def install(programs: Sequence[str]) -> str:
    """The command that installs these programs."""
    packages = [package for package, holds in _PACKAGES.items() if set(holds) & set(programs)]
    return f"`sudo apt-get install {' '.join(packages)}`"


def count(number: int, noun: str) -> str:
    """`1 link`, `2 links`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def mebibytes(size: int) -> str:
    """A size in bytes, as MiB or GiB."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def some(names: Sequence[str], shown: int = 3) -> str:
    """The first few names, and how many more there are."""
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")
