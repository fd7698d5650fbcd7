"""The task in a real Trainer."""

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from swinft.errors import InputError
from swinft.model.heads import ClassificationHead, RegressionHead
from swinft.model.scoring import score
from swinft.model.task import FineTuneTask
from tests.conftest import TINY_SWIN, with_context


class Rows(Dataset):
    """Batches as the datamodule makes them; the last row may be padding."""

    def __init__(self, num_rows: int, num_features: int = 0, padding: int = 0) -> None:
        rng = torch.Generator().manual_seed(0)
        self.images = torch.randint(0, 256, (num_rows, 3, 32, 32), dtype=torch.uint8, generator=rng)
        self.targets = torch.arange(num_rows) % 3
        self.features = torch.randn(num_rows, num_features, generator=rng) * 100 + 50
        self.rows = torch.cat([torch.arange(num_rows - padding), torch.full((padding,), -1)])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        batch = {"image": self.images[index], "target": self.targets[index], "row": self.rows[index]}
        return batch | ({"features": self.features[index]} if self.features.shape[1] else {})


def make_task(**options) -> FineTuneTask:
    pl.seed_everything(0, verbose=False)
    defaults = {
        "head": ClassificationHead,
        "pretrained": False,
        "backbone_args": dict(TINY_SWIN),
        "num_outputs": 3,
        "image_size": 32,
    }
    return FineTuneTask(**with_context(**{**defaults, **options}))


def fit(task: FineTuneTask, rows: Rows, **options) -> pl.Trainer:
    defaults = {"max_epochs": 2, "accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    trainer = pl.Trainer(**{**defaults, **quiet, **options})
    trainer.fit(task, DataLoader(rows, 4), DataLoader(rows, 5))
    return trainer


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_the_score_is_computed_once_on_all_rows_without_padding():
    rows = Rows(13, padding=2)
    task = make_task()
    trainer = fit(task, rows, max_epochs=1)
    with torch.no_grad():
        predictions = task.eval()(rows.images[:11])
    expected = score(task.metrics, "classification", predictions, rows.targets[:11])
    for name, value in expected.items():
        assert trainer.callback_metrics[f"val_{name}"].item() == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize(("accumulate", "updates"), [(1, 6), (3, 2)])
def test_the_average_follows_optimiser_steps_not_batches(accumulate, updates):
    task = make_task(ema_decay=0.9)
    fit(task, Rows(12), max_epochs=2, accumulate_grad_batches=accumulate)
    assert int(task.averaged.updates) == updates
    assert not torch.equal(weights(task.averaged.module), weights(task.net))


def test_validation_and_prediction_use_the_averaged_weights():
    rows = Rows(12)
    task = make_task(ema_decay=0.5)
    trainer = fit(task, rows)
    with torch.no_grad():
        averaged = task.averaged.module.predict(rows.images)
        raw = task.net.eval().predict(rows.images)
        assert torch.equal(task.eval()(rows.images), averaged)
    assert not torch.allclose(raw, averaged)
    loss = score(["log_loss"], "classification", averaged, rows.targets)["log_loss"]
    assert trainer.callback_metrics["val_log_loss"].item() == pytest.approx(loss, abs=1e-5)


def test_what_a_step_draws_depends_on_seed_epoch_and_batch_alone():
    def trained(before: int, seed: int = 0) -> torch.Tensor:
        task = make_task(drop_path_rate=0.5, seed=seed)
        torch.manual_seed(before)  # what ran before
        fit(task, Rows(12))
        return weights(task.net)

    assert torch.equal(trained(1), trained(2))
    assert not torch.equal(trained(1), trained(1, seed=5))


def test_layer_decay_reaches_the_trainers_optimiser():
    from swinft.model.training.optim import OptimConfig

    trainer = fit(make_task(optim=OptimConfig(lr=1e-2, layer_decay=0.5, head_lr=0.1)), Rows(8), max_epochs=1)
    rates = sorted({group["initial_lr"] for group in trainer.optimizers[0].param_groups})
    assert rates[-1] == 0.1
    assert rates[-2] == 0.5e-2  # the last block is one layer below the head
    assert rates[0] < 0.3e-2


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped_in_every_precision(precision):
    from swinft.model.training.optim import OptimConfig

    norms = []

    class Watch(pl.Callback):
        def on_before_zero_grad(self, trainer, pl_module, optimizer):
            grads = [p.grad for p in pl_module.net.parameters() if p.grad is not None]
            if grads:
                norms.append(torch.stack([g.norm() for g in grads]).norm().item())

    fit(
        make_task(optim=OptimConfig(lr=1e-3)), Rows(8), gradient_clip_val=1e-3, precision=precision, callbacks=[Watch()]
    )
    assert norms
    assert max(norms) <= 1.01e-3


def test_metadata_is_standardised_on_training_rows_and_travels_with_the_weights():
    rows = Rows(12, num_features=4)
    task = make_task(num_metadata=4)
    task.initialize(rows.targets, rows.features)
    fit(task, rows)
    encoded = task.net.metadata.encode(rows.features)[:, :4]
    torch.testing.assert_close(encoded.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(encoded.std(0, correction=0), torch.ones(4))
    fresh = make_task(num_metadata=4)
    fresh.net.load_state_dict(task.net.state_dict())
    with torch.no_grad():
        inputs = rows.images, rows.features
        torch.testing.assert_close(fresh.eval()(*inputs), task.eval()(*inputs))
        shuffled = task(rows.images, rows.features.flip(0))
    assert not torch.allclose(shuffled, task(*inputs))


def test_a_regression_head_learns_a_constant_shift():
    class Numbers(Rows):
        def __getitem__(self, index):
            batch = super().__getitem__(index)
            return batch | {"target": batch["target"].float()[None] * 10 + 500}

    task = make_task(head=RegressionHead, num_outputs=1)
    rows = Numbers(12)
    task.initialize(torch.stack([rows[i]["target"] for i in range(12)]))
    trainer = fit(task, rows)
    assert trainer.callback_metrics["val_rmse"] < 20  # and not near 500


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ema_decay": 1.0}, "ema_decay is 1.0"),
        ({"metrics": ["rmse"]}, "'rmse' does not score classification"),
        ({"metrics": []}, "name at least one"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        make_task(**options)
