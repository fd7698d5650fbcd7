"""Samplers and pruners of Optuna, so that a trial's values depend on the seed, its number and earlier trials alone.

Optuna's samplers draw from a generator that lives in the process: after a restart they would draw other numbers. Here
every trial has generators of its own, so that a search that was killed goes on as if it had not been.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from swinft.errors import InputError, StoreError
from swinft.extras import import_extra
from swinft.seeding import seed_for
from swinft.tuning.space import Parameter

BEST_PERCENT = 25.0  # of trials that the pruner `percentile` keeps
HIGHEST = 2**32  # seeds of numpy's legacy generator are below


def import_optuna() -> Any:
    """Optuna, silent but for errors.

    Raises:
        InputError: It is not installed.
    """
    optuna = import_extra("optuna", "tune", "optuna, which chooses the trials of a search,")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def suggested(trial: Any, parameter: Parameter) -> Any:
    """The number, or the label of the choice, that a trial has for a parameter; chosen the first time."""
    if parameter.choices:
        return trial.suggest_categorical(parameter.key, parameter.labels)
    low, high = parameter.extremes()
    if parameter.is_whole:
        return trial.suggest_int(parameter.key, low, high, log=parameter.log, step=int(parameter.step or 1))
    return trial.suggest_float(parameter.key, low, high, log=parameter.log, step=parameter.step)


class SeededSampler:
    """Has the interface of Optuna's samplers, and makes a sampler for every trial.

    Args:
        kind: `tpe`, `random`, `cmaes`, `grid` or `nsga2`.
        seed: Seed of the search.
        grid: Values of each parameter, for `grid`.

    Raises:
        InputError: A package is not installed.
    """

    def __init__(self, kind: str, seed: int, grid: Mapping[str, Sequence[Any]] | None = None) -> None:
        self._kind, self._seed, self._grid = kind, seed, dict(grid or {})
        self._relative = self._made(0)

    def _made(self, number: int, name: str = "") -> Any:
        """A sampler with the seed of a trial, or of one of its parameters."""
        samplers, kind = import_optuna().samplers, self._kind
        if kind == "grid":  # its order is that of the whole search
            return samplers.GridSampler(self._grid, seed=seed_for("search", self._seed) % HIGHEST)
        seed = seed_for("search", self._seed, number)
        seed = (seed_for("search", seed, zlib.crc32(name.encode())) if name else seed) % HIGHEST
        if kind == "cmaes":
            import_extra("cmaes", "tune", "cmaes, which the sampler of this name uses,")
            return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        if kind == "tpe":  # each parameter alone: of 60 trials in benchmarks/tune.py's space better than all together
            return samplers.TPESampler(seed=seed, multivariate=False)
        return {"random": samplers.RandomSampler, "nsga2": samplers.NSGAIISampler}[kind](seed=seed)

    def before_trial(self, study: Any, trial: Any) -> None:
        """Makes the sampler of a trial."""
        self._relative = self._made(trial.number)
        self._relative.before_trial(study, trial)

    def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
        """The parameters that are chosen together."""
        return self._relative.infer_relative_search_space(study, trial)

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> Any:
        """Their values."""
        return self._relative.sample_relative(study, trial, search_space)

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        """The value of a parameter that is chosen alone, whatever was chosen before it, in this process or another."""
        return self._made(trial.number, param_name).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
        """What a sampler keeps of a finished trial; that of a grid would stop a loop that is not Optuna's."""
        if self._kind != "grid":
            self._made(trial.number).after_trial(study, trial, state, values)


def pruner(kind: str, num_steps: int) -> Any:
    """A pruner of Optuna.

    Args:
        kind: `median`, `percentile`, `hyperband` or `none`.
        num_steps: Folds of a trial.
    """
    pruners = import_optuna().pruners
    if kind == "median":
        return pruners.MedianPruner()
    if kind == "percentile":
        return pruners.PercentilePruner(BEST_PERCENT)
    if kind == "hyperband":
        return pruners.HyperbandPruner(min_resource=1, max_resource=num_steps)
    return pruners.NopPruner()


def open_storage(url: str) -> Any:
    """The database of a study.

    Raises:
        InputError: It cannot be opened; the message has no password.
    """
    optuna = import_optuna()
    sqlalchemy = import_extra("sqlalchemy", "tune", "sqlalchemy, which opens databases,")
    url = url.replace("{", "{{").replace("}", "}}")  # Optuna takes it as a template
    waits = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    try:
        return optuna.storages.RDBStorage(url, engine_kwargs=waits)
    except (ImportError, ValueError, RuntimeError, sqlalchemy.exc.SQLAlchemyError) as error:
        reason = str(getattr(error, "orig", None) or error)
        raise InputError(f"--storage {masked(url)} cannot be opened: {without_secret(reason, url)}") from None


@contextmanager
def storage_explained(url: str, resume_command: str) -> Iterator[None]:
    """Errors of the database inside the block say what it is and how to go on.

    Raises:
        StoreError: The database could not be read or written, as on a full disk; the trials in it stay.
    """
    optuna = import_optuna()
    sqlalchemy = import_extra("sqlalchemy", "tune", "sqlalchemy, which opens databases,")
    try:
        yield
    except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
        cause = error.__cause__ or error
        reason = without_secret(str(getattr(cause, "orig", None) or cause), url)
        raise StoreError(
            f"the trials cannot be written to {masked(url)}: {reason}. What was written stays. Free some space, or "
            f"start the database again, and continue with: {resume_command}"
        ) from error


def url_of(path: Path) -> str:
    """The URL of a database in a file, whatever its name is."""
    sqlalchemy = import_extra("sqlalchemy", "tune", "sqlalchemy, which opens databases,")
    return str(sqlalchemy.engine.URL.create("sqlite", database=str(path)).render_as_string(hide_password=False))


def masked(url: str) -> str:
    """A URL without its password."""
    sqlalchemy = import_extra("sqlalchemy", "tune", "sqlalchemy, which opens databases,")
    try:
        return str(sqlalchemy.engine.make_url(url).render_as_string(hide_password=True))
    except (ValueError, sqlalchemy.exc.ArgumentError):
        return "URL"


def without_secret(text: str, url: str) -> str:
    """A message without the URL and its password, on one line."""
    password = url.partition("://")[2].rpartition("@")[0].partition(":")[2]
    for secret in filter(None, (url, password)):
        text = text.replace(secret, "***")
    return " ".join(text.split())
