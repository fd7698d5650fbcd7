"""Support vector, ridge and logistic regression by scikit-learn.

Shapes: N rows, I inputs, K outputs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.metrics.pairwise import linear_kernel, rbf_kernel
from sklearn.svm import SVR as SklearnSVR

from swinft.data.target.base import Target
from swinft.ranges import NOT_NEGATIVE, POSITIVE, check_ranges, check_whole
from swinft.run.embed.inputs import Array, Arrays
from swinft.run.embed.model import CHUNK, Learnt, Model, short

SURE = 1e-4  # the probability of a label that no row of the fit has
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
            "vectors": short(inputs[used]),
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
