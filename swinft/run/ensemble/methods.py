"""The methods of ensembles by name: from the predictions of members to one prediction of each row.

Shapes: M members, N rows, K outputs.
"""

import numpy as np
from scipy.special import expit, softmax

from swinft.data.target.base import Target
from swinft.run.ensemble.boosting import Boosting, engine_of
from swinft.run.ensemble.engines import ENGINES, EngineName
from swinft.run.ensemble.fits import (
    LEAST,
    climb,
    least_squares_weights,
    log_linear,
    log_odds,
    mean_rank,
    of_each_output,
    power_mean,
    ridge,
    searched_weights,
)
from swinft.run.ensemble.method import Array, Fitted, Method, PerOutput, Rows, Weighted

EXPONENTS = (1.0, 0.25, 0.5, 1.5, 2.0, 3.0, 4.0, 6.0)  # of power means; the first one wins a tie


class Mean(Weighted):
    """The mean."""

    name, is_fitted = "mean", False

    def weights(self, rows: Rows) -> Array:
        """Equal weights."""
        return np.full(len(rows.members), 1 / len(rows.members))


class Powers(Method):
    """A method that is undefined for negative predictions."""

    def refusal(self, members: Array, target: Target, compares_order: bool) -> str:
        """A negative prediction."""
        return "some predictions are negative" if members.min() < 0 else ""


class Geometric(Powers):
    """The geometric mean."""

    name, is_fitted = "geometric", False

    def apply(self, fitted: Fitted, members: Array, features: Array | None) -> Array:
        """The exponential of the mean logarithm."""
        means: Array = np.log(np.maximum(members, LEAST)).mean(0)
        return np.exp(means)


class Power(Powers):
    """The power mean with the exponent of the best score."""

    name = "power"

    def fit(self, rows: Rows) -> Fitted:
        """The exponent."""
        gains = [rows.gain(rows.target.valid(power_mean(rows.members, exponent))) for exponent in EXPONENTS]
        return {"exponent": EXPONENTS[int(np.argmax(gains))]}

    def apply(self, fitted: Fitted, members: Array, features: Array | None) -> Array:
        """The power mean."""
        return power_mean(members, fitted["exponent"])


class Rank(Method):
    """The mean rank among the rows that are predicted together."""

    name, is_fitted, keeps_unit = "rank", False, False

    def refusal(self, members: Array, target: Target, compares_order: bool) -> str:
        """A metric of more than the order."""
        return "" if compares_order else "the metric compares values, and ranks are none"

    def apply(self, fitted: Fitted, members: Array, features: Array | None) -> Array:
        """Ranks in 0–1."""
        return mean_rank(members)


class Hill(Weighted):
    """Hill climbing with replacement (Caruana et al. 2004)."""

    name, is_search = "hill", True

    def weights(self, rows: Rows) -> Array:
        """How often each member was added, as a fraction."""
        return climb(rows.members, rows.gain)


class NNLS(Weighted):
    """Non-negative least squares."""

    name = "nnls"

    def weights(self, rows: Rows) -> Array:
        """The weights of the least squared error."""
        return least_squares_weights(rows.members, rows.targets, rows.weights)


class NelderMead(Weighted):
    """Weights by the simplex search of Nelder and Mead."""

    name, is_search = "nelder-mead", True

    def weights(self, rows: Rows) -> Array:
        """The weights of the best score that was found."""
        return searched_weights(rows.members, rows.gain)


class HillPerOutput(PerOutput):
    """Hill climbing of the weights of each output in turn."""

    name, is_automatic, is_search = "hill-per-output", False, True

    def weights(self, rows: Rows) -> Array:
        """Those that hill climbing finds, where they are better than one weight of a member."""
        return of_each_output(rows.members, climb, lambda values: rows.gain(rows.target.valid(values)))


class NNLSPerOutput(PerOutput):
    """Non-negative least squares for each output."""

    name = "nnls-per-output"

    def weights(self, rows: Rows) -> Array:
        """The weights of the least squared error of each output."""
        found = [
            least_squares_weights(rows.members[:, :, [k]], rows.targets[:, [k]], rows.weights)
            for k in range(rows.members.shape[2])
        ]
        return np.stack(found, 1)


class NelderMeadPerOutput(PerOutput):
    """The search of Nelder and Mead of the weights of each output in turn."""

    name, is_automatic, is_search = "nelder-mead-per-output", False, True

    def weights(self, rows: Rows) -> Array:
        """Those that the search finds, where they are better than one weight of a member."""
        return of_each_output(rows.members, searched_weights, lambda values: rows.gain(rows.target.valid(values)))


class Ridge(Method):
    """Ridge regression of each output on the members' predictions of it."""

    name, fewest = "ridge", 1

    def fit(self, rows: Rows) -> Fitted:
        """A factor for each member and an intercept, for each output."""
        found = [ridge(rows.members[:, :, k].T, rows.targets[:, k], rows.weights) for k in range(rows.members.shape[2])]
        return {"factors": [factors.tolist() for factors, _ in found], "intercepts": [each for _, each in found]}

    def apply(self, fitted: Fitted, members: Array, features: Array | None) -> Array:
        """The regression."""
        sums: Array = np.einsum("km,mnk->nk", np.array(fitted["factors"]), members)
        return sums + np.array(fitted["intercepts"], dtype=np.float64)


class Logistic(Method):
    """Logistic regression on the members' log-probabilities: a factor for each member, a bias for each output."""

    name, fewest = "logistic", 1

    def refusal(self, members: Array, target: Target, compares_order: bool) -> str:
        """Predictions are no probabilities."""
        return "" if target.are_probabilities else "predictions are no probabilities"

    def fit(self, rows: Rows) -> Fitted:
        """The factors and the biases."""
        are_classes = rows.target.are_classes
        factors, biases = log_linear(log_odds(rows.members, are_classes), rows.targets, rows.weights, are_classes)
        return {"factors": factors.tolist(), "biases": biases.tolist(), "are_classes": are_classes}

    def apply(self, fitted: Fitted, members: Array, features: Array | None) -> Array:
        """Probabilities."""
        logs = log_odds(members, fitted["are_classes"])
        logits = np.tensordot(np.array(fitted["factors"]), logs, 1) + np.array(fitted["biases"])
        found: Array = softmax(logits, 1) if fitted["are_classes"] else expit(logits)
        return found


def methods_with(engine: EngineName | None) -> dict[str, Method]:
    """The methods by name, with the library that grows the trees; None for the default."""
    found: tuple[Method, ...] = (
        Mean(),
        Geometric(),
        Rank(),
        Power(),
        Hill(),
        NNLS(),
        NelderMead(),
        HillPerOutput(),
        NNLSPerOutput(),
        NelderMeadPerOutput(),
        Ridge(),
        Logistic(),
        Boosting(engine or ENGINES[0]),
    )
    return {method.name: method for method in found}


METHODS = methods_with(None)


def method_of(name: str, fitted: Fitted) -> Method:
    """The method of an ensemble, with what it learned."""
    return Boosting(engine_of(fitted)) if name == Boosting.name else METHODS[name]
