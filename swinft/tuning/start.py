"""Starts a search, or finds the one to continue, after everything has been checked that can be."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swinft.errors import InputError, listed
from swinft.printing import print_line
from swinft.run.check import CheckedRun, check_run
from swinft.run.config.fit_options import fit_parser
from swinft.run.config.secrets import IN_URL, NAME
from swinft.run.config.yaml_text import read_own_yaml
from swinft.run.experiment import Experiment
from swinft.run.find.find import by_rule
from swinft.run.fit import check_run_place
from swinft.run.layout import Run
from swinft.run.lock import hold
from swinft.run.resume import ABSENT, flat_keys, may_change
from swinft.store import commit, verify
from swinft.system.orphans import is_child
from swinft.tuning.base import Base, managed_keys, space_types
from swinft.tuning.checks import check_values
from swinft.tuning.defaults import default_space
from swinft.tuning.options import TuneOptions
from swinft.tuning.source import Words, read_space
from swinft.tuning.space import Space, parse_space
from swinft.tuning.study import MAKER, Folder, Settings, Study, changed_settings, create, delete
from swinft.whole_folders import clear_deleted


@dataclass(frozen=True)
class Started:
    """A search that this process may run.

    Args:
        study: Its trials.
        base: Its config.
        experiment: The same.
        words: Options of `swinft fit` for every trial: where and on what its folds run.
    """

    study: Study
    base: Base
    experiment: Experiment
    words: list[str]


def start(options: TuneOptions, source: Words, named: set[str]) -> Started:
    """Creates a search, or opens the one to continue.

    Args:
        options: The options.
        source: The words for the parser of configs.
        named: The options that were given.

    Raises:
        InputError: Something is wrong; or the search exists and neither `--resume` nor `--overwrite` was given; or it
            is continued with other settings.
    """
    experiment = Experiment.from_argv(fit_parser(), source.words)
    config = experiment.config
    for option in ("fold", "accept"):
        if config[option]:
            raise InputError(f"--{option} is for `swinft fit`: a search has --folds.")
    if config.rounds is not None:
        raise InputError("rounds are several runs, and a trial is one: remove `rounds`, and search before them.")
    if config.trainer.fast_dev_run:
        raise InputError("trainer.fast_dev_run tries a run, and saves nothing that could be compared: remove it.")
    folder = Folder(Run.at(Path(config.runs) / config.name).root)
    base = Base.of(experiment)
    given = read_space(Path(options.space)) if options.space else source.space
    space = None if given is None else parse_space(given, space_types(), managed_keys())
    words = [f"--on={config.on}"]
    words += [] if config.devices_per_fold is None else [f"--devices-per-fold={config.devices_per_fold}"]
    if is_child():
        return Started(_opened(folder, options), base, experiment, words)
    check_run_place(config, Run(folder.root))
    with hold(folder.lock):
        clear_deleted(folder.root)
        if folder.is_search() and not options.overwrite:
            if not options.resume:
                raise InputError(
                    f"{folder.root} exists. --resume continues it, --overwrite deletes it, --name NAME starts another."
                )
            _check_same(folder, base, options, named, space)
            return Started(_opened(folder, options), base, experiment, words)
        if folder.root.exists() and any(folder.root.iterdir()):
            if folder.is_unstarted():
                shutil.rmtree(folder.root)
            elif options.overwrite:
                delete(folder, options.storage)
            else:
                raise InputError(f"{folder.root} exists and is not a search: give another --name.")
        study = _created(folder, options, experiment, base, space)
    return Started(study, base, experiment, words)


def _opened(folder: Folder, options: TuneOptions) -> Study:
    """The study of an existing search."""
    settings = Settings.read(folder)
    if settings.has_database and options.storage:
        raise InputError(f"the trials of {folder.root} are in its study.db: remove --storage.")
    if not settings.has_database and not options.storage:
        raise InputError(f"the trials of {folder.root} are in another database: give it with --storage again.")
    space = parse_space(settings.space, space_types(), managed_keys())
    return Study(folder, settings, space, options.storage)


def _check_same(folder: Folder, base: Base, options: TuneOptions, named: set[str], space: Space | None) -> None:
    """Compares a search with what it is continued with; the number of trials may grow.

    Raises:
        InputError: Space, options or config differ.
    """
    before = Settings.read(folder)
    now: dict[str, Any] = {"space": None if space is None else space.described()}
    now |= {"objective": options.objective if "objective" in named else None}
    now |= {"sampler": options.sampler if "sampler" in named else None}
    now |= {"folds": sorted(options.folds) if "folds" in named and options.folds else None}
    now |= {"pruner": options.pruner_for(len(before.folds)) if "pruner" in named else None}
    lines = changed_settings(before, now)
    frozen = dict(flat_keys(read_own_yaml(verify(folder.base).read_text(encoding="utf-8"))))
    wanted = dict(flat_keys(read_own_yaml(base.text())))
    keys = [key for key in {**frozen, **wanted} if frozen.get(key, ABSENT) != wanted.get(key, ABSENT)]
    lines += [
        f"{key}: was {frozen.get(key, ABSENT)!r}, is {wanted.get(key, ABSENT)!r}" for key in keys if not may_change(key)
    ]
    if lines:
        title = f"{folder.root} was started with other settings, and its trials could not be compared with new ones."
        fix = "Undo the change (--trials may grow), or give the new search another --name."
        raise InputError("\n  ".join([title, *lines, fix]))
    if keys:
        commit(folder.base, base.text().encode(), MAKER)  # best.yaml is made of it


def _created(folder: Folder, options: TuneOptions, experiment: Experiment, base: Base, space: Space | None) -> Study:
    """A new search: the config is checked as by `swinft check`, then every value of the space."""
    if space is not None:
        _refuse_secrets(space)
        if options.sampler == "grid":
            space.grid()
        check_values(base, space)
    checked = check_run(experiment, by_rule)
    num_folds = int(checked.data.fold_of_row.max()) + 1
    folds = sorted(options.folds) if options.folds is not None else list(range(num_folds))
    if unknown := [fold for fold in folds if fold >= num_folds]:
        raise InputError(f"--folds names {unknown}: the folds are 0 to {num_folds - 1}.")
    if space is None:
        space = _default(base, experiment, checked)
        if options.sampler == "grid":
            space.grid()
    task = experiment.task(checked.data.schema, loads_weights=False, pretrained=False)
    metric = task.scored_by[0]
    settings = Settings(
        base.name,
        space.described(),
        list(options.objective),
        options.sampler,
        options.pruner_for(len(folds)),
        experiment.config.seed,
        folds,
        metric.name,
        metric.higher_is_better,
        options.storage is None,
    )
    return create(folder, settings, space, base.text(), options.storage)


def _default(base: Base, experiment: Experiment, checked: CheckedRun) -> Space:
    given, family = default_space(base, experiment, checked.data.schema)
    print_line(f"no space is given; the default one for {family}:")
    space = parse_space(given, space_types(), managed_keys())
    for key, value in space.described().items():
        print_line(f"  {key}: {value}")
    return space


def _refuse_secrets(space: Space) -> None:
    """Refuses secrets, which would be written to the search's folder.

    Raises:
        InputError: A key or a choice is one.
    """
    found = [
        each.key
        for each in space.parameters
        if NAME.search(each.key.rpartition(".")[2]) or any(IN_URL.search(label) for label in each.labels)
    ]
    if found:
        raise InputError(f"the search space names secrets, which are written to disk: remove {listed(found)}.")
