"""Measures the speed of the input: from the pixel cache, and while it is built.

    python benchmarks/input.py

On one core: random resized crop and flip at 224 pixels from the cache; the same from images in the memory of a device
(a GPU if there is one, else that core); decoding and shrinking as in the cache's build, compared with plain OpenCV.
Then building the cache with all cores. The images are JPEGs of 500 × 375 pixels, cropped from the two photographs in
scikit-learn. Alternatives take turns, and on one core processor time is measured, which other processes affect only by
sharing caches and memory. Run it in the clone's root; 1 minute on 2 cores. Prints, and writes
benchmarks/results/input.json.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import albumentations as A
import cv2
import numpy as np
import torch
from measure import machine, spread, write
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images

from swinft.data.augment.crops import random_crop
from swinft.data.augment.geometry import make_geometry
from swinft.data.augment.pipelines import apply
from swinft.data.cache.pixels import PixelCache, prepare
from swinft.data.images.resize import load_image
from swinft.data.inspection.scan import ImageSet
from swinft.data.loading.collate import collate
from swinft.data.loading.dataset import ImageDataset
from swinft.data.loading.device_loader import AugmentParamsDataset, DeviceImages, default_device, upload

SIZE = (224, 224)
BATCH = 32
Spread = dict[str, float]
Pixels = NDArray[np.uint8]


def write_jpegs(folder: Path, number: int) -> list[Path]:
    """Different crops of two photographs, mirrored and brightened; quality 90."""
    photos = load_sample_images().images
    numbers = np.random.default_rng(0)
    paths = []
    for index in range(number):
        photo = photos[index % len(photos)]
        top, left = numbers.integers(0, 427 - 375 + 1), numbers.integers(0, 640 - 500 + 1)
        cut = photo[top : top + 375, left : left + 500][:, :: int(numbers.choice([-1, 1]))]
        cut = np.clip(cut * numbers.uniform(0.8, 1.2), 0, 255).astype(np.uint8)
        paths.append(folder / f"{index}.jpg")
        Image.fromarray(cut).save(paths[-1], quality=90)
    return paths


def race(
    rivals: dict[str, Callable[[int], object]],
    number: int,
    block: int,
    repeats: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Calls per second of processor time in each repeat; alternatives take turns every `block` calls.

    Args:
        rivals: Each takes an index from 0 to `number`.
        number: Calls in a repeat.
        block: Short, so that all alternatives have the same load on the machine.
        repeats: After one that is not counted.
        clock: Returns seconds; wall clock for a device.
    """
    rates: dict[str, list[float]] = {name: [] for name in rivals}
    for repeat in range(repeats + 1):
        spent = dict.fromkeys(rivals, 0.0)
        for start in range(0, number, block):
            for name, rival in rivals.items():
                started = clock()
                for index in range(start, min(start + block, number)):
                    rival(index)
                spent[name] += clock() - started
        for name, seconds in spent.items():
            if repeat > 0:
                rates[name].append(number / seconds)
    return rates


def from_cache(cache: PixelCache, repeats: int) -> dict[str, Spread]:
    """Images per second and core from the cache: random resized crop to 224 × 224 and flip, in random order."""
    pipeline = A.Compose([A.RandomResizedCrop(size=SIZE), A.HorizontalFlip(p=0.5)])
    order = np.random.default_rng(0).permutation(len(cache)).tolist()
    batch = np.zeros((BATCH, *SIZE, 3), np.uint8)
    rivals: dict[str, Callable[[int], object]] = {
        "albumentations": lambda index: pipeline(image=cache.read(order[index])),
        "albumentations, drawn from seed, epoch and row": lambda index: apply(
            pipeline, cache.read(order[index]), 0, 0, order[index]
        ),
        "random_crop, drawn from seed, epoch and row": lambda index: random_crop(
            cache.read(order[index]), batch[index % BATCH], 0, 0, order[index]
        ),
        "cv2.resize alone, a crop of half the area": lambda index: cv2.resize(
            cache.read(order[index])[30:225, 50:270], SIZE, dst=batch[index % BATCH]
        ),
    }
    return {name: spread(rates) for name, rates in race(rivals, len(cache), 250, repeats).items()}


def on_device(cache: PixelCache, repeats: int) -> dict[str, Spread]:
    """Images per second with `augment_on: device`: drawing on a core, and sampling on the device, 32 at a time."""
    device = default_device()
    found = {}
    for preset in ("crop", "medium"):
        rows = ImageDataset(None, ImageSet([""] * len(cache)), None, SIZE, seed=0, cache=cache)
        drawn = AugmentParamsDataset(rows, make_geometry(preset, SIZE, "squash"))
        started = time.perf_counter()
        images = upload(drawn, np.arange(len(cache)), device)
        found[f"{preset}, uploaded"] = spread([len(cache) / (time.perf_counter() - started)])
        batches = [collate([drawn[0, row] for row in range(start, start + BATCH)]) for start in range(0, 256, BATCH)]

        def sample(index: int, images: DeviceImages = images, batches: list[Any] = batches) -> None:
            images.sample(batches[index])
            if device.type == "cuda":
                torch.cuda.synchronize()

        (rates,) = race({"draw": lambda row, drawn=drawn: drawn[0, row]}, len(cache), 250, repeats).values()
        found[f"{preset}, drawn"] = spread(rates)
        clock = time.perf_counter if device.type == "cuda" else time.process_time
        (rates,) = race({"sample": sample}, len(batches), 1, repeats, clock).values()
        found[f"{preset}, sampled"] = spread([rate * BATCH for rate in rates])
    return found


def opencv(path: Path, interpolation: int = cv2.INTER_AREA) -> Pixels:
    """A file decoded and shrunk to the cache's size by OpenCV; area averaging is its antialiasing filter."""
    image = cv2.imread(str(path))
    return np.asarray(cv2.resize(image, (341, 256), interpolation=interpolation), dtype=np.uint8)


def opencv_build(paths: list[Path], target: Path) -> None:
    """The simplest cache: a loop that writes images decoded by OpenCV."""
    with target.open("wb") as file:
        for path in paths:
            file.write(opencv(path).data)
        file.flush()
        os.fsync(file.fileno())
    target.unlink()


def our_build(paths: list[Path], folder: Path, workers: int | None) -> None:
    """Swinft's cache, with key, lock and header."""
    prepare(paths, paths[0].parent, SIZE, folder, workers).path.unlink()


def cold(paths: list[Path], folder: Path, repeats: int) -> dict[str, Spread]:
    """Decoding and shrinking, and building a whole cache, per second and core; paired ratios of swinft to OpenCV."""
    assert isinstance(ours := load_image(paths[0], SIZE), np.ndarray)
    assert ours.shape == opencv(paths[0]).shape
    decoders: dict[str, Callable[[int], object]] = {
        "OpenCV": lambda i: opencv(paths[i]),
        "OpenCV with aliasing": lambda i: opencv(paths[i], cv2.INTER_LINEAR),
        "ours": lambda i: load_image(paths[i], SIZE),
    }
    rates = race(decoders, len(paths), 25, repeats)  # keeps the code of each in the processor's caches
    builds: dict[str, Callable[[int], object]] = {
        "OpenCV": lambda _: opencv_build(paths, folder / "plain"),
        "ours": lambda _: our_build(paths, folder, workers=1),
    }
    built = {name: [rate * len(paths) for rate in found] for name, found in race(builds, 1, 1, repeats).items()}
    result = {}
    for what, found in (("decode and shrink", rates), ("whole build", built)):
        result |= {f"{what}, {name}": spread(values) for name, values in found.items()}
        for rival in [name for name in found if name != "ours"]:
            ratios = [ours / theirs for ours, theirs in zip(found["ours"], found[rival], strict=True)]
            result[f"{what}, ours over {rival}"] = spread(ratios)
    return result


def preparation(paths: list[Path], folder: Path, repeats: int) -> dict[str, object]:
    """Wall-clock seconds to build the cache with all cores."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        our_build(paths, folder, workers=None)
        seconds.append(time.perf_counter() - started)
    return {"images": len(paths), "cores": os.cpu_count(), "seconds": spread(seconds)}


def main() -> None:
    """Measures, prints, writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {"machine": machine("opencv-python-headless", "albumentations"), **vars(options)}
    result["device"] = str(default_device())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        paths = write_jpegs(folder / "images", options.images)
        result["mean bytes of a JPEG"] = float(np.mean([path.stat().st_size for path in paths]))
        result["preparation, all cores, wall clock"] = preparation(paths, folder, repeats=3)
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        cache = prepare(paths, folder / "images", SIZE, folder)
        print("cached:", len(cache), "images of", cache.shapes[0].tolist(), flush=True)
        result["from the cache, images per second and core"] = from_cache(cache, options.repeats)
        result["on the device, images per second"] = on_device(cache, options.repeats)
        cache.path.unlink()
        result["cold, images per second and core"] = cold(paths[:200], folder, options.repeats)
    result["load after"] = os.getloadavg()[0]
    write("input", result)


if __name__ == "__main__":
    main()
