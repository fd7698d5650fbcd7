"""The index of image files: one fixed-size record per file, and its text form `images.csv`.

Shapes: N files.
"""

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from swinft.data.inspection.statistics import STATISTICS
from swinft.data.sources.source import is_absent

BLOCK = 10_000  # lines of an `images.csv` whose text is made at once
HASH_SIDE = 16  # the perceptual hash has its square of bits
SIGNATURE = ("bytes", "modified_ns", "changed_ns", "inode", "device")  # int64 each; −1 if the file is missing

RECORD = np.dtype(
    [
        ("signature", "<i8", (len(SIGNATURE),)),
        ("content", "u1", (16,)),  # first bytes of the SHA-256 of the file
        ("pixels", "u1", (32,)),  # SHA-256 of the decoded image as training sees it
        ("perceptual", "<u8", (HASH_SIDE * HASH_SIDE // 64,)),  # few bits differ between similar images
        ("is_usable", "?"),  # if not, all fields but `signature` and `content` are 0
        ("is_flat", "?"),  # too little contrast for a perceptual hash, which is then 0
        ("is_blank", "?"),  # one single colour
        ("is_rotated", "?"),  # EXIF rotates or flips the image
        ("height", "<i4"),  # of the file in pixels, after EXIF orientation
        ("width", "<i4"),
        ("stored", "<i4", (2,)),  # height and width in pixels as training sees the image
        ("frames", "<i4"),
        ("bits", "u1"),  # the next four as `ImageInfo` has them
        ("dropped_bands", "u1"),
        ("used_bits", "u1"),
        ("altered", "<f4"),
        ("statistics", "<f4", (len(STATISTICS),)),  # of the pixels as training sees them
        ("mode", "S12"),  # Pillow's name of the pixel format
        ("format", "S8"),
    ]
)
SIZES = ("height", "width")  # of the file in pixels; these and the statistics are empty for unusable files
COLUMNS = ("split", "id", *SIGNATURE, "content", "pixels", "perceptual", *SIZES, *STATISTICS, "problem")
EXTENSIONS = {"JPEG": {".jpg", ".jpeg", ".jfif"}, "MPO": {".jpg", ".jpeg"}, "TIFF": {".tif", ".tiff"}}


@dataclass(frozen=True)
class ImageIndex:
    """Results of scanning N image files.

    Args:
        records: (N,) of `RECORD`.
        errors: Why a file cannot be used, by its position.
    """

    records: NDArray[np.void]
    errors: dict[int, str]

    def __len__(self) -> int:
        return len(self.records)

    @property
    def shapes(self) -> NDArray[np.int32]:
        """Height and width in pixels as training sees them, int32 (N, 2); 0 × 0 for unusable files."""
        return np.ascontiguousarray(self.records["stored"])

    def take(self, images: NDArray[np.int64]) -> "ImageIndex":
        """That of some images, in the order that is given."""
        places = enumerate(images.tolist())
        return ImageIndex(self.records[images], {new: self.errors[old] for new, old in places if old in self.errors})

    @property
    def needed_bytes(self) -> int:
        """Size of the decoded images with 8 bits per sample."""
        return int(3 * self.records["stored"].astype(np.int64).prod(axis=1).sum())

    def summary(self, paths: Sequence[str | Path]) -> dict[str, object]:
        """Counts of sizes, formats and pixel modes."""
        good = self.records[self.records["is_usable"]]
        sizes, formats = np.unique(good[["height", "width"]]), Counter(good["format"].tolist())
        files = zip(paths, self.records["is_usable"].tolist(), self.records["format"].tolist(), strict=True)
        ordered = sizes[np.argsort(sizes["height"].astype(np.int64) * sizes["width"], kind="stable")]
        named = [f"{size['width']}×{size['height']}" for size in (*ordered[:1], *ordered[-1:])]
        return {
            "files": len(self) - sum(map(is_absent, self.errors.values())),
            "unreadable": sum(not is_absent(error) for error in self.errors.values()),
            "smallest": named[0] if named else "",
            "largest": named[-1] if named else "",
            "sizes": len(sizes),
            "formats": {name.decode(): count for name, count in formats.most_common()},
            "modes": {name.decode(): count for name, count in Counter(good["mode"].tolist()).most_common()},
            "rotated by EXIF": int(good["is_rotated"].sum()),
            "animated, first frame used": int((good["frames"] > 1).sum()),
            "named for another format": sum(
                is_usable and not _is_named_for(str(path), format.decode()) for path, is_usable, format in files
            ),
        }

    def to_bytes(self) -> bytes:
        """The bytes that `from_bytes` reads."""
        return self.records.tobytes() + json.dumps(self.errors).encode()

    @classmethod
    def from_bytes(cls, content: bytes, rows: int) -> "ImageIndex":
        """Reads the bytes of `to_bytes`.

        Raises:
            ValueError: The bytes are not an index of so many rows.
        """
        records = np.frombuffer(content, dtype=RECORD, count=rows)
        errors = {int(row): str(error) for row, error in json.loads(content[records.nbytes :]).items()}
        return cls(records, errors)


class Known(NamedTuple):
    """One line of an `images.csv`."""

    id: str
    signature: tuple[int, ...]  # as many as the file has columns for
    content: str
    pixels: str
    problem: str


def image_blocks(splits: Mapping[str, tuple[Sequence[str], ImageIndex]]) -> Iterator[str]:
    """The text of an `images.csv`, some lines at a time: one per image, with what identifies its content.

    Args:
        splits: Ids and index of `train` and `test`.
    """
    yield _csv([COLUMNS])
    for split, (ids, index) in splits.items():
        for start in range(0, len(index), BLOCK):
            records = index.records[start : start + BLOCK]
            states, names = records["signature"].tolist(), ids[start : start + BLOCK]
            lines = zip(names, states, _codes(records), _numbers(records), strict=True)
            yield _csv(
                (split, id, *state, *codes, *numbers, index.errors.get(row, ""))
                for row, (id, state, codes, numbers) in enumerate(lines, start)
            )


def _csv(lines: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def read_images(path: Path, split: str) -> Iterator[Known]:
    """The lines of one split in an `images.csv`; files of earlier versions have fewer columns."""
    for line in read_lines(path, split):
        signature = tuple(int(line[name]) for name in SIGNATURE if name in line)
        yield Known(line["id"], signature, line.get("content", ""), line["pixels"], line["problem"])


def read_lines(path: Path, split: str) -> Iterator[dict[str, str]]:
    """The cells of the lines of one split in an `images.csv`, by column."""
    with path.open(encoding="utf-8", newline="") as file:
        yield from (line for line in csv.DictReader(file) if line["split"] == split)


def differing(records: NDArray[np.void], known: Sequence[Known]) -> list[int]:
    """Positions of files whose image has changed: both their bytes and their pixels differ.

    Args:
        records: (N,) of `RECORD`, from the current files.
        known: N recorded lines.
    """
    now = zip(_codes(records), known, strict=True)
    return [
        row
        for row, ((content, pixels, _), before) in enumerate(now)
        if pixels != before.pixels and (not content or content != before.content)
    ]


def _codes(records: NDArray[np.void]) -> Iterator[tuple[str, str, str]]:
    """Content, pixel and perceptual hash of each file in hexadecimal; empty if missing."""
    is_usable = records["is_usable"]
    content = _hexadecimal(records["content"], np.asarray(records["content"].any(axis=1)))
    pixels = _hexadecimal(records["pixels"], is_usable)
    return zip(content, pixels, _hexadecimal(records["perceptual"], is_usable & ~records["is_flat"]), strict=True)


def _numbers(records: NDArray[np.void]) -> Iterator[list[str]]:
    """Height, width and statistics of each file as text; empty if it is unusable."""
    none = [""] * (len(SIZES) + len(STATISTICS))
    sizes = zip(*(records[name].tolist() for name in SIZES), strict=True)
    for is_usable, size, values in zip(
        records["is_usable"].tolist(), sizes, records["statistics"].tolist(), strict=True
    ):
        yield [*map(str, size), *(f"{value:.5g}" for value in values)] if is_usable else none


def _hexadecimal(values: NDArray[Any], is_there: NDArray[np.bool_]) -> Iterator[str]:
    """Rows of an array (N, …) in hexadecimal, missing ones empty; a hundred times as fast as row by row."""
    whole = values.tobytes().hex()
    digits = len(whole) // len(values) if len(values) else 0
    return (whole[row * digits : (row + 1) * digits] * there for row, there in enumerate(is_there.tolist()))


def _is_named_for(path: str, format: str) -> bool:
    suffix = os.path.splitext(path)[1].lower()
    return not suffix or suffix in EXTENSIONS.get(format, {f".{format.lower()}"})
