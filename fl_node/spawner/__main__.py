"""Start a spawner: fix the environment that all its forks inherit, import what they share, and serve."""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import resource
import sys
import time
from pathlib import Path

# Read by the allocator, the hash function and the thread pools when a process starts, so they must be there
# before this one does; a fork's own environment comes too late for them.
FIXED_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": "131072",
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "GRPC_ENABLE_FORK_SUPPORT": "0",
}

# What agents, MLFOs and FL processes have in common, also what NumPy and others load only when it is first
# used: what is first imported after the fork is each process's own memory. PyTorch is left to the templates
# of applications.
SHARED_IMPORTS = (
    "numpy",
    "numpy.random",
    "encodings.idna",
    "secrets",
    "flask",
    "waitress",
    "grpc",
    "requests",
    "prometheus_client",
    "yaml",
    "pydantic",
    "flwr.app",
    "flwr.clientapp",
    "flwr.serverapp",
    "flwr.serverapp.strategy",
    "fl_node.agent.serve",
)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="fl_node.spawner", description="Forks programs into the nodes of a testbed."
    )
    parser.add_argument("--inventory", type=Path, required=True, help="the testbed's inventory.json")
    parser.add_argument("--socket", type=Path, required=True, help="path of the unix socket to listen on")
    parser.add_argument(
        "--warm",
        metavar="APPLICATION",
        action="append",
        default=[],
        help="warm this shipped application at start; may be given more than once",
    )
    parser.add_argument(
        "--log", type=Path, help="append what the spawner and its templates print to this file"
    )
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("fl_node.spawner: joining namespaces needs root: start it with sudo", file=sys.stderr)
        return 1
    if any(os.environ.get(name) != value for name, value in FIXED_ENVIRONMENT.items()):
        os.environ.update(FIXED_ENVIRONMENT)
        os.execv(sys.executable, [sys.executable, "-m", "fl_node.spawner", *sys.argv[1:]])
    if arguments.log is not None:
        out = os.open(arguments.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.close(out)
    began = time.monotonic()
    for name in SHARED_IMPORTS:
        importlib.import_module(name)

    from fl_node.spawner import kernel
    from fl_node.spawner.inventory import Inventory
    from fl_node.spawner.service import Service

    threads = kernel.status_field(os.getpid(), "Threads")
    if threads != "1":
        print(
            f"fl_node.spawner: {threads} threads after the imports, one is needed to fork safely",
            file=sys.stderr,
        )
        return 1
    folders = []
    for application in arguments.warm:
        from fl_node import applications

        try:
            shipped = applications.shipped_folder(applications.resolve(application))
        except applications.ApplicationError as error:
            print(f"fl_node.spawner: --warm {application}: {error}", file=sys.stderr)
            return 1
        if shipped is None:
            print(
                f"fl_node.spawner: --warm {application}: only shipped applications are warmed: "
                f"{', '.join(applications.available())}; any other is loaded inside the node that runs it",
                file=sys.stderr,
            )
            return 1
        folders.append(str(shipped))
    nofile_soft, nofile_hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (nofile_hard, nofile_hard))
    gc.collect()
    gc.freeze()
    keep = kernel.open_fds()
    try:
        service = Service(Inventory(arguments.inventory), arguments.socket, note, keep, nofile_soft)
    except OSError as error:
        print(f"fl_node.spawner: cannot listen on {arguments.socket}: {error}", file=sys.stderr)
        return 1
    note(f"ready after {time.monotonic() - began:.2f} s on {arguments.socket}, pid {os.getpid()}")
    for folder in folders:
        service.warm_at_start(folder)
    service.run()
    note("ended")
    return 0


def note(text: str) -> None:
    """One line of the spawner's own log."""
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} spawner: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
