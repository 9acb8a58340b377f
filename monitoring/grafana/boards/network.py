"""Network and meters: links against what is declared of them, queues, meters, TCP, switch ports, background traffic."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from monitoring.grafana.boards.frame import ONE_COHORT, RATE, TESTBED, Row, Variable, board
from monitoring.grafana.boards.meters import (
    BITS_PASSED,
    BITS_QUEUED,
    BY_METER,
    PACKETS_CAME,
    PACKETS_DROPPED,
    TOTAL_BYTES,
    TOTAL_CAME,
    TOTAL_DROPPED,
)
from monitoring.grafana.boards.pieces import (
    BITS,
    BYTES,
    COUNT,
    MILLISECONDS,
    PACKETS,
    RED,
    SECONDS,
    SEGMENTS,
    SHARE,
    YELLOW,
    bars,
    figure,
    graph,
    heat,
    listing,
    now,
    query,
)

LINK = f'{TESTBED},link=~"$link"'
SWITCH = f'{TESTBED},switch=~"$switch"'
FL_FLOWS = f'{ONE_COHORT},node=~"$node",flow="fl"'
WHICH = "{{link}} {{direction}}"
METER = "{{meter}} {{direction}}"

MORE = (
    Variable("link", "Link", f"cohortnet_link_up{{{TESTBED}}}", "link"),
    Variable("switch", "Switch", f"cohortnet_switch_port_receive_bytes_total{{{TESTBED}}}", "switch"),
)


def _link_rate(window: str = RATE) -> str:
    return f"8 * rate(cohortnet_link_bytes_total{{{LINK}}}{window})"


def _utilisation(window: str = RATE) -> str:
    return (f"{_link_rate(window)} / on (testbed, link, direction) group_left () "
            f"cohortnet_link_rate_bits_per_second{{{LINK}}}")  # fmt: skip


def _state() -> list[object]:
    return [
        figure("Links down", "Links of which an end is down.", COUNT, now(f"sum(1 - cohortnet_link_up{{{LINK}}})"),
               limits=((1.0, RED),)),
        figure("Fullest link", "The highest utilisation of all links with a declared rate.", SHARE,
               now(f"max({_utilisation()})"), limits=((0.8, YELLOW), (0.95, RED)), decimals=1),
        figure("Dropped at links", "Packets that queues and interfaces of all links drop now.", PACKETS,
               now(f"sum(rate(cohortnet_link_drops_total{{{LINK}}}{RATE}))"), limits=((1.0, YELLOW), (100.0, RED)),
               decimals=0),
        figure("Dropped by meters", "Share of what came to all meters.", SHARE,
               now(f"sum({PACKETS_DROPPED}) / clamp_min(sum({PACKETS_CAME}), 1)"),
               limits=((0.01, YELLOW), (0.05, RED)), empty="no meter", decimals=1),
        figure("Sent again", "Segments that the FL connections repeat now.", "suffix: segments/s",
               now(f"sum(rate(tcp_retransmits_total{{{FL_FLOWS}}}{RATE}))"), limits=((1.0, YELLOW), (100.0, RED)),
               decimals=1),
        figure("Switches connected", "To their controller, of those in the inventory.", COUNT,
               now(f"sum(cohortnet_controller_switch_connected{{{TESTBED}}})", "connected"),
               now(f"count(cohortnet_controller_switch_connected{{{TESTBED}}})", "in all")),
    ]  # fmt: skip


def _links() -> list[object]:
    by = "by (link, direction)"
    declared = f"max {by} (cohortnet_link_rate_bits_per_second{{{LINK}}})"
    columns = [
        ("measured", BITS, f"max {by} ({_link_rate()})"),
        ("declared rate", BITS, declared),
        ("utilisation", SHARE, f"max {by} ({_utilisation()})"),
        ("declared delay", SECONDS, f"max {by} (cohortnet_link_delay_seconds{{{LINK}}})"),
        ("declared loss", SHARE, f"max {by} (cohortnet_link_loss_ratio{{{LINK}}})"),
        ("drops", COUNT, f"max {by} (cohortnet_link_drops_total{{{LINK}}})"),
    ]
    return [
        graph("Utilisation of links",
              "Measured rate at the sending end, as a share of the declared rate. Links without a declared rate are "
              "not shown.", SHARE, query(_utilisation(), WHICH), many=True, most=1.0,
              limits=((0.8, YELLOW), (0.95, RED))),
        graph("Rate of links", "Measured at the sending end, all links.", BITS, query(_link_rate(), WHICH), many=True),
        graph("Drops at links", "Packets dropped at the sending end, by its queue or its interface.", PACKETS,
              query(f"rate(cohortnet_link_drops_total{{{LINK}}}{RATE})", WHICH), many=True),
        graph("Links up", "1 where both ends are up.", COUNT, query(f"cohortnet_link_up{{{LINK}}}", "{{link}}"),
              many=True,
              most=1.0, points=True),
        listing("Links now", "What each link carries now, and what is declared of it.", ("link", "direction"), columns,
                sort="utilisation"),
    ]  # fmt: skip


def _queues() -> list[object]:
    which = f"{WHICH} {{{{kind}}}}"
    return [
        graph("Backlog of queues", "Bytes that wait at the sending end of a link: delay in the making.", BYTES,
              query(f"cohortnet_qdisc_backlog_bytes{{{LINK}}}", which), many=True),
        graph("Packets that wait", "The same in packets.", COUNT,
              query(f"cohortnet_qdisc_backlog_packets{{{LINK}}}", which), many=True),
        graph("Drops of queues", "Packets for which a queue had no room.", PACKETS,
              query(f"rate(cohortnet_qdisc_drops_total{{{LINK}}}{RATE})", which), many=True),
        graph("Held back by queues", "Times a second that a queue held a packet back for its rate.", "ops",
              query(f"rate(cohortnet_qdisc_overlimits_total{{{LINK}}}{RATE})", which), many=True),
    ]  # fmt: skip


def _meters() -> list[object]:
    limit = f'max {BY_METER} (cohortnet_meter_rate{{{TESTBED},unit="bit/s"}})'
    each = "by (meter, direction, kind, target)"
    return [
        graph("Meters: rate against limit",
              "What passes each meter (came minus dropped, or sent by its queue), and its limit (dashed).", BITS,
              query(BITS_PASSED, f"{METER} passed"), query(BITS_QUEUED, f"{METER} queued"),
              query(limit, f"{METER} limit"), dashed=".* limit", many=True),
        graph("Meters: share of the limit", "1: what passes is as much as the meter lets through.", SHARE,
              query(f"({BITS_PASSED} or {BITS_QUEUED}) / on (meter, direction) ({limit} > 0)", METER),
              limits=((0.95, YELLOW),)),
        graph("Meters: drops by band", "Packets that each band of a meter drops, at each switch.", PACKETS,
              query(f"rate(cohortnet_meter_band_drop_packets_total{{{TESTBED}}}{RATE})",
                    f"{METER} band {{{{band}}}} ({{{{switch}}}})"), many=True),
        graph("Meters: share dropped", "Of the packets that came.", SHARE,
              query(f"sum {BY_METER} ({PACKETS_DROPPED}) / sum {BY_METER} ({PACKETS_CAME})", METER),
              limits=((0.01, YELLOW), (0.05, RED)), most=1.0),
        graph("Queues of meters: backlog", "Bytes that wait in the queues of meters that queue instead of drop.", BYTES,
              query(f"sum {BY_METER} (cohortnet_meter_queue_backlog_bytes{{{TESTBED}}})", METER)),
        graph("Queues of meters: drops", "Packets for which such a queue had no room.", PACKETS,
              query(f"sum {BY_METER} (rate(cohortnet_meter_queue_drops_total{{{TESTBED}}}{RATE}))", METER)),
        listing("Meters now", "Each meter's limit, what came to it (bytes: where it queues, what its queue sent) and "
                "what it dropped since it was set.", ("meter", "direction", "kind", "target"), [
                    ("limit", BITS, f'max {each} (cohortnet_meter_rate{{{TESTBED},unit="bit/s"}})'),
                    ("bytes", BYTES, f"sum {each} ({TOTAL_BYTES})"),
                    ("packets", COUNT, f"sum {each} ({TOTAL_CAME})"),
                    ("packets dropped", COUNT, f"sum {each} ({TOTAL_DROPPED})"),
                ], height=8),
    ]  # fmt: skip


def _tcp() -> list[object]:
    quantile = f"histogram_quantile(%s, sum by (le, cohort) (rate(tcprtt_bucket{{{ONE_COHORT}}}{RATE})))"
    names = (("0.5", "median"), ("0.95", "95 %"))
    who = "cohort {{cohort}} {{role}}"
    return [
        graph("Round trip time by cohort", "Quantiles over the cohort's connections.", MILLISECONDS,
              *(query(quantile % q, f"cohort {{{{cohort}}}} {name}") for q, name in names)),
        heat("Round trip times", "How many connections had which round trip time in each moment.", MILLISECONDS,
             query(f"sum by (le) (increase(tcprtt_bucket{{{ONE_COHORT}}}{RATE}))")),
        graph("Round trip time by connection", "Smoothed, of each FL connection of the chosen nodes.", MILLISECONDS,
              query(f"max by (node, peer) (tcp_rtt{{{FL_FLOWS}}})", "{{node}} → {{peer}}"), many=True),
        graph("Variation of round trip time", "Mean deviation, of each FL connection of the chosen nodes.",
              MILLISECONDS,
              query(f"max by (node, peer) (tcp_rttvar{{{FL_FLOWS}}})", "{{node}} → {{peer}}"), many=True),
        graph("Congestion window", "Mean by cohort and end.", SEGMENTS,
              query(f"avg by (cohort, role) (tcp_cwnd{{{FL_FLOWS}}})", who)),
        graph("Delivery rate", "Latest rate at which an FL connection delivered: mean and highest.", BITS,
              query(f"avg by (cohort, role) (tcp_delivery_rate{{{FL_FLOWS}}})", f"{who} mean"),
              query(f"max by (cohort, role) (tcp_delivery_rate{{{FL_FLOWS}}})", f"{who} highest")),
        graph("Sent again", "Segments a second that the FL connections repeat.", "suffix: segments/s",
              query(f"sum by (cohort, role) (rate(tcp_retransmits_total{{{FL_FLOWS}}}{RATE}))", who)),
        graph("TCP rate by kind", "Payload sent by all connections, by what they are for.", BITS,
              query(f"sum by (flow) (8 * rate(tcp_bytes_sent_total{{{TESTBED}}}{RATE}))", "{{flow}}"), stacked=True),
    ]  # fmt: skip


def _switches() -> list[object]:
    port = "{{switch}} {{port}} ({{peer}})"
    both = [("receive", "in"), ("transmit", "out")]
    return [
        *(graph(f"Switch ports: {way}", f"Rate of what {'comes in at' if way == 'in' else 'goes out of'} each port.",
                BITS,
                query(f"8 * rate(cohortnet_switch_port_{name}_bytes_total{{{SWITCH}}}{RATE})", port), many=True)
          for name, way in both),
        graph("Switch ports: drops", "Packets dropped, either way.", PACKETS,
              *(query(f"rate(cohortnet_switch_port_{name}_drops_total{{{SWITCH}}}{RATE})", f"{port} {way}")
                for name, way in both), many=True),
        graph("Switch ports: errors", "Errors, either way.", PACKETS,
              *(query(f"rate(cohortnet_switch_port_{name}_errors_total{{{SWITCH}}}{RATE})", f"{port} {way}")
                for name, way in both), many=True),
        graph("Flow entries", "Of each switch, all tables.", COUNT,
              query(f"sum by (switch) (cohortnet_switch_flows{{{SWITCH}}})", "{{switch}}"), points=True, width=8),
        graph("Flow messages", "That the controller has sent to each switch.", COUNT,
              query(f"sum by (switch) (cohortnet_controller_flow_changes_total{{{SWITCH}}})", "{{switch}}"),
              points=True,
              width=8),
        graph("Controller", "Messages that switches refused or did not answer, and packets of unknown sources.", COUNT,
              query(f"cohortnet_controller_openflow_errors_total{{{TESTBED}}}", "errors"),
              query(f"cohortnet_controller_packet_ins_total{{{TESTBED}}}", "packets to the controller"), points=True,
              width=8),
    ]  # fmt: skip


def _background() -> list[object]:
    return [
        graph("Background flows", "TCP payload by connection, and (dashed) the rate that each flow is asked to have.",
              BITS,
              query(f'sum by (node, peer) (8 * rate(tcp_bytes_sent_total{{{TESTBED},flow="traffic"}}{RATE}))',
                    "{{node}} → {{peer}}"),
              query(f"max by (flow, pattern) (cohortnet_traffic_target_bits_per_second{{{TESTBED}}})",
                    "asked of {{flow}} ({{pattern}})"), dashed="asked of .*", width=16),
        bars("Background flows that run", "1 where the flow runs.", COUNT,
             now(f"max by (flow, source, destination) (cohortnet_traffic_running{{{TESTBED}}})",
                 "{{flow}}: {{source}} → {{destination}}"), width=8, most=1.0),
    ]  # fmt: skip


def network() -> dashboard.Dashboard:
    """The dashboard `network`."""
    return board(
        "cohortnet-network",
        "Cohortnet: network and meters",
        "Links against what is declared of them, queues, meters against their limits, TCP, switches, background "
        "traffic.",
        [
            Row("Now", _state()),
            Row("Links", _links()),
            Row("Meters", _meters()),
            Row("TCP of the FL connections", _tcp()),
            Row("Queues", _queues()),
            Row("Switches and controller", _switches()),
            Row("Background traffic", _background()),
        ],
        uses=("testbed", "cohort", "node"),
        more=MORE,
    )
