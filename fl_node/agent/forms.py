"""The forms of this family's MLFOs, POST /serv and POST /cli, as requests of the agent's own kind.

Pure. What the sender's names mean here, and what was put in place of data or models that are not installed,
is said in the notes. Never starts anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fl_node.agent.validation import FL_PORT, InvalidRequest, RequestProblem, problem

APPLICATION = "image_classification"
LEGACY_RUN_ID = "legacy"

_SOURCES = {
    "fashionmnist": "fashionmnist",
    "digits": "digits",
    "handmnist": "fashionmnist",
    "cifar": "fashionmnist",
}
_MODELS = {"lenet": "lenet", "mlp": "mlp", "complex": "lenet", "mobilenet": "lenet"}
_SERV = ("algo", "fracfit", "minfit", "minav", "numround", "run_id", "source", "model", "port", "cohsize")
_CLI = ("source", "model", "server", "cohsize", "part", "run_id")


def client_name(part: int) -> str:
    """How a client of these forms is called by both sides."""
    return f"part-{part}"


class _Form:
    """Reads fields and collects what is wrong with them."""

    def __init__(self, fields: Mapping[str, str], allowed: tuple[str, ...]) -> None:
        self._fields = fields
        self.notes: list[str] = []
        self.problems: list[RequestProblem] = [
            problem(
                name,
                "field.unknown",
                f"{name} is not a field of this form",
                f"allowed here: {', '.join(allowed)}",
            )
            for name in fields
            if name not in allowed
        ]

    def text(self, name: str, default: str | None) -> str:
        value = self._fields.get(name, "").strip()
        if value:
            return value
        if default is None:
            self.problems.append(
                problem(name, "field.missing", f"{name} is missing", f"curl ... -F {name}=...")
            )
            return ""
        self.notes.append(f"{name} was not sent: {default}")
        return default

    def number(
        self, name: str, convert: Callable[[str], Any], low: float, high: float, default: str | None = None
    ) -> Any:
        text = self.text(name, default)
        if not text:
            return low
        kind = "a whole number" if convert is int else "a number"
        try:
            value = convert(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            hint = f"{kind} from {low:g} to {high:g}"
            self.problems.append(
                problem(name, "field.value", f"{name} is {text[:80]!r}, needed is {hint}", hint)
            )
            return low
        return value

    def choice(self, name: str, table: Mapping[str, str], default: str | None) -> str:
        text = self.text(name, default).lower()
        if not text:
            return ""
        if text not in table:
            allowed = ", ".join(sorted(table))
            self.problems.append(
                problem(name, "field.value", f"{name} is {text[:80]!r}", f"allowed: {allowed}")
            )
            return ""
        if table[text] != text:
            self.notes.append(f"{name} {text} is not installed: {table[text]} is used in its place")
        return table[text]

    def run_id(self) -> str:
        return self._fields.get("run_id", "").strip() or LEGACY_RUN_ID

    def finish(self) -> None:
        if self.problems:
            raise InvalidRequest(self.problems)


def server_body(fields: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """The body of /v1/server for a /serv form, and notes. Raises InvalidRequest with all that is wrong.

    `source`, `model`, `cohsize`, `port` and `run_id` may be sent as well: the server evaluates on the
    clients' data set and model and waits for the whole cohort, which the form's own five fields do not name.
    Clients of these forms are called part-0, part-1 and so on, since neither side is told the other's names.
    """
    form = _Form(fields, _SERV)
    strategy = form.text("algo", "FedAvg")
    fraction = form.number("fracfit", float, 0.0, 1.0, "0.5")
    min_fit = form.number("minfit", int, 1, 100_000, "1")
    min_available = form.number("minav", int, 1, 100_000, "1")
    rounds = form.number("numround", int, 1, 100_000, "20")
    dataset = form.choice("source", _SOURCES, "fashionmnist")
    model = form.choice("model", _MODELS, "lenet")
    port = form.number("port", int, 1, 65535, str(FL_PORT))
    least = max(min_fit, min_available)
    size = form.number("cohsize", int, least, 100_000, str(least))
    form.finish()
    config = {
        "strategy": strategy,
        "num-server-rounds": rounds,
        "fraction-train": fraction,
        "fraction-evaluate": fraction,
        "min-train-nodes": min_fit,
        "min-evaluate-nodes": min_fit,
        "min-available-nodes": least,
        "dataset": dataset,
        "model": model,
    }
    body = {
        "run_id": form.run_id(),
        "application": APPLICATION,
        "config": config,
        "clients": [client_name(part) for part in range(size)],
        "port": port,
    }
    return body, form.notes


def client_body(fields: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """The body of /v1/client for a /cli form, and notes. Raises InvalidRequest with all that is wrong."""
    form = _Form(fields, _CLI)
    dataset = form.choice("source", _SOURCES, None)
    model = form.choice("model", _MODELS, None)
    server = form.text("server", None)
    size = form.number("cohsize", int, 1, 100_000)
    part = form.number("part", int, 0, max(0, size - 1))
    if server and ":" not in server:
        form.notes.append(f"server {server} has no port: {FL_PORT}")
        server = f"{server}:{FL_PORT}"
    form.finish()
    body = {
        "run_id": form.run_id(),
        "application": APPLICATION,
        "config": {"dataset": dataset, "model": model},
        "server": server,
        "partition_id": part,
        "num_partitions": size,
        "name": client_name(part),
    }
    return body, form.notes
