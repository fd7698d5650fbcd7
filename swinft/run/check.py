"""The checks of `check` and `fit`: all problems of config, tables, images and network, found before training.

Fast checks come first: the settings before a table is read, the network and the tables before an image is decoded.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from jsonargparse import Namespace

from swinft.data.datamodule import CSVDataModule
from swinft.data.samples import Rows
from swinft.data.schema import Schema, with_prior
from swinft.data.summary import format_summary
from swinft.errors import InputError, together
from swinft.inference.rules.rule import Rule
from swinft.inference.tta import check_views
from swinft.json_output import Output
from swinft.model.metrics import Metric, Traits, traits_of
from swinft.model.scoring import reads_table
from swinft.model.task import METADATA_HIDDEN
from swinft.model.trial import try_one_row, try_step
from swinft.printing import print_line
from swinft.ranges import MOST, POSITIVE, Range, check_ranges, named_runs
from swinft.run.compute.choices import Choice
from swinft.run.compute.devices import check_training_devices
from swinft.run.compute.selection import select_compute
from swinft.run.compute.trial import TriedTask
from swinft.run.config.callbacks import monitor_problems
from swinft.run.config.distill import DistillConfig
from swinft.run.config.sections import PredictConfig
from swinft.run.experiment import Experiment
from swinft.run.fold_files import ALL, expanded, trainings_of
from swinft.run.folds.kept import kept_epochs
from swinft.run.folds.labels import rows_of
from swinft.run.folds.planned import Planned, planned, smallest_batch, step_problems
from swinft.run.folds.pretrained import check_pretrained, check_unseen, pretrained_of
from swinft.run.folds.teacher import DISTILL, LABELS, TeacherRun, teacher_of, teachers_of
from swinft.run.folds.trainer_checks import check_trainer
from swinft.run.room import check_memory
from swinft.run.submission.decide import plan_submission
from swinft.run.submission.grouping import GroupConfig, check_ids, predicted_ids
from swinft.run.submission.plan import SubmissionConfig, SubmissionPlan
from swinft.run.submission.ranked import disagreement
from swinft.run.submission.rules import check_on_tables, describe_rules
from swinft.run.submission.sample import Sample
from swinft.run.trainer import callbacks_of

T = TypeVar("T")
Select = Callable[[Experiment, Schema, TriedTask, torch.device, Planned], Choice]

NO_SAMPLE = "data.sample_submission is not set, so the competition's format is unknown"


@dataclass(frozen=True)
class CheckedRun:
    """What a run needs of its config and data, after all checks have passed.

    Args:
        config: The config as the run freezes it.
        data: The datamodule, with its tables read and its images decoded.
        num_parameters: Parameters of the network.
        choice: Precision and attention.
        plan: What `swinft submit` will write; None where it would need a sample submission, and there is none.
        seconds: Duration of the image check.
        teachers: Runs that it learns from.
        rules: What changes predictions before they are submitted.
        group: How several rows become one of the submission.
    """

    config: str
    data: CSVDataModule
    num_parameters: int
    choice: Choice
    seconds: float
    plan: SubmissionPlan | None = None
    teachers: list[TeacherRun] = field(default_factory=list)
    rules: Sequence[Rule] = ()
    group: GroupConfig | None = None

    def lines(self) -> list[str]:
        """What it learns from, its rules, and the submission, line by line; none of the latter without a test table."""
        found = [teacher.describe() for teacher in self.teachers] + describe_rules(self.rules, self.data, self.group)
        has_sample = self.data.splits.sample is not None
        if not has_sample and not self.data.settings.test:
            return found
        found += [] if has_sample else [f"submission: {NO_SAMPLE}"]
        plan = self.plan
        return found + ([plan.describe(), *(f"  note: {note}" for note in plan.notes)] if plan else [])


def check_run(experiment: Experiment, select: Select = select_compute, absent: Sequence[str] = ()) -> CheckedRun:
    """Builds and checks all that a run needs; `check` and `fit` refuse the same configs because both call this.

    Args:
        experiment: The experiment of `check`, `fit` or `find`.
        select: Chooses precision and attention; of `find` without a step of a full batch.
        absent: Folders of runs that it learns from and that are not there yet: they are not opened.

    Raises:
        InputError: Config, tables or images are wrong. All problems found before images are decoded are listed at once.
    """
    config = experiment.config
    check_training_devices(config)  # first: with a device that does not start, much of what follows fails
    problems: list[str | InputError] = []
    data = _collect(problems, experiment.datamodule)
    folds = data.settings.folds if data else None
    trainer = _collect(
        problems, lambda: check_trainer(experiment, folds.planned * len(config.seeds or [0]) if folds else 1)
    )
    _collect(problems, lambda: check_pretrained(config, 1 if folds is None or folds.is_given else folds.planned))
    _collect(problems, lambda: check_numbers(config))
    teachers = _collect(problems, lambda: teachers_of(experiment, absent)) or []
    if data and folds:
        _collect(problems, lambda: check_views(experiment.views(), *data.settings.shown_to_network))
        _collect(problems, lambda: None if folds.is_given else _check_fold(config, folds.planned))
    tables = _collect(problems, partial(_tables, data)) if data else None
    tried = _collect(problems, lambda: _check_task(experiment, data, *tables, teachers)) if data and tables else None
    if data and tables and tried:
        _collect(problems, lambda: _check_memory(experiment, *tables, tried))
    plan = _collect(problems, lambda: _plan_submission(experiment, data, *tables, tried)) if data and tables else None
    metrics = tried.task.scored_by if tried else []
    rules = _collect(problems, lambda: _check_rules(experiment, data, *tables, metrics)) if data and tables else None
    if trainer and tried:
        problems += monitor_problems(callbacks_of(trainer), tried.task.scored_by)
    frozen = None if problems else _collect(problems, experiment.dump)
    if data is None or trainer is None or tried is None or frozen is None:
        raise together(problems)
    data.setup("fit")
    num_folds = int(data.fold_of_row.max()) + 1
    _check_fold(config, num_folds)
    if data.settings.folds.is_given:
        check_pretrained(config, num_folds)
    check_unseen(config, data)
    for teacher in teachers:
        teacher.check_unseen(data)
        for table in data.settings.folds.extra_tables:
            if teacher.key == LABELS and teacher.group in named_runs(LABELS, table.labels):
                rows_of(experiment, table, teacher)
    if found := step_problems(config, data, trainer.world_size):
        raise together(found)
    if smallest_batch(config, data, trainer.world_size) == 1 < config.data.batch_size:
        try_one_row(tried.task, tried.targets, tried.features, tried.size)
    started = time.perf_counter()
    data.check()
    took = time.perf_counter() - started
    num_parameters = sum(parameter.numel() for parameter in tried.task.net.parameters())
    device = trainer.strategy.root_device
    choice = select(experiment, data.schema, tried, device, planned(config, data, trainer.world_size))
    group = SubmissionConfig(**experiment.section("submission")).group
    return CheckedRun(frozen, data, num_parameters, choice, took, plan, teachers, rules or [], group)


def print_checked(checked: CheckedRun) -> Output:
    """Prints what a config's check has found; returns it as plain values, for `--json`."""
    summary, lines = checked.data.summary(), checked.lines()
    print(format_summary(summary))
    for line in lines:
        print_line(line)
    about = {"parameters": checked.num_parameters, "precision": checked.choice.precision, "lines": lines}
    return {"summary": {name.replace(" ", "_"): value for name, value in summary.items()}, **about, "problems": []}


def _check_fold(config: Namespace, num_folds: int) -> None:
    """Checks the option `--fold`.

    Raises:
        InputError: There is no such fold.
    """
    if (fold := config.get("fold")) is None:  # not an option of `check`
        return
    known = trainings_of([*range(num_folds), ALL], config.seeds)
    if not set(expanded([fold], known)) <= {*known}:
        names = f"{known[0]}, {known[1]}, …, {known[-1]}" if config.seeds else f"0 to {num_folds - 1}"
        raise InputError(f"--fold {fold}: the folds are {names}. `{ALL}` trains on every row.")


def check_numbers(config: Namespace) -> None:
    """Checks the numbers that no section's class checks in its constructor.

    Raises:
        InputError: One is out of its range.
    """
    PredictConfig(**dict(config.predict))
    DistillConfig(**dict(config.distill))
    kept_epochs(config.checkpoint)
    most = MOST - min(config.data.folds.num or 0, MOST // 2)
    if config.seeds is not None and (not config.seeds or len({*config.seeds}) < len(config.seeds)):
        raise InputError(f"seeds is {config.seeds}; give at least one, each once, or null.")
    check_ranges("", {"seeds": config.seeds}, {"seeds": Range(0, most)})
    columns = config.data.columns
    if config.model.metadata_hidden != METADATA_HIDDEN and not (
        columns.numeric_features or columns.categorical_features
    ):
        raise InputError(
            f"model.metadata_hidden does nothing without metadata: set data.columns.numeric_features or "
            f"categorical_features, or this to {METADATA_HIDDEN}."
        )
    numbers = {"seed": config.seed, "max_hours": config.max_hours}
    check_ranges("", numbers, {"seed": Range(0, most), "max_hours": POSITIVE})  # each fold adds its number to the seed


def _plan_submission(
    experiment: Experiment, data: CSVDataModule, rows: Rows, schema: Schema, tried: TriedTask | None
) -> SubmissionPlan | None:
    """Decides what `swinft submit` will write; None where it would need a sample submission, and there is none.

    Raises:
        InputError: The sample submission cannot be filled, or settings are wrong.
    """
    assert rows.targets is not None
    first = traits_of(tried.task.scored_by[0]) if tried else Traits()
    config = experiment.config
    options = SubmissionConfig(**experiment.section("submission"))
    schema = with_prior(schema, rows.targets[rows.is_used & rows.has_target & ~rows.is_extra])
    test = data.splits.tables[2] if data.splits.tables else None
    predicted = predicted_ids(test.table, options.group) if test else None
    columns, delimiter = data.settings.columns, config.data.columns.label_delimiter
    if data.splits.sample is None:
        id, source = columns.test_id or data.settings.id, "data.test" if test else "the predictions"
        sample = Sample.substitute(source, id, data.settings.target, schema, first, predicted or [])
    else:
        sample = Sample.of(data.splits.sample, columns.sample_id)
    try:
        plan = plan_submission(sample, schema, first, options, delimiter, predicted)
    except InputError:
        if sample.is_file or options.is_set:
            raise
        return None
    if test and predicted is not None and sample.is_file:
        check_ids(plan.sample, test.table, predicted, options.group)
    if note := disagreement(plan.format, tried.task.scored_by[0] if tried else None):
        plan.notes.append(note)
    return plan


def _tables(data: CSVDataModule) -> tuple[Rows, Schema]:
    """The training rows and the schema, with the ranges of numbers: rules ask for them."""
    rows, schema = data.splits.read_tables()
    if rows.targets is None:
        return rows, schema
    return rows, replace(
        schema, ranges=schema.target.ranges(rows.targets[rows.is_used & rows.has_target & ~rows.is_extra])
    )


def _check_rules(
    experiment: Experiment, data: CSVDataModule, rows: Rows, schema: Schema, metrics: Sequence[Metric]
) -> list[Rule]:
    """The rules, checked and tried with the tables.

    Raises:
        InputError: A rule is wrong, or fails.
    """
    config = SubmissionConfig(**experiment.section("submission"))
    test = data.splits.tables[2] if data.splits.tables else None
    return check_on_tables(config, rows, test, schema, data.settings.columns.rules, metrics)


def _check_memory(experiment: Experiment, rows: Rows, schema: Schema, tried: TriedTask) -> None:
    """Checks that predictions of all rows can be in memory; maps of masks are kept in another form."""
    if not schema.base.are_maps:
        count = len(rows.table) if rows.num_main is None else rows.num_main
        seeds = len(experiment.config.seeds or [0])
        check_memory(count, len(schema.outputs), seeds, tried.task.scored_by, schema.base.are_classes)


def _check_task(
    experiment: Experiment, data: CSVDataModule, rows: Rows, schema: Schema, teachers: list[TeacherRun]
) -> TriedTask:
    """Builds the task and takes one step, so that a wrong key, file or target is found before the first fold."""
    config = experiment.config
    # Weights from the hub are not loaded here: each fold loads them, from the cache after the first.
    loads_weights = config.model.pretrained is not True
    task = experiment.task(schema, loads_weights=loads_weights, pretrained=pretrained_of(config, 0))
    assert rows.targets is not None
    used = rows.is_used & rows.has_target
    targets = torch.from_numpy(rows.targets[used])
    features = None if rows.features is None else torch.from_numpy(rows.features[used])
    auxiliary = [torch.from_numpy(each[used]) for each in rows.auxiliary]
    task.initialize(targets, features, *(torch.from_numpy(each[rows.is_used]) for each in rows.auxiliary))
    side = config.data.image_size
    size = (side, side) if isinstance(side, int) else side
    columns = rows.table.frame(np.flatnonzero(used).tolist()) if reads_table(task.scored_by) else None
    for teacher in teachers:
        if schema.base.are_maps:
            raise InputError(
                f"{teacher.key} is for one prediction per row, and {schema.kind} predicts masks: remove it."
            )
        teacher.check_outputs(schema)
        if teacher.key == DISTILL:
            teacher.check_inputs(config, schema)
    task.teacher = teacher_of(experiment, 0, teachers)
    is_weighted = data.settings.columns.weighs_score
    weights = rows.weights[used] if rows.weights is not None and is_weighted else None
    seconds = try_step(task, targets, features, size, config.data.batch_size, columns, auxiliary, weights)
    return TriedTask(task, targets, features, size, seconds)


def _collect(problems: list[str | InputError], check: Callable[[], T]) -> T | None:
    """The result of a check; None if it fails, with its error added to the list once."""
    try:
        return check()
    except InputError as error:
        if str(error) not in map(str, problems):
            problems.append(error)
        return None
