"""What a run was made on: versions, machine, and everything that sways measurements. Reads, never changes."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from cohortnet import __version__

PACKAGES = ("flwr", "torch", "numpy", "grpcio", "os-ken", "pyroute2", "docker")


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _first_line(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout else None


def _package(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str | None:
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return None


def describe_machine() -> dict[str, Any]:
    """Kernel, processor, memory, versions. Rates of change here are slow: it holds for the life of a testbed."""
    memory = (_read("/proc/meminfo") or "").splitlines()
    return {
        "cohortnet": __version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": int(memory[0].split()[1]) * 1024 if memory else None,
        "packages": {name: _package(name) for name in PACKAGES},
        "open_vswitch": _first_line(["ovs-vswitchd", "--version"]),
        "tcp_congestion_control": _read("/proc/sys/net/ipv4/tcp_congestion_control"),
        "clocksource": _read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
    }


def describe_images(inventory: Mapping[str, Any]) -> dict[str, str | None]:
    """Image name -> id of what the containers run; empty on the namespace runtime."""
    if inventory["runtime"] != "docker":
        return {}
    names = sorted({node["image"] for node in inventory["nodes"]})
    return {name: _first_line(["docker", "image", "inspect", "--format", "{{.Id}}", name]) for name in names}


def build_manifest(
    inventory: Mapping[str, Any],
    intent: Mapping[str, Any],
    machine: Mapping[str, Any],
    images: Mapping[str, Any],
) -> dict[str, Any]:
    """The manifest of one run; `intent` is what the MLFO says of it."""
    core = inventory["core"]
    return {
        "run": intent["id"],
        "state": intent["state"],
        "testbed": inventory["testbed"],
        "runtime": inventory["runtime"],
        "seed": intent.get("seed"),
        "testbed_seed": inventory["seed"],
        "not_applied": list(inventory["unsupported"]),
        "substituted": list(intent.get("notes") or []),
        "network": {
            "datapath": core["datapath"],
            "notes": core.get("notes", []),
            "controller": core["controller"]["kind"],
        },
        "load_average": list(os.getloadavg()),
        "machine": dict(machine),
        "images": dict(images),
        "intent": dict(intent),
    }
