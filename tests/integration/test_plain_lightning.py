"""The public classes in a Trainer, in loops of one's own and in a larger program: what a run gives, without a run."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import timm
import torch
import yaml
from lightning.pytorch.tuner import Tuner
from torch.utils.data import DataLoader, Subset

import swinft
from swinft import ClassificationHead, CSVDataModule, FineTuneTask, MultilabelHead, RegressionHead
from swinft.cli import main
from swinft.data.tables.table import DataError
from swinft.errors import InputError
from swinft.model.scoring import score
from swinft.model.training.mixup import MixConfig
from swinft.model.training.optim import OptimConfig
from tests.conftest import TINY_SWIN, merged, tiny_config, with_context, write_config

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}


def data_of(root: Path, **changes) -> CSVDataModule:
    arguments = {
        "root": str(root),
        "train": "train.csv",
        "image": "images/{id}.jpg",
        "target": "color",
        "target_kind": "classification",
        "folds": {"num": 2},
        "image_size": 32,
        "batch_size": 6,
        "loading": {"cache": False},
    }
    return CSVDataModule(**merged(arguments, changes))


def task_of(head=ClassificationHead, cls=FineTuneTask, **options) -> FineTuneTask:
    pl.seed_everything(42, verbose=False)
    defaults = {"pretrained": False, "backbone_args": dict(TINY_SWIN), "optim": OptimConfig(lr=3e-3, warmup_epochs=0.5)}
    return cls(head, **with_context(**{**defaults, **options}))


def trainer_of(folder: Path | None = None, **options) -> pl.Trainer:
    arguments = {"accelerator": "cpu", "max_epochs": 1, "num_sanity_val_steps": 0, **QUIET}
    return pl.Trainer(**{**arguments, "default_root_dir": folder, **options})


@pytest.fixture(scope="module")
def labelled(competition, tmp_path_factory) -> Path:
    """The tiny competition with a test table that has the training table's columns."""
    root = tmp_path_factory.mktemp("labelled")
    (root / "images").symlink_to(competition / "images")
    lines = (competition / "train.csv").read_text().splitlines()
    (root / "train.csv").write_text("\n".join(lines[:19]) + "\n")
    (root / "test.csv").write_text("\n".join([lines[0], *lines[19:]]) + "\n")
    return root


@pytest.fixture(scope="module")
def fitted(labelled, tmp_path_factory):
    """A regression with metadata, fitted by nothing but the Trainer, and its checkpoint."""
    folder = tmp_path_factory.mktemp("fitted")
    data = data_of(
        labelled,
        target="brightness",
        target_kind="regression",
        test="test.csv",
        columns={"numeric_features": ["is_red"], "categorical_features": ["tags"]},
    )
    task = task_of(RegressionHead, ema_decay=0.9, mix=MixConfig(mixup_alpha=0.2))
    trainer = trainer_of(folder)
    trainer.fit(task, datamodule=data)
    trainer.save_checkpoint(folder / "last.ckpt")
    return task, data, folder / "last.ckpt"


def test_f014_a_fit_shows_the_head_the_training_rows(fitted):
    task, data, _ = fitted
    targets = data.training_targets.astype(np.float64)
    assert task.net.head.shift.tolist() == pytest.approx(targets.mean(0).tolist())
    assert task.net.head.scale.tolist() == pytest.approx(targets.std(0).tolist())
    assert task.predictor.head.shift.tolist() == task.net.head.shift.tolist()
    assert task.net.metadata.mean.tolist() == pytest.approx(data.training_features[:, :1].mean(0).tolist())
    assert len(data.training_targets) == len(data.training_features)


def test_f014_outputs_metadata_and_size_come_from_the_datamodule(fitted):
    task, data, _ = fitted
    assert task.net.head.num_outputs == 1
    assert task.net.metadata.num_features == data.schema.num_features
    assert task.net.metadata.category_sizes == data.schema.category_sizes
    assert tuple(task.net.backbone.model.patch_embed.img_size) == (32, 32)


def test_f014_targets_out_of_range_are_refused_at_the_start(labelled):
    data = data_of(labelled, target="brightness", target_kind="regression")
    task = task_of(lambda d, k: RegressionHead(d, k, loss="bce", low=0, high=50))
    with pytest.raises(InputError, match=r"the targets go from .* outside the range \[0, 50\]"):
        trainer_of().fit(task, datamodule=data)


def test_f014_without_a_datamodule_somebody_must_show_the_targets(labelled):
    data = data_of(labelled, target="brightness", target_kind="regression")
    data.setup("fit")
    loader = data.train_dataloader()
    task = task_of(RegressionHead, num_outputs=1, image_size=32)
    with pytest.raises(InputError, match="RegressionHead or metadata must see the training rows before training"):
        trainer_of().fit(task, loader)
    task.initialize(torch.from_numpy(data.training_targets))
    trainer_of().fit(task, loader)
    trainer_of().fit(task_of(num_outputs=3, image_size=32), data_of(labelled))
    with pytest.raises(InputError, match="num_outputs is not set"):
        trainer_of().fit(task_of(), loader)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"target": "brightness", "target_kind": "regression"}, {}, "ClassificationHead is for classification, but"),
        ({}, {"num_outputs": 4, "image_size": 32}, "the network is made for 4 outputs, and the table has 3"),
        (
            {"columns": {"numeric_features": ["brightness"]}},
            {"num_outputs": 3, "image_size": 32},
            "the network is made for 0 metadata features, and the table has 1",
        ),
    ],
)
def test_f014_a_task_for_another_table_is_refused(labelled, changes, options, message):
    with pytest.raises(InputError, match=message):
        trainer_of().fit(task_of(**options), datamodule=data_of(labelled, **changes))


def test_f014_what_was_learnt_is_kept_when_the_fit_goes_on(fitted, labelled):
    task, _, checkpoint = fitted
    other = data_of(
        labelled,
        target="brightness",
        target_kind="regression",
        folds={"held_out": 1},
        columns={"numeric_features": ["is_red"], "categorical_features": ["tags"]},
    )
    again = FineTuneTask.load_from_checkpoint(checkpoint)
    assert again.net.is_initialized
    before = again.net.head.shift.clone()
    trainer_of().fit(again, datamodule=other)
    assert torch.equal(again.net.head.shift, before)
    assert task.net.is_initialized


@pytest.mark.parametrize("num_workers", [0, 2])
def test_f015_every_pass_of_a_plain_loop_is_another_epoch(labelled, num_workers):
    data = data_of(labelled, augment="medium", loading={"num_workers": num_workers})
    data.setup("fit")
    loader = data.train_dataloader()
    passes = [next(iter(loader)) for _ in range(2)] + [next(iter(data.train_dataloader())) for _ in range(2)]
    orders = [tuple(batch["row"].tolist()) for batch in passes]
    assert len(set(orders)) == 4
    again = data_of(labelled, augment="medium")
    again.setup("fit")
    repeated = [next(iter(again.train_dataloader())) for _ in range(4)]
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(passes, repeated, strict=True))


def test_f015_a_look_at_the_images_is_no_pass_and_set_epoch_sets_it(labelled):
    data = data_of(labelled)
    data.setup("fit")
    data.show_batch("train", n=2)
    first = [key for key in data.train_dataloader().sampler]  # noqa: C416
    assert {epoch for epoch, _ in first} == {0}
    loader = data.train_dataloader()
    loader.sampler.set_epoch(7)
    assert {epoch for _ in range(2) for epoch, _ in loader.sampler} == {7}


def test_f015_after_a_fit_plain_loops_go_on_from_epoch_to_epoch(labelled):
    data = data_of(labelled)
    trainer_of(max_epochs=2).fit(task_of(), datamodule=data)
    orders = [tuple(next(iter(data.train_dataloader()))["row"].tolist()) for _ in range(3)]
    assert len(set(orders)) == 3


def test_f016_all_four_verbs_work(fitted):
    task, data, _ = fitted
    trainer = trainer_of()
    (validated,) = trainer.validate(task, datamodule=data, verbose=False)
    (tested,) = trainer.test(task, datamodule=data, verbose=False)
    predicted = trainer.predict(task, datamodule=data)
    rows = torch.cat([batch["row"] for batch in predicted])
    values = torch.cat([batch["prediction"] for batch in predicted])
    assert rows.tolist() == list(range(6))
    assert values.shape == (6, 1)
    truth = torch.tensor([[20.0 + 3 * i] for i in range(18, 24)])
    expected = score(["rmse", "mae"], "regression", values, truth)
    assert {name: tested[f"test_{name}"] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert {"val_loss", "val_rmse"} <= set(validated)
    assert "test_loss" in tested


def test_f016_padding_is_not_predicted():
    task = task_of(num_outputs=3, image_size=32).eval()
    batch = {"image": torch.zeros(3, 3, 32, 32), "row": torch.tensor([4, -1, 5])}
    found = task.predict_step(batch, 0)
    assert found["row"].tolist() == [4, 5]
    assert found["prediction"].shape == (2, 3)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("classification", "color", "data.test is not set"),
        ("classification", "kolor", "has no column 'color'"),
        ("classification", "pink", "the training table has no 'pink'"),
        ("multilabel", "pink", "the training table has no 'pink'"),
        ("regression", "pink", "number"),
    ],
)
def test_f016_a_test_needs_answers_that_the_training_table_knows(labelled, tmp_path, kind, change, message):
    (tmp_path / "images").symlink_to(labelled / "images")
    (tmp_path / "train.csv").write_text((labelled / "train.csv").read_text())
    target, head = {
        "classification": ("color", ClassificationHead),
        "multilabel": ("tags", MultilabelHead),
        "regression": ("brightness", RegressionHead),
    }[kind]
    table = (labelled / "test.csv").read_text()
    cell = {"color": "green,77", "tags": "cool plant", "brightness": ",77,"}[target]
    (tmp_path / "test.csv").write_text(
        table.replace("color", "kolor")
        if change == "kolor"
        else table.replace(cell, cell.replace(cell.strip(","), "pink"))
        if target != "color"
        else table.replace("green,77", "pink,77")
    )
    delimiter = {"columns": {"label_delimiter": " "}} if kind == "multilabel" else {}
    data = data_of(
        tmp_path,
        target=target,
        target_kind=kind,
        **delimiter,
        **{"sample_submission" if change == "color" else "test": "test.csv"},
    )
    with pytest.raises((InputError, DataError), match=message):
        trainer_of().test(task_of(head), datamodule=data, verbose=False)


def test_f016_a_checkpoint_is_loaded_without_arguments_and_predicts_the_same(fitted):
    task, data, checkpoint = fitted
    loaded = FineTuneTask.load_from_checkpoint(checkpoint)
    theirs = trainer_of().predict(task, datamodule=data)
    own = trainer_of().predict(loaded, datamodule=data)
    for a, b in zip(theirs, own, strict=True):
        assert torch.equal(a["prediction"], b["prediction"])
    assert loaded.optim == task.optim
    assert loaded.mix == task.mix


def test_f016_a_checkpoint_holds_plain_values_and_asks_for_no_download(fitted):
    kept = torch.load(fitted[2], weights_only=True)["hyper_parameters"]
    assert json.loads(json.dumps(kept))["head"] == {
        "class_path": "swinft.model.heads.regression.RegressionHead",
        "init_args": {},
    }
    assert kept["context"]["loads_weights"] is False


def test_a_checkpoint_of_flat_arguments_is_loaded_and_a_flat_one_that_is_given_is_refused(fitted, tmp_path):
    task, data, checkpoint = fitted
    before = torch.load(checkpoint, weights_only=True)
    kept = before["hyper_parameters"]
    kept |= {**kept.pop("compute"), **kept.pop("context"), "seed": 7}
    kept["head"]["class_path"] = "swinft.model.heads.RegressionHead"
    del kept["pooling"]
    torch.save(before, tmp_path / "before.ckpt")
    loaded = FineTuneTask.load_from_checkpoint(tmp_path / "before.ckpt")
    assert (loaded.context.seed, loaded.context.sides) == (7, (32, 32))
    assert loaded.compute == task.compute
    (theirs, *_), (own, *_) = (trainer_of().predict(each, datamodule=data) for each in (task, loaded))
    assert torch.equal(theirs["prediction"], own["prediction"])
    with pytest.raises(InputError, match=r"FineTuneTask has no argument 'seed'\. It is part of `context`"):
        FineTuneTask.load_from_checkpoint(checkpoint, seed=7)


def test_a_step_without_a_trainer_is_refused_until_the_rows_were_shown():
    task = task_of(RegressionHead, num_outputs=1, image_size=32)
    batch = {"image": torch.zeros(2, 3, 32, 32), "target": torch.tensor([[10.0], [30.0]]), "row": torch.arange(2)}
    with pytest.raises(InputError, match=r"Call task.initialize\(targets, features\) first"):
        task.training_step(batch, 0)
    task.initialize(batch["target"])
    assert task.training_step(batch, 0).item() < 3  # of standardised targets


def test_lightning_under_its_other_name_gets_a_line(labelled, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_lightning", ModuleType("pytorch_lightning"))
    for make in (task_of, lambda: data_of(labelled)):
        with pytest.warns(UserWarning, match="Write `import lightning.pytorch as pl` instead"):
            make()


def test_f016_arguments_of_heads_are_kept_also_of_ones_own(labelled, tmp_path):
    class Softer(ClassificationHead):
        """A head with an argument of its own."""

        def __init__(self, in_features, num_outputs, temperature=1.0, **others):
            super().__init__(in_features, num_outputs, **others)
            self.temperature = temperature

    task = task_of(lambda d, k: Softer(d, k, temperature=3.0, label_smoothing=0.25), num_outputs=3, image_size=32)
    trainer = trainer_of()
    trainer.fit(task, datamodule=data_of(labelled))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = FineTuneTask.load_from_checkpoint(tmp_path / "a.ckpt")
    assert (type(loaded.net.head), loaded.net.head.temperature) == (Softer, 3.0)
    assert loaded.net.head.label_smoothing == 0.25


@pytest.mark.parametrize(
    "path", ["os.system", "subprocess.Popen", "torch.nn.Identity", "nowhere.Head", "antigravity.x"]
)
def test_f016_a_checkpoint_names_no_code_that_is_not_loaded(fitted, tmp_path, path):
    forged = torch.load(fitted[2], weights_only=True)
    forged["hyper_parameters"]["head"] = {"class_path": path, "init_args": {}}
    torch.save(forged, tmp_path / "forged.ckpt")
    before = set(sys.modules)
    with pytest.raises(InputError, match="which is not loaded: import its module first"):
        FineTuneTask.load_from_checkpoint(tmp_path / "forged.ckpt")
    assert "antigravity" not in set(sys.modules) - before


def test_f016_loggers_get_the_hyper_parameters(labelled, tmp_path):
    from lightning.pytorch.loggers import CSVLogger

    trainer_of(logger=CSVLogger(tmp_path), max_epochs=1).fit(task_of(), datamodule=data_of(labelled))
    (written,) = tmp_path.rglob("hparams.yaml")
    kept = yaml.safe_load(written.read_text())
    assert (kept["num_outputs"], kept["optim"]["lr"]) == (3, 3e-3)
    assert kept["head"]["class_path"].endswith("ClassificationHead")


def test_f016_the_call_has_gradients_in_training_and_the_averaged_weights_in_evaluation():
    task = task_of(num_outputs=3, image_size=32, ema_decay=0.5)
    images = torch.rand(2, 3, 32, 32) * 255
    probabilities = task.train()(images)
    probabilities[:, 0].sum().backward()
    assert task.net.head.linear.weight.grad.abs().sum() > 0
    torch.testing.assert_close(probabilities.sum(1), torch.ones(2))
    with torch.no_grad():
        task.net.head.linear.bias.add_(5 * torch.arange(3))
        assert torch.equal(task.eval()(images), task.averaged.module.predict(images))


def test_f018_a_loaders_dataset_is_its_own_rows(labelled):
    data = data_of(labelled, augment="none")
    data.setup("fit")
    train, val = data.train_dataloader().dataset, data.val_dataloader().dataset
    assert len(train) + len(val) == len(data.train_table) == 18
    assert [int(item["row"]) for item in val] == np.flatnonzero(data.fold_of_row == 0).tolist()
    assert {int(train[k]["row"]) for k in range(len(train))} == set(np.flatnonzero(data.fold_of_row == 1).tolist())
    assert int(val[-1]["row"]) == int(val[len(val) - 1]["row"])
    with pytest.raises(IndexError):
        train[len(train)]
    assert hash(train) != hash(val)
    assert train in {train}
    part = DataLoader(Subset(train, [2, 0]), batch_size=2, collate_fn=data.train_dataloader().collate_fn)
    assert next(iter(part))["row"].tolist() == [int(train[2]["row"]), int(train[0]["row"])]


@pytest.mark.parametrize("size", [(224, 224, 3), (3,), (), (32.0, 32.0), (True, True)])
def test_f018_sizes_are_one_side_or_two(labelled, size):
    with pytest.raises(InputError, match="give one side, or height and width"):
        data_of(labelled, image_size=size)


def test_f018_a_prediction_first_knows_the_prior(labelled):
    data = data_of(labelled, test="test.csv")
    data.setup("predict")
    assert data.schema.prior == pytest.approx([1 / 3] * 3)


def test_f018_tables_and_rows_can_be_compared_and_hashed(labelled):
    data = data_of(labelled)
    data.setup("fit")
    rows = data.splits.train
    assert rows == rows
    assert hash(rows)


def test_f021_the_tuner_finds_a_rate(labelled, tmp_path):
    task, data = task_of(num_outputs=3, image_size=32), data_of(labelled, batch_size=2)
    trainer = trainer_of(tmp_path, max_epochs=3)
    found = Tuner(trainer).lr_find(task, datamodule=data, num_training=6, min_lr=1e-5, max_lr=1e-2)
    assert len(found.results["lr"]) >= 5
    task.lr = 0.25
    assert task.optim.lr == 0.25


def test_f021_importing_changes_nothing_in_the_host_program():
    program = """
import os, warnings, cv2
from PIL import ImageFile
before = dict(os.environ), list(warnings.filters), cv2.getNumThreads(), ImageFile.MAXBLOCK
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
import swinft.data.augment.pipelines, swinft.data.images.resize, swinft.data.datamodule, swinft.data.images.decode
assert cv2.getNumThreads() == before[2] > 0, cv2.getNumThreads()
assert ImageFile.MAXBLOCK == before[3], ImageFile.MAXBLOCK
ours = [f for f in warnings.filters if f[1] and ("NumPy array" in f[1].pattern or "valid for transform" in f[1].pattern)]
assert not ours, ours
changed = {name for name in {*os.environ, *before[0]} if os.environ.get(name) != before[0].get(name)}
assert changed <= {"NO_ALBUMENTATIONS_UPDATE", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "TORCHINDUCTOR_CACHE_DIR"}, changed
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_f021_read_only_pixels_are_shrunk_without_a_warning(recwarn):
    from swinft.data.images.resize import resized

    pixels = np.arange(48, dtype=np.uint8).repeat(48).reshape(48, 16, 3)
    pixels.flags.writeable = False
    assert resized(pixels, 8, 8).shape == (8, 8, 3)
    assert not [warning for warning in recwarn if "writable" in str(warning.message)]
    assert not pixels.flags.writeable


def test_f016_plain_lightning_gives_the_weights_of_a_run(competition, tmp_path):
    changes = {"trainer.max_epochs": 2, "model.mix.mixup_alpha": 0.3, "data.augment": "medium"}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    from safetensors.torch import load_file

    run = load_file(tmp_path / "runs" / "tiny" / "fold_0" / "weights.safetensors")
    data = data_of(
        competition,
        augment="medium",
        loading={"cache": "auto"},
        test="test.csv",
        sample_submission="sample_submission.csv",
    )
    task = task_of(ema_decay=0.9, mix=MixConfig(mixup_alpha=0.3), num_outputs=3, image_size=32)
    trainer_of(max_epochs=2, gradient_clip_val=1.0).fit(task, datamodule=data)
    own = task.predictor.state_dict()
    assert own.keys() == run.keys()
    for name, tensor in run.items():
        torch.testing.assert_close(own[name], tensor, atol=0, rtol=0, msg=name)


def test_f017_a_trained_fold_is_loaded_in_one_line_and_its_backbone_is_timms(tiny_run, competition):
    net = swinft.open_run(tiny_run).network(1)
    data = data_of(competition, folds={"file": str(tiny_run / "folds.csv"), "held_out": 1, "num": None}, augment="none")
    data.setup("fit")
    oof = pd.read_csv(tiny_run / "fold_1" / "oof.csv", dtype={"id": str}).set_index("id")
    with torch.no_grad():
        for batch in data.val_dataloader():
            ids = [data.train_table.ids[row] for row in batch["row"].tolist()]
            own = torch.from_numpy(oof.loc[ids, data.schema.outputs].to_numpy()).float()
            torch.testing.assert_close(net.predict(batch["image"]), own, atol=1e-5, rtol=1e-4)
        timms = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, img_size=32, **TINY_SWIN)
        timms.set_input_size((32, 32), window_size=[b.blocks[0].window_size for b in net.backbone.model.layers])
        timms.load_state_dict(net.backbone.model.state_dict())
        pixels = (batch["image"] - net.backbone.mean) / net.backbone.std
        torch.testing.assert_close(timms.eval()(pixels), net.backbone(batch["image"]))
        exported = torch.export.export(net, (batch["image"],)).module()
        torch.testing.assert_close(exported(batch["image"]), net(batch["image"]))


def test_f017_a_fold_that_is_not_there_is_refused(tiny_run, tmp_path):
    with pytest.raises(InputError, match=r"names \[7\], but the run has folds \[0, 1\]"):
        swinft.open_run(tiny_run).network(7)
    with pytest.raises(InputError):
        swinft.open_run(tmp_path / "nowhere")
