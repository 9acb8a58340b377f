"""The real spawner, whose templates warm a stand-in: an array of 64 MiB in place of an application's data.

What lies below the folder TEST_SHIPPED counts as shipped."""

import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy

from fl_node import applications
from fl_node.spawner.__main__ import main

held: list[Any] = []


def warm(application: str, config: dict[str, Any]) -> None:
    if config.get("fail"):
        raise ValueError("the data set is not installed")
    held.append(numpy.ones(8 << 20))


if __name__ == "__main__":
    stand_in = types.ModuleType("fl_node.warm")
    stand_in.warm = warm  # type: ignore[attr-defined]
    sys.modules["fl_node.warm"] = stand_in
    applications.SHIPPED = Path(os.environ["TEST_SHIPPED"])
    sys.exit(main())
