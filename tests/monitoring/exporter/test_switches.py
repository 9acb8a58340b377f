"""Switches that do not answer, or answer nonsense, cost a collection a second and not its other series."""

from __future__ import annotations

import socket
import struct
import threading
import time
from pathlib import Path

import pytest

from monitoring.exporter import openflow, switches
from monitoring.exporter.samples import Samples
from monitoring.inventory import parse
from tests.monitoring.exporter import data


def switch(path: Path, answer: bytes | None) -> socket.socket:
    """A switch's management socket that says `answer` to whoever comes (None: nothing), once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            if answer is not None:
                connection.sendall(answer)
            while connection.recv(4096):
                pass

    threading.Thread(target=serve, daemon=True).start()
    return listening


def test_after_a_silent_switch_the_others_are_not_waited_for(tmp_path: Path) -> None:
    three = [{"name": f"s{number}", "datapath_id": number, "bridge": f"s{number}", "ports": []} for number in (1, 2, 3)]
    inventory = parse(data.inventory(tmp_path, switches=three))
    samples = Samples()
    assert switches.add_tables(samples, inventory) == 3  # none is there: refused at once
    start = time.monotonic()
    with switch(tmp_path / "ovs" / "s1.mgmt", None), switch(tmp_path / "ovs" / "s2.mgmt", None):
        assert switches.add_tables(samples, inventory) == 3
    assert time.monotonic() - start < 1.9
    assert len(samples) == 0


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (struct.pack("!BBHI", 1, 0, 8, 1), "does not speak OpenFlow 1.3"),
        (struct.pack("!BBHI", 4, 0, 4, 1), "without a length"),
    ],
)
def test_what_no_switch_would_say_is_refused(tmp_path: Path, answer: bytes, problem: str) -> None:
    with switch(tmp_path / "s1.mgmt", answer), pytest.raises(OSError, match=problem):
        openflow.ask(tmp_path / "s1.mgmt")
