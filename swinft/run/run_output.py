"""A run as plain values: what `swinft fit --json` and other commands that make runs print."""

import json
from typing import Any

from swinft.errors import command
from swinft.run.fold_files import Fold
from swinft.run.layout import ROUNDS, Run
from swinft.store import is_committed


def run_output(run: Run) -> dict[str, Any]:
    """The folder of a run, its scores, its trainings, and its files.

    Returns:
        `run`; `scores`: the content of scores.json without its folds, None while a fold is missing; `folds`: a training
        each, with `done` and, of those that are, the content of result.json; `files` that are there; `next`: the
        command to go on with; of rounds also `rounds`, their table.
    """
    scores = run.read_scores() if is_committed(run.scores) else None
    names = [] if run.is_ensemble else run.trainings()
    files = {"oof": run.oof, "errors": run.errors, "report": run.report, "test_predictions": run.test_predictions}
    found = {
        "run": run.root,
        "scores": scores and {name: value for name, value in scores.items() if name != "folds"},
        "folds": [_training(run.fold(name)) for name in names],
        "files": {name: path for name, path in files.items() if path.is_file()},
        "next": command("predict", run.root) if scores else run.resume_command,
    }
    rounds = run.root.parent / ROUNDS
    return found | ({"rounds": json.loads(rounds.read_text(encoding="utf-8"))} if rounds.is_file() else {})


def _training(fold: Fold) -> dict[str, Any]:
    """A training: whether it is done, its log, and its result."""
    result = fold.read_result() if fold.is_done else {}
    return {"fold": fold.index, "done": bool(result), "log": fold.log if fold.log.is_file() else None, **result}
