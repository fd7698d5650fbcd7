"""One activation for any timm backbone: `act_layer` of `model.backbone_args`, also where timm takes no such argument.

Swin V1 and many others build their MLPs with a fixed activation. There it is replaced after the model was built: none
of these activations has weights, so that weights load as before.
"""

from collections.abc import Callable, Mapping
from typing import Any

from timm.layers import RelPosMlp, SEModule, get_act_layer  # type: ignore[attr-defined]
from timm.models._efficientnet_blocks import SqueezeExcite
from timm.models.swin_transformer_v2 import WindowAttention
from timm.models.swin_transformer_v2_cr import WindowMultiHeadAttention
from torch import nn

from swinft.errors import InputError, suggest

KEY = "act_layer"  # timm's name
# timm's names of activations that look at single numbers and have no weights; gates (sigmoid, GLU) are none.
NAMES = (
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "celu",
    "selu",
    "gelu",
    "gelu_tanh",
    "quick_gelu",
    "silu",
    "mish",
    "hard_swish",
    "hard_mish",
    "tanh",
)
ACTIVATIONS = tuple({get_act_layer(name) for name in NAMES} | {nn.GELU, nn.Hardswish, nn.Softplus})
# Their activations belong to a gate, or to the MLP that makes a position bias, and not to the features.
GATES = (RelPosMlp, SEModule, SqueezeExcite, WindowAttention, WindowMultiHeadAttention)


def check_activation(name: Any) -> None:
    """Checks the name of an activation.

    Raises:
        InputError: There is no such activation.
    """
    if name not in NAMES:
        raise InputError(
            f"model.backbone_args.{KEY} is {name!r}; it must be one of {', '.join(NAMES)}.{suggest(str(name), NAMES)}"
        )


def with_activation(build: Callable[[dict[str, Any]], Any], arguments: Mapping[str, Any]) -> Any:
    """A model with the activation that its arguments name; by timm, or replaced where timm's model takes none.

    Args:
        build: Builds the model from its arguments.
        arguments: With `act_layer`, or without.

    Returns:
        The model. If activations were replaced, its `replaced_activation` is the name.

    Raises:
        InputError: The name is unknown, or the model has no activation.
    """
    name = arguments.get(KEY)
    if name is None:
        return build({key: value for key, value in arguments.items() if key != KEY})
    if not _is_timms(name):
        check_activation(name)
    try:
        return build(dict(arguments))
    except TypeError as error:
        # Some models have no such argument; others take a class, and call the name.
        if KEY not in str(error) and "'str' object is not callable" not in str(error):
            raise
    model = build({key: value for key, value in arguments.items() if key != KEY})
    if not replace_activations(model, name):
        raise InputError(f"{type(model).__name__} has no activations: remove model.backbone_args.{KEY}.")
    model.replaced_activation = name
    return model


def _is_timms(name: Any) -> bool:
    """Whether timm has an activation of this name: more than `NAMES`, such as some with weights."""
    try:
        return isinstance(name, str) and get_act_layer(name) is not None
    except KeyError:
        return False


def activations(model: nn.Module) -> dict[str, nn.Module]:
    """The activations of a model's features by their names, without those of gates and of position biases."""
    gates = [f"{name}." for name, module in model.named_modules() if isinstance(module, GATES)]
    found = {name: module for name, module in model.named_modules() if type(module) in ACTIVATIONS}
    return {name: module for name, module in found.items() if not name.startswith(tuple(gates))}


def replace_activations(model: nn.Module, name: str) -> int:
    """Replaces every activation of a model's features, in place; weights and their names stay.

    Args:
        model: Any module whose activations are modules.
        name: One of `NAMES`.

    Returns:
        How many were replaced, those that were of this kind before included.

    Raises:
        InputError: There is no such activation.
    """
    check_activation(name)
    found = activations(model)
    for path in found:
        parent, _, last = path.rpartition(".")
        setattr(model.get_submodule(parent), last, get_act_layer(name)())
    return len(found)
