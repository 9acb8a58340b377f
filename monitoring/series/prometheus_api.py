"""Reading from a Prometheus server over its HTTP API. Every call has a time-out; values come back as NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import requests

from monitoring.series.files import Samples

_CONNECT_S, _READ_S = 3.0, 30.0


class SeriesError(Exception):
    """Series cannot be fetched, written or read; the text is meant for the user."""


class PrometheusApi:
    """A client of one server, e.g. `PrometheusApi("http://127.0.0.1:9090")`. All calls raise SeriesError."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy of the host's environment is no way into a testbed

    def __enter__(self) -> PrometheusApi:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def _query(self, path: str, parameters: Mapping[str, str]) -> list[dict[str, Any]]:
        try:
            answer = self._session.post(self.url + path, data=dict(parameters), timeout=(_CONNECT_S, _READ_S))
            body = answer.json()
        except (requests.RequestException, ValueError) as error:
            reason = getattr(error.args[0], "reason", error) if error.args else error
            raise SeriesError(f"Prometheus at {self.url} does not answer: {reason}") from None
        if not isinstance(body, dict) or body.get("status") != "success":
            said = body.get("error") if isinstance(body, dict) else None
            raise SeriesError(f"Prometheus at {self.url} refused {parameters['query']!r}: {said or answer.status_code}")
        result: list[dict[str, Any]] = body["data"]["result"]
        return result

    def value_by_label(self, query: str, label: str, time: float) -> dict[str, float]:
        """An instant query whose result has one number for each value of that label."""
        result = self._query("/api/v1/query", {"query": query, "time": f"{time:.3f}", "timeout": f"{_READ_S:g}s"})
        return {item["metric"].get(label, ""): float(item["value"][1]) for item in result}

    def raw(self, selector: str, start: float, end: float) -> list[Samples]:
        """All samples after `start` up to `end` (Unix seconds) as they were scraped."""
        # Versions differ in whether the window's beginning belongs to it: asked for a little more, and cut here.
        window = f"{selector}[{round((end - start) * 1000) + 1}ms]"
        found = self._query("/api/v1/query", {"query": window, "time": f"{end:.3f}", "timeout": f"{_READ_S:g}s"})
        return [samples for samples in (_samples(item, start, end) for item in found) if len(samples[1])]

    def stepped(self, selector: str, start: float, end: float, step_s: float) -> list[Samples]:
        """One value each `step_s` seconds, the newest then."""
        found = self._query("/api/v1/query_range", {
            "query": selector, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step_s:.3f}",
            "timeout": f"{_READ_S:g}s",
        })  # fmt: skip
        return [_samples(item, start - 1e-3, end) for item in found]


def _samples(item: Mapping[str, Any], start: float, end: float) -> Samples:
    pairs = item["values"]
    times = np.array([float(pair[0]) for pair in pairs])
    values = np.array([float(pair[1]) for pair in pairs])
    inside = (times > start) & (times <= end)
    return item["metric"], times[inside], values[inside]
