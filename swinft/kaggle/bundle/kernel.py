"""What a bundle's notebook runs on Kaggle, in a process of its own: checks, predictions, and submission.csv."""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from swinft.data.roots import resolved_root
from swinft.data.schema import Schema
from swinft.data.tables.steps.make import as_csv, given_table, make_frame
from swinft.errors import InputError, RunError, listed, number_of
from swinft.inference.predictions import Predictions
from swinft.kaggle.bundle.budget import Work, fitting
from swinft.kaggle.bundle.opened import Bundle, open_bundle
from swinft.printing import format_seconds, visible
from swinft.run.config.parser import call
from swinft.run.ensemble.members import check_range, selected
from swinft.run.experiment import Experiment
from swinft.run.layout import Run
from swinft.run.prediction.options import PredictOptions
from swinft.run.prediction.predict import predict
from swinft.run.submission.options import SubmitOptions
from swinft.run.submission.submit import submit

RERUN = "KAGGLE_IS_COMPETITION_RERUN"  # set where Kaggle runs a submitted notebook on the hidden test rows
FEW = 2_000  # rows that are predicted without a look at the time
TIMED = (64, 512)  # rows per device of the two predictions that are timed, whose difference has no start of processes


@dataclass(frozen=True)
class KernelOptions:
    """Options of the program.

    Args:
        root: Folder of the competition's data, or `kaggle://SLUG`.
        output: The submission; an earlier one there is deleted first.
        work: New folder for the runs; by default a temporary one.
        max_hours: Time budget since `started`; None for none.
        started: When the notebook started, in seconds since 1970; None for now.
        only_in_rerun: Write the sample submission where Kaggle does not rerun the notebook for a submission.
        device: `auto`, `cpu`, or `cuda`, of which all are used.
    """

    root: str
    output: str = "/kaggle/working/submission.csv"
    work: str | None = None
    max_hours: float | None = None
    started: float | None = None
    only_in_rerun: bool = False
    device: str = "auto"


def run_kernel(bundle: str, options: KernelOptions) -> None:
    """Predicts with a bundle, and writes the submission.

    Args:
        bundle: Folder of the bundle.
        options: Where the data is, and how long it may take.

    Raises:
        InputError: The data or a file of the bundle is missing, or something in them is wrong.
        RunError: A process failed.
    """
    started = time.time() if options.started is None else options.started
    output = Path(options.output)
    output.unlink(missing_ok=True)  # a stale one must not be submitted if this fails
    root = resolved_root(options.root)
    if not Path(root).is_dir():
        raise InputError(f"there is no folder {root}: the competition's data is not mounted there.")
    with tempfile.TemporaryDirectory(prefix="swinft-") as folder:
        opened = open_bundle(Path(bundle), Path(options.work or folder))
        last = opened.run(opened.submits[0])
        if options.only_in_rerun and os.environ.get(RERUN) is None:
            _write_sample(last, Path(root), output)
            return
        kernel = Kernel(opened, replace(options, root=root), started)
        found = kernel.predictions()
        submit(last, SubmitOptions(root=root, output=str(output), allow_code=opened.modules or None), found)
    print(f"{output} is written, {format_seconds(time.time() - started)} after the notebook's start", flush=True)


def _write_sample(run: Run, root: Path, output: Path) -> None:
    """The sample submission in the place of predictions: the saved version of a notebook must have a submission.

    Raises:
        InputError: The run has none.
    """
    data = run.read_config()["data"]
    given = given_table("data.sample_submission", data["sample_submission"])
    if given is None or (isinstance(given, str) and not (root / given).is_file()):
        raise InputError("--only-in-rerun needs the competition's sample submission, data.sample_submission.")
    if isinstance(given, str):
        output.write_bytes((root / given).read_bytes())
    else:
        output.write_text(as_csv(make_frame(given, root, data["columns"]["encoding"])[0].columns), encoding="utf-8")
    print(f"{RERUN} is not set: {output} is the sample submission. The hidden rows are predicted in the rerun.")


class Kernel:
    """Predicts the rows of a competition with the runs of a bundle.

    Args:
        bundle: The bundle.
        options: Where the data is, and how long it may take.
        started: Start of the notebook, in seconds since 1970.
    """

    def __init__(self, bundle: Bundle, options: KernelOptions, started: float) -> None:
        self.bundle, self.options, self.started = bundle, options, started
        is_cuda = torch.cuda.is_available() and options.device != "cpu"
        self.devices = torch.cuda.device_count() if is_cuda else 1
        self.device = "cuda" if is_cuda else options.device

    def predictions(self) -> Predictions | None:
        """Predicts with every run in turn; None if the last one's are in its folder.

        Raises:
            InputError: The runs predict different outputs.
        """
        whole = {name: self._whole(name) for name in self.bundle.runs if not self.bundle.run(name).is_ensemble}
        chosen = self._within_budget(whole)
        for name in self.bundle.runs:
            run = self.bundle.run(name)
            print(f"\n{name}: ", flush=True)
            if run.is_ensemble:
                predict(run, PredictOptions(root=self.options.root, allow_code=self._modules))
            else:
                predict(run, self._predict_options(name, chosen[name]))
        return self._mean() if len(self.bundle.submits) > 1 else None

    @property
    def _modules(self) -> list[str] | None:
        return self.bundle.modules or None

    def _predict_options(self, name: str, work: Work, test: str | None = None) -> PredictOptions:
        run = self.bundle.run(name)
        given: dict[str, Any] = {"test": test} if test else {}
        whole = self._whole(name)
        if work.folds < whole.folds or self.bundle.folds:
            given["folds"] = list(run.finished_folds(self.bundle.folds)[: work.folds])
        if work.views < whole.views or self.bundle.views:
            given["views"] = self._views(name)[: work.views]
        devices = {"device": self.device, "devices": self.devices}
        return PredictOptions(root=self.options.root, allow_code=self._modules, **devices, **given)  # type: ignore[arg-type]

    def _views(self, name: str) -> list[str]:
        """Names of the views of the config; one for all where some have arguments, which an option cannot give."""
        views: list[Any] = self.bundle.views or self.bundle.run(name).read_config()["predict"]["views"]
        return views if all(isinstance(view, str) for view in views) else ["those of the config"]

    def _whole(self, name: str) -> Work:
        return Work(len(self.bundle.run(name).finished_folds(self.bundle.folds)), len(self._views(name)))

    def _within_budget(self, whole: dict[str, Work]) -> dict[str, Work]:
        """The work of each run that fits into the time budget."""
        if self.options.max_hours is None:
            return whole
        rows = {name: self._rows(name) for name in whole}
        if all(len(frame) <= FEW for frame in rows.values()):
            return whole
        end = self.started + 3600 * self.options.max_hours
        return fitting(whole, lambda: end - time.time(), lambda name, work: self._seconds(name, work, rows[name]))

    def _rows(self, name: str) -> pd.DataFrame:
        """The rows to predict, as text."""
        experiment = Experiment.of_run(self.bundle.run(name), "predict", self._modules)
        data = experiment.datamodule(root=self.options.root)
        data.schema = Schema.from_dict(self.bundle.run(name).read_schema())
        data.setup("predict")
        id = data.settings.columns.id_of(data.settings.id, is_sample=False)[0]  # they may be the sample submission's
        return data.test_table.frame(range(len(data.test_table))).rename(columns={data.test_table.id_column: id})

    def _seconds(self, name: str, work: Work, rows: pd.DataFrame) -> float:
        """Seconds for all rows, by the difference of two predictions of a few."""
        took = []
        with tempfile.TemporaryDirectory() as folder:
            for count in TIMED:
                path = Path(folder) / "rows.csv"
                rows.iloc[: count * self.devices].to_csv(path, index=False)
                begin = time.perf_counter()
                predict(self.bundle.run(name), self._predict_options(name, work, str(path)), writes=False)
                took.append(time.perf_counter() - begin)
        per_row = max(0.0, took[1] - took[0]) / ((TIMED[1] - TIMED[0]) * self.devices)
        total = took[0] + per_row * len(rows)
        print(f"{name}: {work}: {number_of(len(rows), 'row')} will take about {format_seconds(total)}", flush=True)
        return total

    def _mean(self) -> Predictions:
        """The mean of the predictions of several runs, in the outputs of the first.

        Raises:
            InputError: They have different outputs or ids.
        """
        first = self.bundle.run(self.bundle.submits[0])
        schema, tables = Schema.from_dict(first.read_schema()), []
        for name in self.bundle.submits:
            path, own = self.bundle.run(name).test_predictions, self.bundle.run(name).read_schema()["outputs"]
            tables.append(selected(Predictions.read(path, len(own)), schema, path))
            check_range(tables[-1], schema, path)
        joined = [table.join(tables[0].ids, name) for table, name in zip(tables, self.bundle.submits, strict=True)]
        mean = np.mean([table.values.astype(np.float64) for table in joined], axis=0)
        print(f"\nmean of {listed(self.bundle.submits)}", flush=True)
        return Predictions(tables[0].ids, mean, schema.outputs)


def guarded(work: Callable[[], object]) -> int:
    """The exit code of some work; errors for the user are printed without a traceback."""
    try:
        work()
    except (InputError, RunError) as error:
        print("\n".join(visible(line) for line in f"swinft: {error}".split("\n")), file=sys.stderr, flush=True)
        return 2 if isinstance(error, InputError) else error.code
    return 0


def main(argv: list[str]) -> int:
    """`python -m swinft.kaggle.bundle.kernel FOLDER --root kaggle://SLUG`."""
    return guarded(lambda: call(run_kernel, "bundle", argv, KernelOptions))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
