"""Scores of models on embeddings, beside the fine-tuned run, and of their ensemble, by the command line.

    python benchmarks/embeddings.py

Fine-tunes EfficientNet-Lite0 from its ImageNet weights on two Blue Marble targets, fits models on the embeddings of its
networks and on those of the frozen backbone, and combines them. Also scores the test rows, whose labels no run uses.
Run it in the clone's root; some minutes on 2 cores. Writes benchmarks/results/embeddings.json and the table of
docs/embeddings.md; `--table` writes the table alone, from the results.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from bluemarble import LITE0, ROOT, swinft, test_score
from convert_lite0 import BACKBONE, convert
from measure import RESULTS, machine, write

CONFIGS = ("bluemarble", "bluemarble_latitude")
PAGE = ROOT / "docs" / "embeddings.md"
MARKERS = ("<!-- table: written by `python benchmarks/embeddings.py --table` -->\n", "<!-- end of table -->\n")
NAMES = {"bluemarble": "climate of a tile", "bluemarble_latitude": "latitude of a tile"}
SEARCHES: dict[str, dict[str, Any]] = {
    "svr": {"C": [0.3, 1, 3, 10]},
    "ridge": {"alpha": [10, 100, 1000, 10000]},
    "knn": {"k": [5, 15, 45]},
}


def scores_of(run: Path) -> dict[str, Any]:
    """Pooled and test scores, and the comparison with the run."""
    swinft("submit", str(run))
    scores = json.loads((run / "scores.json").read_text())
    compared = scores.get("embedding", {})
    kept = {name: compared[name] for name in ("gain", "interval", "correlation", "searched") if name in compared}
    return {"pooled": scores["pooled"], "test": test_score(run / "submission.csv"), **kept}


def members(runs: Path, config: str, weights: str) -> dict[str, Any]:
    """The run, the models on embeddings of its networks and of the frozen backbone, and their ensembles."""
    run, found = runs / config, {}
    words = ["--config", f"configs/{config}.yaml", "--runs", str(runs), "--name", config, *LITE0]
    swinft("fit", *words, "--model.pretrained", weights)
    swinft("predict", str(run))
    found["fine-tuned"] = scores_of(run)
    frozen = ["--backbone", BACKBONE, "--backbone-weights", weights]
    for kind, options in (("its networks", []), ("frozen backbone", frozen)):
        for model, search in SEARCHES.items():
            name = f"{config}_{model}_{kind.split()[0]}"
            swinft("embed", str(run), *options, "--fit", json.dumps({model: search}), "--name", name)
            found[f"{model} on {kind}"] = scores_of(runs / name)
        name = f"{config}_with_{kind.split()[0]}"
        both = [str(run), *(str(runs / f"{config}_{model}_{kind.split()[0]}") for model in SEARCHES)]
        swinft("ensemble", *both, "--name", name, "--runs", str(runs))
        table = json.loads((runs / name / "scores.json").read_text())["ensemble"]
        chosen = next(each for each in table["methods"] if each["name"] == table["method"])
        kept = {key: chosen[key] for key in ("gain", "interval", "optimism")}
        found[f"ensemble of the run and the three on {kind}"] = {
            **scores_of(runs / name), **kept, "method": table["method"], "best_member": table["best_member"]
        }  # fmt: skip
    return found


def table(results: dict[str, Any]) -> str:
    """The table of the page."""
    lines = []
    for config, found in results["runs"].items():
        metric = next(iter(found["fine-tuned"]["test"]))
        lines += [
            f"\n| {NAMES[config]} ({metric}) | out of fold | gain over the run, 95 % interval | correlation | test |",
            "|---|---|---|---|---|",
        ]
        for name, each in found.items():
            low, high = each.get("interval") or (None, None)
            is_ensemble = "best_member" in each
            gain = "" if low is None else f"{each['gain']:+.4f} ({low:+.4f} to {high:+.4f})"
            gain += f" over {each['best_member'].removeprefix(f'{config}_')}" if is_ensemble else ""
            correlation = f"{each['correlation']:.3f}" if "correlation" in each else ""
            shown = f"{name}, by {each['method']}" if is_ensemble else name
            score, test = each["pooled"][metric], each["test"][metric]
            lines.append(f"| {shown} | {score:.4f} | {gain} | {correlation} | {test:.4f} |")
    return "\n".join(lines).lstrip("\n") + "\n"


def write_table(results: dict[str, Any]) -> str:
    """The page with the table of these results."""
    before, rest = PAGE.read_text().split(MARKERS[0])
    return before + MARKERS[0] + table(results) + MARKERS[1] + rest.split(MARKERS[1])[1]


def main() -> None:
    """Runs everything and writes the results."""
    if "--table" in sys.argv:
        PAGE.write_text(write_table(json.loads((RESULTS / "embeddings.json").read_text())))
        return
    about = machine("scikit-learn")
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        weights = str(convert(runs / "lite0.safetensors"))
        results = {"machine": about, "runs": {config: members(runs, config, weights) for config in CONFIGS}}
    PAGE.write_text(write_table(results))
    write("embeddings", results)


if __name__ == "__main__":
    main()
