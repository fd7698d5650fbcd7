"""Do explanations point at the object that decides the class, where its place is known?

    python -m benchmarks.explain --figures docs   # a quarter of an hour on one core; writes results/explain.json

`photos`: EfficientNet-Lite0 with its ImageNet weights and classifier; the flower of scikit-learn's photo, a daisy to
the network, is pasted at random places of satellite tiles (Blue Marble), and Grad-CAM of that class is asked for.
`swin`: a small Swin, trained here by `swinft.fit` in two folds from random weights: a handwritten digit of scikit-learn
at a random place of a tile decides the class, by its shape and the colour of its ink. Held-out rows that their network
predicts right are explained by `swinft.explain`.

The energy of a map, its sum over pixels, is compared inside the object's box and everywhere; by chance it is the box's
share of the image. Control (Adebayo et al., arXiv 1810.03292): the same images and outputs by the same network with
shuffled weights, and the rank correlation of both maps.
"""

import argparse
import io
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from scipy.stats import spearmanr
from sklearn.datasets import load_digits, load_sample_image
from torch import Tensor

import swinft
from benchmarks.convert_lite0 import convert
from swinft import ClassificationHead, FineTuneTask, TaskContext
from swinft.attribution.gradcam import gradcam, gradcam_maps
from swinft.attribution.rollout import rollout
from swinft.model.network import ImageModel
from swinft.run.explain.overlay import overlaid, rgb_of

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "explain.json"
SIDE, BOX = 160, 40
PHOTO, FLOWER, DAISY = 224, 72, 985  # sides in pixels; the class of ImageNet
DIGITS = {1: (230, 40, 200), 4: (255, 140, 0), 7: (200, 255, 0)}  # with the colour of their ink
NETWORKS: dict[str, dict[str, Any]] = {
    "swin": {
        "model": {
            "backbone": "swin_tiny_patch4_window7_224",
            "backbone_args": {
                "embed_dim": 24,
                "depths": [2, 2],
                "num_heads": [2, 4],
                "window_size": 5,
                "patch_size": 8,
            },
            "pretrained": False,
            "optim": {"lr": 3e-3, "layer_decay": 1.0},
        },
        "trainer": {"max_epochs": 20},
    },
}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "gradcam": ("gradcam", {}),
    "gradcam after the norm": ("gradcam", {"layer": "final"}),
    "rollout": ("rollout", {}),
    "rollout by gradient": ("rollout", {"by": "gradient"}),
    "integrated-gradients": ("integrated-gradients", {"steps": 16}),
    "occlusion": ("occlusion", {"patch": 40, "stride": 20}),
}
ROWS = 3  # of a figure
PIXELS = {"integrated gradients": METHODS["integrated-gradients"], "occlusion": METHODS["occlusion"]}
FIGURES: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "swin": {
        "Grad-CAM": METHODS["gradcam"],
        "rollout": METHODS["rollout"],
        "rollout by gradient": METHODS["rollout by gradient"],
        "shifted windows": ("windows", {"stage": 0, "block": 1}),
        **PIXELS,
    },
}


def make_images(root: Path, count: int, seed: int = 0) -> None:
    """Writes images and train.csv: id, digit, and top and left of the object's box."""
    rng = np.random.default_rng(seed)
    tiles = sorted((ROOT / "competitions" / "bluemarble" / "images").glob("*.jpg"))
    digits = load_digits()
    (root / "images").mkdir(parents=True)
    lines = ["id,digit,top,left"]
    for number in range(count):
        digit = list(DIGITS)[number % len(DIGITS)]
        ink = digits.images[rng.choice(np.flatnonzero(digits.target == digit))] / 16
        shape = Image.fromarray((255 * ink).astype(np.uint8)).resize((BOX, BOX), Image.Resampling.BICUBIC)
        with Image.open(tiles[rng.integers(len(tiles))]) as tile:
            image = tile.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        top, left = (int(each) for each in rng.integers(0, SIDE - BOX + 1, 2))
        image.paste(Image.new("RGB", (BOX, BOX), DIGITS[digit]), (left, top), shape)
        image.save(root / "images" / f"{number:04d}.png")
        lines.append(f"{number:04d},d{digit},{top},{left}")
    (root / "train.csv").write_text("\n".join(lines) + "\n")


def trained(root: Path, name: str, changes: Mapping[str, Any], runs: Path) -> Any:
    """The finished run of a network."""
    config = {
        "name": name,
        "runs": str(runs),
        "data": {
            "root": str(root),
            "train": "train.csv",
            "image": "images/{id}.png",
            "target": "digit",
            "target_kind": "classification",
            "image_size": SIDE,
            "batch_size": 32,
            "augment": "none",
            "folds": {"num": 2},
        },
        "model": {
            **changes["model"],
            "head": {"class_path": "swinft.ClassificationHead"},
            "ema_decay": None,
        },
        "trainer": {"accelerator": "cpu", "precision": "32-true", **changes["trainer"]},
    }
    return swinft.fit(config)


def shares(maps: NDArray[np.float32], boxes: NDArray[np.int64], box: int = BOX) -> NDArray[np.float64]:
    """The share of each map's energy in its box in multiples of chance, (N,); NaN for a map of zeros.

    Args:
        maps: (N, H, W), of which positive values count.
        boxes: Top and left of each box, (N, 2).
        box: Its side.
    """
    found = []
    for map, (top, left) in zip(maps, boxes, strict=True):
        energy = np.clip(map.astype(np.float64), 0, None)
        total = energy.sum()
        found.append(energy[top : top + box, left : left + box].sum() / total if total > 0 else np.nan)
    return np.array(found) / (box / maps.shape[1]) ** 2


def summary(values: NDArray[np.float64]) -> dict[str, Any]:
    """Mean share in multiples of chance, with an interval of resamples, and how many maps are empty."""
    known = values[np.isfinite(values)]
    draws = np.random.default_rng(0).choice(known, (2000, len(known))).mean(1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return {
        "times_chance": round(float(known.mean()), 2),
        "interval": [round(float(low), 2), round(float(high), 2)],
        "images": len(known),
        "empty": int(len(values) - len(known)),
    }


def randomised(net: Any) -> Any:
    """The network with the entries of each weight shuffled: the same distribution, nothing learnt."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            flat = parameter.flatten()
            parameter.copy_(flat[torch.randperm(len(flat), generator=generator)].view_as(parameter))
    return net


def attention_above_least(name: str, maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Attention is nowhere 0: as in the figures, its least value is the zero of the scale."""
    return maps - maps.min(axis=(1, 2), keepdims=True) if name.startswith("rollout") else maps


def measured(run: Any, table: pd.DataFrame, count: int, folder: Path) -> dict[str, Any]:
    """Shares of every method, and of the network with random weights."""
    oof = run.oof.set_index("id")
    names = [f"d{digit}" for digit in DIGITS]
    right = [id for id in table.index if oof.loc[id, names].astype(float).idxmax() == table.loc[id, "digit"]]
    ids = right[:count]
    boxes = table.loc[ids, ["top", "left"]].astype(int).to_numpy()
    result: dict[str, Any] = {"accuracy": round(run.scores["pooled"]["accuracy"], 3), "methods": {}, "randomised": {}}
    for name, (method, options) in METHODS.items():
        found = swinft.explain(run, ids, method, device="cpu", folder=str(folder / name.replace(" ", "-")), **options)
        maps = attention_above_least(name, np.stack([row.maps[0] for row in found.rows]))
        result["methods"][name] = summary(shares(maps, boxes))
        if name in ("gradcam", "rollout", "rollout by gradient"):
            control = _control(run, ids, table, name)
            ranks = [float(spearmanr(one.ravel(), two.ravel())[0]) for one, two in zip(maps, control, strict=True)]
            result["randomised"][name] = {
                **summary(shares(control, boxes)),
                "rank_correlation": round(float(np.nanmean(ranks)), 2),
            }
    return result


def _control(run: Any, ids: list[str], table: pd.DataFrame, name: str) -> NDArray[np.float32]:
    """The maps of the same rows and outputs by networks with random weights."""
    oof = run.oof.set_index("id")
    nets = {fold: randomised(run.network(fold)) for fold in run.folds}
    found = []
    for id in ids:
        with Image.open(Path(run.config["data"]["root"]) / "images" / f"{id}.png") as image:
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
        net, output = (
            nets[int(oof.loc[id, "fold"])],
            sorted(f"d{digit}" for digit in DIGITS).index(table.loc[id, "digit"]),
        )
        if name == "gradcam":
            maps = gradcam_maps(net, pixels, output)[0]
        else:
            maps = rollout(net, pixels, output, by="gradient" if "gradient" in name else "mean")
        found.append(maps[0].numpy())
    return attention_above_least(name, np.stack(found))


def photos(count: int, folder: Path) -> tuple[ImageModel, Tensor, NDArray[np.int64], int]:
    """EfficientNet-Lite0 with its classifier, images uint8 (N, 3, H, W), boxes (N, 2), and the flower's class.

    Args:
        count: N.
        folder: Where the weights are written.
    """
    file = convert(folder / "lite0.safetensors")
    context = TaskContext(image_size=PHOTO)
    net = FineTuneTask(
        ClassificationHead, "tf_efficientnet_lite0", pretrained=str(file), num_outputs=1000, context=context
    ).net.eval()
    weights = load_file(file)
    net.head.linear.weight.data.copy_(weights["classifier.weight"])
    net.head.linear.bias.data.copy_(weights["classifier.bias"])
    flower = Image.fromarray(load_sample_image("flower.jpg")).crop((220, 90, 480, 350))
    rng, images, boxes = np.random.default_rng(0), [], []
    tiles = sorted((ROOT / "competitions" / "bluemarble" / "images").glob("*.jpg"))
    for _ in range(count):
        with Image.open(tiles[rng.integers(len(tiles))]) as tile:
            image = tile.convert("RGB").resize((PHOTO, PHOTO), Image.Resampling.BICUBIC)
        top, left = (int(each) for each in rng.integers(0, PHOTO - FLOWER + 1, 2))
        image.paste(flower.resize((FLOWER, FLOWER)), (left, top))
        images.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
        boxes.append((top, left))
    return net, torch.stack(images), np.array(boxes), DAISY


def measured_photos(count: int, folder: Path, figure: Path | None = None) -> dict[str, Any]:
    """Grad-CAM of the flower, and of the network with shuffled weights; draws a figure of the first images."""
    net, images, boxes, output = photos(count, folder)
    maps = _batched(net, images, output)
    if figure is not None:
        over = [overlaid(rgb_of(image), map, False) for image, map in zip(images[:6], maps[:6], strict=True)]
        rows = [np.concatenate([rgb_of(each) for each in images[:6]], 1), np.concatenate(over, 1)]
        drawn = Image.fromarray(np.concatenate(rows)).resize((6 * 128, 2 * 128), Image.Resampling.LANCZOS)
        drawn.quantize(128).save(figure, optimize=True)
    control = _batched(randomised(net), images, output)
    ranks = [float(spearmanr(one.ravel(), two.ravel())[0]) for one, two in zip(maps, control, strict=True)]
    others = {**summary(shares(control, boxes, FLOWER)), "rank_correlation": round(float(np.nanmean(ranks)), 2)}
    return {"methods": {"gradcam": summary(shares(maps, boxes, FLOWER))}, "randomised": {"gradcam": others}}


def _batched(net: ImageModel, images: Tensor, output: int) -> NDArray[np.float32]:
    return np.concatenate([gradcam(net, part, output).numpy() for part in images.split(10)])


def table_of(result: Mapping[str, Any]) -> str:
    """The table of docs/explain.md."""
    lines = [
        "| network | method | energy in the box, × chance | with shuffled weights | rank correlation of both |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, found in result["networks"].items():
        for method, values in found["methods"].items():
            low, high = values["interval"]
            control = found["randomised"].get(method)
            others = (
                "| |" if control is None else f"{control['times_chance']:.2f} | {control['rank_correlation']:.2f} |"
            )
            lines.append(f"| {name} | {method} | {values['times_chance']:.2f} ({low:.2f} to {high:.2f}) | {others}")
    return "\n".join(lines)


def draw(path: Path, run: Any, table: pd.DataFrame, columns: Mapping[str, tuple[str, dict[str, Any]]]) -> None:
    """A figure of the first rows: the image with the object's box, and the overlay of each method."""
    oof = run.oof.set_index("id")
    names = [f"d{digit}" for digit in DIGITS]
    right = [id for id in table.index if oof.loc[id, names].astype(float).idxmax() == table.loc[id, "digit"]]
    ids = right[:ROWS]
    figure = Figure(figsize=(2 * (1 + len(columns)), 2.05 * ROWS + 0.2), layout="constrained")
    axes = figure.subplots(ROWS, 1 + len(columns), squeeze=False)
    with TemporaryDirectory() as temporary:
        overlays = {
            title: swinft.explain(run, ids, method, device="cpu", folder=f"{temporary}/{title}", **options).rows
            for title, (method, options) in columns.items()
        }
        for row, id in enumerate(ids):
            top, left = (int(table.loc[id, side]) for side in ("top", "left"))
            shown = [Image.open(Path(run.config["data"]["root"]) / "images" / f"{id}.png")]
            shown += [Image.open(each[row].files["overlay"][0]) for each in overlays.values()]
            for axis, image, title in zip(axes[row], shown, [f"{id}, {table.loc[id, 'digit']}", *columns], strict=True):
                scale = image.width / SIDE
                axis.imshow(image)
                box = ((left - 0.5) * scale, (top - 0.5) * scale)
                axis.add_patch(Rectangle(box, BOX * scale, BOX * scale, fill=False, color="white", linewidth=1))
                axis.set_title(title if row == 0 or axis is axes[row][0] else "", fontsize=9)
                axis.axis("off")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=68)
    Image.open(buffer).convert("RGB").quantize(96).save(path, optimize=True)


def main() -> None:
    """Trains, explains, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--explain", type=int, default=60)
    parser.add_argument("--only", choices=["photos", *NETWORKS])
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--figures", type=Path, help="folder of the figures")
    parser.add_argument("--keep", type=Path, help="folder for runs and pictures; by default a temporary one")
    given = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        make_images(folder / "data", given.images)
        table = pd.read_csv(folder / "data" / "train.csv", dtype=str).set_index("id")
        (folder / "runs").mkdir(exist_ok=True)
        result: dict[str, Any] = {"images": given.images, "box": BOX, "side": SIDE, "networks": {}}
        if given.only in (None, "photos"):
            figure = given.figures and given.figures / "explain_photos.png"
            result["networks"]["photos"] = measured_photos(given.explain, folder, figure)
        for name, changes in NETWORKS.items():
            if given.only in (None, name):
                run = trained(folder / "data", name, changes, folder / "runs")
                result["networks"][name] = measured(run, table, given.explain, folder / "pictures" / name)
                if given.figures:
                    draw(given.figures / f"explain_{name}.png", run, table, FIGURES[name])
                print(name, json.dumps(result["networks"][name]), flush=True)
    given.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
