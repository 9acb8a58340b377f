"""What goes wrong is said, with the name of what is at fault, and the next intent works. On one testbed, one failure
after another."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.links import set_link
from tests.system.conftest import REPOSITORY, delay_options, run
from topology.engine import execution

pytestmark = pytest.mark.live
NAME = "t-fail"
URL = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    import json

    runs = tmp_path_factory.mktemp("runs")
    numbers = ["--cohorts", "2", "--clients", "6", "--campuses", "2", "--runtime", "namespace"]
    done = run("up", "--name", NAME, *numbers, *delay_options(), "--runs", str(runs), "--json")
    try:
        yield json.loads(done.stdout)
    finally:
        run("down", NAME)


DRILLING = (REPOSITORY / "intents" / "drilling.yaml").read_bytes()


def post(content: bytes | None, **form: Any) -> requests.Response:
    files = {} if content is None else {"file": ("intent.yaml", content)}
    data = {name: str(value) for name, value in form.items()}
    return requests.post(f"{URL}/receive", files=files or None, data=data, timeout=30)


def wait_ended(identity: str, timeout_s: float) -> dict[str, Any]:
    deadline = time.monotonic() + timeout_s
    while True:
        intent: dict[str, Any] = requests.get(f"{URL}/v1/intents/{identity}", timeout=10).json()
        if intent["state"] in ("succeeded", "failed", "cancelled"):
            return intent
        assert time.monotonic() < deadline, intent
        time.sleep(0.5)


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (b"intentID: [", {}),
        (b"", {}),
        (b"\xff\xfe", {}),
        (None, {}),
        (DRILLING.replace(b"drilling", b"dancing"), {}),
        (DRILLING.replace(b"high", b"extreme"), {}),
        (DRILLING, {"ipstart": "ten"}),
        (DRILLING, {"ipstart": 200, "cohortsize": 4}),
        (DRILLING, {"fracfit": 7, "numround": -1}),
        (DRILLING, {"avgalgo": "FedMagic"}),
        (b"x" * 10_000_000, {}),
    ],
)
def test_bad_input_is_a_4xx_with_errors_and_the_mlfo_lives_on(
    inventory: dict[str, Any], content: bytes | None, form: dict[str, Any]
) -> None:
    answer = post(content, **{"ipstart": 10, "cohortsize": 2, **form})
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["errors"][0]["message"]
    assert requests.get(f"{URL}/v1/status", timeout=5).status_code == 200


def test_every_error_of_one_intent_is_listed(inventory: dict[str, Any]) -> None:
    content = DRILLING.replace(b"drilling", b"dancing").replace(b"high", b"extreme")
    answer = post(content, ipstart=10, cohortsize=2, fracfit=7)
    text = answer.text
    assert answer.status_code == 400 and all(word in text for word in ("dancing", "extreme", "fracfit"))


def test_a_client_that_cannot_be_reached_fails_the_intent_by_name_and_the_next_one_runs(
    inventory: dict[str, Any],
) -> None:
    set_link(inventory, "fc.11", "swCampus1", False)
    try:
        answer = post(DRILLING, ipstart=10, cohortsize=3, numround=2)
        assert answer.status_code == 202, answer.text
        intent = wait_ended(answer.json()["id"], 120)
        assert intent["state"] == "failed" and "fc.11" in intent["reason"], intent
    finally:
        set_link(inventory, "fc.11", "swCampus1", True)
    again = post(DRILLING, ipstart=10, cohortsize=3, numround=1)
    assert again.status_code == 202, again.text
    assert wait_ended(again.json()["id"], 120)["state"] == "succeeded"


def test_a_client_killed_before_its_cohort_is_complete_fails_the_intent_by_name(inventory: dict[str, Any]) -> None:
    node = next(node for node in inventory["nodes"] if node["name"] == "fc.14")
    execution.execute(inventory, "fc.14", ["sh", "-c", "kill -9 -1"], tty=False, timeout_s=10)
    answer = post(DRILLING, ipstart=13, cohortsize=3, numround=2)
    assert answer.status_code == 202, answer.text
    intent = wait_ended(answer.json()["id"], 150)
    assert intent["state"] == "failed" and "fc.14" in intent["reason"], (intent, node)
    assert requests.get(f"{URL}/v1/status", timeout=5).status_code == 200
