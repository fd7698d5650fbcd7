"""Loaded networks of an ensemble's members, which predict rows in this process, again and again."""

from pathlib import Path

import numpy as np
import pandas as pd

from swinft.errors import InputError, command, listed
from swinft.inference.predictions import Predictions
from swinft.run.ensemble.members import check_range, selected
from swinft.run.ensemble.methods import Rank
from swinft.run.ensemble.predict import by_method, placed
from swinft.run.experiment import Experiment
from swinft.run.layout import Run
from swinft.run.prediction.loaded import RowReader, RunPredictor
from swinft.run.prediction.options import PredictOptions


def make_predictor(run: Run, options: PredictOptions, on_bad_image: str | None) -> "RunPredictor | EnsemblePredictor":
    """The predictor of a run or of an ensemble; arguments and errors as of `RunPredictor`.

    Raises:
        InputError: The run is fitted on embeddings, which predicts whole tables only.
    """
    if run.is_embedding:
        raise InputError(
            f"{run.root} is fitted on embeddings, and predicts whole tables only: `{command('predict', run.root)}`, or "
            f"`run.predict(rows)`."
        )
    return (EnsemblePredictor if run.is_ensemble else RunPredictor)(run, options, on_bad_image)


class EnsemblePredictor:
    """The networks of all members of an ensemble on one device, and its method; otherwise as `RunPredictor`.

    Args:
        run: The ensemble.
        options: How each member predicts.
        on_bad_image: In the place of the config's `data.loading.on_bad_image`; None for that.

    Raises:
        InputError: A member is a table of another program, or the method needs all rows at once.
    """

    def __init__(self, run: Run, options: PredictOptions, on_bad_image: str | None = None) -> None:
        self._run, recipe = run, run.read_ensemble()
        members = {spec.name: spec.run for spec in (placed(member, run) for member in recipe["members"])}
        if tables := [name for name, folder in members.items() if folder is None]:
            raise InputError(
                f"{run.root}: {listed(tables)}: tables of another program, which predict no other rows. Make an "
                f"ensemble of runs alone."
            )
        if recipe["method"] == Rank.name:
            raise InputError(
                f"{run.root} has the method {Rank.name}, the ranks among all rows that are predicted together: it "
                f"cannot predict them one by one. Make an ensemble by another method."
            )
        experiment = Experiment.of_run(run, "predict", options.allow_code)
        self._reader = RowReader(run, experiment, options, 1, on_bad_image)
        self._has_features = recipe["has_features"]
        folders = [Path(folder) for folder in members.values() if folder is not None]
        self._members = [(folder, make_predictor(Run.open(folder), options, on_bad_image)) for folder in folders]

    def __repr__(self) -> str:
        return f"predictor of {self._run.root}: {self._run.read_ensemble()['described']}"

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs."""
        return list(self._reader.schema.outputs)

    def predict(self, rows: pd.DataFrame, *, root: str | Path | None = None, images: str | None = None) -> Predictions:
        """As `RunPredictor.predict`, by the ensemble's method on what each member predicts."""
        schema, tests = self._reader.schema, []
        for folder, member in self._members:
            tests.append(selected(member.predict(rows, root=root, images=images), schema, folder))
            check_range(tests[-1], schema, folder)
        found = self._reader.read(rows, root, images).splits.test.features if self._has_features else None
        features = None if found is None else found.astype(np.float64)
        return by_method(self._run, tests, schema, features, {})
