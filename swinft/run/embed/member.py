"""Writes what is fitted on embeddings as a folder like that of an ensemble, which other commands take like a run."""

import json
import os
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from swinft.data.datamodule import CSVDataModule
from swinft.data.splits import OK
from swinft.errors import InputError, command, number_of
from swinft.inference.predictions import Predictions
from swinft.model.metrics import Metric, traits_of
from swinft.model.scoring import chosen_metrics
from swinft.printing import print_line
from swinft.run.config.parser import option_words
from swinft.run.embed.files import MAKER
from swinft.run.embed.fit import Fitting, FoldModel, searched_lines
from swinft.run.embed.make import TEST, TRAIN, make_embeddings, names_test, training_data
from swinft.run.embed.makers import Maker
from swinft.run.embed.options import DECIDING, EmbedOptions, FitOptions
from swinft.run.embed.predict import model_file, predict_member
from swinft.run.embed.search import Wanted, read_fit
from swinft.run.embed.table import comparison_lines
from swinft.run.ensemble.folder import check_name_is_free, write_files
from swinft.run.ensemble.leaks import notes_on_members
from swinft.run.ensemble.members import Base, Member
from swinft.run.ensemble.nested import Candidate, correlations, differences
from swinft.run.ensemble.problem import make_problem
from swinft.run.ensemble.recipe import MemberSpec
from swinft.run.layout import Run
from swinft.run.lock import hold, hold_if_writable
from swinft.run.prediction.options import PredictOptions
from swinft.run.report.page import write_report
from swinft.run.scoring import scores_by_fold
from swinft.run.submission.fitting import scores_with_rules
from swinft.store import commit, is_committed
from swinft.whole_folders import new_folder


@dataclass(frozen=True)
class Made:
    """What is fitted, scored and not yet written.

    Args:
        options: Where it is written, and how it was fitted.
        wanted: The models that `--fit` names.
        maker: What made the embeddings.
        data: The training rows.
        metrics: The run's metrics, the first one first.
        models: The model of each fold and network.
        oof: Out-of-fold predictions of all training rows.
    """

    options: FitOptions
    wanted: Wanted
    maker: Maker
    data: CSVDataModule
    metrics: list[Metric]
    models: list[FoldModel]
    oof: Predictions

    @property
    def described(self) -> str:
        """What it is, for people."""
        metadata = " and metadata" if self.options.metadata else ""
        return f"{self.wanted.name} on embeddings{metadata}: {self.maker.describe()}"

    @property
    def rows(self) -> NDArray[np.int64]:
        """Numbers of the training rows that are predicted and scored."""
        return np.flatnonzero(np.isfinite(self.oof.values).all(1) & self.data.is_scored)


def make_member(parent: Run, embed: EmbedOptions, options: FitOptions) -> Run:
    """Makes the embeddings that are missing, fits a model on those of each fold, and writes its folder.

    Raises:
        InputError: The run is not finished, its folder exists, or the model does not fit.
    """
    if embed.rows == TEST:
        raise InputError(f"--rows {TEST}: --fit needs the embeddings of the training rows: remove --rows, or --fit.")
    wanted = read_fit(options.fit)
    run = Run.at(parent.root.parent / str(options.name))
    with hold(run.lock, root=run.root):
        check_name_is_free(run, options.overwrite)
        _check_overwritten(run)
        with hold_if_writable(parent.lock):
            made = fitted(make_embeddings(parent, embed), wanted, options)
        comparison = compared(made)
        with new_folder(run.root, "what is fitted") as part:
            write(Run(part), run, made, comparison)
        for line in comparison_lines(comparison):
            print_line(line)
        _report(run, made.data, made.metrics)
    print_line(f"{number_of(len(made.rows), 'out-of-fold prediction')}: {run.oof}")
    if names_test(made.maker):
        if embed.rows == TRAIN:
            print_line(f"no predictions yet (--rows {TRAIN}): `{command('predict', run.root)}`")
        else:
            predict_member(run, _prediction(embed))
    return run


def fitted(maker: Maker, wanted: Wanted, options: FitOptions) -> Made:
    """Fits the model of every fold."""
    data = training_data(maker)
    given = maker.experiment.section("model")["metrics"]
    if not given:
        scores = maker.run.scores
        known = list(maker.run.read_scores()["pooled"]) if is_committed(scores) else None
        given = known or maker.experiment.task(data.schema, loads_weights=False).scored_by
    metrics = chosen_metrics(given, data.schema.kind)
    fitting = Fitting.of(maker, data, metrics[0], wanted, options.metadata, options.seed)
    models, values = fitting.all_folds()
    status = data.splits.status if data.may_skip else None
    oof = Predictions(data.train_table.ids, values, data.schema.outputs, data.fold_of_row, status)
    return Made(options, wanted, maker, data, metrics, models, oof)


def compared(made: Made) -> dict[str, Any]:
    """The score beside that of the run, and how the two predictions correlate, as plain values."""
    parent, metric, rows = made.maker.run, made.metrics[0], made.rows
    found: dict[str, Any] = {
        "name": made.options.name,
        "described": made.described,
        "metric": metric.name,
        "higher_is_better": metric.higher_is_better,
        "rows": len(rows),
        "score": None,
        "run": parent.root.name,
        "run_score": None,
        "has_seen_labels": made.maker.networks is not None,
        "searched": searched_lines(made.models),
        "warnings": [],
        "bootstrap": made.options.bootstrap,
    }
    values = made.oof.values[rows]
    if not (is_committed(parent.oof) and is_committed(parent.scores)):
        scores = scores_by_fold(made.metrics, made.data, rows, values)
        return {**found, "score": scores["pooled"][metric.name]}
    theirs = Predictions.read(parent.oof, len(made.oof.outputs)).select(made.oof.outputs)
    theirs = theirs.join(made.oof.ids, str(parent.oof))
    base = Base(parent, made.maker.experiment, made.data, list(made.metrics))
    member = Member(MemberSpec(parent.root.name, parent.root), theirs, {})
    if made.maker.networks is not None:
        found["warnings"] = notes_on_members([member], base, made.maker.options.allow_code)
    problem = make_problem(base, [member], rows, metric)
    both = [Candidate(str(made.options.name), values, problem.gain(values.astype(np.float64)))]
    both += [Candidate(parent.root.name, theirs.values[rows], problem.gain(problem.members[0]))]
    interval = differences(problem, both, both[1], made.options.bootstrap, made.options.seed)[0]
    pair = np.stack([each.values for each in both]).astype(np.float64)
    return found | {
        "score": problem.score_of(both[0].gain),
        "run_score": problem.score_of(both[1].gain),
        "gain": both[0].gain - both[1].gain,
        "interval": interval,
        "correlation": float(correlations(pair)[0, 1]),
    }


def write(part: Run, run: Run, made: Made, comparison: dict[str, Any]) -> None:
    """Writes the files, except the report.

    Args:
        part: The folder to write to.
        run: Its final place, to which the paths of the run are relative.
        made: What is written.
        comparison: As of `compared`.
    """
    parent, maker, data = made.maker.run, made.maker, made.data
    for model in made.models:
        arrays = {name: np.ascontiguousarray(values) for name, values in model.learned.items()}
        commit(model_file(part, model.key), save(arrays), MAKER)
    here = run.root.resolve()
    weights = {} if maker.networks is None else {name: parent.root / name for name in maker.weights}
    files = {
        os.path.relpath((folder / "weights.safetensors").resolve(), here): maker.weights[name]
        for name, folder in weights.items()
    }
    words = [*maker.command_words, "--fit", _given(made.wanted), "--name", str(made.options.name), "--overwrite"]
    words += option_words(made.options, ("metadata", "bootstrap", "seed"))
    learned = {
        "method": made.wanted.name,
        "described": made.described,
        "first_metric": asdict(traits_of(made.metrics[0])),
        "has_features": made.options.metadata,
        "members": [{"name": parent.root.name, "run": os.path.relpath(parent.root.resolve(), here), "files": files}],
        "remake": words,
        "embedding": {
            "options": {name: getattr(maker.options, name) for name in DECIDING},
            "weights": maker.weights,
            "fits_grades": made.models[0].learner.fits_grades,
            "models": [_described(model) for model in made.models],
        },
    }
    status = data.splits.status
    scores = {
        **scores_by_fold(made.metrics, data, made.rows, made.oof.values[made.rows]),
        "not_scored": dict(Counter(word for word in status if word != OK)),
        "checkpoint": made.wanted.name,
        "views": [],
        "embedding": comparison,
    } | scores_with_rules(maker.experiment, made.oof, data, list(made.metrics))
    recipe = {"name": made.options.name, "run": parent.root.name, **asdict(made.options), "fit": made.wanted.given}
    recipe |= {name: getattr(maker.options, name) for name in DECIDING}
    del recipe["overwrite"]
    write_files(part, parent, recipe, learned, made.oof, scores, MAKER)


def _described(model: FoldModel) -> dict[str, Any]:
    """A model as plain values, from which it is read again with its file."""
    return {
        "key": model.key,
        "network": model.network,
        "fold": model.fold,
        "dtype": model.dtype,
        "model": model.learner.model.name,
        "arguments": model.learner.model.arguments,
        "tried": model.tried,
    }


def _given(wanted: Wanted) -> str:
    arguments = wanted.given[wanted.name]
    return json.dumps(wanted.given) if arguments else wanted.name


def _check_overwritten(run: Run) -> None:
    """Refuses to delete an ensemble of runs.

    Raises:
        InputError: The folder is one.
    """
    if run.root.exists() and not run.is_embedding:
        raise InputError(f"{run.root} is an ensemble of runs, which `{MAKER}` does not delete: give another --name.")


def _prediction(embed: EmbedOptions) -> PredictOptions:
    """How the rows to predict are predicted: as the embeddings were made."""
    shared = ("root", "batch_size", "num_workers", "device", "allow_code")
    return PredictOptions(**{name: getattr(embed, name) for name in shared})


def _report(run: Run, data: CSVDataModule, metrics: list[Metric]) -> None:
    """Writes the report; what fails is printed, as the folder is complete without it."""
    try:
        write_report(run, data, metrics)
    except Exception as error:
        print(
            f"the report could not be written: {error!r}. `{command('report', run.root)}` tries again.", file=sys.stderr
        )
