"""The loaders of a datamodule: datasets, samplers and worker plans combined."""

import sys
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
from lightning.pytorch import Trainer
from numpy.typing import NDArray
from torch.utils.data import Dataset

from swinft.data.augment.dry_run import try_transforms
from swinft.data.augment.geometry import DevicePreset, make_geometry
from swinft.data.augment.pipelines import Pipeline, Preprocessing, eval_pipeline, train_pipeline
from swinft.data.cache.pixels import PixelCache
from swinft.data.folds import ALL_ROWS
from swinft.data.inspection.scan import ImageSet
from swinft.data.loading.dataset import ImageDataset, OrderedSampler, RowNames, ShuffledSampler, make_loader
from swinft.data.loading.device_loader import AugmentParamsDataset, DeviceLoader, DeviceStore
from swinft.data.loading.loader_state import LoaderState, device_of, is_running, rank_and_world_size
from swinft.data.loading.mask_dataset import MaskDataset
from swinft.data.loading.workers import TimedLoader, Work, plan_loader
from swinft.data.masks.masks import read_test_masks
from swinft.data.pseudo_labels import check_labelled
from swinft.data.samples import Rows
from swinft.data.splits import Splits
from swinft.errors import InputError
from swinft.seeding import Use, seed_for

Split = Literal["train", "val", "test", "predict"]


@dataclass(frozen=True)
class LoaderContext:
    """Values that may change from one loader of a datamodule to the next.

    Args:
        fold: The held-out fold.
        batch_size: Images per batch and device.
        trainer: Lightning's Trainer, or None.
    """

    fold: int
    batch_size: int
    trainer: Trainer | None


class Loaders:
    """Creates the loaders of a datamodule.

    Args:
        splits: The rows.
    """

    def __init__(self, splits: Splits) -> None:
        self.splits, self.settings = splits, splits.settings
        self.state, self.on_device = LoaderState(), DeviceStore()
        self._has_warned = False  # about num_workers

    def train(self, dataset: Dataset[dict[str, Any]], rows: NDArray[np.int64], context: LoaderContext) -> TimedLoader:
        """The training loader; with `augment_on: device` it augments there.

        Raises:
            InputError: `loading.augment_on` is `device`, and the dataset is not swinft's own.
        """
        rank, num_ranks = rank_and_world_size(context.trainer)
        check_labelled(self.splits.train)
        follows, parts = is_running(context.trainer), self.settings.loading.virtual_epochs
        rows = rows if self.settings.tile is None else np.repeat(rows, self.settings.tile.per_image)
        epoch = partial(self.state.epoch, context.trainer) if follows else None
        seed = self._seed("order", context)
        order = self.splits.sampled_order(context.fold)
        sampler = ShuffledSampler(rows, seed, rank, num_ranks, epoch, parts, self.state.next_pass, order)
        if self.settings.loading.augment_on == "device":
            loader = self._from_device(dataset, sampler, context)
        else:
            loader = self._loader(dataset, sampler, "train", context)
        if follows and rank == 0:
            name = "all" if context.fold == ALL_ROWS else context.fold
            print(f"fold {name}: {loader.plan}", flush=True)
        return loader

    def in_order(
        self, dataset: Dataset[dict[str, Any]], rows: NDArray[np.int64], split: Split, context: LoaderContext
    ) -> TimedLoader:
        """A loader in table order, each row once over all ranks; of tiles one image is a batch."""
        if self.settings.tile is not None:
            context = replace(context, batch_size=1)
        sampler = OrderedSampler(rows, *rank_and_world_size(context.trainer))
        loader = self._loader(dataset, sampler, "validate" if split == "val" else "predict", context)
        loader.rows_of = (split, self.splits)
        return loader

    def images(
        self, split: Split, visited: NDArray[np.int64] | None, makes_cache: bool, context: LoaderContext
    ) -> ImageDataset:
        """The dataset of a split.

        Args:
            split: Name of the split.
            visited: Rows that its loader visits; None for all.
            makes_cache: Build the pixel cache now, if the settings ask for one.
            context: Its fold seeds the augmentation.

        Raises:
            InputError: `test`, and the rows to predict have no targets.
        """
        settings, loading = self.settings, self.settings.loading
        is_known = split in ("train", "val")
        rows = self.splits.train if is_known else self.splits.test
        size, resize = settings.image_size, loading.resize
        pipeline: Pipeline = eval_pipeline(size, resize)
        if split == "train":
            pipeline = train_pipeline(settings.augment, size, resize, bool(loading.image_rules.keep))
        shrunk_for = size if settings.is_shrunk else None
        are_maps = settings.kind.are_maps
        if are_maps:
            targets = None
        else:
            targets = (
                self.splits.test_targets() if split == "test" else rows.learnt if split == "train" else rows.targets
            )
        masks = rows.masks
        schema = self.splits.schema
        if are_maps and split == "test" and schema is not None:
            masks = read_test_masks(settings, rows, schema.outputs)
        make: Any = ImageDataset
        if are_maps:
            per_pass = 0 if settings.tile is None or split == "train" else context.batch_size
            make = partial(
                MaskDataset,
                masks=masks,
                tile=settings.tile,
                per_pass=per_pass,
                classes=schema.outputs if schema else (),
            )
        dataset: ImageDataset = make(
            RowNames.of(rows.table),
            ImageSet(rows.paths, settings.root, shrunk_for, loading.image_rules, rows.source),
            pipeline,
            size,
            self._seed("augmentation", context),
            targets,
            rows.features,
            self._more(split, rows, context.fold),
            # A training image that passed the scan and fails now has changed: an error, not a row to skip.
            skips_bad=not is_known and loading.on_bad_image == "skip",
            cache=self._cache(rows, makes_cache, context) if is_known else None,
            preprocess=Preprocessing(loading.preprocess) if loading.preprocess else None,
            visited=visited,
            shown=rows.shown,
        )
        return dataset

    def _more(self, split: Split, rows: Rows, fold: int) -> dict[str, NDArray[Any]]:
        """Weights and auxiliary targets of the rows, by their keys in a batch."""
        weights = self.splits.loss_weights(fold) if split == "train" else None
        found: dict[str, NDArray[Any]] = {} if weights is None else {"weight": weights}
        return found | {f"auxiliary.{k}": values for k, values in enumerate(rows.auxiliary)}

    def try_transforms(self, name: str, rows: dict[int, str], context: LoaderContext) -> None:
        """Runs custom transforms on some images of `train` or `test` before training.

        Raises:
            InputError: A transform fails; the message names row and image.
        """
        if self.settings.has_custom_transforms and self.splits.needs_images:
            is_train = name == "train"
            dataset = self.images("train" if is_train else "predict", None, False, context)
            try_transforms(dataset, rows, is_train and not isinstance(self.settings.augment, str))

    def _cache(self, rows: Rows, makes_it: bool, context: LoaderContext) -> PixelCache | None:
        """The decoded training images; prints the cache decision if it was not known before, as in a notebook."""
        files = self.splits.image_files
        was_known = bool(files.decision)
        cache = files.cache(rows, makes_it)
        if files.decision and not was_known and rank_and_world_size(context.trainer)[0] == 0:
            print(files.decision, flush=True)
        return cache

    def _from_device(
        self, rows: Dataset[dict[str, Any]], sampler: ShuffledSampler, context: LoaderContext
    ) -> TimedLoader:
        if not isinstance(rows, ImageDataset):
            raise InputError(
                "data.loading.augment_on is 'device', which supports swinft's own dataset only, and make_dataset "
                f"returned a {type(rows).__name__}. Set it to cpu."
            )
        augment, resize = self.settings.augment, self.settings.loading.resize
        assert augment in get_args(DevicePreset)  # checked by the settings
        preset: DevicePreset = augment  # type: ignore[assignment]
        params = AugmentParamsDataset(rows, make_geometry(preset, self.settings.image_size, resize))
        images = self.on_device.images(params, sampler, device_of(context.trainer), context.trainer)
        return self._loader(params, sampler, "draw", context, partial(DeviceLoader, device_images=images))

    def _loader(
        self,
        dataset: Dataset[dict[str, Any]],
        sampler: Any,
        work: Work,
        context: LoaderContext,
        kind: Any = TimedLoader,
    ) -> TimedLoader:
        """A loader with workers as `loading.num_workers` sets; warns once about a wrong number."""
        height, width = self.settings.image_size
        pixels = self.settings.image.num_channels * (self.settings.image.num_images or 1)
        pixels *= 4 if self.settings.loading.image_rules.keep else 1
        area = height * width
        if isinstance(dataset, MaskDataset):
            area = dataset.most_pixels()
        batch_bytes = context.batch_size * (200 if work == "draw" else pixels * area)
        num_batches = -(-len(sampler) // context.batch_size)
        to = self.state.resolve_destination(context.trainer)
        plan = plan_loader(self.settings.loading.num_workers, to, batch_bytes, num_batches, work)
        if plan.warning and not self._has_warned and rank_and_world_size(context.trainer)[0] == 0:
            print(f"WARNING: {plan.warning}", file=sys.stderr)
            self._has_warned = True
        return make_loader(dataset, sampler, context.batch_size, plan, self.settings.folds.seed, kind)

    def _seed(self, use: Use, context: LoaderContext) -> int:
        return seed_for(use, self.settings.folds.seed, context.fold)
