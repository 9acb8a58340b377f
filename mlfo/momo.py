"""The asking side of Mo-Mo: calls to the central orchestrator with deadlines and bounded retries. Owns one
gRPC channel."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import grpc

from mlfo.errors import IntentFailed
from mlfo.metrics import Metrics
from mlfo.pipeline import Pipeline
from mlfo.proto import momo_pb2, momo_pb2_grpc

DEPLOY_S = 90.0  # a server's program may need this long to listen, on a machine that starts many
CALL_S = 20.0
ATTEMPTS = 10  # with pauses that grow to 4 s: a central that is back within some 25 s is not noticed
_AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNKNOWN)


class Refused(Exception):
    """The central gave no server for now (all are held); the text names the holders."""


class CentralClient:
    """The central MLFO at ``address`` (IP:9000). Failures become IntentFailed with the central's own
    words."""

    def __init__(self, address: str, metrics: Metrics) -> None:
        self.address = address
        self._metrics = metrics
        self._channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.keepalive_time_ms", 20_000),
                ("grpc.keepalive_timeout_ms", 10_000),
                ("grpc.initial_reconnect_backoff_ms", 200),
                ("grpc.max_reconnect_backoff_ms", 2_000),
                ("grpc.enable_http_proxy", 0),
            ],
        )
        self._stub = momo_pb2_grpc.OrchestrateStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def deploy(self, request: momo_pb2.Intent, check: Callable[[], None]) -> momo_pb2.Status:
        """Deploy; idempotent by run id, so it is asked again where no answer came. ``check`` is called while
        waiting and may raise.

        Raises Refused where all servers are held, IntentFailed otherwise.
        """
        return self._ask("Deploy", self._stub.Deploy, request, DEPLOY_S, ATTEMPTS, check)

    def release(self, run: str) -> momo_pb2.Status:
        return self._ask("Release", self._stub.Release, momo_pb2.Run(run_id=run), CALL_S, 3)

    def reset(self) -> momo_pb2.ResetReply:
        return self._ask("Reset", self._stub.Reset, momo_pb2.ResetRequest(), 60.0, 2)

    def servers(self) -> list[dict[str, Any]]:
        reply = self._ask("Servers", self._stub.Servers, momo_pb2.ServersRequest(), 5.0, 1)
        return [server_json(s) for s in reply.servers]

    def _ask(
        self,
        method: str,
        call: Any,
        request: Any,
        timeout_s: float,
        attempts: int,
        check: Callable[[], None] = lambda: None,
    ) -> Any:
        size = request.ByteSize()
        for attempt in range(attempts):
            began = time.monotonic()
            future = call.future(request, timeout=timeout_s)
            try:
                while True:
                    try:
                        reply = future.result(timeout=0.25)
                        self._metrics.momo_call(method, "sent", "OK", began, size, reply.ByteSize())
                        return reply
                    except grpc.FutureTimeoutError:
                        check()
            except grpc.RpcError as error:
                code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
                text = (error.details() or "") if isinstance(error, grpc.Call) else str(error)
                went = 0 if code == grpc.StatusCode.UNAVAILABLE else size  # nobody was there to send it to
                self._metrics.momo_call(method, "sent", code.name, began, went, 0)
                if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise Refused(text) from error
                if code not in _AGAIN or attempt == attempts - 1:
                    asked = f" (asked {attempt + 1} times)" if attempt else ""
                    where = f"central MLFO at {self.address}"
                    raise IntentFailed(
                        f"{where}: {method} failed with {code.name}: {text[:500]}{asked}", code="momo"
                    ) from error
            finally:
                if not future.done():
                    future.cancel()
            pause_end = time.monotonic() + min(0.25 * 2**attempt, 4.0)
            while time.monotonic() < pause_end:
                check()
                time.sleep(0.1)
        raise AssertionError("unreachable")


def server_json(server: momo_pb2.Server) -> dict[str, Any]:
    return {
        "name": server.name, "address": server.address, "cohort": server.cohort, "run": server.run_id or None,
        "source": server.source or None, "model": server.model or None, "since": server.since or None,
    }  # fmt: skip


def deploy_request(
    run: str, pipeline: Pipeline, join_timeout_s: float, message_timeout_s: float, grace_s: float
) -> momo_pb2.Intent:
    """The Intent that goes upward: the family's fields as the family fills them, and this project's beside
    them."""
    config = pipeline.config
    constraints = momo_pb2.Constraints(
        privacylevel=pipeline.privacylevel,
        sourcekind=pipeline.source,
        modelkind=pipeline.model,
        fracfit=f"{config['fraction-train']:g}",
        minfit=str(config["min-train-nodes"]),
        minav=str(config["min-available-nodes"]),
        numround=str(config["num-server-rounds"]),
        sameserv=pipeline.sameserver or "",
        avgalgo=pipeline.strategy,
    )
    target = momo_pb2.Target(
        ID=pipeline.target, operation="aggregate.global", operand="model.federated", Constraints=constraints
    )
    return momo_pb2.Intent(
        intentID=pipeline.intent_id,
        Targets=[target],
        run_id=run,
        clients=pipeline.clients,
        config_json=json.dumps(config),
        cohort=pipeline.cohort,
        seed=pipeline.seed,
        application=pipeline.application,
        join_timeout_s=join_timeout_s,
        message_timeout_s=message_timeout_s,
        grace_s=grace_s,
        centralised=pipeline.privacylevel == "low",
    )
