"""The image files of a datamodule: scanned once, when needed; keeps the index, the cache and the notes."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.cache.budget import Policy
from swinft.data.cache.folder import default_cache_folder
from swinft.data.cache.pixels import OFF, CacheResult, PixelCache, load_or_build, open_cache
from swinft.data.folds import Folds
from swinft.data.images.conversions import conversion_notes
from swinft.data.images.rules import ImageRules
from swinft.data.inspection.duplicates import (
    SHOWN,
    duplicate_notes,
    find_duplicates,
    fold_leaks,
    row_clusters,
    shared_images,
    test_duplicate_notes,
)
from swinft.data.inspection.index import ImageIndex, differing, image_blocks, read_images
from swinft.data.inspection.scan import ImageSet, headers, scan
from swinft.data.pseudo_labels import AWAITS
from swinft.data.samples import Rows
from swinft.data.sources.source import is_absent
from swinft.data.tables.table import DataError, Problem
from swinft.errors import InputError, StoreError, listed

SPLITS = {"train": "images", "test": "test images"}


class ImageFiles:
    """The image files of the training and test rows.

    Args:
        rules: Which images can be used, and how.
        image_size: Training height and width in pixels; None if images are not shrunk for it.
        root: Folder of the data.
        policy: Whether training images are cached: True, False, or `auto` for yes if they fit.
        folder: Folder of the caches; None for the default.
    """

    def __init__(
        self,
        rules: ImageRules,
        image_size: tuple[int, int] | None,
        root: Path,
        policy: Policy,
        folder: str | None,
    ) -> None:
        self.rules, self.image_size, self.root, self.policy = rules, image_size, root, policy
        self.folder = Path(folder).expanduser() if folder else default_cache_folder()
        self.notes: list[str] = []
        self._results: dict[str, CacheResult] = {}
        self._known_path: str | None = None
        self._known_cache: PixelCache | None = None
        self._labels: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """Number of scanned images."""
        return sum(len(found.index) for found in self._results.values())

    @property
    def decision(self) -> str:
        """Whether training images are cached, and why, as a sentence; empty before the first scan."""
        return self._results["train"].decision if "train" in self._results else ""

    def index(self, split: str, rows: Rows) -> ImageIndex:
        """The index of the images of `train` or `test`; scans them at the first call.

        Raises:
            InputError: The policy is True, and the cache does not fit or cannot be written.
        """
        return self._result(split, rows).index

    def cache(self, rows: Rows, makes_it: bool = True) -> PixelCache | None:
        """The pixel cache of the training images; None if they are not cached.

        Args:
            rows: The training rows.
            makes_it: Build it now if it was not requested before.

        Raises:
            InputError: As for `index`.
        """
        if self.policy is False or self.image_size is None:
            return None
        if self._known_path is not None:
            return self._open_known_cache(rows, self._known_path)
        return self._result("train", rows).cache if makes_it or "train" in self._results else None

    def use_known_cache(self, path: str) -> None:
        """Uses the cache that another process of the same run has built, instead of scanning again.

        Args:
            path: File of the training images' cache; empty if they are not cached.
        """
        self._known_path = path

    def _open_known_cache(self, rows: Rows, path: str) -> PixelCache | None:
        if path and self._known_cache is None:
            names = self._images(rows).names_sha256
            try:
                self._known_cache = open_cache(Path(path))
            except StoreError as error:
                print(f"WARNING: {error} Decoding again.", file=sys.stderr)
            if self._known_cache is None or self._known_cache.names_sha256 != names:
                self._known_cache = self._result("train", rows).cache
        return self._known_cache

    def _result(self, split: str, rows: Rows) -> CacheResult:
        if split not in self._results:
            self._results[split] = self._load_or_scan(self._images(rows), split == "train")
        return self._results[split]

    def _images(self, rows: Rows) -> ImageSet:
        return ImageSet(rows.paths, self.root, self.image_size, self.rules, rows.source)

    def _load_or_scan(self, images: ImageSet, is_train: bool) -> CacheResult:
        if self.policy is False:
            return CacheResult(scan(images), None, f"{OFF}: the pixel cache is switched off.")
        may_cache = is_train and self.image_size is not None
        try:
            found = load_or_build(images, self.folder, self.policy if may_cache else False)
        except OSError as error:
            reason = f"the pixel cache cannot be written to {self.folder}: {error.strerror or error}"
            if may_cache and self.policy is True:
                raise InputError(
                    f"{reason}. Set data.loading.cache_dir to another folder, or data.loading.cache to auto (and "
                    f"data.loading.augment_on to cpu)."
                ) from error
            return CacheResult(scan(images), None, f"{OFF}: {reason}. Set data.loading.cache_dir to another.")
        if is_train and not may_cache:
            return CacheResult(
                found.index, None, f"{OFF}: the cache is for shrunk images, and data.loading.shrink is false."
            )
        return found

    def clusters(self, train: Rows) -> NDArray[np.int64]:
        """The cluster of each training row, from `duplicates.find_duplicates`."""
        if self._labels is None:
            self._labels = self._clusters(train, train.is_used & ~train.is_extra)
        return self._labels

    def clusters_with_extra(self, train: Rows) -> NDArray[np.int64]:
        """The same with the rows of extra tables, by which others may hang together."""
        return self._clusters(train, train.is_used)

    def _clusters(self, train: Rows, counts: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The cluster of each training row, by the rows that count."""
        labels = self._of_images(train, counts)
        if train.shown is None:
            return labels
        return row_clusters(labels, train.shown.of_rows(counts), self.index("train", train))

    def _of_images(self, train: Rows, counts: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The cluster of each training image, by the images of rows that count."""
        index = self.index("train", train)
        if train.shown is not None:
            files = train.shown.of_rows(counts)
            counts = np.zeros(len(index), dtype=bool)
            counts[files[files >= 0]] = True
        return find_duplicates(index, counts)

    def bad_images(self, train: Rows, known: Path | None) -> tuple[set[int], set[int]]:
        """Positions of unusable training images, and of parts that files lack; from an `images.csv` or a scan."""
        if known is None:
            errors: dict[int, str] = self.index("train", train).errors
        else:
            lines = {line.id: line.problem for line in read_images(known, "train") if line.problem}
            errors = {place: lines[name] for place, name in enumerate(train.image_names) if name in lines}
        absent = {place for place, error in errors.items() if is_absent(error)}
        return set(errors) - absent, absent

    def check(self, splits: dict[str, Rows], decode: bool, skips_bad: bool) -> None:
        """Checks every image.

        Args:
            splits: The rows of `train` and, if any, of `test`.
            decode: Decode every image; otherwise read only the headers, without storing results.
            skips_bad: Unusable images are notes, not errors.

        Raises:
            DataError: Images cannot be used; all of them are listed.
        """
        problems: list[Problem] = []
        for split, rows in splits.items():
            errors = self.index(split, rows).errors if decode else headers(self._images(rows))
            problems += rows.image_problems(errors)
        if problems and not skips_bad:
            raise DataError(problems)
        masks = any(rows.shown is not None and rows.shown.images.missing == "mask" for rows in splits.values())
        what = "an image of id {} is left out" if masks else "id {} is skipped"
        notes = [f"{what.format(problem.id)}: {problem.fix}" for problem in problems]
        more = [f"and {len(notes) - SHOWN:,} more images are skipped."] * (len(notes) > SHOWN)
        self.notes = notes[:SHOWN] + more
        if decode:
            self.notes += conversion_notes(
                [self.index(split, rows).records for split, rows in splits.items()], self.rules
            )

    def check_duplicates(
        self, splits: dict[str, Rows], folds: Folds, targets: NDArray[Any], refuses_leaks: bool
    ) -> None:
        """Adds notes on duplicate images.

        Raises:
            InputError: Duplicates are in different folds, and `refuses_leaks`.
        """
        train, test = splits["train"], splits.get("test")
        index, labels = self.index("train", train), self.clusters(train)
        if train.shown is None:
            notes = duplicate_notes(labels, index, train.table.ids, folds, targets)
        else:
            counts = train.is_used & ~train.is_extra
            of_images = self._of_images(train, counts)
            rows, images = shared_images(of_images, train.shown.of_rows(counts), index)
            ids = [train.table.ids[row] for row in rows.tolist()]
            notes = duplicate_notes(of_images[images], index.take(images), ids, folds[rows], targets[rows])
        if refuses_leaks and fold_leaks(labels, folds):
            raise InputError("\n  ".join(["the same or similar images are in more than one fold:", *notes]), notes)
        if test is not None:
            # Images to predict may also be waiting for labels among the training rows.
            answered = train.images_of([row for row in range(len(train.table)) if train.skipped.get(row) != AWAITS])
            known, ids = np.unique(np.array(answered, dtype=np.int64)), train.image_ids
            names = [ids[image] for image in known.tolist()]
            notes += test_duplicate_notes(index.take(known), names, self.index("test", test), test.image_ids)
        self.notes += notes

    def summary(self, splits: dict[str, Rows]) -> dict[str, Any]:
        """Sizes, formats and pixel modes of each scanned split."""
        found = {split: self._results[split].index for split in splits if split in self._results}
        return {SPLITS[split]: index.summary(splits[split].paths) for split, index in found.items()}

    def csv_blocks(self, splits: dict[str, Rows]) -> Iterator[str]:
        """The scan results, as the text of an `images.csv`, some lines at a time.

        Args:
            splits: The rows of each split.
        """
        return image_blocks({split: (splits[split].image_names, found.index) for split, found in self._results.items()})

    def check_unchanged(self, train: Rows, known: Path) -> None:
        """Compares the training images with those recorded in an `images.csv`.

        With a cache, this builds it, so that each file is read once for both. Without one, only files whose signature
        differs are read: a copy on another machine has other times, but the same content.

        Raises:
            DataError: Some images have changed.
            InputError: Images have appeared or disappeared.
        """
        place_of = {name: place for place, name in enumerate(train.image_names)}
        every = list(read_images(known, "train"))
        # What wildcards match, and so what rows show, may have changed without a change of the table.
        if train.shown is not None and (other := sorted(place_of.keys() ^ {line.id for line in every})):
            raise InputError(
                f"the rows do not show the images of the run's start: {listed(other)} appeared or disappeared. Restore "
                f"them, or give the new run another --name."
            )
        lines = ((place_of[line.id], line) for line in every)
        if self.policy is False:
            images = self._images(train)
            states = images.signatures
            suspects = [(row, line) for row, line in lines if tuple(states[row].tolist()) != line.signature]
            records = scan(images.take([row for row, _ in suspects])).records
        else:
            suspects = list(lines)
            records = self.index("train", train).records[[row for row, _ in suspects]]
        changed = [suspects[k][0] for k in differing(records, [line for _, line in suspects])]
        fix = "Restore the file, or give the new run another --name."
        if changed:
            rows = [train.rows_of_images[image][0] for image in changed]
            problems = [train.table.problem(row, "the image is not that of the run's start", fix) for row in rows]
            raise DataError(problems)
