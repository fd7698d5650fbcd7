"""Row weights: a factor on the training loss of each row, and where it is asked for on what it counts in a metric."""

import json

import numpy as np
import pytest
import sklearn.metrics as sk

from swinft import CSVDataModule
from swinft.cli import main
from tests.conftest import tiny_config, write_config

WEIGHTS = [1 + k % 3 for k in range(24)]


def table(competition, root, weights):
    root.mkdir(exist_ok=True)
    (root / "images").symlink_to(competition / "images")
    header, *lines = (competition / "train.csv").read_text().splitlines()
    lines = [f"{line},{weight}" for line, weight in zip(lines, weights, strict=True)]
    (root / "train.csv").write_text("\n".join([f"{header},votes", *lines, ""]))
    return root


def config(root, tmp_path, name="tiny", **changes):
    settings = tiny_config(root, tmp_path, **{"data.test": None, "trainer.max_epochs": 1, **changes})
    settings["data"]["sample_submission"] = None
    return str(write_config(tmp_path / f"{name}.yaml", settings | {"name": name}))


def module(root, **changes):
    arguments = {"columns": {"weight": "votes"}, "loading": {"cache": False, "num_workers": 0}, **changes}
    data = CSVDataModule("color", "classification", "train.csv", "images/{id}.jpg", root=str(root), **arguments)
    data.setup("fit")
    return data


@pytest.mark.parametrize("augment_on", ["cpu", "device"])
def test_batches_of_training_have_weights_of_mean_one_and_others_none(competition, tmp_path, augment_on):
    data = module(
        table(competition, tmp_path / "data", WEIGHTS),
        image_size=16,
        batch_size=5,
        loading={"augment_on": augment_on, "num_workers": 0, "cache_dir": str(tmp_path / "cache")},
    )
    trained = data.splits.trained_on(0)
    mean = np.array(WEIGHTS)[trained].mean()
    for batch in data.train_dataloader():
        assert batch["weight"].tolist() == pytest.approx([WEIGHTS[row] / mean for row in batch["row"]])
    assert all("weight" not in batch for batch in data.val_dataloader())


def test_equal_weights_train_to_the_same_bytes_as_none_and_others_do_not(competition, tmp_path):
    weights = {}
    for name, column in {"none": None, "equal": [7] * 24, "other": WEIGHTS}.items():
        root = table(competition, tmp_path / f"data {name}", column or WEIGHTS)
        path = config(root, tmp_path, name, **{"data.columns.weight": "votes"} if column else {})
        assert main(["fit", "--config", path, "--fold", "0"]) == 0
        weights[name] = (tmp_path / name / "fold_0" / "weights.safetensors").read_bytes()
    assert weights["none"] == weights["equal"] != weights["other"]


def test_metrics_count_rows_by_their_weights_where_it_is_asked_for(competition, tmp_path):
    root = table(competition, tmp_path / "data", WEIGHTS)
    keys = {"data.columns.weight": {"column": "votes", "in_score": True}}
    assert main(["fit", "--config", config(root, tmp_path, **keys), "--fold", "0"]) == 0
    fold = tmp_path / "tiny" / "fold_0"
    lines = [line.split(",") for line in (fold / "oof.csv").read_text().splitlines()[1:]]
    colors = ["blue", "green", "red"]
    truth = [["red", "green", "blue"][int(line[0]) % 3] for line in lines]
    values = np.array([[float(cell) for cell in line[1:4]] for line in lines])
    counted = [WEIGHTS[int(line[0])] for line in lines]
    result = json.loads((fold / "result.json").read_text())
    given = [colors[best] for best in values.argmax(1)]
    assert result["oof"]["accuracy"] == pytest.approx(sk.accuracy_score(truth, given, sample_weight=counted))
    expected = sk.log_loss(truth, values, labels=colors, sample_weight=counted)
    assert result["oof"]["log_loss"] == pytest.approx(expected, rel=1e-4)
    assert result["last_epoch"]["val_log_loss"] == pytest.approx(expected, rel=1e-3)
    assert expected != pytest.approx(sk.log_loss(truth, values, labels=colors), rel=1e-3)


WRONG = {
    "negative": ([-1, *WEIGHTS[1:]], "train.csv:2: id '000', column 'votes', value '-1': the weight is negative"),
    "empty": (["", *WEIGHTS[1:]], "train.csv:2: id '000', column 'votes', value '': the cell is empty"),
    "zero": ([0] * 24, "all weights are 0: nothing would be learnt"),
}


@pytest.mark.parametrize("case", WRONG)
def test_weights_that_are_none_are_named_by_their_lines(competition, tmp_path, capsys, case):
    weights, said = WRONG[case]
    root = table(competition, tmp_path / "data", weights)
    assert main(["check", "--config", config(root, tmp_path, **{"data.columns.weight": "votes"})]) == 2
    assert said in capsys.readouterr().err


def test_a_fold_that_would_learn_from_no_row_is_refused(competition, tmp_path, capsys):
    data = module(table(competition, tmp_path / "data", WEIGHTS), folds={"num": 2})
    weights = (data.fold_of_row == 0).astype(int)
    root = table(competition, tmp_path / "zero", weights)
    assert main(["check", "--config", config(root, tmp_path, **{"data.columns.weight": "votes"})]) == 2
    assert "fold 0: data.columns.weight is 0 in all rows that the fold trains on" in capsys.readouterr().err


def test_an_unknown_key_of_weights_is_refused(competition, tmp_path, capsys):
    root = table(competition, tmp_path / "data", WEIGHTS)
    assert (
        main(
            [
                "check",
                "--config",
                config(root, tmp_path, **{"data.columns.weight": {"column": "votes", "in_scores": True}}),
            ]
        )
        == 2
    )
    assert "in_scores" in capsys.readouterr().err
