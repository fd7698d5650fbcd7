"""Compares `predict_rows` with bare forward passes, and OpenVINO with torch.

    python benchmarks/predict.py
    python benchmarks/predict.py --images 8 --batch 8 --rounds 18
    python benchmarks/predict.py --images 8 --batch 4 --rounds 2 --backends torch-32-true openvino-f32

Predicts Blue Marble test images with three Swin-T of random weights ("folds") and four views, at 224 px on the CPU.
`predict_rows` reads and decodes the images, applies the views and averages; the bare forward passes run the same
networks on the same tensors, prepared in advance. `plain torch` runs the first network in fp32 in a separate process,
since the others' process keeps freed memory, as in swinft. All take turns. 42 minutes on 2 cores, the second line about
15. Writes benchmarks/results/predict.json, or predict-batch-8.json and the like for
batches of another size than the default of `swinft predict`.
"""

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from measure import Computed, add_timing, interleave, load, machine, ratios, spread, write
from torch import nn
from torch.utils.data import DataLoader

from swinft import ClassificationHead, CSVDataModule
from swinft.data.schema import Schema
from swinft.inference.openvino import compile_net
from swinft.inference.predictor import Predictor, predict_rows
from swinft.inference.tta import VIEWS, View
from swinft.model.backbones.timm_backbone import create_backbone
from swinft.model.network import ImageModel
from swinft.system.allocator import keep_freed_memory
from swinft.system.precision import Precision, autocast

ROOT = Path(__file__).parent.parent / "competitions" / "bluemarble"
CLIMATES = ["arid", "continental", "polar", "temperate", "tropical"]
VIEW_NAMES: list[View] = ["identity", "hflip", "vflip", "rot180"]
NUM_FOLDS = 3
CPU = torch.device("cpu")
# Precision for `predict_rows`; OpenVINO's precision is set when a network is compiled.
BACKENDS: dict[str, Precision] = {
    "torch-32-true": "32-true",
    "torch-bf16-mixed": "bf16-mixed",
    "openvino-f32": "32-true",
    "openvino-bf16": "32-true",
}
REFERENCE = "torch-32-true"
RIVAL = "openvino-f32"  # of plain torch
BATCH = 64  # of `swinft predict`: twice the training batch's default


def make_nets(backbone: str, size: int) -> list[ImageModel]:
    """A network per fold, with larger head weights than initial ones, which predict nearly the same for every image."""
    nets = []
    for fold in range(NUM_FOLDS):
        torch.manual_seed(fold)
        net = ImageModel(create_backbone(backbone, size, pretrained=False), ClassificationHead, len(CLIMATES), 0, 0)
        nn.init.normal_(net.head.linear.weight, std=0.1)
        nets.append(net.eval())
    return nets


def make_predictors(backend: str, nets: list[ImageModel], size: int) -> Sequence[Predictor]:
    """The networks of a backend."""
    engine, precision = backend.split("-", 1)
    if engine == "torch":
        return nets
    return [compile_net(net, (size, size), precision, torch.get_num_threads()) for net in nets]


def make_loader(folder: Path, num_images: int, size: int, batch: int) -> DataLoader[Any]:
    """Real images, read and decoded as in a prediction."""
    test = folder / "test.csv"
    pd.read_csv(ROOT / "test.csv").head(num_images).to_csv(test, index=False)
    data = CSVDataModule(
        target="climate",
        target_kind="classification",
        root=str(ROOT),
        test=str(test),
        image="images/{image}",
        image_size=size,
        batch_size=batch,
    )
    data.schema = Schema("classification", CLIMATES)
    data.setup("predict")
    return data.predict_dataloader()


def bare(predictors: Sequence[Predictor], tensors: list[torch.Tensor], backend: str) -> None:
    """The forward passes alone."""
    with torch.inference_mode(), autocast(BACKENDS[backend], CPU):
        for images, predictor in itertools.product(tensors, predictors):
            predictor.predict(images)


def serve_plain(arguments: argparse.Namespace, tensors: list[torch.Tensor]) -> None:
    """Runs one fold's forward passes in fp32 for every input line; prints their processor seconds."""
    nets = make_nets(arguments.backbone, arguments.size)[:1]
    for _ in sys.stdin:
        before = time.process_time()
        bare(nets, tensors, REFERENCE)
        print(time.process_time() - before, flush=True)


@contextmanager
def plain_torch() -> Iterator[Callable[[], Computed]]:
    """A function that runs these passes in a separate process with the same options."""
    command = [sys.executable, __file__, *sys.argv[1:], "--plain"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        ask, answers = process.stdin, process.stdout

        def run() -> Computed:
            ask.write("again\n")
            return Computed(answers.readline())

        yield run  # and then closes its input, which ends it


def views(loader: DataLoader[Any]) -> list[torch.Tensor]:
    """Every batch's images in every view."""
    batches = [batch["image"] for batch in loader]
    return [VIEWS[view](images).contiguous() for images in batches for view in VIEW_NAMES]


def differences(values: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Largest difference of each backend's predictions from torch's in fp32, absolute and relative to their range."""
    expected = values[REFERENCE]
    span = np.ptp(expected, axis=0)
    return {
        name: {
            "absolute": float(np.abs(found - expected).max()),
            "of_range": float((np.abs(found - expected) / span).max()),
        }
        for name, found in values.items()
    }


def measure(
    backends: list[str], backbone: str, size: int, loader: DataLoader[Any], timing: argparse.Namespace
) -> dict[str, Any]:
    """Speed of every backend, with `predict_rows` and bare, and its difference from torch in fp32."""
    nets = make_nets(backbone, size)
    tensors = views(loader)
    values: dict[str, Any] = {}
    groups: dict[str, dict[str, Callable[[], object]]] = {}

    def predict(backend: str, predictors: Sequence[Predictor]) -> None:
        _, values[backend] = predict_rows(predictors, loader, VIEW_NAMES, CPU, BACKENDS[backend])

    for backend in backends:
        predictors = make_predictors(backend, nets, size)
        groups[backend] = {
            f"{backend} predict_rows": partial(predict, backend, predictors),
            f"{backend} bare": partial(bare, predictors, tensors, backend),
        }
    with plain_torch() as run_plainly:
        groups.get(RIVAL, groups[REFERENCE])["plain"] = run_plainly
        seconds, disturbed = interleave(list(groups.values()), timing)
    plainly = [s * NUM_FOLDS for s in seconds["plain"]]  # one fold
    forwards = sum(map(len, tensors)) * NUM_FOLDS
    distance = differences(values)
    reference = seconds[f"{REFERENCE} predict_rows"]
    by_backend = {
        backend: {
            "forwards_per_second": spread([forwards / s for s in seconds[f"{backend} predict_rows"]]),
            "bare_forwards_per_second": spread([forwards / s for s in seconds[f"{backend} bare"]]),
            "share_of_bare_speed": ratios(seconds[f"{backend} bare"], seconds[f"{backend} predict_rows"]),
            "speedup_over_plain_torch": ratios(plainly, seconds[f"{backend} predict_rows"]),
            "speedup": ratios(reference, seconds[f"{backend} predict_rows"]),
            "difference": distance[backend],
        }
        for backend in backends
    }
    plain_speed = spread([forwards / s for s in plainly])
    return {"disturbed_measurements": disturbed, "plain_forwards_per_second": plain_speed, "backends": by_backend}


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=BATCH)
    parser.add_argument("--batch", type=int, default=BATCH, help="images per batch")
    add_timing(parser, rounds=7)
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--backbone", default="swin_tiny_patch4_window7_224")
    parser.add_argument("--backends", nargs="+", choices=list(BACKENDS), default=list(BACKENDS))
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)  # what `plain_torch` starts
    arguments = parser.parse_args()
    if REFERENCE not in arguments.backends:
        parser.error(f"--backends must name {REFERENCE}: the others are compared with it")
    torch.set_num_threads(arguments.threads or torch.get_num_threads())
    with tempfile.TemporaryDirectory() as folder:
        loader = make_loader(Path(folder), arguments.images, arguments.size, arguments.batch)
        if arguments.plain:
            serve_plain(arguments, views(loader))
            return
        about: dict[str, Any] = {"machine": machine("openvino")}
        keep_freed_memory(CPU)  # as in `swinft predict`, for all
        results = measure(arguments.backends, arguments.backbone, arguments.size, loader, arguments)
    about["load_after"] = load()
    del arguments.plain
    given = {**vars(arguments), "folds": NUM_FOLDS, "views": VIEW_NAMES}
    write("predict" if arguments.batch == BATCH else f"predict-batch-{arguments.batch}", {**about, **given, **results})


if __name__ == "__main__":
    main()
