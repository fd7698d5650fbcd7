"""`swinft table`: make a table of a config by its steps, and print it or write it as a CSV."""

import os
import sys
from pathlib import Path
from typing import Literal

from swinft.data.roots import resolved_root
from swinft.data.tables.steps.make import as_csv, make_frame
from swinft.data.tables.steps.named import steps_of
from swinft.errors import InputError, command
from swinft.json_output import Output
from swinft.printing import print_line, visible
from swinft.run.config.parser import call, plain
from swinft.run.config.sections import build_parser
from swinft.run.experiment import Experiment
from swinft.store import replace

KEYS = {"train": "train", "test": "test", "sample": "sample_submission"}


def table(
    config: str,
    which: Literal["train", "test", "sample"] = "train",
    output: str | None = None,
    root: str | None = None,
    allow_code: list[str] | None = None,
) -> Output:
    """Makes a table of a config: reads its CSV, or runs its steps.

    Args:
        config: A YAML file.
        which: The table: `data.train`, `data.test` or `data.sample_submission`.
        output: File for the table as a CSV; by default it is printed, and what each step made goes to stderr.
        root: Folder of the data, in the place of the config's `data.root`.
        allow_code: Packages or modules whose classes the config may name, besides the trusted ones.

    Raises:
        InputError: The config does not have the table, or a step is wrong.
        DataError: A step finds problems with the data; all of them are listed.
    """
    options = ["--config", config, *(["--allow_code", ",".join(allow_code)] if allow_code else [])]
    data = Experiment.from_argv(build_parser("table"), options).section("data")
    key = f"data.{KEYS[which]}"
    given = plain(data[KEYS[which]])
    if not given:
        raise InputError(f"{config} has no {key}. `{command('table', config, '--which', 'train')}` shows another one.")
    folder, columns, loading = Path(resolved_root(root or data["root"])), data["columns"], data["loading"]
    frame, notes = make_frame(steps_of(key, given), folder, columns["encoding"], loading["follow_links"])
    text = as_csv(frame.columns)
    if output is None:
        _print(text, notes)
    else:
        replace(Path(output), text.encode())
        for line in [*notes, f"written: {output}"]:
            print_line(line)
    cells = {} if output else {"cells": frame.columns}
    return {
        "table": which,
        "columns": list(frame.columns),
        "rows": len(frame),
        "notes": notes,
        "output": output,
        **cells,
    }


def _print(text: str, notes: list[str]) -> None:
    """Prints a table to stdout, which may be a pipe that ends early, as `head` does; and notes to stderr."""
    try:
        sys.stdout.write("\n".join(map(visible, text.split("\n"))) if sys.stdout.isatty() else text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it again when it ends
    for note in notes:
        print(visible(note), file=sys.stderr)


def main(argv: list[str]) -> Output:
    """`swinft table`."""
    return call(table, "table", argv)
