"""The base class of trackers: what a service must be able to do, and what Lightning asks of a logger."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from swinft.ranges import Range, check_ranges
from swinft.run.trackers.record import CaptionedImage, EpochValues, Record


class Tracker(Logger):
    """A service that keeps a record of each training of a run.

    To Lightning it is a logger: what callbacks log is kept until the epoch is saved, and sent with it. A tracker of
    your own implements the methods without a body; one that raises an exception is asked again at a later epoch.

    Args:
        images: How many training images to send at the start, as the network sees them, and how many of the rows with
            the largest error at the end; 0 for none.
    """

    word: ClassVar[str]  # names it in messages and in trackers.json

    def __init__(self, images: int = 8) -> None:
        super().__init__()
        check_ranges("trainer.logger", {"images": images}, {"images": Range(0, 100)})
        self.images = images
        self._between: list[tuple[int, dict[str, float]]] = []

    @abstractmethod
    def check(self) -> None:
        """Checks before a training that the package is installed, and that the service answers.

        Raises:
            InputError: It does not; the message says what to do.
        """

    @abstractmethod
    def start(self, record: Record) -> None:
        """Starts a record, or continues the one that the service has under its id."""

    @abstractmethod
    def last_epoch(self) -> int:
        """The last epoch, from 1, that the service has of the started record; 0 if it has none."""

    @abstractmethod
    def write(self, epoch: EpochValues) -> None:
        """Sends an epoch."""

    @abstractmethod
    def write_images(self, name: str, images: Sequence[CaptionedImage], epoch: int) -> None:
        """Sends images that belong to an epoch."""

    @abstractmethod
    def write_result(self, values: Mapping[str, float]) -> None:
        """Sends the final values; what was sent before is replaced."""

    @abstractmethod
    def write_file(self, path: Path) -> None:
        """Sends a file, as an artefact."""

    @abstractmethod
    def finish(self) -> None:
        """Ends the record, and waits until all of it is sent, for a limited time."""

    @abstractmethod
    def close(self) -> None:
        """Leaves a record that is not complete, without waiting; does nothing if none is open."""

    def where(self) -> str:
        """Where a person finds the started record: an address or a folder; empty if unknown."""
        return ""

    def how_to_see(self, folder: Path) -> str:
        """What a person does to see the records of the run in a folder; empty for nothing."""
        return ""

    def take_between(self, known: Mapping[str, float]) -> list[tuple[int, dict[str, float]]]:
        """What callbacks have logged since the last call: optimiser step and values.

        Args:
            known: Values that are sent anyway, and left out.
        """
        taken, self._between = self._between, []
        rest = [(step, {k: v for k, v in values.items() if k not in known and k != "epoch"}) for step, values in taken]
        return [(step, values) for step, values in rest if values]

    @property
    def name(self) -> str:
        """The word that names it."""
        return self.word

    @property
    def version(self) -> str:
        """Nothing: records have their own ids."""
        return ""

    @rank_zero_only  # of the processes that fit a fold together, one has a record
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Keeps what Lightning logs until the epoch is saved."""
        self._between.append((step or 0, dict(metrics)))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Does nothing: a record has the whole config."""
