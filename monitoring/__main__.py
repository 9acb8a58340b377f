"""The monitoring daemon: one process a testbed, which measures it and looks after its Prometheus.

    python -m monitoring --inventory PATH

On the host, in the control groups of the testbed's core. Serves the exporter at the inventory's address (in-band also
in every node), writes the configuration and the targets of Prometheus, starts it as its child (not with `prometheus:
none`: then the files are for another one), and follows the inventory: when that file is replaced, the targets are
written anew. SIGTERM ends it, and Prometheus with it.

Exit status: 0 ended as asked, 1 it could not start (the last line of its log says why), 2 nothing to monitor.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monitoring.exporter.sampler import Sampler
from monitoring.exporter.server import ExporterServer
from monitoring.inventory import InventoryError
from monitoring.prometheus import files
from monitoring.prometheus.process import Prometheus, PrometheusError

log = logging.getLogger("monitoring")

LOOK_S = 0.5
"""How often the inventory's time stamp and Prometheus are looked at."""
MOST_OF_PERIOD = 0.5
"""A collection that takes longer than this share of the period leaves no room for anything else on the machine."""


class Daemon:
    """Exporter and Prometheus of one testbed."""

    def __init__(self, path: Path, stopping: threading.Event) -> None:
        self.path = path
        self.stopping = stopping
        self._stamp = _stamp(path)  # before the file is read: a change meanwhile is then seen as one
        self.inventory = read(path)

    def run(self) -> None:
        """Until `stopping` is set. Raises PrometheusError, OSError or InventoryError where it cannot start."""
        monitoring = self.inventory["monitoring"]
        host, _, port = monitoring["exporter"].rpartition(":")
        with Sampler(self.path) as sampler:
            period_s = float(monitoring["period_s"])
            measure(sampler, period_s)
            server = ExporterServer(sampler, host, int(port), period_s)
            try:
                server.start()
            except OSError as error:
                raise PrometheusError(f"{host}:{port} for the exporter cannot be used: {error.strerror}; write "
                                      "`monitoring: {exporter_port: PORT}` with a free one") from None  # fmt: skip
            with server:
                if monitoring["prometheus"] == "in-band":
                    server.listen_in_nodes()
                log.info("exporter of %s at %s:%s, a collection each %g s", self.inventory["testbed"], host, port,
                         period_s)  # fmt: skip
                if monitoring["prometheus"] == "none":
                    files.write_configuration(self.inventory)
                    files.write_targets(self.inventory)
                    log.info("configuration and targets for another Prometheus in %s", monitoring["folder"])
                    self._follow(None)
                    return
                prometheus = Prometheus(self.inventory, Path(self.inventory["paths"]["logs"]) / "prometheus.log")
                try:
                    prometheus.start()
                    prometheus.wait_ready()
                    log.info("prometheus at %s", prometheus.url)
                    self._follow(prometheus)
                finally:
                    prometheus.stop()

    def _follow(self, prometheus: Prometheus | None) -> None:
        while not self.stopping.wait(LOOK_S):
            try:
                stamp = _stamp(self.path)
                if stamp != self._stamp:
                    self.inventory = read(self.path)
                    if prometheus is None:
                        files.write_targets(self.inventory)
                    else:
                        prometheus.follow(self.inventory)
                    self._stamp = stamp
                if prometheus is not None:
                    prometheus.watch()
            except (PrometheusError, InventoryError, OSError) as error:
                log.warning("%s; it is tried again", error)
                self.stopping.wait(LOOK_S * 10)


def measure(sampler: Sampler, period_s: float) -> float:
    """Collect twice, and warn where the second collection (the first one opens what later ones keep) takes more of the
    period than there should be. Gives its seconds of processor time: nodes that start meanwhile do not make it longer.
    Raises InventoryError.
    """
    sampler.text()
    began = time.process_time()
    sampler.text()
    took_s = time.process_time() - began
    if took_s > MOST_OF_PERIOD * period_s:
        log.warning("one collection takes %.2f s of the period of %g s: samples will be late or missing; write a "
                    "longer `monitoring: {period: ...}`", took_s, period_s)  # fmt: skip
    return took_s


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise InventoryError(f"{path}: {error.strerror}; `cohortnet ls` shows the testbeds that are up") from None
    return status.st_mtime_ns, status.st_ino


def read(path: Path) -> dict[str, Any]:
    """The inventory as plain data. Raises InventoryError."""
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        data["nodes"], data["published"], data["core"]["controller"], data["paths"]["logs"]  # noqa: B018
    except OSError as error:
        raise InventoryError(f"{path}: {error.strerror}; `cohortnet ls` shows the testbeds that are up") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InventoryError(f"{path} is no inventory: {type(error).__name__}: {error}") from None
    return data


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; the exit status is said above."""
    parser = argparse.ArgumentParser(prog="python -m monitoring", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--inventory", type=Path, required=True)
    path: Path = parser.parse_args(argv).inventory
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stdout)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    try:
        daemon = Daemon(path, stopping)
        if not daemon.inventory.get("monitoring"):
            log.error("%s: not a monitored testbed; write `monitoring: true` into its file, or type `cohortnet up "
                      "--monitoring`", path)  # fmt: skip
            return 2
        daemon.run()
    except (PrometheusError, InventoryError, OSError) as error:
        log.error("%s", error)
        return 1
    log.info("ended")
    return 0


if __name__ == "__main__":
    sys.exit(main())
