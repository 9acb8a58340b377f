"""Nodes: processor and memory against their limits, throttling, interfaces, and what the measuring itself costs."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from monitoring.grafana.boards.frame import NODE, ONE_COHORT, RATE, TESTBED, Row, board
from monitoring.grafana.boards.pieces import (
    BITS,
    CORES,
    COUNT,
    MEMORY,
    PACKETS,
    RED,
    SECONDS,
    SHARE,
    YELLOW,
    bars,
    figure,
    graph,
    listing,
    now,
    query,
)

SAME = "/ on (testbed, node)"
CPU = f"rate(container_cpu_usage_seconds_total{{{NODE}}}{RATE})"
CPU_SHARE = f"{CPU} {SAME} (container_spec_cpu_limit_cores{{{NODE}}} > 0)"
THROTTLED = (f"rate(container_cpu_cfs_throttled_periods_total{{{NODE}}}{RATE}) {SAME} "
             f"(rate(container_cpu_cfs_periods_total{{{NODE}}}{RATE}) > 0)")  # fmt: skip
MEMORY_SHARE = f"container_memory_working_set_bytes{{{NODE}}} {SAME} (container_spec_memory_limit_bytes{{{NODE}}} > 0)"
HOT, FULL = ((0.8, YELLOW), (0.95, RED)), ((0.85, YELLOW), (0.95, RED))


def _state() -> list[object]:
    return [
        figure("Nodes up", "Nodes whose first process runs.", COUNT, now(f"sum(node_up{{{NODE}}})")),
        figure("Nodes down", "Nodes of the inventory whose first process has ended.", COUNT,
               now(f"sum(1 - node_up{{{NODE}}})"), limits=((1.0, RED),)),
        figure("CPU of all", "Processor time that all nodes take.", CORES, now(f"sum({CPU})"), decimals=2),
        figure("Memory of all", "Charged to all nodes, without inactive file cache.", MEMORY,
               now(f"sum(container_memory_working_set_bytes{{{NODE}}})")),
        figure("Most throttled", "Largest share of periods in which a node was held back by its limit.", SHARE,
               now(f"max({THROTTLED})"), limits=((0.1, YELLOW), (0.5, RED)), empty="no limit", decimals=1),
        figure("Killed for memory", "Processes killed at their node's limit, since the nodes began.", COUNT,
               now(f"sum(container_oom_kills_total{{{NODE}}})"), limits=((1.0, RED),)),
    ]  # fmt: skip


def _cpu() -> list[object]:
    return [
        graph("CPU by node", "Processor time a second.", CORES, query(f"max by (node) ({CPU})", "{{node}}"), many=True),
        graph("CPU against limit", "Of nodes that have a limit.", SHARE,
              query(f"max by (node) ({CPU_SHARE})", "{{node}}"), many=True, limits=HOT),
        graph("Throttled periods", "Share of the scheduler's periods in which a node was held back by its limit.",
              SHARE,
              query(f"max by (node) ({THROTTLED})", "{{node}}"), many=True, most=1.0,
              limits=((0.1, YELLOW), (0.5, RED))),
        graph("Throttled time", "Seconds a second that a node's threads waited for their limit (several threads wait "
                                "at "
              "once).", SECONDS,
              query(f"rate(container_cpu_cfs_throttled_seconds_total{{{NODE}}}{RATE})", "{{node}}"), many=True),
        graph("Programs and kernel", "Processor time of all chosen nodes, in programs and in the kernel.", CORES,
              query(f"sum(rate(container_cpu_user_seconds_total{{{NODE}}}{RATE}))", "programs"),
              query(f"sum(rate(container_cpu_system_seconds_total{{{NODE}}}{RATE}))", "kernel"), stacked=True),
        graph("Processes", "Processes of each node.", COUNT, query(f"container_processes{{{NODE}}}", "{{node}}"),
              many=True,
              points=True),
    ]  # fmt: skip


def _memory() -> list[object]:
    return [
        graph("Memory by node", "Charged to the node, without inactive file cache.", MEMORY,
              query(f"container_memory_working_set_bytes{{{NODE}}}", "{{node}}"), many=True),
        graph("Memory against limit", "Of nodes that have a limit; at 100 % processes are killed.", SHARE,
              query(f"max by (node) ({MEMORY_SHARE})", "{{node}}"), many=True, most=1.0, limits=FULL),
        graph("Anonymous memory", "Pages shared with a template are charged to whoever touched them first.", MEMORY,
              query(f"container_memory_rss_bytes{{{NODE}}}", "{{node}}"), many=True),
        graph("Memory with file cache", "All that is charged to the node.", MEMORY,
              query(f"container_memory_usage_bytes{{{NODE}}}", "{{node}}"), many=True),
    ]  # fmt: skip


def _interfaces() -> list[object]:
    return [
        graph("Sent by node", "At the interface in the emulated network.", BITS,
              query(f"8 * rate(node_network_transmit_bytes_total{{{NODE}}}{RATE})", "{{node}}"), many=True),
        graph("Received by node", "At the interface in the emulated network.", BITS,
              query(f"8 * rate(node_network_receive_bytes_total{{{NODE}}}{RATE})", "{{node}}"), many=True),
        graph("Packets", "Either way, of all chosen nodes; segments that the kernel merged count once.", PACKETS,
              query(f"sum(rate(node_network_transmit_packets_total{{{NODE}}}{RATE}))", "sent"),
              query(f"sum(rate(node_network_receive_packets_total{{{NODE}}}{RATE}))", "received")),
        graph("Drops and errors", "At the interfaces of all chosen nodes.", PACKETS,
              *(query(f"sum(rate(node_network_{way}_{what}_total{{{NODE}}}{RATE}))", f"{way} {name}")
                for way in ("transmit", "receive") for what, name in (("drop", "drops"), ("errs", "errors")))),
    ]  # fmt: skip


def _averages() -> list[object]:
    who = "cohort {{cohort}} {{role}}s"
    selector = f'{ONE_COHORT},node=~"$node"'
    return [
        bars("CPU", "Mean over the nodes of a cohort and the time range.", CORES,
             now(f"avg by (cohort, role) (rate(container_cpu_usage_seconds_total{{{selector}}}[$__range]))", who),
             decimals=3),
        bars("Memory", "Mean over the nodes of a cohort, now.", MEMORY,
             now(f"avg by (cohort, role) (container_memory_working_set_bytes{{{selector}}})", who)),
        bars("Sent", "Mean over the nodes of a cohort and the time range.", BITS,
             now(f"avg by (cohort, role) (8 * rate(node_network_transmit_bytes_total{{{selector}}}[$__range]))", who)),
        bars("Received", "Mean over the nodes of a cohort and the time range.", BITS,
             now(f"avg by (cohort, role) (8 * rate(node_network_receive_bytes_total{{{selector}}}[$__range]))", who)),
    ]  # fmt: skip


def _table() -> list[object]:
    by = "by (node, role, cohort)"
    return [
        listing("Nodes now", "Each chosen node. No share: the node has no limit.", ("node", "role", "cohort"), [
            ("up", COUNT, f"max {by} (node_up{{{NODE}}})"),
            ("CPU", CORES, f"max {by} ({CPU})"),
            ("CPU limit", CORES, f"max {by} (container_spec_cpu_limit_cores{{{NODE}}})"),
            ("memory", MEMORY, f"max {by} (container_memory_working_set_bytes{{{NODE}}})"),
            ("memory limit", MEMORY, f"max {by} (container_spec_memory_limit_bytes{{{NODE}}})"),
            ("processes", COUNT, f"max {by} (container_processes{{{NODE}}})"),
            ("sent", BITS, f"max {by} (8 * rate(node_network_transmit_bytes_total{{{NODE}}}{RATE}))"),
            ("received", BITS, f"max {by} (8 * rate(node_network_receive_bytes_total{{{NODE}}}{RATE}))"),
        ], sort="CPU"),
    ]  # fmt: skip


def _exporter() -> list[object]:
    own = f"{{{TESTBED}}}"
    return [
        graph("One collection", "How long reading everything takes, and half the period (dashed): beyond that the "
                                "exporter "
              "warns.", SECONDS, query(f"cohortnet_exporter_collect_seconds{own}", "collection"),
              query(f"cohortnet_exporter_period_seconds{own} / 2", "half the period"), dashed="half.*", width=8),
        graph("CPU of the exporter", "Share of one core.", SHARE,
              query(f"rate(cohortnet_exporter_cpu_seconds_total{own}{RATE})", "exporter"), limits=((0.03, YELLOW),),
              width=8),
        graph("Memory of the exporter", "Resident memory of its process.", MEMORY,
              query(f"cohortnet_exporter_resident_bytes{own}", "exporter"), width=8),
        graph("Series", "In one answer of the exporter.", COUNT, query(f"cohortnet_exporter_series{own}", "series"),
              points=True, width=8),
        graph("Collections that were late or slow",
              "Since the exporter began. Late: the scrape came after 1.5 periods; "
              "slow: it took more than half a period.", COUNT,
              query(f"sum by (reason) (cohortnet_exporter_overruns_total{own})", "{{reason}}"), points=True, width=8),
        graph("What could not be read", "Since the exporter began.", COUNT,
              query(f"sum by (what) (cohortnet_exporter_errors_total{own})", "{{what}}"), points=True, width=8),
    ]  # fmt: skip


def nodes() -> dashboard.Dashboard:
    """The dashboard `nodes`."""
    return board(
        "cohortnet-nodes",
        "Cohortnet: nodes",
        "Processor, memory and interfaces of every node, against their limits; and what the measuring costs.",
        [
            Row("Now", _state()),
            Row("Averages by cohort", _averages()),
            Row("Processor", _cpu()),
            Row("Memory", _memory()),
            Row("Interfaces", _interfaces()),
            Row("All nodes", _table()),
            Row("What the measuring costs", _exporter()),
        ],
        uses=("testbed", "cohort", "node"),
    )
