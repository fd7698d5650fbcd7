"""A search on disk: its folder, what it was started with, and who runs which of its trials.

A trial belongs to the process that holds the lock of its folder. When the process ends in any way, the operating system
releases the lock, and the next process goes on with the same trial: nothing has to be sampled again.
"""

import json
import secrets
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from swinft.errors import InputError, command
from swinft.run.layout import Run
from swinft.run.lock import hold
from swinft.store import RECORDS, commit, has_record, is_temporary, json_bytes, verify
from swinft.tuning.sampling import (
    SeededSampler,
    import_optuna,
    open_storage,
    pruner,
    storage_explained,
    suggested,
    url_of,
)
from swinft.tuning.space import Space
from swinft.whole_folders import delete_folder

MAKER = "swinft tune"
MOST_STARTS = 10  # of a trial that ends its process every time, such as by all of the machine's memory
PATIENCE = 120.0  # seconds for another process to choose its trial


@dataclass(frozen=True)
class Folder:
    """Names and paths of a search."""

    root: Path

    @property
    def study(self) -> Path:
        """What the search was started with; written last."""
        return self.root / "study.json"

    @property
    def base(self) -> Path:
        """The config of the search, as a run freezes it."""
        return self.root / "base.yaml"

    @property
    def database(self) -> Path:
        """The study of Optuna."""
        return self.root / "study.db"

    @property
    def table(self) -> Path:
        """Every finished trial."""
        return self.root / "trials.csv"

    @property
    def best(self) -> Path:
        """A complete config with the values of the best trial."""
        return self.root / "best.yaml"

    @property
    def report(self) -> Path:
        """The report as one HTML page."""
        return self.root / "report.html"

    @property
    def trials(self) -> Path:
        """The runs of the trials."""
        return self.root / "trials"

    @property
    def claims(self) -> Path:
        """The lock of a process that takes its next trial."""
        return self.root / ".locks" / "claims.lock"

    def run(self, number: int) -> Run:
        """The run of a trial."""
        return Run(self.trials / f"{number:04d}")

    def log(self, number: int) -> Path:
        """What a trial printed."""
        return self.root / "logs" / f"{number:04d}.txt"

    @property
    def lock(self) -> Path:
        """Held while the search is created or deleted."""
        return Run(self.root).lock

    def is_search(self) -> bool:
        """Whether `swinft tune` made the folder."""
        return has_record(self.study)

    def is_unstarted(self) -> bool:
        """Whether it has only files that are written before `study.json`."""
        ours = {RECORDS, ".locks", *(path.name for path in (self.base, self.study, self.database))}
        names = [path.name for path in self.root.iterdir()] if self.root.is_dir() else []
        return all(name in ours or name.startswith(f"{self.database.name}-") or is_temporary(name) for name in names)

    @property
    def resume_command(self) -> str:
        """The shell command that continues the search."""
        return command("tune", "--resume", self.root)


@dataclass(frozen=True)
class Settings:
    """What a search is started with, and what cannot change later.

    Args:
        name: Its name, and that of Optuna's study.
        space: The space as in YAML.
        objective: Names of the objectives.
        sampler: How parameters are chosen.
        pruner: Which trials end early.
        seed: Seed of the sampler.
        folds: The folds that a trial trains.
        metric: Name of the metric that is the score.
        higher_is_better: Its direction.
        has_database: Whether the study is in the folder, and not in a database of its own.
        id: Which folder it is; the study knows it too.
    """

    name: str
    space: dict[str, Any]
    objective: list[str]
    sampler: str
    pruner: str
    seed: int
    folds: list[int]
    metric: str
    higher_is_better: bool
    has_database: bool = True
    id: str = field(default_factory=lambda: secrets.token_hex(8))

    @classmethod
    def read(cls, folder: Folder) -> "Settings":
        """The settings of an existing search."""
        return cls(**json.loads(verify(folder.study).read_text(encoding="utf-8")))

    @property
    def is_fold_by_fold(self) -> bool:
        """Whether a trial may end after a fold."""
        return self.pruner != "none"

    @property
    def num_steps(self) -> int:
        """How often a trial is scored."""
        return len(self.folds) if self.is_fold_by_fold else 1

    @property
    def directions(self) -> list[str]:
        """Optuna's direction of each objective."""
        of_score = "maximize" if self.higher_is_better else "minimize"
        return [of_score if name == "score" else "minimize" for name in self.objective]


@dataclass
class Claim:
    """A trial that this process runs.

    Args:
        trial: Optuna's trial.
        values: Values of config keys.
        labels: The same as labels and numbers.
        reported: Scores of earlier steps, by step.
        lock: Closes when the trial is done.
    """

    trial: Any
    values: dict[str, Any]
    labels: dict[str, Any]
    reported: dict[int, float]
    lock: ExitStack = field(default_factory=ExitStack)

    @property
    def number(self) -> int:
        """The trial's number, from 0."""
        return int(self.trial.number)


class Study:
    """A search's trials, in Optuna's database.

    Args:
        folder: The search's folder, with its database.
        settings: What it was started with.
        space: Its space.
        storage: URL of the database; None for the one in the folder.

    Raises:
        InputError: The database cannot be opened, or holds the study of another folder.
    """

    def __init__(self, folder: Folder, settings: Settings, space: Space, storage: str | None) -> None:
        optuna = import_optuna()
        self.folder, self.settings, self.space = folder, settings, space
        self._url = storage or url_of(folder.database)
        grid = space.grid() if settings.sampler == "grid" else None
        self.study = optuna.create_study(
            storage=open_storage(self._url),
            sampler=SeededSampler(settings.sampler, settings.seed, grid),
            pruner=pruner(settings.pruner, settings.num_steps),
            study_name=settings.name,
            directions=settings.directions,
            load_if_exists=True,
        )
        if not self.study.get_trials(deepcopy=False):
            self.study.set_user_attr("folder", settings.id)
        elif self.study.user_attrs.get("folder") != settings.id:
            raise InputError(
                f"--storage has a study '{settings.name}' of another search, with "
                f"{len(self.study.get_trials(deepcopy=False))} trials: give this one another --name."
            )

    def errors_explained(self) -> AbstractContextManager[None]:
        """Errors of the database inside the block are a `StoreError`."""
        return storage_explained(self._url, self.folder.resume_command)

    def trials(self) -> list[Any]:
        """Every trial, finished or not."""
        return list(self.study.get_trials(deepcopy=False))

    def claim(self, limit: int) -> Claim | None:
        """Takes an unfinished trial that no process runs, or else a new one; None if `limit` have been started."""
        states = import_optuna().trial.TrialState
        with hold(self.folder.claims, PATIENCE):
            found = self.trials()
            for frozen in (each for each in found if each.state == states.RUNNING):
                lock = ExitStack()
                try:
                    lock.enter_context(hold(self.folder.run(frozen.number).lock))
                except InputError:  # another process runs it
                    continue
                claim = self._claimed(import_optuna().trial.Trial(self.study, frozen._trial_id), lock)
                if not self._gives_up(claim):
                    return claim
            if len(found) >= limit:
                return None
            trial = self.study.ask()
            lock = ExitStack()
            lock.enter_context(hold(self.folder.run(trial.number).lock))
            return self._claimed(trial, lock)

    def _claimed(self, trial: Any, lock: ExitStack) -> Claim:
        """Chooses the values of a trial; those that an earlier process has chosen stay."""
        labels: dict[str, Any] = {}
        for each in self.space.active(labels):
            labels[each.key] = suggested(trial, each)
        trial.set_user_attr("starts", trial.user_attrs.get("starts", 0) + 1)
        reported = dict(self.study._storage.get_trial(trial._trial_id).intermediate_values)
        return Claim(trial, self.space.values(labels), labels, reported, lock)

    def _gives_up(self, claim: Claim) -> bool:
        """Whether a trial has ended its process too often; it is then a failed one."""
        if claim.trial.user_attrs["starts"] <= MOST_STARTS:
            return False
        self.finish(claim, None, f"its process ended without a result {MOST_STARTS} times")
        return True

    def report(self, claim: Claim, step: int, score: float) -> bool:
        """Records the score after a step, and says whether the trial is to end.

        A step after which an earlier process went on is not judged again: other trials may have ended since.
        """
        if len(self.settings.objective) > 1 or not self.settings.is_fold_by_fold:
            return False
        was_passed = any(later > step for later in claim.reported)
        if step not in claim.reported:
            claim.trial.report(score, step)
            claim.reported[step] = score
        return not was_passed and step < self.settings.num_steps - 1 and bool(claim.trial.should_prune())

    def finish(self, claim: Claim, values: list[float] | None, reason: str = "", **about: Any) -> None:
        """Records the end of a trial, and releases it.

        Args:
            claim: The trial.
            values: Its objectives; None if it failed or was pruned.
            reason: Why it failed; empty if it was pruned.
            about: What else to keep.
        """
        states = import_optuna().trial.TrialState
        for name, value in {**about, **({"reason": reason} if reason else {})}.items():
            claim.trial.set_user_attr(name, value)
        state = states.COMPLETE if values is not None else states.FAIL if reason else states.PRUNED
        self.study.tell(claim.trial, values, state)
        claim.lock.close()


def create(folder: Folder, settings: Settings, space: Space, base_text: str, storage: str | None) -> Study:
    """Writes what a search is started with; `study.json` comes last.

    Raises:
        InputError: The database cannot be opened.
    """
    commit(folder.base, base_text.encode(), MAKER)
    study = Study(folder, settings, space, storage)
    commit(folder.study, json_bytes(asdict(settings)), MAKER)
    return study


def delete(folder: Folder, storage: str | None) -> None:
    """Deletes a search for `--overwrite`.

    Raises:
        InputError: The folder is not a search's, or a process runs one of its trials.
    """
    if not folder.is_search() and not folder.is_unstarted():
        raise InputError(f"{folder.root} is not a search: --overwrite deletes only those. Give another --name.")
    with ExitStack() as locks:
        for lock in sorted(folder.trials.glob(".locks/*.lock")):
            if lock.stem.isdigit():
                locks.enter_context(hold(lock))
        if folder.is_search() and not Settings.read(folder).has_database:
            if storage is None:
                raise InputError(f"the trials of {folder.root} are in another database: give it with --storage too.")
            optuna = import_optuna()
            with suppress(KeyError):  # an earlier process has deleted it, and ended before it deleted the folder
                optuna.delete_study(study_name=Settings.read(folder).name, storage=open_storage(storage))
        delete_folder(folder.root)


def changed_settings(before: Settings, now: Mapping[str, Any]) -> list[str]:
    """What differs from the start of a search, one line each.

    Args:
        before: Its settings.
        now: The given ones, by name; None for those that were not given.
    """
    frozen = asdict(before)
    return [
        f"{name}: was {json.dumps(frozen[name])}, is {json.dumps(value)}"
        for name, value in now.items()
        if value is not None and json.dumps(frozen[name], sort_keys=True) != json.dumps(value, sort_keys=True)
    ]
