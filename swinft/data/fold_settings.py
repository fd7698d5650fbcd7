"""Settings of the folds: how the fold of each training row is made, and what is trained on besides."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from swinft.class_spec import AsWritten
from swinft.data.folds import ALL_ROWS, FoldKind
from swinft.data.tables.steps.make import given_table
from swinft.data.tables.steps.sequence import StepList
from swinft.data.tables.text import as_in_header
from swinft.errors import InputError
from swinft.ranges import (
    INSIDE_UNIT,
    NOT_NEGATIVE,
    UNIT,
    Range,
    SettingsError,
    named_runs,
    range_problems,
    settings_of,
    text_problems,
    whole_problems,
    word_problems,
)

NUM_FOLDS = 5  # the default
EXTRA, CONFIDENCE = "data.folds.extra", "confidence"
RareClasses = Literal["error", "train", "spread"]
Duplicates = Literal["report", "error", "group", "ignore"]
UNGROUPED = ("kfold", "stratified", "multilabel")


@dataclass(frozen=True)
class ExtraTable:
    """A table whose rows every fold trains on and no fold scores.

    Args:
        table: Path of the CSV, relative to `data.root`, or steps that make it; it needs the columns of ids, targets and
            metadata.
        image: Path of a row's image, if it differs from `data.image`.
        weight: Factor on the training loss of its rows, from 0; or `confidence`, for that of the labels of `labels`.
        labels: Folder of another run with the same folds, whose networks label the rows: for each fold those of the
            same number. A list of runs labels with their mean. None for a table with targets.
        kind: `soft` for the predicted probabilities as labels, `hard` for the likeliest class, or for labels 0 or 1.
        min_confidence: Rows whose label is less probable are left out, in 0–1: the likeliest class; of several labels
            the least certain one. None for all rows.

    Raises:
        InputError: A value is wrong; all of them are listed.
    """

    table: str | list[Any]
    image: str | None = None
    weight: float | Literal["confidence"] = 1.0
    labels: str | list[str] | None = None
    kind: Literal["soft", "hard"] = "soft"
    min_confidence: float | None = None
    source: str | StepList = field(init=False, repr=False, compare=False, default="")

    def __post_init__(self) -> None:
        """Checks the values."""
        problems = text_problems(EXTRA, vars(self), (), ("image",))
        try:
            named_runs(f"{EXTRA}.labels", self.labels)
        except SettingsError as error:
            problems += error.problems
        try:
            source = given_table(f"{EXTRA}: table", self.table)
        except InputError as error:
            problems.append(str(error))
        else:
            problems += [f"{EXTRA}: each needs a `table`."] * (not source)
            object.__setattr__(self, "source", source)
        problems += word_problems(EXTRA, vars(self), {"kind": ("soft", "hard")})
        if self.weight != CONFIDENCE and not _is_in(self.weight, NOT_NEGATIVE):
            problems.append(f"{EXTRA}.weight is {self.weight!r}. Allowed: {NOT_NEGATIVE}, or {CONFIDENCE}.")
        if self.min_confidence is not None and not _is_in(self.min_confidence, UNIT):
            problems.append(f"{EXTRA}.min_confidence is {self.min_confidence!r}. Allowed: {UNIT}.")
        if self.labels is None and self.for_labels:
            problems.append(
                f"{EXTRA}: {' and '.join(self.for_labels)} of {self.name} do nothing without `labels`, the run that "
                f"labels its rows: set it, or remove them."
            )
        if problems:
            raise SettingsError(problems)

    @property
    def name(self) -> str:
        """What names the table in messages."""
        return self.table if isinstance(self.table, str) else f"the steps of {EXTRA}"

    @property
    def for_labels(self) -> list[str]:
        """The settings that are for predicted classes and labels, and differ from their defaults."""
        is_set = {"kind": self.kind != "soft", "min_confidence": self.min_confidence is not None}
        return [name for name, given in {**is_set, "weight: confidence": self.weight == CONFIDENCE}.items() if given]

    @property
    def factor(self) -> float:
        """On the training loss of all its rows."""
        return 1.0 if isinstance(self.weight, str) else float(self.weight)


def _is_in(number: Any, allowed: Range) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and number in allowed


@dataclass(frozen=True)
class FoldConfig:
    """The fold of every training row, and which one is held out.

    Args:
        kind: How folds are made: `kfold`, `stratified`, `group`, `stratified_group`, `multilabel`, `multilabel_group`;
            `auto` stratifies by the target, within groups where `group` is set. `holdout` makes one fold in the same
            way, of `fraction` of the rows, and every other row is trained on.
        num: Number of folds; null for 5, or for those that `file` has.
        file: The `folds.csv` of another run, relative to the working folder; replaces `kind`, `num`, `rare_classes` and
            `duplicates: group`.
        group: Column whose equal values must stay in one fold: patient, site, sequence.
        rare_classes: A class with fewer rows than folds, or with rows of a single group, is an `error`; with `train`,
            every fold trains on its rows and no fold scores them, nor the other rows of their groups; with `spread`,
            rows are spread over the folds as any others, also with `file` or `column`: a fold may score classes that it
            has not seen, as a test set with new classes does (metric `map_at_k`).
        duplicates: How to handle equal or similar images: `report` them, raise an `error` if they are in different
            folds, keep them in one fold (`group`), or `ignore` them. Similarity is transitive: the frames of one
            camera are one cluster.
        held_out: The fold that is held out for validation, or -2 for none; a run fits each fold in turn.
        seed: Seed of folds, order and augmentation; `seed` in a config.
        column: Column of the training table with the fold of each row: 0, 1, 2, …, or -1 for rows that every fold
            trains on and no fold scores; replaces the same keys as `file`.
        fraction: Fraction of the rows that `holdout` holds out, between 0 and 1, to within 2 % of it; null for 0.2.
        extra: Tables that every fold trains on and no fold scores, each with `table` and, if they differ, `image` and
            `weight`: [{table: old.csv, image: "old/{id}.jpg", weight: 0.5}]. A row is left out of the folds that hold
            out its image, a similar one, or a row of its group; such rows are counted. Missing metadata is filled as in
            rows to predict. With `labels: runs/teacher` rows need no targets: for each fold, that run's networks of the
            same fold predict them, with `kind` (soft, hard), `min_confidence`, and `weight` a number or `confidence`.
        all: After the folds, train once more on every row, as `swinft fit --fold all` does: for the mean number of
            epochs that the folds predict with, and without a score. `swinft predict --folds all` predicts with it.
        drop: CSV of rows that a fold does not train on, though others score them, relative to the working folder:
            columns `id` and `fold` (a number, or `all`), a line for each; `rounds` writes such files.

    Raises:
        InputError: Settings are wrong or contradict each other; all of them are listed.
    """

    kind: FoldKind = "auto"
    num: int | None = None
    file: str | None = None
    group: str | None = None
    rare_classes: RareClasses = "error"
    duplicates: Duplicates = "report"
    held_out: int = 0
    seed: int = 42
    column: str | None = None
    fraction: float | None = None
    extra: list[dict[str, AsWritten]] | None = None
    all: bool = False
    drop: str | None = None

    def __post_init__(self) -> None:
        """Checks the values that do not depend on other settings."""
        words = {
            "kind": get_args(FoldKind),
            "rare_classes": get_args(RareClasses),
            "duplicates": get_args(Duplicates),
            "all": (True, False),
        }
        lowest = {} if self.num is None else {"num": 2}
        lowest |= {} if self.held_out == ALL_ROWS else {"held_out": 0}
        problems = whole_problems("data.folds", vars(self), lowest)
        problems += text_problems("data.folds", vars(self), (), ("file", "group", "column", "drop"))
        problems += whole_problems("", vars(self), {"seed": 0})
        if self.fraction is not None:
            problems += range_problems("data.folds", vars(self), {"fraction": INSIDE_UNIT})
        problems += word_problems("data.folds", vars(self), words)
        problems += self._extra_problems()
        made = {"kind": self.kind != "auto", "rare_classes": self.rare_classes == "train"}
        made |= {"duplicates": self.duplicates == "group"}
        names = [f"data.folds.{name}" for name, is_set in made.items() if is_set]
        given = [f"data.folds.{name}" for name in ("file", "column") if getattr(self, name)]
        names = [*names, *given[1:], *(["data.folds.fraction"] * (self.fraction is not None))]
        if given and names:
            problems.append(
                f"{given[0]} names the fold of every row, so that {', '.join(names)} cannot act: remove either."
            )
        elif self.kind != "holdout" and self.fraction is not None:
            problems.append("data.folds.fraction is for data.folds.kind holdout; remove it, or set the kind.")
        elif self.kind == "holdout" and self.num is not None:
            problems.append("data.folds.kind is holdout, which makes one fold: remove data.folds.num.")
        elif self.duplicates == "group" and self.kind in UNGROUPED:
            problems.append(
                f"data.folds.duplicates 'group' keeps images that look alike in one fold, and data.folds.kind "
                f"'{self.kind}' would split them: set data.folds.kind to auto, or remove it."
            )
        if problems:
            raise SettingsError(problems)
        for name in ("group", "column"):
            object.__setattr__(self, name, as_in_header(getattr(self, name)))

    def _extra_problems(self) -> list[str]:
        """Problems of `extra`, one sentence each."""
        given: Any = self.extra  # types are not checked in a notebook
        if given is not None and (isinstance(given, str) or not isinstance(given, Sequence)):
            return [f"data.folds.extra is {given!r}; write a list like [{{table: old.csv}}]."]
        try:
            names = [str(each.table) for each in self.extra_tables]
        except SettingsError as error:
            return error.problems
        return [f"data.folds.extra names {name} twice." for name in sorted({*names}) if names.count(name) > 1]

    @property
    def extra_tables(self) -> list[ExtraTable]:
        """`extra` as objects."""
        return [settings_of(ExtraTable, "data.folds.extra", each) for each in self.extra or []]

    @property
    def planned(self) -> int:
        """Number of folds if no file or column gives them."""
        if self.kind == "holdout":
            return 1
        return NUM_FOLDS if self.num is None else self.num

    @property
    def share(self) -> float:
        """Of the rows that a hold-out holds out."""
        return 0.2 if self.fraction is None else self.fraction

    @property
    def is_given(self) -> bool:
        """Whether a file or a column names the fold of every row."""
        return bool(self.file or self.column)

    @property
    def source(self) -> tuple[str, str] | None:
        """The file or column of the folds, and the key that names it; None if they are made."""
        if self.file:
            return self.file, "data.folds.file"
        return (f"column '{self.column}'", "data.folds.column") if self.column else None

    @property
    def spreads(self) -> bool:
        """Whether a fold may score classes that it trains on no row of."""
        return self.rare_classes == "spread"

    @property
    def fewest_of_class(self) -> int:
        """Rows that each class must have, so that every fold can learn and score it; 0 where it need not."""
        is_free = self.is_given or self.kind == "holdout" or self.rare_classes != "error"
        return 0 if is_free else self.planned
