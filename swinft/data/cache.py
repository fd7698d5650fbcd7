"""Every picture decoded once: one file of uint8 pixels that folds, workers, processes and runs map into memory.

What is cached is what `shrink.picture` makes of a file; rows are ragged then, and one array [N, H, W, 3] where all
pictures have one shape. Without a cache the same function runs each time: a cache changes the speed and nothing else.
"""

import hashlib
import json
import mmap
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import PIL
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from PIL import features

from swinft.data.cachebuild import FORMAT, HEADER, build, picture_or_error
from swinft.data.images import CONVERSION, RULES, ImageError, ImageRules
from swinft.data.shrink import GEOMETRY
from swinft.errors import StoreError

SUFFIX = ".pixels"
LOCK = ".building.lock"  # one for the folder, never deleted: who waits on a deleted lock file waits for nothing


@dataclass(frozen=True)
class PixelCache:
    """Decoded pictures in a memory-mapped file; what is pickled is the path, so that workers share the mapping.

    Args:
        path: The file.
        shapes: Height and width of each row in pixels, int32 (N, 2); 0 × 0 where the file cannot be decoded.
        errors: What is wrong with which file, by its position.
        data: All pixels one after another, uint8, read-only.
    """

    path: Path
    shapes: NDArray[np.int32]
    errors: dict[int, str]
    data: NDArray[np.uint8] = field(repr=False)
    offsets: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        sizes = self.shapes.astype(np.int64).prod(axis=1) * 3
        object.__setattr__(self, "offsets", np.concatenate([[0], np.cumsum(sizes)]))

    def __len__(self) -> int:
        return len(self.shapes)

    def __reduce__(self) -> tuple[Callable[[Path], "PixelCache"], tuple[Path]]:
        return open_cache, (self.path,)

    @property
    def array(self) -> NDArray[np.uint8] | None:
        """All rows as one view, uint8 [N, H, W, 3]; None where their shapes differ."""
        if len(self) == 0 or (self.shapes != self.shapes[0]).any():
            return None
        return self.data.reshape(len(self), *self.shapes[0].tolist(), 3)

    def read(self, index: int) -> NDArray[np.uint8]:
        """A row's picture, uint8 (H, W, 3): a read-only view, nothing is copied.

        Raises:
            ImageError: The file could not be decoded when the cache was built; the message names it.
            IndexError: There is no such row; a negative one stands for padding elsewhere and must not wrap around.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        if index in self.errors:
            raise ImageError(self.errors[index])
        height, width = self.shapes[index].tolist()
        return self.data[self.offsets[index] : self.offsets[index + 1]].reshape(height, width, 3)


def cache_key(paths: Sequence[str | Path], root: Path, image_size: tuple[int, int], rules: ImageRules = RULES) -> str:
    """SHA-256 of everything that decides what the pixels are, in hexadecimal.

    That is decoder, conversion rules, geometry, training size, and each file's path, size in bytes and time of change
    in nanoseconds, in the order of the rows. A file rewritten with its old size and time goes unnoticed.

    Args:
        paths: N image files.
        root: Their paths count relative to this folder, so that data that moved keeps its cache.
        image_size: Height and width of training, in pixels.
        rules: Which images can be used, and how.
    """
    pillow = f"pillow {PIL.__version__}, jpeg {features.version('jpg')} {features.version('libjpeg_turbo')}"
    decoder = [FORMAT, pillow, f"conversion {CONVERSION}", f"torch {torch.__version__}", GEOMETRY]
    digest = hashlib.sha256(json.dumps([*decoder, list(image_size), asdict(rules)]).encode())
    for path in paths:
        try:
            stat = os.stat(path)
            state = [stat.st_size, stat.st_mtime_ns]
        except OSError:
            state = []
        digest.update(json.dumps([os.path.relpath(path, root), *state]).encode())
    return digest.hexdigest()


def cache_path(folder: Path, key: str) -> Path:
    """The file of a key."""
    return folder / f"{key}{SUFFIX}"


def prepare(
    paths: Sequence[str | Path],
    root: Path,
    image_size: tuple[int, int],
    folder: Path,
    workers: int | None = None,
    rules: ImageRules = RULES,
) -> PixelCache:
    """Opens the cache of some files, decoding them first where there is none or what there is cannot be used.

    Of several processes that ask at once one decodes, the others wait and map what it wrote. A file counts only under
    its final name, which it gets whole and flushed: a builder that is killed leaves nothing that would be used.

    Args:
        paths: N image files.
        root: As in `cache_key`.
        image_size: Height and width of training, in pixels.
        folder: Where caches are kept. Made if missing.
        workers: Number of threads; None for one per core.
        rules: Which images can be used, and how.

    Raises:
        InputError: A file changed while it was decoded.
        OSError: The disk is full or refuses to write; nothing is left behind.
    """
    key = cache_key(paths, root, image_size, rules)
    path = cache_path(folder.absolute(), key)  # workers may have another working directory

    def usable() -> PixelCache | None:
        cache = _open_if_whole(path)
        rows = cache.errors if cache else ()  # a file may be readable again without having changed
        again = (picture_or_error(paths[row], image_size, rules) for row in rows)
        return None if any(isinstance(pixels, np.ndarray) for pixels in again) else cache

    if (cache := usable()) is not None:
        return cache
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        if (cache := usable()) is None:  # another process may have built it meanwhile
            _delete_remains(folder)
            build(path, paths, image_size, workers, rules, lambda: cache_key(paths, root, image_size, rules) == key)
            cache = open_cache(path)
    return cache


def open_cache(path: Path) -> PixelCache:
    """Maps a cache file after comparing its header, size and index with each other.

    Raises:
        StoreError: It is missing, cut, of another format or damaged outside the pixels.
    """
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(HEADER))
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        end = HEADER + header["data_bytes"]
        index = mapped[end : end + header["index_bytes"]]
        if header["format"] != FORMAT or header["key"] != path.stem or len(mapped) != end + header["index_bytes"]:
            raise ValueError("header or size do not fit")
        if hashlib.sha256(index).hexdigest() != header["index_sha256"]:
            raise ValueError("its index is damaged")
        shapes = np.frombuffer(index, dtype="<i4", count=2 * header["rows"]).reshape(-1, 2)
        errors = {int(row): error for row, error in json.loads(index[shapes.nbytes :]).items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"the pixel cache {path} cannot be used: {error}. Delete it; it is built again.") from error
    data = np.frombuffer(mapped, dtype=np.uint8, count=header["data_bytes"], offset=HEADER)
    return PixelCache(path, shapes, errors, data)


def prune(folder: Path, keep: Collection[str]) -> list[Path]:
    """Deletes the caches of all keys but some, and what killed builders left; returns what was deleted.

    Processes that have mapped a deleted cache keep their pixels until they end.
    """
    old = [path for path in sorted(folder.glob(f"*{SUFFIX}")) if path.stem not in keep]
    for path in old:
        path.unlink(missing_ok=True)
    try:
        with FileLock(folder / LOCK, timeout=0):
            return old + _delete_remains(folder)
    except Timeout:  # what looks like remains is being written
        return old


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the folder's lock; says so when it must be waited for."""
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"waiting for another process that is decoding into {folder}", file=sys.stderr)
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


def _delete_remains(folder: Path) -> list[Path]:
    """Deletes unfinished files; only for who holds the lock."""
    remains = sorted(folder.glob(f".*{SUFFIX}.*.tmp"))
    for path in remains:
        path.unlink(missing_ok=True)
    return remains
