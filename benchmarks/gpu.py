"""Swin on one NVIDIA GPU: training and prediction, swinft's own loop, and whether the input keeps up.

    python benchmarks/gpu.py                      # everything, in the order of its value, until 420 s have passed
    python benchmarks/gpu.py --seconds 120        # what fits; a second run on the same GPU goes on with the rest
    python benchmarks/gpu.py --toy                # a tiny network on the CPU, not compiled; a test runs this

For each model: timm's definition with its own attention and with torch's fused one, and ours (timm's weights, faster
window attention in torch's operations, or in Triton kernels), each eager and with `torch.compile`, as a bare loop on
images that are on the device already. FLOPs are those of matrix multiplications in timm's forward pass, times three for
training; the peak is the data sheet's, or that of a 8192³ matrix product in bf16 for other chips. Images per second are
those of a stretch of steps, as a real loop makes them; "one by one" waits for the device after every step. Then what
swinft's loader supplies from JPEGs, from its cache, and from images on the device, and what training on them reaches;
swinft's own loop beside a bare one; and convolutional networks in both memory layouts. A variant that fails is written
down with its error. benchmarks/results/gpu.json is written after every variant, and a copy into the folder that
`--output` names, so that a run that is cut off loses nothing.
"""

import argparse
import gc
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import timm.layers
import torch
from measure import RESULTS, machine, write
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from swinft import ClassificationHead, CSVDataModule, FineTuneTask
from swinft.model.backbone import create_backbone
from swinft.model.optim import adamw, param_groups
from swinft.model.window_attention import Kernel, accelerate, triton_problem

CLASSES = 10
# Dense bf16 TFLOP/s by NVIDIA's data sheets; on another chip a large matrix product takes their place.
DATA_SHEETS = {"NVIDIA H200": 989, "NVIDIA H100 80GB HBM3": 989, "NVIDIA A100": 312}
# Loader processes hold two batches each before anything is timed: an epoch must be many times longer than that.
LOADER_IMAGES, LOADER_BATCH = 16_384, 64
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BF16 = DEVICE.type == "cuda"


@dataclass(frozen=True)
class Model:
    """What is measured: a timm model, its side in pixels, images per step, and arguments that shrink it."""

    name: str
    size: int
    batch: int
    arguments: dict[str, Any] | None = None

    def __str__(self) -> str:
        return f"{self.name} {self.size}"


@dataclass(frozen=True)
class Variant:
    """How it is computed.

    Args:
        name: For the table.
        kernel: Of our window attention; None for timm's.
        is_compiled: With `torch.compile`.
        is_fused: timm's attention by torch's fused kernel, which timm calls experimental for Swin V1.
        is_channels_last: Weights and images in channels-last layout.
    """

    name: str
    kernel: Kernel | None = None
    is_compiled: bool = False
    is_fused: bool = False
    is_channels_last: bool = False


SWIN_T = Model("swin_tiny_patch4_window7_224", 224, 256)
SWIN_B = Model("swin_base_patch4_window7_224", 224, 128)
SWIN_B_384 = Model("swin_base_patch4_window12_384", 384, 48)
RESNET = Model("resnet50", 224, 256)
SHRUNK = {"embed_dim": 12, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
TOY = Model("swin_tiny_patch4_window7_224", 32, 4, SHRUNK)
TOY_RESNET = Model("resnet18", 32, 4, {"layers": [1, 1, 1, 1]})

VARIANTS = [
    Variant("timm, compiled", is_compiled=True),
    Variant("timm fused, compiled", is_fused=True, is_compiled=True),
    Variant("fast attention, compiled", "torch", is_compiled=True),
    Variant("triton, compiled", "triton", is_compiled=True),
    Variant("timm"),
    Variant("timm fused", is_fused=True),
    Variant("fast attention", "torch"),
    Variant("triton", "triton"),
]
LAYOUTS = [Variant("plain layout"), Variant("channels last", is_channels_last=True)]


class Classifier(nn.Module):
    """A backbone with a linear layer, computed as a variant says."""

    def __init__(self, model: Model, variant: Variant) -> None:
        super().__init__()
        torch.manual_seed(0)
        timm.layers.set_fused_attn(variant.is_fused, experimental=variant.is_fused)
        self.backbone = create_backbone(model.name, model.size, pretrained=False, backbone_args=model.arguments)
        self.head = nn.Linear(self.backbone.num_features, CLASSES)
        self.to(DEVICE, memory_format=torch.channels_last if variant.is_channels_last else torch.preserve_format)
        if variant.kernel:
            accelerate(self.backbone, DEVICE, variant.kernel)

    def forward(self, image: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to logits (B, CLASSES)."""
        logits: Tensor = self.head(self.backbone(image))
        return logits


def synchronize() -> None:
    """Waits for the device."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def seconds_of(step: Callable[[], object], steps: int) -> tuple[float, float]:
    """Seconds of a step: in a stretch of them, and the median of single ones; both after a warm-up."""
    for _ in range(3):
        step()
    synchronize()
    started = time.perf_counter()
    for _ in range(steps):
        step()
    synchronize()
    stretch = (time.perf_counter() - started) / steps
    times = []
    for _ in range(steps):
        started = time.perf_counter()
        step()
        synchronize()
        times.append(time.perf_counter() - started)
    return stretch, statistics.median(times)


def clean() -> None:
    """Gives back what the last variant held: a compiled module is a cycle that only the collector frees."""
    torch.compiler.reset()
    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def about_device() -> dict[str, Any]:
    """Its name, the TFLOP/s of a large matrix product in bf16, and those that count as its peak."""
    side = 8192 if DEVICE.type == "cuda" else 256
    matrix = torch.randn(side, side, device=DEVICE, dtype=torch.bfloat16)
    product = 2 * side**3 / seconds_of(lambda: matrix @ matrix, 20)[0] / 1e12
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "CPU"
    peaks = [peak for chip, peak in DATA_SHEETS.items() if name.startswith(chip)]
    source = "data sheet" if peaks else "matrix product"
    return {"device": name, "product TFLOP/s": product, "peak TFLOP/s": [*peaks, product][0], "peak from": source}


def forward_flops(model: Model) -> int:
    """FLOPs of one image's forward pass in timm's definition."""
    net, image = Classifier(model, Variant("timm")).eval(), torch.zeros(1, 3, model.size, model.size, dtype=torch.uint8)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(image.to(DEVICE))
    return int(counter.get_total_flops())


def measure(model: Model, variant: Variant, steps: int) -> dict[str, Any]:
    """Images per second of training and prediction, seconds of the first step, and peak memory in GB."""
    clean()
    net: Any = Classifier(model, variant)
    image = torch.randint(0, 256, (model.batch, 3, model.size, model.size), dtype=torch.uint8, device=DEVICE)
    if variant.is_channels_last:
        image = image.contiguous(memory_format=torch.channels_last)
    target = torch.randint(0, CLASSES, (model.batch,), device=DEVICE)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-4, fused=DEVICE.type == "cuda")
    if variant.is_compiled:
        net.compile()

    def train() -> None:
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=BF16):
            loss = functional.cross_entropy(net(image), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def predict() -> None:
        with torch.inference_mode(), torch.autocast(DEVICE.type, torch.bfloat16, enabled=BF16):
            net(image)

    started = time.perf_counter()
    train()
    synchronize()
    first = time.perf_counter() - started
    stretch, single = seconds_of(train, steps)
    memory = torch.cuda.max_memory_allocated() / 1e9 if DEVICE.type == "cuda" else None
    net.eval()
    predicted, _ = seconds_of(predict, steps)
    return {
        "train img/s": model.batch / stretch,
        "train img/s, one by one": model.batch / single,
        "predict img/s": model.batch / predicted,
        "first step s": first,
        "peak memory GB": memory,
    }


def measured(model: Model, variant: Variant, steps: int, peak: float) -> dict[str, Any]:
    """What `measure` finds, with FLOP/s and their share of the peak."""
    result = measure(model, variant, steps)
    flops = forward_flops(model)
    for kind, passes in (("train", 3), ("predict", 1)):
        achieved = passes * flops * result[f"{kind} img/s"]
        result |= {f"{kind} TFLOP/s": achieved / 1e12, f"{kind} share of peak": achieved / peak}
    return result


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


def datamodule(root: Path, model: Model, workers: int, cache: bool = True, augment_on: Any = "cpu") -> CSVDataModule:
    """The table that `make_competition` wrote, in batches as small as its length needs to be honest."""
    return CSVDataModule(
        root=str(root),
        train="train.csv",
        image="images/{image}.jpg",
        target="label",
        target_kind="classification",
        image_size=model.size,
        batch_size=min(model.batch, LOADER_BATCH),
        num_workers=workers,
        augment="crop",
        augment_on=augment_on,
        cache=cache,
        cache_dir=str(root / "cache"),
    )


def supply(root: Path, model: Model, workers: int, source: str) -> dict[str, float]:
    """Images per second that the loader hands out, and that training on them reaches, beside images that lie ready."""
    clean()
    cache, augment_on = {"JPEG": (False, "cpu"), "cache": (True, "cpu"), "device": (True, "device")}[source]
    data = datamodule(root, model, workers, cache, augment_on)
    data.setup("fit")
    loader = data.train_dataloader()
    for _ in loader:  # starts the workers and writes the cache
        break
    started, images = time.perf_counter(), 0
    for batch in loader:
        images += len(batch["image"].to(DEVICE, non_blocking=True))
    synchronize()
    found = {f"{source} img/s": images / (time.perf_counter() - started)}
    ready = {name: value.to(DEVICE) for name, value in next(iter(loader)).items()}
    steps = len(loader)
    found[f"{source} training img/s"] = bare_loop(model, iter(loader))
    found[f"{source} training img/s, images ready"] = bare_loop(model, iter([ready] * min(steps, 100)))
    return found


def bare_loop(model: Model, batches: Iterator[dict[str, Tensor]], clip: float | None = None) -> float:
    """Images per second of the fast network trained on batches by a loop written by hand, after the first ten steps."""
    net: Any = Classifier(model, Variant("fast attention", "torch"))
    optimizer = torch.optim.AdamW(net.parameters(), 1e-4, fused=DEVICE.type == "cuda")
    images, started = 0, time.perf_counter()
    for number, batch in enumerate(batches):
        if number == 10:
            synchronize()
            started, images = time.perf_counter(), 0
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=BF16):
            logits = net(batch["image"].to(DEVICE, non_blocking=True))
            loss = functional.cross_entropy(logits, batch["target"].to(DEVICE, non_blocking=True))
        loss.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
        images += len(logits)
    synchronize()
    return images / (time.perf_counter() - started)


class Clock(pl.Callback):
    """Images per second of Lightning's training loop, after the first ten steps."""

    def on_train_batch_end(self, trainer: pl.Trainer, task: pl.LightningModule, outputs: Any, batch: Any,
                           batch_idx: int) -> None:  # fmt: skip
        """Starts at the tenth batch, and counts."""
        if batch_idx == 9:
            synchronize()
            self.started, self.images = time.perf_counter(), 0
        elif batch_idx > 9:
            self.images += len(batch["target"])

    def on_train_epoch_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Stops."""
        synchronize()
        self.rate = self.images / (time.perf_counter() - self.started)


class Ready(pl.LightningDataModule):
    """One batch, again and again."""

    def __init__(self, batch: dict[str, Tensor], count: int) -> None:
        super().__init__()
        self.batches = [batch] * count

    def train_dataloader(self) -> Any:
        """The batches."""
        return DataLoader(self.batches, batch_size=None)  # type: ignore[arg-type]  # a list would be several loaders


def own_loop(model: Model, steps: int, ema_decay: float | None) -> dict[str, float]:
    """Images per second of swinft's task in Lightning's loop, and of a loop by hand, on the same ready batch."""
    clean()
    batch = min(model.batch, LOADER_BATCH)
    image = torch.randint(0, 256, (batch, 3, model.size, model.size), dtype=torch.uint8, device=DEVICE)
    target = torch.randint(0, CLASSES, (batch,), device=DEVICE)
    ready = {"image": image, "target": target, "row": torch.arange(batch, device=DEVICE)}
    rates: dict[str, list[float]] = {"swinft img/s": [], "by hand img/s": []}
    for _ in range(3):
        task = FineTuneTask(
            head=ClassificationHead, backbone=model.name, num_outputs=CLASSES, image_size=model.size, pretrained=False,
            backbone_args=model.arguments, ema_decay=ema_decay,
        )  # fmt: skip
        clock = Clock()
        trainer = pl.Trainer(
            max_epochs=1, accelerator=DEVICE.type, devices=1, precision="bf16-mixed" if BF16 else "32-true",
            gradient_clip_val=1.0, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=[clock], limit_val_batches=0,
        )  # fmt: skip
        trainer.fit(task, datamodule=Ready(ready, steps + 10))
        rates["swinft img/s"].append(clock.rate)
        rates["by hand img/s"].append(bare_loop(model, iter([ready] * (steps + 10)), clip=1.0))
    return {name: statistics.median(found) for name, found in rates.items()}


def optimizer_groups(model: Model) -> dict[str, float]:
    """Groups of parameters that one optimiser step works through."""
    task = FineTuneTask(
        head=ClassificationHead, backbone=model.name, num_outputs=CLASSES, image_size=model.size, pretrained=False,
        backbone_args=model.arguments,
    )  # fmt: skip
    groups = param_groups(task.net.backbone, [task.net.head], task.optim)
    return {"groups": len(adamw(groups, task.optim, torch.device("cpu"), scales_loss=False).param_groups)}


def goals(found: dict[str, Any]) -> list[dict[str, Any]]:
    """What is to be reached, as far as it has been measured."""
    models, supplied, loop = found.get("models", {}), found.get("supply", {}), found.get("loop", {})

    def rate(model: Model, names: list[str]) -> float:
        variants = models.get(str(model), {}).get("variants", {})
        rates = [variants[name]["train img/s"] for name in names if "train img/s" in variants.get(name, {})]
        return max(rates, default=math.nan)

    ours = [variant.name for variant in VARIANTS if variant.kernel]
    theirs = [variant.name for variant in VARIANTS if not variant.kernel and variant.is_compiled]
    fed = [supplied.get(f"cache training img/s{end}", math.nan) for end in ("", ", images ready")]
    handmade = [loop.get(f"{key} img/s", math.nan) for key in ("by hand", "swinft")]
    wanted = [
        ("Swin-T trained, × timm compiled", rate(SWIN_T, ours) / rate(SWIN_T, theirs), "least", 1.3),
        ("Swin-B trained, images/s", rate(SWIN_B, ours), "least", 2500),
        ("Swin-T from cached JPEGs, × images that lie ready", fed[0] / fed[1], "least", 0.95),
        ("swinft's loop, × the time of one by hand", handmade[0] / handmade[1], "most", 1.03),
    ]
    return [
        {"what": what, "value": value, "bound": bound, "limit": limit,
         "met": bool(value >= limit if bound == "least" else value <= limit)}
        for what, value, bound, limit in wanted if not math.isnan(value)
    ]  # fmt: skip


def cases(found: dict[str, Any], root: Path, options: argparse.Namespace) -> Iterator[tuple[list[str], Any]]:
    """Where a result belongs, and what measures it, in the order of value."""
    peak, steps = found["peak TFLOP/s"] * 1e12, options.steps
    tiny, base, base_384, net = (TOY, TOY, TOY, TOY_RESNET) if options.toy else (SWIN_T, SWIN_B, SWIN_B_384, RESNET)
    compiled = [v for v in VARIANTS if v.is_compiled and not options.toy]
    eager = [v for v in VARIANTS if not v.is_compiled]

    def of(model: Model, variants: list[Variant]) -> Iterator[tuple[list[str], Any]]:
        for variant in variants:
            yield (
                ["models", str(model), "variants", variant.name],
                partial(measured, model, variant, steps, peak),
            )

    yield from of(tiny, compiled + eager)
    for decay, key in ((None, "loop"), (0.999, "loop with averaged weights")):
        yield [key], partial(own_loop, tiny, steps, decay)
    for source in ("cache", "JPEG", "device"):
        yield ["supply", source], partial(supply, root, tiny, options.workers, source)
    yield from of(net, LAYOUTS)
    if not options.toy:
        yield from of(base, [*eager[2:], compiled[2], compiled[3], compiled[1], compiled[0], *eager[:2]])
        yield from of(base_384, [*eager, *compiled])
    yield ["optimizer"], partial(optimizer_groups, tiny)


def put(found: dict[str, Any], keys: list[str], result: dict[str, Any]) -> None:
    """Stores a result under nested keys; the supply's sources share one table."""
    if keys[0] == "supply":
        found.setdefault("supply", {}).update(result)
        found.setdefault("done", []).append("supply/" + keys[1])
        return
    place = found
    for key in keys[:-1]:
        place = place.setdefault(key, {})
    place[keys[-1]] = result
    found.setdefault("done", []).append("/".join(keys))


def save(found: dict[str, Any], options: argparse.Namespace) -> None:
    """Writes what is known so far."""
    found["goals"] = goals(found)
    if options.toy:
        return
    for folder in filter(None, [RESULTS, options.output]):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "gpu.json").write_text(json.dumps(found, indent=1) + "\n")


def begin(options: argparse.Namespace) -> dict[str, Any]:
    """The device, and what an earlier run found on the same one."""
    about = about_device()
    earlier = RESULTS / "gpu.json"
    if not options.toy and not options.anew and earlier.is_file():
        found: dict[str, Any] = json.loads(earlier.read_text())
        if found["device"] == about["device"] and found["machine"]["torch"] == version("torch"):
            return found
    return {"machine": machine(), **about, "done": []}


def main() -> None:
    """Measures, prints, writes the results after every variant."""
    started = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="tiny networks, few steps; writes nothing")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=420, help="start nothing once these have passed")
    parser.add_argument("--anew", action="store_true", help="measure again what an earlier run has")
    parser.add_argument("--output", type=Path, help="a folder for a copy of the result")
    options = parser.parse_args()
    if not options.toy and DEVICE.type != "cuda":
        parser.error("there is no NVIDIA GPU here; --toy exercises the script on the CPU")
    if options.toy:
        options.steps, options.workers = 2, 1
    found = begin(options)
    with tempfile.TemporaryDirectory() as folder:
        make_competition(Path(folder), 160 if options.toy else LOADER_IMAGES)
        for keys, case in cases(found, Path(folder), options):
            name = "/".join(keys)
            if name in found["done"]:
                continue
            if time.perf_counter() - started > options.seconds:
                print(f"{name}: left out, {options.seconds:.0f} s have passed", flush=True)
                continue
            if "triton" in name and (problem := triton_problem(DEVICE)):
                print(f"{name}: left out, {problem}", flush=True)
                continue
            try:
                result = case()
            except Exception as error:  # a variant that fails is a finding, and the others are to be measured too
                result = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
                error.__traceback__ = None  # it holds the variant's tensors
            shown = {key: value if isinstance(value, str) else round(value or 0, 2) for key, value in result.items()}
            print(f"{time.perf_counter() - started:5.0f} s  {name}: {shown}", flush=True)
            put(found, keys, result)
            save(found, options)
    print(*found.get("goals", []), sep="\n")
    if not options.toy:
        write("gpu", found)


if __name__ == "__main__":
    main()
