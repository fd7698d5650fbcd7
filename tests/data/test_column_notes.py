"""What is said of columns that look right and may be wrong."""

import pytest

from swinft.data.tables.table import DataError

MULTILABEL = {"target": ["has_fur", "is_long"], "target_kind": "multilabel", "sample_submission": None}
NUMBERS = {"target": "weight", "target_kind": "regression", "sample_submission": None}


def add(competition, **columns):
    """Writes the tables with further columns: a function of the row's number for each."""
    for name, cell in columns.items():
        for row, line in enumerate(competition.train):
            line[name] = str(cell(row))
        for line in competition.test:
            line[name] = competition.train[0][name]
    competition.write()


def said(competition, column, **changes):
    """The notes on a column."""
    return [note for note in competition.ready(**changes).notes if f"column '{column}'" in note]


@pytest.mark.parametrize(
    ("cell", "changes", "gives"),
    [
        (lambda row: "xyz"[row % 3], {}, "gives 'animal' away"),
        (lambda row: f"{row % 6}x", {}, "gives 'animal' away"),  # several values of one class
        (lambda row: "xyz"[(row + (row == 29)) % 3], {}, None),  # one row differs
        (lambda row: row % 3 == 2, MULTILABEL, "gives 'has_fur', 'is_long' away"),
        (lambda row: f"v{row}", {}, "each row has a category of its own"),
        (lambda row: "same", {}, None),
        (lambda row: f"v{row}", NUMBERS, "each row has a category of its own"),
    ],
)
def test_a_category_that_gives_the_target_away_is_noted(competition, cell, changes, gives):
    add(competition, more=cell)
    found = said(competition, "more", columns={"categorical_features": ["more", "sex"]}, **changes)
    assert len(found) == (gives is not None)
    assert all(gives in note for note in found)
    assert not said(competition, "sex", columns={"categorical_features": ["more", "sex"]}, **changes)


@pytest.mark.parametrize(
    ("cell", "changes", "gives"),
    [
        (lambda row: 3 - 0.25 * row, NUMBERS, "gives 'weight' away"),
        (lambda row: 3 - 0.25 * row + 0.1 * (row == 4), NUMBERS, None),
        (lambda row: row % 3 + 0.5, {}, "gives 'animal' away"),
        (lambda row: row % 3 + (row == 4), {}, None),
        (lambda row: 7, NUMBERS, None),
    ],
)
def test_a_number_that_gives_the_target_away_is_noted(competition, cell, changes, gives):
    add(competition, more=cell)
    found = said(competition, "more", columns={"numeric_features": ["more", "age"]}, **changes)
    assert [gives in note for note in found] == [True] * (gives is not None)


def test_groups_of_one_row_each_are_noted(competition):
    add(competition, patient=lambda row: f"p{row}")
    assert "keeps no rows together" in said(competition, "patient", folds={"group": "patient", "num": 2})[0]
    assert not said(competition, "owner", folds={"group": "owner", "num": 2})


def test_a_label_of_no_row_or_every_row_is_noted(competition):
    add(competition, never=lambda row: 0, always=lambda row: 1)
    notes = competition.ready(**{**MULTILABEL, "target": ["has_fur", "never", "always"]}).notes
    assert "no row has never: there is nothing to learn." in notes
    assert "every row has always: there is nothing to learn." in notes
    assert not [note for note in competition.ready(**MULTILABEL).notes if "nothing to learn" in note]


def test_numbers_that_float32_does_not_tell_apart_are_an_error(competition):
    add(competition, time=lambda row: 1_700_000_000 + row, day=lambda row: 1_700_000_000 + 86_400 * row)
    given = {"target_kind": "regression", "sample_submission": None}
    error = "from 1700000000 to 1700000029, and as float32, in which networks compute, they are wrong by up to 29"
    with pytest.raises(DataError, match=error):
        competition.ready(**given, target="time")
    with pytest.raises(DataError, match=error):
        competition.ready(columns={"numeric_features": ["time"]})
    with pytest.raises(DataError, match=error):
        competition.ready(columns={"auxiliary": [{"target": "time", "target_kind": "regression"}]})
    competition.ready(**given, target="day", columns={"numeric_features": ["age"]})
