"""Auxiliary targets: other columns of the training table, which are used in training only.

Shapes: N rows, K outputs of one target.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from numpy.typing import NDArray

from swinft.data.tables.table import Problem, Table
from swinft.data.tables.text import TextRules
from swinft.data.target.base import TargetCells, missing_notes
from swinft.data.target.gaps import all_missing, encode_known, has_target
from swinft.data.target.kinds import TargetKind, target_columns, target_of
from swinft.errors import InputError
from swinft.ranges import POSITIVE, SettingsError, range_problems, settings_of, text_problems, word_problems

KEY = "data.columns.auxiliary"


@dataclass(frozen=True)
class AuxiliaryTarget:
    """A further target, which the network learns in training with a head of its own; it is never predicted.

    Args:
        target: Its column, or columns, as in `data.target`. A row that lacks it adds nothing to its loss.
        target_kind: What it is: `classification`, `regression` or `multilabel`.
        weight: Factor on its loss, above 0; the loss of `data.target` has 1.
        label_delimiter: As in `data.columns.label_delimiter`.
        head: Its head, as `class_path` and `init_args`, as in `model.head`; null for the head of its kind.
        name: Names it in `metrics.jsonl`, as `val_{name}_loss`; null for its columns.

    Raises:
        InputError: A value is wrong; all of them are listed.
    """

    target: str | list[str]
    target_kind: TargetKind
    weight: float = 1.0
    label_delimiter: str | None = None
    head: dict[str, Any] | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        """Checks the values."""
        kinds = [kind for kind in get_args(TargetKind) if kind != "segmentation"]  # masks need a head of their own
        problems = word_problems(KEY, vars(self), {"target_kind": kinds})
        problems += text_problems(KEY, vars(self), (), ("label_delimiter", "name"))
        number: Any = self.weight
        if isinstance(number, bool) or not isinstance(number, int | float):
            problems.append(f"{KEY}.weight is {number!r}. Allowed: {POSITIVE}.")
        else:
            problems += range_problems(KEY, vars(self), {"weight": POSITIVE})
        given: Any = self.target
        columns = [given] if isinstance(given, str) else given
        if not isinstance(columns, list) or not columns or not all(isinstance(name, str) and name for name in columns):
            problems.append(f"{KEY}.target is {given!r}; write a column, or a list of columns.")
        if self.head is not None and not (isinstance(self.head, dict) and "class_path" in self.head):
            problems.append(f"{KEY}.head is {self.head!r}; write its class_path, and its arguments as init_args.")
        if not problems:
            try:
                self.columns  # noqa: B018  # checked in passing
            except InputError as error:
                problems.append(str(error))
        if problems:
            raise SettingsError(problems)

    @property
    def label(self) -> str:
        """Its name."""
        return self.name or (self.target if isinstance(self.target, str) else "+".join(self.target))

    @property
    def columns(self) -> list[str]:
        """Its columns.

        Raises:
            InputError: They do not fit its kind.
        """
        try:
            return target_columns(target_of(self.target_kind, self.target), self.target, self.label_delimiter)
        except InputError as error:
            said = str(error).replace("data.columns.label_delimiter", f"{KEY}.label_delimiter")
            raise InputError(said.replace("data.target", f"{KEY}.target")) from error


def auxiliary_of(given: Any) -> list[AuxiliaryTarget]:
    """The setting `data.columns.auxiliary`: objects, or dictionaries of their fields.

    Raises:
        SettingsError: It is no list, or one of them is wrong.
    """
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise SettingsError([f"{KEY} is {given!r}; write a list, like [{{target: age, target_kind: regression}}]."])
    made = [settings_of(AuxiliaryTarget, KEY, each) for each in given]
    names = [each.label for each in made]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise SettingsError([f"{KEY} has '{name}' twice; give one of them another name." for name in doubled])
    return made


def read_auxiliary(
    given: AuxiliaryTarget, table: Table, rules: TextRules, problems: list[Problem], notes: list[str]
) -> tuple[dict[str, Any], NDArray[Any]]:
    """Reads the targets of a training table.

    Args:
        given: Which ones.
        table: N rows.
        rules: How names are read.
        problems: Whatever is wrong is appended.
        notes: Columns with missing targets are appended.

    Returns:
        What a schema keeps of it, and the targets: int64 (N,), −1 where missing, or float32 (N, K), NaN where missing.
    """
    kind = target_of(given.target_kind, given.target)
    cells = TargetCells(table, given.columns, given.label_delimiter, rules)
    outputs = list(kind.outputs(cells, None))
    before = len(problems)
    targets = encode_known(kind, cells, outputs, problems, notes)
    is_known = has_target(targets)
    if len(problems) == before:
        problems += kind.training_problems(cells, targets[is_known], outputs)
    if given.label_delimiter is None:
        notes += missing_notes(table, given.columns, rules)
    kept = {"name": given.label, "kind": given.target_kind, "outputs": outputs}
    return {**kept, "weight": float(given.weight), "head": given.head}, targets


def read_more_auxiliary(
    given: AuxiliaryTarget, outputs: Sequence[str], table: Table, rules: TextRules, problems: list[Problem]
) -> NDArray[Any]:
    """Reads the targets of another table; they are missing in all of its rows if it lacks the columns.

    Args:
        given: Which ones.
        outputs: Their outputs in the training table.
        table: N rows.
        rules: How names are read.
        problems: Whatever is wrong is appended; so are classes and labels that the training table does not have.
    """
    kind = target_of(given.target_kind, given.target)
    if any(name not in table.columns for name in given.columns):
        return all_missing(kind, len(table), len(outputs))
    cells = TargetCells(table, given.columns, given.label_delimiter, rules)
    return encode_known(kind, cells, outputs, problems, is_answer=True)
