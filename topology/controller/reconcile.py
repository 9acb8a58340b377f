"""What to send so that a switch has what it should have. Pure: desired and present flows go in, messages come
out."""

from __future__ import annotations

from collections.abc import Iterable

from topology.controller.flows import Barrier, Flow, FlowMod, Message


def reconcile(desired: Iterable[Flow], present: Iterable[Flow]) -> list[Message]:
    """Adds and replacements first, then removals, then a barrier; nothing at all where both are equal.

    `present` holds only flows of ours (read by cookie): what others put in is never touched. A flow that is
    already right is not sent again, so that its counters and the packets under it are left alone. Adding
    comes first, from the last table to the first: a packet in between always finds an entry, and none leads
    to a table that is still empty.
    """
    wanted = {flow.key: flow for flow in desired}
    there = {flow.key: flow for flow in present}
    adds = [flow for key, flow in wanted.items() if there.get(key) != flow]
    adds.sort(key=lambda flow: (-flow.table, -flow.priority))
    messages: list[Message] = [FlowMod("add", flow) for flow in adds]
    messages += [FlowMod("delete", flow) for key, flow in there.items() if key not in wanted]
    return [*messages, Barrier()] if messages else []
