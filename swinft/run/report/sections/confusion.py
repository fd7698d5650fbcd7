"""Which classes are taken for which: a matrix, and the most frequent mistakes."""

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from swinft.pages.page import image_uri
from swinft.pages.tables import Cell, Table, cell
from swinft.printing import visible
from swinft.run.report.contents import ReportInput
from swinft.run.report.outcomes import confusion_counts, mistakes, true_classes
from swinft.run.report.section import Section, render
from swinft.run.report.svg import WIDTH, text

COUNTED = 12  # classes whose counts are written into the matrix
NAMED = 40  # classes whose names stand beside it; more are drawn as an image
DRAWN = 1000  # classes; the image of more would have megabytes
PAIRS = 30
LEAD = (
    "A line of the matrix holds the rows of one true class, by the class that is predicted; a stronger colour is a "
    "larger share of the line. What is off the diagonal is wrong."
)
SIDE = 116  # of the names beside the matrix
WORDS = 200  # width of the words above it, which a matrix of two classes has not
SQUARE = (
    '<rect class="heat" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill-opacity="{:.3f}">'
    "<title>{}</title></rect>"
)
WHOLE = (
    '<figure class="chart"><div class="box"><svg class="wide" viewBox="0 0 {0:.0f} {1:.0f}" width="{0:.0f}" '
    'height="{1:.0f}" role="img"><title>Confusion matrix</title>{2}</svg></div></figure>'
)
PIXELS = (
    '<figure class="chart"><figcaption>{} classes in their order, true from top to bottom, predicted from left to right'
    '</figcaption><img class="pixels" alt="Confusion matrix" src="{}"></figure>'
)


def section(report: ReportInput) -> Section | None:
    """The section; none where there are no classes to be taken for one another."""
    if not report.schema.base.are_classes or len(report.outputs) < 2 or not len(report.rows):
        return None
    true, said = true_classes(report), report.values.argmax(1)
    table = _mistakes(true, said, report.outputs)
    drawn, lead = Markup(), LEAD
    if len(report.outputs) <= DRAWN:
        drawn = matrix(confusion_counts(true, said, len(report.outputs)), report.outputs)
    else:
        lead = f"The matrix of {len(report.outputs):,} classes is too large to be drawn."
    return Section("confusion", "Confusion", lead, render("sections/confusion.html", matrix=drawn, table=table))


def matrix(counts: NDArray[np.int64], names: list[str]) -> Markup:
    """The matrix as a figure.

    Args:
        counts: Rows by true and predicted class, (K, K).
        names: Names of the classes.
    """
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    many = len(names)
    if many > NAMED:
        return _image(shares)
    cell_side = min(44.0, max(14.0, (2 * WIDTH - SIDE) / many)) if many > COUNTED else (WIDTH + 60 - SIDE) / many
    cell_side = min(cell_side, 60)
    side = cell_side * many
    parts = []
    for (true, said), count in np.ndenumerate(counts):
        x, y, share = SIDE + said * cell_side, 22 + true * cell_side, float(shares[true, said])
        title = f"{names[true]} predicted as {names[said]}: {count:,} rows, {share:.1%} of the class"
        size = cell_side - 1
        parts.append(Markup(SQUARE).format(x, y, size, size, 0.04 + 0.96 * share, visible(title)))
        if many <= COUNTED and count:
            style = "inverse" if share > 0.65 else "strong"
            parts.append(text(x + size / 2, y + size / 2 + 4, f"{count:,}", more=f"{style} on-heat"))
    for k, name in enumerate(names):
        middle = (k + 0.5) * cell_side
        parts.append(text(SIDE - 6, 22 + middle + 4, name, "end", "tick", 17))
        turned = Markup('<g transform="translate({:.1f} {:.1f}) rotate(-40)">{}</g>')
        parts.append(turned.format(SIDE + middle + 4, 34 + side, text(0, 0, name, "end", "tick", 15)))
    parts.append(text(SIDE, 14, "predicted below, true on the left", "start", most=40))
    return Markup(WHOLE).format(SIDE + max(side + 8, WORDS), 22 + side + 92, Markup("").join(parts))


def _image(shares: NDArray[np.float64]) -> Markup:
    """A matrix of many classes: a pixel each, the opacity of one colour, which is right in light and dark."""
    pixels = np.zeros((*shares.shape, 4), np.uint8)
    pixels[..., :3] = (38, 139, 170)
    pixels[..., 3] = np.where(shares > 0, np.maximum(40, 255 * np.sqrt(shares)), 10).astype(np.uint8)
    return Markup(PIXELS).format(len(shares), image_uri(Image.fromarray(pixels, "RGBA"), "png", optimize=True))


def _mistakes(true: NDArray[np.int64], said: NDArray[np.int64], names: list[str]) -> Table:
    of_true, of_said = (np.bincount(each, minlength=len(names)) for each in (true, said))
    rows = []
    for one, other, number in mistakes(true, said, PAIRS).tolist():
        shares = [cell(number / int(of_true[one]), ".1%"), cell(number / int(of_said[other]), ".1%")]
        rows.append([Cell(names[one]), Cell(names[other]), cell(number, ",d"), *shares])
    columns = ["true", "predicted", "rows", "of the true class", "of those predicted so"]
    return Table("Most frequent mistakes", columns, rows)
