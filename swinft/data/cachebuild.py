"""How the file of a pixel cache is made: what is cached of a picture, threads that decode, a file that is whole.

The file is a header of one page (JSON), all pixels one after another in the rows' order, and an index (int32 height and
width of each row, then the errors as JSON). A builder that is killed leaves a file of another name.
"""

import hashlib
import itertools
import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from swinft.data.images import ImageError, decode_reduced
from swinft.errors import InputError

cv2.setNumThreads(0)  # as in augment.py; here each of the threads would start a pool of its own

MARGIN = 1.14  # 256 pixels for 224: random crops have room, and evaluation shrinks once more instead of enlarging
# Part of the key: changed with anything below that changes pixels.
GEOMETRY = f"covers {MARGIN} of the training size, area, never enlarged, JPEG at 1/2, 1/4, 1/8"
HEADER = 4096  # bytes: one page, so that the pixels start on one
FORMAT = "swinft-pixels-1"


def least(image_size: tuple[int, int]) -> tuple[int, int]:
    """Height and width in pixels that a cached picture covers, for a training size."""
    return math.ceil(MARGIN * image_size[0]), math.ceil(MARGIN * image_size[1])


def cached_shape(height: int, width: int, image_size: tuple[int, int]) -> tuple[int, int]:
    """Height and width in pixels at which a picture of a height and width is cached, for a training size."""
    least_height, least_width = least(image_size)
    scale = max(least_height / height, least_width / width)
    if scale >= 1:
        return height, width
    return max(least_height, round(height * scale)), max(least_width, round(width * scale))


def build(
    path: Path,
    paths: Sequence[str | Path],
    image_size: tuple[int, int],
    workers: int | None,
    is_unchanged: Callable[[], bool],
) -> None:
    """Decodes files into a cache file, which appears whole and flushed or not at all.

    Args:
        path: Of the cache file; its stem is the key.
        paths: N image files.
        image_size: Height and width of training, in pixels.
        workers: Number of threads; None for one per core.
        is_unchanged: Whether the files are still those that the key was made of; asked at the end.

    Raises:
        InputError: They are not.
        OSError: The disk is full or refuses to write.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # in the same folder: only there renaming is atomic
    threads = workers or os.cpu_count() or 1
    try:
        with temporary.open("wb") as file, ThreadPoolExecutor(threads) as pool:
            # Futures in flight are bounded, or a slow disk would fill the memory with pictures.
            pictures = _in_order(pool, lambda one: picture(one, image_size), paths, ahead=4 * threads)
            _write(file, path.stem, pictures)
            file.flush()
            os.fsync(file.fileno())
        if not is_unchanged():
            raise InputError("an image file changed while the pixel cache was built. Run again once they are at rest.")
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if hasattr(os, "O_DIRECTORY"):  # the name is to be as durable as the content; Windows cannot flush a folder
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def picture(path: str | Path, image_size: tuple[int, int]) -> NDArray[np.uint8] | str:
    """What is cached of a file: uint8 (H, W, 3), or what is wrong with it."""
    try:
        pixels, full = decode_reduced(path, least(image_size))
    except ImageError as error:
        return str(error)
    height, width = cached_shape(*full, image_size)  # of the full size: the reduced one has been rounded
    if (height, width) != pixels.shape[:2]:
        pixels = np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return pixels


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[[Any], Any], items: Sequence[Any], ahead: int
) -> Iterator[Any]:
    """Results in the items' order, at most `ahead` of them computed before they are asked for."""
    pending: deque[Future[Any]] = deque()
    rest = iter(items)
    pending.extend(pool.submit(function, item) for item in itertools.islice(rest, ahead))
    while pending:
        yield pending.popleft().result()
        pending.extend(pool.submit(function, item) for item in itertools.islice(rest, 1))


def _write(file: IO[bytes], key: str, pictures: Iterator[NDArray[np.uint8] | str]) -> None:
    """Writes header, pixels and index; the header last, when it is known."""
    file.write(bytes(HEADER))
    shapes, errors = [], {}
    for row, picture in enumerate(pictures):
        if isinstance(picture, str):
            errors[row] = picture
            shapes.append((0, 0))
        else:
            file.write(picture.data)
            shapes.append(picture.shape[:2])
    end = file.tell()
    index = np.array(shapes, dtype="<i4").tobytes() + json.dumps(errors).encode()
    header = {"format": FORMAT, "key": key, "rows": len(shapes), "data_bytes": end - HEADER, "index_bytes": len(index)}
    file.write(index)
    file.seek(0)
    file.write(json.dumps(header | {"index_sha256": hashlib.sha256(index).hexdigest()}).encode().ljust(HEADER))
