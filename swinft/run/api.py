"""A run in Python: `swinft.fit` and `swinft.open_run`, and the `Run` that they return."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import pandas as pd
import torch

from swinft.data.columns import Columns
from swinft.data.roots import resolved_root
from swinft.data.row_images import row_images
from swinft.data.schema import Schema
from swinft.errors import InputError, command, listed
from swinft.inference.export import Form
from swinft.inference.foreign import read_foreign
from swinft.inference.predictions import ID, Predictions
from swinft.model.network import ImageModel
from swinft.run import layout
from swinft.run.config.parser import options_from
from swinft.run.ensemble.loaded import EnsemblePredictor, make_predictor
from swinft.run.experiment import Experiment
from swinft.run.export import ExportResult, export
from swinft.run.find.find import STEPS, Found, What, find_from_argv
from swinft.run.fit_command import fit_from_argv
from swinft.run.fold_files import FoldId
from swinft.run.prediction.loaded import RunPredictor, check_predictor_options
from swinft.run.prediction.options import PredictOptions
from swinft.run.prediction.predict import predict
from swinft.run.python_inputs import FRAME, frame_content, nested, plain, python_inputs, write_keys
from swinft.run.report.draw import draw
from swinft.run.submission.options import SubmitOptions
from swinft.run.submission.submit import Submission, print_upload, submit
from swinft.store import is_committed, verify
from swinft.system.process_state import restored_process_state


def fit(
    config: str | Path | Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    resume: bool | str | Path = False,
    overwrite: bool = False,
    accept: bool = False,
    devices_per_fold: int | None = None,
    on: str = "local",
    allow_code: str | Sequence[str] = (),
    **keys: Any,
) -> "Run | None":
    """Trains every fold of a config, each in a separate process; does and prints the same as `swinft fit`.

    Args:
        config: A YAML file, or its content as a dictionary; not needed if `resume` names a run.
        overrides: Keys that replace those of the config: `{"trainer.max_epochs": 3}`.
        resume: True to resume the config's run, or the folder of the run to resume.
        overwrite: Delete the run's folder first.
        accept: With `resume`: accept files whose commit record is missing or damaged as they are.
        devices_per_fold: Number of GPUs for each fold.
        on: Where the folds run: `local`, `ray`, `HOST:PORT` or `ray://HOST:PORT` of a Ray cluster.
        allow_code: Packages or modules whose classes the config may name, besides the trusted ones.
        keys: More overrides: `name="second"`, `trainer={"max_epochs": 3}`.

    Returns:
        The run; None for `trainer.fast_dev_run`, which tries a few batches and saves nothing.

    Raises:
        InputError: Config, tables or images are wrong, or the run's folder already exists.
        RunError: A fold has failed; its output says why, and `resume` continues the run.
    """
    with python_inputs() as folder:
        words: list[str] = []
        if isinstance(resume, str | PurePath):
            words += [f"--resume={resume}"]
            config = Path(resume) / "config.yaml" if config is None else config
        words += config_words(folder, config, {**(overrides or {}), **keys}, allow_code)
        flags = {"resume": resume is True, "overwrite": overwrite, "accept": accept}
        words += [f"--on={on}", *(f"--{name}" for name, is_set in flags.items() if is_set)]
        words += [] if devices_per_fold is None else [f"--devices-per-fold={devices_per_fold}"]
        run = fit_from_argv(words)
    return None if run is None else Run(run.root, allow_code)


def find(
    config: str | Path | Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    *,
    what: Sequence[What] | None = None,
    steps: int = STEPS,
    allow_code: str | Sequence[str] = (),
    **keys: Any,
) -> Found:
    """Finds a learning rate and a batch size for a config; does and prints the same as `swinft find`.

    Args:
        config: A YAML file, or its content as a dictionary.
        overrides: Keys that replace those of the config.
        what: `lr`, `batch_size` or both; by default both, on a CPU the learning rate alone.
        steps: Optimiser steps of the range test; a verification takes half as many.
        allow_code: Packages or modules whose classes the config may name, besides the trusted ones.
        keys: More overrides.

    Returns:
        The keys to set, `swinft.fit(config, found.keys)`, and what was measured.

    Raises:
        InputError: Config, tables or images are wrong, or nothing can be found.
        RunError: The process that measures has failed; its output says why.
    """
    with python_inputs() as folder:
        words = config_words(folder, config, {**(overrides or {}), **keys}, allow_code)
        return find_from_argv([*words, *([f"--what=[{','.join(what)}]"] if what else []), f"--steps={steps}"])


def config_words(
    folder: Path, config: str | Path | Mapping[str, Any] | None, changes: Mapping[str, Any], allow_code: Any
) -> list[str]:
    """The words of a command line for a config with changes; dictionaries become files in a folder."""
    if isinstance(config, Mapping):
        config = write_keys(folder / "config", nested(config))
    words = [f"--config={config}"] if config is not None else []
    words += [f"--config={write_keys(folder / 'overrides', nested(changes))}"] if changes else []
    return words + ([f"--allow-code={','.join(_names(allow_code))}"] if allow_code else [])


def open_run(folder: str | Path, allow_code: str | Sequence[str] = ()) -> "Run":
    """Opens the folder of a run.

    Args:
        folder: The run's folder.
        allow_code: Packages or modules whose classes the run's config may name, besides the trusted ones.

    Raises:
        InputError: The folder does not exist, or is not a run.
    """
    return Run(folder, allow_code)


class Run:
    """One experiment on disk. `swinft.fit` and `swinft.open_run` return it.

    Args:
        folder: The run's folder.
        allow_code: Packages or modules whose classes the run's config may name, besides the trusted ones.

    Raises:
        InputError: The folder does not exist, or is not a run.
    """

    def __init__(self, folder: str | Path, allow_code: str | Sequence[str] = ()) -> None:
        self._files = layout.Run.at(layout.Run.open(folder).root.absolute())  # the working folder may change
        self._allow_code = _names(allow_code)

    def __repr__(self) -> str:
        return f"swinft.open_run({str(self.folder)!r})"

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self._files.root

    @property
    def config(self) -> dict[str, Any]:
        """Every key that the run was started with."""
        return self._files.read_config()

    @property
    def folds(self) -> list[FoldId]:
        """The numbers of its folds."""
        return self._files.planned_folds()

    @property
    def scores(self) -> dict[str, Any]:
        """`pooled`: each metric over all out-of-fold rows; `folds`: each fold's; `spread`: their standard deviation.

        `with_rules`, if there are any: their `pooled` scores; of fitted rules also `fitted` and `in_sample`.
        """
        self._check_finished(self._files.scores)
        return self._files.read_scores()

    @property
    def oof(self) -> pd.DataFrame:
        """Out-of-fold predictions in the order of train.csv: `id`, a column per output, `fold`, and `status` if any."""
        self._check_finished(self._files.oof)
        return Predictions.read(self._files.oof, len(self._outputs)).to_frame()

    @property
    def errors(self) -> pd.DataFrame:
        """Id, fold, error, truth and out-of-fold prediction of every scored row, the largest error first."""
        self._check_finished(self._files.errors)
        text = pd.read_csv(verify(self._files.errors), dtype=str, keep_default_na=False)
        names = {ID, "true", "predicted", "is_suspicious", "near_duplicate"}
        numbers = {name: "float64" for name in text.columns if name not in names}
        return text.replace({name: {"": "nan"} for name in numbers}).astype({**numbers, "fold": "int64"})

    def network(self, fold: FoldId, device: str = "cpu") -> ImageModel:
        """The network of a finished fold, with verified weights, in evaluation mode.

        `net.predict(images, features)` takes RGB pixels (B, 3, H, W) in 0–255 at the run's `data.image_size`, as the
        datamodule's loaders yield them, and metadata if there is any. It returns predictions in the competition's
        units. Its attention is timm's own, so that it can be traced, exported and hooked. `net.backbone.model` is
        timm's model; `net.backbone.mean` and `std` normalise its pixels.

        Args:
            fold: Number of the fold; in a run with several seeds with its seed, like `0_seed_1`.
            device: Device of the network.

        Raises:
            InputError: There is no such fold, or it is not finished, or it was trained with several seeds.
            StoreError: The weights file has changed since the fold saved it.
        """
        with restored_process_state():
            experiment = Experiment.of_run(self._files, "predict", self._allow_code)
            found, schema = self._files.finished_folds([fold]), Schema.from_dict(self._files.read_schema())
            if len(found) > 1:
                raise InputError(f"fold {fold} was trained with several seeds: name one of {listed(map(str, found))}.")
            return experiment.network(schema, self._files.fold(found[0]).weights, torch.device(device), False)

    def predict(self, rows: pd.DataFrame | str | Path | None = None, **options: Any) -> Predictions:
        """Predicts rows with every fold and averages; does and prints the same as `swinft predict`.

        Args:
            rows: A DataFrame or a CSV with the columns of the run's test table: the id, the columns that the image path
                is made of, and metadata; ids as text (`pd.read_csv(path, dtype=str)`). None for the rows of the config:
                their predictions are written to the run's test_predictions.csv. Predictions of other rows are returned,
                and written only if `output` is given.
            options: `views`, `folds`, `root`, `batch_size`, `num_workers`, `device`, `devices`, `on`, `backend`,
                `compile`, `precision`, `output`: as those of `swinft predict`.

        Returns:
            Ids, values and outputs; `.to_frame()` converts them to a DataFrame.

        Raises:
            InputError: A fold is not finished, the rows are wrong, or an option is wrong.
        """
        if odd := sorted({"test", "part", "allow_code"} & set(options)):
            raise InputError(f"{listed(odd)}: not an option here. Rows are the first argument: run.predict(rows).")
        writes = rows is None or "output" in options
        with python_inputs() as folder:
            given = {"allow_code": self._allow_code or None, **options}
            if isinstance(rows, pd.DataFrame):
                given["test"] = self._rows_file(rows, folder / FRAME)
            elif rows is not None:
                given["test"] = rows
                writes = writes or self._is_own(Path(rows))
            return predict(self._files, options_from(PredictOptions, plain(given)), writes)

    def predictor(self, on_bad_image: str | None = None, **options: Any) -> RunPredictor | EnsemblePredictor:
        """Loads the networks once, to predict rows of DataFrames again and again, without files and processes.

        Args:
            on_bad_image: `error` or `skip`, in the place of the config's `data.loading.on_bad_image`.
            options: `views`, `folds`, `root`, `batch_size`, `num_workers` (0 by default), `device`, `backend`,
                `compile`, `precision`: as those of `swinft predict`; of an ensemble, for each of its members.

        Raises:
            InputError: A fold is not finished, or an option is wrong.
        """
        check_predictor_options(options)
        with python_inputs():
            given = options_from(PredictOptions, plain({"allow_code": self._allow_code or None, **options}))
            return make_predictor(self._files, given, on_bad_image)

    def submit(self, predictions: Predictions | pd.DataFrame | str | Path | None = None, **options: Any) -> Submission:
        """Writes a submission and checks it; does and prints the same as `swinft submit`.

        Args:
            predictions: The result of `predict`, or a DataFrame or CSV with ids and one column per output, such as a
                blend. None for the run's test_predictions.csv.
            options: `root`, `output`, `dry_run`, and the keys of the config's section `submission`.

        Returns:
            Its path, its text, and the plan by which it was made.

        Raises:
            InputError: There are no predictions yet, they do not fit the sample submission, or an option is wrong.
        """
        if "predictions" in options:
            raise InputError("predictions are the first argument: run.submit(predictions).")
        with python_inputs() as folder:
            given = dict(options)
            found = predictions if isinstance(predictions, Predictions) else None
            if isinstance(predictions, pd.DataFrame):
                found = self._predictions_of(predictions, folder / FRAME)
            elif found is None and predictions is not None:
                given["predictions"] = predictions
            made = submit(self._files, options_from(SubmitOptions, plain(given)), found)
            print_upload(self._files, made.path)
            return made

    def report(self, root: str | Path | None = None) -> Path:
        """Writes the run's report as one HTML file, and returns its path; `root`: the data's folder if it differs.

        Raises:
            InputError: Not every fold is finished, or train.csv is missing or has changed since the run's start.
        """
        with python_inputs():
            return draw(self._files, self._allow_code, None if root is None else str(root))

    def export(self, fold: FoldId, to: Form, output: str | Path | None = None) -> ExportResult:
        """Writes the weights of a fold in another format, after a comparison with torch; as `swinft.export`."""
        with python_inputs():
            return export(self.folder, fold, to, output, self._allow_code)

    @property
    def _outputs(self) -> list[str]:
        return list(self._files.read_schema()["outputs"])

    def _check_finished(self, path: Path) -> None:
        if not is_committed(path) and not path.is_file():
            raise InputError(
                f"{self.folder} has no {path.name} yet. Run `{command('fit', '--resume', self.folder)}` first, or "
                f"swinft.fit(resume={str(self.folder)!r})."
            )

    def _is_own(self, rows: Path) -> bool:
        """Whether a file is the test table of the config."""
        data = self.config["data"]
        named = data["test"] or data["sample_submission"]
        if not isinstance(named, str):
            return False
        try:
            return (Path(resolved_root(data["root"])) / named).resolve() == rows.resolve()
        except InputError:  # a mount that is not here
            return False

    def _rows_file(self, rows: pd.DataFrame, path: Path) -> Path:
        """Writes a DataFrame's rows as a CSV, which is then checked like any other.

        Raises:
            InputError: Ids in it are not text: `007` may have become 7 when it was read.
        """
        data = self.config["data"]
        columns = Columns(**data["columns"])
        names = [
            columns.test_id or data["id"],
            *row_images(columns.test_image or data["image"]).columns,
            *self._files.read_schema()["categories"],
        ]
        path.write_bytes(frame_content(rows, names, columns.encoding))
        return path

    def _predictions_of(self, frame: pd.DataFrame, path: Path) -> Predictions:
        """Predictions in a DataFrame, checked like those of an external CSV."""
        names = [name for name in (ID, self.config["data"]["id"]) if name in frame.columns]
        path.write_bytes(frame_content(frame, names, "utf-8"))
        return read_foreign(path, Schema.from_dict(self._files.read_schema()), names or [ID])[0]


def _names(allow_code: str | Sequence[str]) -> list[str]:
    return [allow_code] if isinstance(allow_code, str) else list(allow_code)
