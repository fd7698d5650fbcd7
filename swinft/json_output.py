"""`--json` of every command: one JSON document on standard output; everything for people goes to standard error.

A command returns what it has found or made as plain values, its *output*; `docs/json.md` has the keys of each. Nothing
here knows a command.
"""

import contextlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from typing import Any, TextIO

FLAG = "--json"
HELP = "print the result as one JSON document, and everything else on standard error: docs/json.md"
Output = Mapping[str, Any]


def write_as_json(run: Callable[[], tuple[int, Output]], is_shown: bool = True) -> int:
    """Runs a command, and writes its output, or its error, as the only text on standard output.

    Args:
        run: Returns the exit code and the output, or raises what is no fault of the user's: that is written, too.
        is_shown: False in a process whose output another one shows, such as a rank of a fold: it writes nothing.

    Returns:
        The exit code.
    """
    with _stdout_as_stderr() as stream:
        try:
            code, output = run()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
            _write(stream, failure(f"ended with exit code {code}", code), is_shown)
            raise
        except Exception as error:
            _write(stream, failure(f"{type(error).__name__}: {error}", 1), is_shown)
            raise
    _write(stream, output, is_shown)
    return code


def failure(text: str, code: int, problems: Sequence[Any] = ()) -> Output:
    """The document of an error.

    Args:
        text: The message that people read.
        code: The exit code.
        problems: What is wrong, one by one: sentences, or objects with fields such as `file`, `line` and `id`.
    """
    found = [{"message": each} if isinstance(each, str) else _known(plain_values(each)) for each in problems or [text]]
    return {"error": text, "exit_code": code, "problems": found}


def plain_values(value: Any) -> Any:
    """A value as JSON has it: paths and arrays as text and lists, dataclasses as objects; NaN and infinity are null.

    Raises:
        TypeError: JSON has nothing like it.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, PurePath):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain_values(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain_values(each) for key, each in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(plain_values, value))
    if isinstance(value, list | tuple):
        return [plain_values(each) for each in value]
    if hasattr(value, "tolist"):  # numbers and arrays of numpy and torch
        return plain_values(value.tolist())
    raise TypeError(f"{type(value).__name__} {value!r} cannot be written as JSON")


def _known(problem: Mapping[str, Any]) -> Mapping[str, Any]:
    """A problem without the fields that say nothing of it."""
    return {name: value for name, value in problem.items() if value is not None and value is not False}


def _write(stream: TextIO, document: Output, is_shown: bool) -> None:
    """Writes a document; a reader that has closed the pipe, as `head` does, is no error."""
    if not is_shown:
        return
    text = json.dumps(plain_values(document), indent=1, allow_nan=False)
    try:
        stream.write(f"{text}\n")
        stream.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # Python flushes it again when it ends


@contextlib.contextmanager
def _stdout_as_stderr() -> Iterator[TextIO]:
    """Sends standard output to standard error inside the block, that of libraries in C and of children included.

    Yields:
        The stream that was standard output; to be written to after the block.
    """
    stream, kept = sys.stdout, None
    with contextlib.suppress(OSError, ValueError, AttributeError):  # there is no file behind one of them
        stream.flush()
        if stream.fileno() == 1 and sys.stderr.fileno() == 2:
            kept = os.dup(1)
            os.dup2(2, 1)
    own = None if kept is None else os.fdopen(os.dup(kept), "w", encoding="utf-8")
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield own or stream
    finally:
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)
