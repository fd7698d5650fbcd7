"""Teachers: finished runs that label what a run trains on, each fold by the network that did not train on its rows."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import Namespace

from swinft.data.datamodule import CSVDataModule
from swinft.data.fold_settings import EXTRA, ExtraTable
from swinft.data.row_images import row_images
from swinft.data.schema import Schema
from swinft.errors import InputError, listed, number_of
from swinft.model.network import ImageModel
from swinft.model.training.distillation import Teacher
from swinft.ranges import named_runs, settings_of
from swinft.run.config.parser import plain
from swinft.run.experiment import Experiment
from swinft.run.fold_files import FoldId, held_out_by
from swinft.run.folds.blend import blend_of
from swinft.run.folds.pretrained import find_leak, is_trained_on
from swinft.run.layout import Run
from swinft.store import commit, digest, verify

DISTILL, LABELS = "distill.run", "data.folds.extra.labels"
Hashes = dict[str, dict[str, str]]  # SHA-256 of a teacher's files, by its folder as configured


@dataclass(frozen=True, eq=False)
class TeacherRun:
    """A run that another one learns from.

    Args:
        run: Its folder.
        named: The folder as configured.
        key: The setting that names it.
        experiment: Its frozen experiment.
        schema: Its outputs and metadata.
        group: The folder as configured of which it is a part: itself, or an ensemble.
        shares: What its prediction counts among those of the same key, by the fold that is held out, None for a
            training on every row.
    """

    run: Run
    named: str
    key: str
    experiment: Experiment
    schema: Schema
    group: str = ""
    shares: Mapping[int | None, float] = field(default_factory=dict)

    @classmethod
    def open(cls, named: str, key: str, student: Experiment) -> "TeacherRun":
        """Opens it.

        Args:
            named: The folder as configured.
            key: The setting that names it.
            student: The experiment that learns from it.

        Raises:
            InputError: It is no run, not finished, or the student's own folder.
            StoreError: One of its files has changed since it was written.
        """
        config = student.config
        try:
            run = Run.open(named)
            run.check_trained()
        except InputError as error:
            raise InputError(f"{key}: {error} Name the folder of a finished run, such as runs/NAME.") from error
        if run.root.resolve() == (Path(config.runs) / config.name).resolve():
            raise InputError(f"{key} {named} is the folder of this run itself: give one of them another name.")
        if waiting := run.unfinished_folds():
            raise InputError(
                f"{key} {named}: its folds {listed(map(str, waiting))} are not finished. Run `{run.resume_command}`."
            )
        experiment = Experiment.of_run(run, "fit", config.get("allow_code"))
        return cls(run, named, key, experiment, Schema.from_dict(run.read_schema()))

    def trainings(self, fold: FoldId) -> list[FoldId]:
        """Whose networks may label what a training trains on: of the fold that it holds out, with every seed.

        A training on every row scores none, and learns from the networks of all folds.

        Raises:
            InputError: There are none.
        """
        held_out, known = held_out_by(fold), self.run.planned_folds()
        found = [name for name in known if held_out in (None, held_out_by(name))]
        if not found:
            raise InputError(
                f"{self.key} {self.named} has the folds {listed(map(str, known))}, and no network for fold {held_out} "
                f"of this run. {self._fix()}"
            )
        return found

    def check_outputs(self, schema: Schema) -> None:
        """Checks that its networks predict a run's outputs.

        Raises:
            InputError: They do not.
        """
        other = self.schema
        if (schema.kind, schema.kind_class, schema.outputs) != (other.kind, other.kind_class, other.outputs):
            raise InputError(
                f"{self.key} {self.named} predicts {listed(other.outputs)} ({other.kind_name}), and this run "
                f"{listed(schema.outputs)} ({schema.kind_name}): name a run with the same data.target, "
                f"data.target_kind and class order."
            )

    def check_inputs(self, config: Namespace, schema: Schema) -> None:
        """Checks that its networks take what a run's loaders yield.

        Args:
            config: Of the run that learns.
            schema: Of its tables.

        Raises:
            InputError: They do not.
        """
        own, other, start = self.experiment.config, self.schema, f"{self.key} {self.named}"
        if other.num_features and _metadata(schema) != _metadata(other):
            raise InputError(
                f"{start} takes the metadata columns {listed([*other.numeric_features, *other.categories])}, and this "
                f"run {listed([*schema.numeric_features, *schema.categories]) or 'none'}, or their values differ: set "
                f"the same data.columns.numeric_features and categorical_features, or name another run."
            )
        if _images(config) != _images(own):
            raise InputError(
                f"{start} sees other images of a row (data.image {own.data.image}) than this run: name a run with the "
                f"same number of images and channels, in the same order."
            )
        for name in ("preprocess", "image_rules"):
            if config.data.loading[name] != own.data.loading[name]:
                raise InputError(
                    f"{start} was trained with another data.loading.{name} than this run has, and gets its images: set "
                    f"data.loading.{name} as there, or name another run."
                )

    def check_unseen(self, data: CSVDataModule) -> None:
        """Checks that no network labels for a fold that was trained on a row which the fold scores.

        Args:
            data: The rows and folds of the run that learns.

        Raises:
            InputError: One was, by the rows' ids; or a fold has no network.
        """
        folds = range(int(data.fold_of_row.max()) + 1)
        for fold in folds:
            self.trainings(fold)
        for fold in folds:
            was_seen = is_trained_on(verify(self.run.folds), fold)
            rows = np.flatnonzero(data.is_scored & (data.fold_of_row == fold)).tolist()
            held_out = [data.train_table.ids[row] for row in rows]
            others = [id for id in held_out if was_seen.get(id, True)]
            if others:
                raise InputError(
                    f"{self.key} {self.named}: its fold {fold} does not hold out {len(others)} of the "
                    f"{number_of(len(held_out), 'row')} that fold {fold} scores here, such as id '{others[0]}': what "
                    f"it says of them would make the score too good. {self._fix()}"
                )
            leak = None
            with suppress(InputError):  # what it started from may be gone
                leak = find_leak(self.experiment.config, data, fold)
            if leak:
                raise InputError(
                    f"{self.key} {self.named}: its fold {fold} started from weights (its model.pretrained: "
                    f"{leak.file}) that were trained on {leak.rows} of the {number_of(leak.held_out, 'row')} that fold "
                    f"{fold} scores here. Name another run."
                )

    def describe(self) -> str:
        """What labels which fold."""
        several = "" if self.experiment.config.seeds is None else ", as the mean of its seeds"
        what = "learns from" if self.key == DISTILL else "gets labels from"
        return f"{self.key} {self.named}: each fold {what} its network of the same fold{several}"

    def _fix(self) -> str:
        return f"Use its folds: data.folds.file: {self.run.folds}."

    def hashes(self) -> dict[str, str]:
        """The committed SHA-256 of its files that decide what it predicts, by their path in its folder."""
        folds = [self.run.fold(name).weights for name in self.run.planned_folds()]
        return {
            str(path.relative_to(self.run.root)): digest(path) for path in (self.run.config, self.run.schema, *folds)
        }

    def share(self, fold: FoldId) -> float:
        """What its prediction counts among those of the same key, for a training."""
        return self.shares[held_out_by(fold)] if self.shares else 1.0

    def files(self, fold: FoldId) -> list[Path]:
        """The weights of the networks that may label what a training trains on."""
        return [self.run.fold(name).weights for name in self.trainings(fold)]

    def networks(self, fold: FoldId) -> list[ImageModel]:
        """The networks for a training, with verified weights, on the CPU: their attention is chosen where it trains."""
        cpu = torch.device("cpu")
        return [self.experiment.network(self.schema, file, cpu, fast_attention=False) for file in self.files(fold)]


def _metadata(schema: Schema) -> tuple[Any, ...]:
    return schema.numeric_features, schema.categories


def _images(config: Namespace) -> tuple[Any, ...]:
    """What a network sees of a row: the number of images and channels, and the names of images, where they have any."""
    images = row_images(config.data.image)
    return images.for_network, images.names


def teachers_of(experiment: Experiment, absent: Sequence[str] = ()) -> list[TeacherRun]:
    """The runs that an experiment learns from; those of one key count alike, and members of an ensemble by its weights.

    Args:
        experiment: The experiment.
        absent: Folders that are left out: their runs are not there yet.

    Raises:
        InputError: One is no finished run.
    """
    config = experiment.config
    extra = [settings_of(ExtraTable, EXTRA, each).labels for each in plain(config.data.folds.extra or [])]
    given = [
        (DISTILL, named_runs(DISTILL, config.distill.run)),
        *((LABELS, named_runs(LABELS, each)) for each in extra),
    ]
    found: list[TeacherRun] = []
    for key, names in given:
        for name in names:
            if name not in absent and not any((each.key, each.group) == (key, name) for each in found):
                found += _opened(name, key, experiment)
    return found


def _opened(name: str, key: str, student: Experiment) -> list[TeacherRun]:
    """A run, or the members of an ensemble."""
    if not Run.at(Path(name)).is_ensemble:
        return [replace(TeacherRun.open(name, key, student), group=name)]
    folders, shares = blend_of(Run.open(name), key, student.config.get("allow_code"))
    members = zip(folders, zip(*shares.values(), strict=True), strict=True)
    return [
        replace(TeacherRun.open(folder, key, student), group=name, shares=dict(zip(shares, each, strict=True)))
        for folder, each in members
    ]


def by_share(teachers: Sequence[TeacherRun], key: str, names: Sequence[str], fold: FoldId) -> dict[TeacherRun, float]:
    """What labels or teaches a training, with what each counts; the sum is 1, and what counts nothing is left out.

    Args:
        teachers: As of `teachers_of`.
        key: The setting that names them.
        names: The folders that it names.
        fold: The training.
    """
    chosen = [each for each in teachers if each.key == key and each.group in names]
    return {each: each.share(fold) / len(names) for each in chosen if each.share(fold) > 0}


def teacher_of(experiment: Experiment, fold: FoldId, teachers: list[TeacherRun]) -> Teacher | None:
    """The teacher of `distill.run` for a training; None without one.

    Args:
        experiment: The experiment that learns.
        fold: The training.
        teachers: As of `teachers_of`.
    """
    settings = experiment.config.distill
    found = by_share(teachers, DISTILL, named_runs(DISTILL, settings.run), fold)
    nets: list[ImageModel] = []
    sizes, shares = [], list[float]()
    for each, share in found.items():
        own = each.networks(fold)
        nets += own
        sizes += [each.experiment.config.data.image_size] * len(own)
        shares += [share / len(own)] * len(own)
    if not nets:
        return None
    are_alike = max(shares) - min(shares) < 1e-12
    return Teacher(nets, sizes, settings.weight, settings.temperature, None if are_alike else shares)


def _hashes(teachers: Sequence[TeacherRun]) -> Hashes:
    """The SHA-256 of the files that decide what teachers predict."""
    groups = {each.group for each in teachers if each.group != each.named}
    ensembles = {group: {"ensemble.json": digest(Run.open(group).ensemble)} for group in sorted(groups)}
    return {teacher.named: teacher.hashes() for teacher in teachers} | ensembles


def freeze_teachers(run: Run, teachers: list[TeacherRun]) -> None:
    """Records the SHA-256 of the files of a run's teachers, if it has any."""
    if found := _hashes(teachers):
        commit(run.teachers, json.dumps(found, indent=1).encode(), "swinft fit")


def check_teachers(run: Run, teachers: list[TeacherRun]) -> None:
    """Compares the teachers with those at the run's start.

    Raises:
        InputError: A file has changed or is missing: what is left to train would learn from other networks.
    """
    if not teachers:
        return
    frozen: Hashes = json.loads(verify(run.teachers).read_text(encoding="utf-8"))
    key_of = {name: each.key for each in teachers for name in (each.named, each.group)}
    for named, here in _hashes(teachers).items():
        before = frozen.get(named, {})
        if changed := sorted(name for name in {**before, **here} if before.get(name) != here.get(name)):
            raise InputError(
                f"{key_of[named]} {named} has changed since {run.root} was started ({listed(changed)}), and the "
                f"rest of it would learn from other networks. Restore that run, or give the new run another --name."
            )
