"""The networks that are inspected: timm's backbones by name, without weights and without numbers; and those of runs."""

from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import nn

from swinft.architecture.describe import Traced, traced
from swinft.architecture.options import InspectOptions
from swinft.data.schema import Schema, recognised
from swinft.errors import InputError
from swinft.model.backbones.feature_maps import padded_size
from swinft.model.backbones.timm_backbone import create_backbone
from swinft.model.network import ImageModel
from swinft.model.training.optim import OptimConfig
from swinft.run.experiment import Experiment
from swinft.run.layout import Run
from swinft.store import verify

META = torch.device("meta")  # shapes without numbers: nothing is computed, and no memory is taken
CPU = torch.device("cpu")


def backbone(name: str, options: InspectOptions, device: torch.device = META) -> nn.Module:
    """A timm model with a classifier, at its image size.

    Args:
        name: Its name in timm.
        options: Size, arguments and classes.
        device: Where its parameters are; random ones on the CPU.

    Raises:
        InputError: timm has no such model, or it is not available at this size or with these arguments.
    """
    size = options.size or _native(name)
    with device, torch.random.fork_rng([]):
        torch.manual_seed(0)
        if options.sizing == "img_size":
            return _as_timm_does(name, size, options)
        model: nn.Module = create_backbone(name, size, False, backbone_args=options.backbone_args).model
        if options.classes:
            model.reset_classifier(options.classes)  # type: ignore[operator]
    return model


def _native(name: str) -> tuple[int, int]:
    """The image size that a model is made for."""
    config = timm.models.get_pretrained_cfg(name.split(".")[0]) if timm.is_model(name.split(".")[0]) else None
    return (224, 224) if config is None else (int(config.input_size[-2]), int(config.input_size[-1]))


def _as_timm_does(name: str, size: tuple[int, int], options: InspectOptions) -> nn.Module:
    """The model as `timm.create_model(img_size=...)` makes it: windows are kept, and grids are padded."""
    arguments = dict(options.backbone_args or {})
    with META:  # an unknown name is an error that suggests one
        native = create_backbone(name, _native(name), False, backbone_args=arguments).model
    if hasattr(native, "set_input_size"):  # others take images of any size, or have no such argument
        arguments["img_size"] = size
    try:
        model: nn.Module = timm.create_model(name, pretrained=False, num_classes=options.classes, **arguments)
        return model
    except Exception as error:  # a model may raise anything for a size that it does not support
        raise InputError(
            f"timm cannot build '{name}' at {size[0]} x {size[1]} px with its own windows: {error} "
            f"(--sizing img_size). Leave --sizing away to choose windows that divide the grid."
        ) from error


def traced_backbone(name: str, options: InspectOptions) -> Traced:
    """A timm model, traced with one image.

    Raises:
        InputError: As of `backbone`, or the model does not run.
    """
    size = options.size or _native(name)

    def traced_on(device: torch.device) -> Traced:
        model = backbone(name, options, device)
        return traced(name, model, [torch.zeros(1, 3, *size, device=device)], model, size)

    try:
        return traced_on(META)
    except InputError:
        raise
    except Exception:  # whatever asks for numbers, which meta tensors do not have
        try:
            return traced_on(CPU)
        except InputError:
            raise
        except Exception as error:  # a model may raise anything for a size that it does not support
            raise InputError(
                f"'{name}' does not run with an image of {size[0]} x {size[1]} px: {type(error).__name__}: {error}. "
                f"Set --image-size to another size."
            ) from error


def opened(folder: str | Path, options: InspectOptions) -> tuple[Run, Experiment]:
    """A run and its experiment.

    Raises:
        InputError: It is not a run or has no network of its own, or an option is for backbones.
    """
    given: dict[str, Any] = {"--image-size": options.image_size, "--model.backbone_args": options.backbone_args}
    given |= {"--sizing": None if options.sizing == "swinft" else options.sizing}
    if odd := [name for name, value in given.items() if value is not None]:
        raise InputError(f"{odd[0]} is for backbones that are given by name; a run has its own: remove it.")
    run = Run.open(folder)
    run.check_trained()
    return run, Experiment.of_run(run, "inspect", options.allow_code)


def network_of(run: Run, experiment: Experiment) -> ImageModel:
    """The network of a run on the CPU, with the weights of its first finished training; random ones without one."""
    schema = Schema.from_dict(run.read_schema())
    if schema.kind_class is not None:  # the object of a custom kind
        schema = recognised(schema, experiment.section("data")["target_kind"])
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        task = experiment.task(schema, loads_weights=False, pretrained=False, ema_decay=None, optim=OptimConfig())
    net = task.net.eval()
    if done := [name for name in run.trainings() if run.fold(name).is_done]:
        net.load_state_dict(load_file(verify(run.fold(done[0]).weights)))
    net.auxiliary = None  # for training only
    return net


def traced_run(folder: str | Path, options: InspectOptions) -> Traced:
    """The network of a run with its head, traced with one row.

    Raises:
        InputError: As of `opened`.
        StoreError: A file of the run has changed.
    """
    run, experiment = opened(folder, options)
    net, sides = network_of(run, experiment), experiment.config.data.image_size
    given = (sides, sides) if isinstance(sides, int) else (int(sides[0]), int(sides[1]))
    size = given if net.maps is None else padded_size(given, net.maps.stride)
    row: list[Any] = [torch.zeros(1, *net.image_shape(size))]
    if num_features := Schema.from_dict(run.read_schema()).num_features:
        row.append(torch.zeros(1, num_features))
    images = net.num_images or 1
    is_trained = any(run.fold(name).is_done for name in run.trainings())
    notes = [] if is_trained else [f"No training of {folder} is finished: its weights are random."]
    if size != given:
        notes.append(f"Images of {given[0]} x {given[1]} px are padded to sides that the strides of all maps divide.")
    return traced(str(folder), net, row, net.backbone.model, size, "backbone.model.", images, notes)
