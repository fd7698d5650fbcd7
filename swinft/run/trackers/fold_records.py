"""The records of one training, at all trackers of its config."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from swinft.data.datamodule import CSVDataModule
from swinft.model.training.steps import Steps
from swinft.run.fold_files import Fold
from swinft.run.layout import ROUNDS, Run
from swinft.run.resume import flat_keys
from swinft.run.trackers.record import POOLED, CaptionedImage, Memory, Record
from swinft.run.trackers.sender import Sender
from swinft.run.trackers.tracker import Tracker

FILE = "trackers.json"


class FoldRecords:
    """One record of a training for each tracker; without trackers, nothing.

    Args:
        senders: One for each tracker.
    """

    def __init__(self, senders: Sequence[Sender] = ()) -> None:
        self._senders = senders

    @classmethod
    def open(cls, run: Run, fold: Fold, trackers: Sequence[Tracker], data: CSVDataModule) -> "FoldRecords":
        """Starts or continues the records, before the first epoch.

        Args:
            run: The run.
            fold: The training.
            trackers: Those of its Trainer.
            data: Its rows.
        """
        senders = [sender_of(run, tracker, fold, lambda most: [augmented_batch(data, most)]) for tracker in trackers]
        for each in senders:
            each.open()
        return cls(senders)

    def send(self, history: Sequence[Mapping[str, float]], steps: Steps) -> None:
        """Sends all saved epochs that the services lack."""
        for each in self._senders:
            each.send(history, steps)

    def finish(self, fold: Fold) -> None:
        """Sends the result of the finished training."""
        for each in self._senders:
            each.finish(fold.read_history(), lambda: result_values(fold))

    def close(self) -> None:
        """Leaves the records as incomplete."""
        for each in self._senders:
            each.close()

    @contextmanager
    def left_on_error(self) -> Iterator[None]:
        """Leaves the records as incomplete when an exception or a signal ends the block."""
        try:
            yield
        except BaseException:
            self.close()
            raise


def sender_of(run: Run, tracker: Tracker, fold: Fold | None, augmented: Any = None) -> Sender:
    """The sender of a training's record, or of the pooled one.

    Args:
        run: The run.
        tracker: The tracker.
        fold: The training; None for the pooled record.
        augmented: As in `Sender`.
    """
    folder = run.root.resolve()
    whole = Memory(folder / FILE)
    lock = run.lock.with_name(f"{run.lock.stem}.trackers.lock")
    memory = Memory(fold.root / FILE) if fold else whole
    config = run.read_config()
    record = Record(
        group=str(whole.read(tracker.word).get("group") or _group_of(folder)),
        name=fold.root.name if fold else POOLED,
        id="",
        group_id="",
        folder=folder,
        config=config,
        keys=dict(flat_keys(config)),
        is_known=False,
        lock=lock,
    )
    return Sender(tracker, record, memory, whole, augmented)


def _group_of(folder: Path) -> str:
    """The name of a run; a round's with that of its config."""
    parent = folder.parent
    return f"{parent.name}/{folder.name}" if (parent / ROUNDS).is_file() else folder.name


def result_values(fold: Fold) -> dict[str, float]:
    """What is sent of a finished training besides its epochs."""
    result = fold.read_result()
    scores = {f"oof_{name}": float(value) for name, value in result["oof"].items()}
    best = result["best_epoch"].get("epoch")
    return {**scores, "best_epoch": float(best), "seconds_of_training": float(result["seconds"])}


def augmented_batch(data: CSVDataModule, most: int) -> CaptionedImage:
    """The first training images as the network sees them, in one image with their targets."""
    file = io.BytesIO()
    data.show_batch("train", most).savefig(file, format="png")
    return CaptionedImage(np.asarray(Image.open(file).convert("RGB")), "")
