"""Drift between training rows and rows to predict: adversarial validation by files, metadata and embeddings."""

from typing import Any

import numpy as np
import pandas as pd

from swinft.data.samples import Rows
from swinft.errors import StoreError
from swinft.pages.tables import Table, cell
from swinft.printing import visible
from swinft.run.report.contents import ReportInput
from swinft.run.report.rows.drift import Drift, column_table, drift_of_columns, drift_of_embeddings
from swinft.run.report.rows.neighbours import TEST, TRAIN, Embeddings
from swinft.run.report.section import Section, render

NUM_SHOWN = 6  # rows of each side
NUM_COLUMNS = 12
TITLE = "Drift between training and test"
Given = tuple[str, Drift]


def section(report: ReportInput) -> Section | None:
    """The section; none without rows to predict, and where images.csv is not of the run."""
    splits = report.data.splits
    if not splits.has_test or not len(splits.test.table):
        return None
    seed = int(report.config.get("seed") or 0)
    columns, note = _columns(report)
    found: list[Given] = []
    if columns is not None and (of_columns := drift_of_columns(*columns, _groups(report), seed)):
        found.append(("files and metadata", of_columns))
    of_embeddings = _by_embeddings(report, seed)
    if isinstance(of_embeddings, Drift):
        member = report.facts.embeddings.member if isinstance(report.facts.embeddings, Embeddings) else ""
        found.append((f"embeddings of {visible(member)}" if member else "embeddings", of_embeddings))
    notes = [note, of_embeddings if isinstance(of_embeddings, str) else ""]
    if not found:
        return Section(
            "drift", TITLE, " ".join(filter(None, notes)) or "There are too few rows to tell.", _body(None, [], None)
        )
    lines = [
        [
            cell(name),
            cell(each.auc, ".3f"),
            cell(f"{each.low:.3f} – {each.high:.3f}"),
            cell("yes" if each.is_seen else "no"),
        ]
        for name, each in found
    ]
    table = Table(
        "Adversarial validation", ["compared by", "AUC", "99 % interval", "drift seen"], lines, is_sortable=False
    )
    differing = None if columns is None else _differing(*columns)
    return Section("drift", TITLE, _lead(found), _body(table, [*notes], differing, *_rows(report, found[-1])))


def _lead(found: list[Given]) -> str:
    what = (
        "A classifier learns to tell rows to predict from training rows, cross-validated: an AUC of 0.5 says that it "
        "cannot, 1 that it always can."
    )
    seen = [name for name, each in found if each.is_seen]
    if not seen:
        return f"{what} No drift is seen: no interval is above 0.5."
    return (
        f"{what} Drift is seen by {' and by '.join(seen)}: the out-of-fold score may not hold for the rows to predict."
    )


def _body(table: Table | None, notes: list[str], differing: Table | None, *sides: Any) -> Any:
    return render("sections/drift.html", table=table, notes=notes, differing=differing, sides=sides)


def _columns(report: ReportInput) -> tuple[tuple[pd.DataFrame, pd.DataFrame] | None, str]:
    """Statistics of files and metadata of both sides; or why there are none."""
    splits, lines = report.data.splits, report.facts.images
    if lines is None:
        return None, "The run has no images.csv."
    if not lines.has_statistics:
        return None, "The run was started by a version that did not record the statistics of images."
    train, test = lines.statistics(TRAIN, splits.train), lines.statistics(TEST, splits.test)
    if train is None or test is None:
        return None, "The rows to predict are others than at the start of the run."
    sides = [
        pd.concat([each, _metadata(report, rows).rename(columns=_other_than(each))], axis=1)
        for each, rows in ((train, splits.train), (test, splits.test))
    ]
    return (sides[0].iloc[report.rows].reset_index(drop=True), sides[1]), ""


def _other_than(statistics: pd.DataFrame) -> dict[str, str]:
    """New names of metadata that is called like a statistic, such as `brightness`."""
    return {name: f"{name} (metadata)" for name in statistics.columns}


def _metadata(report: ReportInput, rows: Rows) -> pd.DataFrame:
    """Metadata as the network gets it: numbers, and a column for each category."""
    schema = report.schema
    names = [
        *schema.numeric_features,
        *(f"{name} = {value}" for name, known in schema.categories.items() for value in known),
    ]
    values = np.zeros((len(rows.table), 0)) if rows.features is None else rows.features.astype(np.float64)
    return pd.DataFrame(values, columns=names[: values.shape[1]])


def _groups(report: ReportInput) -> list[str] | None:
    groups = report.data.splits.train.groups
    return None if groups is None else [groups[row] for row in report.rows.tolist()]


def _by_embeddings(report: ReportInput, seed: int) -> Drift | str:
    """Drift by embeddings; or why there is none."""
    embeddings = report.facts.embeddings
    if not isinstance(embeddings, Embeddings):
        return ""
    if not embeddings.has_test():
        return "There are no embeddings of the rows to predict, by which drift would be seen that files do not show."
    position_of = {id: place for place, id in enumerate(report.ids)}
    pairs = []
    try:
        for name in dict.fromkeys(every[0] for every in embeddings.of_folds.values()):
            train, test = embeddings.table(name, TRAIN), embeddings.table(name, TEST)
            seen = np.zeros(len(train.ids), dtype=bool) if train.is_trained_on is None else train.is_trained_on
            places = np.array(
                [-1 if is_seen else position_of.get(id, -1) for id, is_seen in zip(train.ids, seen, strict=True)]
            )
            pairs.append(
                (train.values[places >= 0].astype(np.float64), test.values.astype(np.float64), places[places >= 0])
            )
            if test.ids != report.data.test_table.ids:
                return "The embeddings of the rows to predict are of other rows."
    except StoreError as error:
        return str(error)
    return drift_of_embeddings(pairs, len(report.rows), _groups(report), seed) or ""


def _differing(train: pd.DataFrame, test: pd.DataFrame) -> Table:
    """The columns that differ most."""
    found = column_table(train, test).head(NUM_COLUMNS)
    lines = [
        [cell(name), cell(one, ".4g"), cell(other, ".4g"), cell(auc, ".3f")]
        for name, one, other, auc in zip(*(found[name].tolist() for name in found.columns), strict=True)
    ]
    return Table("Columns", ["column", "median of training rows", "median of rows to predict", "AUC alone"], lines)


def _rows(report: ReportInput, found: Given) -> list[dict[str, Any]]:
    """The rows of each side that look most like the other one."""
    drift = found[1]
    like_test = np.argsort(-np.nan_to_num(drift.train, nan=-1.0), kind="stable")[:NUM_SHOWN]
    like_train = np.argsort(np.nan_to_num(drift.test, nan=2.0), kind="stable")[:NUM_SHOWN]
    ids = report.data.test_table.ids
    train = [
        {
            "id": report.ids[place],
            "lines": [f"true: {report.captions[place]}"],
            "note": f"{drift.train[place]:.0%} test",
            "image": report.thumbnails.of(int(report.rows[place])),
        }
        for place in like_test.tolist()
    ]
    test = [
        {
            "id": ids[row],
            "lines": [],
            "note": f"{drift.test[row]:.0%} test",
            "image": report.thumbnails.of(row, "predict"),
        }
        for row in like_train.tolist()
    ]
    by = f"by {found[0]}"
    return [
        {"title": f"Training rows that look most like rows to predict, {by}", "rows": train},
        {"title": f"Rows to predict that look most like training rows, {by}", "rows": test},
    ]
