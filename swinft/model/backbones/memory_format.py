"""Memory format of images and convolution weights: channels last, or plain (contiguous).

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
# Devices whose convolution kernels are faster with channels last. On mps, several kernels were wrong or failed in the
# backward pass in torch up to 2.12.
FASTER_ON = ("cpu", "cuda")

MIN_CHANNELS = 16  # the size of the CPU's vectors


def uses_channels_last(net: nn.Module) -> bool:
    """Whether a network has convolutions other than on the image itself, as in the patch embedding of a transformer."""
    return any(isinstance(module, nn.Conv2d) and module.in_channels > 3 for module in net.modules())


def set_layout(net: nn.Module, layout: Layout) -> None:
    """Sets the memory format of convolution weights, and of all images passed to the network from then on.

    Parameters stay the same objects with the same values. Call it before the first optimiser step: the optimiser's
    state keeps the memory format of the weights.

    Args:
        net: A network, or a module that contains networks, such as a task with averaged weights.
        layout: For the weights and for images (B, 3, H, W).
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
    """Whether oneDNN writes the gradient of this convolution outside its memory, with channels last on a CPU.

    The oneDNN of torch 2.14 does so in fp32 and bf16: processes crash, or continue with wrong numbers. Stems of RepVGG,
    MobileOne and FastViT have such convolutions.
    """
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and module.stride != (1, 1)
        and 1 < module.in_channels < MIN_CHANNELS
    )


def _plain_on_cpus(module: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    """Forward pre-hook: makes the input (B, C, H, W) contiguous on a CPU, without replacing timm's module."""
    return tuple(x.contiguous() if x.device.type == "cpu" else x for x in inputs)


def plain_where_needed(net: nn.Module, device: torch.device) -> None:
    """Sets the plain format on devices where channels last is not reliable; does nothing on others."""
    if device.type not in FASTER_ON and uses_channels_last(net):
        set_layout(net, "plain")
