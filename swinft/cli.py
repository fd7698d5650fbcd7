"""The command line: a table of commands, each imported only when it is called.

Nothing here imports torch, timm, lightning, OpenCV or pandas, so that `swinft --help` is fast.
"""

import importlib
import io
import re
import signal
import sys
import traceback
from collections.abc import Callable
from typing import NamedTuple

from swinft.class_spec import line_of
from swinft.errors import InputError, RunError, disk_error, suggest
from swinft.json_output import FLAG, Output, failure, write_as_json
from swinft.printing import visible
from swinft.system.orphans import end_with_parent
from swinft.system.processes import rank
from swinft.system.signals import leave_at
from swinft.versions import VERSION


class Command(NamedTuple):
    """One command: where its `main(argv) -> output` lives, and the line that `--help` prints."""

    target: str
    help: str


COMMANDS = {
    "download": Command("swinft.commands.download:main", "download the data of a Kaggle competition, and unpack it"),
    "new": Command("swinft.commands.new:main", "look at a folder of downloaded data, and propose a config for it"),
    "table": Command("swinft.commands.table:main", "make a table of a config by its steps, and print it as CSV"),
    "check": Command("swinft.commands.check:main", "check the CSVs, images and folds of a config; trains nothing"),
    "fit": Command(
        "swinft.commands.fit:main", "train every fold of a config; writes oof.csv, the pooled score, a report"
    ),
    "find": Command("swinft.commands.find:main", "find a learning rate and a batch size for a config; writes nothing"),
    "tune": Command("swinft.commands.tune:main", "search settings of a config: train its folds with other values"),
    "plan": Command("swinft.commands.plan:main", "say how long the run of a config takes, here or on other GPUs"),
    "predict": Command("swinft.commands.predict:main", "predict the test rows with all folds of a run"),
    "submit": Command("swinft.commands.submit:main", "turn a run's predictions into a checked submission.csv; send it"),
    "submissions": Command("swinft.commands.submissions:main", "list what a run has sent to Kaggle, with its scores"),
    "ensemble": Command(
        "swinft.commands.ensemble:main", "combine several runs, with a score that no weight was fitted on"
    ),
    "embed": Command("swinft.commands.embed:main", "write the embeddings of a run's rows, and fit a model on them"),
    "explain": Command(
        "swinft.commands.explain:main", "show what in an image a prediction comes from; PNGs and a page"
    ),
    "runs": Command("swinft.commands.runs:main", "list the runs of a folder: scores, times, notes, submissions"),
    "compare": Command(
        "swinft.commands.compare:main", "compare runs on the same rows; chances on a private leaderboard"
    ),
    "lab": Command("swinft.commands.lab:main", "measure trained networks layer by layer, and how robust they are"),
    "report": Command("swinft.commands.report:main", "draw a run as one HTML file"),
    "export": Command("swinft.commands.export:main", "write a fold's weights for timm, ONNX or TorchScript"),
    "bundle": Command(
        "swinft.commands.bundle:main", "make the datasets and the notebook that predict on Kaggle, without internet"
    ),
    "inspect": Command(
        "swinft.commands.inspect:main", "show what a backbone or a run's network consists of, stage by stage"
    ),
    "metrics": Command(
        "swinft.commands.metrics:main", "list every metric with its kinds of target, direction, definition"
    ),
    "cache": Command("swinft.commands.cache:main", "list the caches of decoded images, or delete old ones"),
}

USAGE = """usage: swinft COMMAND [options]

{commands}

`swinft COMMAND --help` lists the options of one command. A whole run:
  swinft check --config configs/petfinder.yaml
  swinft fit --config configs/petfinder.yaml
  swinft predict runs/petfinder
  swinft submit runs/petfinder
With --json every command prints its result as one JSON document: docs/json.md.
"""


def main(argv: list[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: The arguments after `swinft`; None for those of the process.

    Returns:
        The exit code: 0 complete, 2 wrong use or bad input, 130 interrupted, 1 anything else.
    """
    given = sys.argv[1:] if argv is None else argv
    words = [word for word in given if word != FLAG]  # which no command reads itself
    if not words or words[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        lines = [f"  {name:<{width}} {command.help}" for name, command in COMMANDS.items()]
        print(USAGE.format(commands="\n".join(lines)), end="")
        return 0 if words else 2
    if words[0] == "--version":
        print(VERSION)
        return 0
    if len(words) == len(given) or {"-h", "--help"} & set(words):
        return _run(words)[0]
    return write_as_json(lambda: _run(words, as_json=True), is_shown=_is_first())


def _run(words: list[str], as_json: bool = False) -> tuple[int, Output]:
    """Runs a command; returns its exit code, and its output or error."""
    try:
        if as_json and (printed := next((word for word in words if word.startswith("--print_config")), None)):
            raise InputError(f"{printed} prints YAML: remove it, or {FLAG}.")
        rank()  # checks the launcher's environment variables before Lightning reads them
        return 0, _command(words[0])(words[1:])
    except InputError as error:
        # An error from a loader worker has the worker's traceback before its message.
        text = str(error).rsplit(f".{type(error).__name__}: ", 1)[-1].rstrip()
        _print_error(words[0], text)
        return 2, failure(text, 2, error.problems)
    except RunError as error:
        _print_error(words[0], str(error))
        return error.code, failure(str(error), error.code)
    except OSError as error:
        if (shown := disk_error(error)) is None:
            return _failed_in_own_code(words, error)
        _print_error(words[0], str(shown))
        return shown.code, failure(str(shown), shown.code)
    except KeyboardInterrupt:
        print("\nswinft: interrupted", file=sys.stderr)
        return 130, failure("interrupted", 130)
    except Exception as error:
        return _failed_in_own_code(words, error)


def _failed_in_own_code(words: list[str], error: Exception) -> tuple[int, Output]:
    """Exit code and output of an error from the modules of `--allow-code`; any other one is raised again."""
    modules = re.findall(r"[\w.]+", ",".join(re.findall(r"--allow[-_]code[= ](\S+)", " ".join(words))))
    if not (line := line_of(error, modules)):
        raise error
    traceback.print_exception(error)
    text = f"your own code fails in {line}: {type(error).__name__}: {error}"
    _print_error(words[0], text)
    return 1, failure(text, 1)


def _is_first() -> bool:
    """Whether this is the first of the processes that fit a fold together."""
    try:
        return rank() == 0
    except InputError:  # reported where the command runs
        return True


def _print_error(command: str, text: str) -> None:
    """Prints an error, without control characters that a config or a table may hold."""
    print("\n".join(visible(line) for line in f"swinft {command}: {text}".split("\n")), file=sys.stderr)


def _command(name: str) -> Callable[[list[str]], Output]:
    if name not in COMMANDS:
        raise InputError(f"unknown command '{name}'.{suggest(name, COMMANDS)}")
    module, function = COMMANDS[name].target.split(":")
    run: Callable[[list[str]], Output] = getattr(importlib.import_module(module), function)
    return run


def entry() -> None:
    """The console script: `main` with the process's arguments and exit code."""
    end_with_parent()
    signal.signal(signal.SIGTERM, leave_at(signal.SIGTERM))  # what lies in temporary folders is deleted
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal's encoding lacks is escaped, and ends no command
            stream.reconfigure(errors="backslashreplace")
    code = main()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # which would end in a library's traceback now
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)
