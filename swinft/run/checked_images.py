"""The result of a run's image check, passed to the processes of its folds in an environment variable."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from swinft.data.cache.pixels import PixelCache
from swinft.data.datamodule import CSVDataModule
from swinft.run.experiment import Experiment
from swinft.run.layout import Run
from swinft.store import verify

# Environment variable of the run's processes: the images are unchanged, and this is the path of their cache.
VARIABLE = "SWINFT_CHECKED_IMAGES"


@dataclass(frozen=True)
class CheckedImages:
    """The images of a run were compared with those of its start; other processes need not read the files again.

    Args:
        cache: The decoded training images, memory-mapped so that no other process deletes the file; None if images are
            decoded each time they are read.
    """

    cache: PixelCache | None

    @property
    def path(self) -> str:
        """The cache's file; empty without a cache."""
        return str(self.cache.path) if self.cache else ""

    @property
    def environment(self) -> dict[str, str]:
        """The environment variable for a process of this run."""
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
    """The cache's file, from the parent process; empty without a cache, None if the parent has not checked images."""
    word, _, path = os.environ.get(VARIABLE, "").partition(":")
    return path if word else None


def recheck_images(run: Run, experiment: Experiment) -> CheckedImages:
    """Compares the images with those of the run's start, on a resume; builds a deleted cache again.

    Raises:
        DataError: Some images have changed.
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
