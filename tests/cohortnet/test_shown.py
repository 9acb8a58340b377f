"""Text of others on the terminal: whatever a run, a user or a kernel writes is shown as it is."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import RenderableType

from cohortnet import cli_verify, follow, show, show_controller, show_traffic
from cohortnet.follow import console_for
from cohortnet.record import Summary
from topology.verify.verification import Row, Verification

HOSTILE = "clients [fc.10, fc.11] left: cannot read [/data/x] :cloud: [b]"
FLOW = {"name": HOSTILE, "source": "a", "destination": "b", "rate_bps": 1000, "protocol": "tcp", "pattern": "constant",
        "state": "failed", "reason": HOSTILE, "now_bps": None, "start": True}  # fmt: skip
SWITCH = {"switch": HOSTILE, "datapath_id": 1, "ports": []}


def shown(what: RenderableType) -> str:
    console = console_for()
    console.file, console.width = io.StringIO(), 400
    console.print(what)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    "what",
    [
        HOSTILE,
        show.intent_table([{"id": "in-1", "state": "failed", "reason": HOSTILE}]),
        show.finding_table([{"name": "docker", "status": "missing", "detail": HOSTILE}]),
        show_traffic.traffic_table([FLOW]),
        show_traffic.flow_table([FLOW]),
        follow.summary_table([Summary("r1", "i", HOSTILE, "fed.1", 4, "failed", 0)]),
        *show_controller.port_tables({"switches": [SWITCH]}, {}, "secure"),
    ],
)
def test_nothing_is_taken_for_markup(what: RenderableType) -> None:
    assert HOSTILE in shown(what)


def test_the_progress_of_a_run_keeps_the_words_of_its_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mlfo:
        def __init__(self, url: str) -> None:
            pass

        def follow(self, identity: str) -> list[dict[str, Any]]:
            return [{"kind": "run.failed", "error": HOSTILE}]

        def intent(self, identity: str) -> dict[str, Any]:
            return {"state": "failed"}

    monkeypatch.setattr(follow, "Orchestrator", Mlfo)
    console = console_for()
    console.file = io.StringIO()
    assert follow.follow_intents("http://nowhere", ["in-1"], console) == {"in-1": "failed"}
    assert console.file.getvalue() == f"in-1  run failed: {HOSTILE}\n"


def test_verify_s_table_too(capsys: pytest.CaptureFixture[str]) -> None:
    row = Row("rate", "a -> b", "bit/s", 1e6, 2e6, 0.02, False, HOSTILE)
    found = Verification("t", 0.0, 1.0, (row,), 1, True, (HOSTILE,), (), (), 0.0, notes=(HOSTILE,))
    cli_verify._show(found, False)
    output = capsys.readouterr().out
    assert f"no way: {HOSTILE}" in output and f"note: {HOSTILE}" in output and "OUT" in output
