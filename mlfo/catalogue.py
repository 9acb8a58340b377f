"""The catalogue: which operands, sources, models, sinks, strategies and applications intents may name. A
strict file, read once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mlfo.errors import SetupError

Name = Annotated[str, Field(min_length=1, max_length=100)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Operand(_Strict):
    operations: list[Name] = Field(min_length=1)
    source: Name
    model: Name
    sink: Name
    application: Name


class _Installed(_Strict):
    """Something that is there or not: ``path`` must exist where given, ``available`` says it outright."""

    available: bool = True
    path: str | None = None
    fallback: Name | None = None

    def is_available(self) -> bool:
        return self.available and (self.path is None or Path(self.path).exists())


class Source(_Installed):
    dataset: Name


class Model(_Installed):
    model: Name


class Sink(_Strict):
    placed: Literal["clients", "server", "edge"] = "clients"


class Strategy(_Strict):
    parameters: dict[Name, Name] = Field(default_factory=dict)


class ConfigKey(_Strict):
    """The type and the bounds of one key of an application's run config: ``minimum`` and ``maximum`` are
    allowed values themselves, ``above`` and ``below`` are not."""

    type: Literal["int", "float", "str", "bool"]
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    values: list[str] | None = None

    def fault(self, value: object) -> str | None:
        """Why ``value`` does not do, or None."""
        kinds = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}[self.type]
        if not isinstance(value, kinds) or (isinstance(value, bool) and self.type != "bool"):
            return f"must be of type {self.type}, found {value!r}"
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            wrong = [
                f"{name} {bound:g}"
                for name, bound, holds in (
                    ("at least", self.minimum, self.minimum is None or value >= self.minimum),
                    ("above", self.above, self.above is None or value > self.above),
                    ("at most", self.maximum, self.maximum is None or value <= self.maximum),
                    ("below", self.below, self.below is None or value < self.below),
                )
                if bound is not None and not holds  # NaN holds to nothing
            ]
            if wrong or value != value:
                return f"must be {' and '.join(wrong) or 'a number'}, found {value}"
        if self.values is not None and value not in self.values:
            return f"must be one of {', '.join(self.values)}, found {value!r}"
        return None


class Application(_Strict):
    datasets: list[Name] = Field(min_length=1)
    models: list[Name] = Field(min_length=1)
    strategies: list[Name] = Field(min_length=1)
    partitioners: list[Name] = Field(min_length=1)
    strategy_key: Name | None = None  # the config key that takes the strategy's name, where there is one
    config: dict[Name, ConfigKey] = Field(default_factory=dict)


_Thing = TypeVar("_Thing", Source, Model)


class Catalogue(_Strict):
    version: Literal[1]
    operands: dict[Name, Operand] = Field(min_length=1)
    sources: dict[Name, Source] = Field(min_length=1)
    models: dict[Name, Model] = Field(min_length=1)
    sinks: dict[Name, Sink] = Field(min_length=1)
    strategies: dict[Name, Strategy] = Field(min_length=1)
    applications: dict[Name, Application] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_exist(self) -> Catalogue:
        faults: list[str] = []

        def need(path: str, name: str, known: Mapping[str, object]) -> None:
            if name not in known:
                faults.append(f"{path}: '{name}' is not defined; defined: {', '.join(known)}")

        for name, operand in self.operands.items():
            need(f"operands.{name}.source", operand.source, self.sources)
            need(f"operands.{name}.model", operand.model, self.models)
            need(f"operands.{name}.sink", operand.sink, self.sinks)
            need(f"operands.{name}.application", operand.application, self.applications)
        for name, application in self.applications.items():
            for strategy in application.strategies:
                need(f"applications.{name}.strategies", strategy, self.strategies)
        tables: dict[str, Mapping[str, _Installed]] = {"sources": self.sources, "models": self.models}
        for kind, things in tables.items():
            for name, thing in things.items():
                if thing.fallback is not None:
                    need(f"{kind}.{name}.fallback", thing.fallback, things)
        if not faults:
            for kind, things in tables.items():
                for name in things:
                    fault = _dead_end(name, things)
                    if fault:
                        faults.append(f"{kind}.{name}: {fault}")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def source(self, name: str) -> tuple[str, Source, list[str]]:
        """The source that will really be used for ``name``, and a note for each substitution."""
        return _settle(name, self.sources, "source")

    def model(self, name: str) -> tuple[str, Model, list[str]]:
        """The model that will really be used for ``name``, and a note for each substitution."""
        return _settle(name, self.models, "model")


def _dead_end(name: str, things: Mapping[str, _Installed]) -> str | None:
    """Why a chain of fallbacks leads nowhere, or None. A chain that ends in something absent is only seen
    when it is used."""
    seen: list[str] = [name]
    while (following := things[seen[-1]].fallback) is not None:
        if following in seen:
            return f"the fallbacks go round: {' -> '.join([*seen, following])}"
        seen.append(following)
    return None


def _settle(name: str, things: dict[str, _Thing], kind: str) -> tuple[str, _Thing, list[str]]:
    notes: list[str] = []
    while not things[name].is_available():
        following = things[name].fallback
        if following is None:
            raise LookupError(
                f"{kind} '{name}' is not installed here and the catalogue names no fallback for it"
            )
        notes.append(f"{kind} '{name}' is not installed here: '{following}' is used in its place")
        name = following
    return name, things[name], notes


def load(path: Path) -> Catalogue:
    """The catalogue in ``path``. Raises SetupError that lists every fault with its path."""
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
        return Catalogue.model_validate(content)
    except OSError as error:
        raise SetupError(
            f"catalogue {path} cannot be read: {error}; name one with --catalogue FILE"
        ) from error
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, ValidationError):
            lines = [
                f"  {'.'.join(map(str, e['loc'])) or '(whole file)'}: {e['msg']}" for e in error.errors()
            ]
            raise SetupError(f"catalogue {path} has {len(lines)} fault(s):\n" + "\n".join(lines)) from error
        raise SetupError(f"catalogue {path} is not YAML: {error}") from error
