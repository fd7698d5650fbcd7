"""All settings of a datamodule, checked together before any table is read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, get_args

from albumentations.core.composition import TransformType

from swinft.data.augment.geometry import DevicePreset
from swinft.data.augment.pipelines import Preset
from swinft.data.columns import Columns
from swinft.data.fold_settings import FoldConfig
from swinft.data.found_images import Finding
from swinft.data.masks.tiles import TileConfig
from swinft.data.roots import resolved_root
from swinft.data.row_images import RowImages, row_images
from swinft.data.settings import LoadingConfig, transform_problems
from swinft.data.sources.named import make_source
from swinft.data.sources.source import Source
from swinft.data.tables.steps.frame import is_pattern
from swinft.data.tables.steps.make import given_table, read_given, table_name
from swinft.data.tables.steps.sequence import StepList
from swinft.data.tables.table import Problem, Table, read_table
from swinft.data.tables.text import as_in_header
from swinft.data.target.base import Target
from swinft.data.target.custom import class_path_of
from swinft.data.target.kinds import GivenKind, is_custom, kind_problem, target_columns, target_of
from swinft.data.target.segmentation import Segmentation
from swinft.errors import InputError
from swinft.ranges import (
    SettingsError,
    check_image_size,
    is_whole,
    list_problems,
    settings_of,
    text_problems,
    whole_problems,
    word_problems,
)


@dataclass(frozen=True)
class DataSettings:
    """All settings of a datamodule, checked together; `CSVDataModule` documents them.

    Raises:
        InputError: Settings are wrong or contradict each other; all of them are listed.
    """

    target: str | list[str]
    target_kind: GivenKind
    train: str | StepList | None
    image: RowImages
    id: str
    root: Path
    test: str | StepList | None
    sample_submission: str | StepList | None
    image_size: tuple[int, int]
    augment: Preset | list[TransformType]
    batch_size: int
    columns: Columns
    folds: FoldConfig
    loading: LoadingConfig
    is_matched: ClassVar[bool] = False  # of an object: whether names have replaced patterns in its lists of columns

    def __post_init__(self) -> None:
        """Converts plain values to objects, then checks each setting and their combination."""
        problems: list[str] = []
        plain: dict[str, Callable[[Any], Any]] = {
            "columns": partial(settings_of, Columns, "data.columns"),
            "folds": partial(settings_of, FoldConfig, "data.folds"),
            "loading": partial(settings_of, LoadingConfig, "data.loading"),
            "image_size": image_sides,
            "image": row_images,
        }
        plain |= dict.fromkeys(("id", "target"), as_in_header)
        plain |= {name: partial(given_table, f"data.{name}") for name in ("train", "test", "sample_submission")}
        problems += text_problems("data", vars(self), ("id", "root"), ())
        for name, make in plain.items():
            try:
                object.__setattr__(self, name, make(getattr(self, name)))
            except SettingsError as error:
                problems += error.problems
            except InputError as error:
                problems.append(str(error))
        problems += whole_problems("data", vars(self), {"batch_size": 1})
        problems += [problem] if (problem := kind_problem(self.target_kind)) else []
        if isinstance(self.augment, str):
            problems += word_problems("data", vars(self), {"augment": get_args(Preset)})
        else:
            problems += transform_problems("augment", self.augment)
        if isinstance(self.target, str) or list_problems("data", vars(self), ("target",)) or self.target is None:
            problems += text_problems("data", vars(self), ("target",), ())
        if not problems:
            object.__setattr__(self, "root", Path(resolved_root(str(self.root))))
        problems = problems or [*self._image_problems(), *self._target_problems(), *self._augment_problems()]
        problems = problems or (mask_problems(self) if self.kind.are_maps else [])
        if problems:
            raise SettingsError(problems)

    def _image_problems(self) -> list[str]:
        """Image path templates that a source does not accept; at most one sentence each."""
        named = {"data.image": (self.source, self.image)}
        if self.columns.test_image is not None or self.test_source is not self.source:
            try:
                named["data.columns.test_image"] = self.test_source, self.test_image
            except SettingsError as error:
                return error.problems
        found = []
        for key, (source, images) in named.items():
            problems = ((path, source.template_problem(path)) for path in images.templates)
            found += [f"{key} '{path}' {problem}" for path, problem in problems if problem][:1]
            looks_up = images.is_open or images.missing == "mask"
            if looks_up and type(source).references is not Source.references:
                found.append(
                    f"{key}: wildcards, `delimiter` and `missing: mask` are for sources that have images by name, and "
                    f"{type(source).__name__} takes them from the table: remove them."
                )
        return found

    def _target_problems(self) -> list[str]:
        """Conflicts between the target's settings and other columns; one sentence each."""
        found, are_classes = [], self.kind.are_classes
        if self.columns.class_order is not None and not are_classes:
            found.append(
                f"data.columns.class_order does nothing where data.target_kind is {self.kind_name}; remove it."
            )
        if self.folds.rare_classes != "error" and (not are_classes or self.kind.is_soft):
            found.append("data.folds.rare_classes is for classification with one column of classes; remove it.")
        found += self._gap_problems()
        if isinstance(pair := self.columns.sample_id, list) and self.predicts_sample:
            found.append(
                f"submission.id is {pair}, so that the sample submission has several rows for an id: set data.test to "
                f"the rows to predict, as [{{csv: {self.sample_submission}}}, {{unique: [{pair[0]}]}}]."
            )
        found += [
            f"data.folds.extra: {' and '.join(each.for_labels)} of {each.name} are for classes and labels, whose "
            f"predictions are probabilities; remove them."
            for each in ([] if self.kind.are_probabilities else self.folds.extra_tables)
            if each.for_labels
        ]
        try:
            targets = self.targets
        except InputError as error:
            return [*found, str(error)]
        what = "and among the features: the network would see the target."
        keys = {**dict.fromkeys(self.columns.auxiliary_columns, "data.columns.auxiliary")}
        found += [
            f"'{name}' is in data.target and in {key}; remove it from one."
            for name, key in keys.items()
            if name in targets
        ]
        keys |= dict.fromkeys(targets, "data.target")
        leaked = [name for name in keys if name in self.columns.features]
        return [*found, *(f"'{name}' is in {keys[name]} {what}" for name in leaked)]

    def _gap_problems(self) -> list[str]:
        """Conflicts with `data.columns.on_missing_target: mask`; one sentence each."""
        key = "data.columns.on_missing_target is mask"
        if self.columns.on_missing_target != "mask":
            return []
        if not isinstance(self.target_kind, str):
            return [f"{key}, which is for swinft's own kinds of target, and data.target_kind is {self.kind_name}."]
        if self.folds.rare_classes != "error":
            return [f"{key}, and data.folds.rare_classes is {self.folds.rare_classes}: remove one of the two."]
        if self.kind.are_classes and not self.columns.auxiliary:
            return [f"{key}, and there is nothing to learn from a row without a class: set it to skip."]
        return []

    def _augment_problems(self) -> list[str]:
        """Conflicts between loading and `data.augment`; one sentence each."""
        found = []
        on_device, presets = self.loading.augment_on == "device", get_args(DevicePreset)
        if on_device and (not isinstance(self.augment, str) or self.augment not in presets):
            name = f"'{self.augment}'" if isinstance(self.augment, str) else "a list of transforms"
            found.append(
                f"data.loading.augment_on is 'device', and data.augment is {name}; a device supports "
                f"{', '.join(presets)}. Set data.augment to one of them, or data.loading.augment_on to cpu."
            )
        if on_device and not self.image.is_plain:
            found.append(
                "data.loading.augment_on is 'device', which knows one image per row, and data.image gives several, or "
                "parts or channels: set data.loading.augment_on to cpu."
            )
        if self.loading.policy is True and not self.is_shrunk and not on_device and self.tile is None:
            found.append(
                "data.loading.cache is true, but the cache stores shrunk images: set data.loading.shrink to true too."
            )
        return found

    @cached_property
    def source(self) -> Source:
        """The source of the training images."""
        return make_source(self.loading.source, self.loading.follow_links)

    @cached_property
    def test_source(self) -> Source:
        """The source of the images to predict."""
        given = self.loading.test_source
        return self.source if given is None else make_source(given, self.loading.follow_links)

    @property
    def test_image(self) -> RowImages:
        """The images of a row to predict.

        Raises:
            InputError: `data.columns.test_image` names other images than `data.image`.
        """
        given = self.columns.test_image
        return self.image if given is None else self.image.elsewhere(given, "data.columns.test_image")

    def finding(self, is_test: bool = False) -> Finding:
        """What finds the images of the training rows, or of the rows to predict."""
        images, source = (self.test_image, self.test_source) if is_test else (self.image, self.source)
        return Finding(images, source, self.root, self.loading.on_bad_image == "skip")

    @cached_property
    def kind(self) -> Target:
        """What the kind of target means."""
        is_several = isinstance(self.target, list) and self._has_target_pattern  # a pattern stands for several columns
        return target_of(self.target_kind, [*self.target, ""] if is_several else self.target)

    @property
    def mask_form(self) -> dict[str, Any]:
        """How masks are written, for a schema; empty for other kinds of target."""
        if not isinstance(self.kind, Segmentation):
            return {}
        more = {} if self.kind.classes == "independent" else {"classes": self.kind.classes}
        return {"order": self.kind.order, "resize": self.loading.resize, **more}

    @property
    def tile(self) -> TileConfig | None:
        """Tiles of large images; None where images are resized to `image_size`."""
        return self.kind.tile if isinstance(self.kind, Segmentation) else None

    @property
    def kind_name(self) -> str:
        """The kind's name, or the path of its class."""
        given = self.target_kind
        return class_path_of(given) if not isinstance(given, str) and is_custom(given) else self.kind.kind

    @property
    def targets(self) -> list[str]:
        """The target columns; patterns until the training table is read."""
        if isinstance(self.target, list) and self._has_target_pattern:
            return self.target
        return target_columns(self.kind, self.target, self.columns.label_delimiter)

    @property
    def _has_target_pattern(self) -> bool:
        return not self.is_matched and isinstance(self.target, list) and any(map(is_pattern, self.target))

    @property
    def has_custom_transforms(self) -> bool:
        """Whether custom transforms run on images."""
        return bool(self.loading.preprocess) or not isinstance(self.augment, str)

    @property
    def shown_to_network(self) -> tuple[tuple[int, int], int, bool, bool]:
        """Size and channels of what the network sees, whether it is float32, and whether masks are predicted."""
        return self.image_size, self.image.num_channels, self.loading.image_rules.keep is not None, self.kind.are_maps

    @property
    def is_shrunk(self) -> bool:
        """Whether images are decoded at the size that training needs instead of full size."""
        shrink = self.loading.shrink
        if self.tile is not None:
            return False  # they are cut from images at full size
        return not self.has_custom_transforms if shrink == "auto" else shrink

    @property
    def predicts_sample(self) -> bool:
        """Whether the rows to predict come from the sample submission, whose targets are placeholders."""
        test, sample = self.test, self.sample_submission
        if not sample or not test:
            return not test
        if isinstance(test, StepList) or isinstance(sample, StepList):
            return False
        return (self.root / test).resolve() == (self.root / sample).resolve()

    def read(
        self,
        given: str | StepList,
        id: str,
        required: Mapping[str, str],
        problems: list[Problem],
        id_setting: str = "data.id",
        content: bytes | None = None,
    ) -> Table | None:
        """A table of the config, checked; arguments and result as for `steps.make.read_given`.

        `content` is a CSV in memory, which is read in place of the table.
        """
        encoding = self.columns.encoding
        if content is not None:
            name = Path(table_name(given, self.root))
            return read_table(name, id, required, problems, encoding, id_setting, content)
        return read_given(given, self.root, id, required, problems, encoding, id_setting, self.loading.follow_links)

    @property
    def may_skip(self) -> bool:
        """Whether settings allow rows without a prediction of their own."""
        choices = (self.loading.on_bad_image, self.columns.on_missing_target, self.folds.rare_classes)
        return not {"skip", "mask", "train"}.isdisjoint(choices)


def mask_problems(settings: DataSettings) -> list[str]:
    """Settings that segmentation does not support; one sentence each."""
    columns, folds, loading = settings.columns, settings.folds, settings.loading
    wrong = {
        "data.image gives several images, parts or channels per row; name one file": not settings.image.is_plain,
        "data.loading.resize is crop, and what it cuts off would have no prediction; set it to squash or pad": (
            loading.resize == "crop"
        ),
        "data.loading.augment_on is device; set it to cpu": loading.augment_on == "device",
        "data.loading.sampler chooses rows by classes; remove it": loading.sampler is not None,
        "data.folds.extra is set; join its rows to data.train": bool(folds.extra_tables),
        "data.columns.auxiliary is set; remove it": bool(columns.auxiliary),
        "metadata columns are set (numeric_features, categorical_features); remove them": bool(columns.features),
        "data.columns.on_missing_target is not error, and an empty cell is an empty mask; remove it": (
            columns.on_missing_target != "error"
        ),
    }
    if settings.tile is not None:
        wrong |= {
            f"data.loading.{name} is {value}, and tiles are cut from images at full size; remove it": is_so
            for name, value, is_so in (
                ("resize", loading.resize, loading.resize != "squash"),
                ("shrink", "true", loading.shrink is True),
                ("cache", "true", loading.cache is True),
            )
        }
    return [f"data.target_kind is segmentation, and {text}." for text, is_so in wrong.items() if is_so]


def image_sides(image_size: Any) -> tuple[int, int]:
    """Height and width from the setting `image_size`.

    Raises:
        InputError: It is not one or two whole numbers in their range, or the image is too large.
    """
    sides = list(image_size) if isinstance(image_size, Sequence) else [image_size, image_size]
    if len(sides) != 2 or not all(is_whole(side) for side in sides):
        raise InputError(f"data.image_size is {image_size}; give one side, or height and width, in whole pixels.")
    check_image_size("data.image_size", image_size)
    return sides[0], sides[1]
