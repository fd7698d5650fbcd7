"""A backbone of one's own: any module that gives one vector per image and says how wide it is.

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

from swinft.errors import InputError, listed
from swinft.model.backbones.weights import without_prefix
from swinft.model.class_spec import init_args_of, load_class


def custom_module(spec: dict[str, Any], pretrained: bool | str, settings: dict[str, Any]) -> nn.Module:
    """Builds the module.

    Args:
        spec: Its class and arguments.
        pretrained: False, or a file with its weights.
        settings: What is configured of a timm model and cannot act here: name and value, None where it is not set.

    Raises:
        InputError: The class is not loaded or is no module, does not take its arguments, says no width, or the file
            does not hold its weights; or a setting is set that only timm's models have.
    """
    name = spec["class_path"]
    cls = load_class(name, nn.Module, "model.backbone")
    if given := [f"model.{key}" for key, value in settings.items() if value]:
        raise InputError(
            f"{listed(given)} is for timm's models, and model.backbone is the class {name}: give such arguments in its "
            f"init_args, and remove it."
        )
    refuse_hub(name, pretrained)
    try:
        model = cls(**init_args_of(spec))
    except InputError:
        raise
    except Exception as error:  # whatever the class does not like
        raise InputError(f"model.backbone: {name} cannot be built: {type(error).__name__}: {error}") from error
    width = getattr(model, "num_features", None)
    if not isinstance(width, int) or width < 1:
        raise InputError(
            f"model.backbone: {name} has num_features {width!r}; it must say how many features it gives per image."
        )
    if isinstance(pretrained, str):
        _load(model, name, Path(pretrained))
    return model


def refuse_hub(name: str, pretrained: bool | str) -> None:
    """Refuses `pretrained: true` of a class: nobody knows which weights that would be.

    Raises:
        InputError: It is true.
    """
    if pretrained is True:
        raise InputError(
            f"model.pretrained is true, and no weights of the class {name} (model.backbone) are known. Set it to a "
            f"file; or to false, where training starts from what the class itself begins with: then set "
            f"model.optim.lr, too, if these are trained weights."
        )


def normalisation(model: Any) -> tuple[Sequence[float], Sequence[float]]:
    """Channel means and deviations in 0–1 that a module wants its images normalised with: ImageNet's by default.

    Raises:
        InputError: Its `mean` or `std` are not three numbers.
    """
    found = []
    for name, default in (("mean", IMAGENET_DEFAULT_MEAN), ("std", IMAGENET_DEFAULT_STD)):
        values = getattr(model, name, default)
        try:
            numbers = [float(value) for value in values]
        except (TypeError, ValueError):
            numbers = []
        if len(numbers) != 3 or (name == "std" and min(numbers) <= 0):
            raise InputError(
                f"model.backbone: {name} of {type(model).__name__} is {values!r}; it must be three numbers in 0–1, of "
                f"red, green and blue."
            )
        found.append(numbers)
    return found[0], found[1]


def _load(model: nn.Module, name: str, file: Path) -> None:
    """Loads a file strictly."""
    if not file.is_file():
        raise InputError(f"model.pretrained: no file '{file}'. Allowed: false, a .safetensors or .pth file.")
    try:
        state = load_state_dict(str(file), device="cpu", weights_only=True)
        model.load_state_dict(without_prefix(state, model.state_dict().keys(), file))
    except (RuntimeError, KeyError, ValueError, pickle.UnpicklingError, SafetensorError) as error:
        raise InputError(f"{file} does not hold weights of {name} (model.pretrained): {error}") from error
