"""`python -m topology.controller --inventory PATH`: the controller of one testbed, until SIGTERM.

Binds its OpenFlow port first, so that switches can connect while the rest is loaded. Logs plain lines to
stdout. Exit status: 0 after a signal, 1 where the inventory or a port cannot be had.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from topology.errors import TopologyError

LOG = logging.getLogger("controller")

INVENTORY_WAIT_S = 30.0


def parse_address(text: str) -> tuple[str, int]:
    """`127.0.0.1:6653` or `[::1]:6653` as (host, port). Raises argparse.ArgumentTypeError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is no address; write HOST:PORT, such as 127.0.0.1:6653")
    return host.strip("[]"), int(port)


def parse_seconds(text: str) -> float:
    """Seconds from 0.1 to 86400. Raises argparse.ArgumentTypeError."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.1 <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write seconds from 0.1 to 86400")
    return seconds


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m topology.controller", description="OpenFlow 1.3 controller of one testbed."
    )
    parser.add_argument("--inventory", type=Path, required=True, help="the testbed's inventory.json")
    parser.add_argument(
        "--openflow",
        type=parse_address,
        default=("127.0.0.1", 6653),
        metavar="HOST:PORT",
        help="where switches connect (default 127.0.0.1:6653)",
    )
    parser.add_argument(
        "--rest",
        type=parse_address,
        default=("127.0.0.1", 8080),
        metavar="HOST:PORT",
        help="where REST is served (default 127.0.0.1:8080)",
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="the token that REST's callers must know where REST is not on loopback "
        "(else the environment variable COHORTNET_CONTROLLER_TOKEN)",
    )
    parser.add_argument(
        "--audit",
        type=parse_seconds,
        default=30.0,
        metavar="SECONDS",
        help="how often to look whether a switch lost a flow (default 30)",
    )
    return parser.parse_args()


def listen(address: tuple[str, int]) -> socket.socket:
    """A listening socket. Raises OSError."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(1024)
    except OSError:
        sock.close()
        raise
    return sock


def run(
    inventory: Path,
    openflow: tuple[str, int],
    rest: tuple[str, int],
    audit_s: float,
    token_file: Path | None = None,
) -> int:
    """Run the controller until SIGTERM or SIGINT; gives the exit status.

    Raises:
        TopologyError: where the inventory cannot be used, or REST would be open to others without a token.
        OSError: where an address cannot be bound.
    """
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    from topology.controller.auth import token_for
    from topology.controller.watch import load_graph

    token = token_for(rest[0], token_file, os.environ)
    graph = load_graph(inventory, wait_s=INVENTORY_WAIT_S)
    from topology.controller import app
    from topology.controller.connection import Listener
    from topology.controller.fleet import Fleet
    from topology.controller.meterbook import FILE, open_book
    from topology.controller.metrics import Metrics
    from topology.controller.watch import InventoryWatch

    book, problems = open_book(graph, Path(graph.inventory["paths"]["state"]) / FILE)
    fleet = Fleet(graph, Metrics(graph.testbed), book, audit_s)
    for problem in problems:
        fleet.trouble(problem)
    fleet.queues.start()
    fleet.buffers.start()
    # os-ken cannot end its threads; threads started by a daemon thread are daemons, and end with the process.
    starter = threading.Thread(target=app.start, args=(fleet,), name="os-ken", daemon=True)
    starter.start()
    starter.join()
    # Last: a switch that connects and hears nothing for a second gives up, and comes again a second later.
    listener = Listener(listen(openflow))
    listener.start()
    LOG.info(
        "testbed %s: %d switches, %d nodes; OpenFlow on %s:%d",
        graph.testbed,
        len(graph.switches),
        len(graph.hosts),
        *openflow,
    )
    watch = InventoryWatch(inventory, fleet.graph_read, fleet.trouble)
    watch.start()
    from topology.controller.rest import create_app, create_rest_server

    server = create_rest_server(create_app(fleet, watch, inventory, token), rest)
    threading.Thread(target=server.run, name="rest", daemon=True).start()
    LOG.info("REST on http://%s:%d, %s", *rest, "for all on loopback" if token is None else "with a token")
    ended.wait()
    LOG.info("ending; flows stay in the switches")
    watch.stop()
    fleet.close()
    listener.close()
    server.close()
    return 0


def main() -> int:
    """The command."""
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("os_ken").setLevel(logging.WARNING)
    for name in ("OpenFlowHandler", "ofp_event", "ForwardingApp", "waitress"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        return run(
            arguments.inventory, arguments.openflow, arguments.rest, arguments.audit, arguments.token_file
        )
    except TopologyError as error:
        LOG.error("%s", error)
    except OSError as error:
        LOG.error(
            "cannot listen on %s:%d or %s:%d: %s; is another controller running here?",
            *arguments.openflow,
            *arguments.rest,
            error.strerror or error,
        )
    return 1


if __name__ == "__main__":
    status = main()
    logging.shutdown()
    # os-ken's threads cannot be joined: leave at once instead of taking the interpreter apart beneath them.
    os._exit(status)
