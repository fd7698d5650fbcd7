"""Trial training steps and predictions before a run starts, to find errors that static checks cannot.

Shapes: B batch, N training rows, F metadata features, K outputs.
"""

import math
import sysconfig
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from swinft.class_spec import spec_name
from swinft.errors import InputError, listed
from swinft.model.auxiliary import KEY
from swinft.model.heads import Head
from swinft.model.heads.contract import encoded_targets, evaluated, row_losses
from swinft.model.scoring import score
from swinft.model.task import FineTuneTask
from swinft.model.training.sam import SAM
from swinft.model.training.schedules import make_schedule
from swinft.model.training.steps import Steps
from swinft.system.limits import within_memory

# Two rows find the same errors as a full batch, except for its memory; on a CPU a full one can take minutes.
MAX_ROWS = 2
LARGE = 512 * 512  # pixels of an image
# Predictions on which metrics are tried, rows times outputs: of more rows and classes they would fill the memory.
MAX_TRIED_CELLS = 2**26
OF_BATCH_NORM = "more than 1 value per channel"  # in torch's error about a batch of one row on a grid of one place
SEVERAL = "BatchNorm needs several values per channel: set data.batch_size to 2 or more,"
TRIED_STEPS = Steps(1_000_000, 1_000)  # a schedule's checks do not depend on these numbers


class TrialBatch(NamedTuple):
    """Random pixels with the targets of rows: image uint8 of the network's shape, target, features (B, F) or None.

    `auxiliary` are the targets of each auxiliary target; empty if there are none.
    """

    image: Tensor
    target: Tensor
    features: Tensor | None
    auxiliary: Sequence[Tensor] = ()

    @classmethod
    def of(
        cls,
        count: int,
        targets: Tensor,
        features: Tensor | None,
        shape: tuple[int, ...],
        device: torch.device,
        auxiliary: Sequence[Tensor] = (),
    ) -> "TrialBatch":
        """A batch of the first `count` rows on a device, with images of a shape; arguments as in `try_step`."""
        rows = torch.arange(count) % len(targets)
        generator = torch.Generator().manual_seed(0)
        image = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)
        chosen = None if features is None else features[rows].to(device)
        others = [each[rows].to(device) for each in auxiliary]
        return cls(image.to(device), targets[rows].to(device), chosen, others)

    def first(self) -> "TrialBatch":
        """Its first row alone."""
        features = None if self.features is None else self.features[:1]
        return TrialBatch(self.image[:1], self.target[:1], features, [each[:1] for each in self.auxiliary])

    def for_head(self, head: Head) -> "TrialBatch":
        """The same with targets in the form of a head's."""
        return self._replace(target=head.example_targets(self.target, (self.image.shape[-2], self.image.shape[-1])))


class TrialSteps:
    """Takes training steps as the task does, and predicts; the task cannot be used afterwards.

    Args:
        task: Initialised, on its device.
        device: The device of the task.
        autocast: For the number format.
        scales_loss: Whether fp16's loss scaling is on.
    """

    def __init__(
        self,
        task: FineTuneTask,
        device: torch.device,
        autocast: AbstractContextManager[object] | None = None,
        scales_loss: bool = False,
    ) -> None:
        self._task, self._autocast = task, autocast or nullcontext()
        self.optimizer = task.make_optimizer(device, scales_loss)
        if task.teacher is not None:
            task.teacher.to(device)
        if device.type == "cpu":
            # It would query the GPU for graph capture, which creates a CUDA context that stays while folds are fitted.
            inner: Any = getattr(self.optimizer, "base", self.optimizer)
            inner._accelerator_graph_capture_health_check = lambda: None
        # From torch's default scale, the first steps may all be skipped, and optimiser state take no memory.
        self._scaler = torch.amp.GradScaler(device.type, init_scale=1.0, enabled=scales_loss)

    def train(self, batch: TrialBatch) -> Tensor:
        """Forward, backward, optimiser step, averaged weights; returns the loss before the step.

        Raises:
            InputError: The loss has no gradient, or the optimiser's step does not call its closure.
        """
        net, losses = self._task.net.train(), list[Tensor]()

        @torch.enable_grad()  # as Lightning's closure
        def closure() -> Any:  # torch names a float, and takes a tensor
            losses.append(self._backward(batch))
            return losses[-1]

        if self._scaler.is_enabled() and not isinstance(self.optimizer, SAM):
            closure()
            self._scaler.step(self.optimizer)
        else:
            self.optimizer.step(closure)
        if not losses:
            raise InputError(
                f"model.optim.name: {type(self.optimizer).__name__}.step does not call its argument `closure`, which "
                f"computes the gradients: call it, and return its value."
            )
        self._scaler.update()
        self.optimizer.zero_grad()
        if self._task.averaged is not None:
            self._task.averaged.update(net)
        return losses[0]

    def _backward(self, batch: TrialBatch) -> Tensor:
        net, head = self._task.net, self._task.net.head
        batch = batch.for_head(head)
        self.optimizer.zero_grad()
        with self._autocast:
            logits, others = net.all_logits(batch.image, {"metadata": net.encode_metadata(batch.features)})
            losses = row_losses(head, logits, encoded_targets(head, batch.target, len(batch.image)))
            if (teacher := self._task.teacher) is not None:
                losses = teacher.blended(
                    head, logits, losses, teacher.predict(batch.image, teacher.encode(batch.features))
                )
            if net.auxiliary is not None and batch.auxiliary:
                given = {KEY.format(k): each for k, each in enumerate(batch.auxiliary)}
                encoded = net.auxiliary.encode(given, len(batch.image))
                losses = losses + net.auxiliary.weighted(net.auxiliary.losses({**encoded, **others}))
            loss = losses.mean()
        if not loss.requires_grad:
            raise InputError(
                f"the loss of {type(head).__name__} has no gradient for any weight: it must follow from the logits, "
                f"without `detach` or `torch.no_grad`."
            )
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def predict(self, batch: TrialBatch) -> Tensor:
        """Predictions (B, K) of the averaged weights, if there are any; of masks what their metrics get."""
        net = self._task.predictor.eval()
        with torch.inference_mode(), self._autocast:
            logits = net.logits(batch.image, net.encode_metadata(batch.features))
            return evaluated(net.head, logits, batch.for_head(net.head).target)[0]


@contextmanager
def sparing_memory(task: FineTuneTask, size: tuple[int, int]) -> Iterator[None]:
    """Inside the block, memory that is not there is an error, and large images take a tenth of it.

    For these the backbone, where it can, computes activations again; behind the block as the config says: what a step
    takes of time and memory is measured with the same task.
    """
    model = getattr(task.net.backbone, "model", task.net.backbone)
    is_large, switch = size[0] * size[1] > LARGE, getattr(model, "set_grad_checkpointing", None)
    try:
        if is_large and switch:
            with suppress(AssertionError):  # a backbone that cannot
                switch(True)
        with within_memory():
            yield
    finally:
        if is_large and switch:
            with suppress(AssertionError):
                switch(task.compute.grad_checkpointing)


def try_step(
    task: FineTuneTask,
    targets: Tensor,
    features: Tensor | None,
    size: tuple[int, int],
    batch: int,
    rows: Any = None,
    auxiliary: Sequence[Tensor] = (),
    weights: Any = None,
) -> float:
    """Takes one training step as the task does, predicts and scores; the task cannot be used afterwards.

    Args:
        task: Initialised, on the CPU.
        targets: Of the training rows: int64 (N,) for classification, else float (N, K).
        features: float (N, F) if there is metadata.
        size: Height and width in pixels.
        batch: Configured images per batch; at most `MAX_ROWS` are used.
        rows: The table's columns, a pandas DataFrame (N rows), for metrics.
        auxiliary: Targets of each auxiliary target, if there are any.
        weights: What each row counts in the metrics, (N,); None where all count the same.

    Returns:
        Seconds of the training step per image.

    Raises:
        InputError: A step, a prediction or a metric fails, or the network returns wrong shapes.
    """
    cpu = torch.device("cpu")
    steps = TrialSteps(task, cpu)
    try:
        with sparing_memory(task, size):
            tried = TrialBatch.of(min(batch, MAX_ROWS), targets, features, task.net.image_shape(size), cpu, auxiliary)
            started = time.perf_counter()
            loss = float(steps.train(tried))
            seconds = time.perf_counter() - started
            predictions = steps.predict(tried)
            others = steps.predict(tried.first()) if (custom := custom_modules(task.net)) else predictions
    except InputError:
        raise
    except Exception as error:  # anything may fail here, which would be a traceback in the first fold
        alone = " in batches of 1 (data.batch_size)" if batch == 1 else ""
        at_size = f"{size[0]} x {size[1]} px (data.image_size){alone}"
        if where := _custom_code(error):
            raise InputError(
                f"a training step at {at_size} fails in {where}: {type(error).__name__}: {error}"
            ) from error
        fix = f". {SEVERAL} or a larger data.image_size." if alone and OF_BATCH_NORM in str(error) else ""
        raise InputError(f"'{spec_name(task.hparams['backbone'])}' cannot work at {at_size}: {error}{fix}") from error
    if not math.isfinite(loss):
        raise InputError(f"the loss of {type(task.net.head).__name__} is {loss} in a trial step.")
    check_rows_alone(predictions, others, custom)
    make_schedule(steps.optimizer, task.optim, TRIED_STEPS)
    _try_metrics(task, predictions, targets, rows, weights)
    return seconds / len(tried.image)


def try_one_row(task: FineTuneTask, targets: Tensor, features: Tensor | None, size: tuple[int, int]) -> None:
    """Takes a training step on one row, where an epoch has no more; arguments as of `try_step`.

    Raises:
        InputError: It fails, as BatchNorm does with one value per channel.
    """
    cpu = torch.device("cpu")
    try:
        with sparing_memory(task, size):
            TrialSteps(task, cpu).train(TrialBatch.of(1, targets, features, task.net.image_shape(size), cpu))
    except Exception as error:  # as above
        raise InputError(
            f"'{spec_name(task.hparams['backbone'])}' cannot train on one row, which is all that an epoch has on a "
            f"device (data.loading.virtual_epochs, trainer.devices): {error}. Set data.loading.virtual_epochs to less."
        ) from error


def custom_modules(net: nn.Module) -> list[str]:
    """Names of the classes in a network that are a user's own."""
    known = ("swinft", "timm", "torch", "torchvision")
    return sorted({type(each).__name__ for each in net.modules() if type(each).__module__.split(".")[0] not in known})


def check_rows_alone(together: Tensor, alone: Tensor, custom: list[str]) -> None:
    """Checks that the prediction of a row does not depend on the other rows of its batch.

    Args:
        together: Predictions of several rows, (B, …).
        alone: That of the first one, from a batch of its own (1, …).
        custom: Classes of the network that are a user's own, for the message.

    Raises:
        InputError: It differs by more than rounding.
    """
    one, other = together[:1].float(), alone[:1].float()
    if not torch.allclose(one, other, rtol=1e-3, atol=1e-4 * float(one.abs().nan_to_num().max()), equal_nan=True):
        shown = [round(float(each.flatten()[(one - other).abs().argmax()]), 4) for each in (one, other)]
        raise InputError(
            f"the prediction of a row changes with the other rows of its batch, or each time: {shown[0]} in a batch, "
            f"{shown[1]} alone. {listed(custom)} must process each row alone, and in evaluation without random numbers."
        )


def _try_metrics(task: FineTuneTask, predictions: Tensor, targets: Tensor, rows: Any, weights: Any) -> None:
    """Scores all rows, repeating the few predictions: a metric may need every class, group or column.

    Where that would fill the memory, the first row of each class, or the first with a gap, and then the first rows are
    scored.
    """
    most = max(1, MAX_TRIED_CELLS // predictions[0].numel())
    if len(targets) > most:
        if targets.ndim == 1:
            firsts = np.unique(targets.numpy(), return_index=True)[1]
        else:
            firsts = np.flatnonzero(targets.isnan().flatten(1).any(1).numpy())[:1]
        others = np.setdiff1d(np.arange(most + len(firsts)).clip(max=len(targets) - 1), firsts)
        chosen = np.sort(np.concatenate([firsts, others])[:most])
        targets = targets[torch.from_numpy(chosen)]
        rows = None if rows is None else rows.iloc[chosen].reset_index(drop=True)
        weights = None if weights is None else weights[chosen]
    repeated = predictions[torch.arange(len(targets)) % len(predictions)]
    context = task.table_context() | {"rows": rows, "weights": weights}
    score(task.scored_by, task.net.head.kind, repeated, targets, **context)


def _custom_code(error: Exception) -> str:
    """The innermost line of custom code in the traceback, `focal.py:12 (forward)`; empty for none."""
    others = (Path(__file__).parents[1], *(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")))
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if not any(other in path.parents for other in others):
            return f"{path.name}:{frame.lineno} ({frame.name})"
    return ""
