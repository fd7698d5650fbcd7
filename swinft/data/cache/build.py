"""How the file of a pixel cache is made: a look at every image, and a file that is whole.

The file is a header of one page (JSON), all pixels one after another in the rows' order, and the index: what was found
out about each image. Where there is no room for the pixels the same file without them keeps the index. A builder that
is killed leaves a file of another name.
"""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swinft.data.cache.budget import CacheBudget, does_not_fit
from swinft.data.cache.folder import FORMAT, HEADER, INDEX, PIXELS
from swinft.data.inspection.index import ImageIndex
from swinft.data.inspection.scan import ImageSet, scan

MIN_SAMPLE = 256  # images after which what all of them take is known well enough to give up at twice the room


def build(
    images: ImageSet, key: str, folder: Path, room: CacheBudget | None, workers: int | None = None
) -> tuple[ImageIndex, Path | None, str]:
    """Reads and decodes image files once, into a cache file that appears whole and flushed or not at all.

    Args:
        images: The files.
        key: Name of the cache file.
        folder: Where it goes.
        room: What the pixels may take; None to keep the index alone.
        workers: Number of threads; None for one per core.

    Returns:
        What was found out; the file, None where it cannot be written; and why it is without pixels that were wanted.

    Raises:
        InputError: Files changed meanwhile; or the pixels do not fit, and `room` must do.
        OSError: The folder cannot be written to. Once images are being decoded that is an error only if `room` must do.
    """
    file = _CacheFile(folder, key, room, len(images))
    try:
        index = scan(images, workers, keep=file.add if room else None)
        images.check_unchanged()
        about: dict[str, object] = {
            "root": str(images.root.absolute()),
            "image_size": images.image_size,
            "names": images.names_sha256,
        }
        return index, file.finish(index, about), file.problem
    except BaseException:
        file.discard()
        raise


class _CacheFile:
    """A cache file in the making."""

    def __init__(self, folder: Path, key: str, room: CacheBudget | None, rows: int) -> None:
        self.folder, self.key, self.room, self.rows = folder, key, room, rows
        self.problem = ""
        self.temporary = folder / f".{key}.{os.getpid()}.tmp"  # in the same folder: only there renaming is atomic
        self.file = self.temporary.open("wb")
        self.file.write(bytes(HEADER))
        self.kept = self.written = 0

    def add(self, pixels: NDArray[np.uint8]) -> None:
        """Keeps the pixels of one image, uint8 (H, W, 3), unless it has turned out that they do not fit."""
        if self.problem or self.room is None:
            return
        try:
            self.file.write(np.ascontiguousarray(pixels).data)
        except OSError as error:
            if self.room.is_required:
                raise
            self._give_up(f"the decoded images cannot be written to {self.folder}: {error.strerror or error}")
            return
        self.kept, self.written = self.kept + 1, self.written + pixels.nbytes
        expected = self.written * self.rows // self.kept
        is_hopeless = self.kept >= MIN_SAMPLE and expected > 2 * self.room.bytes
        if self.written > self.room.bytes or is_hopeless:
            reason = self.room.shortage(expected)
            if self.room.is_required:
                raise does_not_fit(reason)
            self._give_up(reason)

    def _give_up(self, problem: str) -> None:
        """Drops the pixels; the index goes on."""
        self.problem, self.written = problem, 0
        self.file.seek(HEADER)
        self.file.truncate()

    def finish(self, index: ImageIndex, about: dict[str, object]) -> Path | None:
        """Writes index and header, flushes, and gives the file its name; the header last, when it is known."""
        content = index.to_bytes()
        header = {"format": FORMAT, "key": self.key, "rows": len(index), "data_bytes": self.written, **about}
        header |= {"index_bytes": len(content), "index_sha256": hashlib.sha256(content).hexdigest()}
        has_pixels = self.room is not None and not self.problem
        path = self.folder / f"{self.key}{PIXELS if has_pixels else INDEX}"
        try:
            with self.file:
                self.file.write(content)
                self.file.seek(0)
                self.file.write(json.dumps(header).encode().ljust(HEADER))
                self.file.flush()
                os.fsync(self.file.fileno())
            self.temporary.replace(path)
            flush_folder(self.folder)
        except OSError as error:
            if self.room is not None and self.room.is_required:
                raise
            self.discard()
            self.problem = self.problem or f"{self.folder} cannot be written to: {error.strerror or error}"
            return None
        return path

    def discard(self) -> None:
        """Leaves nothing behind."""
        with suppress(OSError):  # what is still in the buffer does not fit either
            self.file.close()
        self.temporary.unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """Makes a new name as durable as the content it stands for; Windows cannot."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
