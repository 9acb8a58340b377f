"""What goes wrong in the field, with real processes: each fault ends by a deadline and is named."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fl_node.harness import SMALL, Cohort
from tests.fl_node.proxy import Proxy

APPS = Path(__file__).resolve().parent / "apps"
LARGE = str(APPS / "large")
QUICK = {"grace_s": 2.0, "keepalive_s": 1.0, "keepalive_timeout_s": 1.0}
KEEPALIVE = {"keepalive_s": 1.0, "keepalive_timeout_s": 1.0}


@pytest.fixture
def proxies() -> Iterator[Callable[[int], Proxy]]:
    """Makes proxies in front of a port."""
    made: list[Proxy] = []

    def make(port: int) -> Proxy:
        made.append(Proxy(port))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_client_that_is_missing_is_named(cohort: Callable[..., Cohort]) -> None:
    """One client killed before it joins, one that never starts: the join deadline names both."""
    made = cohort(4, server={"join_timeout_s": 12})
    made.start_server()
    for index in range(3):
        made.start_client(index)
    made.kill("fc.12")
    assert made.wait(timeout_s=60) == 1
    failed = made.events("run.failed")[0]
    waited = failed["monotonic"] - made.events("server.listening")[0]["monotonic"]
    assert 12 <= waited < 15, waited
    assert failed["clients"] == ["fc.12", "fc.13"]
    assert "fc.12" in failed["error"] and "fc.13" in failed["error"]
    assert made.wait("fc.10", 20) == 1
    assert "ended the run" in made.log("fc.10") and "fc.13" in made.log("fc.10")


def test_a_client_that_cannot_load_is_named_at_once(cohort: Callable[..., Cohort]) -> None:
    """The cohort does not wait for the deadline when a client says that it cannot take part."""
    made = cohort(2, server={"join_timeout_s": 100})
    made.start_server()
    made.start_client(0)
    made.start_client(1, config={"colour": "red"})
    assert made.wait(timeout_s=30) == 1
    failed = made.events("run.failed")[0]
    assert failed["clients"] == ["fc.11"] and "colour" in failed["error"]
    assert made.wait("fc.11", 20) == 2


def test_a_run_goes_on_without_a_client_that_dies(cohort: Callable[..., Cohort]) -> None:
    """kill -9 in the middle of a phase: an Error reply after the grace period, all rounds are made."""
    config = {"megabytes": 1, "rounds": 3, "sleep": 1.0}
    made = cohort(3, application=LARGE, config=config, server=QUICK, client=KEEPALIVE).start()
    made.wait_event("phase.finished", round=1)
    made.wait_event("phase.started", round=2)
    time.sleep(0.3)
    made.kill("fc.11")
    assert made.wait() == 0, made.log("server")
    dead = made.events("client.reply", round=2, client="fc.11")[0]
    assert "fc.11 is gone" in dead["error"] and dead["failure"] == "gone"
    phases = made.events("phase.finished")
    assert [(p["replies"], p["errors"]) for p in phases] == [(3, 0), (2, 1), (2, 0)]
    left = made.events("client.left", client="fc.11")
    assert [event["final"] for event in left] == [False, True]
    assert left[-1]["joined"] == 2 and left[-1]["expected"] == 3


def test_a_run_that_needs_the_dead_client_fails_with_its_name(cohort: Callable[..., Cohort]) -> None:
    """Flower would wait for min-available-nodes without end; here the join deadline holds."""
    config = {"megabytes": 1, "rounds": 3, "sleep": 0.5, "min-available": 2}
    made = cohort(
        2, application=LARGE, config=config, server={**QUICK, "join_timeout_s": 10}, client=KEEPALIVE
    )
    made.start()
    made.wait_event("phase.started", round=1)
    made.kill("fc.10")
    assert made.wait(timeout_s=60) == 1
    failed = made.events("run.failed")[0]
    assert failed["clients"] == ["fc.10"] and "waited 10 s" in failed["error"]


def test_more_nodes_than_the_cohort_has(cohort: Callable[..., Cohort]) -> None:
    """Nobody else can come: the message says which keys to lower."""
    made = cohort(
        2, application=LARGE, config={"megabytes": 1, "min-available": 5}, server={"join_timeout_s": 30}
    )
    made.start()
    assert made.wait(timeout_s=60) == 1
    assert "min-available-nodes" in made.events("run.failed")[0]["error"]


@pytest.mark.parametrize("fault", ["cut", "half-open"])
def test_a_lost_link_loses_no_round(
    cohort: Callable[..., Cohort], proxies: Callable[[int], Proxy], fault: str
) -> None:
    """A link that breaks or goes silent during training comes back: nothing lost, nothing done twice."""
    config = {"megabytes": 3, "rounds": 3, "sleep": 1.5}
    made = cohort(2, application=LARGE, config=config, server={**QUICK, "grace_s": 30.0}, client=KEEPALIVE)
    proxy = proxies(made.start_server())
    made.start_client(0, port=proxy.port)
    made.start_client(1)
    made.wait_event("phase.started", round=2)
    time.sleep(0.7)
    if fault == "cut":
        proxy.open = False
        proxy.cut()
        time.sleep(2.5)  # the reply is ready while there is no link
        proxy.open = True
    else:
        proxy.silent = True
        made.wait_event("client.left", client="fc.10", timeout_s=20)
        proxy.silent = False
        proxy.cut()
    assert made.wait() == 0, made.log("server")
    assert made.wait("fc.10", 20) == 0
    assert [(p["replies"], p["errors"]) for p in made.events("phase.finished")] == [(2, 0)] * 3
    assert made.events("client.reconnected", client="fc.10")
    assert len(made.events("client.handled", name="fc.10")) == 3
    assert "DIFFERENCE [3.0]" in made.log("server")


def test_a_restarted_client_goes_on_where_it_was(
    cohort: Callable[..., Cohort], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 during training and a new process: state is kept, the weights are those of a quiet run."""
    quiet = cohort(2, application=str(APPS / "custom"), config={}).start()
    assert quiet.wait() == 0, quiet.log("server")
    monkeypatch.setenv("TEST_DIE_ONCE", str(tmp_path / "died"))
    made = cohort(2, application=str(APPS / "custom"), config={}).start()
    made.wait("fc.10", 60)
    assert (tmp_path / "died").exists()
    made.start_client(0)
    assert made.wait() == 0, made.log("server")
    assert "goes on with the state kept" in made.log("fc.10")
    calls = [round(e["metrics"]["calls"], 6) for e in made.events("round.metrics", source="train")]
    assert calls == [1.0, 2.0, 3.0]
    hashes = [each.events("run.finished")[0]["weights_sha256"] for each in (quiet, made)]
    assert hashes[0] == hashes[1]


def test_strangers_are_refused(cohort: Callable[..., Cohort]) -> None:
    """An unknown name and a wrong run get a reason and exit code 3; a dead address gets 4."""
    made = cohort(4, server={"join_timeout_s": 60}, application=LARGE, config={"megabytes": 1})
    made.names = ["fc.10"]
    made.start_server()
    made.names = ["fc.10", "fc.11", "fc.12", "fc.13"]
    made.start_client(1)
    made.start_client(2, name="fc.10", run_id="other")
    made.start_client(3, port=1, connect_timeout_s=1)
    assert made.wait("fc.11", 30) == 3
    assert "client 'fc.11' is not of run 'run-1'" in made.log("fc.11")
    assert made.wait("fc.12", 30) == 3
    assert "this server runs 'run-1'" in made.log("fc.12")
    assert made.wait("fc.13", 30) == 4
    assert "127.0.0.1:1 not reached within 1 s" in made.log("fc.13")


def test_a_slow_client_is_answered_for(cohort: Callable[..., Cohort]) -> None:
    """message_timeout_s ends the wait for a client that is connected and does not answer."""
    config = {"megabytes": 1, "sleep": 0.0}
    made = cohort(2, application=LARGE, config=config, server={"message_timeout_s": 2})
    made.start_server()
    made.start_client(0)
    made.start_client(1, config={**config, "sleep": 60.0})
    assert made.wait() == 0, made.log("server")
    late = made.events("client.reply", client="fc.11")[0]
    assert late["error"] == "client fc.11 did not answer within 2 s" and late["failure"] == "no-reply"
    assert 1.9 < late["seconds"] < 4


def test_when_every_client_fails_the_run_fails(cohort: Callable[..., Cohort]) -> None:
    """Flower goes on with the first weights; a run that learnt nothing is no success here."""
    made = cohort(2, application=LARGE, config={"megabytes": 1, "fail": True}).start()
    assert made.wait() == 1
    failed = made.events("run.failed")[0]
    assert "no client gave a result" in failed["error"] and "no data today" in failed["error"]
    assert {event["failure"] for event in made.events("client.reply")} == {"application"}


def test_sigterm_ends_everybody_in_order(cohort: Callable[..., Cohort]) -> None:
    """A stopped client is given up at once; a stopped server says so in its events and to its clients."""
    config = {"megabytes": 1, "rounds": 50, "sleep": 0.5}
    made = cohort(2, application=LARGE, config={**config, "min-available": 1}).start()
    made.wait_event("phase.started", round=1)
    made.processes["fc.11"].send_signal(signal.SIGTERM)
    assert made.wait("fc.11", 10) == 143
    event = made.wait_event("client.left", client="fc.11", timeout_s=5)
    assert event["final"] and "stopped" in event["reason"]
    made.wait_event("phase.finished", round=3)
    made.processes["server"].send_signal(signal.SIGTERM)
    assert made.wait("server", 10) == 1
    assert made.events("run.failed")[0]["error"] == "stopped"
    assert made.wait("fc.10", 10) == 1


def test_wrong_settings_are_all_named(cohort: Callable[..., Cohort]) -> None:
    """Nothing starts from a file with unknown keys, wrong types or missing values."""
    made = cohort(1)
    made.spawn("server", "fl_node.server", {"run_id": 7, "clients": [], "colour": 1, "port": 70000})
    assert made.wait(timeout_s=20) == 1
    log = made.log("server")
    for text in (
        "run_id: found int 7",
        "application: missing",
        "clients: found []",
        "colour: unknown",
        "port: found 70000",
    ):
        assert text in log, log


def test_config_errors_fail_the_run_with_a_hint(cohort: Callable[..., Cohort]) -> None:
    """Unknown keys and wrong types of the run config come back in run.failed."""
    made = cohort(1, config={**SMALL, "momentum": "high", "rounds": 3})
    made.start_client(0, port=1, connect_timeout_s=1)
    with pytest.raises(AssertionError):
        made.start_server()
    error = made.events("run.failed")[0]["error"]
    assert "momentum: found str 'high'" in error and "rounds" in error and "num-server-rounds" in error
