"""The files that Prometheus reads, written: configuration and rules once, targets whenever the inventory says so.

Owns `<state>/prometheus`. Every file is replaced in one step, and only where its text is another one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monitoring.prometheus import config

MOST_BYTES = 2 * 2**30
LEAST_BYTES = 64 * 2**20
SHARE_OF_FREE = 0.25
"""A testbed's state often lies in memory: the series must leave most of it to the nodes."""


def write_configuration(inventory: Mapping[str, Any]) -> None:
    """The configuration and the rules. Raises OSError."""
    folder = Path(inventory["monitoring"]["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / "rules.yml", config.rules_yml(float(inventory["monitoring"]["period_s"])))
    _replace(folder / "prometheus.yml", config.prometheus_yml(inventory))


def write_targets(inventory: Mapping[str, Any]) -> list[str]:
    """The target files; gives the names of those that changed. Raises OSError."""
    folder = Path(inventory["monitoring"]["folder"]) / "targets"
    folder.mkdir(parents=True, exist_ok=True)
    return [name for name, text in config.target_files(inventory).items() if _replace(folder / name, text)]


def _replace(path: Path, text: str) -> bool:
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    new = path.with_name(path.name + ".new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)
    return True


def retention_bytes(folder: Path) -> int:
    """How much Prometheus may keep there: a quarter of what is free, at most 2 GiB, at least 64 MiB."""
    return max(LEAST_BYTES, min(MOST_BYTES, int(shutil.disk_usage(folder).free * SHARE_OF_FREE)))
