"""Submissions: what Kaggle would refuse, swinft refuses first."""

import csv

import numpy as np
import pytest

from swinft.cli import main
from swinft.data.schema import Schema
from swinft.errors import InputError
from swinft.inference.predictions import Predictions
from swinft.model.metrics import Traits
from swinft.run.submission.decide import plan_submission
from swinft.run.submission.plan import SubmissionConfig, as_csv, build_submission, check_submission
from swinft.run.submission.sample import Sample

CLASSES = Schema(kind="classification", outputs=["a", "b", "c"], numeric_features=[], categories={})
BINARY = Schema(kind="classification", outputs=["0", "1"], numeric_features=[], categories={})
NUMBERS = Schema(kind="regression", outputs=["x", "y"], numeric_features=[], categories={})
LABELS = Schema(kind="multilabel", outputs=["rust", "scab"], numeric_features=[], categories={})
IDS = ["007", "1e5", "x"]
VALUES = {
    "classification": np.array([[0.2, 0.5, 0.3], [0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], dtype=np.float32),
    "regression": np.array([[1.5, 2], [3.4, 4], [5.6, 6]], dtype=np.float32),
    "multilabel": np.array([[0.9, 0.6], [0.2, 0.1], [0.1, 0.7]], dtype=np.float32),
}


def sample(*targets: str, ids: list[str] = IDS) -> Sample:
    return Sample("sample.csv", "id", ["id", *targets], ids)


def submission(schema: Schema, wanted: Sample, **options: object):
    order = [2, 0, 1]  # another order than the sample's: rows are joined by id
    values = VALUES[schema.kind][:, : len(schema.outputs)]
    table = Predictions([IDS[i] for i in order], values[order], schema.outputs)
    plan = plan_submission(wanted, schema, Traits(), SubmissionConfig(**options))
    return plan, build_submission(plan, table)[0]


def text_of(schema: Schema, wanted: Sample, **options: object):
    plan, frame = submission(schema, wanted, **options)
    return plan, as_csv(plan, frame)


@pytest.mark.parametrize(
    ("schema", "targets", "options", "first", "second"),
    [
        (CLASSES, ["label"], {}, ["b"], ["a"]),
        (CLASSES, ["c", "a", "b"], {}, ["0.3", "0.2", "0.5"], ["0.1", "0.7", "0.2"]),
        (BINARY, ["target"], {"format": "probabilities"}, ["0.5"], ["0.2"]),
        (NUMBERS, ["y", "x"], {}, ["2", "1.5"], ["4", "3.4"]),
        (NUMBERS, ["x", "y"], {"format": "integer"}, ["2", "2"], ["3", "4"]),
        (LABELS, ["labels"], {}, ["rust scab"], ["rust"]),
        (LABELS, ["labels"], {"threshold": 0.8, "delimiter": "|"}, ["rust"], ["rust"]),
        (LABELS, ["rust", "scab"], {}, ["0.9", "0.6"], ["0.2", "0.1"]),
    ],
    ids=["label", "probabilities", "binary", "numbers", "integers", "labels", "labels-threshold", "label-columns"],
)
def test_each_format(schema, targets, options, first, second):
    wanted = sample(*targets)
    plan, frame = submission(schema, wanted, **options)
    assert list(frame.columns) == wanted.columns
    assert list(frame["id"]) == IDS
    for row, expected in enumerate([first, second]):
        cells = [frame[t][row] for t in targets]
        assert [_number(c) for c in cells] == pytest.approx([_number(e) for e in expected])
    assert check_submission(as_csv(plan, frame), plan) == []


def _number(cell: str) -> object:
    try:
        return float(cell)
    except ValueError:
        return cell


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda ids, values: (ids[:2], values[:2]), "id 'x' has no prediction"),
        (lambda ids, values: ([*ids, "x"], np.vstack([values, values[:1]])), "id 'x' is predicted twice"),
        (
            lambda ids, values: (ids, np.where(values == values[1, 0], np.nan, values)),
            "id '1e5' has a prediction that is NaN",
        ),
        (
            lambda ids, values: ([*ids, "z"], np.vstack([values, values[:1]])),
            "id 'z' is predicted but not in sample.csv",
        ),
    ],
    ids=["missing", "doubled", "nan", "extra"],
)
def test_predictions_that_do_not_fit_are_refused(edit, message):
    ids, values = edit(IDS, VALUES["regression"].copy())
    table = Predictions(ids, values.astype(np.float32), NUMBERS.outputs)
    with pytest.raises(InputError) as error:
        build_submission(plan_submission(sample("x", "y"), NUMBERS, Traits(), SubmissionConfig()), table)
    assert message in str(error.value)


def test_all_problems_are_listed_at_once():
    table = Predictions(["x", "x", "z"], np.full((3, 2), np.nan, dtype=np.float32), NUMBERS.outputs)
    with pytest.raises(InputError) as error:
        build_submission(plan_submission(sample("x", "y"), NUMBERS, Traits(), SubmissionConfig()), table)
    for text in [
        "'007' has no",
        "'1e5' has no",
        "'x' is predicted twice",
        "'z' is predicted but",
        "'x' has a prediction that is NaN",
    ]:
        assert text in str(error.value)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.replace("id,x,y", "Id,x,y"), "line 1: the header is"),
        (lambda t: t.replace("id,x,y", ",id,x,y"), "line 1: the header is"),
        (lambda t: t.replace("007", "7"), "line 2: id '7' where sample.csv has '007'"),
        (lambda t: t.replace("1e5", "007"), "line 3: id '007' is there twice"),
        (lambda t: "\n".join(t.splitlines()[:-1]) + "\n", "2 rows, sample.csv has 3"),
        (lambda t: t + "more,1,1\n", "4 rows, sample.csv has 3"),
        (lambda t: t.replace("1.5", ""), "line 2, column 'x': '' is not a number"),
        (lambda t: t.replace("1.5", "nan"), "line 2, column 'x': 'nan' is not finite"),
        (lambda t: t.replace("1.5", "inf"), "line 2, column 'x': 'inf' is not finite"),
        (lambda t: t.replace("1.5", "1,5"), "line 2: 4 fields instead of 3"),
    ],
)
def test_a_file_that_kaggle_would_refuse_is_found(edit, message):
    plan, text = text_of(NUMBERS, sample("x", "y"))
    assert check_submission(text, plan) == []
    assert message in "\n".join(check_submission(edit(text), plan))


def test_labels_and_probabilities_have_their_own_rules():
    plan, text = text_of(LABELS, sample("labels"))
    assert "not made of" in "\n".join(check_submission(text.replace("scab", "scurf"), plan))
    plan, text = text_of(CLASSES, sample("a", "b", "c"))
    assert "is not in 0–1" in "\n".join(check_submission(text.replace("0.8", "1.8", 1), plan))


@pytest.mark.parametrize(
    ("schema", "targets", "options", "message"),
    [
        (CLASSES, ["a", "b"], {}, "without a column: c"),
        (NUMBERS, ["x"], {}, "without a column: y"),
        (NUMBERS, ["x", "y"], {"format": "label"}, "number or integer"),
    ],
)
def test_a_sample_that_does_not_fit_the_outputs_is_refused(schema, targets, options, message):
    with pytest.raises(InputError, match=message):
        submission(schema, sample(*targets), **options)


def test_float32_predictions_read_back_exactly(tmp_path):
    values = np.random.default_rng(0).lognormal(0, 20, (1000, 2)).astype(np.float32)
    table = Predictions([f"{i:04d}" for i in range(1000)], values, ["x", "y"])
    table.write(tmp_path / "p.csv", "test")
    again = Predictions.read(tmp_path / "p.csv", 2)
    assert np.array_equal(again.values, values)
    assert again.ids[7] == "0007"


def test_a_run_submits_the_sample_rows_in_the_sample_order(tiny_run, competition):
    with (tiny_run / "submission.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (competition / "sample_submission.csv").open() as file:
        wanted = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [row["id"] for row in wanted] == ["t3", "t1", "t2", "t6", "t5", "t4"]
    assert {row["color"] for row in rows} <= {"red", "green", "blue"}


def test_a_dry_run_leaves_the_submission_alone(tiny_run, capsys):
    before = (tiny_run / "submission.csv").stat().st_mtime_ns
    assert main(["submit", str(tiny_run), "--dry-run"]) == 0
    assert "sample_submission.csv, not written" in capsys.readouterr().out
    assert (tiny_run / "submission.csv").stat().st_mtime_ns == before
