"""What a competition predicts: the target's columns, its kind, and what the sample submission's cells say about it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from swinft.data.tables.text import twin_key
from swinft.propose.known import Known
from swinft.propose.roles import Roles
from swinft.propose.tables import Column, TableFacts

NAMES = (
    "target", "label", "labels", "class", "classes", "y", "category", "category_id", "class_name", "class_id",
    "classid", "diagnosis", "breed",
    "species", "finding labels", "grade", "level", "severity", "score", "dx", "rle_mask", "encodedpixels",
    "segmentation",
)  # fmt: skip
GRADES = re.compile(r"grade|level|severity|stage|diagnosis|rating|kl_?score|birads")
HELD_OUT = re.compile(r"k?_?folds?|fold_?id|usage|(is_?)?(split|subset|train|test|val|valid|validation)")
# Values of a split.
PARTS = {
    "train", "training", "val", "valid", "validation", "dev", "test", "testing", "holdout", "publictest", "privatetest",
}  # fmt: skip
AN_ID = re.compile(r"(^|_| )ids?$|individual|identity|^id$")
DELIMITERS = (" ", "|", ",", ";", "/", "+")
MOST_CLASSES = 30  # whole numbers with more distinct values are measured, not classes
MOST_NAMES = 0.7  # classes per row: with more, nearly every row would be a class of its own
SUM = 1e-3
# A word for what rows belong to, as the last word of a name, or before a word for an id: not `patient_age`.
OWNERS = re.compile(
    r"(^|[^a-z])(patient|subject|person|participant|case|study|exam|specimen|slide|wsi|animal|individual|dog|cat|plant|tree|"
    r"plot|field|farm|site|location|scene|camera|cam|video|clip|sequence|seq|session|trip|flight|station|hospital|institution|"
    r"rescuer|user|owner|author|photographer|uploader|observer|date|day|batch|donor|mouse|image|group|family|lesion)"
    r"([^a-z]?(instance)?[^a-z]?(id|ids|uid|uuid|name|number|no|nr|code|index|key|hash))?$"
)


@dataclass(frozen=True)
class Target:
    """What is predicted.

    Args:
        columns: `data.target`.
        what: `classes`, `binary`, `grades`, `labels`, `label_sets`, `one_hot`, `votes`, `shares`, `number`, `numbers`,
            `ranked` or `masks`.
        why_columns: Why these columns.
        why: Why this kind.
        delimiter: Between labels in a cell.
        submission: Keys of `submission` that map it to the sample.
        others: Other columns that may be the target.
        masks: Arguments of `swinft.Segmentation`.
        weighed: What was weighed besides, a comment each.
    """

    columns: list[str]
    what: str
    why_columns: str
    why: str
    delimiter: str | None = None
    submission: dict[str, Any] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    masks: dict[str, Any] = field(default_factory=dict)
    weighed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chosen:
    """Columns of a target, and how the sample's columns map to them."""

    columns: list[str]
    why: str
    submission: dict[str, Any] = field(default_factory=dict)
    of_values: bool = False  # the sample's columns are the column's values
    others: tuple[str, ...] = ()


def find_target(train: TableFacts, roles: Roles, used: Sequence[str], known: Known | None) -> Target | None:
    """The target of a training table; None where it cannot be told.

    Args:
        train: The training rows.
        roles: The other tables.
        used: Columns that are ids or name images.
        known: What is known about the competition.
    """
    sample = roles.sample
    free = [name for name in train.columns if name not in used]
    if known and known.target and all(name in train.columns for name in known.target):
        chosen: Chosen | None = Chosen(list(known.target), f"the competition's ({known.source})")
    else:
        chosen = _by_sample(train, sample, roles.test, free) if sample else None
        chosen = chosen or _by_name(train, roles.test, free)
    if chosen is None:
        return None
    if len({train.columns[name].are_run_lengths for name in chosen.columns}) > 1:
        return None  # a row for each mask of an image, and a column that says which mask it is
    what, why, delimiter = kind_of(train, chosen, sample, known)
    column = train.columns[chosen.columns[0]]
    if what == "classes" and len(column.values) > MOST_NAMES * max(1, len(column.filled)):
        return None  # text that hardly repeats: a caption or an id, not a class
    return Target(chosen.columns, what, chosen.why, why, delimiter, chosen.submission, chosen.others)


def _by_sample(train: TableFacts, sample: TableFacts, test: TableFacts | None, free: list[str]) -> Chosen | None:
    """The columns that the sample submission asks for."""
    wanted = [*sample.columns][1:]
    if all(name in train.columns for name in wanted):
        return Chosen(wanted, "the sample submission's columns")
    spelled = {_key(name): name for name in free}
    renamed = {name: spelled.get(_key(name)) for name in wanted}
    if all(renamed.values()):
        columns = [str(name) for name in renamed.values()]
        mapping = dict(zip(wanted, columns, strict=True)) if len(wanted) > 1 else {}
        return Chosen(
            columns, "the sample submission's columns, in another spelling", {"columns": mapping} if mapping else {}
        )
    if len(wanted) > 1:
        return _of_values(train, wanted, free) or _with_affix(train, test, wanted, free)
    return _by_words(train, sample.columns[wanted[0]], free)


def _of_values(train: TableFacts, wanted: list[str], free: list[str]) -> Chosen | None:
    """A column whose values are the names of the sample's columns: a class each."""
    keys = {_key(name): name for name in wanted}
    for name in free:
        values = train.columns[name].values
        if len(values) <= len(wanted) + 2 and len(values) > 1:
            found = {_key(value): value for value in values}
            if len({*found} & {*keys}) >= 0.9 * len(found):
                mapping = {keys[key]: value for key, value in found.items() if keys.get(key) not in (None, value)}
                why = f"its values are the sample submission's {len(wanted):,} columns"
                return Chosen([name], why, {"columns": mapping} if mapping else {}, of_values=True)
    return None


def _key(name: str) -> str:
    """A name without signs: `Normal/Mild` as `normal_mild`."""
    return re.sub(r"[\W_]+", "_", twin_key(name))


def _with_affix(train: TableFacts, test: TableFacts | None, wanted: list[str], free: list[str]) -> Chosen | None:
    """Columns that are named like the sample's, with the same addition: `X4_mean` for `X4`."""
    free = [name for name in free if test is None or name not in test.columns]
    ends: dict[tuple[str, str], int] = {}
    for name in free:
        for word in wanted:
            if word in name and name != word:
                before, _, after = name.partition(word)
                ends[before, after] = ends.get((before, after), 0) + 1
    whole = [affix for affix, count in ends.items() if count >= len(wanted)]
    whole = [affix for affix in whole if all(f"{affix[0]}{word}{affix[1]}" in free for word in wanted)]
    if not whole:
        return None
    whole.sort(
        key=lambda affix: (
            sum(train.columns[f"{affix[0]}{word}{affix[1]}"].num_blank for word in wanted),
            "mean" not in affix[1],
        )
    )
    before, after = whole[0]
    mapping = {word: f"{before}{word}{after}" for word in wanted}
    columns = [name for name in train.columns if name in mapping.values()]
    others = tuple(f"{a}…{b}" for a, b in whole[1:])
    return Chosen(
        columns, f"the sample submission's columns, with '{before}…{after}'", {"columns": mapping}, others=others
    )


def _by_words(train: TableFacts, column: Column, free: list[str]) -> Chosen | None:
    """A column whose values are the words of the sample's cells."""
    words = {word for cell in list(column.values)[:200] for word in (cell, *cell.split())}
    if not words or all(re.fullmatch(r"[0-9.]+", word) for word in words):
        return None
    best: tuple[int, str] | None = None
    for name in free:
        count = len(words & {*train.columns[name].values})
        if count and (best is None or count > best[0]):
            best = count, name
    return Chosen([best[1]], f"its values are in the sample submission's '{column.name}'") if best else None


def _by_name(train: TableFacts, test: TableFacts | None, free: list[str]) -> Chosen | None:
    """The column that is named like a target, or the only one that the rows to predict lack."""
    if test is not None:  # a table of rows whose target is known has the target, too
        free = [name for name in free if name not in test.columns] or free
    free = [name for name in free if not _says_nothing(train, name)]
    if len(free) == 1 and not OWNERS.search(words_of(free[0])):
        return Chosen(free, "the only column that is left")
    flags = [name for name in free if _flag_pair(train.columns[name])]
    by_key = {twin_key(name): name for name in free}
    named = [by_key[name] for name in NAMES if name in by_key]
    if len(flags) >= 3 and (not named or named[0] in flags) and _ones([train.columns[name] for name in flags]) == {1}:
        return Chosen(flags, f"{len(flags):,} columns of two values each, with one 1 in every row")
    are_all = len(flags) >= 3 and len(flags) >= 0.6 * len(free)
    if named and not (are_all and twin_key(named[0]) == "y" and named[0] in flags):
        others = tuple(name for name in free if name != named[0])
        return Chosen([named[0]], "its name", others=others)
    if are_all:
        return Chosen(flags, f"{len(flags):,} columns of two values each")
    if test is not None and len(free) > 1 and all(train.columns[name].is_number for name in free):
        return Chosen(free, "the columns that the rows to predict lack, all of them numbers")
    return None


def words_of(name: str) -> str:
    """A column's name as lower-case words: `PatientID` as `patient_id`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _says_nothing(train: TableFacts, name: str) -> bool:
    """Whether a column is no target, whatever its name: one value, a place in the image, or which rows are held out."""
    column, key = train.columns[name], twin_key(name)
    if len(column.values) < 2:
        return True
    other = {"x": "y", "y": "x"}.get(key)
    pair = [train.columns[each] for each in train.columns if other and twin_key(each) in (key, other)]
    if len(pair) == 2 and all(each.is_number and len(each.values) > 2 for each in pair):
        return True
    words = {twin_key(value) for value in column.values}
    return words <= PARTS or (HELD_OUT.fullmatch(key) is not None and (column.is_whole or column.is_flag))


def _ones(columns: Sequence[Column]) -> set[int]:
    """How many of some columns of two values are 1 in a row."""
    return {sum(map(_is_one, row)) for row in zip(*(column.cells for column in columns), strict=True)}


def _flag_pair(column: Column) -> bool:
    """Whether a column holds 0 and 1, or −1 and 1."""
    return column.is_flag or (column.is_number and {float(cell) for cell in column.values} <= {-1.0, 1.0})


def kind_of(
    train: TableFacts, chosen: Chosen, sample: TableFacts | None, known: Known | None
) -> tuple[str, str, str | None]:
    """What a target is, why, and the delimiter of its labels."""
    columns = [train.columns[name] for name in chosen.columns]
    if known and known.what:
        return known.what, f"the competition's ({known.source})", known.delimiter
    if len(columns) > 1:
        return (*kind_of_columns(columns), None)
    column = columns[0]
    wanted = [] if sample is None else [sample.columns[name] for name in [*sample.columns][1:]]
    cells = wanted[0] if len(wanted) == 1 else None
    if column.are_run_lengths:
        return "masks", "run lengths of a mask, like '1 3 10 5'", None
    if not column.is_number:
        return _kind_of_text(column, cells, chosen)
    return (*_kind_of_numbers(column, cells, chosen), None)


def kind_of_columns(columns: Sequence[Column]) -> tuple[str, str]:
    """What several columns are, and why."""
    count = len(columns)
    if all(column.are_run_lengths for column in columns):
        return "masks", f"{count} columns of run lengths of a mask, like '1 3 10 5'"
    if all(_flag_pair(column) for column in columns):
        ones = _ones(columns)
        if ones == {1}:
            return "one_hot", f"{count} columns of 0 and 1, with exactly one 1 in each row: one class of {count}"
        return "labels", f"{count} columns of 0 and 1, with {min(ones)} to {max(ones)} of them in a row"
    if all(column.is_number and min(column.numbers) >= 0 and not column.num_blank for column in columns):
        sums = [sum(row) for row in zip(*(column.numbers for column in columns), strict=True)]
        if all(abs(total - 1) < SUM for total in sums):
            return "shares", f"{count} columns whose rows sum to 1"
        names = " ".join(column.name.lower() for column in columns)
        if all(column.is_whole for column in columns) and ("vote" in names or "count" in names):
            return "votes", f"{count} columns of whole numbers, {min(sums):.0f} to {max(sums):.0f} in a row: votes"
    return "numbers", f"{count} columns of numbers"


def _is_one(cell: str) -> bool:
    return cell.lower() == "true" or (cell[:1].isdigit() and float(cell) == 1)


def _kind_of_text(column: Column, cells: Column | None, chosen: Chosen) -> tuple[str, str, str | None]:
    values = column.values
    if not chosen.of_values and (delimiter := _delimiter(column) or _blank_by(cells, column)):
        labels = {word.strip() for value in values for word in value.split(delimiter)}
        return "label_sets", f"sets of {len(labels):,} labels, with '{delimiter}' between them", delimiter
    if cells is not None and cells.values:
        lengths = {len(cell.split()) for cell in list(cells.values)[:50]}
        if lengths == {5} and len(values) > 20:
            return "ranked", f"the sample submission's cells have 5 names each, of {len(values):,} classes", None
    if len(values) == 2:
        return "binary", f"two classes: {' and '.join(sorted(values))}", None
    return "classes", f"{len(values):,} classes", None


def _delimiter(column: Column) -> str | None:
    """The text between labels, if cells are sets of a small vocabulary."""
    values = list(column.values)
    for mark in ("|", ";", ",", " ", "/", "+"):
        several = [value for value in values if mark in value]
        words = {word.strip() for value in values for word in value.split(mark)}
        single = {value for value in values if mark not in value}
        alone = sum(word in single for word in words)
        if several and "" not in words and len(words) < len(values) and alone >= 0.5 * len(words):
            return mark
    return None


def _blank_by(cells: Column | None, column: Column) -> str | None:
    """A blank, if several cells of the sample are words of the column's cells, and no cell is one of these words."""
    words = {word for value in column.values for word in value.split()}
    given = [cell for cell in list(cells.values)[:50] if " " in cell] if cells is not None else []
    if not given or words & {*column.values} == words or len(words) >= len(column.values):
        return None
    return " " if all({*cell.split()} <= words and cell not in column.values for cell in given) else None


def _kind_of_numbers(column: Column, cells: Column | None, chosen: Chosen) -> tuple[str, str]:
    distinct, low, high = len(column.values), min(column.numbers), max(column.numbers)
    shown = f"{distinct:,} distinct {'whole ' if column.is_whole else ''}numbers from {low:g} to {high:g}"
    if distinct == 2 and column.is_whole:
        return "binary", f"two classes: {' and '.join(sorted(column.values))}"
    if chosen.of_values:
        return "classes", f"{distinct:,} classes"
    if column.is_whole and AN_ID.search(column.name.lower()) and low >= 0:
        ranked = cells is not None and any(" " in cell for cell in list(cells.values)[:50])
        return ("ranked" if ranked else "classes"), f"{distinct:,} ids"
    fractions = cells is not None and any("." in cell and not cell.endswith(".0") for cell in cells.values)
    if not column.is_whole or distinct > MOST_CLASSES or fractions:
        return "number", shown + ("; the sample submission's cells are fractions" if fractions else "")
    if GRADES.search(column.name.lower()) and distinct <= 12 and high - low + 1 == distinct:
        return "grades", f"{shown}, in a column named like grades"
    return "classes", shown
