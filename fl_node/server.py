"""`python -m fl_node.server --config FILE.json`: one FL server, for one run.

Owns the order of things: load the application, listen, wait for the whole cohort, call the ServerApp, tell of
it in events, tell the clients that it is over. Takes a `ServerSettings` file. Exit code 0 when the run
succeeded, else 1 with a `run.failed` event that says why and names the clients at fault. SIGTERM ends a run as
failed; SIGUSR1 ends one whose goal is reached as a success, with the weights of its last round.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

from fl_node import determinism, memory, signals
from fl_node.applications import ApplicationError, resolve
from fl_node.events import EventWriter
from fl_node.progress import say, size
from fl_node.settings import ServerSettings, SettingsError

if TYPE_CHECKING:
    from fl_node import flower
    from fl_node.grid import StreamGrid
    from fl_node.hub import Hub


class Enough(BaseException):
    """The run's goal is reached (SIGUSR1): it ends here, and well. Not an Exception, as `signals.Stopped`."""


class RunError(Exception):
    """A run came to nothing; `clients` are those at fault."""

    def __init__(self, message: str, clients: list[str]) -> None:
        super().__init__(message)
        self.clients = clients


class Run:
    """One run, from its settings to its last event."""

    def __init__(self, settings: ServerSettings, events: EventWriter) -> None:
        self.settings = settings
        self.events = events
        self.hub: Hub | None = None
        self.config: dict[str, Any] = {}
        self._started: float | None = None
        self._rounds = 0
        self._num_rounds: int | None = None
        self._weights: str | None = None
        self._latest: flower.ArrayRecord | None = None
        self._enough = False

    def execute(self) -> None:
        """Run to the end. Raises what made it fail."""
        settings = self.settings
        determinism.seed_everything(settings.seed, "server")
        folder = resolve(settings.application)
        say(f"run {settings.run_id}: server {settings.name}, {folder.name}, {settings.num_clients} clients")

        from fl_node import flower
        from fl_node.grid import StreamGrid, node_ids
        from fl_node.hub import Hub
        from fl_node.session import HubSettings

        self.config = flower.run_config(folder, settings.config, settings.seed)
        app = flower.load_server_app(folder)
        determinism.one_thread()
        self.hub = hub = Hub(
            HubSettings(
                run=settings.run_id,
                run_number=flower.run_number(settings.run_id),
                flower=flower.FLOWER_VERSION,
                clients=node_ids(settings.run_id, settings.names),
                expected=settings.num_clients,
                assign=lambda name: node_ids(settings.run_id, [name])[name],
                host=settings.host,
                port=settings.port,
                grace_s=settings.grace_s,
                keepalive_s=settings.keepalive_s,
                keepalive_timeout_s=settings.keepalive_timeout_s,
            ),
            self.event,
        )
        port = hub.start()
        address = os.environ.get("COHORTNET_ADDRESS") or settings.host
        self.event("server.listening", address=f"{address}:{port}")
        hub.await_cohort(settings.join_timeout_s)
        self.event("cohort.complete", clients=list(hub.clients()))
        grid = StreamGrid(
            hub,
            flower.make_run(settings.run_id, settings.config),
            message_timeout_s=settings.message_timeout_s,
            stall_timeout_s=settings.join_timeout_s,
            event=self.event,
            first_push=self.started,
            check=self._go_on,
        )
        flower.set_identity(settings.run_id, flower.SERVER_NODE_ID)
        context = flower.make_context(settings.run_id, flower.SERVER_NODE_ID, {}, self.config)
        determinism.seed_everything(settings.seed, "server")
        more: dict[str, Any] = {}
        try:
            with flower.observe_strategies(self._observer()):
                app(grid, context)
            self._check(grid)
        except Enough:
            more = {"stopped": "goal"}
            if self._latest is not None:
                self._weights = flower.weights_sha256(self._latest)
        self.started()
        down, up = hub.totals()
        seconds = time.monotonic() - (self._started or time.monotonic())
        self.event(
            "run.finished",
            rounds=self._rounds,
            seconds=round(seconds, 6),
            weights_sha256=self._weights,
            bytes_down=down,
            bytes_up=up,
            **more,
        )

    def enough(self) -> None:
        """From a signal handler: end the run well, where the application next speaks to its clients.

        Raised there rather than here, so that neither a lock nor a half-written record is left behind. A run that has
        not begun has nothing to end well: it is stopped.
        """
        if self._started is None or self.hub is None:
            raise signals.Stopped("before the run had begun")
        self._enough = True
        self.hub.wake()

    def _go_on(self) -> None:
        if self._enough:
            raise Enough

    def started(self, model_bytes: int | None = None) -> None:
        """Tell, once, that the application has begun."""
        if self._started is None:
            self._started = time.monotonic()
            self.event(
                "run.started",
                application=self.settings.application,
                config=self.config,
                num_clients=self.settings.num_clients,
                model_bytes=model_bytes,
                num_rounds=self._num_rounds,
            )

    def failed(self, error: str, clients: list[str]) -> None:
        """Tell that the run has failed."""
        self.event("run.failed", error=error, clients=clients)

    def at_fault(self) -> list[str]:
        """Clients that are gone."""
        return sorted(self.hub.absent()) if self.hub is not None and self._started is not None else []

    def event(self, kind: str, **fields: Any) -> None:
        """Write an event, and a line for people."""
        self.events.append(kind, **fields)
        line = _line(kind, fields, self._num_rounds)
        if line:
            say(line)

    def _observer(self) -> Any:
        from fl_node import flower

        run = self

        class Observer(flower.StrategyObserver):
            def started(
                self, strategy: str, num_rounds: int | None, arrays: flower.ArrayRecord | None
            ) -> None:
                run._num_rounds = num_rounds
                run.started(None if arrays is None else flower.model_bytes(arrays))

            def metrics(self, server_round: int, source: str, metrics: Any) -> None:
                run._rounds = max(run._rounds, server_round)
                run.event("round.metrics", round=server_round, source=source, metrics=dict(metrics))

            def aggregated(self, server_round: int, arrays: flower.ArrayRecord) -> None:
                run._rounds = max(run._rounds, server_round)
                run._latest = arrays

            def aggregate_took(self, server_round: int, phase: str, seconds: float) -> None:
                run.event("aggregate.finished", round=server_round, phase=phase, seconds=round(seconds, 6))

            def evaluation_took(self, server_round: int, seconds: float) -> None:
                run.event("server_evaluate.finished", round=server_round, seconds=round(seconds, 6))

            def round_took(self, server_round: int, seconds: float) -> None:
                run.event(
                    "round.finished",
                    round=server_round,
                    seconds=round(seconds, 6),
                    memory_bytes=memory.resident_bytes(),
                )

            def finished(self, arrays: flower.ArrayRecord) -> None:
                run._weights = flower.weights_sha256(arrays)

        return Observer()

    @staticmethod
    def _check(grid: StreamGrid) -> None:
        """A run in which no client ever answered with a result has learnt nothing: that is a failure."""
        if grid.first_error is not None and grid.valid_replies == 0:
            client, reason = grid.first_error
            raise RunError(f"no client gave a result; the first to fail was {client}: {reason}", [client])


def _line(kind: str, fields: dict[str, Any], num_rounds: int | None) -> str:
    """One line for a person, or nothing for events that need none."""
    number = fields.get("round")
    where = f"round {number}/{num_rounds}" if num_rounds else f"round {number}"
    if kind == "server.listening":
        return f"listening on {fields['address']}"
    if kind in ("client.joined", "client.left", "client.reconnected"):
        reason = f" ({fields['reason']})" if fields["reason"] else ""
        return f"{fields['client']} {kind.split('.')[1]}, {fields['joined']} of {fields['expected']}{reason}"
    if kind == "phase.finished":
        errors = f", {fields['errors']} errors" if fields["errors"] else ""
        moved = f"down {size(fields['bytes_down'])}, up {size(fields['bytes_up'])}"
        replies = f"{fields['replies']} replies{errors} in {fields['seconds']:.2f} s"
        return f"{where} {fields['phase']}: {replies}, {moved}"
    if kind == "client.reply" and fields["error"]:
        return f"{where} {fields['phase']}: {fields['client']} failed: {fields['error']}"
    if kind == "round.metrics":
        shown = ", ".join(
            f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in fields["metrics"].items()
        )
        return f"{where} {fields['source']}: {shown}"
    if kind == "run.finished":
        moved = f"down {size(fields['bytes_down'])}, up {size(fields['bytes_up'])}"
        rounds = f"{fields['rounds']} rounds in {fields['seconds']:.1f} s"
        why = " (its goal is reached)" if fields.get("stopped") else ""
        return f"finished{why}: {rounds}, {moved}, weights {fields['weights_sha256']}"
    if kind == "run.failed":
        return f"failed: {fields['error']}"
    return ""


def main(argv: list[str] | None = None) -> int:
    """Run one server process; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m fl_node.server", description="One FL server, for one run."
    )
    parser.add_argument("--config", required=True, metavar="FILE.json", help="settings of the run")
    options = parser.parse_args(argv)
    try:
        settings = ServerSettings.read(options.config)
    except SettingsError as error:
        print(f"fl_node.server: {error}", file=sys.stderr, flush=True)
        return 1
    determinism.one_thread()
    memory.keep_small()
    events = EventWriter(settings.events, settings.name, settings.run_id)
    run = Run(settings, events)
    reason = ""
    clients: list[str] = []
    try:
        signals.stop_by_signal()
        signal.signal(signal.SIGUSR1, lambda *_: run.enough())
        run.execute()
    except signals.Stopped:
        reason = "stopped"
    except Exception as error:  # the application's own code runs in here: whatever it raises fails the run
        clients = list(getattr(error, "clients", None) or run.at_fault())
        expected = isinstance(error, ApplicationError | RunError) or hasattr(error, "clients")
        reason = str(error) if expected else f"{type(error).__name__}: {error}"
        if not expected:
            traceback.print_exc()
    except SystemExit as error:
        reason = f"the application ended the process itself (exit {error.code})"
    finally:
        signals.ignore(signal.SIGUSR1)
    if reason:
        run.failed(reason, clients)
    if run.hub is not None:
        run.hub.close(not reason, reason)
    events.close()
    return 1 if reason else 0


if __name__ == "__main__":
    sys.exit(main())
