"""A switch's tables and meters, asked over OpenFlow 1.3 at the switch's own management socket (as `ovs-ofctl` does).

Only asks, and only where no controller of ours does. One connection a question, closed at its end; a switch that does
not answer in time raises OSError. Layouts: Open Networking Foundation, OpenFlow Switch Specification 1.3.5, section A.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_VERSION = 4
_HELLO, _ERROR, _ECHO_REQUEST, _ECHO_REPLY, _MULTIPART_REQUEST, _MULTIPART_REPLY = 0, 1, 2, 3, 18, 19
_TABLE, _METER, _METER_CONFIG = 3, 9, 10
_MORE = 1
_EVERY_METER = struct.pack("!I4x", 0xFFFFFFFF)
_KBPS, _PKTPS = 1, 2
_HEADER = struct.Struct("!BBHI")
_MULTIPART = struct.Struct("!HH4x")
_TABLE_STATS = struct.Struct("!B3xI8x8x")
_METER_STATS = struct.Struct("!IH6x4xQQ8x")
_BAND_STATS = struct.Struct("!QQ")
_METER_HEAD = struct.Struct("!HHI")
_BAND = struct.Struct("!HHII4x")
_TIMEOUT_S = 1.0
_MOST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Meter:
    """A meter's counters (dropped ones included) and bands as (packets, bytes) dropped; limits of its bands in
    `unit`.
    """

    number: int
    packets: int
    bytes: int
    bands: tuple[tuple[int, int], ...]
    unit: str = ""
    rates: tuple[int, ...] = ()


@dataclass
class SwitchState:
    """Flow entries by table (those that have any), and all meters by number."""

    flows: dict[int, int] = field(default_factory=dict)
    meters: dict[int, Meter] = field(default_factory=dict)


def parse_tables(body: bytes) -> dict[int, int]:
    """Flow entries by table, of a reply's body. Pure."""
    counted = (_TABLE_STATS.unpack_from(body, at) for at in range(0, len(body) - 23, 24))
    return {table: active for table, active in counted if active}


def parse_meters(body: bytes) -> list[Meter]:
    """Counters of a reply's body. Pure."""
    found, at = [], 0
    while at + 40 <= len(body):
        number, length, packets, octets = _METER_STATS.unpack_from(body, at)
        if length < 40:
            break
        bands = tuple(_BAND_STATS.unpack_from(body, band) for band in range(at + 40, at + length - 15, 16))
        found.append(Meter(number, packets, octets, bands))
        at += length
    return found


def parse_meter_limits(body: bytes) -> dict[int, tuple[str, tuple[int, ...]]]:
    """(unit, limits of the bands) by meter, of a reply's body; bit/s or packet/s. Pure."""
    found, at = {}, 0
    while at + 8 <= len(body):
        length, flags, number = _METER_HEAD.unpack_from(body, at)
        if length < 8:
            break
        rates, band = [], at + 8
        while band + 16 <= at + length:
            _, size, rate, _ = _BAND.unpack_from(body, band)
            rates.append(rate if flags & _PKTPS else rate * 1000)
            band += max(16, size)
        found[number] = ("packet/s" if flags & _PKTPS else "bit/s", tuple(rates))
        at += length
    return found


def ask(path: Path) -> SwitchState:
    """Everything of the switch whose management socket is at `path`. Raises OSError where it does not answer."""
    state = SwitchState()
    limits: dict[int, tuple[str, tuple[int, ...]]] = {}

    def tables(body: bytes) -> None:
        state.flows.update(parse_tables(body))

    def meters(body: bytes) -> None:
        state.meters.update((meter.number, meter) for meter in parse_meters(body))

    def configured(body: bytes) -> None:
        limits.update(parse_meter_limits(body))

    questions: dict[int, tuple[int, bytes, Callable[[bytes], None]]] = {
        1: (_TABLE, b"", tables), 2: (_METER, _EVERY_METER, meters), 3: (_METER_CONFIG, _EVERY_METER, configured)
    }  # fmt: skip
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_TIMEOUT_S)
        connection.connect(str(path))
        connection.sendall(_HEADER.pack(_VERSION, _HELLO, 8, 0))
        _converse(connection, questions)
    for number, (unit, rates) in limits.items():
        meter = state.meters.get(number)
        if meter is not None:
            state.meters[number] = Meter(number, meter.packets, meter.bytes, meter.bands, unit, rates)
    return state


def _converse(
    connection: socket.socket, questions: dict[int, tuple[int, bytes, Callable[[bytes], None]]]
) -> None:
    waiting = set(questions)
    buffer, total, greeted = b"", 0, False
    while waiting:
        data = connection.recv(1 << 18)
        total += len(data)
        if not data or total > _MOST_BYTES:
            raise OSError(errno.EPROTO, "the switch ended the conversation")
        buffer += data
        while len(buffer) >= 8:
            version, kind, length, number = _HEADER.unpack_from(buffer)
            if length < 8:
                raise OSError(errno.EPROTO, "the switch sent a message without a length")
            if len(buffer) < length:
                break
            message, buffer = buffer[8:length], buffer[length:]
            if kind == _HELLO and not greeted:
                greeted = True
                if version < _VERSION:
                    raise OSError(errno.EPROTO, "the switch does not speak OpenFlow 1.3")
                for own, (question, body, _) in questions.items():
                    connection.sendall(_HEADER.pack(_VERSION, _MULTIPART_REQUEST, 16 + len(body), own)
                                       + _MULTIPART.pack(question, 0) + body)  # fmt: skip
            elif kind == _ECHO_REQUEST:
                connection.sendall(_HEADER.pack(_VERSION, _ECHO_REPLY, 8 + len(message), number) + message)
            elif kind == _ERROR:
                waiting.discard(number)  # a switch without meters refuses to speak of them
            elif kind == _MULTIPART_REPLY and number in questions and len(message) >= 8:
                _, flags = _MULTIPART.unpack_from(message)
                questions[number][2](message[8:])
                if not flags & _MORE:
                    waiting.discard(number)
