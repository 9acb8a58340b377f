"""Frames, serialisation and events: pure logic, without a socket."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import message_to_proto
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_node import flower, wire
from fl_node.events import EventWriter
from fl_node.grid import node_ids
from fl_node.proto import stream_pb2 as pb


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=50), min_size=1, max_size=8), st.integers(1, 17))
def test_chunks_give_the_message_back(segments: list[bytes], chunk_bytes: int) -> None:
    """Cut across segments at any size, put together again."""
    whole = b"".join(segments)
    made = list(wire.chunks(segments, chunk_bytes))
    assert all(len(chunk.data) == chunk_bytes for chunk in made[:-1])
    if whole:
        assembly = wire.Assembly(pb.Head(id="m", size_bytes=len(whole)))
        assert [assembly.add(chunk) for chunk in made] == [False] * (len(made) - 1) + [True]
        assert bytes(assembly.take()) == whole


def test_broken_frames_are_refused() -> None:
    """No memory is given for what the limits forbid, and no hole or overlap gets in."""
    for size in (0, wire.MAX_SIZE_BYTES + 1):
        with pytest.raises(wire.WireError, match="allowed are"):
            wire.Assembly(pb.Head(id="m", size_bytes=size))
    assembly = wire.Assembly(pb.Head(id="m", size_bytes=4))
    for chunk in (pb.Chunk(offset=1, data=b"x"), pb.Chunk(offset=0, data=b"12345"), pb.Chunk(offset=0)):
        with pytest.raises(wire.WireError, match="expected at 0 within 4"):
            assembly.add(chunk)


def _message(node: int, arrays: ArrayRecord, **config: Any) -> flower.Message:
    flower.set_identity("run", 1)
    content = RecordDict({"arrays": arrays, "config": ConfigRecord(config), "m": MetricRecord({"a": 1.5})})
    return flower.Message(content, node, "train.local", group_id="4")


def test_segments_are_flowers_own_serialisation() -> None:
    """Joined segments parse to the same protobuf that Flower's own function makes."""
    arrays = ArrayRecord({"w": Array(np.arange(1000.0)), "b": Array(np.zeros((2, 3), dtype=np.float32))})
    message = _message(5, arrays, **{"server-round": 3})
    joined = b"".join(flower.encode(message))
    ours = type(message_to_proto(message)).FromString(joined)
    assert ours == message_to_proto(message)
    back = flower.decode(bytearray(joined))
    assert back.metadata.dst_node_id == 5 and back.content["m"]["a"] == 1.5
    assert np.array_equal(back.content.array_records["arrays"]["w"].numpy(), np.arange(1000.0))
    assert flower.describe(back) == (3, "train")


def test_a_shared_record_is_serialised_once() -> None:
    """Messages of a push share the bytes of their arrays, whatever their configs; changed arrays are new."""
    cache = flower.SegmentCache()
    arrays = ArrayRecord({"w": Array(np.arange(1000.0))})
    cache.begin()
    first, second = (flower.encode(_message(n, arrays, lr=n / 10), cache) for n in (1, 2))
    assert first[1] is second[1] and first[2] != second[2]
    arrays["w"] = Array(np.ones(1000))
    assert flower.encode(_message(3, arrays), cache)[1] != first[1]
    cache.begin()  # the next phase sends the same arrays: still no second serialisation
    third = flower.encode(_message(1, arrays), cache)
    cache.begin()
    assert flower.encode(_message(2, arrays), cache)[1] is third[1]


def test_the_weights_hash_sees_names_types_shapes_and_order() -> None:
    """Two models hash alike only when they are alike."""
    a, b = Array(np.arange(6.0)), Array(np.arange(6.0).reshape(2, 3))
    c = Array(np.arange(6, dtype=np.float32))
    records = [{"x": a}, {"y": a}, {"x": b}, {"x": c}, {"x": a, "y": b}, {"y": b, "x": a}]
    assert len({flower.weights_sha256(ArrayRecord(r)) for r in records}) == len(records)


def test_node_ids_keep_their_order_in_every_run() -> None:
    """Sampling draws from the sorted ids: their order must not depend on the run's name."""
    names = [f"fc.{n}" for n in range(10, 60)]
    random.Random(1).shuffle(names)
    one, two = node_ids("one", names), node_ids("two", sorted(names))
    assert sorted(one, key=one.__getitem__) == sorted(two, key=two.__getitem__)
    assert not set(one.values()) & set(two.values())
    assert all(0 < value < 2**63 for value in one.values())


def test_events_go_on_after_a_torn_line(tmp_path: Path) -> None:
    """A killed process leaves half a line; the next one starts a new line and counts on."""
    path = tmp_path / "run" / "events.jsonl"
    first = EventWriter(path, "fed.1", "r")
    first.append("run.started", metrics={"loss": float("nan"), "n": [1, float("inf")]})
    first.append("x")
    first.close()
    with open(path, "a") as file:
        file.write('{"seq": 3, "ti')
    second = EventWriter(path, "fed.1", "r")
    threads = [threading.Thread(target=lambda: [second.append("y") for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = path.read_text().splitlines()
    assert lines.pop(2) == '{"seq": 3, "ti'
    events = [json.loads(line) for line in lines]
    assert [e["seq"] for e in events] == [1, 2, *range(3, 203)]
    assert events[0]["metrics"] == {"loss": None, "n": [1, None]}
    assert set(events[1]) == {"seq", "time", "monotonic", "node", "run", "kind"}
