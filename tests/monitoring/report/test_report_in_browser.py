"""The report as a reader sees it: in a real Chromium, on a wide and a narrow screen, light, dark and on paper."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from monitoring.report import write_report
from tests.monitoring.report.browser import Browser
from tests.monitoring.report.made import KINDS, SECTIONS

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    return {
        kind: write_report(made.write(folder / f"run-{place}"), folder / f"{place}.html")
        for place, (kind, made) in enumerate(KINDS.items())
    }


@pytest.mark.parametrize("kind", KINDS)
def test_it_shows_every_section_asks_for_nothing_and_complains_of_nothing(
    browser: Browser, pages: dict[str, Path], kind: str
) -> None:
    browser.look_like(1280, 900)
    browser.open(pages[kind])
    assert browser.requests == [pages[kind].as_uri()], "the page asks for something"
    assert browser.complaints == []
    for section in SECTIONS:
        height, words = browser.run(
            f"(e=>[e.offsetHeight,e.innerText.trim().length])(document.getElementById('{section}'))"
        )
        assert height > 30 and words > 20, f"{section} is empty: {height} px, {words} letters"
    axes = browser.run(
        "[...document.querySelectorAll('svg.chart:not(.lanes)')].map(s=>[...s.querySelectorAll('.axis-title')]"
        ".map(t=>t.textContent.trim()).filter(t=>t).length)"
    )
    assert axes and all(count == 2 for count in axes), f"charts with other than two titled axes: {axes}"
    assert browser.run("document.querySelectorAll('svg.chart .line[d*=NaN], svg.chart [x*=NaN]').length") == 0


@pytest.mark.parametrize("width", [1280, 390])
def test_only_tables_and_charts_scroll_sideways_never_the_page(
    browser: Browser, pages: dict[str, Path], width: int
) -> None:
    browser.look_like(width, 800)
    browser.open(pages["50 clients"])
    assert browser.run("document.documentElement.scrollWidth") <= width
    table = browser.run(
        "(()=>{const t=document.querySelector('#clients .scroll');return [t.scrollWidth,t.clientWidth]})()"
    )
    assert (table[0] > table[1]) == (width == 390), f"the table of clients is {table[0]} px in {table[1]} px"


def test_names_with_markup_stay_text(browser: Browser, pages: dict[str, Path]) -> None:
    browser.look_like(1280, 900)
    browser.open(pages["hostile names"])
    assert browser.run("window.hacked === undefined && document.querySelectorAll('img').length === 0")
    assert browser.run("document.querySelectorAll('script').length") == 1
    assert "<img src=x onerror=" in browser.run("document.querySelector('#clients td').innerText")


def test_a_cohort_has_one_colour_everywhere_in_light_and_dark(browser: Browser, pages: dict[str, Path]) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        browser.look_like(1280, 900, scheme=scheme)
        browser.open(pages["with series"])
        lines, dots = (
            set(browser.run(f"[...document.querySelectorAll('{what}.k0')].map(e=>getComputedStyle(e).{style})"))
            for what, style in ((".line", "stroke"), (".dot", "backgroundColor"))
        )
        ground = browser.run("getComputedStyle(document.body).backgroundColor")
        assert len(lines) == 1 and lines == dots, f"{scheme}: lines {lines}, names {dots}"
        seen[scheme] = (lines.pop(), ground)
    assert seen["light"][0] != seen["dark"][0] and seen["light"][1] == "rgb(255, 255, 255)" != seen["dark"][1]
    browser.run("document.getElementById('theme').click()")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)", (
        "the switch does nothing"
    )


def test_the_cross_hair_says_values_and_a_click_sorts(browser: Browser, pages: dict[str, Path]) -> None:
    browser.look_like(1280, 900)
    browser.open(pages["with series"])
    x, y = browser.run(
        "(()=>{const b=document.querySelector('#learning svg.chart').getBoundingClientRect();"
        "return [b.x+b.width*0.9,b.y+b.height/2]})()"
    )
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    said = browser.run("document.getElementById('tip').innerText")
    assert "round: 4" in said and "server 80 %" in said, said
    slowest = "document.querySelector('#clients tbody tr td').innerText"
    assert browser.run(slowest) == "fc.10"
    browser.run("document.querySelectorAll('#clients th button')[5].click()")
    assert browser.run(slowest) == "fc.13", "the straggler should come first by its longest training"


def test_on_paper_it_is_light_complete_and_a_few_pages(browser: Browser, pages: dict[str, Path]) -> None:
    browser.look_like(1280, 900, scheme="dark", media="print")
    browser.open(pages["with series"])
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    paper = browser.printed()
    count = paper.count(b"/Type /Page\n") + paper.count(b"/Type /Page ") + paper.count(b"/Type /Page/")
    assert paper.startswith(b"%PDF") and 3 <= count <= 14, f"{count} pages"
