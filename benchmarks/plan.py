"""How near `swinft plan` is to the time of the fit: three backbones at two image sizes, on this machine's CPU.

    python benchmarks/plan.py

Plans and fits the Blue Marble climates in two folds, each command in a process of its own, one after the other. Run it
in the clone's root on a machine that does nothing else; 6 to 8 minutes on 2 cores. Writes benchmarks/results/plan.json.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import load, machine, write

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
    """Measures all cases, and writes what is there after each."""
    cases: list[dict[str, object]] = []
    result = {"machine": machine(), "limit": LIMIT, "cases": cases}
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            cases.append(measured(Path(folder), *case) | {"load after": load()})
            write("plan", result)
            print(cases[-1], flush=True)


if __name__ == "__main__":
    main()
