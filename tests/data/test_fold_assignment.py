"""Folds that are one hold-out, or stand in a column of the table."""

import numpy as np
import pytest

from swinft.cli import main
from swinft.data.fold_assignment import parts_of
from swinft.errors import InputError
from tests.conftest import tiny_config, write_config


def held_out(competition, **folds):
    data = competition.ready(folds=folds)
    rows = np.flatnonzero(data.fold_of_row == 0)
    assert set(data.fold_of_row.tolist()) == {0, -1}
    trained = data.splits.trained_on(0).tolist()
    assert sorted([*rows.tolist(), *trained]) == list(range(30))
    return data, rows


@pytest.mark.parametrize(("fraction", "rows"), [(None, 6), (0.5, 15), (0.1, 3), (0.3, 9), (0.9, 27)])
def test_a_hold_out_is_one_stratified_fold(competition, fraction, rows):
    data, found = held_out(competition, kind="holdout", fraction=fraction)
    assert len(found) == rows
    assert np.bincount(data.targets[found]).tolist() == [rows // 3] * 3
    assert found.tolist() != held_out(competition, kind="holdout", fraction=fraction, seed=1)[1].tolist()


def test_a_hold_out_keeps_groups_whole(competition):
    data, found = held_out(competition, kind="holdout", fraction=0.2, group="owner")
    owners = np.array(data.train_table.column("owner"))
    assert len(found) == 6
    assert not {*owners[found]} & {*owners[data.splits.trained_on(0)]}


@pytest.mark.parametrize("fraction", [0.15, 0.35, 0.85])
@pytest.mark.parametrize("rows", [27, 30])  # at most 9 or 10 of a class, and 20 parts
def test_a_hold_out_of_more_parts_than_a_class_has_rows_is_stratified(competition, fraction, rows):
    competition.train = competition.train[:rows]
    competition.write()
    data = competition.ready(folds={"kind": "holdout", "fraction": fraction, "duplicates": "ignore"})
    counts = np.bincount(data.targets[data.fold_of_row == 0], minlength=3)
    assert abs(counts - rows / 3 * fraction).max() <= 1


def test_a_hold_out_of_groups_has_every_class_where_none_has_as_many_rows_as_parts(competition):
    data, found = held_out(competition, kind="holdout", fraction=0.364, group="owner")  # 4 of 11
    assert 8 <= len(found) <= 14
    assert np.bincount(data.targets[found], minlength=3).min() > 0


@pytest.mark.parametrize(
    ("share", "parts"),
    [(0.2, (1, 5)), (0.25, (1, 4)), (0.15, (3, 20)), (1 / 3, (1, 3)), (0.01, (1, 99)), (0.8, (4, 5))],
)
def test_a_share_is_of_few_parts_and_near_enough(share, parts):
    assert parts_of(share) == parts
    for percent in range(1, 100):
        some, of = parts_of(percent / 100)
        assert some / of == pytest.approx(percent / 100, rel=0.02)


def test_a_column_names_the_fold_of_every_row(competition):
    folds = [k % 4 - 1 for k in range(30)]
    competition.train = [{**row, "part": str(fold)} for row, fold in zip(competition.train, folds, strict=True)]
    competition.write()
    data = competition.ready(folds={"column": "part"})
    assert data.fold_of_row.tolist() == folds
    for fold in range(3):
        assert data.splits.trained_on(fold).tolist() == [row for row in range(30) if folds[row] != fold]
        assert data.splits.held_out(fold).tolist() == [row for row in range(30) if folds[row] == fold]


WRONG = {
    "word": (["train"] * 30, {}, "train.csv:2: id '000', column 'part', value 'train': the fold is no whole number"),
    "gap": ([0, 2] * 15, {}, "fold 1 has no row"),
    "one": ([0] * 30, {}, "there is only one fold: nothing is left to train on"),
    "none": ([-1] * 30, {}, "every row is in none: nothing is held out"),
    "number": ([0, 1] * 15, {"num": 3}, "data.folds.num is 3, and column 'part' has 2 folds"),
    "file": ([0, 1] * 15, {"file": "f.csv"}, "so that data.folds.column cannot act"),
    "kind": ([0, 1] * 15, {"kind": "kfold"}, "data.folds.column names the fold of every row, so that data.folds.kind"),
    "group": ([0, 0, -1] * 10, {"group": "owner"}, "group 'owner 1' is in more than one fold, or in one and among the"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_column_is_refused(competition, case):
    cells, folds, said = WRONG[case]
    competition.train = [{**row, "part": str(cell)} for row, cell in zip(competition.train, cells, strict=True)]
    competition.write()
    with pytest.raises(InputError, match=re_escape(said)):
        competition.ready(folds={"column": "part", **folds})


def re_escape(text):
    import re

    return re.escape(text)


REFUSED = {
    "num": ({"kind": "holdout", "num": 5}, "which makes one fold: remove data.folds.num"),
    "kind": ({"fraction": 0.2}, "data.folds.fraction is for data.folds.kind holdout"),
    "range": ({"kind": "holdout", "fraction": 1.0}, "data.folds.fraction is 1.0. Allowed: a number above 0, below 1."),
    "few": ({"kind": "holdout", "fraction": 0.01}, "1 part of 99, and there are only 30 rows"),
    "empty": ({"group": ""}, "data.folds.group is empty; write a text or null."),
    "groups": ({"kind": "holdout", "fraction": 0.04, "group": "owner"}, "only 15 groups (data.folds.group)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_hold_out_that_cannot_be_is_refused(competition, case):
    folds, said = REFUSED[case]
    with pytest.raises(InputError, match=re_escape(said)):
        competition.ready(folds=folds)


def test_a_run_of_one_hold_out_goes_from_fit_to_submit(competition, tmp_path):
    root = competition.root
    changes = {"data.folds": {"kind": "holdout", "fraction": 0.2}, "trainer.max_epochs": 1, "data.target": "animal"}
    changes |= {
        "data.image": "images/{id}.png",
        "data.image_size": 16,
        "data.sample_submission": "sample_submission.csv",
    }
    config = write_config(tmp_path / "c.yaml", tiny_config(root, tmp_path / "runs", **changes))
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    assert main(["fit", "--config", str(config), "--resume"]) == 0
    run = tmp_path / "runs" / "tiny"
    lines = (run / "oof.csv").read_text().splitlines()
    assert lines[0].endswith(",fold,status")
    assert sum(line.endswith(",0,ok") for line in lines) == 6
    assert sum(line.endswith(",,,,-1,in no fold") for line in lines) == 24
    assert main(["predict", str(run), "--device", "cpu"]) == 0
    assert main(["submit", str(run)]) == 0


def test_a_group_is_whole_with_rows_that_have_an_auxiliary_target_alone(competition):
    for row, line in enumerate(competition.train):
        line["part"] = str(row // 2 % 2)  # owners are whole
    competition.train[0]["animal"] = ""
    competition.write()
    mask = {"on_missing_target": "mask", "auxiliary": [{"target": "sex", "target_kind": "classification"}]}
    given = {"columns": mask, "folds": {"column": "part", "group": "owner"}}
    assert 0 in competition.ready(**given).splits.trained_on(1)
    competition.train[0]["part"] = "1"  # fold 0 would train on it, and hold out the other row of its owner
    competition.write()
    with pytest.raises(InputError, match="group 'owner 0' is in more than one fold"):
        competition.ready(**given)


def test_a_class_whose_rows_have_no_weight_is_not_trained_on(competition):
    for row, line in enumerate(competition.train):
        line["votes"] = "0" if row % 3 == 1 else "2"
        line["part"] = str(row % 2)
    competition.write()
    given = {"columns": {"weight": "votes"}, "folds": {"column": "part"}}
    with pytest.raises(InputError, match="fold 1 trains on no row of cat with a weight above 0"):
        competition.ready(**given)
    competition.train[1]["votes"] = competition.train[4]["votes"] = "0.1"
    competition.write()
    assert competition.ready(**given).fold_of_row[[1, 4]].tolist() == [1, 0]
