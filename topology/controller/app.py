"""The os-ken application: hands events of switches to the fleet. Decides nothing, and never waits: all
switches share its thread."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from os_ken import cfg
from os_ken.base.app_manager import AppManager, OSKenApp
from os_ken.controller import ofp_event
from os_ken.controller.handler import DEAD_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
from os_ken.ofproto import ofproto_v1_3

from topology.controller import wire
from topology.controller.connection import OpenFlowHandler
from topology.controller.fleet import Fleet

LOG = logging.getLogger("controller.app")


def _guarded(handler: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    # With native threads os-ken takes any exception of a handler for the wish to end, and silently stops
    # handling events at all.
    @functools.wraps(handler)
    def guarded(self: Any, event: Any) -> None:
        try:
            handler(self, event)
        except Exception as error:
            LOG.exception("handling %s failed", type(event).__name__)
            self._fleet.trouble(f"handling {type(event).__name__} failed: {error!r}")

    return guarded


class ForwardingApp(OSKenApp):
    """Handlers of OpenFlow 1.3 events."""

    OFP_VERSIONS = [ofproto_v1_3.OFP_VERSION]

    def __init__(self, *args: Any, fleet: Fleet, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._fleet = fleet

    @set_ev_cls(ofp_event.EventOFPStateChange, [MAIN_DISPATCHER, DEAD_DISPATCHER])
    @_guarded
    def state_changed(self, event: Any) -> None:
        """A switch said who it is, or its connection ended."""
        datapath = event.datapath
        if datapath.id is None:
            return
        if event.state == DEAD_DISPATCHER:
            self._fleet.switch_left(datapath.id, datapath)
        elif event.state == MAIN_DISPATCHER and datapath.is_active:
            ports = [wire.port_state(port) for port in list(datapath.ports.values())]
            self._fleet.switch_connected(datapath.id, datapath, ports)

    @set_ev_cls(ofp_event.EventOFPPortStatus, MAIN_DISPATCHER)
    @_guarded
    def port_status(self, event: Any) -> None:
        """A port came, went or changed."""
        status = event.msg
        port = None if wire.port_is_gone(status) else wire.port_state(status.desc)
        self._fleet.port_changed(status.datapath.id, status.desc.port_no, port)

    @set_ev_cls(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)
    @_guarded
    def packet_in(self, event: Any) -> None:
        """A source that the switch does not know."""
        source = wire.packet_source(event.msg)
        if source is not None:
            self._fleet.source_seen(event.msg.datapath.id, *source)

    @set_ev_cls(ofp_event.EventOFPErrorMsg, MAIN_DISPATCHER)
    @_guarded
    def error(self, event: Any) -> None:
        """A switch refused a message."""
        session = self._fleet.sessions().get(event.msg.datapath.id)
        if session is not None:
            session.on_openflow_error(event.msg)

    @set_ev_cls(ofp_event.EventOFPBarrierReply, MAIN_DISPATCHER)
    @_guarded
    def barrier(self, event: Any) -> None:
        """Everything before a barrier is done."""
        session = self._fleet.sessions().get(event.msg.datapath.id)
        if session is not None:
            session.on_reply(event.msg)

    @set_ev_cls([ofp_event.EventOFPFlowStatsReply, ofp_event.EventOFPPortStatsReply], MAIN_DISPATCHER)
    @_guarded
    def statistics(self, event: Any) -> None:
        """A part of an answer."""
        session = self._fleet.sessions().get(event.msg.datapath.id)
        if session is not None:
            session.on_reply(event.msg, event.msg.body, wire.is_last_part(event.msg))

    @set_ev_cls(
        [
            ofp_event.EventOFPTableStatsReply,
            ofp_event.EventOFPPortDescStatsReply,
            ofp_event.EventOFPMeterStatsReply,
            ofp_event.EventOFPMeterConfigStatsReply,
            ofp_event.EventOFPMeterFeaturesStatsReply,
        ],
        MAIN_DISPATCHER,
    )
    @_guarded
    def face_statistics(self, event: Any) -> None:
        """A part of an answer that a REST face asked for."""
        self.statistics(event)

    @set_ev_cls([ofp_event.EventOFPDescStatsReply, ofp_event.EventOFPAggregateStatsReply], MAIN_DISPATCHER)
    @_guarded
    def face_statistic(self, event: Any) -> None:
        """An answer that is one thing, not a list."""
        session = self._fleet.sessions().get(event.msg.datapath.id)
        if session is not None:
            session.on_reply(event.msg, [event.msg.body], wire.is_last_part(event.msg))


def start(fleet: Fleet) -> None:
    """Start os-ken's event handling for the fleet; its threads end with the process (start it from a daemon
    thread)."""
    cfg.CONF(project="os_ken", args=[])
    manager = AppManager.get_instance()
    # The order of creation does not matter, but the application sets the OpenFlow version before the first
    # connection.
    applications = [manager.instantiate(ForwardingApp, fleet=fleet), manager.instantiate(OpenFlowHandler)]
    for application in applications:
        application.start()
