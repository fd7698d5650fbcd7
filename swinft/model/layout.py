"""In which order memory holds the images and the weights of convolutions: channels last, or plain.

Shapes: B batch, H and W pixels.
"""

from typing import Literal

import torch
from torch import nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from swinft.model.network import ImageModel

Layout = Literal["channels_last", "plain"]
FORMATS: dict[Layout, torch.memory_format] = {
    "channels_last": torch.channels_last,
    "plain": torch.contiguous_format,
}
# Where kernels of convolutions want the channels of a pixel side by side. On mps several were wrong, or failed in the
# backward pass, in torch's versions up to 2.12.
FASTER_ON = ("cpu", "cuda")


def uses_channels_last(net: nn.Module) -> bool:
    """Whether a network convolves more than the three channels of images, as the stem of a transformer does."""
    return any(isinstance(module, nn.Conv2d) and module.in_channels > 3 for module in net.modules())


def set_layout(net: nn.Module, layout: Layout) -> None:
    """Brings the weights of convolutions into an order, and from then on every image that is given to the network.

    The parameters stay the same objects and hold the same numbers. An optimiser must not have taken a step with them:
    what it keeps of each lies as the weights did.

    Args:
        net: A network, or whatever holds some: a task with its averaged weights.
        layout: Of the weights and of images (B, 3, H, W).
    """
    convert_conv2d_weight_memory_format(net, FORMATS[layout])
    for module in net.modules():
        if isinstance(module, ImageModel):
            module.image_format = FORMATS[layout]


def plain_where_needed(net: nn.Module, device: torch.device) -> None:
    """Sets the plain order on a device whose kernels need it; on others a network is left as it is."""
    if device.type not in FASTER_ON and uses_channels_last(net):
        set_layout(net, "plain")
