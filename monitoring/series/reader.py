"""The time series of a record, read back: by metric and labels, as times and values, or as rates.

Reads `series.parquet` of one folder; asks nobody for anything.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet

from monitoring.series.files import OWN_COLUMNS, PARQUET, SCHEMA, TEXT_COLUMNS
from monitoring.series.prometheus_api import SeriesError

Floats = npt.NDArray[np.float64]
Labels = tuple[tuple[str, str], ...]
"""Label names and values in the order of their names; labels that are empty are left out."""
Wanted = str | Collection[str]


def increases(values: Floats) -> Floats:
    """What a counter grew by between each sample and the next; one that fell has started anew from zero."""
    steps = np.diff(values)
    return np.where(steps < 0, values[1:], steps)


class Series:
    """All series of a run, e.g. `read(folder).select("model_accuracy", source="server")`."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self._of_metric: dict[str, list[tuple[Labels, slice]]] = {}
        self._times: Floats = np.empty(0)
        self._values: Floats = np.empty(0)
        if table.num_rows:
            self._sort(table)

    def _sort(self, table: pa.Table) -> None:
        # Rows of one series are made to stand together, in the order of their times.
        texts: list[pa.Array] = []
        codes: npt.NDArray[np.int64] = np.zeros(table.num_rows, dtype=np.int64)
        for name in TEXT_COLUMNS:
            column = table[name]
            if not pa.types.is_dictionary(column.type):
                column = column.dictionary_encode()
            column = column.unify_dictionaries().combine_chunks()
            if isinstance(column, pa.ChunkedArray):
                column = column.chunk(0)
            numbers = column.indices.to_numpy(zero_copy_only=False).astype(np.int64)
            texts.append(column)
            # Numbered anew after each column, so that they stay below the number of rows.
            _, codes = np.unique(codes * max(1, len(column.dictionary)) + numbers, return_inverse=True)
        times = table["time"].to_numpy()
        order = np.lexsort((times, codes))
        self._times, self._values = times[order], table["value"].to_numpy()[order]
        codes = codes[order]
        starts = np.flatnonzero(np.concatenate(([True], codes[1:] != codes[:-1])))
        for start, end in zip(starts, [*starts[1:], len(codes)], strict=True):
            row = {name: texts[i][int(order[start])].as_py() or "" for i, name in enumerate(TEXT_COLUMNS)}
            labels = {**json.loads(row["labels"] or "{}"), **{name: row[name] for name in OWN_COLUMNS}}
            key = tuple(sorted((name, str(value)) for name, value in labels.items() if value != ""))
            self._of_metric.setdefault(row["metric"], []).append((key, slice(int(start), int(end))))

    @property
    def metrics(self) -> list[str]:
        """The names of all metrics that are here."""
        return sorted(self._of_metric)

    @property
    def span(self) -> tuple[float, float] | None:
        """The first and the last time (Unix seconds); None where there is nothing."""
        return (float(self._times.min()), float(self._times.max())) if len(self._times) else None

    def __len__(self) -> int:
        return len(self._times)

    def select(self, metric: str, /, **labels: Wanted) -> dict[Labels, tuple[Floats, Floats]]:
        """The series of that metric whose labels have these values (or one of these): times in Unix seconds, values.

        A wanted value of "" means: without that label. Empty where nothing fits.
        """
        wanted = {name: {value} if isinstance(value, str) else set(value) for name, value in labels.items()}
        found = {}
        for key, rows in self._of_metric.get(metric, ()):
            have = dict(key)
            if all(have.get(name, "") in values for name, values in wanted.items()):
                found[key] = (self._times[rows], self._values[rows])
        return found

    def rate(
        self, metric: str, /, *, window_s: float | None = None, **labels: Wanted
    ) -> dict[Labels, tuple[Floats, Floats]]:
        """What those counters grew by a second, at each sample but the first, over the time since the sample before it,
        or since the first sample within `window_s` seconds before. Series of fewer than two samples are left out.
        """
        rates = {}
        for key, (times, values) in self.select(metric, **labels).items():
            if len(times) < 2:
                continue
            total = np.concatenate(([0.0], np.cumsum(increases(values))))
            later = np.arange(1, len(times))
            earlier = later - 1
            if window_s is not None:
                first = np.searchsorted(times, times[1:] - window_s, side="left")
                earlier = np.minimum(first, earlier)
            rates[key] = (times[1:], (total[later] - total[earlier]) / (times[later] - times[earlier]))
        return rates


def read(folder: Path) -> Series:
    """The series of the record in that folder; an empty `Series` where none were kept.

    Raises:
        SeriesError: where the file is damaged or has other columns.
    """
    path = Path(folder) / PARQUET
    if not path.exists():
        return Series(SCHEMA.empty_table())
    try:
        table = pa.parquet.read_table(path, columns=SCHEMA.names, read_dictionary=list(TEXT_COLUMNS))
    except (OSError, pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise SeriesError(f"{path} cannot be read: {error}") from None
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if missing:
        raise SeriesError(f"{path} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}")
    return Series(table)
