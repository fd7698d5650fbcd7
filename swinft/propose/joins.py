"""Tables that name no images: joined with one that does, or with a row for each of several columns."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from swinft.propose.facts import Facts
from swinft.propose.patterns import patterns_of
from swinft.propose.roles import Roles
from swinft.propose.shape import Reshaped, ToPredict
from swinft.propose.tables import Column, TableFacts
from swinft.propose.targets import Target
from swinft.propose.templates import Template

Make = Callable[[Facts, Roles, TableFacts], Reshaped | None]


def joined(facts: Facts, roles: Roles, train: TableFacts) -> Reshaped | None:
    """A table without images, joined with another one whose rows have them: one of several images is chosen."""
    keys = [name for name in train.columns if train.is_unique(name)]
    for other in roles.others:
        key = next((name for name in keys if name in other.columns), None)
        if key is None or not (images := facts.templates(other)) or not _covers(other, train, key):
            continue
        chosen, why = _one_per_key(other, key)
        columns = [name for name in images[0].columns if name not in train.columns]
        table = _with_join(train, other, key, chosen, columns)
        twin, test_image = _test_twin(facts, roles, other, images[0])
        test_steps: list[dict[str, Any]] = []
        if roles.predicted is not None and twin is not None:
            test_steps = [{"csv": roles.predicted.path}, _join(twin, key, chosen, columns)]
        note = f"{key} has several images in {other.path}; {why}: other ones may tell more"
        return Reshaped(
            table, f"{roles.reasons['train']}; joined with {other.path}, which names the images", images[0],
            ToPredict(test_image, key, test_steps, "joined like the training rows"), tuple(images[1:]),
            id=(key, "a unique column, which both tables have"), used=(key, *columns), notes=(note,),
        )  # fmt: skip
    return None


def _covers(other: TableFacts, train: TableFacts, key: str) -> bool:
    """Whether most rows of a table are named in another one."""
    keys = {*train.columns[key].cells}
    return len(keys & {*other.columns[key].cells}) > 0.5 * len(keys)


def _join(other: TableFacts, key: str, chosen: dict[str, Any] | None, columns: Sequence[str]) -> dict[str, Any]:
    """The step that adds the columns of another table's images."""
    table = [{"csv": other.path}, *([{"where": chosen}] if chosen else []), {"unique": [key]}]
    return {"join": {"table": table, "on": key, "columns": [*columns], "how": "inner"}}


def _one_per_key(other: TableFacts, key: str) -> tuple[dict[str, Any] | None, str]:
    """The rows of a table of which there is one for most keys, as arguments of a step `where`, and what they are."""
    keys = other.column(key)
    best: tuple[float, str, str] | None = None
    for name, column in other.columns.items():
        if name == key or not 1 < len(column.values) <= 12:
            continue
        for value in column.values:
            owners = [own for own, cell in zip(keys, column.cells, strict=True) if cell == value]
            share = len({*owners}) / max(1, len({*keys})) - 0.1 * (len(owners) / max(1, len({*owners})) - 1)
            if best is None or share > best[0] + 1e-9:
                best = share, name, value
    if best is None:
        return None, "the first one is used"
    return {"column": best[1], "is": [best[2]]}, f"the one with {best[1]} '{best[2]}' is used"


def _with_join(
    train: TableFacts,
    other: TableFacts,
    key: str,
    chosen: dict[str, Any] | None,
    columns: Sequence[str],
) -> TableFacts:
    """The kept rows of a table with the columns of another one."""
    place: dict[str, int] = {}
    for row, own in enumerate(other.column(key)):
        if chosen is None or other.columns[chosen["column"]].cells[row] in chosen["is"]:
            place.setdefault(own, row)
    kept = [row for row, own in enumerate(train.column(key)) if own in place]
    cells = {name: [column.cells[row] for row in kept] for name, column in train.columns.items()}
    owners = [train.columns[key].cells[row] for row in kept]
    cells |= {name: [other.columns[name].cells[place[own]] for own in owners] for name in columns}
    count = round(train.num_rows * len(kept) / max(1, train.num_kept))
    return train.after(cells, count, _join(other, key, chosen, columns))


def _test_twin(
    facts: Facts, roles: Roles, other: TableFacts, image: Template
) -> tuple[TableFacts | None, Template | None]:
    """The table of the images of the rows to predict that has the columns of that of the training rows."""
    for table in facts.tables:
        if table is not other and table not in (roles.train, roles.sample) and {*image.columns} <= {*table.columns}:
            found = [each for each in facts.templates(table) if each.columns == image.columns]
            if found and found[0].path != image.path:
                return table, found[0]
    return None, None


def long(facts: Facts, roles: Roles, train: TableFacts, plain: Make) -> Reshaped | None:
    """A table with a column for each row that the sample submission has: `STUDY_COLUMN` becomes a row of its own."""
    if roles.sample is None or roles.sample_id is None or roles.sample_id in train.columns:
        return None
    ids = roles.sample.column(roles.sample_id)
    key = next((name for name in train.columns if train.is_unique(name)), None)
    ends = [name for name in train.columns if any(id.endswith(f"_{name}") for id in ids[:500])]
    if key is None or len(ends) < 2 or any(not any(id.endswith(f"_{name}") for name in ends) for id in ids[:500]):
        return None
    base = plain(facts, roles, train) or joined(facts, roles, train)
    if base is None or base.image is None:
        return None
    table = base.train
    rest = [name for name in table.columns if name not in ends]
    melt = {"melt": {"id": rest, "columns": patterns_of(ends, rest), "name": "column", "value": "value"}}
    row_id = {"format": {roles.sample_id: f"{{{key}}}_{{column}}"}}
    cells: dict[str, list[str]] = {name: [*table.columns[name].cells] * len(ends) for name in rest}
    cells["column"] = [name for name in ends for _ in range(table.num_kept)]
    cells["value"] = [cell for name in ends for cell in table.columns[name].cells]
    cells[roles.sample_id] = [f"{own}_{name}" for own, name in zip(cells[key], cells["column"], strict=True)]
    long = table.after(cells, table.num_rows * len(ends), melt, row_id)
    twins = [step["join"] for step in base.test.steps if "join" in step]
    short = not any("_" in own for own in train.columns[key].values)
    parts = f"(?P<{key}>{'[^_]+' if short else '.+?'})_(?P<column>{'.+' if short else '|'.join(sorted(ends))})$"
    test_steps: list[dict[str, Any]] = [
        {"csv": roles.sample.path},
        {"extract": {"column": roles.sample_id, "pattern": parts}},
    ]
    test_steps += [{"join": join} for join in twins]
    why = f"a row for each of {len(ends)} columns, as the sample submission's ids want: {ids[0]}"
    return replace(
        base, train=long, why=f"{base.why}; {why}", id=(roles.sample_id, "made of the study and the column"),
        test=replace(base.test, id=roles.sample_id, steps=test_steps, why="the sample submission's ids, taken apart"),
        used=(*base.used, key, "column"), categories=("column",), group=(key, f"all rows of one {key} stay together"),
    )  # fmt: skip


def pivoted(facts: Facts, roles: Roles, train: TableFacts) -> Reshaped | None:
    """A table with several rows per image, `ID__NAME` and a number, as one row per image and a column for each name."""
    images = roles.train_images
    wanted = [*roles.sample.columns][1:] if roles.sample else []
    if not images or len(wanted) != 1 or not {roles.sample_id, wanted[0]} <= {*train.columns}:
        return None
    ids, value = train.column(str(roles.sample_id)), wanted[0]
    found = _named_by(train, ids)
    if found is None:
        return None
    name, sign = found
    keys = [id[: -len(sign + cell)] for id, cell in zip(ids, train.column(name), strict=True)]
    names = list(train.columns[name].values)
    if len({*keys}) * len(names) != len(ids):
        return None
    known = [each for each in train.columns if each not in (roles.sample_id, name, value)]
    index = [each for each in known if len({*zip(keys, train.columns[each].cells, strict=True)}) == len({*keys})]
    own = next((each for each in index if train.column(each) == keys), None)
    key = own or ("image_id" if "image_id" not in train.columns else "row_of_image")
    extract = {"extract": {"column": roles.sample_id, "pattern": f"^(?P<{key}>.+){re.escape(sign)}"}}
    taken = [] if own else [extract]
    pivot = {"pivot": {"index": [key, *(each for each in index if each != key)], "columns": name, "values": value}}
    first = {own_key: row for row, own_key in reversed([*enumerate(keys)])}
    cells = {key: [*first], **{each: [train.columns[each].cells[row] for row in first.values()] for each in index}}
    at = {(own_key, cell): row for row, (own_key, cell) in enumerate(zip(keys, train.column(name), strict=True))}
    cells |= {each: [train.columns[value].cells[at[own_key, each]] for own_key in first] for each in names}
    table = train.after(cells, train.num_rows // len(names), *taken, pivot)
    why = f"{roles.reasons['train']}; {len(names)} rows per image become one, with a column for each {name}"
    what = "numbers" if all(Column(each, cells[each]).is_number for each in names) else "classes"
    target = Target(names, what, f"the cells of {name}", f"{len(names)} columns of numbers")
    test_steps: list[dict[str, Any]] = []
    if roles.predicted is not None:
        test_steps = [*roles.predicted.made_by, *taken, {"unique": [key]}]
    test = ToPredict(next(iter(roles.test_images), None), key, test_steps, "one row per image")
    id = (key, "what the ids of the sample submission start with")
    return Reshaped(
        table, why, images[0], test, tuple(images[1:]), id=id, target=target, used=(key, *images[0].columns)
    )


def _named_by(train: TableFacts, ids: Sequence[str]) -> tuple[str, str] | None:
    """The column whose cells are the ends of all ids, and what stands before them."""
    for name, column in train.columns.items():
        if not 2 <= len(column.values) <= 40:
            continue
        for sign in ("__", "_", "-", " "):
            if all(
                id.endswith(sign + cell) and len(id) > len(sign + cell)
                for id, cell in zip(ids, column.cells, strict=True)
            ):
                return name, sign
    return None
