"""Steps of benchmarks/gpu_smoke.py that run commands on a small generated competition, all in one process.

A process for each command, and for what it tries before, would take most of a step's time. Every network is tiny.
"""

import importlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import in_process
import numpy as np
import yaml
from in_process import command, with_keys
from PIL import Image

DRY = os.environ.get("SWINFT_SMOKE_DRY") == "1"
ROWS, SIDE = 48, 64
COLORS = {"red": (200, 40, 40), "green": (40, 190, 40), "blue": (40, 40, 200)}
CHILDREN = ("run.compute.selection", "run.fit", "run.throw_away", "run.prediction.shards", "tuning.command")
SWIN = {"embed_dim": 32, "depths": [2, 2], "num_heads": [1, 2], "window_size": 4}

Found = dict[str, Any]


class Skipped(Exception):
    """This step is not possible on this machine."""


def device() -> str:
    """Where networks run."""
    return "cpu" if DRY else "cuda"


def needs(*packages: str) -> None:
    """Skips the step if a package is not installed."""
    if missing := [name for name in packages if find_spec(name) is None]:
        raise Skipped(f"not installed: {', '.join(missing)}")


def use_this_process() -> None:
    """Has commands do in this process what they would start others for, and not try the device each time."""
    from swinft import cli
    from swinft.system import device as usable

    def children(given: Mapping[int, Any], *_: object, **__: object) -> dict[int, int]:
        return {number: cli.main(list(child.words)) for number, child in given.items()}

    for name in CHILDREN:
        importlib.import_module(f"swinft.{name}").run_children = children  # type: ignore[attr-defined]
    usable._probe_in_process = lambda devices: {}


def write_competition(root: Path) -> None:
    """48 rows and 12 to predict: discs in three colours, with classes, numbers, labels, masks, and second images."""
    rng, y, x = np.random.default_rng(0), *np.mgrid[:72, :96]
    lines = {"train": ["id,color,number,is_red,is_green,size"], "test": ["id,size"]}
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for table, count in (("train", ROWS), ("test", ROWS // 4)):
        for row in range(count):
            name, id = list(COLORS)[row % 3], f"{table}_{row:02d}"
            disc = (y - 20 - row % 30) ** 2 + (x - 20 - row % 50) ** 2 < (8 + row % 9) ** 2
            pixels = rng.normal(np.array(COLORS[name]) / 2, 12, (72, 96, 3)) + 80 * disc[..., None]
            for end in ("", "_b")[: 1 if row % 8 == 0 else 2]:  # some rows have no second image
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / "images" / f"{id}{end}.png")
            Image.fromarray(disc.astype(np.uint8) * 255).save(root / "masks" / f"{id}.png")
            cells = f",{name},{20 + row},{int(name == 'red')},{int(name == 'green')}" if table == "train" else ""
            lines[table].append(f"{id}{cells},{8 + row % 9}")
    for table, each in lines.items():
        (root / f"{table}.csv").write_text("\n".join(each) + "\n")


def config_of(root: Path, name: str, **keys: Any) -> Path:
    """A config of two folds and one epoch; `keys` are dotted, None removes nothing."""
    config = {
        "name": name, "runs": str(root / "runs"),
        "data": {"root": str(root), "train": "train.csv", "test": "test.csv", "image": "images/{id}.png",
                 "target": "color", "target_kind": "classification", "image_size": SIDE, "batch_size": 8,
                 "folds": {"num": 2}, "loading": {"num_workers": 0 if DRY else 2, "cache_dir": str(root / "cache")}},
        "model": {"backbone": "swin_tiny_patch4_window7_224", "backbone_args": SWIN, "pretrained": False,
                  "head": {"class_path": "swinft.ClassificationHead"}, "ema_decay": 0.9},
        "trainer": {"max_epochs": 1, "accelerator": "cpu" if DRY else "gpu",
                    "precision": "32-true" if DRY else "16-mixed"},
    }  # fmt: skip
    path = root / f"{name}.yaml"
    path.write_text(yaml.safe_dump(with_keys(config, keys)))
    return path


@contextmanager
def competition() -> Iterator[Path]:
    """The competition, in a folder that is removed."""
    use_this_process()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_competition(root)
        yield root


def fitted(root: Path, name: str, folds: int = 1, **keys: Any) -> Path:
    """The folder of a run of which folds were trained; of all two, with its scores."""
    config, run = config_of(root, name, **keys), root / "runs" / name
    if folds == 2:
        in_process.fit(config, run, folds)
    else:
        command("fit", "--config", str(config), "--fold", "0")
    assert (run / "fold_0" / "result.json").is_file()
    return run


def held_out(run: Path) -> str:
    """Id of a row that fold 0 holds out."""
    return (run / "fold_0" / "oof.csv").read_text().splitlines()[1].split(",")[0]


def predicted(run: Path, *options: str) -> None:
    """Predicts with fold 0."""
    command("predict", str(run), "--folds", "0", "--device", device(), *options)


HEAD_OF_MASKS = {"whole": "SegmentationHead", "tiles": "SegmentationHead", "exclusive": "SoftmaxSegmentationHead"}


def masks_step() -> Found:
    """Masks of whole images and of tiles, with losses that sort pixels, trained deterministically, and predicted."""
    needs("segmentation_models_pytorch")
    files = {"files": "masks/{id}.png"}
    kinds = {"whole": files, "tiles": {**files, "tile": {"overlap": 0.5, "masked": 0.5}},
             "exclusive": {**files, "classes": "exclusive"}}  # fmt: skip
    with competition() as root:
        for name, kind in kinds.items():
            arguments = {"loss": {"bce": 1.0, "lovasz": 1.0}, "decoder_args": {"decoder_channels": [64, 32, 16, 16, 8]}}
            if name == "exclusive":
                arguments = {"loss": {"ce": 1.0, "lovasz": 1.0}, "decoder": "fpn"}
            run = fitted(
                root, name, **{
                    "data.target": "disc", "model.backbone": "resnet18", "model.backbone_args": None,
                    "data.target_kind": {"class_path": "swinft.Segmentation", "init_args": kind},
                    "model.head": {"class_path": f"swinft.{HEAD_OF_MASKS[name]}", "init_args": arguments},
                    "model.metrics": ["dice"], "trainer.deterministic": True,
                },
            )  # fmt: skip
            predicted(run, "--views", "identity,hflip")
        run = root / "runs" / "whole"  # a map is of one forward pass: tiles have none
        command("explain", str(run), "--ids", held_out(run), "--device", device())
    return {}


def several_step() -> Found:
    """Several images of a row, of which some are missing: attention and GRU; predicted and explained."""
    image = {"path": ["images/{id}.png", "images/{id}_b.png"], "missing": "mask"}
    with competition() as root:
        for fusion in ("attention", "gru"):
            keys = {"data.image": image, "model.pooling": {"images": fusion}, "model.mix": {"mixup_alpha": 0.5}}
            run = fitted(root, fusion, **keys)
            predicted(run)
            command("explain", str(run), "--ids", held_out(run), "--device", device())
    return {}


def explain_step() -> Found:
    """Every method of `explain` whose packages are installed."""
    methods = ["gradcam", "rollout", "windows", "occlusion"]
    methods += ["integrated-gradients"] if find_spec("captum") else []
    with competition() as root:
        run = fitted(root, "a")
        for method in methods:
            command("explain", str(run), "--ids", held_out(run), "--device", device(), "--method", method)
    return {"methods": methods}


NUMBERS = {"data.target": "number", "data.target_kind": "regression"}
LABELS = {"data.target": ["is_red", "is_green"], "data.target_kind": "multilabel"}
GRADES = {"data.columns": {"class_order": ["red", "green", "blue"]}}
HEADS: dict[str, tuple[Found, str, Found]] = {
    "angles": ({"model.pooling": "gem"}, "ArcFaceHead", {"sub_centres": 2, "embedding": 8}),
    "bi-tempered": ({"model.pooling": "gated_attention"}, "ClassificationHead", {"loss": "bi_tempered"}),
    "ordinal": ({**GRADES, "model.pooling": "stages"}, "OrdinalHead", {}),
    "asymmetric": ({**LABELS, "model.pooling": "avg+max"}, "MultilabelHead", {"loss": "asymmetric"}),
    "concordance": ({**NUMBERS, "data.loading.augment_on": "device"}, "RegressionHead", {"loss": "concordance"}),
    "distribution": ({**NUMBERS, "model.compute.grad_checkpointing": True}, "LabelDistributionHead",
                     {"low": 0, "high": 100}),
    "lora": ({"model.optim.freeze": {"share": 1, "lora": {"rank": 2}}}, "ClassificationHead", {"loss": "focal"}),
    "float32": ({"data.loading.image_rules": {"keep": "float32", "range": [0, 255]}}, "ClassificationHead", {}),
    "sampled": ({"data.loading.sampler": {"class_path": "swinft.BalancedSampler", "init_args": {"correct_prior": True}},
                 "data.columns": {"weight": "number"}, "model.mix": {"mixup_alpha": 0.5, "mixup_at": "random"}},
                "ClassificationHead", {"loss": "balanced_softmax"}),
    "auxiliary": ({"data.columns": {"auxiliary": [{"target": "number", "target_kind": "regression"}]},
                   "model.optim.sizes": [{"size": 32, "epochs": 1}], "trainer.max_epochs": 2,
                   "model.compute.fast_attention": False}, "ClassificationHead", {}),
    "sam": ({"model.optim.name": "sam", "trainer.precision": "32-true"}, "ClassificationHead", {}),
    "soup": ({"model.backbone": "resnet18", "model.backbone_args": None, "trainer.max_epochs": 2,
              "checkpoint": {"soup": "greedy", "epochs": 2}}, "ClassificationHead", {}),
}  # fmt: skip


def heads_step() -> Found:
    """Heads, losses and poolings in fp16, with deterministic operations: each trains and scores an epoch."""
    with competition() as root:
        for name, (keys, head, arguments) in HEADS.items():
            own = {
                "model.head": {"class_path": f"swinft.{head}", "init_args": arguments},
                "trainer.deterministic": True,
            }
            fitted(root, name, **keys, **own)
    return {"fits": list(HEADS)}


def embed_step() -> Found:
    """Embeddings of every row, a model on them, and the report of it."""
    with competition() as root:
        run = fitted(root, "a", folds=2)
        command("embed", str(run), "--device", device())
        command("embed", str(run), "--fit", "knn", "--name", "b", "--bootstrap", "20", "--device", device())
        command("report", str(run))
    return {}


def rounds_step() -> Found:
    """Two rounds: the second is distilled from the first, which labels the rows to predict as well."""
    rounds = [{"name": "base"}, {"name": "student", "distill": {"weight": 0.5},
                                 "pseudo_labels": {"table": "test", "weight": "confidence"}}]  # fmt: skip
    with competition() as root:
        config = config_of(root, "all", rounds=rounds, **{"model.mix": {"mixup_alpha": 0.5}})
        said = command("fit", "--config", str(config))
    return {"said": said.splitlines()[-4:]}


def taught_step() -> Found:
    """An ensemble of two runs labels the rows to predict, and teaches a run with metadata in fp16."""
    with competition() as root:
        given = {"num": 2}
        for name, seed in (("a", 1), ("b", 2)):
            run = fitted(root, name, folds=2, seed=seed, **{"data.folds": given})
            command("predict", str(run), "--device", device())
            given = {"file": str(root / "runs" / "a" / "folds.csv")}
        runs = root / "runs"
        command("ensemble", str(runs / "a"), str(runs / "b"), "--name", "both", "--runs", str(runs), "--method", "nnls")
        extra = {"table": "test.csv", "labels": str(runs / "both"), "min_confidence": 0.34}
        fitted(
            root, "student", **{
                "distill": {"run": str(runs / "both"), "weight": 0.5, "temperature": 2},
                "data.folds": {**given, "extra": [extra]},
                "model.mix": {"mixup_alpha": 0.5, "cutmix_alpha": 0.5}, "data.columns": {"numeric_features": ["size"]},
            },
        )  # fmt: skip
    return {}


def find_step() -> Found:
    """A learning rate by a range test and the largest batch, and the plan of the run."""
    with competition() as root:
        config = str(config_of(root, "a"))
        what = ["lr"] if DRY else ["lr", "batch_size"]
        said = command("find", "--config", config, "--steps", "40", "--what", *what)
        planned = command("plan", "--config", config)
    keys = (" lr:", " batch_size:")
    return {
        "found": [line for line in said.splitlines() if any(key in line for key in keys)],
        "plan": planned.splitlines()[-8:],
    }


def lab_step() -> Found:
    """Instruments of the laboratory, each at its smallest."""
    words = {
        "scale": ["--sides", "64,128"], "frequency": [], "variance": [], "lesion": [],
        "hessian": ["--mini_batch", "4", "--batches", "1", "--lanczos_steps", "6"],
        "landscape": ["--mini_batch", "8", "--points", "3", "--training_rows", "8"],
    }  # fmt: skip
    with competition() as root:
        run = fitted(root, "a", folds=2)
        for name, more in words.items():
            command("lab", name, str(run), "--device", device(), *more)
    return {"instruments": list(words)}


def export_step() -> Found:
    """Weights as those of timm, compared with torch; and rows in memory, predicted twice with the same result."""
    import pandas as pd

    import swinft

    with competition() as root:
        run = fitted(root, "a", folds=2)
        command("export", str(run), "--fold", "0", "--to", "timm", "--output", str(root / "timm.safetensors"))
        predictor = swinft.open_run(run).predictor(device=device(), views=["identity", "hflip"])
        rows = pd.DataFrame({"id": ["test_00", "test_01"]})
        first, second = (predictor.predict(rows).values for _ in range(2))
        assert np.array_equal(first, second)
    return {}


def tune_step() -> Found:
    """Two trials of a search, each a training of fold 0."""
    needs("optuna")
    with competition() as root:
        config = config_of(root, "a")
        command("tune", "--config", str(config), "--trials", "2", "--folds", "0", "--name", "search")
    return {}


def halve_step() -> Found:
    """A batch that does not fit is halved until it does."""
    import torch

    if DRY:
        raise Skipped("memory of a GPU")
    torch.cuda.set_per_process_memory_fraction(3e9 / torch.cuda.mem_get_info()[1])
    with competition() as root:
        large = {"data.batch_size": 16, "model.backbone_args": {**SWIN, "embed_dim": 96}, "data.image_size": 768}
        config = config_of(root, "a", on_out_of_memory="halve", **large)
        said = command("fit", "--config", str(config), "--fold", "0")
    halved = [line for line in said.splitlines() if "batch_size" in line]
    assert halved, said[-2000:]
    return {"said": halved[:3]}


COMMANDS: dict[str, Callable[[], Found]] = {
    "masks": masks_step,
    "several": several_step,
    "explain": explain_step,
    "heads": heads_step,
    "embed": embed_step,
    "rounds": rounds_step,
    "taught": taught_step,
    "find": find_step,
    "lab": lab_step,
    "export": export_step,
    "tune": tune_step,
    "halve": halve_step,
}
