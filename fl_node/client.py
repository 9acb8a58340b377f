"""`python -m fl_node.client --config FILE.json`: one FL client, for one run.

Owns one process that calls the ClientApp for each message, keeps its `Context` on disk between messages and
answers. Takes a `ClientSettings` file. Exit codes: 0 the run finished, 1 the run failed or the client itself
did, 2 the settings or the application cannot be used, 3 the server refused this client, 4 the server cannot
be reached, 143 stopped.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl_node import determinism, memory, signals, warm
from fl_node.applications import ApplicationError, resolve
from fl_node.events import EventWriter
from fl_node.progress import say, size
from fl_node.settings import ClientSettings, SettingsError

if TYPE_CHECKING:
    from fl_node.link import End, Link, Reply, Task

MAX_SAVED_REPLY_BYTES = 64 << 20  # larger replies are not kept on disk: state folders often lie in memory
EXIT_CODES = {"finished": 0, "failed": 1, "error": 1, "refused": 3, "unreachable": 4, "stopped": 143}


class Client:
    """One client of one run."""

    def __init__(self, settings: ClientSettings, events: EventWriter) -> None:
        self.settings = settings
        self.events = events
        self.link: Link | None = None
        self._app: Any = None
        self._config: dict[str, Any] = {}
        self._context: Any = None
        self._file = Path(settings.state) / f"{settings.run_id.replace('/', '_')}.context"

    def execute(self) -> End:
        """Take part in the run until it ends."""
        from fl_node import flower
        from fl_node.link import End, Link, LinkSettings

        settings = self.settings
        failure = ""
        saved: Reply | None = None
        try:
            self._load()
            saved = self._restore()
        except ApplicationError as error:
            failure = str(error)
            say(failure)
        self.link = link = Link(
            LinkSettings(
                server=settings.server,
                run=settings.run_id,
                client=settings.name,
                flower=flower.FLOWER_VERSION,
                failure=failure,
                connect_timeout_s=settings.connect_timeout_s,
                keepalive_s=settings.keepalive_s,
                keepalive_timeout_s=settings.keepalive_timeout_s,
            ),
            saved,
            self._notice,
        )
        link.start()
        while True:
            item = link.next()
            if isinstance(item, End):
                if failure:
                    item = End("application", failure)
                elif item.kind in ("finished", "failed"):
                    self._file.unlink(missing_ok=True)
                return item
            self._handle(link, item)
            del item
            memory.trim()

    def _load(self) -> None:
        from fl_node import flower

        settings = self.settings
        if settings.partition_id >= settings.num_partitions:
            raise ApplicationError(
                f"partition_id {settings.partition_id}: there are {settings.num_partitions} partitions, "
                f"0 to {settings.num_partitions - 1}"
            )
        folder = resolve(settings.application)
        self._config = flower.run_config(folder, settings.config, settings.seed)
        determinism.seed_everything(settings.seed, "client", settings.partition_id)
        self._app = flower.load_client_app(folder)
        determinism.one_thread()
        warm.first_step()

    def _handle(self, link: Link, task: Task) -> None:
        """Call the ClientApp for one message, keep the state, answer."""
        from fl_node import flower
        from fl_node.link import Reply

        settings = self.settings
        message = flower.decode(task.payload or b"")
        task.payload = None
        flower.set_identity(settings.run_id, link.node_id)
        self._context.node_id = link.node_id
        number, phase = flower.describe(message)
        started = time.monotonic()
        determinism.seed_everything(settings.seed, "client", settings.partition_id, task.sequence)
        problem = ""
        try:
            reply = self._app(message=message, context=self._context)
            if not isinstance(reply, flower.Message):
                raise TypeError(f"the ClientApp returned {type(reply).__name__}, not a Message")
        except (
            Exception,
            SystemExit,
        ) as error:  # the application's own code: its errors are the server's to see
            traceback.print_exc()
            problem = f"{type(error).__name__}: {error}"
            reply = flower.error_reply(message, flower.ERROR_CLIENT_APP, problem)
        busy = time.monotonic() - started
        del message
        examples, metrics = flower.summary(reply)
        segments = flower.encode(reply)
        del reply
        answer = Reply(task.id, segments, busy)
        self._save(answer)
        link.reply(answer)
        self.events.append(
            "client.handled",
            round=number,
            phase=phase,
            client=settings.name,
            seconds=round(busy, 6),
            memory_bytes=memory.resident_bytes(),
            num_examples=examples,
            metrics=metrics,
            error=problem or None,
        )
        sent = size(sum(map(len, segments)))
        say(f"round {number} {phase}: {problem or 'done'} in {busy:.2f} s, reply {sent}")

    def _save(self, answer: Reply) -> None:
        """Keep state and answer together: a restarted client neither trains twice nor forgets."""
        from fl_node import flower
        from fl_node.proto import stream_pb2 as pb

        small = sum(map(len, answer.segments)) <= MAX_SAVED_REPLY_BYTES
        saved = pb.Saved(
            run=self.settings.run_id,
            client=self.settings.name,
            state=flower.state_to_bytes(self._context.state),
            reply_to=answer.reply_to,
            reply=b"".join(answer.segments) if small else b"",
            busy_seconds=answer.busy_seconds,
        )
        partial = self._file.with_suffix(".partial")
        partial.write_bytes(saved.SerializeToString())
        os.replace(partial, self._file)

    def _restore(self) -> Reply | None:
        """Make the context, from the state folder where this client took part in the run before."""
        from google.protobuf.message import DecodeError

        from fl_node import flower
        from fl_node.link import Reply
        from fl_node.proto import stream_pb2 as pb

        settings = self.settings
        node_config = {"partition-id": settings.partition_id, "num-partitions": settings.num_partitions}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        state = None
        answer = None
        if self._file.is_file():
            try:
                saved = pb.Saved.FromString(self._file.read_bytes())
                state = flower.state_from_bytes(saved.state)
            except (DecodeError, ValueError) as error:
                raise ApplicationError(
                    f"saved state {self._file} cannot be read: {error}. Remove the file"
                ) from error
            if (saved.run, saved.client) != (settings.run_id, settings.name):
                raise ApplicationError(
                    f"saved state {self._file} is of {saved.client!r} in run {saved.run!r}: remove the file"
                )
            if saved.reply:
                answer = Reply(saved.reply_to, [saved.reply], saved.busy_seconds)
            say(f"goes on with the state kept in {self._file}")
        self._context = flower.make_context(settings.run_id, 0, node_config, self._config, state)
        return answer

    def _notice(self, kind: str, reason: str) -> None:
        self.events.append(
            f"client.link.{kind}", client=self.settings.name, server=self.settings.server, reason=reason
        )
        say(f"{kind}: server {self.settings.server}" + (f" ({reason})" if reason else ""))


def main(argv: list[str] | None = None) -> int:
    """Run one client process; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m fl_node.client", description="One FL client, for one run."
    )
    parser.add_argument("--config", required=True, metavar="FILE.json", help="settings of the client")
    options = parser.parse_args(argv)
    try:
        settings = ClientSettings.read(options.config)
    except SettingsError as error:
        print(f"fl_node.client: {error}", file=sys.stderr, flush=True)
        return 2
    determinism.one_thread()
    memory.keep_small()
    events = EventWriter(settings.events, settings.name, settings.run_id)
    client = Client(settings, events)
    kind, reason = "error", ""
    try:
        signals.stop_by_signal()
        say(f"run {settings.run_id}: client {settings.name}, server {settings.server}")
        end = client.execute()
        kind, reason = end.kind, end.reason
    except signals.Stopped:
        kind, reason = "stopped", "stopped"
    except Exception as error:  # nothing may end this process without an event that says why
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}"
    finally:
        signals.ignore()
    if client.link is not None:
        client.link.stop(f"client {settings.name} {reason or kind}")
    if kind == "failed":
        reason = f"server {settings.server} ended the run: {reason}"
    events.append("client.ended", client=settings.name, outcome=kind, reason=reason)
    events.close()
    code = 2 if kind == "application" else EXIT_CODES.get(kind, 1)
    if code:
        print(f"fl_node.client: {reason}", file=sys.stderr, flush=True)
    else:
        say("finished")
    return code


if __name__ == "__main__":
    sys.exit(main())
