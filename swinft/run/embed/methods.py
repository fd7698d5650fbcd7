"""Models that are fitted on embeddings, by scikit-learn and LightGBM; what they learn are plain arrays.

Shapes: N rows, I inputs, K outputs.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib.util import find_spec
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.metrics.pairwise import linear_kernel, rbf_kernel
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import SVR as SklearnSVR

from swinft.data.target.base import Target
from swinft.ranges import NOT_NEGATIVE, POSITIVE, Range, check_ranges, check_whole
from swinft.run.embed.inputs import Array, Arrays, Scaling, unit
from swinft.run.ensemble.boosting import Boosting
from swinft.run.ensemble.method import Rows

SURE = 1e-4  # the probability of a label that no row of the fit has
CHUNK = 4096  # rows whose similarities to all others are in memory at once


@dataclass(frozen=True)
class Learnt:
    """Rows that a model is fitted on.

    Args:
        targets: Targets (N, K): 1 for the class of a row, NaN where missing; a grade is one number (N, 1).
        weights: What each row counts, (N,).
        target: The kind of target.
        has_grades: Whether targets are grades.
    """

    targets: Array
    weights: Array
    target: Target
    has_grades: bool = False


@dataclass(frozen=True)
class Model:
    """A model. Its fields are its arguments; `scaling` is how its inputs are made of embeddings.

    Args:
        normalize: As of `Scaling`.
        standardize: As of `Scaling`.
        pca: As of `Scaling`.
    """

    name: ClassVar[str]
    reads_grades: ClassVar[bool] = False
    """Whether it fits the number of a grade where the metric measures the distance between grades."""

    normalize: bool = False
    standardize: bool = True
    pca: int | None = None

    def __post_init__(self) -> None:
        if self.pca is not None:
            check_whole(self.name, "pca", self.pca)

    @property
    def scaling(self) -> Scaling:
        """How its inputs are made."""
        return Scaling(self.normalize, self.standardize, self.pca)

    @property
    def arguments(self) -> dict[str, Any]:
        """Its arguments by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def refusal(self, target: Target, has_metadata: bool) -> str:
        """Why it cannot be fitted for a kind of target; empty if it can."""
        return ""

    def fit(self, inputs: Array, rows: Learnt) -> Arrays:
        """What it learns from the inputs (N, I) of some rows."""
        raise NotImplementedError

    def apply(self, learned: Arrays, inputs: Array) -> Array:
        """Predictions (N, K) of any rows; they may need `Target.valid`."""
        raise NotImplementedError


Solver = Callable[[Array, Array, NDArray[np.bool_]], tuple[Array, float]]


def _each_output(inputs: Array, rows: Learnt, solve: Solver, width: int, is_logit: bool = False) -> Arrays:
    """Coefficients (width, K) and intercepts (K,) of a model of each output, on the rows that have its target.

    An output whose rows all have the same target keeps this one; as a logit, it is that of almost 0 or 1.
    """
    coefficients, intercepts = np.zeros((width, rows.targets.shape[1])), np.zeros(rows.targets.shape[1])
    for k, wanted in enumerate(rows.targets.T):
        known = ~np.isnan(wanted) & (rows.weights > 0)
        if len(np.unique(wanted[known])) < 2:  # nothing to learn
            constant = float(wanted[known].mean()) if known.any() else 0.0
            kept = min(max(constant, SURE), 1 - SURE)
            intercepts[k] = np.log(kept / (1 - kept)) if is_logit else constant
            continue
        found, intercepts[k] = solve(wanted[known], rows.weights[known], known)
        coefficients[: len(found), k] = found
    return {"coefficients": coefficients, "intercepts": intercepts}


@dataclass(frozen=True)
class SVR(Model):
    """Support vector regression of each output; its target is scaled to deviation 1 for the fit.

    Args:
        normalize: As of `Scaling`.
        standardize: As of `Scaling`.
        pca: As of `Scaling`.
        C: Cost of an error, above 0.
        epsilon: Errors up to it, in deviations of the target, cost nothing.
        kernel: `rbf` or `linear`.
        gamma: Of the kernel `rbf`: above 0, or `scale`: one over the number of inputs and their variance.
    """

    name = "svr"
    reads_grades = True

    C: float = 1.0
    epsilon: float = 0.1
    kernel: Literal["rbf", "linear"] = "rbf"
    gamma: float | Literal["scale"] = "scale"

    def __post_init__(self) -> None:
        super().__post_init__()
        gamma = None if self.gamma == "scale" else self.gamma
        given = {"C": self.C, "epsilon": self.epsilon, "gamma": gamma}
        check_ranges(self.name, given, {"C": POSITIVE, "epsilon": NOT_NEGATIVE, "gamma": POSITIVE})

    def fit(self, inputs: Array, rows: Learnt) -> Arrays:
        """Support vectors of all outputs, each with its weights."""
        variance = float(inputs.var())
        gamma = 1 / (inputs.shape[1] * variance if variance > 0 else 1.0) if self.gamma == "scale" else self.gamma

        def solve(wanted: Array, weights: Array, known: NDArray[np.bool_]) -> tuple[Array, float]:
            mean, deviation = float(wanted.mean()), float(wanted.std())
            machine = SklearnSVR(kernel=self.kernel, C=self.C, epsilon=self.epsilon, gamma=gamma)  # type: ignore[no-untyped-call]
            machine.fit(inputs[known], (wanted - mean) / deviation, sample_weight=weights)
            duals = np.zeros(len(inputs))
            duals[np.flatnonzero(known)[machine.support_]] = machine.dual_coef_[0] * deviation
            return duals, float(machine.intercept_[0]) * deviation + mean

        found = _each_output(inputs, rows, solve, len(inputs))
        used = found["coefficients"].any(1)
        return {
            **found,
            "coefficients": found["coefficients"][used],
            "vectors": _short(inputs[used]),
            "gamma": np.array(gamma),
        }

    def apply(self, learned: Arrays, inputs: Array) -> Array:
        """The kernel's sum over the support vectors."""
        vectors, parts = learned["vectors"], []
        for start in range(0, len(inputs), CHUNK):
            chunk = inputs[start : start + CHUNK]
            is_rbf = self.kernel == "rbf"
            kernel = rbf_kernel(chunk, vectors, learned["gamma"].item()) if is_rbf else linear_kernel(chunk, vectors)
            parts.append(kernel @ learned["coefficients"] + learned["intercepts"])
        return np.concatenate(parts)


@dataclass(frozen=True)
class Ridge(Model):
    """Ridge regression of each output.

    Args:
        normalize: As of `Scaling`.
        standardize: As of `Scaling`.
        pca: As of `Scaling`.
        alpha: Strength of the penalty, above 0.
    """

    name = "ridge"
    reads_grades = True

    alpha: float = 100.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self.name, {"alpha": self.alpha}, {"alpha": POSITIVE})

    def fit(self, inputs: Array, rows: Learnt) -> Arrays:
        """Coefficients and intercepts."""
        if not np.isnan(rows.targets).any():
            machine = SklearnRidge(self.alpha).fit(inputs, rows.targets, sample_weight=rows.weights)  # type: ignore[no-untyped-call]
            coefficients = machine.coef_.reshape(rows.targets.shape[1], -1).T
            intercepts = np.broadcast_to(machine.intercept_, (rows.targets.shape[1],)).copy()
            return {"coefficients": coefficients, "intercepts": intercepts}

        def solve(wanted: Array, weights: Array, known: NDArray[np.bool_]) -> tuple[Array, float]:
            machine = SklearnRidge(self.alpha).fit(inputs[known], wanted, sample_weight=weights)  # type: ignore[no-untyped-call]
            return machine.coef_, float(machine.intercept_)

        return _each_output(inputs, rows, solve, inputs.shape[1])

    def apply(self, learned: Arrays, inputs: Array) -> Array:
        """The linear function."""
        found: Array = inputs @ learned["coefficients"] + learned["intercepts"]
        return found


@dataclass(frozen=True)
class Logistic(Model):
    """Logistic regression: one of the classes together, of each label alone.

    Args:
        normalize: As of `Scaling`.
        standardize: As of `Scaling`.
        pca: As of `Scaling`.
        C: Inverse of the penalty's strength, above 0.
        max_iter: Most iterations of the solver.
    """

    name = "logistic"

    C: float = 0.01
    max_iter: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self.name, {"C": self.C}, {"C": POSITIVE})
        check_whole(self.name, "max_iter", self.max_iter)

    def refusal(self, target: Target, has_metadata: bool) -> str:
        """Numbers that are no probabilities."""
        return "" if target.are_probabilities else "it predicts probabilities, and the target is a number"

    def fit(self, inputs: Array, rows: Learnt) -> Arrays:
        """Coefficients and intercepts of the logits."""
        if not rows.target.are_classes:

            def solve(wanted: Array, weights: Array, known: NDArray[np.bool_]) -> tuple[Array, float]:
                return self._binary(inputs[known], wanted, weights)

            return {**_each_output(inputs, rows, solve, inputs.shape[1], is_logit=True), "is_softmax": np.array(False)}
        # A row of soft targets is a row of each class, weighted by its share.
        row, outputs = np.nonzero(rows.targets > 0)
        present = np.unique(outputs)
        shape = (inputs.shape[1], rows.targets.shape[1])
        coefficients, intercepts = np.zeros(shape), np.full(shape[1], -np.inf)
        learned = {"coefficients": coefficients, "intercepts": intercepts, "is_softmax": np.array(True)}
        if len(present) == 1:
            intercepts[present] = 0.0
            return learned
        weights = rows.targets[row, outputs] * rows.weights[row]
        machine = LogisticRegression(C=self.C, max_iter=self.max_iter).fit(inputs[row], outputs, sample_weight=weights)  # type: ignore[no-untyped-call]
        if len(present) == 2:  # one function, of the second class
            coefficients[:, present[1]], intercepts[present] = machine.coef_[0], (0.0, machine.intercept_[0])
        else:
            coefficients[:, present], intercepts[present] = machine.coef_.T, machine.intercept_
        return learned

    def _binary(self, inputs: Array, wanted: Array, weights: Array) -> tuple[Array, float]:
        """Of one label; a share between 0 and 1 is a row of both."""
        both = np.concatenate([inputs, inputs])
        shares = np.concatenate([wanted, 1 - wanted]) * np.concatenate([weights, weights])
        answers = np.repeat([1, 0], len(wanted))
        used = shares > 0
        machine = LogisticRegression(C=self.C, max_iter=self.max_iter)  # type: ignore[no-untyped-call]
        machine.fit(both[used], answers[used], sample_weight=shares[used])
        return machine.coef_[0], float(machine.intercept_[0])

    def apply(self, learned: Arrays, inputs: Array) -> Array:
        """The probabilities."""
        logits = inputs @ learned["coefficients"] + learned["intercepts"]
        if learned["is_softmax"].item():
            powers = np.exp(logits - logits.max(1, keepdims=True))
            found: Array = powers / powers.sum(1, keepdims=True)
            return found
        return 1 / (1 + np.exp(-np.clip(logits, -500, 500)))


@dataclass(frozen=True)
class KNN(Model):
    """The mean target of the nearest rows.

    Args:
        normalize: As of `Scaling`.
        standardize: As of `Scaling`.
        pca: As of `Scaling`.
        k: Number of rows, 1 or more; of fewer rows all.
        weights: `distance`: each counts one over its distance; or `uniform`.
        metric: `cosine` or `euclidean`.
    """

    name = "knn"

    k: int = 15
    weights: Literal["distance", "uniform"] = "distance"
    metric: Literal["cosine", "euclidean"] = "cosine"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self.name, "k", self.k)

    def fit(self, inputs: Array, rows: Learnt) -> Arrays:
        """The rows themselves."""
        return {"rows": _short(inputs), "targets": rows.targets, "weights": rows.weights}

    def apply(self, learned: Arrays, inputs: Array) -> Array:
        """Weighted means of the targets that are there; where no neighbour has one, of all rows."""
        targets, counts = learned["targets"], learned["weights"]
        near = NearestNeighbors(n_neighbors=min(self.k, len(targets)), metric=self.metric, algorithm="brute")  # type: ignore[no-untyped-call]
        distances, found = near.fit(learned["rows"]).kneighbors(inputs)
        # Of a row at distance 0 nothing but its own target is left.
        shares = counts[found] / np.maximum(distances, 1e-9) if self.weights == "distance" else counts[found]
        known = ~np.isnan(targets)
        values = np.where(known, targets, 0.0)
        total = (shares[..., None] * known[found]).sum(1)
        everywhere = (counts[:, None] * values).sum(0) / np.maximum((counts[:, None] * known).sum(0), 1e-12)
        sums = (shares[..., None] * values[found]).sum(1)
        result: Array = np.where(total > 0, sums / np.where(total > 0, total, 1), everywhere)
        return result


@dataclass(frozen=True)
class Retrieval(Model):
    """The most similar training row of each class, by the cosine of embeddings, as of networks with an ArcFaceHead.

    Predictions are the softmax of `scale` times the cosines. With `new_class`, a class that no row has competes at this
    cosine, and its probability is divided among all classes: where no class is as similar, the highest probability is
    low, for the rule `new_class` of a submission.

    Args:
        normalize: As of `Scaling`; cosines have no use of it.
        standardize: As of `Scaling`.
        pca: As of `Scaling`.
        scale: Factor on the cosines, above 0.
        new_class: The cosine at which a row is as likely to be of a new class, from −1 to 1; None without new classes.
    """

    name = "retrieval"

    standardize: bool = False
    scale: float = 30.0
    new_class: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        given = {"scale": self.scale, "new_class": self.new_class}
        check_ranges(self.name, given, {"scale": POSITIVE, "new_class": Range(-1, 1)})

    def refusal(self, target: Target, has_metadata: bool) -> str:
        """Other targets than classes, and metadata, of which a cosine says nothing."""
        if has_metadata:
            return "it compares embeddings, and metadata is none: remove --metadata"
        return "" if target.are_classes else "it finds the class of the most similar row, and the target is no class"

    def fit(self, inputs: Array, rows: Learnt) -> Arrays:
        """The rows, sorted by class; a row of soft targets is of its likeliest class."""
        classes = rows.targets.argmax(1)
        order = np.argsort(classes, kind="stable")
        return {"rows": _short(unit(inputs)[order]), "classes": classes[order], "size": np.array(rows.targets.shape[1])}

    def apply(self, learned: Arrays, inputs: Array) -> Array:
        """The softmax of the scaled cosines."""
        gallery, given = learned["rows"], unit(inputs)
        present, starts = np.unique(learned["classes"], return_index=True)
        parts = []
        for start in range(0, len(given), CHUNK):
            cosines = np.full((len(given[start : start + CHUNK]), learned["size"].item()), -1.0)
            cosines[:, present] = np.maximum.reduceat(given[start : start + CHUNK] @ gallery.T, starts, axis=1)
            parts.append(self._shares(cosines))
        return np.concatenate(parts)

    def _shares(self, cosines: Array) -> Array:
        best = cosines.max(1, keepdims=True)
        best = best if self.new_class is None else np.maximum(best, self.new_class)
        powers = np.exp(self.scale * (cosines - best))
        new = 0.0 if self.new_class is None else np.exp(self.scale * (self.new_class - best))
        found: Array = (powers + new / cosines.shape[1]) / (powers.sum(1, keepdims=True) + new)
        return found


@dataclass(frozen=True)
class Trees(Model):
    """Gradient boosting by LightGBM, as of ensembles: trees of each output.

    Args:
        normalize: As of `Scaling`.
        standardize: As of `Scaling`.
        pca: As of `Scaling`; trees of fewer inputs are faster.
    """

    name = "gbdt"

    standardize: bool = False

    def refusal(self, target: Target, has_metadata: bool) -> str:
        """LightGBM is not installed."""
        return "" if find_spec("lightgbm") else "it needs LightGBM: pip install 'swinft[gbdt]'"

    def fit(self, inputs: Array, rows: Learnt) -> Arrays:
        """The trees as text, or a constant."""
        given = Rows(inputs[None], rows.targets, rows.weights, lambda values: 0.0, rows.target)
        found = Boosting().fit(given)["trees"]
        texts = {f"trees.{k}": _bytes(tree) for k, tree in enumerate(found) if isinstance(tree, str)}
        constants = [np.nan if isinstance(tree, str) else float(tree) for tree in found]
        return {**texts, "constants": np.array(constants), "width": np.array(inputs.shape[1])}

    def apply(self, learned: Arrays, inputs: Array) -> Array:
        """The trees' predictions."""
        trees = [
            bytes(learned[f"trees.{k}"]).decode() if np.isnan(value) else float(value)
            for k, value in enumerate(learned["constants"])
        ]
        return Boosting().apply({"trees": trees, "features": learned["width"].item()}, inputs[None], None)


def _short(values: Array) -> NDArray[np.float32]:
    """Rows that are stored: embeddings have no more digits."""
    return values.astype(np.float32)


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), dtype=np.uint8)


MODELS: dict[str, type[Model]] = {each.name: each for each in (SVR, Ridge, Logistic, KNN, Retrieval, Trees)}
