"""What the task asks of every head, a user's own included: shapes that are checked, and a description to keep.

A wrong shape that is broadcast gives a loss of the right shape and a training that learns nothing.

Shapes: B batch, K outputs.
"""

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import Tensor

from swinft.errors import InputError, listed, number_of
from swinft.model.class_spec import class_path_of, init_args_of, load_class
from swinft.model.heads.base import Head


def encoded_targets(head: Head, target: Tensor, size: int) -> Tensor:
    """Targets of a batch as `head.encode` gives them, checked: a wrong shape would be broadcast, and train.

    Args:
        head: Any head.
        target: Of the batch.
        size: B.

    Raises:
        InputError: The target or its encoded form has another shape or type than the kind of target has.
    """
    is_classes = head.takes_classes
    expected = (size,) if is_classes else (size, head.num_outputs)
    if target.shape != expected or (is_classes and target.is_floating_point()):
        what = f"class indices {expected}" if is_classes else f"numbers {expected}"
        raise InputError(
            f"the batch's `target` is {target.dtype} {tuple(target.shape)}; for {head.kind} with "
            f"{number_of(head.num_outputs, 'output')} and {number_of(size, 'image')} it must be {what}."
        )
    encoded = head.encode(target)
    if not isinstance(encoded, Tensor) or encoded.shape[:1] != (size,):
        raise InputError(f"{type(head).__name__}.encode gives {_described(encoded)}, not a tensor ({size}, …).")
    return encoded


def row_losses(head: Head, logits: Tensor, encoded: Tensor) -> Tensor:
    """Losses of a batch (B,) as `head.loss` gives them, checked.

    Raises:
        InputError: Logits are no tensor of one entry per row, have more or fewer dimensions than the encoded targets,
            with which they would be broadcast, or the losses are not one per row.
    """
    check_logits(head, logits, len(encoded))
    if logits.ndim != encoded.ndim:
        raise InputError(
            f"{type(head).__name__} gives logits {tuple(logits.shape)} for encoded targets {tuple(encoded.shape)}: "
            f"they would be broadcast. Give both the same number of dimensions."
        )
    losses = head.loss(logits, encoded)
    if not isinstance(losses, Tensor) or losses.shape != (len(encoded),):
        own = getattr(head, "own_loss", None)
        where = f"{type(head).__name__}.loss" if own is None else f"{type(own).__name__}.forward"
        raise InputError(f"{where} gives {_described(losses)}; it must give one loss per row, ({len(encoded)},).")
    return losses


def check_logits(head: Head, logits: Any, size: int) -> None:
    """Refuses logits that are not one tensor with an entry for each of `size` rows.

    Raises:
        InputError: They are something else.
    """
    if not isinstance(logits, Tensor) or logits.ndim == 0 or len(logits) != size:
        raise InputError(
            f"{type(head).__name__} gives {_described(logits)} as logits; it must give one tensor ({size}, …). Two "
            f"outputs are joined with torch.cat and taken apart in `loss` and `decode`."
        )


def decoded(head: Head, logits: Tensor) -> Tensor:
    """Predictions (B, K) as `head.decode` gives them, checked, and NaN where a logit is.

    Raises:
        InputError: They have another shape.
    """
    predictions = head.decode(logits)
    expected = (len(logits), head.num_outputs)
    if not isinstance(predictions, Tensor) or predictions.shape != expected:
        raise InputError(
            f"{type(head).__name__}.decode gives {_described(predictions)}; it must give predictions {expected}."
        )
    return with_nan_rows(predictions, logits)


def with_nan_rows(predictions: Tensor, logits: Tensor) -> Tensor:
    """Predictions (B, K), NaN in the rows with a NaN among their logits.

    Many a decode, such as argmax or a threshold, would make a number of it. An infinite logit may be meant: a class
    that is ruled out.
    """
    is_nan = logits.isnan()
    is_nan = is_nan.flatten(1).any(1) if is_nan.ndim > 1 else is_nan
    numbers = predictions if predictions.is_floating_point() else predictions.float()
    return numbers.masked_fill(is_nan[:, None], math.nan)


def head_from(given: Any) -> Callable[[int, int], Head]:
    """What makes a head, from such a callable or from what `describe` gave.

    Raises:
        InputError: It is neither, or names no head that is loaded.
    """
    if not callable(given) and not isinstance(given, Mapping):
        raise InputError(f"head is {given!r}; it must be a class derived from swinft.Head: swinft.ClassificationHead.")
    if not isinstance(given, Mapping):
        make: Callable[[int, int], Head] = given
        return make
    cls, arguments = load_class(str(given.get("class_path")), Head, "the head"), init_args_of(given)
    return lambda in_features, num_outputs: cls(in_features, num_outputs, **arguments)


def _described(value: Any) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def check_fits(head: Head, num_metadata: int, metrics: Collection[Any], schema: Any) -> None:
    """Compares a network with the table that it is for.

    Args:
        head: Its head.
        num_metadata: F, the metadata features that it is made for.
        metrics: What it is scored by, `swinft.Metric`s.
        schema: A `swinft.Schema`.

    Raises:
        InputError: The head is for another kind of target, outputs or metadata are of other numbers, or the classes
            have no order that a metric needs.
    """
    if head.kind != schema.kind:
        raise InputError(
            f"model.head {class_path_of(type(head))} is for {head.kind}, but data.target_kind is '{schema.kind}'. Change "
            f"one of the two."
        )
    made_for = {"outputs": head.num_outputs, "metadata features": num_metadata}
    has = {"outputs": len(schema.outputs), "metadata features": schema.num_features}
    for what, number in made_for.items():
        if number != has[what]:
            raise InputError(f"the network is made for {number} {what}, and the table has {has[what]}.")
    unordered = [metric.name for metric in metrics if metric.scores_grades and schema.grades is None]
    if unordered and head.takes_classes:
        raise InputError(
            f"{unordered[0]} (model.metrics) counts how far grades are apart, and the classes "
            f"{listed(schema.outputs)} are no numbers. Set data.columns.class_order to all of them, from the "
            f"lowest to the highest; or choose another metric."
        )
