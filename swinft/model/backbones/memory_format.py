"""In which order memory holds the images and the weights of convolutions: channels last, or plain.

Shapes: B batch, H and W pixels.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
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

MIN_CHANNELS = 16  # what the processor's vectors hold


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
        if _writes_outside(module):
            weight: Tensor = module.weight  # type: ignore[assignment]  # of a convolution
            weight.data = torch.empty_like(weight, memory_format=FORMATS["plain"]).copy_(weight.data)
            if _plain_on_cpus not in module._forward_pre_hooks.values():
                module.register_forward_pre_hook(_plain_on_cpus)


def _writes_outside(module: nn.Module) -> bool:
    """Whether a module is a convolution whose gradient, channels last on a CPU, oneDNN writes outside of its memory.

    So does the one of torch 2.14, in fp32 and bf16: processes crash, or go on with other numbers. Stems of RepVGG,
    MobileOne and FastViT have such convolutions.
    """
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and module.stride != (1, 1)
        and 1 < module.in_channels < MIN_CHANNELS
    )


def _plain_on_cpus(module: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    """Images (B, C, H, W) in the plain order where a CPU convolves them; a hook, for the module stays timm's."""
    return tuple(x.contiguous() if x.device.type == "cpu" else x for x in inputs)


def plain_where_needed(net: nn.Module, device: torch.device) -> None:
    """Sets the plain order on a device whose kernels need it; on others a network is left as it is."""
    if device.type not in FASTER_ON and uses_channels_last(net):
        set_layout(net, "plain")
