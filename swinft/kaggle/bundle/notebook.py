"""The notebook of a bundle: installs without internet, finds its inputs on Kaggle, and predicts or serves."""

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swinft.kaggle.bundle.install import wheels_to_install
from swinft.store import replace
from swinft.system.mounts import find_mount

VERSION = (4, 5)  # of the notebook format

TITLE = """# {title}
Predicts the rows of the competition {competition} with `swinft`, without internet. `swinft bundle` has written this
notebook. Its inputs are the competition's data, the dataset `{weights}` with networks and settings, and the dataset
`{wheels}` with packages."""

SETTINGS = """import os
import subprocess
import sys
import time
from pathlib import Path

STARTED = time.time()
COMPETITION = {competition!r}
OWNER, WEIGHTS, WHEELS = {owner!r}, {weights!r}, {wheels!r}
MAX_HOURS = {max_hours!r}  # None for no limit; fewer views and folds where predictions would take longer
ONLY_IN_RERUN = {only_in_rerun!r}  # True: the saved version has the sample submission, predicted is in the rerun
INPUTS = os.environ.get("SWINFT_KAGGLE_INPUT", "/kaggle/input")
WORKING = Path(os.environ.get("SWINFT_KAGGLE_WORKING", "/kaggle/working"))


{find_mount}

def run(*words):
    \"\"\"Runs Python with these words and shows what it prints; a failure ends the notebook with its last lines.\"\"\"
    process = subprocess.Popen(
        [sys.executable, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        encoding="utf-8", errors="replace",
        env={{**os.environ, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}},
    )
    lines = []
    for line in process.stdout:
        print(line, end="", flush=True)
        lines = [*lines[-30:], line]
    if code := process.wait():
        raise RuntimeError(f"exit code {{code}}\\n" + "".join(lines))"""

FIND = """competition = find_mount(COMPETITION, None, INPUTS)
weights = find_mount(WEIGHTS, OWNER, INPUTS)
wheels = find_mount(WHEELS, OWNER, INPUTS)
for name, path in {"competition": competition, "weights": weights, "wheels": wheels}.items():
    print(f"{name}: {path}")"""

INSTALL = """{wheels_to_install}

to_install = wheels_to_install(wheels)
print("installed:", ", ".join(path.name for path in to_install))
run("-m", "pip", "install", "--no-index", "--no-deps", "--disable-pip-version-check", "--quiet", *to_install)"""

PREDICT = """words = ["--root", competition, "--output", WORKING / "submission.csv", "--started", STARTED]
words += ["--max-hours", MAX_HOURS] if MAX_HOURS is not None else []
words += ["--only-in-rerun", "true"] if ONLY_IN_RERUN else []
run("-m", "swinft.kaggle.bundle.kernel", weights, *words)
print((WORKING / "submission.csv").read_text()[:300])"""

SERVE_TEXT = """## Server
The competition's own code, `kaggle_evaluation`, calls `answer` for each row or batch. Change it to what the competition
gives and expects, as its starter notebook shows. The networks are loaded once."""

SERVE = """import pandas as pd

from swinft.kaggle.bundle.server import load, rows_of, serve

predictor = load(weights, on_bad_image="skip")  # "error": a row without a usable image ends the notebook


def answer(*given):
    \"\"\"The predictions of what the competition gives: a table of rows, or the path of an image or of a folder.\"\"\"
    rows, options = rows_of(*given, id_column={id_column!r})
    found = predictor.predict(rows, **{{"root": competition, **options}}).to_frame()
    return found.rename(columns={{"id": {id_column!r}}})  # the columns that the competition wants


# Without a rerun, the competition's local gateway asks for its example rows; `data_paths` as in its starter notebook.
os.chdir(WORKING)
serve(answer, {server!r}, competition, data_paths=[str(competition)])"""


@dataclass(frozen=True)
class NotebookText:
    """What a notebook is made of.

    Args:
        title: Its title.
        competition: Slug of the competition.
        owner: Owner of the datasets.
        weights: Slug of the dataset with the bundle.
        wheels: Slug of the dataset with wheels.
        max_hours: Time budget.
        only_in_rerun: Whether only the rerun predicts.
        server: Class of the competition's server, `rsna_inference_server.RSNAInferenceServer`; None for a table.
        id_column: Name of the id column.
    """

    title: str
    competition: str
    owner: str
    weights: str
    wheels: str
    max_hours: float | None = None
    only_in_rerun: bool = False
    server: str | None = None
    id_column: str = "id"

    def cells(self) -> list[tuple[str, str]]:
        """Kind and source of each cell."""
        functions = {each.__name__: inspect.getsource(each) for each in (find_mount, wheels_to_install)}
        names: Mapping[str, Any] = {**vars(self), **functions}
        last = [("code", PREDICT)]
        if self.server:
            last = [("markdown", SERVE_TEXT), ("code", SERVE.format(**names))]
        return [
            ("markdown", TITLE.format(**names)),
            ("code", SETTINGS.format(**names)),
            ("code", FIND),
            ("code", INSTALL.format(**names)),
            *last,
        ]


def write_notebook(path: Path, text: NotebookText) -> None:
    """Writes a notebook without outputs."""
    cells = []
    for number, (kind, source) in enumerate(text.cells()):
        cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}}
        cell |= {"execution_count": None, "outputs": []} if kind == "code" else {}
        cells.append({**cell, "source": source.splitlines(keepends=True)})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    about = {"kernelspec": kernel, "language_info": {"name": "python"}}
    notebook = {"cells": cells, "metadata": about, "nbformat": VERSION[0], "nbformat_minor": VERSION[1]}
    replace(path, (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode())
