"""Links of a raised testbed under traffic: rates and queues change, and not one packet of a numbered stream is lost."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.topology.engine import lab
from tests.topology.engine.stream import Stream
from topology.capabilities import capabilities
from topology.engine import change_shapes, namespaces, netlink, queue_counters
from topology.engine.state import load
from topology.errors import TestbedProblems, TopologyError
from topology.inventory import read_inventory
from topology.plan import Shape

pytestmark = pytest.mark.live
NAME = "t-eng-change-links"
M = 1_000_000


@pytest.fixture(scope="module")
def bed() -> Iterator[dict[str, Any]]:
    rates = {"a": "100 Mbit/s", "b": "50 Mbit/s", "free": None, "two": "2 Gbit/s", "ten": "10 Gbit/s"}
    with lab.up(lab.star(NAME, rates, controller={"rest_host_port": 19001})) as inventory:
        yield inventory


def now() -> dict[str, Any]:
    known = load(NAME)
    assert known is not None
    return read_inventory(known.plan.inventory)


def place(inventory: dict[str, Any], node: str | None) -> Path:
    if node is None:
        return namespaces.named(inventory["core"]["namespace"])
    return namespaces.of_process(next(item["pid"] for item in inventory["nodes"] if item["name"] == node))


def classes(inventory: dict[str, Any], node: str | None, interface: str) -> dict[str, int]:
    """HTB's classes and their rates in bit/s."""

    def read() -> dict[str, int]:
        with netlink.socket_here() as link:
            found = queue_counters.classes(link, socket.if_nametoindex(interface))
        return {f"{item.major}:{item.minor:x}": item.rate * 8 for item in found}

    return namespaces.inside(place(inventory, node), read)


def rate(inventory: dict[str, Any], node: str | None, interface: str) -> int:
    return classes(inventory, node, interface)["1:1"]


def queue(inventory: dict[str, Any], node: str) -> str:
    """The last discipline of a node's interface."""
    command = ["tc", "qdisc", "show", "dev", "eth0"]
    text = namespaces.inside(place(inventory, node), lambda: subprocess.check_output(command, text=True))
    return text.splitlines()[-1].split()[1]


@contextlib.contextmanager
def put_back() -> Iterator[None]:
    try:
        yield
    finally:
        change_shapes.reset(NAME)


def test_rates_beyond_a_gigabit_are_configured_as_such(bed: dict[str, Any]) -> None:
    for node, wanted in (("two", 2_000 * M), ("ten", 10_000 * M)):
        port = next(link["b_interface"] for link in bed["links"] if link["a"] == node)
        assert rate(bed, node, "eth0") == rate(bed, None, port) == wanted
    with put_back():
        change_shapes.set_shape(NAME, "two", "s1", {"rate_bps": 25_000 * M})
        assert rate(bed, "two", "eth0") == 25_000 * M


def test_a_stream_loses_nothing_while_rate_and_queue_change(bed: dict[str, Any]) -> None:
    change: dict[str, Any]
    with put_back(), Stream(bed, "a", "b", per_second=1500, size=400) as stream:
        time.sleep(0.3)
        for change in ({"rate_bps": 20 * M}, {"rate_bps": 200 * M}, {"queue_packets": 300}, {"rate_bps": 10 * M},
                       {"queue_packets": None}, {"rate_bps": None}, {"rate_bps": 50 * M}):  # fmt: skip
            start = time.monotonic()
            link = change_shapes.set_shape(NAME, "a", "s1", change)
            print(f"{change}: {(time.monotonic() - start) * 1000:.0f} ms")
            assert (link.a_to_b, link.b_to_a) == (link.b_to_a, link.a_to_b)
            time.sleep(0.1)
        change_shapes.reset(NAME, "a", "s1")
        time.sleep(0.1)
    print(stream)
    assert stream.sent > 1000 and stream.lost == []
    assert rate(bed, "a", "eth0") == 100 * M


def test_a_link_without_a_rate_gets_one_and_loses_it_under_traffic(bed: dict[str, Any]) -> None:
    with put_back(), Stream(bed, "free", "a", per_second=1500, size=400) as stream:
        time.sleep(0.2)
        change_shapes.set_shape(NAME, "free", "s1", {"rate_bps": 10 * M})
        assert rate(bed, "free", "eth0") == 10 * M
        change_shapes.set_shape(NAME, "free", "s1", {"rate_bps": 30 * M, "queue_packets": 200})
        assert queue(bed, "free") == "tbf"
        change_shapes.reset(NAME)
        time.sleep(0.1)
    print(stream)
    assert stream.sent > 300 and stream.lost == []


def test_a_full_queue_is_sent_before_it_is_replaced(bed: dict[str, Any]) -> None:
    """A train of packets waits for half a second; meanwhile the queue becomes one of another kind."""
    with put_back():
        change_shapes.set_shape(NAME, "a", "s1", {"rate_bps": 2 * M})
        with Stream(bed, "a", "b", per_second=0, size=1000) as stream:
            stream.burst(100)  # 0.4 s of 2 Mbit/s
            change_shapes.set_shape(NAME, "a", "s1", {"queue_packets": 500}, "a-to-b")
            stream.burst(20)
        print(stream)
        assert stream.sent == 120 and stream.lost == []
        assert list(classes(bed, "a", "eth0")) == ["1:1"] and queue(bed, "a") == "tbf"


def test_each_direction_is_set_measured_and_restored(bed: dict[str, Any]) -> None:
    with put_back():
        link = change_shapes.set_shape(NAME, "s1", "a", {"rate_bps": 10 * M}, "b-to-a")  # from a, as ends are typed
        assert (link.a_to_b.rate_bps, link.b_to_a.rate_bps) == (10 * M, 100 * M)
        assert rate(bed, "a", "eth0") == 10 * M
        got = lab.goodput_bps(bed, "a", "b", reverse=False, seconds=2)
        print(f"up {got / M:.2f} Mbit/s")
        assert got == pytest.approx(10 * M * lab.GOODPUT_SHARE, rel=0.05)
        entry = next(item for item in now()["links"] if item["a"] == "a")
        assert entry["a_to_b"]["rate_bps"] == 10 * M and entry["declared"]["a_to_b"]["rate_bps"] == 100 * M
        back = change_shapes.reset(NAME, "a", "s1")
        assert [item.name for item in back] == [link.name] and back[0].a_to_b == Shape(rate_bps=100 * M)
        assert next(item for item in now()["links"] if item["a"] == "a")["declared"] is None
        assert change_shapes.reset(NAME) == []


def test_what_cannot_be_is_refused_whole(bed: dict[str, Any]) -> None:
    before = now()
    with pytest.raises(TestbedProblems) as refused:
        change_shapes.set_shape(NAME, "a", "s1", {"jitter_s": 0.01, "reorder": 0.1, "rate_bps": 5 * M})
    codes = {problem.code for problem in refused.value.problems}
    assert {"jitter-without-delay", "reorder-without-delay"} <= codes
    if capabilities().netem is False:
        assert "unsupported" in codes and "sch_netem" in str(refused.value)
    with pytest.raises(TopologyError, match="no link between 'a' and 'b'"):
        change_shapes.set_shape(NAME, "a", "b", {"rate_bps": M})
    with pytest.raises(TopologyError, match="not up"):
        change_shapes.set_shape("t-eng-change-none", "a", "b", {"rate_bps": M})
    assert now() == before and rate(bed, "a", "eth0") == 100 * M


def test_two_changes_at_once_take_turns(bed: dict[str, Any]) -> None:
    with put_back():
        threads = [threading.Thread(target=change_shapes.set_shape, args=(NAME, node, "s1", {"rate_bps": value * M}))
                   for node, value in (("a", 11), ("b", 12), ("free", 13))]  # fmt: skip
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rates = {item["a"]: item["a_to_b"]["rate_bps"] for item in now()["links"]}
        assert (rates["a"], rates["b"], rates["free"]) == (11 * M, 12 * M, 13 * M)


def test_a_queue_limit_stands_within_the_link_as_it_is_now(bed: dict[str, Any]) -> None:
    """The limit's tree follows the link's rate, and leaves the new shape behind when it goes."""
    core = place(bed, None)
    port = next(link["b_interface"] for link in bed["links"] if link["a"] == "b")

    def rest(method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        command = ["curl", "-sf", "-m", "20", "-X", method, f"http://127.0.0.1:8080{path}"]
        command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)] if body else []
        return namespaces.inside(core, lambda: subprocess.check_output(command, text=True))

    def tree() -> dict[str, int]:
        return classes(bed, None, port)

    with put_back():
        limit = {"target": {"kind": "port", "switch": "s1", "port": 2}, "direction": "down", "rate": "20 Mbit/s",
                 "enforce": "queue"}  # fmt: skip
        rest("PUT", "/v1/meters/lim", limit)
        made = tree()
        assert made["1:1"] == 50 * M and len(made) > 1 and made["1:2"] == 50 * M, made
        with Stream(bed, "a", "b", per_second=1500, size=400) as stream:
            time.sleep(0.2)
            change_shapes.set_shape(NAME, "b", "s1", {"rate_bps": 30 * M})
            changed = tree()
            change_shapes.set_shape(NAME, "b", "s1", {"rate_bps": 40 * M})
            time.sleep(0.2)
        print(made, changed, tree(), stream)
        assert changed["1:1"] == changed["1:2"] == 30 * M and 20 * M in changed.values()
        assert tree()["1:2"] == 40 * M and stream.lost == []
        rest("DELETE", "/v1/meters/lim")
        assert tree() == {"1:1": 40 * M}
    assert tree() == {"1:1": 50 * M}
