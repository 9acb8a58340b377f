"""Asks a Prometheus every query of every panel, annotation and variable, and says which of them get data.

    python -m monitoring.grafana.check --prometheus http://127.0.0.1:9090 --var testbed=factory-satellite

Takes a folder of dashboards, a Prometheus and values of variables. Never guesses: a variable that is not given gets
what its own query answers first, or "all" where the dashboard offers that. A query counts as answered only where at
least one number comes back; one that names a metric which Prometheus has never seen is an error, also where the rest of
it has data. Exit status: 0 all answered, 1 some not, 2 the input is wrong.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from monitoring.grafana import DASHBOARDS
from monitoring.grafana.queries import (
    Query,
    QueryProblem,
    Values,
    find_queries,
    label_values,
    metric_names,
    substitute,
    variable_query,
    variables,
)

TIMEOUT_S = (3.0, 30.0)
MOST_POINTS = 10_000
"""A Prometheus answers a range with at most 11,000 points a series."""

ONLY_AFTER: Mapping[str, str] = {
    "ALERTS": "an alert fires",
    "fl_client_failures_total": "a client fails",
    "fl_client_failed_timestamp_seconds": "a client fails",
    "fl_rounds_planned": "a run says how many rounds it plans",
    "cohortnet_link_changed_timestamp_seconds": "a link changes",
    "cohortnet_meter_changed_timestamp_seconds": "a meter is set",
    "cohortnet_meter_rate": "a meter is set",
    "cohortnet_meter_pending": "a meter is set",
    "cohortnet_meter_packets_total": "a meter that drops is set",
    "cohortnet_meter_bytes_total": "a meter that drops is set",
    "cohortnet_meter_band_drop_packets_total": "a meter that drops is set",
    "cohortnet_meter_band_drop_bytes_total": "a meter that drops is set",
    "cohortnet_meter_queue_packets_total": "a meter that queues is set",
    "cohortnet_meter_queue_bytes_total": "a meter that queues is set",
    "cohortnet_meter_queue_drops_total": "a meter that queues is set",
    "cohortnet_meter_queue_backlog_bytes": "a meter that queues is set",
    "cohortnet_traffic_target_bits_per_second": "the testbed declares background traffic",
    "cohortnet_traffic_running": "the testbed declares background traffic",
    "container_cpu_cfs_periods_total": "a node has a limit of CPU",
    "container_cpu_cfs_throttled_periods_total": "a node has a limit of CPU",
    "container_cpu_cfs_throttled_seconds_total": "a node has a limit of CPU",
    "container_spec_cpu_limit_cores": "a node has a limit of CPU",
    "container_spec_memory_limit_bytes": "a node has a limit of memory",
    "mlfo_errors_total": "an error occurs",
    "mlfo_intents_refused_total": "an intent is refused",
    "cohortnet_exporter_errors_total": "an error occurs",
    "cohortnet_exporter_overruns_total": "a collection is late",
}
"""Metrics of which no series exists until something happens, and what that is: a query without data is then `quiet`."""
ONLY_WHILE: Mapping[str, str] = {
    'flow="traffic"': "background traffic runs over TCP",
    'ALERTS{alertstate="firing"}': "an alert fires",
}
"""The same of selectors of metrics that exist anyhow."""


class CheckError(Exception):
    """Nothing could be checked: no dashboards, no Prometheus, or a variable that it knows no value of."""


@dataclass(frozen=True)
class Outcome:
    """What came of a query. `state` is data, quiet (nothing has happened yet that it would show), empty or error."""

    query: Query
    asked: str
    state: str
    series: int = 0
    detail: str = ""

    def __str__(self) -> str:
        more = f": {self.detail}" if self.detail else ""
        return f"{self.state:5} {self.query} ({self.series} series){more}\n      {self.asked}"


class Prometheus:
    """The few questions that are asked of a Prometheus. `url` such as http://127.0.0.1:9090."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False

    def close(self) -> None:
        self._session.close()

    def instant(self, expr: str, at: float) -> list[Any]:
        """The vector's samples (or a scalar as one). Raises QueryProblem with Prometheus's own words."""
        data = self._get("/api/v1/query", {"query": expr, "time": f"{at:.3f}"})
        if data["resultType"] in ("scalar", "string"):
            return [{"metric": {}, "value": data["result"]}]
        return list(data["result"])

    def range(self, expr: str, start: float, end: float, step_s: float) -> list[Any]:
        """The matrix's series. Raises QueryProblem with Prometheus's own words."""
        form = {"query": expr, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step_s:g}"}
        return list(self._get("/api/v1/query_range", form)["result"])

    def values(self, label: str, match: str | None, start: float, end: float) -> list[str]:
        """A label's values, among the series that match."""
        form = {"start": f"{start:.3f}", "end": f"{end:.3f}", **({"match[]": match} if match else {})}
        return list(self._get(f"/api/v1/label/{label}/values", form))

    def _get(self, path: str, form: Mapping[str, str]) -> Any:
        try:
            answer = self._session.get(self._url + path, params=form, timeout=TIMEOUT_S)
            body = answer.json()
        except requests.JSONDecodeError:
            raise CheckError(f"{self._url}{path}: no Prometheus answers there (status {answer.status_code})") from None
        except requests.RequestException as error:
            raise CheckError(f"no Prometheus answers at {self._url}: {error}") from None
        if body.get("status") != "success":
            raise QueryProblem(f"{body.get('errorType')}: {body.get('error')}")
        return body["data"]


def read_dashboards(folder: Path) -> list[dict[str, Any]]:
    """All dashboards of a folder, by file name. Raises CheckError where there is none or one is no JSON."""
    files = sorted(folder.glob("*.json"))
    if not files:
        raise CheckError(f"{folder}: no dashboards (*.json) there")
    try:
        return [json.loads(path.read_text(encoding="utf-8")) for path in files]
    except (OSError, ValueError) as error:
        raise CheckError(f"{folder}: {error}") from None


class Checker:
    """Checks dashboards against one Prometheus, over the last `range_s` seconds that end at `end` (default: now)."""

    def __init__(
        self, prometheus: Prometheus, given: Values, *, period_s: float, range_s: float, end: float | None = None
    ) -> None:
        self._prometheus = prometheus
        self._given = dict(given)
        self._period_s, self._range_s = period_s, range_s
        self._end = time.time() if end is None else end
        self._names: set[str] | None = None

    def check(self, dashboard: Mapping[str, Any]) -> list[Outcome]:
        """One outcome a query, in the dashboard's order. Raises CheckError."""
        values = self._values(dashboard)
        try:
            queries = find_queries(dashboard)
        except QueryProblem as error:
            raise CheckError(str(error)) from None
        return [self._ask(query, values) for query in queries]

    def _values(self, dashboard: Mapping[str, Any]) -> Values:
        values: dict[str, str | Sequence[str]] = {}
        for variable in variables(dashboard):
            name = str(variable["name"])
            if name in self._given:
                values[name] = self._given[name]
            elif variable.get("includeAll"):
                values[name] = variable.get("allValue") or ".*"
            elif variable.get("type") == "query":
                try:
                    found = self._label_values(variable_query(variable), values)
                except QueryProblem as error:
                    raise CheckError(f"{dashboard.get('title')}: variable {name!r}: {error}") from None
                if not found:
                    raise CheckError(f"{dashboard.get('title')}: variable {name!r}: no value; give one as {name}=VALUE")
                values[name] = found[0]
        return values

    def _label_values(self, query: str, values: Values) -> list[str]:
        match, label = label_values(substitute(query, values, period_s=self._period_s, range_s=self._range_s))
        return self._prometheus.values(label, match, self._start, self._end)

    @property
    def _start(self) -> float:
        return self._end - self._range_s

    def _ask(self, query: Query, values: Values) -> Outcome:
        asked = query.expr
        try:
            asked = substitute(query.expr, values, period_s=self._period_s, range_s=self._range_s)
            if query.kind == "variable":
                match, label = label_values(asked)
                names, found = metric_names(match or ""), self._prometheus.values(label, match, self._start, self._end)
                count = len([value for value in found if value])
            else:
                names, count = metric_names(asked), self._count(query, asked)
        except QueryProblem as error:
            return Outcome(query, asked, "error", 0, str(error))
        unknown = [name for name in names if name not in self._known()]
        strange = [name for name in unknown if name not in ONLY_AFTER]
        if strange:
            return Outcome(query, asked, "error", count, f"Prometheus knows no metric {', '.join(strange)}")
        if count:
            return Outcome(query, asked, "data", count)
        if unknown:
            return Outcome(query, asked, "quiet", 0, f"nothing before {ONLY_AFTER[unknown[0]]}")
        for selector, reason in ONLY_WHILE.items():
            if selector in asked:
                return Outcome(query, asked, "quiet", 0, f"nothing before {reason}")
        return Outcome(query, asked, "empty", 0, "the metrics exist, but no series of them fits")

    def _count(self, query: Query, asked: str) -> int:
        if query.instant:
            return sum(_number(sample["value"]) for sample in self._prometheus.instant(asked, self._end))
        step_s = max(self._period_s, self._range_s / MOST_POINTS)
        series = self._prometheus.range(asked, self._start, self._end, step_s)
        return sum(any(_number(value) for value in one["values"]) for one in series)

    def _known(self) -> set[str]:
        if self._names is None:
            self._names = set(self._prometheus.values("__name__", None, self._start, self._end))
        return self._names


def _number(sample: Sequence[Any]) -> bool:
    # A division by nothing is NaN: a panel shows nothing for it.
    return not math.isnan(float(sample[1]))


def check_folder(
    folder: Path, url: str, given: Values, *, period_s: float, range_s: float, end: float | None = None
) -> list[Outcome]:
    """Every query of every dashboard of a folder.

    Args:
        given: values of variables by name, such as {"testbed": "lab"}; a list is a choice of several.
        period_s: the Prometheus's scrape interval.
        range_s: the time range that is looked at.

    Raises:
        CheckError: where nothing could be checked.
    """
    prometheus = Prometheus(url)
    try:
        checker = Checker(prometheus, given, period_s=period_s, range_s=range_s, end=end)
        return [outcome for dashboard in read_dashboards(folder) for outcome in checker.check(dashboard)]
    finally:
        prometheus.close()


def failures(outcomes: Iterable[Outcome], *, strict: bool) -> list[Outcome]:
    """Those without an answer; with `strict` also those that only wait for something to happen."""
    good = ("data",) if strict else ("data", "quiet")
    return [outcome for outcome in outcomes if outcome.state not in good]


def _given(pairs: Sequence[str]) -> dict[str, str | list[str]]:
    given: dict[str, str | list[str]] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise CheckError(f"--var {pair!r}: a name, '=' and a value are expected, such as testbed=factory-satellite")
        given[name] = value.split(",") if "," in value else value
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; gives its exit status."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.grafana.check", description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=DASHBOARDS, help="dashboards (default: the shipped)")
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", metavar="URL")
    parser.add_argument("--var", action="append", default=[], metavar="NAME=VALUE", help="several values: a,b")
    parser.add_argument("--range", type=float, default=1800.0, metavar="SECONDS", dest="range_s")
    parser.add_argument("--end", type=float, metavar="UNIX_SECONDS", help="end of the range (default: now)")
    parser.add_argument("--period", type=float, default=5.0, metavar="SECONDS", dest="period_s", help="scrape interval")
    parser.add_argument("--strict", action="store_true", help="also fail where nothing has happened yet")
    parser.add_argument("--verbose", action="store_true", help="show the answered queries too")
    options = parser.parse_args(arguments)
    if options.range_s <= 0 or options.period_s <= 0:
        parser.error("--range and --period are seconds above 0")
    try:
        outcomes = check_folder(options.folder, options.prometheus, _given(options.var), period_s=options.period_s,
                                range_s=options.range_s, end=options.end)  # fmt: skip
    except CheckError as error:
        print(f"check: {error}", file=sys.stderr)
        return 2
    bad = failures(outcomes, strict=options.strict)
    for outcome in outcomes if options.verbose else bad:
        print(outcome)
    count = {state: sum(o.state == state for o in outcomes) for state in ("data", "quiet", "empty", "error")}
    print(f"{len(outcomes)} queries: " + ", ".join(f"{number} {state}" for state, number in count.items()))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
