"""Words that all of ONOS's JSON shares: ids of devices, names of applications, booleans. Pure."""

from __future__ import annotations

import re
from typing import Any

from topology.controller.refused import bad_value, shown

DEFAULT_APPLICATION = "org.onosproject.rest"
OWN_APPLICATION = "org.cohortnet.controller"
OTHER_APPLICATION = "org.cohortnet.other"
"""What flows of no known application are said to belong to: those added by Ryu's paths, or by hand."""


def device_id(datapath_id: int) -> str:
    """`of:` and 16 hexadecimal digits."""
    return f"of:{datapath_id:016x}"


def datapath_id(device: str) -> int | None:
    """The datapath id in a device's id; None where it is none."""
    return int(device[3:], 16) if re.fullmatch(r"of:[0-9a-fA-F]{16}", device) else None


def boolean(value: Any, path: str) -> bool:
    """A boolean, also as the text that many scripts send. Raises Refused."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise bad_value(path, f"{path} is {shown(value)}", "true or false")
