"""Reports of runs of every kind of target, and of unusual tables, in a browser: nothing fails, names stay text."""

import re

import pytest

from tests.browser import chromium, opened
from tests.run.report.kinds import CASES, TRAINED, Case, made

SIZES = [(1200, "light"), (360, "dark")]
DRAWN = "path.line, path.dashed, path.dots, path.mark, path.bars, rect"
EMPTY_CHARTS = f"[...document.querySelectorAll('.chart svg')].filter((each) => !each.querySelector('{DRAWN}')).length"
EMPTY_TABLES = "[...document.querySelectorAll('.box table')].filter((each) => each.rows.length < 2).length"
SCROLLED = (
    "[...document.querySelectorAll('#outputs .box')].filter((each) => each.scrollWidth > each.clientWidth).length"
)
TEXT = "[...document.querySelectorAll('main section:not(#settings)')].map((each) => each.innerText).join('\\n')"


def check(page, case: Case, width: int) -> None:
    """The sections of a page, what is in them, and names that could be taken for HTML."""
    found = page.evaluate("[...document.querySelectorAll('main section')].map((each) => each.id)")
    assert len(found) == len(set(found))
    assert {*TRAINED, *case.sections} <= set(found)
    assert not set(case.absent) & set(found)
    text = page.evaluate(TEXT)
    for name in case.names:
        assert name.partition(" \u200f")[0] in text
    assert not re.search(r"\b(nan|inf|None|NaN|Infinity)\b(?! of)", text)
    assert page.locator("script:not([type])").count() == 1
    assert page.evaluate(EMPTY_CHARTS) == 0
    assert page.evaluate(EMPTY_TABLES) == 0
    assert width < 1000 or page.evaluate(SCROLLED) == 0


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "soft")) for name in CASES])
def test_the_report_of_a_kind_is_whole(name, tmp_path):
    run = made(name, tmp_path)
    assert (run / "report.html").stat().st_size < 5e6
    with chromium() as browser:
        for width, scheme in SIZES:
            with opened(browser, run / "report.html", width, color_scheme=scheme) as watched:
                watched.check()
                check(watched.page, CASES[name], width)
                if name == "thousand":
                    check_thousand(watched.page)


def check_thousand(page) -> None:
    """A thousand classes are readable: a table that scrolls, a matrix as an image, and the most frequent mistakes."""
    assert page.locator("#outputs tbody tr").count() == 1000
    assert page.locator("#outputs .box").bounding_box()["height"] < 700
    assert page.locator("#confusion svg rect").count() == 0
    assert 0 < page.locator("#confusion tbody tr").count() <= 30
    assert "Shown are the first 200 of 1,000." in page.inner_text("#folds")
