"""Grafana: five dashboards made by code, the files that provision them, and a check of every query they hold.

`build.py` writes `dashboards/*.json` (needs the Grafana Foundation SDK, a tool of development); everything else here
works with those files alone.
"""

from pathlib import Path

DASHBOARDS = Path(__file__).parent / "dashboards"
"""The dashboards as they are shipped, ready for import."""
PROVISIONING = Path(__file__).parent / "provisioning"
DATASOURCE_UID = "cohortnet-prometheus"
"""Panels, annotations and variables name the data source by this uid."""
