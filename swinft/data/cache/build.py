"""Builds a pixel cache: scans every image and writes one complete file.

The file is a header of one page (JSON), all pixels concatenated in row order, and the index, which describes each
image. If the pixels do not fit, the same file without pixels stores the index. A killed build leaves only a file with
a temporary name.
"""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

import numpy as np

from swinft.data.cache.budget import CacheBudget, does_not_fit
from swinft.data.cache.folder import FORMAT, HEADER, INDEX, PIXELS, temporary_file
from swinft.data.images.depth import Pixels
from swinft.data.inspection.index import ImageIndex
from swinft.data.inspection.scan import ImageSet, scan

MIN_SAMPLE = 256  # images after which the total size is estimated well enough to stop at twice the budget


def build(
    images: ImageSet, key: str, folder: Path, budget: CacheBudget | None, workers: int | None = None
) -> tuple[ImageIndex, Path | None, str]:
    """Reads and decodes image files once, into a cache file that is written completely or not at all.

    Args:
        images: The files.
        key: Name of the cache file.
        folder: Folder of the cache.
        budget: Limits for the pixels; None to store only the index.
        workers: Number of threads; None for one per core.

    Returns:
        The index; the file, or None if it cannot be written; and why pixels were not stored, if they should be.

    Raises:
        InputError: Files changed during the build; or the pixels do not fit, and the cache is required.
        OSError: The folder cannot be written to; after decoding has begun, only if the cache is required.
    """
    file = _CacheFile(folder, key, budget, len(images))
    try:
        index = scan(images, workers, on_pixels=file.add if budget else None)
        images.check_unchanged()
        about: dict[str, object] = {
            "root": str(images.root.absolute()),
            "image_size": images.image_size,
            "names": images.names_sha256,
        }
        if images.rules.keep:  # without it the header is as it always was
            about["dtype"] = images.rules.keep
        return index, file.finish(index, about), file.problem
    except BaseException:
        file.discard()
        raise


class _CacheFile:
    """A cache file that is being written."""

    def __init__(self, folder: Path, key: str, budget: CacheBudget | None, rows: int) -> None:
        self.folder, self.key, self.budget, self.rows = folder, key, budget, rows
        self.problem = ""
        self.temporary = temporary_file(folder, key)  # in the same folder: renaming is atomic only there
        self.file = self.temporary.open("wb")
        self.file.write(bytes(HEADER))
        self.num_images = self.written = 0

    def add(self, pixels: Pixels) -> None:
        """Writes the pixels of one image, (H, W, 3), unless the images turned out not to fit."""
        if self.problem or self.budget is None:
            return
        try:
            self.file.write(np.ascontiguousarray(pixels).data)
        except OSError as error:
            if self.budget.is_required:
                raise
            self._drop_pixels(f"the decoded images cannot be written to {self.folder}: {error.strerror or error}")
            return
        self.num_images, self.written = self.num_images + 1, self.written + pixels.nbytes
        expected = self.written * self.rows // self.num_images
        is_hopeless = self.num_images >= MIN_SAMPLE and expected > 2 * self.budget.bytes
        if self.written > self.budget.bytes or is_hopeless:
            reason = self.budget.shortage(expected)
            if self.budget.is_required:
                raise does_not_fit(reason)
            self._drop_pixels(reason)

    def _drop_pixels(self, problem: str) -> None:
        """Removes the pixels written so far; only the index is stored."""
        self.problem, self.written = problem, 0
        self.file.seek(HEADER)
        self.file.truncate()

    def finish(self, index: ImageIndex, about: dict[str, object]) -> Path | None:
        """Writes index and header, flushes, and renames the file; the header last, since it holds the sizes."""
        content = index.to_bytes()
        header = {"format": FORMAT, "key": self.key, "rows": len(index), "data_bytes": self.written, **about}
        header |= {"index_bytes": len(content), "index_sha256": hashlib.sha256(content).hexdigest()}
        has_pixels = self.budget is not None and not self.problem
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
            if self.budget is not None and self.budget.is_required:
                raise
            self.discard()
            self.problem = self.problem or f"{self.folder} cannot be written to: {error.strerror or error}"
            return None
        return path

    def discard(self) -> None:
        """Closes and deletes the temporary file."""
        with suppress(OSError):  # flushing the buffer fails on a full disk
            self.file.close()
        self.temporary.unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """Flushes a folder, so that a new file name is durable; not possible on Windows."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
