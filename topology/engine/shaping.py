"""One direction of a link as traffic control: `tc` command lines from a `Shape` (pure), and their application in bulk.

HTB holds the rate, netem (where the kernel has it) delay, loss and the like, as HTB's leaf. Every line is a `replace`,
and a shape is changed under traffic without a gap (`change_commands`). Rates count whole Ethernet frames, as `tc` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from topology.engine import namespaces, programs
from topology.errors import TopologyError
from topology.plan import Plan, Shape

FRAME_BYTES = 1514
OWN_CLASS = "1:1"
"""Where an interface has a rate: its class in HTB, which nobody but the engine touches."""
_LARGEST_SEGMENT_BYTES = 65536 + 14
"""A segmentation offload hands the queue one packet of up to this size: a shorter queue would take none of them."""
_REFERENCE_RTT_S = 0.1
"""Queues are sized for flows of at least this round trip, the usual rule for a path of unknown length."""
_UNLIMITED_BPS = 10_000_000_000
"""What a link without a rate may carry in flight while netem delays it."""
_BURST_S = 0.01
"""Of the rate: what may pass at once, so that a timer that comes late on a busy machine loses nothing. No transfer is
ever faster by more than this time (measured over 4 s at 100 Mbit/s: 0.2 % more than the rate).
"""
_MOST_PACKETS = 200_000


def queue_packets(shape: Shape) -> int:
    """Frames that the link holds: those on their way through its delay, and those that wait for its rate (the user's
    number, else the bandwidth-delay product).
    """
    rate = shape.rate_bps or _UNLIMITED_BPS
    in_flight = rate * (shape.delay_s + 4 * shape.jitter_s) / 8 / FRAME_BYTES  # four deviations: jitter has tails
    if shape.queue_packets is not None:
        return min(_MOST_PACKETS, round(in_flight)) + shape.queue_packets
    waiting = rate * max(_REFERENCE_RTT_S, 2 * shape.delay_s) / 8 / FRAME_BYTES if shape.rate_bps else 0
    least = -(-2 * _LARGEST_SEGMENT_BYTES // FRAME_BYTES)
    return min(_MOST_PACKETS, max(least, round(in_flight + waiting)))


def burst_bytes(rate_bps: int) -> int:
    """HTB's burst for that rate: ten milliseconds of it, at least two frames."""
    return max(2 * FRAME_BYTES, round(rate_bps * _BURST_S / 8))


def _netem(shape: Shape, limit: int) -> list[str]:
    # Of a change netem takes what it is told, and keeps its corruption where it is told nothing: it is always told.
    words = ["netem", "limit", str(limit)]
    if shape.delay_s:
        words += ["delay", f"{round(shape.delay_s * 1e6)}us"]
        if shape.jitter_s:
            words += [f"{round(shape.jitter_s * 1e6)}us"]
            if shape.distribution not in (None, "uniform"):  # uniform is what netem does without a table
                words += ["distribution", str(shape.distribution)]
    for word, value in (
        ("loss", shape.loss), ("duplicate", shape.duplicate), ("corrupt", shape.corrupt), ("reorder", shape.reorder),
    ):  # fmt: skip
        if value or word in ("corrupt", "reorder"):
            words += [word, f"{value * 100:g}%"]
    return words


def tbf(limit_bytes: int, *, cut: bool) -> list[str]:
    """A TBF that never holds anything back. With `cut` it cuts what offloading merged back into frames."""
    burst = 2 * FRAME_BYTES if cut else _LARGEST_SEGMENT_BYTES
    return ["tbf", "rate", "100000000000bit", "burst", f"{burst}b", "limit", f"{limit_bytes}b"]


def users_queue(packets: int) -> list[str]:
    """A queue of so many full frames.

    TBF's, which cuts what offloading merged back into frames: a fifo in packets would count forty frames as one, and
    one in bytes that is shorter than a merged packet would take none.
    """
    return tbf(packets * FRAME_BYTES, cut=True)


def netem_chain(shape: Shape, limit: int, queue: Sequence[str], *, cut: bool) -> list[list[str]]:
    """Netem as a leaf of HTB: disciplines from the outermost to the innermost, of which the last is the link's queue.

    Netem holds a frame for its delay; what then waits for the rate waits in `queue`, which alone drops what is too
    much. (One limit for both would let a long delay take the places of a short queue: 20 frames at 50 ms are
    5 Mbit/s.) Netem takes a merged packet for one, so where single frames count it is cut before. And TBF stands
    around netem in any case: kernels before 6.13 do not count what waits inside of netem's queue, and HTB would
    take such a class for empty.
    """
    outer = tbf(limit * FRAME_BYTES, cut=cut)
    return [outer, _netem(shape, limit), list(queue)]


def counts_frames(shape: Shape) -> bool:
    """Whether the shape means single frames: a share of them, or a number that may wait."""
    return bool(shape.loss or shape.duplicate or shape.corrupt or shape.reorder or shape.queue_packets is not None)


def leaf(shape: Shape) -> list[list[str]]:
    """The disciplines of an interface below its rate (below nothing, where it has none), the outermost first."""
    if shape.needs_netem():
        limit, cut = queue_packets(shape), counts_frames(shape)
        if shape.rate_bps is None:
            netem = _netem(shape, limit)
            return [tbf(limit * FRAME_BYTES, cut=True), netem] if cut else [netem]
        if shape.queue_packets is not None:
            return netem_chain(shape, limit, ["pfifo", "limit", str(shape.queue_packets)], cut=cut)
        return netem_chain(shape, limit, _bytes_queue(shape), cut=cut)
    if shape.queue_packets is not None:
        if shape.rate_bps is None:
            return [["pfifo", "limit", str(shape.queue_packets)]]
        return [users_queue(shape.queue_packets)]
    return [] if shape.rate_bps is None else [_bytes_queue(shape)]


def _bytes_queue(shape: Shape) -> list[str]:
    """The queue of a link whose user gives no length: in bytes, as a packet that offloading made of forty frames must
    not count as one. At least the largest packet, and what a flow of the reference round trip needs.
    """
    waiting = queue_packets(replace(shape, delay_s=0.0, jitter_s=0.0, queue_packets=None))
    far = round((shape.rate_bps or 0) * 2 * shape.delay_s / 8 / FRAME_BYTES)
    return ["bfifo", "limit", str(max(waiting, min(_MOST_PACKETS, far)) * FRAME_BYTES)]


_HANDLES = {"netem": 0x10, "bfifo": 0x20, "tbf": 0x30, "pfifo": 0x30}
_OUTER_HANDLE = 0x50


def leaf_lines(interface: str, shape: Shape, *, parent: str | None = None, offset: int = 0) -> list[list[str]]:
    """Arguments of `tc` for what stands below the rate: at `parent`, by default the engine's own place for it. With an
    `offset` all handles are others, for a second one beside it.
    """
    lines = []
    own = None if shape.rate_bps is None else OWN_CLASS
    place = ["root"] if parent is None and own is None else ["parent", parent or own or ""]
    chain = leaf(shape)
    for depth, words in enumerate(chain):
        # A handle for each kind and place: one that was there under the same handle is changed, and keeps its inner
        # ones; of another kind it would be refused.
        outer = depth == 0 and len(chain) > 1
        handle = f"{offset + (_OUTER_HANDLE if outer else _HANDLES[words[0]] + depth):x}:"
        lines.append(["qdisc", "replace", "dev", interface, *place, "handle", handle, *words])
        place = ["parent", f"{handle}1"]
    return lines


def commands(interface: str, shape: Shape) -> list[list[str]]:
    """Arguments of `tc` that give the interface this shape on what it sends; none for a shape that does nothing."""
    return [*rate_lines(interface, shape), *leaf_lines(interface, shape)]


def rate_lines(interface: str, shape: Shape, *, classid: str = OWN_CLASS) -> list[list[str]]:
    """Arguments of `tc` for HTB and its one class, which holds the rate; none where there is no rate."""
    if shape.rate_bps is None:
        return []
    burst = burst_bytes(shape.rate_bps)
    # The one class never competes: its quantum only has to be one that the kernel does not warn of.
    return [
        ["qdisc", "replace", "dev", interface, "root", "handle", "1:", "htb", "default", "1"],
        ["class", "replace", "dev", interface, "parent", "1:", "classid", classid, "htb",
         "rate", f"{shape.rate_bps}bit", "ceil", f"{shape.rate_bps}bit",
         "burst", f"{burst}b", "cburst", f"{burst}b", "quantum", "60000"],
    ]  # fmt: skip


def change_commands(interface: str, old: Shape, new: Shape) -> list[list[str]]:
    """Arguments of `tc` that turn an interface of shape `old` into one of shape `new`; packets on their way and in
    queues are kept where the disciplines are of the same kinds before and after.
    """
    if old.rate_bps is not None and new.rate_bps is not None:
        # HTB itself cannot be changed, its class can.
        return [*rate_lines(interface, new)[1:], *leaf_lines(interface, new)]
    kinds = leaf(new)
    if old.rate_bps is None and new.rate_bps is None and kinds and same_kinds(old, new):
        return leaf_lines(interface, new)
    had = commands(interface, old)
    return [*([["qdisc", "del", "dev", interface, "root"]] if had else []), *commands(interface, new)]


def same_kinds(old: Shape, new: Shape) -> bool:
    """Whether the disciplines below the rate can be changed in place: they are of the same kinds, and netem is not to
    forget a table of a distribution (it takes another one, and has no word for none).
    """
    if [words[0] for words in leaf(old)] != [words[0] for words in leaf(new)]:
        return False
    had, wanted = (shape.distribution if shape.jitter_s else None for shape in (old, new))
    return had in (None, "uniform") or wanted not in (None, "uniform")


def without(shape: Shape, unsupported: Sequence[str]) -> Shape:
    """The shape without the properties (delay, loss, ...) that this kernel cannot do."""
    fields = {"delay": "delay_s", "jitter": "jitter_s"}
    nothing: dict[str, Any] = {fields.get(name, name): 0.0 for name in unsupported}
    return replace(shape, **nothing)


Place = tuple[str | None, str]
"""Where lines are applied: a node's name (None: the core), and the interface there."""


def lines_by_interface(plan: Plan, unsupported: Sequence[str]) -> dict[Place, list[list[str]]]:
    """The lines of each interface that a plan shapes. Pure."""
    nodes = {node.name for node in plan.nodes}
    known: dict[Shape, Shape] = {}
    found: dict[Place, list[list[str]]] = {}
    for link in plan.links:
        for end, interface, shape in ((link.a, link.a_interface, link.a_to_b), (link.b, link.b_interface, link.b_to_a)):
            if shape not in known:
                known[shape] = without(shape, unsupported)
            if lines := commands(interface, known[shape]):
                found[end if end in nodes else None, interface] = lines
    return found


def lines_by_place(shaped: Mapping[Place, Sequence[list[str]]]) -> dict[str | None, list[list[str]]]:
    """The same lines by the network namespace where they are applied: a node's, or None for the core. Pure."""
    places: dict[str | None, list[list[str]]] = {}
    for (place, _), lines in shaped.items():
        places.setdefault(place, []).extend(lines)
    return places


def apply(namespace: Path, lines: Sequence[Sequence[str]], subject: str) -> None:
    """Put the lines through one `tc -batch` within a network namespace. Raises TopologyError."""
    try:
        namespaces.inside(namespace, lambda: programs.tc_batch(lines, subject, timeout_s=60.0))
    except OSError as error:
        raise TopologyError(f"{subject}: its namespace {namespace} cannot be entered: {error.strerror}") from error


def apply_all(shaped: Mapping[Place, Sequence[list[str]]], core: Path, pids: Mapping[str, int]) -> None:
    """Put lines through one `tc` for each network namespace. Raises TopologyError."""
    places = lines_by_place(shaped)

    def one(place: str | None) -> None:
        namespace = core if place is None else namespaces.of_process(pids[place])
        apply(namespace, places[place], "core" if place is None else f"node {place!r}")

    with ThreadPoolExecutor(max_workers=4, thread_name_prefix="shaping") as pool:
        list(pool.map(one, places))
