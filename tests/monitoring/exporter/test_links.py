"""Links as series, without a kernel: what was sent only ever grows, every setting that changes leaves a mark, and a
node that gets a further link is looked at anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from monitoring.exporter.links import LinkBook
from monitoring.exporter.netlink import ROOT, Counters, Qdisc
from monitoring.exporter.nodes import Ending, NodeProbe
from monitoring.exporter.sampler import Sampler
from monitoring.exporter.samples import Samples
from monitoring.inventory import parse
from tests.monitoring.exporter import data
from tests.monitoring.exporter.conftest import one, series

CHANGED = "cohortnet_link_changed_timestamp_seconds"
LINK, WAY = "fc.1--s1", "a_to_b"


def ending(octets: int, queue: int | None, *, drops: int = 0, handle: int = 1 << 16) -> Ending:
    """An interface that has sent so many bytes, with a queue that has counted others, or with none."""
    counters = Counters(0, octets // 100, 0, octets, 0, 0, 0, 0)
    root = [] if queue is None else [Qdisc(2, handle, ROOT, "htb", queue, queue // 100, 0, 0, drops, 0)]
    return Ending(counters, tuple(root), None if queue is None else 10_000_000)


def look(book: LinkBook, found: Ending, now: float = 1.0) -> Samples:
    samples = Samples()
    book.add(samples, lambda *_: found, lambda *_: True, now)
    return samples


def test_a_queue_that_comes_or_goes_is_no_traffic(tmp_path: Path) -> None:
    inventory = parse(data.inventory(tmp_path))
    book = LinkBook(inventory)
    told = []
    for found in (
        ending(1_000_000, 3_000, drops=5), ending(1_002_000, 5_000, drops=7),  # 2,000 bytes
        ending(1_004_000, None), ending(1_005_000, None),  # the queue has gone: 1,000 of these are sure
        ending(1_005_500, 400), ending(1_005_800, 700, drops=1),  # another one has come: 300
        ending(1_005_900, 100, handle=2 << 16), ending(1_006_000, 200, handle=2 << 16),  # and another: 100
        ending(300, 50, handle=2 << 16),  # which began anew: 50
    ):  # fmt: skip
        following = LinkBook(inventory)
        following.inherit(book)  # as with each change of the inventory
        book = following
        samples = look(book, found)
        own = {"link": LINK, "direction": WAY}
        told.append(tuple(int(one(samples, f"cohortnet_link_{what}_total", **own))
                          for what in ("bytes", "packets", "drops")))  # fmt: skip
    assert [octets for octets, _, _ in told] == [3000, 5000, 5000, 6000, 6000, 6300, 6300, 6400, 6450]
    assert [drops for _, _, drops in told] == [5, 7, 7, 7, 7, 8, 8, 8, 8]
    packets = [packets for _, packets, _ in told]
    assert packets == sorted(packets) and packets[-1] < 70


@pytest.mark.parametrize(
    "change", [{"rate_bps": 5_000_000}, {"delay_s": 0.2}, {"loss": 0.01}, {"jitter_s": 0.004}, {"queue_packets": 20}]
)
def test_whatever_is_set_on_a_link_is_a_change_of_it(change: dict[str, Any], tmp_path: Path) -> None:
    plain = data.inventory(tmp_path)
    before = LinkBook(parse(plain))
    assert series(look(before, ending(0, 0)), CHANGED) == {}
    same = LinkBook(parse(plain))
    same.inherit(before)
    assert series(look(same, ending(0, 0), 5.0), CHANGED) == {}
    plain["links"][0]["b_to_a"] = {**plain["links"][0]["b_to_a"], **change}
    after = LinkBook(parse(plain))
    after.inherit(same)
    assert series(look(after, ending(0, 0), 9.0), CHANGED) == {("t-exporter-data", LINK): 9.0}
    assert one(look(after, ending(0, 0), 12.0), CHANGED, link=LINK) == 9.0


class Probe:
    """What the sampler needs of a node's probe while it follows the inventory."""

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True

    def alive(self) -> bool:
        return True

    def meet(self, _: object) -> None:
        pass


def test_a_node_with_a_further_link_is_opened_anew_and_no_other(tmp_path: Path) -> None:
    plain = data.inventory(tmp_path)
    with Sampler(data.write(tmp_path)) as sampler:
        probes = {name: Probe() for name in ("fc.1", "fed.1")}
        sampler._probes.update(cast("dict[str, NodeProbe]", probes))
        sampler.refresh()
        further = {**plain["links"][0], "name": "fc.1--s1#2", "a_interface": "eth1", "b_interface": "s1-eth3",
                   "b_port": 3}  # fmt: skip
        data.write(tmp_path, links=[*plain["links"], further])
        sampler.refresh()
        assert probes["fc.1"].closed and not probes["fed.1"].closed
