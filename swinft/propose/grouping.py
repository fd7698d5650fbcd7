"""Rows that belong together, metadata that a network may use, and columns that only training rows have."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from swinft.propose.roles import Roles
from swinft.propose.tables import Column, TableFacts
from swinft.propose.targets import OWNERS, Target, words_of

PRECEDENCE = (
    "patient", "subject", "person", "participant", "donor", "individual", "animal", "case", "study", "specimen",
    "slide", "video", "clip", "sequence", "image",
)  # fmt: skip
LEAST_GROUPS = 5
MOST_CATEGORIES = 60
IDS = re.compile(r"(^|_| )(id|ids|uid|uuid|path|file|filename|file_name|url|name)$|^id_|instanceuid$", re.IGNORECASE)


@dataclass(frozen=True)
class Group:
    """A column whose equal values stay in one fold.

    Args:
        column: Its name.
        why: Why.
        others: Columns that were weighed, with a sentence each.
        is_certain: Whether its name or the tables say so.
    """

    column: str
    why: str
    others: tuple[str, ...] = ()
    is_certain: bool = True


def find_group(
    train: TableFacts, roles: Roles, target: Target, id: str, image: Sequence[str]
) -> tuple[Group | None, list[str]]:
    """The column of groups, if there is one, and sentences on columns that were weighed and not taken.

    Args:
        train: The training rows.
        roles: The other tables.
        target: The target.
        id: The id column.
        image: Columns that name the image.
    """
    found: list[tuple[int, str, str]] = []
    weighed: list[str] = []
    for name, column in train.columns.items():
        if name in target.columns or name == id or not _repeats(train, column):
            continue
        shown = f"'{name}' repeats: {len(column.values):,} values in {train.num_kept:,} rows"
        named, crossing = OWNERS.search(words_of(name)), _crossing(column, roles)
        apart = ", and no value of it is in the rows to predict" if crossing == 0 else ""
        if _same(column, train, target):
            weighed += [f"{shown}, but its values are those of the target"] if named else []
        elif named:
            place = next((k for k, word in enumerate(PRECEDENCE) if word in words_of(name)), len(PRECEDENCE))
            found.append((1 + place, name, f"{shown}; by its name, they belong together{apart}"))
        elif crossing == 0 and len(column.values) > 20 and not _is_measured(column):
            found.append((50, name, f"{shown}{apart}"))
    shared = [name for name in image if not train.is_unique(name) and _repeats(train, train.columns[name])]
    if shared and not any(train.is_unique(name) for name in image) and shared[0] not in target.columns:
        column = train.columns[shared[0]]
        shown = f"{len(column.values):,} images in {train.num_kept:,} rows: rows of one image must stay together"
        # A coarser column, such as the patient's, keeps the rows of an image together, too.
        found = [each for each in found if _holds(train.columns[each[1]], column)] or [(0, shared[0], shown)]
    found.sort()
    if not found:
        return None, weighed
    best = found[0]
    return Group(best[1], best[2], tuple(why for *_, why in found[1:4]), best[0] < 50), weighed


def _repeats(train: TableFacts, column: Column) -> bool:
    """Whether a column has several rows of one value, of which there are enough."""
    distinct, rows = len(column.values), max(1, train.num_kept)
    if distinct < LEAST_GROUPS or column.num_blank > 0.05 * rows or (column.is_number and not column.is_whole):
        return False
    return distinct < 0.98 * rows and column.num_distinct < 0.98 * train.num_rows


def _holds(coarse: Column, fine: Column) -> bool:
    """Whether all rows of one value of a column have the same value of another."""
    return len({*zip(fine.cells, coarse.cells, strict=True)}) == len({*fine.cells})


def _crossing(column: Column, roles: Roles) -> int | None:
    """How many values the rows to predict share; None if they lack the column, or are too few to tell."""
    predicted = roles.test
    if predicted is None or column.name not in predicted.columns or predicted.num_rows < 20:
        return None
    return len({*column.values} & {*predicted.columns[column.name].values})


def _is_measured(column: Column) -> bool:
    """Whether numbers are measured, not names."""
    return column.is_number and not IDS.search(column.name)


def _same(column: Column, train: TableFacts, target: Target) -> bool:
    """Whether a column and the target name the same classes."""
    if len(target.columns) != 1 or target.columns[0] not in train.columns:  # masks in files have no column
        return False
    pairs = {*zip(column.cells, train.column(target.columns[0]), strict=True)}
    return len(pairs) == len({pair[0] for pair in pairs}) == len({pair[1] for pair in pairs})


@dataclass(frozen=True)
class Metadata:
    """Columns that describe a row besides its image.

    Args:
        numbers: Numeric columns that both tables have.
        categories: Categorical columns that both tables have.
        blanks: Columns of these with missing cells in training rows.
        only_train: Columns that the rows to predict lack.
        left_out: Columns that both tables have and a network cannot use, each with the reason.
    """

    numbers: list[str]
    categories: list[str]
    blanks: list[str]
    only_train: list[str]
    left_out: dict[str, str]


def find_metadata(train: TableFacts, roles: Roles, used: Sequence[str]) -> Metadata:
    """The metadata columns of a training table.

    Args:
        train: The training rows.
        roles: The other tables.
        used: Columns with another role: ids, targets, groups.
    """
    free = [name for name in train.columns if name not in used]
    if roles.test is None:
        return Metadata([], [], [], free, {})
    shared = [name for name in free if name in roles.test.columns]
    numbers, categories, left_out = [], [], {}
    for name in shared:
        column, other = train.columns[name], roles.test.columns[name]
        if len(column.values) < 2:
            left_out[name] = "it has one value"
        elif IDS.search(words_of(name)):
            left_out[name] = "by its name, it is an id"
        elif column.is_number and (other.is_number or not other.values):
            numbers.append(name)
        elif len(column.values) <= MOST_CATEGORIES and len(column.values) < 0.5 * train.num_kept:
            categories.append(name)
        else:
            left_out[name] = f"it is text with {len(column.values):,} values"
    blanks = [name for name in [*numbers, *categories] if train.columns[name].num_blank]
    only_train = [name for name in free if name not in roles.test.columns]
    return Metadata(numbers, categories, blanks, only_train, left_out)
