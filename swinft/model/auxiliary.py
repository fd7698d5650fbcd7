"""Auxiliary targets: more heads on the same features, which are used in training only.

Shapes: B batch, N training rows, D features, A auxiliary targets, K outputs of one of them.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from swinft.errors import InputError
from swinft.model.heads import ClassificationHead, Head, MultilabelHead, RegressionHead
from swinft.model.heads.contract import encoded_targets, head_from, row_losses

HEADS: dict[str, type[Head]] = {head.kind: head for head in (ClassificationHead, MultilabelHead, RegressionHead)}
LOGITS = "auxiliary logits.{}"  # their logits, beside the values of the rows
KEY = "auxiliary.{}"  # of the targets of auxiliary target number k in a batch; −1 or NaN where a row lacks them


class AuxiliaryHeads(nn.ModuleList):
    """The heads of the auxiliary targets; a row that lacks a target adds nothing to its loss.

    Args:
        in_features: D.
        targets: For each auxiliary target its `name`, `kind`, `num_outputs`, `weight` of its loss, and `head`: the
            `class_path` and `init_args` of a head, or None for the default of its kind.

    Raises:
        InputError: A head is for another kind of target, or does not accept its arguments.
    """

    def __init__(self, in_features: int, targets: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self.names = [str(each["name"]) for each in targets]
        self.weights = [float(each["weight"]) for each in targets]
        for each in targets:
            self.append(_head_of(each, in_features))

    def check_orders(self, unordered: Collection[str]) -> None:
        """Checks that a head of classes in an order gets such.

        Args:
            unordered: Names of the auxiliary targets whose classes are not numbers.

        Raises:
            InputError: They have no order.
        """
        for name, head in zip(self.names, self, strict=True):
            if head.needs_order and name in unordered:
                raise InputError(
                    f"auxiliary target '{name}': its head {type(head).__name__} is for classes in an order, and its "
                    f"classes are not numbers. Write them as numbers from the lowest (a step `map` in data.train), or "
                    f"choose another head."
                )

    def initialize(self, targets: Sequence[Tensor]) -> None:
        """Calls `initialize` of every head with the targets of the training rows, int64 (N,) or float (N, K).

        Raises:
            InputError: No training row has one of the targets.
        """
        for name, head, of_head in zip(self.names, self, targets, strict=True):
            assert isinstance(head, Head)
            known = known_rows(of_head)
            if not len(known):
                raise InputError(f"auxiliary target '{name}': no training row has it.")
            device = next(head.parameters(), torch.empty(0)).device
            head.initialize(known.to(device))

    def encode(self, batch: Mapping[str, Tensor], size: int) -> dict[str, Tensor]:
        """The encoded targets of a batch of `size` rows, float (B, …), by their keys; NaN where a row lacks them.

        Raises:
            InputError: The batch lacks the targets, or their shape is wrong.
        """
        found = {}
        for k, (name, head) in enumerate(zip(self.names, self, strict=True)):
            key = KEY.format(k)
            if key not in batch:
                raise InputError(f"the batch has no `{key}`, the auxiliary target '{name}'.")
            assert isinstance(head, Head)
            found[key] = encoded_targets(head, batch[key], size)
        return found

    def losses(self, given: Mapping[str, Tensor]) -> list[Tensor]:
        """The loss of every row (B,) for each auxiliary target, without its weight, from logits and encoded targets.

        It has a gradient for every head, also if no row has the target: DDP needs one for each parameter.
        """
        return [
            row_losses(head, given[LOGITS.format(k)], given[KEY.format(k)])  # type: ignore[arg-type]
            for k, head in enumerate(self)
        ]

    def weighted(self, losses: Sequence[Tensor]) -> Tensor:
        """The sum (B,) of the losses of all auxiliary targets, each times its weight."""
        return torch.stack([weight * each for weight, each in zip(self.weights, losses, strict=True)]).sum(0)

    def evaluated(self, logits: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """The loss of every row (B, A) for each auxiliary target; NaN in rows that lack it."""
        encoded = self.encode(batch, len(batch[KEY.format(0)]))
        losses = self.losses({**encoded, **logits})
        has_none = [encoded[KEY.format(k)].flatten(1).isnan().all(1) for k in range(len(self))]
        return torch.stack([each.masked_fill(rows, torch.nan) for each, rows in zip(losses, has_none, strict=True)], 1)


def known_rows(targets: Tensor) -> Tensor:
    """The rows that have a target: a class, or at least one number; all of them if nothing is missing."""
    if targets.is_floating_point():
        return targets[~targets.isnan().flatten(1).all(1)]
    return targets[targets >= 0]


def check_context(context: Any, schema: Any) -> None:
    """Checks that a network has the heads and the masks that a table needs.

    Args:
        context: The task's `TaskContext`.
        schema: The table's `swinft.Schema`.

    Raises:
        InputError: The auxiliary targets differ, or the table has gaps that the network does not mask.
    """
    given = [(each["name"], each["kind"], each["num_outputs"]) for each in context.auxiliary]
    needed = [(each["name"], each["kind"], each["num_outputs"]) for each in schema.auxiliary_heads]
    if given != needed:
        raise InputError(
            f"the network has heads for the auxiliary targets {[name for name, *_ in given]}, and the datamodule has "
            f"{[name for name, *_ in needed]}: build FineTuneTask without num_outputs, so that it takes them from the "
            f"datamodule, or with context=TaskContext(auxiliary=schema.auxiliary_heads)."
        )
    if schema.has_gaps and not context.has_gaps:
        raise InputError(
            "data.columns.on_missing_target is mask, and the network does not mask missing targets: build FineTuneTask "
            "without num_outputs, or with context=TaskContext(has_gaps=True)."
        )


def mean_of_known(losses: Tensor) -> list[float]:
    """Mean loss of each auxiliary target over the rows that have it, from (N, A); NaN if none has."""
    found: list[float] = losses.double().nanmean(0).tolist()
    return found


def _head_of(target: Mapping[str, Any], in_features: int) -> Head:
    """Raises as `AuxiliaryHeads`."""
    where, kind = f"auxiliary target '{target['name']}'", str(target["kind"])
    make: Any = HEADS[kind] if target.get("head") is None else head_from(target["head"])
    try:
        head: Head = make(in_features, int(target["num_outputs"]))
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except TypeError as error:
        raise InputError(f"{where}: its head does not accept its arguments: {error}") from error
    if head.kind != kind:
        raise InputError(f"{where} is of the kind {kind}, and its head {type(head).__name__} is for {head.kind}.")
    head.has_gaps = True
    return head
