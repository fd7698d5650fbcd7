"""Weights in: a run, a fold or a checkpoint as `model.pretrained`."""

import argparse
import csv
import json
import re
import warnings
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.layers import resize_rel_pos_bias_table

from swinft.cli import main
from swinft.errors import InputError
from swinft.model.backbones.timm_backbone import create_backbone
from tests.conftest import TINY_SWIN, fit_in_process, tiny_config, write_config

SWIN = "swin_tiny_patch4_window7_224"
FREE = {key: value for key, value in TINY_SWIN.items() if key != "window_size"}  # windows follow the image size
STILL = {"model.optim": {"lr": 1e-12, "weight_decay": 0.0}, "trainer.max_epochs": 1, "model.ema_decay": None}


def config_of(competition, tmp_path, pretrained, **changes):
    """A run whose training changes nothing: its weights are those that it starts from."""
    config = tiny_config(
        competition, tmp_path / "runs", name="next", **{"model.pretrained": str(pretrained), **STILL, **changes}
    )
    return str(write_config(tmp_path / "c.yaml", config))


def weights(run, fold):
    return load_file(run / f"fold_{fold}" / "weights.safetensors")


def assert_equal(found, expected, names=None):
    assert found.keys() == expected.keys()
    for name in names or expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-6, rtol=1e-5)


def test_each_fold_starts_from_the_same_fold_of_a_run(tiny_run, competition, tmp_path, capsys):
    words = ["fit", "--config", config_of(competition, tmp_path, tiny_run), "--data.image_size", "64"]
    for fold in (0, 1):
        assert main([*words, "--fold", str(fold), *(["--resume"] if fold else [])]) == 0
        assert f"the head of {tiny_run / f'fold_{fold}'} is used\n" in capsys.readouterr().out
        assert_equal(weights(tmp_path / "runs" / "next", fold), weights(tiny_run, fold))


def test_a_fold_of_a_run_is_one_for_all_and_warned_of(tiny_run, competition, tmp_path, capsys):
    words = ["fit", "--config", config_of(competition, tmp_path, tiny_run / "fold_0"), "--fold", "1"]
    assert main(words) == 0
    assert "was trained on 12 of the 12 rows that fold 1 holds out" in capsys.readouterr().err
    assert_equal(weights(tmp_path / "runs" / "next", 1), weights(tiny_run, 0))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 1}, r"its fold 0 was trained on \d+ of the 12 rows that fold 0 holds out here.*data\.folds\.file"),
        ({"data.folds.num": 3}, r"has the folds \[0, 1\], and no weights for fold 2 of this run"),
    ],
)
def test_other_folds_than_the_runs_are_refused_before_anything_is_trained(
    changes, said, tiny_run, competition, tmp_path, capsys
):
    assert main(["fit", "--config", config_of(competition, tmp_path, tiny_run, **changes)]) == 2
    err = capsys.readouterr().err
    assert re.search(said, err), err
    assert not (tmp_path / "runs" / "next").exists()


@pytest.mark.parametrize("folds", [{}, {"column": "part"}])
def test_every_fold_has_its_file_before_anything_is_trained(folds, tiny_run, competition, tmp_path, capsys):
    for fold in (0, 1):
        save_file(weights(tiny_run, fold), tmp_path / f"part_{fold}.safetensors")
    parts = [*range(3), *[0] * 21]
    table = [{"csv": "train.csv"}, {"number": {"column": "row", "start": 0}}]
    table += [{"map": {"column": "row", "values": {str(k): str(part) for k, part in enumerate(parts)}, "to": "part"}}]
    changes = {"data.train": table, "data.folds": folds, "data.folds.rare_classes": "spread"}
    path = config_of(competition, tmp_path, tmp_path / "part_{fold}.safetensors", **changes)
    assert main(["check", "--config", path]) == 2
    assert "part_2.safetensors" in capsys.readouterr().err


def test_what_the_weights_of_a_run_started_from_has_seen_rows_too(tiny_run, competition, tmp_path, capsys):
    changes = {"seed": 1, "trainer.max_epochs": 1}
    first = config_of(competition, tmp_path, f"{tiny_run}/fold_{{fold}}", **changes)
    fit_in_process(Path(first))  # with a warning, as its folds are others
    run = tmp_path / "runs" / "next"
    folds = {"data.folds": {"num": 2, "file": str(run / "folds.csv")}, **changes}
    capsys.readouterr()
    assert main(["check", "--config", config_of(competition, tmp_path, run, **folds), "--name", "third"]) == 2
    err = capsys.readouterr().err
    seen = re.escape(str(tiny_run / "fold_0" / "weights.safetensors"))
    before, here = (dict(csv.reader((each / "folds.csv").open())) for each in (tiny_run, run))
    rows = sum(here[id] == "0" and before[id] != "0" for id in here)
    assert re.search(rf"its fold 0 started from {seen}, which was trained on {rows} of the 12 rows that fold 0", err)
    assert main(["ensemble", str(run), "--runs", str(tmp_path / "runs"), "--name", "e", "--method", "logistic"]) == 0
    assert "WARNING: it started from weights" in capsys.readouterr().out
    assert main(["compare", str(run), str(tmp_path / "runs" / "e"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [note.partition(" (model")[0] for note in found["notes"]] == [
        "next: WARNING: it started from weights",
        "e: next: WARNING: it started from weights",
    ]
    assert found["config_differences"]["ensemble.method"] == [None, "logistic"]
    assert all(key.startswith("ensemble.") for key in found["config_differences"])  # keys of a training say nothing


def test_folders_that_are_no_run_and_folds_that_are_not_finished_are_refused(tiny_run, competition, tmp_path, capsys):
    for folder in (tmp_path, tiny_run / "fold_7"):
        folder.mkdir(exist_ok=True)
        assert main(["check", "--config", config_of(competition, tmp_path, folder)]) == 2
        assert capsys.readouterr().err.count("model.pretrained") == 1
    folder.rmdir()


def test_a_head_is_taken_where_outputs_agree_by_name(tiny_run, competition, tmp_path, capsys):
    table = tmp_path / "train.csv"
    table.write_text((competition / "train.csv").read_text().replace(",red,", ",orange,"))
    changes = {"data.train": str(table), "data.sample_submission": None, "data.test": None}
    words = ["fit", "--config", config_of(competition, tmp_path, tiny_run / "fold_0", **changes), "--fold", "0"]
    assert main(words) == 0
    assert "is used, except for the outputs orange, which it lacks" in capsys.readouterr().out
    found, source = weights(tmp_path / "runs" / "next", 0), weights(tiny_run, 0)
    torch.testing.assert_close(found["head.linear.weight"][:2], source["head.linear.weight"][:2])  # blue, green
    assert not torch.allclose(found["head.linear.weight"][2], source["head.linear.weight"][2])


NUMBERS = {"data.target": "brightness", "data.target_kind": "regression"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({**NUMBERS, "model.head": {"class_path": "swinft.RegressionHead"}}, "it is a swinft.ClassificationHead"),
        ({"model.pooling": "max"}, "its pooling differs (model.pooling avg)"),
    ],
)
def test_a_head_that_would_mean_something_else_is_not_taken(changes, said, tiny_run, competition, tmp_path, capsys):
    words = ["fit", "--config", config_of(competition, tmp_path, tiny_run / "fold_0", **changes), "--fold", "0"]
    assert main(words) == 0
    assert f"is not used: {said}" in capsys.readouterr().out


def test_tables_of_another_size_are_resampled_once_by_timm(tmp_path):
    """At a size of one's own, weights are those of the file; at another, timm's resampling of them."""
    torch.manual_seed(0)
    file = str(tmp_path / "w.safetensors")
    trained = create_backbone(SWIN, 288, False, backbone_args=FREE).model
    table = "layers.0.blocks.0.attn.relative_position_bias_table"
    state = trained.state_dict()
    state[table] = torch.randn(state[table].shape)
    save_file({f"backbone.model.{name}": value for name, value in state.items()}, file)
    again = create_backbone(SWIN, 288, file, backbone_args=FREE).model.state_dict()
    assert all(torch.equal(again[name], value) for name, value in state.items())
    with warnings.catch_warnings(action="error"):  # of timm's indexing: once a fold, and nothing that a user can do
        other = create_backbone(SWIN, 64, file, backbone_args=FREE).model
    block = other.layers[0].blocks[0].attn
    expected = resize_rel_pos_bias_table(state[table], block.window_size, block.relative_position_bias_table.shape)
    assert expected.shape != state[table].shape
    torch.testing.assert_close(block.relative_position_bias_table, expected)


def test_a_timm_export_is_pretrained_weights_again(tiny_run, competition, tmp_path):
    file = tmp_path / "m" / "w.safetensors"
    assert main(["export", str(tiny_run), "--fold", "0", "--to", "timm", "--output", str(file)]) == 0
    made = create_backbone(SWIN, 32, str(file), backbone_args=TINY_SWIN).model.state_dict()
    source = weights(tiny_run, 0)
    assert all(torch.equal(source[f"backbone.model.{name}"], value) for name, value in made.items())


class Unsafe:
    """What anybody's checkpoint may hold among its hyper-parameters."""


def test_a_lightning_checkpoint_is_read_without_running_anything(tmp_path):
    torch.manual_seed(0)
    net = timm.create_model("resnet18", num_classes=5)
    state = {f"model.{name}": value for name, value in net.state_dict().items()}
    plain = {"state_dict": state, "epoch": 3, "hyper_parameters": {"lr": 0.1, "args": argparse.Namespace(a=1)}}
    torch.save(plain, tmp_path / "plain.ckpt")
    loaded = create_backbone("resnet18", 64, str(tmp_path / "plain.ckpt")).model.state_dict()
    assert all(torch.equal(net.state_dict()[name], value) for name, value in loaded.items())
    torch.save({**plain, "hyper_parameters": {"net": Unsafe()}}, tmp_path / "unsafe.ckpt")
    with pytest.raises(InputError, match=r"(?s)cannot be read as weights.*Unsafe.*save only its tensors: torch\.save"):
        create_backbone("resnet18", 64, str(tmp_path / "unsafe.ckpt"))
