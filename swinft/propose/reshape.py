"""Makes one row per image of what was downloaded: names of files, several tables, long tables."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import replace

from swinft.propose.facts import Facts
from swinft.propose.folders import folder_table, purpose
from swinft.propose.images import are_grey
from swinft.propose.joins import joined, long, pivoted
from swinft.propose.known import Known
from swinft.propose.listing import Group, spread
from swinft.propose.parts import named_parts
from swinft.propose.patterns import patterns_of
from swinft.propose.pixels import pixels
from swinft.propose.roles import Roles, is_for_training
from swinft.propose.shape import Files, Reshaped, ToPredict
from swinft.propose.tables import TableFacts
from swinft.propose.targets import Target
from swinft.propose.templates import TRIED_FILES, Template, endings, names_rows, with_ending


def reshaped(facts: Facts, roles: Roles, known: Known | None) -> Reshaped | None:
    """The training rows; None where neither a table nor files give them."""
    if roles.train is not None:
        for make in (pixels, _long, pivoted, _plain, _scattered, joined, named_parts):
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
    # Numbers of rows to predict may be those of training rows, too: their images are not in the folder of these.
    tests = sorted(
        roles.test_images,
        key=lambda each: (is_for_training(each), each.columns != image.columns, -_alike(each.path, image.path)),
    )
    steps = [*roles.test.steps] if roles.test else []
    test = ToPredict(next(iter(tests), None), steps=steps, why=roles.reasons.get("test", ""))
    unique = tuple(name for name in image.columns if train.is_unique(name))
    shape = Reshaped(
        train, roles.reasons["train"], image, test, tuple(images[1:]), used=unique,
    )  # fmt: skip
    return _with_files(facts, roles, _with_id(shape))


def _with_id(shape: Reshaped) -> Reshaped:
    """The rows with an id made of the columns that together name the image, where no column alone names a row."""
    train, image = shape.train, shape.image
    if image is None or any(map(train.is_unique, train.columns)) or not names_rows(train, image.columns):
        return shape
    name = next(each for each in ("id", "row_id", "id_of_row") if each not in train.columns)
    made_of = "_".join(f"{{{each}}}" for each in image.columns)
    cells = train.all_cells()
    cells[name] = ["_".join(row) for row in zip(*(cells[each] for each in image.columns), strict=True)]
    table = train.after(cells, train.num_rows, {"format": {name: made_of}})
    return replace(shape, train=table, id=(name, "made of the columns that together name the image"))


def _with_files(facts: Facts, roles: Roles, shape: Reshaped) -> Reshaped:
    """The rows with all their files, where names differ by a word at the end: `{id}_red.png`, `{id}_green.png`."""
    image, test_image = shape.image, shape.test.image
    if image is None or len(names := endings(shape.train, image, facts.images)) < 2:
        return shape
    names = sorted(names, key=lambda name: (_channel(name), name))
    files = tuple(with_ending(image.path, name) for name in names)
    test = shape.test
    if test_image is not None and roles.predicted is not None:
        if {*names} - {*endings(roles.predicted, test_image, facts.images)}:
            note = f"each row has {len(names)} files ({', '.join(names)}) and the rows to predict others: one is used"
            return replace(shape, notes=(*shape.notes, note))
        test = replace(test, files=tuple(with_ending(test_image.path, name) for name in names))
    is_grey = are_grey(facts.root, spread(image.group.names, TRIED_FILES))
    rest = tuple(each for each in shape.other_images if each.path not in files)
    return replace(shape, other_images=rest, test=test, made_of=Files(files, is_grey))


def _channel(name: str) -> int:
    """The place of a colour among the channels of an image; behind them for other words."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((k for k, colour in enumerate(("red", "green", "blue")) if colour in words), 3)


def _scattered(facts: Facts, roles: Roles, train: TableFacts) -> Reshaped | None:
    """A table whose images are in several folders."""
    found = facts.scattered(train)
    if found is None:
        return None
    cells = train.all_cells()
    table = train.after(cells | {"path": cells[found.column]}, train.num_rows, found.join)
    why = f"{roles.reasons['train']}; the images are in several folders, where a step finds them"
    id = (found.column, "a unique column, which names the image") if train.is_unique(found.column) else None
    image = Template("{path}", found.group, 1.0, 1.0)
    test = ToPredict(next(iter(roles.test_images), None))
    if test.image is None and (rows := roles.predicted) is not None and (there := facts.scattered(rows)) is not None:
        steps, why_test = [*rows.made_by, there.join], "their images are in several folders"
        test = ToPredict(Template("{path}", there.group, 1.0, 1.0), steps=steps, why=why_test)
    return Reshaped(table, why, image, test, id=id, used=("path",))


def _alike(one: str, other: str) -> float:
    """How alike two templates are."""
    return difflib.SequenceMatcher(None, one, other).ratio()


def with_flags(shape: Reshaped, columns: Sequence[str]) -> Reshaped:
    """The training rows with 0 in place of −1 in columns of −1 and 1; unchanged where there is no −1."""
    train = shape.train
    if not any(cell.startswith("-") for name in columns for cell in train.columns[name].values):
        return shape
    rest = [name for name in train.columns if name not in columns]
    cells = train.all_cells()
    cells |= {name: ["0" if cell.startswith("-") else cell for cell in cells[name]] for name in columns}
    negative = sorted({cell for name in columns for cell in train.columns[name].values if cell.startswith("-")})
    steps = (
        {"melt": {"id": rest, "columns": patterns_of(columns, rest), "name": "label", "value": "value"}},
        {"map": {"column": "value", "values": dict.fromkeys(negative, "0"), "default": "keep"}},
        {"pivot": {"index": rest, "columns": "label", "values": "value"}},
    )
    return replace(shape, train=train.after(cells, train.num_rows, *steps), why=f"{shape.why}; −1 becomes 0")


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
        test = ToPredict(Template("{path}", tests[0], 1.0, 1.0), "path", [{"files": pattern}], why)
    return Reshaped(
        found.table, "there is no table of training rows: names of files make it", Template("{path}", group, 1.0, 1.0),
        test, id=("path", "the file's path is unique"),
        target=target, used=("path", "name", "number", "fold"), has_split=found.has_split, counts=found.counts,
    )  # fmt: skip
