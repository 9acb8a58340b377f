"""The two files of a record that hold its time series, `series.parquet` and `series.csv`: one row a sample.

Owns their columns and how they are written (piece by piece, so that memory stays bounded). Knows nothing of where the
samples come from.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

PARQUET = "series.parquet"
CSV = "series.csv"
OWN_COLUMNS = ("testbed", "node", "role", "cohort", "run")
"""Labels that have a column of their own; all others stand in `labels`, as JSON."""
TEXT_COLUMNS = ("metric", *OWN_COLUMNS, "labels")
SCHEMA = pa.schema([
    ("time", pa.float64()),
    ("metric", pa.string()),
    *((name, pa.string()) for name in OWN_COLUMNS),
    ("labels", pa.string()),
    ("value", pa.float64()),
])  # fmt: skip

Samples = tuple[Mapping[str, str], npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""One series: its labels with `__name__`, the times (Unix seconds) and the values."""


def table_of(series: Iterable[Samples]) -> pa.Table:
    """These series as rows; the times of each are taken as they come."""
    listed = list(series)
    lengths = np.array([len(times) for _, times, _ in listed], dtype=np.int64)
    rows = pa.array(np.repeat(np.arange(len(listed)), lengths))
    texts: dict[str, list[str]] = {name: [] for name in TEXT_COLUMNS}
    for labels, _, _ in listed:
        texts["metric"].append(labels["__name__"])
        for name in OWN_COLUMNS:
            texts[name].append(labels.get(name, ""))
        others = {key: labels[key] for key in sorted(labels) if key != "__name__" and key not in OWN_COLUMNS}
        texts["labels"].append(json.dumps(others, separators=(",", ":"), ensure_ascii=False) if others else "{}")
    columns = {name: pa.array(values, pa.string()).take(rows) for name, values in texts.items()}
    empty: npt.NDArray[np.float64] = np.empty(0)
    columns["time"] = pa.array(np.concatenate([times for _, times, _ in listed] or [empty]))
    columns["value"] = pa.array(np.concatenate([values for _, _, values in listed] or [empty]))
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


class SeriesWriter:
    """Writes both files; they appear under their names when the `with` block ends well, else nothing of them stays."""

    def __init__(self, folder: Path) -> None:
        self.files = {name: folder / name for name in (PARQUET, CSV)}
        self._new = {name: path.with_name(path.name + ".new") for name, path in self.files.items()}
        self._open = ExitStack()
        self._writers: list[pa.parquet.ParquetWriter | pa.csv.CSVWriter] = []

    def __enter__(self) -> SeriesWriter:
        with ExitStack() as opening:
            opening.callback(self._discard)
            self._writers = [
                opening.enter_context(pa.parquet.ParquetWriter(str(self._new[PARQUET]), SCHEMA, compression="zstd")),
                opening.enter_context(pa.csv.CSVWriter(str(self._new[CSV]), SCHEMA)),
            ]
            self._open = opening.pop_all()
        return self

    def write(self, table: pa.Table) -> None:
        """Append these rows."""
        if table.num_rows:
            for writer in self._writers:
                writer.write_table(table)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._open:  # at its end it closes the writers, then discards what was not moved to its name
            if kind is None:
                for writer in self._writers:
                    writer.close()
                for name, new in self._new.items():
                    os.replace(new, self.files[name])

    def _discard(self) -> None:
        for new in self._new.values():
            new.unlink(missing_ok=True)
