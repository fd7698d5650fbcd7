"""Training images in device memory, and the loader that samples and augments them there.

Per step only small tensors are copied: rows, targets, features, and the augmentation parameters of `geometry`. With a
Trainer or in a plain loop, the loader's batches contain the images, on the device.

Shapes: N rows of the table, P pixels of all images, B batch, (H, W) image size.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import Dataset

from swinft.data.augment.geometry import AugmentParams, Geometry
from swinft.data.augment.warp import adjust_colour, warp
from swinft.data.cache.budget import check_device_budget
from swinft.data.loading.collate import collate
from swinft.data.loading.dataset import ImageDataset, Key, ShuffledSampler
from swinft.data.loading.workers import TimedLoader
from swinft.errors import InputError
from swinft.system.limits import available_cores, available_memory

AugmentOn = Literal["cpu", "device"]

PARAM_NAMES = AugmentParams._fields
CHUNK = 256  # images copied to the device at a time


@dataclass(frozen=True, eq=False)
class AugmentParamsDataset(Dataset[dict[str, Any]]):
    """Rows with the fields of `geometry.AugmentParams` instead of `image`.

    Args:
        rows: The rows with their images, from a cache.
        geometry: Draws the parameters.
    """

    rows: ImageDataset
    geometry: Geometry

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Key | int) -> dict[str, Any]:
        epoch, row = self.rows.key(key)
        assert self.rows.cache is not None
        height, width = self.rows.cache.shapes[row].tolist()
        drawn = self.geometry.draw((height, width), self.rows.seed, epoch, row)
        params = {name: torch.from_numpy(value) for name, value in drawn._asdict().items()}
        return {**params, **self.rows.labels(row)}


@dataclass(eq=False)
class DeviceImages:
    """Images in device memory, concatenated, each at its own size.

    Args:
        pixels: uint8 (P, 3), in `channels_last` order.
        starts: Offset of each row's image in `pixels`, int64 (N,) on the CPU; −1 for rows without one.
        shapes: Height and width of each image, int64 (N, 2) on the CPU.
        image_size: Output size (H, W).
        is_black_outside: Pad images with black instead of mirroring them.
        note: The memory that they take, in words.
    """

    pixels: Tensor
    starts: Tensor
    shapes: Tensor
    image_size: tuple[int, int]
    is_black_outside: bool
    note: str

    def __post_init__(self) -> None:
        there = self.shapes[self.starts >= 0]
        self.is_one_shape = bool((there == there[0]).all())

    @property
    def device(self) -> torch.device:
        """The device of the images."""
        return self.pixels.device

    def holds(self, rows: NDArray[np.int64], device: torch.device) -> bool:
        """Whether these are the images of exactly these rows, on this device."""
        return self.device == device and np.array_equal(np.flatnonzero(self.starts.numpy() >= 0), np.sort(rows))

    def sample(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch on the device, with `image` float32 (B, 3, H, W) in 0–255 instead of the parameters.

        It does not synchronise with the device.
        """
        drawn = {name: batch[name] for name in PARAM_NAMES}
        rest = {name: self._to_device(value) for name, value in batch.items() if name not in PARAM_NAMES}
        shapes = self.shapes[batch["row"]]
        # Group portrait and landscape images separately, so that they need little padding to a common size.
        keys = torch.cat([(shapes[:, :1] > shapes[:, 1:]).long(), drawn["samples"]], dim=1)
        _, group_of = torch.unique(keys, dim=0, return_inverse=True)
        order = group_of.argsort(stable=True)
        groups = order.split(group_of.bincount().tolist())
        with torch.autocast(self.device.type, enabled=False):
            images = torch.cat([self._sampled(batch["row"][some], shapes[some], drawn, some) for some in groups])
            if len(groups) > 1:
                images = images.index_select(0, self._to_device(order.argsort()))
        return {"image": images, **rest}

    def _to_device(self, value: Tensor) -> Tensor:
        return value.to(self.device, non_blocking=self.device.type == "cuda")

    def _sampled(self, rows: Tensor, shapes: Tensor, drawn: dict[str, Tensor], some: Tensor) -> Tensor:
        """Images of rows of one group, float32 (b, 3, H, W); `some` are their positions in the batch."""
        matrix, colour, samples = (drawn[name][some] for name in PARAM_NAMES)
        is_unpadded = bool((shapes == shapes[0]).all())
        images = warp(
            self._stored(self.starts[rows], shapes).permute(0, 3, 1, 2).float(),
            None if is_unpadded else self._to_device(shapes),
            self._to_device(matrix),
            self.image_size,
            (int(samples[0, 0]), int(samples[0, 1])),
            self.is_black_outside,
        )
        return adjust_colour(images, self._to_device(colour))

    def _stored(self, starts: Tensor, shapes: Tensor) -> Tensor:
        """Stored images, padded at the bottom and right to a common size, uint8 (b, S, T, 3)."""
        height, width = shapes.amax(0).tolist()
        if self.is_one_shape:
            indices = self._to_device(starts // (height * width))
            return self.pixels.view(-1, height, width, 3).index_select(0, indices)
        stored = torch.zeros((len(starts), height, width, 3), dtype=torch.uint8, device=self.device)
        for image, start, (rows, columns) in zip(stored, starts.tolist(), shapes.tolist(), strict=True):
            image[:rows, :columns] = self.pixels[start : start + rows * columns].view(rows, columns, 3)
        return stored

    def release(self) -> None:
        """Frees the memory; the loader cannot be used afterwards."""
        self.pixels = self.pixels[:0].clone()


def upload(
    dataset: AugmentParamsDataset, chosen: NDArray[np.int64], device: torch.device, reserved: int = 0
) -> DeviceImages:
    """Copies the images of some rows into a device's memory.

    Args:
        dataset: The rows.
        chosen: Rows to copy; no others are read.
        device: An NVIDIA or AMD GPU, or the CPU.
        reserved: Bytes to leave free there for something else.

    Raises:
        ImageError: An image cannot be decoded; the message names the row.
        InputError: The device has too little memory, or is of another kind.
    """
    rows, geometry = dataset.rows, dataset.geometry
    assert rows.cache is not None
    shapes = geometry.stored_shapes(rows.cache.shapes[chosen]).astype(np.int64)
    ends = np.cumsum(shapes.prod(axis=1))
    room = check_device_budget(3 * int(ends[-1]), free_memory(device), str(device), reserved)
    pixels = torch.empty((int(ends[-1]), 3), dtype=torch.uint8, device=device)
    with ThreadPoolExecutor(available_cores()) as pool:
        for start in range(0, len(chosen), CHUNK):
            some = chosen[start : start + CHUNK].tolist()
            stored = pool.map(lambda row: geometry.stored(rows.decoded(row)).reshape(-1, 3), some)
            joined = torch.from_numpy(np.concatenate(list(stored)))
            end = int(ends[start + len(some) - 1])
            pixels[end - len(joined) : end] = joined
    starts, all_shapes = torch.full((rows.num_rows,), -1), torch.zeros((rows.num_rows, 2), dtype=torch.int64)
    starts[torch.from_numpy(chosen)] = torch.from_numpy(ends - shapes.prod(axis=1))
    all_shapes[torch.from_numpy(chosen)] = torch.from_numpy(shapes)
    sizes = sorted({(int(height), int(width)) for height, width in shapes.tolist()})
    words = " to ".join(f"{height} × {width}" for height, width in dict.fromkeys((sizes[0], sizes[-1])))
    note = f"{len(chosen):,} training images of {words} pixels are on {device}: {room}"
    return DeviceImages(pixels, starts, all_shapes, rows.image_size, geometry.is_black_outside, note)


def optimizer_step_bytes(weights: Iterable[Tensor], optimizers: Sequence[Optimizer]) -> int:
    """Bytes that the first training step will allocate: gradients, and two moments per weight, as for AdamW.

    Args:
        weights: Of the trained network.
        optimizers: Existing optimisers; state restored from a checkpoint is not counted again.
    """
    total = 0
    for weight in filter(lambda weight: weight.requires_grad, weights):
        has_moments = any(optimizer.state.get(weight) for optimizer in optimizers)
        total += ((weight.grad is None) + 2 * (not has_moments)) * weight.numel() * weight.element_size()
    return total


class DeviceStore:
    """Keeps the training images on a device from one loader to the next."""

    def __init__(self) -> None:
        self._images: DeviceImages | None = None

    def images(
        self, dataset: AugmentParamsDataset, sampler: ShuffledSampler, device: torch.device, trainer: Any
    ) -> DeviceImages:
        """The images of a loader's rows; copies them to the device if they are not there yet, and prints a note.

        Args:
            dataset: The rows.
            sampler: The loader's.
            device: Where they go.
            trainer: Lightning's Trainer, whose network also needs memory there, or None.
        """
        if self._images is None or not self._images.holds(sampler.rows, device):
            self.release()  # frees the memory before the next upload
            trained = trainer and trainer.lightning_module
            reserved = optimizer_step_bytes(trained.parameters(), trainer.optimizers) if trained else 0
            self._images = upload(dataset, sampler.rows, device, reserved)
            if sampler.rank == 0:
                also = f" Each of {sampler.num_ranks} ranks holds as many." if sampler.num_ranks > 1 else ""
                print(f"{self._images.note}{also}", flush=True)
        return self._images

    def release(self) -> None:
        """Frees the memory."""
        if self._images is not None:
            self._images.release()
        self._images = None


def default_device() -> torch.device:
    """The device of a loop without a Trainer: the GPU if there is one, else the CPU."""
    # With its index, as in `tensor.device`: without it, `holds` would never be true.
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def free_memory(device: torch.device) -> int:
    """Free bytes of a device.

    Raises:
        InputError: The device is neither a CUDA one nor the CPU.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "cpu":
        return available_memory()
    raise InputError(
        f"data.loading.augment_on is 'device', which works on cuda and cpu, not on {device}. Set it to cpu."
    )


class DeviceLoader(TimedLoader):
    """A loader of `AugmentParamsDataset`: workers draw augmentation parameters, the main process samples images.

    Batches are already on the device, for a Trainer and for a plain loop. `waits` counts the waiting for the workers,
    not the sampling.

    Args:
        *args: As for PyTorch's loader.
        device_images: The images of all rows of the dataset, on the device.
        **kwargs: As for PyTorch's loader.
    """

    def __init__(self, *args: Any, device_images: DeviceImages, **kwargs: Any) -> None:
        self.device_images = device_images
        super().__init__(*args, **kwargs)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # PyTorch's own iterator is what is mapped
        return map(self.device_images.sample, super().__iter__())

    def images(self, keys: list[Key]) -> list[NDArray[np.uint8]]:
        """The images of some rows, each uint8 (H, W, 3), for display."""
        batch = self.device_images.sample(collate([self.dataset[key] for key in keys]))
        return list(batch["image"].permute(0, 2, 3, 1).round().to(torch.uint8).cpu().numpy())
