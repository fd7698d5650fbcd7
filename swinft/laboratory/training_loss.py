"""The loss that a run's training minimises, of augmented training rows that stay the same.

Shapes: B batch, R rows.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from swinft.errors import InputError
from swinft.laboratory.subjects import Batch, RunSubject
from swinft.model.heads.contract import encoded_targets, row_losses
from swinft.model.network import ImageModel
from swinft.model.training.mixup import MixConfig, draw, mixed_logits, mixing_places
from swinft.model.training.optim import OptimConfig, param_groups
from swinft.system.precision import in_float64

ABOUT = (
    "The loss is that of the run's training: of the head, with its label smoothing, on training rows with its "
    "augmentation, mixup and cutmix, drawn once. The network is in evaluation mode, without "
    "dropout and with the statistics of batch normalisation from its training. L2 adds ½ · weight decay · ‖w‖² of the "
    "weights that the run's optimiser decays, with its coefficient. Auxiliary targets, teachers and corrections of "
    "the prior are left out. Attention is computed operation by operation: torch's fused functions can only be "
    "differentiated once."
)


class TrainingLoss:
    """The training loss of some rows, in mini-batches.

    Args:
        subject: The run.
        rows: R, number of training rows, the first ones of the run's first epoch; fewer if there are fewer.
        size: Rows of a mini-batch.
    """

    def __init__(self, subject: RunSubject, rows: int, size: int) -> None:
        self.subject, self.size = subject, size
        self._rows = rows
        model = subject.experiment.section("model")
        self.config: OptimConfig = model["optim"]
        self._mix: MixConfig = model["mix"]

    @cached_property
    def batches(self) -> list[Batch]:
        """The rows with their augmentation, the run's first epoch in its order, on the device.

        Raises:
            InputError: There is no full mini-batch.
        """
        parts: list[Batch] = []
        for batch in self.subject.data.train_dataloader():  # the first pass of this process is epoch 0
            is_real = batch["row"] >= 0
            parts.append({name: value[is_real] for name, value in batch.items() if isinstance(value, Tensor)})
            if sum(len(part["row"]) for part in parts) >= self._rows:
                break
        joined = {name: torch.cat([part[name] for part in parts])[: self._rows] for name in parts[0]}
        device = self.subject.device
        whole = range(0, len(joined["row"]) - self.size + 1, self.size)
        found = [{k: v[at : at + self.size].to(device) for k, v in joined.items()} for at in whole]
        if not found:
            raise InputError(
                f"{self.subject.given} trains on {len(joined['row'])} rows, fewer than a mini-batch of {self.size}."
            )
        return found

    def check(self) -> None:
        """Decodes the rows.

        Raises:
            InputError: There is no full mini-batch.
        """
        assert self.batches

    def of(self, net: ImageModel, number: int) -> Tensor:
        """The mean loss of a mini-batch, with its graph.

        Args:
            net: The network, in evaluation mode.
            number: Of the mini-batch.
        """
        batch, head = self.batches[number], net.head
        image, size = batch["image"], len(batch["image"])
        more: dict[str, Any] = {"metadata": net.encode_metadata(batch.get("features"))}
        more |= {name: batch[name] for name in ("weight", "image_mask") if name in batch}
        more = {name: value for name, value in more.items() if value is not None}
        places = mixing_places(self._mix, net, False, False)
        mixing = draw(self._mix, image, self.subject.generator(f"mixing {number}"), places)
        with sdpa_kernel(SDPBackend.MATH):  # also of backbones that ask for it themselves
            logits, encoded, more = mixed_logits(net, image, encoded_targets(head, batch["target"], size), more, mixing)
            losses = row_losses(head, logits, encoded)
        return (losses * more["weight"] if "weight" in more else losses).mean()

    def decays(self, net: ImageModel, weight_decay: float | None = None) -> list[float]:
        """The coefficient of L2 of each parameter of a network, in the order of `net.parameters()`; 0 for none.

        Args:
            net: The network.
            weight_decay: In the place of the run's.
        """
        others = [module for name, module in net.named_children() if name != "backbone"]
        given = self.config.weight_decay if weight_decay is None else weight_decay
        config = replace(self.config, lr=1.0, head_lr=None, layer_decay=1.0, weight_decay=given)
        groups = param_groups(net.backbone, others, config)
        found = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
        return [float(found.get(id(parameter), 0.0)) for parameter in net.parameters()]


def l2(net: nn.Module, decays: Sequence[float]) -> Tensor:
    """½ · Σ decay · ‖w‖² of a network's parameters, float64."""
    terms = [
        0.5 * decay * in_float64(p).square().sum() for decay, p in zip(decays, net.parameters(), strict=True) if decay
    ]
    return torch.stack(terms).sum() if terms else torch.zeros((), dtype=torch.double)


@contextmanager
def twice_differentiable(name: str) -> Iterator[None]:
    """Explains an operation that cannot be differentiated twice.

    Raises:
        InputError: There is one.
    """
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        text = str(error)
        if "derivative for" not in text and "double backward" not in text and "differentiable once" not in text:
            raise
        raise InputError(
            f"{name}: its network has an operation that cannot be differentiated twice, so that it has no "
            f"Hessian here: "
            f"{text.splitlines()[0]}"
        ) from error


def normal(generator: np.random.Generator, like: Tensor) -> Tensor:
    """Standard normal numbers of a shape, the same on every device."""
    return torch.from_numpy(generator.standard_normal(tuple(like.shape), dtype=np.float32)).to(like.device)
