"""Names and paths inside a run folder."""

import csv
import glob
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swinft.errors import InputError, command, listed, suggest
from swinft.run.config.old_keys import migrated
from swinft.run.config.yaml_text import read_own_yaml
from swinft.run.fold_files import ALL, Fold, FoldId, expanded, read_json, trainings_of
from swinft.store import RECORDS, has_record, is_temporary, verify
from swinft.whole_folders import hint_to_restore

NO_FOLD = -1  # as in `swinft.data.folds`, whose imports would slow down commands that only read a run

ROUNDS, FILTERS = "rounds.json", "filters"  # in the folder of a config with rounds, which holds a run for each
LONGEST_NAME = 200  # bytes: file systems allow 255, and the names of locks are longer


def check_name(name: str) -> None:
    """Checks the name of a run: it becomes a folder and the names of locks beside it.

    Raises:
        InputError: It cannot be a folder's name.
    """
    wrong = (
        "it is empty"
        if not name.strip()
        else "it starts with a dot"
        if name.startswith(".")
        else "it contains a slash"
        if "/" in name or "\\" in name
        else "it starts or ends with a space"
        if name != name.strip()
        else "it contains a control character"
        if not name.isprintable()
        else f"it has more than {LONGEST_NAME} bytes"
        if len(name.encode(errors="replace")) > LONGEST_NAME
        else None
    )
    if wrong:
        shown = name if len(name) <= 60 else f"{name[:59]}…"
        raise InputError(f"name is {shown!r}: {wrong}. It becomes a folder's name inside `runs`.")


@dataclass(frozen=True)
class Run:
    """One experiment's folder."""

    root: Path

    @classmethod
    def open(cls, root: str | Path) -> "Run":
        """Opens an existing run; of a folder with rounds the last round.

        Raises:
            InputError: The folder does not exist, or is not a run; or the last round is not there yet.
        """
        run = cls.at(Path(root))
        if (run.root / ROUNDS).is_file():
            return cls.at(_last_round(run.root))
        if not run.root.is_dir():
            siblings = [str(path.parent) for path in run.root.parent.glob("[!.]*/config.yaml")]  # not an unfinished one
            put_back = hint_to_restore(run.root) or suggest(str(root), siblings)
            raise InputError(f"there is no run folder '{root}'.{put_back}")
        if not run.is_run():
            raise InputError(f"'{root}' is not a run: it has no config.yaml that `swinft fit` wrote.")
        return run

    @classmethod
    def at(cls, root: Path) -> "Run":
        """The run in a folder, which may not exist yet. A symlink is resolved, so that both paths share one lock."""
        return cls(Path(os.path.realpath(root)) if root.is_symlink() else root)

    def is_run(self) -> bool:
        """Whether `swinft fit` made the folder; records may be lost, as in a copy without hidden files."""
        frozen = (self.config, self.folds, self.images, self.inputs)
        return self.config.is_file() and (has_record(self.config) or all(path.is_file() for path in frozen))

    @property
    def config(self) -> Path:
        """The resolved config: every key with its value."""
        return self.root / "config.yaml"

    @property
    def environment(self) -> Path:
        """Versions, hardware and the precision that `auto` chose."""
        return self.root / "environment.json"

    @property
    def devices(self) -> Path:
        """The number of devices per fold, on which batches and schedule depend."""
        return self.root / "devices.json"

    @property
    def choice(self) -> Path:
        """The precision and the attention that every fold computes with, and what was timed to choose them."""
        return self.root / "choice.json"

    @property
    def inputs(self) -> Path:
        """SHA-256 of every CSV that the run was started with."""
        return self.root / "inputs.json"

    @property
    def lock(self) -> Path:
        """The run's lock; outside the run's folder, so that `--overwrite` does not delete it."""
        return self.root.parent / ".locks" / f"{self.root.name}.lock"

    def is_unstarted(self) -> bool:
        """Whether the folder has only files that `swinft fit` writes before the config, which it writes last."""
        if not self.root.is_dir() or has_record(self.config):
            return False
        first = [self.config, self.schema, self.folds, self.images, self.inputs, self.sample, self.extra]
        first += [self.devices, self.choice, self.environment, self.teachers, self.dropped]
        ours = {RECORDS, *(path.name for path in first)}
        names = [path.name for path in self.root.iterdir()]
        return bool(names) and all(name in ours or is_temporary(name) for name in names)

    def fold_locks(self) -> list[Path]:
        """The locks of every fold that was ever fitted."""
        return sorted(self.lock.parent.glob(f"{glob.escape(self.root.name)}.fold_*.lock"))

    @property
    def sample(self) -> Path:
        """The sample submission's cells, which decide the submission; missing if there was no sample."""
        return self.root / "sample.json"

    @property
    def schema(self) -> Path:
        """Names of the outputs, classes and metadata columns: what prediction needs from train.csv."""
        return self.root / "schema.json"

    @property
    def folds(self) -> Path:
        """Columns id, fold; −1 for rows that no fold scores."""
        return self.root / "folds.csv"

    @property
    def images(self) -> Path:
        """The result of the image check, for every image: size, time, hashes, and its problem."""
        return self.root / "images.csv"

    @property
    def extra(self) -> Path:
        """Id of each row of the extra tables, and the folds that leave it out; none where there are no such tables."""
        return self.root / "extra.csv"

    @property
    def dropped(self) -> Path:
        """Rows that folds score, and others do not train on; none without `data.folds.drop`."""
        return self.root / "dropped.csv"

    @property
    def teachers(self) -> Path:
        """SHA-256 of the files of each run that this one learns from; missing if it learns from none."""
        return self.root / "teachers.json"

    @property
    def oof(self) -> Path:
        """Out-of-fold predictions: id, one column per output, fold; every train id exactly once."""
        return self.root / "oof.csv"

    @property
    def scores(self) -> Path:
        """The pooled score, the score of each fold and their spread."""
        return self.root / "scores.json"

    @property
    def ensemble(self) -> Path:
        """In an ensemble: its members, its method, and what the method learned."""
        return self.root / "ensemble.json"

    @property
    def is_ensemble(self) -> bool:
        """Whether `swinft ensemble` made the folder, which then has no folds of its own."""
        return self.ensemble.is_file()

    @property
    def is_embedding(self) -> bool:
        """Whether `swinft embed --fit` made the folder: models on the embeddings of a run, its only member."""
        return self.is_ensemble and "embedding" in self.read_ensemble()

    def read_ensemble(self) -> dict[str, Any]:
        """The members, the method, and what the method learned."""
        return read_json(self.ensemble)

    def check_trained(self) -> None:
        """Checks that the run has networks of its own.

        Raises:
            InputError: It is an ensemble.
        """
        if self.is_ensemble:
            names = listed(member["name"] for member in self.read_ensemble()["members"])
            raise InputError(f"{self.root} is an ensemble and has no networks: name the run of a member: {names}.")

    @property
    def test_predictions(self) -> Path:
        """Predictions of the test rows, averaged over folds and views: id, one column per output."""
        return self.root / "test_predictions.csv"

    @property
    def parts(self) -> Path:
        """Partial predictions, while several processes predict the test rows."""
        return self.root / "parts"

    @property
    def exports(self) -> Path:
        """Exported weights, a folder per fold and format."""
        return self.root / "exports"

    @property
    def submission(self) -> Path:
        """The file for Kaggle."""
        return self.root / "submission.csv"

    @property
    def submissions(self) -> Path:
        """What was submitted to Kaggle, and its scores: a line of JSON per submission."""
        return self.root / "submissions.jsonl"

    @property
    def errors(self) -> Path:
        """Truth, out-of-fold prediction and error of every scored row, the largest error first."""
        return self.root / "errors.csv"

    @property
    def note(self) -> Path:
        """A person's note on the run."""
        return self.root / "note.txt"

    @property
    def report(self) -> Path:
        """The report as one HTML page."""
        return self.root / "report.html"

    def read_config(self) -> dict[str, Any]:
        """The frozen config as plain values, with current keys; fast, for commands that build no network."""
        config: dict[str, Any] = read_own_yaml(migrated(verify(self.config).read_text(encoding="utf-8")))
        return config

    def read_environment(self) -> dict[str, Any]:
        """The environment of the run's start."""
        return read_json(self.environment)

    def read_scores(self) -> dict[str, Any]:
        """The scores, pooled and per fold."""
        return read_json(self.scores)

    def read_schema(self) -> dict[str, Any]:
        """The committed schema as plain values."""
        return read_json(self.schema)

    def planned_folds(self) -> list[FoldId]:
        """The trainings that score rows: the folds of folds.csv, each with every seed."""
        with verify(self.folds).open(encoding="utf-8", newline="") as file:
            folds = sorted({int(row["fold"]) for row in csv.DictReader(file)} - {NO_FOLD})
        return trainings_of(folds, self.read_config().get("seeds"))

    def trainings_on_all(self) -> list[FoldId]:
        """The trainings on every row, which score none: those that are planned, or were asked for later."""
        config = self.read_config()
        names = trainings_of([ALL], config.get("seeds"))
        is_planned = (config["data"].get("folds") or {}).get("all")
        return [name for name in names if is_planned or self.fold(name).root.is_dir()]

    def finished_folds(self, folds: Sequence[FoldId] | None, option: str = "--folds") -> list[FoldId]:
        """The folds to predict with, checked to be finished; all of them for None.

        Args:
            folds: Their names: numbers, `all` for the training on every row; in a run with several seeds either
                stands for all of them.
            option: The option that named them, for messages.

        Raises:
            InputError: A fold is unknown or unfinished, or is named twice.
        """
        self.check_trained()
        planned, known = self.planned_folds(), self.trainings()
        chosen = planned if folds is None else expanded(folds, known)
        if not chosen or len(set(chosen)) < len(chosen):
            raise InputError(f"{option} is {folds}: name at least one fold, each once, of {known}.")
        unknown = [index for index in chosen if index not in known]
        if unknown:
            hint = f" Train on every row with `{command('fit', '--resume', self.root, '--fold', ALL)}`."
            named = f"{option} names {unknown}, but the run has folds {known}."
            raise InputError(f"{named}{hint if str(unknown[0]).startswith(ALL) else ''}")
        chosen = sorted(chosen, key=known.index)
        unfinished = [index for index in chosen if not self.fold(index).is_done]
        if unfinished:
            raise InputError(
                f"folds {unfinished} of {self.root} are not finished. Run `{self.resume_command}`, or name those that "
                f"are with {option}."
            )
        return chosen

    @property
    def resume_command(self) -> str:
        """The shell command that resumes the run."""
        return command("fit", "--config", self.config, "--resume")

    def unfinished_folds(self) -> list[FoldId]:
        """The planned folds that are not done."""
        return [index for index in self.planned_folds() if not self.fold(index).is_done]

    def trainings(self) -> list[FoldId]:
        """All of them: those that score rows, then those on every row."""
        return [*self.planned_folds(), *self.trainings_on_all()]

    def unfinished_trainings(self) -> list[FoldId]:
        """Those of all trainings that are not done."""
        return [name for name in self.trainings() if not self.fold(name).is_done]

    def devices_per_fold(self) -> int:
        """The number of devices per fold."""
        return int(read_json(self.devices)["devices_per_fold"])

    def fold(self, index: FoldId) -> Fold:
        """The folder of a training."""
        return Fold(self.root / f"fold_{index}", index)


def _last_round(root: Path) -> Path:
    """The folder of the last round.

    Raises:
        InputError: It is not there yet.
    """
    plan = json.loads((root / ROUNDS).read_text(encoding="utf-8"))
    found = root / str(plan["last"])
    if not Run(found).is_run():
        made = [str(root / name) for name in plan["rounds"] if Run(root / name).is_run()]
        raise InputError(
            f"the last round of {root}, {plan['last']}, is not there yet. Run `{plan['command']}`, or name "
            f"another one: {listed(made) or 'none has been started'}."
        )
    return found


def is_frozen(path: Path) -> bool:
    """Whether a config file is the frozen config of a run."""
    return path.name == "config.yaml" and Run(path.parent).is_run()
