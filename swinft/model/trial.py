"""Training steps and predictions before a run begins: what no look at a signature finds out.

Shapes: B batch, N training rows, F metadata features, K outputs.
"""

import sysconfig
import time
import traceback
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from swinft.errors import InputError
from swinft.model.class_spec import spec_name
from swinft.model.heads.contract import decoded, encoded_targets, row_losses
from swinft.model.scoring import is_custom, score
from swinft.model.task import FineTuneTask
from swinft.model.training.optimizers import make_optimizer
from swinft.model.training.schedules import make_schedule
from swinft.model.training.steps import Steps

# Two rows show all that a full batch shows, but for its memory; on a CPU a full one can take minutes.
MAX_ROWS = 2
TRIED_STEPS = Steps(1_000_000, 1_000)  # what a schedule refuses does not hang on how many there are


class TrialBatch(NamedTuple):
    """A batch of random pixels with rows' own targets: image uint8 (B, 3, H, W), target, features (B, F) or None."""

    image: Tensor
    target: Tensor
    features: Tensor | None

    @classmethod
    def of(
        cls, count: int, targets: Tensor, features: Tensor | None, size: tuple[int, int], device: torch.device
    ) -> "TrialBatch":
        """A batch of `count` rows, the first ones, on a device; arguments as of `try_step`."""
        rows = torch.arange(count) % len(targets)
        generator = torch.Generator().manual_seed(0)
        image = torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=generator)
        chosen = None if features is None else features[rows].to(device)
        return cls(image.to(device), targets[rows].to(device), chosen)


class TrialSteps:
    """Takes training steps as the task does them, and predicts; the task is spent afterwards.

    Args:
        task: Initialised, on its device.
        device: Where it is.
        autocast: Of the number format.
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
        self.optimizer = make_optimizer(task.parameter_groups(), task.optim, device, scales_loss)
        if device.type == "cpu":
            # It would ask a GPU whether it captures a graph, and hold a context there while folds are fitted.
            self.optimizer._accelerator_graph_capture_health_check = lambda: None  # type: ignore[method-assign]
        self._scaler = torch.amp.GradScaler(device.type, enabled=scales_loss)

    def train(self, batch: TrialBatch) -> None:
        """Forward, backward, optimiser, average."""
        net, head = self._task.net.train(), self._task.net.head
        with self._autocast:
            logits = net.logits(batch.image, net.encode_metadata(batch.features))
            loss = row_losses(head, logits, encoded_targets(head, batch.target, len(batch.image))).mean()
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad()
        if self._task.averaged is not None:
            self._task.averaged.update(net)

    def predict(self, batch: TrialBatch) -> Tensor:
        """Predictions (B, K) of the weights that predict."""
        net = self._task.predictor.eval()
        with torch.inference_mode(), self._autocast:
            return decoded(net.head, net.logits(batch.image, net.encode_metadata(batch.features)))


def try_step(
    task: FineTuneTask,
    targets: Tensor,
    features: Tensor | None,
    size: tuple[int, int],
    batch: int,
    rows: Any = None,
) -> float:
    """Takes one training step with averaged weights, as the task does it, and predicts; the task is spent afterwards.

    Args:
        task: Initialised, on the CPU.
        targets: Of the training rows: int64 (N,) for classification, else float (N, K).
        features: float (N, F) where there is metadata.
        size: Height and width in pixels.
        batch: Images per batch as configured; of more than `MAX_ROWS` that many are tried.
        rows: Their table's columns, a pandas DataFrame (N rows), for metrics of the user's own.

    Returns:
        Seconds of the training step per image.

    Raises:
        InputError: A step, a prediction or a metric fails, or the network gives other shapes than the head asks for.
    """
    cpu = torch.device("cpu")
    tried = TrialBatch.of(min(batch, MAX_ROWS), targets, features, size, cpu)
    steps = TrialSteps(task, cpu)
    try:
        started = time.perf_counter()
        steps.train(tried)
        seconds = time.perf_counter() - started
        predictions = steps.predict(tried)
    except InputError:
        raise
    except Exception as error:  # whatever the network does not like: it would be a traceback in the first fold
        alone = " in batches of 1 (data.batch_size)" if batch == 1 else ""
        at_size = f"{size[0]} x {size[1]} px (data.image_size){alone}"
        if place := _own_code(error):
            raise InputError(
                f"a training step at {at_size} fails in {place}: {type(error).__name__}: {error}"
            ) from error
        raise InputError(f"'{spec_name(task.hparams['backbone'])}' cannot work at {at_size}: {error}") from error
    make_schedule(steps.optimizer, task.optim, TRIED_STEPS)
    _try_metrics(task, predictions, targets, rows)
    return seconds / len(tried.image)


def _try_metrics(task: FineTuneTask, predictions: Tensor, targets: Tensor, rows: Any) -> None:
    """Scores all rows by metrics of the user's own, with the few predictions that there are again and again.

    All rows, since a metric may need every class or group. A custom kind of target may have targets that
    another metric refuses.
    """
    is_tried = getattr(task._schema, "kind_class", None) is not None
    own = [metric for metric in task.scored_by if is_tried or is_custom(metric)]
    if own:
        repeated = predictions[torch.arange(len(targets)) % len(predictions)]
        score(own, task.net.head.kind, repeated, targets, **task.table_context(), rows=rows)


def _own_code(error: Exception) -> str:
    """The innermost line of a user's own code on the way to an error, `focal.py:12 (forward)`; empty for none."""
    others = (Path(__file__).parents[1], *(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")))
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        place = Path(frame.filename)
        if not any(other in place.parents for other in others):
            return f"{place.name}:{frame.lineno} ({frame.name})"
    return ""
