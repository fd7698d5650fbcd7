"""Cards of rows: an image, what is known of the row, its Grad-CAM and its nearest rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from swinft.errors import StoreError, command
from swinft.printing import visible
from swinft.run.report.rows.neighbours import Embeddings, how_to_embed, nearest

if TYPE_CHECKING:
    from swinft.run.report.contents import ReportInput

NUM_ROWS = 12  # of a section
NUM_NEAR = 4  # nearest rows of a row


@dataclass(frozen=True)
class Near:
    """One of the nearest rows of a row.

    Args:
        id: Its id.
        truth: Its target, as text.
        image: Its thumbnail.
        note: How near it is, and whether the network was trained on it.
    """

    id: str
    truth: str
    image: str
    note: str


@dataclass(frozen=True)
class Card:
    """A row as the report shows it.

    Args:
        id: Its id.
        lines: What is known of it.
        note: More, in small.
        image: Its thumbnail; empty if the image is missing.
        gradcam: The same image with its Grad-CAM over it; empty without one.
        near: Its nearest rows.
    """

    id: str
    lines: list[str]
    note: str
    image: str
    gradcam: str
    near: list[Near]


def cards(report: "ReportInput", places: Sequence[int], describe: Callable[[int], str]) -> list[Card]:
    """Cards of scored rows.

    Args:
        report: The report.
        places: Their positions among the scored rows.
        describe: What is said of a row beside its fold, by its position.
    """
    near, heat = _near(report, places), report.gradcams(places)
    found = []
    for place in places:
        row = int(report.rows[place])
        lines = [f"true: {report.captions[place]}", f"predicted: {report.prediction_text(place)}"]
        note = ", ".join(filter(None, [f"fold {report.folds[place]}", describe(place)]))
        image = report.thumbnails.of(row)
        found.append(Card(report.ids[place], lines, note, image, heat.get(place, ""), near.get(row, [])))
    return found


def near_note(report: "ReportInput") -> str:
    """What is said of the nearest rows: whose they are, or which command makes them."""
    embeddings = report.facts.embeddings
    if isinstance(embeddings, Embeddings):
        whose = f" of the member {visible(embeddings.member)}" if embeddings.member else ""
        return (
            f"Below each row are its {NUM_NEAR} nearest training rows, by the cosine of embeddings "
            f"({embeddings.folder.name}) of the network{whose} that was not trained on the row."
        )
    how = how_to_embed(report.run)
    if not how or report.oof.maps is not None:
        return embeddings
    made = f"`{how}` and then `{command('report', report.run.root)}` add"
    return " ".join(filter(None, [embeddings, f"{made} the nearest training rows of each row."]))


def _near(report: "ReportInput", places: Sequence[int]) -> dict[int, list[Near]]:
    """The nearest training rows of scored rows, by their positions in the table; none without embeddings."""
    embeddings = report.facts.embeddings
    if not isinstance(embeddings, Embeddings) or not len(places):
        return {}
    rows, folds = report.rows[list(places)], report.folds[list(places)]
    try:
        found = nearest(embeddings, report.data.train_table.ids, rows, folds, NUM_NEAR)
    except StoreError:
        return {}
    shown = {each.row for every in found.values() for each in every}
    targets = report.data.targets[sorted(shown)]
    known = targets >= 0 if targets.dtype.kind == "i" else np.isfinite(targets).all(1)
    texts = dict(zip(np.array(sorted(shown))[known].tolist(), report.schema.captions(targets[known]), strict=True))
    return {
        row: [
            Near(
                report.data.train_table.ids[each.row],
                texts.get(each.row, "no target"),
                report.thumbnails.of(each.row),
                f"cosine {each.similarity:.2f}{'' if each.is_trained_on else ', held out as well'}",
            )
            for each in every
        ]
        for row, every in found.items()
    }
