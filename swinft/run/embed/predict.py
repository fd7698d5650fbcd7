"""Predicts rows with models that were fitted on embeddings: each fold's on those of its network, then the mean."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from swinft.data.datamodule import CSVDataModule
from swinft.data.schema import Schema
from swinft.errors import InputError, listed
from swinft.inference.predictions import Predictions
from swinft.inference.provenance import Provenance
from swinft.run.config.parser import options_from
from swinft.run.embed.files import is_same_source, read_about, read_table, rounded
from swinft.run.embed.inputs import Metadata
from swinft.run.embed.learner import Learner
from swinft.run.embed.make import TEST, data_to_predict, embed_test, path_of, state_of
from swinft.run.embed.makers import Maker
from swinft.run.embed.methods import MODELS
from swinft.run.embed.options import EmbedOptions
from swinft.run.ensemble.predict import check_taken, placed, predict_by
from swinft.run.layout import Run
from swinft.run.lock import hold_if_writable
from swinft.run.prediction.complete import complete
from swinft.run.prediction.options import PredictOptions
from swinft.run.provenance import remake_command
from swinft.store import verify

TAKEN = ("root", "test", "batch_size", "num_workers", "device", "precision", "output", "allow_code")  # options that act
Embedded = dict[str, tuple[NDArray[np.int64], NDArray[np.float32]]]


def model_file(run: Run, key: str) -> Path:
    """What a model has learned."""
    return run.root / f"model_{key}.safetensors"


def predict_member(run: Run, options: PredictOptions, writes: bool = True) -> Predictions:
    """Predicts rows with what was fitted on embeddings, and prints a summary.

    Args:
        run: Its folder.
        options: Views and folds are those of the fit.
        writes: Whether to write the predictions, to `options.output` or its test_predictions.csv.

    Returns:
        The predictions, in the order of the table, with their provenance.

    Raises:
        InputError: A network has changed since the fit, the rows are wrong, or an option does not act.
    """
    check_taken(options, TAKEN, f"{run.root} predicts with the views and folds of its fit: remove it.")

    def made() -> Predictions:
        maker = maker_of(run, options)
        with hold_if_writable(maker.run.lock):
            found = predicted(run, maker, data_to_predict(maker, options.test))
        return replace(found, provenance=_provenance(run, maker))

    return predict_by(made, run, options, writes)


def maker_of(run: Run, options: PredictOptions) -> Maker:
    """What makes the embeddings that models were fitted on.

    Raises:
        InputError: The run or a network has changed since, or is not here.
    """
    recipe = run.read_ensemble()
    (spec,) = [placed(member, run) for member in recipe["members"]]
    assert spec.run is not None
    parent, fit = Run.open(spec.run), recipe["embedding"]
    given = {**fit["options"], **{name: getattr(options, name) for name in ("root", "batch_size", "num_workers")}}
    given |= {"device": options.device, "allow_code": options.allow_code}
    given |= {"precision": options.precision} if options.precision != "auto" else {}
    maker = Maker.of(parent, options_from(EmbedOptions, given))
    changed = [name for name, sha in fit["weights"].items() if maker.weights.get(name) != sha]
    if changed:
        raise InputError(
            f"{parent.root}: {listed(changed)} {'have' if len(changed) > 1 else 'has'} other weights than when "
            f"{run.root} was fitted on the embeddings. Run `{remake_command(run)}`."
        )
    return maker


def predicted(run: Run, maker: Maker, data: CSVDataModule) -> Predictions:
    """The mean of what the models of all folds predict, in the order of the rows to predict."""
    recipe, schema = run.read_ensemble(), Schema.from_dict(run.read_schema())
    metadata = Metadata(schema.num_features, schema.category_sizes) if recipe["has_features"] else None
    embedded, features = _embedded(maker, data), data.splits.test.features
    numbers, parts = next(iter(embedded.values()))[0], []
    for each in recipe["embedding"]["models"]:
        model = options_from(MODELS[each["model"]], each["arguments"])
        learner = Learner(model, schema, recipe["embedding"]["fits_grades"], metadata)
        rows, values = embedded[each["network"]]
        assert np.array_equal(rows, numbers)
        learned = load(verify(model_file(run, each["key"])).read_bytes())
        own = None if features is None else features[rows]
        parts.append(learner.predict(learned, rounded(values, each["dtype"]), own))
    mean: NDArray[np.float32] = np.stack(parts).astype(np.float64).mean(0).astype(np.float32)
    return complete(numbers, mean, data, range(len(data.test_table)))


def _embedded(maker: Maker, data: CSVDataModule) -> Embedded:
    """The embeddings of the rows to predict by network: those that are there already, and others, which are made."""
    state, found = state_of(data), Embedded()
    row_of = {id: row for row, id in enumerate(data.test_table.ids)}
    for name in maker.weights:
        path, wanted = path_of(maker, name, TEST), {**maker.made_with(name), "rows": TEST, "of_rows": state}
        if is_same_source(read_about(path), wanted):
            table = read_table(path)
            found[name] = np.array([row_of[id] for id in table.ids], dtype=np.int64), table.values
    if waiting := [name for name in maker.weights if name not in found]:
        found |= embed_test(maker, waiting, data)
    return found


def _provenance(run: Run, maker: Maker) -> Provenance:
    recipe: dict[str, Any] = run.read_ensemble()
    files = {name: sha for member in recipe["members"] for name, sha in member["files"].items()}
    folds: list[Any] = run.planned_folds()
    return Provenance(folds, folds, [], "embeddings", maker.precision, "", files, recipe["described"])
