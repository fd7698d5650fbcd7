"""`swinft check` and `swinft fit` of a config with rounds: all of them are checked before the first one trains."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from swinft.data.datamodule import CSVDataModule
from swinft.data.folds import folds_csv
from swinft.errors import InputError, listed, number_of, together
from swinft.json_output import Output
from swinft.printing import print_line
from swinft.ranges import named_runs
from swinft.run.check import CheckedRun, check_run, print_checked
from swinft.run.compute.choices import Choice, default_choice
from swinft.run.config.fit_options import fit_parser
from swinft.run.config.parser import Parser
from swinft.run.experiment import Experiment
from swinft.run.fit_command import config_files, has_rounds
from swinft.run.folds.labels import rows_of
from swinft.run.folds.pretrained import find_leak
from swinft.run.folds.teacher import DISTILL, LABELS, TeacherRun
from swinft.run.layout import Run
from swinft.run.lock import hold
from swinft.run.rounds.noise import check_filter, paired_folds, pairings
from swinft.run.rounds.plan import Plan, said_of
from swinft.run.rounds.settings import Round, read_rounds
from swinft.run.rounds.train import is_trained, start, train_rounds
from swinft.system.processes import launcher_ranks, rank

Checked = dict[str, tuple[Experiment, CheckedRun]]


def check_rounds(argv: list[str], parser: Parser) -> Output:
    """Checks a config with rounds, and prints what each will do.

    Args:
        argv: The words of the command line.
        parser: That of the command.

    Returns:
        What was found, of the first round as by `print_checked`.

    Raises:
        InputError: Something is wrong with a round; what is wrong with the keys of all rounds is listed at once.
    """
    with _plan(argv, parser) as plan:
        found = _checked(plan, resume=None)
        first = found[plan.rounds[0].name][1]
        output = print_checked(first)
        for line in _described(plan, first):
            print_line(line)
        rounds = [{"name": each.name, "does": each.does, "from": each.sources} for each in plan.rounds]
        return {**output, "folder": plan.folder, "rounds": rounds}


def fit_rounds(argv: list[str]) -> Run:
    """Trains the rounds of a config, one after another, each with all its folds; finished ones are skipped.

    Returns:
        The run of the last round.

    Raises:
        InputError: Something is wrong with a round, or a round has changed since it was trained.
        RunError: A fold has failed.
    """
    with _plan(argv, fit_parser()) as plan:
        config = plan.base.config
        wrong = {"--fold": config.fold is not None, "--accept": config.accept}
        wrong["trainer.fast_dev_run"] = bool(config.trainer.fast_dev_run)
        if given := [name for name, is_given in wrong.items() if is_given]:
            raise InputError(
                f"{listed(given)}: for one run, and {config_files(argv)[-1]} has rounds, which are trained one after "
                f"another. Remove it, or name the folder of a round that is there: "
                f"--resume {plan.run(plan.rounds[0].name).root}."
            )
        if rank():
            name, value = next(launcher_ranks())
            raise InputError(f"{name} is {value} in the environment: rounds are started by one process. Unset {name}.")
        with hold(Run(plan.folder).lock, root=plan.folder):
            start(plan, config.resume, config.overwrite)
            if not all(is_trained(plan.run(each.name)) for each in plan.rounds):
                found = _checked(plan, resume=False)
                for line in _described(plan, found[plan.rounds[0].name][1]):
                    print_line(line)
                del found
            return train_rounds(plan)


@contextmanager
def _plan(argv: list[str], parser: Parser) -> Iterator[Plan]:
    """The plan of a command line."""
    files = [value for value in config_files(argv) if has_rounds([f"--config={value}"])]
    with TemporaryDirectory() as folder:
        rounds = read_rounds(Path(files[-1]))
        yield Plan(parser, argv, Experiment.from_argv(parser, argv), rounds, Path(folder))


def _checked(plan: Plan, resume: bool | None) -> Checked:
    """The experiments of all rounds, checked like a run, as far as this is possible before their teachers are there.

    Raises:
        InputError: Something is wrong.
    """
    folds = plan.temporary / "folds.csv"
    first = plan.rounds[0]
    problems: list[str] = []
    given = plan.experiment(first, None, resume=resume)
    with said_of(first):
        checked = check_run(_alone(given), absent=plan.absent)
    folds.write_text(folds_csv(checked.data.train_table.ids, checked.data.fold_of_row), encoding="utf-8")
    experiments = {first.name: given}
    for each in plan.rounds:
        with _collecting(problems, each):
            if each is not first:
                experiments[each.name] = plan.experiment(each, folds, resume=resume)
            _check_filter(plan, each, checked, folds, resume)
    _raise(problems)
    found: Checked = {first.name: (given, checked)}
    for each in plan.rounds[1:]:
        with _collecting(problems, each):
            experiment = experiments[each.name]
            found[each.name] = experiment, check_run(_alone(experiment), _untimed, plan.absent)
            _check_same(checked, found[each.name][1])
    _raise(problems)
    for each in plan.rounds:
        with _collecting(problems, each):
            _check_learns(plan, each, found)
    _raise(problems)
    return found


def _alone(experiment: Experiment) -> Experiment:
    """An experiment with the options that a check reads."""
    config = experiment.config.clone()
    config.devices_per_fold = config.get("devices_per_fold")
    return experiment.with_config(config)


def _untimed(experiment: Experiment, *_: object) -> Choice:
    """Precision and attention without timing: they are chosen when the round starts."""
    return default_choice(experiment.config, torch.device("cpu"))


@contextmanager
def _collecting(problems: list[str], each: Round) -> Iterator[None]:
    """The message of an error inside the block is added to the list, with the round's name."""
    try:
        with said_of(each):
            yield
    except InputError as error:
        problems.append(str(error))


def _raise(problems: Sequence[str]) -> None:
    if problems:
        raise together(problems)


def _check_same(first: CheckedRun, other: CheckedRun) -> None:
    """Checks that a round scores the rows of the first one.

    Raises:
        InputError: It does not.
    """
    a, b = first.data, other.data
    same = a.train_table.ids == b.train_table.ids and a.schema.outputs == b.schema.outputs
    if not same or not np.array_equal(a.is_scored, b.is_scored) or not np.array_equal(a.targets, b.targets, True):
        raise InputError(
            "it scores other rows, targets or classes than the first round, and their scores could not be compared: "
            "set what decides on them outside of `rounds`."
        )


def _check_filter(plan: Plan, each: Round, first: CheckedRun, folds: Path, resume: bool | None) -> None:
    """Checks that a round's filter can work: its kind of target, and the folds of its inner runs.

    Raises:
        InputError: It cannot.
    """
    if each.drop_noisy is None:
        return
    if plan.base.config.data.folds.drop:
        raise InputError("drop_noisy, and data.folds.drop is set for all rounds: remove one of them.")
    data = first.data
    num_folds = int(data.fold_of_row.max()) + 1
    _raise(check_filter(data.schema.base, each.drop_noisy.share, num_folds, each.drop_noisy.nested))
    for number, pairs in enumerate(pairings(num_folds) if each.drop_noisy.nested else []):
        file = folds.with_name(f"pairs_{number}.csv")
        file.write_text(folds_csv(data.train_table.ids, paired_folds(data.fold_of_row, pairs)), encoding="utf-8")
        experiment = plan.inner(each, number, file, resume)
        inner = experiment.datamodule()
        try:
            inner.image_files.use_known_cache("")
            inner.setup("fit")
            _check_start(experiment, inner, len(pairs))
        except InputError as error:
            raise InputError(
                f"drop_noisy holds out the folds {listed(f'{a} and {b}' for a, b in pairs)} together, and {error}"
            ) from error


def _check_start(experiment: Experiment, data: CSVDataModule, num_pairs: int) -> None:
    """Checks that no network of a filter starts from weights that were trained on rows which it is to hold out.

    Raises:
        InputError: One does.
    """
    for fold in range(num_pairs):
        if leak := find_leak(experiment.config, data, fold):
            raise InputError(
                f"model.pretrained {experiment.config.model.pretrained} has the weights {leak.file}, which were "
                f"trained on {leak.rows} of the {number_of(leak.held_out, 'row')} of a pair: what is dropped would "
                f"depend on the labels of the fold that is scored. Start from weights that have seen none of these "
                f"rows, or set nested: false, whose score is too good."
            )


def _check_learns(plan: Plan, each: Round, found: Checked) -> None:
    """Checks that the networks of other rounds, which are not there yet, can teach or label.

    Raises:
        InputError: They cannot.
    """
    experiment, checked = found[each.name]
    for name in each.sources:
        if name not in found:
            continue
        of, folder = found[name], plan.source(name)
        teacher = TeacherRun(Run(Path(folder)), folder, DISTILL, of[0], of[1].data.schema, folder)
        if each.distill:
            teacher.check_inputs(experiment.config, checked.data.schema)
        labelling = replace(teacher, key=LABELS)
        for table in checked.data.settings.folds.extra_tables:
            if folder in named_runs(LABELS, table.labels):
                rows_of(experiment, table, labelling)


def _described(plan: Plan, first: CheckedRun) -> Iterator[str]:
    """What each round does, line by line."""
    num_folds = int(first.data.fold_of_row.max()) + 1
    yield f"{number_of(len(plan.rounds), 'round')}, each a run in {plan.folder}:"
    for each in plan.rounds:
        of = f" from {listed(each.sources)}" if each.sources else ""
        yield f"  {each.name}: {each.does or 'the config as it is'}{of}"
        if each.drop_noisy and each.drop_noisy.nested:
            runs = pairings(num_folds)
            yield (
                f"    its filter trains {number_of(sum(map(len, runs)), 'network')} more, each without two folds: "
                f"{number_of(len(runs), 'run')} in {plan.filtered(each)}"
            )
        elif each.drop_noisy:
            yield (
                "    nested: false: networks that have seen the labels of a fold decide what it trains on, so that its "
                "score may be too good"
            )
