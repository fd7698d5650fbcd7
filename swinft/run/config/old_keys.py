"""Keys that have moved: a config frozen by an earlier version is read with today's, any other is told of them."""

from typing import Any

import yaml

SECTIONS = {
    "data.columns": (
        "test_id",
        "test_image",
        "label_delimiter",
        "class_order",
        "missing_words",
        "twins",
        "numeric_features",
        "categorical_features",
        "missing_features",
        "unknown_categories",
        "on_missing_target",
        "encoding",
    ),
    "data.folds": ("group", "rare_classes", "duplicates"),
    "data.loading": (
        "image_rules",
        "on_bad_image",
        "follow_links",
        "shrink",
        "resize",
        "preprocess",
        "augment_on",
        "cache",
        "cache_dir",
        "num_workers",
        "virtual_epochs",
        "download",
    ),
}
# Old dotted key -> today's. `data.folds` was a file's name, and is a section today.
MOVED = {
    **{f"data.{key}": f"{section}.{key}" for section, keys in SECTIONS.items() for key in keys},
    "data.fold_kind": "data.folds.kind",
    "data.num_folds": "data.folds.num",
    "data.folds": "data.folds.file",
}


def today(key: str) -> str | None:
    """Where an old key, or one inside an old section, stands today; None where it is none."""
    for old, new in MOVED.items():
        if key == old or (key.startswith(f"{old}.") and old != "data.folds"):
            return new + key[len(old) :]
    return None


def migrated(text: str) -> str:
    """The YAML of a frozen config with today's keys; the very same text where it has no others."""
    config: Any = yaml.safe_load(text)
    data = config.get("data") if isinstance(config, dict) else None
    if not isinstance(data, dict):
        return text
    old = {key: new for key, new in MOVED.items() if _is_old(data, key.removeprefix("data."))}
    if not old:
        return text
    moved = [(new.split(".")[1:], data.pop(key.removeprefix("data."))) for key, new in old.items()]
    for (section, name), value in moved:
        data.setdefault(section, {})[name] = value
    return str(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


def _is_old(data: dict[str, Any], key: str) -> bool:
    return key in data and not (key == "folds" and isinstance(data[key], dict))
