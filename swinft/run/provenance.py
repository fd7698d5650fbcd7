"""Which files a run's commands may overwrite, and whether predictions were made with the run's current weights."""

import json
import os
from pathlib import Path
from typing import Any

from swinft.errors import InputError, command, listed
from swinft.inference.maps import is_foreign
from swinft.inference.provenance import (
    BEFORE,
    PREDICT,
    Provenance,
    beside,
    maps_beside,
    read_made_from,
    read_provenance,
)
from swinft.printing import print_line
from swinft.run.fold_files import FoldId
from swinft.run.layout import Run
from swinft.store import commit, digest, probe, sha256_of, verify
from swinft.whole_files import Content, is_left, replace_together


def check_weights(run: Run, made_with: Provenance, path: Path) -> None:
    """Compares the weights of predictions with the run's current ones.

    Raises:
        InputError: The predictions were made with other weights, or by an ensemble whose members have changed.
    """
    if made_with.ensemble:
        check_members(run, made_with, path)
        return
    now = weights_of(run, [index for index in made_with.folds if run.fold(index).is_done])
    changed = sorted({name for name in {**made_with.weights, **now} if made_with.weights.get(name) != now.get(name)})
    if changed:
        raise InputError(
            f"{path} was predicted with other weights than {run.root} has now in {', '.join(changed)}: it is out "
            f"of date, or from another run. Run `{command('predict', run.root)}` again."
        )


def check_members(run: Run, made_with: Provenance, path: Path) -> None:
    """Compares the tables of an ensemble's members with those that it was made of; prints those that are not here.

    Members that are ensembles, or fitted on embeddings, are compared with their own members in turn.

    Raises:
        InputError: Some have changed.
    """
    found = {name: run.root / name for name in made_with.weights}
    for name in [name for name, file in found.items() if not file.is_file()]:
        print_line(f"  note: {found[name]} is not here: whether this member has changed since is unknown")
    changed = [name for name, file in found.items() if file.is_file() and not _is_same(file, made_with.weights[name])]
    if changed:
        recipe = run.read_ensemble()
        fitted = {name for member in recipe["members"] for name in member["files"]}
        again = "make the ensemble again with `swinft ensemble` and --overwrite"
        again = f"run `{remake_command(run)}`" if "remake" in recipe else again
        fix = again if fitted & set(changed) else f"run `{command('predict', run.root)}` again"
        files = listed(str(Path(os.path.normpath(found[name]))) for name in changed)
        raise InputError(
            f"{path} is out of date: these files of members have changed since: {files}. To use them, {fix}."
        )
    folders = [os.path.normpath(run.root / each["run"]) for each in run.read_ensemble()["members"] if "run" in each]
    for member in map(Run.at, map(Path, folders)):
        if member.is_ensemble and member.test_predictions.is_file():
            predictions_made_with(member)


def remake_command(run: Run) -> str:
    """The command that fits again what was fitted on the embeddings of a run, wherever both are now."""
    recipe = run.read_ensemble()
    return command("embed", os.path.normpath(run.root / recipe["members"][0]["run"]), *recipe["remake"])


def _is_same(path: Path, expected: str) -> bool:
    return sha256_of(path) == expected


def weights_of(run: Run, folds: list[FoldId]) -> dict[str, str]:
    """The committed SHA-256 of the folds' weights files."""
    return {run.fold(index).root.name: digest(run.fold(index).weights) for index in folds}


def predictions_made_with(run: Run) -> Provenance:
    """What the run's test predictions were made with.

    Raises:
        InputError: They are missing, were not written by a complete `swinft predict`, or their weights have changed.
    """
    path = run.test_predictions
    if not path.is_file():
        raise InputError(f"{run.root} has no test predictions yet. Run `{command('predict', run.root)}` first.")
    found = read_provenance(verify(path))
    if found is None:
        raise InputError(
            f"{path} does not say what it was made with: `swinft predict` was interrupted, or had another version. Run "
            f"`{command('predict', run.root)}` again."
        )
    check_weights(run, found, path)
    return found


def write_made_from(run: Run, path: Path, content: Content, maker: str, made_from: dict[str, Any]) -> None:
    """Writes a file and its provenance beside it; with commit records if it is an artefact of the run.

    While an artefact is replaced, the provenance is that of both contents: a crash leaves one of them with its own.
    """

    def text(sha256: str, **before: Any) -> bytes:
        return json.dumps({"made_by": maker, "sha256": sha256, **made_from, **before}, indent=1).encode()

    if is_own(run, path, maker):
        before = {BEFORE: earlier} if (earlier := read_made_from(path, maker)) else {}
        commit(path, content, maker, lambda sha256: commit(beside(path), text(sha256, **before), maker))
        commit(beside(path), text(digest(path)), maker)
    else:
        replace_together({path: content}, beside(path), lambda found: text(found[path]))


def is_own(run: Run, path: Path, maker: str) -> bool:
    """Whether a path is the command's default output in the run's folder."""
    own = run.test_predictions if maker == "swinft predict" else run.submission
    return path.resolve() == own.resolve()


def submit_command(run: Run, path: Path) -> str:
    """The command that makes a submission of predictions in a file."""
    return command("submit", run.root, *([] if is_own(run, path, PREDICT) else ["--predictions", path]))


def check_output(run: Run, path: Path, maker: str) -> None:
    """Checks, before anything is computed, that the output may and can be written.

    Raises:
        InputError: It is a folder, no `.csv`, or a file that `maker` did not write; or the folder is not writable.
    """
    if path.is_dir():
        raise InputError(f"--output {path} is a folder. Name a file: --output {path / 'FILE.csv'}.")
    if path.suffix != ".csv":  # the records beside x.csv and x.txt would have one name
        raise InputError(f"--output {path}: `{maker}` writes a table. Name it {path.with_suffix('.csv')}.")
    left = is_left(path, beside(path))  # by the same command, interrupted
    if path.exists() and not is_own(run, path, maker) and not left and read_made_from(path, maker) is None:
        raise InputError(f"{path} already exists, and not as `{maker}` wrote it: it is not overwritten. Name another.")
    if beside(path).exists() and not is_own(run, path, maker) and '"made_by": "swinft' not in beside(path).read_text():
        raise InputError(f"{beside(path)} already exists, and `{maker}` did not write it. Name another output.")
    if maker == PREDICT and not is_own(run, path, maker) and is_foreign(path):
        raise InputError(f"{maps_beside(path)} already exists, and `{maker}` did not write it. Name another output.")
    probe(path.parent, what=path.name, advice="Choose another path with --output FILE.csv.")
