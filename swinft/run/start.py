"""`swinft fit` before its imports: a second process in the same run is refused at once, not seconds later."""

from itertools import pairwise
from pathlib import Path

import yaml

from swinft.errors import InputError
from swinft.orphans import is_child
from swinft.run.layout import Run, check_name
from swinft.run.lock import refuse_if_held
from swinft.run.processes import rank


def main(argv: list[str]) -> int:
    """`swinft fit --config FILE`."""
    lock = _lock_of(argv)
    if lock and not rank() and not is_child():  # a child waits for one that is ending
        refuse_if_held(lock)
    from swinft.run.fit import main as fit

    return fit(argv)


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
    run = Run(Path(named["runs"]) / named["name"])
    return run.fold(int(named["fold"])).lock if named.get("fold", "").isdigit() else run.lock


def _named_in(path: Path) -> dict[str, str]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, RecursionError, ValueError, yaml.YAMLError):  # the full parser says what is wrong with it
        return {}
    return {key: str(config[key]) for key in ("name", "runs") if key in config} if isinstance(config, dict) else {}
