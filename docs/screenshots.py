"""Takes the screenshots of docs/report.md: `python docs/screenshots.py runs/bluemarble runs/bluemarble_labels`.

The two runs are those of configs/bluemarble.yaml and configs/bluemarble_labels.yaml, with test predictions, and reports
by `swinft report`. It needs Debian's chromium and the extra `dev`.
"""

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

FOLDER = Path(__file__).parent / "images"
# Name of the picture, run, width, height, colour scheme, and the section that it begins with.
PICTURES = (
    ("report_light", 0, 1240, 1500, "light", ""),
    ("report_dark", 0, 1240, 1500, "dark", "outputs"),
    ("report_labels", 1, 1240, 1500, "light", "outputs"),
    ("report_phone", 1, 360, 1500, "dark", ""),
)


def take(browser: Browser, report: Path, name: str, width: int, height: int, scheme: str, section: str) -> None:
    """Takes one picture.

    Args:
        browser: A running Chromium.
        report: The page.
        name: Name of the file.
        width: Of the window, in pixels.
        height: Of the window, in pixels.
        scheme: `light` or `dark`.
        section: The section at the top; empty for the top of the page.
    """
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(f"{report.resolve().as_uri()}{'#' if section else ''}{section}")
    page.wait_for_timeout(1000)  # charts are drawn when they come into view, which moves what is below
    page.evaluate("document.querySelector(location.hash || 'body').scrollIntoView({behavior: 'instant'})")
    page.wait_for_timeout(1000)
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    image.quantize(128, dither=Image.Dither.NONE).save(FOLDER / f"{name}.png", optimize=True)
    context.close()


def main(runs: list[str]) -> None:
    """Takes all pictures."""
    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
        for name, run, *rest in PICTURES:
            take(browser, Path(runs[run]) / "report.html", name, *rest)  # type: ignore[arg-type]
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
