"""What can be wrong with the settings of a datamodule, before anything is read."""

from typing import TYPE_CHECKING, Any, Literal, get_args

from swinft.data.augment.crops import Resize
from swinft.data.augment.geometry import DevicePreset
from swinft.data.augment.pipelines import Preset, mistyped
from swinft.data.cache.budget import Policy
from swinft.data.features import MissingFeatures, UnknownCategories
from swinft.data.folds import FoldKind
from swinft.data.loading.device_loader import AugmentOn
from swinft.data.schema import TargetKind
from swinft.data.tables.text import Twins
from swinft.errors import InputError, suggest
from swinft.ranges import COUNT, NOT_NEGATIVE, Range, range_problems

if TYPE_CHECKING:
    from swinft.data.datamodule import CSVDataModule


def check_settings(data: "CSVDataModule") -> None:
    """Refuses settings that contradict each other or are of no use.

    In YAML the types are checked before this; in a notebook nobody else does.

    Raises:
        InputError: All that is wrong with them.
    """
    limits = {
        "num_folds": Range(2),
        "batch_size": COUNT,
        "image_size": COUNT,
        "virtual_epochs": COUNT,
    }
    problems = range_problems("data", vars(data), limits) + range_problems("", vars(data), {"seed": NOT_NEGATIVE})
    workers: Any = data.num_workers  # in a notebook nobody has checked the type
    is_number = isinstance(workers, int) and not isinstance(workers, bool) and workers >= 0
    if not is_number and not isinstance(workers, str):
        problems.append(f"data.num_workers is {data.num_workers}. Allowed: auto, or a whole number from 0.")
    words = {
        "num_workers": (data.num_workers, Literal["auto"]),
        "target_kind": (data.columns.target_kind, TargetKind),
        "fold_kind": (data.fold_kind, FoldKind),
        "resize": (data.resize, Resize),
        "augment": (data.augment, Preset),
        "augment_on": (data.augment_on, AugmentOn),
        "shrink": (data.shrink, Literal["auto"]),
        "on_bad_image": (data.on_bad_image, Literal["error", "skip"]),
        "on_missing_target": (data.columns.on_missing_target, Literal["error", "skip"]),
        "rare_classes": (data.rare_classes, Literal["error", "train"]),
        "duplicates": (data.duplicates, Literal["report", "error", "group", "ignore"]),
        "twins": (data.columns.rules.twins, Twins),
        "missing_features": (data.columns.filling.missing, MissingFeatures),
        "unknown_categories": (data.columns.filling.unknown, UnknownCategories),
    }
    problems += [
        f"data.{name} is '{value}'.{suggest(value, get_args(allowed))}"
        for name, (value, allowed) in words.items()
        if isinstance(value, str) and value not in get_args(allowed)
    ]
    problems += _dead_keys(data)
    folder = data.image_files.folder
    if folder.exists() and not folder.is_dir():
        problems.append(f"data.cache_dir is {folder}, which is a file. Name a folder, there or not yet.")
    if data.rare_classes == "train" and data.columns.target_kind != "classification":
        problems.append("data.rare_classes is for classification; remove it.")
    try:
        "a".encode(data.columns.encoding)
    except (LookupError, UnicodeError):
        problems.append(f"data.encoding '{data.columns.encoding}' is unknown. Try utf-8, cp1252, latin-1, utf-16.")
    if data.image_files.policy is True and data.image_files.image_size is None and data.augment_on != "device":
        problems.append("data.cache is true, but what is cached is shrunk: set data.shrink to true as well.")
    lists = {"augment": data.augment, "preprocess": data.preprocess}
    problems += [
        problem for name, value in lists.items() if not isinstance(value, str) for problem in mistyped(name, value)
    ]
    if data.augment_on == "device":
        problems += _device_problems(data.augment, data.image_files.policy, data.shrink)
        if data.preprocess:
            problems.append("data.preprocess runs on the CPU: set data.augment_on to cpu, or remove it.")
    if problems:
        raise InputError("\n  ".join(["the settings of data are wrong:", *problems]))


def _dead_keys(data: "CSVDataModule") -> list[str]:
    """Settings that others make useless; one sentence each."""
    columns, found = data.columns, []
    ungrouped = ("kfold", "stratified", "multilabel")
    if data.folds:
        made = {
            "fold_kind": data.fold_kind != "auto",
            "rare_classes": data.rare_classes != "error",
            "duplicates": data.duplicates == "group",
        }
        names = [f"data.{name}" for name, is_set in made.items() if is_set]
        if names:
            found.append(
                f"data.folds names the fold of every row, so that {', '.join(names)} cannot act: remove either."
            )
    elif data.duplicates == "group" and data.fold_kind in ungrouped:
        found.append(
            f"data.duplicates 'group' keeps images that look alike in one fold, and data.fold_kind '{data.fold_kind}' "
            f"would split them: set data.fold_kind to auto, or remove it."
        )
    if not columns.categorical_features and columns.filling.unknown == "error":
        found.append("data.unknown_categories does nothing without data.categorical_features; remove it.")
    if not columns.categorical_features + columns.numeric_features and columns.filling.missing != "fill_test":
        found.append("data.missing_features does nothing without metadata columns; remove it.")
    return found


def image_sides(image_size: Any) -> tuple[int, int]:
    """Height and width of the setting `image_size`.

    Raises:
        InputError: It is neither a whole number nor two.
    """
    sides = [image_size, image_size] if isinstance(image_size, int) else list(image_size)
    if len(sides) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) for side in sides):
        raise InputError(
            f"data.image_size is {image_size}; give one side, or height and width, as whole numbers of pixels."
        )
    return sides[0], sides[1]


def _device_problems(augment: Any, policy: Policy, shrink: bool | str) -> list[str]:
    """What in the settings of a datamodule stands against `augment_on: device`; one sentence each."""
    found, back = [], "or data.augment_on to cpu."
    presets = get_args(DevicePreset)
    if not isinstance(augment, str) or augment not in presets:
        name = f"'{augment}'" if isinstance(augment, str) else "a list of transforms"
        found.append(
            f"data.augment_on is 'device', and data.augment is {name}; a device computes {', '.join(presets)}. "
            f"Set data.augment to one of them, {back}"
        )
    if policy is False:
        found.append(
            "data.augment_on is 'device', and data.cache is false; a device gets its images from the cache. "
            f"Set data.cache to auto or true, {back}"
        )
    if shrink is False:
        found.append(
            "data.augment_on is 'device', and data.shrink is false; a device gets shrunk images. "
            f"Set data.shrink to auto or true, {back}"
        )
    return found
