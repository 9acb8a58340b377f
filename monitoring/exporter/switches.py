"""Switches as series where the controller is none of ours: ports by their interfaces in the core, flows and meters by
OpenFlow, under the names that our controller has for them.
"""

from __future__ import annotations

from pathlib import Path

from monitoring import metrics
from monitoring.exporter import openflow
from monitoring.exporter.core import CoreProbe
from monitoring.exporter.samples import Labels, Samples
from monitoring.inventory import Inventory, Switch

_PORT = (
    (metrics.PORT_RECEIVE_BYTES, "rx_bytes"), (metrics.PORT_TRANSMIT_BYTES, "tx_bytes"),
    (metrics.PORT_RECEIVE_PACKETS, "rx_packets"), (metrics.PORT_TRANSMIT_PACKETS, "tx_packets"),
    (metrics.PORT_RECEIVE_DROPS, "rx_dropped"), (metrics.PORT_TRANSMIT_DROPS, "tx_dropped"),
    (metrics.PORT_RECEIVE_ERRORS, "rx_errors"), (metrics.PORT_TRANSMIT_ERRORS, "tx_errors"),
)  # fmt: skip


def add_ports(samples: Samples, inventory: Inventory, core: CoreProbe) -> None:
    """Counters of all switch ports, from what the core's probe has read."""
    for switch in inventory.switches:
        for port in switch.ports:
            found = core.interface(port.interface)
            counters = core.counters.get(found.number) if found else None
            if counters is None:
                continue
            own = Labels(metrics.PORT_RECEIVE_BYTES.labels, (inventory.testbed, switch.name, port.name, port.peer))
            for family, name in _PORT:
                samples.add(family, own, getattr(counters, name))


def add_tables(samples: Samples, inventory: Inventory) -> int:
    """Flows and meters of all switches; gives back how many did not answer.

    One program answers for all of them: after one that stays silent the others are not waited for.
    """
    silent = 0
    for position, switch in enumerate(inventory.switches):
        try:
            state = openflow.ask(Path(inventory.ovs_rundir) / f"{switch.bridge}.mgmt")
        except TimeoutError:
            return silent + len(inventory.switches) - position
        except OSError:
            silent += 1
            continue
        for table, count in sorted(state.flows.items()):
            own = Labels(metrics.SWITCH_FLOWS.labels, (inventory.testbed, switch.name, str(table)))
            samples.add(metrics.SWITCH_FLOWS, own, count)
        for meter in state.meters.values():
            _add_meter(samples, inventory.testbed, switch, meter)
    return silent


def _add_meter(samples: Samples, testbed: str, switch: Switch, meter: openflow.Meter) -> None:
    # Another controller's meter: what it is for is not known here, so the switch stands for its target.
    own = (testbed, f"{switch.name}.{meter.number}", "", "switch", switch.name)
    where = (*own, switch.name, str(meter.number))
    if meter.rates:
        samples.add(metrics.METER_RATE, Labels(metrics.METER_RATE.labels, (*own, meter.unit, "drop")),
                    min(meter.rates))  # fmt: skip
    counted = Labels(metrics.METER_BYTES.labels, where)
    samples.add(metrics.METER_PACKETS, counted, meter.packets)
    samples.add(metrics.METER_BYTES, counted, meter.bytes)
    for number, (packets, octets) in enumerate(meter.bands):
        band = Labels(metrics.METER_BAND_BYTES.labels, (*where, str(number)))
        samples.add(metrics.METER_BAND_PACKETS, band, packets)
        samples.add(metrics.METER_BAND_BYTES, band, octets)
