"""Traffic control put through by netlink is what `tc` makes of the same lines."""

from __future__ import annotations

import socket
import struct
import subprocess

import pytest

from topology.engine import disciplines, namespaces, netlink, shaping
from topology.errors import TopologyError
from topology.plan import Shape

SHAPES = {
    "ten": Shape(rate_bps=10_000_000),
    "hundred-with-a-queue": Shape(rate_bps=100_000_000, queue_packets=50),
    "odd": Shape(rate_bps=1_000_001),
    "beyond-32-bits-of-bytes": Shape(rate_bps=400_000_000_000),
    "queue-alone": Shape(queue_packets=7),
}


def shown(shape: Shape, *, by_tc: bool) -> list[str]:
    """What `tc` shows of an interface of a new network namespace that was given this shape."""
    lines = shaping.commands("one", shape)

    def body() -> list[str]:
        namespaces.unshare(namespaces.CLONE_NEWNET)
        batch = netlink.Batch()
        batch.veth("one", netlink.Peer("other"), index=7, up=False)
        if not by_tc:
            disciplines.add(batch, 7, lines, "interface one")
        with netlink.socket_here() as link:
            netlink.send(link, batch)
        if by_tc:
            text = "".join(" ".join(line) + "\n" for line in lines)
            subprocess.run(["tc", "-batch", "-"], input=text, text=True, check=True, timeout=20)
        output = ""
        for kind in ("qdisc", "class"):
            command = ["tc", "-details", kind, "show", "dev", "one"]
            output += subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
        return output.splitlines()

    return namespaces.in_thread(body)


@pytest.mark.live
@pytest.mark.parametrize("name", SHAPES)
def test_the_kernel_has_the_same_of_both(name: str) -> None:
    wanted = shown(SHAPES[name], by_tc=True)
    assert wanted[0].startswith(("qdisc htb 1: ", "qdisc pfifo 30: ")), wanted
    assert shown(SHAPES[name], by_tc=False) == wanted


@pytest.mark.live
def test_a_refusal_names_the_interface_and_the_line() -> None:
    def body() -> None:
        namespaces.unshare(namespaces.CLONE_NEWNET)
        batch = netlink.Batch()
        disciplines.add(batch, 9999, shaping.commands("one", SHAPES["ten"]), "link a-b")
        with netlink.socket_here() as link:
            netlink.send(link, batch)

    with pytest.raises(TopologyError, match=r"link a-b: qdisc replace dev one root.*the kernel refused.*ENODEV"):
        namespaces.in_thread(body)


def test_what_only_tc_knows_is_left_to_it() -> None:
    assert all(disciplines.can(shaping.commands("e", shape)) for shape in SHAPES.values())
    assert disciplines.can([])
    delayed = shaping.commands("e", Shape(rate_bps=1_000_000, delay_s=0.01))
    assert not disciplines.can(delayed)
    assert not disciplines.can([["qdisc", "del", "dev", "e", "root"]])
    with pytest.raises(ValueError, match="is for `tc`"):
        disciplines.add(netlink.Batch(), 1, delayed, "e")


def test_a_burst_of_a_very_slow_link_does_not_run_over() -> None:
    batch = netlink.Batch()
    disciplines.add(batch, 1, shaping.commands("e", Shape(rate_bps=8)), "e")
    parameters = batch.requests[1][0].index(struct.pack("=II", 0xFFFFFFFF, 0xFFFFFFFF))
    assert parameters > 16


def test_attributes_are_padded_to_four_bytes() -> None:
    assert netlink.attribute(3, b"abc") == struct.pack("=HH", 7, 3) + b"abc\0"
    assert len(netlink.text_attribute(3, "abcd")) == 12


def test_broadcast_follows_from_the_prefix() -> None:
    batch = netlink.Batch()
    batch.address(1, "10.1.2.3", 16, "x")
    batch.address(1, "10.1.2.3", 32, "x")
    ends = [data[-4:] for data, _ in batch.requests]
    assert [socket.inet_ntoa(end) for end in ends] == ["10.1.255.255", "10.1.2.3"]
