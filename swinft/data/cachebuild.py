"""How the file of a pixel cache is made: threads that decode, a file that is whole.

The file is a header of one page (JSON), all pixels one after another in the rows' order, and an index (int32 height and
width of each row, then the errors as JSON). A builder that is killed leaves a file of another name.
"""

import hashlib
import itertools
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.images import ImageError, ImageRules
from swinft.data.shrink import picture
from swinft.errors import InputError

HEADER = 4096  # bytes: one page, so that the pixels start on one
FORMAT = "swinft-pixels-1"


def build(
    path: Path,
    paths: Sequence[str | Path],
    image_size: tuple[int, int],
    workers: int | None,
    rules: ImageRules,
    is_unchanged: Callable[[], bool],
) -> None:
    """Decodes files into a cache file, which appears whole and flushed or not at all.

    Args:
        path: Of the cache file; its stem is the key.
        paths: N image files.
        image_size: Height and width of training, in pixels.
        workers: Number of threads; None for one per core.
        rules: Which images can be used, and how.
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
            pictures = _in_order(pool, lambda one: picture_or_error(one, image_size, rules), paths, ahead=4 * threads)
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


def picture_or_error(path: str | Path, image_size: tuple[int, int], rules: ImageRules) -> NDArray[np.uint8] | str:
    """What is cached of a file: uint8 (H, W, 3), or what is wrong with it."""
    try:
        return picture(path, image_size, rules)
    except ImageError as error:
        return str(error)


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
    for row, pixels in enumerate(pictures):
        if isinstance(pixels, str):
            errors[row] = pixels
            shapes.append((0, 0))
        else:
            file.write(pixels.data)
            shapes.append(pixels.shape[:2])
    end = file.tell()
    index = np.array(shapes, dtype="<i4").tobytes() + json.dumps(errors).encode()
    header = {"format": FORMAT, "key": key, "rows": len(shapes), "data_bytes": end - HEADER, "index_bytes": len(index)}
    file.write(index)
    file.seek(0)
    file.write(json.dumps(header | {"index_sha256": hashlib.sha256(index).hexdigest()}).encode().ljust(HEADER))
