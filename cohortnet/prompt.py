"""The interactive prompt over a running testbed: what Mininet's users expect, and the intents beside it.

Works on the inventory of any running testbed. A command that fails says why and the prompt goes on.
"""

from __future__ import annotations

import cmd
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import typer
from rich.console import Console

from cohortnet import show
from cohortnet.cli_links import link_app
from cohortnet.cli_meters import meter_app, show_app
from cohortnet.cli_nodes import node_app
from cohortnet.cli_traffic import traffic_app
from cohortnet.controller_client import Controller, controller_url
from cohortnet.orchestrator import Orchestrator, OrchestratorError, edge_url
from cohortnet.probe import ping_all, tcp_goodput
from cohortnet.show_controller import meter_table
from topology.engine import execution
from topology.errors import TopologyError
from topology.inventory import read_inventory
from topology.units import format_rate

COMMAND_TIMEOUT_S = 3600.0


def split_words(line: str) -> list[str]:
    """The words of a line, as a shell reads them: quoted ones stay together. Raises ValueError for an open quote."""
    try:
        return shlex.split(line)
    except ValueError:
        raise ValueError(f"{line!r}: a quote is opened and not closed, or a backslash stands at the end") from None


class Prompt(cmd.Cmd):
    """`cohortnet> `; any line that begins with a node's name runs the rest in that node."""

    prompt = "cohortnet> "

    def __init__(self, inventory: Mapping[str, Any], console: Console) -> None:
        super().__init__()
        self.inventory = inventory
        self.console = console
        self.nodes = {node["name"]: node for node in inventory["nodes"]}
        self.switches = {switch["name"] for switch in inventory["switches"]}
        self.intro = (
            f"Testbed {inventory['testbed']} is up: {len(self.nodes)} nodes, {len(self.switches)} switches. "
            "`help` lists the commands, `exit` removes the testbed."
        )

    # -- what cmd.Cmd calls -----------------------------------------------------------------------------------------

    def onecmd(self, line: str) -> bool:
        """Run one line; an error of any command is shown, not raised."""
        word, _, rest = line.strip().partition(" ")
        try:
            self._read_again()
            if word in self.nodes:
                return self._in_node(word, rest.strip())
            return bool(super().onecmd(line))
        except subprocess.TimeoutExpired as error:
            self.console.print(
                f"error: not ended after {error.timeout:g} s, so it was ended", style="red", markup=False
            )
        except (TopologyError, OrchestratorError, OSError, ValueError) as error:
            self.console.print(f"error: {error}", style="red", markup=False)
        except KeyboardInterrupt:
            self.console.print("interrupted")
        return False

    def _read_again(self) -> None:
        """Nodes and links may have come and gone, by whatever terminal."""
        path = Path(self.inventory["paths"]["shared"]) / "inventory.json"
        if path.exists():
            self.inventory = read_inventory(path)
            self.nodes = {node["name"]: node for node in self.inventory["nodes"]}
            self.switches = {switch["name"] for switch in self.inventory["switches"]}

    def emptyline(self) -> bool:
        """An empty line does nothing (and does not repeat the last command)."""
        return False

    def default(self, line: str) -> None:
        """Neither a command nor a node."""
        if line == "EOF":
            return
        word = line.split()[0]
        self.console.print(f"{word!r} is no command and no node; `help` lists the commands, `nodes` the nodes")

    def completenames(self, text: str, *ignored: Any) -> list[str]:
        """Commands and nodes, for the tabulator key."""
        return [*super().completenames(text, *ignored), *(n for n in self.nodes if n.startswith(text))]

    # -- commands ---------------------------------------------------------------------------------------------------

    def do_nodes(self, _: str) -> None:
        """nodes: list the nodes with role, cohort and address."""
        self.console.print(show.node_table(self.inventory["nodes"]))

    def do_links(self, _: str) -> None:
        """links: list the links with what each direction does."""
        self.console.print(show.link_table(self.inventory["links"]))

    def do_switches(self, _: str) -> None:
        """switches: list the switches with their ports."""
        self.console.print(show.switch_table(self.inventory["switches"]))

    def do_cohorts(self, _: str) -> None:
        """cohorts: list the cohorts with server and clients."""
        self.console.print(show.cohort_table(self.inventory["cohorts"]))

    def do_pingall(self, line: str) -> None:
        """pingall [SECONDS]: ping every node from every node (each echo waits SECONDS, default 1)."""
        wait_s = float(line) if line.strip() else 1.0
        matrix = ping_all(self.inventory, wait_s=wait_s)
        lost = [(a, b) for (a, b), ok in matrix.items() if not ok]
        for a, b in lost[:20]:
            self.console.print(f"{a} -> {b}: no answer")
        percent = 100.0 * len(lost) / max(1, len(matrix))
        self.console.print(f"{len(matrix) - len(lost)} of {len(matrix)} pairs answered, {percent:g} % lost")

    def do_iperf(self, line: str) -> None:
        """iperf CLIENT SERVER [SECONDS]: TCP goodput from CLIENT to SERVER (default 5 seconds)."""
        words = line.split()
        if len(words) not in (2, 3):
            raise ValueError("type `iperf CLIENT SERVER [SECONDS]`, such as `iperf fc.10 fed.1`")
        seconds = float(words[2]) if len(words) == 3 else 5.0
        result = tcp_goodput(self.inventory, words[0], words[1], seconds=seconds)
        self.console.print(
            f"{words[0]} -> {words[1]}: {format_rate(round(result.goodput_bps))} in {seconds:g} s, "
            f"{result.retransmits} retransmissions, congestion control {result.congestion_control}"
        )

    def do_link(self, line: str) -> None:
        """link A B up|down, link set|show|reset ...: as `cohortnet link`, e.g. link set fc.10 swCampus1 --rate 5mbit"""
        words = split_words(line)
        if len(words) == 3 and words[2] in ("up", "down"):  # Mininet's order
            words = [words[2], words[0], words[1]]
        self._as_typed(link_app, "link", shlex.join(words))

    def do_node(self, line: str) -> None:
        """node list|add|remove|restart|pause|resume|limit ...: as `cohortnet node`, e.g. node pause fc.10"""
        self._as_typed(node_app, "node", line)

    def do_intents(self, line: str) -> None:
        """intents [FILE [NAME=VALUE ...]]: list the intents; with FILE post it (ipstart=10 cohortsize=4 numround=3
        ...)."""
        mlfo = Orchestrator(edge_url(self.inventory))
        words = split_words(line)
        if not words:
            self.console.print(show.intent_table(mlfo.intents()))
            return
        pairs = [word.partition("=") for word in words[1:]]
        wrong = [name for name, equals, _ in pairs if not equals]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is not NAME=VALUE, such as ipstart=10")
        answer = mlfo.send(Path(words[0]), {name: value for name, _, value in pairs})
        self.console.print(f"intent {answer['id']} {answer['state']}")

    def do_meters(self, _: str) -> None:
        """meters: list the meters in force."""
        self.console.print(meter_table(Controller(controller_url(self.inventory)).meters()))

    def do_meter(self, line: str) -> None:
        """meter set|show|rm ...: as `cohortnet meter`, e.g. meter set lab --cohort 1 --up 20mbit --down 50mbit"""
        self._as_typed(meter_app, "meter", line)

    def do_show(self, line: str) -> None:
        """show flows|meters|ports [--switch S]: what the switches have now"""
        self._as_typed(show_app, "show", line)

    def do_traffic(self, line: str) -> None:
        """traffic list|start|stop|set ...: as `cohortnet traffic`, e.g. traffic set background --rate 10mbit"""
        self._as_typed(traffic_app, "traffic", line)

    def _as_typed(self, commands: typer.Typer, name: str, line: str) -> None:
        words = split_words(line)
        if words and "--help" not in words:
            words += ["--testbed", self.inventory["testbed"]]
        try:
            typer.main.get_command(commands).main(words or ["--help"], prog_name=name, standalone_mode=False)
        except click.ClickException as error:  # what the command line would say of wrong options
            raise ValueError(error.format_message()) from None
        except click.exceptions.Exit:
            return  # the command has said why

    def do_exit(self, _: str) -> bool:
        """exit: leave the prompt; the testbed is removed."""
        return True

    do_quit = do_exit

    def do_EOF(self, _: str) -> bool:  # noqa: N802 - the name that cmd.Cmd looks up at the end of input
        """The end of input is `exit`."""
        self.console.print("")
        return True

    def _in_node(self, name: str, command: str) -> bool:
        words = split_words(command) if command else ["bash"]
        # A node's name in a command stands for its address, as in Mininet: `fc.10 ping -c 3 fed.1`.
        words = [words[0], *(self.nodes[w]["address"] if w in self.nodes else w for w in words[1:])]
        result = execution.execute(self.inventory, name, words, tty=True, timeout_s=COMMAND_TIMEOUT_S)
        if result.returncode:
            self.console.print(f"(exit status {result.returncode})")
        return False
