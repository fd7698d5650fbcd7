"""The tables that a run was started with, identified by their SHA-256 and not by their path."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from swinft.errors import InputError
from swinft.run.layout import Run
from swinft.store import commit, verify

TABLES = ("train", "test", "sample_submission")


def freeze_inputs(run: Run, config: Namespace) -> None:
    """Records the SHA-256 of every table, by its name in the config."""
    commit(run.inputs, json.dumps(_hashes(config, TABLES), indent=1).encode(), "swinft fit")


def check_inputs(run: Run, config: Namespace, tables: Sequence[str] = TABLES) -> None:
    """Compares the tables with those that the run was started with.

    Args:
        run: The run.
        config: Its config; `data.root` may differ from the start.
        tables: The keys of `data` whose tables are compared.

    Raises:
        InputError: A table has changed: its folds and targets may not match the finished folds.
    """
    frozen = json.loads(verify(run.inputs).read_text(encoding="utf-8"))
    now = _hashes(config, tables)
    changed = []
    for name in _names(config, tables):
        before, here = _frozen(frozen, name), now.get(name)
        if before != here:
            path = Path(config.data.root) / name
            changed.append(f"{path} (SHA-256 was {(before or 'absent')[:12]}, is {(here or 'absent')[:12]})")
    if changed:
        title = f"{run.root} was started with other data. Restore these files, or give the new run another --name:"
        raise InputError("\n  ".join([title, *changed]))


def frozen_sha256(run: Run, name: str) -> str | None:
    """The SHA-256 of a table at the run's start; None if it was not recorded."""
    return _frozen(json.loads(verify(run.inputs).read_text(encoding="utf-8")), name)


def _names(config: Namespace, tables: Sequence[str]) -> list[str]:
    extra = (config.data.folds.extra or []) if "train" in tables else []
    return list(
        dict.fromkeys([*(str(config.data[key]) for key in tables if config.data[key]), *(e["table"] for e in extra)])
    )


def _hashes(config: Namespace, tables: Sequence[str]) -> dict[str, str]:
    paths = {name: Path(config.data.root) / name for name in _names(config, tables)}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items() if path.is_file()}


def _frozen(frozen: dict[str, str], name: str) -> str | None:
    """The SHA-256 of a table at the start; version 0.1 stored the path with the data folder."""
    parts = Path(name).parts
    older = (value for key, value in frozen.items() if Path(key).parts[-len(parts) :] == parts)
    return frozen.get(name) or next(older, None)
