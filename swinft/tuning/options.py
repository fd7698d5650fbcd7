"""Options of `swinft tune`: how a search runs, and what it looks for."""

from dataclasses import dataclass, field
from typing import Literal

from swinft.errors import InputError, together
from swinft.ranges import COUNT, NOT_NEGATIVE, POSITIVE, Range, check_ranges

Objective = Literal["score", "seconds", "parameters"]
Sampler = Literal["tpe", "random", "cmaes", "grid", "nsga2"]
Pruner = Literal["auto", "median", "percentile", "hyperband", "none"]
MOST_JOBS = 256


@dataclass(frozen=True)
class TuneOptions:
    """How a search runs.

    Args:
        space: A YAML file with the search space: a config key for each parameter, with `{low, high, log, step}` or a
            list of choices. Null for the section `tune:` of the config, or else the default space of the backbone.
        trials: Trials of the whole search, with those of earlier starts.
        hours: No fold is started after so many hours of this start; `--resume` continues.
        objective: `score`, the pooled score of the first metric; or several of it, `seconds` and `parameters`, for
            which the trials that none other beats in all are found.
        sampler: How parameters are chosen: `tpe`, `random`, `cmaes`, `grid` for all combinations, or `nsga2`.
        pruner: Which trials end after a fold: those below the `median` of the earlier ones, those outside the best
            quarter (`percentile`), by `hyperband`, or `none`; `auto` is median with several folds and one objective.
        jobs: Trials at the same time, each in a process with a share of the GPUs.
        folds: The folds that a trial trains, by number; null for all.
        keep: Finished trials whose weights are kept, the best ones; of several objectives all that none other beats.
        storage: URL of a database of SQLAlchemy; null for study.db in the search's folder.
        resume: Continue the config's search; or `--resume FOLDER`, without --config.
        overwrite: Delete the earlier search of this name.
    """

    space: str | None = None
    trials: int = 50
    hours: float | None = None
    objective: list[Objective] = field(default_factory=lambda: ["score"])
    sampler: Sampler = "tpe"
    pruner: Pruner = "auto"
    jobs: int = 1
    folds: list[int] | None = None
    keep: int = 3
    storage: str | None = None
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Checks ranges, and that the options fit together."""
        numbers = {f"--{name}": getattr(self, name) for name in ("trials", "hours", "jobs", "keep", "folds")}
        ranges = {"--trials": COUNT, "--hours": POSITIVE, "--jobs": Range(1, MOST_JOBS), "--keep": NOT_NEGATIVE}
        check_ranges("", numbers, ranges | {"--folds": NOT_NEGATIVE})
        problems = []
        for name, given in (("objective", self.objective), ("folds", self.folds)):
            if given is not None and (not given or len(set(given)) < len(given)):
                problems.append(f"--{name} is {given}; give at least one, each once.")
        if len(self.objective) > 1 and self.sampler == "cmaes":
            problems.append("--sampler cmaes is for one objective: give tpe or nsga2 for several.")
        if self.objective != ["score"] and self.pruner not in ("auto", "none"):
            problems.append(f"--pruner {self.pruner} compares scores: it is for --objective score alone.")
        if self.resume and self.overwrite:
            problems.append("--resume continues a search, --overwrite deletes it: give one of them.")
        if problems:
            raise together(problems)

    def pruner_for(self, num_folds: int) -> str:
        """The pruner that a trial of so many folds has.

        Raises:
            InputError: One is named, and a trial has one fold, after which nothing is left to save.
        """
        if self.pruner == "auto":
            return "median" if num_folds > 1 and self.objective == ["score"] else "none"
        if self.pruner != "none" and num_folds < 2:
            raise InputError(f"--pruner {self.pruner} ends trials after a fold, and a trial has one fold: remove it.")
        return self.pruner
