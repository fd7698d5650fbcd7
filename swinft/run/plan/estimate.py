"""Costs on GPUs that are not here: from the operations and the memory of a training step, counted on the CPU.

Nothing is measured on such a GPU. Its time is that of its peak rate times the share of it that was measured elsewhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from swinft.model.operations import counter, operations
from swinft.model.trial import TrialBatch, TrialSteps
from swinft.run.compute.trial import TriedTask
from swinft.run.plan.cost import Costs
from swinft.run.plan.gpus import GIB, GPU
from swinft.system.precision import Precision, autocast

# Shares of the peak rate that were measured: Swin-T at 224 px on an H200 in bfloat16, by kind of attention, trained at
# 0.07 to 0.15 of it, and predicted at 0.05 to 0.11. In float32 networks come nearer to the peak.
TRAINED, PREDICTED, SINGLE = 0.10, 0.09, 0.5
START_UP, FIRST, LOAD = 20.0, 10.0, 3.0  # seconds of a fold's process, of its first batches, of a network
SAVED_PER_SECOND = 5e8  # bytes, with a flush to the disk
CONTEXT = 0.6 * GIB  # of CUDA, its kernels and libraries
MARGIN = 1.15  # of memory: what the allocator keeps in reserve
SMALL, LARGE = 2, 4  # images of the two steps that are counted


@dataclass(frozen=True)
class Counted:
    """What a training step takes.

    Args:
        trained: Operations of a training step for each image.
        predicted: Those of a prediction.
        weights: Bytes of the parameters and buffers.
        fixed: Bytes of gradients, of the optimiser, of averaged weights, and of what else every step holds.
        per_image: Bytes that are kept for each image from the forward to the backward pass.
    """

    trained: float
    predicted: float
    weights: int
    fixed: int
    per_image: int

    def memory(self, batch: int) -> int:
        """Bytes of a step of a batch."""
        return int(CONTEXT + MARGIN * (self.weights + self.fixed + batch * self.per_image))


def count(tried: TriedTask, precision: Precision) -> Counted:
    """Counts the operations and the memory of a task's steps; the task cannot be used afterwards."""
    device, task = torch.device("cpu"), tried.task.to("cpu")
    steps = TrialSteps(task, device, autocast("bf16-mixed" if precision != "32-true" else precision, device))
    shape = task.net.image_shape(tried.size)
    small, large = (TrialBatch.of(each, tried.targets, tried.features, shape, device) for each in (SMALL, LARGE))
    with counter() as of_training:
        steps.train(small)
    with operations(task) as of_prediction:
        steps.predict(small)
    trained, predicted = (each.get_total_flops() / SMALL for each in (of_training, of_prediction))
    saved = [_kept(task, partial(steps.train, each)) for each in (small, large)]
    per_image = max(0, saved[1] - saved[0]) // (LARGE - SMALL)
    weights, trainable = (
        _bytes(task.net),
        sum(p.numel() * p.element_size() for p in task.net.parameters() if p.requires_grad),
    )
    state = [each for group in steps.optimizer.state.values() for each in group.values() if isinstance(each, Tensor)]
    averaged = 0 if task.averaged is None else weights
    fixed = trainable + sum(each.numel() * each.element_size() for each in state) + averaged
    return Counted(trained, predicted, weights, fixed + max(0, saved[0] - SMALL * per_image), per_image)


def estimate(
    counted: Counted, gpu: GPU, precision: Precision, batch: int, num_views: int, sizes: dict[str, float]
) -> Costs:
    """The costs of a fold on a GPU.

    Args:
        counted: What a step takes.
        gpu: The GPU.
        precision: Of training and prediction.
        batch: Images of a batch on each device.
        num_views: Views of the predictions after the training.
        sizes: Pixels of each image size, as a share of those of the last one.
    """
    is_single = precision == "32-true"
    trained, predicted = (SINGLE * gpu.single,) * 2 if is_single else (TRAINED * gpu.half, PREDICTED * gpu.half)
    step, evaluated = batch * counted.trained / trained, batch * counted.predicted / predicted
    return Costs(
        start_up=START_UP,
        first=FIRST,
        epoch=0.5,
        batch={name: share * step for name, share in sizes.items()},
        frozen=min(1.0, max(0.3, counted.predicted / counted.trained)),
        validation=(evaluated, 0.5),
        saving=3 * counted.weights / SAVED_PER_SECOND,
        load=LOAD,
        prediction=(num_views * evaluated, 1.0),
        memory=counted.memory(batch),
        of_memory=gpu.memory,
    )


def _kept(task: nn.Module, run: Callable[[], Any]) -> int:
    """Bytes that a step keeps for its backward pass, without parameters."""
    known = {each.untyped_storage().data_ptr() for each in (*task.parameters(), *task.buffers())}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(sizes.values())


def _bytes(net: nn.Module) -> int:
    return sum(each.numel() * each.element_size() for each in (*net.parameters(), *net.buffers()))
