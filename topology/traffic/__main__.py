"""`python -m topology.traffic --inventory PATH`: the process that runs a testbed's background traffic.

One a testbed: a second one says so and ends. SIGTERM ends all flows and then itself.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import signal
import sys
from pathlib import Path

from topology.errors import TopologyError
from topology.inventory import read_inventory
from topology.traffic import state
from topology.traffic.daemon import Traffic


async def _run(inventory: Path) -> None:
    traffic = Traffic(inventory)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    resumed = traffic.resume()
    server = await traffic.serve()
    print(f"{len(traffic.flows)} flows" + (f", going on with {', '.join(resumed)}" if resumed else ""), flush=True)
    await stop.wait()
    server.close()
    (traffic.folder / state.SOCKET).unlink(missing_ok=True)
    await traffic.close()


def main() -> int:
    """Exit status of the program."""
    parser = argparse.ArgumentParser(prog="python -m topology.traffic", description="Run a testbed's traffic.")
    parser.add_argument("--inventory", type=Path, required=True)
    typed = parser.parse_args()
    try:
        inventory = read_inventory(typed.inventory, wait_s=30.0, until_up=True)
        lock = os.open(state.folder(inventory) / "traffic.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"the traffic of {inventory['testbed']} is run by another process already", flush=True)
            return 0
        asyncio.run(_run(typed.inventory))
    except (TopologyError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
