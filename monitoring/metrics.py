"""Every metric of the exporter, declared in one place: its name, what it counts, in which unit, with which labels.

The collectors in `monitoring.exporter` give values for these and for nothing else. Names of `node_network_*`,
`container_*` and `tcp_*` are those that dashboards of this field use. Counters are the kernel's own, as they stand
since the node (or its interface, or its socket) began; those of links go on where a queue takes another's place.
"""

from __future__ import annotations

from dataclasses import dataclass

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"


@dataclass(frozen=True, eq=False)
class Family:
    """One metric: its whole name (with `_total` where it is a counter), kind, help and the names of its labels."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]


ALL: list[Family] = []
"""All families in the order in which they are shown."""


def _declare(name: str, kind: str, text: str, labels: tuple[str, ...]) -> Family:
    family = Family(name, kind, text, labels)
    ALL.append(family)
    return family


NODE = ("testbed", "node", "role", "cohort")
_DEVICE = (*NODE, "device")
_FLOW = (*NODE, "local", "remote", "peer", "flow")
_LINK = ("testbed", "link", "a", "b")
_DIRECTION = (*_LINK, "direction")
_QDISC = ("testbed", "link", "direction", "kind", "handle")
_PORT = ("testbed", "switch", "port", "peer")
_METER = ("testbed", "meter", "direction", "kind", "target", "switch", "meter_id")
_TESTBED = ("testbed",)

# What exists

TESTBED_INFO = _declare("cohortnet_testbed_info", GAUGE, "1; what the testbed is made of",
                        ("testbed", "runtime", "datapath", "controller", "state"))  # fmt: skip
NODE_INFO = _declare("cohortnet_node_info", GAUGE, "1; what the node is", (*NODE, "runtime", "address", "switch"))
NODE_UP = _declare("node_up", GAUGE, "1 where the node's first process runs", NODE)

# Interfaces of nodes in the emulated network

RECEIVE_BYTES = _declare("node_network_receive_bytes_total", COUNTER, "Bytes that came to the interface", _DEVICE)
TRANSMIT_BYTES = _declare("node_network_transmit_bytes_total", COUNTER, "Bytes that left by the interface", _DEVICE)
RECEIVE_PACKETS = _declare("node_network_receive_packets_total", COUNTER,
                           "Packets that came to the interface (merged segments count once)", _DEVICE)  # fmt: skip
TRANSMIT_PACKETS = _declare("node_network_transmit_packets_total", COUNTER,
                            "Packets that left by the interface (merged segments count once)", _DEVICE)  # fmt: skip
RECEIVE_DROPS = _declare("node_network_receive_drop_total", COUNTER, "Packets dropped on their way in", _DEVICE)
TRANSMIT_DROPS = _declare("node_network_transmit_drop_total", COUNTER,
                          "Packets that the interface dropped on their way out (its queues count their own)",
                          _DEVICE)  # fmt: skip
RECEIVE_ERRORS = _declare("node_network_receive_errs_total", COUNTER, "Errors on the way in", _DEVICE)
TRANSMIT_ERRORS = _declare("node_network_transmit_errs_total", COUNTER, "Errors on the way out", _DEVICE)

# Processor and memory of nodes

CPU_USAGE = _declare("container_cpu_usage_seconds_total", COUNTER, "Processor time of the node", NODE)
CPU_USER = _declare("container_cpu_user_seconds_total", COUNTER, "Processor time in programs", NODE)
CPU_SYSTEM = _declare("container_cpu_system_seconds_total", COUNTER, "Processor time in the kernel", NODE)
CFS_PERIODS = _declare("container_cpu_cfs_periods_total", COUNTER,
                       "Periods in which the node's processor limit was watched over", NODE)  # fmt: skip
CFS_THROTTLED_PERIODS = _declare("container_cpu_cfs_throttled_periods_total", COUNTER,
                                 "Periods in which the node was held back by its processor limit", NODE)  # fmt: skip
CFS_THROTTLED = _declare("container_cpu_cfs_throttled_seconds_total", COUNTER,
                         "Time for which the node was held back by its processor limit", NODE)  # fmt: skip
CPU_LIMIT = _declare("container_spec_cpu_limit_cores", GAUGE, "The node's processor limit, where it has one", NODE)
MEMORY_USAGE = _declare("container_memory_usage_bytes", GAUGE, "Memory charged to the node, file cache included", NODE)
MEMORY_WORKING_SET = _declare("container_memory_working_set_bytes", GAUGE,
                              "Memory charged to the node without inactive file cache", NODE)  # fmt: skip
MEMORY_RSS = _declare("container_memory_rss_bytes", GAUGE,
                      "Anonymous memory charged to the node (pages shared with a template are charged to whoever "
                      "touched them first)", NODE)  # fmt: skip
MEMORY_LIMIT = _declare("container_spec_memory_limit_bytes", GAUGE, "The node's memory limit, where it has one", NODE)
OOM_KILLS = _declare("container_oom_kills_total", COUNTER, "Processes killed at the node's memory limit", NODE)
PROCESSES = _declare("container_processes", GAUGE, "Processes of the node", NODE)

# TCP flows of nodes in the emulated network

TCP_RTT = _declare("tcp_rtt", GAUGE, "Smoothed round trip time of a flow in ms", _FLOW)
TCP_RTTVAR = _declare("tcp_rttvar", GAUGE, "Mean deviation of a flow's round trip time in ms", _FLOW)
TCP_CWND = _declare("tcp_cwnd", GAUGE, "Congestion window of a flow in segments", _FLOW)
TCP_DELIVERY_RATE = _declare("tcp_delivery_rate", GAUGE, "Latest delivery rate of a flow in bit/s", _FLOW)
TCP_RETRANSMITS = _declare("tcp_retransmits_total", COUNTER, "Segments of a flow that were sent again", _FLOW)
TCP_BYTES_SENT = _declare("tcp_bytes_sent_total", COUNTER, "Payload bytes of a flow sent, repeated ones included",
                          _FLOW)  # fmt: skip
TCP_BYTES_RECEIVED = _declare("tcp_bytes_received_total", COUNTER, "Payload bytes of a flow received", _FLOW)
TCPRTT = _declare("tcprtt", HISTOGRAM,
                  "Round trip times in ms: one observation for each flow's socket at each collection",
                  ("testbed", "cohort"))  # fmt: skip
TCPRTT_BUCKETS_MS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0)

# Links

LINK_RATE = _declare("cohortnet_link_rate_bits_per_second", GAUGE,
                     "Declared rate of a link's direction, where it has one", _DIRECTION)  # fmt: skip
LINK_DELAY = _declare("cohortnet_link_delay_seconds", GAUGE, "Declared delay of a link's direction", _DIRECTION)
LINK_LOSS = _declare("cohortnet_link_loss_ratio", GAUGE, "Declared loss of a link's direction", _DIRECTION)
LINK_BYTES = _declare("cohortnet_link_bytes_total", COUNTER,
                      "Bytes sent into a link's direction, in whole frames where it is shaped", _DIRECTION)  # fmt: skip
LINK_PACKETS = _declare("cohortnet_link_packets_total", COUNTER,
                        "Packets sent into a link's direction, in frames where it is shaped", _DIRECTION)  # fmt: skip
LINK_DROPS = _declare("cohortnet_link_drops_total", COUNTER,
                      "Packets dropped at the sending end, by its queue or its interface", _DIRECTION)  # fmt: skip
LINK_UP = _declare("cohortnet_link_up", GAUGE, "1 where both ends are up and have a carrier", _LINK)
LINK_CHANGED = _declare("cohortnet_link_changed_timestamp_seconds", GAUGE,
                        "When the link was last seen to go up, go down or change what it does (rate, delay, jitter, "
                        "loss, queue and the like)", ("testbed", "link"))  # fmt: skip
QDISC_BACKLOG_BYTES = _declare("cohortnet_qdisc_backlog_bytes", GAUGE, "Bytes that wait in a queue", _QDISC)
QDISC_BACKLOG_PACKETS = _declare("cohortnet_qdisc_backlog_packets", GAUGE, "Packets that wait in a queue", _QDISC)
QDISC_DROPS = _declare("cohortnet_qdisc_drops_total", COUNTER, "Packets that a queue dropped", _QDISC)
QDISC_OVERLIMITS = _declare("cohortnet_qdisc_overlimits_total", COUNTER,
                            "Times that a queue held a packet back for its rate", _QDISC)  # fmt: skip
QDISC_BYTES = _declare("cohortnet_qdisc_bytes_total", COUNTER, "Bytes that a queue sent", _QDISC)

# Switches, where no controller of ours counts them (names as the controller has them)

PORT_RECEIVE_BYTES = _declare("cohortnet_switch_port_receive_bytes_total", COUNTER,
                              "Bytes that came in at a switch port", _PORT)  # fmt: skip
PORT_TRANSMIT_BYTES = _declare("cohortnet_switch_port_transmit_bytes_total", COUNTER,
                               "Bytes that went out of a switch port", _PORT)  # fmt: skip
PORT_RECEIVE_PACKETS = _declare("cohortnet_switch_port_receive_packets_total", COUNTER,
                                "Packets that came in at a switch port", _PORT)  # fmt: skip
PORT_TRANSMIT_PACKETS = _declare("cohortnet_switch_port_transmit_packets_total", COUNTER,
                                 "Packets that went out of a switch port", _PORT)  # fmt: skip
PORT_RECEIVE_DROPS = _declare("cohortnet_switch_port_receive_drops_total", COUNTER,
                              "Packets dropped that came in at a switch port", _PORT)  # fmt: skip
PORT_TRANSMIT_DROPS = _declare("cohortnet_switch_port_transmit_drops_total", COUNTER,
                               "Packets dropped on their way out of a switch port", _PORT)  # fmt: skip
PORT_RECEIVE_ERRORS = _declare("cohortnet_switch_port_receive_errors_total", COUNTER,
                               "Errors of packets that came in at a switch port", _PORT)  # fmt: skip
PORT_TRANSMIT_ERRORS = _declare("cohortnet_switch_port_transmit_errors_total", COUNTER,
                                "Errors of packets on their way out of a switch port", _PORT)  # fmt: skip
SWITCH_FLOWS = _declare("cohortnet_switch_flows", GAUGE, "Flow entries of a switch's table",
                        ("testbed", "switch", "table"))  # fmt: skip
METER_RATE = _declare("cohortnet_meter_rate", GAUGE, "Limit, in bit/s or packet/s",
                      ("testbed", "meter", "direction", "kind", "target", "unit", "in_force"))  # fmt: skip
METER_PACKETS = _declare("cohortnet_meter_packets_total", COUNTER,
                         "Packets that came to a meter, dropped ones included", _METER)  # fmt: skip
METER_BYTES = _declare("cohortnet_meter_bytes_total", COUNTER,
                       "Bytes that came to a meter, dropped ones included", _METER)  # fmt: skip
METER_BAND_PACKETS = _declare("cohortnet_meter_band_drop_packets_total", COUNTER,
                              "Packets that a meter's band dropped", (*_METER, "band"))  # fmt: skip
METER_BAND_BYTES = _declare("cohortnet_meter_band_drop_bytes_total", COUNTER,
                            "Bytes that a meter's band dropped", (*_METER, "band"))  # fmt: skip

# Background traffic

_TRAFFIC = ("testbed", "flow", "source", "destination", "pattern")
TRAFFIC_TARGET = _declare("cohortnet_traffic_target_bits_per_second", GAUGE,
                          "Rate that a background flow is asked to have", _TRAFFIC)  # fmt: skip
TRAFFIC_RUNNING = _declare("cohortnet_traffic_running", GAUGE, "1 where a background flow runs", _TRAFFIC)

# The exporter itself

COLLECT_SECONDS = _declare("cohortnet_exporter_collect_seconds", GAUGE,
                           "How long reading everything for this answer took",
                           _TESTBED)  # fmt: skip
COLLECTIONS = _declare("cohortnet_exporter_collections_total", COUNTER, "Collections", _TESTBED)
OVERRUNS = _declare("cohortnet_exporter_overruns_total", COUNTER,
                    "Collections longer than half the period (slow), scrapes later than 1.5 periods (late)",
                    ("testbed", "reason"))  # fmt: skip
PERIOD = _declare("cohortnet_exporter_period_seconds", GAUGE, "Declared sampling period", _TESTBED)
SERIES = _declare("cohortnet_exporter_series", GAUGE, "Series in this answer, without those of the exporter itself",
                  _TESTBED)  # fmt: skip
CPU_SECONDS = _declare("cohortnet_exporter_cpu_seconds_total", COUNTER, "Processor time of the exporter's process",
                       _TESTBED)  # fmt: skip
RESIDENT = _declare("cohortnet_exporter_resident_bytes", GAUGE, "Resident memory of the exporter's process", _TESTBED)
ERRORS = _declare("cohortnet_exporter_errors_total", COUNTER, "Things that could not be read", ("testbed", "what"))
