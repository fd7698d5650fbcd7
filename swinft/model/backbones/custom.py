"""Custom backbones: any module that returns one vector per image and has `num_features`.

Shapes: B batch, H and W pixels, D features.
"""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import load_state_dict
from torch import nn

from swinft.class_spec import check_initialized, errors_of, init_args_of, load_class
from swinft.errors import InputError, listed
from swinft.model.backbones.weights import without_prefix


def custom_module(spec: dict[str, Any], pretrained: bool | str, settings: dict[str, Any]) -> nn.Module:
    """Builds the module.

    Args:
        spec: Its `class_path` and `init_args`.
        pretrained: False, or a file with its weights.
        settings: Settings that only timm models have, by name; None if not set.

    Raises:
        InputError: The class is not loaded, is not a module, does not accept its arguments or has no `num_features`;
            the file does not contain its weights; or a setting of timm models is set.
    """
    name = spec["class_path"]
    cls = load_class(name, nn.Module, "model.backbone")
    if given := [f"model.{key}" for key, value in settings.items() if value]:
        raise InputError(
            f"{listed(given)} is for timm's models, and model.backbone is the class {name}: remove it, and set such "
            f"arguments in its init_args."
        )
    refuse_hub(name, pretrained)
    with errors_of(f"model.backbone: {name} cannot be built"):
        model = cls(**init_args_of(spec))
    check_initialized(model, "model.backbone")
    width = getattr(model, "num_features", None)
    if not isinstance(width, int) or width < 1:
        raise InputError(
            f"model.backbone: {name} has num_features {width!r}; it must be the number of features per image."
        )
    if isinstance(pretrained, str):
        _load(model, name, Path(pretrained))
    return model


def refuse_hub(name: str, pretrained: bool | str) -> None:
    """Rejects `pretrained: true` for a class, which has no known weights.

    Raises:
        InputError: It is true.
    """
    if pretrained is True:
        raise InputError(
            f"model.pretrained is true, and no weights of the class {name} (model.backbone) are known. Set it to a "
            f"file; or to false to start from the weights that the class itself sets, and if these are pretrained, "
            f"set model.optim.lr, too."
        )


def normalisation(model: Any) -> tuple[Sequence[float], Sequence[float]]:
    """Channel means and standard deviations in 0–1 for the module's input: its `mean` and `std`, or ImageNet's.

    Raises:
        InputError: Its `mean` or `std` is not three numbers in 0–1, or `std` has a 0.
    """
    found = []
    for name, default in (("mean", IMAGENET_DEFAULT_MEAN), ("std", IMAGENET_DEFAULT_STD)):
        values = getattr(model, name, default)
        try:
            numbers = [float(value) for value in values]
        except (TypeError, ValueError):
            numbers = []
        if len(numbers) != 3 or not all(0 <= one <= 1 for one in numbers) or (name == "std" and min(numbers) == 0):
            raise InputError(
                f"model.backbone: {name} of {type(model).__name__} is {values!r}; it must be three numbers in 0–1, for "
                f"red, green and blue."
            )
        found.append(numbers)
    return found[0], found[1]


def _load(model: nn.Module, name: str, file: Path) -> None:
    """Loads a file of weights strictly."""
    if not file.is_file():
        raise InputError(f"model.pretrained: no file '{file}'. Allowed: false, a .safetensors or .pth file.")
    try:
        state = load_state_dict(str(file), device="cpu", weights_only=True)
        model.load_state_dict(without_prefix(state, model.state_dict().keys(), file))
    except (RuntimeError, KeyError, ValueError, pickle.UnpicklingError, SafetensorError) as error:
        raise InputError(f"{file} does not contain weights of {name} (model.pretrained): {error}") from error
