"""An ensemble as a teacher: the weights of its members for each fold, fitted on the rows of the other folds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from swinft.errors import InputError, listed
from swinft.model.scoring import chosen_metrics
from swinft.run.ensemble.members import Base, Member, common_rows, read_oof
from swinft.run.ensemble.method import Weighted
from swinft.run.ensemble.methods import METHODS
from swinft.run.ensemble.predict import placed
from swinft.run.ensemble.problem import make_problem
from swinft.run.layout import Run

Shares = dict[int | None, list[float]]  # the weight of each member by the fold that is held out; None: of no fold


def blend_of(run: Run, key: str, allow_code: list[str] | None) -> tuple[list[str], Shares]:
    """The members of an ensemble, and what each counts.

    The weights in its folder were fitted on all rows. Those for the training that holds out a fold are fitted again
    without the rows of that fold, so that its targets have no part in what the training learns.

    Args:
        run: The ensemble.
        key: The setting that names it.
        allow_code: Packages or modules whose classes the members' configs may name, besides the trusted ones.

    Returns:
        The folders of the members, and their weights by the fold that is held out.

    Raises:
        InputError: A member is no run with networks, or has changed; or the method is no weighted mean.
    """
    recipe = run.read_ensemble()
    specs = [placed(member, run) for member in recipe["members"]]
    method, last = METHODS.get(str(recipe["method"])), (recipe["fitted"] or {}).get("weights")
    tables = [spec.name for spec in specs if spec.run is None or Run.at(Path(spec.run)).is_ensemble]
    if tables:
        raise InputError(
            f"{key} {run.root}: its members {listed(tables)} are tables or ensembles, which have no networks. Name an "
            f"ensemble of runs, or the runs themselves as a list."
        )
    if not isinstance(method, Weighted) or not _is_flat(last):
        weighted = [name for name, each in METHODS.items() if isinstance(each, Weighted)]
        raise InputError(
            f"{key} {run.root}: its method {recipe['method']} is not one weight for each member, and networks can only "
            f"be averaged so. Make an ensemble with --method {' or '.join(weighted)}, or name its runs as a list."
        )
    base = Base.open(run.root, allow_code)
    members = [read_oof(spec, base, allow_code) for spec in specs]
    _check_current(run, key, recipe, members)
    (metric,) = chosen_metrics(base.metrics[:1], base.data.schema.kind)
    problem = make_problem(base, members, common_rows(members, base, may_differ=True), metric)
    shares: Shares = {None: [float(each) for each in last or []]}
    for fold in np.unique(problem.folds).tolist():
        others = np.flatnonzero(problem.folds != fold) if method.is_fitted else np.arange(len(problem.folds))
        shares[fold] = method.fit(problem.rows(others))["weights"]
    return [str(spec.run) for spec in specs], shares


def _check_current(run: Run, key: str, recipe: dict[str, Any], members: Sequence[Member]) -> None:
    """Compares the members' out-of-fold predictions with those that the ensemble was fitted on.

    Its weights, and the training on all rows that uses them, would be those of other networks.

    Raises:
        InputError: Some have changed.
    """
    files = [file for each in recipe["members"] for file in each["files"].items()]
    fitted = {(run.root / name).resolve(): sha for name, sha in files}
    here = [file for each in members for file in each.files.items()]
    if changed := [name for name, sha in here if fitted.get(Path(name).resolve()) != sha]:
        raise InputError(
            f"{key} {run.root} is out of date: these files of members have changed since: {listed(changed)}. Make it "
            f"again with `swinft ensemble` and --overwrite, or name the members as a list."
        )


def _is_flat(weights: Sequence[object] | None) -> bool:
    """Whether weights are one for each member."""
    return weights is not None and all(isinstance(weight, float | int) for weight in weights)
