"""Predictions: what is written reads back the same, and rows are joined by id."""

import dataclasses

import numpy as np
import pytest

from swinft.errors import RunError
from swinft.inference.predictions import Predictions

IDS = ["007", "1e5", "NA", 'a,"b']
VALUES = np.array([[0.1, 2], [3.3, np.nan], [1e-30, 5], [7, 16777217]], dtype=np.float32)


@pytest.mark.parametrize("outputs", [["x", "y"], ["id", "id"], ["fold", "status"], ["nan", " ä"]])
@pytest.mark.parametrize(
    "extra", [{}, {"fold": [0, 1, -1, 1]}, {"fold": [0, 0, 0, 1], "status": ["ok"] * 3 + ["bad image"]}]
)
def test_what_is_written_reads_back_whatever_outputs_are_called(outputs, extra, tmp_path):
    written = Predictions(IDS, VALUES, outputs, **extra)
    written.write(tmp_path / "p.csv", "test")
    read = Predictions.read(tmp_path / "p.csv", 2)
    assert (read.ids, read.outputs, read.status) == (written.ids, written.outputs, written.status)
    assert np.array_equal(read.values, VALUES, equal_nan=True)
    assert (read.fold is None) == ("fold" not in extra)
    assert read.fold is None or read.fold.tolist() == extra["fold"]
    assert read.to_bytes() == written.to_bytes() == (tmp_path / "p.csv").read_bytes()


def test_the_file_is_that_of_every_version():
    oof = Predictions(IDS, VALUES, ["x", "y"], [0, 1, -1, 1], ["ok", "ok", "no target", "ok"])
    assert oof.to_bytes().decode() == (
        "id,x,y,fold,status\n007,0.100000001,2,0,ok\n1e5,3.29999995,,1,ok\nNA,1e-30,5,-1,no target\n"
        '"a,""b",7,16777216,1,ok\n'
    )


def test_a_join_takes_fold_and_status_along():
    words = ["ok", "ok", "bad image", "ok"]
    joined = Predictions(IDS, VALUES, ["x", "y"], [0, 1, 2, 3], words).join(IDS[::-1], "p.csv")
    assert (joined.ids, joined.status) == (IDS[::-1], words[::-1])
    assert joined.fold.tolist() == [3, 2, 1, 0]
    assert np.array_equal(joined.values, VALUES[::-1], equal_nan=True)


def test_rows_without_a_prediction_get_the_filler():
    some = Predictions(["c", "a"], np.array([[1, 2], [3, 4]]), ["x", "y"])
    assert some.among(["a", "b", "c"], [8, 9]).values.tolist() == [[3, 4], [8, 9], [1, 2]]


def test_parts_are_put_together_and_one_that_is_there_twice_is_found_by_the_join():
    parts = [Predictions(["a"], [[1]], ["y"], [0]), Predictions(["b", "c"], [[2], [3]], ["y"], [1, 1])]
    whole = Predictions.concat(parts)
    assert (whole.ids, whole.fold.tolist()) == (["a", "b", "c"], [0, 1, 1])
    with pytest.raises(RunError, match="1 id is predicted twice: a"):
        Predictions.concat([*parts, parts[0]]).join(["a", "b", "c"], "the parts")


@pytest.mark.parametrize(
    "wrong", [{"ids": IDS[:3]}, {"outputs": ["x"]}, {"fold": [1]}, {"status": []}, {"values": [1] * 4}]
)
def test_lengths_that_differ_are_an_error(wrong):
    with pytest.raises(ValueError, match=r"of [34] ids"):
        Predictions(**({"ids": IDS, "values": VALUES, "outputs": ["x", "y"]} | wrong))


def test_predictions_do_not_change_under_those_who_share_them():
    values = VALUES.copy()
    predictions = Predictions(IDS, values, ["x", "y"])
    values[0] = 0
    assert predictions.values[0, 1] == 2
    with pytest.raises(ValueError, match="read-only"):
        predictions.values[0] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        predictions.values = values
