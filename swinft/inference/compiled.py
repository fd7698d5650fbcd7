"""Prepares networks for prediction with torch: weights in 16 bit, and `torch.compile`."""

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
from swinft.system.precision import Precision, half_dtype

# Compilation takes half a minute or more, and saves some milliseconds per forward pass of Swin on a GPU.
COMPILED_PASSES = 4000


class CompiledNet:
    """A network with a compiled backbone; predicts like `ImageModel`, and replaces it in `predict_rows`.

    Batches are padded, and pixels are float32 with channels last in every view: another shape, dtype or memory format
    would be compiled again. Networks of one architecture share the compiled code.

    Args:
        net: A network in evaluation mode.
        batch_size: Size of full batches.
        prints_compile_time: Whether to print the duration of the first pass, which compiles.
    """

    def __init__(self, net: ImageModel, batch_size: int, prints_compile_time: bool = False) -> None:
        net.backbone.compile(dynamic=False)
        self.net, self.batch_size, self.prints_compile_time = net, batch_size, prints_compile_time

    def predict(self, image: Tensor, features: Tensor | None = None, image_mask: Tensor | None = None) -> Tensor:
        """As of `ImageModel.predict`."""
        started = time.perf_counter()
        given = {"image": image.float(), "features": features, "image_mask": image_mask}
        there = {name: tensor for name, tensor in given.items() if tensor is not None}
        padded = dict(zip(there, pad_batch(list(there.values()), self.batch_size), strict=True))
        if image.ndim == 4:
            padded["image"] = padded["image"].contiguous(memory_format=torch.channels_last)
        predictions = self.net.predict(**padded)[: len(image)]
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
    """Networks for `predict_rows`: weights in 16 bit if autocast would cast them, compiled according to `policy`."""
    assert loader.batch_size is not None
    passes = len(loader) * len(nets) * len(views)
    size = getattr(loader.dataset, "per_pass", 0) or loader.batch_size  # tiles, of which a batch is one image
    return nets_for_passes(nets, passes, size, device, policy, precision, image_size)


def nets_for_passes(
    nets: Sequence[ImageModel],
    passes: int,
    batch_size: int,
    device: torch.device,
    policy: CompilePolicy,
    precision: Precision,
    image_size: tuple[int, int],
) -> Sequence[ImageModel | CompiledNet]:
    """The same for a number of forward passes, on which the policy `auto` depends."""
    if dtype := half_dtype(precision):
        cast_weights(nets, image_size, device, dtype)
    if not should_compile(policy, passes, COMPILED_PASSES, "forward passes", device):
        return nets
    return [CompiledNet(net, batch_size, prints_compile_time=index == 0) for index, net in enumerate(nets)]
