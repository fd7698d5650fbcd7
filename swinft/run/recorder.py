"""What a fold leaves on disk after every epoch: a checkpoint to go on from, a line of metrics, the best weights."""

import json
import math
import time
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from swinft.errors import InputError
from swinft.model.metrics import METRICS
from swinft.model.task import FineTuneTask
from swinft.run.build import save_net
from swinft.run.layout import Fold
from swinft.run.store import commit, discard

KEPT_CHECKPOINTS = 2  # the newest may be the one that a crash damages


class FoldRecorder(Checkpoint):
    """Commits a fold's state at the end of every epoch, and only there: a mid-epoch resume would repeat or skip rows.

    The history travels in the checkpoint, so that a resumed fold neither forgets nor repeats an epoch. Lightning calls
    a `Checkpoint` after all other callbacks: what they keep of an epoch, as early stopping does, is in its checkpoint.

    Args:
        fold: The fold's folder.
        metrics: Names of `METRICS` that the task scores; the first decides which epoch is best.
        keep: Which epoch's weights to predict with.
    """

    def __init__(self, fold: Fold, metrics: list[str], keep: Literal["last", "best"]) -> None:
        self.fold = fold
        self.metrics = metrics
        self.keep = keep
        self.history: list[dict[str, float]] = []
        self._started = 0.0

    @property
    def best(self) -> dict[str, float]:
        """The history's line with the best score; the first of equal ones."""
        return max(self.history, key=self._rank)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of this callback."""
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on where the checkpoint was saved."""
        self.history = state_dict["history"]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Records the epoch, prints its line, saves."""
        assert isinstance(pl_module, FineTuneTask)
        self._check_finite(trainer, pl_module)
        line = self._line(trainer)
        self.history.append(line)
        if trainer.is_global_zero:
            print(self._text(line, trainer.max_epochs or 0), flush=True)
            commit(self.fold.metrics, "".join(json.dumps(row) + "\n" for row in self.history).encode(), "swinft fit")
            if self.keep == "best" and self.best is line:
                save_net(pl_module.predictor, self.fold.weights)
        # On all ranks: Lightning gathers sharded states.
        trainer.save_checkpoint(self.fold.checkpoint(len(self.history)))
        if trainer.is_global_zero:
            for old in self.fold.checkpoints[KEPT_CHECKPOINTS:]:
                discard(old)

    def _line(self, trainer: Trainer) -> dict[str, float]:
        """One epoch's numbers."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
        seconds = time.perf_counter() - self._started
        return {"epoch": len(self.history) + 1, **metrics, "lr": max(rates), "seconds": round(seconds, 2)}

    def _check_finite(self, trainer: Trainer, task: FineTuneTask) -> None:
        """Stops before a broken epoch is saved.

        Raises:
            InputError: A loss was NaN or infinite: the weights are lost, and more epochs would only hide it.
        """
        bad = task.first_bad_batch()
        if bad is None:
            return
        number, rows = bad
        table = trainer.datamodule.train_table  # type: ignore[attr-defined]  # the run always trains from one
        ids = ", ".join(table.ids[row] for row in rows if row >= 0)
        rate = max(group["lr"] for group in trainer.optimizers[0].param_groups)
        raise InputError(
            f"fold {self.fold.index}: the loss became NaN or infinite in epoch {len(self.history) + 1}, batch {number} "
            f"(ids {ids}; highest learning rate now {rate:.3g}). The epochs before are kept. Lower model.optim.lr or "
            f"set trainer.precision to 32-true, under another --name."
        )

    def _text(self, line: dict[str, float], max_epochs: int) -> str:
        numbers = [f"{name} {value:.4g}" for name, value in line.items() if name not in ("epoch", "seconds")]
        mark = "  *" if self.best is line else ""
        epoch = f"fold {self.fold.index}  epoch {line['epoch']}/{max_epochs}"
        return f"{epoch}  {'  '.join(numbers)}  {line['seconds']:.1f} s{mark}"

    def _rank(self, line: dict[str, float]) -> float:
        """Higher is better, and an undefined score is never the best."""
        score = line[f"val_{self.metrics[0]}"]
        return -math.inf if math.isnan(score) else score if METRICS[self.metrics[0]].higher_is_better else -score
