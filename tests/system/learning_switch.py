"""A controller that is not ours, for tests: `python -m tests.system.learning_switch PORT`, until it is ended.

An OpenFlow 1.3 learning switch on os-ken, as tutorials have it: what is unknown is flooded, what is known gets a flow.
Shares no code with the project's own controller.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from os_ken import cfg
from os_ken.base import app_manager
from os_ken.controller import ofp_event
from os_ken.controller.handler import CONFIG_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
from os_ken.lib.packet import ethernet, packet
from os_ken.ofproto import ofproto_v1_3


class LearningSwitch(app_manager.OSKenApp):
    """Where each address was seen, by switch."""

    OFP_VERSIONS = [ofproto_v1_3.OFP_VERSION]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: dict[int, dict[str, int]] = {}

    @set_ev_cls(ofp_event.EventOFPSwitchFeatures, CONFIG_DISPATCHER)
    def connected(self, event: Any) -> None:
        """Send to the controller what no flow matches."""
        path = event.msg.datapath
        self._add_flow(path, 0, path.ofproto_parser.OFPMatch(), path.ofproto.OFPP_CONTROLLER)

    @staticmethod
    def _add_flow(path: Any, priority: int, match: Any, port: int) -> None:
        parser, proto = path.ofproto_parser, path.ofproto
        actions = [parser.OFPActionOutput(port, proto.OFPCML_NO_BUFFER)]
        apply = [parser.OFPInstructionActions(proto.OFPIT_APPLY_ACTIONS, actions)]
        path.send_msg(parser.OFPFlowMod(datapath=path, priority=priority, match=match, instructions=apply))

    @set_ev_cls(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)
    def packet_in(self, event: Any) -> None:
        """Learn the source, send the packet on, and install a flow where the destination is known."""
        message = event.msg
        path, port = message.datapath, message.match["in_port"]
        frame = packet.Packet(message.data).get_protocols(ethernet.ethernet)[0]
        known = self.seen.setdefault(path.id, {})
        known[frame.src] = port
        out = known.get(frame.dst, path.ofproto.OFPP_FLOOD)
        parser = path.ofproto_parser
        if out != path.ofproto.OFPP_FLOOD:
            # With the source in the match a new sender always comes here first, and is learnt.
            match = parser.OFPMatch(in_port=port, eth_src=frame.src, eth_dst=frame.dst)
            self._add_flow(path, 1, match, out)
        path.send_msg(parser.OFPPacketOut(
            datapath=path, buffer_id=path.ofproto.OFP_NO_BUFFER, in_port=port,
            actions=[parser.OFPActionOutput(out)], data=message.data,
        ))  # fmt: skip


def main() -> None:
    """Listen on 127.0.0.1."""
    cfg.CONF(project="os_ken", args=["--ofp-listen-host", "127.0.0.1", "--ofp-tcp-listen-port", sys.argv[1]])
    manager = app_manager.AppManager.get_instance()
    manager.load_apps([__name__, "os_ken.controller.ofp_handler"])
    contexts = manager.create_contexts()
    manager.instantiate_apps(**contexts)
    threading.Event().wait()


if __name__ == "__main__":
    sys.modules["tests.system.learning_switch"] = sys.modules["__main__"]
    main()
