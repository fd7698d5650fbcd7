"""The built-in rules by name.

Shapes: N rows, K outputs.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal

import numpy as np
import pandas as pd

from swinft.errors import InputError
from swinft.inference.rules.arguments import BuiltinRule
from swinft.inference.rules.rule import Values
from swinft.inference.rules.searches import BELOW
from swinft.ranges import FINITE, POSITIVE

SumHow = Literal["total", "parts", "project"]
GroupHow = Literal["max", "mean", "median", "min", "exclusive"]
AnyHow = Literal["max", "independent"]
HierarchyHow = Literal["lower", "raise"]


class SumRule(BuiltinRule):
    """Makes one number the sum of others.

    Args:
        total: The output that is the sum.
        of: The outputs that are summed.
        how: `total` replaces the total by the sum; `parts` multiplies the parts so that they sum to the total, or, in
            rows with a negative number or a sum of 0, adds the same to each; `project` changes total and parts by the
            same amount, which is the smallest change (least squares).
    """

    name = "sum"
    kinds = ("regression",)

    def __init__(self, total: str, of: list[str], how: SumHow = "total") -> None:
        self.total, self.of, self.how = self._output("total", total), self._outputs("of", of), how
        self._word("how", how, SumHow)
        if total in of:
            raise InputError(f"sum: total '{total}' is also in `of`. Name its parts only.")

    def apply(self, values: Values, rows: pd.DataFrame) -> Values:
        """The numbers, with a total that is the sum of its parts."""
        total, parts = self.outputs.index(self.total), self._chosen(self.of)
        found = values[:, parts].sum(axis=1)
        rest = values[:, total] - found
        if self.how == "total":
            values[:, total] = found
        elif self.how == "project":
            values[:, parts] += rest[:, None] / (len(parts) + 1)
            values[:, total] = values[:, parts].sum(axis=1)
        else:
            scales = (values[:, [total, *parts]] >= 0).all(axis=1) & (found > 0)
            values[np.ix_(~scales, parts)] += rest[~scales, None] / len(parts)
            values[np.ix_(scales, parts)] *= (values[scales, total] / found[scales])[:, None]
        return values


class ClipRule(BuiltinRule):
    """Limits values.

    Args:
        min: Lowest value; None for no limit.
        max: Highest value; None for no limit.
        of: The outputs to limit; None for all.
    """

    name = "clip"

    def __init__(self, min: float | None = None, max: float | None = None, of: list[str] | None = None) -> None:
        self._number("min", min, FINITE)
        self._number("max", max, FINITE)
        self.of = None if of is None else self._outputs("of", of)
        if min is None and max is None:
            raise InputError("clip: give the lowest value as `min`, the highest one as `max`, or both.")
        self.limits = (-math.inf if min is None else float(min), math.inf if max is None else float(max))
        if not self.limits[0] < self.limits[1]:
            raise InputError(f"clip: min is {min} and max is {max}. The first must be below the second.")

    def refusal(self) -> str:
        """Unknown outputs, and limits of probabilities outside 0–1."""
        outside = [limit for limit in self.limits if math.isfinite(limit) and not 0 <= limit <= 1]
        if self.schema.base.are_probabilities and outside:
            return f"{outside[0]:g} is no limit of probabilities, which are in 0–1."
        return super().refusal()

    def apply(self, values: Values, rows: pd.DataFrame) -> Values:
        """The values within the limits."""
        chosen = self._chosen(self.of)
        values[:, chosen] = np.clip(values[:, chosen], *self.limits)
        return values


class PowerRule(BuiltinRule):
    """Raises probabilities to a power: above 1 it sharpens them, below 1 it flattens them.

    Args:
        exponent: The power, above 0.
        of: The outputs to change; None for all.
        normalize: Whether each row is then divided by its sum; None to do so for classes, and not for labels.
    """

    name = "power"
    kinds = ("classification", "multilabel")

    def __init__(self, exponent: float, of: list[str] | None = None, normalize: bool | None = None) -> None:
        self._number("exponent", exponent, POSITIVE)
        self.exponent, self.normalize = exponent, normalize
        self.of = None if of is None else self._outputs("of", of)
        if normalize not in (None, True, False):
            raise InputError(f"power: normalize is {normalize!r}. Allowed: true, false, null.")

    def apply(self, values: Values, rows: pd.DataFrame) -> Values:
        """The powers of the probabilities."""
        chosen = self._chosen(self.of)
        divides = self.schema.base.are_classes if self.normalize is None else self.normalize
        if divides and self.of is None:  # of large powers, all would be 0; the sum that divides them cancels this
            values = values / values.max(axis=1, keepdims=True)
        values[:, chosen] = np.clip(values[:, chosen], 0, None) ** self.exponent
        return values / values.sum(axis=1, keepdims=True) if divides else values


class NormalizeRule(BuiltinRule):
    """Divides values by their sum in each row.

    Args:
        of: The outputs that are summed and divided; None for all.
        without: Outputs that are neither; None for none.
    """

    name = "normalize"

    def __init__(self, of: list[str] | None = None, without: list[str] | None = None) -> None:
        self.of = None if of is None else self._outputs("of", of)
        self.without = [] if without is None else self._outputs("without", without)

    def refusal(self) -> str:
        """Unknown outputs, or none that is left."""
        left = {*(self.outputs if self.of is None else self.of)} - {*self.without}
        return super().refusal() or ("" if left else "no output is left.")

    def apply(self, values: Values, rows: pd.DataFrame) -> Values:
        """The values divided by the sum of their row."""
        chosen = [k for k in self._chosen(self.of) if self.outputs[k] not in self.without]
        values[:, chosen] /= values[:, chosen].sum(axis=1, keepdims=True)
        return values


class GroupRule(BuiltinRule):
    """Joins the predictions of rows that belong together, such as the images of a patient.

    A row with an empty cell belongs to no group. A row without a prediction of its own gets that of its group. Of
    out-of-fold predictions, only those of one fold are joined.

    Args:
        by: Column of the groups' names.
        how: `max`, `mean`, `median` or `min` of the group's predictions for all of its rows; `exclusive`: at most one
            row of a group is positive, so that probabilities whose sum exceeds 1 are divided by it.
        of: The outputs to join; None for all.
    """

    name = "group"

    def __init__(self, by: str, how: GroupHow = "mean", of: list[str] | None = None) -> None:
        self.columns = self._texts("by", [by])
        self.of = None if of is None else self._outputs("of", of)
        self.how = how
        self._word("how", how, GroupHow)

    def refusal(self) -> str:
        """Unknown outputs, and numbers that are no probabilities."""
        if self.how == "exclusive" and not self.schema.base.are_probabilities:
            return "how: exclusive is for probabilities, and these outputs are numbers."
        return super().refusal()

    def apply(self, values: Values, rows: pd.DataFrame) -> Values:
        """The predictions of each group."""
        members: dict[str, list[int]] = defaultdict(list)
        for row, name in enumerate(rows[self.columns[0]]):
            members[name].append(row)
        members.pop("", None)
        join: dict[str, Any] = {"max": np.max, "mean": np.mean, "median": np.median, "min": np.min}
        chosen = np.array(self._chosen(self.of))
        for found in map(np.array, members.values()):
            group, own = np.ix_(found, chosen), found[self.is_own[found]]
            if self.how == "exclusive":
                values[group] /= np.maximum(values[group].sum(axis=0), 1)
            elif len(own):
                values[group] = join[self.how](values[np.ix_(own, chosen)], axis=0)
        return values


class ExclusiveRule(BuiltinRule):
    """At most one of several labels is positive: probabilities whose sum exceeds 1 are divided by it.

    Args:
        of: The labels, two or more.
    """

    name = "exclusive"
    kinds = ("multilabel",)

    def __init__(self, of: list[str]) -> None:
        self.of = self._outputs("of", of)
        if len(self.of) < 2:
            raise InputError(f"exclusive: of is {self.of}. Name two labels or more.")

    def apply(self, values: Values, rows: pd.DataFrame) -> Values:
        """The probabilities, which sum to at most 1."""
        chosen = self._chosen(self.of)
        values[:, chosen] /= np.maximum(values[:, chosen].sum(axis=1, keepdims=True), 1)
        return values


class AloneRule(BuiltinRule):
    """A label that excludes all others: where it is the most probable one, they fall below 0.5; elsewhere it does.

    Args:
        of: Labels that exclude all others, such as `healthy`.
    """

    name = "alone"
    kinds = ("multilabel",)

    def __init__(self, of: list[str]) -> None:
        self.of = self._outputs("of", of)

    def refusal(self) -> str:
        """Unknown labels, or no other one."""
        return super().refusal() or ("there is no other label." if len(self.of) == len(self.outputs) else "")

    def apply(self, values: Values, rows: pd.DataFrame) -> Values:
        """The probabilities, of which at most one label of `of`, or others alone, are 0.5 or more."""
        best, low = values.argmax(axis=1), np.minimum(values, BELOW)
        for k in self._chosen(self.of):
            values[best != k, k] = low[best != k, k]
            values[best == k] = np.where(np.arange(values.shape[1]) == k, values[best == k], low[best == k])
        return values


class AnyRule(BuiltinRule):
    """Makes one label positive where any of others is.

    Args:
        label: The label to replace.
        of: The other labels; None for all others.
        how: `max` of their probabilities, or `independent`: one minus the product of one minus each.
    """

    name = "any"
    kinds = ("multilabel",)

    def __init__(self, label: str, of: list[str] | None = None, how: AnyHow = "max") -> None:
        self.label, self.how = self._output("label", label), how
        self.of = None if of is None else self._outputs("of", of)
        self._word("how", how, AnyHow)
        if label in (of or ()):
            raise InputError(f"any: label '{label}' is also in `of`. Name the others only.")

    def refusal(self) -> str:
        """Unknown labels, or a single one."""
        return super().refusal() or ("there is no other label." if len(self.outputs) == 1 else "")

    def apply(self, values: Values, rows: pd.DataFrame) -> Values:
        """The probabilities, with that of any label."""
        others = [k for k in self._chosen(self.of) if self.outputs[k] != self.label]
        found = values[:, others].max(axis=1) if self.how == "max" else 1 - (1 - values[:, others]).prod(axis=1)
        values[:, self.outputs.index(self.label)] = found
        return values


class HierarchyRule(BuiltinRule):
    """A label implies its parent: its probability is at most that of the parent.

    Args:
        parents: The parent of each label that has one: `{melanoma: malignant}`.
        how: `lower` the label's probability to the parent's, or `raise` the parent's to the label's.
    """

    name = "hierarchy"
    kinds = ("multilabel",)

    def __init__(self, parents: dict[str, str], how: HierarchyHow = "lower") -> None:
        if not isinstance(parents, Mapping):
            raise InputError(f"hierarchy: parents is {parents!r}. Give the parent of labels: {{melanoma: malignant}}.")
        self._outputs("parents", list(parents))
        self._outputs("parents", list(dict.fromkeys(parents.values())))
        self._word("how", how, HierarchyHow)
        self.parents, self.how = dict(parents), how
        try:  # parents come before their children
            self.order = list(TopologicalSorter({child: [parent] for child, parent in parents.items()}).static_order())
        except CycleError as error:
            raise InputError(f"hierarchy: {' is below '.join(error.args[1])}: no label is its own parent.") from None

    def apply(self, values: Values, rows: pd.DataFrame) -> Values:
        """The probabilities, none above its parent's."""
        children = [name for name in self.order if name in self.parents]
        for child in children if self.how == "lower" else reversed(children):
            below, above = self.outputs.index(child), self.outputs.index(self.parents[child])
            if self.how == "lower":
                values[:, below] = np.minimum(values[:, below], values[:, above])
            else:
                values[:, above] = np.maximum(values[:, below], values[:, above])
        return values
