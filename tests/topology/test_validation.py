"""Wrong testbed files: every problem of each, with its code, its path and its line; and no file ever gives a traceback.

The files are in `wrong/`. A comment `#! CODE PATH` stands in the line that the problem has to be shown at (several are
separated by `;`, a path may be left out where the whole file is meant).
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cohortnet.choose import Choice, choose_testbed
from topology.document import location_of, parse_document, path_text
from topology.errors import TestbedProblems
from topology.model import Testbed, parse_testbed
from topology.planning import make_plan
from topology.validation import check_data, check_file

FILES = sorted((Path(__file__).parent / "wrong").glob("*.yaml"))
VALID = """
name: lab
runtime: namespace
limits: {client: {cpu: 0.5, memory: 64 MiB}}
nodes:
  - {name: a, role: client, address: 10.0.3.1}
  - {name: b, role: server, cpu: 0.25, environment: {A: "1"}}
  - {name: c, role: client, command: [sleep, "60"]}
switches: [{name: left}, {name: right, datapath_id: 7}]
links:
  - {a: a, b: left, rate: 100 Mbit/s}
  - {a: b, b: right, delay: 5 ms, up: {jitter: 1 ms, loss: 1 %}}
  - {a: c, b: left}
  - {a: left, b: right, rate: 20 Mbit/s, down: {rate: 50 Mbit/s}}
cohorts: [{name: "1", server: b, clients: [a, c]}]
publish: [{node: b, port: 80, host_port: 8100}]
controller: {kind: builtin, rest_host_port: 8101}
meters: [{name: m, cohort: 1, rate: 5 Mbit/s, burst: 5 Mbit}]
traffic: [{name: t, from: a, to: b, rate: 1 Mbit/s, pattern: on-off, period: 2 s, on: 1 s}]
allow_unsupported: [delay]
"""
PRESETS = """
name: lab
preset: {kind: graph, graph: topozoo/Abilene, cohorts: 2, clients: 8, delay: distance, core: Atlanta, place: [Seattle]}
allow_unsupported: [delay]
"""


def expected(text: str) -> list[tuple[int, str, str]]:
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        for mark in line.partition("#! ")[2].split(";") if "#! " in line else ():
            code, _, path = mark.strip().partition(" ")
            found.append((number, code, path))
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_wrong_file_is_told_all_that_is_wrong_with_it_and_where(file: Path) -> None:
    wanted = expected(file.read_text())
    assert wanted, f"{file.name} says nowhere what is wrong with it"
    with pytest.raises(TestbedProblems) as caught:
        check_file(file)
    found = [(problem.line, problem.code, problem.path) for problem in caught.value.problems]
    assert sorted(found, key=str) == sorted(wanted, key=str), str(caught.value)
    for problem in caught.value.problems:
        assert problem.file == str(file) and str(problem).startswith(f"{file}:{problem.line}: ")
        assert problem.message and problem.column is not None


def test_there_are_many_wrong_files_and_many_kinds() -> None:
    codes = {code for file in FILES for _, code, _ in expected(file.read_text())}
    print(f"{len(FILES)} files, {len(codes)} codes: {', '.join(sorted(codes))}")
    assert len(FILES) >= 40 and len(codes) >= 30


def test_valid_files_are_valid(tmp_path: Path) -> None:
    for text in (VALID, PRESETS):
        (tmp_path / "valid.yaml").write_text(text)
        testbed, plan = check_file(tmp_path / "valid.yaml")
        assert testbed == parse_testbed(yaml.safe_load(text)) and plan == make_plan(testbed)


def test_the_hint_is_what_was_probably_meant() -> None:
    data = {
        "name": "x", "runtime": "namespac", "swiches": [], "preset": {"kind": "thre-access"},
        "nodes": [{"name": "a", "rol": "client", "mem": "1 GiB"}],
        "links": [{"a": "a", "b": "s", "bandwidth": "1 Mbit/s", "lose": "1 %"}],
    }  # fmt: skip
    with pytest.raises(TestbedProblems) as caught:
        check_data(data)
    hints = {problem.path: problem.hint for problem in caught.value.problems}
    meant = {"runtime": "namespace", "swiches": "switches", "nodes[0].rol": "role", "nodes[0].mem": "memory",
             "preset.kind": "three-access", "links[0].bandwidth": "rate", "links[0].lose": "loss"}  # fmt: skip
    assert hints == {path: f"did you mean `{word}`?" for path, word in meant.items()}
    with pytest.raises(TestbedProblems, match="allowed are name, datapath_id"):
        check_data({"name": "x", "switches": [{"name": "s", "qqq": 1}]})


def test_what_was_not_judged_is_named() -> None:
    with pytest.raises(TestbedProblems) as caught:
        check_data({"name": "x", "nodes": [{"name": "a"}], "links": [{"a": "a"}, {"a": "a", "b": "ghost"}]})
    assert [problem.code for problem in caught.value.problems] == ["missing-key", "unknown-node"]
    assert caught.value.unchecked[0] == "links[0]" and "how links join the nodes" in caught.value.unchecked


def test_options_take_the_place_of_the_file_s_keys(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("name: lab\nallow_unsupported: [loss]\npreset: {cohorts: 1, clients: 1}\n")
    testbed, plan = choose_testbed(
        Choice(tmp_path / "x.yaml", name="other", seed=7, allow_unsupported=["delay"])
    )
    assert (testbed.name, plan.testbed, plan.seed) == ("other", "other", 7)
    assert plan.allow_unsupported == ("loss", "delay")


def test_json_has_the_place_and_what_was_not_judged(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("name: x\nnodes:\n  - name: a\n    rol: client\n")
    done = subprocess.run([sys.executable, "-m", "cohortnet", "validate", str(tmp_path / "x.yaml"), "--json"],
                          capture_output=True, text=True, check=False, timeout=60)  # fmt: skip
    assert done.returncode == 2 and done.stderr == ""
    answer = json.loads(done.stdout)
    assert {(e["path"], e["line"], e["column"], e["code"]) for e in answer["errors"]} == {
        ("nodes[0]", 3, 3 + 2, "links-of-node"), ("nodes[0].rol", 4, 5, "unknown-key")}  # fmt: skip
    assert answer["unchecked"] == ["which roles nodes have"]


# Documents


def test_paths_and_locations_are_one_another_s_opposite() -> None:
    for location in (("links", 3, "up", "rate"), ("a",), ("cohorts", 0, "clients", 12), ()):
        assert location_of(path_text(location)) == location


def test_aliases_and_merges_are_found_where_they_stand() -> None:
    text = "base: &b {rate: 1}\nlist:\n  - *b\n  - {<<: *b, delay: 2}\n  - <<: *b\n    rate: 3\n"
    document = parse_document(text)
    assert document.data["list"][2] == {"rate": 3} and document.problems == ()
    lines = {path: document.place(path) for path in ("list[0]", "list[1].delay", "list[1].rate", "list[2].rate")}
    assert {path: place.line for path, place in lines.items() } == {
        "list[0]": 3, "list[1].delay": 4, "list[1].rate": 1, "list[2].rate": 6}  # fmt: skip
    nearest = document.place("list[1].nothing.at[3].all")
    assert nearest.line == 4


def test_a_file_of_aliases_without_end_is_refused_quickly() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    document = parse_document("\n".join([*lines, "name: *a59", "nodes: [*a59]"]))
    with pytest.raises(TestbedProblems) as caught:
        check_data(document.data)
    assert len(str(caught.value)) < 20_000
    ring = parse_document("name: lab\nnodes: &n [*n]\nlinks: &l [{a: x, b: y, up: *l}]\n")
    with pytest.raises(TestbedProblems):
        check_data(ring.data)


# Whatever is in a file, the answer is a plan or problems


def judged(text: str) -> None:
    try:
        document = parse_document(text)
        check_data(document.data)
    except TestbedProblems as error:
        assert error.problems


JUNK: list[Any] = [
    *(None, True, 0, -1, 10**30, 1.5, float("nan")),
    *("", "x", "10 Mbit/s", "é" * 40, "a\nb", "0" * 300 + " ms"),
    *([], {}, [[]], {1: 2}, ["a"], {"name": "a"}, {"kind": "graph"}),
]


def mutate(data: Any, choose: random.Random) -> None:
    """Change one place of it: take away, put junk, double, swap, rename."""
    owners = [data]
    for owner in owners:
        inside = owner.values() if isinstance(owner, dict) else owner
        owners += [item for item in inside if isinstance(item, dict | list)]
    owner = choose.choice([owner for owner in owners if owner] or [data])
    keys = list(owner) if isinstance(owner, dict) else list(range(len(owner)))
    if not keys:
        return
    key, other = choose.choice(keys), choose.choice(keys)
    action = choose.randrange(5)
    if action == 0:
        del owner[key]
    elif action == 1:
        owner[key] = choose.choice(JUNK)
    elif action == 2:
        owner[key], owner[other] = owner[other], owner[key]
    elif isinstance(owner, list):
        owner.insert(key, owner[other])
    else:
        owner[choose.choice(["a", "name", "up", 1, None, "rate", str(key)[:-1]])] = owner[key]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), st.integers(1, 6), st.sampled_from([VALID, VALID, PRESETS]))
def test_a_valid_file_with_random_changes_never_gives_a_traceback(seed: int, changes: int, text: str) -> None:
    data, choose = yaml.safe_load(text), random.Random(seed)
    for _ in range(changes):
        mutate(data, choose)
    try:
        testbed, plan = check_data(data)
        assert isinstance(testbed, Testbed) and plan.nodes
    except TestbedProblems as error:
        assert error.problems


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(VALID)), st.integers(0, 12), st.text(alphabet="{}[]:,-&*#!|>'\"\n\t ab0<%é\x00", max_size=6))
def test_a_valid_file_with_random_characters_never_gives_a_traceback(start: int, length: int, text: str) -> None:
    judged(VALID[:start] + text + VALID[start + length :])


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 3))
def test_what_the_rest_of_a_file_is_told_is_true_of_the_whole(seed: int, changes: int) -> None:
    """Problems that are reported beside wrong parts are still there when the wrong parts have been put right."""
    choose = random.Random(seed)
    data = yaml.safe_load(VALID)
    for _ in range(changes):
        owner = choose.choice([*data["nodes"], *data["links"], *data["cohorts"], *data["publish"], *data["traffic"]])
        key = choose.choice([key for key in owner if isinstance(owner[key], str)])
        owner[key] = choose.choice(["ghost", "a", "b", "left", "c"])
    try:
        check_data(data)
        whole = set()
    except TestbedProblems as error:
        if any(problem.code in ("bad-value", "wrong-type") for problem in error.problems):
            return
        whole = {(problem.path, problem.code) for problem in error.problems}
    spoilt = yaml.safe_load(yaml.safe_dump(data))
    kind = choose.choice(["nodes", "links", "switches", "cohorts", "meters", "traffic", "publish"])
    owner = choose.choice(spoilt[kind])
    key = choose.choice([key for key in owner])
    owner[key] = choose.choice([{}, 3.5, None, [], "!"])
    try:
        check_data(spoilt)
    except TestbedProblems as error:
        try:
            parse_testbed(spoilt)
            return  # still well formed: another file, and not one with a wrong part
        except TestbedProblems as schema:
            own = {(problem.path, problem.code) for problem in schema.problems}
        assert {(problem.path, problem.code) for problem in error.problems} - own <= whole, (kind, key, owner)
