"""Where all meters hold right now: joins the book with the network's belief, and keeps the result until either
changes. Sends nothing, waits for nobody; any thread may ask."""

from __future__ import annotations

import threading

from topology.controller.flows import Contents
from topology.controller.meterbook import BookState, MeterBook
from topology.controller.network import Network
from topology.controller.placement import Layout, lay_out
from topology.controller.scene import Scene

_NOTHING = Contents()


class MeterPlan:
    """The layout of the meters in the book."""

    def __init__(self, network: Network, book: MeterBook) -> None:
        self.book = book
        self._network = network
        self._lock = threading.Lock()
        self._maximum_meters: dict[int, int] = {}
        self._scene: tuple[int, Scene] | None = None
        self._layout: tuple[tuple[int, int, int], Layout] | None = None
        self._learnt = 0

    def set_maximum_meters(self, switch: int, count: int) -> bool:
        """A switch said how many meters it can have; whether that changes anything. Remembered when it goes."""
        with self._lock:
            before = self._maximum_meters.get(switch)
            self._maximum_meters[switch] = count
            changed = (before == 0) != (count == 0)
            self._learnt += changed
            return changed

    def scene(self) -> Scene:
        """The network as it is believed to be now."""
        with self._lock:
            return self._scene_now()[1]

    def _scene_now(self) -> tuple[int, Scene]:
        if self._scene is None or self._scene[0] != self._network.version:
            view = self._network.snapshot()
            self._scene = view.version, Scene(view.graph, view.paths, view.boards, view.ports)
        return self._scene

    def layout(self) -> Layout:
        """Where the meters of the book hold."""
        with self._lock:
            version, scene = self._scene_now()
            key = self.book.version, version, self._learnt
            if self._layout is None or self._layout[0] != key:
                self._layout = key, self._lay_out(self.book.state, scene)
            return self._layout[1]

    def layout_of(self, state: BookState) -> Layout:
        """Where the meters of another state would hold."""
        with self._lock:
            return self._lay_out(state, self._scene_now()[1])

    def _lay_out(self, state: BookState, scene: Scene) -> Layout:
        return lay_out(state.entries.values(), scene, self._maximum_meters)

    def contents(self, switch: int) -> Contents:
        """What that switch should have for meters."""
        return self.layout().contents.get(switch, _NOTHING)
