"""What the check of the images found: problems, sizes, and images that are unlike the others."""

from collections import Counter
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from swinft.errors import number_of
from swinft.pages.tables import Cell, Table, cell
from swinft.printing import format_number
from swinft.run.report.contents import ReportInput
from swinft.run.report.rows.images import FILE_SIZE, ImageLines
from swinft.run.report.section import Section, render

SHOWN = 30  # problems
UNUSUAL = 12  # images
FAR = 5.0  # robust standard deviations from the median, from which an image is unusual
LEAD = "Found in the scan of every file before training: swinft check prints more of it."


def section(report: ReportInput) -> Section | None:
    """The section."""
    lines = ImageLines.read(report.run)
    found = lines.statistics("train", report.data.splits.train)
    body = render(
        "sections/images.html",
        counts=_counts(lines.table),
        problems=_problems(lines.table),
        statistics=None if found is None else _statistics(found.iloc[report.rows]),
        unusual=[] if found is None else unusual(report, found.iloc[report.rows].reset_index(drop=True)),
    )
    return Section("images", "Images", LEAD, body)


def _counts(table: pd.DataFrame) -> list[str]:
    """A sentence for each split."""
    found = []
    for split, lines in table.groupby("split", sort=False):
        bad = int((lines["problem"] != "").sum())
        text = f"{number_of(len(lines), f'{split} image')}, {bad:,} of which cannot be used"
        if "width" in lines:
            sizes = Counter(f"{w} × {h}" for w, h in zip(lines["width"], lines["height"], strict=True) if w)
            common = ", ".join(f"{size} ({count:,})" for size, count in sizes.most_common(5))
            text += f"; {number_of(len(sizes), 'size')}, width × height: {common}{', …' if len(sizes) > 5 else ''}"
        found.append(f"{text}.")
    return found


def _problems(table: pd.DataFrame) -> Table | None:
    bad = table[table["problem"] != ""]
    if not len(bad):
        return None
    rows = [[Cell(line["id"]), Cell(line["split"]), Cell(line["problem"])] for _, line in bad.head(SHOWN).iterrows()]
    return Table("Images that cannot be used", ["id", "split", "problem"], rows, is_text=True)


def _statistics(found: pd.DataFrame) -> Table:
    rows = []
    for name in found.columns:
        values = found[name].to_numpy(np.float64)
        known = values[np.isfinite(values)]
        ends = np.quantile(known, (0, 0.05, 0.5, 0.95, 1)).tolist() if len(known) else [None] * 5
        rows.append([Cell(_label(name)), *(cell(value, partial(_text, str(name))) for value in ends)])
    return Table("Statistics of the images", ["", "lowest", "5 %", "median", "95 %", "highest"], rows)


def _label(name: str) -> str:
    return "file size" if name == FILE_SIZE else name


def _text(name: str, value: float) -> str:
    """A statistic as text; the size of a file, of which the logarithm is compared, in its unit."""
    return f"{2**value / 1000:,.1f} kB" if name == FILE_SIZE else format_number(value)


def unusual(report: ReportInput, found: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows whose images are furthest from the others in some statistic, the furthest first.

    Args:
        report: The run.
        found: Statistics of the scored rows, (n, S).
    """
    values = found.to_numpy(np.float64)
    median = np.nanmedian(values, 0)
    spread = 1.4826 * np.nanmedian(np.abs(values - median), 0)  # that of a normal distribution
    spread = np.where(spread > 0, spread, np.nanstd(values, 0))  # where most have the same value
    with np.errstate(all="ignore"):
        far = np.where(spread > 0, (values - median) / spread, 0)
    far = np.nan_to_num(far)
    worst = np.abs(far).argmax(1)
    size = np.abs(far).max(1)
    chosen = [place for place in np.argsort(-size, kind="stable")[:UNUSUAL].tolist() if size[place] >= FAR]
    return [
        {
            "id": report.ids[place],
            "lines": [f"{_label(name)}: {_text(name, values[place, worst[place]])}"],
            "note": f"median {_text(name, median[worst[place]])}",
            "image": report.thumbnails.of(int(report.rows[place])),
        }
        for place in chosen
        for name in [str(found.columns[worst[place]])]
    ]
