"""Rows of extra tables: every fold trains on them and none scores them, and none trains on an image that it scores."""

import json
import shutil

import numpy as np
import pytest
import yaml

from swinft import CSVDataModule
from swinft.cli import main
from swinft.data.tables.table import DataError
from tests.conftest import fit_in_process, power_gone_after, tiny_config, write_config, write_image

COLORS = {"red": (200, 40, 40), "green": (40, 190, 40), "blue": (40, 40, 200)}
EXTRA = {"table": "old.csv", "image": "old/{file}.jpg", "weight": 0.5}


@pytest.fixture
def with_old(competition, tmp_path):
    """The tiny competition with 6 more rows, of which the last two are the images 000 and 001 of the training table."""
    root = tmp_path / "data"
    shutil.copytree(competition, root)
    rng = np.random.default_rng(1)
    lines = ["id,color,file"]
    for k in range(6):
        name = list(COLORS)[k % 3]
        write_image(root / "old" / f"f{k}.jpg", COLORS[name], rng, (60, 24))
        lines.append(f"old{k},{name},f{k}")
    for k in (0, 1):
        shutil.copy(root / "images" / f"00{k}.jpg", root / "old" / f"f{4 + k}.jpg")
    (root / "old.csv").write_text("\n".join([*lines, ""]))
    return root


def config(root, tmp_path, name="tiny", **changes):
    settings = tiny_config(root, tmp_path, **{"data.folds.extra": [EXTRA], "trainer.max_epochs": 2, **changes})
    return write_config(tmp_path / f"{name}.yaml", settings | {"name": name})


def module(root, **changes):
    given = {"image_size": 16, "batch_size": 4, "folds": {"num": 2, "extra": [EXTRA], **changes.pop("folds", {})}}
    data = CSVDataModule("color", "classification", "train.csv", "images/{id}.jpg", root=str(root), **given, **changes)
    data.setup("fit")
    return data


def test_every_fold_trains_on_extra_rows_but_on_none_whose_image_it_scores(with_old):
    data = module(with_old)
    assert len(data.train_table) == len(data.targets) == len(data.fold_of_row) == len(data.is_scored) == 24
    homes = data.fold_of_row[:2].tolist()  # of the images that are there twice
    for fold in (0, 1):
        ids = [data.splits.train.table.ids[row] for row in data.splits.trained_on(fold)]
        expected = {f"old{k}" for k in range(4)} | {f"old{4 + k}" for k in (0, 1) if homes[k] != fold}
        assert {id for id in ids if id.startswith("old")} == expected
        held_out = [row for batch in CSVDataModule.val_dataloader(data) for row in batch["row"].tolist()]
        assert max(held_out) < 24
    weights = {}
    for batch in data.train_dataloader():
        weights |= dict(zip(batch["row"].tolist(), batch["weight"].tolist(), strict=True))
    main_rows, extra_rows = ({weights[row] for row in weights if (row >= 24) is extra} for extra in (False, True))
    assert len(main_rows) == len(extra_rows) == 1
    assert extra_rows.pop() == pytest.approx(main_rows.pop() / 2)


def test_a_group_that_is_scored_is_not_trained_on_from_an_extra_table(with_old):
    for name, groups in {"train": [f"g{k // 2}" for k in range(24)], "old": ["g0", "g1", "g11", "x", "x", "y"]}.items():
        header, *lines = (with_old / f"{name}.csv").read_text().splitlines()
        lines = [f"{line},{group}" for line, group in zip(lines, groups, strict=True)]
        (with_old / f"{name}.csv").write_text("\n".join([f"{header},site", *lines, ""]))
    data = module(with_old, folds={"group": "site"})
    for fold in (0, 1):
        groups = set(np.array(data.train_table.column("site"))[data.fold_of_row == fold])
        rows = [row for row in data.splits.trained_on(fold).tolist() if row >= 24]
        assert {data.splits.train.groups[row] for row in rows} & groups == set()
        assert {"g0", "g1", "g11"} - groups <= {data.splits.train.groups[row] for row in rows}


def test_a_group_that_the_training_table_spells_in_another_way_is_named(with_old):
    for name, groups in {"train": [f"g{k // 2}" for k in range(24)], "old": ["g0", "G1", "g11", "x", "x", "y"]}.items():
        lines = (with_old / f"{name}.csv").read_text().splitlines()
        lines = [f"{line},{group}" for line, group in zip(lines, ["site", *groups], strict=True)]
        (with_old / f"{name}.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"old.csv: column 'site': 'G1' and 'g1' differ only by case.* \(1, 2 rows\)"):
        module(with_old, folds={"group": "site"})
    module(with_old, folds={"group": "site"}, columns={"twins": "distinct"})


def test_a_run_trains_on_extra_rows_and_scores_the_training_table_alone(with_old, tmp_path, capsys):
    fit_in_process(config(with_old, tmp_path))
    said = capsys.readouterr().out
    assert "old.csv: 6 rows that every fold trains on and none scores, weight 0.5; left out, as their image" in said
    run = tmp_path / "tiny"
    lines = (run / "oof.csv").read_text().splitlines()
    assert lines[0] == "id,blue,green,red,fold"
    assert [line[:3] for line in lines[1:]] == [f"{k:03d}" for k in range(24)]
    assert len((run / "folds.csv").read_text().splitlines()) == 25
    left_out = dict(line.split(",") for line in (run / "extra.csv").read_text().splitlines()[1:])
    homes = dict(line.split(",") for line in (run / "folds.csv").read_text().splitlines()[1:])
    assert left_out == {**{f"old{k}": "" for k in range(4)}, "old4": homes["000"], "old5": homes["001"]}
    assert json.loads((run / "scores.json").read_text())["rows"] == 24
    assert main(["predict", str(run), "--device", "cpu"]) == 0
    assert main(["report", str(run)]) == 0
    (with_old / "old.csv").write_text((with_old / "old.csv").read_text().replace("old0,red", "old0,blue"))
    assert main(["fit", "--resume", str(run)]) == 2
    assert "old.csv (SHA-256 was" in capsys.readouterr().err


def test_an_interrupted_fit_goes_on_as_if_nothing_had_been(with_old, tmp_path):
    for name in ("whole", "cut"):
        words = ["fit", "--config", str(config(with_old, tmp_path, name)), "--fold", "0"]
        if name == "cut":
            with power_gone_after(1):
                main(words)
            words += ["--resume"]
        assert main(words) == 0
    whole, cut = (tmp_path / name / "fold_0" / "weights.safetensors" for name in ("whole", "cut"))
    assert whole.read_bytes() == cut.read_bytes()


WRONG = {
    "class": ("old0,red", "old0,grey", "old.csv:2: id 'old0', column 'color', value 'grey': the training table has no"),
    "id": ("old1,green", "003,green", "old.csv:3: id '003': the id is in"),
    "image": ("f2", "f9", "old.csv:4: id 'old2', value"),
    "column": ("id,color,file", "id,colour,file", "old.csv:1: column 'color': there is no such column"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_an_extra_table_is_named_by_its_lines(with_old, tmp_path, capsys, case):
    before, after, said = WRONG[case]
    (with_old / "old.csv").write_text((with_old / "old.csv").read_text().replace(before, after))
    assert main(["check", "--config", str(config(with_old, tmp_path))]) == 2
    assert said in capsys.readouterr().err


SETTINGS = {
    "weight": ([{**EXTRA, "weight": -1}], "data.folds.extra.weight is -1"),
    "twice": ([EXTRA, EXTRA], "data.folds.extra names old.csv twice."),
    "missing": ([{"table": "gone.csv"}], "gone.csv"),
    "key": ([{"table": "old.csv", "wait": 1}], "wait"),
    "list": ("old.csv", "data.folds.extra"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_wrong_settings_of_extra_tables_are_refused(with_old, tmp_path, capsys, case):
    given, said = SETTINGS[case]
    assert main(["check", "--config", str(config(with_old, tmp_path, **{"data.folds.extra": given}))]) == 2
    assert said in capsys.readouterr().err


def test_a_bad_image_of_an_extra_table_is_named_by_its_file(with_old, tmp_path, capsys):
    (with_old / "old" / "f3.jpg").write_bytes(b"no image")
    assert main(["check", "--config", str(config(with_old, tmp_path))]) == 2
    assert "old.csv:5: id 'old3': the image cannot be used" in capsys.readouterr().err
    skips = {"data.loading.on_bad_image": "skip"}
    assert main(["check", "--config", str(config(with_old, tmp_path, **skips))]) == 0
    assert "old.csv: 5 rows that every fold trains on" in capsys.readouterr().out
    assert yaml.safe_load((tmp_path / "tiny.yaml").read_text())["data"]["folds"]["extra"] == [EXTRA]


def test_an_extra_table_may_lack_the_auxiliary_columns_where_targets_may_be_missing(with_old):
    auxiliary = [{"target": "brightness", "target_kind": "regression"}]
    (with_old / "old.csv").write_text((with_old / "old.csv").read_text().replace("old1,green", "old1,"))
    data = module(with_old, columns={"on_missing_target": "mask", "auxiliary": auxiliary})
    trained = {data.splits.train.table.ids[row] for row in data.splits.trained_on(0)}
    assert {"old0", "old2", "old3"} <= trained
    assert "old1" not in trained  # it has no target of any kind
