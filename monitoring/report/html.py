"""HTML as values: text is escaped, elements nest. Owns the difference between text and markup, draws nothing.

el("p", "a < b", cls="note")     ->  <p class="note">a &lt; b</p>
"""

from __future__ import annotations

import html
from collections.abc import Iterable

VOID = frozenset({"br", "hr", "meta", "input", "img"})


class Html(str):
    """Markup that was made here; every other string is text and is escaped where it meets markup."""

    __slots__ = ()


Child = str | int | float | None | Iterable["Child"]


def text(value: object) -> Html:
    """Anything as markup: `Html` as it is, None as nothing, everything else escaped (quotes too)."""
    if isinstance(value, Html):
        return value
    return Html("" if value is None else html.escape(str(value), quote=True))


def join(children: Child) -> Html:
    """Children, nested lists included, one after the other."""
    if children is None or isinstance(children, str | int | float):
        return text(children)
    return Html("".join(join(child) for child in children))


def attribute(name: str) -> str:
    """`cls` is `class`, an underscore is a dash (`data_points`), one at the end is dropped (`for_`, `name_`)."""
    return {"cls": "class", "view_box": "viewBox"}.get(name, name.rstrip("_").replace("_", "-"))


def el(name: str, *children: Child, **attributes: object) -> Html:
    """An element. Attributes that are None or False are left out, True has no value, numbers are rounded to 0.01."""
    shown = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        if isinstance(value, float):
            value = f"{value:.2f}".rstrip("0").rstrip(".")
        shown.append(f" {attribute(key)}" if value is True else f' {attribute(key)}="{text(value)}"')
    opening = f"<{name}{''.join(shown)}>"
    return Html(opening if name in VOID else f"{opening}{join(children)}</{name}>")


def script_data(json_text: str) -> Html:
    """JSON that stands inside a <script>: no `</script>` and no `<!--` can be formed in it."""
    return Html(json_text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))
