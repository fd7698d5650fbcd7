"""Exports a network as a plain timm model: weights with timm's names, and timm's config.json.

Shapes: B batch, D embedding, K outputs.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import timm
from safetensors.torch import load, save
from timm.models._hub import save_config_for_hf
from timm.models._input import get_model_args
from torch import Tensor, nn

from swinft.errors import InputError
from swinft.inference.parity import largest_difference, output_ranges
from swinft.model.fusion import MeanFusion
from swinft.model.heads import LinearHead
from swinft.model.network import ImageModel

CROP_MODES = {"squash": "squash", "crop": "center", "pad": "border"}  # timm's values for those of `data.loading.resize`
SOURCES = ("url", "file", "hf_hub_id", "hf_hub_filename", "source")  # source of the pretrained weights
SAME = 1e-4  # relative to the range of logits; an additional layer changes them a thousand times as much


@dataclass(frozen=True)
class TimmExport:
    """A timm model that timm alone can build and load.

    Args:
        content: Its weights as safetensors.
        model: A new model built by timm, with these weights.
        config: timm's config.json.
        note: What it does not contain, in a sentence; empty if the head is its classifier.
    """

    content: bytes
    model: Any
    config: bytes
    note: str

    @property
    def has_head(self) -> bool:
        """Whether it returns the head's logits (B, K), not the backbone's features (B, D)."""
        return not self.note

    @property
    def architecture(self) -> str:
        """Its name in timm."""
        return str(json.loads(self.config)["architecture"])

    @property
    def arguments(self) -> dict[str, Any]:
        """What `timm.create_model` must be given besides the name."""
        return dict(json.loads(self.config)["model_args"])


def as_timm(net: ImageModel, example: tuple[Tensor, ...], outputs: Sequence[str], resize: str) -> TimmExport:
    """The network as a timm model, its head as timm's classifier where it is one linear layer.

    Args:
        net: In evaluation mode.
        example: Inputs of the network, for a comparison of the logits.
        outputs: Names of the K outputs.
        resize: The rule of `data.loading.resize`.

    Raises:
        InputError: The backbone is none of timm's.
    """
    source = net.backbone.model
    if not getattr(source, "pretrained_cfg", None):
        raise InputError("--to timm: the backbone is not a timm model. Export to onnx, torchscript or safetensors.")
    _check_timms(source)
    why = _why_no_classifier(net)
    model = None if why else _with_classifier(net, len(outputs), example)
    pooling = _pooling_argument(net) if model is not None else {}
    if model is None:
        why = why or _no_classifier_of_timm(net)
        model = _same_model(source, 0)
        model.load_state_dict(source.state_dict())
    content = save({name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()})
    fresh = _same_model(source, model.num_classes, **pooling)
    fresh.load_state_dict(load(content))
    height, width = example[0].shape[-2:]
    data = {
        "input_size": (net.backbone.num_channels, height, width),
        "mean": per_channel(net.backbone.mean),
        "std": per_channel(net.backbone.std),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": CROP_MODES[resize],
    }
    config = _config(fresh, data, [] if why else list(outputs))
    return TimmExport(content, fresh, config, f"{why}: the file holds the backbone, for num_classes=0" if why else "")


def _check_timms(source: Any) -> None:
    """Checks that timm alone can build a model.

    Raises:
        InputError: Its class is swinft's, or its activations are not those with which timm builds it.
    """
    name, other = source.pretrained_cfg["architecture"], "Export to onnx, torchscript or safetensors."
    if type(source).__module__.startswith("swinft."):
        raise InputError(f"--to timm: timm without swinft has no model '{name}'. {other}")
    if activation := getattr(source, "replaced_activation", None):
        raise InputError(f"--to timm: timm's '{name}' cannot be built with the activation '{activation}'. {other}")


def per_channel(pixels: Tensor) -> tuple[float, ...]:
    """Channel means or deviations, converted from 0–255 to 0–1, with the digits of float32."""
    return tuple(round(value / 255, 7) for value in pixels.flatten().tolist())


def _why_no_classifier(net: ImageModel) -> str:
    """Why timm's classifier cannot replace the head; empty if it may."""
    if net.pooling is not None and not net.pooling.timm_name:
        return f"the head needs model.pooling {type(net.pooling).__name__}, which timm's model does not have"
    if net.fusion is not None and not isinstance(net.fusion, MeanFusion):
        return f"the head needs model.pooling.images {type(net.fusion).__name__}, and timm's model has one image"
    if net.metadata is not None:
        return "the head reads metadata, which timm's classifiers do not"
    if not isinstance(net.head, LinearHead) or type(net.head).forward is not LinearHead.forward:
        return f"the head {type(net.head).__name__} is not one linear layer"
    return ""


def _pooling_argument(net: ImageModel) -> dict[str, str]:
    """The argument of timm for the network's pooling; empty for the backbone's own."""
    return {} if net.pooling is None else {"global_pool": net.pooling.timm_name}


def _no_classifier_of_timm(net: ImageModel) -> str:
    """Why timm's model with the same pooling and a classifier does not compute the logits of the network."""
    name = net.backbone.model.pretrained_cfg["architecture"]
    if net.pooling is not None:
        pooling = f"{type(net.pooling).__name__}, and timm's {name} does not compute the same with"
        return f"the head needs model.pooling {pooling} global_pool='{net.pooling.timm_name}'"
    return f"the classifier of timm's {name} is not one linear layer"


def _with_classifier(net: ImageModel, num_outputs: int, example: tuple[Tensor, ...]) -> Any:
    """Timm's model with the head as its classifier; None if its classifier or its pooling computes something else."""
    try:
        model = _same_model(net.backbone.model, num_outputs, **_pooling_argument(net))
    except Exception:  # any error of a family that lacks this pooling
        if net.pooling is None:
            raise
        return None
    classifier, linear = model.get_classifier(), net.head.linear
    assert isinstance(linear, nn.Linear)
    if not isinstance(classifier, nn.Linear) or classifier.weight.shape != linear.weight.shape:
        return None
    (name,) = [name for name, module in model.named_modules() if module is classifier]
    classifier_state = {f"{name}.{key}": value for key, value in linear.state_dict().items()}
    try:
        model.load_state_dict({**net.backbone.model.state_dict(), **classifier_state})
        logits = model((example[0] - net.backbone.mean) / net.backbone.std)
    except RuntimeError:  # with a classifier or this pooling it has other layers
        return None
    logits, expected = of_rows(net, model, has_head=True)(*example), of_rows(net, None, has_head=True)(*example)
    ranges = output_ranges(expected, 1.0, is_one_unit=True)
    return model if largest_difference(logits, expected, ranges) <= SAME else None


def of_rows(net: ImageModel, model: Any, has_head: bool) -> Callable[..., Tensor]:
    """What a timm model gives for what `ImageModel.inputs` names: logits of rows, or features of images.

    Args:
        net: The network that it was made of.
        model: The timm model; None for the network itself.
        has_head: Whether it gives logits: of several images of a row their mean.
    """
    mean, std = net.backbone.mean, net.backbone.std

    def compute(image: Tensor, *more: Tensor) -> Tensor:
        if has_head and model is None:
            logits: Tensor = net(**dict(zip(net.inputs, (image, *more), strict=True)))
            return logits
        flat = image.flatten(0, -4) if image.ndim > 4 else image
        found: Tensor = net.backbone(flat) if model is None else model((flat.float() - mean) / std)
        if has_head and net.fusion is not None:
            fused: Tensor = net.fusion(found.reshape(*image.shape[:2], -1), more[-1])
            return fused
        return found

    return compute


def _same_model(source: Any, num_classes: int, **more: str) -> Any:
    """A timm model with the arguments and size of `source`, with random weights, in evaluation mode.

    Args:
        source: The model.
        num_classes: Of the classifier; 0 for none.
        **more: Arguments that replace those of `source`.
    """
    config = {key: value for key, value in source.pretrained_cfg.items() if key not in SOURCES}
    arguments = {**get_model_args(source), "num_classes": num_classes, **more}
    return timm.create_model(config["architecture"], pretrained_cfg=config, **arguments).eval()


def _config(model: Any, data: dict[str, Any], labels: list[str]) -> bytes:
    """Timm's config.json, with which `timm.create_model("local-dir:FOLDER", pretrained=True)` makes the model."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        save_config_for_hf(model, str(path), {"label_names": labels} if labels else {}, data_config=data)
        return path.read_bytes()
