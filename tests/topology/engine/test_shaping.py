"""The lines for `tc`: golden, and true for any shape."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.topology.engine import lab
from topology.engine import shaping
from topology.plan import Shape


def text(shape: Shape) -> list[str]:
    return [" ".join(line) for line in shaping.commands("e", shape)]


def test_rate_alone_is_htb_with_a_queue_in_bytes() -> None:
    assert text(Shape(rate_bps=10_000_000)) == [
        "qdisc replace dev e root handle 1: htb default 1",
        "class replace dev e parent 1: classid 1:1 htb rate 10000000bit ceil 10000000bit burst 12500b cburst 12500b "
        "quantum 60000",
        "qdisc replace dev e parent 1:1 handle 20: bfifo limit 131718",
    ]


def test_satellite_link_delays_before_a_queue_in_bytes_and_never_cuts_merged_packets() -> None:
    assert text(Shape(rate_bps=500_000_000, delay_s=0.012)) == [
        "qdisc replace dev e root handle 1: htb default 1",
        "class replace dev e parent 1: classid 1:1 htb rate 500000000bit ceil 500000000bit burst 625000b "
        "cburst 625000b quantum 60000",
        "qdisc replace dev e parent 1:1 handle 50: tbf rate 100000000000bit burst 65550b limit 7000736b",
        "qdisc replace dev e parent 50:1 handle 11: netem limit 4624 delay 12000us corrupt 0% reorder 0%",
        "qdisc replace dev e parent 11:1 handle 22: bfifo limit 6249792",
    ]


def test_everything_that_netem_does_is_done_to_single_frames() -> None:
    shape = Shape(
        delay_s=0.02, jitter_s=0.003, loss=0.01, duplicate=0.002, corrupt=0.0005, reorder=0.25, queue_packets=77
    )
    assert text(shape) == [
        "qdisc replace dev e root handle 50: tbf rate 100000000000bit burst 3028b limit 40116458b",
        "qdisc replace dev e parent 50:1 handle 11: netem limit 26497 delay 20000us 3000us loss 1% duplicate 0.2% "
        "corrupt 0.05% reorder 25%",
    ]
    assert text(Shape(delay_s=0.02)) == [
        "qdisc replace dev e root handle 10: netem limit 16513 delay 20000us corrupt 0% reorder 0%"
    ]


def test_a_users_queue_has_its_places_for_what_waits_and_not_for_what_is_on_its_way() -> None:
    # 82.6 frames are on their way.
    assert text(Shape(rate_bps=20_000_000, delay_s=0.05, queue_packets=20))[2:] == [
        "qdisc replace dev e parent 1:1 handle 50: tbf rate 100000000000bit burst 3028b limit 155942b",
        "qdisc replace dev e parent 50:1 handle 11: netem limit 103 delay 50000us corrupt 0% reorder 0%",
        "qdisc replace dev e parent 11:1 handle 32: pfifo limit 20",
    ]


def test_queue_alone_and_nothing() -> None:
    assert text(Shape(queue_packets=5)) == ["qdisc replace dev e root handle 30: pfifo limit 5"]
    assert text(Shape(rate_bps=10_000_000, queue_packets=5))[2:] == [
        "qdisc replace dev e parent 1:1 handle 30: tbf rate 100000000000bit burst 3028b limit 7570b"
    ]
    assert text(Shape()) == []


def test_rates_above_a_gigabit_are_taken_as_they_are() -> None:
    assert "rate 25000000000bit" in text(Shape(rate_bps=25_000_000_000))[1]


def test_change_keeps_htb_and_goes_between_kinds() -> None:
    slow, fast = Shape(rate_bps=1_000_000), Shape(rate_bps=2_000_000, delay_s=0.01)
    assert [line[0] for line in shaping.change_commands("e", slow, fast)] == ["class", *["qdisc"] * 3]
    # A netem that stays is changed, and told what it would keep otherwise.
    corrupting, losing = Shape(delay_s=1, corrupt=0.1), Shape(loss=0.1)
    assert [" ".join(line) for line in shaping.change_commands("e", corrupting, losing)] == [
        "qdisc replace dev e root handle 50: tbf rate 100000000000bit burst 3028b limit 131718b",
        "qdisc replace dev e parent 50:1 handle 11: netem limit 87 loss 10% corrupt 0% reorder 0%",
    ]
    assert shaping.change_commands("e", slow, Shape()) == [["qdisc", "del", "dev", "e", "root"]]
    assert shaping.change_commands("e", Shape(), slow) == shaping.commands("e", slow)


shapes = st.builds(
    Shape,
    rate_bps=st.none() | st.integers(1, 100_000_000_000),
    delay_s=st.floats(0, 10),
    jitter_s=st.floats(0, 1),
    queue_packets=st.none() | st.integers(1, 1_000_000),
)


@given(shapes)
def test_a_queue_holds_at_least_the_largest_packet_and_what_the_delay_holds(shape: Shape) -> None:
    packets = shaping.queue_packets(shape)
    if shape.queue_packets is not None:
        assert packets >= shape.queue_packets
    else:
        assert packets * shaping.FRAME_BYTES >= 65536 + 14
        in_flight = (shape.rate_bps or 0) * shape.delay_s / 8 / shaping.FRAME_BYTES
        assert packets >= min(in_flight, 199_999)


def test_each_direction_is_applied_where_it_is_sent() -> None:
    plan = lab.star("t-engine-pure", {"a": "1 Mbit/s", "b": None})
    places = shaping.lines_by_place(shaping.lines_by_interface(plan, ()))
    assert sorted(str(place) for place in places) == ["None", "a"]
    assert {line[3] for line in places["a"]} == {"eth0"}
    assert {line[3] for line in places[None]} == {"s1-eth1"}


def test_what_the_kernel_lacks_is_left_out() -> None:
    plan = lab.preset("t-engine-pure")
    for lines in shaping.lines_by_interface(plan, ("delay",)).values():
        assert not any("netem" in line for line in lines)
