"""A Swin, a ViT and a ResNet trained on the same images, and measured by every instrument: writes results/lab.json.

    python benchmarks/lab.py                          # half an hour on two cores; also docs/lab-results.md with figures
    python benchmarks/lab.py --small --folder /tmp/x  # a minute, to try it: everything is written into the folder

The data are the Blue Marble tiles of the repository. What is done is kept in the folder: the same command continues
after it was killed. Whether a direction of Park and Kim, How Do Vision Transformers Work? (ICLR 2022), is reproduced is
computed from the numbers of the instruments.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))  # also where this file is run by its path

from benchmarks.measure import machine, write
from swinft.laboratory.command import LabResult, lab
from swinft.laboratory.page import cell
from swinft.laboratory.table import INSTRUMENTS, instrument_class
from swinft.run.layout import Run

ROOT = Path(__file__).parent.parent
PAGE, FIGURES = ROOT / "docs" / "lab-results.md", ROOT / "docs" / "lab"
LARGEST_FIGURE = 150_000  # bytes
CONFIG = ROOT / "configs" / "bluemarble.yaml"  # whose backbone is a Swin
# Patches of a Swin and a ViT have the same size, and a ResNet's first maps, so that all see 16 by 16 positions.
NETWORKS = {
    "swin": [],
    "vit": [
        "--model.backbone=vit_tiny_patch16_224",
        "--model.backbone_args={embed_dim: 96, depth: 6, num_heads: 3, patch_size: 4}",
    ],
    "resnet": ["--model.backbone=resnet18", "--model.backbone_args={channels: [32, 64, 128, 256]}"],
}
EPOCHS = 20
OPTIONS: dict[str, dict[str, Any]] = {
    "scale": {"sides": [64, 128, 192, 256]},
    "frequency": {"rows": "all"},
    "variance": {"rows": "all"},
    "lesion": {"rows": "all"},
    "robust": {"rows": "all", "severities": [1, 5]},
    "act": {"rows": "all", "activations": ["relu"]},
}
SMALL: dict[str, dict[str, Any]] = {
    "scale": {"sides": [64, 128], "repeats": 1},
    "lesion": {"rows": 12, "ways": ["remove"]},
    "robust": {"rows": 12, "corruptions": ["gaussian_noise"], "severities": [5], "bands": 3},
    "hessian": {"batches": 1, "mini_batch": 4, "lanczos_steps": 6, "maxima": 1},
    "landscape": {"points": 3, "training_rows": 8, "mini_batch": 8},
    "act": {"rows": 12, "activations": ["relu"]},
}
ONLY = {"act": ["swin"], "mixer": ["swin"]}  # those that train another network for each


class Direction(NamedTuple):
    """A direction of a paper, as numbers of instruments.

    Args:
        claim: What the paper says.
        source: Where it says so.
        numbers: Which numbers decide: instrument, network and the key of the summary, by a name.
        holds: Whether these numbers say the same.
    """

    claim: str
    source: str
    numbers: Mapping[str, tuple[str, str, str]]
    holds: Callable[[Mapping[str, float]], bool]


FREQUENCY, VARIANCE = ("frequency", "change of high frequencies by {}"), ("variance", "variance ratio of {}")
LOW_NOISE, HIGH_NOISE = (("robust", f"mean loss, noise of {band} frequencies") for band in ("low", "high"))
EIGENVALUE, NEGATIVE = ("hessian", "largest eigenvalue"), ("hessian", "share of negative eigenvalues")
ATTENTION = ("scale", "exponent of MACs of attention")
VIT_PAPER, SWIN_PAPER = "Park and Kim, ICLR 2022", "Liu et al., ICCV 2021"


def _parts(
    claim: str, source: str, number: tuple[str, str], parts: Mapping[str, str], holds: Callable[[float], bool]
) -> Direction:
    """That a number holds of a kind of layer, in every network that has it.

    Args:
        claim: What the paper says.
        source: Where.
        number: Instrument and key, with braces for the kind of layer.
        parts: The kind of layer of each network.
        holds: Whether a number says so.
    """
    instrument, key = number
    numbers = {f"{network}, {kind}": (instrument, network, key.format(kind)) for network, kind in parts.items()}
    return Direction(claim, source, numbers, lambda found: all(holds(value) for value in found.values()))


def _more(claim: str, source: str, number: tuple[str, str], more: str, less: str) -> Direction:
    """That a number is larger, in absolute value if it is an eigenvalue, of one network than of another."""
    size = abs if number == EIGENVALUE else float
    numbers = {network: (number[0], network, number[1]) for network in (more, less)}
    return Direction(claim, source, numbers, lambda found: size(found[more]) > size(found[less]))


def _exponent(claim: str, source: str, network: str, exponent: float) -> Direction:
    """That attention grows with this power of the number of pixels."""
    numbers = {network: (ATTENTION[0], network, ATTENTION[1])}
    return Direction(claim, source, numbers, lambda found: abs(found[network] - exponent) < 0.05)


CONVOLUTIONS = {"resnet": "convolution"}
MSA, MLP = (dict.fromkeys(("swin", "vit"), kind) for kind in ("MSA", "MLP"))
DIRECTIONS = [
    _parts(
        "Attention is a low-pass filter: it reduces high frequencies.",
        f"{VIT_PAPER}, figure 8",
        FREQUENCY,
        MSA,
        lambda value: value < 0,
    ),
    _parts(
        "Convolutions are high-pass filters: they amplify high frequencies.",
        f"{VIT_PAPER}, figure 8",
        FREQUENCY,
        CONVOLUTIONS,
        lambda value: value > 0,
    ),
    _parts("MLPs amplify high frequencies.", f"{VIT_PAPER}, figure 8", FREQUENCY, MLP, lambda value: value > 0),
    _parts(
        "Attention reduces the variance of feature maps.",
        f"{VIT_PAPER}, figure 9",
        VARIANCE,
        MSA,
        lambda value: value < 1,
    ),
    _parts(
        "Convolutions and MLPs increase the variance of feature maps.",
        f"{VIT_PAPER}, figure 9",
        VARIANCE,
        CONVOLUTIONS | MLP,
        lambda value: value > 1,
    ),
    _more(
        "Noise of high frequencies hurts a ResNet more than a ViT.",
        f"{VIT_PAPER}, figure 2b",
        HIGH_NOISE,
        more="resnet",
        less="vit",
    ),
    _more(
        "Noise of low frequencies hurts a ViT more than a ResNet.",
        f"{VIT_PAPER}, figure 2b",
        LOW_NOISE,
        more="vit",
        less="resnet",
    ),
    _more(
        "The loss of a ViT is flatter than that of a ResNet: its largest eigenvalues are smaller.",
        f"{VIT_PAPER}, figures 1 and 4",
        EIGENVALUE,
        more="resnet",
        less="vit",
    ),
    _more(
        "The loss of a ViT is less convex than that of a ResNet: more of its eigenvalues are negative.",
        f"{VIT_PAPER}, figure 1c",
        NEGATIVE,
        more="vit",
        less="resnet",
    ),
    _exponent("Attention in windows is linear in the number of pixels.", f"{SWIN_PAPER}, equation 2", "swin", 1),
    _exponent(
        "Attention between all positions is quadratic in the number of pixels.", f"{SWIN_PAPER}, equation 1", "vit", 2
    ),
]


def train(folder: Path, epochs: int) -> list[Path]:
    """Trains what is not trained yet, each network by `swinft fit`; returns the folders of the runs."""
    runs = []
    for name, changes in NETWORKS.items():
        run = Run(folder / name)
        runs.append(run.root)
        if run.is_run() and not run.unfinished_folds():
            continue
        keys = [f"--name={name}", f"--runs={folder}", "--data.folds={kind: holdout, fraction: 0.3, num: null}"]
        keys += [f"--trainer.max_epochs={epochs}", "--trainer.accelerator=cpu", "--trainer.precision=32-true", *changes]
        words = [sys.executable, "-m", "swinft", "fit", f"--config={CONFIG}", *keys]
        subprocess.run([*words, *(["--resume"] if run.is_run() else [])], cwd=ROOT, check=True)
    return runs


def judged(summaries: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every direction with its numbers, and whether they say the same; None where an instrument has not measured them.

    Args:
        summaries: What each instrument says of its subjects.
    """
    found = []
    for each in DIRECTIONS:
        numbers = {
            name: summaries.get(instrument, {}).get("subjects", {}).get(network, {}).get(key)
            for name, (instrument, network, key) in each.numbers.items()
        }
        known = all(value is not None for value in numbers.values())
        reproduced = each.holds(numbers) if known else None
        found.append({"claim": each.claim, "source": each.source, "numbers": numbers, "reproduced": reproduced})
    return found


def page(results: Mapping[str, Any], figures: Mapping[str, Sequence[tuple[str, str]]]) -> str:
    """The page, with the figures of each instrument: caption and path."""
    words = {True: "reproduced", False: "**not reproduced**", None: "not measured"}
    lines = [
        "# The laboratory on a Swin, a ViT and a ResNet",
        "Written by `python benchmarks/lab.py`, which trains the three networks from scratch on the "
        f"{results['rows']['trained']} training tiles of [configs/bluemarble.yaml](../configs/bluemarble.yaml) for "
        f"{results['epochs']} epochs and measures them on the {results['rows']['held out']} tiles that are held out. "
        "Small networks on few images: a direction that is not reproduced here is not refuted. The instruments: "
        "[lab.md](lab.md).",
        "",
        "| network | parameters | accuracy on the held-out tiles |",
        "| --- | --- | --- |",
        *(
            f"| {name} | {each['parameters']:,} | {each['accuracy']:.3f} |"
            for name, each in results["networks"].items()
        ),
        "",
        "## Directions",
        "| direction | numbers | here |",
        "| --- | --- | --- |",
    ]
    for each in results["directions"]:
        numbers = ", ".join(f"{name} {cell(value)}" for name, value in each["numbers"].items())
        lines.append(f"| {each['claim']} ({each['source']}) | {numbers} | {words[each['reproduced']]} |")
    for name, summary in results["instruments"].items():
        subjects = summary["subjects"]
        keys = [key for key in dict.fromkeys(key for each in subjects.values() for key in each) if key not in SKIPPED]
        lines += ["", f"## {name}", f"| | {' | '.join(subjects)} |", f"| --- {'| --- ' * len(subjects)}|"]
        for key in keys:
            lines.append(f"| {key} | {' | '.join(cell(each.get(key)) for each in subjects.values())} |")
        for caption, path in figures.get(name, ()):
            lines += ["", f"![{caption}]({path})", "", caption]
    machine = results["machine"]
    lines += [
        "",
        f"Measured on {machine['processor']} with {machine['torch threads']} threads, torch {machine['torch']}.",
    ]
    return "\n".join(lines) + "\n"


SKIPPED = ("about", "measured", "steps")
COUNTERS = ("running_mean", "running_var", "num_batches_tracked")  # what weights hold besides parameters


def write_figures(folder: Path, found: Mapping[str, LabResult]) -> dict[str, list[tuple[str, str]]]:
    """Writes every figure as a file; returns their captions and paths, relative to the page, by instrument."""
    folder.mkdir(parents=True, exist_ok=True)
    written: dict[str, list[tuple[str, str]]] = {}
    for name, result in found.items():
        for number, drawing in enumerate(result.drawings):
            text = drawing.svg().encode()
            if len(text) > LARGEST_FIGURE:
                print(f"{name}: figure {number} has {len(text):,} bytes, and is left out")
                continue
            path = folder / f"{name}-{number}.svg"
            path.write_bytes(text)
            written.setdefault(name, []).append((drawing.caption, f"{folder.name}/{path.name}"))
    return written


def networks(runs: Sequence[Path]) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
    """Parameters and accuracy of every network, and the number of rows."""
    from safetensors import safe_open

    found, rows = {}, {}
    for root in runs:
        fold = Run(root).fold(0)
        with safe_open(fold.weights, "pt") as file:
            learnt = [key for key in list(file.keys()) if not key.endswith(COUNTERS)]
            count = sum(file.get_tensor(key).numel() for key in learnt)
        result = fold.read_result()
        found[root.name] = {"parameters": count, "accuracy": result["oof"]["accuracy"], "seconds": result["seconds"]}
        total = len(Run(root).folds.read_text().splitlines()) - 1
        rows = {"trained": total - result["rows"], "held out": result["rows"]}
    return found, rows


def main() -> None:
    """Trains, measures, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="two epochs and few rows; writes into the folder only")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "lab")
    given = parser.parse_args()
    folder, epochs = given.folder.resolve(), 2 if given.small else EPOCHS
    info = machine()  # before anything is measured
    runs = train(folder, epochs)
    found = {}
    for name in INSTRUMENTS:
        if "run" in instrument_class(name).takes:
            options = SMALL.get(name, {"rows": 12}) if given.small else OPTIONS.get(name, {})
            chosen = [run for run in runs if run.name in ONLY.get(name, list(NETWORKS))]
            found[name] = lab(name, *chosen, device="cpu", output=str(folder / "lab" / name), **options)
    of_networks, rows = networks(runs)
    summaries = {name: result.summary for name, result in found.items()}
    results: dict[str, Any] = {
        "machine": info,
        "epochs": epochs,
        "rows": rows,
        "networks": of_networks,
        "instruments": summaries,
    }
    results["directions"] = judged(summaries)
    shown, figures = (folder / "lab-results.md", folder / "figures") if given.small else (PAGE, FIGURES)
    shown.write_text(page(results, write_figures(figures, found)))
    if given.small:
        (folder / "lab.json").write_text(json.dumps(results, indent=1) + "\n")
    else:
        write("lab", results)
    for each in results["directions"]:
        print(each["claim"], {True: "yes", False: "NO", None: "not measured"}[each["reproduced"]], each["numbers"])
    print(shown)


if __name__ == "__main__":
    main()
