"""The first metric in parts of the rows: by metadata, and by the size and the look of images."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from swinft.data.schema import MISSING_CATEGORY
from swinft.pages.tables import Cell, Table, cell
from swinft.printing import format_number
from swinft.run.report.contents import ReportInput
from swinft.run.report.intervals import Scorer, format_ends
from swinft.run.report.rows.images import ImageLines
from swinft.run.report.section import Section, render

LEVELS = 12  # of a category: the most frequent ones
PARTS = 4  # of a number: quarters of the rows
FEWEST = 2  # rows
OF_IMAGES = ("width", "aspect ratio", "brightness", "sharpness")  # statistics of image files
LEAD = (
    "The first metric of parts of the rows, with 95 % intervals. A part whose interval lies apart from the score of"
    " all rows is where there is something to win, or a column that tells more than it should."
)


def section(report: ReportInput) -> Section | None:
    """The section; none where rows have nothing in which they differ but their images."""
    scorer = Scorer(report, report.metrics[0])
    tables = []
    for name, parts in _columns(report):
        rows = []
        for label, inside in parts:
            if inside.sum() >= FEWEST:
                shown = Cell(format_ends(scorer.interval(inside), "–"))
                rows.append([Cell(label), cell(int(inside.sum()), ",d"), cell(scorer.score(inside)), shown])
        if len(rows) > 1:
            columns = [name, "rows", scorer.metric.name, "interval"]
            tables.append((name, Table(f"Scores by {name}", columns, rows)))
    if not tables:
        return None
    return Section("parts", "Scores of parts", LEAD, render("sections/subgroups.html", tables=tables))


def _columns(report: ReportInput) -> Iterator[tuple[str, list[tuple[str, NDArray[np.bool_]]]]]:
    """Names of columns, each with its parts: a label, and which of the scored rows it has, (n,)."""
    data, schema = report.data, report.schema
    for name in schema.categories:
        cells = np.array(data.train_table.names(name))[report.rows]
        yield name, _levels(cells)
    if schema.numeric_features and data.splits.train.features is not None:
        for place, name in enumerate(schema.numeric_features):
            yield name, quarters(data.splits.train.features[report.rows, place].astype(np.float64))
    found = ImageLines.read(report.run).statistics("train", data.splits.train)
    if found is not None:
        yield from ((name, quarters(found[name].to_numpy(np.float64)[report.rows])) for name in OF_IMAGES)


def _levels(cells: NDArray[np.str_]) -> list[tuple[str, NDArray[np.bool_]]]:
    names, counts = np.unique(cells, return_counts=True)
    common = names[np.argsort(-counts, kind="stable")[:LEVELS]]
    found = [(str(name) if name != MISSING_CATEGORY else "(missing)", cells == name) for name in common]
    rest = ~np.isin(cells, common)
    return [*found, ("all others", rest)] if rest.any() else found


def quarters(values: NDArray[np.float64]) -> list[tuple[str, NDArray[np.bool_]]]:
    """Parts of about equally many rows by a number, and the rows that lack it."""
    known = np.isfinite(values)
    distinct = np.unique(values[known])
    found = []
    if len(distinct) <= PARTS:
        found = [(format_number(value), values == value) for value in distinct.tolist()]
    else:
        edges = np.unique(np.quantile(values[known], np.linspace(0, 1, PARTS + 1)))
        for low, high in pairwise(edges.tolist()):
            inside = (values >= low) & ((values < high) | (high == edges[-1]) & (values <= high))
            found.append((f"{format_number(low)} to {format_number(high)}", inside))
    return [*found, ("(missing)", ~known)] if not known.all() else found
