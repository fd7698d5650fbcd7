"""The measurements of benchmarks/gpu.py, one function each; every one frees the memory of the one before.

Shapes: B batch.
"""

import copy
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
import numpy as np
import timm.layers
import torch
import yaml
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from swinft import ClassificationHead, CSVDataModule, FineTuneTask
from swinft.cli import main as command
from swinft.inference.predictor import predict_rows
from swinft.model.attention.swin import Kernel, accelerate
from swinft.model.backbones.timm_backbone import create_backbone
from swinft.model.settings import ComputeConfig, TaskContext
from swinft.model.training.optim import param_groups
from swinft.model.training.optimizers import make_optimizer
from swinft.run.prediction import predict
from swinft.system.precision import autocast

CLASSES = 10
# Dense bf16 TFLOP/s by NVIDIA's data sheets; on another chip a large matrix product is measured instead.
DATA_SHEETS = {"NVIDIA H200": 989, "NVIDIA H100 80GB HBM3": 989, "NVIDIA A100": 312}
LOADER_BATCH = 64
LOADER_IMAGES = 16_384
FILES = 256  # enough different files for a realistic decoding speed
WARM_UP = 10  # warm-up steps
LONG_EPOCHS = 1000  # planned, long enough for the timed trial of `swinft fit`
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BF16 = DEVICE.type == "cuda"


@dataclass(frozen=True)
class Model:
    """A timm model, its side in pixels, images per step, and arguments that shrink it."""

    name: str
    size: int
    batch: int
    arguments: dict[str, Any] | None = None

    def __str__(self) -> str:
        return f"{self.name} {self.size}"


@dataclass(frozen=True)
class Variant:
    """How a model is computed.

    Args:
        name: For the table.
        kernel: Of swinft's window attention; None for timm's.
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
EFFICIENTNET = Model("tf_efficientnetv2_s", 300, 128)
SHRUNK = {"embed_dim": 12, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
TOY = Model("swin_tiny_patch4_window7_224", 32, 4, SHRUNK)
TOY_RESNET = Model("resnet18", 32, 4, {"layers": [1, 1, 1, 1]})

FAST = Variant("fast attention", "torch")
VARIANTS = [
    Variant("timm, compiled", is_compiled=True),
    Variant("timm fused, compiled", is_fused=True, is_compiled=True),
    Variant("fast attention, compiled", "torch", is_compiled=True),
    Variant("timm"),
    Variant("timm fused", is_fused=True),
    FAST,
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
            accelerate(self.backbone, DEVICE, variant.kernel, torch.bfloat16 if BF16 else torch.float)

    def forward(self, image: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to logits (B, CLASSES)."""
        logits: Tensor = self.head(self.backbone(image))
        return logits


def synchronize() -> None:
    """Synchronises the device."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def seconds_of(step: Callable[[], object], steps: int) -> tuple[float, float]:
    """Seconds per step: of many steps, and the median of single ones; both after a warm-up."""
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
    """Frees the memory of the last variant: a compiled module is a cycle that only the garbage collector frees."""
    torch.compiler.reset()
    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def about_device() -> dict[str, Any]:
    """Name of the GPU, TFLOP/s of a large matrix product in bf16, and the nominal peak."""
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
    before = torch.cuda.memory_allocated() if DEVICE.type == "cuda" else 0
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
    memory = (torch.cuda.max_memory_allocated() - before) / 1e9 if DEVICE.type == "cuda" else None
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
    """The results of `measure`, with FLOP/s relative to the peak."""
    result = measure(model, variant, steps)
    flops = forward_flops(model)
    for kind, passes in (("train", 3), ("predict", 1)):
        achieved = passes * flops * result[f"{kind} img/s"]
        result |= {f"{kind} TFLOP/s": achieved / 1e12, f"{kind} share of peak": achieved / peak}
    return result


def make_competition(root: Path, count: int) -> None:
    """JPEGs of 500 × 375 pixels with the texture of photographs, and tables of them."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir()
    for row in range(min(count, FILES)):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((500, 375))
        noisy = np.asarray(coarse).astype(int) + rng.normal(0, 12, (375, 500, 3))
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(root / "images" / f"{row}.jpg", quality=90)
    lines = [f"{row},{row % FILES},c{row % CLASSES}" for row in range(count)]
    (root / "train.csv").write_text("\n".join(["id,image,label", *lines, ""]))
    lines = [f"t{row},{row % FILES}" for row in range(count // 4)]
    (root / "test.csv").write_text("\n".join(["id,image", *lines, ""]))


def data_settings(
    root: Path, model: Model, workers: int, cache: bool = True, augment_on: Any = "cpu"
) -> dict[str, Any]:
    """The tables of `make_competition`, in batches small enough for a realistic measurement."""
    return {
        "root": str(root),
        "train": "train.csv",
        "image": "images/{image}.jpg",
        "target": "label",
        "target_kind": "classification",
        "image_size": model.size,
        "batch_size": min(model.batch, LOADER_BATCH),
        "loading": {"num_workers": workers, "augment_on": augment_on, "cache": cache, "cache_dir": str(root / "cache")},
        "augment": "crop",
        "folds": {"duplicates": "ignore"},
    }


def ahead(loader: Any) -> int:
    """Number of batches to skip: those that may be prefetched before the clock starts, and a few more.

    Raises:
        ValueError: Fewer batches follow than are skipped: only prefetched ones would be measured.
    """
    ready = WARM_UP + loader.num_workers * (loader.prefetch_factor or 0)
    if len(loader) < 2 * ready:
        raise ValueError(f"{len(loader)} batches, of which {ready} may lie ready, measure no loader")
    return ready


def supply(root: Path, model: Model, workers: int, source: str) -> dict[str, float]:
    """Images per second of the loader, of training with it, and of training on images already on the device."""
    clean()
    cache, augment_on = {"JPEG": (False, "cpu"), "cache": (True, "cpu"), "device": (True, "device")}[source]
    data = CSVDataModule(**data_settings(root, model, workers, cache, augment_on))
    data.setup("fit")
    return {f"{source} {name}": rate for name, rate in fed(model, data.train_dataloader()).items()}


def fed(model: Model, loader: Any) -> dict[str, float]:
    """Images per second of a loader alone, of training with it, and of training on one batch on the device."""
    skipped, counted = ahead(loader), 0
    for number, batch in enumerate(loader, start=1):
        counted += len(batch["image"].to(DEVICE, non_blocking=True))
        if number == skipped:  # before waiting for the next batch
            started, counted = time.perf_counter(), 0
    synchronize()
    found = {"img/s": counted / (time.perf_counter() - started)}
    ready = {name: value.to(DEVICE) for name, value in batch.items()}
    found["training img/s"] = bare_loop(model, iter(loader), skipped)
    found["training img/s, images ready"] = bare_loop(model, iter([ready] * min(len(loader), 100)), WARM_UP)
    return found


def bare_loop(
    model: Model,
    batches: Iterator[dict[str, Tensor]],
    skipped: int,
    variant: Variant = FAST,
    clip: float | None = None,
    ema: float | None = None,
) -> float:
    """Images per second of training in a hand-written loop, after a number of skipped steps."""
    net: Any = Classifier(model, variant)
    average = copy.deepcopy(net).requires_grad_(False) if ema else None
    optimizer = torch.optim.AdamW(net.parameters(), 1e-4, fused=DEVICE.type == "cuda")
    images, started = 0, time.perf_counter()
    for number, batch in enumerate(batches, start=1):
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=BF16):
            logits = net(batch["image"].to(DEVICE, non_blocking=True))
            loss = functional.cross_entropy(logits, batch["target"].to(DEVICE, non_blocking=True))
        loss.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
        if average is not None:
            torch._foreach_lerp_(list(average.parameters()), list(net.parameters()), 1 - (ema or 0))
        images += len(logits)
        if number == skipped:
            synchronize()
            started, images = time.perf_counter(), 0
    synchronize()
    return images / (time.perf_counter() - started)


class Clock(pl.Callback):
    """Images per second of each epoch of Lightning's training loop; a custom callback, named in a config.

    Args:
        skipped: Steps of an epoch before the clock starts.
        epochs: Training stops after this many, even if more are planned; None for all.
    """

    rates: ClassVar[list[float]] = []

    def __init__(self, skipped: int = WARM_UP, epochs: int | None = None) -> None:
        self.skipped, self.epochs = skipped, epochs

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Starts the clock after the skipped steps, and stops it at the epoch's last step, before validation."""
        if batch_idx + 1 == self.skipped:
            synchronize()
            self.started, self.images = time.perf_counter(), 0
        elif batch_idx >= self.skipped:
            self.images += len(batch["target"])
        if batch_idx + 1 == trainer.num_training_batches:
            synchronize()
            self.rates.append(self.images / (time.perf_counter() - self.started))
            trainer.should_stop = trainer.should_stop or trainer.current_epoch + 1 == self.epochs


class Ready(pl.LightningDataModule):
    """Repeats one batch."""

    def __init__(self, batch: dict[str, Tensor], count: int) -> None:
        super().__init__()
        self.batches = [batch] * count

    def train_dataloader(self) -> Any:
        """The batches."""
        return DataLoader(self.batches, batch_size=None)  # type: ignore[arg-type]  # a list would be several loaders


def own_loop(model: Model, steps: int, ema_decay: float | None) -> dict[str, float]:
    """Images per second of swinft's task in Lightning's loop, and of a hand-written loop, on the same batch."""
    clean()
    batch = min(model.batch, LOADER_BATCH)
    image = torch.randint(0, 256, (batch, 3, model.size, model.size), dtype=torch.uint8, device=DEVICE)
    target = torch.randint(0, CLASSES, (batch,), device=DEVICE)
    ready = {"image": image, "target": target, "row": torch.arange(batch, device=DEVICE)}
    by_hand: list[float] = []
    Clock.rates.clear()
    for _ in range(3):
        task = FineTuneTask(
            head=ClassificationHead, backbone=model.name, num_outputs=CLASSES, pretrained=False,
            context=TaskContext(image_size=model.size), backbone_args=model.arguments, ema_decay=ema_decay,
            compute=ComputeConfig(fast_attention=True),
        )  # fmt: skip
        trainer = pl.Trainer(
            max_epochs=1, accelerator=DEVICE.type, devices=1, precision="bf16-mixed" if BF16 else "32-true",
            gradient_clip_val=1.0, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=[Clock()], limit_val_batches=0,
        )  # fmt: skip
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            trainer.fit(task, datamodule=Ready(ready, steps + WARM_UP))
        by_hand.append(bare_loop(model, iter([ready] * (steps + WARM_UP)), WARM_UP, FAST, 1.0, ema_decay))
    return {"swinft img/s": statistics.median(Clock.rates), "by hand img/s": statistics.median(by_hand)}


def own_commands(root: Path, model: Model, workers: int) -> dict[str, Any]:
    """Images per second of `swinft fit` and `swinft predict`, and of hand-written loops with the same loaders.

    Both train on images from the cache, in the same batches, with clipping and without averaged weights; both skip the
    steps on prefetched batches. `fit` plans a training that is long enough for the timed trial of the attention, and
    stops after three epochs; the hand-written loop uses the same attention.
    """
    clean()
    settings = data_settings(root, model, workers)
    data = CSVDataModule(**settings)
    data.setup("fit")
    skipped = ahead(data.train_dataloader())
    runs = Path(tempfile.mkdtemp(dir=root))
    config = {
        "name": "run", "runs": str(runs), "data": settings | {"test": "test.csv"},
        "model": {"backbone": model.name, "backbone_args": model.arguments, "pretrained": False,
                  "head": {"class_path": "swinft.ClassificationHead"}},
        "trainer": {"max_epochs": LONG_EPOCHS if BF16 else 3, "gradient_clip_val": 1.0,
                    "accelerator": "gpu" if BF16 else "cpu", "precision": "bf16-mixed" if BF16 else "32-true",
                    "callbacks": [{"class_path": f"{__name__}.Clock", "init_args": {"skipped": skipped, "epochs": 3}}]},
    }  # fmt: skip
    (runs / "config.yaml").write_text(yaml.safe_dump(config))
    Clock.rates.clear()
    words = ["fit", "--config", str(runs / "config.yaml"), "--fold", "0", "--allow-code", __name__]
    run_command(words)
    last = json.loads((runs / "run" / "fold_0" / "metrics.jsonl").read_text().splitlines()[-1])
    attention = chosen_attention(runs / "run")
    variant = next(each for each in VARIANTS if each.name == attention["training"])
    by_hand = [bare_loop(model, iter(data.train_dataloader()), skipped, variant, clip=1.0) for _ in range(2)]
    return {
        "fit img/s": statistics.median(Clock.rates[1:]),  # the first epoch is a warm-up
        "fit by hand img/s": statistics.median(by_hand),
        "fit waits for its loader": last.get("loader_wait"),
        **predicting(runs / "run", model, words[-2:]),
        "attention": attention,
    }


def run_command(words: list[str]) -> None:
    """Runs a swinft command in this process; its output is only shown if it fails.

    Raises:
        RuntimeError: It failed.
    """
    said = StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        code = command(words)
    if code:
        raise RuntimeError(f"swinft {words[0]} ended with {code}: {' '.join(said.getvalue().splitlines()[-3:])}")


def predicting(run: Path, model: Model, allowed: list[str]) -> dict[str, float]:
    """Images per second of `swinft predict` with one fold, from its first batch on, and of its network alone."""
    found: dict[str, float] = {}

    def timed(nets: Any, loader: Any, views: Any, device: torch.device, precision: Any, *more: Any) -> Any:
        started = time.perf_counter()
        answer = predict_rows(nets, loader, views, device, precision, *more)
        found["predict img/s"] = len(answer[0]) / (time.perf_counter() - started)
        image = next(iter(loader))["image"].to(device)
        with torch.inference_mode(), autocast(precision, device):
            seconds, _ = seconds_of(lambda: nets[0].predict(image), 10)
        found["predict, network alone img/s"] = len(image) / seconds
        return answer

    original, predict.predict_rows = predict.predict_rows, timed
    try:
        run_command(["predict", str(run), "--folds", "0", "--views", "identity", "--device", DEVICE.type, *allowed])
    finally:
        predict.predict_rows = original
    return found


def chosen_attention(run: Path) -> dict[str, str]:
    """The attention of a run, by the name of the variant."""
    names: dict[Any, str] = {True: "fast attention", False: "timm", "fused": "timm fused"}
    file = run / "choice.json"
    choice = json.loads(file.read_text()) if file.is_file() else {}
    return {what: names[choice.get(what, True)] for what in ("training", "prediction")}


def optimizer_groups(model: Model) -> dict[str, float]:
    """The parameter groups of the optimiser."""
    task = FineTuneTask(
        head=ClassificationHead, backbone=model.name, num_outputs=CLASSES, pretrained=False,
        context=TaskContext(image_size=model.size),
        backbone_args=model.arguments,
    )  # fmt: skip
    groups = param_groups(task.net.backbone, [task.net.head], task.optim)
    return {"groups": len(make_optimizer(groups, task.optim, torch.device("cpu"), scales_loss=False).param_groups)}
