"""Images of a table that are spread over several folders: a step `files` finds them, and a join adds their paths."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from swinft.propose.listing import Group
from swinft.propose.tables import TableFacts
from swinft.propose.templates import Keys

ENOUGH = 0.9  # of the files that were looked at have a row, and there is a file for so many of the rows


@dataclass(frozen=True)
class Scattered:
    """The files of a table's rows in several folders.

    Args:
        join: The step that adds their paths.
        group: All of them.
        column: The column that holds their names.
    """

    join: dict[str, Any]
    group: Group
    column: str


def find_scattered(table: TableFacts, groups: Sequence[Group]) -> Scattered | None:
    """The files whose names are cells of a table, if their folders differ only by a part of the path."""
    keys = Keys(table)
    for column in keys.names:
        rows = keys.rows[column]
        for has_suffix in (True, False):
            chosen = [each for each in groups if _share(each, rows, has_suffix) >= ENOUGH]
            if sum(each.count for each in chosen) < ENOUGH * table.num_rows:
                continue
            folder = _common([each.folder for each in chosen])
            suffixes = {each.suffix for each in chosen}
            if folder is None or (len(suffixes) > 1 and not has_suffix):
                continue
            end = "{name}" if has_suffix else f"{{name}}{suffixes.pop()}"
            files = [{"files": f"{folder}/{end}"}]
            join = {"join": {"table": files, "on": {column: "name"}, "columns": ["path"]}}
            names = [name for each in chosen for name in each.names]
            group = Group(folder, end, "files", sum(each.count for each in chosen), names)
            return Scattered(join, group, column)
    return None


def _share(group: Group, rows: dict[str, int], has_suffix: bool) -> float:
    """The share of a group's files whose names are cells."""
    if group.container != "files" or not group.names or not group.folder:
        return 0.0
    names = [path.rpartition("/")[2] for path in group.names]
    names = names if has_suffix else [name.removesuffix(group.suffix) for name in names]
    return sum(name in rows for name in names) / len(names)


def _common(folders: Sequence[str]) -> str | None:
    """Folders as one pattern with braces where they differ; None if their depth differs, or nothing else."""
    parts = [folder.split("/") for folder in folders]
    if len({len(each) for each in parts}) != 1:
        return None
    found, number = [], 0
    for names in zip(*parts, strict=True):
        if len({*names}) == 1 and names[0] != "*":
            found.append(names[0])
            continue
        number += 1
        start = re.match(r"[^0-9*]*", names[0])
        same = start[0] if start and all(name.startswith(start[0]) for name in names) else ""
        found.append(f"{same}{{folder_{number}}}")
    return "/".join(found) if number else None
