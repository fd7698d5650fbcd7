"""Checks of what a head returns, custom heads included: targets, logits, losses and predictions of the right shapes.

A wrong shape may be broadcast to a loss of the right shape, and the network then learns nothing.

Shapes: B batch, K outputs.
"""

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import Tensor

from swinft.class_spec import check_initialized, class_path_of, errors_of, init_args_of, load_class
from swinft.errors import InputError, listed, number_of
from swinft.model.heads.base import Head
from swinft.model.metrics import METRICS
from swinft.model.scoring import refusals


def encoded_targets(head: Head, target: Tensor, size: int) -> Tensor:
    """Encodes the targets of a batch by `head.encode`, and checks their shapes.

    Args:
        head: Any head.
        target: Of the batch. If the head `has_gaps`, a missing class is −1; a missing number, label or soft target is
            NaN.
        size: B.

    Returns:
        Float (B, …), NaN where a target is missing. In a row that mixup mixes with another one, a target is missing if
        either of the two lacks it.

    Raises:
        InputError: The shape or type of the targets, or of the encoded targets, does not fit the kind of target.
    """
    is_classes, numbers = head.takes_classes, (size, head.num_outputs)
    is_soft = is_classes and target.is_floating_point()
    are_maps = head.reads == "maps"
    shape = target.shape[:2] if are_maps and target.ndim == 4 else target.shape
    if shape != (numbers if is_soft or not is_classes else (size,)) or are_maps != (target.ndim == 4):
        what = f"class indices {(size,)} or soft targets {numbers}" if is_classes else f"numbers {numbers}"
        what = f"masks {(*numbers, 'H', 'W')}" if are_maps else what
        raise InputError(
            f"the batch's `target` is {target.dtype} {tuple(target.shape)}; for {head.kind} with "
            f"{number_of(head.num_outputs, 'output')} and {number_of(size, 'image')} it must be {what}."
        )
    filled = target
    if head.has_gaps and is_classes:
        filled = target.nan_to_num(1 / head.num_outputs) if is_soft else target.clamp(min=0)
    encoded = head.encode_soft(filled) if is_soft else head.encode(filled)
    if not isinstance(encoded, Tensor) or encoded.shape[:1] != (size,):
        raise InputError(f"{type(head).__name__}.encode returns {_described(encoded)}, not a tensor ({size}, …).")
    if not head.has_gaps:
        return encoded
    is_missing = target.isnan() if target.is_floating_point() else target < 0
    if is_soft or encoded.shape[: target.ndim] != target.shape:  # of which only whole rows can be missing
        is_missing = is_missing.flatten(1).any(1) if is_missing.ndim > 1 else is_missing
    return encoded.float().masked_fill(is_missing[(...,) + (None,) * (encoded.ndim - is_missing.ndim)], math.nan)


def row_losses(head: Head, logits: Tensor, encoded: Tensor) -> Tensor:
    """Losses of a batch (B,) by `head.loss`, with their shapes checked.

    If the head `has_gaps`, a missing target adds nothing to the loss of its row, and has no gradient.

    Raises:
        InputError: The logits are not a tensor with one entry per row, they have another number of dimensions than the
            encoded targets (and would be broadcast), or there is not one loss per row.
    """
    check_logits(head, logits, len(encoded))
    if logits.ndim != encoded.ndim:
        raise InputError(
            f"{type(head).__name__} returns logits {tuple(logits.shape)} for encoded targets {tuple(encoded.shape)}: "
            f"they would be broadcast. Give both the same number of dimensions."
        )
    is_known = None
    if head.has_gaps:
        logits, encoded, is_known = _without_gaps(head, logits, encoded)
    losses = check_row_losses(head, head.loss(logits, encoded), len(encoded))
    return losses if is_known is None else losses.masked_fill(~is_known, 0.0)


def check_row_losses(head: Head, losses: Any, size: int) -> Tensor:
    """The losses that a head returns, checked to be one for each of `size` rows, (B,).

    Raises:
        InputError: They are not.
    """
    own = getattr(head, "own_loss", None)
    where = f"{type(head).__name__}.loss" if own is None else f"{type(own).__name__}.forward"
    if not isinstance(losses, Tensor) or losses.shape != (size,):
        raise InputError(f"{where} returns {_described(losses)}; it must return one loss per row, ({size},).")
    if not losses.is_floating_point():
        raise InputError(f"{where} returns {losses.dtype}; it must return losses of float32.")
    return losses


def _without_gaps(head: Head, logits: Tensor, encoded: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Replaces missing targets, and their logits, by values of loss 0 that have no gradient.

    Any loss can then be used unchanged. If its value for a certain and correct prediction is not 0, it only gains a
    constant. A mean over K targets is still divided by K, so every target that is not missing counts the same.

    Returns:
        Logits and encoded targets in their shapes, and the rows with some target, bool (B,).
    """
    loss = getattr(head, "own_loss", None)
    if loss is not None and loss.compares_rows:
        raise InputError(
            f"{type(loss).__name__} compares the rows of a batch, and rows may lack their target: it is an auxiliary "
            f"one, or data.columns.on_missing_target is mask. Choose another loss, or set that key to skip."
        )
    is_missing = encoded.isnan()
    if encoded.shape != logits.shape:  # entries of logits and targets do not correspond: only whole rows can be masked
        rows = is_missing.flatten(1).any(1)
        shape = (...,) + (None,) * (logits.ndim - 1)
        return logits.masked_fill(rows[shape], head.neutral_logit), encoded.nan_to_num(0.0), ~rows
    is_known = ~is_missing.flatten(1).all(1)
    return logits.masked_fill(is_missing, head.neutral_logit), encoded.masked_fill(is_missing, 0.0), is_known


def check_logits(head: Head, logits: Any, size: int) -> None:
    """Checks that logits are one tensor with an entry for each of `size` rows.

    Raises:
        InputError: They are not.
    """
    if not isinstance(logits, Tensor) or logits.ndim == 0 or len(logits) != size:
        raise InputError(
            f"{type(head).__name__} returns {_described(logits)} as logits; it must return one tensor ({size}, …). "
            f"Join several outputs with torch.cat, and split them in `loss` and `decode`."
        )


def decoded(head: Head, logits: Tensor) -> Tensor:
    """Predictions (B, K), or maps (B, K, H, W), by `head.decode`, of checked shape; NaN in rows with a NaN logit.

    Raises:
        InputError: They have another shape.
    """
    predictions = head.decode(logits)
    expected = (len(logits), head.num_outputs, *(logits.shape[2:] if head.reads == "maps" else ()))
    if not isinstance(predictions, Tensor) or predictions.shape != expected:
        raise InputError(
            f"{type(head).__name__}.decode returns {_described(predictions)}; it must return predictions {expected}."
        )
    return with_nan_rows(predictions, logits)


def evaluated(head: Head, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """What metrics are computed from: predictions and targets of a batch, or what the head gives instead."""
    found = head.evaluated(logits, target)
    return (decoded(head, logits), target) if found is None else found


def with_nan_rows(predictions: Tensor, logits: Tensor) -> Tensor:
    """Predictions (B, K, …), set to NaN in rows with a NaN logit.

    An argmax or a threshold in `decode` would turn the NaN into a number. An infinite logit may be intended: it
    excludes a class.
    """
    is_nan = logits.isnan()
    is_nan = is_nan.flatten(1).any(1) if is_nan.ndim > 1 else is_nan
    numbers = predictions if predictions.is_floating_point() else predictions.float()
    return numbers.masked_fill(is_nan[(...,) + (None,) * (numbers.ndim - 1)], math.nan)


def head_from(given: Any) -> Callable[[int, int], Head]:
    """A function that builds the head: the callable itself, or one made from a spec of `to_spec`.

    Raises:
        InputError: It is neither, or its class is not loaded.
    """
    if not callable(given) and not isinstance(given, Mapping):
        raise InputError(f"head is {given!r}; it must be a class derived from swinft.Head: swinft.ClassificationHead.")
    if not isinstance(given, Mapping):
        make: Callable[[int, int], Head] = given
        return make
    cls, arguments = load_class(str(given.get("class_path")), Head, "the head"), init_args_of(given)
    return lambda in_features, num_outputs: cls(in_features, num_outputs, **arguments)


def built_head(make: Callable[[int, int], Head], in_features: int, num_outputs: int) -> Head:
    """The head of a network, checked to be one.

    Args:
        make: Builds it.
        in_features: D.
        num_outputs: K.

    Raises:
        InputError: It cannot be built, is no head, or its class attributes are wrong.
    """
    with errors_of("model.head cannot be built"):
        head: Any = make(in_features, num_outputs)
    name = type(head).__name__
    if not isinstance(head, Head):
        raise InputError(f"model.head makes a {name}; it must be a class derived from swinft.Head.")
    check_initialized(head, "model.head")
    kinds = sorted({kind for metric in METRICS.values() for kind in metric.kinds})
    if getattr(head, "kind", None) not in kinds:
        raise InputError(f"model.head: `kind` of {name} is {getattr(head, 'kind', None)!r}; set it to one of {kinds}.")
    if not isinstance(getattr(head, "default_metrics", None), list | tuple):
        raise InputError(f'model.head: {name} needs a list `default_metrics`, such as ["{_a_metric(head.kind)}"].')
    return head


def _a_metric(kind: str) -> str:
    return next(name for name, metric in METRICS.items() if kind in metric.kinds)


def _described(value: Any) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def check_fits(head: Head, num_metadata: int, metrics: Collection[Any], schema: Any) -> None:
    """Checks that a network fits a table.

    Args:
        head: Its head.
        num_metadata: F, the number of metadata features that the network takes.
        metrics: Its metrics.
        schema: A `swinft.Schema`.

    Raises:
        InputError: The kind of target, the number of outputs or the number of metadata features differs, or a metric
            needs an order of the classes and there is none.
    """
    if head.kind != schema.kind:
        raise InputError(
            f"model.head {class_path_of(type(head))} is for {head.kind}, but data.target_kind is '{schema.kind_name}'. "
            f"Change one of the two."
        )
    given, wanted = getattr(head, "classes", ""), schema.masks.get("classes", "independent")
    if head.reads == "maps" and given and given != wanted:
        name = "SegmentationHead" if wanted == "independent" else "SoftmaxSegmentationHead"
        more = " with classes: complete" if wanted == "complete" else ""
        raise InputError(
            f"model.head {class_path_of(type(head))} is for {given} classes of pixels, and `classes` of "
            f"data.target_kind is {wanted}. Set model.head to swinft.{name}{more}, "
            f"or change `classes` of data.target_kind."
        )
    made_for = {"outputs": head.num_outputs, "metadata features": num_metadata}
    has = {"outputs": len(schema.outputs), "metadata features": schema.num_features}
    for what, number in made_for.items():
        if number != has[what]:
            raise InputError(f"the network is made for {number} {what}, and the table has {has[what]}.")
    if head.needs_order and schema.grades is None:
        raise InputError(
            f"model.head {class_path_of(type(head))} is for classes in an order, and the classes "
            f"{listed(schema.outputs)} are not numbers. Set data.columns.class_order to all of them, lowest first."
        )
    if refused := refusals(list(metrics), head.kind, schema.outputs):
        raise InputError("\n  ".join(refused))
    unordered = [metric.name for metric in metrics if metric.scores_grades and schema.grades is None]
    if unordered and head.takes_classes:
        raise InputError(
            f"{unordered[0]} (model.metrics) measures the distance between grades, and the classes "
            f"{listed(schema.outputs)} are not numbers. Set data.columns.class_order to all of them, from the "
            f"lowest to the highest; or choose another metric."
        )
