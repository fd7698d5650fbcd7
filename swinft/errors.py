"""Errors that a user can fix: the command line prints them without a traceback."""

import difflib
import errno
import shlex
from collections.abc import Iterable
from typing import Any


class RunError(RuntimeError):
    """Something outside the user's input went wrong; the message says what, and how to continue.

    Args:
        message: What is printed.
        code: The exit code: 1, or that of the child process that failed.
    """

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class StoreError(RunError):
    """An artefact cannot be written, is missing, or is not what was committed; the message says which file."""


# What a disk or a path is to blame for, and what helps.
FREE, ALLOW = "Free some space", "Fix the permissions, or name another folder"
DISK_ERRORS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), FREE),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), ALLOW),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG), "Name another path"),
    errno.EIO: "The disk has failed, or its connection: check it",
}


def disk_error(error: OSError) -> RunError | None:
    """An error of a disk or a path as one that says what to do; None if it is another kind of error."""
    if (advice := DISK_ERRORS.get(error.errno or 0)) is None:
        return None
    where = f"{error.filename}: " if error.filename else ""
    return RunError(f"{where}{error.strerror}. {advice}, and run the command again.")


class InputError(ValueError):
    """Wrong use or bad input. Exit code 2.

    The message names the thing, its value, what is allowed and the edit that fixes it. Several problems of one
    kind are listed in one error, so that the user can fix them together.

    Args:
        message: What is printed.
        problems: The problems in it one by one, for programs: sentences, or objects whose fields name the place.
    """

    def __init__(self, message: object = "", problems: Iterable[Any] = ()) -> None:
        super().__init__(message)
        self.problems = list(problems)


def together(problems: "Iterable[str | InputError]") -> InputError:
    """One error of several problems, each of which may be an error itself."""
    every = list(problems)
    listed_ones = [[each] if isinstance(each, str) else each.problems or [str(each)] for each in every]
    return InputError("\n".join(map(str, every)), [problem for some in listed_ones for problem in some])


def command(*words: object) -> str:
    """A `swinft` command that can be pasted into a shell, whatever the names of its files are."""
    return f"swinft {shlex.join(map(str, words))}"


def suggest(word: str, allowed: Iterable[str], prefix: str = "") -> str:
    """The end of an error message: the allowed word most similar to the user's, or all allowed words.

    Args:
        word: What the user wrote.
        allowed: All allowed words.
        prefix: Printed before each word, and not compared.

    Returns:
        ` Did you mean 'x'?`, ` Allowed: a, b, c.`, or ten of them and a count; empty if nothing is allowed.
    """
    choices = [str(choice) for choice in allowed]
    by_lower = {choice.casefold(): choice for choice in choices}  # `id` for `Id` is the most common mistake
    near = difflib.get_close_matches(word.casefold(), by_lower, n=1, cutoff=0.6)
    near = near or [choice for choice in by_lower if sorted(choice) == sorted(word.casefold())]  # `rl` for `lr`
    if near:
        return f" Did you mean '{prefix}{by_lower[near[0]]}'?"
    return f" Allowed: {listed([prefix + choice for choice in choices])}." if choices else ""


def listed(names: Iterable[str], most: int = 10) -> str:
    """Names with commas between them: the first ten, and how many more there are."""
    every = list(names)
    rest = len(every) - most
    return ", ".join(every) if rest <= 0 else f"{', '.join(every[:most])} and {rest:,} more"


def number_of(number: int, one: str, many: str | None = None, verb: str = "") -> str:
    """A number with its noun: `1 image`, `2 images`, `1,024 images`.

    Args:
        number: How many.
        one: The noun in the singular.
        many: The plural; None for the singular with an s.
        verb: `is`, to start with `is` or `are`.
    """
    before = f"{'is' if number == 1 else 'are'} " if verb else ""
    return f"{before}{number:,} {one if number == 1 else many or f'{one}s'}"
