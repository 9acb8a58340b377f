"""``python -m mlfo --role edge|central``: reads the arguments, puts the parts together, runs until
SIGTERM."""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import socket
import sys
import threading
from pathlib import Path
from types import FrameType

import waitress

from mlfo import catalogue, rest
from mlfo.agents import Agents
from mlfo.central import Central, serve
from mlfo.edge import Edge
from mlfo.errors import SetupError
from mlfo.inventory import AGENT_PORT, Inventory, InventoryFile
from mlfo.metrics import Metrics
from mlfo.momo import CentralClient
from mlfo.store import Store
from mlfo.times import Times

log = logging.getLogger("mlfo")
CATALOGUE = Path(__file__).resolve().parent.parent / "intents" / "catalogue.yaml"


def parser() -> argparse.ArgumentParser:
    times = Times()
    p = argparse.ArgumentParser(
        prog="mlfo", description="Orchestrator of federated learning: intents in, runs out (ITU-T Y.3172)."
    )
    p.add_argument(
        "--role",
        choices=("edge", "central"),
        required=True,
        help="edge takes intents, central owns the servers",
    )
    p.add_argument("--node", required=True, help="this node's name in the inventory")
    p.add_argument("--inventory", type=Path, required=True, help="inventory.json of the testbed; waited for")
    p.add_argument("--state", type=Path, required=True, help="folder for mlfo.sqlite")
    p.add_argument(
        "--central",
        metavar="IP:PORT",
        help="edge: the central's Mo-Mo address (default: the inventory's central, port 9000)",
    )
    p.add_argument(
        "--rest", default="0.0.0.0:8000", metavar="HOST:PORT", help="REST address (default: %(default)s)"
    )
    p.add_argument(
        "--grpc",
        default="0.0.0.0:9000",
        metavar="HOST:PORT",
        help="central: Mo-Mo address (default: %(default)s)",
    )
    p.add_argument(
        "--catalogue", type=Path, default=CATALOGUE, help="catalogue file (default: intents/catalogue.yaml)"
    )
    p.add_argument(
        "--agent-port",
        type=int,
        default=AGENT_PORT,
        help="agents' port where the inventory names none (default: %(default)s)",
    )
    p.add_argument(
        "--fl-port", type=int, default=6000, help="central: port of FL servers (default: %(default)s)"
    )
    p.add_argument(
        "--inventory-timeout",
        type=float,
        default=60.0,
        metavar="S",
        help="wait so long for the inventory (default: %(default)s)",
    )
    p.add_argument(
        "--join-timeout",
        type=float,
        default=times.join_s,
        metavar="S",
        help="clients must join within this ... (default: %(default)s)",
    )
    p.add_argument(
        "--join-timeout-per-client",
        type=float,
        default=times.join_per_client_s,
        metavar="S",
        help="... and this for each (default: %(default)s)",
    )
    p.add_argument(
        "--allocation-timeout",
        type=float,
        default=times.allocation_s,
        metavar="S",
        help="wait so long for a free server (default: %(default)s)",
    )
    p.add_argument(
        "--message-timeout",
        type=float,
        default=times.message_s,
        metavar="S",
        help="a client's answer may take so long (default: %(default)s)",
    )
    p.add_argument(
        "--grace",
        type=float,
        default=times.grace_s,
        metavar="S",
        help="a client's link may be down so long (default: %(default)s)",
    )
    p.add_argument(
        "--lost-after",
        type=float,
        default=times.lost_s,
        metavar="S",
        help="a silent server node is lost after this (default: %(default)s)",
    )
    p.add_argument(
        "--finish-timeout",
        type=float,
        default=times.finish_s,
        metavar="S",
        help="a server whose goal is reached may take so long to end its run (default: %(default)s)",
    )
    return p


def _host_port(text: str, option: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise SetupError(f"{option} {text!r}: HOST:PORT is wanted, e.g. 0.0.0.0:8000")
    return host, int(port)


def _central_address(args: argparse.Namespace, inventory: Inventory) -> str:
    if args.central:
        _host_port(args.central, "--central")
        return str(args.central)
    found = inventory.with_role("mlfo-central")
    if not found:
        raise SetupError(
            "the inventory has no node with role mlfo-central; name the central with --central IP:9000"
        )
    return f"{found[0].address}:9000"


def run(args: argparse.Namespace) -> None:
    """Runs one orchestrator until it is told to stop. Raises SetupError where it cannot start."""
    stop = threading.Event()

    def asked(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, asked)
    signal.signal(signal.SIGINT, asked)

    known = catalogue.load(args.catalogue)
    host, port = _host_port(args.rest, "--rest")
    inventory = InventoryFile(args.inventory, args.agent_port)
    first = inventory.wait(args.inventory_timeout)
    if args.node not in first.nodes:
        raise SetupError(
            f"node {args.node!r} is not in {args.inventory}; nodes: {', '.join(list(first.nodes)[:20])}"
        )
    store = Store(args.state / "mlfo.sqlite")
    metrics = Metrics(args.node, args.role, store.states, store.latest)
    agents = Agents()
    about = {"node": args.node, "role": args.role, "testbed": first.testbed}
    edge = central = momo = None
    if args.role == "edge":
        address = _central_address(args, first)
        about["central"] = address
        times = Times(
            join_s=args.join_timeout,
            join_per_client_s=args.join_timeout_per_client,
            allocation_s=args.allocation_timeout,
            message_s=args.message_timeout,
            grace_s=args.grace,
            lost_s=args.lost_after,
            finish_s=args.finish_timeout,
        )
        edge = Edge(
            args.node, store, inventory, known, agents, CentralClient(address, metrics), metrics, times
        )
    else:
        _host_port(args.grpc, "--grpc")
        central = Central(store, inventory, known, agents, metrics, args.fl_port)
        try:
            momo, grpc_port = serve(central, args.grpc)
        except RuntimeError as error:
            raise SetupError(f"--grpc {args.grpc} cannot be bound: {error}") from error
        about["grpc"] = args.grpc
        log.info("Mo-Mo on port %d", grpc_port)
    try:
        web = waitress.create_server(
            rest.build(about, store, metrics, edge, central),
            sockets=[_bound(host, port)],
            threads=rest.THREADS if edge is not None else rest.THREADS_WITHOUT_STREAMS,
            send_bytes=1,
            channel_request_lookahead=1,  # else a follower that has hung up is noticed only by writing to it
            max_request_body_size=64 << 20,
            connection_limit=256,
            channel_timeout=120,
            ident="mlfo",
            clear_untrusted_proxy_headers=True,
        )
    except OSError as error:
        raise SetupError(f"--rest {args.rest} cannot be bound: {error}") from error
    listener = threading.Thread(target=_listen, args=(web,), name="rest", daemon=True)
    listener.start()
    if edge is not None:
        log.info("%d live intent(s) resumed", edge.resume())
    log.info("%s MLFO %s ready, REST on %s", args.role, args.node, args.rest)
    while not stop.wait(1.0):
        if not listener.is_alive():
            raise SetupError("the REST listener has ended unexpectedly")
    log.info("stopping; live intents are resumed at the next start")
    if edge is not None:
        edge.stop()
    if momo is not None:
        momo.stop(2.0).wait(3.0)
    web.close()


def _bound(host: str, port: int) -> socket.socket:
    """A bound socket. A follower whose link has gone does not keep its thread for the quarter of an hour that TCP
    would try: accepted connections inherit these options."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made


def _listen(web: object) -> None:
    with contextlib.suppress(OSError):  # its sockets are closed by stopping
        web.run()  # type: ignore[attr-defined]


def main() -> int:
    args = parser().parse_args()
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    try:
        run(args)
    except SetupError as error:
        print(f"mlfo: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
