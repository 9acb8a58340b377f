"""`cohortnet top`: what a testbed does now. Picks the testbed and the form of the picture; measures nothing itself."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Annotated

import typer

from cohortnet.terminal import JsonOption, TestbedOption, fail, need_root, pick_testbed, reported


def top(
    testbed: TestbedOption = None,
    once: Annotated[bool, typer.Option("--once", help="Print one picture and end.")] = False,
    as_json: JsonOption = False,
    period: Annotated[float, typer.Option("--period", min=0.2, max=60.0, help="Seconds between two looks.")] = 1.0,
) -> None:
    """Watch a testbed live: cohorts, rounds, accuracy, rates against limits, meters dropping, links, CPU, memory.

    q quits, s sorts the nodes by CPU or memory. Without a terminal it prints plain lines. --json prints one object.
    """
    need_root()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    # SIGTERM ends it as Ctrl-C does: with the terminal as it was.
    signal.signal(signal.SIGTERM, interrupt)
    from monitoring.inventory import InventoryError
    from monitoring.top import live, view
    from topology.inventory import inventory_path

    with reported(as_json):
        inventory = pick_testbed(testbed)
        try:
            with live.Watch(inventory_path(inventory["testbed"]), period) as watch:
                if as_json:
                    print(json.dumps(live.once(watch, period).as_dict(), indent=1))
                    return
                from cohortnet.follow import console_for

                console = console_for()
                if once:
                    console.print(view.draw(live.once(watch, period), console.width))
                    return
                ended = live.run(watch, period, console) if sys.stdout.isatty() else live.write_lines(watch, period)
        except InventoryError as error:
            fail(str(error))
        except BrokenPipeError:
            # Whoever read our lines has gone; Python would say so once more when it closes stdout.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
        if ended == "gone":
            print(f"Testbed {inventory['testbed']} was taken down.")
