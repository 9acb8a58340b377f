"""What strangers send: nothing gives a 5xx, nothing ends the orchestrator, every answer is JSON with all
errors."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlfo import catalogue, rest
from mlfo.agents import Agents
from mlfo.edge import Edge
from mlfo.inventory import InventoryFile
from mlfo.metrics import Metrics
from mlfo.momo import CentralClient
from mlfo.store import Store
from mlfo.times import Times
from tests.mlfo.harness import ROOT, SEED_INTENT, Testbed, free_port, inventory, values

Make = Callable[..., Testbed]


class _Nobody:
    """Workers that never begin: this file is about what is accepted, not about what becomes of it."""

    def submit(self, *args: object) -> None:
        pass

    def shutdown(self, **rest: object) -> None:
        pass


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    import json

    folder: Path = tmp_path_factory.mktemp("edge")
    (folder / "inventory.json").write_text(json.dumps(inventory(2, 4)))
    store = Store(folder / "s.sqlite")
    metrics = Metrics("mo.1", "edge", store.states, store.latest)
    central = CentralClient(f"127.0.0.1:{free_port()}", metrics)
    known = catalogue.load(ROOT / "intents" / "catalogue.yaml")
    edge = Edge(
        "mo.1", store, InventoryFile(folder / "inventory.json"), known, Agents(), central, metrics, Times()
    )
    edge._workers = _Nobody()  # type: ignore[assignment]
    yield rest.build({}, store, metrics, edge, None).test_client()
    edge.stop()
    store.close()


def good(answer: Any) -> None:
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        errors = answer.get_json()["errors"]
        assert errors and all(
            set(e) == {"path", "code", "message", "hint"} and e["code"] and e["message"] for e in errors
        )
    else:
        assert answer.status_code == 202


_fields = st.dictionaries(
    st.sampled_from(
        [
            "ipstart",
            "cohortsize",
            "sameserver",
            "avgalgo",
            "fracfit",
            "minfit",
            "minav",
            "numround",
            "cohort",
            "file",
            "other",
        ]
    )
    | st.text(min_size=1, max_size=5),
    st.text(max_size=8) | st.integers().map(str) | st.sampled_from(["10", "4", "1", "0.5", "FedAvg", "no"]),
    max_size=5,
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    st.binary(max_size=80)
    | st.text(max_size=80).map(lambda t: t.encode("utf-8", "replace"))
    | st.just(SEED_INTENT.encode()),
    _fields,
)
def test_arbitrary_bodies_and_fields_never_give_a_5xx(
    client: FlaskClient, text: bytes, fields: dict[str, str]
) -> None:
    good(client.post("/v1/intents", data=text, content_type="application/x-www-form-urlencoded"))
    fields = {k: v for k, v in fields.items() if k != "file"}
    try:
        answer = client.post(
            "/receive",
            data={**fields, "file": (io.BytesIO(text), "i.yaml")},
            content_type="multipart/form-data",
        )
    except UnicodeEncodeError:
        return  # the test's own client cannot send it
    good(answer)


def test_refusals_over_the_wire_and_the_orchestrator_lives_on(testbed: Make) -> None:
    bed = testbed(2, 4)

    def refused(status: int, **rest_of: Any) -> list[str]:
        answer = requests.post(f"{bed.url}/receive", timeout=20, **rest_of)
        assert answer.status_code == status, answer.text
        return [e["code"] for e in answer.json()["errors"]]

    assert refused(400, files={"file": ("i", b"a: [")}) == ["yaml"]
    assert refused(400, data={"ipstart": 10}, files={"other": ("i", SEED_INTENT)}) == ["files"]
    assert refused(400, files=[("ipstart", (None, "10"))]) == ["missing"]
    assert refused(400, data=b"") == ["empty"]
    assert refused(400, files={"file": ("i", SEED_INTENT.replace("drilling", "dancing"))}) == [
        "unknown_operand"
    ]
    assert refused(400, files={"file": ("i", b"\xff\xfe\x00")}) == ["encoding"]
    assert refused(400, files={"file": ("i", SEED_INTENT)}, data={"ipstart": "15", "cohortsize": "4"}) == [
        "unknown_client"
    ]
    assert refused(413, files={"file": ("i", b"x" * (10 << 20))}) == ["too_large"]
    assert refused(413, data=b"x" * (10 << 20)) == ["too_large"]
    bomb = "a: &a [x,x,x,x,x,x,x,x]\n" + "".join(
        f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert refused(400, files={"file": ("i", bomb)}) == ["alias"]
    measured = values(requests.get(f"{bed.url}/metrics", timeout=5).text)
    for code in ("yaml", "files", "missing", "empty", "unknown_operand", "encoding", "unknown_client", "alias"):
        assert measured[f'mlfo_intents_refused_total{{code="{code}"}}'] == 1, code
    assert measured["mlfo_intents_accepted_total"] == 0
    assert requests.get(f"{bed.url}/v1/intents/nobody", timeout=5).status_code == 404
    assert requests.delete(f"{bed.url}/v1/intents/nobody", timeout=5).status_code == 404
    assert requests.get(f"{bed.url}/nothing", timeout=5).json()["errors"][0]["code"] == "not_found"
    assert requests.get(f"{bed.url}/receive", timeout=5).status_code == 405
    assert requests.get(f"{bed.url}/v1/events?since=x", timeout=5).status_code == 400
    answer = requests.post(f"{bed.url}/v1/intents", data=SEED_INTENT.encode(), timeout=10)
    assert answer.status_code == 202 and answer.headers["Location"] == f"/v1/intents/{answer.json()['id']}"
    assert bed.wait(answer.json()["id"])["state"] == "succeeded"
    assert [i["id"] for i in requests.get(f"{bed.url}/intents", timeout=5).json()["intents"]] == [
        answer.json()["id"]
    ]
