"""Flower's internals that `fl_node/flower.py` stands on. When one of these fails, Flower has moved.

What to do then: read the new source of what the message names, change `fl_node/flower.py` (and `StreamGrid`
for the Grid's methods) until the real runs of `test_run.py` pass again, then put the new name or hash here
and the new version in the requirements.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect

import pytest

MOVED = (
    "Flower has changed: {what}. Read its new source, adapt fl_node/flower.py and fl_node/grid.py, run "
    "tests/fl_node/test_run.py, then update this test and the pinned version."
)
NAMES = [
    ("flwr.app", "ArrayRecord"),
    ("flwr.app", "Error"),
    ("flwr.app", "Message"),
    ("flwr.common.config", "get_fused_config_from_dir"),
    ("flwr.common.config", "get_project_config"),
    ("flwr.common.constant", "SUPERLINK_NODE_ID"),
    ("flwr.common.constant", "ErrorCode.CLIENT_APP_RAISED_EXCEPTION"),
    ("flwr.common.constant", "ErrorCode.NODE_UNAVAILABLE"),
    ("flwr.common.constant", "ErrorCode.REPLY_MESSAGE_UNAVAILABLE"),
    ("flwr.common.serde", "message_from_proto"),
    ("flwr.common.serde", "message_to_proto"),
    ("flwr.common.serde", "recorddict_from_proto"),
    ("flwr.common.serde", "recorddict_to_proto"),
    ("flwr.common.serde_utils", "error_to_proto"),
    ("flwr.common.serde_utils", "metadata_to_proto"),
    ("flwr.proto.message_pb2", "Message"),
    ("flwr.proto.recorddict_pb2", "RecordDict"),
    ("flwr.serverapp.strategy", "Strategy.aggregate_evaluate"),
    ("flwr.serverapp.strategy", "Strategy.aggregate_train"),
    ("flwr.serverapp.strategy", "Strategy.configure_train"),
    ("flwr.serverapp.strategy", "Strategy.start"),
    ("flwr.supercore.object_ref", "load_app"),
    ("flwr.supercore.run", "Run.create_empty"),
    ("flwr.supercore.task_identity", "TaskIdentity"),
    ("flwr.supercore.version", "package_version"),
]
SOURCES = {
    (
        "flwr.serverapp.strategy",
        "Strategy.start",
    ): "ce8c9834e592a75597fe57caef971c2c51585bc31fb7caee40295f9009b266f3",
    (
        "flwr.serverapp.strategy.strategy_utils",
        "sample_nodes",
    ): "5665d8afcffe5ea5681d68de12782b2613a42868da1bf6ef3a917338cd951428",
}


def _get(module: str, path: str) -> object:
    found: object = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(("module", "path"), NAMES, ids=lambda value: str(value))
def test_the_internal_is_there(module: str, path: str) -> None:
    """Each name that is used."""
    try:
        _get(module, path)
    except (ImportError, AttributeError) as error:
        pytest.fail(MOVED.format(what=f"{module}.{path} is gone ({error})"))


@pytest.mark.parametrize(("where", "expected"), SOURCES.items(), ids=lambda value: str(value))
def test_the_source_is_the_one_that_was_read(where: tuple[str, str], expected: str) -> None:
    """The loop that is observed, and the sampling that waits without end."""
    found = hashlib.sha256(inspect.getsource(_get(*where)).encode()).hexdigest()  # type: ignore[arg-type]
    assert found == expected, MOVED.format(what=f"the source of {'.'.join(where)} has hash {found}")


def test_the_version() -> None:
    """The version that all of this was read in."""
    from fl_node.flower import FLOWER_VERSION

    assert FLOWER_VERSION == "1.41.0", MOVED.format(what=f"version {FLOWER_VERSION}, read was 1.41.0")


def test_the_grid_has_the_methods_that_are_implemented() -> None:
    """No new abstract method, none gone."""
    from flwr.serverapp import Grid

    expected = {
        "set_run",
        "run",
        "create_message",
        "get_node_ids",
        "push_messages",
        "pull_messages",
        "send_and_receive",
    }
    assert set(Grid.__abstractmethods__) == expected, MOVED.format(
        what=f"Grid's methods are {Grid.__abstractmethods__}"
    )


def test_what_is_timed_is_called_as_it_was_read() -> None:
    """The round's number comes first, and the server's evaluation is a parameter of `start`."""
    from flwr.serverapp.strategy import Strategy

    for name in ("configure_train", "aggregate_train", "aggregate_evaluate"):
        found = list(inspect.signature(getattr(Strategy, name)).parameters)
        assert found[:2] == ["self", "server_round"], MOVED.format(what=f"Strategy.{name} takes {found}")
    parameters = inspect.signature(Strategy.start).parameters
    for name in ("num_rounds", "evaluate_fn", "initial_arrays"):
        assert name in parameters, MOVED.format(what=f"Strategy.start takes {list(parameters)}")


def test_a_message_takes_its_identity_from_the_task() -> None:
    """`Message(...)` reads TaskIdentity, and its id can be set through its metadata."""
    from flwr.app import RecordDict

    from fl_node import flower

    flower.set_identity("a run", 5)
    message = flower.Message(RecordDict(), 7, "train")
    assert (message.metadata.run_id, message.metadata.src_node_id) == (flower.run_number("a run"), 5)
    flower.set_message_id(message, "m-1")
    assert message.metadata.message_id == "m-1"
    reply = flower.error_reply(message, flower.ERROR_NODE_GONE, "gone")
    assert reply.metadata.reply_to_message_id == "m-1" and reply.error.code == 5
