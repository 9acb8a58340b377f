"""The sampler: everything that the exporter knows about one testbed, collected at the moment when it is asked.

Owns kept netlink sockets in the nodes' and the core's network namespaces. Follows the inventory: new nodes are opened,
those that are gone are dropped, with their series. Used by the exporter's server and, in its own process, by whoever
wants figures without Prometheus. Serves nothing, writes nothing.
"""

from __future__ import annotations

import contextlib
import os
import resource
import threading
import time
from collections.abc import Collection, Iterator
from enum import Enum
from pathlib import Path
from types import TracebackType

from prometheus_client.metrics_core import Metric

from monitoring import metrics
from monitoring.exporter import switches, traffic
from monitoring.exporter.core import CoreProbe
from monitoring.exporter.links import LinkBook
from monitoring.exporter.nodes import Ending, NodeProbe, open_probes
from monitoring.exporter.samples import Histogram, Labels, Samples
from monitoring.inventory import Inventory, InventoryError, Watched

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_SPARE_FILES = 256


class Part(Enum):
    """Parts of an answer: what nodes use; their TCP flows; what is the testbed's (links, switches, the exporter)."""

    NODES = "nodes"
    TCP = "tcp"
    TESTBED = "testbed"


EVERYTHING = frozenset(Part)
ERRORS = ("inventory", "core", "node", "tcp", "switch", "traffic", "listen", "relay")
"""Kinds of `cohortnet_exporter_errors_total`."""


class Sampler:
    """Collects one testbed's figures; may be called from any thread, one collection at a time.

    Raises InventoryError where the inventory cannot be read.
    """

    def __init__(self, inventory_path: Path | str) -> None:
        self._lock = threading.RLock()
        self._watched = Watched(Path(inventory_path))
        self._inventory, _ = self._watched.current()
        self._probes: dict[str, NodeProbe] = {}
        self._core: CoreProbe | None = None
        self._links = LinkBook(self._inventory)
        self._histograms: dict[str, Histogram] = {}
        self._errors = dict.fromkeys(ERRORS, 0)
        self.period_s: float | None = None
        """The period that a server was given, where it is another one than the inventory's."""
        self._overruns = {"slow": 0, "late": 0}
        self._collections = 0
        self._closed = self._gone = False
        self._adopt(self._inventory)

    @property
    def inventory(self) -> Inventory:
        """The inventory as of the last collection."""
        return self._inventory

    @property
    def lives(self) -> dict[str, tuple[int, int]]:
        """The running nodes as of the last look: their first process and their network namespace, as numbers."""
        with self._lock:
            return {name: probe.life for name, probe in self._probes.items()}

    @property
    def errors(self) -> dict[str, int]:
        """How many times something could not be read, by what it was."""
        return dict(self._errors)

    def count_error(self, what: str) -> None:
        """Count something that whoever serves these figures could not do; `what` is one of ERRORS."""
        with self._lock:
            self._errors[what] += 1

    def count_overrun(self, reason: str) -> None:
        """Count a collection that was "slow", or a scrape that was "late"."""
        with self._lock:
            self._overruns[reason] += 1

    def close(self) -> None:
        """Close all sockets. Later collections find nothing of nodes and links."""
        with self._lock:
            self._closed = True
            self._drop_all()

    def __enter__(self) -> Sampler:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def text(self, *, node: str | None = None, parts: Collection[Part] = EVERYTHING) -> bytes:
        """Prometheus' text of a collection now: of all, or of one node (then without what is the testbed's).

        Raises KeyError where the inventory has no such node.
        """
        return self.collect(node=node, parts=parts).text()

    def families(self) -> Iterator[Metric]:
        """The metrics of a collection now, as prometheus_client has them."""
        return self.collect().families()

    def collect(self, *, node: str | None = None, parts: Collection[Part] = EVERYTHING) -> Samples:
        """Read everything now. What cannot be read has no series, and is counted as an error.

        Raises KeyError where the inventory has no such node.
        """
        with self._lock:
            start = time.perf_counter()
            self.refresh()
            samples = Samples()
            if node is not None and node not in self._inventory.by_name:
                raise KeyError(node)
            if self._gone:
                return samples
            names = [node] if node is not None else [entry.name for entry in self._inventory.nodes]
            whole = node is None and Part.TESTBED in parts
            endings = self._endings() if whole else {}
            if Part.NODES in parts:
                self._add_nodes(samples, names, endings)
            if Part.TCP in parts:
                # A look at one node over the host is no collection: it would count that node's flows twice.
                self._add_flows(samples, names, observe=node is None or Part.NODES not in parts)
            if whole:
                self._add_testbed(samples, endings, start)
            return samples

    # What exists

    def refresh(self) -> None:
        """Follow the inventory and the nodes' lives without collecting: sockets of what is gone are closed."""
        with self._lock:
            self._gone = self._closed
            if self._closed:
                return
            try:
                inventory, changed = self._watched.current()
            except InventoryError:
                self._errors["inventory"] += 1
                self._gone = True
                self._drop_all()
                return
            if changed:
                self._adopt(inventory)
            for name, probe in list(self._probes.items()):
                if not probe.alive():
                    probe.close()
                    del self._probes[name]
            if self._core is not None and not self._core.alive():
                self._core.close()
                self._core = None
            self._open()

    def _adopt(self, inventory: Inventory) -> None:
        before = self._inventory
        same = before.by_name if before.testbed == inventory.testbed else {}
        for name in list(self._probes):
            # A probe knows the interfaces that there were when it was opened: a further link brings another one.
            links_differ = before.interfaces.get(name) != inventory.interfaces.get(name)
            if same.get(name) != inventory.by_name.get(name) or links_differ:
                self._probes.pop(name).close()
            else:
                self._probes[name].meet(inventory.names_by_address)
        self._inventory = inventory
        links = LinkBook(inventory)
        links.inherit(self._links)
        self._links = links
        self._own = Labels(("testbed",), (inventory.testbed,))
        self._node_labels = {node.name: Labels(metrics.NODE, (inventory.testbed, node.name, node.role, node.cohort))
                             for node in inventory.nodes}  # fmt: skip
        self._info_labels = {
            node.name: Labels(metrics.NODE_INFO.labels, (inventory.testbed, node.name, node.role, node.cohort,
                                                         node.runtime, node.address, node.switch))
            for node in inventory.nodes
        }  # fmt: skip
        _make_room(4 * len(inventory.nodes) + _SPARE_FILES)

    def _open(self) -> None:
        missing = [node for node in self._inventory.nodes
                   if node.pid is not None and node.name not in self._probes and _runs(node.pid)]  # fmt: skip
        if missing:
            for name, probe in open_probes(self._inventory, missing).items():
                if isinstance(probe, NodeProbe):
                    self._probes[name] = probe
                else:
                    self._errors["node"] += 1
        if self._core is None:
            try:
                self._core = CoreProbe(self._inventory.core_namespace)
            except OSError:
                self._errors["core"] += 1

    def _drop_all(self) -> None:
        for probe in self._probes.values():
            probe.close()
        self._probes = {}
        if self._core is not None:
            self._core.close()
            self._core = None

    def _drop(self, name: str, what: str) -> None:
        # After a refusal or a late answer a socket may hold half of an answer: it is opened anew next time.
        self._errors[what] += 1
        self._probes.pop(name).close()

    # What it is like

    def _endings(self) -> dict[str, dict[str, Ending]]:
        endings = {}
        for name, probe in list(self._probes.items()):
            try:
                endings[name] = probe.endings()
            except (OSError, KeyError):
                self._drop(name, "node")
        return endings

    def _add_nodes(self, samples: Samples, names: Collection[str], endings: dict[str, dict[str, Ending]]) -> None:
        for name in names:
            probe = self._probes.get(name)
            samples.add(metrics.NODE_UP, self._node_labels[name], 0 if probe is None else 1)
            samples.add(metrics.NODE_INFO, self._info_labels[name], 1)
            if probe is None:
                continue
            try:
                if name in endings:
                    probe.add_network(samples, {key: found.counters for key, found in endings[name].items()})
                else:
                    probe.add_network(samples, probe.counters())
                probe.add_usage(samples)
            except (OSError, KeyError, ValueError):
                self._drop(name, "node")

    def _add_flows(self, samples: Samples, names: Collection[str], *, observe: bool) -> None:
        for name in names:
            probe = self._probes.get(name)
            if probe is None:
                continue
            try:
                probe.add_flows(samples, self._observe if observe else None)
            except OSError:
                self._drop(name, "tcp")

    def _observe(self, cohort: str, rtt_ms: float) -> None:
        histogram = self._histograms.get(cohort)
        if histogram is None:
            histogram = self._histograms[cohort] = Histogram(metrics.TCPRTT_BUCKETS_MS)
        histogram.observe(rtt_ms)

    def _add_testbed(self, samples: Samples, endings: dict[str, dict[str, Ending]], start: float) -> None:
        inventory = self._inventory
        facts = (inventory.testbed, inventory.runtime, inventory.datapath, inventory.controller, inventory.state)
        samples.add(metrics.TESTBED_INFO, Labels(metrics.TESTBED_INFO.labels, facts), 1)
        for cohort, histogram in sorted(self._histograms.items()):
            samples.add_histogram(metrics.TCPRTT, Labels(metrics.TCPRTT.labels, (inventory.testbed, cohort)), histogram)
        self._add_links(samples, endings)
        self._add_traffic(samples)
        self._add_self(samples, start)

    def _add_links(self, samples: Samples, endings: dict[str, dict[str, Ending]]) -> None:
        core = self._core
        if core is None:
            return
        try:
            core.read()
        except OSError:
            self._errors["core"] += 1
            core.close()
            self._core = None
            return

        def end(name: str, interface: str) -> Ending | None:
            if name in self._inventory.by_name:
                return endings.get(name, {}).get(interface)
            return core.ending(interface)

        def state(name: str, interface: str) -> bool:
            if name in self._inventory.by_name:
                probe = self._probes.get(name)
                try:
                    return probe is not None and probe.up(interface)
                except OSError:
                    self._drop(name, "node")
                    return False
            found = core.interface(interface)
            return found is not None and found.up and found.carrier

        self._links.add(samples, end, state, time.time())
        if self._inventory.controller != "builtin":
            switches.add_ports(samples, self._inventory, core)
            self._errors["switch"] += switches.add_tables(samples, self._inventory)

    def _add_traffic(self, samples: Samples) -> None:
        try:
            flows = traffic.read(self._inventory.state_folder / "traffic.json")
        except (OSError, ValueError):
            self._errors["traffic"] += 1
            return
        for flow in flows:
            labels = Labels(metrics.TRAFFIC_RUNNING.labels, (
                self._inventory.testbed, flow.name, flow.source, flow.destination, flow.pattern))  # fmt: skip
            samples.add(metrics.TRAFFIC_RUNNING, labels, 1 if flow.running else 0)
            if flow.rate_bps is not None:
                samples.add(metrics.TRAFFIC_TARGET, labels, flow.rate_bps)

    def _add_self(self, samples: Samples, start: float) -> None:
        self._collections += 1
        testbed, own = self._inventory.testbed, self._own
        samples.add(metrics.SERIES, own, len(samples))
        samples.add(metrics.COLLECTIONS, own, self._collections)
        for reason, count in self._overruns.items():
            samples.add(metrics.OVERRUNS, Labels(metrics.OVERRUNS.labels, (testbed, reason)), count)
        samples.add(metrics.PERIOD, own, self.period_s or self._inventory.period_s)
        samples.add(metrics.CPU_SECONDS, own, time.process_time())
        samples.add(metrics.RESIDENT, own, resident_bytes())
        for what, count in self._errors.items():
            samples.add(metrics.ERRORS, Labels(metrics.ERRORS.labels, (testbed, what)), count)
        samples.add(metrics.COLLECT_SECONDS, own, time.perf_counter() - start)


def resident_bytes() -> int:
    """Resident memory of this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * _PAGE_BYTES


def _runs(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}/ns/net")


def _make_room(files: int) -> None:
    # Two sockets a node, in band two listening ones more: a few hundred nodes pass the usual limit of 1,024 open files.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = len(os.listdir("/proc/self/fd")) + files
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
