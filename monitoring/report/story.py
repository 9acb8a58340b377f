"""Everything that the sections of a report say, computed once from the record. Holds values, makes no markup."""

from __future__ import annotations

from dataclasses import dataclass

from monitoring.report import declared, learning, sampled
from monitoring.report.palette import Palette
from monitoring.report.record import Record


@dataclass(frozen=True)
class Story:
    """One run."""

    record: Record
    rounds: list[learning.Round]
    clients: list[learning.Client]
    flows: list[sampled.Flow]
    trips: list[sampled.Spread]
    windows: list[sampled.Spread]
    processors: list[sampled.Spread]
    memories: list[sampled.Spread]
    links: list[declared.LinkUse]
    rows: list[declared.Row]
    palette: Palette

    @property
    def css(self) -> str:
        """The colour class of the run's own cohort."""
        return self.palette.css_class(self.record.cohort)

    @property
    def marks(self) -> list[tuple[float, str]]:
        """Where each round began, in seconds, with its number; thinned where there are many."""
        begun = [(item.start, item.number) for item in self.rounds if item.number > 0 and item.start is not None]
        every = max(1, len(begun) // 12)
        return [
            (start, f"r{number}" if index % every == 0 else "")
            for index, (start, number) in enumerate(begun)
            if index % max(1, len(begun) // 60) == 0
        ]

    def cohort_name(self, cohort: str) -> str:
        """As legends say it."""
        return f"cohort {cohort}" if cohort else "no cohort"


def tell(record: Record) -> Story:
    """Compute everything."""
    listed = learning.rounds(record.events, record.start)
    flows, trips = sampled.flows(record), sampled.round_trips(record)
    return Story(
        record=record,
        rounds=listed,
        clients=learning.clients(record.events, record.clients, record.start),
        flows=flows,
        trips=trips,
        windows=sampled.windows(record),
        processors=sampled.processors(record),
        memories=sampled.memories(record),
        links=declared.link_uses(record),
        rows=declared.rows(record, listed, flows, trips),
        palette=Palette(sampled.cohorts(record)),
    )
