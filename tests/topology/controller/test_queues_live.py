"""Queue limits on a raised testbed: totals hold and are shared equally, rates change under traffic, and what was there
before comes back.
"""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.topology.controller import tcp_flows
from tests.topology.engine import lab
from topology.controller.queues import QueueEnforcer, QueueLimit, QueueMember
from topology.engine import namespaces

pytestmark = pytest.mark.live
CLIENTS = [f"c{number}" for number in range(10)]
M = 1_000_000
_T = TypeVar("_T")


class Bed:
    """A star with ten clients and a server, and an enforcer that runs as in the controller: in the core namespace."""

    def __init__(self, inventory: dict[str, Any]) -> None:
        self.inventory = inventory
        self.core = namespaces.named(inventory["core"]["namespace"])
        self.nodes = {node["name"]: node for node in inventory["nodes"]}
        self.enforcer = QueueEnforcer(inventory)

    def path(self, node: str | None) -> Path:
        return self.core if node is None else namespaces.of_process(self.nodes[node]["pid"])

    def port(self, node: str) -> str:
        return next(port["interface"] for switch in self.inventory["switches"] for port in switch["ports"]
                    if port["peer"] == node)  # fmt: skip

    def apply(self, limits: Sequence[QueueLimit]) -> list[str]:
        return namespaces.inside(self.core, lambda: self.enforcer.apply(limits))

    def statistics(self, limit: QueueLimit) -> dict[str, Any]:
        return namespaces.inside(self.core, lambda: self.enforcer.statistics(limit))

    def flows(self, up: bool, clients: Sequence[str] = CLIENTS) -> Any:
        ends = [(client, "server") if up else ("server", client) for client in clients]
        return tcp_flows.flows([(self.path(a), self.path(b), self.nodes[b]["address"]) for a, b in ends])

    def received(self, nodes: Sequence[str]) -> int:
        """Bytes of whole frames that the nodes' interfaces have received."""
        return sum(lab.received(self.inventory, node).bytes for node in nodes)

    def show(self, node: str | None, interface: str) -> str:
        """Everything that tc says of an interface, without counters."""
        def read() -> str:
            text = ""
            for what in ("qdisc", "class", "filter"):
                command = ["tc", "-d", what, "show", "dev", interface]
                text += f"{what}\n" + subprocess.run(command, capture_output=True, text=True, check=True).stdout
            return text

        return namespaces.inside(self.path(node), read)

    def cohort(self, up: bool, rate: int, name: str = "cohort", clients: Sequence[str] = CLIENTS) -> QueueLimit:
        server = self.nodes["server"]["address"]
        pairs = [(client, self.nodes[client]["address"]) for client in clients]
        members = tuple(QueueMember(client, *((a, server) if up else (server, a))) for client, a in pairs)
        node, interface = (None, self.port("server")) if up else ("server", "eth0")
        return QueueLimit(name, "up" if up else "down", node, interface, rate, rate, members)


@contextlib.contextmanager
def bed(name: str, link: str | None, **more: Any) -> Iterator[Bed]:
    with lab.up(lab.star(name, {**dict.fromkeys(CLIENTS), "server": link}, **more)) as inventory:
        yield Bed(inventory)


@pytest.fixture(scope="module")
def shaped() -> Iterator[Bed]:
    with bed("t-queue-shaped", "100 Mbit/s") as made:
        yield made


@pytest.fixture(scope="module")
def plain() -> Iterator[Bed]:
    with bed("t-queue-plain", None) as made:
        yield made


@contextlib.contextmanager
def restored(made: Bed, places: Sequence[tuple[str | None, str]]) -> Iterator[None]:
    """Within, limits are set; at the end they are taken away, and tc must say what it said before."""
    before = [made.show(*place) for place in places]
    try:
        yield
    finally:
        assert made.apply([]) == []
    assert [made.show(*place) for place in places] == before


def timed(function: Callable[[], _T]) -> tuple[_T, float]:
    start = time.monotonic()
    return function(), time.monotonic() - start


def check_frames(made: Bed, limit: QueueLimit, seconds: float, after: float) -> None:
    """Under a change: what frames got, as a receiver hands on later what a loss before held up."""
    receivers = ["server"] if limit.direction == "up" else CLIENTS
    time.sleep(after)
    start, before, counted = time.monotonic(), made.received(receivers), made.statistics(limit)
    time.sleep(seconds)
    passed = (made.received(receivers) - before) * 8 / (time.monotonic() - start)
    now = made.statistics(limit)
    shares = [end["bytes"] - begin["bytes"] for begin, end in zip(counted["shares"], now["shares"], strict=True)]
    index = tcp_flows.jain(shares)
    print(f"{limit.rate_bps / M:g} Mbit/s {limit.direction}: frames {passed / M:.3f} Mbit/s, Jain's index {index:.4f}")
    assert passed == pytest.approx(limit.rate_bps, rel=0.05)
    assert index >= 0.95
    assert [share["client"] for share in now["shares"]] == CLIENTS
    assert sum(shares) == pytest.approx(now["bytes"] - counted["bytes"], rel=0.01)
    assert sum(shares) == pytest.approx(passed * seconds / 8, rel=0.05)
    assert sum(shares) / 1514 <= now["packets"] - counted["packets"] <= sum(shares) / 500


def check_total(values: Sequence[float], rate: int, fair: float = 0.95, tolerance: float = 0.05) -> None:
    wanted = rate * tcp_flows.GOODPUT_SHARE
    total, index = sum(values), tcp_flows.jain(values)
    print(f"{len(values)} flows at {rate / M:g} Mbit/s: {total / M:.3f} Mbit/s, {total / rate:.3f} of the rate, "
          f"{total / wanted:.3f} of what frames leave, Jain's index {index:.4f}")  # fmt: skip
    assert total == pytest.approx(wanted, rel=tolerance), f"expected {wanted / M:.2f} Mbit/s within {tolerance:.0%}"
    assert index >= fair


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_total_is_shared_equally_and_a_new_rate_is_set_in_place(shaped: Bed, up: bool) -> None:
    limit = shaped.cohort(up, 20 * M)
    place = (limit.node, limit.interface)
    with restored(shaped, [place]), shaped.flows(up) as running:
        time.sleep(0.3)  # set while the link is full
        assert shaped.apply([limit]) == []
        time.sleep(2.0)  # the burst of a second is spent, and TCP has found the rate
        check_frames(shaped, limit, 1.5, after=0)
        after = shaped.statistics(limit)
        assert 0 < after["backlog_bytes"] < 0.15 * 20 * M / 8
        if up:  # a sender in the same system waits for its own queue instead of losing packets
            assert after["drops"] > 0
        for rate in (5 * M, 50 * M) if up else (50 * M,):
            changed = replace(limit, rate_bps=rate, burst_bits=rate)
            assert shaped.apply([changed]) == []
            # Nothing was made anew: the counters go on.
            assert shaped.statistics(changed)["bytes"] >= after["bytes"]
            # A cut costs TCP retransmission time-outs first: what waited is sent at the new rate.
            check_frames(shaped, changed, 1.5, after=1.0 if rate > 20 * M else 2.0)
        assert shaped.apply([]) == []
        fast = sum(tcp_flows.rates(running, 1, after=0.5))
        assert fast > 85 * M, "without the limit the link's own rate is reached again"


def test_setting_again_changes_nothing_also_from_a_new_process(shaped: Bed) -> None:
    limits = [shaped.cohort(True, 20 * M), shaped.cohort(False, 30 * M)]
    places = [(limit.node, limit.interface) for limit in limits]
    with restored(shaped, places):
        assert shaped.apply(limits) == []
        first = [shaped.show(*place) for place in places]
        assert shaped.apply(limits) == []
        assert [shaped.show(*place) for place in places] == first
        shaped.enforcer = QueueEnforcer(shaped.inventory)
        errors, seconds = timed(lambda: shaped.apply(limits))
        assert errors == []
        assert [shaped.show(*place) for place in places] == first
        assert "error" not in shaped.statistics(limits[0])
        print(f"setting again takes {seconds * 1000:.1f} ms")
        # Found otherwise than left: made anew.
        command = ["tc", "class", "change", "dev", places[0][1], "parent", "1:2", "classid", "1:3", "htb",
                   "rate", "7mbit", "ceil", "7mbit"]  # fmt: skip
        namespaces.inside(shaped.core, lambda: subprocess.run(command, check=True))
        assert shaped.apply(limits) == []
        assert [shaped.show(*place) for place in places] == first


def test_a_client_within_a_cohort_within_a_server(shaped: Bed) -> None:
    address = {name: node["address"] for name, node in shaped.nodes.items()}
    cohort = shaped.cohort(True, 20 * M, clients=CLIENTS[:4])
    one = replace(cohort, meter="one", rate_bps=2 * M, burst_bits=2 * M, members=cohort.members[:1])
    server = replace(cohort, meter="server", rate_bps=30 * M, burst_bits=30 * M,
                     members=(QueueMember("server", None, address["server"]),))  # fmt: skip
    with restored(shaped, [(None, cohort.interface)]):
        assert shaped.apply([one, cohort, server]) == []
        with shaped.flows(True, CLIENTS[:5]) as running:
            values = tcp_flows.rates(running, 2, after=2)
            print([round(value / M, 2) for value in values], shaped.statistics(server))
            assert values[0] == pytest.approx(2 * M * tcp_flows.GOODPUT_SHARE, rel=0.05)
            assert sum(values[:4]) == pytest.approx(20 * M * tcp_flows.GOODPUT_SHARE, rel=0.05)
            assert tcp_flows.jain(values[1:4]) >= 0.95
            assert values[4] == pytest.approx(10 * M * tcp_flows.GOODPUT_SHARE, rel=0.05)
            # The inner limit goes under traffic; the others hold and no flow breaks.
            assert shaped.apply([cohort, server]) == []
            values = tcp_flows.rates(running, 2, after=1.5)
            check_total(values[:4], 20 * M)
            assert sum(values) == pytest.approx(30 * M * tcp_flows.GOODPUT_SHARE, rel=0.05)


def test_a_limit_above_the_links_rate_leaves_the_links_rate_in_force(shaped: Bed) -> None:
    limit = shaped.cohort(False, 400 * M)
    with restored(shaped, [(limit.node, limit.interface)]):
        assert shaped.apply([limit]) == []
        with shaped.flows(False) as running:
            check_total(tcp_flows.rates(running, 1.5, after=0.5), 100 * M)


def test_interfaces_that_had_no_queue_get_none_back(plain: Bed) -> None:
    limits = [replace(plain.cohort(up, 5 * M), burst_bits=M // 4) for up in (True, False)]
    places = [(limit.node, limit.interface) for limit in limits]
    assert all("noqueue" in plain.show(*place) for place in places)
    with restored(plain, places):
        assert plain.apply(limits) == []
        with plain.flows(True) as running:
            check_total(tcp_flows.rates(running, 5, after=2.5), 5 * M)
            assert plain.apply([limits[1]]) == []
            assert sum(tcp_flows.rates(running, 0.5, after=0.2)) > 200 * M


def test_a_queue_of_the_users_own_length_comes_back() -> None:
    with bed("t-queue-length", None) as made:
        place = (None, made.port("server"))
        link = next(link for link in made.inventory["links"] if "server" in (link["a"], link["b"]))
        direction = "b_to_a" if link["a"] == "server" else "a_to_b"
        link[direction]["queue_packets"] = 300
        words = ["tc", "qdisc", "replace", "dev", place[1], "root", "handle", "30:", "pfifo", "limit", "300"]
        limit = made.cohort(True, 20 * M)
        assert any("does not have its link's own pfifo" in text for text in made.apply([limit]))
        namespaces.inside(made.core, lambda: subprocess.run(words, check=True))
        with restored(made, [place]):
            assert made.apply([limit]) == []
            shown = made.show(*place)
            # What has no limit keeps the link's own; each client's share has one of as many full frames.
            assert len(re.findall(r"pfifo \S+ parent \S+ limit 300p", shown)) == 1
            assert len(re.findall(r"qdisc tbf \S+ parent", shown)) == len(CLIENTS)


def test_errors_name_interface_and_command(plain: Bed, tmp_path: Path) -> None:
    limit = plain.cohort(True, 5 * M)
    with restored(plain, [(None, limit.interface)]):
        missing = replace(limit, meter="other", interface="no-such")
        assert [text for text in plain.apply([missing, limit]) if "'no-such' does not exist" in text]
        assert "error" not in plain.statistics(limit)
        assert "not in force" in plain.statistics(missing)["error"]
        bad = replace(limit, members=(QueueMember("c0", "10.0.0.999", None), QueueMember("c1", "10.0.0.2", None)))
        errors = plain.apply([bad])
        assert len(errors) == 1 and repr(limit.interface) in errors[0] and "`tc filter add dev" in errors[0]
        strange = replace(limit, node="nobody", interface="eth0")
        assert plain.apply([strange]) == ["interface 'eth0' of node 'nobody': there is no node 'nobody'"]


@pytest.mark.parametrize(("up", "rate"), [(True, 20 * M), (False, 50 * M)], ids=["up", "down"])
def test_goodput_of_new_flows(plain: Bed, up: bool, rate: int) -> None:
    limit = replace(plain.cohort(up, rate), burst_bits=rate // 20)
    with restored(plain, [(limit.node, limit.interface)]):
        assert plain.apply([limit]) == []
        with plain.flows(up) as running:
            # Shorter windows sway by what receivers hold back until a lost segment has come.
            check_total(tcp_flows.rates(running, 4.5, after=1.5), rate)


def test_no_packet_is_lost_when_limits_come_change_nest_and_go(plain: Bed) -> None:
    """Datagrams wait in the queue while the tree around them changes; each of them arrives."""
    cohort = replace(plain.cohort(True, 100_000), burst_bits=800)
    one = replace(cohort, meter="one", rate_bps=80_000, members=cohort.members[:1])
    steps = [[cohort], [replace(cohort, rate_bps=150_000)], [cohort, one], [replace(cohort, rate_bps=3 * M)], []]
    with restored(plain, [(None, cohort.interface)]):
        sender = namespaces.inside(plain.path("c0"), lambda: socket.socket(type=socket.SOCK_DGRAM))
        receiver = namespaces.inside(plain.path("server"), lambda: socket.socket(type=socket.SOCK_DGRAM))
        with sender, receiver:
            receiver.bind((plain.nodes["server"]["address"], 0))
            receiver.settimeout(3)
            sender.connect(receiver.getsockname())
            count, waited = 0, []
            for limits in steps:
                assert plain.apply(limits) == []
                for _ in range(20):
                    sender.send(count.to_bytes(4, "big") * 25)
                    count += 1
                time.sleep(0.05)
                waited.append(plain.statistics(limits[0])["backlog_bytes"] if limits else 0)
            got = {int.from_bytes(receiver.recv(200)[:4], "big") for _ in range(count)}
    print(f"bytes that waited at each step: {waited}")
    assert sum(size > 1000 for size in waited) >= 3, "there was a queue to be lost"
    assert got == set(range(count))


def test_many_interfaces_are_set_and_restored_in_little_time(plain: Bed) -> None:
    def each(rate: int) -> list[QueueLimit]:
        address = plain.nodes["server"]["address"]
        below = [QueueLimit(f"d.{c}", "down", None, plain.port(c), rate, rate, (QueueMember(c, None, None),))
                 for c in CLIENTS]  # fmt: skip
        own = [QueueLimit(f"u.{c}", "up", c, "eth0", rate, rate, (QueueMember(c, None, address),)) for c in CLIENTS]
        return [*below, *own, plain.cohort(True, rate), plain.cohort(False, rate)]

    places = [(item.node, item.interface) for item in each(M)]
    with restored(plain, places):
        taken = []
        for limits in (each(20 * M), each(20 * M), each(10 * M), []):
            errors, seconds = timed(partial(plain.apply, limits))
            assert errors == []
            taken.append(f"{seconds * 1000:.0f}")
        print(f"{len(places)} limits set, set again, changed, removed in {', '.join(taken)} ms")
        assert sum(map(float, taken)) < 3000
