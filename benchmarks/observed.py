"""What ablations.py gives to `swinft fit`: a callback that measures training steps, and a metric for rare positives."""

import time
from typing import Any, ClassVar

from lightning.pytorch import Callback, LightningModule, Trainer
from sklearn.metrics import average_precision_score
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from swinft import Metric

MEASURED_BATCH = 0  # of every epoch; all batches are of one size


class AveragePrecision(Metric):
    """Average precision of the second of two classes: the area under precision over recall."""

    kinds = ("classification",)
    higher_is_better = True
    wants_probabilities = True
    name = "average_precision"

    def compute(self, predictions: Any, targets: Any, rows: Any) -> float:
        """The score of N rows, whose predictions are probabilities (N, 2)."""
        return float(average_precision_score(targets == 1, predictions[:, 1], sample_weight=self.weights))


class Observer(Callback):
    """Measures the training steps of each epoch of the last fit, without validation.

    `epochs` holds for each epoch its `seconds`, the processor time of all threads, which other processes hardly affect;
    its `steps`; and `bytes`, what one step keeps for the backward pass: all tensors that autograd saves in the forward
    pass, except weights, each storage once.
    """

    epochs: ClassVar[list[dict[str, float]]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets the last fit."""
        Observer.epochs = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins an epoch."""
        self._started = time.process_time()
        Observer.epochs.append({"seconds": 0.0, "steps": 0, "bytes": 0})

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Begins to count what the forward pass of one batch keeps."""
        self._hooks = None
        if batch_idx == MEASURED_BATCH:
            self._kept: dict[int, int] = {}
            self._weights = {each.untyped_storage().data_ptr() for each in pl_module.parameters()}
            self._hooks = saved_tensors_hooks(self._count, lambda tensor: tensor)
            self._hooks.__enter__()

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """The forward pass has ended."""
        self._end_count()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts a step."""
        self._end_count()
        Observer.epochs[-1]["seconds"] = time.process_time() - self._started
        Observer.epochs[-1]["steps"] += 1

    def _end_count(self) -> None:
        if self._hooks is not None:
            self._hooks.__exit__()
            self._hooks = None
            Observer.epochs[-1]["bytes"] = sum(self._kept.values())

    def _count(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._weights:
            self._kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # the tensor itself would refer to its own graph, which would never be freed
