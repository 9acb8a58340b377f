"""The central orchestrator: owns the servers. Answers Mo-Mo: allocates by plan, starts servers on their
nodes, frees them."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from mlfo import deployment
from mlfo.agents import ENDED, Agents
from mlfo.allocation import Allocator, Busy, Choice
from mlfo.catalogue import Catalogue
from mlfo.deployment import Deployment
from mlfo.errors import AgentError, IntentRefused
from mlfo.inventory import Inventory, InventoryFile, Node
from mlfo.metrics import Metrics
from mlfo.proto import momo_pb2, momo_pb2_grpc
from mlfo.store import Store

log = logging.getLogger(__name__)

LISTEN_S = 60.0
WORKERS = 32
MAX_CALLS = 256
# A holder whose run has ended at its server is freed; not before this age, so that a run in its start is not
# taken for one (seconds).
STALE_S = 15.0


class Failure(Exception):
    """A call that ends with a gRPC status and a text."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        self.code = code
        super().__init__(text)


class Central(momo_pb2_grpc.OrchestrateServicer):
    """The Mo-Mo service. One lock a run: Deploy and Release of the same run never overlap."""

    def __init__(
        self,
        store: Store,
        inventory: InventoryFile,
        catalogue: Catalogue,
        agents: Agents,
        metrics: Metrics,
        fl_port: int,
    ) -> None:
        self._store = store
        self._inventory = inventory
        self._catalogue = catalogue
        self._agents = agents
        self._metrics = metrics
        self._fl_port = fl_port
        self._allocator = Allocator(store)
        self._locks: dict[str, list[Any]] = {}  # run -> [lock, users]
        self._guard = threading.Lock()
        self._probed = 0.0

    # Mo-Mo ----------

    def Deploy(self, request: momo_pb2.Intent, context: Any) -> momo_pb2.Status:  # noqa: N802 (the name of the contract)
        return self._answer("Deploy", request, context, lambda: self._deploy(request, context))

    def Release(self, request: momo_pb2.Run, context: Any) -> momo_pb2.Status:  # noqa: N802
        return self._answer("Release", request, context, lambda: self.release(request.run_id))

    def Reset(self, request: momo_pb2.ResetRequest, context: Any) -> momo_pb2.ResetReply:  # noqa: N802
        return self._answer("Reset", request, context, self.reset)

    def Servers(self, request: momo_pb2.ServersRequest, context: Any) -> momo_pb2.ServersReply:  # noqa: N802
        return self._answer("Servers", request, context, self.servers)

    def _answer(self, method: str, request: Any, context: Any, call: Callable[[], Any]) -> Any:
        began = time.monotonic()
        try:
            reply = call()
        except Failure as failure:
            code, text = failure.code, str(failure)
        except Exception as error:  # one bad call never ends the service
            log.exception("%s failed", method)
            self._metrics.errors.labels("internal").inc()
            code, text = grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}"
        else:
            self._metrics.momo_call(method, "received", "OK", began, reply.ByteSize(), request.ByteSize())
            return reply
        self._metrics.momo_call(method, "received", code.name, began, 0, request.ByteSize())
        log.info("%s refused: %s: %s", method, code.name, text)
        context.abort(code, text[:2000])

    # Deploy ----------

    def _deploy(self, request: momo_pb2.Intent, context: Any) -> momo_pb2.Status:
        inventory = self._inventory.get()
        run = request.run_id or f"momo-{_slug(request.intentID)}-{secrets.token_hex(4)}"
        try:
            wanted = deployment.read(request, run, self._catalogue, inventory, self._fl_port)
        except IntentRefused as refused:
            raise Failure(grpc.StatusCode.INVALID_ARGUMENT, str(refused)) from refused
        with self._locked(run):
            known = self._store.run(run)
            if known is not None and known[0] == "released":
                raise Failure(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    f"run {run} has been released already; ask with a new run id",
                )
            choice = self._allocate(run, inventory, wanted)
            node = inventory.nodes[choice.server]
            self._store.keep_run(run, "deployed", {"server": node.name})
            try:
                address = self._start(run, node, wanted, context)
            except Failure:
                self._stop(run, node)
                self._allocator.release(run)
                self._store.keep_run(run, "failed", {"server": node.name})
                raise
        log.info("run %s: server %s at %s (%s)", run, node.name, address, choice.reason)
        return momo_pb2.Status(
            status=address, run_id=run, server=node.name, reason=choice.reason, notes=choice.notes
        )

    def _allocate(self, run: str, inventory: Inventory, wanted: Deployment) -> Choice:
        cohort = inventory.cohorts.get(wanted.cohort)
        order = inventory.servers()
        if not order:
            raise Failure(grpc.StatusCode.FAILED_PRECONDITION, "the testbed has no server node")
        ask = (cohort.server if cohort else None, wanted.source, wanted.model, wanted.sameserver or None)
        choice = self._allocator.allocate(run, order, *ask)
        if isinstance(choice, Busy) and self._free_the_dead(inventory):
            choice = self._allocator.allocate(run, order, *ask)
        if isinstance(choice, Busy):
            raise Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, choice.message())
        return choice

    def _free_the_dead(self, inventory: Inventory) -> bool:
        """Frees servers whose run has ended at its agent without a Release (a peer that knows none, an edge
        that is gone)."""
        with self._guard:
            if time.monotonic() - self._probed < 5.0:
                return False
            self._probed = time.monotonic()
        freed = False
        for server, held in self._store.allocations().items():
            node = inventory.nodes.get(server)
            if time.time() - held["since"] < STALE_S or node is None:
                continue
            try:
                ended = (
                    self._agents.status(node, "server", self._agent_run(held["run"]), timeout_s=3.0).get(
                        "state"
                    )
                    in ENDED
                )
            except AgentError as error:
                ended = error.status == 404
            if ended and self._allocator.release(held["run"]):
                log.warning(
                    "server %s freed: run %s has ended there and was never released", server, held["run"]
                )
                self._store.keep_run(held["run"], "released", {"server": server})
                freed = True
        return freed

    def _start(self, run: str, node: Node, wanted: Deployment, context: Any) -> str:
        """Starts the server and waits until it listens; the address for clients."""
        try:
            if wanted.form:
                status = self._agents.start_by_form(node, wanted.form)
                self._store.keep_run(
                    run, "deployed", {"server": node.name, "agent_run": status.get("run_id")}
                )
            else:
                body = {**wanted.body, "clients": [node.name]} if wanted.centralised else wanted.body
                status = self._agents.start(
                    node, "server", body, attempts=3, stop=lambda: not context.is_active()
                )
            end = time.monotonic() + LISTEN_S
            pause_s = 0.05
            while status.get("state") == "starting":
                if not context.is_active():
                    raise Failure(grpc.StatusCode.CANCELLED, f"run {run}: the asker has gone")
                if time.monotonic() > end:
                    raise Failure(
                        grpc.StatusCode.FAILED_PRECONDITION,
                        f"{node.name}: the FL server did not listen within {LISTEN_S:g} s",
                    )
                time.sleep(pause_s)
                pause_s = min(pause_s * 1.5, 0.5)
                status = self._agents.status(node, "server", self._agent_run(run))
        except AgentError as error:
            raise Failure(
                grpc.StatusCode.FAILED_PRECONDITION, f"server cannot be started: {error}"
            ) from error
        if status.get("state") not in ("listening", "running", "succeeded"):
            raise Failure(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"{node.name}: the FL server ended before it listened: {status.get('state')}, "
                f"{status.get('error') or 'no reason given'}",
            )
        return f"{node.address}:{self._fl_port}"

    # Release, Reset, Servers ----------

    def release(self, run: str) -> momo_pb2.Status:
        with self._locked(run):
            allocated = {a["run"]: server for server, a in self._store.allocations().items()}
            server = allocated.get(run)
            notes = []
            if server is not None:
                node = self._inventory.get().nodes.get(server)
                note = self._stop(run, node) if node else f"server {server} is no longer in the testbed"
                notes += [note] if note else []
                self._allocator.release(run)
            else:
                self._allocator.release(run)  # no longer waiting, either
            self._store.keep_run(run, "released", {"server": server})
        return momo_pb2.Status(status="released", run_id=run, server=server or "", notes=notes)

    def reset(self) -> momo_pb2.ResetReply:
        held = self._store.allocations()
        with ThreadPoolExecutor(max_workers=16) as pool:
            replies = list(pool.map(self.release, [a["run"] for a in held.values()]))
        self._allocator.forget()
        return momo_pb2.ResetReply(freed=list(held), notes=[n for r in replies for n in r.notes])

    def servers(self) -> momo_pb2.ServersReply:
        inventory = self._inventory.get()
        held = self._store.allocations()
        cohorts = {c.server: c.name for c in inventory.cohorts.values()}
        reply = momo_pb2.ServersReply()
        for name in inventory.servers():
            a = held.get(name)
            reply.servers.add(
                name=name,
                address=inventory.nodes[name].address,
                cohort=cohorts.get(name, ""),
                run_id=a["run"] if a else "",
                source=a["source"] if a else "",
                model=a["model"] if a else "",
                since=a["since"] if a else 0.0,
            )
        return reply

    def _agent_run(self, run: str) -> str:
        """What the server's agent calls a run: the same, but for servers that were started by the family's
        form."""
        known = self._store.run(run)
        return str((known[1].get("agent_run") if known else None) or run)

    def _stop(self, run: str, node: Node) -> str | None:
        try:
            self._agents.stop(node, "server", self._agent_run(run))
            return None
        except AgentError as error:
            return f"the server may still run: {error}"

    # One lock a run, dropped when nobody uses it ----------

    def _locked(self, run: str) -> _RunLock:
        return _RunLock(self._locks, self._guard, run)


class _RunLock:
    def __init__(self, locks: dict[str, list[Any]], guard: threading.Lock, run: str) -> None:
        self._locks, self._guard, self._run = locks, guard, run

    def __enter__(self) -> None:
        with self._guard:
            entry = self._locks.setdefault(self._run, [threading.Lock(), 0])
            entry[1] += 1
        entry[0].acquire()

    def __exit__(self, *rest: object) -> None:
        with self._guard:
            entry = self._locks[self._run]
            entry[0].release()
            entry[1] -= 1
            if entry[1] == 0:
                del self._locks[self._run]


def serve(central: Central, address: str) -> tuple[grpc.Server, int]:
    """Starts the gRPC server; returns it and its port. Raises RuntimeError where the address cannot be
    bound."""
    server = grpc.server(
        ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix="momo"),
        maximum_concurrent_rpcs=MAX_CALLS,
        options=[("grpc.so_reuseport", 0), ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000)],
    )
    momo_pb2_grpc.add_OrchestrateServicer_to_server(central, server)
    port = server.add_insecure_port(address)
    server.start()
    return server, port


def _slug(text: str) -> str:
    return "".join(c if c in "abcdefghijklmnopqrstuvwxyz0123456789" else "-" for c in text.lower())[:32]
