"""The image dataset, the training and evaluation samplers, and the loader.

Shapes: N rows, V images of a row, M distinct images, K outputs, F metadata features, (H, W) image size.
"""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from swinft.data.augment.pipelines import Pipeline, Preprocessing, apply, check_image
from swinft.data.cache.pixels import PixelCache
from swinft.data.images.depth import Pixels
from swinft.data.images.libraries import tune_decoders
from swinft.data.images.resize import load_image
from swinft.data.inspection.scan import ImageSet
from swinft.data.loading.collate import collate
from swinft.data.loading.workers import LoaderPlan, TimedLoader
from swinft.data.row_images import Shown
from swinft.data.sampled_order import SampledOrder, cumcount
from swinft.data.sources.source import AbsentError, ImageError, is_absent
from swinft.data.tables.table import Problem, Table
from swinft.errors import InputError
from swinft.seeding import seed_for
from swinft.system.allocator import return_freed_memory
from swinft.system.orphans import end_worker_with_parent

PADDING = -1  # `row` of a padding item
Key = tuple[int, int]  # (epoch, row)
REPEAT_OFFSET = 2**32  # added to the epoch in a row's key for each earlier visit of the row in the same epoch


@dataclass(frozen=True)
class RowNames:
    """Names rows in error messages: all that workers need from a table, at a fraction of its size.

    Args:
        files: The table's files.
        ids: Ids of its N rows.
        lines: Line on which each row starts, int (N,).
        file_of_row: Position of each row's file, int (N,); None for one file.
    """

    files: Sequence[str]
    ids: Sequence[str]
    lines: NDArray[np.int64]
    file_of_row: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, table: Table) -> "RowNames":
        """Row names of a table."""
        return cls([*map(str, (table.path, *table.more_paths))], table.ids, table.lines, table.file_of_row)

    def problem(self, row: int, message: str, fix: str) -> Problem:
        """A problem with one row."""
        file = self.files[0 if self.file_of_row is None else self.file_of_row[row]]
        return Problem(file, message, fix, int(self.lines[row]), self.ids[row])


@dataclass(frozen=True, eq=False)
class ImageDataset(Dataset[dict[str, Any]]):
    """Rows of a table, by the key (epoch, row): an item depends on nothing else.

    An integer key k means the k-th row that the loader visits, in epoch 0; `len` and iteration cover these rows. An
    item's `image` is (H, W, 3) of `dtype`; `collate` makes a batch of items. If rows have several images it is
    (V, H, W, 3), with `image_mask` bool (V,) of those that exist; or (H, W, C) if they are stacked as channels.

    Args:
        names: Names the row in error messages.
        images: N images and how they are decoded; M distinct ones if `shown` says which of them a row shows.
        pipeline: Maps a decoded image to (H, W, 3).
        image_size: (H, W).
        seed: Seed of the augmentation.
        targets: int64 (N,) or float32 (N, K), or None.
        features: float32 (N, F), or None.
        more: Further values of the rows by their key in a batch, (N, …): `weight`, `auxiliary.0`, ….
        skips_bad: Unusable images become padding instead of an error.
        cache: Decoded images of the rows; None to decode each time.
        preprocess: Custom preprocessing before the pipeline, or None.
        visited: Rows that the loader visits; None for all.
        shown: Which images each row shows; None where it shows one.
    """

    names: RowNames
    images: ImageSet
    pipeline: Pipeline
    image_size: tuple[int, int]
    seed: int
    targets: NDArray[Any] | None = None
    features: NDArray[np.float32] | None = None
    more: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    skips_bad: bool = False
    cache: PixelCache | None = None
    preprocess: Preprocessing | None = None
    visited: NDArray[np.int64] | None = None
    shown: Shown | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of an item's image: uint8, or float32 in 0–255 if levels are kept."""
        return np.dtype(np.float32 if self.images.rules.keep else np.uint8)

    @property
    def num_rows(self) -> int:
        """N."""
        return len(self.images) if self.shown is None else len(self.shown.files)

    def __len__(self) -> int:
        return self.num_rows if self.visited is None else len(self.visited)

    def __getitem__(self, key: Key | int) -> dict[str, Any]:
        epoch, row = self.key(key)
        try:
            images = self._several(epoch, row) if self.shown else {"image": self._one(epoch, row)}
        except ImageError:
            if not self.skips_bad:
                raise
            return self[epoch, PADDING]
        return {**images, **self.labels(row)}

    def _one(self, epoch: int, row: int) -> Pixels:
        return np.zeros((*self.image_size, 3), self.dtype) if row == PADDING else self.image(epoch, row)

    def _several(self, epoch: int, row: int) -> dict[str, Any]:
        """The images of a row, and which are there; of padding the first is, for a network must see one."""
        assert self.shown is not None
        setting = self.shown.images
        images = np.zeros((setting.most, *self.image_size, 3), self.dtype)
        there = torch.zeros(setting.most, dtype=torch.bool)
        there[0] = row == PADDING
        for slot, decoded in [] if row == PADDING else self.decoded_images(row):
            seed = seed_for("augmentation", self.seed, slot) if setting.augment == "independent" else self.seed
            images[slot] = self._augmented(decoded, seed, epoch, row)
            there[slot] = True
        if not there.any():
            problem = self.names.problem(row, "the row has no image", "All of them are missing or empty.")
            raise ImageError(str(problem))
        return {"image": setting.to_channels(images)} if setting.channels else {"image": images, "image_mask": there}

    def decoded_images(self, row: int) -> Iterator[tuple[int, Pixels]]:
        """The images of a row before the pipeline, each with its place among them.

        Raises:
            ImageError: One cannot be decoded and may not be left out; the message names the row.
        """
        if self.shown is None:
            yield 0, self.decoded(row)
            return
        may_lack = self.skips_bad and self.shown.images.missing == "mask"
        for slot, file in enumerate(self.shown.files[row].tolist()):
            try:
                if file >= 0:
                    yield slot, self._decoded(row, file)
            except ImageError as error:
                if not (may_lack or isinstance(error, AbsentError)):
                    raise

    def key(self, key: Key | int) -> Key:
        """(epoch, row) of a key."""
        if isinstance(key, tuple):
            return key
        return 0, int((range(self.num_rows) if self.visited is None else self.visited)[operator.index(key)])

    def labels(self, row: int) -> dict[str, Any]:
        """An item without its image: `row`, and optionally `target`, `features`, `weight` and auxiliary targets."""
        item: dict[str, Any] = {"row": torch.tensor(row)}
        for name, values in {"target": self.targets, "features": self.features, **self.more}.items():
            if values is not None:
                item[name] = torch.tensor(values[self._padding_source if row == PADDING else row])  # not a view
        return item

    @cached_property
    def _padding_source(self) -> int:
        """The row whose target and features padding copies: they pass through the network, and are not scored."""
        if self.targets is None or not len(self.targets):
            return 0
        # Skipped rows have the class −1 or NaN, which no head accepts.
        numbers = self.targets.reshape(len(self.targets), -1)
        is_used = (numbers >= 0).all(1) if numbers.dtype.kind == "i" else np.isfinite(numbers).all(1)
        return int(is_used.argmax())

    def image(self, epoch: int, row: int) -> Pixels:
        """The image of a row in an epoch, of `dtype`, (H, W, 3).

        Raises:
            ImageError: It cannot be decoded; the message names the row.
            InputError: The pipeline fails on it, or its output is of another shape or type.
        """
        return self._augmented(self.decoded(row), self.seed, epoch, row)

    def _augmented(self, image: Pixels, seed: int, epoch: int, row: int) -> Pixels:
        image, key = self.images.rules.for_transforms(image), "loading.preprocess" if self.preprocess else "augment"
        try:
            ready, key = self.preprocess(image) if self.preprocess else image, "augment"
            ready = apply(self.pipeline, ready, seed, epoch, row)
        except Exception as error:  # transforms raise anything
            message = f"data.{key} fails on the image of shape {image.shape}"
            raise InputError(str(self.names.problem(row, message, str(error)))) from error
        check_image(ready, self.image_size, dtype=self.dtype)
        return ready if self.dtype == np.uint8 else np.clip(ready, 0, 1) * np.float32(255)

    def decoded(self, row: int) -> Pixels:
        """The image of a row before the pipeline, (H, W, 3).

        Raises:
            ImageError: It cannot be decoded; the message names the row.
        """
        return self._decoded(row, row)

    def _decoded(self, row: int, file: int) -> Pixels:
        """An image of a row, by its position among the files."""
        try:
            if self.cache:
                return self.cache.read(file)
            images = self.images
            return load_image(images.paths[file], images.image_size, images.rules, images.source)
        except ImageError as error:
            if is_absent(error):
                raise AbsentError(str(self.images.paths[file])) from error  # also where a cache has kept its text alone
            raise ImageError(str(self.names.problem(row, "the image cannot be used", str(error)))) from error


class ShuffledSampler(Sampler[Key]):
    """Training order, a pure function of (seed, epoch): a resumed run sees the same rows as an uninterrupted one.

    Args:
        rows: Positions in the table; a row that is there several times is visited as often.
        parts: Number of virtual epochs that together visit every row once. A remainder of fewer rows than parts is
            dropped, different rows each time.
        seed: Seed of the order.
        rank: Rank of this process.
        num_ranks: Number of processes. All get equally many rows: if needed, the order repeats from its start.
        current_epoch: Called at the start of each epoch; None without a Trainer. Lightning's own `set_epoch` comes too
            late for the first epoch after a resume: by then workers have fetched rows of epoch 0.
        next_epoch: Called instead without a Trainer, unless `set_epoch` was called.
        sampled_order: The custom sampler's order; None for `rows`, shuffled. A row that repeats within an epoch gets a
            different key, and so a different augmentation.
    """

    def __init__(
        self,
        rows: NDArray[np.int64],
        seed: int,
        rank: int = 0,
        num_ranks: int = 1,
        current_epoch: Callable[[], int] | None = None,
        parts: int = 1,
        next_epoch: Callable[[], int] | None = None,
        sampled_order: SampledOrder | None = None,
    ) -> None:
        self.sampled_order = sampled_order
        self.rows, self.seed, self.rank, self.num_ranks, self.parts = rows, seed, rank, num_ranks, parts
        self.current_epoch = current_epoch or next_epoch or (lambda: 0)
        self.follows_trainer = current_epoch is not None
        self._is_once = sampled_order is None and len(np.unique(rows)) == len(rows)

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of all later passes, in a loop without a Trainer."""
        if not self.follows_trainer:
            self.current_epoch = lambda: epoch

    def __len__(self) -> int:
        return -(-self._length // self.num_ranks)

    @property
    def _length(self) -> int:
        """Rows of an epoch, over all processes."""
        return (len(self.rows) if self.sampled_order is None else self.sampled_order.length) // self.parts

    def __iter__(self) -> Iterator[Key]:
        epoch = self.current_epoch()
        visit, part = divmod(epoch, self.parts)
        if self.sampled_order is None:
            rows = np.random.default_rng([self.seed, visit]).permutation(self.rows)
        else:
            rows = self.sampled_order.visit(visit)
        whole = np.resize(rows[part * self._length : (part + 1) * self._length], len(self) * self.num_ranks)  # repeats
        again = np.zeros_like(whole) if self._is_once else cumcount(whole)
        mine = slice(self.rank, None, self.num_ranks)
        return zip((epoch + REPEAT_OFFSET * again[mine]).tolist(), whole[mine].tolist(), strict=True)


class OrderedSampler(Sampler[Key]):
    """Table order, each row exactly once over all ranks; ranks with fewer rows get padding.

    Args:
        rows: Positions in the table.
        rank: Rank of this process.
        num_ranks: Number of processes.
    """

    def __init__(self, rows: NDArray[np.int64], rank: int = 0, num_ranks: int = 1) -> None:
        padded = np.full(-(-len(rows) // num_ranks) * num_ranks, PADDING, dtype=np.int64)
        padded[: len(rows)] = np.sort(rows)
        self.rows = padded[rank::num_ranks]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Key]:
        return ((0, int(row)) for row in self.rows)


def _start_worker(_: int) -> None:
    """Sets up a worker process."""
    end_worker_with_parent()
    tune_decoders()
    return_freed_memory()


def make_loader(
    dataset: Dataset[dict[str, Any]],
    sampler: Sampler[Key],
    batch_size: int,
    plan: LoaderPlan,
    seed: int,
    kind: Callable[..., TimedLoader] = TimedLoader,
) -> TimedLoader:
    """Creates a loader; in training, an incomplete last batch is dropped unless it is the only one.

    Args:
        dataset: Accepts the sampler's keys.
        sampler: The order.
        batch_size: Rows of a batch.
        plan: Number of workers and prefetch factor.
        seed: Seed of the workers' random numbers.
        kind: Class of the loader.
    """
    is_training = isinstance(sampler, ShuffledSampler)
    loader = kind(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=plan.num_workers,
        prefetch_factor=plan.prefetch_factor or None,
        worker_init_fn=_start_worker,
        collate_fn=collate,
        drop_last=is_training and len(sampler) > batch_size,  # type: ignore[arg-type]
        persistent_workers=plan.num_workers > 0,  # starting them takes time; the key carries the epoch
        pin_memory=plan.pin_memory,
        generator=torch.Generator().manual_seed(seed),  # otherwise each epoch would advance torch's global generator
    )
    loader.plan = plan
    return loader
