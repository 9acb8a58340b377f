"""What `topo.py N` does: raise the preset (or a file) and open the prompt. Removes the testbed when the prompt is
left."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import typer

from cohortnet.choose import Choice
from cohortnet.cli import print_raised, raise_chosen
from cohortnet.follow import console_for
from cohortnet.terminal import need_root, reported, typed_as

EXAMPLES = """examples:
  sudo python topo.py 3                                        three cohorts, 50 clients, Docker containers
  sudo python topo.py 5 --runtime namespace --no-shell         the same with namespaces; stays up, no prompt
  sudo python topo.py 3 --clients 12 --allow-unsupported delay on a kernel without netem
  sudo python topo.py 3 --monitoring                           with Prometheus and its exporter
  sudo python topo.py --file testbed.yaml                      any testbed file
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="topo.py", description="Raise the factory-satellite testbed with N cohorts and open a prompt.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("cohorts", nargs="?", type=int, metavar="N", help="number of cohorts (FL servers)")
    parser.add_argument("--clients", type=int, help="number of FL clients (default 50)")
    parser.add_argument("--campuses", type=int, help="number of campus switches (default 5)")
    parser.add_argument("--runtime", help="docker (default) or namespace")
    parser.add_argument("--file", type=Path, help="a testbed file instead of the preset")
    parser.add_argument("--name", help="the testbed's name")
    parser.add_argument("--seed", type=int, help="seed of partitions, selection and training")
    parser.add_argument("--allow-unsupported", action="append", default=[], metavar="PROPERTY",
                        help="go on without what this kernel cannot do, e.g. delay")  # fmt: skip
    parser.add_argument("--monitoring", action="store_true",
                        help="measure everything while it is up: exporter and Prometheus")  # fmt: skip
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder for the records of runs")
    parser.add_argument("--no-shell", action="store_true", help="leave the testbed up and open no prompt")
    return parser


def run(argv: Sequence[str]) -> None:
    """Raise, prompt, remove. Exits as the command line does."""
    parser = _parser()
    typed = parser.parse_args(argv)
    if typed.cohorts is None and typed.file is None:
        parser.error("say how many cohorts, such as `sudo python topo.py 3`, or give --file")
    need_root()
    choice = Choice(typed.file, None, typed.cohorts, typed.clients, typed.campuses, typed.name, typed.runtime,
                    typed.seed, typed.allow_unsupported, typed.monitoring)  # fmt: skip
    with reported():
        inventory = raise_chosen(choice, typed.runs)
        if typed.no_shell:
            print_raised(inventory)
            return
        from cohortnet.prompt import Prompt
        from topology.engine import interrupts

        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
        try:
            print_raised(inventory)
            Prompt(inventory, console_for()).cmdloop()
        except KeyboardInterrupt:
            _say("")
        finally:
            with interrupts.uninterrupted():
                whole = _remove(inventory["testbed"])
        if not whole:
            raise typer.Exit(1)


def _remove(name: str) -> bool:
    """Remove the testbed and say so; whether nothing is left."""
    from cohortnet.lifecycle import remove_all

    _say(f"Removing {name} ...")
    removal = remove_all(name, lambda *_: None)
    _say(f"Removed {name}: {len(removal.removed)} things")
    if removal.left:
        _say(f"could not remove: {', '.join(removal.left)}; `sudo {typed_as()} down {name}` tries again", sys.stderr)
    return not removal.left


def _say(text: str, stream: TextIO | None = None) -> None:
    with contextlib.suppress(OSError):  # the terminal may be closed: what was raised has to go all the same
        print(text, file=stream or sys.stdout, flush=True)


def main(argv: Sequence[str]) -> int:
    """Exit status of `topo.py`."""
    try:
        run(argv)
    except typer.Exit as ended:
        return ended.exit_code
    return 0
