"""Loads a backbone's weights from a file, which may contain a larger network, such as a Lightning checkpoint."""

import pickle
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from timm.models import adapt_input_conv, load_state_dict

from swinft.errors import InputError
from swinft.model.backbones.activations import with_activation


def without_prefix(state: dict[str, Any], names: Collection[str], file: Path) -> dict[str, Any]:
    """Selects the tensors of a backbone and removes their common prefix, if there is one; prints a line about it.

    Args:
        state: Tensors of the file by name.
        names: All names of the backbone.
        file: The file, for messages.

    Returns:
        The state unchanged if there is no prefix to remove, or none that fits all names.

    Raises:
        InputError: Several prefixes fit, and not exactly one of them is that of averaged weights.
    """
    if not names or all(name in state for name in names):
        return state
    longest = max(names, key=len)
    found = {key.removesuffix(longest) for key in state if key.endswith(f".{longest}")}
    whole = sorted(prefix for prefix in found if all(f"{prefix}{name}" in state for name in names))
    averaged = [prefix for prefix in whole if "average" in prefix or "ema" in prefix.split(".")]
    if len(whole) > 1 and len(averaged) != 1:
        raise InputError(
            f"{file} contains the backbone more than once (model.pretrained), with the prefixes {', '.join(whole)}. "
            f"Save the tensors of one prefix to a separate file."
        )
    if not whole and len(found) != 1:
        return state
    prefix = (averaged or whole or list(found))[0]  # if it does not fit, the loader reports what is missing
    inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    rest = f"; {len(state) - len(inside)} other tensors of the file are not" if len(state) > len(inside) else ""
    print(f"model.pretrained: {len(inside)} tensors '{prefix}*' of {file} are loaded into the backbone{rest}")
    return inside


def read_weights(model: Any, name: str, file: Path) -> dict[str, Any]:
    """The tensors of a file, without a common prefix; no code in the file is run.

    Raises:
        InputError: It cannot be read, or contains more than tensors and plain values.
    """
    try:
        state = load_state_dict(str(file), device="cpu", weights_only=True)
        return without_prefix(state, model.state_dict().keys(), file)
    except (RuntimeError, pickle.UnpicklingError) as error:
        plain = "torch.save({'state_dict': torch.load(FILE, weights_only=False)['state_dict']}, 'weights.pth')"
        fix = f" If you trust it, save only its tensors: {plain}." if "weights_only" in str(error) else ""
        raise InputError(f"{file} cannot be read as weights (model.pretrained): {error}{fix}") from error
    except (KeyError, AttributeError, ValueError, SafetensorError) as error:
        raise InputError(f"{file} does not contain weights of '{name}' (model.pretrained): {error}") from error


def with_channels(state: dict[str, Any], model: Any, channels: int) -> dict[str, Any]:
    """Tensors of a model of RGB images for one of other channels: its first layer adapted as timm does.

    Args:
        state: By the model's names.
        model: It knows its first layer.
        channels: C.
    """
    first, own = (getattr(model, "pretrained_cfg", None) or {}).get("first_conv") or (), model.state_dict()
    for name in (f"{each}.weight" for each in ([first] if isinstance(first, str) else first)):
        if channels != 3 and name in state and name in own and state[name].shape != own[name].shape:
            state = {**state, name: adapt_input_conv(channels, state[name])}
    return state


def load_weights(
    model: Any,
    state: dict[str, Any],
    name: str,
    file: Path,
    arguments: dict[str, Any],
    only_as_it_is: bool = False,
) -> bool:
    """Loads weights strictly; timm's own loader ignores missing keys if the classifier differs.

    Args:
        model: The model at its final image size.
        state: The file's tensors.
        name: The model's name.
        file: The file, for messages.
        arguments: The model's arguments.
        only_as_it_is: Load nothing if tensors of the file have other shapes than the model's.

    Returns:
        Whether they were loaded.

    Raises:
        InputError: The file contains anything else than this model's weights and a classifier.
    """
    own = model.state_dict()
    if all(key in state and state[key].shape == tensor.shape for key, tensor in own.items()):
        missing, unexpected = [], [key for key in state if key not in own]
        model.load_state_dict({key: state[key] for key in own})
    else:
        if only_as_it_is and all(key in state for key in own):
            return False
        try:
            # Each family's conversion of older checkpoints and of the authors' has this name.
            convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
            missing, unexpected = model.load_state_dict(convert(state, model) if convert else state, strict=False)
        except (RuntimeError, KeyError, AttributeError, ValueError) as error:
            raise InputError(f"{file} does not contain weights of '{name}' (model.pretrained): {error}") from error
    if unexpected:
        classifier = _classifier_keys(model, name, arguments)
        unexpected = [key for key in unexpected if key not in classifier]
    if missing or unexpected:
        raise InputError(
            f"{file} does not contain the weights of '{name}' (model.pretrained). Missing: {_few(missing)}. "
            f"Not known to the model: {_few(unexpected)}."
        )
    return True


def _classifier_keys(model: Any, name: str, arguments: dict[str, Any]) -> set[str]:
    """Names of the classifier's weights, which a file may contain for any number of classes."""

    def build(given: dict[str, Any]) -> Any:
        return timm.create_model(name, pretrained=False, **given)

    try:
        with torch.device("meta"):  # names only; some constructors compute, which meta tensors cannot
            whole = with_activation(build, arguments)
    except (RuntimeError, NotImplementedError):
        whole = with_activation(build, arguments)
    return set(whole.state_dict()) - set(model.state_dict())


def _few(keys: Sequence[str]) -> str:
    return f"{', '.join(keys[:5])}{f' and {len(keys) - 5} more' if len(keys) > 5 else ''}" if keys else "none"
