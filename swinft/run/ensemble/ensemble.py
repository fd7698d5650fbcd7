"""Makes an ensemble: reads its members, scores the methods, and writes a folder like that of a run.

Shapes: M members, N rows, K outputs.
"""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.splits import OK
from swinft.errors import InputError, command, listed, number_of
from swinft.inference.predictions import Predictions
from swinft.model.metrics import Metric, traits_of
from swinft.model.scoring import chosen_metrics
from swinft.printing import print_line
from swinft.run.ensemble.boosting import Boosting
from swinft.run.ensemble.compare import Comparison, compare
from swinft.run.ensemble.folder import check_name_is_free, write_files
from swinft.run.ensemble.leaks import notes_on_members
from swinft.run.ensemble.members import Base, Member, common_rows, lacks_test, read_oof, refuse_maps
from swinft.run.ensemble.nested import Problem
from swinft.run.ensemble.predict import placed, predict_ensemble, tests_of
from swinft.run.ensemble.problem import make_problem as make_problem
from swinft.run.ensemble.recipe import Recipe
from swinft.run.ensemble.table import table_lines
from swinft.run.layout import Run
from swinft.run.lock import hold
from swinft.run.prediction.options import PredictOptions
from swinft.run.report.page import write_report
from swinft.run.scoring import scores_by_fold
from swinft.run.submission.fitting import scores_with_rules
from swinft.whole_folders import new_folder

NOT_COMMON = "not predicted by every member"


@dataclass(frozen=True)
class Made:
    """An ensemble that is scored and not yet written.

    Args:
        recipe: The recipe.
        base: The base.
        members: The members.
        rows: Numbers of the training rows that all of them predicted.
        problem: These rows.
        metric: The metric.
        comparison: The methods' scores, and the chosen one.
    """

    recipe: Recipe
    base: Base
    members: list[Member]
    rows: NDArray[np.int64]
    problem: Problem
    metric: Metric
    comparison: Comparison


def make_ensemble(recipe: Recipe) -> Run:
    """Makes an ensemble, and prints its table.

    Args:
        recipe: What to make.

    Returns:
        Its folder.

    Raises:
        InputError: Members are missing, unfinished, or do not fit together; the folder exists; or the method cannot
            combine them.
    """
    run = Run.at(recipe.folder)
    with hold(run.lock, root=run.root):
        check_name_is_free(run, recipe.overwrite)
        _check_not_made_of(run, recipe)
        base = Base.open(_base_folder(recipe), recipe.allow_code)
        refuse_maps(base.run, base.data.schema)
        members = [read_oof(spec, base, recipe.allow_code) for spec in recipe.specs]
        lacking = [spec for spec in recipe.specs if lacks_test(spec)]
        if not lacking:  # what is wrong with them is said before anything is fitted
            tests_of(recipe.specs, base.data.schema, base.data.settings.id)
        rows = common_rows(members, base, recipe.common_rows)
        (metric,) = chosen_metrics(base.metrics[:1], base.data.schema.kind)
        problem = make_problem(base, members, rows, metric)
        print_line(f"{number_of(len(members), 'member')}, {number_of(len(rows), 'row')} that all of them predicted")
        notes = notes_on_members(members, base, recipe.allow_code)
        comparison = compare(problem, recipe, metric.name)
        comparison.table["warnings"] += notes
        with new_folder(run.root, "the ensemble") as part:
            write(Run(part), run, Made(recipe, base, members, rows, problem, metric, comparison))
        for line in table_lines(comparison.table):
            print_line(line)
        _report(run, base)
    print_line(f"{number_of(len(rows), 'out-of-fold prediction')}: {run.oof}")
    if lacking:
        print_line(
            f"no test predictions yet of {listed(spec.name for spec in lacking)}: make them, then run "
            f"`{command('predict', run.root)}`"
        )
    else:
        predict_ensemble(run, PredictOptions(allow_code=recipe.allow_code))
    return run


def _base_folder(recipe: Recipe) -> Path:
    """The run with table, folds and metric.

    Raises:
        InputError: No member is a run, and none is given.
    """
    first = next((spec.run for spec in recipe.specs if spec.run), None)
    if recipe.base is None and first is None:
        raise InputError(
            "no member is a run: add --base runs/NAME, a finished run with the training table, the folds and the "
            "metric."
        )
    return first if recipe.base is None and first else Path(str(recipe.base))


def _check_not_made_of(run: Run, recipe: Recipe) -> None:
    """Refuses to overwrite an ensemble that a member is, or is made of.

    Raises:
        InputError: A member is.
    """
    for spec in recipe.specs:
        if spec.run is not None and run.root.resolve() in _made_of(Run.open(spec.run)):
            raise InputError(
                f"{spec.run} is, or is made of, {run.root}, which --overwrite would delete: give the new ensemble "
                f"another --name."
            )


def _made_of(run: Run) -> Iterator[Path]:
    """The folders of a run, of its members, and of theirs, as far as these are here."""
    yield run.root.resolve()
    members = run.read_ensemble()["members"] if run.is_ensemble else []
    for folder in (placed(member, run).run for member in members):
        if folder is not None and folder.is_dir():
            yield from _made_of(Run.at(folder))


def write(part: Run, run: Run, made: Made) -> None:
    """Writes an ensemble's files, except the report.

    Args:
        part: The folder to write to.
        run: Its final place, to which the paths of the members are relative.
        made: What is written.
    """
    data, chosen, members = made.base.data, made.comparison.chosen, made.members
    values = np.full((len(data.train_table.ids), len(data.schema.outputs)), np.nan, dtype=np.float32)
    values[made.rows] = chosen.values
    is_common = np.isin(np.arange(len(values)), made.rows)
    words = zip(data.splits.status, is_common.tolist(), strict=True)
    status = [NOT_COMMON if word == OK and not common else word for word, common in words]
    has_status = data.may_skip or not is_common.all()
    ids, outputs = data.train_table.ids, data.schema.outputs
    oof = Predictions(ids, values, outputs, data.fold_of_row, status if has_status else None)
    names = listed(member.spec.name for member in members)
    learned = {
        "method": chosen.name,
        "described": f"{chosen.name} of {number_of(len(members), 'member')}: {names}",
        "first_metric": asdict(traits_of(made.metric)),
        "has_features": chosen.name == Boosting.name and made.problem.features is not None,
        "members": [_placed(member, run) for member in members],
        "fitted": chosen.fitted,
    }
    scores = _scores(made, status) | scores_with_rules(made.base.experiment, oof, data, made.base.metrics)
    write_files(part, made.base.run, made.recipe.to_plain(), learned, oof, scores)


def _placed(member: Member, run: Run) -> dict[str, Any]:
    """A member with paths relative to the ensemble, so that both can be moved together.

    Of a folder with rounds it is the round that is the last one now: the weights are those of its predictions.
    """
    spec, here = member.spec, run.root.resolve()
    paths = {"run": spec.run and Run.open(spec.run).root, "oof": spec.oof, "test": spec.test}
    found = {key: os.path.relpath(path.resolve(), here) for key, path in paths.items() if path}
    files = {os.path.relpath(Path(name).resolve(), here): sha for name, sha in member.files.items()}
    return {"name": spec.name, **found, "files": files}


def _scores(made: Made, status: list[str]) -> dict[str, Any]:
    """The content of scores.json: as that of a run, with the table of the ensemble."""
    chosen = made.comparison.chosen
    return {
        **scores_by_fold(made.base.metrics, made.base.data, made.rows, chosen.values),
        "not_scored": dict(Counter(word for word in status if word != OK)),
        "checkpoint": chosen.name,
        "views": [],
        "ensemble": made.comparison.table,
    }


def _report(run: Run, base: Base) -> None:
    """Writes the report; what fails is printed, as the ensemble is complete without it."""
    try:
        write_report(run, base.data, base.metrics)
    except Exception as error:
        print(
            f"the report could not be written: {error!r}. `{command('report', run.root)}` tries again.", file=sys.stderr
        )
