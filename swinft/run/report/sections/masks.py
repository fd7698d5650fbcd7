"""Out-of-fold masks: the worst, the best and random rows, with true and predicted outlines."""

from PIL import Image

from swinft.data.masks.overlay import hex_color
from swinft.printing import format_score
from swinft.run.report.contents import ReportInput
from swinft.run.report.masks import mask_groups
from swinft.run.report.section import Section, render
from swinft.run.report.thumbnails import jpeg

GREY = " Grey pixels are ignored."
LEAD = "Filled masks are true, outlines dashed with white are predicted, as a submission would decide them."


def section(report: ReportInput) -> Section | None:
    """The section; none for other kinds of target."""
    groups = mask_groups(report.oof, report.data, report.scores, report.metrics, report.counts)
    if not groups:
        return None
    shown = {
        title: [
            {
                "id": row["id"],
                "lines": [f"{format_score(row['score'])}, fold {row['fold']}"],
                "note": "",
                "image": "" if row["image"] is None else jpeg(Image.fromarray(row["image"])),
            }
            for row in rows
        ]
        for title, rows in groups.items()
    }
    masks = report.data.splits.train.masks
    lead = LEAD if masks is None or masks.ignored is None else LEAD + GREY
    classes = [{"name": name, "color": hex_color(k)} for k, name in enumerate(report.outputs)]
    return Section("masks", "Masks", lead, render("sections/masks.html", groups=shown, classes=classes))
