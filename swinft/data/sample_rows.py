"""How the rows of a sample submission come from rows to predict: one each, one per output, or one per group of rows.

A sample with a row for each id and output in two columns, `id,class,segmentation`, is read with ids made of both.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from swinft.data.tables.steps.columns import FormatStep
from swinft.data.tables.steps.named import steps_of
from swinft.data.tables.steps.sequence import StepList
from swinft.data.tables.table import Problem, Table
from swinft.data.tables.text import Spellings
from swinft.errors import InputError, listed, number_of

ROW, OUTPUT = "id", "output"  # the fields of a pattern
FIELDS = re.compile(r"\{([^{}]*)\}")
PAIR, BETWEEN = "id and output", " | "  # the column of ids of two columns, and what is between their cells
SIGNS = re.compile(r"[^0-9A-Za-z]+")


def with_pair(given: str | StepList, names: str | Sequence[str] | None) -> str | StepList:
    """The table of a sample submission; with the column `PAIR` if two columns name the id and the output of a row."""
    if names is None or isinstance(names, str):
        return given
    key = "data.sample_submission"
    steps = given.steps if isinstance(given, StepList) else steps_of(key, [{"csv": given}]).steps
    return StepList(key, [*steps, FormatStep({PAIR: BETWEEN.join(f"{{{name}}}" for name in names)})])


def checked_sample(sample: Table | None, test: Table | None, problems: list[Problem]) -> Table | None:
    """The sample; appends each id that only it has, or only the test table: a submission needs the sample's.

    The sample may also have a row for each row and output, or for each group of rows; a submission then says how.
    """
    if sample is not None and sample.id_column == PAIR:
        return sample  # compared with the rows to predict when its rows are matched with the outputs
    if sample is None or test is None or _is_made_of(sample.ids, test.ids) or group_column(sample.ids, test):
        return sample
    for one, other in ((sample, test), (test, sample)):
        known = Spellings(other.ids)
        for row, id in enumerate(one.ids):
            if id not in known.names:
                near = known.find(id)
                fix = f"Give both files the same ids.{f' It has {near!r}.' if near else ''}"
                problems.append(one.problem(row, f"{other.path} has no such id", fix))
    return sample


def _is_made_of(ids: Sequence[str], predicted: Sequence[str]) -> bool:
    """Whether each id is that of a row to predict and more text, and each of these rows has several."""
    known, lengths = set(predicted), {len(id) for id in predicted}
    made = all(any(id[:n] in known or id[-n:] in known for n in lengths if n < len(id)) for id in ids)
    return made and len(ids) >= 2 * len(known)


@dataclass(frozen=True)
class LongIds:
    """Ids of a sample submission with a row for each row to predict and output.

    Args:
        pattern: How they are made: `{id}__{output}`.
        rows: The row to predict of each of the sample's rows, N ids.
        words: The name of the output of each, N texts.
    """

    pattern: str
    rows: list[str]
    words: list[str]

    def first(self) -> "LongIds":
        """Its first row alone."""
        return LongIds(self.pattern, self.rows[:1], self.words[:1])


def long_ids(ids: Sequence[str], predicted: Sequence[str]) -> LongIds | None:
    """Finds a pattern: every id is that of a row to predict, signs, and a word; all rows have the same words.

    Args:
        ids: Ids of the sample submission.
        predicted: Ids of the rows to predict.

    Returns:
        None if there is no such pattern, or signs or words are ambiguous.
    """
    known, lengths = set(predicted), sorted({len(id) for id in predicted}, reverse=True)
    rows, rests = list[str](), list[str]()
    for id in ids:
        length = next((n for n in lengths if id[:n] in known and SIGNS.match(id, n)), None)
        if length is None:
            return None
        rows.append(id[:length])
        rests.append(id[length:])
    signs = {match.group() for rest in rests if (match := SIGNS.match(rest))}
    of_row = defaultdict(set)
    for row, rest in zip(rows, rests, strict=True):
        of_row[row].add(rest)
    same = len({frozenset(found) for found in of_row.values()}) == 1 and len(set(rests)) > 1
    if len(signs) != 1 or not same or set(rows) != known:
        return None
    (sign,) = signs
    return LongIds(f"{{{ROW}}}{sign}{{{OUTPUT}}}", rows, [rest.removeprefix(sign) for rest in rests])


def split_ids(ids: Sequence[str], predicted: Sequence[str], pattern: str) -> LongIds:
    """Splits ids by a pattern.

    Args:
        ids: Ids of the sample submission.
        predicted: Ids of the rows to predict.
        pattern: As `{image_id}__{output}`: `{output}`, and one other field for the row to predict.

    Raises:
        InputError: The pattern has other fields, or an id does not have its form.
    """
    fields = FIELDS.findall(pattern)
    if len(fields) != 2 or fields.count(OUTPUT) != 1:
        raise InputError(
            f"submission.rows is '{pattern}'. Write how the sample's ids are made of the id of a row and the name of "
            f"an output: '{{{ROW}}}__{{{OUTPUT}}}'."
        )
    start, middle, end = FIELDS.split(pattern)[::2]
    known = sorted(set(predicted), key=len, reverse=True)
    by_length: dict[int, set[str]] = defaultdict(set)
    for id in known:
        by_length[len(id)].add(id)
    is_first, rows, words, odd = fields[1] == OUTPUT, list[str](), list[str](), list[str]()
    for id in ids:
        inner = id[len(start) : len(id) - len(end)]
        found = None
        if id.startswith(start) and id.endswith(end):
            for length, names in by_length.items():  # the longest first
                row, rest = (inner[:length], inner[length:]) if is_first else (inner[-length:], inner[:-length])
                fits = rest.startswith(middle) if is_first else rest.endswith(middle)
                if row in names and fits and len(rest) > len(middle):
                    found = row, rest.removeprefix(middle) if is_first else rest.removesuffix(middle)
                    break
        if found is None:
            odd.append(id)
        else:
            rows.append(found[0])
            words.append(found[1])
    if odd:
        raise InputError(
            f"submission.rows is '{pattern}', and {number_of(len(odd), 'id of the sample is', 'ids of the sample are')}"
            f" not made so of an id of a row to predict, like '{predicted[0] if predicted else ''}': {listed(odd, 5)}."
        )
    return LongIds(pattern, rows, words)


def group_column(ids: Sequence[str], table: Table) -> str | None:
    """The column of the rows to predict whose different cells are the sample's ids; None if there is none."""
    wanted = set(ids)
    return next((name for name in table.columns if wanted == set(table.names(name))), None)
