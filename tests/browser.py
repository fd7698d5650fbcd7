"""Opens reports in headless Chromium, and watches what they do."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
REQUIRED = "SWINFT_REQUIRES_CHROMIUM"  # set by .ci/run: these tests must not be skipped there


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser; without one the test is skipped, or fails where the environment requires it."""
    if not CHROMIUM.is_file():
        reason = f"{CHROMIUM} is missing: apt-get install chromium"
        if os.environ.get(REQUIRED):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@dataclass
class Watched:
    """An open page: what it wrote to the console, and what it asked for besides itself."""

    page: Page
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Nothing was loaded, no script failed, nothing was refused by the policy, nothing is wider than the page."""
        assert self.said == []
        assert self.asked == []
        width = self.page.viewport_size["width"]
        assert self.page.evaluate("document.documentElement.scrollWidth") <= width
        assert "could not be made" not in self.page.inner_text("body")


@contextmanager
def opened(browser: Browser, report: Path, width: int = 1200, **options: Any) -> Iterator[Watched]:
    """A report in a window of its own, scrolled to its end, so that every chart is drawn."""
    context = browser.new_context(viewport={"width": width, "height": 900}, **options)
    page = context.new_page()
    watched = Watched(page)
    page.on("console", lambda message: watched.said.append(message.text))
    page.on("pageerror", lambda error: watched.said.append(str(error)))
    page.on("dialog", lambda dialog: watched.said.append(f"dialog {dialog.message}"))
    own = report.resolve().as_uri()
    page.on(
        "request",
        lambda request: request.url in (own, "") or _is_data(request.url) or watched.asked.append(request.url),
    )
    page.goto(own)
    if options.get("java_script_enabled", True):
        height = page.evaluate("document.documentElement.scrollHeight")
        for top in range(0, height, 1500):
            page.evaluate(f"window.scrollTo({{top: {top}, behavior: 'instant'}})")
            page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        page.evaluate("window.scrollTo({top: 0, behavior: 'instant'})")
    yield watched
    context.close()


def _is_data(url: str) -> bool:
    return url.startswith("data:")
