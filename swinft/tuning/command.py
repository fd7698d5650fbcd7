"""The command `tune`, and `swinft.tune` in Python: starts or continues a search, and prints what it has found."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

import pandas as pd

from swinft.errors import InputError, RunError
from swinft.printing import print_line
from swinft.run import api
from swinft.run.compute.devices import FOLDS_AT_A_TIME, folds_at_a_time, slots_for
from swinft.run.config.parser import Parser
from swinft.run.fit import advice_if_interrupted
from swinft.run.python_inputs import plain, python_inputs, write_keys
from swinft.system.device import visible_gpus
from swinft.system.orphans import is_child
from swinft.system.processes import Child, run_children
from swinft.system.shown import Following
from swinft.tuning.objective import FitObjective
from swinft.tuning.options import TuneOptions
from swinft.tuning.report import write_report
from swinft.tuning.results import COMPLETE, best_of, write_results
from swinft.tuning.search import Search, trials_of
from swinft.tuning.search_view import SearchTimes, SearchView
from swinft.tuning.source import without_section
from swinft.tuning.start import Started, start
from swinft.tuning.study import Folder, Study
from swinft.tuning.table import as_json, table_lines

STORAGE = "SWINFT_TUNE_STORAGE"  # environment variable with the URL of a database, which may hold a password
OWN = tuple(each.name for each in fields(TuneOptions))
FLAGS = ("resume", "overwrite")


@dataclass(frozen=True)
class Tuned:
    """A finished search. `swinft.tune` returns it.

    Args:
        folder: Its folder.
        trials: A row per finished trial, as in trials.csv.
        best: The values of the best trial by config key; empty if no trial is complete.
        score: Its score, the best of all trials and so too good by chance; None if no trial is complete.
        nested_score: The score if each fold's trial is chosen by the other folds; None if it is not known.
        output: All of it as plain values, for `--json`.
    """

    folder: Path
    trials: pd.DataFrame = field(repr=False)
    best: dict[str, Any] = field(default_factory=dict)
    score: float | None = None
    nested_score: float | None = None
    output: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def config(self) -> Path:
        """A complete config with the best values, for `swinft.fit`."""
        return Folder(self.folder).best


def tune_from_argv(argv: Sequence[str]) -> Tuned | None:
    """Runs a command line of `tune`.

    Returns:
        What was found; None in a process that runs trials for another one.

    Raises:
        InputError: Config, space, options or data are wrong, or the search exists already.
        RunError: Every trial fails.
    """
    own, words = split(argv)
    parser = _parser()
    given = parser.parse_args(own).as_dict()
    options = TuneOptions(**{**given, "storage": given["storage"] or os.environ.get(STORAGE)})
    named = {word[2:].partition("=")[0].replace("-", "_") for word in own if word.startswith("--")}
    study = _searched(options, words, named)
    if study is None:
        return None
    with study[0].errors_explained():
        return _finish(*study, options)


def split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The options of a search, and the words for the parser of configs.

    `--resume FOLDER` becomes the config of that folder, with its name and place.

    Raises:
        InputError: The folder is no search.
    """
    own: list[str] = []
    words: list[str] = []
    waiting = [part for word in argv for part in (word.split("=", 1) if word.startswith("--resume=") else [word])]
    while waiting:
        word = waiting.pop(0)
        name, equals, _ = word.partition("=")
        option = name.removeprefix("--").replace("-", "_") if name.startswith("--") else ""
        has_value = bool(waiting) and not waiting[0].startswith("--")
        if option not in OWN:
            own += [word] if word in ("-h", "--help") else []
            words.append(word)
        elif option == "resume" and not equals:
            value = waiting.pop(0) if has_value else "true"
            if value.lower() in ("true", "false"):
                own.append(f"--resume={value.lower()}")
                continue
            folder = Folder(Path(os.path.abspath(value)))
            if not folder.is_search():
                raise InputError(f"'{value}' is not a search: it has no study.json that `swinft tune` wrote.")
            own.append("--resume=true")
            runs = Path(value).parent if Path(value).name not in ("", "..") else folder.root.parent
            place = [f"--name={folder.root.name}", f"--runs={runs}"]
            words = [f"--config={folder.base}", *words, *place]
        elif equals or option in FLAGS or not has_value:
            own.append(word)
        else:
            own += [f"{name}={waiting.pop(0)}"]
    return own, words


def _parser() -> Parser:
    hints = get_type_hints(TuneOptions)
    lists = [name for name, hint in hints.items() if "list[" in str(hint)]
    parser = Parser(prog="swinft tune", flags=FLAGS, lists=lists, usage=USAGE)
    parser.add_class_arguments(TuneOptions)
    return parser


USAGE = """swinft tune --config FILE [options] [any key of the config]

Searches settings: trains the folds of a config with other values, and keeps what scores best. Every key of the config
can be overridden, as with `swinft fit`; `swinft fit --help all` lists them. docs/tune.md has the details."""


def _searched(options: TuneOptions, words: Sequence[str], named: set[str]) -> tuple[Study, FitObjective] | None:
    """Runs the trials; None in a process that runs them for another one."""
    with without_section(words) as source:
        started = start(options, source, named)
    study, base, settings = started.study, started.base, started.study.settings
    if not is_child():
        done = sum(trial.state.is_finished() for trial in study.trials())
        logs = study.folder.log(0).parent
        print_line(f"{study.folder.root}: {done} of {options.trials} trials done; what each prints is in {logs}")
    until = None if options.hours is None else time.monotonic() + 3600 * options.hours
    jobs = folds_at_a_time() if is_child() else options.jobs
    view = SearchView(SearchTimes(study, trials_of(study, options.trials), jobs, until))
    objective = FitObjective(base, study.folder, settings, started.words, view)
    with study.errors_explained(), advice_if_interrupted(study.folder.resume_command, "every finished epoch is saved"):
        if options.jobs > 1 and not is_child():  # processes on this machine, whose folds may run on others
            _run_jobs(options, started, view.times)
        else:
            Search(study, objective, options.trials, options.keep, until, view).run()
    return None if is_child() else (study, objective)


def _run_jobs(options: TuneOptions, started: Started, times: SearchTimes) -> None:
    """Runs trials in several processes.

    Args:
        options: Of the search.
        started: The search.
        times: How far it is, for the view.

    Raises:
        RunError: One of them has failed; its output says why.
    """
    folder, config = started.study.folder, started.experiment.config
    words = ["tune", "--resume", str(folder.root), "--trials", str(options.trials), "--keep", str(options.keep)]
    words += [] if options.hours is None else ["--hours", str(options.hours)]
    words += ["--allow-code", ",".join(config.allow_code)] if config.allow_code else []
    words += started.words
    slots = slots_for(config, max(1, len(visible_gpus()) // options.jobs), options.jobs)
    variables = started.experiment.secrets() | {FOLDS_AT_A_TIME: str(options.jobs)}
    variables |= {STORAGE: options.storage} if options.storage else {}
    children = {number: Child(words, variables) for number in range(options.jobs)}
    places = [slots[number % len(slots)] for number in range(options.jobs)]
    codes = run_children(children, places, following=Following(footer=times.footer))
    if failed := [code for code in codes.values() if code]:
        raise RunError(
            f"{len(failed)} of {options.jobs} processes ended with exit code {failed[0]}; their output is above. "
            f"Resume with: {folder.resume_command}",
            failed[0],
        )


def _finish(study: Study, objective: FitObjective, options: TuneOptions) -> Tuned:
    """Writes the results and the report, prints the table, and returns what was found."""
    settings, folder = study.settings, study.folder
    rows = write_results(study, objective, options.keep)
    nested = objective.nested([row.number for row in rows if row.state == COMPLETE])
    write_report(study, rows, nested)
    for line in table_lines(rows, settings, folder, nested):
        print_line(line)
    best = best_of(rows, settings)
    if best is None and rows:
        raise RunError(f"none of {len(rows)} trials is complete; why is in {folder.table}.")
    trials = pd.read_csv(folder.table, dtype=str, keep_default_na=False)
    values = {} if best is None else study.space.values(best.labels)
    score, output = None if best is None else best.score, as_json(rows, settings, folder, nested)
    return Tuned(folder.root, trials, values, score, nested, output)


def tune(
    config: str | Path | Mapping[str, Any] | None = None,
    space: str | Path | Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    resume: bool | str | Path = False,
    allow_code: str | Sequence[str] = (),
    **options: Any,
) -> Tuned:
    """Searches settings of a config; does and prints the same as `swinft tune`.

    Args:
        config: A YAML file, or its content as a dictionary; not needed if `resume` names a search.
        space: The search space: a mapping of config keys to `{"low": …, "high": …, "log": …}` or to lists of choices,
            or a YAML file. None for the section `tune:` of the config, or else the default space of its backbone.
        overrides: Keys that replace those of the config.
        resume: True to continue the config's search, or the folder of the search to continue.
        allow_code: Packages or modules whose classes the config may name, besides the trusted ones.
        options: `trials`, `hours`, `objective`, `sampler`, `pruner`, `jobs`, `folds`, `keep`, `storage`, `overwrite`;
            and more overrides.

    Raises:
        InputError: Config, space, options or data are wrong, or the search exists already.
        RunError: Every trial fails.
    """
    own = {name: options.pop(name) for name in OWN if name in options}
    with python_inputs() as folder:
        words = api.config_words(folder, config, {**(overrides or {}), **options}, allow_code)
        if isinstance(space, Mapping):
            space = write_keys(folder / "space", plain(space))
        own |= {} if space is None else {"space": space}
        texts = {name: v if isinstance(v, str | Path) else json.dumps(plain(v)) for name, v in own.items()}
        words += [f"--{name}={text}" for name, text in texts.items()]
        words += ["--resume"] if resume is True else ["--resume", str(resume)] if resume else []
        found = tune_from_argv(words)
    assert found is not None, "this process is no child of another search"
    return found
