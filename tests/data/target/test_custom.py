"""A custom kind of target is tried before training: what fails or has another form is named by class and method."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from swinft import Classification, DataError, InputError, Multilabel, Regression, Target
from swinft.data.schema import Schema
from swinft.data.target.custom import fingerprint, is_same


class Shares(Multilabel):
    """Counts in columns as shares of their sum."""

    def encode(self, cells, outputs, problems, notes=None):
        counts = self.numbers(cells, problems, notes) + 1
        return counts / counts.sum(1, keepdims=True)


class Ages(Classification):
    """Numbers as classes of an age."""

    def __init__(self, edge: float = 3.0) -> None:
        self.edge = edge

    def names(self, cells):
        return ["old" if float(cell) > self.edge else "young" for cell in cells.table.column(cells.columns[0])]


class Shifting(Regression):
    """Remembers the mean of the first table that it has seen."""

    mean: float | None = None

    def encode(self, cells, outputs, problems, notes=None):
        numbers = self.numbers(cells, problems, notes)
        self.mean = numbers.mean() if self.mean is None else self.mean + 1
        return numbers - self.mean


COLUMNS = {"target": ["has_fur", "is_long"]}


def test_targets_outputs_prior_and_captions_are_the_kinds(competition):
    dm = competition.ready(**COLUMNS, target_kind=Shares())
    assert (dm.schema.kind, dm.schema.kind_class) == ("multilabel", f"{__name__}.Shares")
    first = np.array([2, 1]) / 3  # a dog has fur and is not long
    np.testing.assert_allclose(dm.targets[0], first, rtol=1e-6)
    assert dm.targets.dtype == np.float32
    np.testing.assert_allclose(dm.schema.prior, dm.targets.mean(0, dtype=np.float64))
    assert next(iter(dm.train_dataloader()))["target"].shape == (4, 2)
    assert sum(dm.summary()["outputs"].values()) == pytest.approx(len(dm.targets))


def test_classes_of_ones_own_are_stratified_and_counted(competition):
    dm = competition.ready(target="age", target_kind=Ages(3.0), folds={"num": 3})
    old = [float(row["age"]) > 3 for row in competition.train]
    assert dm.schema.outputs == ["old", "young"]
    assert dm.targets.tolist() == [0 if is_old else 1 for is_old in old]
    in_fold = [sum(np.array(old)[dm.fold_of_row == fold]) for fold in range(3)]
    assert max(in_fold) - min(in_fold) <= 1
    assert not dm.schema.are_numbers
    with pytest.raises(DataError, match="fewer rows than the 5 folds"):
        competition.ready(target="age", target_kind=Ages(5.5))
    competition.test = [{**row, "age": "6"} for row in competition.test]
    competition.write()
    assert competition.ready(target="age", target_kind=Ages(3.0)).notes == []  # 6 is old, and known


def other(method: str, gives: Callable[..., Any], base: type[Target] = Shares) -> Target:
    """A kind one of whose methods gives something else."""
    function = lambda self, *args: gives(getattr(base, method), self, *args)  # noqa: E731
    return type("Odd", (base,), {method: function})()


def given(value: Any, function: Callable[..., Any], *args: Any) -> Any:
    return value


def with_first(value: float, function: Callable[..., Any], *args: Any) -> Any:
    found = np.array(function(*args))
    found[0] = value
    return found


def raising(function: Callable[..., Any], *args: Any) -> Any:
    raise KeyError("cat")


WRONG = {
    "raises": ("encode", raising, r"Odd\.encode fails: KeyError: 'cat' \(test_custom.py:\d+\)"),
    "one column": (
        "encode",
        lambda f, *a: f(*a)[:, :1],
        r"encode returned float32 \(30, 1\); .* it must return numbers \(30, 2\)",
    ),
    "fewer rows": ("encode", lambda f, *a: f(*a)[1:], r"encode returned float32 \(29, 2\)"),
    "nothing": ("encode", functools.partial(given, None), r"encode returned object \(\)"),
    "text": ("encode", lambda f, *a: f(*a).astype(str), r"encode returned <U"),
    "NaN": (
        "encode",
        functools.partial(with_first, np.nan),
        r"not from 0 to 1 for 1 row, the first of id '000', \[nan, nan\]",
    ),
    "above 1": ("encode", functools.partial(with_first, 1.5), "not from 0 to 1 for 1 row"),
    "no names": ("outputs", functools.partial(given, []), "outputs returned"),
    "a name twice": ("outputs", functools.partial(given, ["a", "a"]), "outputs returned"),
    "more names": (
        "outputs",
        functools.partial(given, ["a", "b", "c"]),
        r"encode returned float32 \(30, 2\).*\(30, 3\)",
    ),
    "prior": ("prior", functools.partial(given, [0.5]), "prior returned .*2 finite numbers"),
    "prior NaN": ("prior", functools.partial(given, [0.5, np.nan]), "prior returned"),
    "ranges": ("ranges", functools.partial(given, [[0, 1]] * 2), "ranges returned"),
    "counts": ("counts", functools.partial(given, ["a", "b"]), "counts fails: ValueError"),
    "captions": ("captions", lambda f, *a: f(*a)[1:], "captions returned"),
    "prediction": ("prediction_text", functools.partial(given, None), "prediction_text returned None"),
    "errors": ("row_errors", functools.partial(with_first, np.inf), "row_errors returned"),
    "error columns": ("error_columns", functools.partial(given, {"id": [1] * 30}), "a column 'id'"),
    "notes": ("notes", functools.partial(given, "text"), "notes returned"),
    "answers": (
        "encode_answers",
        lambda f, *a: 1 - f(*a),
        "encode_answers returned other targets than the first call of encode",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_a_method_gives_is_checked(case, competition):
    method, gives, said = WRONG[case]
    with pytest.raises(InputError, match=rf"(?s)^data\.target_kind: .*{said}"):
        competition.ready(**COLUMNS, target_kind=other(method, gives))


def test_numbers_and_classes_have_their_own_limits(competition):
    for value, said in ((np.inf, "not finite"), (np.nan, "not finite")):
        kind = other("encode", functools.partial(with_first, value), Regression)
        with pytest.raises(InputError, match=f"encode returned targets {said} for 1 row"):
            competition.ready(target="weight", target_kind=kind)
    kind = other("encode", functools.partial(with_first, 7), Ages)
    with pytest.raises(InputError, match="not from 0 to 1 for 1 row, the first of id '000', 7"):
        competition.ready(target="age", target_kind=kind)
    with pytest.raises(DataError, match="all rows have the same number"):
        competition.ready(target="weight", target_kind=other("encode", lambda f, *a: 0 * f(*a), Regression))


def test_a_kind_that_draws_or_remembers_is_refused(competition):
    draws = other("encode", lambda f, *a: f(*a) + np.random.default_rng().normal(), Regression)
    for kind in (draws, Shifting()):
        with pytest.raises(InputError, match=r"encode returned other targets than the first call"):
            competition.ready(target="weight", target_kind=kind)
    seen = Shifting()
    with pytest.raises(InputError):
        competition.ready(target="weight", target_kind=seen)
    assert seen.mean is None, "the datamodule works with a copy"


def test_a_kind_changes_no_array_that_others_use(competition):
    def spoils(function, self, values, targets):
        found = function(self, values, targets)
        values[:], targets[:] = 0, 0
        return found

    dm = competition.ready(**COLUMNS, target_kind=other("row_errors", spoils))
    assert dm.targets.sum() == pytest.approx(len(dm.targets))


class Bare(Target):
    """Derives from none of the three."""


class Renamed(Multilabel):
    """Says that it is another kind."""

    kind = "shares"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Bare(), "data.target_kind is a Bare: derive it from one of swinft.Classification, "),
        (Renamed(), "Renamed has a different `kind` from swinft.Multilabel"),
        (Shares, "data.target_kind is the class Shares; give an object of it"),
        ("share", "data.target_kind is 'share'"),
        (None, "data.target_kind is 'None'. Give one of classification, regression, multilabel."),
    ],
)
def test_the_setting_takes_a_name_or_an_object_of_a_class_of_the_three(kind, said, competition):
    with pytest.raises(InputError, match=said):
        competition.module(**COLUMNS, target_kind=kind)


def test_a_schema_knows_its_kind_by_name_and_a_datamodule_gives_it_back(competition):
    dm = competition.ready(**COLUMNS, target_kind=Shares())
    written = Schema.from_dict(dm.schema.to_dict())
    assert (written.base.formats, written.are_numbers) == (dm.schema.target.formats, False)
    with pytest.raises(InputError, match="does not contain its object"):
        _ = written.target
    again = competition.module(**COLUMNS, target_kind=Shares())
    again.schema = written
    assert again.schema.captions(dm.targets[:1]) == dm.schema.captions(dm.targets[:1])
    plain = competition.module(**COLUMNS, target_kind="multilabel")
    with pytest.raises(InputError, match=r"the earlier run is of .*Shares, a multilabel"):
        plain.schema = written
    plain.setup("fit")
    assert {"kind_class", "kind_check"}.isdisjoint(plain.schema.to_dict())
    with pytest.raises(InputError, match=r"data.target_kind is .*Shares, a multilabel, and the schema"):
        again.schema = plain.schema


def test_two_fingerprints_differ_where_rows_have_changed_places_and_not_by_rounding():
    targets = np.random.default_rng(0).normal(100, 1, (500, 3)).astype(np.float32)
    known = fingerprint(targets)
    assert is_same(fingerprint(np.nextafter(targets, np.float32(np.inf))), known)
    for wrong in (targets[::-1], targets + np.eye(500, 3, dtype=np.float32), targets[:, :2]):
        assert not is_same(fingerprint(wrong), known)
