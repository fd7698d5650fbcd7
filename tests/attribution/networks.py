"""Small real networks, untrained, with weights that make each position matter."""

import torch

from swinft import ClassificationHead, FineTuneTask, PoolingConfig, TaskContext
from tests.conftest import TINY_SWIN

SWIN = "swin_tiny_patch4_window7_224"
TINY_VIT = {"embed_dim": 24, "depth": 3, "num_heads": 2, "patch_size": 8}
# Two blocks in each stage, so that one has shifted windows.
SHIFTED_SWIN = {**TINY_SWIN, "depths": [2, 2]}


def net_of(backbone=SWIN, arguments=TINY_SWIN, side=32, head=ClassificationHead, outputs=3, images=None, **options):
    """A network in evaluation mode; `images` is the number of images of a row."""
    torch.manual_seed(0)
    context = TaskContext(image_size=side, num_images=images)
    pooling = PoolingConfig(images="mean") if images else "avg"
    task = FineTuneTask(
        head,
        backbone,
        pretrained=False,
        backbone_args=dict(arguments),
        num_outputs=outputs,
        context=context,
        **{"pooling": pooling, **options},
    )
    net = task.net.eval()
    for name, parameter in net.named_parameters():
        if parameter.ndim > 1 and not name.startswith("backbone.model.conv"):  # timm's are so small that maps are flat
            torch.nn.init.normal_(parameter, std=0.1)
    return net


def images_of(count=2, side=32, *more):
    """Noise uint8 (B, *more, 3, H, W), dark but for a bright quarter, another one in each image."""
    generator = torch.Generator().manual_seed(1)
    height, width = (side, side) if isinstance(side, int) else side
    images = torch.randint(0, 256, (count, *more, 3, height, width), dtype=torch.uint8, generator=generator)
    for number, image in enumerate(images.view(-1, 3, height, width)):
        is_bright = torch.zeros(height, width, dtype=torch.bool)
        top, left = number % 2 * height // 2, number // 2 % 2 * width // 2
        is_bright[top : top + height // 2, left : left + width // 2] = True
        image //= torch.where(is_bright, 1, 5).to(torch.uint8)
    return images
