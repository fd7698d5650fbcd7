"""Prediction shared among devices: a process for each, and their parts joined by id."""

import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from swinft.data.datamodule import CSVDataModule
from swinft.errors import RunError
from swinft.run.layout import Run
from swinft.run.predictions import read_predictions, write_predictions
from swinft.run.processes import Child, run_children


def predict_parts(run: Run, options: dict[str, Any], path: Path, kind: str, devices: int, data: CSVDataModule) -> None:
    """Predicts with several processes, one device each, and joins what they write.

    Args:
        run: The run.
        options: Of `swinft predict`, the same for each process.
        path: Where the joined predictions go.
        kind: Type of the devices; processes on the CPU share its cores.
        devices: How many.
        data: The rows.

    Raises:
        RunError: A process failed, or the parts do not hold every id exactly once.
    """
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // devices))} if kind == "cpu" else {}
    parts = [run.parts / f"{index}-of-{devices}.csv" for index in range(devices)]
    children = {}
    for index, part in enumerate(parts):
        words = ["predict", str(run.root), *_words(options), "--part", f"{index}/{devices}", "--output", str(part)]
        words += ["--device", f"{kind}:{index}" if kind == "cuda" else kind]
        children[index] = Child(words, threads)
    try:
        codes = run_children(children, [{}] * devices, together=True)
        if any(codes.values()):
            raise RunError(f"the processes that predict ended with the exit codes {codes}; nothing is joined.")
        write_predictions(path, _join(run, parts, data), "swinft predict")
    finally:
        shutil.rmtree(run.parts, ignore_errors=True)


def _join(run: Run, parts: list[Path], data: CSVDataModule) -> pd.DataFrame:
    """The parts' rows in the order of the test table.

    Raises:
        RunError: They do not hold every id exactly once.
    """
    outputs = data.schema.outputs
    joined = pd.concat([read_predictions(part, len(outputs)) for part in parts], ignore_index=True)
    joined.index = pd.Index(joined.iloc[:, 0].astype(str))
    ids = data.test_table.ids
    if joined.index.has_duplicates or set(joined.index) != set(ids):
        raise RunError(f"the parts in {run.parts} do not hold every id of {data.test_table.path} exactly once.")
    return joined.loc[ids].reset_index(drop=True)


def _words(options: dict[str, Any]) -> list[str]:
    """Options as words of a command line, without those that are not given."""
    given = {name: value for name, value in options.items() if value is not None}
    texts = {
        name: ",".join(map(str, value)) if isinstance(value, list) else str(value) for name, value in given.items()
    }
    return [word for name, text in texts.items() for word in (f"--{name}", text)]
