"""The instruments by name: where each one is, and the line that `swinft lab --help` prints. Imports none of them."""

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

from swinft.errors import InputError, suggest

if TYPE_CHECKING:
    from swinft.laboratory.instrument import Instrument


class Entry(NamedTuple):
    """One instrument.

    Args:
        target: Its class, as `module:Class`.
        settings: The dataclass of its options, as `module:Class`.
        help: One line.
    """

    target: str
    settings: str
    help: str


OPTIONS = "swinft.laboratory.options"
TRAINING = "swinft.laboratory.training_options"
INSTRUMENTS: dict[str, Entry] = {
    "scale": Entry(
        "swinft.laboratory.scale:Scale",
        f"{OPTIONS}:ScaleSettings",
        "operations and time against the size of the image; also of networks of timm",
    ),
    "frequency": Entry(
        "swinft.laboratory.frequency:Frequency",
        f"{OPTIONS}:NoSettings",
        "the Fourier spectrum of every layer: low-pass and high-pass layers",
    ),
    "variance": Entry(
        "swinft.laboratory.variance:Variance",
        f"{OPTIONS}:NoSettings",
        "the variance of every layer's feature map: averaging and spreading layers",
    ),
    "lesion": Entry(
        "swinft.laboratory.lesion:Lesion",
        f"{OPTIONS}:LesionSettings",
        "the loss of score without each attention, MLP, convolution or block",
    ),
    "robust": Entry(
        "swinft.laboratory.robust:Robust",
        f"{OPTIONS}:RobustSettings",
        "the loss of score on corrupted images, and with noise of each band of frequencies",
    ),
    "hessian": Entry(
        "swinft.laboratory.hessian:Hessian",
        f"{TRAINING}:HessianSettings",
        "eigenvalues of the Hessian of the training loss: sharp and negative directions",
    ),
    "landscape": Entry(
        "swinft.laboratory.landscape:Landscape",
        f"{TRAINING}:LandscapeSettings",
        "the training loss over two directions of the weights: contours, rise and convexity",
    ),
    "act": Entry(
        "swinft.laboratory.act:Act",
        f"{TRAINING}:ActSettings",
        "other activations: in the trained network, and trained alike and compared",
    ),
    "mixer": Entry(
        "swinft.laboratory.mixer:Mixer",
        f"{TRAINING}:MixerSettings",
        "a Swin-Mixer of the run's Swin, trained alike and compared",
    ),
}


def entry_of(name: str) -> Entry:
    """The entry of an instrument.

    Raises:
        InputError: There is none of this name.
    """
    if name not in INSTRUMENTS:
        raise InputError(f"there is no instrument '{name}'.{suggest(name, INSTRUMENTS)}")
    return INSTRUMENTS[name]


def settings_class(name: str) -> type:
    """The dataclass of an instrument's options."""
    return _found(entry_of(name).settings)


def instrument_class(name: str) -> "type[Instrument[Any]]":
    """The class of an instrument; importing it may take seconds."""
    return _found(entry_of(name).target)


def _found(target: str) -> type:
    module, name = target.split(":")
    found: type = getattr(importlib.import_module(module), name)
    return found
