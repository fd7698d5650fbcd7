"""How near `swinft plan` is to the time of the fit: three backbones at two image sizes, on this machine's CPU.

    python benchmarks/plan.py            # all cases
    python benchmarks/plan.py --missing  # those that the results do not have, as after an interruption

Plans and fits the Blue Marble climates in two folds, each command in a process of its own, one after the other. Run it
in the clone's root on a machine that does nothing else; 6 to 8 minutes on 2 cores. Writes benchmarks/results/plan.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import RESULTS, load, machine, write

ROOT = Path(__file__).parent.parent
LIMIT = 0.2  # allowed difference, as a share of the measured time
# Backbone, its arguments (None: those of the config), image size, epochs.
CASES = [
    ("swin_tiny_patch4_window7_224", None, 64, 8),
    ("resnet18", "null", 64, 8),
    ("mobilenetv3_small_100", "null", 128, 8),
    ("swin_tiny_patch4_window7_224", None, 128, 3),
    ("resnet18", "null", 128, 4),
    ("mobilenetv3_small_100", "null", 192, 6),
]


def swinft(*words: str) -> tuple[str, float]:
    """What a command prints, and its seconds."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "swinft", *words], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return done.stdout, time.perf_counter() - started


def measured(runs: Path, backbone: str, arguments: str | None, size: int, epochs: int) -> dict[str, object]:
    """A plan, and the fit that it is of."""
    name = f"{backbone}-{size}"
    words = ["--config", "configs/bluemarble.yaml", "--runs", str(runs), "--name", name, "--data.folds.num", "2"]
    words += ["--model.backbone", backbone, "--data.image_size", str(size), "--trainer.max_epochs", str(epochs)]
    words += ["--model.optim.warmup_epochs", "1"]
    words += [] if arguments is None else ["--model.backbone_args", arguments]
    plan, took = swinft("plan", *words, "--json", "--seconds", "8")
    found = json.loads(plan)
    _, seconds = swinft("fit", *words)
    return {
        "backbone": backbone,
        "image size": size,
        "epochs": epochs,
        "planned seconds": found["fit_seconds"],
        "measured seconds": round(seconds, 1),
        "ratio": round(found["fit_seconds"] / seconds, 3),
        "seconds of the plan": round(took, 1),
    }


def main() -> None:
    """Measures the cases, and writes what is there after each."""
    parser = argparse.ArgumentParser(description="`swinft plan` beside the time of the fit.")
    parser.add_argument("--missing", action="store_true", help="keep the cases of the results, and measure the others")
    result: dict[str, Any] = {"machine": machine(), "limit": LIMIT, "cases": []}
    if parser.parse_args().missing:
        result = json.loads((RESULTS / "plan.json").read_text())
    have = {(case["backbone"], case["image size"]) for case in result["cases"]}
    with tempfile.TemporaryDirectory() as folder:
        for backbone, arguments, size, epochs in CASES:
            if (backbone, size) not in have:
                found = measured(Path(folder), backbone, arguments, size, epochs)
                result["cases"].append(found | {"load after": load()})
                write("plan", result)
                print(found, flush=True)


if __name__ == "__main__":
    main()
