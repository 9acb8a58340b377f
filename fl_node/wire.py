"""How one message becomes frames on a stream, and frames a message again. Pure: no sockets, no threads.

A message is a list of byte segments (shared between messages where records are shared). It travels as a Head
and then chunks of at most `CHUNK_BYTES`, cut across segments without joining them first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from fl_node.proto import stream_pb2 as pb

PROTOCOL = 1
METHOD = "/cohortnet.stream.v1.Stream/Connect"
SERVICE = "cohortnet.stream.v1.Stream"
CHUNK_BYTES = 1 << 20
MAX_SIZE_BYTES = (1 << 31) - 1  # protobuf parses no larger message
FIRST_FRAME_TIMEOUT_S = 10.0


class WireError(Exception):
    """The other side broke the frame order or a size limit."""


def size_bytes(segments: Iterable[bytes]) -> int:
    """Length of all segments together."""
    return sum(len(segment) for segment in segments)


def chunks(segments: Iterable[bytes], chunk_bytes: int = CHUNK_BYTES) -> Iterator[pb.Chunk]:
    """The chunks of a message, in order, each but the last of exactly `chunk_bytes`."""
    offset = 0
    parts: list[memoryview] = []
    room = chunk_bytes
    for segment in segments:
        view = memoryview(segment)
        while len(view) > 0:
            parts.append(view[:room])
            room -= len(parts[-1])
            view = view[len(parts[-1]) :]
            if room == 0:
                yield pb.Chunk(offset=offset, data=b"".join(parts))
                offset += chunk_bytes
                parts, room = [], chunk_bytes
    if parts:
        yield pb.Chunk(offset=offset, data=b"".join(parts))


class Assembly:
    """One message on its way in."""

    def __init__(self, head: pb.Head, max_size_bytes: int = MAX_SIZE_BYTES) -> None:
        if not head.id or not 0 < head.size_bytes <= max_size_bytes:
            raise WireError(
                f"message {head.id!r} of {head.size_bytes} bytes: allowed are 1 to {max_size_bytes}"
            )
        self.head = head
        self.frame_bytes = 0
        self._data = bytearray(head.size_bytes)
        self._filled = 0

    def add(self, chunk: pb.Chunk) -> bool:
        """Take the next chunk; true when the message is whole."""
        end = self._filled + len(chunk.data)
        if chunk.offset != self._filled or not chunk.data or end > len(self._data):
            raise WireError(
                f"message {self.head.id!r}: chunk of {len(chunk.data)} bytes at {chunk.offset}, expected at "
                f"{self._filled} within {len(self._data)}"
            )
        self._data[self._filled : end] = chunk.data
        self._filled = end
        return end == len(self._data)

    def take(self) -> bytearray:
        """The whole message; the assembly is empty afterwards."""
        data, self._data = self._data, bytearray()
        return data


def channel_options(keepalive_s: float, keepalive_timeout_s: float) -> list[tuple[str, Any]]:
    """gRPC options of both ends: a half-open link is noticed after keepalive and its time-out, on idle
    streams too.

    The time-out has to outlast the data that a slow link still has in its queue, since a ping waits behind
    it.
    """
    interval_ms = max(100, int(keepalive_s * 1000))
    timeout_ms = max(100, int(keepalive_timeout_s * 1000))
    return [
        ("grpc.keepalive_time_ms", interval_ms),
        ("grpc.keepalive_timeout_ms", timeout_ms),
        ("grpc.http2.ping_timeout_ms", timeout_ms),  # or gRPC waits a minute, whatever the line above says
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", interval_ms // 2),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 100),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.max_receive_message_length", 2 * CHUNK_BYTES),
        ("grpc.max_send_message_length", 2 * CHUNK_BYTES),
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.so_reuseport", 0),
    ]
