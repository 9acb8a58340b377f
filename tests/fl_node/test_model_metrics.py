"""The series of runs: as declared, as Prometheus reads them, and gone ten minutes after the end."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from fl_node.agent.model_metrics import DECLARED, families
from fl_node.agent.model_runs import KEPT_S, MAX_ENDED, ModelRuns
from tests.fl_node.test_run_state import Clock, reply, whole_round

NODE = ("tb", "fed.1", "server", "1")


def parsed(runs: ModelRuns) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Samples by name, from the text that Prometheus gets."""

    class Once(Collector):
        def collect(self) -> list[Metric]:
            with runs.held() as held:
                return families(held, NODE)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Once())
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def a_run(runs: ModelRuns, name: str = "r1") -> None:
    runs.begin("server", name, "image_classification")
    lost = {"kind": "client.left", "client": "c9", "final": True, "joined": 3, "expected": 4, "time": 9.0}
    for event in (
        {"kind": "run.started", "num_clients": 4, "num_rounds": 2, "model_bytes": 1000},
        *whole_round(1, [1.0, 1.0, 3.0], at=42.5),
        lost,
        {"kind": "round.metrics", "round": 1, "source": "distributed", "metrics": {"loss": 0.5, "accuracy": 0.75}},
    ):
        runs.learn("server", name, event)


def test_every_declared_series_is_there_with_its_labels() -> None:
    runs = ModelRuns()
    a_run(runs)
    runs.begin("client", "r1", "image_classification")
    runs.learn("client", "r1", {"kind": "client.handled", "metrics": {"loss": 0.25}, "memory_bytes": 5000})
    found = parsed(runs)
    common = {"testbed": "tb", "node": "fed.1", "role": "server", "cohort": "1", "run": "r1"}
    for name, (family, _, labels) in DECLARED.items():
        suffix = {"CounterMetricFamily": "_total", "HistogramMetricFamily": "_bucket"}.get(family.__name__, "")
        samples = found[name + suffix]
        assert all(set(own) - {"le"} == {*common, *labels} for own, _ in samples), name
        assert all(common.items() <= own.items() for own, _ in samples), name
    value = {name: dict((tuple(sorted(set(own.items()) - set(common.items()))), number) for own, number in samples)
             for name, samples in found.items()}  # fmt: skip
    assert value["model_loss"] == {(("source", "distributed"),): 0.5, (("source", "client"),): 0.25}
    assert value["fl_round_timestamp_seconds"] == {(): 42.5} and value["fl_run_running"] == {
        (("application", "image_classification"),): 1.0}  # fmt: skip
    assert value["fl_client_failures_total"] == {(("client", "c9"), ("reason", "lost")): 1.0}
    assert value["fl_stragglers_total"] == {(): 2.0}
    assert value["fl_message_bytes_total"][("client", "c0"), ("direction", "up")] == 180.0
    buckets = [number for own, number in found["fl_phase_seconds_bucket"] if own["phase"] == "train"]
    assert buckets == sorted(buckets) and buckets[-1] == value["fl_phase_seconds_count"][(("phase", "train"),)] == 1.0
    assert value["fl_phase_seconds_sum"][(("phase", "train"),)] == 3.0


def test_series_stay_ten_minutes_after_the_end() -> None:
    time = Clock()
    runs = ModelRuns(time)
    a_run(runs)
    runs.end("server", "r1")
    time.now = KEPT_S - 1
    assert [number for _, number in parsed(runs)["fl_run_running"]] == [0.0]
    time.now = KEPT_S
    assert parsed(runs) == {}
    a_run(runs, "r2")
    time.now = 10 * KEPT_S
    assert {own["run"] for own, _ in parsed(runs)["fl_run_running"]} == {"r2"}, "it has not ended"


def test_many_ended_runs_are_bounded_and_a_name_used_again_starts_anew() -> None:
    time = Clock()
    runs = ModelRuns(time)
    for number in range(MAX_ENDED + 5):
        time.now += 1
        a_run(runs, f"r{number}")
        runs.end("server", f"r{number}")
    shown = {own["run"] for own, _ in parsed(runs)["fl_run_running"]}
    assert shown == {f"r{number}" for number in range(5, MAX_ENDED + 5)}
    a_run(runs, "legacy")
    runs.end("server", "legacy")
    runs.begin("server", "legacy", "image_classification")
    runs.learn("server", "legacy", reply("c0", 1))
    with runs.held() as held:
        (again,) = [run for run in held if run.run == "legacy"]
        assert again.ended_at is None and again.state.message_bytes == {("c0", "down"): 100, ("c0", "up"): 90}  # type: ignore[union-attr]
