"""Records of runs made by hand, with numbers that a test can foretell; series are written by the real writer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from monitoring.series.files import SeriesWriter, table_of

BEGAN = 1_790_000_000.0
MODEL = 250_000
PERIOD_S = 5.0
LIMIT = 2_000_000


@dataclass
class Made:
    """What to write; call `write(folder)`."""

    clients: int = 4
    rounds: int = 4
    cohorts: int = 2
    series: bool = True
    state: str = "succeeded"
    names: Callable[[int], str] = "fc.{}".format
    reason: str = "all rounds done"
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def client_names(self) -> list[str]:
        """Of the run's cohort."""
        return [self.names(10 + number) for number in range(self.clients)]

    def write(self, folder: Path) -> Path:
        """The whole record."""
        folder.mkdir(parents=True)
        self._happen()
        (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in self.events))
        (folder / "inventory.json").write_text(json.dumps(self._inventory()))
        (folder / "intent.yaml").write_text(f"intentID: {self.reason}\n")
        (folder / "testbed.yaml").write_text("name: made\n")
        if self.series:
            with SeriesWriter(folder) as writer:
                writer.write(table_of(self._series()))
        manifest = {
            "run": folder.name,
            "state": self.state,
            "testbed": "made",
            "runtime": "namespace",
            "complete": True,
            "not_applied": [],
            "machine": {"cores": 2},
            "series": {"missed_scrapes": 0} if self.series else None,
            "intent": {
                "id": folder.name,
                "intentID": "made",
                "cohort": "1",
                "server": "fed.1",
                "state": self.state,
                "clients": self.client_names,
                "reason": self.reason,
                "nodes_at_fault": [],
                "config": {"num-server-rounds": self.rounds, "model": "lenet", "dataset": "fashionmnist"},
                "goal": {"accuracy": None},
            },
        }
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder

    def _event(self, time: float, kind: str, **values: Any) -> None:
        self.events.append(
            {"seq": len(self.events) + 1, "time": BEGAN + time, "node": "fed.1", "run": "r", "kind": kind, **values}
        )

    def _happen(self) -> None:
        names = self.client_names
        for time, state in ((-6.0, "accepted"), (-5.9, "resolving"), (-5.8, "allocating"), (-5.0, "starting")):
            self._event(time, f"intent.{state}")
        for number, name in enumerate(names):
            self._event(-4.0 + number * 0.01, "client.joined", client=name, joined=number + 1, expected=len(names))
        self._event(-0.1, "intent.running")
        self._event(0.0, "run.started", application="image_classification")
        self._event(1.0, "round.metrics", round=0, source="server", metrics={"loss": 2.3, "accuracy": 0.1})
        done = self.rounds if self.state == "succeeded" else 1
        for number in range(1, done + 1):
            self._round(number, 10.0 * number - 8.0)
        end = 10.0 * done + 3.0
        if self.state == "succeeded":
            self._event(end, "run.finished", rounds=done, seconds=end)
            self._event(end + 1, "intent.succeeded", reason=self.reason)
        else:
            self._event(end, "client.left", client=names[0], reason="killed", final=True)
            self._event(end + 0.5, "run.failed", error=self.reason, clients=names[:1])
            self._event(end + 1, "intent.failed", reason=self.reason)

    def _round(self, number: int, start: float) -> None:
        names = self.client_names
        self._event(start, "phase.started", round=number, phase="train", clients=names)
        for place, name in enumerate(names):
            # The last client takes five times as long as the others: a straggler where there are three or more.
            seconds = 5.0 if place == len(names) - 1 else 1.0
            self._event(
                start + seconds,
                "client.reply",
                round=number,
                phase="train",
                client=name,
                seconds=seconds,
                bytes_down=MODEL,
                bytes_up=MODEL,
                num_examples=2000,
                metrics={"loss": 1.0 / number, "accuracy": 0.5},
                error=None,
            )
        total = MODEL * len(names)
        self._event(
            start + 5,
            "phase.finished",
            round=number,
            phase="train",
            seconds=5.0,
            replies=len(names),
            errors=0,
            bytes_down=total,
            bytes_up=total,
        )
        self._event(start + 5.1, "aggregate.finished", round=number, phase="train", seconds=0.1)
        for place, name in enumerate(names):
            self._event(
                start + 6,
                "client.reply",
                round=number,
                phase="evaluate",
                client=name,
                seconds=0.5,
                bytes_down=MODEL,
                bytes_up=200,
                num_examples=222,
                metrics={"loss": 1.0 / number, "accuracy": min(0.2 * number + 0.01 * place, 1.0)},
                error=None,
            )
        self._event(
            start + 6,
            "phase.finished",
            round=number,
            phase="evaluate",
            seconds=0.9,
            replies=len(names),
            errors=0,
            bytes_down=total,
            bytes_up=200 * len(names),
        )
        self._event(start + 7, "server_evaluate.finished", round=number, seconds=1.0)
        self._event(
            start + 7,
            "round.metrics",
            round=number,
            source="server",
            metrics={"loss": 2.0 / number, "accuracy": 0.2 * number},
        )
        self._event(start + 7.5, "round.finished", round=number, seconds=7.5)

    def _inventory(self) -> dict[str, Any]:
        nodes = [{"name": "fed.1", "role": "server", "cohort": "1", "switch": "s1", "memory_bytes": 2**30, "cpu": 1.0}]
        links: list[dict[str, Any]] = [_link("fed.1", 100_000_000)]
        for name in self.client_names:
            nodes.append(
                {"name": name, "role": "client", "cohort": "1", "switch": "s1", "memory_bytes": 2**29, "cpu": None}
            )
            links.append(_link(name, 10_000_000))
        cohorts = [{"name": "1", "server": "fed.1", "clients": self.client_names}]
        for number in range(2, self.cohorts + 1):
            cohorts.append({"name": str(number), "server": f"fed.{number}", "clients": []})
        meters = [
            {"name": "m", "target": {"kind": "cohort", "name": "1"}, "direction": "up", "rate": LIMIT, "unit": "bit/s"}
        ]
        return {"nodes": nodes, "links": links, "cohorts": cohorts, "meters": meters}

    def _series(self) -> list[tuple[dict[str, str], Any, Any]]:
        times = BEGAN + np.arange(-10.0, 10.0 * self.rounds + 6.0, PERIOD_S)
        since = times - times[0]
        found: list[tuple[dict[str, str], Any, Any]] = []

        def add(metric: str, values: Any, **labels: str) -> None:
            found.append(
                ({"__name__": metric, "testbed": "made", **labels}, times, np.broadcast_to(values, times.shape))
            )

        for number in range(1, self.cohorts + 1):
            who = {"node": f"fed.{number}", "role": "server", "cohort": str(number)}
            # 1 Mbit/s a cohort number, exactly.
            for way in ("receive", "transmit"):
                add(f"node_network_{way}_bytes_total", since * 125_000.0 * number, **who, device=f"fed.{number}-eth0")
            add("container_cpu_usage_seconds_total", since * 0.25, **who)
            add("container_memory_working_set_bytes", 100.0 * 2**20, **who)
        for place, name in enumerate(self.client_names):
            who = {"node": name, "role": "client", "cohort": "1"}
            for way in ("receive", "transmit"):
                add(f"node_network_{way}_bytes_total", since * 125_000.0 / self.clients, **who, device=f"{name}-eth0")
            add("container_cpu_usage_seconds_total", since * 0.1, **who)
            add("container_memory_working_set_bytes", (40.0 + place) * 2**20, **who)
            add(
                "tcp_rtt",
                20.0 + place,
                node="fed.1",
                role="server",
                cohort="1",
                flow="fl",
                local="10.0.0.1:6000",
                remote=f"10.0.1.{place}:40000",
                peer=name,
            )
            add(
                "cohortnet_link_bytes_total",
                since * 125_000.0 / self.clients,
                link=f"{name}--s1",
                a=name,
                b="s1",
                direction="a_to_b",
            )
            add("cohortnet_link_rate_bits_per_second", 1e7, link=f"{name}--s1", a=name, b="s1", direction="a_to_b")
        rates = np.where(times < BEGAN + 10, LIMIT, LIMIT / 4)
        add(
            "cohortnet_meter_rate",
            rates,
            meter="m",
            direction="up",
            kind="cohort",
            target="1",
            unit="bit/s",
            in_force="drop",
        )
        add(
            "cohortnet_meter_band_drop_packets_total",
            since * 2,
            meter="m",
            direction="up",
            kind="cohort",
            target="1",
            switch="s1",
            meter_id="1",
            band="0",
        )
        return found


def _link(node: str, rate_bps: int) -> dict[str, Any]:
    way = {"rate_bps": rate_bps, "delay_s": 0.004}
    return {"name": f"{node}--s1", "a": node, "b": "s1", "a_to_b": way, "b_to_a": way}


def hostile(number: int) -> str:
    """A name that would do harm where it is not escaped."""
    return f'<img src=x onerror="window.hacked=1">\'&{number}</script><script>window.hacked=1</script>'


KINDS: dict[str, Made] = {
    "with series": Made(),
    "without series": Made(series=False),
    "failed": Made(state="failed", reason="fc.10 was lost in round 2: killed"),
    "50 clients": Made(clients=50, rounds=20, cohorts=9),
    "hostile names": Made(names=hostile, reason="</style></title><script>window.hacked=1</script>"),
}
SECTIONS: Sequence[str] = (
    "headline",
    "learning",
    "durations",
    "traffic",
    "latency",
    "nodes",
    "timeline",
    "clients",
    "declared",
    "gaps",
    "manifest",
)
