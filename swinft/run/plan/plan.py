"""`swinft plan`: the cost of a config's whole run, from a short training here, or for GPUs that are not here."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from jsonargparse import Namespace

from swinft.data.datamodule import CSVDataModule
from swinft.data.folds import ALL_ROWS
from swinft.data.schema import Schema
from swinft.errors import InputError, number_of
from swinft.printing import print_line
from swinft.ranges import Range, check_ranges
from swinft.run.check import CheckedRun
from swinft.run.compute.choices import Choice, device_name
from swinft.run.compute.devices import devices_per_fold, slots_for
from swinft.run.compute.selection import select_compute
from swinft.run.compute.trial import TriedTask
from swinft.run.config.parser import Parser, built_once
from swinft.run.config.sections import new_parser
from swinft.run.experiment import Experiment
from swinft.run.find.find import by_rule
from swinft.run.fold_files import ALL, FoldId, held_out_by, trainings_of
from swinft.run.folds.kept import SoupConfig, kept_epochs
from swinft.run.folds.planned import Planned, epoch_batches, fold_steps
from swinft.run.plan.cost import Costs, Plan, Work, fold_seconds, limited
from swinft.run.plan.estimate import count, estimate
from swinft.run.plan.gpus import GPUS, parsed
from swinft.run.plan.measure import frozen_epochs, measure, size_name, size_names
from swinft.run.plan.show import described
from swinft.run.throw_away import ThrowAway
from swinft.system.orphans import STARTED
from swinft.system.precision import Precision, training_device

SECONDS = 20.0  # of measured training steps
LEAST_BATCHES, MOST_BATCHES = 4, 100
AFTER = 2.0  # seconds of scores and report after the last fold; they are not measured


@built_once
def plan_parser() -> Parser:
    """The parser of `swinft plan`."""
    parser = new_parser("plan")
    parser.add_argument(
        "--gpus",
        type=str | None,
        default=None,
        help=f"GPUs that are not here, as 8xA100: an estimate from operations and data sheets. {', '.join(GPUS)}",
    )
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="seconds of training steps to measure; more are more precise"
    )
    parser.add_argument(
        "--devices_per_fold", type=int | None, default=None, help="number of GPUs for each fold, as of fit"
    )
    parser.add_argument(
        "--trial", type=str | None, default=None, help="internal: measure what a folder requests, in this process"
    )
    return parser


def plan_from_argv(argv: list[str]) -> Plan | None:
    """Runs a command line of `plan`, and prints the plan; None in a process that measures. Errors as of `plan_of`."""
    experiment = Experiment.from_argv(plan_parser(), argv)
    if experiment.config.trial:
        measure(experiment, Path(experiment.config.trial))
        return None
    plan = plan_of(experiment)
    for line in described(plan):
        print_line(line)
    return plan


def plan_of(experiment: Experiment) -> Plan:
    """The plan that the options of `plan` ask for; nothing is written into a run's folder.

    Raises:
        InputError: Data or config are wrong, or the GPUs are not known.
        RunError: The process that measures has failed.
    """
    config = experiment.config
    check_ranges("", {"--seconds": config.seconds}, {"--seconds": Range(1, 600)})
    gpus = parsed(config.gpus) if config.gpus else None
    if gpus and config.seconds != SECONDS:
        raise InputError("--seconds is of what is measured here, and with --gpus nothing is: remove one of them.")
    with TemporaryDirectory() as folder:
        if gpus is None:
            return _measured(experiment, Path(folder))
        return _estimated(experiment, Path(folder), *gpus)


class _Kept:
    """A selection of `check_run` that keeps the task which it was given.

    Args:
        choose: Chooses precision and attention.
    """

    def __init__(self, choose: Callable[..., Choice]) -> None:
        self._choose = choose
        self.seconds = 0.0
        self.tried: TriedTask | None = None

    def __call__(
        self, experiment: Experiment, schema: Schema, tried: TriedTask, device: torch.device, planned: Planned
    ) -> Choice:
        """Keeps it, and chooses."""
        self.tried, self.seconds = tried, tried.seconds
        return self._choose(experiment, schema, tried, device, planned)


def _measured(experiment: Experiment, folder: Path) -> Plan:
    """The plan for this machine."""
    selected = _Kept(select_compute)
    run = ThrowAway.of(experiment, folder, selected)
    config, before = run.checked.choice.applied(run.experiment.config), time.monotonic() - STARTED
    works = _works(config, run.checked.data, run.devices)
    expected = max(1e-4, selected.seconds * config.data.batch_size)  # an upper limit: the first step is the slowest
    step = config.trainer.accumulate_grad_batches
    batches = min(MOST_BATCHES, max(LEAST_BATCHES, int(config.seconds / 2 / expected)))
    batches = min(math.ceil(batches / step) * step, int(works[0].batches))
    asked = time.monotonic()
    answer = run.ask("plan", {"batches": max(1, batches)})
    outside = time.monotonic() - asked - answer.pop("own")
    pairs = {name: tuple(answer[name]) for name in ("validation", "prediction")}
    costs = Costs(**{**answer, **pairs, "start_up": answer["start_up"] + outside})
    slots = slots_for(config, run.devices, len(works))
    device = training_device(config.trainer)
    notes = [f"measured: {batches} batches of fold 0 an epoch, in a process of its own; scores and report: {AFTER:g} s"]
    notes += ["callbacks, loggers and early stopping are left out"] if config.trainer.callbacks else []
    notes += ["several devices of a fold: their communication is left out"] if run.devices > 1 else []
    frame = _Frame(config, run.checked, works, run.devices, len(slots), before, device_name(device), False)
    return frame.plan(costs, notes)


def _estimated(experiment: Experiment, folder: Path, number: int, name: str) -> Plan:
    """The plan for GPUs that are not here."""
    gpu, own = GPUS[name], experiment.config
    config = own.clone()
    config.trainer.accelerator, config.trainer.devices, config.trainer.precision = "cpu", 1, "auto"
    config.trainer.strategy, config.trainer.sync_batchnorm, config.devices_per_fold = "auto", False, None
    config.on_out_of_memory = "error"
    selected = _Kept(by_rule)
    run = ThrowAway.of(experiment.with_config(config), folder, selected)
    before, data = time.monotonic() - STARTED, run.checked.data
    names = [str(k) for k in range(number)]
    trainings = len(_trainings(own, data))
    devices = devices_per_fold(own, trainings, names)
    precision: Precision = gpu.precision if own.trainer.precision == "auto" else own.trainer.precision
    assert selected.tried is not None
    counted = count(selected.tried, precision)
    works = _works(own, data, devices)
    last = _pixels(size_name(own.data.image_size))
    sizes = {each: _pixels(each) / last for each in {*size_names(own), size_name(own.data.image_size)}}
    costs = estimate(counted, gpu, precision, own.data.batch_size, len(own.predict.views), sizes)
    slots = slots_for(own, devices, trainings, gpus=names)
    rate = own.data.batch_size / costs.batch[size_name(own.data.image_size)]
    notes = [
        f"an estimate: no {name} is here. {precision}, {counted.trained / 1e9:.3g} GFLOP an image in training and "
        f"{counted.predicted / 1e9:.3g} in prediction, at the share of the peak rate that was measured on an H200",
        f"loaders keep up: {rate * devices:,.0f} images/s for a fold, {rate * devices * len(slots):,.0f} in all",
        f"a fold starts in {costs.start_up:g} s, its first batches take {costs.first:g} s more; several devices of a "
        "fold lose no time",
    ]
    frame = _Frame(own, run.checked, works, devices, len(slots), before, f"{number} × {name}", True)
    return frame.plan(costs, notes)


def _pixels(size: str) -> int:
    height, _, width = size.partition("x")
    return int(height) * int(width)


@dataclass(frozen=True)
class _Frame:
    """What a plan holds besides the costs: the run, and the devices on which it is spread."""

    config: Namespace
    checked: CheckedRun
    works: list[Work]
    per_fold: int
    at_a_time: int
    before: float
    device: str
    is_estimate: bool

    def plan(self, costs: Costs, notes: list[str]) -> Plan:
        """The plan with some costs."""
        config, data = self.config, self.checked.data
        limit, rounds = config.max_hours, math.ceil(len(self.works) / self.at_a_time)
        share = None if limit is None else 3600 * limit / rounds
        found = [limited(fold_seconds(costs, work), work.epochs, share) for work in self.works]
        if any(done < work.epochs for (_, done), work in zip(found, self.works, strict=True)):
            least, most = min(done for _, done in found), max(work.epochs for work in self.works)
            notes = [*notes, f"max_hours {limit:g} ends training after about {least:g} of {most:g} epochs"]
        per_batch, rest = costs.prediction
        test = None
        if data.splits.has_test:
            nets = len([work for work in self.works if work.validates])
            batches = len(data.test_table) / config.data.batch_size
            test = costs.start_up + nets * (costs.load + batches * per_batch + rest)
        parameters = 4 * self.checked.num_parameters
        disk = parameters * (len(self.works) + 8 + getattr(config.checkpoint, "epochs", -1) + 1)
        steps = fold_steps(config, data.splits.num_training_rows(0), self.per_fold)
        rows = config.data.batch_size * config.trainer.accumulate_grad_batches * self.per_fold
        name = config.model.backbone if isinstance(config.model.backbone, str) else "the network"
        an_epoch = f"{number_of(steps.per_epoch, 'step')} of {number_of(rows, 'row')}"
        what = (
            f"{name}, {self.checked.num_parameters:,} parameters; {len(self.works)} trainings of {steps.epochs} epochs "
            f"of {an_epoch} at {size_name(config.data.image_size)} px"
        )
        return Plan(
            what, self.device, [parts for parts, _ in found], [done for _, done in found], self.at_a_time,
            self.per_fold, self.before, AFTER, test, (costs.memory, costs.of_memory), disk, notes, self.is_estimate,
        )  # fmt: skip


def _trainings(config: Namespace, data: CSVDataModule) -> list[FoldId]:
    """All trainings of a run: folds and seeds, and those on every row."""
    folds: list[FoldId] = [*range(int(data.fold_of_row.max()) + 1)]
    return trainings_of([*folds, ALL] if config.data.folds.all else folds, config.seeds)


def _works(config: Namespace, data: CSVDataModule, ranks: int) -> list[Work]:
    """What each training does."""
    kept = kept_epochs(config.checkpoint)
    passes = 1 + (kept.epochs if isinstance(kept, SoupConfig) and kept.soup != "last" else 0)
    found = []
    for name in _trainings(config, data):
        fold = held_out_by(name)
        rows = data.splits.num_training_rows(ALL_ROWS if fold is None else fold)
        steps = fold_steps(config, rows, ranks)
        held_out = 0.0 if fold is None else len(data.splits.held_out(fold)) / config.data.batch_size / ranks
        found.append(
            Work(
                batches=epoch_batches(config, rows, ranks),
                epochs=steps.total / steps.per_epoch,
                sizes=size_names(config),
                size=size_name(config.data.image_size),
                frozen=frozen_epochs(config),
                held_out=held_out,
                passes=passes,
                validates=fold is not None,
            )
        )
    return found
