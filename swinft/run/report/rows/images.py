"""What images.csv says of a run's images: their hashes, their sizes, and the statistics of their pixels, by row.

Shapes: N rows, M images, S columns.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from swinft.data.inspection.duplicates import find_duplicates, row_clusters
from swinft.data.inspection.index import RECORD, SIZES, ImageIndex
from swinft.data.inspection.statistics import STATISTICS
from swinft.data.samples import Rows
from swinft.run.layout import Run
from swinft.store import verify

Array = NDArray[np.float64]
FILE_SIZE = "file size (log2 of bytes)"
OF_FILES = (FILE_SIZE, "width", "height", "aspect ratio", "brightness", "contrast")


@dataclass(frozen=True)
class ImageLines:
    """The lines of a run's images.csv.

    Args:
        table: Its cells as text.
    """

    table: pd.DataFrame

    @classmethod
    def read(cls, run: Run) -> "ImageLines":
        """The lines of a run.

        Raises:
            StoreError: The file is missing, or has changed.
        """
        return cls(pd.read_csv(verify(run.images), dtype=str, keep_default_na=False))

    @property
    def has_statistics(self) -> bool:
        """Whether the statistics of pixels were recorded; earlier versions did not."""
        return set(STATISTICS) <= set(self.table.columns)

    def of(self, split: str, rows: Rows) -> pd.DataFrame | None:
        """The lines of the images of `train` or `test` rows, in their order, (M, …); None if they are of others."""
        lines = self.table[self.table["split"] == split].drop_duplicates("id").set_index("id")
        names = rows.image_names
        return None if not len(lines) or not set(names) <= set(lines.index) else lines.loc[names]

    def statistics(self, split: str, rows: Rows) -> pd.DataFrame | None:
        """Sizes and statistics of the images of each row, (N, S); means where a row shows several.

        NaN where no image of a row is usable; None where nothing is recorded of these rows.
        """
        lines = self.of(split, rows) if self.has_statistics else None
        if lines is None:
            return None
        numbers = lines[["bytes", *SIZES, *STATISTICS]].replace("", "nan").astype(np.float64)
        size = np.log2(numbers["bytes"].where(numbers["bytes"] > 0))  # a source may not know it
        means = [name for name in STATISTICS if name.startswith("mean")]
        spreads = [name for name in STATISTICS if name.startswith("spread")]
        derived = (
            size,
            numbers["width"],
            numbers["height"],
            numbers["width"] / numbers["height"],
            numbers[means].mean(axis=1, skipna=False),
            numbers[spreads].mean(axis=1, skipna=False),
        )
        found = pd.DataFrame(dict(zip(OF_FILES, derived, strict=True)) | {name: numbers[name] for name in STATISTICS})
        found = found.rename(columns={name: name.replace("_", " ") for name in STATISTICS})
        return found.reset_index(drop=True) if rows.shown is None else _of_rows(found, rows.shown.found)


def duplicate_clusters(lines: ImageLines, rows: Rows) -> NDArray[np.int64] | None:
    """The cluster of equal or similar images that each row is in, named by its first row, int64 (N,).

    Images without contrast are no duplicates of others here: that of their pixels is all that could be compared.

    Returns:
        None where images.csv is of other rows.
    """
    found = lines.of("train", rows)
    if found is None:
        return None
    index = ImageIndex(image_records(found), {})
    counts = rows.is_used & ~rows.is_extra
    if rows.shown is None:
        return find_duplicates(index, counts)
    files = rows.shown.of_rows(counts)
    of_images = np.zeros(len(index), dtype=bool)
    of_images[files[files >= 0]] = True
    return row_clusters(find_duplicates(index, of_images), files, index)


def image_records(lines: pd.DataFrame) -> NDArray[np.void]:
    """What duplicates are found by, of lines of images.csv: records (M,) of an index, whose other fields are 0."""
    records = np.zeros(len(lines), dtype=RECORD)
    records["is_usable"] = (lines["perceptual"] != "").to_numpy()  # flat ones have none
    records["pixels"] = _bytes(lines["pixels"], 32)
    records["perceptual"] = _bytes(lines["perceptual"], 32).view(np.uint64)
    return records


def _of_rows(values: pd.DataFrame, files: NDArray[np.int64]) -> pd.DataFrame:
    """The mean of the images that each row shows, int64 (N, V); −1 for none."""
    numbers = values.to_numpy(dtype=np.float64)
    sums, counts = np.zeros((len(files), numbers.shape[1])), np.zeros((len(files), numbers.shape[1]))
    for slot in files.T:
        there = np.flatnonzero(slot >= 0)
        own = numbers[slot[there]]
        sums[there] += np.nan_to_num(own)
        counts[there] += np.isfinite(own)
    with np.errstate(invalid="ignore"):
        return pd.DataFrame(sums / np.where(counts > 0, counts, np.nan), columns=values.columns)


def _bytes(codes: "pd.Series[str]", size: int) -> NDArray[np.uint8]:
    """Hexadecimal codes as bytes, uint8 (M, size); 0 for empty ones."""
    whole = "".join(code if code else "0" * 2 * size for code in codes)
    return np.frombuffer(bytes.fromhex(whole), dtype=np.uint8).reshape(len(codes), size)
