"""Which epochs' weights a fold keeps: of the best one, or of those that are averaged when training has ended."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jsonargparse import Namespace

from swinft.errors import InputError
from swinft.model.metrics import Metric
from swinft.ranges import Range, check_ranges
from swinft.run.fold_files import Fold
from swinft.store import discard

Line = dict[str, float]  # of an epoch: what metrics.jsonl holds
SOUPS = ("last", "best", "greedy")


@dataclass(frozen=True)
class SoupConfig:
    """A fold predicts with the average of the weights of several of its epochs.

    Args:
        soup: `last` averages the last epochs; `best` those with the best validation scores; `greedy` begins with the
            best of these, and adds each of the others where the score of the average is better with it. The last two
            choose on the rows that the fold is then scored on, as `checkpoint: best` does: its score is a little too
            good.
        epochs: How many epochs are averaged, or tried.
    """

    soup: Literal["last", "best", "greedy"]
    epochs: int = 3

    def __post_init__(self) -> None:
        """Checks word and range."""
        if self.soup not in SOUPS:
            raise InputError(f"checkpoint.soup is {self.soup!r}; it must be one of {', '.join(SOUPS)}.")
        check_ranges("checkpoint", vars(self), {"epochs": Range(2)})

    def __str__(self) -> str:
        chosen = f"{self.soup} {self.epochs} epochs"
        return f"greedy soup of the best {self.epochs} epochs" if self.soup == "greedy" else f"soup of the {chosen}"


def kept_epochs(checkpoint: Any) -> str | SoupConfig:
    """The setting `checkpoint` as the parser gives it: `last`, `best`, or an average.

    Raises:
        InputError: A number is out of its range.
    """
    if isinstance(checkpoint, Namespace | Mapping):
        return SoupConfig(**dict(checkpoint.as_dict() if isinstance(checkpoint, Namespace) else checkpoint))
    return checkpoint if isinstance(checkpoint, SoupConfig) else str(checkpoint)


class Kept:
    """The weights that a fold keeps while it trains.

    Args:
        fold: The fold's folder.
        metric: What decides which epoch is best.
        checkpoint: The setting, as `kept_epochs` gives it.
    """

    def __init__(self, fold: Fold, metric: Metric, checkpoint: str | SoupConfig) -> None:
        if fold is not None and fold.held_out is None:  # nothing says which epoch is best
            checkpoint = "last" if isinstance(checkpoint, str) else SoupConfig("last", checkpoint.epochs)
        self.fold, self.metric, self.checkpoint = fold, metric, checkpoint

    def best(self, history: list[Line]) -> Line:
        """The line with the best score; the first of equal ones."""
        return max(history, key=self._rank)

    def candidates(self, history: list[Line]) -> list[int]:
        """The epochs to be averaged or tried after a history, counted from 1: the best first, or the last ones."""
        if isinstance(self.checkpoint, str):
            return []
        epochs = range(1, len(history) + 1)
        if self.checkpoint.soup == "last":
            return list(epochs[-self.checkpoint.epochs :])
        best_first = sorted(epochs, key=lambda epoch: self._rank(history[epoch - 1]), reverse=True)
        return best_first[: self.checkpoint.epochs]

    def files(self, history: list[Line]) -> list[Path]:
        """Where the weights of the last epoch of a history are wanted; they are saved before its checkpoint is."""
        files = [self.fold.weights] if self.checkpoint == "best" and self.best(history) is history[-1] else []
        return files + [self.fold.candidate(len(history))] * (len(history) in self.candidates(history))

    def tidy(self, history: list[Line]) -> None:
        """Deletes the weights that no average needs any more, also where the last checkpoint is damaged."""
        wanted = {*self.candidates(history), *self.candidates(history[:-1])}
        for path in self.fold.candidates:
            if path not in {self.fold.candidate(epoch) for epoch in wanted}:
                discard(path)

    def _rank(self, line: Line) -> tuple[int, float]:
        """A sort key, higher is better: a defined score beats an undefined one; among these the lowest loss is best."""
        if "val_loss" not in line:  # no row is held out: the last epoch is the best
            return -1, line["epoch"]
        score, loss = line[f"val_{self.metric.name}"], line["val_loss"]
        if math.isnan(score):
            return (0, -loss) if not math.isnan(loss) else (-1, 0.0)
        return 1, score if self.metric.higher_is_better else -score
