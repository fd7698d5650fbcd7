"""The backbone: images to features, by any timm model at any size it supports, or by a custom module.

Shapes: B batch, H and W pixels, D features. Nothing here depends on a model's name.
"""

import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from timm.layers import SelectAdaptivePool2d  # type: ignore[attr-defined]
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from swinft.class_spec import Named, plain_spec, spec_name
from swinft.errors import InputError, suggest
from swinft.model.backbones import swin_mlp  # noqa: F401  registers its models with timm
from swinft.model.backbones.activations import with_activation
from swinft.model.backbones.custom import custom_module, normalisation, refuse_hub
from swinft.model.backbones.input_size import resize
from swinft.model.backbones.unpooled import pooled
from swinft.model.backbones.weights import load_weights, read_weights, with_channels

REACH_SECONDS = 5.0
# Arguments of `timm.create_model` that `backbone_args` must not set: weights, folders, kind of output.
TIMM_RESERVED = {
    "cache_dir",
    "checkpoint_path",
    "exportable",
    "feature_cls",
    "features_only",
    "img_size",
    "in_chans",
    "no_jit",
    "num_classes",
    "out_indices",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "scriptable",
}


@dataclass(frozen=True)
class Channels:
    """Channels of images.

    Args:
        count: C.
        are_grey: Each is an image of its own in grey; otherwise three of them are one in RGB.
    """

    count: int = 3
    are_grey: bool = False

    def expanded(self, values: Sequence[float]) -> list[float]:
        """Means or deviations of red, green and blue for every channel."""
        if self.are_grey:
            return [sum(values) / len(values)] * self.count
        return [values[number % len(values)] for number in range(self.count)]


RGB = Channels()


class Backbone(nn.Module):
    """A timm model without classifier (or a custom module), with the normalisation of its input.

    Args:
        model: A timm model made with `num_classes=0`.
        mean: Channel means in 0–1 that its weights were trained with.
        std: Channel standard deviations in 0–1.
        num_features: D; None for that of the timm model.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, model: Any, mean: Sequence[float], std: Sequence[float], num_features: int | None = None
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.num_features = num_features or _num_features(model)
        # From the config, not learnt: not part of the weights.
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1) * 255, persistent=False)

    @property
    def num_channels(self) -> int:
        """C of its images."""
        return self.mean.shape[1]

    def forward(self, image: Tensor, pool: Any = None) -> Any:
        """Pixels (B, 3, H, W), uint8 or float in 0–255, to features (B, D), or to what `pool` makes of them.

        Raises:
            InputError: The pooling does not fit the model.
        """
        normalised = (image.to(self.mean.dtype) - self.mean) / self.std
        if pool is not None:
            return pooled(self.model, normalised, pool)
        features: Tensor = self.model(normalised)
        return features


def create_backbone(
    name: Named,
    image_size: int | tuple[int, int] = 224,
    pretrained: bool | str = True,
    drop_path_rate: float | None = None,
    grad_checkpointing: bool = False,
    backbone_args: dict[str, Any] | None = None,
    channels: Channels = RGB,
) -> Backbone:
    """Builds a backbone at an image size.

    Args:
        name: Any model of `timm.list_models()`, with or without a pretrained tag; or a custom class, as `class_path`
            and `init_args`, whose objects take (B, 3, H, W) and return (B, `num_features`).
        image_size: Side, or height and width, in pixels.
        pretrained: True for the hub's weights, a .safetensors or .pth file, or False for none.
        drop_path_rate: Probability of skipping a residual branch in the deepest block, in [0, 1); None for the model's.
        grad_checkpointing: Recompute activations in the backward pass: less memory, about a third slower.
        backbone_args: More arguments of the timm model (`embed_dim`, `depths`, `window_size`). `act_layer: relu` sets
            the activation of any model, as in `swinft.model.backbones.activations`.
        channels: What its images hold; pretrained weights of the first layer are adapted to them as timm does.

    Raises:
        InputError: The name or an argument is unknown, the weights do not fit or are not available, or the model does
            not support this size.
    """
    sides = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(sides) != 2:
        raise InputError(f"image_size is {image_size}; give one side, or height and width, in pixels.")
    height, width = sides
    spec = plain_spec(name, "model.backbone")
    if isinstance(spec, dict):
        made: Any = custom_module(spec, pretrained, {"drop_path_rate": drop_path_rate, "backbone_args": backbone_args})
        if grad_checkpointing:
            _recompute_activations(made, spec["class_path"])
        mean, std = normalisation(made)
        return Backbone(made, channels.expanded(mean), channels.expanded(std), made.num_features)
    arguments = dict(backbone_args or {})
    _refuse_reserved(arguments)
    if channels.count != 3:
        arguments["in_chans"] = channels.count
    if drop_path_rate is not None:
        arguments["drop_path_rate"] = drop_path_rate
    model = _at_size(spec, pretrained, arguments, (height, width))
    if grad_checkpointing:
        _recompute_activations(model, spec)
    mean, std = (channels.expanded(model.pretrained_cfg[name]) for name in ("mean", "std"))
    return Backbone(model, mean, std)


def _recompute_activations(model: Any, name: str) -> None:
    """Turns on gradient checkpointing; raises InputError if the model does not support it."""
    try:
        model.set_grad_checkpointing(True)
    except (AssertionError, AttributeError) as error:
        raise InputError(
            f"'{name}' cannot recompute activations: set model.compute.grad_checkpointing to false."
        ) from error


def recomputes_activations(name: Named, backbone_args: dict[str, Any] | None = None) -> bool:
    """Whether a timm model can recompute activations in the backward pass (`grad_checkpointing`)."""
    if not isinstance(name, str):
        return False  # known only once the object exists
    try:
        with torch.device("meta"):  # without weights
            model: Any = with_activation(
                lambda given: timm.create_model(name, num_classes=0, **given), backbone_args or {}
            )
            model.set_grad_checkpointing(True)
    except Exception:  # some constructors compute, which meta tensors cannot
        return False
    return True


def _num_features(model: Any) -> int:
    """D, the number of pooled features of a timm model."""
    # Some families widen after the pooling (`head_hidden_size`); some poolings return both mean and maximum.
    width = int(getattr(model, "head_hidden_size", None) or model.num_features)
    pools = [module for module in model.modules() if isinstance(module, SelectAdaptivePool2d)]
    widens = model.num_features == width and len(pools) == 1
    return width * int(pools[0].feat_mult()) if widens else width  # type: ignore[no-untyped-call]


def _at_size(name: str, pretrained: bool | str, arguments: dict[str, Any], size: tuple[int, int]) -> Any:
    """The timm model at an image size, with its weights.

    Families that cannot change their size are built for it; their weights fit if timm resamples the position tables. A
    file of weights trained at another size than the model's native one, such as a run's, is loaded at the target size:
    loaded at the native size, its tables would be resampled twice.
    """
    model, load = _build(name, pretrained, arguments)
    is_native = load(only_as_it_is=True)
    is_fixed = bool(model.pretrained_cfg.get("fixed_input_size"))
    native = tuple(model.pretrained_cfg["input_size"][-2:])
    with warnings.catch_warnings():  # of how timm resamples position biases: a user can change nothing about it
        warnings.filterwarnings("ignore", "Using a non-tuple sequence for multidimensional indexing")
        warnings.filterwarnings("ignore", r"torch.searchsorted\(\): input value tensor is non-contiguous")
        is_resized = resize(model, name, size, arguments.get("window_size"))
        if not is_native:
            load()
    if is_resized or size == native:
        return model
    # Some have a position table without `fixed_input_size`.
    if not is_fixed and not any("pos" in key.split(".")[-1] for key in model.state_dict()):
        return model
    reason = f"it has no other size than {native[0]} px"
    try:
        built = _create(name, pretrained, {**arguments, "img_size": size if size[0] != size[1] else size[0]})
    except InputError as error:
        reason = str(error)
    else:
        if _runs(built, size, arguments):
            return built
    if _runs(model, size, arguments):  # CrossViT resizes images itself
        return model
    raise InputError(
        f"'{name}' is made for {native[0]} px and is not available at {size[0]} x {size[1]} px (data.image_size). Set "
        f"data.image_size to {native[0]}, or name another backbone. timm reports: {reason}"
    )


def _runs(model: Any, size: tuple[int, int], arguments: dict[str, Any]) -> bool:
    """Whether a model with these arguments accepts an image of this size."""
    was_training = model.training
    try:
        with torch.inference_mode():
            model.eval()(torch.zeros(1, arguments.get("in_chans", 3), *size))
    except (RuntimeError, AssertionError, ValueError):
        return False
    finally:
        model.train(was_training)
    return True


def _create(name: str, pretrained: bool | str, arguments: dict[str, Any]) -> Any:
    """The timm model with its weights, at its native size or at `img_size`."""
    model, load = _build(name, pretrained, arguments)
    load()
    return model


def _build(name: str, pretrained: bool | str, arguments: dict[str, Any]) -> tuple[Any, Callable[..., bool]]:
    """The timm model, and a function that loads its file of weights, if any; hub weights are already loaded."""
    base = name.split(".")[0]
    if not timm.is_model(base):
        raise InputError(f"timm has no model '{name}' (model.backbone).{suggest(base, timm.list_models())}")
    file = weights_file(name, pretrained)
    try:
        model: Any = with_activation(
            lambda given: timm.create_model(name, pretrained=bool(pretrained) and not file, num_classes=0, **given),
            arguments,
        )
    except InputError:
        raise
    except Exception as error:  # a model may raise anything for wrong arguments or tags
        fix = " To build it without them, remove model.backbone_args (--model.backbone_args null)." if arguments else ""
        raise InputError(f"timm cannot build '{name}' with {arguments}: {error} (model.backbone_args).{fix}") from error
    if not file:
        return model, lambda only_as_it_is=False: True
    state = with_channels(read_weights(model, name, file), model, arguments.get("in_chans", 3))
    return model, partial(load_weights, model, state, name, file, arguments)


def _refuse_reserved(arguments: dict[str, Any]) -> None:
    """Raises InputError for arguments that other settings or swinft itself set."""
    reserved = sorted(TIMM_RESERVED & arguments.keys())
    if reserved:
        raise InputError(
            f"model.backbone_args contains {', '.join(reserved)}: model.backbone and model.pretrained name the network "
            f"and its weights, data.image_size its size, data.image its channels, and swinft sets the rest. Remove it."
        )


def weights_file(name: Named, pretrained: bool | str) -> Path | None:
    """The local file to load, also for hub weights already in the cache; None for no weights or a download.

    Raises:
        InputError: The file does not exist; there are no weights to download; or the hub cannot be reached, which is
            checked in seconds, without the retries of its client.
    """
    if not isinstance(name, str):
        refuse_hub(spec_name(plain_spec(name, "model.backbone")), pretrained)
    if isinstance(pretrained, str):
        if not Path(pretrained).is_file():
            raise InputError(
                f"model.pretrained: no file '{pretrained}'. Allowed: true, false, a .safetensors, .pth or .ckpt file; "
                f"in a config also a run's or a fold's folder."
            )
        return Path(pretrained)
    if not pretrained or not isinstance(name, str) or not timm.is_model(name.split(".")[0]):
        return None
    tags = timm.list_pretrained(f"{name.split('.')[0]}.*")
    if "." in name and name not in tags:
        raise InputError(f"timm has no weights '{name}' (model.backbone).{suggest(name, tags)}")
    config = get_pretrained_cfg(name)
    if config is None or not (config.hf_hub_id or config.url):
        raise InputError(
            f"model.pretrained is true, but timm knows no weights of '{name}' and would start from random ones. Name "
            f"another backbone, or set model.pretrained to false or to a file."
        )
    if not config.hf_hub_id:
        return None
    cached = try_to_load_from_cache(config.hf_hub_id, "model.safetensors")
    if isinstance(cached, str):
        return Path(cached)
    if constants.HF_HUB_OFFLINE or not _is_reachable(constants.ENDPOINT):
        raise InputError(
            f"model.pretrained is true, but the weights of '{name}' are not on this machine and {constants.ENDPOINT} "
            f"cannot be reached. Download model.safetensors of '{config.hf_hub_id}' elsewhere and set model.pretrained "
            f"to its path, or set it to false to start from random weights."
        )
    return None


def _is_reachable(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=REACH_SECONDS).close()
    except urllib.error.HTTPError:
        return True  # the server responds
    except OSError:
        return False
    return True
