"""Answers a competition's inference server, `kaggle_evaluation`, which asks for predictions row by row."""

import atexit
import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from swinft.errors import InputError, listed, suggest
from swinft.kaggle.bundle.opened import open_bundle
from swinft.run.api import open_run
from swinft.run.ensemble.loaded import EnsemblePredictor
from swinft.run.prediction.loaded import RunPredictor

RERUN = "KAGGLE_IS_COMPETITION_RERUN"  # set where Kaggle runs a submitted notebook on the hidden test rows
PACKAGE = "kaggle_evaluation"
IMAGES = "images"  # column of images that `rows_of` makes


def load(bundle: str | Path, **options: Any) -> RunPredictor | EnsemblePredictor:
    """The loaded networks of a bundle.

    Args:
        bundle: Its folder.
        options: As of `Run.predictor`.

    Raises:
        InputError: A file is missing or has changed, or the bundle has several runs and no ensemble of them.
    """
    work = tempfile.mkdtemp(prefix="swinft-")  # the predictor reads its tables as long as it is used
    atexit.register(shutil.rmtree, work, ignore_errors=True)
    opened = open_bundle(Path(bundle), Path(work))
    if len(opened.submits) > 1:
        raise InputError(
            f"the bundle has the runs {listed(opened.submits)}, and a server answers with one: make an ensemble of "
            f"them with `swinft ensemble`, and a bundle of it."
        )
    chosen = {name: value for name, value in (("views", opened.views), ("folds", opened.folds)) if value}
    return open_run(opened.folder / opened.submits[0], opened.modules).predictor(**{**chosen, **options})


def rows_of(*given: Any, id_column: str = "id") -> tuple[pd.DataFrame, dict[str, Any]]:
    """Rows for a predictor, from what a competition gives.

    Args:
        given: Tables, of pandas or polars, of which the first is taken, or columns (Series); or the path of an image,
            or of a folder with all images of one row.
        id_column: Name of the id column.

    Returns:
        The rows, with all cells as text, and options of `predict`: `images` for images of a path.

    Raises:
        InputError: It is something else, or a table has no such column.
    """
    first: Any = given[0] if given else None
    if isinstance(first, str | os.PathLike):
        path = Path(first)
        if not path.exists():
            raise InputError(f"there is no file or folder {path}.")
        images: Any = path.read_bytes() if path.is_file() else [each.read_bytes() for each in _files(path)]
        return pd.DataFrame({id_column: [path.stem if path.is_file() else path.name], IMAGES: [images]}), {
            "images": IMAGES
        }
    if hasattr(first, "columns"):
        columns = {str(name): first[name].to_list() for name in first.columns}
    elif given and all(hasattr(each, "to_list") and getattr(each, "name", None) for each in given):
        columns = {str(each.name): each.to_list() for each in given}
    else:
        raise InputError(f"a {type(first).__name__} is no table and no path: make rows of it in `answer`.")
    if id_column not in columns:
        raise InputError(f"the table has no column '{id_column}'.{suggest(id_column, columns)}")
    return pd.DataFrame({name: [_text(cell) for cell in cells] for name, cells in columns.items()}), {}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _text(cell: Any) -> str:
    """A cell as text; empty where it is missing."""
    return "" if cell is None or cell != cell else str(cell)


def serve(
    answer: Callable[..., Any],
    server: str,
    competition: str | Path,
    data_paths: Sequence[str] | None = None,
) -> None:
    """Serves a competition: the hidden rows in a rerun, otherwise its example rows by a local gateway.

    Args:
        answer: Called by the competition's gateway.
        server: Module and class in `kaggle_evaluation`, as the starter notebook of the competition imports them:
            `rsna_inference_server.RSNAInferenceServer`.
        competition: The mounted folder of the competition, which has the package `kaggle_evaluation`.
        data_paths: What the starter notebook gives to `run_local_gateway`; None for the folder.

    Raises:
        InputError: There is no such package, module or class.
    """
    if str(competition) not in sys.path:
        sys.path.append(str(competition))
    module, _, name = server.removeprefix(f"{PACKAGE}.").rpartition(".")
    try:
        made = getattr(importlib.import_module(f"{PACKAGE}.{module}"), name)(answer)
    except (ImportError, AttributeError) as error:
        there = sorted(path.stem for path in Path(competition).glob(f"{PACKAGE}/*_server.py"))
        raise InputError(
            f"--server {server}: {error}. Name module and class as the competition's starter notebook does; in "
            f"{competition}/{PACKAGE} there is: {listed(there) or 'no server'}."
        ) from error
    if os.environ.get(RERUN):
        made.serve()
    else:
        made.run_local_gateway(tuple(data_paths) if data_paths is not None else (str(competition),))
