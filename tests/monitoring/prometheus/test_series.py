"""Series kept with a run: exactly that run's samples, as they were scraped, bounded, read back as they were."""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitoring.series import Series, SeriesError, keep, read
from monitoring.series.files import SeriesWriter, table_of
from monitoring.series.keep import plan_shares, selector
from tests.monitoring.prometheus.prom_lab import TESTBED, Page, free_port, inventory, query, running, wait_for

RUN = "edge.intent-1"
PERIOD_S = 0.2
LENGTH_S = 4.0


class Pages:
    """What the testbed and, beside it, another one report; remembers every value of one counter."""

    def __init__(self) -> None:
        self.sent: list[int] = []

    def text(self) -> str:
        n = len(self.sent)
        self.sent.append(1000 * n if n < 12 else 1000 * (n - 12))  # it starts anew once
        own = f'testbed="{TESTBED}",node="fed.1",role="server",cohort="1"'
        lines = [f'node_network_transmit_bytes_total{{{own},device="fed.1-eth0"}} {self.sent[-1]}']
        lines += [f'model_accuracy{{{own},run="{run}",source="server"}} 0.5' for run in (RUN, "edgeXintent-1", "r2")]
        lines += [f'fl_phase_seconds_{part}{{{own},run="{RUN}",phase="train"}} 7' for part in ("sum", "created")]
        lines += [f'{name}_bucket{{{own},run="{RUN}",le="1"}} 1' for name in ("fl_phase_seconds", "tcprtt")]
        lines += [f'tcp_rtt{{{own},remote="10.0.0.1:{port}"}} {port}.25' for port in range(40)]
        lines += ['cohortnet_link_up{testbed="other",link="x"} 1', f'go_goroutines{{testbed="{TESTBED}"}} 9']
        return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], Pages, str, float, float]]:
    folder = tmp_path_factory.mktemp("series")
    pages = Pages()
    data = inventory(folder, period_s=PERIOD_S, nodes=[])
    host, _, port = data["monitoring"]["exporter"].rpartition(":")
    with Page(pages.text, host, int(port)), running(data, folder / "prometheus.log") as server:
        wait_for(lambda: query(server.url, "tcp_rtt"), 15)
        start = time.time()
        time.sleep(LENGTH_S)
        end = time.time()
        time.sleep(2 * PERIOD_S)
        yield data, pages, server.url, start, end


def test_a_run_s_samples_are_kept_as_they_were_scraped(scraped: Any, tmp_path: Path) -> None:
    data, pages, url, start, end = scraped
    folder = tmp_path / RUN
    folder.mkdir()
    summary = keep(url, data, start, end, folder)
    series = read(folder)
    ((labels, (times, values)),) = series.select("node_network_transmit_bytes_total").items()
    assert dict(labels) == {"testbed": TESTBED, "node": "fed.1", "role": "server", "cohort": "1",
                            "device": "fed.1-eth0"}  # fmt: skip
    assert len(times) == pytest.approx(LENGTH_S / PERIOD_S, abs=2)
    assert start < times[0] and times[-1] <= end and (np.diff(times) > 0).all()
    first = pages.sent.index(int(values[0]))
    assert values.tolist() == pages.sent[first : first + len(values)], "every scrape is there, none twice"
    ((_, (_, rates)),) = series.rate("node_network_transmit_bytes_total", window_s=1.0, cohort="1").items()
    assert rates.mean() == pytest.approx(1000 / PERIOD_S, rel=0.15) and (rates >= 0).all()

    # Of the learning series only that run's (a point in its name is no wildcard), and of histograms only one.
    assert [dict(key)["run"] for key in series.select("model_accuracy")] == [RUN]
    assert "tcprtt_bucket" in series.metrics and "fl_phase_seconds_sum" in series.metrics
    gone = {"fl_phase_seconds_bucket", "fl_phase_seconds_created", "go_goroutines", "cohortnet_link_up"}
    assert not gone & set(series.metrics)
    assert len(series.select("tcp_rtt", remote=["10.0.0.1:7", "10.0.0.1:8"])) == 2
    assert {key: value[1][0] for key, value in series.select("tcp_rtt", remote="10.0.0.1:7").items()} == {
        tuple(sorted({"testbed": TESTBED, "node": "fed.1", "role": "server", "cohort": "1", "remote": "10.0.0.1:7"}
                     .items())): 7.25}  # fmt: skip

    assert summary.state == "kept" and summary.thinned_step_s is None and summary.left_out == ()
    assert summary.samples == len(series) and summary.metrics == len(series.metrics)
    assert json.loads(json.dumps(summary.as_dict()))["files"]["series.csv"] > 1000
    with open(folder / "series.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    table = pyarrow.parquet.read_table(folder / "series.parquet")
    assert list(rows[0]) == table.column_names == ["time", "metric", "testbed", "node", "role", "cohort", "run",
                                                   "labels", "value"]  # fmt: skip
    assert [float(row["value"]) for row in rows] == table["value"].to_pylist()
    assert [float(row["time"]) for row in rows] == table["time"].to_pylist()
    assert {json.loads(row["labels"]).get("device") for row in rows if row["metric"].startswith("node_n")} == {
        "fed.1-eth0"
    }


def test_too_much_is_thinned_but_what_was_learnt_stays_whole(scraped: Any, tmp_path: Path) -> None:
    data, _, url, start, end = scraped
    limit = 400
    folder = tmp_path / RUN
    folder.mkdir()
    summary = keep(url, data, start, end, folder, limit=limit)
    series = read(folder)
    assert summary.samples == len(series) <= limit
    assert summary.thinned_step_s is not None and summary.thinned_step_s >= 2 * PERIOD_S
    ((_, (times, _)),) = series.select("model_accuracy").items()
    assert len(times) == pytest.approx(LENGTH_S / PERIOD_S, abs=2)
    flows = series.select("tcp_rtt")
    assert len(flows) == 40 or "tcp_rtt" in summary.left_out
    assert all(np.allclose(np.diff(times), summary.thinned_step_s, atol=0.01) for times, _ in flows.values())
    # Where not even the learning series fit, the summary says which are missing.
    tight = keep(url, data, start, end, folder, limit=10)
    assert tight.samples <= 10 and tight.left_out and len(read(folder)) == tight.samples


def test_a_time_without_samples_and_a_prometheus_that_is_away_leave_no_files(scraped: Any, tmp_path: Path) -> None:
    data, _, url, start, _ = scraped
    summary = keep(url, data, start - 9000, start - 8000, tmp_path, run=RUN)
    assert summary.state == "empty" and summary.samples == 0
    with pytest.raises(SeriesError, match=r"Prometheus at http://127\.0\.0\.1:\d+ does not answer"):
        keep(f"http://127.0.0.1:{free_port()}", data, start, start + 1, tmp_path, run=RUN)
    assert list(tmp_path.iterdir()) == []
    assert len(read(tmp_path)) == 0 and read(tmp_path).metrics == [] and read(tmp_path).span is None


def test_files_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), SeriesWriter(tmp_path) as writer:
        writer.write(table_of([({"__name__": "a"}, np.array([1.0]), np.array([2.0]))]))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "series.parquet").write_bytes(b"no parquet")
    with pytest.raises(SeriesError, match="cannot be read"):
        read(tmp_path)


def test_the_selector_quotes_what_users_name() -> None:
    text = selector("lab", 'a"b.c', "m")
    assert text == '{__name__="m",testbed="lab",run=~"|a\\"b\\\\.c"}'


@pytest.mark.parametrize(("series", "limit"), [(10, 10**6), (3000, 10**5), (10**6, 10**5)])
def test_what_is_asked_for_stays_near_the_limit(series: int, limit: int) -> None:
    counts = {"model_loss": 3.0, "node_up": float(series), "tcp_rtt": float(series)}
    shares = plan_shares(counts, 1.0, 600.0, limit)
    assert [share.metric for share in shares][0] == "model_loss" and shares[0].step_s is None
    total = sum(counts[share.metric] * 600 / (share.step_s or 1.0) for share in shares)
    assert total <= limit * 1.05 or series * 2 > limit, "one sample of each series is the least there can be"
    assert all(share.span_s > 0 for share in shares)


SERIES = st.lists(
    st.tuples(
        st.sampled_from(["m", "n"]),
        st.dictionaries(st.sampled_from(["node", "run", "x", "y"]), st.text("aé\"\\,", min_size=1, max_size=3)),
        st.lists(st.floats(0, 1e9), min_size=1, max_size=5, unique=True),
    ),
    max_size=8, unique_by=lambda item: (item[0], tuple(sorted(item[1].items()))),
)  # fmt: skip


@given(SERIES)
@settings(max_examples=60, deadline=None)
def test_what_was_written_is_what_is_read(found: list[tuple[str, dict[str, str], list[float]]]) -> None:
    table = table_of([({"__name__": name, **labels}, np.array(times), np.array(times) * 2)
                      for name, labels, times in found])  # fmt: skip
    series = Series(table)
    assert len(series) == sum(len(times) for _, _, times in found)
    for name, labels, times in found:
        have, values = series.select(name)[tuple(sorted(labels.items()))]
        assert have.tolist() == sorted(times) and values.tolist() == [2 * at for at in sorted(times)]
    assert sum(len(series.select(name)) for name in series.metrics) == len(found)


def test_values_that_are_no_numbers_and_counters_that_fall(tmp_path: Path) -> None:
    times = np.arange(6.0)
    with SeriesWriter(tmp_path) as writer:
        writer.write(table_of([({"__name__": "c"}, times, np.array([5, 7, 1, 4, 4, 10.0])),
                               ({"__name__": "g"}, times[:3], np.array([math.nan, math.inf, 1.0]))]))  # fmt: skip
    series = read(tmp_path)
    assert series.rate("c")[()][1].tolist() == [2, 1, 3, 0, 6]
    assert series.rate("c", window_s=2.0)[()][1].tolist() == [2, 1.5, 2, 1.5, 3]
    assert np.isnan(series.select("g")[()][1][0]) and np.isinf(series.select("g")[()][1][1])
    assert series.span == (0.0, 5.0)
