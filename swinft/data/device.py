"""Training pictures in the memory of the device that trains, and the loader that samples and augments them there.

Per step only numbers cross over: rows, targets, features and, for each row, what `geometry` drew. Whether a Trainer
runs or a plain loop, what the loader yields has the images in it, on the device.

Shapes: N pictures, B batch, (H, W) image size, (S, T) size that pictures are stored at.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from swinft.data.batches import ImageRows, Key
from swinft.data.capacity import room_on_device
from swinft.data.collate import collate
from swinft.data.geometry import Geometry
from swinft.errors import InputError
from swinft.limits import available_cores, available_memory

AugmentOn = Literal["cpu", "device"]

CHUNK = 256  # pictures that are copied to the device at a time


@dataclass(frozen=True)
class DrawnRows(Dataset[dict[str, Any]]):
    """Rows without their pixels: `matrix` float32 (2, 3) and `colour` float32 (2,) instead of `image`.

    Args:
        rows: The rows with their pixels, from a cache.
        geometry: Draws.
    """

    rows: ImageRows
    geometry: Geometry

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        epoch, row = key
        assert self.rows.cache is not None
        height, width = self.rows.cache.shapes[row].tolist()
        matrix, colour = self.geometry.draw((height, width), self.rows.seed, epoch, row)
        return {"matrix": torch.from_numpy(matrix), "colour": torch.from_numpy(colour), **self.rows.labels(row)}


@dataclass(frozen=True)
class DevicePictures:
    """Pictures in a device's memory.

    Args:
        pixels: uint8 (N, S, T, 3): the channels of a pixel lie side by side, as `channels_last` has them.
        place: Of each row of the table in `pixels`, int64; −1 for rows that are not there.
        image_size: (H, W) of what is sampled.
        note: What they take, in words.
    """

    pixels: Tensor
    place: Tensor
    image_size: tuple[int, int]
    note: str

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.pixels.device

    def holds(self, rows: NDArray[np.int64], device: torch.device) -> bool:
        """Whether these are the pictures of just these rows, and on this device."""
        return self.device == device and np.array_equal(np.flatnonzero(self.place.cpu().numpy() >= 0), np.sort(rows))

    def sample(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch on the device, with `image` float32 (B, 3, H, W) in 0–255 for `matrix` and `colour`.

        Nothing here waits for the device.
        """
        here = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
        matrix, colour = here.pop("matrix"), here.pop("colour")
        with torch.autocast(self.device.type, enabled=False):
            stored = self.pixels.index_select(0, self.place.index_select(0, here["row"])).permute(0, 3, 1, 2)
            return {"image": change(warp(stored.float(), matrix, self.image_size), colour), **here}


def upload(drawn: DrawnRows, chosen: NDArray[np.int64], device: torch.device) -> DevicePictures:
    """Copies the pictures of some rows into a device's memory.

    Args:
        drawn: The rows.
        chosen: Which of them; no other is read.
        device: Where they go: an NVIDIA or AMD GPU, or the CPU.

    Raises:
        ImageError: One cannot be decoded; the message names the row.
        InputError: There is no room, or the device is of another kind.
    """
    rows, geometry = drawn.rows, drawn.geometry
    assert rows.cache is not None
    shape = geometry.stored_shape(rows.cache.shapes[chosen])
    needed = 3 * shape[0] * shape[1] * len(chosen)
    room = room_on_device(needed, free_memory(device), str(device))
    pixels = torch.empty((len(chosen), *shape, 3), dtype=torch.uint8, device=device)
    with ThreadPoolExecutor(available_cores()) as pool:
        for start in range(0, len(chosen), CHUNK):
            some = chosen[start : start + CHUNK].tolist()
            stored = pool.map(lambda row: geometry.stored(rows.decoded(row), shape), some)
            pixels[start : start + len(some)] = torch.from_numpy(np.stack(list(stored)))
    place = torch.full((len(rows),), -1)
    place[torch.from_numpy(chosen)] = torch.arange(len(chosen))
    note = f"{len(chosen):,} training pictures of {shape[0]} × {shape[1]} pixels are on {device}: {room}"
    return DevicePictures(pixels, place.to(device), rows.image_size, note)


def default_device() -> torch.device:
    """Where a loop without a Trainer has its batches: the GPU if there is one, else the CPU."""
    # With its number, as tensors name their device: without it the pictures would never seem to be there.
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def free_memory(device: torch.device) -> int:
    """Bytes of a device that nothing uses.

    Raises:
        InputError: The device is neither a CUDA one nor the CPU.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "cpu":
        return available_memory()
    raise InputError(f"data.augment_on is 'device', which works on cuda and cpu, not on {device}. Set it to cpu.")


def warp(pictures: Tensor, matrix: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Samples pictures where maps say: bilinear, and mirrored at the outermost pixels as OpenCV's REFLECT_101 does.

    Args:
        pictures: float (B, 3, S, T).
        matrix: From a pixel of the result to the picture, both from −1 to 1 between their edges, float32 (B, 2, 3).
        image_size: (H, W).

    Returns:
        float (B, 3, H, W).
    """
    height, width = image_size
    y, x = (((2 * torch.arange(side, device=matrix.device) + 1) / side - 1) for side in (height, width))
    # The sampler mirrors about the centres of the outermost pixels only where −1 and 1 are these, not the edges.
    wide, high = (side / max(side - 1, 1) for side in (pictures.shape[-1], pictures.shape[-2]))
    slopes = torch.stack([matrix[:, 0] * wide, matrix[:, 1] * high], dim=1)[:, None, None]
    # No matrix product as in `affine_grid`: with TF32 or bf16 allowed for those, it would miss by a tenth of a pixel.
    grid = slopes[..., 0] * x[:, None] + slopes[..., 1] * y[:, None, None] + slopes[..., 2]
    return functional.grid_sample(pictures, grid, mode="bilinear", padding_mode="reflection", align_corners=True)


def change(images: Tensor, colour: Tensor) -> Tensor:
    """Changes contrast and brightness.

    Args:
        images: float (B, 3, H, W) in 0–255.
        colour: Factor of every value, and what share of the image's mean is added after that, float32 (B, 2).

    Returns:
        The same, cut off at 0 and 255.
    """
    factor, share = colour[:, :, None, None, None].unbind(1)
    return (images * factor + images.mean((1, 2, 3), keepdim=True) * share).clamp(0, 255)


class DeviceLoader(DataLoader[Any]):
    """A loader of `DrawnRows` that yields images, sampled on the device that the pictures are on.

    It samples in the process that asks for a batch, so a Trainer finds everything where it wants it and a plain loop
    needs nothing else. Loader processes, if any, only draw.

    Args:
        *args: As for PyTorch's own loader.
        pictures: Of all rows that are asked for.
        **kwargs: As for PyTorch's own loader.
    """

    def __init__(self, *args: Any, pictures: DevicePictures, **kwargs: Any) -> None:
        self.pictures = pictures
        super().__init__(*args, **kwargs)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # PyTorch's own iterator is what is mapped
        return map(self.pictures.sample, super().__iter__())

    def images(self, keys: list[Key]) -> list[NDArray[np.uint8]]:
        """The images of some rows, each uint8 (H, W, 3), to look at."""
        batch = self.pictures.sample(collate([self.dataset[key] for key in keys]))
        return list(batch["image"].permute(0, 2, 3, 1).round().to(torch.uint8).cpu().numpy())
