"""The text format: whatever the labels hold, a parser of Prometheus reads back what was put in; histograms cumulate."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from monitoring import metrics
from monitoring.exporter.samples import Histogram, Labels, Samples

_TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=12)
_NUMBER = st.one_of(st.integers(0, 2**64), st.floats(allow_nan=False, allow_infinity=False))
_PLAIN = [family for family in metrics.ALL if family.kind != metrics.HISTOGRAM]


@st.composite
def _series(draw: st.DrawFn) -> tuple[metrics.Family, tuple[str, ...], float]:
    family = draw(st.sampled_from(_PLAIN))
    values = tuple(draw(_TEXT) for _ in family.labels)
    return family, values, draw(_NUMBER)


@settings(max_examples=60, deadline=None)
@given(st.lists(_series(), max_size=8, unique_by=lambda row: (row[0].name, row[1])))
def test_text_is_read_back_as_it_was_put_in(rows: list[tuple[metrics.Family, tuple[str, ...], float]]) -> None:
    samples = Samples()
    for family, values, number in rows:
        samples.add(family, Labels(family.labels, values), number)
    wanted = {
        (family.name, tuple(zip(family.labels, values, strict=True))): float(number)
        for family, values, number in rows
    }
    read = {}
    for metric in text_string_to_metric_families(samples.text().decode()):
        for sample in metric.samples:
            declared = next(family for family in metrics.ALL if family.name == sample.name)
            assert metric.type == declared.kind and metric.documentation == declared.help
            read[sample.name, tuple((name, sample.labels[name]) for name in declared.labels)] = float(sample.value)
    assert read == wanted
    objects = {
        (sample.name, tuple(sample.labels.items())): float(sample.value)
        for metric in samples.families() for sample in metric.samples
    }  # fmt: skip
    assert objects == wanted
    assert len(samples) == len(rows)


@given(st.lists(st.floats(0, 1e6), max_size=50))
def test_histogram_counts_every_value_in_all_buckets_above_it(values: list[float]) -> None:
    histogram = Histogram(metrics.TCPRTT_BUCKETS_MS)
    for value in values:
        histogram.observe(value)
    samples = Samples()
    samples.add_histogram(metrics.TCPRTT, Labels(metrics.TCPRTT.labels, ("t", "1")), histogram)
    (metric,) = text_string_to_metric_families(samples.text().decode())
    buckets = {sample.labels["le"]: sample.value for sample in metric.samples if sample.name == "tcprtt_bucket"}
    assert list(buckets.values()) == sorted(buckets.values())
    for bound in metrics.TCPRTT_BUCKETS_MS:
        assert buckets[f"{bound:g}"] == sum(value <= bound for value in values)
    assert buckets["+Inf"] == len(values)
    found = {sample.name: sample.value for sample in metric.samples if sample.name != "tcprtt_bucket"}
    assert found["tcprtt_count"] == len(values)
    assert math.isclose(found["tcprtt_sum"], sum(values), abs_tol=1e-6)


def test_every_metric_is_declared_once_and_by_the_rules() -> None:
    names = [family.name for family in metrics.ALL]
    assert len(names) == len(set(names))
    for family in metrics.ALL:
        assert (family.kind == metrics.COUNTER) == family.name.endswith("_total"), family.name
        assert family.help and len(set(family.labels)) == len(family.labels)
        assert family.labels[0] == "testbed"
