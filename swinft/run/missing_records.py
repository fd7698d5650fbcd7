"""`swinft fit --resume --accept`: writes new commit records for files whose record is missing or damaged."""

import json
from collections.abc import Callable
from pathlib import Path

import yaml
from safetensors import SafetensorError, safe_open

from swinft.errors import StoreError
from swinft.run.folds.checkpoints import is_whole_checkpoint
from swinft.run.layout import Run
from swinft.store import is_unrecorded, record_existing


def write_missing_records(run: Run) -> None:
    """Writes the records that are missing or damaged, and prints for which files.

    A file that differs from an intact record is not accepted: something has changed it.

    Raises:
        StoreError: Files look incomplete; all of them are listed, and none is accepted.
    """
    folders = [run.root, *sorted(run.root.glob("fold_*"))]
    files = [path for folder in folders for path in sorted(folder.iterdir()) if path.suffix in CHECKS]
    found = [path for path in files if is_unrecorded(path)]
    broken = [str(path) for path in found if not CHECKS[path.suffix](path)]
    if broken:
        raise StoreError("\n  ".join(["these files are incomplete and cannot be accepted:", *broken]))
    for path in found:
        record_existing(path, "swinft fit --accept")
    names = ", ".join(str(path.relative_to(run.root)) for path in found)
    print(f"accepted as they are, with new records: {names}" if found else "--accept: every file has its record")


def _is_text(path: Path) -> bool:
    try:
        return path.read_text(encoding="utf-8").endswith("\n")
    except ValueError:
        return False


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    return True


def _is_lines(path: Path) -> bool:
    try:
        return all(isinstance(json.loads(line), dict) for line in path.read_bytes().splitlines())
    except ValueError:
        return False


def _is_config(path: Path) -> bool:
    try:
        return isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)
    except (ValueError, yaml.YAMLError):
        return False


def _is_weights(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt"):  # compares the header with the size
            return True
    except (OSError, SafetensorError):
        return False


# The check of an artefact before it is accepted, by suffix; log.txt is not an artefact.
CHECKS: dict[str, Callable[[Path], bool]] = {
    ".csv": _is_text,
    ".html": lambda path: True,  # every resume writes it again
    ".json": _is_json,
    ".jsonl": _is_lines,
    ".yaml": _is_config,
    ".ckpt": is_whole_checkpoint,
    ".safetensors": _is_weights,
}
