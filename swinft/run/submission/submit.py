"""Writes a `submission.csv` that Kaggle accepts from predictions.

The file has the header, ids and order of the sample submission. Its text is parsed and checked before it replaces an
earlier file.
"""

import io
import json
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from swinft.class_spec import spec_name, to_spec
from swinft.data.columns import Columns
from swinft.data.schema import Schema
from swinft.errors import InputError, number_of
from swinft.inference.foreign import read_foreign
from swinft.inference.predictions import Predictions
from swinft.inference.provenance import Provenance, other_views, read_provenance, sha256
from swinft.inference.rules.fitted import fitted_of
from swinft.inference.rules.rule import Rule, apply_rules, columns_of
from swinft.json_output import Output
from swinft.model.metrics import Traits, traits_of
from swinft.printing import print_line
from swinft.run.layout import Run
from swinft.run.lock import hold_if_writable
from swinft.run.provenance import check_output, check_weights, predictions_made_with, write_made_from
from swinft.run.submission.checks import format_word, outputs_after
from swinft.run.submission.decide import plan_submission
from swinft.run.submission.fitting import describe_fit, describe_scores, known_scores, with_parameters
from swinft.run.submission.grouping import KEY as GROUP
from swinft.run.submission.grouping import GroupConfig, join_groups, predicted_ids
from swinft.run.submission.options import SubmitOptions
from swinft.run.submission.plan import (
    SubmissionConfig,
    SubmissionPlan,
    as_csv,
    build_submission,
    check_submission,
    listed,
    matched,
)
from swinft.run.submission.rules import requested_rules, rows_to_predict, table_to_predict
from swinft.run.submission.run_lengths import with_decision
from swinft.run.submission.sample import Sample, read_sample
from swinft.store import is_committed, verify

MAKER = "swinft submit"


@dataclass(frozen=True)
class Submission:
    """A submission that was built and checked.

    Args:
        path: The file; None if it was not written.
        text: The file's content.
        plan: Its plan.
    """

    path: Path | None
    text: str
    plan: SubmissionPlan

    @property
    def output(self) -> Output:
        """All but its text as plain values, for `--json`."""
        sample = self.plan.sample
        about = {"sample": sample.source, "rows": len(sample.ids), "columns": sample.columns}
        return {"submission": self.path, **about, "format": self.plan.describe(), "notes": self.plan.notes}

    def to_frame(self) -> pd.DataFrame:
        """The file's cells, as text."""
        return pd.read_csv(io.StringIO(self.text), dtype=str, keep_default_na=False)


def submit(run: Run, options: SubmitOptions, predictions: Predictions | None = None) -> Submission:
    """Builds a submission, checks it, writes it, and prints a summary.

    Args:
        run: The run.
        options: Options that override the run's `submission` section.
        predictions: The predictions to submit; None to read them from a file.

    Raises:
        InputError: The run has no test predictions yet, or they do not fit the sample submission.
    """
    path = Path(options.output) if options.output else run.submission
    with hold_if_writable(run.lock):
        if not options.dry_run:
            check_output(run, path, MAKER)
        config, allowed = run.read_config(), options.allow_code or []
        frozen = config["submission"]
        root = options.root or config["data"]["root"]
        rules = requested_rules(run, frozen.get("rules", []), options.rules, allowed, root) + options.last_rules()
        group = options.over({**frozen, "format": "auto", "rules": []}).group
        schema = Schema.from_dict(run.read_schema())
        outputs_after(rules, group, schema)  # before parameters are fitted
        oof = known_scores(run, rules, options.root, allowed, group, options.new_threshold(frozen, schema))
        rules = with_parameters(run, rules, oof)
        settings = options.over({**frozen, "format": _format(run, frozen, options), "rules": rules})
        source = Path(options.predictions) if options.predictions else run.test_predictions
        if predictions is not None:
            source, made_with = Path("the predictions given"), predictions.provenance
        else:
            made_with = read_provenance(source) if options.predictions else predictions_made_with(run)
        if made_with:
            check_weights(run, made_with, source)
        config["data"]["root"] = root
        sample = read_sample(config["data"], settings.id, bool(group or columns_of(rules)), allowed)
        if sample and is_committed(run.sample):
            sample = sample.decided_by(json.loads(verify(run.sample).read_bytes()))
        if predictions is None:
            found = _read_predictions(source, schema, made_with, sample, config["data"])
        else:
            found = predictions.select(schema.outputs)
        found, row_of = _joined(found, settings, config["data"], schema)
        metric = _first_metric(run, config)
        sample = sample or _sample_without_file(config["data"], schema, metric, found, settings.group)
        delimiter = config["data"]["columns"]["label_delimiter"]
        plan = plan_submission(sample, schema, metric, settings, delimiter, found.ids)
        plan = with_decision(plan, run, options.threshold, settings.threshold)
        text = _build(plan, found, rules, config["data"], settings, row_of, schema)
        for line in [*describe_fit(rules), describe_scores(oof)] if oof else []:
            print_line(line)
        if fitted_of(rules) and made_with is None:
            print_line(f"  note: the rules were fitted on the out-of-fold predictions of {run.root}, not of {source}")
        _print_source(source, made_with, [spec_name(view) for view in config["predict"]["views"]])
        if not options.dry_run:
            files = {"sample": _file(sample.source), "predictions": _file(str(source), predictions)}
            provenance = {"provenance": asdict(made_with) if made_with else None}
            write_made_from(run, path, text.encode(), MAKER, files | provenance | _made_by(plan, settings, rules, oof))
            if path.read_bytes() != text.encode():
                raise InputError(f"{path} differs from what was written to it; the disk or a program changed it.")
    _print_summary(None if options.dry_run else path, sample)
    return Submission(None if options.dry_run else path, text, plan)


def _made_by(
    plan: SubmissionPlan, settings: SubmissionConfig, rules: list[Rule], oof: dict[str, Any]
) -> dict[str, Any]:
    """What is recorded of the settings, the out-of-fold scores, and the parameters that were applied."""
    # Objects cannot be written as JSON.
    named = {"format": spec_name(to_spec(settings.format)), "rules": [rule.spec for rule in rules]}
    made_by = {"format": plan.format.name, "options": asdict(settings) | named}
    fitted = {"fitted": {name: oof["fitted"][name] for name in ("oof", "parameters")}} if "fitted" in oof else {}
    return made_by | ({"out_of_fold": oof | fitted} if oof else {})


def _format(run: Run, frozen: dict[str, Any], options: SubmitOptions) -> Any:
    """The name of a format, or a custom format: that of the options, which gets no arguments, or of the config.

    Raises:
        InputError: Its class is not allowed, or needs arguments.
    """
    requested = frozen["format"] if options.format is None else options.format
    if "." not in format_word(requested) and "class_path" not in requested:
        return requested
    from swinft.run.config.trust import built_by_name  # slow to import, and seldom needed
    from swinft.run.experiment import Experiment

    if options.format is None:
        return Experiment.of_run(run, "submit", options.allow_code).section("submission")["format"]
    return built_by_name(str(requested), "submission.format", "--format", options.allow_code or [])


def _print_summary(path: Path | None, sample: Sample) -> None:
    """Prints what was written and checked."""
    checked = f"checked against {sample.source}"
    state = f"written to {path} and {checked}" if path else f"{checked}, not written"
    print_line(f"{number_of(len(sample.ids), 'row')}, columns {', '.join(sample.columns)}: {state}")


def print_upload(run: Run, path: Path | None) -> None:
    """Prints the command that uploads a submission, if it was written."""
    if path:
        parts = ["kaggle", "competitions", "submit", "-c", "COMPETITION", "-f", str(path), "-m", run.root.name]
        print(f"upload: {shlex.join(parts)}")


def _print_source(path: Path, made_with: Provenance | None, oof_views: list[str]) -> None:
    """Prints the provenance of the predictions."""
    if made_with is None:
        print_line(f"predictions: {path}, not written by `swinft predict`: its folds and views are unknown")
        return
    print_line(f"predictions: {made_with.describe()}")
    if note := other_views(made_with, oof_views):
        print_line(f"  {note}")


def _read_predictions(
    path: Path, schema: Schema, made_with: Provenance | None, sample: Sample | None, data: dict[str, Any]
) -> Predictions:
    """The prediction table; an external one is checked like any other table."""
    if made_with:
        return Predictions.read(path, len(schema.outputs))
    table, notes = read_foreign(path, schema, ["id", *([sample.id] if sample else []), data["id"]])
    for note in notes:
        print_line(f"  {note}")
    return table


def _joined(
    found: Predictions, settings: SubmissionConfig, data: dict[str, Any], schema: Schema
) -> tuple[Predictions, dict[str, str]]:
    """The predictions of groups, where several rows are one of the submission, and the first row of each."""
    if settings.group is None:
        return found, {}
    names = dict.fromkeys(settings.group.columns, GROUP)
    rows = rows_to_predict(names, data, Columns(**{**data["columns"], "sample_id": settings.id}), found.ids)
    groups, first = join_groups(settings.group, found, rows, schema)
    return groups, {id: found.ids[row] for id, row in zip(groups.ids, first.tolist(), strict=True)}


def _build(
    plan: SubmissionPlan,
    table: Predictions,
    rules: list[Rule],
    data: dict[str, Any],
    settings: SubmissionConfig,
    row_of: dict[str, str],
    schema: Schema,
) -> str:
    """The text of the submission, with predictions changed by the rules, checked.

    Raises:
        InputError: It would be refused.
    """
    changed: list[str] = []
    if rules:
        table = matched(plan, table)
        columns = Columns(**{**data["columns"], "sample_id": settings.id})
        ids = [row_of.get(id, id) for id in table.ids]
        table, changed = apply_rules(rules, table, rows_to_predict(columns_of(rules), data, columns, ids), schema)
    rows, changes = build_submission(plan, table)
    text = as_csv(plan, rows)
    problems = check_submission(text, plan)
    if problems:
        raise InputError(
            listed(f"a submission for {plan.sample.source} would be refused; nothing is written:", problems)
        )
    print_line(plan.describe())
    for note in [*plan.notes, *changes]:
        print_line(f"  note: {note}")
    for line in changed:
        print_line(f"  {line}")
    return text


def _sample_without_file(
    data: dict[str, Any], schema: Schema, metric: Traits, table: Predictions, group: GroupConfig | None
) -> Sample:
    """A substitute without a sample submission: the rows of `data.test`, or else those that are predicted."""
    id, test = data["columns"]["test_id"] or data["id"], None
    if data["test"]:
        names = dict.fromkeys(group.columns if group else [], GROUP)
        test = predicted_ids(table_to_predict(names, data, Columns(**data["columns"])), group)
    source = "the predictions" if test is None else "data.test"
    return Sample.substitute(source, id, data["target"], schema, metric, table.ids if test is None else test)


def _first_metric(run: Run, config: dict[str, Any]) -> Traits:
    """The run's main metric: the first one in the config, or the head's first one from a fold's result."""
    if config["model"]["metrics"] and isinstance(config["model"]["metrics"][0], str):
        return traits_of(config["model"]["metrics"][0])
    if run.is_ensemble:
        return Traits(**run.read_ensemble()["first_metric"])
    for index in run.planned_folds():
        if is_committed(run.fold(index).result):
            result = run.fold(index).read_result()
            found = result.get("first_metric")  # runs of earlier versions have only its name
            return Traits(**found) if found else traits_of(next(iter(result["oof"])))
    return Traits()


def _file(path: str, predictions: Predictions | None = None) -> dict[str, str | None]:
    """Path and SHA-256 of an input file; for predictions given as an object, the SHA-256 of their CSV."""
    if predictions is not None:
        return {"path": None, "sha256": predictions.sha256}
    content = Path(path).read_bytes() if Path(path).is_file() else None
    return {"path": path, "sha256": sha256(content) if content is not None else None}
