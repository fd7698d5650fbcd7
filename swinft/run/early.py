"""What a command line of `fit` says before the imports that take seconds: the run, and whether somebody works in it."""

from itertools import pairwise
from pathlib import Path

import yaml

from swinft.errors import InputError
from swinft.run.layout import Run, check_name, is_frozen
from swinft.run.lock import refuse_if_held
from swinft.system.orphans import is_child
from swinft.system.processes import rank


def fit_words(argv: list[str]) -> Run | None:
    """Fits what a command line of `fit` says. What can be refused at once is, before the imports that take seconds.

    Returns:
        The run; None where `trainer.fast_dev_run` keeps nothing.

    Raises:
        InputError: Words, config or data are wrong, or another process works in the run.
        RunError: A fold has failed.
    """
    argv = name_by_folder(argv)
    refuse_second(argv)
    from swinft.run.config.sections import fit_parser  # slow, and needed by nobody who is refused
    from swinft.run.experiment import Experiment
    from swinft.run.fit import fit

    return fit(Experiment.from_argv(fit_parser(), argv))


def refuse_second(argv: list[str]) -> None:
    """Refuses at once, not seconds later, where another process works in the run.

    That is what reading the command line twice is for: these imports take 0.3 s, and those of the full parser 15 s on
    two busy cores.

    Raises:
        InputError: One does.
    """
    lock = _lock_of(argv)
    if lock and not rank() and not is_child():  # a child waits for one that is ending
        refuse_if_held(lock)


def name_by_folder(argv: list[str]) -> list[str]:
    """Adds name and place of the run whose folder or whose own config is given.

    A run is where it lies, whatever it was called when it was started: `--resume RUN` stands for its config, name and
    place, and `--config RUN/config.yaml` for its name and place, where they are not given.

    Raises:
        InputError: `--resume` names a folder that is no run.
    """
    words = [part for word in argv for part in (word.split("=", 1) if _is_option(word) else [word])]
    places = [place for place, word in enumerate(words[:-1]) if word == "--resume" and not _is_flag(words[place + 1])]
    configs = [Path(value) for option, value in pairwise(words) if option == "--config"]
    given = None
    if places:
        given = Path(words[places[0] + 1])
        words = [*words[: places[0]], "--resume=true", *words[places[0] + 2 :]]
        Run.open(given)
        words = words if configs else [f"--config={given / 'config.yaml'}", *words]  # first: what comes later wins
    elif len(configs) == 1 and is_frozen(configs[0]):
        given, words = configs[0].parent, argv
    if given is None or any(word.partition("=")[0] in ("--name", "--runs") for word in argv):
        return argv if given is None else words
    folder = given if given.name not in ("", "..") else given.resolve()
    return [*words, f"--name={folder.name}", f"--runs={folder.parent}"]


def _is_option(word: str) -> bool:
    return word.startswith(("--resume=", "--config="))


def _is_flag(word: str) -> bool:
    """Whether what stands behind `--resume` is no folder: another option, or yes or no."""
    return word.startswith("-") or word.casefold() in ("true", "false", "yes", "no", "on", "off", "1", "0", "null")


def _lock_of(argv: list[str]) -> Path | None:
    """The lock that a command line is going to need; None where that cannot be told yet.

    The full parser settles the same question again, and takes the lock: here a wrong config only means no early answer.
    """
    named: dict[str, str] = {"runs": "runs"}
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith("--") else [word])]
    for option, value in pairwise(words):
        if option == "--config":
            named |= _named_in(Path(value))
        elif option in ("--name", "--runs", "--fold"):
            named[option[2:]] = value
    try:
        check_name(named.get("name", ""))
    except InputError:  # the full parser says so
        return None
    run = Run.at(Path(named["runs"]) / named["name"])
    return run.fold(int(named["fold"])).lock if named.get("fold", "").isdigit() else run.lock


def _named_in(path: Path) -> dict[str, str]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, RecursionError, ValueError, yaml.YAMLError):  # the full parser says what is wrong with it
        return {}
    return {key: str(config[key]) for key in ("name", "runs") if key in config} if isinstance(config, dict) else {}
