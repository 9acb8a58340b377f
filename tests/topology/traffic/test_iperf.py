"""The command lines that iperf3 gets, and what its real output (3.12) is taken for."""

from __future__ import annotations

import pytest

from topology.engine import listeners
from topology.traffic import iperf

LINES = {
    "Connecting to host 10.0.0.2, port 5201": iperf.Said(),
    "[  5] local 10.0.1.2 port 48418 connected to 10.0.0.2 port 5201": iperf.Said(connected=True),
    "[ ID] Interval           Transfer     Bitrate         Retr  Cwnd": iperf.Said(),
    "[  5]   0.00-1.00   sec  2.41 MBytes  20218 Kbits/sec    0   1.21 MBytes": iperf.Said(sent_bps=20_218_000),
    "[  5]   7.00-8.00   sec  0.00 Bytes  0.00 Kbits/sec    1   1.41 KBytes": iperf.Said(sent_bps=0.0),
    "[  5]   0.00-1.00   sec   122 KBytes   998 Kbits/sec  100": iperf.Said(sent_bps=998_000),
    "[  5]   0.00-2.00   sec  4.77 MBytes  20006 Kbits/sec    0             sender": iperf.Said(),
    "[  5]   0.00-2.00   sec  4.77 MBytes  20000 Kbits/sec                  receiver": iperf.Said(),
    "iperf3: error - unable to connect to server: Connection refused": iperf.Said(
        error="unable to connect to server: Connection refused"
    ),
    "iperf3: interrupt - the client has terminated": iperf.Said(error="the client has terminated"),
    "iperf Done.": iperf.Said(),
}


@pytest.mark.parametrize("line", LINES)
def test_a_line_is_taken_for_what_it_says(line: str) -> None:
    assert iperf.read_line(line) == LINES[line]


@pytest.mark.parametrize("rate", [10_000, 1_000_000, 20_000_000, 10**9, 10**11])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_segment_is_its_volume_in_blocks_small_enough_for_its_rate(rate: int, protocol: str) -> None:
    argv = iperf.client("10.0.1.2", "10.0.0.2", 5201, protocol, rate, 2.5)
    given = dict(zip(argv[1::1], argv[2::1], strict=False))
    assert int(given["--bytes"]) == pytest.approx(rate * 2.5 / 8, rel=0.1)
    assert given["--bitrate"] == str(rate)
    block = int(given["--length"])
    assert block <= (1448 if protocol == "udp" else 131072)
    assert block * 8 / rate <= 0.25
    assert ("--udp" in argv) == (protocol == "udp") == ("--fq-rate" not in argv)


def test_a_listener_is_found_in_the_kernel_s_table() -> None:
    table = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid
   0: 0200000A:1451 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1
   1: 0200000A:1452 0201000A:BD22 01 00000000:00000000 00:00000000 00000000     0        0 2
"""
    assert listeners.parse(table) == {5201} and listeners.parse("") == set()
