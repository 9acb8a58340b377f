"""Mo-Mo on the wire: a peer that knows only the family's fields, wrong requests, idempotence, servers whose
runs have ended."""

from __future__ import annotations

import concurrent.futures
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from mlfo import catalogue, central
from mlfo.__main__ import CATALOGUE as central_catalogue
from mlfo.agents import Agents as RealAgents
from mlfo.inventory import InventoryFile
from mlfo.metrics import Metrics
from mlfo.proto import momo_pb2, momo_pb2_grpc
from mlfo.store import Store
from tests.mlfo.harness import Testbed

Make = Callable[..., Testbed]
FAMILY = {
    "Intent": [("intentID", 1, "s"), ("Targets", 2, "Target*")],
    "Target": [("ID", 1, "s"), ("operation", 2, "s"), ("operand", 3, "s"), ("Constraints", 4, "Constraints")],
    "Constraints": [
        (name, number, "s")
        for number, name in enumerate(
            (
                "privacylevel",
                "sourcekind",
                "modelkind",
                "fracfit",
                "minfit",
                "minav",
                "numround",
                "sameserv",
                "avgalgo",
            ),
            1,
        )
    ],
    "Status": [("status", 1, "s")],
}


def family_messages() -> dict[str, Any]:
    """The family's own messages, built from their field numbers, apart from this project's."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="family.proto", package="momo", syntax="proto3")
    for name, fields in FAMILY.items():
        message = file.message_type.add(name=name)
        for label, number, kind in fields:
            f = message.field.add(
                name=label,
                number=number,
                label=field.LABEL_REPEATED if kind.endswith("*") else field.LABEL_OPTIONAL,
            )
            f.type = field.TYPE_STRING if kind == "s" else field.TYPE_MESSAGE
            if kind != "s":
                f.type_name = f".momo.{kind.rstrip('*')}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {n: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"momo.{n}")) for n in FAMILY}


def family_intent(messages: dict[str, Any], **changes: str) -> Any:
    said = {
        "privacylevel": "high",
        "sourcekind": "fashionmnist",
        "modelkind": "complex",
        "fracfit": "0.5",
        "minfit": "1",
        "minav": "2",
        "numround": "4",
        "sameserv": "no",
        "avgalgo": "FedAvg",
        **changes,
    }
    target = messages["Target"](
        ID="factory.all",
        operation="aggregate.global",
        operand="model.federated",
        Constraints=messages["Constraints"](**said),
    )
    return messages["Intent"](intentID="edgeintent02", Targets=[target])


def test_this_projects_field_numbers_are_the_familys() -> None:
    for name, fields in FAMILY.items():
        ours = getattr(momo_pb2, name).DESCRIPTOR.fields_by_name
        assert {label: ours[label].number for label, _, _ in fields} == {
            label: number for label, number, _ in fields
        }
        assert all(f.number >= 16 for n, f in ours.items() if n not in {label for label, _, _ in fields})


def test_a_peer_of_the_family_gets_a_server(testbed: Make) -> None:
    bed = testbed(2, 2)
    messages = family_messages()
    with grpc.insecure_channel(f"127.0.0.1:{bed.grpc_port}") as channel:
        deploy = channel.unary_unary(
            "/momo.Orchestrate/Deploy",
            request_serializer=messages["Intent"].SerializeToString,
            response_deserializer=messages["Status"].FromString,
        )
        assert deploy(family_intent(messages), timeout=20).status == "127.0.0.101:6000"
        assert deploy(family_intent(messages), timeout=20).status == "127.0.0.102:6000"
        with pytest.raises(grpc.RpcError) as error:
            deploy(family_intent(messages), timeout=20)
        assert (
            error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            and "fed.1 by momo-edgeintent02-" in error.value.details()
        )
        with pytest.raises(grpc.RpcError) as error:
            deploy(family_intent(messages, fracfit="7", minfit="x", avgalgo="FedFoo"), timeout=20)
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert all(word in error.value.details() for word in ("fracfit", "minfit", "avgalgo", "FedAvg"))
        stub = momo_pb2_grpc.OrchestrateStub(channel)
        run = stub.Servers(momo_pb2.ServersRequest(), timeout=5).servers[0].run_id
        stub.Release(momo_pb2.Run(run_id=run), timeout=10)
    # Its clients will be started by the family's form, so its server is too.
    assert bed.agents.requests[("fed.1", "server", "legacy")]["form"] == {
        "algo": "FedAvg",
        "fracfit": "0.5",
        "minfit": "1",
        "minav": "2",
        "numround": "4",
        "source": "fashionmnist",
        "model": "lenet",
    }
    assert bed.agents.processes[("fed.1", "server", "legacy")]["state"] == "stopped"


def _request(run: str, cohort: str = "1") -> momo_pb2.Intent:
    target = momo_pb2.Target(
        ID="t",
        operation="aggregate.global",
        operand="model.federated",
        Constraints=momo_pb2.Constraints(privacylevel="high"),
    )
    config = json.dumps({"num-server-rounds": 3})
    return momo_pb2.Intent(
        intentID="i",
        Targets=[target],
        run_id=run,
        cohort=cohort,
        clients=["fc.10"],
        config_json=config,
        application="image_classification",
        seed=5,
    )


def test_deploy_is_idempotent_also_at_the_same_time_and_release_is_final(testbed: Make) -> None:
    bed = testbed(2, 2)
    with grpc.insecure_channel(f"127.0.0.1:{bed.grpc_port}") as channel:
        stub = momo_pb2_grpc.OrchestrateStub(channel)
        with concurrent.futures.ThreadPoolExecutor(10) as pool:
            replies = list(pool.map(lambda _: stub.Deploy(_request("run-1"), timeout=20), range(10)))
        assert {r.status for r in replies} == {"127.0.0.101:6000"} and replies[0].server == "fed.1"
        assert [k for k in bed.agents.requests if k[1] == "server"] == [("fed.1", "server", "run-1")]
        busy = stub.Deploy(_request("run-2"), timeout=20)
        assert busy.server == "fed.2" and "held by the live run run-1" in busy.notes[0]
        for _ in range(2):
            stub.Release(momo_pb2.Run(run_id="run-1"), timeout=10)
        assert bed.agents.processes[("fed.1", "server", "run-1")]["state"] == "stopped"
        with pytest.raises(grpc.RpcError) as error:
            stub.Deploy(_request("run-1"), timeout=10)
        assert (
            error.value.code() == grpc.StatusCode.FAILED_PRECONDITION and "released" in error.value.details()
        )
        assert stub.Deploy(_request("run-3"), timeout=10).server == "fed.1"
        assert sorted(stub.Reset(momo_pb2.ResetRequest(), timeout=20).freed) == ["fed.1", "fed.2"]


def test_wrong_requests_end_with_a_status_and_the_central_lives_on(testbed: Make) -> None:
    bed = testbed(1, 1)
    with grpc.insecure_channel(f"127.0.0.1:{bed.grpc_port}") as channel:
        for bad in (momo_pb2.Intent(intentID="x"), _request("Bad Id"), _request("r", "nine")):
            with pytest.raises(grpc.RpcError) as error:
                momo_pb2_grpc.OrchestrateStub(channel).Deploy(bad, timeout=10)
            assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT and error.value.details()
        assert momo_pb2_grpc.OrchestrateStub(channel).Deploy(_request("good"), timeout=10).server == "fed.1"


class _Context:
    """A call that is still wanted."""

    def is_active(self) -> bool:
        return True

    def abort(self, code: grpc.StatusCode, text: str) -> None:
        raise AssertionError(f"{code}: {text}")


def test_a_server_whose_run_has_ended_without_release_is_given_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(central, "STALE_S", 0.0)
    bed = Testbed(tmp_path, 1, 1)
    try:
        store = Store(tmp_path / "s.sqlite")
        known = catalogue.load(central_catalogue)
        metrics = Metrics("cloud.0", "central", store.states, store.latest)
        service = central.Central(store, InventoryFile(bed.inventory), known, RealAgents(), metrics, 6000)
        assert service.Deploy(_request("left-behind"), _Context()).server == "fed.1"
        bed.agents.end("fed.1", "server", "left-behind", "succeeded")
        assert service.Deploy(_request("next"), _Context()).server == "fed.1"
        assert store.run("left-behind") == ("released", {"server": "fed.1"})
        with pytest.raises(AssertionError, match="RESOURCE_EXHAUSTED.*fed.1 by next"):
            service.Deploy(_request("third"), _Context())
        store.close()
    finally:
        bed.close()
