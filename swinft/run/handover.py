"""What a process has found out about a run's images, passed on to the processes that fit its folds."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from swinft.data.cache.pixels import PixelCache
from swinft.data.datamodule import CSVDataModule
from swinft.run.experiment import Experiment
from swinft.run.layout import Run
from swinft.store import verify

# In the environment of the run's processes: that the images are unchanged, and where their cache is.
VARIABLE = "SWINFT_CHECKED_IMAGES"


@dataclass(frozen=True)
class CheckedImages:
    """The images of a run were compared with those of its start; its other processes need not read the files again.

    Args:
        cache: The decoded training images, mapped into memory so that no other process deletes the file; None where
            images are decoded each time they are read.
    """

    cache: PixelCache | None

    @property
    def path(self) -> str:
        """The cache's file; empty where there is none."""
        return str(self.cache.path) if self.cache else ""

    @property
    def environment(self) -> dict[str, str]:
        """The variable that a process of this run reads."""
        return {VARIABLE: f"found:{self.path}"}

    @contextmanager
    def in_environment(self) -> Iterator[None]:
        """Sets the variable in this process's environment, which the processes that Lightning starts inherit."""
        before = os.environ.get(VARIABLE)
        os.environ.update(self.environment)
        try:
            yield
        finally:
            os.environ.pop(VARIABLE)
            if before is not None:
                os.environ[VARIABLE] = before


def inherited_cache() -> str | None:
    """The cache's file, from the process that started this one; empty for no cache, None where none has checked."""
    word, _, path = os.environ.get(VARIABLE, "").partition(":")
    return path if word else None


def check_again(run: Run, experiment: Experiment) -> CheckedImages:
    """Compares the images with those of the run's start, on a resume; builds the cache where it was deleted.

    Raises:
        DataError: Some show other images now.
    """
    data = experiment.datamodule(run)
    data.setup("fit")
    data.check_unchanged(verify(run.images))
    if data.image_files.decision:
        print(data.image_files.decision)
    return checked_images(data)


def checked_images(data: CSVDataModule) -> CheckedImages:
    """The images of a datamodule that has checked them."""
    return CheckedImages(data.training_cache())
