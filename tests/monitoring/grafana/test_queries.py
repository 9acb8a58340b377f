"""Every query of every panel, annotation and variable, asked of a real Prometheus that scrapes a whole fake testbed."""

from __future__ import annotations

import copy
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monitoring.grafana import DASHBOARDS
from monitoring.grafana.check import Checker, CheckError, Outcome, Prometheus, check_folder, failures, main
from monitoring.grafana.queries import find_queries, panels, substitute
from tests.monitoring.grafana import fake

RANGE_S = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("prometheus")
    testbed = fake.FakeTestbed()
    with fake.exporter(testbed) as scraped, fake.prometheus(folder, scraped, free_port()) as address:
        # A Prometheus looks at its targets some seconds after its start.
        deadline = time.monotonic() + 30
        while not Prometheus(address).instant("node_up", time.time()):
            assert time.monotonic() < deadline, "Prometheus scrapes nothing"
            time.sleep(0.1)
        # Until all rounds are over and a window of four scrapes lies behind them.
        testbed.started = time.time()
        time.sleep(fake.ROUNDS * fake.ROUND_S + 6 * fake.PERIOD_S)
        yield address


def load(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((DASHBOARDS / f"{name}.json").read_text())
    return data


def checked(url: str, dashboard: dict[str, Any], **given: str | list[str]) -> list[Outcome]:
    prometheus = Prometheus(url)
    try:
        return Checker(prometheus, given, period_s=fake.PERIOD_S, range_s=RANGE_S).check(dashboard)
    finally:
        prometheus.close()


def test_every_query_of_every_panel_annotation_and_variable_gets_data(url: str) -> None:
    outcomes = check_folder(DASHBOARDS, url, {}, period_s=fake.PERIOD_S, range_s=RANGE_S)
    assert not (bad := failures(outcomes, strict=True)), "\n".join(map(str, bad))
    kinds = {outcome.query.kind for outcome in outcomes}
    assert kinds == {"panel", "annotation", "variable"} and len(outcomes) > 200


def test_each_cohort_is_shown_however_many_there_are(url: str) -> None:
    """Panels by cohort have as many series as the testbed has cohorts; a choice of two shows two."""
    panel = next(p for p in panels(load("overview")) if p["title"] == "FL data rate")
    one = {**load("overview"), "panels": [panel]}
    everything = next(o for o in checked(url, one) if o.query.kind == "panel")
    chosen = next(o for o in checked(url, one, cohort=["1", "x-3"]) if o.query.kind == "panel")
    assert (everything.series, chosen.series) == (len(fake.COHORTS), 2)


def test_accuracy_by_round_says_of_each_round_what_it_reached(url: str) -> None:
    panel = next(p for p in panels(load("fl-run")) if p["title"] == "Accuracy by round")
    values = {"testbed": fake.TESTBED, "run": ".*", "cohort": ".*"}
    expr = substitute(panel["targets"][0]["expr"], values, period_s=fake.PERIOD_S, range_s=RANGE_S)
    prometheus = Prometheus(url)
    found = {(s["metric"]["source"], s["metric"]["cohort"], int(s["metric"]["round"])): float(s["value"][1])
             for s in prometheus.instant(expr, time.time())}  # fmt: skip
    prometheus.close()
    expected = {(source, cohort, number): fake.accuracy(cohort, number) for source in ("server", "distributed")
                for cohort in fake.COHORTS for number in range(1, fake.ROUNDS + 1)}  # fmt: skip
    assert found == pytest.approx(expected)


def answered(url: str, name: str, title: str, target: int = 0) -> dict[tuple[str, ...], float]:
    """What a panel's query is answered at this moment: values of its labels, by their names' order -> value."""
    panel = next(p for p in panels(load(name)) if p["title"] == title)
    values = {"testbed": fake.TESTBED, "cohort": ".*"}
    expr = substitute(panel["targets"][target]["expr"], values, period_s=fake.PERIOD_S, range_s=RANGE_S)
    prometheus = Prometheus(url)
    found = prometheus.instant(expr, time.time())
    prometheus.close()
    return {tuple(text for _, text in sorted(s["metric"].items())): float(s["value"][1]) for s in found}


def test_meters_that_queue_are_shown_as_those_that_drop_are(url: str) -> None:
    """`first` drops 10 of 100 packets/s that come, `second` 20 of 80; they pass 2.16 of 2 and 0.8 of 1 Mbit/s."""
    assert answered(url, "overview", "Dropped by meters") == pytest.approx({(): 30}, rel=0.1)
    assert answered(url, "network", "Dropped by meters") == pytest.approx({(): 30 / 180}, rel=0.01)
    shares = answered(url, "network", "Meters: share dropped")
    assert shares == pytest.approx({("up", "first"): 0.1, ("up", "second"): 0.25}, rel=0.01)
    shares = answered(url, "network", "Meters: share of the limit")
    assert shares == pytest.approx({("up", "first"): 1.08, ("up", "second"): 0.8}, rel=0.1)
    columns = [answered(url, "network", "Meters now", target) for target in range(4)]
    assert [sorted(meter for _, _, meter, _ in column) for column in columns] == [["first", "second"]] * 4
    (_, packets, dropped) = ({meter: value for (_, _, meter, _), value in column.items()} for column in columns[1:])
    assert dropped["second"] / packets["second"] == pytest.approx(0.25, rel=0.01)


def test_background_traffic_is_shown_of_each_source_whatever_its_role(url: str) -> None:
    assert set(answered(url, "overview", "Background traffic rate")) == {("app.1",), ("fc.10",)}


def test_each_round_is_a_mark_of_its_own(url: str) -> None:
    annotation = next(q for q in find_queries(load("fl-run")) if q.place == "Rounds")
    values = {"testbed": fake.TESTBED, "run": ".*", "cohort": "1"}
    prometheus = Prometheus(url)
    asked = substitute(annotation.expr, values, period_s=fake.PERIOD_S, range_s=RANGE_S)
    series = prometheus.range(asked, time.time() - RANGE_S, time.time(), 0.5)
    prometheus.close()
    times = {int(s["metric"]["round"]): float(s["values"][-1][1]) / 1000 for s in series}
    assert sorted(times) == list(range(1, fake.ROUNDS + 1))
    assert [times[r + 1] - times[r] for r in range(1, fake.ROUNDS)] == pytest.approx([fake.ROUND_S] * (fake.ROUNDS - 1))


@pytest.mark.parametrize(
    ("change", "state", "says"),
    [
        (("node_network_transmit_bytes_total", "node_network_transmit_byte_total"), "error", "knows no metric"),
        (('role=\\"server\\"', 'role=\\"sever\\"'), "empty", "no series of them fits"),
        (("sum by (cohort)", "sum by (cohort"), "error", "bad_data"),
        (("$cohort", "$chort"), "error", "$chort has no value"),
    ],
)
def test_a_broken_query_is_found(url: str, change: tuple[str, str], state: str, says: str) -> None:
    broken = json.loads(json.dumps(load("overview")).replace(*change))
    bad = failures(checked(url, broken), strict=False)
    assert bad and all(outcome.state == state and says in outcome.detail for outcome in bad), "\n".join(map(str, bad))


def test_a_misspelt_metric_is_found_where_the_rest_of_the_query_has_data(url: str) -> None:
    dashboard = load("overview")
    panel = copy.deepcopy(next(panels(dashboard)))
    panel["targets"][0]["expr"] = "sum(node_up) or sum(node_upp)"
    (bad,) = failures(checked(url, {**dashboard, "panels": [panel]}), strict=False)
    assert "node_upp" in bad.detail


def test_a_query_of_numbers_that_are_none_is_empty(url: str) -> None:
    dashboard = load("overview")
    panel = copy.deepcopy(next(panels(dashboard)))
    panel["targets"][0]["expr"] = "sum(node_up * 0) / sum(node_up * 0)"
    (bad,) = failures(checked(url, {**dashboard, "panels": [panel]}), strict=False)
    assert bad.state == "empty"


def test_what_has_not_happened_yet_is_quiet_and_fails_only_the_strict(tmp_path: Path, url: str) -> None:
    """A Prometheus that knows no meter: its queries wait, everything else still has to be there."""
    dashboard = load("network")
    panel = copy.deepcopy(next(p for p in panels(dashboard) if p["title"] == "Meters: drops by band"))
    # The same family under a name that nobody serves stands for a testbed without meters.
    text = json.dumps(panel).replace("cohortnet_meter_band_drop_packets_total", "cohortnet_meter_pending_none")
    from monitoring.grafana import check

    quiet = {**check.ONLY_AFTER, "cohortnet_meter_pending_none": "a meter is set"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "ONLY_AFTER", quiet)
        outcomes = checked(url, {**dashboard, "panels": [json.loads(text)]})
    assert [o.state for o in outcomes if o.query.kind == "panel"] == ["quiet"]
    assert not failures(outcomes, strict=False) and len(failures(outcomes, strict=True)) == 1


def test_the_command_says_what_failed_and_ends_with_its_status(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--prometheus", url, "--period", str(fake.PERIOD_S), "--range", str(RANGE_S), "--strict"]
    assert main(arguments) == 0
    assert "0 quiet, 0 empty, 0 error" in capsys.readouterr().out
    (tmp_path / "one.json").write_text((DASHBOARDS / "nodes.json").read_text().replace("node_up", "node_upp"))
    assert main([str(tmp_path), *arguments]) == 1
    assert "node_upp" in capsys.readouterr().out
    assert main(["--prometheus", f"http://127.0.0.1:{free_port()}"]) == 2
    assert "no Prometheus answers" in capsys.readouterr().err
    assert main([str(tmp_path / "nothing"), *arguments]) == 2
    assert main([*arguments, "--var", "testbed"]) == 2


def test_an_unknown_testbed_is_no_success(url: str) -> None:
    outcomes = checked(url, load("overview"), testbed="other")
    assert failures(outcomes, strict=False)


def test_a_variable_without_values_is_said(url: str) -> None:
    dashboard = load("overview")
    dashboard["templating"]["list"][0]["query"]["query"] = "label_values(nothing_of_the_kind, testbed)"
    with pytest.raises(CheckError, match="variable 'testbed': no value"):
        checked(url, dashboard)
