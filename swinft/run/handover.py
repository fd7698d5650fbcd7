"""What a run has found out about its images, handed from the process that looked to those that fit folds."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from swinft.data.cache.pixels import PixelCache
from swinft.data.datamodule import CSVDataModule
from swinft.run.experiment import Experiment
from swinft.run.layout import Run
from swinft.store import verify

VARIABLE = "SWINFT_LOOKED"  # in the environment of a process of the run: what the images were compared and found with


@dataclass(frozen=True)
class Looked:
    """The images of a run are known to be those of its start; nobody needs to ask the files again.

    Args:
        cache: The decoded training images, which stay mapped, so that nobody deletes the file; None where they are
            decoded each time they are read.
    """

    cache: PixelCache | None

    @property
    def path(self) -> str:
        """The cache's file; empty where there is none."""
        return str(self.cache.path) if self.cache else ""

    @property
    def environment(self) -> dict[str, str]:
        """What tells a process of this run."""
        return {VARIABLE: f"found:{self.path}"}

    @contextmanager
    def in_environment(self) -> Iterator[None]:
        """Tells the processes that Lightning starts, which inherit this one's environment."""
        before = os.environ.get(VARIABLE)
        os.environ.update(self.environment)
        try:
            yield
        finally:
            os.environ.pop(VARIABLE)
            if before is not None:
                os.environ[VARIABLE] = before


def handed_down() -> str | None:
    """What the process that started this one has told of the run's images; None where nothing."""
    word, _, path = os.environ.get(VARIABLE, "").partition(":")
    return path if word else None


def look_again(run: Run, experiment: Experiment) -> Looked:
    """Compares the images with those of the run's start, on a resume; makes the cache where it has gone.

    Raises:
        DataError: Some show other images now.
    """
    data = experiment.datamodule(run)
    data.setup("fit")
    data.check_unchanged(verify(run.images))
    if data.image_files.decision:
        print(data.image_files.decision)
    return looked(data)


def looked(data: CSVDataModule) -> Looked:
    """What a datamodule that has looked at its images knows."""
    return Looked(data.training_cache())
