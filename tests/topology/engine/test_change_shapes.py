"""Lines that change a shape: golden for what this machine's kernel may not have, and none that loses what it need not.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from topology.engine import reshaping, shaping
from topology.engine.queue_counters import Counted
from topology.engine.reshaping import Layout, read_layout
from topology.plan import Shape

M = 1_000_000


def stands(shape: Shape) -> Layout:
    """The layout that the engine's own lines make."""
    chain = tuple(words[0] for words in shaping.leaf(shape))
    if shape.rate_bps is not None:
        return Layout("htb", "1:", ("1:1",), chain)
    return Layout(chain[0], shaping.commands("e", shape)[0][6], (), chain) if chain else Layout()


def text(old: Shape, new: Shape, layout: Layout | None = None) -> list[str]:
    """All lines, and in brackets the classes that are waited for."""
    said = []
    for step in reshaping.steps("e", layout or stands(old), old, new):
        said += [" ".join(line) for line in step.lines]
        said += [f"[{step.empty}]"] if step.empty else []
    return said


def test_another_rate_changes_the_class_and_its_queue_in_place() -> None:
    assert text(Shape(rate_bps=10 * M), Shape(rate_bps=20 * M)) == [
        "class replace dev e parent 1: classid 1:1 htb rate 20000000bit ceil 20000000bit burst 25000b cburst 25000b "
        "quantum 60000",
        "qdisc replace dev e parent 1:1 handle 20: bfifo limit 249810",
    ]


def test_another_delay_changes_netem_in_place() -> None:
    lines = text(Shape(rate_bps=10 * M, delay_s=0.01), Shape(rate_bps=10 * M, delay_s=0.05, jitter_s=0.004))
    assert lines[-2:] == [
        "qdisc replace dev e parent 50:1 handle 11: netem limit 137 delay 50000us 4000us corrupt 0% reorder 0%",
        "qdisc replace dev e parent 11:1 handle 22: bfifo limit 131718",
    ]
    assert not any(" del " in line or line.startswith("[") for line in lines)


def test_a_first_delay_goes_by_a_second_class_so_that_the_first_sends_what_it_holds() -> None:
    rate = "htb rate 10000000bit ceil 10000000bit burst 12500b cburst 12500b quantum 60000"
    tbf = "tbf rate 100000000000bit burst 65550b limit 137774b"
    netem = "netem limit 91 delay 10000us corrupt 0% reorder 0%"
    assert text(Shape(rate_bps=10 * M), Shape(rate_bps=10 * M, delay_s=0.01)) == [
        f"class replace dev e parent 1: classid 1:fffe {rate}",
        f"qdisc replace dev e parent 1:fffe handle 150: {tbf}",
        f"qdisc replace dev e parent 150:1 handle 111: {netem}",
        "qdisc replace dev e parent 111:1 handle 122: bfifo limit 131718",
        "filter add dev e parent 1: protocol all pref 49000 u32 match u32 0 0 flowid 1:fffe",
        "[1:1]",
        "qdisc del dev e parent 1:1",
        f"class replace dev e parent 1: classid 1:1 {rate}",
        f"qdisc replace dev e parent 1:1 handle 50: {tbf}",
        f"qdisc replace dev e parent 50:1 handle 11: {netem}",
        "qdisc replace dev e parent 11:1 handle 22: bfifo limit 131718",
        "filter del dev e parent 1: protocol all pref 49000",
        "[1:fffe]",
        "class del dev e classid 1:fffe",
    ]


def test_what_a_change_left_half_way_goes_first() -> None:
    left = Layout("htb", "1:", ("1:1", "1:fffe"), ("bfifo",))
    assert [line.split()[:2] for line in text(Shape(rate_bps=M), Shape(rate_bps=2 * M), left)] == [
        ["filter", "add"], ["filter", "del"], ["class", "del"], ["class", "replace"], ["qdisc", "replace"],
    ]  # fmt: skip


def test_without_a_rate_htb_stays_and_is_as_fast_as_none() -> None:
    lines = text(Shape(rate_bps=10 * M), Shape())
    assert len(lines) == 2 and "rate 100000000000bit" in lines[0] and "bfifo" in lines[1]
    assert text(Shape(), Shape(rate_bps=10 * M)) == [" ".join(line) for line in
                                                     shaping.commands("e", Shape(rate_bps=10 * M))]  # fmt: skip
    assert text(Shape(), Shape()) == []


def test_a_root_that_belongs_to_queue_limits_stays_theirs_until_the_link_has_a_rate() -> None:
    theirs = Layout("htb", "2:", ("2:2", "2:3"), ())
    assert text(Shape(), Shape(queue_packets=5), theirs) == []
    assert text(Shape(), Shape(rate_bps=M), theirs)[0] == "qdisc replace dev e root handle 1: htb default 1"


def test_where_limits_stand_beside_no_second_class_is_needed() -> None:
    limited = Layout("htb", "1:", ("1:1", "1:2", "1:3"), ("bfifo",))
    lines = text(Shape(rate_bps=M), Shape(rate_bps=M, queue_packets=9), limited)
    assert [line.split()[1] for line in lines] == ["del", "replace", "replace"]
    assert not any("1:fffe" in line for line in lines)


def test_every_direction_s_jitter_has_its_distribution_and_netem_forgets_a_table_only_when_made_anew() -> None:
    normal = Shape(rate_bps=M, delay_s=0.02, jitter_s=0.002, distribution="normal")
    lines = text(Shape(rate_bps=M, delay_s=0.02), normal)
    assert "delay 20000us 2000us distribution normal" in lines[2] and "[1:1]" not in lines
    assert "distribution pareto" in " ".join(text(normal, replace(normal, distribution="pareto")))
    for plain in (replace(normal, distribution="uniform"), Shape(rate_bps=M, delay_s=0.02, jitter_s=0.002)):
        assert "[1:1]" in text(normal, plain) and not any("distribution" in line for line in text(normal, plain))


def counted(kind: str, handle: tuple[int, int], parent: tuple[int, int]) -> Counted:
    return Counted(kind, *handle, *parent, 0, 0, 0, 0, 0, 0)


def test_layouts_are_read_from_what_the_kernel_says() -> None:
    assert read_layout([counted("noqueue", (0, 0), (0, 0))], []) == Layout()
    disciplines = [
        counted("htb", (1, 0), (0, 0)), counted("tbf", (0x50, 0), (1, 1)), counted("netem", (0x11, 0), (0x50, 1)),
        counted("bfifo", (0x22, 0), (0x11, 1)), counted("tbf", (0x3002, 0), (1, 2)),
    ]  # fmt: skip
    classes = [counted("htb", (1, 1), (0, 0)), counted("htb", (1, 0xFFFE), (0, 0))]
    assert read_layout(disciplines, classes) == Layout("htb", "1:", ("1:1", "1:fffe"), ("tbf", "netem", "bfifo"))
    assert read_layout([counted("netem", (0x10, 0), (0, 0))], []) == Layout("netem", "10:", (), ("netem",))


shares = st.sampled_from([0.0, 0.01])
shapes = st.builds(
    Shape, rate_bps=st.none() | st.integers(1000, 10**11), delay_s=st.floats(0, 1), loss=shares, duplicate=shares,
    jitter_s=st.floats(0, 0.1), distribution=st.sampled_from([None, "normal", "uniform", "pareto"]),
    queue_packets=st.none() | st.integers(1, 10**6),
)  # fmt: skip


@given(shapes, shapes)
def test_a_queue_is_taken_away_only_once_it_is_empty(old: Shape, new: Shape) -> None:
    emptied: set[str] = set()
    for step in reshaping.steps("e", stands(old), old, new):
        for line in step.lines:
            if line[1] == "del" and old.rate_bps is not None and not (old.duplicate or new.duplicate):
                gone = line[-1] if line[0] in ("class", "qdisc") else ""
                assert gone in ("", *emptied), line
        if step.empty:
            emptied.add(step.empty)
            assert 0 < step.within_s <= 30
