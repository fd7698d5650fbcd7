"""Images that an earlier run's `images.csv` names: listed though they may be gone, for what needs their rows alone."""

import os
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from swinft.data.image_paths import Flaw
from swinft.data.inspection.index import SIZES, read_lines
from swinft.data.sources.source import Source
from swinft.errors import InputError

if TYPE_CHECKING:
    from swinft.data.data_settings import DataSettings


class RecordedImages(Source):
    """A source whose images were checked when a run was started: one that is gone is no problem until it is read.

    Args:
        inner: Reads the images that are there.
        path: The `images.csv`.
        split: `train` or `test`.
        is_plain: Each row has one image, which the file calls by the row's id: any name will do.
    """

    def __init__(self, inner: Source, path: Path, split: str, is_plain: bool) -> None:
        self.inner, self.path, self.split, self.is_plain = inner, path, split, is_plain
        self._there: dict[str, Collection[str] | None] = {}

    def read(self, reference: str) -> bytes:
        """As of the images' own source."""
        return self.inner.read(reference)

    def stat(self, reference: str) -> tuple[int, ...]:
        """As of the images' own source."""
        return self.inner.stat(reference)

    def names(self, folder: str) -> Collection[str]:
        """The images of a folder that are there, and those that were."""
        try:
            there = self.inner.names(folder)
        except InputError:  # an archive that is damaged: reading an image says so
            there = None
        self._there[folder] = there
        return _Names(there or (), None if self.is_plain else self._known(folder))

    def flaw(self, reference: str, inside: str) -> Flaw | None:
        """That of an image that is there."""
        folder, name = os.path.split(reference)
        return self.inner.flaw(reference, inside) if name in (self._there.get(folder) or ()) else None

    def template_problem(self, template: str) -> str | None:
        """As of the images' own source."""
        return self.inner.template_problem(template)

    @property
    def identity(self) -> str:
        """As of the images' own source."""
        return self.inner.identity

    def shapes(self, ids: Collection[str]) -> NDArray[np.int32] | None:
        """Height and width of the image of each row, int32 (N, 2); None if the file does not have them all."""
        found = {line["id"]: [line.get(name) for name in SIZES] for line in read_lines(self.path, self.split)}
        shapes = [found.get(id, [None]) for id in ids]
        return np.array(shapes, dtype=np.int32).reshape(-1, 2) if all(map(all, shapes)) else None

    @cached_property
    def _by_folder(self) -> dict[str, set[str]]:
        folders: dict[str, set[str]] = {}
        for line in read_lines(self.path, self.split):
            folder, file = os.path.split(line["id"].partition("#")[0])  # as parts of files are numbered
            folders.setdefault(folder, set()).add(file)
        return folders

    def _known(self, folder: str) -> set[str]:
        """The recorded images of a folder, whose path ends like one of theirs, or is that of all."""
        ends = [each for each in self._by_folder if not each or f"/{folder}".endswith(f"/{each}")]
        return self._by_folder[max(ends, key=len)] if ends else set()


class _Names(Collection[str]):
    """Names of images that are there, and of recorded ones; of all others too where these are not known."""

    def __init__(self, there: Collection[str], recorded: set[str] | None) -> None:
        self._there, self._recorded = there, recorded

    @cached_property
    def _composed(self) -> set[str]:
        return {unicodedata.normalize("NFC", name) for name in self._there}

    def __contains__(self, name: object) -> bool:
        if name in self._there:
            return True
        if self._recorded is not None:
            return name in self._recorded
        text = str(name)  # the same name in another form of Unicode is found by who asks
        return text.isascii() or unicodedata.normalize("NFC", text) not in self._composed

    def __iter__(self) -> Iterator[str]:
        return iter({*self._there, *(self._recorded or ())})

    def __len__(self) -> int:
        return len({*self._there, *(self._recorded or ())})


def with_recorded(settings: "DataSettings", path: Path) -> "DataSettings":
    """Settings with which images that an `images.csv` names may be gone.

    A source that has its images from the table is as before.
    """
    found = {}
    for split, source, images in (
        ("train", settings.source, settings.image),
        ("test", settings.test_source, settings.test_image),
    ):
        is_by_name = type(source).references is Source.references
        found[split] = RecordedImages(source, path, split, images.is_plain) if is_by_name else source
    return replace(settings, loading=replace(settings.loading, source=found["train"], test_source=found["test"]))
