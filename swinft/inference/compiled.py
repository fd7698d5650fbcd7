"""Networks made ready to predict with torch: weights in 16 bit, and `torch.compile`."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from swinft.inference.casting import cast_weights
from swinft.inference.tta import View
from swinft.model.compiling import CompilePolicy, pad_batch, should_compile
from swinft.model.network import ImageModel
from swinft.system.precision import Precision, half_of

# Compiling takes half a minute or more, and what a forward pass of Swin saves on a GPU is some milliseconds.
COMPILED_PASSES = 4000


class CompiledNet:
    """A network whose backbone is compiled; predicts like `ImageModel` and takes its place in `predict_rows`.

    Batches are filled up, and pixels are float32 with channels last in every view: another shape, type or order would
    be compiled anew.
    Networks of one architecture share what the first of them compiles.

    Args:
        net: A network in evaluation mode.
        batch_size: Of full batches.
        prints_compile_time: Whether it prints how long its first pass took, which compiles.
    """

    def __init__(self, net: ImageModel, batch_size: int, prints_compile_time: bool = False) -> None:
        net.backbone.compile(dynamic=False)
        self.net, self.batch_size, self.prints_compile_time = net, batch_size, prints_compile_time

    def predict(self, image: Tensor, features: Tensor | None = None) -> Tensor:
        """Pixels (B, 3, H, W), uint8 or float in 0–255, and metadata (B, F) to predictions (B, K)."""
        started = time.perf_counter()
        given = [tensor for tensor in (image.float(), features) if tensor is not None]
        pixels, *others = pad_batch(given, self.batch_size)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        predictions = self.net.predict(pixels, *others)[: len(image)]
        if self.prints_compile_time:
            print(f"compiled, and the first batch predicted, in {time.perf_counter() - started:.0f} s", flush=True)
            self.prints_compile_time = False
        return predictions


def nets_by_torch(
    nets: Sequence[ImageModel],
    loader: DataLoader[Any],
    views: Sequence[View],
    device: torch.device,
    policy: CompilePolicy,
    precision: Precision,
    image_size: tuple[int, int],
) -> Sequence[ImageModel | CompiledNet]:
    """Networks as `predict_rows` takes them, in 16 bit where it would cast them, compiled where `policy` says so."""
    if dtype := half_of(precision):
        cast_weights(nets, image_size, device, dtype)
    passes = len(loader) * len(nets) * len(views)
    if not should_compile(policy, passes, COMPILED_PASSES, "forward passes", device):
        return nets
    assert loader.batch_size is not None
    return [CompiledNet(net, loader.batch_size, prints_compile_time=index == 0) for index, net in enumerate(nets)]
