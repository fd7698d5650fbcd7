"""Formats of a submission's cells: numbers, one class, a set of labels, or a 0 or 1 per label.

Shapes: N rows, K outputs.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.class_spec import InitArgsMixin, class_path_of
from swinft.errors import InputError, number_of
from swinft.model.grades import to_grades, to_label_sets

Values = NDArray[np.float64]
SHOWN_WORDS = 6  # shown of a list in a message
SUM_SLACK = 1e-5  # some competitions refuse rows whose sum is further from 1


class SubmissionFormat(InitArgsMixin):
    """A format of a submission's columns. A custom format derives from it and implements `cells`.

    `outputs`, `columns` and `sample_words` are not set in `__init__`, only when the other methods are called.
    """

    name: str
    """Its name in `submission.format`; for a custom format its class path."""

    kinds: Sequence[str] = ("classification", "regression", "multilabel")
    """The kinds of target that it supports."""

    outputs: list[str]
    """Names of the K outputs."""

    sample_words: Mapping[str, Sequence[str]]
    """The distinct cells of the sample submission, by column to fill."""

    _columns: Sequence[str] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not {"name"} & {
            *vars(cls),
            *vars(cls).get("__annotations__", {}),
        }:  # a dataclass's field has an annotation only
            cls.name = class_path_of(cls)

    @property
    def columns(self) -> list[str]:
        """The columns that it fills."""
        return list(self._columns)

    def refusal(self) -> str:
        """Why it cannot fill these columns with these outputs; empty if it can."""
        return ""

    def cells(self, values: Values) -> dict[str, list[str]]:
        """Converts predictions (N, K), in the competition's units and the sample's order, to N cells per column."""
        raise NotImplementedError

    def problem(self, column: str, cell: str) -> str:
        """The problem of a cell that was read back; empty if it is valid."""
        return ""

    def changes(self, values: Values) -> list[str]:
        """Notes on predictions that were changed or look wrong; one line each."""
        return []

    def describe(self) -> str:
        """A description for messages."""
        return f"{self.name} in {shown_words(self.columns)}"

    def filling(
        self, columns: Sequence[str], outputs: Sequence[str], words: Mapping[str, Sequence[str]]
    ) -> "SubmissionFormat":
        """A copy with the columns to fill, the outputs, and the words of the sample."""
        filling = copy.copy(self)
        filling._columns, filling.outputs, filling.sample_words = list(columns), list(outputs), dict(words)
        return filling


@dataclass(frozen=True)
class Numbers(SubmissionFormat):
    """Probabilities, numbers or whole numbers: a column per output.

    Args:
        name: `probabilities`, `number` or `integer`.
        outputs: The K outputs.
        filled: Index of the output, by column.
        clip: Smallest and largest whole number of each output, (K, 2); None for no limit.
        limits: Range of the training targets (K, 2), outside which values are counted; None if unknown.
        sums_to_one: Whether the sample's rows sum to one.
        sum_metric: The metric whose scorer refuses other rows; empty if there is none.
    """

    name: str
    outputs: list[str]
    filled: dict[str, int]
    clip: NDArray[np.float64] | None = None
    limits: NDArray[np.float64] | None = None
    sums_to_one: bool = False
    sum_metric: str = ""

    @property
    def columns(self) -> list[str]:
        """The columns that it fills."""
        return list(self.filled)

    def cells(self, values: Values) -> dict[str, list[str]]:
        """Converts predictions (N, K) to N cells per column."""
        written = self._written(values)
        # Nine digits represent every float32 exactly.
        digits = ".0f" if self.name == "integer" else ".9g"
        return {column: [format(value, digits) for value in written[:, k]] for column, k in self.filled.items()}

    def problem(self, column: str, cell: str) -> str:
        """A cell must be a finite number within its limits, and whole for `integer`."""
        try:
            number = float(cell)
        except ValueError:
            return f"'{cell}' is not a number"
        if not math.isfinite(number):
            return f"'{cell}' is not finite"
        if cell.startswith("-0") and number == 0:
            return f"'{cell}' is a zero with a sign"
        if self.name == "integer" and (number != round(number) or not cell.lstrip("-").isdigit()):
            return f"'{cell}' is not a whole number"
        if self.name == "probabilities" and not 0 <= number <= 1:
            return f"'{cell}' is not in 0–1"
        if self.clip is None:
            return ""
        low, high = self.clip[self.filled[column]]
        return "" if low <= number <= high else f"'{cell}' is not in {low:g}–{high:g}"

    def changes(self, values: Values) -> list[str]:
        """Counts values that are clipped or outside the training targets' range, and checks the sums of rows."""
        lines = []
        chosen = list(self.filled.values())
        limits = self.limits if self.clip is None else self.clip
        if limits is not None:
            rounded = np.rint(values) if self.name == "integer" else values
            low, high = limits[chosen].T
            outside = int(((rounded[:, chosen] < low) | (rounded[:, chosen] > high)).sum())
            what = "clipped to" if self.clip is not None else "outside the training targets' range"
            shown = ", ".join(dict.fromkeys(f"{low:g}–{high:g}" for low, high in limits[chosen]))
            lines += (
                [f"{outside:,} of {number_of(len(values) * len(chosen), 'value is', 'values are')} {what} {shown}"]
                if outside
                else []
            )
        if sums := self._other_sums(values):
            lines.append(f"{sums}; where 1 is required, the rule `normalize` (submission.rules) divides by the sum")
        return lines

    def _other_sums(self, values: Values) -> str:
        """What the rows sum to, where those of the sample sum to one and some of them do not; else empty."""
        sums = self._written(values)[:, list(self.filled.values())].sum(axis=1)
        if not self.sums_to_one or np.abs(sums - 1).max(initial=0) <= SUM_SLACK:
            return ""
        return f"the sample's rows sum to 1, these to {sums.min():.6g}–{sums.max():.6g}"

    def check_sums(self, values: Values) -> None:
        """Refuses rows that the competition's scorer refuses, since they do not sum to one.

        Raises:
            InputError: There are some.
        """
        if self.sum_metric and (sums := self._other_sums(values)):
            raise InputError(
                f"{sums}, which the scorer of {self.sum_metric} refuses; nothing is written. Divide each row by its "
                f"sum: put `normalize` last in submission.rules, or `swinft submit RUN --rules '[normalize]'`."
            )

    def describe(self) -> str:
        """A description for messages."""
        named = [
            column if self.outputs[k] == column else f"{self.outputs[k]} in {column}"
            for column, k in self.filled.items()
        ]
        what = {"probabilities": "the probability of", "number": "numbers:", "integer": "whole numbers:"}[self.name]
        if self.name == "integer" and self.clip is not None and np.isfinite(self.clip).all():
            low, high = self.clip[:, 0].min(), self.clip[:, 1].max()
            what = f"whole numbers {low:g}–{high:g}:"
        return f"{what} {shown_words(named)}"

    def _written(self, values: Values) -> Values:
        """The values (N, K) as they are written."""
        if self.name == "probabilities":
            values = np.clip(values, 0, 1)  # a mean of probabilities may exceed 1 by float32's rounding
        if self.name == "integer":
            low, high = (-np.inf, np.inf) if self.clip is None else self.clip.T
            return to_grades(values, low, high)
        return values + 0.0  # -0.0 + 0.0 is 0.0


@dataclass(frozen=True)
class OneClass(SubmissionFormat):
    """The most probable class, in the sample's spelling.

    Args:
        column: The column that it fills.
        words: The text of each of the K classes.
        name: The name of the format.
    """

    column: str
    words: list[str]
    name: str = "label"

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.words)

    @property
    def columns(self) -> list[str]:
        """The column that it fills."""
        return [self.column]

    def cells(self, values: Values) -> dict[str, list[str]]:
        """Converts probabilities (N, K) to N words."""
        return {self.column: [self.words[k] for k in values.argmax(axis=1)]}

    def problem(self, column: str, cell: str) -> str:
        """A cell must be one of the words."""
        return "" if cell in self._known else f"'{cell}' is not made of {shown_words(self.words)}"

    def describe(self) -> str:
        """A description for messages."""
        return f"the most probable class in {self.column} ({shown_words(self.words)})"


@dataclass(frozen=True)
class LabelSets(SubmissionFormat):
    """The labels above a threshold; the most probable one if there are none.

    Args:
        column: The column that it fills.
        words: The text of each of the K labels.
        threshold: Labels with at least this probability are written.
        delimiter: The text between labels.
        name: The name of the format.
    """

    column: str
    words: list[str]
    threshold: float
    delimiter: str
    name: str = "labels"

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.words)

    @property
    def columns(self) -> list[str]:
        """The column that it fills."""
        return [self.column]

    def cells(self, values: Values) -> dict[str, list[str]]:
        """Converts probabilities (N, K) to N sets of labels."""
        # Kaggle refuses empty cells, and one label is always a better guess.
        chosen = to_label_sets(values, self.threshold, never_empty=True)
        return {self.column: [self.delimiter.join(self.words[k] for k in np.flatnonzero(row)) for row in chosen]}

    def problem(self, column: str, cell: str) -> str:
        """A cell must contain labels, each once."""
        tokens = cell.split(self.delimiter)
        if not self._known.issuperset(tokens):
            return f"'{cell}' is not made of {shown_words(self.words)}"
        return f"'{cell}' contains a label twice" if len(set(tokens)) < len(tokens) else ""

    def changes(self, values: Values) -> list[str]:
        """Rows whose labels are all below the threshold."""
        below = int((values.max(axis=1) < self.threshold).sum()) if len(values) else 0
        if not below:
            return []
        return [
            f"the most probable label is written for {below:,} of {number_of(len(values), 'row')}, whose "
            f"labels are all below {self.threshold:g}"
        ]

    def describe(self) -> str:
        """A description for messages."""
        return (
            f"the labels of {self.threshold:g} and more in {self.column} ({shown_words(self.words)}), joined by "
            f"{self.delimiter!r}"
        )


@dataclass(frozen=True)
class Flags(SubmissionFormat):
    """1 for a label above a threshold, else 0: a column per label.

    Args:
        filled: Index of the label, by column.
        threshold: Labels with at least this probability get a 1.
        name: The name of the format.
    """

    filled: dict[str, int]
    threshold: float
    name: str = "labels"

    @property
    def columns(self) -> list[str]:
        """The columns that it fills."""
        return list(self.filled)

    def cells(self, values: Values) -> dict[str, list[str]]:
        """Converts probabilities (N, K) to N cells per column."""
        return {
            column: ["1" if value >= self.threshold else "0" for value in values[:, k]]
            for column, k in self.filled.items()
        }

    def problem(self, column: str, cell: str) -> str:
        """A cell must be 0 or 1."""
        return "" if cell in ("0", "1") else f"'{cell}' is neither 0 nor 1"

    def describe(self) -> str:
        """A description for messages."""
        return f"1 from a probability of {self.threshold:g}, else 0: {shown_words(self.columns)}"


def shown_words(words: list[str]) -> str:
    """`a, b, c`, or `a, b, c, … (120)`."""
    shown = ", ".join(words[:SHOWN_WORDS])
    return shown if len(words) <= SHOWN_WORDS else f"{shown}, … ({len(words)})"
