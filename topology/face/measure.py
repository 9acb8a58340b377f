"""Pings and rates between hosts, in Mininet's words and forms.

Runs this machine's own `ping` and `iperf3` in the hosts' network namespaces: images need neither.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from mininet.log import output

from topology.engine import launch
from topology.errors import TopologyError
from topology.face.arguments import NotHonoured
from topology.face.hosts import Host

if TYPE_CHECKING:
    from topology.face.network import Mininet

Full = tuple[int, int, float, float, float, float]
"""Sent, received; minimum, average, maximum and deviation of the round trip in ms."""
_LOST: Full = (1, 0, 0, 0, 0, 0)
_WORKERS = 8
_PING_S = 20.0
_COUNT = re.compile(r"(\d+) packets transmitted, (\d+) (?:packets )?received")
_TIMES = re.compile(r"rtt min/avg/max/mdev = ([\d.]+)/([\d.]+)/([\d.]+)/([\d.]+) ms")
_SCALES = {"k": ("Kbits", 1e3), "m": ("Mbits", 1e6), "g": ("Gbits", 1e9),
           "K": ("KBytes", 8e3), "M": ("MBytes", 8e6), "G": ("GBytes", 8e9)}  # fmt: skip


def parse_ping(text: str) -> Full:
    """What one `ping` said; nothing received where it could not send at all. Pure."""
    counts = _COUNT.search(text)
    if counts is None or int(counts.group(2)) == 0:
        return _LOST
    times = _TIMES.search(text)
    low, mean, high, deviation = (float(part) for part in times.groups()) if times else (0.0, 0.0, 0.0, 0.0)
    return int(counts.group(1)), int(counts.group(2)), low, mean, high, deviation


def ping_one(source: Host, address: str | None, timeout: str | float | None) -> Full:
    """One echo from a host to an address. Raises TopologyError where ping cannot be run."""
    if not address:
        return _LOST
    wait = [] if timeout is None else ["-W", str(timeout)]
    done = source.run_outside(["ping", "-n", "-c1", *wait, address], _PING_S + float(timeout or 0))
    return parse_ping(done.stdout + done.stderr)


def pairs(hosts: Sequence[Host], timeout: str | float | None,
          destination: str | None = None) -> list[tuple[Host, Host, Full]]:  # fmt: skip
    """Every host to every other (or all to one address), a host's own pings side by side; shows them as Mininet does.
    """
    found: list[tuple[Host, Host, Full]] = []
    with ThreadPoolExecutor(max_workers=_WORKERS, thread_name_prefix="ping") as pool:
        for source in hosts:
            output(f"{source.name} -> ")
            others = [source] if destination else [host for host in hosts if host is not source]
            wanted = [destination or (host.IP() if host.intfs else None) for host in others]
            answers = pool.map(lambda address, source=source: ping_one(source, address, timeout), wanted)  # type: ignore[misc]
            for other, answer in zip(others, answers, strict=True):
                found.append((source, other, answer))
                output(f"{destination or other.name} " if answer[1] else "X ")
            output("\n")
    return found


def ping(hosts: Sequence[Host], timeout: str | float | None, destination: str | None = None) -> float:
    """Loss in per cent."""
    answers = [answer for _, _, answer in pairs(hosts, timeout, destination)]
    sent, received = sum(answer[0] for answer in answers), sum(answer[1] for answer in answers)
    if not sent:
        output("*** Warning: No packets sent\n")
        return 0
    loss = 100.0 * (sent - received) / sent
    output(f"*** Results: {int(loss)}% dropped ({received}/{sent} received)\n")
    return loss


def ping_full(hosts: Sequence[Host], timeout: str | float | None) -> list[tuple[Host, Host, Full]]:
    """All that ping says, of every pair."""
    found = pairs(hosts, timeout)
    output("*** Results: \n")
    for source, other, (sent, received, *times) in found:
        output(f" {source}->{other}: {sent}/{received}, ")
        output("rtt min/avg/max/mdev {:0.3f}/{:0.3f}/{:0.3f}/{:0.3f} ms\n".format(*times))
    return found


def format_rate(bits_per_second: float, form: str | None = None) -> str:
    """As iperf writes it: '9.56 Mbits/sec'. Pure. Raises NotHonoured for a form that iperf has not."""
    if form is None:
        form = "g" if bits_per_second >= 1e9 else "m" if bits_per_second >= 1e6 else "k"
    if form not in _SCALES:
        raise NotHonoured(f"iperf(): fmt={form!r} is not honoured; it is one of {', '.join(_SCALES)}")
    unit, scale = _SCALES[form]
    value = bits_per_second / scale
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}/sec"


def iperf(net: Mininet, hosts: Sequence[Host], l4_type: str, udp_rate: str, form: str | None, seconds: float,
          port: int) -> list[str]:  # fmt: skip
    """A flow from the first host to the second: rates of [receiver, sender], before them the asked one with UDP.

    Raises:
        TopologyError: where iperf3 fails, with its words.
    """
    if len(hosts) != 2:
        raise NotHonoured(f"iperf(): it is between two hosts, and not {len(hosts)}")
    if l4_type not in ("TCP", "UDP"):
        raise NotHonoured(f"iperf(): l4Type={l4_type!r} is not honoured; it is 'TCP' or 'UDP'")
    client, server = hosts
    output(f"*** Iperf: testing {l4_type} bandwidth between {client} and {server} \n")
    format_rate(0, form)
    options = ["-u", "-b", udp_rate] if l4_type == "UDP" else []
    with subprocess.Popen(_within(net, server, ["iperf3", "-s", "-1", "-p", str(port)]), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True) as listening:  # fmt: skip
        try:
            _wait_listening(server, port, listening)
            command = ["iperf3", "-J", "-p", str(port), "-t", f"{seconds:g}", "-c", str(server.IP()), *options]
            done = client.run_outside(command, seconds + 30)
        finally:
            listening.kill()
    try:
        answer = json.loads(done.stdout)
        if "error" in answer:
            raise TopologyError(f"iperf(): iperf3 from {client} to {server}: {answer['error']}")
        end = answer["end"]
        if l4_type == "UDP":
            total = end["sum"]
            sent = float(total["bits_per_second"])
            result = [udp_rate, format_rate(sent * (1 - total["lost_percent"] / 100), form), format_rate(sent, form)]
        else:
            result = [format_rate(end[name]["bits_per_second"], form) for name in ("sum_received", "sum_sent")]
    except (ValueError, KeyError) as error:
        raise TopologyError(f"iperf(): iperf3 from {client} to {server}: {done.stderr.strip() or error}") from error
    output(f"*** Results: {result}\n")
    return result


def _within(net: Mininet, host: Host, argv: Sequence[str]) -> list[str]:
    # In the core's groups: whatever becomes of this script, a removal finds it.
    return launch.in_core(net.testbed, ["nsenter", f"--net={host.network_namespace()}", "--", *argv])


def _wait_listening(server: Host, port: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 10
    while f":{port} " not in server.run_outside(["ss", "-Hltn"]).stdout:
        if process.poll() is not None:
            said = process.stdout.read().strip() if process.stdout else ""
            raise TopologyError(f"iperf(): iperf3 in {server} ended: {said[-300:]}")
        if time.monotonic() > deadline:
            raise TopologyError(f"iperf(): iperf3 in {server} does not listen on port {port}")
        time.sleep(0.02)
