"""What makes embeddings: the networks of a run, each for its fold; or a pretrained backbone that saw no label.

Shapes: B batch, V images of a row, D dimensions, G networks.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from swinft.data.datamodule import CSVDataModule
from swinft.data.row_images import row_images
from swinft.errors import InputError, command, number_of
from swinft.inference.tta import View
from swinft.model.backbones.timm_backbone import Backbone, Channels, create_backbone
from swinft.model.network import ImageModel
from swinft.run.config.parser import option_words
from swinft.run.embed.options import DECIDING, EmbedOptions, Layer
from swinft.run.experiment import Experiment
from swinft.run.fold_files import held_out_by
from swinft.run.layout import Run
from swinft.run.prediction.networks import Networks, requested_views
from swinft.run.provenance import weights_of
from swinft.system.precision import Precision

FROZEN = "backbone"  # name of the network of a pretrained backbone
# What messages on the backbone of a config say, and what is so of the options of this command.
WORDS = {
    "model.pretrained is true, but ": "--backbone-weights: ",
    ", or set it to false to start from random weights": "",
    "set model.pretrained to false or to a file": "name a file as --backbone-weights",
    "Allowed: true, false, a .safetensors, .pth or .ckpt file; in a config also a run's or a fold's folder": "Name a "
    ".safetensors, .pth or .ckpt file",
    "model.pretrained": "--backbone-weights",
    "model.backbone_args": "--backbone-args",
    "model.backbone": "--backbone",
    "data.image_size": "--image-size",
}


class LayerOf:
    """The embeddings of a network of a run, as a `Predictor`.

    Args:
        net: The network.
        layer: Which of its layers.
    """

    def __init__(self, net: ImageModel, layer: Layer) -> None:
        self.net, self.layer = net, layer

    def predict(self, image: Tensor, features: Tensor | None = None, image_mask: Tensor | None = None) -> Tensor:
        """Pixels, metadata and which of several images are there, to embeddings (B, D)."""
        net = self.net
        if self.layer == "pooled":
            return net.pooled(image, image_mask)
        read = net.embed(image, net.encode_metadata(features), image_mask)
        found: Tensor = net.head.neck(read) if self.layer == "neck" else net.head(read)
        return found.flatten(1)


class BackboneOf:
    """The embeddings of a pretrained backbone, as a `Predictor`; of several images of a row, their mean.

    Args:
        backbone: The backbone.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    def predict(self, image: Tensor, features: Tensor | None = None, image_mask: Tensor | None = None) -> Tensor:
        """Pixels (B, C, H, W) or (B, V, C, H, W), and which of several images are there, to embeddings (B, D)."""
        if image.ndim == 4:
            found: Tensor = self.backbone(image)
            return found
        of_images = self.backbone(image.flatten(0, 1)).float().reshape(*image.shape[:2], -1)
        there = torch.ones(image.shape[:2]) if image_mask is None else image_mask.float()
        there = there.to(of_images.device)[..., None]
        mean: Tensor = (of_images * there).sum(1) / there.sum(1).clamp(min=1)
        return mean


class SideBySide:
    """Several predictors of embeddings in one pass over the rows, which are decoded once.

    Args:
        parts: The predictors.
    """

    def __init__(self, parts: Sequence[LayerOf | BackboneOf]) -> None:
        self.parts = parts

    def predict(self, image: Tensor, features: Tensor | None = None, image_mask: Tensor | None = None) -> Tensor:
        """The embeddings of all of them, (B, G · D)."""
        return torch.cat([part.predict(image, features, image_mask).float() for part in self.parts], 1)


@dataclass(frozen=True)
class Maker:
    """What makes embeddings.

    Args:
        run: The run, whose rows and folds they are of.
        experiment: Its experiment.
        options: Which embeddings are made, and how.
        weights: SHA-256 of the weights of each network, by its name: `fold_0`; of a backbone, `backbone`.
        views: Views that are averaged.
        device: Where they are made.
        precision: The resolved precision.
        networks: The networks of the run; None for a backbone.
        backbone: The backbone; None for networks of the run.
    """

    run: Run
    experiment: Experiment
    options: EmbedOptions
    weights: dict[str, str]
    views: list[View]
    device: torch.device
    precision: Precision
    networks: Networks | None = None
    backbone: Backbone | None = None

    @classmethod
    def of(cls, run: Run, options: EmbedOptions) -> "Maker":
        """What options choose.

        Raises:
            InputError: A fold is not finished, the weights of a backbone are not here, or an option is wrong.
        """
        run.check_trained()
        if options.backbone is not None:
            return cls._of_backbone(run, options)
        networks = replace(Networks.of(run, options.prediction), policy=False)
        weights = weights_of(run, networks.folds)
        given = (networks.experiment, options, weights, networks.views, networks.device, networks.precision)
        return cls(run, *given, networks)

    @classmethod
    def _of_backbone(cls, run: Run, options: EmbedOptions) -> "Maker":
        experiment = Experiment.of_run(run, "embed", options.allow_code)
        device = options.prediction.torch_device()
        views = experiment.views() if options.views is None else requested_views(options.prediction)
        precision: Precision = "32-true" if options.precision == "auto" else options.precision
        images = row_images(experiment.config.data.image).for_network
        channels = Channels(images["num_channels"] or 3, images["are_grey"])
        sides = experiment.config.data.image_size if options.image_size is None else options.image_size
        size = (sides, sides) if isinstance(sides, int) else (sides[0], sides[1])
        pretrained = options.backbone_weights or True
        _check_pretrained(options)
        with torch.random.fork_rng([]):
            torch.manual_seed(0)  # layers that the weights lack are the same in each process
            try:
                backbone = create_backbone(
                    str(options.backbone), size, pretrained, backbone_args=options.backbone_args, channels=channels
                )
            except InputError as error:
                raise InputError(_of_options(str(error))) from error
        backbone = backbone.eval().to(device)
        weights = {FROZEN: tensors_sha256(backbone)}
        return cls(run, experiment, options, weights, views, device, precision, None, backbone)

    @property
    def label(self) -> str:
        """What the folder of the embeddings is called after."""
        return self.options.layer if self.options.backbone is None else self.options.backbone

    @property
    def command_words(self) -> list[str]:
        """The options of the command that makes these embeddings again."""
        options = self.options
        words = ["--layer", options.layer] if options.backbone is None else ["--backbone", options.backbone]
        return words + option_words(options, [name for name in DECIDING if name not in ("layer", "backbone")])

    @property
    def data_changes(self) -> dict[str, Any]:
        """Arguments of the datamodule to replace."""
        options, changes = self.options, dict[str, Any]()
        changes |= {"batch_size": self._batch_size()}
        changes |= {} if options.num_workers is None else {"loading": {"num_workers": options.num_workers}}
        changes |= {"root": options.root} if options.root else {}
        return changes | ({} if options.image_size is None else {"image_size": options.image_size})

    def _batch_size(self) -> int:
        config, given = self.experiment.config, self.options.batch_size
        return int(given or config.predict.batch_size or 2 * config.data.batch_size)

    def made_with(self, name: str) -> dict[str, Any]:
        """What a network's embeddings are made with, as plain values."""
        size = self.options.image_size or self.experiment.config.data.image_size
        return {
            "network": name,
            "weights": self.weights[name],
            "layer": self.options.layer,
            "backbone": self.options.backbone,
            "views": [view.name for view in self.views],
            "precision": self.precision,
            "image_size": [size, size] if isinstance(size, int) else list(size),
        }

    def load(self, names: Sequence[str], data: CSVDataModule, images: int = 0, batches: int = 0) -> list[Any]:
        """The predictors of some networks, on the device.

        Args:
            names: Their names.
            data: The datamodule of the rows.
            images: Number of rows.
            batches: Number of batches.
        """
        if self.networks is None:
            assert self.backbone is not None
            return [BackboneOf(self.backbone)]
        chosen = [fold for fold in self.networks.folds if self.run.fold(fold).root.name in names]
        loaded = replace(self.networks, folds=chosen).load(data, self.device, images, batches)
        return [LayerOf(net, self.options.layer) for net in loaded]  # type: ignore[arg-type]  # without a policy

    def networks_of(self, fold: int) -> list[str]:
        """The networks whose embeddings are those of a fold: its own, with every seed; or the backbone."""
        if self.networks is None:
            return [FROZEN]
        return [self.run.fold(name).root.name for name in self.networks.folds if held_out_by(name) == fold]

    @property
    def folds(self) -> list[int]:
        """The folds that score rows."""
        return sorted({held for name in self.run.planned_folds() if (held := held_out_by(name)) is not None})

    def describe(self) -> str:
        """What makes them, for people."""
        views = ", ".join(view.name for view in self.views)
        what = f"layer {self.options.layer} of {number_of(len(self.weights), 'network')} of {self.run.root.name}"
        return f"{self.options.backbone or what}, views {views}, in {self.precision}"


def _of_options(message: str) -> str:
    """A message on the backbone of a config with the options of this command in the place of its keys."""
    for words, option in WORDS.items():
        message = message.replace(words, option)
    return message


def _check_pretrained(options: EmbedOptions) -> None:
    """Refuses the weights of a run as those of a backbone that has seen no label.

    Raises:
        InputError: The file is in the folder of a run.
    """
    given = options.backbone_weights
    folders = [] if given is None else [each for each in Path(given).resolve().parents if Run(each).is_run()]
    if folders:
        raise InputError(
            f"--backbone-weights {given} are of the run {folders[0]}, which was trained on labels: scores on its "
            f"embeddings of all rows would be too good. Embed its networks, each for its fold: "
            f"`{command('embed', folders[0])}`."
        )


def tensors_sha256(module: torch.nn.Module) -> str:
    """SHA-256 of a module's tensors and their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name}:{values.dtype}:{tuple(values.shape)};".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_embeddable(data: CSVDataModule, run: Run) -> None:
    """Refuses masks, for which an image has no one vector.

    Raises:
        InputError: The run predicts masks.
    """
    if data.settings.kind.are_maps:
        raise InputError(f"{run.root} predicts masks, of maps of each image: an embedding is one vector of an image.")
