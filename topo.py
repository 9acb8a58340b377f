#!/usr/bin/env python3
"""sudo python topo.py N: raise the factory-satellite testbed with N cohorts and open a prompt (`--help` says more).

Finds the repository's virtual environment by itself, so that `sudo python` needs no activation.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PYTHON = HERE / ".venv" / "bin" / "python"


def start() -> int:
    """Run in the repository's environment; says how to make it where there is none."""
    if PYTHON.exists() and Path(sys.prefix).resolve() != (HERE / ".venv").resolve():
        os.execv(PYTHON, [str(PYTHON), str(Path(__file__).resolve()), *sys.argv[1:]])
    sys.path.insert(0, str(HERE))
    try:
        from cohortnet.topo import main
    except ModuleNotFoundError as error:
        print(
            f"topo.py: {error.name} is not installed; `sudo ./scripts/quickstart.sh` installs what is needed",
            file=sys.stderr,
        )
        return 1
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(start())
