"""What is typed after `cohortnet link` and `cohortnet node`, and at the prompt, before anything is done."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from cohortnet import cli_links, cli_nodes, prompt
from cohortnet.cli import app
from cohortnet.prompt import Prompt
from cohortnet.show import changed_link_table, describe_shape, node_table
from topology.errors import TestbedProblems
from topology.model import parse_testbed
from topology.plan import Shape
from topology.planning import make_plan


def test_changes_are_read_in_the_units_of_the_testbed_file() -> None:
    typed = {"rate": "10mbit", "delay": "20ms", "jitter": "3 ms", "distribution": "pareto", "loss": "1%",
             "queue-packets": "50"}  # fmt: skip
    assert Shape(**cli_links.parse_changes(typed, "both")) == Shape(
        rate_bps=10_000_000, delay_s=0.02, jitter_s=0.003, distribution="pareto", loss=0.01, queue_packets=50
    )
    assert cli_links.parse_changes({"rate": "unlimited", "queue-packets": "auto"}, "a-to-b") == {
        "rate_bps": None, "queue_packets": None}  # fmt: skip
    assert cli_links.parse_changes({"jitter": "0ms"}, "both") == {"jitter_s": 0.0, "distribution": None}


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(TestbedProblems) as refused:
        cli_links.parse_changes({"rate": "10", "delay": "x", "loss": "200%", "distribution": "gauss",
                                 "queue-packets": "0"}, "up")  # fmt: skip
    assert [problem.path for problem in refused.value.problems] == [
        "--rate", "--delay", "--loss", "--distribution", "--queue-packets", "--direction"]  # fmt: skip
    with pytest.raises(TestbedProblems, match="nothing to change"):
        cli_links.parse_changes({}, "both")
    with pytest.raises(TestbedProblems) as refused:
        cli_nodes.parse_limits({"cpu": "fast", "memory": "512", "cpuset": "a-b"})
    assert [problem.path for problem in refused.value.problems] == ["--cpus", "--memory", "--cpuset"]
    limits = cli_nodes.parse_limits({"cpu": "0.5", "memory": "512MiB", "cpuset": "0-1,3"})
    assert (limits.cpu, limits.memory, limits.cpuset) == (0.5, 512 * 2**20, "0-1,3")
    result = CliRunner().invoke(app, ["node", "limit", "fc.10"])
    assert result.exit_code == 2 and "no limit to change" in result.output


def test_tables_show_what_is_in_force_and_what_was_declared() -> None:
    now, declared = Shape(rate_bps=1000), Shape(rate_bps=2000)
    link = {"a": "x", "b": "y", "a_to_b": vars(now), "b_to_a": vars(declared), "state": "down",
            "declared": {"a_to_b": vars(declared), "b_to_a": vars(declared)}}  # fmt: skip
    text = printed(changed_link_table([link]))
    assert "1 kbit/s" in text and "2 kbit/s" in text and "down" in text
    assert describe_shape(Shape(delay_s=0.01, jitter_s=0.002, distribution="normal")) == (
        "unlimited, 10 ms, jitter 2 ms (normal)"
    )
    plan = make_plan(parse_testbed({
        "name": "t", "preset": {"clients": 4, "cohorts": 1},
        "speeds": {"classes": [{"name": "turtle", "count": 4, "cpuset": "0"}]},
    }))  # fmt: skip
    assert "turtle" in printed(node_table(plan.as_dict()["nodes"]))


def printed(table: Any) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("link a s1 down", ["down", "a", "s1"]),
        ("link up a s1", ["up", "a", "s1"]),
        ("link set a s1 --rate 5mbit", ["set", "a", "s1", "--rate", "5mbit"]),
        ("link set a s1 --rate '10 Mbit/s'", ["set", "a", "s1", "--rate", "10 Mbit/s"]),
        ("node pause a", ["pause", "a"]),
    ],
)
def test_the_prompt_takes_the_same_words_and_mininet_s(
    line: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inventory = {"testbed": "t", "nodes": [{"name": "a"}], "switches": [{"name": "s1"}],
                 "paths": {"shared": "/nonexistent"}}  # fmt: skip
    seen: list[Any] = []

    class Command:
        def main(self, given: list[str], prog_name: str, standalone_mode: bool) -> None:
            seen.append((prog_name, given))

    monkeypatch.setattr(prompt.typer.main, "get_command", lambda _: Command())
    assert Prompt(inventory, Console(file=io.StringIO())).onecmd(line) is False
    assert seen == [(line.split()[0], [*words, "--testbed", "t"])]


@pytest.mark.parametrize("line", ["link set a s1 --rate '10 Mbit/s", "node pause 'a", "a echo 'b"])
def test_the_prompt_says_that_a_quote_is_open(line: str) -> None:
    inventory = {"testbed": "t", "nodes": [{"name": "a"}], "switches": [], "paths": {"shared": "/nonexistent"}}
    console = Console(file=io.StringIO(), width=200)
    assert Prompt(inventory, console).onecmd(line) is False
    assert isinstance(console.file, io.StringIO)
    assert "a quote is opened and not closed" in console.file.getvalue()
