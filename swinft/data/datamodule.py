"""The LightningDataModule: tables, folds and augmentation become batches; also usable alone, in a notebook.

A batch is a dictionary: `image` uint8 (B, 3, H, W) in RGB, or (B, V, 3, H, W) with `image_mask` bool (B, V) for several
images; `row` int64 (B,), positions in the table, −1 for padding; `target` int64 (B,) or float32 (B, K), and so
`auxiliary.0`, …, absent at prediction; `features` float32 (B, F), if any; in training `weight` float32 (B,), if any.
`loading.image_rules.keep` makes images float32 in 0–255, and so does `loading.augment_on: device`, on the device.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from albumentations.core.composition import TransformType
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch.utils.data import Dataset

from swinft.data.augment.dry_run import extreme_images
from swinft.data.augment.pipelines import Preset
from swinft.data.cache.pixels import PixelCache
from swinft.data.columns import Columns
from swinft.data.data_settings import DataSettings
from swinft.data.fold_settings import FoldConfig
from swinft.data.folds import Folds
from swinft.data.inspection.image_files import ImageFiles
from swinft.data.inspection.scan import ImageSet
from swinft.data.loading.dataset import ShuffledSampler
from swinft.data.loading.loaders import LoaderContext, Loaders, Split
from swinft.data.loading.workers import Destination, TimedLoader
from swinft.data.row_images import RowImages
from swinft.data.schema import Schema
from swinft.data.settings import LoadingConfig
from swinft.data.splits import Splits
from swinft.data.summary import batch_figure, summarize
from swinft.data.tables.steps.named import GivenTable
from swinft.data.tables.table import Table
from swinft.data.target.kinds import GivenKind
from swinft.errors import InputError
from swinft.system.other_lightning import warn_of_other_lightning

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class CSVDataModule(LightningDataModule):
    """Images named by a CSV.

    Args:
        target: Column of the target; a list, also of patterns (`*_vote`), for several numbers or several 0/1 labels.
        target_kind: `classification`, `regression`, `multilabel`, `segmentation`, or a class derived from one of them.
        train: CSV of the training rows, relative to `root`; or steps that make the table (docs/tables.md).
        image: Path of a row's image, relative to `root`, with any columns in braces: `train/{Id}.jpg`. A list of such
            paths, paths by name, or a `swinft.RowImages` (in YAML a mapping with `path`) for several images per row.
        id: Column that names the row; read as text, values must be unique.
        root: Folder that the paths of CSVs and images are relative to; `kaggle://SLUG` for a mount on Kaggle.
        test: CSV of the rows to predict, or steps; null for those of `sample_submission`.
        sample_submission: The competition's sample submission, or steps.
        image_size: Side, or height and width, in pixels.
        augment: `none`, `light`, `medium`, `heavy`, `crop`, `randaugment`, `trivialaugment`, `augmix`, or
            albumentations transforms that end at `image_size` in uint8; in float32 with `image_rules.keep`.
        batch_size: Images per batch and device.
        columns: What the other columns mean, and how cells are read. This and the next two may be dictionaries.
        folds: The fold of every training row, and which one is held out: `held_out`, or the attribute `fold` once set.
        loading: How image files become the images of a batch.

    Raises:
        InputError: Settings are wrong or contradict each other; all of them are listed.
    """

    def __init__(
        self,
        target: str | list[str],
        target_kind: GivenKind,
        train: GivenTable | None = None,
        image: str | list[str] | RowImages | dict[str, Any] = "{id}",
        id: str = "id",
        root: str = ".",
        test: GivenTable | None = None,
        sample_submission: GivenTable | None = None,
        image_size: int | tuple[int, int] = 224,
        augment: Preset | list[TransformType] = "light",
        batch_size: int = 32,
        columns: Columns = Columns(),
        folds: FoldConfig = FoldConfig(),
        loading: LoadingConfig = LoadingConfig(),
    ) -> None:
        super().__init__()
        warn_of_other_lightning()
        given: Any = (train, image, id, root, test, sample_submission, image_size)  # not yet of their final types
        given = (target, target_kind, *given, augment, batch_size, columns, folds, loading)
        self.settings = settings = DataSettings(*given)
        self.image_size, self.batch_size, self.fold = settings.image_size, batch_size, settings.folds.held_out
        self.max_batches: int | None = None  # limit of validation and prediction in a dry run
        kept, size = settings.loading, settings.image_size if settings.is_shrunk else None
        self.image_files = ImageFiles(kept.image_rules, size, settings.root, kept.policy, kept.cache_dir)
        self.splits = Splits(settings, self.image_files)
        self._loaders = Loaders(self.splits)

    def setup(self, stage: str) -> None:
        """Reads and checks the tables, once.

        Args:
            stage: `fit` and `validate` read all that is configured, `predict` and `test` only the rows to predict.

        Raises:
            DataError: Everything that is wrong with the tables and the files they name.
            InputError: The folds cannot be used.
        """
        self._loaders.state.resumed_epoch = 0  # a checkpoint's epoch is loaded later
        splits, is_fit = self.splits, stage in ("fit", "validate")
        if is_fit and splits.has_train:
            splits.check_fold(self.fold)
        elif is_fit:
            splits.setup_fit()
            splits.check_fold(self.fold)
            first = dict.fromkeys(np.flatnonzero(splits.train.is_used)[:1].tolist(), "first")
            self._loaders.try_transforms("train", first, self._context)
            if self.image_files.policy is True:
                self.image_files.cache(splits.train)
        elif stage in ("predict", "test") and not splits.has_test:
            splits.setup_predict()
        self.settings = splits.settings  # with names in place of patterns of columns

    def check(self, decode: bool = True) -> None:
        """Everything that can be checked before training: tables, folds, and every image.

        Args:
            decode: Decode every image in threads; otherwise read the headers only.

        Raises:
            DataError: All problems at once.
        """
        self.setup("fit")
        splits, duplicates = self.splits.by_name, self.settings.folds.duplicates
        self.image_files.check(splits, decode, self.settings.loading.on_bad_image == "skip")
        if decode and self.settings.has_custom_transforms:
            for name, rows in splits.items():
                found = extreme_images(self.image_files.index(name, rows).shapes).items()
                known = {rows.rows_of_images[image][0]: what for image, what in found}
                self._loaders.try_transforms(name, known, self._context)
        if decode and duplicates != "ignore":
            self.image_files.check_duplicates(splits, self.fold_of_row, self.targets, duplicates == "error")

    def summary(self) -> dict[str, Any]:
        """Rows, targets, folds, and image statistics from `check`; for `summary.format_summary`."""
        return summarize(self.splits, self.notes)

    def show_batch(self, split: Literal["train", "val", "test"] = "train", n: int = 16) -> "Figure":
        """Draws images as the network sees them, each under its target; decodes no other images.

        Args:
            split: Training rows with augmentation, held-out rows, or rows to predict under their ids.
            n: Number of images at most.
        """
        if split == "train":
            loader = self._train_loader(makes_cache=self.settings.loading.augment_on == "device")
        else:
            rows = self.splits.held_out(self.fold) if split == "val" else None
            loader = self.predict_dataloader() if rows is None else self.ordered_loader("val", rows)
        if isinstance(loader.sampler, ShuffledSampler):
            loader.sampler.set_epoch(self._loaders.state.passes)  # drawing images does not count as a pass
        return batch_figure(loader, n, partial(self.splits.titles, split))

    @property
    def schema(self) -> Schema:
        """Names of the outputs and all else that prediction needs from the training table.

        Set it to an earlier run's before `setup("predict")` to predict without the training table.
        """
        if self.splits.schema is None:
            raise InputError('the schema is not known yet: call setup("fit"), or set it to that of an earlier run.')
        return self.splits.schema

    @schema.setter
    def schema(self, value: Schema) -> None:
        self.splits.schema = value

    @property
    def train_table(self) -> Table:
        """The rows of the training table."""
        return self.splits.main_table

    @property
    def targets(self) -> NDArray[Any]:
        """Training targets: int64 (N,) for classification, float32 (N, K) otherwise; −1 or NaN where missing."""
        return self.splits.targets[: self.splits.num_main]

    @property
    def fold_of_row(self) -> Folds:
        """Fold of each training row, int64 (N,); −1 for rows that no fold scores."""
        return self.splits.fold_of_row[: self.splits.num_main]

    @property
    def is_scored(self) -> NDArray[np.bool_]:
        """Mask of the training rows that a fold scores, bool (N,): those that are not skipped and have a fold."""
        return self.splits.is_scored[: self.splits.num_main]

    @property
    def may_skip(self) -> bool:
        """Whether some rows may get no prediction of their own; a status marks them."""
        return self.settings.may_skip or (self.splits.has_train and not self.is_scored.all())

    @property
    def notes(self) -> list[str]:
        """Notes about the tables, the folds and, after `check`, the images; one line each."""
        return [*self.splits.notes, *self.image_files.notes]

    @property
    def training_targets(self) -> NDArray[Any]:
        """Targets of the rows that `fold` trains on."""
        return self.splits.train.learnt[self.splits.trained_on(self.fold)]

    @property
    def training_auxiliary(self) -> list[NDArray[Any]]:
        """Auxiliary targets of the rows that `fold` trains on."""
        return [each[self.splits.trained_on(self.fold)] for each in self.splits.train.auxiliary]

    @property
    def training_features(self) -> NDArray[np.float32] | None:
        """Metadata of the rows that `fold` trains on, float32 (N, F); None without metadata columns."""
        features = self.splits.train.features
        return None if features is None else features[self.splits.trained_on(self.fold)]

    @property
    def score_weights(self) -> NDArray[np.float32] | None:
        """What each training row counts in the metrics, float32 (N,); None where all count the same."""
        return self.splits.score_weights

    @property
    def prior_shift(self) -> NDArray[np.float32] | None:
        """What the sampler adds to the log odds of each output, (K,), where the loss takes it out; else None."""
        return self.splits.prior_shift(self.fold)

    @property
    def test_table(self) -> Table:
        """The rows to predict."""
        return self.splits.test.table

    def images_of(self, stage: Literal["fit", "predict"], rows: Sequence[int]) -> ImageSet:
        """The images of some training rows (`fit`) or rows to predict (`predict`), at full size."""
        found = self.splits.train if stage == "fit" else self.splits.test
        paths = [found.paths[image] for image in found.images_of(rows)]
        return ImageSet(paths, self.settings.root, None, self.settings.loading.image_rules, found.source)

    def images_csv(self) -> str:
        """The results of `check` for every image, as the text of an `images.csv`."""
        return "".join(self.image_files.csv_blocks(self.splits.by_name))

    def use_images_csv(self, path: Path) -> None:
        """Before `setup`: which training images are skipped is read from an earlier run's `images.csv`, not scanned."""
        self.splits.known_images = path

    def training_cache(self) -> PixelCache | None:
        """The pixel cache of the training images, built now if needed; None where images are not cached."""
        return self.image_files.cache(self.splits.train)

    def check_unchanged(self, images: Path) -> None:
        """Compares the training images with those recorded in an `images.csv`.

        Raises:
            DataError: Some have changed.
        """
        self.image_files.check_unchanged(self.splits.train, images)

    def train_dataloader(self) -> TimedLoader:
        """Shuffled, augmented rows of all folds but `fold`.

        Without a Trainer, each pass over such a loader is the next epoch, with a new order and augmentation, even if
        each pass creates a new loader; `loader.sampler.set_epoch` sets the epoch.
        With `loading.augment_on: device`, the first call copies the images to the device.
        """
        return self._train_loader(makes_cache=True)

    def val_dataloader(self) -> TimedLoader:
        """The rows of `fold`, each once, in table order."""
        return self.ordered_loader("val", self.splits.held_out(self.fold), makes_cache=True)

    def predict_dataloader(self, part: tuple[int, int] = (0, 1)) -> TimedLoader:
        """The rows to predict, each once, in table order, without targets; skipped images are padding.

        Args:
            part: (index, number of parts): the rows of one of several processes that run without a Trainer.
        """
        return self.ordered_loader("predict", np.arange(part[0], len(self.test_table), part[1]))

    def test_dataloader(self) -> TimedLoader:
        """The rows of a labelled test table, each once, in table order, with their targets.

        Raises:
            InputError: The table has no targets.
            DataError: Targets are wrong, or unknown to the training table.
        """
        return self.ordered_loader("test", np.arange(len(self.test_table)))

    def make_dataset(self, split: Split, rows: NDArray[np.int64], makes_cache: bool = False) -> Dataset[dict[str, Any]]:
        """The dataset of a loader; a subclass may return a custom one, or wrap this one.

        A key is (epoch, row): the row is a position in the split's table, or −1 for padding. An item has `image`,
        uint8 (H, W, 3) at `image_size`, `row`, and optionally `target` and `features`.

        Args:
            split: `train`, `val`, `test` with targets, or `predict` without targets.
            rows: The rows that the loader visits.
            makes_cache: Build the pixel cache now, if the settings ask for one.

        Raises:
            InputError: `test`, and the rows to predict have no targets.
        """
        return self._loaders.images(split, rows, makes_cache, self._context)

    def _train_loader(self, makes_cache: bool) -> TimedLoader:
        rows = self.splits.trained_on(self.fold)
        return self._loaders.train(self.make_dataset("train", rows, makes_cache), rows, self._context)

    def ordered_loader(self, split: Split, rows: NDArray[np.int64], makes_cache: bool = False) -> TimedLoader:
        """Some rows of a split, each once, in this order, without augmentation; arguments as of `make_dataset`."""
        rows = rows[: None if split == "test" or self.max_batches is None else self.max_batches * self.batch_size]
        return self._loaders.in_order(self.make_dataset(split, rows, makes_cache), rows, split, self._context)

    @property
    def _context(self) -> LoaderContext:
        return LoaderContext(self.fold, self.batch_size, self.trainer)

    @property
    def destination(self) -> Destination:
        """What computes on the batches: set by a command, else the Trainer's devices, else the GPU if there is one."""
        return self._loaders.state.resolve_destination(self.trainer)

    @destination.setter
    def destination(self, value: Destination) -> None:
        self._loaders.state.destination = value

    def teardown(self, stage: str) -> None:
        """Frees the device memory of the training images after training."""
        if stage == "fit":
            self._loaders.on_device.release()

    def __getstate__(self) -> dict[str, Any]:
        """Without the Trainer, whose schedule cannot be pickled."""
        return {**self.__dict__, "trainer": None}

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint: the number of completed epochs."""
        return {"epoch": self._loaders.state.epoch(self.trainer)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues after the checkpoint's epochs."""
        self._loaders.state.resumed_epoch = state_dict["epoch"]
