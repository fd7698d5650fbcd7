"""The tables that a run was started with, identified by their SHA-256 and not by their path."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jsonargparse import Namespace

from swinft.data.roots import resolved_root
from swinft.data.tables.steps.make import given_table, made_sha256
from swinft.data.tables.steps.sequence import StepList
from swinft.errors import InputError, listed
from swinft.run.config.parser import plain
from swinft.run.layout import Run
from swinft.store import commit, sha256_of, verify

TABLES = ("train", "test", "sample_submission")


def freeze_inputs(
    run: Run, config: Namespace, made: Mapping[str, str], read: Mapping[Path, str] = MappingProxyType({})
) -> None:
    """Records the SHA-256 of every table, by its name in the config.

    Args:
        run: The run.
        config: Its config.
        made: The SHA-256 of tables that steps have made, by their key; others are made again.
        read: The SHA-256 of files as they were when they were checked, by path.

    Raises:
        InputError: A file has changed since: folds and classes are of its earlier rows.
    """
    found, root = _hashes(config, TABLES, made), Path(resolved_root(config.data.root))
    if changed := [str(root / name) for name, sha256 in found.items() if read.get(root / name, sha256) != sha256]:
        raise InputError(
            f"{listed(changed)} changed while the images were checked, and folds and classes are of the earlier rows. "
            f"Run the command again.",
            changed,
        )
    commit(run.inputs, json.dumps(found, indent=1).encode(), "swinft fit")


def check_inputs(run: Run, config: Namespace, tables: Sequence[str] = TABLES) -> None:
    """Compares the tables with those that the run was started with.

    Args:
        run: The run.
        config: Its config; `data.root` may differ from the start.
        tables: The keys of `data` whose tables are compared.

    Raises:
        InputError: A table is missing, or has changed: its folds and targets may not match the finished folds.
    """
    frozen = json.loads(verify(run.inputs).read_text(encoding="utf-8"))
    now = _hashes(config, tables)
    changed, absent = [], []
    for name, given in _tables(config, tables).items():
        before, here = _frozen(frozen, name), now.get(name)
        path = f"what the steps of {name} make" if isinstance(given, StepList) else Path(config.data.root) / name
        if before and here is None:
            absent.append(str(path))
        elif before != here:
            changed.append(f"{path} (SHA-256 was {(before or 'absent')[:12]}, is {(here or 'absent')[:12]})")
    if changed:
        title = f"{run.root} was started with other data. Restore these files, or give the new run another --name:"
        raise InputError("\n  ".join([title, *changed, *(f"{path} is missing" for path in absent)]), changed)
    if absent:
        raise InputError(
            f"{run.root} was started with tables that are not there: {listed(absent)}. Copy them there, or name the "
            f"data's folder: `swinft fit --resume` takes --data.root FOLDER; report, predict, embed, explain and lab "
            f"take --root FOLDER.",
            absent,
        )


def frozen_sha256(run: Run, given: Any) -> str | None:
    """The SHA-256 of the training table at the run's start; None if it was not recorded.

    Args:
        run: The run.
        given: `data.train` of its config.
    """
    name = given if isinstance(given, str) else "data.train"
    return _frozen(json.loads(verify(run.inputs).read_text(encoding="utf-8")), name)


def _tables(config: Namespace, tables: Sequence[str]) -> dict[str, str | StepList]:
    """The tables by the path of their file, or by the key whose steps make them."""
    extra = (config.data.folds.extra or []) if "train" in tables else []
    given = {f"data.{key}": plain(config.data[key]) for key in tables}
    given |= {f"data.folds.extra.{number}": plain(each["table"]) for number, each in enumerate(extra)}
    found = {key: given_table(key, each) for key, each in given.items() if each}
    return {each if isinstance(each, str) else key: each for key, each in found.items() if each}


def _hashes(config: Namespace, tables: Sequence[str], made: Mapping[str, str] | None = None) -> dict[str, str]:
    """The SHA-256 of each table that is there."""
    known = made or {}
    found = {name: known.get(name) or _sha256(config, given) for name, given in _tables(config, tables).items()}
    return {name: value for name, value in found.items() if value}


def _sha256(config: Namespace, given: str | StepList) -> str | None:
    """The SHA-256 of a file, or of what steps make as a CSV; None if it is missing."""
    root = Path(resolved_root(config.data.root))
    if isinstance(given, StepList):
        return made_sha256(given, root, config.data.columns.encoding, config.data.loading.follow_links)
    return sha256_of(root / given) if (root / given).is_file() else None


def _frozen(frozen: dict[str, str], name: str) -> str | None:
    """The SHA-256 of a table at the start; version 0.1 stored the path with the data folder."""
    parts = Path(name).parts
    older = (value for key, value in frozen.items() if Path(key).parts[-len(parts) :] == parts)
    return frozen.get(name) or next(older, None)
