"""Which of our classes a script means: it may pass ours, Mininet's own (only one import was changed), a `partial` or
`custom` of either, or a class of its own that derives from ours.

Mininet's classes are never instantiated: they would start processes of Mininet's. They are told by their names.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

from topology.face.arguments import NotHonoured

_REASONS = {
    "UserSwitch": "use OVSSwitch",
    "IVSSwitch": "use OVSSwitch",
    "LinuxBridge": "use OVSBridge, a learning switch",
    "NAT": "an emulated network has no way out of the testbed; publish a port of a Docker host with port_bindings=",
    "NOX": "start it yourself, and use RemoteController",
    "Ryu": "start it yourself (`ryu-manager APP`), and use RemoteController",
    "OVSLink": "use Link or TCLink",
    "TCULink": "use TCLink",
    "OVSIntf": "leave intf= out",
    "LibvirtHost": "use Docker",
}


def unwrap(value: Any) -> tuple[Any, dict[str, Any]]:
    """The class or function behind `partial` and `mininet.util.custom`, and the keywords that they carry."""
    keywords: dict[str, Any] = {}
    while True:
        if isinstance(value, functools.partial):
            if value.args:
                raise NotHonoured(f"{value!r}: positional arguments of a partial are not honoured; name them")
            keywords, value = {**value.keywords, **keywords}, value.func
        elif getattr(value, "__module__", "") == "mininet.util" and str(value.__name__).startswith("custom("):
            held = inspect.getclosurevars(value).nonlocals
            keywords, value = {**held["params"], **keywords}, held["cls"]
        else:
            return value, keywords


def pick(call: str, value: Any, ours: Mapping[str, type]) -> tuple[type, dict[str, Any]]:
    """Our class for what was passed, and keywords that come with it. `ours`: our classes by the names of Mininet's.

    Raises:
        NotHonoured: for any other class, with what to use instead.
    """
    found, keywords = unwrap(value)
    name = getattr(found, "__name__", repr(found))
    bases = tuple(set(ours.values()))
    if inspect.isclass(found) and issubclass(found, bases):
        return found, keywords
    foreign = str(getattr(found, "__module__", "")).partition(".")[0] == "mininet"
    if foreign and name in ours:
        return ours[name], keywords
    allowed = ", ".join(sorted(set(ours)))
    if foreign:
        said = _REASONS.get(name) or f"allowed are {allowed}"
        raise NotHonoured(f"{call}: {name} is not honoured: {said}")
    parents = getattr(found, "__mro__", ())
    base = next((parent.__name__ for parent in parents if parent.__module__.partition(".")[0] == "mininet"), None)
    if base is not None:
        raise NotHonoured(
            f"{call}: the class {name} derives from Mininet's {base}, whose processes are not started here; "
            f"let it derive from the one in topology.containernet: `from topology.containernet import {base}`"
        )
    raise NotHonoured(f"{call}: {name} is no class that is honoured; allowed are {allowed}")
