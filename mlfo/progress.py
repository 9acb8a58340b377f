"""What a run's events say about it: who has joined, how far it is, how good, whether its goal is met. Pure:
no clock, no I/O."""

from __future__ import annotations

from typing import Any

from mlfo.pipeline import Pipeline


class Progress:
    """Built by ``learn`` from events in their order; the same events give the same Progress, also after a
    restart."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.wanted = pipeline.goal_accuracy
        self.joined: set[str] = set()
        self.complete = False
        self.finished: dict[str, Any] | None = None
        self.failed: dict[str, Any] | None = None
        self.accuracy: dict[str, Any] | None = None  # value, round, source: the last
        self.goal: dict[str, Any] = {"accuracy": self.wanted, "deadline_s": pipeline.deadline_s, "met": None}
        self._judge_by = "distributed"

    def learn(self, event: dict[str, Any]) -> None:
        kind = event.get("kind")
        if kind == "client.joined":
            self.joined.add(str(event.get("client")))
        elif kind in ("cohort.complete", "run.started"):
            self.complete = True
        elif kind == "round.metrics":
            self._judge(event)
        elif kind == "run.finished":
            self.finished = event
        elif kind == "run.failed":
            self.failed = event
        elif kind == "process.ended" and event.get("process") == "server":
            self.server_ended(event.get("exit_code"))

    def server_ended(self, exit_code: object, error: str | None = None) -> None:
        """The server's process has ended; means something only where the run has not said its own end
        before."""
        if self.finished is not None or self.failed is not None:
            return
        if exit_code == 0:
            self.finished = {}
        else:
            self.failed = {"error": error or f"the FL server's process ended with exit code {exit_code}"}

    def reached(self) -> str:
        """The last accuracy in words."""
        if self.accuracy is None:
            return "no accuracy reported"
        last = self.accuracy
        return f"accuracy {last['value']:.4f} in round {last['round']} ({last['source']})"

    def _judge(self, event: dict[str, Any]) -> None:
        """Keeps the last accuracy: the server's own where it measures one, else the distributed."""
        source, metrics = event.get("source"), event.get("metrics")
        value = metrics.get("accuracy") if isinstance(metrics, dict) else None
        if (
            source not in ("server", "distributed")
            or isinstance(value, bool)
            or not isinstance(value, (int, float))
        ):
            return
        if source == "server":
            self._judge_by = "server"
        if source != self._judge_by:
            return
        self.accuracy = {"value": float(value), "round": event.get("round"), "source": source}
        if self.wanted is not None and value >= self.wanted and not self.goal["met"]:  # the first time counts
            self.goal["met"] = True
            self.goal["reached"] = {"accuracy": float(value), "round": event.get("round"), "source": source}
