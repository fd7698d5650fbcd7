"""Settings for image loading (`LoadingConfig`), and settings from dictionaries."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from albumentations import BaseCompose, BasicTransform
from albumentations.core.composition import TransformType

from swinft.data.augment.crops import Resize
from swinft.data.augment.pipelines import mistyped
from swinft.data.cache.budget import Policy
from swinft.data.images.rules import RULES, ImageRules
from swinft.data.loading.device_loader import AugmentOn
from swinft.data.loading.workers import NumWorkers
from swinft.data.sampling import Sampler, SamplerName, sampler_problems
from swinft.data.sources.named import SourceName, source_problems
from swinft.data.sources.source import Source
from swinft.errors import suggest
from swinft.ranges import (
    MOST_PROCESSES,
    SettingsError,
    is_whole,
    settings_of,
    text_problems,
    whole_problems,
    word_problems,
)

OnBadImage = Literal["error", "skip"]


@dataclass(frozen=True)
class LoadingConfig:
    """How image files become the images of a batch.

    Args:
        source: Where the images are: `files`; `zip` for zip and tar archives, without unpacking them
            (`data.image: train.zip/{id}.jpg`); `hdf5` (`train.hdf5/{id}`); `column` for pixels in columns of the table
            (`pixel*`); or one of their classes or a custom one, by `class_path` and `init_args`.
        test_source: Where the images of the rows to predict are; null for `source`.
        sampler: Chooses the training rows of an epoch and their order: `balanced` for equally many rows of each class,
            `ratio` for as many negative rows as positive ones; these with other arguments, `swinft.WeightedSampler` or
            a custom class by `class_path` and `init_args`; null for each row once, shuffled.
        image_rules: Which images can be used, and how unusual ones are converted.
        on_bad_image: An unusable image is an `error`; with `skip`, its row is skipped and gets a status in the
            predictions. A missing file is always an error.
        follow_links: Allow links that lead out of the images' folder, as those of DVC, git-annex and the hub's cache. A
            cell's path may never leave the folder. Only for the source `files`.
        shrink: Decode images at the size that `data.image_size` needs (`swinft.data.images.resize`): faster, and
            slightly softer. False keeps full size. `auto` shrinks for the presets, and keeps full size for custom
            transforms, whose lengths are in pixels.
        resize: How evaluation and the presets resize to `data.image_size`: `squash` ignores the aspect ratio, `crop`
            crops the centre, `pad` pads with black.
        preprocess: Albumentations transforms that training and evaluation both apply, before `data.augment` and
            `resize`. They must be deterministic: p is 1 and ranges have one value.
        augment_on: `cpu`, or `device` to keep the training images in the training device's memory and to augment there,
            with `none`, `light`, `medium` or `crop`. Each GPU holds all images that its fold trains on. This needs the
            cache: `auto` then means true. Validation and prediction stay on the CPU. It is meant for GPUs: on a CPU it
            works, but is many times slower than `cpu`.
        cache: Decode the training images once into a file shared by folds, workers and runs: true, false, or `auto` for
            yes if it fits on the disk and in memory. The pixels are the same. A run builds it before training; in a
            notebook, `check` or the first loader does.
        cache_dir: Folder of caches; null for ~/.cache/swinft. `swinft cache` lists and prunes it. Building a cache
            deletes those unused for 30 days, and the oldest ones beyond half of the disk.
        num_workers: Worker processes that decode and augment; 0 to use only the main process. `auto` is the number of
            available cores, divided by the folds at a time and the devices per fold, minus one, at most 8; and 0 if the
            network runs on a CPU, which needs the cores itself.
        virtual_epochs: Splits each pass over the training rows into this many epochs, each validated and saved, so that
            an interruption loses less. `trainer.max_epochs` counts these.
        download: How to get the data and where it goes; shown when files are missing.

    Raises:
        InputError: Settings are wrong or contradict each other; all of them are listed.
    """

    source: SourceName | Source = "files"
    test_source: SourceName | Source | None = None
    sampler: SamplerName | Sampler | None = None
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
        """Checks the values that do not depend on other settings."""
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
        workers: Any = self.num_workers  # types are not checked in a notebook
        if workers != "auto" and not (is_whole(workers) and 0 <= workers <= MOST_PROCESSES):
            allowed = f" Allowed: auto, or a whole number from 0 to {MOST_PROCESSES}."
            hint = suggest(workers, ["auto"]) if isinstance(workers, str) else allowed
            problems.append(f"data.loading.num_workers is '{workers}'.{hint}")
        if (
            isinstance(self.cache_dir, str)
            and self.cache_dir
            and (folder := Path(self.cache_dir).expanduser()).exists()
            and not folder.is_dir()
        ):
            problems.append(f"data.loading.cache_dir is {folder}, which is a file. Name a new or existing folder.")
        if self.preprocess is not None:
            problems += transform_problems("loading.preprocess", self.preprocess)
        problems += source_problems(self.source, self.test_source, self.follow_links)
        problems += sampler_problems(self.sampler)
        if self.augment_on == "device":
            problems += self._device_problems()
        if problems:
            raise SettingsError(problems)

    def _device_problems(self) -> list[str]:
        """Conflicts with `augment_on: device`; one sentence each."""
        found, back = [], "or data.loading.augment_on to cpu."
        if self.cache is False:
            found.append(
                "data.loading.augment_on is 'device', and data.loading.cache is false; a device loads its images from "
                f"the cache. Set data.loading.cache to auto or true, {back}"
            )
        if self.shrink is False:
            found.append(
                "data.loading.augment_on is 'device', and data.loading.shrink is false; a device loads shrunk images. "
                f"Set data.loading.shrink to auto or true, {back}"
            )
        if self.image_rules.keep:
            found.append(
                "data.loading.augment_on is 'device', which holds images of 8 bits, and data.loading.image_rules.keep "
                f"is {self.image_rules.keep}: remove it, {back}"
            )
        if self.preprocess:
            found.append("data.loading.preprocess runs on the CPU: set data.loading.augment_on to cpu, or remove it.")
        return found

    @property
    def policy(self) -> Policy:
        """Whether training images are cached; augmentation on the device needs it."""
        return True if self.augment_on == "device" and self.cache == "auto" else self.cache


def transform_problems(key: str, transforms: Any) -> list[str]:
    """Problems of a list of transforms; one sentence each."""
    is_list = isinstance(transforms, Sequence) and not isinstance(transforms, str)
    if not is_list or not all(isinstance(each, BasicTransform | BaseCompose) for each in transforms):
        return [f"data.{key} is {transforms!r}; give a list of albumentations transforms."]
    return mistyped(key, transforms)
