"""A Plan made real, and taken away again: the order of the steps, their clean-up, and the list of what is up.

What each step does is in the module named like its noun (`core`-side switches in `openvswitch`, cables in `links`,
...). Whatever ends a raising early (an error, Ctrl-C, SIGTERM) takes down what was made; what only `kill -9` can leave
behind, `remove_testbed` finds by name.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topology import plan_check
from topology.capabilities import Capabilities, capabilities
from topology.engine import (
    cgroups,
    daemons,
    disciplines,
    external,
    hosts,
    interrupts,
    links,
    management,
    mixed_runtime,
    namespaces,
    neighbours,
    openvswitch,
    publish,
    removal,
    send_buffer,
    shaping,
    state,
)
from topology.engine.removal import Removal
from topology.engine.runtime import NodeMaker, Progress, quiet
from topology.errors import Problem, TestbedProblems, TopologyError
from topology.inventory import CoreFacts, NodeFacts, build_inventory, write_inventory
from topology.plan import Plan

BeforeNodes = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Summary:
    """One line of `cohortnet ls`. `state`: "up", "raising", "broken" (not whole), or "unknown" (to who is not root)."""

    name: str
    state: str
    runtime: str
    nodes: int
    switches: int
    started: float
    published: tuple[str, ...]


class Timings:
    """How long each step took, in seconds; steps may overlap."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = time.monotonic()

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(time.monotonic() - start, 4)

    def write(self, path: Path) -> None:
        self.seconds["total"] = round(time.monotonic() - self._start, 4)
        state.write_atomically(path, json.dumps(self.seconds, indent=1) + "\n")


def check_plan(plan: Plan, found: Capabilities) -> list[Problem]:
    """Everything that stands against raising this plan here; published ports apart, they are taken later."""
    problems = plan_check.check_plan(plan, found)
    if not problems:  # these ask running programs, which may not be there
        problems += mixed_runtime.runtime_for(plan).check(plan)
        problems += neighbours.problems(plan, neighbours.others(plan.testbed))
        problems += management.check(plan)
        problems += [Problem("", "no-openvswitch", text) for text in openvswitch.check()]
    return problems


def raise_testbed(
    plan: Plan, progress: Progress = quiet, *, before_nodes_start: BeforeNodes | None = None
) -> dict[str, Any]:
    """Raise a testbed; gives back its inventory, which is then also in the file `plan.inventory`.

    `before_nodes_start` is called with the inventory "raising", when the core's cgroups exist and no node does yet.

    Raises:
        TestbedProblems: where something stands against it; nothing was made then.
        TopologyError: where a step failed; what had been made is removed again.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, likewise.
    """
    with state.lock(plan.testbed):
        _refuse_existing(plan)
        found = capabilities()
        problems = check_plan(plan, found)
        if problems:
            raise TestbedProblems(problems)
        listeners = publish.listen(plan)
        try:
            with interrupts.sigterm_as_interrupt():
                try:
                    return _Raising(plan, progress, found, listeners).run(before_nodes_start)
                except BaseException as error:
                    with interrupts.uninterrupted():
                        result = removal.remove(plan.testbed, quiet)
                    if result.left:
                        error.add_note(f"and these could not be removed: {'; '.join(result.left)}; "
                                       f"`cohortnet down {plan.testbed}` tries again")  # fmt: skip
                    raise
        finally:
            publish.close(listeners)


def _refuse_existing(plan: Plan) -> None:
    left = removal.remains(plan.testbed)
    if left:
        known = state.load(plan.testbed)
        what = "is already up" if known and known.phase == "up" else f"is not wholly gone ({left[0]})"
        raise TopologyError(f"testbed {plan.testbed!r} {what}; `cohortnet down {plan.testbed}` removes it")


class _Raising:
    """One raising: the steps in their order, and what they hand to one another."""

    def __init__(self, plan: Plan, progress: Progress, found: Capabilities, listeners: list[publish.Listener]) -> None:
        self.plan = plan
        self.progress = progress
        self.found = found
        self.unsupported = plan_check.unsupported(plan, found)
        self.listeners = listeners
        self.timings = Timings()
        self.runtime: NodeMaker = mixed_runtime.runtime_for(plan)
        self.core = namespaces.named(plan.core_namespace)
        self.datapath = "system" if found.kernel_datapath else "netdev"
        self.tso = self.datapath == "netdev" and openvswitch.supports_tso(found.ovs_version)
        self.notes: list[str] = []
        self.controller: subprocess.Popen[bytes] | None = None
        self.external: subprocess.Popen[bytes] | None = None

    def run(self, before_nodes_start: BeforeNodes | None) -> dict[str, Any]:
        plan, timings = self.plan, self.timings
        neighbours.claim(plan)  # before all else: from here on a removal knows every name
        cgroups.make_core(plan.testbed)
        hosts.write(plan)
        for node in plan.nodes:
            os.makedirs(node.state, exist_ok=True)
        inventory = self._inventory({}, up=False)
        if before_nodes_start is not None:
            with timings.step("before nodes"):
                before_nodes_start(inventory)
        # Switches and nodes need nothing of one another.
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="core") as pool:
            core = pool.submit(self._raise_core)
            try:
                with timings.step("nodes"):
                    facts = self.runtime.create(plan, plan.nodes, self.progress)
            finally:
                core.exception()  # its thread must not go on making things while they are being removed
            core.result()
        pids = {name: fact.pid for name, fact in facts.items()}
        self._wire(pids, inventory)
        self._inventory(facts, up=False)
        publish.start(plan, self.listeners)
        if self.controller is not None:
            with timings.step("controller"):
                daemons.wait_for_controller(plan, self.controller, self.progress)
        if self.external is not None:
            with timings.step("controller"):
                external.wait_until_connected(plan, self.external, self.progress)
        state.mark_up(plan)
        inventory = self._inventory(facts, up=True)
        timings.write(plan.state / "timings.json")
        self.progress("up", 1, 1)
        return inventory

    def _wire(self, pids: Mapping[str, int], inventory: Mapping[str, Any]) -> None:
        plan, timings = self.plan, self.timings
        shaped = shaping.lines_by_interface(plan, self.unsupported)
        bulk = {place: lines for place, lines in shaped.items() if disciplines.can(lines)}
        begun: list[Future[None]] = []
        # As soon as the core's interfaces exist, the switches take their ports and the nodes their addresses.
        with ThreadPoolExecutor(max_workers=2, thread_name_prefix="wiring") as pool:

            def core_made() -> None:
                begun.append(pool.submit(self._raise_management))
                begun.append(pool.submit(self._raise_switches, inventory))

            try:
                with timings.step("links"):
                    isolate = self.found.bridge_isolation is not False
                    links.make_all(plan, pids, isolate=isolate, lines=bulk, core_made=core_made)
                self.progress("links", len(plan.links), len(plan.links))
                if len(bulk) < len(shaped):
                    with timings.step("shaping"):
                        rest = {place: lines for place, lines in shaped.items() if place not in bulk}
                        shaping.apply_all(rest, self.core, pids)
            finally:
                wait(begun)
            for part in begun:
                part.result()
        if self.datapath == "netdev" and not self.tso:
            links.disable_checksum_offload(plan, pids)
        self.progress("switches", len(plan.switches), len(plan.switches))

    def _raise_management(self) -> None:
        with self.timings.step("management"):
            management.raise_plane(self.plan, filtered=self.found.nft_bridge is not False)

    def _raise_switches(self, inventory: Mapping[str, Any]) -> None:
        with self.timings.step("switches"):
            openvswitch.add_ports(self.plan)
            if self.datapath == "system":
                self.notes.append("datapath in the kernel")
                return
            sockets = openvswitch.enlarge_buffers(self.plan)
            self.notes.append(f"packet socket buffers of {sockets} ports enlarged to 8 MiB" if sockets
                              else "packet socket buffers could not be enlarged: high rates lose packets")  # fmt: skip
            self.notes.append("userspace segmentation offload on" if self.tso
                              else "checksum offload off in the nodes")  # fmt: skip
            problem = send_buffer.enlarge(inventory)
            self.notes.append(problem or "send buffer of the switches' packet socket enlarged")

    def _raise_core(self) -> None:
        with self.timings.step("core"):
            namespaces.create(self.plan.core_namespace)
            links.prepare_core(self.core)
            if self.plan.controller == "external":
                self.external = external.start(self.plan)
            elif self.plan.controller == "builtin":  # it spends its first second on imports: meanwhile the rest is made
                self.controller = daemons.start_controller(self.plan)
            openvswitch.start(self.plan, self.datapath, tso=self.tso)

    def _inventory(self, facts: Mapping[str, NodeFacts], *, up: bool) -> dict[str, Any]:
        core = CoreFacts(self.datapath, str(openvswitch.folder(self.plan)), self.unsupported, tuple(self.notes))
        inventory = build_inventory(self.plan, core, facts, up=up)
        write_inventory(self.plan.inventory, inventory)
        return inventory


def remove_testbed(name: str, progress: Progress = quiet) -> Removal:
    """Remove a testbed, whatever state it is in; also twice.

    Raises:
        TopologyError: where another process is raising or removing it right now.
    """
    with state.lock(name, wait_s=10.0):
        return removal.remove(name, progress)


def list_testbeds() -> list[Summary]:
    """What there is of testbeds on this machine, by name."""
    summaries = []
    for name in sorted({*state.names(), *cgroups.testbeds()}):
        known = state.load(name)
        if known is None:
            # Only root may look into the folder: whoever may not cannot tell how the testbed is.
            status = "unknown" if state.folder(name).exists() and not state.is_readable(name) else "broken"
            summaries.append(Summary(name, status, "?", 0, 0, 0.0, ()))
            continue
        plan = known.plan
        whole = namespaces.exists(plan.core_namespace) and openvswitch.vswitchd_pid(plan) in cgroups.members(name)
        alive = Path(f"/proc/{known.pid}").exists()
        status = (
            "up" if known.phase == "up" and whole else "raising" if known.phase == "raising" and alive else "broken"
        )
        published = tuple(f"{p.host}:{p.host_port}->{p.node or 'controller'}:{p.port}" for p in plan.published)
        summaries.append(
            Summary(name, status, plan.runtime, len(plan.nodes), len(plan.switches), known.started, published)
        )
    return summaries
