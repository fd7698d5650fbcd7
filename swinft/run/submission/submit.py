"""Writes a `submission.csv` that Kaggle accepts from predictions.

The file has the header, ids and order of the sample submission. Its text is parsed and checked before it replaces an
earlier file.
"""

import hashlib
import io
import json
import shlex
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from swinft.class_spec import spec_name, to_spec
from swinft.data.columns import Columns
from swinft.data.roots import resolved_root
from swinft.data.schema import Schema
from swinft.data.tables.steps.frame import is_pattern
from swinft.errors import InputError, number_of
from swinft.inference.predictions import Predictions, read_foreign
from swinft.inference.provenance import Provenance, other_views, read_provenance
from swinft.inference.rules.fitted import fitted_of
from swinft.inference.rules.named import rules_of
from swinft.inference.rules.rule import Rule, apply_rules
from swinft.model.metrics import Traits, traits_of
from swinft.printing import print_line
from swinft.run.layout import Run
from swinft.run.lock import hold_if_writable
from swinft.run.provenance import check_output, check_weights, predictions_made_with, write_made_from
from swinft.run.submission.decide import plan_submission
from swinft.run.submission.fitting import describe_fit, describe_scores, known_scores, with_parameters
from swinft.run.submission.plan import (
    SubmissionConfig,
    SubmissionPlan,
    as_csv,
    build_submission,
    check_submission,
    listed,
    matched,
)
from swinft.run.submission.rules import requested_rules, rows_to_predict
from swinft.run.submission.sample import Sample, read_sample
from swinft.store import is_committed, verify

MAKER = "swinft submit"


@dataclass(frozen=True)
class SubmitOptions:
    """Options of a submission. Defaults come from the run's `submission` section.

    Args:
        root: The data's folder, with the sample submission, if it differs from that of the training; also
            `kaggle://SLUG`.
        predictions: A prediction table to submit: id and a column per output, of `swinft predict` or a blend. By
            default the run's test_predictions.csv.
        output: File of the submission; by default the run's submission.csv.
        format: `probabilities`, `label`, `number`, `integer`, `labels`; `auto`: by sample, target and first metric; or
            the class path of a custom format.
        threshold: Labels with at least this probability are written, in 0–1.
        delimiter: Text between labels.
        id: Id column of the sample submission.
        columns: Outputs of the sample's columns with other names: `'{X4: X4_mean}'`.
        words: Text of classes or labels: `'{cat: "0", dog: "1"}'`.
        keep: Columns that keep the sample's cells.
        drop: Outputs without a column in the sample.
        rules: What changes the predictions first, in the place of the config's rules:
            `'[{clip: {min: 0}}, normalize]'`; `[]` for none. The out-of-fold score with them is printed and stored, if
            the training table is there.
        clip: Also, and last, the rule `clip`: the smallest and the largest value, `0.01,0.99`.
        dry_run: Build and check the submission, but do not write it.
        allow_code: Packages or modules that a custom format or rule may come from.
    """

    root: str | None = None
    predictions: str | None = None
    output: str | None = None
    format: str | None = None
    threshold: float | None = None
    delimiter: str | None = None
    id: str | None = None
    columns: dict[str, str] | None = None
    words: dict[str, str] | None = None
    keep: list[str] | None = None
    drop: list[str] | None = None
    rules: list[str | dict[str, Any]] | None = None
    clip: list[float] | None = None
    dry_run: bool = False
    allow_code: list[str] | None = None

    def __post_init__(self) -> None:
        """Finds a mount of Kaggle."""
        if self.root:
            object.__setattr__(self, "root", resolved_root(self.root))

    def over(self, frozen: dict[str, Any]) -> SubmissionConfig:
        """The run's settings, overridden by the given options."""
        own = ("format", "rules")  # objects, which are in `frozen`
        names = [field.name for field in fields(SubmissionConfig) if field.name not in own]
        changes = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return replace(SubmissionConfig(**frozen), **changes)

    def last_rules(self) -> list[Rule]:
        """The rule of `clip`.

        Raises:
            InputError: It has not two numbers, of which the first is smaller.
        """
        if self.clip is not None and len(self.clip) != 2:
            raise InputError(f"--clip {self.clip}: give the smallest and the largest number: --clip 0.01,0.99.")
        return rules_of([{"clip": {"min": self.clip[0], "max": self.clip[1]}}] if self.clip else [])


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
        rules = requested_rules(run, frozen.get("rules", []), options.rules, allowed)
        rules += options.last_rules()
        oof = known_scores(run, rules, options.root, allowed) if rules else {}
        rules = with_parameters(run, rules, oof)
        settings = options.over({**frozen, "format": _format(run, frozen, options), "rules": rules})
        schema = Schema.from_dict(run.read_schema())
        source = Path(options.predictions) if options.predictions else run.test_predictions
        if predictions is not None:
            source, made_with = Path("the predictions given"), predictions.provenance
        else:
            made_with = read_provenance(source) if options.predictions else predictions_made_with(run)
        if made_with:
            check_weights(run, made_with, source)
        if options.root:
            config["data"]["root"] = options.root
        sample = read_sample(config["data"], settings.id, rules, allowed)
        if sample and is_committed(run.sample):
            sample = sample.decided_by(json.loads(verify(run.sample).read_bytes()))
        if predictions is None:
            found = _read_predictions(source, schema, made_with, sample, config["data"])
        else:
            found = predictions.select(schema.outputs)
        metric = _first_metric(run, config)
        sample = sample or _sample_without_file(config["data"], schema, metric, found)
        plan = plan_submission(sample, schema, metric, settings, config["data"]["columns"]["label_delimiter"])
        text = _build(plan, found, rules, config["data"], settings)
        for line in [*describe_fit(rules), describe_scores(oof)] if oof else []:
            print_line(line)
        if fitted_of(rules) and made_with is None:
            print_line(f"  note: the rules were fitted on the out-of-fold predictions of {run.root}, not of {source}")
        _print_source(source, made_with, [spec_name(view) for view in config["predict"]["views"]])
        if not options.dry_run:
            files = {"sample": _file(sample.source), "predictions": _file(str(source), predictions)}
            made_from: dict[str, Any] = {**files, "provenance": asdict(made_with) if made_with else None}
            # Objects cannot be written as JSON.
            named = {"format": spec_name(to_spec(settings.format)), "rules": [rule.spec for rule in rules]}
            made_from |= {"format": plan.format.name, "options": asdict(settings) | named}
            made_from |= {"out_of_fold": _stored(oof)} if oof else {}
            write_made_from(run, path, text.encode(), MAKER, made_from)
            if path.read_bytes() != text.encode():
                raise InputError(f"{path} differs from what was written to it; the disk or a program changed it.")
    _print_summary(None if options.dry_run else path, sample)
    return Submission(None if options.dry_run else path, text, plan)


def _stored(oof: dict[str, Any]) -> dict[str, Any]:
    """What is recorded of the out-of-fold scores, and of the parameters that were applied."""
    fitted = {"fitted": {name: oof["fitted"][name] for name in ("oof", "parameters")}} if "fitted" in oof else {}
    return {**oof, **fitted}


def _format(run: Run, frozen: dict[str, Any], options: SubmitOptions) -> Any:
    """The name of a format, or a custom format: that of the options, which gets no arguments, or of the config.

    Raises:
        InputError: Its class is not allowed, or needs arguments.
    """
    requested = frozen["format"] if options.format is None else options.format
    if isinstance(requested, str) and "." not in requested:
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


def _build(
    plan: SubmissionPlan, table: Predictions, rules: list[Rule], data: dict[str, Any], settings: SubmissionConfig
) -> str:
    """The text of the submission, with predictions changed by the rules, checked.

    Raises:
        InputError: It would be refused.
    """
    changed: list[str] = []
    if rules:
        table = matched(plan, table)
        columns = Columns(**{**data["columns"], "sample_id": settings.id})
        table, changed = apply_rules(rules, table, rows_to_predict(rules, data, columns, table.ids), plan.schema)
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


def _sample_without_file(data: dict[str, Any], schema: Schema, metric: Traits, table: Predictions) -> Sample:
    """A substitute without a sample submission: the id, the target's columns, the order of the predictions."""
    given = data["target"]
    targets = [given] if isinstance(given, str) else schema.outputs if any(map(is_pattern, given)) else given
    if schema.base.are_classes and metric.wants_probabilities and len(schema.outputs) > 2:
        targets = schema.outputs
    id = data["columns"]["test_id"] or data["id"]
    return Sample("the predictions", id, [id, *targets], table.ids)


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
        return {"path": None, "sha256": hashlib.sha256(predictions.to_bytes()).hexdigest()}
    content = Path(path).read_bytes() if Path(path).is_file() else None
    return {"path": path, "sha256": hashlib.sha256(content).hexdigest() if content is not None else None}
