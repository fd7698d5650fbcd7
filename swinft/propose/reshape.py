"""Makes one row per image of what was downloaded: names of files, several tables, long tables."""

import difflib
from collections.abc import Sequence
from dataclasses import replace

from swinft.propose.facts import Facts
from swinft.propose.folders import folder_table, purpose
from swinft.propose.joins import joined, long, pivoted
from swinft.propose.known import Known
from swinft.propose.listing import Group
from swinft.propose.patterns import patterns_of
from swinft.propose.pixels import pixels
from swinft.propose.roles import Roles
from swinft.propose.shape import Reshaped, ToPredict
from swinft.propose.tables import TableFacts, made
from swinft.propose.targets import Target
from swinft.propose.templates import Template


def reshaped(facts: Facts, roles: Roles, known: Known | None) -> Reshaped | None:
    """The training rows; None where neither a table nor files give them."""
    if roles.train is not None:
        for make in (pixels, _long, pivoted, _plain, _scattered, joined):
            if (found := make(facts, roles, roles.train)) is not None:
                return _of_kind(found, roles, known.image) if known and known.image else found
    return by_folders(facts, roles)


def _of_kind(found: Reshaped, roles: Roles, part: str) -> Reshaped:
    """The images whose path has a part, where several kinds of images fit, in training rows and in those to predict."""
    every = [each for each in (found.image, *found.other_images) if each is not None]
    chosen = [each for each in every if part in each.path]
    if not chosen:
        return found
    tests = [each for each in roles.test_images if part in each.path]
    test = replace(found.test, image=tests[0]) if tests else found.test
    others = tuple(each for each in every if each != chosen[0])
    return replace(found, image=chosen[0], other_images=others, test=test)


def _long(facts: Facts, roles: Roles, train: TableFacts) -> Reshaped | None:
    """A table with a column for each row that the sample submission has."""
    return long(facts, roles, train, _plain)


def _plain(facts: Facts, roles: Roles, train: TableFacts) -> Reshaped | None:
    """A table whose rows name their images."""
    images = roles.train_images or facts.templates(train)
    if not images:
        return None
    image = images[0]
    tests = sorted(roles.test_images, key=lambda each: (each.columns != image.columns, -_alike(each.path, image.path)))
    steps = [*roles.test.steps] if roles.test else []
    test = ToPredict(next(iter(tests), None), steps=steps, why=roles.reasons.get("test", ""))
    unique = tuple(name for name in image.columns if train.is_unique(name))
    return Reshaped(
        train, roles.reasons["train"], image, test, tuple(images[1:]), used=unique,
    )  # fmt: skip


def _scattered(facts: Facts, roles: Roles, train: TableFacts) -> Reshaped | None:
    """A table whose images are in several folders."""
    found = facts.scattered(train)
    if found is None:
        return None
    cells = {name: [*column.cells] for name, column in train.columns.items()}
    cells["path"] = cells[found.column]
    steps = (*(train.steps or ({"csv": train.path},)), found.join)
    table = made(train.path, cells, train.num_rows, is_whole=train.is_whole, encoding=train.encoding, steps=steps)
    why = f"{roles.reasons['train']}; the images are in several folders, where a step finds them"
    id = (found.column, "a unique column, which names the image") if train.is_unique(found.column) else None
    image = Template("{path}", found.group, 1.0, 1.0)
    return Reshaped(table, why, image, ToPredict(next(iter(roles.test_images), None)), id=id, used=("path",))


def _alike(one: str, other: str) -> float:
    """How alike two templates are."""
    return difflib.SequenceMatcher(None, one, other).ratio()


def with_flags(shape: Reshaped, columns: Sequence[str]) -> Reshaped:
    """The training rows with 0 in place of −1 in columns of −1 and 1; unchanged where there is no −1."""
    train = shape.train
    if not any(cell.startswith("-") for name in columns for cell in train.columns[name].values):
        return shape
    rest = [name for name in train.columns if name not in columns]
    cells = {name: [*column.cells] for name, column in train.columns.items()}
    cells |= {name: ["0" if cell.startswith("-") else cell for cell in cells[name]] for name in columns}
    negative = sorted({cell for name in columns for cell in train.columns[name].values if cell.startswith("-")})
    steps = (
        *(train.steps or ({"csv": train.path},)),
        {"melt": {"id": rest, "columns": patterns_of(columns, rest), "name": "label", "value": "value"}},
        {"map": {"column": "value", "values": dict.fromkeys(negative, "0"), "default": "keep"}},
        {"pivot": {"index": rest, "columns": "label", "values": "value"}},
    )
    facts = {"is_whole": train.is_whole, "encoding": train.encoding, "steps": steps}
    return replace(shape, train=made(train.path, cells, train.num_rows, **facts), why=f"{shape.why}; −1 becomes 0")


def by_folders(facts: Facts, roles: Roles) -> Reshaped | None:
    """Files whose folders or names are the classes."""
    found = folder_table(facts.listing.groups)
    if found is None:
        return None
    group = Group("", "", "files", found.table.num_rows, [])
    target = Target(
        ["label"], "binary" if len(found.counts) == 2 else "classes", found.why, f"{len(found.counts):,} classes"
    )
    tests = [each for each in facts.listing.groups if purpose(each) == "test" and "*" not in each.folder]
    test = ToPredict(next(iter(roles.test_images), None), roles.sample_id)
    if roles.sample is None and tests:
        pattern = f"{tests[0].folder}/{{name}}{tests[0].suffix}"
        why = f"{tests[0].count:,} files without a class"
        test = ToPredict(Template("{path}", tests[0], 1.0, 1.0), None, [{"files": pattern}], why)
    return Reshaped(
        found.table, "there is no table of training rows: names of files make it", Template("{path}", group, 1.0, 1.0),
        test, id=("path", "the file's path is unique"),
        target=target, used=("path", "name", "number", "fold"), has_split=found.has_split, counts=found.counts,
    )  # fmt: skip
