"""Pixels in a table: a column for each, or lists of numbers in cells, of which several are channels of one image."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from swinft.propose.facts import Facts
from swinft.propose.images import number_rules, pixel_columns, pixel_lists
from swinft.propose.listing import Group
from swinft.propose.roles import Roles
from swinft.propose.shape import Pixels, Reshaped, ToPredict
from swinft.propose.tables import TableFacts
from swinft.propose.templates import Template

Loading = tuple[tuple[str, Any, str], ...]


def pixels(facts: Facts, roles: Roles, train: TableFacts) -> Reshaped | None:
    """A table with the pixels of each image in its columns."""
    prefix, columns = pixel_columns(train)
    if columns:
        side = math.isqrt(len(columns))
        why = f"its {len(columns):,} columns {prefix}* hold images of {side} × {side} pixels"
        loading: Loading = (("data.loading.source", "column", "pixels are in columns of the table"),)
        return _numbered(roles, train, [f"{prefix}*"], columns, side, why, loading)
    if roles.train_images or facts.scattered(train):
        return None  # lists of numbers beside files of images are no images
    columns, side, numbers = pixel_lists(train)
    if not columns:
        return None
    each = f"lists of {side * side:,} numbers: images of {side} × {side} pixels"
    why = (
        f"its column {columns[0]} holds {each}"
        if len(columns) == 1
        else f"its columns {', '.join(columns)} hold {each}"
    )
    return _numbered(roles, train, columns, columns, side, why, _list_loading(numbers))


def _numbered(
    roles: Roles, train: TableFacts, paths: list[str], columns: Sequence[str], side: int, why: str, loading: Loading
) -> Reshaped:
    """The table without its pixels, with the number of the row as id where it has none."""
    image = Template(paths[0], Group("", "", "files", train.num_rows, []), 1.0, 1.0)
    id = _unique(train, columns)
    name = id or (roles.test and _unique(roles.test, columns)) or roles.sample_id or "row"
    cells = {each: column for each, column in train.all_cells().items() if each not in columns}
    number, test, test_steps = {"number": {"column": name, "start": 1}}, roles.test, list[dict[str, Any]]()
    if id is None:
        cells[name] = [str(row + 1) for row in range(train.num_kept)]
    if test is not None and name not in test.columns:
        test_steps = [*test.made_by, number]
    has_pixels = test is None or {*columns} <= {*test.columns}
    why_test = "the rows to predict, numbered like the sample submission's ids" if test_steps else ""
    table = train.after(cells, train.num_rows, *([number] if id is None else []))
    return Reshaped(
        table, f"{roles.reasons['train']}; {why}", image,
        ToPredict(image if has_pixels else None, name, test_steps, why_test),
        id=(name, "the number of the row" if id is None else "a unique column"), used=(name,), loading=loading,
        made_of=Pixels(side, tuple(paths) if len(paths) > 1 else ()),
    )  # fmt: skip


def _unique(table: TableFacts, columns: Sequence[str]) -> str | None:
    """The first unique column that is neither pixels nor measured."""
    names = (name for name in table.columns if name not in columns and table.is_unique(name))
    return next((name for name in names if not table.columns[name].is_number or table.columns[name].is_whole), None)


def _list_loading(lists: Sequence[Sequence[str]]) -> Loading:
    """How lists of numbers are read: as grey levels, or as any numbers between black and white."""
    why = "pixels are in cells of the table"
    if all(cell.isdigit() and int(cell) <= 255 for each in lists for cell in each):
        return (("data.loading.source", "column", why),)
    rules = number_rules([np.array(each, np.float64) for each in lists])
    source = {"class_path": "swinft.ColumnSource", "init_args": {"values": "numbers"}}
    return (
        ("data.loading.source", source, f"{why}: not grey levels of 0–255, but other numbers"),
        ("data.loading.image_rules", rules, f"1 and 99 % of the numbers in {len(lists)} cells are black and white"),
    )
