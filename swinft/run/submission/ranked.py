"""The format `top_k`: the most probable classes in one cell, the best first.

Shapes: N rows, K outputs.
"""

import copy
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from swinft.errors import InputError, number_of
from swinft.model.metrics.base import row_blocks
from swinft.model.metrics.classes import MAPAtK
from swinft.ranges import UNIT, check_ranges, check_whole
from swinft.run.submission.formats import SubmissionFormat, Values, shown_words

USUAL = 5  # of mean average precision at 5
CELLS = 2**24  # of predictions that are sorted at once


class TopK(SubmissionFormat):
    """The k most probable classes, the best first. Of equally probable ones the first by the order of the classes.

    Args:
        k: Number of classes; null for as many as the sample's cells have, or 5.
        delimiter: Text between classes.
        new: A word for a class that no training row has, as `new_whale`: it comes before the classes whose probability
            is below the threshold.
        threshold: See `new`; in 0–1. The rule `new_class` moves a fitted one to 0.5.
    """

    name = "top_k"
    kinds = ("classification", "multilabel")

    def __init__(
        self, k: int | None = None, delimiter: str = " ", new: str | None = None, threshold: float = 0.5
    ) -> None:
        if k is not None:
            check_whole("submission.format: top_k", "k", k)
        if not isinstance(delimiter, str) or not delimiter:
            raise InputError(f"submission.format: top_k: delimiter is {delimiter!r}. Write the text between classes.")
        if new is not None and (not isinstance(new, str) or not new or delimiter in new):
            raise InputError(f"submission.format: top_k: new is {new!r}. Write a word without {delimiter!r} in it.")
        check_ranges("submission.format: top_k", {"threshold": threshold}, {"threshold": UNIT})
        if new is None and threshold != 0.5:
            raise InputError("submission.format: top_k: threshold is for the answer `new`. Give both of them, or none.")
        self.k, self.delimiter, self.new, self.threshold = k, delimiter, new, threshold
        self.words: list[str] = []
        self._known = frozenset[str]()  # what a cell may contain

    def with_words(self, words: Sequence[str], k: int) -> "TopK":
        """A copy with the text of each output, and the number of classes."""
        copied = copy.copy(self)
        copied.words, copied.k = list(words), k
        copied._known = frozenset([*copied.words, *([self.new] if self.new is not None else [])])
        return copied

    def refusal(self) -> str:
        """Several columns, or words that contain the delimiter."""
        if len(self.columns) != 1:
            return f"it fills one column, not {self.columns}. List the others in submission.keep."
        holding = [word for word in self.words if self.delimiter in word]
        if holding:
            return (
                f"the classes {holding[:5]} contain {self.delimiter!r}, the delimiter: the competition would read them "
                f"as several. Set submission.words for them, or the format's delimiter."
            )
        return ""

    def cells(self, values: Values) -> dict[str, list[str]]:
        """Converts probabilities (N, K) to N lists of classes."""
        words, found = [*self.words, *([self.new] if self.new else [])], list[str]()
        for rows in row_blocks(len(values), values.shape[1], CELLS):
            best = self._best(values[rows])
            found += [self.delimiter.join(words[k] for k in row) for row in best.tolist()]
        return {self.columns[0]: found}

    def _best(self, values: Values) -> NDArray[np.int64]:
        """The positions of the best, (N, k); K is that of the new class."""
        if self.new is not None:
            if self.new in self.words:  # the training rows have such a class, too: its threshold counts
                values = values.copy()
                values[:, self.words.index(self.new)] = -np.inf
            # It comes before what is below the threshold, and after what is equal to it.
            values = np.concatenate([values, np.full((len(values), 1), self.threshold)], 1)
        return np.argsort(-values, axis=1, kind="stable")[:, : self.k]

    def problem(self, column: str, cell: str) -> str:
        """A cell must contain at most k known classes, each once."""
        tokens = cell.split(self.delimiter)
        if unknown := [token for token in tokens if token not in self._known]:
            return f"'{cell}' contains '{unknown[0]}', which is none of {shown_words(self.words)}"
        if len(set(tokens)) < len(tokens):
            return f"'{cell}' contains a class twice"
        return f"'{cell}' has {len(tokens)} classes, more than {self.k}" if len(tokens) > (self.k or USUAL) else ""

    def changes(self, values: Values) -> list[str]:
        """Rows for which the new class is the best."""
        if self.new is None or not len(values):
            return []
        first = int((self._best(values)[:, 0] == values.shape[1]).sum())
        return [f"'{self.new}' comes first in {first:,} of {number_of(len(values), 'row')}"]

    def describe(self) -> str:
        """A description for messages."""
        new = f", with {self.new} before those below {self.threshold:g}" if self.new else ""
        return (
            f"the {self.k} most probable classes in {self.columns[0]} ({shown_words(self.words)}){new}, joined by "
            f"{self.delimiter!r}"
        )


def disagreement(form: SubmissionFormat, metric: object) -> str:
    """How a metric of ranked classes, `map_at_k`, ranks otherwise than the submission; empty if it does not."""
    if not isinstance(form, TopK) or not isinstance(metric, MAPAtK):
        return ""
    pairs: dict[str, tuple[object, object]] = {"k": (form.k, metric.k), "new": (form.new, metric.new)}
    if form.new and metric.new:
        pairs["threshold"] = form.threshold, metric.threshold
    odd = [f"{name} {own} where the metric has {other}" for name, (own, other) in pairs.items() if own != other]
    return f"the score is not that of the submission, which has {', '.join(odd)} (model.metrics)" if odd else ""


def ranked_tokens(cells: Sequence[str], delimiter: str) -> list[list[str]] | None:
    """The words of cells that all have the same number of them, two or more, each once; None for other cells."""
    tokens = [cell.split(delimiter) for cell in cells]
    same = len({len(each) for each in tokens}) == 1 and len(tokens[0]) > 1
    return tokens if same and all(each and len(set(each)) == len(each) for each in tokens) else None


FORMATS: Mapping[str, type[SubmissionFormat]] = {TopK.name: TopK}
