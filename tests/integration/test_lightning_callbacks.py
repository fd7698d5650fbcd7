"""Lightning's own callbacks, finders and interruptions beside a task, without a run."""

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

from swinft import ClassificationHead, FineTuneTask, OptimConfig
from swinft.errors import InputError
from tests.integration.test_plain_lightning import data_of, task_of, trainer_of

BUILT = {"num_outputs": 3, "image_size": 32}


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
        (lambda: WeightAveraging(use_buffers=False), {}, "Give FineTuneTask num_outputs.*or set ema_decay"),
        (lambda: ModelPruning("l1_unstructured"), {}, "Give FineTuneTask num_outputs"),
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
