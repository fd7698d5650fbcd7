"""Scores of out-of-fold predictions that rules change, and the parameters that rules learn from them.

Parameters are stored in scores.json with the SHA-256 of the oof.csv that they were fitted on.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from swinft.errors import InputError, StoreError, command, listed, number_of
from swinft.inference.predictions import Predictions
from swinft.inference.rules.fitted import FittedRule, ScoreSome, cross_fit, fit_rows, fit_rules, fitted_of
from swinft.inference.rules.named import rules_of
from swinft.inference.rules.rule import Rule, apply_rules, columns_of, label, numbered
from swinft.model.metrics import Metric, at_threshold
from swinft.printing import format_score
from swinft.run.layout import Run
from swinft.run.submission.grouping import KEY as GROUP
from swinft.run.submission.grouping import GroupConfig, groups_of_several_targets, join_groups
from swinft.run.submission.plan import SubmissionConfig
from swinft.run.submission.rules import cells_of
from swinft.store import digest, is_committed, verify

if TYPE_CHECKING:
    from swinft.data.datamodule import CSVDataModule
    from swinft.run.experiment import Experiment

Found = dict[str, Any]


def scores_with_rules(
    experiment: "Experiment", oof: Predictions, data: "CSVDataModule", metrics: Sequence[str | Metric]
) -> Found:
    """What scores.json contains about the rules of a config; nothing without rules. As `score_with_rules`."""
    config = SubmissionConfig(**experiment.section("submission"))
    rules, group = rules_of(config.rules), config.group
    if not rules and not group:
        return {}
    return {"with_rules": score_with_rules(rules, oof, data, metrics, oof.sha256, group)}


def score_with_rules(
    rules: Sequence[Rule],
    oof: Predictions,
    data: "CSVDataModule",
    metrics: Sequence[str | Metric],
    digest_of_oof: str,
    group: GroupConfig | None = None,
) -> Found:
    """Scores out-of-fold predictions that are changed by rules, and fits those with parameters.

    Args:
        rules: The rules.
        oof: Predictions of all rows of the training table, in its order.
        data: The datamodule, set up for the training rows.
        metrics: The metrics.
        digest_of_oof: SHA-256 of the table of these predictions.
        group: How several rows become one of the submission, before the rules.

    Returns:
        The rules; the pooled scores, cross-fitted if there are parameters; what went wrong, if anything: the score
        without rules is known all the same. With parameters also these, and the scores of the rows that they were
        fitted on.
    """
    from swinft.run.scoring import row_scorer  # slow to import, and not needed to submit without rules

    found: Found = {"rules": [rule.spec for rule in rules], "pooled": {}} | ({"group": asdict(group)} if group else {})
    try:
        scored, predictions = _scored_rows(oof, data, group)
        table = data.train_table.take(scored)
        rows = cells_of(table, columns_of(rules), data.settings.columns.rules)

        def pooled(changed: Predictions) -> Mapping[str, float]:
            return row_scorer(metrics, data, scored)(changed.values, None, changed.outputs)

        if not fitted_of(rules):
            return found | {"pooled": pooled(apply_rules(rules, predictions, rows, data.schema)[0])}
        weights = None if data.score_weights is None else data.score_weights[scored]
        score = _scorers(data, scored)
        given = fit_rows(predictions, data.targets[scored], rows, data.schema, weights, metrics, score)
        whole = fit_rules(rules, given, np.arange(len(scored)))
        described = describe_fit(whole)
        found["fitted"] = {"oof": digest_of_oof, "parameters": _parameters(whole), "described": described}
        found["in_sample"] = pooled(apply_rules(whole, predictions, rows, data.schema)[0])
        if not any(rule.uses_targets for rule in fitted_of(rules)):
            return found | {"pooled": found["in_sample"]}
        changed, of_fold = cross_fit(rules, given)
        found["fitted"]["folds"] = {str(fold): _parameters(fitted) for fold, fitted in of_fold.items()}
        found["pooled"] = pooled(changed)
    except InputError as error:
        found["problem"] = str(error)
    return found


def cross_fitted(
    rules: Sequence[Rule],
    oof: Predictions,
    data: "CSVDataModule",
    metrics: Sequence[str | Metric],
    group: GroupConfig | None = None,
) -> tuple[NDArray[np.int64], Predictions]:
    """Out-of-fold predictions after rules, of which those with parameters are fitted on the other folds.

    Args:
        rules: The rules.
        oof: Predictions of all rows of the training table, in its order, NaN for rows that do not count; with folds.
        data: The datamodule, set up for the training rows.
        metrics: The metrics.
        group: How several rows become one of the submission, before the rules.

    Returns:
        Numbers of the training rows, of groups the first row of each; and their predictions.

    Raises:
        InputError: A rule fails, or cannot be fitted on other folds.
    """
    scored, predictions = _scored_rows(oof, data, group)
    if oof.fold is not None:  # those of the run, which may differ from the data's
        predictions = replace(predictions, fold=oof.fold[scored])
    if not rules:
        return scored, predictions
    rows = cells_of(data.train_table.take(scored), columns_of(rules), data.settings.columns.rules)
    if not fitted_of(rules):
        return scored, apply_rules(rules, predictions, rows, data.schema)[0]
    weights = None if data.score_weights is None else data.score_weights[scored]
    score = _scorers(data, scored)
    given = fit_rows(predictions, data.targets[scored], rows, data.schema, weights, metrics, score)
    if any(rule.uses_targets for rule in fitted_of(rules)):
        return scored, cross_fit(rules, given)[0]
    whole = fit_rules(rules, given, np.arange(len(scored)))
    return scored, apply_rules(whole, predictions, rows, data.schema)[0]


def _scored_rows(
    oof: Predictions, data: "CSVDataModule", group: GroupConfig | None
) -> tuple[NDArray[np.int64], Predictions]:
    """Numbers of the training rows that are scored, and their predictions; of groups, the first row of each.

    Raises:
        InputError: A group has several targets.
    """
    # An ensemble may lack rows that its members lack.
    scored = np.flatnonzero(data.is_scored & np.isfinite(oof.values).all(axis=1))
    table, folds = data.train_table.take(scored), data.fold_of_row[scored]
    predictions = Predictions(table.ids, oof.values[scored], oof.outputs, folds)
    if group is None:
        return scored, predictions
    rows = cells_of(table, group.columns, data.settings.columns.rules)
    if several := groups_of_several_targets(rows[group.by].tolist(), data.targets[scored]):
        raise InputError(
            f"{GROUP}: rows of a group have different targets, so that groups have none: "
            f"{number_of(len(several), 'group')} of column '{group.by}', as '{several[0]}'"
        )
    joined, first = join_groups(group, predictions, rows, data.schema)
    return scored[first], joined


def _scorers(data: "CSVDataModule", scored: NDArray[np.int64]) -> ScoreSome:
    """Scores some of the scored rows; the table is read once for each metric."""
    from swinft.run.scoring import row_scorer

    known: dict[str, Any] = {}

    def score(metrics: Sequence[str | Metric], values: Any, numbers: Any, outputs: list[str]) -> Mapping[str, float]:
        name = str([each if isinstance(each, str) else each.name for each in metrics])
        if name not in known:
            known[name] = row_scorer(metrics, data, scored)
        found: Mapping[str, float] = known[name](values, numbers, outputs)
        return found

    return score


def known_scores(
    run: Run,
    rules: Sequence[Rule],
    root: str | None,
    allow_code: Sequence[str],
    group: GroupConfig | None = None,
    threshold: float | None = None,
) -> Found:
    """Out-of-fold scores without and with rules: those that the run has stored, or new ones for other rules.

    Args:
        run: The run.
        rules: The rules of a submission.
        root: The data's folder, if it differs from that of the training.
        allow_code: Packages or modules whose classes the run's config may name.
        group: How several rows become one of the submission.
        threshold: From which labels are written, if the run was scored with another one; else None.

    Returns:
        `without` and `with`, each metric's score; instead of them `problem`, if it is not known. For rules with
        parameters also `in_sample`, and `fitted`. Nothing where nothing changes the predictions.
    """
    if not rules and not group and threshold is None:
        return {}
    if not is_committed(run.scores):
        return {"problem": "not every fold is finished"}
    try:
        scores = run.read_scores()
        stored = scores.get("with_rules")
        found = stored
        is_same = stored is not None and stored["rules"] == _plain(rules) and _is_of(stored, group)
        if threshold is not None or not is_same or not _is_current(run, scores["with_rules"]):
            found = _rescored(run, rules, list(scores["pooled"]), root, allow_code, group, threshold)
    except (InputError, StoreError) as error:
        return {"problem": str(error).partition("\n")[0]} | _same_fit(run, rules, group)
    assert found
    more = {name: found[name] for name in ("in_sample", "fitted") if name in found}
    more |= {} if threshold is None else {"threshold": threshold}
    if "problem" in found:
        return {"problem": found["problem"]} | more
    return {"without": scores["pooled"], "with": found["pooled"]} | more


def with_parameters(run: Run, rules: Sequence[Rule], found: Found) -> list[Rule]:
    """The rules with the parameters that were fitted on all out-of-fold predictions of a run.

    Args:
        run: The run.
        rules: The rules.
        found: What `known_scores` returned for them.

    Raises:
        InputError: They are not known.
    """
    if not fitted_of(rules):
        return list(rules)
    if "fitted" not in found:
        names = listed(label(number, rule) for number, rule in numbered(rules) if isinstance(rule, FittedRule))
        is_done = is_committed(run.scores)
        fix = (
            "If the training table is elsewhere, name its folder by --root"
            if is_done
            else f"Run `{run.resume_command}`"
        )
        raise InputError(
            f"{names}: the parameters are fitted on all out-of-fold predictions of {run.root}, and are not known: "
            f"{found['problem'].rstrip('.')}. {fix}; or submit without such rules: "
            f"`{command('submit', run.root)} --rules '[]'`."
        )
    pairs = zip(rules, found["fitted"]["parameters"], strict=True)
    return [rule.with_parameters(each) if isinstance(rule, FittedRule) else rule for rule, each in pairs]


def describe_fit(rules: Sequence[Rule]) -> list[str]:
    """The parameters of rules, one line each."""
    return [
        f"rule {number}, {rule}: fitted on all out-of-fold rows: {rule.describe()}"
        for number, rule in numbered(rules)
        if isinstance(rule, FittedRule)
    ]


def describe_scores(found: Found) -> str:
    """`out-of-fold: rmse 17.5000 without rules, 17.4000 with them`, or why that is not known."""
    if "problem" in found:
        inside = found.get("in_sample")
        more = f"; {_of_fit(inside)}" if inside else ""
        return f"out-of-fold: the score with these rules is not known: {found['problem']}{more}"
    inside, parts = found.get("in_sample"), []
    changed = f"with threshold {found['threshold']:g}" if "threshold" in found else "with them"
    before = "as scored before" if "threshold" in found else "without rules"
    for name, value in found["without"].items():
        more = f" (fitted on other folds; {format_score(inside[name])} on the rows of the fit)" if inside else ""
        parts.append(f"{name} {format_score(value)} {before}, {format_score(found['with'][name])} {changed}{more}")
    return f"out-of-fold: {'; '.join(parts)}"


def _of_fit(inside: Mapping[str, float]) -> str:
    scores = ", ".join(f"{name} {format_score(value)}" for name, value in inside.items())
    return f"on the rows that they were fitted on, which is too good: {scores}"


def _parameters(rules: Sequence[Rule]) -> list[Any]:
    """What each rule learned; None for rules without parameters."""
    return [rule.parameters if isinstance(rule, FittedRule) else None for rule in rules]


def _plain(rules: Sequence[Rule]) -> Any:
    """The rules as they are stored."""
    return json.loads(json.dumps([rule.spec for rule in rules]))


def _is_current(run: Run, stored: Mapping[str, Any]) -> bool:
    """Whether stored parameters, if any, were fitted on the out-of-fold predictions that the run has now.

    A copy of a run without oof.csv, as on Kaggle, has no other ones.
    """
    return "fitted" not in stored or not run.oof.exists() or stored["fitted"]["oof"] == digest(verify(run.oof))


def _is_of(stored: Mapping[str, Any], group: GroupConfig | None) -> bool:
    """Whether stored scores are of the same groups."""
    found: bool = stored.get("group") == (asdict(group) if group else None)
    return found


def _same_fit(run: Run, rules: Sequence[Rule], group: GroupConfig | None) -> Found:
    """The stored parameters, if the rules up to the last one with parameters are those of the run."""
    try:
        stored = run.read_scores().get("with_rules", {})
        last = max((number for number, rule in numbered(rules) if isinstance(rule, FittedRule)), default=0)
        is_same = "fitted" in stored and stored["rules"][:last] == _plain(rules)[:last] and _is_of(stored, group)
        if not is_same or not _is_current(run, stored):
            return {}
    except StoreError:
        return {}
    known = stored["fitted"]["parameters"][:last]
    return {"fitted": {**stored["fitted"], "parameters": known + [None] * (len(rules) - last)}}


def _rescored(
    run: Run,
    rules: Sequence[Rule],
    names: list[str],
    root: str | None,
    allow_code: Sequence[str],
    group: GroupConfig | None,
    threshold: float | None,
) -> Found:
    """The scores of a run's out-of-fold predictions with other rules or another threshold, by its training table."""
    from swinft.run.experiment import Experiment  # slow to import, as the next one
    from swinft.run.scoring import training_rows

    experiment = Experiment.of_run(run, "submit", list(allow_code))
    if root:
        experiment.config.data.root = root
    data, metrics = training_rows(run, experiment), experiment.section("model")["metrics"] or names
    if threshold is not None:
        metrics = at_threshold(metrics, threshold, experiment.config.submission.threshold)
    names = [*columns_of(rules), *(group.columns if group else [])]
    missing = [name for name in names if name not in data.train_table.columns]
    if missing:
        raise InputError(f"{data.train_table.path} has no column '{missing[0]}'")
    oof = Predictions.read(run.oof, len(data.schema.outputs)).join(data.train_table.ids, str(run.oof))
    return score_with_rules(rules, oof, data, metrics, digest(run.oof), group)
