"""Libraries of gradient boosting, each with the same few small trees: fitted trees are text, from which they predict.

Shapes: N rows, F columns.
"""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import numpy as np
from scipy.special import expit

from swinft.extras import import_extra
from swinft.run.ensemble.method import Array

EngineName = Literal["lightgbm", "xgboost", "catboost"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
EXTRAS = {"lightgbm": "gbdt", "xgboost": "xgboost", "catboost": "catboost"}  # of swinft, which install them

# Small trees and few rounds: the inputs are predictions, and there is no second held-out part to stop by.
ROUNDS, RATE, LEAST_ROWS, COLUMNS, L2 = 150, 0.05, 20, 0.8, 1.0
# The same trees on every machine and for any number of cores: one thread, a seed, and no random rows.
PARAMETERS: dict[EngineName, dict[str, Any]] = {
    "lightgbm": {
        "learning_rate": RATE,
        "num_leaves": 7,
        "min_data_in_leaf": LEAST_ROWS,
        "feature_fraction": COLUMNS,
        "lambda_l2": L2,
        "verbosity": -1,
        "seed": 0,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
    },
    "xgboost": {
        "eta": RATE,
        "max_depth": 3,
        "min_child_weight": 5,  # a sum of weights, of which a row has at most a quarter for probabilities
        "colsample_bytree": COLUMNS,
        "lambda": L2,
        "tree_method": "hist",
        "device": "cpu",
        "verbosity": 0,
        "seed": 0,
        "nthread": 1,
    },
    "catboost": {
        "learning_rate": RATE,
        "depth": 3,
        "rsm": COLUMNS,
        "l2_leaf_reg": L2,
        "bootstrap_type": "No",
        "boosting_type": "Plain",
        "allow_writing_files": False,
        "logging_level": "Silent",
        "random_seed": 0,
        "thread_count": 1,
    },
}


def is_installed(engine: str) -> bool:
    """Whether a library can be imported."""
    return find_spec(engine) is not None


def grow(engine: str, columns: Array, wanted: Array, weights: Array, are_probabilities: bool) -> str:
    """Fits the trees of one output.

    Args:
        engine: One of `ENGINES`.
        columns: What is known of each row, (N, F).
        wanted: Targets (N,); in 0–1 for probabilities.
        weights: Weight of each row, (N,).
        are_probabilities: Whether the targets are classes, labels or soft ones, and not numbers.

    Returns:
        The trees, the same text for the same rows.

    Raises:
        InputError: The library is not installed.
    """
    return _GROW[engine](columns, wanted, weights, are_probabilities)


def predict(engine: str, trees: str, columns: Array, are_probabilities: bool) -> Array:
    """Predictions (N,) of what `grow` returned; errors as there."""
    return _PREDICT[engine](trees, columns, are_probabilities)


def library(engine: str) -> Any:
    """The module of a library.

    Raises:
        InputError: It is not installed.
    """
    return import_extra(engine, EXTRAS[engine], f"{engine}, which grows the trees of method gbdt,")


def _grow_lightgbm(columns: Array, wanted: Array, weights: Array, are_probabilities: bool) -> str:
    lightgbm = library("lightgbm")
    objective = {"objective": "cross_entropy" if are_probabilities else "regression"}
    data = lightgbm.Dataset(columns, wanted, weight=weights)
    return str(lightgbm.train({**PARAMETERS["lightgbm"], **objective}, data, ROUNDS).model_to_string())


def _predict_lightgbm(trees: str, columns: Array, are_probabilities: bool) -> Array:
    booster = library("lightgbm").Booster(model_str=trees)
    return np.asarray(booster.predict(columns, num_threads=1), np.float64)


def _grow_xgboost(columns: Array, wanted: Array, weights: Array, are_probabilities: bool) -> str:
    xgboost = library("xgboost")
    objective = {"objective": "binary:logistic" if are_probabilities else "reg:squarederror"}
    data = xgboost.DMatrix(columns, wanted, weight=weights, nthread=1)
    booster = xgboost.train({**PARAMETERS["xgboost"], **objective}, data, ROUNDS)
    return bytes(booster.save_raw("json")).decode()


def _predict_xgboost(trees: str, columns: Array, are_probabilities: bool) -> Array:
    xgboost = library("xgboost")
    booster = xgboost.Booster({"nthread": 1, "device": "cpu"})
    booster.load_model(bytearray(trees.encode()))
    return np.asarray(booster.predict(xgboost.DMatrix(columns, nthread=1)), np.float64)


def _grow_catboost(columns: Array, wanted: Array, weights: Array, are_probabilities: bool) -> str:
    catboost = library("catboost")
    objective = {"loss_function": "CrossEntropy" if are_probabilities else "RMSE", "iterations": ROUNDS}
    model = catboost.CatBoost({**PARAMETERS["catboost"], **objective})
    model.fit(catboost.Pool(columns, wanted, weight=weights))
    with TemporaryDirectory() as folder:  # its text comes by a file alone
        file = Path(folder) / "trees.json"
        model.save_model(str(file), format="json")
        found = json.loads(file.read_text(encoding="utf-8"))
    del found["model_info"]  # the time of the fit, and a random name
    return json.dumps(found)


def _predict_catboost(trees: str, columns: Array, are_probabilities: bool) -> Array:
    model = library("catboost").CatBoost()
    with TemporaryDirectory() as folder:
        file = Path(folder) / "trees.json"
        file.write_text(trees, encoding="utf-8")
        model.load_model(str(file), format="json")
    sums = np.asarray(model.predict(columns, prediction_type="RawFormulaVal", thread_count=1), np.float64)
    found: Array = expit(sums) if are_probabilities else sums
    return found


_GROW: dict[str, Callable[[Array, Array, Array, bool], str]] = {
    "lightgbm": _grow_lightgbm,
    "xgboost": _grow_xgboost,
    "catboost": _grow_catboost,
}
_PREDICT: dict[str, Callable[[str, Array, bool], Array]] = {
    "lightgbm": _predict_lightgbm,
    "xgboost": _predict_xgboost,
    "catboost": _predict_catboost,
}
