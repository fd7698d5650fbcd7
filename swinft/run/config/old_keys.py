"""Renamed keys: migrated in configs frozen by earlier versions, an error that names the new key in all others."""

from typing import Any

from swinft.run.config.yaml_text import read_own_yaml, yaml_text

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
    "model.compute": ("fast_attention", "compile", "grad_checkpointing"),
}
# Old dotted key -> current key. `data.folds` was a file name, and is a section now.
MOVED = {
    **{f"{section.partition('.')[0]}.{key}": f"{section}.{key}" for section, keys in SECTIONS.items() for key in keys},
    "data.fold_kind": "data.folds.kind",
    "data.num_folds": "data.folds.num",
    "data.folds": "data.folds.file",
}
# Old keys that are rules now, in the order in which they acted.
RULES = {"submission.normalize": "[normalize]", "submission.clip": "[{clip: {min: …, max: …}}]"}
GONE = ("model.loads_weights",)  # in configs of earlier versions, without an effect
VALUES = {"model.fast_attention": {"triton": True}}  # a kernel of earlier versions, with the same result


def current_key(key: str) -> str | None:
    """The current name of an old key, or of a key in an old section; None for any other key."""
    if key in RULES:
        return f"submission.rules: {RULES[key]}"
    if f"submission.{key}" in RULES:  # an option of `swinft submit`
        return f"rules: {RULES[f'submission.{key}']}"
    for old, new in MOVED.items():
        if key == old or (key.startswith(f"{old}.") and old != "data.folds"):
            return new + key[len(old) :]
    return None


def migrated(text: str) -> str:
    """The YAML of a frozen config with current keys; the text is unchanged if it has no old keys."""
    config: Any = read_own_yaml(text)
    if not isinstance(config, dict):
        return text
    moved, gone = [], _with_rules(config)
    for section, key in (each.split(".") for each in GONE):
        gone |= isinstance(config.get(section), dict) and config[section].pop(key, None) is not None
    for old, new in MOVED.items():
        section, key = old.split(".")
        values = config.get(section)
        if isinstance(values, dict) and _is_old(values, key):
            moved.append((section, new.split(".")[1:], values.pop(key)))
    for section, (part, name), value in moved:
        known = VALUES.get(f"{section}.{name}", {})
        config[section].setdefault(part, {})[name] = known.get(value, value) if isinstance(value, str) else value
    return yaml_text(config) if moved or gone else text


def _with_rules(config: dict[str, Any]) -> bool:
    """Moves old keys of the section `submission` to its rules; returns whether there are any."""
    values = config.get("submission")
    if not isinstance(values, dict) or not {"clip", "normalize"} & set(values):
        return False
    clip, normalize = values.pop("clip", None), values.pop("normalize", None)
    rules = values.setdefault("rules", [])
    rules += [{"normalize": {"without": values["drop"]}} if values.get("drop") else "normalize"] if normalize else []
    rules += [{"clip": {"min": clip[0], "max": clip[1]}}] if clip else []
    return True


def _is_old(values: dict[str, Any], key: str) -> bool:
    return key in values and not (key == "folds" and isinstance(values[key], dict))
