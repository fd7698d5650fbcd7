"""The command `fit`: finds the run and checks that it is not in use, before imports that take seconds."""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import yaml

from swinft.errors import InputError
from swinft.run.fold_files import read_fold_id
from swinft.run.layout import ROUNDS, Run, check_name, is_frozen
from swinft.run.lock import refuse_if_held
from swinft.system.orphans import is_child
from swinft.system.processes import rank


def fit_from_argv(argv: list[str]) -> Run | None:
    """Runs `fit` with the arguments of a command line.

    Returns:
        The run; None for `trainer.fast_dev_run`, which saves nothing.

    Raises:
        InputError: Arguments, config or data are wrong, or another process uses the run.
        RunError: A fold has failed.
    """
    argv = with_run_options(argv)
    refuse_if_in_use(argv)
    if has_rounds(argv):
        from swinft.run.rounds.command import fit_rounds  # slow to import

        return fit_rounds(argv)
    from swinft.run.config.fit_options import fit_parser  # slow to import
    from swinft.run.experiment import Experiment
    from swinft.run.fit import fit

    experiment = Experiment.from_argv(fit_parser(), argv)
    if experiment.config.rounds is not None:
        raise InputError("--rounds: rounds are read from a YAML file (--config), as their errors name its lines.")
    return fit(experiment)


def has_rounds(argv: list[str]) -> bool:
    """Whether a config file of a command line has rounds."""
    return any("rounds" in _names_in_config(Path(value), ("rounds",)) for value in config_files(argv))


def refuse_if_in_use(argv: list[str]) -> None:
    """Refuses at once, not seconds later, if another process uses the run.

    For this the command line is parsed twice: the imports here take 0.3 s, those of the full parser 15 s on two busy
    cores.

    Raises:
        InputError: Another process uses the run.
    """
    if rank() or is_child():  # a child waits for its predecessor to end
        return
    if lock := _lock_of(argv):
        refuse_if_held(lock)


def with_run_options(argv: list[str]) -> list[str]:
    """Adds `--config`, `--name` and `--runs` for a run that is given by its folder or by its frozen config.

    The current folder of the run counts, not the name with which it was started. `--resume RUN` implies all three
    options, `--config RUN/config.yaml` the last two, unless they are given.

    Raises:
        InputError: `--resume` names a folder that is not a run.
    """
    words = [part for word in argv for part in (word.split("=", 1) if _is_option(word) else [word])]
    resumes = [index for index, word in enumerate(words[:-1]) if word == "--resume" and not _is_flag(words[index + 1])]
    configs = [Path(value) for value in config_files(words)]
    folder = None
    if resumes:
        folder = Path(words[resumes[0] + 1])
        _refuse_rounds(folder)
        words = [*words[: resumes[0]], "--resume=true", *words[resumes[0] + 2 :]]
        Run.open(folder)
        words = words if configs else [f"--config={folder / 'config.yaml'}", *words]  # first: later options override it
    elif len(configs) == 1 and is_frozen(configs[0]):
        folder, words = configs[0].parent, argv
    if folder is None or any(word.partition("=")[0] in ("--name", "--runs") for word in argv):
        return argv if folder is None else words
    folder = folder if folder.name not in ("", "..") else folder.resolve()
    return [*words, f"--name={folder.name}", f"--runs={folder.parent}"]


def _refuse_rounds(folder: Path) -> None:
    """Refuses to resume a folder of rounds without its config.

    Raises:
        InputError: It is one.
    """
    if (folder / ROUNDS).is_file():
        plan = json.loads((folder / ROUNDS).read_text(encoding="utf-8"))
        raise InputError(
            f"{folder} holds the rounds {', '.join(plan['rounds'])}: resume all of them with `{plan['command']}`, or "
            f"name one: --resume {folder / plan['last']}."
        )


def _is_option(word: str) -> bool:
    return word.startswith(("--resume=", "--config="))


def _is_flag(word: str) -> bool:
    """Whether the word after `--resume` is not a folder: another option, or yes or no."""
    return word.startswith("-") or word.casefold() in ("true", "false", "yes", "no", "on", "off", "1", "0", "null")


def _lock_of(argv: list[str]) -> Path | None:
    """The lock that a command line will need; None if the run is not known yet.

    The full parser later finds the run again, and reports what is wrong with the config.
    """
    named: dict[str, str] = {"runs": "runs"}
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith("--") else [word])]
    for option, value in pairwise(words):
        if option == "--config":
            named |= _names_in_config(Path(value))
        elif option in ("--name", "--runs", "--fold"):
            named[option[2:]] = value
    try:
        check_name(named.get("name", ""))
    except InputError:  # the full parser reports it
        return None
    run = Run.at(Path(named["runs"]) / named["name"])
    name = read_fold_id(named.get("fold", ""))
    return run.lock if name is None else run.fold(name).lock


def config_files(argv: list[str]) -> list[str]:
    """The values of `--config`."""
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith("--config=") else [word])]
    return [value for option, value in pairwise(words) if option == "--config"]


def _names_in_config(path: Path, keys: Sequence[str] = ("name", "runs")) -> dict[str, str]:
    """The values of some keys in a file, as text."""
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, RecursionError, ValueError, yaml.YAMLError):  # the full parser reports it
        return {}
    return {key: str(config[key]) for key in keys if key in config} if isinstance(config, dict) else {}
