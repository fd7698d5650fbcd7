"""Base of sources with many images in one file, which acts as a folder: `train.zip/images/{id}.jpg`."""

import errno
import os
from abc import abstractmethod
from collections.abc import Collection

from swinft.data.image_paths import Flaw, is_within
from swinft.data.sources.files import containing_file, state_of
from swinft.data.sources.source import Source
from swinft.errors import InputError, suggest

MAX_BYTES = 2**29  # of an image: the largest allowed one, 89 megapixels of 6 bytes, is about as large uncompressed


class ContainerSource(Source):
    """A source with images inside container files; nothing is extracted to disk."""

    def __init__(self) -> None:
        self._locations: dict[str, tuple[str, str]] = {}  # by folder: its file, and the folder inside
        self._states: dict[str, tuple[int, ...]] = {}  # by file: its state when its images were listed

    @abstractmethod
    def listed(self, path: str, inner: str) -> Collection[str] | None:
        """Names of the images in a folder of a file; None if it has no such folder."""

    @abstractmethod
    def folders(self, path: str) -> Collection[str]:
        """Folders of a file that may contain images."""

    def names(self, folder: str) -> Collection[str] | None:
        """As for every source; also records the file's state, so that later changes are detected."""
        try:
            path, inner = self.locate(folder)
        except FileNotFoundError:
            return None
        self.check_state(path, os.stat(path))
        return self.listed(path, inner)

    def locate(self, folder: str) -> tuple[str, str]:
        """The file that contains a folder, and the folder inside it.

        Raises:
            FileNotFoundError: No part of the folder's path is a file.
        """
        if folder not in self._locations:
            path = containing_file(folder)
            if path is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), folder)
            self._locations[folder] = path, folder[len(path) :].strip("/")
        return self._locations[folder]

    def stat(self, reference: str) -> tuple[int, ...]:
        """State of the file that contains the image."""
        return state_of(os.stat(self.locate(os.path.dirname(reference))[0]))

    def check_state(self, path: str, stat: os.stat_result) -> None:
        """Checks that a file has not changed since its images were listed.

        Raises:
            InputError: It has changed.
        """
        now = state_of(stat)
        if self._states.setdefault(path, now) != now:
            raise InputError(f"{path} has changed while images were read from it. Run again once it is final.")

    def missing(self, folder: str) -> str:
        """Which file, or which folder inside it, is missing."""
        if os.path.isdir(folder):
            return f"{folder} is a folder on disk; data.loading.source: files reads its images."
        try:
            path, inner = self.locate(folder)
        except FileNotFoundError:
            while not os.path.isdir(parent := os.path.dirname(folder) or "."):
                folder = parent
            name = os.path.basename(folder)
            return f"There is no '{name}' in {parent}.{suggest(name, sorted(os.listdir(parent)))}"
        present = sorted(name for name in self.folders(path) if name)
        if not inner:
            return f"{path} has no image outside of its folders.{suggest('', present)}"
        return f"{path} has no folder '{inner}'.{suggest(inner, present)}"

    def flaw(self, reference: str, inside: str) -> Flaw | None:
        """A container file, named by a row, that is a link out of the images' folder."""
        path, top = self.locate(os.path.dirname(reference))[0], inside.rstrip("/")
        if path == top or not is_within(path, top) or is_within(os.path.realpath(path), os.path.realpath(top)):
            return None
        return Flaw("the path is a link that leaves the images' folder", f"Copy {path} into {inside}.")
