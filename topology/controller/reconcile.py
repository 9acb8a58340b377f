"""What to send so that a switch has what it should have. Pure: desired and present contents go in, messages come
out."""

from __future__ import annotations

from topology.controller.flows import Barrier, Contents, FlowMod, Message, MeterMod


def reconcile(desired: Contents, present: Contents) -> list[Message]:
    """Meters first, then flows that come, flows that go, at last meters that go, barriers between; nothing at
    all where both are equal.

    So no flow ever refers to a meter that is missing, and a meter that changes is changed in place, under the
    packets that pass it. `present` holds only what is ours (read by cookie, and by meter id): what others put in
    is never touched. What is already right is not sent again, so that its counters and the packets under it are
    left alone. Of the flows, adding comes first, from the last table to the first: a packet in between always
    finds an entry, and none leads to a table that is still empty.
    """
    wanted = {flow.key: flow for flow in desired.flows}
    there = {flow.key: flow for flow in present.flows}
    meters = {meter.id: meter for meter in present.meters}
    wanted_meters = {meter.id for meter in desired.meters}
    messages: list[Message] = [
        MeterMod("modify" if meter.id in meters else "add", meter)
        for meter in desired.meters
        if meters.get(meter.id) != meter
    ]
    adds = [flow for key, flow in wanted.items() if there.get(key) != flow]
    adds.sort(key=lambda flow: (-flow.table, -flow.priority))
    if messages and adds:
        messages.append(Barrier())
    messages += [FlowMod("add", flow) for flow in adds]
    messages += [FlowMod("delete", flow) for key, flow in there.items() if key not in wanted]
    unused = [MeterMod("delete", meter) for meter in present.meters if meter.id not in wanted_meters]
    if unused and messages:
        messages.append(Barrier())
    messages += unused
    return [*messages, Barrier()] if messages else []
