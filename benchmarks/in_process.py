"""Commands of swinft in this process, where the imports of a process for each would cost more than what is measured."""

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swinft.cli import main


def with_keys(config: dict[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """A config in which the values of dotted keys are replaced; it is changed."""
    for key, value in keys.items():
        *sections, last = key.split(".")
        node = config
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = value
    return config


def command(*words: str) -> str:
    """Runs a command; what it printed.

    Raises:
        RuntimeError: It fails.
    """
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main(list(words))
    if code != 0:
        raise RuntimeError(f"swinft {' '.join(words)} ends with {code}:\n{said.getvalue()[-3000:]}")
    return said.getvalue()


def fit(config: Path, run: Path, folds: int) -> None:
    """Fits what is missing of a run, its folds one after the other.

    Args:
        config: Its config.
        run: Its folder.
        folds: The number of its folds.
    """
    for fold in range(folds):
        if not (run / f"fold_{fold}" / "result.json").is_file():
            command("fit", "--config", str(config), "--fold", str(fold), *(["--resume"] if run.is_dir() else []))
    if not (run / "scores.json").is_file():
        command("fit", "--config", str(config), "--resume")
