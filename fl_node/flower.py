"""Everything of Flower that is not its public face, in one place.

Owns: how Flower's messages become bytes, the identity that `Message(...)` reads, how an application folder is
loaded and configured, and the hooks on `Strategy` that tell of rounds. Takes and gives Flower's own objects.
Never opens a socket and never decides anything about a run. `tests/fl_node/test_flower_internals.py` names
each internal that is used here and fails on a Flower whose internals moved.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

import numpy as np  # noqa: E402
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict  # noqa: E402
from flwr.clientapp import ClientApp  # noqa: E402
from flwr.common.config import get_fused_config_from_dir, get_project_config  # noqa: E402
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode  # noqa: E402
from flwr.common.serde import message_from_proto, recorddict_from_proto, recorddict_to_proto  # noqa: E402
from flwr.common.serde_utils import error_to_proto, metadata_to_proto  # noqa: E402
from flwr.proto.message_pb2 import Message as ProtoMessage  # noqa: E402
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict  # noqa: E402
from flwr.serverapp import ServerApp  # noqa: E402
from flwr.serverapp.strategy import Strategy  # noqa: E402
from flwr.supercore.object_ref import load_app  # noqa: E402
from flwr.supercore.run import Run  # noqa: E402
from flwr.supercore.task_identity import TaskIdentity  # noqa: E402
from flwr.supercore.version import package_version as FLOWER_VERSION  # noqa: E402, N812

from fl_node.applications import ApplicationError  # noqa: E402
from fl_node.rounds import RoundClock  # noqa: E402

SERVER_NODE_ID = int(SUPERLINK_NODE_ID)
ERROR_CLIENT_APP = int(ErrorCode.CLIENT_APP_RAISED_EXCEPTION)
ERROR_NO_REPLY = int(ErrorCode.REPLY_MESSAGE_UNAVAILABLE)
ERROR_NODE_GONE = int(ErrorCode.NODE_UNAVAILABLE)
MAX_MESSAGE_BYTES = (1 << 31) - 1  # protobuf's own limit
ROUND_KEY = "server-round"
NUM_EXAMPLES_KEY = "num-examples"

_CONTENT_TAG = (ProtoMessage.DESCRIPTOR.fields_by_name["content"].number << 3) | 2


# --- identity -----------------------------------------------------------------------------------------------


def run_number(run: str) -> int:
    """Flower's 63-bit run id for our run id; never 0."""
    return (int.from_bytes(hashlib.sha256(run.encode()).digest()[:8], "big") >> 1) or 1


def set_identity(run: str, node_id: int) -> None:
    """Say who this process is, before any `Message` is made in it."""
    TaskIdentity.task_id = 1
    TaskIdentity.run_id = run_number(run)
    TaskIdentity.node_id = node_id


def make_run(run: str, config: dict[str, Any]) -> Run:
    """The `Run` that `Grid.run` gives."""
    made = Run.create_empty(run_number(run))
    made.override_config = dict(config)
    return made


# --- messages as bytes --------------------------------------------------------------------------------------


class SegmentCache:
    """Serialised records, so that a record which many messages share is serialised once.

    FedAvg sends one `ArrayRecord` to every client, for evaluation and again for the next round's training. An
    entry is found by the identity of the arrays' bytes, which the entry itself keeps alive, so it cannot be
    mistaken for another. Entries that a push did not use are dropped at the next `begin`.
    """

    def __init__(self) -> None:
        self._entries: dict[Any, tuple[list[bytes], bytes]] = {}
        self._used: set[Any] = set()

    def begin(self) -> None:
        """Start a push: forget what the last one did not use."""
        self._entries = {key: value for key, value in self._entries.items() if key in self._used}
        self._used = set()

    def segment(self, key: str, record: Any) -> bytes:
        """One item of a RecordDict, as the bytes that it adds to the serialised whole."""
        if not isinstance(record, ArrayRecord):
            return _item_bytes(key, record)
        datas = [array.data for array in record.values()]
        shape = tuple((name, a.dtype, tuple(a.shape), a.stype, id(a.data)) for name, a in record.items())
        fingerprint = (key, shape)
        self._used.add(fingerprint)
        if fingerprint not in self._entries:
            self._entries[fingerprint] = (datas, _item_bytes(key, record))
        return self._entries[fingerprint][1]


def _item_bytes(key: str, record: Any) -> bytes:
    data: bytes = recorddict_to_proto(RecordDict({key: record})).SerializeToString()
    return data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode(message: Message, cache: SegmentCache | None = None) -> list[bytes]:
    """A message as segments; joined they are the serialised protobuf `Message`. Records come from `cache`."""
    cache = cache or SegmentCache()
    head: bytes = ProtoMessage(
        metadata=metadata_to_proto(message.metadata),
        error=error_to_proto(message.error) if message.has_error() else None,
    ).SerializeToString()
    if not message.has_content():
        return [head]
    items = [cache.segment(key, record) for key, record in message.content.items()]
    length = sum(map(len, items))
    segments = [head + bytes([_CONTENT_TAG]) + _varint(length), *items]
    if len(segments[0]) + length > MAX_MESSAGE_BYTES:
        raise ValueError(
            f"a message of {length} bytes is larger than protobuf's limit of {MAX_MESSAGE_BYTES}: "
            "send the model in several records and messages"
        )
    return segments


def decode(data: bytes | bytearray) -> Message:
    """The message of `encode`'s joined segments."""
    proto = ProtoMessage()
    proto.ParseFromString(data if isinstance(data, bytes) else memoryview(data))
    return message_from_proto(proto)


def state_to_bytes(state: RecordDict) -> bytes:
    """A `Context.state`, to be kept on disk."""
    data: bytes = recorddict_to_proto(state).SerializeToString()
    return data


def state_from_bytes(data: bytes) -> RecordDict:
    """The inverse of `state_to_bytes`; raises google.protobuf.message.DecodeError on a broken file."""
    return recorddict_from_proto(ProtoRecordDict.FromString(data))


def set_message_id(message: Message, message_id: str) -> None:
    """Give a message its id; Flower has the SuperLink do so and offers no setter."""
    message.metadata.__dict__["_message_id"] = message_id


def error_reply(message: Message, code: int, reason: str) -> Message:
    """The reply that stands for a client which cannot answer."""
    return Message(Error(code, reason), reply_to=message)


def describe(message: Message) -> tuple[int | None, str]:
    """(round, phase) of an instruction; the round from its config or group, if at all."""
    phase = message.metadata.message_type.split(".")[0]
    phase = {"get_parameters": "query", "get_properties": "query"}.get(phase, phase)
    if message.has_content():
        for record in message.content.config_records.values():
            value = record.get(ROUND_KEY)
            if isinstance(value, int):
                return value, phase
    group = message.metadata.group_id
    return (int(group) if group.isdigit() else None), phase


def summary(reply: Message) -> tuple[int | None, dict[str, Any]]:
    """(number of examples, all metrics) of a reply."""
    metrics: dict[str, Any] = {}
    if reply.has_content():
        for record in reply.content.metric_records.values():
            metrics.update(record)
    examples = metrics.pop(NUM_EXAMPLES_KEY, None)
    counted = isinstance(examples, int | float) and math.isfinite(examples)
    return (int(examples) if counted else None), metrics


# --- applications -------------------------------------------------------------------------------------------


def project(folder: Path) -> dict[str, Any]:
    """An application's pyproject.toml, checked by Flower."""
    try:
        return get_project_config(folder)
    except (FileNotFoundError, ValueError) as error:
        raise ApplicationError(f"application {folder}: {error}") from error


def run_config(folder: Path, overrides: dict[str, Any], seed: int | None = None) -> dict[str, Any]:
    """The run config: what the application declares, with `overrides` in place.

    `seed` becomes the key `seed` where the application declares one and `overrides` do not set it. Flower
    checks only that keys are declared; here types must agree too (an integer is fine where a float is
    declared).
    """
    project(folder)
    declared = get_fused_config_from_dir(folder, {})
    problems = []
    fitted: dict[str, Any] = {}
    for key, value in overrides.items():
        if key not in declared:
            known = ", ".join(sorted(declared)) or "none"
            problems.append(f"{key}: the application {folder.name} declares no such key. Declared: {known}")
            continue
        want = type(declared[key])
        if want is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not want:
            found = f"{type(value).__name__} {value!r}"
            problems.append(f"{key}: found {found}, the application {folder.name} declares {want.__name__}")
            continue
        fitted[key] = value
    if problems:
        raise ApplicationError("config: " + "; ".join(problems))
    if seed is not None and "seed" in declared and "seed" not in fitted and isinstance(declared["seed"], int):
        fitted["seed"] = seed
    return dict(get_fused_config_from_dir(folder, fitted))


def _load(folder: Path, component: str, kind: type) -> Any:
    reference = str(project(folder)["tool"]["flwr"]["app"]["components"][component])
    try:
        app = load_app(reference, ApplicationError, folder)
    except ApplicationError:
        raise
    except Exception as error:  # the application's own code runs here
        raise ApplicationError(
            f"application {folder}: {reference} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(app, kind):
        raise ApplicationError(
            f"application {folder}: {reference} is a {type(app).__name__}, not a {kind.__name__}"
        )
    module = sys.modules[reference.partition(":")[0]]
    origin = Path(getattr(module, "__file__", None) or folder).resolve()
    if not origin.is_relative_to(folder.resolve()):
        raise ApplicationError(
            f"application {folder}: its module {module.__name__} was already loaded from {origin}. "
            "Two applications with one package name cannot share a process: rename the package, "
            "or start the process without warming."
        )
    return app


def load_server_app(folder: Path) -> ServerApp:
    """Import an application's ServerApp (from `sys.modules` where a warmed parent has done so)."""
    app: ServerApp = _load(folder, "serverapp", ServerApp)
    return app


def load_client_app(folder: Path) -> ClientApp:
    """Import an application's ClientApp (from `sys.modules` where a warmed parent has done so)."""
    app: ClientApp = _load(folder, "clientapp", ClientApp)
    return app


def make_context(
    run: str,
    node_id: int,
    node_config: dict[str, Any],
    config: dict[str, Any],
    state: RecordDict | None = None,
) -> Context:
    """The `Context` that an app is called with."""
    return Context(
        run_id=run_number(run),
        node_id=node_id,
        node_config=node_config,
        state=RecordDict() if state is None else state,
        run_config=config,
    )


# --- what a strategy does, seen from outside ----------------------------------------------------------------


def weights_sha256(arrays: ArrayRecord) -> str:
    """One hash over all arrays, in order: name, type, shape and raw bytes of each (C order)."""
    digest = hashlib.sha256()
    for name, array in arrays.items():
        values = np.ascontiguousarray(array.numpy())
        digest.update(f"{name}\0{values.dtype.str}\0{values.shape}\0".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def model_bytes(arrays: ArrayRecord) -> int:
    """Serialised size of a model's arrays, in bytes."""
    return sum(len(array.data) for array in arrays.values())


class StrategyObserver:
    """Told by `observe_strategies`; all methods may be overridden."""

    def started(self, strategy: str, num_rounds: int | None, arrays: ArrayRecord | None) -> None:
        """A strategy starts, with these initial arrays."""

    def metrics(self, server_round: int, source: str, metrics: MetricRecord) -> None:
        """Metrics of a round; source is server, train or distributed."""

    def aggregated(self, server_round: int, arrays: ArrayRecord) -> None:
        """The arrays that came out of a round's training."""

    def aggregate_took(self, server_round: int, phase: str, seconds: float) -> None:
        """The replies of a phase (train, evaluate) are aggregated."""

    def evaluation_took(self, server_round: int, seconds: float) -> None:
        """The server has evaluated the model; round 0 is before training."""

    def round_took(self, server_round: int, seconds: float) -> None:
        """A round is over, its evaluations included."""

    def finished(self, arrays: ArrayRecord) -> None:
        """A strategy has ended with these arrays."""


@contextmanager
def observe_strategies(observer: StrategyObserver) -> Iterator[None]:
    """While open, each `start` of any `Strategy` subclass tells `observer`, also where a subclass brings its
    own `start`.

    A strategy that wraps another one (differential privacy) is told of once, from the outside.
    """
    patched: list[tuple[type, Callable[..., Any]]] = []
    running: list[Strategy] = []

    def wrap(cls: type) -> None:
        original = cls.__dict__.get("start")
        if original is None or getattr(original, "_cohortnet", False):
            return

        @functools.wraps(original)
        def start(self: Strategy, *args: Any, **kwargs: Any) -> Any:
            if running:
                return original(self, *args, **kwargs)
            running.append(self)
            try:
                clock = RoundClock(observer.round_took)
                with _watched(self, observer, clock):
                    return _observed_start(original, observer, clock, self, args, kwargs)
            finally:
                running.clear()

        start._cohortnet = True  # type: ignore[attr-defined]
        cls.start = start  # type: ignore[attr-defined]
        patched.append((cls, original))

    def init_subclass(cls: type, **kwargs: Any) -> None:
        super(Strategy, cls).__init_subclass__(**kwargs)  # type: ignore[misc]
        wrap(cls)

    for cls in _family(Strategy):
        wrap(cls)
    Strategy.__init_subclass__ = classmethod(init_subclass)  # type: ignore[assignment]
    try:
        yield
    finally:
        del Strategy.__init_subclass__
        for cls, original in patched:
            cls.start = original  # type: ignore[attr-defined]


def _family(cls: type) -> Iterator[type]:
    yield cls
    children: list[type] = cls.__subclasses__()
    for child in children:
        yield from _family(child)


def _observed_start(
    original: Callable[..., Any],
    observer: StrategyObserver,
    clock: RoundClock,
    strategy: Strategy,
    args: Any,
    kwargs: dict[str, Any],
) -> Any:
    bound = inspect.signature(original).bind(strategy, *args, **kwargs)
    bound.apply_defaults()
    given = bound.arguments
    evaluate = given.get("evaluate_fn")
    if callable(evaluate):

        @functools.wraps(evaluate)
        def evaluate_fn(server_round: int, arrays: ArrayRecord) -> Any:
            began = time.monotonic()
            result = evaluate(server_round, arrays)
            observer.evaluation_took(server_round, time.monotonic() - began)
            if isinstance(result, MetricRecord):
                observer.metrics(server_round, "server", result)
            clock.seen(server_round)
            return result

        given["evaluate_fn"] = evaluate_fn
    arrays = given.get("initial_arrays")
    observer.started(
        type(strategy).__name__, given.get("num_rounds"), arrays if isinstance(arrays, ArrayRecord) else None
    )
    result = original(*bound.args, **bound.kwargs)
    clock.ended()
    final = getattr(result, "arrays", None)
    if isinstance(final, ArrayRecord) and len(final) > 0:
        observer.finished(final)
    return result


_WATCHED = ("configure_train", "aggregate_train", "aggregate_evaluate")


@contextmanager
def _watched(strategy: Strategy, observer: StrategyObserver, clock: RoundClock) -> Iterator[None]:
    """Instance attributes in front of three methods, for the time of one `start`. They hand on every argument and
    result, and draw no random number."""
    before = {name: strategy.__dict__[name] for name in _WATCHED if name in strategy.__dict__}
    configure, train, evaluate = (getattr(strategy, name) for name in _WATCHED)

    @functools.wraps(configure)
    def configure_train(server_round: int, *args: Any, **kwargs: Any) -> Any:
        clock.configured(server_round)
        return configure(server_round, *args, **kwargs)

    @functools.wraps(train)
    def aggregate_train(server_round: int, replies: Iterable[Message]) -> Any:
        began = time.monotonic()
        result = train(server_round, replies)
        observer.aggregate_took(server_round, "train", time.monotonic() - began)
        if isinstance(result, tuple) and len(result) == 2:
            if isinstance(result[0], ArrayRecord) and len(result[0]) > 0:
                observer.aggregated(server_round, result[0])
            if isinstance(result[1], MetricRecord):
                observer.metrics(server_round, "train", result[1])
        clock.seen(server_round)
        return result

    @functools.wraps(evaluate)
    def aggregate_evaluate(server_round: int, replies: Iterable[Message]) -> Any:
        began = time.monotonic()
        result = evaluate(server_round, replies)
        observer.aggregate_took(server_round, "evaluate", time.monotonic() - began)
        if isinstance(result, MetricRecord):
            observer.metrics(server_round, "distributed", result)
        clock.seen(server_round)
        return result

    strategy.__dict__.update(zip(_WATCHED, (configure_train, aggregate_train, aggregate_evaluate), strict=True))
    try:
        yield
    finally:
        for name in _WATCHED:
            strategy.__dict__.pop(name, None)
        strategy.__dict__.update(before)


__all__ = ["ArrayRecord", "ClientApp", "ConfigRecord", "Context", "FLOWER_VERSION", "Message", "ServerApp"]
