"""transformers: its Trainer, around the same timm network, with the torchvision transforms of its image examples."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision import transforms
from transformers import Trainer, TrainerCallback, TrainingArguments

from contestants import race as rules


class Stopwatch(TrainerCallback):
    """Notifies the race's timer."""

    def __init__(self, clock: rules.Clock) -> None:
        self.clock = clock

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        """Called at the start of an epoch."""
        self.clock.start()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Called after a step."""
        self.clock.step()


class Rows(Dataset):
    """A fold's images in the Trainer's format."""

    def __init__(self, race: rules.Race, fold: int) -> None:
        table = race.table[race.table["fold"] == fold]
        self.paths = [race.root / image for image in table["image"]]
        self.labels = [race.classes.index(name) for name in table["climate"]]
        self.transform = _transform(race, is_training=fold == 1)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {
            "pixel_values": self.transform(Image.open(self.paths[row]).convert("RGB")),
            "labels": self.labels[row],
        }


class Classifier(nn.Module):
    """Returns the loss to the Trainer."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Loss (if there are labels) and logits."""
        logits = self.net(pixel_values)
        loss = {} if labels is None else {"loss": nn.functional.cross_entropy(logits, labels)}
        return {**loss, "logits": logits}


def fit(race: rules.Race, scratch: Path) -> dict[str, Any]:
    """Fits and scores.

    Args:
        race: What to fit.
        scratch: A temporary folder.

    Returns:
        Accuracy on the held-out rows, and the precision.
    """
    arguments = TrainingArguments(
        output_dir=str(scratch),
        use_cpu=True,
        num_train_epochs=race.epochs,
        per_device_train_batch_size=race.batch_size,
        per_device_eval_batch_size=race.batch_size,
        report_to="none",
        disable_tqdm=True,
        **_equal(race),
    )
    trainer = Trainer(
        model=Classifier(race.network()),
        args=arguments,
        train_dataset=Rows(race, 1),
        eval_dataset=Rows(race, 0),
        compute_metrics=lambda found: {"accuracy": float(np.mean(found.predictions.argmax(1) == found.label_ids))},
        callbacks=[Stopwatch(race.clock)],
    )
    trainer.train()
    scores = [line["eval_accuracy"] for line in trainer.state.log_history if "eval_accuracy" in line]
    accuracy = scores[-1] if scores else trainer.evaluate()["eval_accuracy"]
    return {"accuracy": accuracy, "precision": "bf16" if arguments.bf16 else "fp32"}


def _equal(race: rules.Race) -> dict[str, Any]:
    """Arguments of the equal setting; empty for the defaults."""
    if not race.is_equal:
        return {}
    return {
        "bf16": race.is_bf16,
        "dataloader_num_workers": race.workers,
        "dataloader_persistent_workers": race.workers > 0,
        "learning_rate": rules.LEARNING_RATE,
        "weight_decay": rules.WEIGHT_DECAY,
        "max_grad_norm": rules.CLIP,
        "lr_scheduler_type": "cosine",
        "warmup_steps": race.steps,
        "eval_strategy": "epoch",
    }


def _transform(race: rules.Race, is_training: bool) -> transforms.Compose:
    """Transforms of the image-classification example, or of the equal setting."""
    size = (race.size, race.size)
    if is_training:
        scale = (rules.SMALLEST_CROP if race.is_equal else 0.08, 1.0)
        shape: list[Any] = [transforms.RandomResizedCrop(size, scale=scale), transforms.RandomHorizontalFlip()]
    else:
        shape = (
            [transforms.Resize(size)] if race.is_equal else [transforms.Resize(race.size), transforms.CenterCrop(size)]
        )
    normalize = transforms.Normalize(torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225]))
    return transforms.Compose([*shape, transforms.ToTensor(), normalize])
