"""A look at many image files: what they are, which cannot be used, and which show the same picture."""

import csv
import hashlib
import io
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from swinft.data.cache import PixelCache
from swinft.data.images import RULES, ImageError, ImageInfo, ImageRules, probe
from swinft.data.shrink import picture

HASH_SIDE = 16  # the perceptual hash has its square of bits
FLAT = 4  # grey levels of standard deviation; the hash of a flatter picture is noise, and all of them look alike
COLUMNS = ("split", "id", "bytes", "modified_ns", "pixels", "perceptual", "problem")
EXTENSIONS = {"JPEG": {".jpg", ".jpeg", ".jfif"}, "MPO": {".jpg", ".jpeg"}, "TIFF": {".tif", ".tiff"}}


@dataclass(frozen=True)
class Seen:
    """What is known of one image file.

    Args:
        bytes: Its size; −1 where it cannot be read.
        modified_ns: When it was last changed, nanoseconds since 1970.
        pixels: SHA-256 of the picture as training sees it: equal for the same picture, whatever name and metadata the
            file has. Empty where only the header was read.
        perceptual: Perceptual hash in hexadecimal; few bits differ between pictures that look alike. Empty where flat.
        problem: Why it cannot be used; empty where it can.
        info: What its header says.
    """

    bytes: int
    modified_ns: int
    pixels: str = ""
    perceptual: str = ""
    problem: str = ""
    info: ImageInfo | None = None


@dataclass(frozen=True)
class Scan:
    """What a look at many image files found, in their order."""

    paths: list[str]
    files: list[Seen]

    @property
    def errors(self) -> dict[int, str]:
        """What is wrong with which file, by its position."""
        return {index: seen.problem for index, seen in enumerate(self.files) if seen.problem}

    def summary(self) -> dict[str, object]:
        """Sizes, formats and pixel modes, counted."""
        good = [(path, seen.info) for path, seen in zip(self.paths, self.files, strict=True) if seen.info]
        infos = [info for _, info in good]
        sizes = sorted({(info.width * info.height, f"{info.width}×{info.height}") for info in infos})
        return {
            "files": len(self.files),
            "unreadable": len(self.errors),
            "smallest": sizes[0][1] if sizes else "",
            "largest": sizes[-1][1] if sizes else "",
            "sizes": len(sizes),
            "formats": dict(Counter(info.format for info in infos).most_common()),
            "modes": dict(Counter(info.mode for info in infos).most_common()),
            "rotated by EXIF": sum(info.is_rotated for info in infos),
            "animated, first frame used": sum(info.frames > 1 for info in infos),
            "named for another format": sum(not _is_named_for(path, info) for path, info in good),
        }


def scan(
    paths: Sequence[str | Path],
    decode_pixels: bool = True,
    workers: int | None = None,
    rules: ImageRules = RULES,
    image_size: tuple[int, int] | None = None,
    cache: PixelCache | None = None,
) -> Scan:
    """Looks at many image files in threads; Pillow decodes without the interpreter's lock.

    Args:
        paths: The files.
        decode_pixels: Decode everything, or read the headers only.
        workers: Number of threads; None for one per core.
        rules: Which images can be used, and how.
        image_size: Look at the pictures as they are shrunk for training at this size; None for all their pixels.
        cache: Where they are decoded already.
    """

    def look(row: int) -> Seen:
        path = paths[row]
        size, modified = stat_of(path)
        try:
            if not decode_pixels:
                return Seen(size, modified, info=probe(path, rules))
            pixels = cache.read(row) if cache else picture(path, image_size, rules)
            return _seen(size, modified, pixels, probe(path, rules))
        except ImageError as error:
            return Seen(size, modified, problem=str(error))

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        files = list(pool.map(look, range(len(paths))))
    return Scan([str(path) for path in paths], files)


def _seen(size: int, modified: int, pixels: NDArray[np.uint8], info: ImageInfo) -> Seen:
    digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
    return Seen(size, modified, digest, _perceptual(pixels), info=info)


def stat_of(path: str | Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds; (−1, −1) where the file cannot be asked."""
    try:
        stat = os.stat(path)
    except OSError:
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def changed(
    known: Mapping[str, Seen],
    ids: Sequence[str],
    paths: Sequence[str],
    rules: ImageRules,
    image_size: tuple[int, int] | None,
) -> list[str]:
    """Ids whose pictures are no longer those that a scan saw, with the same rules and at the same size.

    Only files with another size or time are decoded again: a copy on another machine has other times, and is the same.
    """
    suspects = [
        (id, path)
        for id, path in zip(ids, paths, strict=True)
        if (known[id].bytes, known[id].modified_ns) != stat_of(path)
    ]
    now = scan([path for _, path in suspects], rules=rules, image_size=image_size).files
    return [id for (id, _), seen in zip(suspects, now, strict=True) if seen.pixels != known[id].pixels]


def write_images(splits: Mapping[str, tuple[Sequence[str], Scan]]) -> str:
    """The text of an `images.csv`: one line per image, with what is needed to know it again.

    Args:
        splits: Ids and scan of `train` and `test`.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for split, (ids, found) in splits.items():
        for id, seen in zip(ids, found.files, strict=True):
            cells = (seen.bytes, seen.modified_ns, seen.pixels, seen.perceptual, seen.problem)
            writer.writerow((split, id, *cells))
    return text.getvalue()


def read_images(path: Path, split: str) -> dict[str, Seen]:
    """What an `images.csv` says of one split, by id."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    return {
        row["id"]: Seen(int(row["bytes"]), int(row["modified_ns"]), row["pixels"], row["perceptual"], row["problem"])
        for row in rows
    }


def _perceptual(pixels: NDArray[np.uint8]) -> str:
    image = Image.fromarray(pixels).convert("L").resize((4 * HASH_SIDE, 4 * HASH_SIDE), Image.Resampling.LANCZOS)
    if np.asarray(image).std() < FLAT:
        return ""
    return str(imagehash.phash(image, hash_size=HASH_SIDE))


def _is_named_for(path: str, info: ImageInfo) -> bool:
    suffix = Path(path).suffix.lower()
    return not suffix or suffix in EXTENSIONS.get(info.format, {f".{info.format.lower()}"})
