"""The base class of all metrics, that of the built-in ones, and checks of their arguments.

A metric is a function of all predictions and targets at once, in the competition's units and in float64. The mean of
batch or fold scores would be another number, and float32 is too coarse for years and prices.

Shapes: N rows, K outputs.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from swinft.class_spec import InitArgsMixin
from swinft.errors import InputError, listed, suggest
from swinft.ranges import NOT_NEGATIVE, Range

Array = NDArray[Any]
KEY = "model.metrics"
CELLS = 2**22  # predictions of which copies in float64, or comparisons, are in memory at once
CLASSES, NUMBERS, LABELS = ("classification",), ("regression",), ("multilabel",)


class Metric(InitArgsMixin, ABC):
    """Scores predictions. A custom metric derives from it, and must define `higher_is_better` and `compute`."""

    kinds: Sequence[str] = ("classification", "regression", "multilabel")
    """The kinds of target that it can score."""

    higher_is_better: bool
    """Whether a higher score is better."""

    name: str
    """Name of the score, logged as `val_{name}`; by default the name of the class."""

    columns: Sequence[str] = ()
    """Columns of the table that it reads; `check` compares them with the training table."""

    wants_probabilities: bool = False
    """Whether it scores probabilities, not the most probable class; a submission then has probabilities."""

    needs_probabilities: bool = False
    """Whether it is undefined for predictions outside 0–1, which are then an error."""

    needs_sum_one: bool = False
    """Whether its scorer on Kaggle refuses rows that do not sum to 1: `submit` does so, where the sample's rows do."""

    scores_grades: bool = False
    """Whether it measures the distance between grades: classes need an order, and a submission has whole numbers."""

    scores_soft: bool = False
    """Whether a built-in metric takes soft targets; others get the class of the largest value."""

    compares_order: bool = False
    """Whether only the order of the rows by each output counts, so that ranks score like probabilities."""

    takes_weights: bool = True
    """Whether it uses `weights`; if not, weighted rows are an error."""

    outputs: Sequence[str] = ()
    """Names of the K outputs, set before `compute` is called; empty without a table."""

    grades: Array | None = None
    """The schema's `grades`, set before `compute` is called."""

    weights: Array | None = None
    """What each row counts, float64 (N,) from 0, when `compute` is called; None where all count the same."""

    unseen: Array | None = None
    """Rows whose class no training row of their fold has, bool (N,), when `compute` is called; None if not known."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in vars(cls):
            cls.name = cls.__name__

    def refusal(self, kind: str) -> str:
        """Why it cannot score targets of a kind with these `outputs`, as a sentence; empty if it can."""
        return ""

    @abstractmethod
    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score of N rows.

        Args:
            predictions: float64 (N, K) in the competition's units: probabilities of classes or labels, or numbers.
            targets: int64 (N,) for classification, or float64 (N, K) if they are soft; else
                float64 (N, K), NaN where a row lacks one of several targets.
            rows: pandas DataFrame of N rows with the table's columns as text, `""` for an empty cell; None if there is
                no table, as with loaders that do not come from a datamodule.

        Returns:
            The score; NaN if it is undefined. Infinity also counts as undefined.
        """


class BuiltinMetric(Metric):
    """A metric with a name; its arguments, if it has any, are those of its constructor."""

    gaps: ClassVar[Literal["columns", "own", "none"]] = "columns"
    """What happens to rows that lack some targets: each column is scored alone over the rows that have it, and the mean
    is taken; or the metric gets NaN; or it cannot score them."""

    takes_float32: ClassVar[bool] = False
    """Whether predictions of classes may be float32: it converts what it computes with, some rows at a time. Of many
    classes, float64 copies would be the largest part of the memory."""

    def undefined_outputs(self, targets: Array) -> list[str]:
        """Outputs that do not count, since their score is not defined for these targets."""
        return []

    def _number(self, key: str, given: Any, allowed: Range, whole: bool = False) -> Any:
        """An argument that is a number.

        Raises:
            InputError: It is not, or out of its range.
        """
        is_number = isinstance(given, int if whole else int | float) and not isinstance(given, bool)
        if not is_number or given not in allowed:
            kind = f"a whole number from {allowed.low:g}" if whole else str(allowed)
            raise InputError(f"{self.name}: {key} is {given!r}. Allowed: {kind}.")
        return given

    def _word(self, key: str, given: Any, words: Sequence[Any]) -> Any:
        """An argument that is one of several words, true, false or null.

        Raises:
            InputError: It is not.
        """
        if not any(given is word or (isinstance(word, str) and given == word) for word in words):
            shown = [
                word if isinstance(word, str) else {True: "true", False: "false", None: "null"}[word] for word in words
            ]
            raise InputError(f"{self.name}: {key} is {given!r}.{suggest(str(given), shown)}")
        return given

    def _name(self, key: str, given: Any) -> str:
        """An argument that is a name: text, or a whole number below 10, which YAML reads as a number.

        Raises:
            InputError: It is anything else; 10 may have been written as 010.
        """
        if isinstance(given, int) and not isinstance(given, bool) and 0 <= given < 10:
            return str(given)
        if not isinstance(given, str) or not given:
            raise InputError(f"{self.name}: {key} is {given!r}, which is not text. Put the name in quotes.")
        return given

    def _weights(self, key: str, given: Any, others: float = 0.0) -> dict[str, float]:
        """An argument that gives names a weight from 0, of which one is above 0, or the weight of all others is.

        Raises:
            InputError: It does not.
        """
        if not isinstance(given, Mapping) or not given:
            raise InputError(f"{self.name}: {key} is {given!r}. Give each name a weight: {{first: 0.5, second: 2}}.")
        found = {
            self._name(key, name): float(self._number(f"{key}.{name}", each, NOT_NEGATIVE))
            for name, each in given.items()
        }
        if not any(found.values()) and not others:
            raise InputError(f"{self.name}: {key} is 0 for all names. Give one of them a weight above 0.")
        return found

    def _unknown(self, names: Sequence[str]) -> str:
        """What is wrong with names of outputs; empty if they are known."""
        if names and not self.outputs:
            return f"it names the output '{names[0]}', and without a table the outputs have no names."
        unknown = [name for name in names if name not in self.outputs]
        return " ".join(f"there is no output '{name}'.{suggest(name, self.outputs)}" for name in unknown)

    def _unweighted(self, names: Sequence[str]) -> str:
        """What is wrong with names that should be all outputs; empty if they are."""
        missing = [name for name in self.outputs if name not in names]
        more = f"the outputs {listed(missing)} have no weight: give them one, 0 to leave them out." if missing else ""
        return self._unknown(names) or more


def mean_of_defined(values: Sequence[float]) -> float:
    """Mean of the values that are not NaN; NaN if there is none."""
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


def check_binary(name: str, targets: Array) -> None:
    """Checks that targets are 0 or 1, or NaN.

    Raises:
        InputError: One is not.
    """
    if not (np.isin(targets, (0, 1)) | np.isnan(targets)).all():
        raise InputError(f"{name} needs targets of 0 and 1, and some are between: choose another metric.")


def row_blocks(num_rows: int, num_outputs: int, cells: int = CELLS) -> list[slice]:
    """Parts of the rows whose predictions fit into memory together.

    Args:
        num_rows: N.
        num_outputs: K.
        cells: Predictions of a part; a part has at least one row.
    """
    step = max(1, cells // max(1, num_outputs))
    return [slice(start, start + step) for start in range(0, num_rows, step)]
