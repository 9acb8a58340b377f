"""The folder that a Grafana needs to show a testbed: dashboards, and provisioning files that name them and Prometheus.

Takes the shipped files and an inventory, writes files; starts nothing, asks nobody.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from monitoring.grafana import DASHBOARDS, PROVISIONING

DEFAULT_PROMETHEUS = "127.0.0.1:9090"
DEFAULT_PERIOD_S = 5.0
_ADDRESS = re.compile(r"[\w.:\[\]-]+:\d{1,5}")


class BundleError(Exception):
    """The folder could not be written, or what it should point to is not there. The message says what to do."""


@dataclass(frozen=True)
class Source:
    """The Prometheus that is shown: its address (`host:port`) and its scrape interval in seconds."""

    prometheus: str = DEFAULT_PROMETHEUS
    period_s: float = DEFAULT_PERIOD_S

    @property
    def url(self) -> str:
        return f"http://{self.prometheus}"


def source_of(inventory: Mapping[str, Any]) -> Source:
    """The Prometheus of a testbed.

    Raises:
        BundleError: where the testbed was raised without one.
    """
    name = inventory.get("testbed")
    found = inventory.get("monitoring")
    if not found:
        raise BundleError(
            f"testbed {name!r} was raised without monitoring, so there is nothing to show; `cohortnet down {name}`, "
            f"then "
            "`cohortnet up --monitoring`, or `monitoring: true` in its file"
        )
    address = found.get("prometheus_address")
    if found.get("prometheus") == "none" or not address:
        raise BundleError(
            f"testbed {name!r} has an exporter but no Prometheus (monitoring: {{prometheus: none}}); set it to "
            f"`host` or "
            "`in-band`, or let a Prometheus of your own scrape it, and take `--out` to get the dashboards"
        )
    if not _ADDRESS.fullmatch(str(address)):
        raise BundleError(f"testbed {name!r}: Prometheus's address {address!r} in its inventory is not HOST:PORT")
    return Source(str(address), float(found.get("period_s") or DEFAULT_PERIOD_S))


def interval(period_s: float) -> str:
    """Seconds as Grafana writes a scrape interval: `5s`, `500ms`."""
    milliseconds = round(period_s * 1000)
    return f"{milliseconds // 1000}s" if milliseconds % 1000 == 0 else f"{milliseconds}ms"


def write(folder: Path, source: Source, *, dashboards_path: str | None = None) -> list[Path]:
    """Write `dashboards/` and `provisioning/` into a folder; files of the same names are replaced, others stay.

    Args:
        dashboards_path: where Grafana will see `dashboards/` (default: where they are written).

    Returns:
        The files that were written.

    Raises:
        BundleError: naming the file that could not be written.
    """
    written = []
    try:
        dashboards = folder / "dashboards"
        for kind in ("dashboards", "provisioning/datasources", "provisioning/dashboards"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        # Grafana looks for these too, and complains in its log where they are not there.
        for kind in ("provisioning/plugins", "provisioning/alerting"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        for path in sorted(DASHBOARDS.glob("*.json")):
            written.append(Path(shutil.copyfile(path, dashboards / path.name)))
        sources = _shipped("datasources/cohortnet.yaml")
        (first,) = sources["datasources"]
        first["url"] = source.url
        first["jsonData"]["timeInterval"] = interval(source.period_s)
        written.append(_dump(folder / "provisioning/datasources/cohortnet.yaml", sources))
        providers = _shipped("dashboards/cohortnet.yaml")
        (provider,) = providers["providers"]
        provider["options"]["path"] = dashboards_path or str(dashboards.resolve())
        written.append(_dump(folder / "provisioning/dashboards/cohortnet.yaml", providers))
        _readable(folder)
    except OSError as error:
        raise BundleError(f"{error.filename or folder}: {error.strerror}; choose another folder") from None
    return written


def _shipped(name: str) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((PROVISIONING / name).read_text(encoding="utf-8"))
    return data


def _dump(path: Path, data: Mapping[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(dict(data), sort_keys=False), encoding="utf-8")
    return path


def _readable(folder: Path) -> None:
    # Grafana runs as a user of its own, whatever this process's umask says. Only what we write: not the folder above.
    for top in (folder / "dashboards", folder / "provisioning"):
        for path in (top, *top.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
