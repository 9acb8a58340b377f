"""One direction of a link as traffic control: `tc` command lines from a `Shape` (pure), and their application in bulk.

HTB holds the rate, netem (where the kernel has it) delay, loss and the like, as HTB's leaf. Every line is a `replace`,
and a shape is changed under traffic without a gap (`change_commands`). Rates count whole Ethernet frames, as `tc` does.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from topology.engine import namespaces
from topology.errors import CommandError
from topology.plan import Plan, Shape

FRAME_BYTES = 1514
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
    """Frames that may wait: the user's number, else the bandwidth-delay product plus what the delay holds."""
    if shape.queue_packets is not None:
        return shape.queue_packets
    rate = shape.rate_bps or _UNLIMITED_BPS
    in_flight = rate * (shape.delay_s + 4 * shape.jitter_s)  # four deviations: netem's jitter has tails
    waiting = rate * max(_REFERENCE_RTT_S, 2 * shape.delay_s) if shape.rate_bps else 0
    least = -(-2 * _LARGEST_SEGMENT_BYTES // FRAME_BYTES)
    return min(_MOST_PACKETS, max(least, round((in_flight + waiting) / 8 / FRAME_BYTES)))


def burst_bytes(rate_bps: int) -> int:
    """HTB's burst for that rate: ten milliseconds of it, at least two frames."""
    return max(2 * FRAME_BYTES, round(rate_bps * _BURST_S / 8))


def _netem(shape: Shape) -> list[str]:
    words = ["netem", "limit", str(queue_packets(shape))]
    if shape.delay_s:
        words += ["delay", f"{round(shape.delay_s * 1e6)}us"]
        if shape.jitter_s:
            words += [f"{round(shape.jitter_s * 1e6)}us"]
    for word, value in (
        ("loss", shape.loss), ("duplicate", shape.duplicate), ("corrupt", shape.corrupt), ("reorder", shape.reorder),
    ):  # fmt: skip
        if value:
            words += [word, f"{value * 100:g}%"]
    return words


def users_queue(packets: int) -> list[str]:
    """A queue of so many full frames.

    TBF's, which cuts what offloading merged back into frames: a fifo in packets would count forty frames as one, and
    one in bytes that is shorter than a merged packet would take none. TBF's own rate never holds anything back.
    """
    limit = f"{packets * FRAME_BYTES}b"
    return ["tbf", "rate", "100000000000bit", "burst", f"{2 * FRAME_BYTES}b", "limit", limit]


def commands(interface: str, shape: Shape) -> list[list[str]]:
    """Arguments of `tc` that give the interface this shape on what it sends; none for a shape that does nothing."""
    netem = bool(shape.needs_netem())
    if shape.rate_bps is None:
        if netem:
            return [["qdisc", "replace", "dev", interface, "root", "handle", "10:", *_netem(shape)]]
        if shape.queue_packets is not None:
            return [
                [
                    "qdisc",
                    "replace",
                    "dev",
                    interface,
                    "root",
                    "handle",
                    "30:",
                    "pfifo",
                    "limit",
                    str(shape.queue_packets),
                ]
            ]
        return []
    burst = burst_bytes(shape.rate_bps)
    # The one class never competes: its quantum only has to be one that the kernel does not warn of.
    lines = [
        ["qdisc", "replace", "dev", interface, "root", "handle", "1:", "htb", "default", "1"],
        ["class", "replace", "dev", interface, "parent", "1:", "classid", "1:1", "htb", "rate", f"{shape.rate_bps}bit",
         "ceil", f"{shape.rate_bps}bit", "burst", f"{burst}b", "cburst", f"{burst}b", "quantum", "60000"],
    ]  # fmt: skip
    # A handle for each kind: replacing a discipline by one of another kind under the same handle is refused.
    leaf = ["qdisc", "replace", "dev", interface, "parent", "1:1", "handle"]
    if netem:
        lines.append([*leaf, "10:", *_netem(shape)])
    elif shape.queue_packets is not None:
        lines.append([*leaf, "30:", *users_queue(shape.queue_packets)])
    else:  # in bytes: a packet that offloading made of forty frames must not count as one
        lines.append([*leaf, "20:", "bfifo", "limit", str(queue_packets(shape) * FRAME_BYTES)])
    return lines


def change_commands(interface: str, old: Shape, new: Shape) -> list[list[str]]:
    """Arguments of `tc` that turn an interface of shape `old` into one of shape `new`, packets in its queue kept where
    it stays HTB.
    """
    if old.rate_bps is not None and new.rate_bps is not None:
        return commands(interface, new)[1:]  # HTB itself cannot be changed, its class can
    had = commands(interface, old)
    return [*([["qdisc", "del", "dev", interface, "root"]] if had else []), *commands(interface, new)]


def without(shape: Shape, unsupported: Sequence[str]) -> Shape:
    """The shape without the properties (delay, loss, ...) that this kernel cannot do."""
    fields = {"delay": "delay_s", "jitter": "jitter_s"}
    nothing: dict[str, Any] = {fields.get(name, name): 0.0 for name in unsupported}
    return replace(shape, **nothing)


def lines_by_place(plan: Plan, unsupported: Sequence[str]) -> dict[str | None, list[list[str]]]:
    """All lines of a plan by the place where they are applied: a node's name, or None for the core. Pure."""
    nodes = {node.name for node in plan.nodes}
    places: dict[str | None, list[list[str]]] = {}
    for link in plan.links:
        for end, interface, shape in ((link.a, link.a_interface, link.a_to_b), (link.b, link.b_interface, link.b_to_a)):
            lines = commands(interface, without(shape, unsupported))
            if lines:
                places.setdefault(end if end in nodes else None, []).extend(lines)
    return places


def apply(namespace: Path, lines: Sequence[Sequence[str]], subject: str) -> None:
    """Put the lines through one `tc -batch` within a network namespace. Raises CommandError."""
    text = "\n".join(" ".join(line) for line in lines) + "\n"
    command = ["tc", "-batch", "-"]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)

    try:
        done = namespaces.inside(namespace, run)
    except subprocess.TimeoutExpired:
        raise CommandError(command, None, "", subject) from None
    except OSError as error:
        raise CommandError(command, None, str(error), subject) from None
    if done.returncode != 0:
        raise CommandError(command, done.returncode, done.stderr, subject)


def apply_all(plan: Plan, core: Path, pids: Mapping[str, int], unsupported: Sequence[str]) -> int:
    """Shape every direction of every link; gives back the number of interfaces. Raises CommandError."""
    places = lines_by_place(plan, unsupported)

    def one(place: str | None) -> None:
        namespace = core if place is None else namespaces.of_process(pids[place])
        apply(namespace, places[place], "core" if place is None else f"node {place!r}")

    with ThreadPoolExecutor(max_workers=4, thread_name_prefix="shaping") as pool:
        list(pool.map(one, places))
    return len({line[3] + str(place) for place, lines in places.items() for line in lines})
