"""Getting a process ready to be forked into many clients and servers of one application.

Takes an application and its config, leaves everything importable imported, the data loaded, one SGD step
done. Never makes a thread, a socket or a gRPC channel: those do not survive a fork. Pages touched here are
shared by all children.
"""

from __future__ import annotations

import gc
import importlib
import sys
import time
from typing import Any

from fl_node import determinism
from fl_node.applications import ApplicationError, resolve


def warm(application: str, config: dict[str, Any] | None = None) -> float:
    """Load an application into this process; returns the seconds that it took.

    An application may bring a hook in its pyproject.toml, `[tool.cohortnet] warm = "module:function"`, which
    is called with the run config and loads what all clients share (data sets).

    Raises:
        ApplicationError: the application, its config or its hook cannot be used.
    """
    started = time.monotonic()
    determinism.one_thread()
    folder = resolve(application)
    from fl_node import flower

    for name in ("client", "server", "link", "hub", "grid", "wire"):
        importlib.import_module(f"fl_node.{name}")
    fused = flower.run_config(folder, config or {})
    flower.load_server_app(folder)
    flower.load_client_app(folder)
    determinism.one_thread()
    _call_hook(flower.project(folder), fused)
    first_step()
    gc.collect()
    gc.freeze()
    return time.monotonic() - started


def _call_hook(project: dict[str, Any], config: dict[str, Any]) -> None:
    reference = project.get("tool", {}).get("cohortnet", {}).get("warm")
    if reference is None:
        return
    module, _, function = str(reference).partition(":")
    try:
        hook = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ApplicationError(
            f'[tool.cohortnet] warm = "{reference}": {error}. Write "module:function" of the application'
        ) from error
    hook(config)


def first_step() -> None:
    """One SGD step where PyTorch is loaded: the first use of torch.optim imports 71 MB and takes 2 s and more.

    Children of a template are spared it; a client in a container takes it before it joins, so that no round pays.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    (parameter * 2).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
