"""The look at the pictures behind a datamodule's rows: taken when something needs it, and only once."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.cache import PixelCache, cache_key, cache_path, open_cache, prepare
from swinft.data.capacity import Policy, decide, needed_bytes
from swinft.data.duplicates import SHOWN, alike, describe, describe_shared, leaks
from swinft.data.folds import Folds
from swinft.data.images import ImageRules
from swinft.data.rows import Rows
from swinft.data.scan import Scan, changed, read_images, scan, write_images
from swinft.data.table import DataError, Problem
from swinft.errors import InputError

SPLITS = {"train": "images", "test": "test images"}


class Pictures:
    """What is known of the pictures of training and test rows.

    Args:
        rules: Which images can be used, and how.
        image_size: Height and width of training, in pixels; None where pictures are not shrunk to what it needs.
        root: The data's folder.
        policy: Whether training pictures are decoded once into a cache: True, False, or `auto` where they fit.
        folder: Of the caches; None for the user's.
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
        self.folder = Path(folder).expanduser() if folder else _users_cache()
        self.decision = ""
        self.notes: list[str] = []
        self._scans: dict[str, Scan] = {}
        self._pairs: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """How many images were looked at."""
        return sum(len(found.files) for found in self._scans.values())

    def scan(self, split: str, rows: Rows, decode: bool = True) -> Scan:
        """The look at the images of `train` or `test`."""
        if split not in self._scans:
            cache = self.make_cache(rows) if decode and split == "train" else None
            self._scans[split] = scan(rows.paths, decode, rules=self.rules, image_size=self.image_size, cache=cache)
        return self._scans[split]

    def make_cache(self, rows: Rows) -> PixelCache | None:
        """Decodes training pictures once, where the policy and the space allow it; `decision` says what and why.

        Raises:
            InputError: The policy is True, and there is no room or the folder cannot be written to.
        """
        if self.policy is False or self.image_size is None:
            self.decision = decide(False, 0, self.folder)[1]
            return None
        headers = scan(rows.paths, decode_pixels=False, rules=self.rules).files
        needed = needed_bytes([seen.info for seen in headers], self.image_size)
        fits, self.decision = decide(self.policy, needed, self._cache_path(rows))
        if not fits:
            return None
        try:
            return prepare(rows.paths, self.root, self.image_size, self.folder, rules=self.rules)
        except OSError as error:
            reason = f"the pixel cache cannot be written to {self.folder}: {error.strerror or error}"
            if self.policy is True:
                raise InputError(
                    f"{reason}. Set data.cache_dir to another folder, or data.cache to auto (and data.augment_on to "
                    f"cpu)."
                ) from error
            self.decision = f"Images are decoded each time they are read: {reason}. Set data.cache_dir to another."
            return None

    def open_cache(self, rows: Rows) -> PixelCache | None:
        """The cache of training pictures where there is one already; the pixels are the same without."""
        if self.policy is False or self.image_size is None or not (path := self._cache_path(rows)).exists():
            return None
        return open_cache(path)

    def _cache_path(self, rows: Rows) -> Path:
        assert self.image_size is not None
        return cache_path(self.folder.absolute(), cache_key(rows.paths, self.root, self.image_size, self.rules))

    def pairs(self, train: Rows) -> NDArray[np.int64]:
        """Training rows that are used and show the same picture or nearly, as from `duplicates.alike`."""
        if self._pairs is None:
            pairs, used = alike(self.scan("train", train).files), train.is_used
            self._pairs = pairs[used[pairs[:, 0]] & used[pairs[:, 1]]]
        return self._pairs

    def bad_rows(self, train: Rows, known: Path | None) -> list[int]:
        """Training rows whose image cannot be used, from an `images.csv` or from a look."""
        if known is None:
            return list(self.scan("train", train).errors)
        seen = read_images(known, "train")
        return [row for row, id in enumerate(train.table.ids) if seen[id].problem]

    def check(self, splits: dict[str, Rows], decode: bool, skips_bad: bool) -> None:
        """Looks at every image.

        Args:
            splits: The rows of `train` and, where there are any, of `test`.
            decode: Decode every image; otherwise read the headers only.
            skips_bad: An image that cannot be used is noted and no error.

        Raises:
            DataError: Images cannot be used; all of them are listed.
        """
        problems: list[Problem] = []
        for split, rows in splits.items():
            for row, error in self.scan(split, rows, decode).errors.items():
                problems.append(rows.table.problem(row, "the image cannot be used", error))
        if problems and not skips_bad:
            raise DataError(problems)
        notes = [f"id {problem.id} is skipped: {problem.fix}" for problem in problems]
        more = [f"and {len(notes) - SHOWN:,} more images are skipped."] * (len(notes) > SHOWN)
        self.notes = notes[:SHOWN] + more

    def check_duplicates(
        self, splits: dict[str, Rows], folds: Folds, targets: NDArray[Any], refuses_leaks: bool
    ) -> None:
        """Notes pictures that occur more than once.

        Raises:
            InputError: Such pictures are in different folds, and `refuses_leaks`.
        """
        train, test = splits["train"], splits.get("test")
        ids, pairs = train.table.ids, self.pairs(train)
        notes = describe(pairs, ids, folds, targets)
        if refuses_leaks and len(leaks(pairs, folds)):
            raise InputError("\n  ".join(["the same or similar pictures are in more than one fold:", *notes]))
        if test is not None:
            files = self.scan("train", train).files
            notes += describe_shared(files, ids, self.scan("test", test).files, test.table.ids)
        self.notes += notes

    def summary(self) -> dict[str, Any]:
        """Sizes, formats and pixel modes of each split."""
        return {SPLITS[split]: found.summary() for split, found in self._scans.items()}

    def to_csv(self, ids: dict[str, Sequence[str]]) -> str:
        """What was seen, as the text of an `images.csv`.

        Args:
            ids: Of the rows of each split.
        """
        return write_images({split: (ids[split], found) for split, found in self._scans.items()})

    def check_unchanged(self, train: Rows, known: Path) -> None:
        """Compares the training images with those that an `images.csv` was made of.

        Raises:
            DataError: Some show other pictures now.
        """
        others = set(changed(read_images(known, "train"), train.table.ids, train.paths, self.rules, self.image_size))
        rows = [row for row, id in enumerate(train.table.ids) if id in others]
        fix = "Restore the file, or give the new run another --name."
        if rows:
            raise DataError([train.table.problem(row, "the image is not that of the run's start", fix) for row in rows])


def _users_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "swinft"
