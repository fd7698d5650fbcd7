"""Images inside files that hold many: in a reference such a file is a folder, as in `train.zip/images/{id}.jpg`."""

import errno
import os
from abc import abstractmethod
from collections.abc import Collection

from swinft.data.image_paths import Flaw, is_within
from swinft.data.sources.files import containing_file, state_of
from swinft.data.sources.source import Source
from swinft.errors import InputError, suggest

MAX_BYTES = 2**29  # of an image: the largest that can be used, 89 megapixels of 6 bytes, is no larger uncompressed


class ContainerSource(Source):
    """A source whose images are inside files; nothing is ever extracted to the disk."""

    def __init__(self) -> None:
        self._places: dict[str, tuple[str, str]] = {}  # by folder: the file that it is in, and the folder inside
        self._states: dict[str, tuple[int, ...]] = {}  # by file: what it was when its images were listed

    @abstractmethod
    def listed(self, path: str, inner: str) -> Collection[str] | None:
        """Names of the images in a folder of a file; None where it has no such folder."""

    @abstractmethod
    def folders(self, path: str) -> Collection[str]:
        """Folders of a file that may hold images."""

    def names(self, folder: str) -> Collection[str] | None:
        """As for every source; what the file was is kept, so that it cannot change behind the run."""
        try:
            path, inner = self.place(folder)
        except FileNotFoundError:
            return None
        self.check_state(path, os.stat(path))
        return self.listed(path, inner)

    def place(self, folder: str) -> tuple[str, str]:
        """The file that a folder is in, and the folder inside of it.

        Raises:
            FileNotFoundError: No part of the folder's path is a file.
        """
        if folder not in self._places:
            path = containing_file(folder)
            if path is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), folder)
            self._places[folder] = path, folder[len(path) :].strip("/")
        return self._places[folder]

    def stat(self, reference: str) -> tuple[int, ...]:
        """The state of the file that the image is in."""
        return state_of(os.stat(self.place(os.path.dirname(reference))[0]))

    def check_state(self, path: str, stat: os.stat_result) -> None:
        """Compares a file with what it was when it was first looked at.

        Raises:
            InputError: It has changed.
        """
        now = state_of(stat)
        if self._states.setdefault(path, now) != now:
            raise InputError(f"{path} has changed while images were read from it. Run again once it is at rest.")

    def missing(self, folder: str) -> str:
        """Which file is not there, or which folder it lacks."""
        if os.path.isdir(folder):
            return f"{folder} is a folder of the disk, whose images data.loading.source: files reads."
        try:
            path, inner = self.place(folder)
        except FileNotFoundError:
            while not os.path.isdir(parent := os.path.dirname(folder) or "."):
                folder = parent
            name = os.path.basename(folder)
            return f"There is no '{name}' in {parent}.{suggest(name, sorted(os.listdir(parent)))}"
        there = sorted(name for name in self.folders(path) if name)
        if not inner:
            return f"{path} has no image outside of its folders.{suggest('', there)}"
        return f"{path} has no folder '{inner}'.{suggest(inner, there)}"

    def flaw(self, reference: str, inside: str) -> Flaw | None:
        """A file that a row names and that is a link out of the images' folder."""
        path, top = self.place(os.path.dirname(reference))[0], inside.rstrip("/")
        if path == top or not is_within(path, top) or is_within(os.path.realpath(path), os.path.realpath(top)):
            return None
        return Flaw("the path is a link that leaves the images' folder", f"Copy {path} into {inside}.")
