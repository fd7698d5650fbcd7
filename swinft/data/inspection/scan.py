"""Scans image files in threads: each is read and decoded once for all checks and hashes."""

import hashlib
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from swinft.class_spec import errors_of
from swinft.data.images.decode import probe
from swinft.data.images.depth import Pixels, level
from swinft.data.images.resize import load_image_and_info
from swinft.data.images.rules import RULES, ImageRules
from swinft.data.inspection.index import HASH_SIDE, RECORD, SIGNATURE, ImageIndex
from swinft.data.inspection.statistics import statistics
from swinft.data.sources.files import FILES
from swinft.data.sources.source import ImageError, Source, read_image
from swinft.errors import InputError, listed
from swinft.system.limits import available_cores
from swinft.system.progress import Progress

FLAT = 4  # standard deviation in levels; the perceptual hash of a flatter image is noise
BLANK = 2  # levels between the smallest and largest value of each colour: a JPEG of one colour has no more
STEP = 64  # files that count as a batch of the progress
FIRST_LINE_SECONDS = 15.0  # before the first line, if there is no terminal
STATS = 512  # files per thread task when reading file states

Item = TypeVar("Item")
Result = TypeVar("Result")

# The perceptual hash of Krawetz and of the package imagehash: signs of the lowest frequencies of the cosine transform
# of a small grey image, about their median. Implemented here because the package takes four times as long.
_SIDE = 4 * HASH_SIDE
_COSINES = np.cos(np.pi * (2 * np.arange(_SIDE) + 1) * np.arange(HASH_SIDE)[:, None] / (2 * _SIDE)).astype(np.float32)


@dataclass(frozen=True)
class ImageSet:
    """Image files and how they are decoded; signatures and names are computed once.

    Args:
        paths: N files.
        root: Folder that their names are relative to.
        image_size: Training height and width in pixels, for which images are shrunk; None for full size.
        rules: Which images can be used, and how.
        source: Where their bytes come from.
    """

    paths: Sequence[str | Path]
    root: Path = Path()
    image_size: tuple[int, int] | None = None
    rules: ImageRules = RULES
    source: Source = FILES

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: Sequence[int]) -> "ImageSet":
        """The images of some rows."""
        return replace(self, paths=[self.paths[row] for row in rows])

    @cached_property
    def signatures(self) -> NDArray[np.int64]:
        """Size, times of modification and of change, inode and device of each file, int64 (N, 5); −1 where missing."""
        return signatures(self.paths, self.source)

    @cached_property
    def names_sha256(self) -> str:
        """SHA-256 of the files' names under `root`, in their order."""
        digest, start = hashlib.sha256(), os.path.join(self.root, "")
        for path in map(str, self.paths):
            name = path.removeprefix(start) if path.startswith(start) else os.path.relpath(path, self.root)
            digest.update(f"{len(name)}:{name}".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def check_unchanged(self) -> None:
        """Checks that the files have not changed since `signatures` was first read.

        Raises:
            InputError: Some have changed; the message names them.
        """
        changed = np.flatnonzero((signatures(self.paths, self.source) != self.signatures).any(axis=1))
        if len(changed):
            names = listed([str(self.paths[row]) for row in changed.tolist()])
            raise InputError(
                f"image files changed while they were decoded: {names}. Run again when nothing writes to them."
            )


def signatures(paths: Sequence[str | Path], source: Source = FILES) -> NDArray[np.int64]:
    """Cheap fingerprints that change with an image, int64 (N, 5); `SIGNATURE` names the columns for files."""
    chunks = [paths[start : start + STATS] for start in range(0, len(paths), STATS)]
    with ThreadPoolExecutor(min(16, len(chunks) or 1)) as pool:  # network disks answer slowly
        found = list(pool.map(lambda chunk: [_signature(str(path), source) for path in chunk], chunks))
    return np.array([one for chunk in found for one in chunk], dtype=np.int64).reshape(-1, len(SIGNATURE))


def _signature(path: str, source: Source) -> tuple[int, ...]:
    what = f"data.loading.source: {type(source).__name__}.stat"
    with errors_of(f"{what} fails for {path}"):
        try:
            found: Any = source.stat(path)
        except (OSError, LookupError, ValueError):
            return (-1,) * len(SIGNATURE)
    is_right = isinstance(found, tuple | list) and 1 <= len(found) <= len(SIGNATURE)
    if not is_right or not all(isinstance(number, int | np.integer) for number in found):
        raise InputError(
            f"{what} returns {found!r} for {path}; it must return one to {len(SIGNATURE)} whole numbers, of which one "
            f"changes if the bytes change."
        )
    whole = (*map(int, found), *[0] * (len(SIGNATURE) - len(found)))
    return tuple(number & (2**63 - 1) for number in whole)  # some file systems number up to 2⁶⁴


def scan(images: ImageSet, workers: int | None = None, on_pixels: Callable[[Pixels], None] | None = None) -> ImageIndex:
    """Scans image files in threads; Pillow releases the GIL while it decodes.

    Args:
        images: The files.
        workers: Number of threads; None for one per core.
        on_pixels: Called with the pixels of each usable image in the order of the files, (H, W, 3).
    """
    records, errors = np.zeros(len(images), dtype=RECORD), dict[int, str]()
    records["signature"] = images.signatures
    threads = workers or available_cores()

    def one(row: int) -> Pixels | str | None:
        found = scan_image(images, row, records[row : row + 1])
        return found if on_pixels or isinstance(found, str) else None

    counter = Progress("images  decoded once", -(-len(images) // STEP), FIRST_LINE_SECONDS)
    with ThreadPoolExecutor(threads) as pool, counter:
        # The number of pending futures is limited, or a slow consumer would fill the memory with images.
        for row, found in enumerate(in_order(pool, one, range(len(images)), ahead=4 * threads)):
            if (row + 1) % STEP == 0:
                counter.add(STEP)
            if isinstance(found, str):
                errors[row] = found
            elif on_pixels and found is not None:
                on_pixels(found)
    return ImageIndex(records, errors)


def scan_image(images: ImageSet, row: int, record: NDArray[np.void]) -> Pixels | str:
    """Reads and decodes an image, and fills `record`, (1,) of `RECORD`.

    Returns:
        Its pixels, (H, W, 3), or why it cannot be used.
    """
    path = images.paths[row]
    try:
        content = read_image(path, images.source)
        record["content"] = np.frombuffer(hashlib.sha256(content).digest()[:16], dtype=np.uint8)
        pixels, info = load_image_and_info(path, content, images.image_size, images.rules)
    except ImageError as error:
        return str(error)
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    record["pixels"] = np.frombuffer(digest.digest(), dtype=np.uint8)
    code = perceptual(pixels)
    if code is None:
        record["is_flat"] = True
        record["is_blank"] = bool((np.ptp(pixels.reshape(-1, 3), axis=0) <= BLANK * level(pixels.dtype)).all())
    else:
        record["perceptual"] = code
    record["stored"] = pixels.shape[:2]
    record["mode"], record["format"] = info.mode.encode(), info.format.encode()
    for name in ("height", "width", "frames", "is_rotated", "bits", "dropped_bands", "used_bits", "altered"):
        record[name] = getattr(info, name)
    record["statistics"] = statistics(pixels)
    record["is_usable"] = True
    return pixels


def headers(images: ImageSet) -> dict[int, str]:
    """Errors found in the headers alone, by position; damaged pixels are not found."""

    def one(path: str | Path) -> str:
        try:
            probe(path, images.rules, images.source)
        except ImageError as error:
            return str(error)
        return ""

    threads = available_cores()
    with ThreadPoolExecutor(threads) as pool:
        return {row: error for row, error in enumerate(in_order(pool, one, images.paths, 4 * threads)) if error}


def perceptual(pixels: Pixels) -> NDArray[np.uint64] | None:
    """Perceptual hash of an image, uint64 (4,); None if its contrast is too low.

    Args:
        pixels: RGB (H, W, 3).
    """
    grey = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    if cv2.meanStdDev(small)[1].item() < FLAT * level(pixels.dtype):
        return None
    lowest = (_COSINES @ small.astype(np.float32) @ _COSINES.T).ravel()
    middle = np.partition(lowest, (lowest.size // 2 - 1, lowest.size // 2))[lowest.size // 2 - 1 : lowest.size // 2 + 1]
    return np.packbits(lowest > middle.mean()).view(np.uint64)


def in_order(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Sequence[Item], ahead: int
) -> Iterator[Result]:
    """Results in the items' order; computes at most `ahead` of them in advance."""
    pending: deque[Future[Result]] = deque()
    rest: Iterator[Any] = iter(items)
    pending.extend(pool.submit(function, item) for item in itertools.islice(rest, ahead))
    while pending:
        yield pending.popleft().result()
        pending.extend(pool.submit(function, item) for item in itertools.islice(rest, 1))
