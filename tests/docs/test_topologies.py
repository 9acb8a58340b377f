"""Every testbed of docs/topologies.md is raised as it stands there; only names and host ports are the test's own."""

from __future__ import annotations

import pytest
import yaml

from tests.docs.test_docs import blocks, page
from tests.topology.engine import lab
from topology.model import parse_testbed
from topology.planning import make_plan
from topology.verify.reach import ping
from topology.verify.routes import Routes

FILES = [text for text in blocks(page("docs/topologies.md"), "yaml") if text.startswith("name:")]


@pytest.mark.live
@pytest.mark.parametrize("text", FILES, ids=[yaml.safe_load(text)["name"] for text in FILES])
def test_every_testbed_of_the_page_comes_up(text: str) -> None:
    data = yaml.safe_load(text)
    allowed = sorted({*data.get("allow_unsupported", []), "delay"})
    data.update(name=f"t-page-{data['name']}", publish=[], allow_unsupported=allowed,
                controller={**data.get("controller", {}), "rest_host_port": lab.free_port()})  # fmt: skip
    plan = make_plan(parse_testbed(data))
    with lab.up(plan) as inventory:
        first, *others = Routes(inventory).nodes
        pairs = [(first, other) for other in others]
        assert [entry.target for entry in ping(inventory, pairs, {}, wait_s=3.0) if not entry.received] == []


def test_the_page_has_testbeds() -> None:
    assert len(FILES) >= 5
