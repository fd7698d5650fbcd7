"""The pixel cache: one file of decoded images, memory-mapped by folds, workers and runs.

It stores the results of `resize.load_image`: images of various shapes, or one array [N, H, W, 3] where all shapes are
equal. Without a cache the same function runs each time: a cache changes the speed and nothing else. The cache also
stores the index, which describes each image, so that unchanged files are not read again.
"""

import hashlib
import json
import mmap
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from PIL import features

from swinft.data.cache.budget import CacheBudget, Policy, does_not_fit
from swinft.data.cache.build import build
from swinft.data.cache.folder import FORMAT, HEADER, INDEX, PIXELS, leftovers, lock_for_reading, prune_before_build
from swinft.data.images.decode import CONVERSION
from swinft.data.images.depth import WHITE, Pixels
from swinft.data.images.resize import GEOMETRY
from swinft.data.images.rules import RULES, ImageRules
from swinft.data.inspection.index import ImageIndex
from swinft.data.inspection.scan import ImageSet, scan_image
from swinft.data.sources.source import ImageError, is_absent
from swinft.errors import StoreError
from swinft.system.limits import format_bytes

PIXEL_TYPES = {name: np.dtype(name) for name in WHITE}
OFF = "Images are decoded each time they are read"


@dataclass(frozen=True, eq=False)
class PixelCache:
    """Decoded images in a memory-mapped file; only the path is pickled, so that workers share the mapping.

    Args:
        path: The file.
        index: Index of its N images.
        data: All pixels, concatenated, read-only: uint8, or what the image rule `keep` names.
        names_sha256: `ImageSet.names_sha256` of the image files.
    """

    path: Path
    index: ImageIndex
    data: Pixels = field(repr=False)
    names_sha256: str = ""
    shapes: NDArray[np.int32] = field(init=False, repr=False)
    offsets: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shapes", self.index.shapes)
        sizes = self.shapes.astype(np.int64).prod(axis=1) * 3
        object.__setattr__(self, "offsets", np.concatenate([[0], np.cumsum(sizes)]))

    def __len__(self) -> int:
        return len(self.index)

    def __reduce__(self) -> tuple[Callable[[Path], "PixelCache"], tuple[Path]]:
        return open_cache, (self.path,)

    @property
    def errors(self) -> dict[int, str]:
        """Why a file cannot be used, by its position."""
        return self.index.errors

    @property
    def array(self) -> Pixels | None:
        """All images as one view, [N, H, W, 3]; None if their shapes differ."""
        if len(self) == 0 or (self.shapes != self.shapes[0]).any():
            return None
        return self.data.reshape(len(self), *self.shapes[0].tolist(), 3)

    def read(self, index: int) -> Pixels:
        """A row's image, (H, W, 3), as a read-only view.

        Raises:
            ImageError: The file could not be decoded when the cache was built; the message names it.
            IndexError: There is no such row; negative ones mean padding elsewhere and must not wrap around.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        if index in self.errors:
            raise ImageError(self.errors[index])
        height, width = self.shapes[index].tolist()
        return self.data[self.offsets[index] : self.offsets[index + 1]].reshape(height, width, 3)


@dataclass(frozen=True)
class CacheResult:
    """Result of `load_or_build`.

    Args:
        index: Index of the images.
        cache: Their pixels, if cached.
        decision: Whether they are cached, and why, as a sentence.
    """

    index: ImageIndex
    cache: PixelCache | None
    decision: str


def cache_key(images: ImageSet) -> str:
    """SHA-256 of everything that determines the pixels, in hexadecimal.

    That is: decoder, conversion rules, geometry, training size and source; and for each file, in row order, its name
    under the root, size, times of modification and change, inode and device. A renamed folder keeps its cache; a copy
    gets a new one.
    """
    pillow = f"pillow {PIL.__version__}, jpeg {features.version('jpg')} {features.version('libjpeg_turbo')}"
    decoder = [FORMAT, pillow, f"conversion {CONVERSION}", f"torch {torch.__version__}", GEOMETRY]
    decoder += [images.source.identity] if images.source.identity else []
    settings = [*decoder, images.image_size and list(images.image_size), images.rules.identity, images.names_sha256]
    return hashlib.sha256(json.dumps(settings).encode() + images.signatures.tobytes()).hexdigest()


def cache_path(folder: Path, key: str, suffix: str = PIXELS) -> Path:
    """The file of a key."""
    return folder / f"{key}{suffix}"


def prepare(
    paths: Sequence[str | Path],
    root: Path,
    image_size: tuple[int, int],
    folder: Path,
    workers: int | None = None,
    rules: ImageRules = RULES,
) -> PixelCache:
    """Builds or loads the cache of some files, which is required.

    Args:
        paths: N image files.
        root: Folder that their names are relative to.
        image_size: Training height and width in pixels.
        folder: Folder of the caches; created if missing.
        workers: Number of threads; None for one per core.
        rules: Which images can be used, and how.

    Raises:
        InputError: The cache does not fit, or a file changed during decoding.
        OSError: The folder cannot be written to; no partial file remains.
    """
    cache = load_or_build(ImageSet(paths, root, image_size, rules), folder, True, workers).cache
    assert cache is not None
    return cache


def load_or_build(images: ImageSet, folder: Path, policy: Policy, workers: int | None = None) -> CacheResult:
    """Loads the cache of some images; builds it if it is missing or unusable.

    If several processes call this at once, one decodes, and the others wait and map its file. A file gets its final
    name only when it is complete and flushed: a killed build leaves nothing that would be used.

    Args:
        images: The files.
        folder: Folder of the caches; created if missing.
        policy: Whether pixels are cached: True, False for the index alone, or `auto` for yes if they fit.
        workers: Number of threads; None for one per core.

    Raises:
        InputError: The policy is True and the cache does not fit; or a file changed during decoding.
        OSError: The folder cannot be written to; no partial file remains.
    """
    folder, key = folder.absolute(), cache_key(images)  # workers may have another working directory
    if found := _load(images, folder, key, policy):
        return found
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / f".{key}.lock"):
        if found := _load(images, folder, key, policy):  # another process may have built it meanwhile
            return found
        for left in leftovers(folder, key):
            left.unlink(missing_ok=True)
        prune_before_build(folder)
        budget = None if policy is False else CacheBudget.of(folder, exists=False, is_required=policy is True)
        index, path, problem = build(images, key, folder, budget, workers)
        if path is None or path.suffix == INDEX:
            return CacheResult(index, None, f"{OFF}: {problem}." if problem else "")
        cache_path(folder, key, INDEX).unlink(missing_ok=True)  # the cache contains the index too
        cache = open_cache(path)
        return CacheResult(cache.index, cache, _decision(cache, CacheBudget.of(folder, exists=True)))


def open_cache(path: Path) -> PixelCache:
    """Maps a cache file after checking header, size and index; while mapped, it is not pruned.

    Raises:
        StoreError: It is missing, truncated, of another format or damaged outside the pixels.
    """
    try:
        with path.open("rb") as file:
            lock_for_reading(file)
            header = json.loads(file.read(HEADER))
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        end = HEADER + header["data_bytes"]
        content = mapped[end : end + header["index_bytes"]]
        if header["format"] != FORMAT or header["key"] != path.stem or len(mapped) != end + header["index_bytes"]:
            raise ValueError("header or size do not fit")
        if hashlib.sha256(content).hexdigest() != header["index_sha256"]:
            raise ValueError("its index is damaged")
        dtype = PIXEL_TYPES[header.get("dtype", "uint8")]
        index, names = ImageIndex.from_bytes(content, header["rows"]), str(header["names"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"the pixel cache {path} cannot be used: {error}. Delete it; it is built again.") from error
    with suppress(OSError):
        os.utime(path)  # the time of last use, for pruning
    data = np.frombuffer(mapped, dtype, header["data_bytes"] // dtype.itemsize, HEADER)
    return PixelCache(path, index, data, names)


def _load(images: ImageSet, folder: Path, key: str, policy: Policy) -> CacheResult | None:
    """The existing cache file's content; None if images must be read."""
    cache = _open_if_whole(cache_path(folder, key)) or _open_if_whole(cache_path(folder, key, INDEX))
    if cache is None or _is_outdated(images, cache.index):
        return None
    has_pixels = cache.path.suffix == PIXELS
    if policy is False:
        return CacheResult(cache.index, None, "")
    budget = CacheBudget.of(folder, exists=has_pixels)
    shortage = budget.shortage(cache.index.needed_bytes * images.rules.dtype.itemsize)
    if shortage and policy is True:
        raise does_not_fit(shortage)
    if shortage:
        return CacheResult(cache.index, None, f"{OFF}: {shortage}.")
    return CacheResult(cache.index, cache, _decision(cache, budget)) if has_pixels else None


def _decision(cache: PixelCache, budget: CacheBudget) -> str:
    size, memory = format_bytes(cache.data.nbytes), format_bytes(budget.memory)
    return f"Images are decoded once: the decoded images take {size}, of {memory} in memory, and are in {cache.path}"


def _is_outdated(images: ImageSet, index: ImageIndex) -> bool:
    """Whether an unchanged file that could not be read before can be read now."""
    errors = {row: error for row, error in index.errors.items() if not is_absent(error)}
    unread = [row for row in errors if not index.records["content"][row].any()]
    scratch: NDArray[Any] = np.zeros(1, dtype=index.records.dtype)
    whole = replace(images, image_size=None)
    return any(not isinstance(scan_image(whole, row, scratch), str) for row in unread)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds a cache's lock; prints a note if it must wait for it."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"waiting for another process that is decoding the same images into {path.parent}", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _open_if_whole(path: Path) -> PixelCache | None:
    try:
        return open_cache(path) if path.exists() else None
    except StoreError as error:
        print(f"WARNING: {error} Decoding again.", file=sys.stderr)
        return None
