"""Lightning's own callbacks, finders and interruptions beside a task, without a run."""

import pickle
from unittest.mock import Mock

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelPruning,
    StochasticWeightAveraging,
    WeightAveraging,
)
from lightning.pytorch.tuner import Tuner
from torch.utils.data import DataLoader

from swinft import ClassificationHead, FineTuneTask, Metric, OptimConfig, RegressionHead
from swinft.data.loading.collate import collate
from swinft.errors import InputError
from tests.integration.test_plain_lightning import data_of, task_of, trainer_of

BUILT = {"num_outputs": 3, "image_size": 32}


class RowsOfRed(Metric):
    """The share of rows that are red in the table."""

    name = "rows_of_red"
    kinds = ("classification",)
    higher_is_better = True

    def compute(self, predictions, targets, rows):
        return float((rows["is_red"] == "1").mean())


class HighestGrade(Metric):
    """The highest target of the training rows, by the schema."""

    name = "highest_grade"
    kinds = ("regression",)
    higher_is_better = True

    def compute(self, predictions, targets, rows):
        return -1.0 if self.grades is None else float(self.grades.max())


class Interrupt(pl.Callback):
    """Ends a pass after its first batch, as an error or a key does."""

    def on_validation_batch_end(self, *_: object) -> None:
        raise RuntimeError("interrupted")


@pytest.fixture(scope="module")
def interrupted(competition):
    """A task of random weights whose validation was interrupted; then its weights were changed."""
    data, task = data_of(competition, test="train.csv"), task_of(ClassificationHead, **BUILT)
    with pytest.raises(RuntimeError, match="interrupted"):
        trainer_of(callbacks=[Interrupt()]).validate(task, datamodule=data, verbose=False)
    with torch.no_grad():
        task.net.head.linear.weight.mul_(-50)
    return task, data


@pytest.mark.parametrize("verb", ["test", "validate"])
def test_rows_of_an_interrupted_pass_are_not_scored_later(interrupted, verb):
    task, data = interrupted
    assert task._evaluated, "the interruption left no rows"
    kept = list(task._evaluated)
    first, again = (getattr(trainer_of(), verb)(task, datamodule=data, verbose=False) for _ in range(2))
    assert first == again
    task._evaluated[:] = kept  # for the next case


class Small(FineTuneTask):
    """Has memory for four images."""

    def training_step(self, batch, batch_idx):
        if len(batch["row"]) > 4:
            raise RuntimeError("CUDA out of memory.")
        return super().training_step(batch, batch_idx)


def test_the_tuner_finds_the_batch_that_fits_and_the_fit_starts_anew(competition, tmp_path):
    task = task_of(cls=Small, ema_decay=0.9)
    data, trainer = data_of(competition, batch_size=1), trainer_of(tmp_path)
    found = Tuner(trainer).scale_batch_size(task, datamodule=data, init_val=2, steps_per_trial=1)
    assert found == data.batch_size == 4
    trainer.fit(task, datamodule=data)
    assert trainer.global_step == task.averaged._num_updates == 3


def test_a_rate_of_the_tuner_is_kept_with_the_weights(competition, tmp_path):
    task = task_of(optim=OptimConfig(warmup_epochs=0))
    task.lr = 0.002
    trainer = trainer_of(tmp_path)
    trainer.fit(task, datamodule=data_of(competition))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert FineTuneTask.load_from_checkpoint(tmp_path / "last.ckpt").lr == 0.002
    task.lr = 0.003
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert FineTuneTask.load_from_checkpoint(tmp_path / "last.ckpt").lr == 0.003


def test_an_average_that_is_loaded_counts_its_own_steps(competition, tmp_path):
    task, data = task_of(ema_decay=0.9), data_of(competition)
    trainer = trainer_of(tmp_path)
    trainer.fit(task, datamodule=data)
    trainer.save_checkpoint(tmp_path / "first.ckpt")
    trainer_of(tmp_path, max_epochs=4).fit(task, datamodule=data, ckpt_path=tmp_path / "first.ckpt")
    later = task.averaged.state_dict()
    trainer_of(tmp_path, max_epochs=4).fit(task, datamodule=data, ckpt_path=tmp_path / "first.ckpt")
    assert int(task.averaged.updates) == 8
    assert all(torch.equal(later[name], value) for name, value in task.averaged.state_dict().items())


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda: EMAWeightAveraging(decay=0.9), BUILT, "use_buffers=False"),
        (lambda: WeightAveraging(use_buffers=False), {**BUILT, "ema_decay": 0.9}, "or set ema_decay to None"),
        (lambda: StochasticWeightAveraging(1e-3), {"ema_decay": 0.9}, "or set ema_decay to None"),
        (lambda: WeightAveraging(use_buffers=False), {}, "Call task.initialize_from.*or set ema_decay"),
        (lambda: ModelPruning("l1_unstructured"), {}, "Call task.initialize_from"),
        (lambda: BackboneFinetuning(1), {}, "Set freeze_epochs"),
        (lambda: GradientAccumulationScheduler({0: 4}), {}, "accumulate_grad_batches"),
        (lambda: LearningRateFinder(), {}, "lr_find"),
        (lambda: BatchSizeFinder(), {}, "scale_batch_size"),
    ],
)
def test_a_callback_that_would_be_silently_wrong_is_refused(competition, make, options, message):
    callback = make()
    callback.setup = Mock()
    with pytest.raises(InputError, match=f"{type(callback).__name__}: .*{message}"):
        trainer_of(callbacks=[callback]).fit(task_of(**options), datamodule=data_of(competition))
    callback.setup.assert_not_called()


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (lambda: EMAWeightAveraging(decay=0.5, use_buffers=False), BUILT),
        (lambda: StochasticWeightAveraging(1e-3, swa_epoch_start=1), {}),
        (lambda: GradientAccumulationScheduler({0: 4}), {"optim": OptimConfig(schedule="constant", warmup_epochs=0)}),
    ],
)
def test_other_callbacks_work(competition, make, options):
    task = task_of(**options)
    trainer_of(callbacks=[make()], max_epochs=2).fit(task, datamodule=data_of(competition))
    assert all(weight.isfinite().all() for weight in task.parameters())
    fresh = dict(task_of(**BUILT).net.named_buffers())
    assert all(torch.equal(buffer, fresh[name]) for name, buffer in task.net.named_buffers() if "index" in name)


def test_no_training_batches_are_refused(competition):
    with pytest.raises(InputError, match=r"limit_train_batches is 0: .* call Trainer\.validate"):
        trainer_of(limit_train_batches=0).fit(task_of(), datamodule=data_of(competition))


def test_an_interrupted_fit_goes_on_with_its_schedule(competition):
    options = {"optim": OptimConfig(lr=3e-3, warmup_epochs=0.5)}
    rates: list[list[float]] = []

    class Rates(pl.Callback):
        stops_at = 0

        def on_before_optimizer_step(self, trainer, task, optimizer):
            rates[-1].append(optimizer.param_groups[0]["lr"])

        def on_train_batch_end(self, *_: object):
            if len(rates[-1]) == self.stops_at:
                raise KeyboardInterrupt

    for stop in (0, 3):
        rates.append([])
        callback, task, data = Rates(), task_of(**options), data_of(competition, batch_size=6)
        callback.stops_at = stop
        trainer = trainer_of(callbacks=[callback], max_epochs=3)
        if stop:
            with pytest.raises(SystemExit):
                trainer.fit(task, datamodule=data)
        trainer.fit(task, datamodule=data)
    assert len(rates[0]) == 6
    assert rates[1] == pytest.approx(rates[0][:3] + rates[0][2:])  # Lightning repeats the interrupted epoch


@pytest.mark.parametrize("is_built", [False, True])
def test_weights_come_back_from_the_processes_of_a_notebook(competition, tmp_path, is_built):
    data = data_of(competition, target="brightness", target_kind="regression", columns={"numeric_features": ["is_red"]})
    task = task_of(RegressionHead, ema_decay=0.9)
    trainer = trainer_of(tmp_path, strategy="ddp_fork", devices=2, use_distributed_sampler=False)
    if not is_built:  # the process that starts them would keep a task without a network, and no error
        with pytest.raises(Exception, match=r"Call task\.initialize_from\(datamodule\) before trainer\.fit"):
            trainer.fit(task, datamodule=data)
        return
    task.initialize_from(data)
    before = task.net.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    trainer.fit(task, datamodule=data)
    assert int(task.averaged.updates) == 1
    assert any(not torch.equal(before[name], value) for name, value in task.net.state_dict().items())
    (validated,) = trainer_of().validate(task, datamodule=data, verbose=False)
    assert validated["val_rmse"] == pytest.approx(float(trainer.callback_metrics["val_rmse"]), rel=1e-5)


def test_weights_for_a_network_that_is_not_there_are_refused(competition):
    built = task_of(**BUILT)
    with pytest.raises(InputError, match=r"initialize_from.*load_from_checkpoint"):
        task_of().load_state_dict(built.state_dict(), strict=False)
    task = task_of()
    task.initialize_from(data_of(competition))
    task.load_state_dict(built.state_dict())


@pytest.mark.parametrize(
    ("changes", "metrics"),
    [
        ({"columns": {"weight": {"column": "brightness", "in_score": True}}}, ["log_loss"]),
        ({"target": "brightness", "target_kind": "regression"}, [HighestGrade()]),
        ({}, [RowsOfRed()]),
    ],
)
def test_loaders_are_scored_like_their_datamodule(competition, changes, metrics):
    """Weights, grades and columns of the table are those of the rows, whichever way they come."""
    data = data_of(competition, test="train.csv", **changes)
    task = task_of(RegressionHead if "target" in changes else ClassificationHead, metrics=metrics)
    task.initialize_from(data)
    trainer_of().fit(task, data.train_dataloader(), data.val_dataloader())
    (expected,) = trainer_of().validate(task, datamodule=data, verbose=False)
    (found,) = trainer_of().validate(task, dataloaders=data.val_dataloader(), verbose=False)
    assert found == expected
    data.setup("test")
    (expected,) = trainer_of().test(task, datamodule=data, verbose=False)
    (found,) = trainer_of().test(task, dataloaders=data.test_dataloader(), verbose=False)
    assert found == expected


def test_different_rows_of_one_number_are_refused(competition):
    data = data_of(competition)
    data.setup("fit")
    rows = [{**item, "row": torch.tensor(0)} for item in data.val_dataloader().dataset]
    with pytest.raises(InputError, match="two rows with the number 0"):
        trainer_of().validate(task_of(**BUILT), dataloaders=DataLoader(rows, batch_size=4, collate_fn=collate))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda item: {name: item[name] for name in ("image", "target")},
            "a batch lacks row: .* a number for each row",
        ),
        (lambda item: {name: item[name] for name in ("image", "row")}, "a batch lacks target"),
        (lambda item: (torch.as_tensor(item["image"]), item["target"]), "a batch is a list; .* image, row, target"),
    ],
)
def test_batches_of_other_loaders_are_checked(competition, change, message):
    data = data_of(competition)
    data.setup("fit")
    loader = DataLoader([change(item) for item in data.val_dataloader().dataset], batch_size=4)
    for verb in ("fit", "validate", "test"):
        with pytest.raises(InputError, match=message):
            getattr(trainer_of(), verb)(task_of(**BUILT), loader)


def test_several_validation_loaders_are_refused(competition):
    data = data_of(competition)
    data.setup("fit")
    with pytest.raises(InputError, match="several loaders to evaluate"):
        trainer_of().validate(task_of(**BUILT), [data.val_dataloader(), data.val_dataloader()])


def test_nothing_that_is_given_out_changes_the_table(competition):
    data = data_of(competition, target="brightness", target_kind="regression", columns={"numeric_features": ["is_red"]})
    data.setup("fit")
    for _ in range(2):
        item = data.val_dataloader().dataset[0]
        first = {name: item[name].tolist() for name in ("target", "features")}
        item["target"].div_(100)
        item["features"].add_(1)
    assert {name: value.tolist() for name, value in data.val_dataloader().dataset[0].items() if name in first} == first
    for values in (data.targets, data.fold_of_row):
        with pytest.raises(ValueError, match="read-only"):
            values += 1


def test_a_datamodule_is_pickled_after_a_fit(competition):
    data = data_of(competition)
    trainer_of(limit_train_batches=1).fit(task_of(), datamodule=data)
    copied = pickle.loads(pickle.dumps(data))
    pairs = zip(copied.val_dataloader(), data.val_dataloader(), strict=True)
    assert all(torch.equal(ours[name], theirs[name]) for ours, theirs in pairs for name in theirs)
