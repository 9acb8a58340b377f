"""Time series kept with a run: `keep` copies them out of Prometheus into the run's folder, `read` gives them back.

Who reads a record needs no Prometheus, and none of the testbed.
"""

from monitoring.series.keep import SeriesSummary, keep
from monitoring.series.prometheus_api import SeriesError
from monitoring.series.reader import Series, read

__all__ = ["Series", "SeriesError", "SeriesSummary", "keep", "read"]
