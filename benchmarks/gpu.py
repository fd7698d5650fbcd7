"""Swin on one NVIDIA GPU: training and prediction, and whether the input keeps up. Under 8 minutes with 16 cores.

    python benchmarks/gpu.py                 # swin_tiny, swin_base, swin_base_384 in bf16
    python benchmarks/gpu.py --toy           # a tiny network on the CPU, not compiled; a test runs this

For each model: timm's definition and ours (timm's weights, faster window attention in torch's operations, or in Triton
kernels), each eager and with `torch.compile`, as a bare loop on images that are on the device already. FLOPs are those
of matrix multiplications in timm's forward pass, times three for training; the peak is the data sheet's, or that of a
8192³ matrix product in bf16 for other chips. Then what swinft's loader supplies from JPEGs, from its cache, and from
pictures on the device, and what training on them reaches. A variant that fails is written down with its error. Writes
benchmarks/results/gpu.json.
"""

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import machine, write
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from swinft import CSVDataModule
from swinft.model.backbone import create_backbone
from swinft.model.window_attention import Kernel, accelerate, triton_problem

CLASSES = 10
# Dense bf16 TFLOP/s by NVIDIA's data sheets; on another chip a large matrix product takes their place.
DATA_SHEETS = {"NVIDIA H200": 989, "NVIDIA H100 80GB HBM3": 989, "NVIDIA A100": 312}
LOADER_IMAGES = 4096
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Model:
    """What is measured: a timm model, its side in pixels, images per step, and arguments that shrink it."""

    name: str
    size: int
    batch: int
    arguments: dict[str, Any] | None = None


MODELS = [
    Model("swin_tiny_patch4_window7_224", 224, 256),
    Model("swin_base_patch4_window7_224", 224, 128),
    Model("swin_base_patch4_window12_384", 384, 48),
]
SHRUNK = {"embed_dim": 12, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
TOY = [Model("swin_tiny_patch4_window7_224", 32, 4, SHRUNK)]


VARIANTS: list[tuple[str, Kernel | None, bool]] = [
    ("timm", None, False),
    ("timm, compiled", None, True),
    ("fast attention", "torch", False),
    ("fast attention, compiled", "torch", True),
    ("triton", "triton", False),
    ("triton, compiled", "triton", True),
]


class Classifier(nn.Module):
    """A backbone with a linear layer; `kernel` is None for timm's attention."""

    def __init__(self, model: Model, kernel: Kernel | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = create_backbone(model.name, model.size, pretrained=False, backbone_args=model.arguments)
        self.head = nn.Linear(self.backbone.num_features, CLASSES)
        self.to(DEVICE)
        if kernel:
            accelerate(self.backbone, DEVICE, kernel)

    def forward(self, image: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to logits (B, CLASSES)."""
        logits: Tensor = self.head(self.backbone(image))
        return logits


def synchronize() -> None:
    """Waits for the device."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def seconds_of(step: Callable[[], object], steps: int) -> float:
    """Median seconds of a step, after a warm-up that pays for kernels and compilation."""
    for _ in range(3):
        step()
    times = []
    for _ in range(steps):
        synchronize()
        started = time.perf_counter()
        step()
        synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def about_device() -> dict[str, Any]:
    """Its name, the TFLOP/s of a large matrix product in bf16, and those that count as its peak."""
    side = 8192 if DEVICE.type == "cuda" else 256
    matrix = torch.randn(side, side, device=DEVICE, dtype=torch.bfloat16)
    product = 2 * side**3 / seconds_of(lambda: matrix @ matrix, 20) / 1e12
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "CPU"
    peaks = [peak for chip, peak in DATA_SHEETS.items() if name.startswith(chip)]
    source = "data sheet" if peaks else "matrix product"
    return {"device": name, "product TFLOP/s": product, "peak TFLOP/s": [*peaks, product][0], "peak from": source}


def forward_flops(model: Model) -> int:
    """FLOPs of one image's forward pass in timm's definition."""
    net, image = Classifier(model, None).eval(), torch.zeros(1, 3, model.size, model.size, dtype=torch.uint8)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(image.to(DEVICE))
    return int(counter.get_total_flops())


def measure(model: Model, kernel: Kernel | None, is_compiled: bool, steps: int) -> dict[str, Any]:
    """Images per second of training and prediction, seconds to compile, and peak memory in GB."""
    net: Any = Classifier(model, kernel)
    image = torch.randint(0, 256, (model.batch, 3, model.size, model.size), dtype=torch.uint8, device=DEVICE)
    target = torch.randint(0, CLASSES, (model.batch,), device=DEVICE)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-4, fused=DEVICE.type == "cuda")
    if is_compiled:
        net.compile()
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()

    def train() -> None:
        with torch.autocast(DEVICE.type, torch.bfloat16):
            loss = functional.cross_entropy(net(image), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def predict() -> None:
        with torch.inference_mode(), torch.autocast(DEVICE.type, torch.bfloat16):
            net(image)

    started = time.perf_counter()
    train()
    synchronize()
    first = time.perf_counter() - started
    training = model.batch / seconds_of(train, steps)
    memory = torch.cuda.max_memory_allocated() / 1e9 if DEVICE.type == "cuda" else None
    net.eval()
    prediction = model.batch / seconds_of(predict, steps)
    return {"train img/s": training, "predict img/s": prediction, "first step s": first, "peak memory GB": memory}


def variants(model: Model, steps: int, peak: float) -> dict[str, Any]:
    """All variants of one model, with FLOP/s and their share of the peak."""
    flops, found = forward_flops(model), {}
    for name, kernel, is_compiled in VARIANTS:
        if is_compiled and model.arguments:  # compiling takes minutes on a CPU
            continue
        if kernel == "triton" and (problem := triton_problem(DEVICE)):
            print(f"{model.name} {name}: left out, {problem}", flush=True)
            continue
        torch.compiler.reset()
        try:
            result = measure(model, kernel, is_compiled, steps)
        except Exception as error:  # a variant that fails is a finding, and the others are to be measured all the same
            found[name] = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
            print(f"{model.name} {name}: {found[name]['error']}", flush=True)
            continue
        for kind, passes in (("train", 3), ("predict", 1)):
            achieved = passes * flops * result[f"{kind} img/s"]
            result |= {f"{kind} TFLOP/s": achieved / 1e12, f"{kind} share of peak": achieved / peak}
        found[name] = result
        print(f"{model.name} {name}: {result['train img/s']:.0f} img/s trained", flush=True)
    return {"forward GFLOP": flops / 1e9, "batch": model.batch, "variants": found}


def make_competition(root: Path, count: int) -> None:
    """JPEGs of 500 × 375 pixels with the texture of photographs, and a table of them."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir()
    for row in range(min(count, 512)):  # as many different files as decoding needs to be honest
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((500, 375))
        noisy = np.asarray(coarse).astype(int) + rng.normal(0, 12, (375, 500, 3))
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(root / "images" / f"{row}.jpg", quality=90)
    lines = [f"{row},{row % 512},c{row % CLASSES}" for row in range(count)]
    (root / "train.csv").write_text("\n".join(["id,image,label", *lines, ""]))


def supply(model: Model, count: int, workers: int) -> dict[str, float]:
    """Images per second that the loader hands out: from JPEGs, from the cache, and from pictures on the device."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_competition(root, count)
        for name, cache, augment_on in (("JPEG", False, "cpu"), ("cache", True, "cpu"), ("device", True, "device")):
            data = CSVDataModule(
                root=folder,
                train="train.csv",
                image="images/{image}.jpg",
                target="label",
                target_kind="classification",
                image_size=model.size,
                batch_size=model.batch,
                num_workers=workers,
                augment="crop",
                augment_on=augment_on,
                cache=cache,
                cache_dir=str(root / "cache"),
            )
            data.setup("fit")
            loader = data.train_dataloader()
            for _ in loader:  # starts the workers
                break
            started, images = time.perf_counter(), 0
            for batch in loader:
                images += len(batch["image"].to(DEVICE, non_blocking=True))
            synchronize()
            found[f"{name} img/s"] = images / (time.perf_counter() - started)
            found[f"{name} training img/s"] = train_from(loader, model)
    return found


def train_from(loader: Any, model: Model) -> float:
    """Images per second of the fast network trained on a loader's batches, after the first ones."""
    net: Any = Classifier(model, "torch")
    optimizer = torch.optim.AdamW(net.parameters(), 1e-4, fused=DEVICE.type == "cuda")
    images, started = 0, 0.0
    for number, batch in enumerate(loader):
        if number == 2:
            synchronize()
            started, images = time.perf_counter(), 0
        with torch.autocast(DEVICE.type, torch.bfloat16):
            logits = net(batch["image"].to(DEVICE, non_blocking=True))
            loss = functional.cross_entropy(logits, batch["target"].to(DEVICE, non_blocking=True))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        images += len(logits)
    synchronize()
    return images / (time.perf_counter() - started)


def goals(models: list[dict[str, Any]], supply: dict[str, float]) -> list[dict[str, Any]]:
    """What is to be reached: on Swin-T against compiled timm, on Swin-B of the peak, and trained from the cache."""
    tiny, base = models[0]["variants"], models[min(1, len(models) - 1)]["variants"]
    ours = [name for name, kernel, _ in VARIANTS if kernel]

    def best(found: dict[str, Any], names: list[str], key: str) -> float:
        return max((found[name][key] for name in names if key in found.get(name, {})), default=math.nan)

    rival = best(tiny, ["timm, compiled"], "train img/s")
    synthetic = best(tiny, ["fast attention"], "train img/s")
    return [
        {"what": "Swin-T trained, × timm compiled", "value": best(tiny, ours, "train img/s") / rival, "least": 1.3},
        {"what": "Swin-B trained, share of the peak", "value": best(base, ours, "train share of peak"), "least": 0.35},
        {"what": "Swin-T from cached JPEGs, × synthetic", "value": supply["cache training img/s"] / synthetic,
         "least": 0.95},
    ]  # fmt: skip


def main() -> None:
    """Measures, prints, writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="tiny networks, few steps; writes nothing")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--workers", type=int, default=12)
    options = parser.parse_args()
    if not options.toy and DEVICE.type != "cuda":
        parser.error("there is no NVIDIA GPU here; --toy exercises the script on the CPU")
    models, steps = (TOY, 2) if options.toy else (MODELS, options.steps)
    workers = 1 if options.toy else options.workers
    results: dict[str, Any] = {"machine": machine(), **about_device()}
    peak = results["peak TFLOP/s"] * 1e12
    results["models"] = {f"{model.name} {model.size}": variants(model, steps, peak) for model in models}
    results["supply"] = supply(models[0], 64 if options.toy else LOADER_IMAGES, workers)
    results["goals"] = goals(list(results["models"].values()), results["supply"])
    print({name: round(value) for name, value in results["supply"].items()}, *results["goals"], sep="\n")
    if not options.toy:
        write("gpu", results)


if __name__ == "__main__":
    main()
