"""A table, a fold and a pipeline become batches: the LightningDataModule of swinft, usable in a notebook by itself.

A batch is a dictionary: `image` uint8 (B, 3, H, W) in RGB; `row` int64 (B,), the row's position in its table, −1 for
padding; `target` int64 (B,) for classification, float32 (B, K) otherwise, absent at prediction; `features` float32
(B, F) where metadata columns are named. With `augment_on: device` a training batch is on the device, its images float32
in 0–255.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from albumentations.core.composition import TransformType
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerStatus
from numpy.typing import NDArray

from swinft.data.augment.crops import Resize
from swinft.data.augment.geometry import make_geometry
from swinft.data.augment.pipelines import Preprocessing, Preset, eval_pipeline, train_pipeline
from swinft.data.augment.trial import extremes, transform_notes, try_transforms
from swinft.data.cache.budget import Policy
from swinft.data.cache.pixels import PixelCache
from swinft.data.features import Filling, MissingFeatures, UnknownCategories
from swinft.data.folds import NO_FOLD, FoldKind, Folds, check_folds, make_folds, read_folds, scored_folds
from swinft.data.images.decode import RULES, ImageRules
from swinft.data.inspection.duplicates import clusters
from swinft.data.inspection.image_files import ImageFiles
from swinft.data.inspection.scan import ImageSet
from swinft.data.loading.dataset import ImageRows, OrderedRows, RowNames, ShuffledRows, make_loader
from swinft.data.loading.device_loader import (
    AugmentOn,
    DeviceImages,
    DeviceLoader,
    DrawnRows,
    bytes_to_come,
    default_device,
    upload,
)
from swinft.data.loading.feeding import Destination, Feeding, FeedingLoader, NumWorkers, Work, plan_feeding
from swinft.data.samples import Columns, Rows, check_sample, read_sample, read_test, read_train
from swinft.data.schema import Schema, TargetKind, with_prior
from swinft.data.settings import check_settings, image_sides
from swinft.data.summary import captions, fold_summary, image_grid, imbalance, target_summary
from swinft.data.tables.table import DataError, Problem, Table
from swinft.data.tables.text import MISSING_WORDS, TextRules, Twins
from swinft.data.targets import encode_answers
from swinft.errors import InputError
from swinft.seeding import seed_for

if TYPE_CHECKING:
    from matplotlib.figure import Figure


OK = "ok"  # status of a row that has a prediction of its own


class CSVDataModule(LightningDataModule):
    """Images named by a CSV.

    Args:
        train: CSV of the training rows, relative to `root`.
        image: Path of a row's image, relative to `root`, with any columns in braces: `train/{Id}.jpg`.
        target: Column of the target; a list for several numbers or several 0/1 labels.
        target_kind: What the target is.
        id: Column that names the row; read as text, values must be unique.
        test_id: The same in the table of rows to predict and in the sample submission, where it has another name there.
        root: Folder that the paths of the CSVs and of the images are relative to.
        test: CSV of the rows to predict; null for those of `sample_submission`.
        test_image: Path of a test row's image where it differs from `image`.
        sample_submission: The competition's sample submission.
        label_delimiter: What stands between the labels of a multi-label target in one column.
        class_order: Classes from the lowest grade to the highest, where their names are no numbers, for metrics of
            grades.
        missing_words: Cells that stand for a missing target, feature or group, whatever their case; null for the empty
            cell, nan, na, n/a, #n/a, <na>, null, none and nat. A list replaces these: leave out what is a class of
            yours. The empty cell is always missing.
        twins: Two spellings of one class, label, group or category are an `error`, or two names (`distinct`). Spellings
            differ by case, blanks, quotes, Unicode form, or as `1`, `1.0` and `01` do.
        numeric_features: Metadata columns given to the network as numbers.
        categorical_features: Metadata columns given to the network as categories (one-hot).
        missing_features: A missing number or category is an `error`; is filled in rows to predict (`fill_test`); or in
            training rows too (`fill`). A number becomes the training rows' mean; a category one of its own where
            training rows have missing ones, and none otherwise. All that is filled is counted.
        unknown_categories: In rows to predict, a category that the training rows do not have is none of them (`other`),
            and counted, or an `error`.
        group: Column whose equal values must stay in one fold: patient, site, sequence.
        fold_kind: How folds are made; `auto` stratifies by the target, within groups where `group` is set.
        num_folds: Number of folds; null for 5, or for those that `folds` has.
        folds: A `folds.csv` of another run to reuse, relative to the working folder, instead of `fold_kind`,
            `num_folds`, `rare_classes` and `duplicates: group`.
        rare_classes: A class with fewer rows than folds, or with rows of one group only, is an `error`, or every fold
            trains on its rows (`train`) and none scores them, nor the other rows of their groups.
        on_missing_target: A row with an empty target is an `error`, or is left out (`skip`) and stays in the
            predictions with a status.
        on_bad_image: The same for an image that cannot be used. A missing file is always an error.
        duplicates: What to do about images that are the same or look alike: `report` them, call those in different
            folds an `error`, keep them in one fold (`group`), or `ignore` them. Images that hang together by others
            count as alike, such as the frames of one camera.
        follow_links: Links may lead out of the images' folder, as those of DVC, git-annex and the hub's cache do. What
            a cell says may not, whatever this is.
        image_rules: Which images can be used, and how unusual ones are converted.
        shrink: Decode images at what `image_size` needs (`swinft.data.images.resize`): faster, and slightly softer.
            False keeps every pixel. `auto` shrinks for the presets, and keeps every pixel for transforms of your own,
            whose lengths are in pixels.
        cache: Decode the training images once into a file that folds, workers and runs share: true, false, or `auto`
            where it fits on the disk and in memory. Pixels are the same either way. A run makes it before training; in
            a notebook `check` does, or the first loader.
        cache_dir: Folder of such files; null for ~/.cache/swinft. `swinft cache` lists and prunes it; what nothing has
            used for 30 days, and the oldest beyond half of the disk, goes whenever another is made.
        encoding: Of the CSVs: `utf-8`, `cp1252`, …
        image_size: Side, or height and width, in pixels.
        resize: How evaluation and the presets get to `image_size`: `squash` ignores the aspect ratio, `crop` cuts what
            sticks out, `pad` fills the rest with black.
        augment: `none`, `light`, `medium`, `heavy`, `crop`, or albumentations transforms that end at `image_size` in
            uint8.
        preprocess: Albumentations transforms that training and evaluation apply alike, before `augment` and `resize`.
            They must not draw: p is 1 and ranges have one value.
        augment_on: `cpu`, or `device` to keep the training images in the memory of the device that trains and to
            augment there, with `none`, `light`, `medium` or `crop`. Each GPU holds all images that its fold trains
            on. It needs the cache: `auto` then means true. Validation and prediction stay on the CPU. It is made for
            GPUs: where the device is the CPU, it works and is many times slower than `cpu`.
        batch_size: Images per batch and device.
        virtual_epochs: Epochs that visit every training row once between them: long epochs cut into this many, each
            validated and saved, so that an interruption costs less. `trainer.max_epochs` counts these.
        num_workers: Processes that decode and augment; 0 for none beside the main one. `auto` takes the cores that
            this process may use, divided among folds at a time and devices per fold, less one, and at most 8; none
            where the network computes on a CPU, which needs the cores itself.
        download: What to run to get the data and where it goes; said when files are missing.
        fold: The fold that is held out for validation.
        seed: Seeds folds, order and augmentation.
        schema: Outputs and categories of an earlier run, to predict without its training table.
        images: An earlier run's `images.csv`, which says what is skipped without another look.
        sample_id: Id column of the sample submission, where it has another name there (`submission.id` in a config).

    Raises:
        InputError: Settings contradict each other; all of them are listed.
    """

    def __init__(
        self,
        target: str | list[str],
        target_kind: TargetKind,
        train: str | None = None,
        image: str = "{id}",
        id: str = "id",
        test_id: str | None = None,
        root: str = ".",
        test: str | None = None,
        test_image: str | None = None,
        sample_submission: str | None = None,
        label_delimiter: str | None = None,
        class_order: list[str] | None = None,
        missing_words: list[str] | None = None,
        twins: Twins = "error",
        numeric_features: list[str] | None = None,
        categorical_features: list[str] | None = None,
        missing_features: MissingFeatures = "fill_test",
        unknown_categories: UnknownCategories = "other",
        group: str | None = None,
        fold_kind: FoldKind = "auto",
        num_folds: int | None = None,
        folds: str | None = None,
        rare_classes: Literal["error", "train"] = "error",
        on_missing_target: Literal["error", "skip"] = "error",
        on_bad_image: Literal["error", "skip"] = "error",
        duplicates: Literal["report", "error", "group", "ignore"] = "report",
        follow_links: bool = False,
        image_rules: ImageRules = RULES,
        shrink: bool | Literal["auto"] = "auto",
        cache: Policy = "auto",
        cache_dir: str | None = None,
        encoding: str = "utf-8",
        image_size: int | tuple[int, int] = 224,
        resize: Resize = "squash",
        augment: Preset | list[TransformType] = "light",
        preprocess: list[TransformType] | None = None,
        augment_on: AugmentOn = "cpu",
        batch_size: int = 32,
        virtual_epochs: int = 1,
        num_workers: NumWorkers = "auto",
        download: str | None = None,
        fold: int = 0,
        seed: int = 42,
        schema: Schema | None = None,
        images: str | None = None,
        sample_id: str | None = None,
    ) -> None:
        super().__init__()
        self._resumed_epoch, self._passes = 0, 0
        self.columns = Columns(
            target=target,
            target_kind=target_kind,
            label_delimiter=label_delimiter,
            id=id,
            image=image,
            test_image=test_image,
            numeric_features=list(numeric_features or []),
            categorical_features=list(categorical_features or []),
            group=group,
            encoding=encoding,
            on_missing_target=on_missing_target,
            follow_links=follow_links,
            test_id=test_id,
            sample_id=sample_id,
            rules=TextRules(MISSING_WORDS if missing_words is None else missing_words, twins),
            filling=Filling(missing_features, unknown_categories),
            class_order=class_order,
        )
        self.root, self.train, self.test, self.sample_submission = Path(root), train, test, sample_submission
        self.fold_kind, self.folds = fold_kind, folds
        self.num_folds, self._wanted_folds = 5 if num_folds is None else num_folds, num_folds
        self.rare_classes, self.on_bad_image, self.duplicates = rare_classes, on_bad_image, duplicates
        self.image_rules, self.images, self.virtual_epochs = image_rules, images, virtual_epochs
        self.image_size = image_sides(image_size)
        self.resize, self.augment, self.augment_on = resize, augment, augment_on
        self.batch_size, self.num_workers, self.download = batch_size, num_workers, download
        self.fold, self.seed = fold, seed
        self._has_warned = False  # of a num_workers above the cores
        self._destination: Destination | None = None
        self.most_batches: int | None = None  # of rows to validate or predict; for a trial, whose scores say nothing
        self._schema = schema
        self.preprocess, self.shrink = list(preprocess or []), shrink
        is_shrunk = not self._has_own_transforms if shrink == "auto" else shrink
        shrunk_for = self.image_size if is_shrunk else None
        policy = True if augment_on == "device" and cache == "auto" else cache
        self.image_files = ImageFiles(image_rules, shrunk_for, self.root, policy, cache_dir)
        self._on_device: DeviceImages | None = None
        self._notes: list[str] = []
        self._tables: tuple[Rows, Schema, Rows | None] | None = None
        self._train: Rows | None = None
        self._test: Rows | None = None
        self._sample: Table | None = None
        check_settings(self)

    def setup(self, stage: str) -> None:
        """Reads and checks the tables, once.

        Args:
            stage: `fit` and `validate` read all that is configured, `predict` and `test` only the rows to predict.

        Raises:
            DataError: Everything that is wrong with the tables and the files they name.
            InputError: The folds do not hold.
        """
        self._resumed_epoch = 0  # a checkpoint's is loaded after this
        if stage in ("fit", "validate") and self._train is None:
            self._setup_fit()
        elif stage in ("predict", "test") and self._test is None:
            self._setup_predict()

    def check(self, decode: bool = True) -> None:
        """Everything that can be checked before training: tables, folds, and every image.

        Args:
            decode: Decode every image in threads; otherwise read the headers only.

        Raises:
            DataError: All problems at once.
        """
        self.setup("fit")
        self.image_files.check(self._splits, decode, self.on_bad_image == "skip")
        if decode and self._has_own_transforms:
            for stage, (split, rows) in zip(("fit", "predict"), self._splits.items(), strict=False):
                self._try_transforms(stage, extremes(self.image_files.index(split, rows).shapes))
        if decode and self.duplicates != "ignore":
            self.image_files.check_duplicates(self._splits, self.fold_of_row, self.targets, self.duplicates == "error")

    def summary(self) -> dict[str, Any]:
        """Rows, targets, folds, and what `check` found out about the images; for `overview.format_summary`."""
        train = self._rows("fit")
        summary: dict[str, Any] = {
            "train": str(train.table.path),
            "rows": len(train.table),
            "target": f"{', '.join(self.columns.targets)} ({self.columns.target_kind})",
            "outputs": target_summary(self.targets[train.is_used], self.schema),
            "folds": fold_summary(self.fold_of_row[self.is_scored], self.targets[self.is_scored], self.schema),
        }
        if not self.is_scored.all():
            summary["not scored"] = dict(Counter(status for status in self.status if status != OK))
        if self.notes:
            summary["notes"] = self.notes
        if self._test is not None:
            summary |= {"test": str(self._test.table.path), "test rows": len(self._test.table)}
        return summary | self.image_files.summary(self._splits)

    def show_batch(self, split: Literal["train", "val", "test"] = "train", n: int = 16) -> "Figure":
        """Draws images as the network will see them, each under its target; decodes no others for it.

        Args:
            split: Training rows with augmentation, held-out rows, or rows to predict under their ids.
            n: Number of images at most.
        """
        if split == "train":
            loader = self._train_loader(makes_cache=self.augment_on == "device")
        else:
            loader = self._val_loader(makes_cache=False) if split == "val" else self.predict_dataloader()
        if isinstance(loader.sampler, ShuffledRows):
            loader.sampler.set_epoch(self._passes)  # a look at the images is no pass over them
        keys = [key for key, _ in zip(loader.sampler, range(n), strict=False)]
        rows = [row for _, row in keys]
        ids = self.test_table.ids if split == "test" else []
        titles = [ids[row] for row in rows] if split == "test" else captions(self.targets[rows], self.schema)
        if isinstance(loader, DeviceLoader):
            return image_grid(loader.images(keys), titles)
        assert isinstance(loader.dataset, ImageRows)
        return image_grid([loader.dataset.image(*key) for key in keys], titles)

    @property
    def train_table(self) -> Table:
        """The training rows."""
        return self._rows("fit").table

    @property
    def train_paths(self) -> list[str]:
        """Their images."""
        return self._rows("fit").paths

    @property
    def targets(self) -> NDArray[Any]:
        """Their targets: int64 (N,) for classification, float32 (N, K) otherwise; −1 or NaN where there is none."""
        targets = self._rows("fit").targets
        assert targets is not None
        return targets

    @property
    def fold_of_row(self) -> Folds:
        """Fold of each training row, int64 (N,); −1 for those that no fold scores."""
        self._rows("fit")
        return self._fold_of_row

    @property
    def notes(self) -> list[str]:
        """What is worth knowing of the tables, of the folds and, after `check`, of the images; one line each."""
        return [*self._notes, *self.image_files.notes]

    @property
    def is_scored(self) -> NDArray[np.bool_]:
        """Which training rows some fold scores, bool (N,): those that are not skipped and have a fold."""
        scored: NDArray[np.bool_] = self._rows("fit").is_used & (self.fold_of_row != NO_FOLD)
        return scored

    @property
    def training_targets(self) -> NDArray[Any]:
        """Targets of the rows that `fold` trains on."""
        return self.targets[self._training_rows()]

    @property
    def training_features(self) -> NDArray[np.float32] | None:
        """Metadata of the rows that `fold` trains on, float32 (N, F); None where there is none."""
        features = self._rows("fit").features
        return None if features is None else features[self._training_rows()]

    @property
    def status(self) -> list[str]:
        """Of each training row: `ok`, or why no fold scores it."""
        skipped = self._rows("fit").skipped
        without = dict.fromkeys(np.flatnonzero(self.fold_of_row == NO_FOLD).tolist(), "in no fold")
        reasons = {**without, **skipped}
        return [reasons.get(row, OK) for row in range(len(self.train_table))]

    @property
    def may_skip(self) -> bool:
        """Whether rows may go without a prediction of their own: such predictions have a status."""
        settings = (self.on_bad_image, self.columns.on_missing_target, self.rare_classes)
        return "skip" in settings or "train" in settings or (self._train is not None and not self.is_scored.all())

    def images_csv(self) -> str:
        """What `check` saw of every image, as the text of an `images.csv`."""
        ids: dict[str, Sequence[str]] = {"train": self.train_table.ids}
        return self.image_files.to_csv(ids | ({"test": self._test.table.ids} if self._test else {}))

    def training_cache(self) -> PixelCache | None:
        """The decoded training images, made now where they are to be kept; None where they are not."""
        return self.image_files.cache(self._rows("fit"))

    def take_over_images(self, path: str) -> None:
        """Takes what another process of the same run has found out of the training images, before `setup`.

        Args:
            path: File of their cache; empty where they are decoded each time they are read.
        """
        self.image_files.take_over(path)

    def check_unchanged(self, images: Path) -> None:
        """Compares the training images with those that an `images.csv` was made of.

        Raises:
            DataError: Some show other images now.
        """
        self.image_files.check_unchanged(self._rows("fit"), images)

    @property
    def test_table(self) -> Table:
        """The rows to predict."""
        return self._rows("predict").table

    @property
    def test_paths(self) -> list[str]:
        """Their images."""
        return self._rows("predict").paths

    def images_of(self, stage: Literal["fit", "predict"], rows: Sequence[int]) -> ImageSet:
        """The images of some training rows or rows to predict, at their full size."""
        found = self._rows(stage)
        return ImageSet([found.paths[row] for row in rows], self.root, None, self.image_rules, found.source)

    @property
    def sample_table(self) -> Table | None:
        """The sample submission, as it was read with the other tables; None where there is none."""
        return self._sample

    @property
    def schema(self) -> Schema:
        """Names of the outputs and what prediction must know of the training table."""
        if self._schema is None:
            raise InputError('the schema is not known yet: call setup("fit"), or pass the schema of an earlier run.')
        return self._schema

    def train_dataloader(self) -> FeedingLoader:
        """Shuffled, augmented rows of all folds but `fold`.

        Without a Trainer each pass over such a loader is the next epoch, with another order and augmentation, even if
        every pass has a loader of its own; `loader.sampler.set_epoch` sets it.

        With `augment_on: device` its batches lie on the Trainer's device, or where there is no Trainer on the GPU if
        there is one, and their images are float32; the first call copies the images there.
        """
        return self._train_loader(makes_cache=True)

    def _train_loader(self, makes_cache: bool) -> FeedingLoader:
        rank, num_ranks = self._place()
        pipeline = train_pipeline(self.augment, self.image_size, self.resize)
        epoch = self._epoch if self._is_run_by_trainer else None
        rows = self._training_rows()
        dataset = self._dataset("fit", pipeline, makes_cache, rows)
        seed = seed_for("order", self.seed, self.fold)
        sampler = ShuffledRows(rows, seed, rank, num_ranks, epoch, self.virtual_epochs, self._next_epoch)
        if self.augment_on == "device":
            loader = self._device_loader(dataset, sampler)
        else:
            loader = make_loader(dataset, sampler, self.batch_size, self._feed(len(sampler), "train"), self.seed)
        if self._is_run_by_trainer and rank == 0:
            print(f"fold {self.fold}: {loader.feeding}", flush=True)
        return loader

    def _device_loader(self, rows: ImageRows, sampler: ShuffledRows) -> FeedingLoader:
        assert isinstance(self.augment, str)  # check_settings has refused these
        assert self.augment != "heavy"
        device = self.trainer.strategy.root_device if self.trainer else default_device()
        drawn = DrawnRows(rows, make_geometry(self.augment, self.image_size, self.resize))
        if self._on_device is None or not self._on_device.holds(sampler.rows, device):
            self._release()  # before the next ones are there
            trained: Any = self.trainer and self.trainer.lightning_module
            kept_free = bytes_to_come(trained.parameters(), self.trainer.optimizers) if trained and self.trainer else 0
            self._on_device = upload(drawn, sampler.rows, device, kept_free)
            if sampler.rank == 0:
                also = f" Each of {sampler.num_ranks} ranks holds as many." if sampler.num_ranks > 1 else ""
                print(f"{self._on_device.note}{also}", flush=True)
        kind = partial(DeviceLoader, device_images=self._on_device)
        feeding = self._feed(len(sampler), "draw")
        return make_loader(drawn, sampler, self.batch_size, feeding, self.seed, kind)

    @property
    def destination(self) -> Destination:
        """What the batches go to: as a command has set it, else the Trainer's devices, else the GPU if there is one."""
        if self._destination is not None:
            return self._destination
        if self.trainer is not None:
            return Destination(self.trainer.strategy.root_device, devices=self.trainer.num_devices)
        return Destination(default_device())

    @destination.setter
    def destination(self, value: Destination) -> None:
        self._destination = value

    def _feed(self, num_rows: int, work: Work) -> Feeding:
        """How a loader of so many rows works; what is wrong with `num_workers` is said once."""
        height, width = self.image_size
        batch_bytes = self.batch_size * (200 if work == "draw" else 3 * height * width)
        num_batches = -(-num_rows // self.batch_size)
        feeding = plan_feeding(self.num_workers, self.destination, batch_bytes, num_batches, work)
        if feeding.warning and not self._has_warned and self._place()[0] == 0:
            print(f"WARNING: {feeding.warning}", file=sys.stderr)
            self._has_warned = True
        return feeding

    def teardown(self, stage: str) -> None:
        """Gives the memory back that training images took on a device, as soon as the training is over."""
        if stage == "fit":
            self._release()

    def _release(self) -> None:
        if self._on_device is not None:
            self._on_device.release()
        self._on_device = None

    def val_dataloader(self) -> FeedingLoader:
        """The rows of `fold` in the table's order, each once."""
        return self._val_loader(makes_cache=True)

    def _val_loader(self, makes_cache: bool) -> FeedingLoader:
        rows = np.flatnonzero(self.is_scored & (self.fold_of_row == self.fold))
        return self._eval_loader("fit", rows[: self._most_rows], makes_cache)

    @property
    def _most_rows(self) -> int | None:
        return None if self.most_batches is None else self.most_batches * self.batch_size

    def predict_dataloader(self, share: tuple[int, int] = (0, 1)) -> FeedingLoader:
        """The rows to predict in their table's order, each once, without targets.

        Args:
            share: One of so many parts of the rows, where processes without a Trainer share them.

        Where `on_bad_image` is `skip`, images that cannot be used come as padding.
        """
        rows = np.arange(share[0], len(self.test_table), share[1])
        return self._eval_loader("predict", rows[: self._most_rows], makes_cache=False)

    def test_dataloader(self) -> FeedingLoader:
        """The rows of a labelled test table in its order, each once, with their targets.

        Raises:
            InputError: The table has no targets.
            DataError: Targets are wrong, or not among those of the training table.
        """
        rows, columns = self._rows("predict"), self.columns
        absent = [name for name in columns.targets if name not in rows.table.columns]
        if self._predicts_sample or absent:
            reason = "is the sample submission" if self._predicts_sample else f"has no column '{absent[0]}'"
            what = "data.test is not set" if self.test is None else f"{rows.table.path} {reason}"
            raise InputError(f"there is nothing to test: {what}. Use Trainer.predict for rows without targets.")
        problems: list[Problem] = []
        target = columns.target, columns.label_delimiter
        targets = encode_answers(rows.table, self.schema, *target, problems, columns.rules)
        if problems:
            raise DataError(problems)
        return self._eval_loader("predict", np.arange(len(rows.table)), False, targets)

    def _eval_loader(
        self, stage: str, rows: NDArray[np.int64], makes_cache: bool, targets: NDArray[Any] | None = None
    ) -> FeedingLoader:
        dataset = self._dataset(stage, eval_pipeline(self.image_size, self.resize), makes_cache, rows, targets)
        sampler = OrderedRows(rows, *self._place())
        feeding = self._feed(len(sampler), "validate" if stage == "fit" else "predict")
        return make_loader(dataset, sampler, self.batch_size, feeding, self.seed)

    def _dataset(
        self,
        stage: str,
        pipeline: Any,
        makes_cache: bool,
        visited: NDArray[np.int64] | None = None,
        targets: NDArray[Any] | None = None,
    ) -> ImageRows:
        rows = self._rows(stage)
        return ImageRows(
            RowNames.of(rows.table),
            rows.paths,
            pipeline,
            self.image_size,
            seed_for("augmentation", self.seed, self.fold),
            rows.targets if targets is None else targets,
            rows.features,
            self.image_rules,
            # A training image that was whole at the scan has changed since: that is no row to skip but an error.
            skips_bad=stage == "predict" and self.on_bad_image == "skip",
            shrinks=self.image_files.image_size is not None,
            cache=self._cache(rows, makes_cache) if stage == "fit" else None,
            preprocess=Preprocessing(self.preprocess) if self.preprocess else None,
            visited=visited,
            source=rows.source,
        )

    def _cache(self, rows: Rows, makes_cache: bool) -> PixelCache | None:
        """The decoded training images; says what was decided where nobody has asked before, as in a notebook."""
        was_known = bool(self.image_files.decision)
        cache = self.image_files.cache(rows, makes_cache)
        if self.image_files.decision and not was_known and self._place()[0] == 0:
            print(self.image_files.decision, flush=True)
        return cache

    @property
    def _splits(self) -> dict[str, Rows]:
        return {name: rows for name, rows in (("train", self._train), ("test", self._test)) if rows is not None}

    def count_training_rows(self, fold: int) -> int:
        """How many rows a fold trains on in `data.virtual_epochs` epochs."""
        return int(np.count_nonzero(self._rows("fit").is_used & (self.fold_of_row != fold)))

    def _training_rows(self) -> NDArray[np.int64]:
        """Rows of all folds but `fold`, and those without one, that are not skipped."""
        return np.flatnonzero(self._rows("fit").is_used & (self.fold_of_row != self.fold))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the number of whole epochs."""
        return {"epoch": self._epoch()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on after the checkpoint's epochs."""
        self._resumed_epoch = state_dict["epoch"]

    def _epoch(self) -> int:
        """The epoch to visit rows for.

        Lightning restores its own count only after it has started the first loader (to count its batches), whose
        processes have then fetched rows already; the datamodule's state is restored before. `trainer.current_epoch`
        would be one too low right after a resume.
        """
        progress: Any = self.trainer.fit_loop.epoch_progress.current if self.trainer else None
        return max(self._resumed_epoch, int(progress.processed) if progress else 0)

    def _next_epoch(self) -> int:
        """The epoch of the next pass of loops without a Trainer."""
        self._passes += 1
        return self._passes - 1

    @property
    def _is_run_by_trainer(self) -> bool:
        """Whether a Trainer runs; it stays attached when it has ended."""
        return self.trainer is not None and self.trainer.state.status == TrainerStatus.RUNNING

    def _place(self) -> tuple[int, int]:
        """This process and all of them, while a Trainer runs; outside of one a loader yields every row."""
        if self.trainer is None or not self._is_run_by_trainer:
            return 0, 1
        if self.trainer.world_size > 1 and self.trainer._accelerator_connector.use_distributed_sampler:
            # Lightning would share out what is shared out already: most rows would never be seen.
            raise InputError(
                "build the Trainer with use_distributed_sampler=False: the datamodule shares out the rows."
            )
        return self.trainer.global_rank, self.trainer.world_size

    def _rows(self, stage: str) -> Rows:
        rows = self._train if stage == "fit" else self._test
        if rows is None:
            raise InputError(f'the rows are not read yet: call setup("{stage}") first.')
        return rows

    def read_tables(self) -> tuple[Rows, Schema]:
        """The training rows and what the network must know of them, from the tables alone: no image is opened.

        Raises:
            DataError: Everything that is wrong with the tables and the files they name.
        """
        if self._tables is None:
            problems: list[Problem] = []
            found = self._read_train(problems)
            schema = found[1] if found else None
            test = self._read_test(schema, problems) if self.test or self.sample_submission else None
            self._sample = self._read_sample(test, problems)
            if problems or found is None:
                raise DataError(problems, self.download)
            self._tables = *found, test
        return self._tables[0], self._tables[1]

    def _setup_fit(self) -> None:
        rows, schema = self.read_tables()
        assert self._tables is not None
        test = self._tables[2]
        train = self._without_bad_images(rows)
        assert train.targets is not None
        used = train.is_used
        self._schema = with_prior(schema, train.targets[used])
        folds = self._read_folds(train.table) if self.folds else self._make_folds(train, used)
        groups = [name for name, is_used in zip(train.groups, used, strict=True) if is_used] if train.groups else None
        notes = check_folds(folds[used], train.targets[used], self.schema.outputs, groups, self.folds)
        if not 0 <= self.fold <= folds.max():
            raise InputError(f"fold is {self.fold}; the folds are 0 to {folds.max()}.")
        self._train, self._test, self._fold_of_row = train, test, folds
        self._try_transforms("fit", dict.fromkeys(np.flatnonzero(used)[:1].tolist(), "first"))
        if self.image_files.policy is True:
            self.image_files.cache(train)
        sample = None if self._predicts_sample else self._sample
        tables = [train.table, *([test.table] if test else []), *([sample] if sample else [])]
        read = [note for table in tables for note in table.notes]
        own = transform_notes(self.augment, self.resize, self.shrink, self.image_files.image_size)
        own = own if self._has_own_transforms else []
        self._notes = [*read, *imbalance(train.targets[used], self.schema), *notes, *own]

    @property
    def _has_own_transforms(self) -> bool:
        return bool(self.preprocess) or not isinstance(self.augment, str)

    def _try_transforms(self, stage: str, rows: dict[int, str]) -> None:
        """Runs the user's transforms on the images of some rows, before an epoch does."""
        if self._has_own_transforms:
            tries_augment = stage == "fit" and not isinstance(self.augment, str)
            pipeline = train_pipeline(self.augment, self.image_size, self.resize)
            try_transforms(self._dataset(stage, pipeline, makes_cache=False), rows, tries_augment)

    def _without_bad_images(self, rows: Rows) -> Rows:
        """The rows with those marked that `on_bad_image: skip` leaves out."""
        if self.on_bad_image == "error":
            return rows
        bad = self.image_files.bad_rows(rows, Path(self.images) if self.images else None)
        return replace(rows, skipped={**rows.skipped, **dict.fromkeys(bad, "bad image")})

    def _make_folds(self, rows: Rows, used: NDArray[np.bool_]) -> Folds:
        """Folds of the rows that are used; of rare classes only where they are an error."""
        assert rows.targets is not None
        groups, grouped_by = rows.groups, "data.group"
        if self.duplicates == "group":
            grouped_by = "data.group and data.duplicates" if groups else "data.duplicates: group"
            groups = clusters(self.image_files.clusters(rows), groups)
        make = scored_folds if self.rare_classes == "train" else make_folds
        names = [groups[row] for row in np.flatnonzero(used)] if groups else None
        folds = np.full(len(used), NO_FOLD, dtype=np.int64)
        folds[used] = make(self.fold_kind, self.num_folds, self.seed, rows.targets[used], names, grouped_by)
        return folds

    def _read_folds(self, table: Table) -> Folds:
        folds = read_folds(Path(str(self.folds)), table)
        found = int(folds.max()) + 1
        if self._wanted_folds not in (None, found):
            raise InputError(f"data.num_folds is {self._wanted_folds}, and {self.folds} has {found} folds: remove one.")
        return folds

    def _setup_predict(self) -> None:
        if not self.test and not self.sample_submission:
            raise InputError("there is nothing to predict: set data.test or data.sample_submission.")
        problems: list[Problem] = []
        if self._schema is None:
            found = self._read_train(problems)
            if found and found[0].targets is not None and not problems:
                self._schema = with_prior(found[1], found[0].targets[found[0].is_used])
        test = self._read_test(self._schema, problems, is_rerun=True)
        if problems or test is None:
            raise DataError(problems, self.download)
        self._test, self._notes = test, [*self._notes, *test.table.notes]

    def _read_sample(self, test: Rows | None, problems: list[Problem]) -> Table | None:
        """The sample submission: the rows to predict themselves where no table names these."""
        if not self.sample_submission or self._predicts_sample:
            return test.table if self.sample_submission and test else None
        sample = read_sample(self.root / self.sample_submission, self.columns, problems)
        check_sample(sample, test, problems)
        return sample

    def _read_train(self, problems: list[Problem]) -> tuple[Rows, Schema] | None:
        if self.train is None:
            raise InputError("data.train is not set: it names the CSV of the training rows.")
        # The folds of a file are checked as they are: rows that none of them scores may be all of a class.
        min_class_rows = 0 if self.rare_classes == "train" or self.folds else self.num_folds
        return read_train(self.root / self.train, self.root, self.columns, min_class_rows, problems)

    def _read_test(self, schema: Schema | None, problems: list[Problem], is_rerun: bool = False) -> Rows | None:
        path = self.root / str(self.test or self.sample_submission)
        return read_test(path, self.root, self.columns, schema, self._predicts_sample, problems, is_rerun)

    @property
    def _predicts_sample(self) -> bool:
        """Whether the rows to predict are the sample's, whose targets are placeholders: no other table, or the same."""
        if not self.sample_submission or not self.test:
            return not self.test
        return (self.root / self.test).resolve() == (self.root / self.sample_submission).resolve()
