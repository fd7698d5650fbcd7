"""The format of masks: run-length encoding in a column of each class."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.masks.rle import Order, decode, encode, parse, text_of
from swinft.data.schema import Schema
from swinft.errors import InputError, number_of
from swinft.inference.maps import Maps, Resize
from swinft.run.layout import Run
from swinft.run.mask_counts import MaskDecision
from swinft.run.mask_fit import fitted
from swinft.run.submission.formats import SubmissionFormat
from swinft.run.submission.plan import SubmissionPlan
from swinft.store import is_committed


@dataclass(frozen=True)
class RunLengths(SubmissionFormat):
    """Masks as run-length encoding; an empty mask is an empty cell.

    Args:
        outputs: The K classes.
        filled: Index of the class, by column.
        order: Of the pixels.
        resize: How images were resized for the network.
        decision: Which pixels are in a mask.
        classes: Of a pixel, as in `swinft.Segmentation`.
        source: Where the decision comes from, in words.
    """

    outputs: list[str]
    filled: dict[str, int]
    order: Order
    resize: Resize
    decision: MaskDecision
    classes: str = "independent"
    source: str = "submission.threshold"
    name = "rle"

    @classmethod
    def of(cls, schema: Schema, filled: dict[str, int], threshold: float) -> "RunLengths":
        """The format of a run's classes, with one threshold for all."""
        decision = MaskDecision.default(len(schema.outputs), threshold)
        how, classes = (schema.masks["order"], schema.masks["resize"]), schema.masks.get("classes", "independent")
        return cls(list(schema.outputs), filled, *how, decision, classes)

    @property
    def columns(self) -> list[str]:
        """The columns that it fills."""
        return list(self.filled)

    def cells(self, values: Any) -> dict[str, list[str]]:
        """Masks of maps; each cell is decoded again, and compared. Without maps, as in an example, masks are empty.

        Raises:
            InputError: A cell does not decode to its mask.
        """
        if not isinstance(values, Maps):
            return {column: [""] * len(values) for column in self.filled}
        found: dict[str, list[str]] = {column: [] for column in self.filled}
        for row in range(len(values)):
            levels = values.decided(row, self.resize, self.classes)
            for column, k in self.filled.items():
                found[column].append(self._cell(levels[k], row, k))
        return found

    def _cell(self, levels: NDArray[np.uint8], row: int, k: int) -> str:
        mask = self.decision.mask(levels, k)
        text = text_of(encode(mask, self.order))
        if not np.array_equal(decode(parse(text), mask.shape, self.order), mask):
            raise InputError(f"the mask of row {row + 1} does not decode to itself; nothing is written.")
        return text

    def problem(self, column: str, cell: str) -> str:
        """A cell must be run-length encoding."""
        try:
            parse(cell)
        except ValueError as error:
            return f"the mask {error}"
        return ""

    def changes(self, values: Any) -> list[str]:
        """Where the threshold comes from, and how many masks are empty."""
        pairs = {column: (self.decision.thresholds[k], self.decision.min_areas[k]) for column, k in self.filled.items()}
        least = "" if self.classes != "independent" else " from {t:g},"
        shown = "; ".join(
            f"{column}{least.format(t=t)} at least {number_of(a, 'pixel')}" for column, (t, a) in pairs.items()
        )
        empty = sum(cell == "" for cells in self.cells(values).values() for cell in cells)
        return [f"masks ({self.source}): {shown}; {empty:,} of {len(values) * len(self.filled):,} are empty"]

    def describe(self) -> str:
        """A description for messages."""
        named = ", ".join(
            column if self.outputs[k] == column else f"{self.outputs[k]} in {column}"
            for column, k in self.filled.items()
        )
        return f"masks in run-length encoding, pixels counted along the {self.order}: {named}"


def with_decision(plan: SubmissionPlan, run: Run, threshold: float | None, configured: float) -> SubmissionPlan:
    """The plan of masks with the decision of an option, of the config, or fitted out of fold; others as they are.

    Args:
        plan: The plan.
        run: The run.
        threshold: The option `--threshold`, if it was given.
        configured: `submission.threshold`.

    Raises:
        InputError: There is no threshold, as each pixel has one class.
    """
    form = plan.format
    if not isinstance(form, RunLengths):
        return plan
    classes = len(form.outputs)
    if threshold is not None and form.classes != "independent":
        raise InputError("--threshold: each pixel has its most probable class, for which there is none. Remove it.")
    if threshold is not None:
        return replace(
            plan, format=replace(form, decision=MaskDecision.default(classes, threshold), source="--threshold")
        )
    found = fitted(run.read_scores(), form.outputs) if is_committed(run.scores) else None
    if found is None or configured != MaskDecision.default(1).thresholds[0]:
        return replace(plan, format=replace(form, decision=MaskDecision.default(classes, configured)))
    return replace(plan, format=replace(form, decision=found, source="fitted on the out-of-fold predictions"))
