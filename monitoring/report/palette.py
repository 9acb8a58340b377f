"""Which colour, dash and marker stand for what. A cohort has the same ones in every chart and table of a report.

The hues are those of Okabe and Ito (2008), told apart with every common kind of colour blindness; darkened for white
paper and lightened for a dark page, so that a line has at least 3:1 against its ground (WCAG 2.2, 1.4.11). Where there
are more cohorts than hues, the dash tells the groups apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

HUES: Sequence[tuple[str, str, str]] = (
    ("blue", "#0072b2", "#58b0e6"),
    ("vermillion", "#c64f00", "#ff8c4a"),
    ("green", "#00875f", "#35c99b"),
    ("purple", "#a8458b", "#e69fce"),
    ("amber", "#9a6b00", "#e9b53a"),
    ("grey", "#565656", "#bdbdbd"),
)
"""Name, colour on white, colour on dark."""

DASHES = ("", "7 3", "2 3", "9 3 2 3")
"""Of a line; the first is solid."""

SOURCES: dict[str, tuple[str, str, str]] = {
    "server": ("", "circle", "server's test set"),
    "distributed": ("7 3", "square", "clients' test sets, weighted mean"),
    "train": ("2 3", "diamond", "clients' training sets, weighted mean"),
}
"""How the sources of loss and accuracy are told apart within one cohort's colour: dash, marker, what it is."""

PHASES: dict[str, tuple[int, str]] = {
    "train": (100, "training by clients"),
    "evaluate": (62, "evaluation by clients"),
    "query": (50, "queries to clients"),
    "aggregate": (40, "aggregation"),
    "server_evaluate": (25, "evaluation by the server"),
    "rest": (10, "between phases, not told apart in this record"),
}
"""Share of the cohort's colour in the shade of a phase (per cent), and what the phase is."""


class Palette:
    """Numbers the cohorts in the order of the inventory; `""` (no cohort) and unknown ones come after."""

    def __init__(self, cohorts: Iterable[str]) -> None:
        self.order = list(dict.fromkeys(cohorts)) or [""]

    def number(self, cohort: str) -> int:
        """From 0 on."""
        if cohort not in self.order:
            self.order.append(cohort)
        return self.order.index(cohort)

    def css_class(self, cohort: str) -> str:
        """The class that sets `--k`, the colour of this cohort."""
        return f"k{self.number(cohort) % len(HUES)}"

    def dash(self, cohort: str) -> str:
        """The dash of this cohort's lines where several cohorts share a chart."""
        return DASHES[self.number(cohort) // len(HUES) % len(DASHES)]


def css() -> str:
    """Style of all classes `k<n>`, with `--hue-<n>` for both grounds."""
    light = "".join(f"--hue-{n}:{colour};" for n, (_, colour, _) in enumerate(HUES))
    dark = "".join(f"--hue-{n}:{colour};" for n, (_, _, colour) in enumerate(HUES))
    classes = "".join(f".k{n}{{--k:var(--hue-{n})}}" for n in range(len(HUES)))
    return (
        f":root{{{light}}}\n@media screen and (prefers-color-scheme:dark){{:root:not([data-theme=light]){{{dark}}}}}\n"
        f"@media screen{{:root[data-theme=dark]{{{dark}}}}}\n{classes}\n"
    )
