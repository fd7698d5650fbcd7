"""Ids made of two parts: `IMAGE_NAME` in a row for each name, images of one thing, `10_left`, `10_right`."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from swinft.propose.facts import Facts
from swinft.propose.grouping import LEAST_GROUPS
from swinft.propose.roles import Roles, is_for_training
from swinft.propose.shape import Reshaped, ToPredict
from swinft.propose.tables import Column, TableFacts
from swinft.propose.targets import Target, kind_of_columns
from swinft.propose.templates import find_templates

MOST_ENDS = 40  # names that the ids of an image end with
NEARLY_ALL = 0.95  # of the starts have every end


@dataclass(frozen=True)
class Parts:
    """Ids as a start and an end, which is the same for each start.

    Args:
        starts: The start of each id.
        ends: The end of each id, without the sign before it.
        sign: What stands between them.
    """

    starts: list[str]
    ends: list[str]
    sign: str

    @property
    def names(self) -> list[str]:
        """The different ends, in the order of the rows."""
        return [*dict.fromkeys(self.ends)]

    def pattern(self, start: str, end: str) -> str:
        """The regular expression that takes ids apart, with names for the parts."""
        either = "|".join(map(re.escape, sorted(self.names)))
        return f"^(?P<{start}>.+){re.escape(self.sign)}(?P<{end}>{either})$"


def parts_of(ids: Sequence[str]) -> Parts | None:
    """Ids taken apart at their last sign, if nearly every start has all of at least two ends; else None."""
    for sign in ("__", "_", "-", " "):
        cut = [id.rpartition(sign) for id in ids]
        if not ids or not all(start and end for start, _, end in cut):
            continue
        found = Parts([start for start, *_ in cut], [end for *_, end in cut], sign)
        starts, names = {*found.starts}, found.names
        whole = len(starts) * len(names)
        if 2 <= len(names) <= MOST_ENDS and len(starts) >= LEAST_GROUPS and NEARLY_ALL * whole <= len(ids) <= whole:
            return found
    return None


def named_parts(facts: Facts, roles: Roles, train: TableFacts) -> Reshaped | None:
    """A table with a row for each `IMAGE_NAME`, as one with a row for each image and a column for each name."""
    wanted = [*roles.sample.columns][1:] if roles.sample else []
    if roles.sample is None or len(wanted) != 1 or not {*roles.sample.columns} <= {*train.columns}:
        return None
    id, value = str(roles.sample_id), wanted[0]
    parts = parts_of(train.column(id))
    if parts is None or not all(
        any(own.endswith(parts.sign + name) for name in parts.names) for own in roles.sample.column(id)
    ):
        return None
    names = parts.names
    key = next(name for name in ("image", "image_id", "row_of_image") if name not in train.columns)
    at = dict(zip(zip(parts.starts, parts.ends, strict=True), train.column(value), strict=True))
    images = [*dict.fromkeys(parts.starts)]
    cells = {key: images, **{name: [at.get((image, name), "") for image in images] for name in names}}
    extract = {"extract": {"column": id, "pattern": parts.pattern(key, "name")}}
    pivot = {"pivot": {"index": [key], "columns": "name", "values": value}}
    table = train.after(cells, round(train.num_rows / len(names)), extract, pivot)
    if not (found := find_templates(table, facts.images)):
        return None
    what, why = kind_of_columns([Column(name, cells[name]) for name in names])
    target = Target(names, what, f"the ends of the ids in {id}", why)
    return Reshaped(
        table, f"{train.num_rows:,} rows, {len(names)} of each image: a column for each of their names", found[0],
        _to_predict(facts, roles, key, extract), tuple(found[1:]),
        id=(key, "what the ids of the sample submission start with"), target=target, used=(key,),
    )  # fmt: skip


def _to_predict(facts: Facts, roles: Roles, key: str, extract: dict[str, Any]) -> ToPredict:
    """The images that the sample's ids name."""
    assert roles.sample is not None
    pattern = re.compile(extract["extract"]["pattern"])
    ids = [match[key] for own in roles.sample.column(str(roles.sample_id)) if (match := pattern.match(own))]
    table = roles.sample.after({key: [*dict.fromkeys(ids)]}, len({*ids}), extract, {"unique": [key]})
    found = sorted(find_templates(table, facts.images), key=is_for_training)
    return ToPredict(next(iter(found), None), key, [*table.steps], "the images of the sample submission, each once")


def with_starts(shape: Reshaped, id: str, target: Target) -> Reshaped:
    """The training rows with a column of groups: the starts of ids like `10_left` and `10_right`.

    They are unchanged where ids have no such parts, or where the starts are the classes.

    Args:
        shape: The training rows.
        id: Their id column.
        target: What is predicted.
    """
    train = shape.train
    bare = [os.path.splitext(cell) for cell in train.column(id)] if id in train.columns else []
    suffixes = {suffix for _, suffix in bare}
    if len(suffixes) != 1 or not train.is_whole or (parts := parts_of([own for own, _ in bare])) is None:
        return shape
    labels = [*zip(*(train.columns[name].cells for name in target.columns if name in train.columns), strict=True)]
    starts = len({*parts.starts})
    if starts <= len({*labels}) and len({*zip(parts.starts, labels, strict=False)}) == starts:
        return shape
    name = next(each for each in ("group", "group_of_id", "start_of_id") if each not in train.columns)
    end = next(each for each in ("part", "part_of_id", "end_of_id") if each not in train.columns)
    pattern = parts.pattern(name, end).removesuffix("$") + re.escape(next(iter(suffixes))) + "$"
    cells = train.all_cells() | {name: parts.starts, end: parts.ends}
    table = train.after(cells, train.num_rows, {"extract": {"column": id, "pattern": pattern}})
    shown = ", ".join(parts.names[:3]) + (" …" if len(parts.names) > 3 else "")
    why = f"ids with one start and the ends {shown} are images of one thing: {starts:,} in {train.num_rows:,} rows"
    return replace(shape, train=table, group=(name, why), used=(*shape.used, name, end))
