"""What a config decides and a callback could change while a fold trains: steps, loops and weights, to be compared."""

from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

# Singular and plural of the parts of a step that a checkpoint stores.
STEP_WORDS = {
    "processes": ("process", "processes"),
    "rows per batch": ("row per batch", "rows per batch"),
    "batches per step": ("batch per step", "batches per step"),
}


def step_parts(trainer: Trainer) -> dict[str, int]:
    """The parts of an optimiser step's number of rows."""
    return {
        "processes": trainer.world_size,
        "rows per batch": trainer.datamodule.batch_size,  # type: ignore[attr-defined]  # the run always has one
        "batches per step": trainer.accumulate_grad_batches,
    }


def recipe_of(trainer: Trainer) -> dict[str, Any]:
    """Settings of the config that a callback could change, by key."""
    return {
        "trainer.accumulate_grad_batches": trainer.accumulate_grad_batches,
        "trainer.max_epochs": trainer.max_epochs,
        "trainer.max_steps": trainer.max_steps,
        "data.batch_size": trainer.datamodule.batch_size,  # type: ignore[attr-defined]  # the run always has one
        "trainer's loops": (id(trainer.fit_loop), id(trainer.fit_loop.epoch_loop)),
    }


@torch.no_grad()
def weight_norms(net: nn.Module) -> Tensor:
    """Norm of every weight (N,): a small fingerprint, equal for the same weights on the same device."""
    tensors = [t for t in (*net.parameters(), *net.buffers()) if t.is_floating_point() and t.numel()]
    return torch.stack([norm.float() for norm in torch._foreach_norm(tensors)]).nan_to_num()
