"""Settings of a datamodule that stand together: how folds are made, and how images are loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from albumentations import BaseCompose, BasicTransform
from albumentations.core.composition import TransformType

from swinft.data.augment.crops import Resize
from swinft.data.augment.pipelines import mistyped
from swinft.data.cache.budget import Policy
from swinft.data.folds import FoldKind
from swinft.data.images.decode import RULES, ImageRules
from swinft.data.loading.device_loader import AugmentOn
from swinft.data.loading.workers import NumWorkers
from swinft.data.sampling import Sampler
from swinft.data.sources.named import SourceName, source_problems
from swinft.data.sources.source import Source
from swinft.errors import suggest
from swinft.ranges import SettingsError, is_whole, text_problems, whole_problems, word_problems

NUM_FOLDS = 5  # where nothing says how many
RareClasses = Literal["error", "train"]
OnBadImage = Literal["error", "skip"]
Duplicates = Literal["report", "error", "group", "ignore"]
UNGROUPED = ("kfold", "stratified", "multilabel")
Settings = TypeVar("Settings")


@dataclass(frozen=True)
class FoldConfig:
    """The fold of every training row, and which one is held out.

    Args:
        kind: How folds are made; `auto` stratifies by the target, within groups where `group` is set.
        num: Number of folds; null for 5, or for those that `file` has.
        file: A `folds.csv` of another run to reuse, relative to the working folder, instead of `kind`, `num`,
            `rare_classes` and `duplicates: group`.
        group: Column whose equal values must stay in one fold: patient, site, sequence.
        rare_classes: A class with fewer rows than folds, or with rows of one group only, is an `error`, or every fold
            trains on its rows (`train`) and none scores them, nor the other rows of their groups.
        duplicates: What to do about images that are the same or look alike: `report` them, call those in different
            folds an `error`, keep them in one fold (`group`), or `ignore` them. Images that hang together by others
            count as alike, such as the frames of one camera.
        held_out: The fold that is held out for validation; a run fits each fold in turn.
        seed: Seeds folds, order and augmentation; `seed` in a config.

    Raises:
        InputError: Settings are wrong or contradict each other; all of them are listed.
    """

    kind: FoldKind = "auto"
    num: int | None = None
    file: str | None = None
    group: str | None = None
    rare_classes: RareClasses = "error"
    duplicates: Duplicates = "report"
    held_out: int = 0
    seed: int = 42

    def __post_init__(self) -> None:
        """Checks what can be said without the other settings."""
        words = {
            "kind": get_args(FoldKind),
            "rare_classes": get_args(RareClasses),
            "duplicates": get_args(Duplicates),
        }
        lowest = {"held_out": 0} if self.num is None else {"num": 2, "held_out": 0}
        problems = whole_problems("data.folds", vars(self), lowest)
        problems += text_problems("data.folds", vars(self), (), ("file", "group"))
        problems += whole_problems("", vars(self), {"seed": 0})
        problems += word_problems("data.folds", vars(self), words)
        made = {"kind": self.kind != "auto", "rare_classes": self.rare_classes != "error"}
        made |= {"duplicates": self.duplicates == "group"}
        names = [f"data.folds.{name}" for name, is_set in made.items() if is_set]
        if self.file and names:
            problems.append(
                f"data.folds.file names the fold of every row, so that {', '.join(names)} cannot act: remove either."
            )
        elif self.duplicates == "group" and self.kind in UNGROUPED:
            problems.append(
                f"data.folds.duplicates 'group' keeps images that look alike in one fold, and data.folds.kind "
                f"'{self.kind}' would split them: set data.folds.kind to auto, or remove it."
            )
        if problems:
            raise SettingsError(problems)

    @property
    def planned(self) -> int:
        """How many folds are made where no file says it."""
        return NUM_FOLDS if self.num is None else self.num


@dataclass(frozen=True)
class LoadingConfig:
    """How image files become the images of a batch.

    Args:
        source: Where the images are: `files`; `zip` for zip and tar archives, without unpacking them
            (`data.image: train.zip/{id}.jpg`); `hdf5` (`train.hdf5/{id}`); `column` for pixels in columns of the table
            (`pixel*`); or a class of these or of your own, by `class_path` and `init_args`.
        test_source: Where the images of the rows to predict are, if elsewhere; null for `source`.
        sampler: Which training rows an epoch visits, and in which order: a class by `class_path` and `init_args`; null
            for each once, shuffled.
        image_rules: Which images can be used, and how unusual ones are converted.
        on_bad_image: An image that cannot be used is an `error`, or its row is left out (`skip`) and stays in the
            predictions with a status. A missing file is always an error.
        follow_links: Links may lead out of the images' folder, as those of DVC, git-annex and the hub's cache do. What
            a cell says may not, whatever this is. It is for the source `files`.
        shrink: Decode images at what `data.image_size` needs (`swinft.data.images.resize`): faster, and slightly
            softer. False keeps every pixel. `auto` shrinks for the presets, and keeps every pixel for transforms of
            your own, whose lengths are in pixels.
        resize: How evaluation and the presets get to `data.image_size`: `squash` ignores the aspect ratio, `crop` cuts
            what sticks out, `pad` fills the rest with black.
        preprocess: Albumentations transforms that training and evaluation apply alike, before `data.augment` and
            `resize`. They must not draw: p is 1 and ranges have one value.
        augment_on: `cpu`, or `device` to keep the training images in the memory of the device that trains and to
            augment there, with `none`, `light`, `medium` or `crop`. Each GPU holds all images that its fold trains
            on. It needs the cache: `auto` then means true. Validation and prediction stay on the CPU. It is made for
            GPUs: where the device is the CPU, it works and is many times slower than `cpu`.
        cache: Decode the training images once into a file that folds, workers and runs share: true, false, or `auto`
            where it fits on the disk and in memory. Pixels are the same either way. A run makes it before training; in
            a notebook `check` does, or the first loader.
        cache_dir: Folder of such files; null for ~/.cache/swinft. `swinft cache` lists and prunes it; what nothing has
            used for 30 days, and the oldest beyond half of the disk, goes whenever another is made.
        num_workers: Processes that decode and augment; 0 for none beside the main one. `auto` takes the cores that
            this process may use, divided among folds at a time and devices per fold, less one, and at most 8; none
            where the network computes on a CPU, which needs the cores itself.
        virtual_epochs: Epochs that visit every training row once between them: long epochs cut into this many, each
            validated and saved, so that an interruption costs less. `trainer.max_epochs` counts these.
        download: What to run to get the data and where it goes; said when files are missing.

    Raises:
        InputError: Settings are wrong or contradict each other; all of them are listed.
    """

    source: SourceName | Source = "files"
    test_source: SourceName | Source | None = None
    sampler: Sampler | None = None
    image_rules: ImageRules = RULES
    on_bad_image: OnBadImage = "error"
    follow_links: bool = False
    shrink: bool | Literal["auto"] = "auto"
    resize: Resize = "squash"
    preprocess: list[TransformType] | None = None
    augment_on: AugmentOn = "cpu"
    cache: Policy = "auto"
    cache_dir: str | None = None
    num_workers: NumWorkers = "auto"
    virtual_epochs: int = 1
    download: str | None = None

    def __post_init__(self) -> None:
        """Checks what can be said without the other settings."""
        rules: Any = self.image_rules  # a dictionary in the hyper-parameters of a checkpoint
        if not isinstance(rules, ImageRules):
            object.__setattr__(self, "image_rules", settings_of(ImageRules, "data.loading.image_rules", rules))
        flags = (True, False)
        words = {
            "on_bad_image": get_args(OnBadImage),
            "follow_links": flags,
            "shrink": (*flags, "auto"),
            "resize": get_args(Resize),
            "augment_on": get_args(AugmentOn),
            "cache": (*flags, "auto"),
        }
        problems = word_problems("data.loading", vars(self), words)
        problems += whole_problems("data.loading", vars(self), {"virtual_epochs": 1})
        problems += text_problems("data.loading", vars(self), (), ("cache_dir", "download"))
        workers: Any = self.num_workers  # in a notebook nobody has checked the type
        if workers != "auto" and not (is_whole(workers) and workers >= 0):
            hint = (
                suggest(workers, ["auto"]) if isinstance(workers, str) else " Allowed: auto, or a whole number from 0."
            )
            problems.append(f"data.loading.num_workers is '{workers}'.{hint}")
        if (
            isinstance(self.cache_dir, str)
            and self.cache_dir
            and (folder := Path(self.cache_dir).expanduser()).exists()
            and not folder.is_dir()
        ):
            problems.append(f"data.loading.cache_dir is {folder}, which is a file. Name a folder, there or not yet.")
        if self.preprocess is not None:
            problems += transform_problems("loading.preprocess", self.preprocess)
        problems += source_problems(self.source, self.test_source, self.follow_links)
        sampler: Any = self.sampler  # in a notebook nobody has checked the type
        if not isinstance(sampler, Sampler | None):
            problems.append(f"data.loading.sampler is {sampler!r}; give a swinft.Sampler, or null.")
        if self.augment_on == "device":
            problems += self._device_problems()
        if problems:
            raise SettingsError(problems)

    def _device_problems(self) -> list[str]:
        """What stands against `augment_on: device`; one sentence each."""
        found, back = [], "or data.loading.augment_on to cpu."
        if self.cache is False:
            found.append(
                "data.loading.augment_on is 'device', and data.loading.cache is false; a device gets its images from "
                f"the cache. Set data.loading.cache to auto or true, {back}"
            )
        if self.shrink is False:
            found.append(
                "data.loading.augment_on is 'device', and data.loading.shrink is false; a device gets shrunk images. "
                f"Set data.loading.shrink to auto or true, {back}"
            )
        if self.preprocess:
            found.append("data.loading.preprocess runs on the CPU: set data.loading.augment_on to cpu, or remove it.")
        return found

    @property
    def policy(self) -> Policy:
        """Whether training images are cached: what is augmented on the device needs it."""
        return True if self.augment_on == "device" and self.cache == "auto" else self.cache


def transform_problems(key: str, transforms: Any) -> list[str]:
    """What is wrong with a list of transforms; one sentence each."""
    is_list = isinstance(transforms, Sequence) and not isinstance(transforms, str)
    if not is_list or not all(isinstance(each, BasicTransform | BaseCompose) for each in transforms):
        return [f"data.{key} is {transforms!r}; give a list of albumentations transforms."]
    return mistyped(key, transforms)


def settings_of(cls: type[Settings], key: str, given: Any) -> Settings:
    """Settings from a dictionary, as in YAML and in the hyper-parameters of checkpoints, or as they are.

    Args:
        cls: Their dataclass.
        key: Where they stand in a config.
        given: An object of it, or a dictionary of its fields.

    Raises:
        InputError: A key is unknown, or a value is wrong.
    """
    if isinstance(given, cls):
        return given
    if not isinstance(given, Mapping):
        raise SettingsError([f"{key} is {given!r}; give a {cls.__name__}, or a dictionary of its fields."])
    known = [field.name for field in fields(cls) if field.init]  # type: ignore[arg-type]
    unknown = [f"{key} has no '{name}'.{suggest(str(name), known)}" for name in given if name not in known]
    if unknown:
        raise SettingsError(unknown)
    try:
        return cls(**given)
    except TypeError as error:  # a value of a type that nobody has thought of
        raise SettingsError([f"{key} is {dict(given)!r}, which holds a value of a wrong type: {error}."]) from error
