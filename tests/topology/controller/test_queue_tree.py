"""Queue trees and their lines for `tc`: golden, and true for any way from one set of limits to another."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from topology.controller import queue_lines
from topology.controller.queue_lines import AppliedTree, Line
from topology.controller.queue_tree import QueueLimit, QueueMember, QueueTree, build
from topology.plan import Shape

M = 1_000_000
SERVER = "10.0.1.1"
TBF = "tbf rate 100000000000bit burst"


def limit(name: str, rate: int, *members: tuple[str | None, str | None]) -> QueueLimit:
    made = tuple(QueueMember(f"m{number}", *box) for number, box in enumerate(members))
    return QueueLimit(name, "up", None, "e", rate, rate, made)


COHORT = limit("cohort", 20 * M, ("10.0.0.1", SERVER), ("10.0.0.2", SERVER))
ONE = limit("one", 5 * M, ("10.0.0.2", SERVER))
ALL = limit("server", 50 * M, (None, SERVER))


def text(lines: list[Line]) -> list[str]:
    return [" ".join(line) for line in lines]


def from_nothing(shape: Shape, *limits: QueueLimit) -> list[str]:
    return text(queue_lines.change("e", shape, None, build(shape, limits)).lines)


def htb(verb: str, parent: str, own: str, rate: int, ceil: int, burst: int, ceil_burst: int) -> str:
    return (f"class {verb} dev e parent {parent} classid {own} htb rate {rate}bit ceil {ceil}bit burst {burst}b "
            f"cburst {ceil_burst}b quantum 65550")  # fmt: skip


def match(pref: int, words: str, leaf: str, protocol: str = "ip") -> str:
    root = leaf.partition(":")[0]
    return f"filter add dev e parent {root}: protocol {protocol} pref {pref} u32 {words} flowid {leaf}"


def test_members_share_equally_and_borrow_at_an_interface_without_a_queue() -> None:
    assert from_nothing(Shape(), COHORT) == [
        "qdisc replace dev e root handle 2: htb default 0",
        htb("add", "2:", "2:2", 20 * M, 20 * M, 2_500_000, 2_500_000),
        htb("add", "2:2", "2:3", 10 * M, 20 * M, 12_500, 2_500_000),
        f"qdisc replace dev e parent 2:3 handle 3003: {TBF} 3028b limit 125000b",
        htb("add", "2:2", "2:4", 10 * M, 20 * M, 12_500, 2_500_000),
        f"qdisc replace dev e parent 2:4 handle 3004: {TBF} 3028b limit 125000b",
        match(119, f"match ip src 10.0.0.1/32 match ip dst {SERVER}/32", "2:3"),
        match(119, f"match ip src 10.0.0.2/32 match ip dst {SERVER}/32", "2:4"),
    ]


def test_within_a_link_of_a_rate_its_class_is_left_alone_and_its_rate_holds() -> None:
    assert from_nothing(Shape(rate_bps=100 * M), ALL) == [
        htb("add", "1:", "1:2", 100 * M, 100 * M, 125_000, 125_000),
        # A burst beyond the guaranteed rate is borrowed: the link's own rate is asked.
        htb("add", "1:2", "1:3", 50 * M, 50 * M, 62_500, 6_250_000),
        f"qdisc replace dev e parent 1:3 handle 3003: {TBF} 65550b limit 625000b",
        htb("add", "1:2", "1:4", 50 * M, 100 * M, 62_500, 125_000),
        "qdisc replace dev e parent 1:4 handle 3004: bfifo limit 1250564",
        match(119, f"match ip dst {SERVER}/32", "1:3"),
        match(160, "match u32 0 0", "1:4", "all"),
    ]


def test_leaves_have_the_links_delay_and_the_users_queue() -> None:
    lines = from_nothing(Shape(rate_bps=100 * M, delay_s=0.012, loss=0.01), ONE)
    for minor, frames, queued in ((3, 46, 62_500), (4, 925, 1_250_564)):
        size = frames * 1514
        outer = f"tbf rate 100000000000bit burst 3028b limit {size}b"
        assert f"qdisc replace dev e parent 1:{minor} handle 300{minor}: {outer}" in lines
        netem = f"netem limit {frames} delay 12000us loss 1% corrupt 0% reorder 0%"
        assert f"qdisc replace dev e parent 300{minor}:1 handle 600{minor}: {netem}" in lines
        assert f"qdisc replace dev e parent 600{minor}:1 handle 900{minor}: bfifo limit {queued}" in lines
    lines = from_nothing(Shape(delay_s=0.012), ONE)  # without a rate what has no limit still is delayed
    assert htb("add", "2:", "2:3", 10**11, 10**11, 125 * M, 125 * M) in lines
    assert "qdisc replace dev e parent 2:3 handle 3003: netem limit 9908 delay 12000us corrupt 0% reorder 0%" in lines
    assert match(160, "match u32 0 0", "2:3", "all") in lines
    lines = from_nothing(Shape(rate_bps=100 * M, queue_packets=40), ONE)
    assert "qdisc replace dev e parent 1:3 handle 3003: tbf rate 100000000000bit burst 3028b limit 60560b" in lines
    assert "qdisc replace dev e parent 1:4 handle 3004: tbf rate 100000000000bit burst 3028b limit 60560b" in lines


def test_client_in_cohort_in_server_whatever_their_order() -> None:
    for limits in ((COHORT, ONE, ALL), (ONE, ALL, COHORT)):
        tree = build(Shape(), limits)
        assert tree.refused == ()
        assert [(item.key, item.rate_bps, item.ceil_bps) for item in tree.classes] == [
            ("limit server.up inner", 50 * M, 50 * M),
            ("limit server.up inner>limit cohort.up inner", 20 * M, 20 * M),
            ("limit server.up inner>limit cohort.up inner>limit one.up", 5 * M, 5 * M),
            ("limit server.up inner>limit cohort.up inner>member m0", 15 * M, 20 * M),
            ("limit server.up inner>rest", 30 * M, 50 * M),
        ]
        shares = [leaf.rpartition(">")[2] for _, leaves in tree.places["cohort.up"].shares for leaf in leaves]
        assert shares == ["member m0", "limit one.up"]
        # Deeper ones first: what is the client's never goes to the server's rest.
        depths = [item.depth for item in tree.filters]
        assert depths[-1] == 0 and depths[:2] == [2, 2]


def test_limits_that_overlap_without_nesting_are_refused_with_both_names() -> None:
    other = limit("other", 10 * M, ("10.0.0.2", None))
    tree = build(Shape(), [COHORT, other, ALL])
    assert len(tree.refused) == 1
    assert all(word in tree.refused[0] for word in ("'e'", "'cohort'", "'other'"))
    assert set(tree.places) == {"cohort.up", "server.up"}
    # At the server's own interface everything comes from the server: the same two limits nest there.
    down = limit("down", 10 * M, (SERVER, "10.0.0.1"))
    everything = limit("everything", 30 * M, (SERVER, None))
    port = limit("port", 25 * M, (None, "10.0.0.1"), (None, "10.0.0.2"))
    assert build(Shape(), [down, everything, port]).refused != ()
    assert build(Shape(), [down, everything, port], (SERVER, None)).refused == ()


def test_what_no_queue_can_do_is_refused_with_what_it_can() -> None:
    for bad, word in ((replace(ONE, rate_bps=7), "8 bit/s"), (replace(ONE, burst_bits=301 * M), f"{300 * M} bit"),
                      (replace(ONE, burst_bits=0), "more than 0")):  # fmt: skip
        tree = build(Shape(), [bad])
        assert tree.classes == () and word in tree.refused[0] and "'one'" in tree.refused[0]
    deep = [limit(f"l{n}", (20 - n) * M, ("10.0.0.1", SERVER)) for n in range(9)]
    tree = build(Shape(), deep)
    assert len(tree.refused) == 1 and "'l8'" in tree.refused[0] and "8 classes" in tree.refused[0]


def test_a_new_rate_changes_classes_in_place_and_nothing_else() -> None:
    first = queue_lines.change("e", Shape(), None, build(Shape(), [ONE]))
    second = queue_lines.change("e", Shape(), first.tree, build(Shape(), [replace(ONE, rate_bps=50 * M)]))
    assert text(second.lines) == [
        htb("change", "2:", "2:2", 50 * M, 50 * M, 625_000, 625_000),
        f"qdisc change dev e parent 2:2 handle 3002: {TBF} 65550b limit 625000b",
    ]
    assert second.finish == []
    assert queue_lines.change("e", Shape(), second.tree, build(Shape(), [replace(ONE, rate_bps=50 * M)])).lines == []


def test_removal_takes_filters_then_lets_queues_empty_then_takes_classes() -> None:
    shape = Shape(rate_bps=100 * M)
    change = queue_lines.change("e", shape, queue_lines.change("e", shape, None, build(shape, [ONE])).tree, QueueTree())
    assert text(change.lines) == [
        "filter del dev e parent 1: protocol all pref 160",
        "filter del dev e parent 1: protocol ip pref 119",
        htb("change", "1:2", "1:3", 5 * M, 100 * M, 6250, 625_000),
    ]
    assert sorted(change.leaving) == [3, 4]
    assert text(change.finish) == [f"class del dev e classid 1:{minor}" for minor in (4, 3, 2)]
    assert change.tree is None
    plain = queue_lines.change("e", Shape(), None, build(Shape(), [ONE])).tree
    assert text(queue_lines.change("e", Shape(), plain, QueueTree()).finish) == ["qdisc del dev e root"]
    delayed = Shape(delay_s=0.01)
    tree = queue_lines.change("e", delayed, None, build(delayed, [ONE])).tree
    assert [line[:7] for line in queue_lines.change("e", delayed, tree, QueueTree()).lines] == [
        ["qdisc", "replace", "dev", "e", "root", "handle", "10:"]
    ]


class Kernel:
    """As much of HTB as tells a line that it would refuse."""

    def __init__(self) -> None:
        self.classes: dict[str, str] = {"1:1": "1:"}
        self.filters: list[tuple[str, str, str]] = []
        self.queues: dict[str, str] = {}

    def run(self, lines: list[Line]) -> None:
        for line in lines:
            words = dict(zip(line, line[1:], strict=False))
            if line[:2] == ["class", "add"]:
                assert words["classid"] not in self.classes
                assert words["parent"] in self.classes or words["parent"].endswith(":")
                assert words["parent"] not in self.queues, "a leaf that becomes inner loses what it holds"
                self.classes[words["classid"]] = words["parent"]
            elif line[:2] == ["class", "change"]:
                assert self.classes[words["classid"]] == words["parent"]
            elif line[:2] == ["class", "del"]:
                assert words["classid"] not in self.classes.values(), "it has classes below"
                assert all(leaf != words["classid"] for _, _, leaf in self.filters), "a filter leads there"
                del self.classes[words["classid"]]
                self.queues.pop(words["classid"], None)
            elif line[:2] == ["filter", "add"]:
                assert words["flowid"] in self.queues, "a filter must lead to a leaf"
                assert all(p == words["protocol"] for q, p, _ in self.filters if q == words["pref"])
                self.filters.append((words["pref"], words["protocol"], words["flowid"]))
            elif line[:2] == ["filter", "del"]:
                assert any(pref == words["pref"] for pref, _, _ in self.filters)
                self.filters = [item for item in self.filters if item[0] != words["pref"]]
            elif line[1] == "change":
                assert self.queues[words["parent"]] == words["handle"]
            else:
                self.queues[words["parent"]] = words["handle"]


addresses = st.sampled_from([None, "10.0.0.1", "10.0.0.2", "10.0.0.3"])
boxes = st.tuples(addresses, st.sampled_from([None, "10.0.1.1", "10.0.1.2"]))
limit_sets = st.dictionaries(
    st.sampled_from("abcdef"),
    st.tuples(st.integers(1000, 200 * M), st.lists(boxes, min_size=1, max_size=4, unique=True)),
).map(lambda found: [limit(name, rate, *members) for name, (rate, members) in found.items()])


@settings(max_examples=300, deadline=None)
@given(st.lists(limit_sets, max_size=4), st.sampled_from([1 * M, 100 * M]))
def test_any_way_ends_where_the_limits_say_and_no_line_is_refused(steps: list[list[QueueLimit]], rate: int) -> None:
    shape = Shape(rate_bps=rate)
    kernel = Kernel()
    before: AppliedTree | None = None
    for limits in steps:
        tree = build(shape, limits)
        change = queue_lines.change("e", shape, before, tree)
        kernel.run(change.lines)
        kernel.run(change.finish)
        assert queue_lines.change("e", shape, change.tree, tree).lines == []
        before = change.tree and AppliedTree.from_dict(change.tree.as_dict())
        assert before == change.tree
        assert len(kernel.classes) == 1 + len(tree.classes)
        assert len(kernel.filters) == len(tree.filters)
        assert len(tree.places) + len(tree.refused) == len(limits)
        classes = {item.key: item for item in tree.classes}
        for item in tree.classes:
            below = [child for child in tree.classes if child.parent == item.key]
            assert bool(below) != bool(item.disciplines)
            # Guaranteed rates are not held back by classes around: their sum is what keeps a total.
            assert sum(child.rate_bps for child in below) <= item.rate_bps + 8 * len(below)
            assert item.rate_bps <= item.ceil_bps
            assert item.parent is None or item.ceil_bps <= classes[item.parent].ceil_bps
        for wanted in limits:
            if (place := tree.places.get(wanted.key)) is not None:
                assert classes[place.key].ceil_bps <= wanted.rate_bps
    change = queue_lines.change("e", shape, before, QueueTree())
    kernel.run(change.lines)
    kernel.run(change.finish)
    assert kernel.classes == {"1:1": "1:"} and kernel.filters == []
