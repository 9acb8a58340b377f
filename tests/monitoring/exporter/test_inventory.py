"""The inventory is read anew when it was replaced, and refused with words where it is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from monitoring.inventory import InventoryError, Watched, parse, read
from tests.monitoring.exporter import data


def test_a_replaced_file_is_read_again_and_only_then(tmp_path: Path) -> None:
    watched = Watched(data.write(tmp_path))
    first, changed = watched.current()
    assert changed and first.names_by_address[bytes((10, 0, 1, 2))] == "fed.1"
    assert first.controller_rest is None and first.period_s == 5.0
    again, changed = watched.current()
    assert again is first and not changed
    data.write(tmp_path, nodes=[data.node("fc.1", 1, cohort=None)], monitoring={"period_s": 0.5},
               published=[{"node": None, "port": 8080, "host": "127.0.0.1", "host_port": 18101}])  # fmt: skip
    second, changed = watched.current()
    assert changed and [node.cohort for node in second.nodes] == [""]
    assert second.period_s == 0.5 and second.controller_rest == ("127.0.0.1", 18101)


def test_nodes_may_have_several_interfaces_or_no_address(tmp_path: Path) -> None:
    plain = data.inventory(tmp_path, nodes=[data.node("fc.1", 1), data.node("fed.1", 2, address="")])
    plain["links"].append({**plain["links"][0], "name": "fc.1--fed.1", "b": "fed.1", "b_port": None,
                           "a_interface": "fc.1-eth1", "b_interface": "eth1"})  # fmt: skip
    inventory = parse(plain)
    assert inventory.interfaces == {"fc.1": ("eth0", "fc.1-eth1"), "fed.1": ("eth0", "eth1")}
    assert [inventory.nodes[0].device(name) for name in inventory.interfaces["fc.1"]] == ["fc.1-eth0", "fc.1-eth1"]
    assert list(inventory.names_by_address.values()) == ["fc.1"]


def test_refusals_name_the_file_and_what_is_wrong(tmp_path: Path) -> None:
    missing = tmp_path / "none.json"
    with pytest.raises(InventoryError, match="none.json: No such file.*cohortnet ls"):
        read(missing)
    missing.write_text("{")
    with pytest.raises(InventoryError, match="none.json is no JSON"):
        read(missing)
    missing.write_text(json.dumps({"version": 7}))
    with pytest.raises(InventoryError, match="version 7; this program reads version 1"):
        read(missing)
    broken = data.inventory(tmp_path)
    del broken["nodes"][1]["interface"]
    with pytest.raises(InventoryError, match="KeyError at 'interface'"):
        parse(broken)
