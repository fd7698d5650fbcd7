"""Rows of extra tables: no fold scores them, and every fold trains on all but those that its held-out rows show again.

Shapes: N rows, of the training table and then of the extra ones; K folds.
"""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.features import encode_features
from swinft.data.fold_settings import EXTRA, ExtraTable
from swinft.data.folds import Folds
from swinft.data.inspection.duplicates import cluster_groups
from swinft.data.inspection.image_files import ImageFiles
from swinft.data.labelled import read_labelled, read_unlabelled
from swinft.data.row_images import joined as joined_images
from swinft.data.samples import Rows, needed_columns, read_groups
from swinft.data.schema import Schema
from swinft.data.tables.numbers import weights
from swinft.data.tables.table import Problem, Table, joined
from swinft.data.target.auxiliary import read_more_auxiliary
from swinft.data.target.base import twin_problems
from swinft.data.target.gaps import all_missing, encode_other, with_skipped
from swinft.errors import listed, number_of
from swinft.ranges import named_runs

if TYPE_CHECKING:
    from swinft.data.data_settings import DataSettings


def with_extra(settings: "DataSettings", main: Rows, schema: Schema, problems: list[Problem]) -> Rows:
    """The training rows with those of the extra tables behind them.

    Args:
        settings: Of the datamodule.
        main: The rows of the training table.
        schema: Of the training table: an extra one has no other classes.
        problems: Whatever is wrong is appended.
    """
    found = [read for each in settings.folds.extra_tables if (read := _read(settings, each, schema, problems))]
    if not found:
        return main
    problems += _doubled_ids([rows.table for rows in (main, *found)])
    problems += [] if problems else [each for rows in found for each in _other_spellings(settings, main, rows)]
    parts, sizes = [main, *found], [len(rows.table) for rows in (main, *found)]
    starts = np.cumsum([0, *sizes])
    skipped = {
        start + row: why
        for start, part in zip(starts.tolist(), parts, strict=False)
        for row, why in part.skipped.items()
    }
    paths, shown = [path for rows in parts for path in rows.paths], main.shown
    if shown is not None:
        paths, shown = joined_images([(rows.paths, rows.shown) for rows in parts if rows.shown is not None])
    return Rows(
        joined([rows.table for rows in parts]),
        paths,
        _concatenated([rows.targets for rows in parts]),
        _concatenated([rows.features for rows in parts]),
        _weights(parts, sizes),
        _groups(parts),
        skipped,
        main.source,
        sizes[0],
        shown,
        [np.concatenate(each) for each in zip(*(rows.auxiliary for rows in parts), strict=True)],
    )


def _read(settings: "DataSettings", given: ExtraTable, schema: Schema, problems: list[Problem]) -> Rows | None:
    """The rows of one table; None where it is not there, has no such columns or no rows."""
    columns, finding = settings.columns, settings.finding()
    if given.image:
        finding = replace(finding, images=settings.image.elsewhere(given.image, "the image of data.folds.extra"))
    own = {**dict.fromkeys(settings.targets, "data.target")}
    own |= {columns.weight_column: "data.columns.weight"} if columns.weight_column else {}
    required = {
        **({} if given.labels else own),
        **needed_columns(settings, finding.columns, "the image of data.folds.extra" if given.image else "data.image"),
    }
    notes: list[str] = []
    read = (read_unlabelled if given.labels else read_labelled)(settings, given.source, required, problems, notes)
    if read is None:
        return None
    table, skipped, cells = read
    answered = cells.table
    if given.labels:
        targets = all_missing(schema.base, len(table), len(schema.outputs))
    else:
        targets = encode_other(schema.target, cells, schema.outputs, problems, schema.has_gaps)
    auxiliary = [
        with_skipped(read_more_auxiliary(own, kept["outputs"], answered, columns.rules, problems), skipped)
        for own, kept in zip(columns.auxiliary or (), schema.auxiliary, strict=True)
    ]
    features = None
    if schema.num_features:
        features = encode_features(answered, schema, problems, columns.rules, columns.fill_rules, True, notes)
        features = with_skipped(features, skipped)
    factor: NDArray[np.float32] | None = None
    if columns.weight_column in table.columns:
        each = weights(answered, str(columns.weight_column), problems, columns.rules)
        factor = with_skipped(each, skipped) * np.float32(given.factor)
    elif given.factor != 1:
        factor = np.full(len(table), given.factor, dtype=np.float32)
    group = settings.folds.group
    groups = read_groups(table, group, columns.rules, problems) if group and group in table.columns else None
    paths, shown = finding.find(table, problems, notes)
    table = replace(table, notes=(*table.notes, *notes))
    targets, source = with_skipped(targets, skipped), finding.reading(settings.loading.image_rules)
    return Rows(table, paths, targets, features, factor, groups, skipped, source, shown=shown, auxiliary=auxiliary)


def _concatenated(parts: Sequence[NDArray[Any] | None]) -> Any:
    """Arrays of all tables as one; None where there are none."""
    return None if parts[0] is None else np.concatenate([each for each in parts if each is not None])


def _weights(parts: Sequence[Rows], sizes: Sequence[int]) -> NDArray[np.float32] | None:
    """Weights of all rows; None where all count the same."""
    if all(rows.weights is None for rows in parts):
        return None
    given = [
        np.ones(size, np.float32) if rows.weights is None else rows.weights
        for rows, size in zip(parts, sizes, strict=True)
    ]
    return np.concatenate(given)


def _groups(parts: Sequence[Rows]) -> list[str] | None:
    """Groups of all rows, None where there are none; a row of an extra table without the column is one by itself."""
    if parts[0].groups is None:
        return None
    own = (f"\0{table} {row}" for table, rows in enumerate(parts) for row in range(len(rows.table)))  # no cell's name
    return [name or next(own) for rows in parts for name in rows.groups or [""] * len(rows.table)]


def _other_spellings(settings: "DataSettings", main: Rows, extra: Rows) -> list[Problem]:
    """Groups of an extra table that the training table spells in another way: they would not be known as scored."""
    if main.groups is None or extra.groups is None:
        return []
    counts = Counter(main.groups) + Counter(extra.groups)
    return twin_problems(extra.table, str(settings.folds.group), counts, settings.columns.rules)


def _doubled_ids(tables: Sequence[Table]) -> list[Problem]:
    """Ids that two tables have."""
    first = dict.fromkeys(tables[0].ids, tables[0])
    problems = []
    for table in tables[1:]:
        for row, id in enumerate(table.ids):
            if first.setdefault(id, table) is not table:
                message = f"the id is in {first[id].path}, too"
                problems.append(table.problem(row, message, "Give the rows of extra tables ids of their own."))
    return problems


def find_leaks(train: Rows, folds: Folds, known: Path | None, images: ImageFiles) -> NDArray[np.bool_] | None:
    """Which extra rows each fold leaves out, from an earlier run's `extra.csv` or from a look at their images."""
    if not train.is_extra.any():
        return None
    if known:
        return read_leaks(known, train, int(folds.max()) + 1)
    return left_out(train, folds, images.clusters_with_extra(train))


def left_out(train: Rows, folds: Folds, clusters: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which extra rows a fold must not train on, bool (K, N): their image or group is among its held-out rows.

    Args:
        train: N rows.
        folds: Fold of each, int64 (N,).
        clusters: Of images that are the same or look alike, extra ones included, int64 (N,).
    """
    names = np.array(cluster_groups(clusters, train.groups))
    extra = train.is_extra
    found = np.zeros((int(folds.max()) + 1, len(folds)), dtype=bool)
    for fold in range(len(found)):
        found[fold, extra] = np.isin(names[extra], names[(folds == fold) & train.is_used])
    return found


def extra_notes(train: Rows, leaks: NDArray[np.bool_], extra: Sequence[ExtraTable]) -> list[str]:
    """A line for each extra table: its rows, and how many of them which fold leaves out."""
    notes = []
    parts = train.table.part_of_row
    assert parts is not None
    for number, (given, path) in enumerate(zip(extra, train.table.parts[1:], strict=True), start=1):
        used = (parts == number) & train.is_used
        said = f"{path}: {number_of(int(used.sum()), 'row')} that every fold trains on and none scores"
        said += f", weight {given.factor:g}" if given.factor != 1 else ""
        said += (
            f", labelled by {listed(named_runs(EXTRA, given.labels))}, each fold by its networks of the same fold"
            if given.labels
            else ""
        )
        counts = (leaks & used).sum(1).tolist()
        if any(counts):
            each = ", ".join(f"{count:,} of fold {fold}" for fold, count in enumerate(counts) if count)
            said += f"; left out, as their image or group is among the held-out rows: {each}"
        notes.append(f"{said}.")
    return notes


def leaks_csv(train: Rows, leaks: NDArray[np.bool_]) -> str:
    """The text of an `extra.csv`: the id of each extra row, and the folds that leave it out."""
    text = io.StringIO()
    rows = np.flatnonzero(train.is_extra).tolist()
    lines = [(train.table.ids[row], " ".join(map(str, np.flatnonzero(leaks[:, row]).tolist()))) for row in rows]
    csv.writer(text, lineterminator="\n").writerows([("id", "left_out_of"), *lines])
    return text.getvalue()


def read_leaks(path: Path, train: Rows, num_folds: int) -> NDArray[np.bool_]:
    """What `leaks_csv` wrote, bool (K, N)."""
    with path.open(encoding="utf-8", newline="") as file:
        folds_of = {line["id"]: [int(fold) for fold in line["left_out_of"].split()] for line in csv.DictReader(file)}
    found = np.zeros((num_folds, len(train.table)), dtype=bool)
    for row in np.flatnonzero(train.is_extra).tolist():
        found[folds_of[train.table.ids[row]], row] = True
    return found
