"""Weights and regressions of ensembles, as pure functions.

Shapes: M members, N rows, K outputs.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, nnls  # type: ignore[attr-defined]
from scipy.special import expit, logsumexp, softmax
from scipy.stats import rankdata

Array = NDArray[np.float64]

LEAST = 1e-7  # a probability, before its logarithm: float32's resolution below 1
STEPS = 100  # of hill climbing: weights are multiples of 1 % at the finest
PATIENCE = 20  # steps without a better score, after which it ends
EVALUATIONS = 100  # of the metric by Nelder-Mead, for each member
MOST_EVALUATIONS = 1000
SWEEPS = 2  # over the outputs: of exclusive classes, the weights of one depend on those of the others
ALPHAS = np.logspace(-3, 2, 16)  # of ridge regression, for each row
SHRINKAGE = 1e-3  # of logistic stacking, to the geometric mean


def power_mean(members: Array, exponent: float) -> Array:
    """The power mean over the members, (N, K), of predictions of 0 or more."""
    means: Array = (members**exponent).mean(0)
    return means ** (1 / exponent)


def mean_rank(members: Array) -> Array:
    """The mean over the members of each row's rank by each output, in 0–1; ties share their mean rank."""
    ranks: Array = (rankdata(members, axis=1) - 0.5) / members.shape[1]
    means: Array = ranks.mean(0)
    return means


def climb(members: Array, gain: Callable[[Array], float]) -> Array:
    """Weights (M,) by hill climbing with replacement.

    Each step adds the member, again if need be, with which the mean of all that were added scores best. The best of
    these means counts; the first member wins a tie.
    """
    total, counts = np.zeros(members.shape[1:]), np.zeros(len(members))
    best, best_gain, since = counts, -np.inf, 0
    for step in range(1, STEPS + 1):
        gains = [gain((total + member) / step) for member in members]
        chosen = int(np.argmax(gains))
        counts[chosen] += 1
        total += members[chosen]
        since += 1
        if step == 1 or gains[chosen] > best_gain:
            best, best_gain, since = counts.copy(), gains[chosen], 0
        if since == PATIENCE:
            break
    weights: Array = best / best.sum()
    return weights


def least_squares_weights(members: Array, targets: Array, weights: Array) -> Array:
    """Weights (M,) of 0 or more and sum 1 that minimise the squared error of the known targets."""
    known, scale = ~np.isnan(targets), np.sqrt(weights)[:, None]
    if not known.any():
        return np.full(len(members), 1 / len(members))
    columns = [(member * scale)[known] for member in [*members, targets]]
    # The triangular factor has the same squared errors, with a row for each member instead of each target.
    triangle: Array = np.linalg.qr(np.stack(columns, 1), mode="r")  # type: ignore[assignment]
    heavy = 1e4 * max(float(np.abs(triangle).max()), 1e-12)  # a row that outweighs all others: the sum is 1
    matrix = np.vstack([triangle[:, :-1], np.full(len(members), heavy)])
    found: Array = nnls(matrix, np.append(triangle[:, -1], heavy))[0]
    shares: Array = found / found.sum()
    return shares


def searched_weights(members: Array, gain: Callable[[Array], float]) -> Array:
    """Weights (M,) by the search of Nelder and Mead from equal ones; |w| / sum |w| keeps them valid."""
    count = len(members)

    def normalized(given: Array) -> Array:
        size = np.abs(given)
        return size / size.sum() if size.sum() > 0 else np.full(count, 1 / count)

    start = np.full(count, 1 / count)
    simplex = np.vstack([start, start + np.eye(count)])
    most = min(EVALUATIONS * count, MOST_EVALUATIONS)
    options = {"initial_simplex": simplex, "maxfev": most, "xatol": 1e-4, "fatol": 1e-9, "adaptive": count > 4}
    found = minimize(  # type: ignore[no-untyped-call]
        lambda given: -gain(np.tensordot(normalized(given), members, 1)), start, method="Nelder-Mead", options=options
    )
    return normalized(found.x)


def of_each_output(members: Array, fit: Callable[..., Array], gain: Callable[[Array], float]) -> Array:
    """Weights (M, K) of each output, by a fit of one output after the other with the others as they are.

    It starts from the weights that the outputs share, and takes others only where the score is better.

    Args:
        members: Predictions (M, N, K).
        fit: A function of members and gain that returns weights (M,): `climb` or `searched_weights`.
        gain: The score of combined predictions (N, K), higher is better; those of classes may not sum to 1.
    """
    weights = np.repeat(fit(members, gain)[:, None], members.shape[2], 1)
    values = np.einsum("mk,mnk->nk", weights, members)
    best = gain(values)
    for _ in range(SWEEPS):
        first = best
        for k in range(members.shape[2]):

            def alone(column: Array, k: int = k) -> float:
                changed = values.copy()
                changed[:, k] = column[:, 0]
                return gain(changed)

            found = fit(members[:, :, [k]], alone)
            column = np.tensordot(found, members[:, :, [k]], 1)
            if (now := alone(column)) > best:
                best, weights[:, k], values[:, k] = now, found, column[:, 0]
        if best == first:
            break
    return weights


def ridge(columns: Array, targets: Array, weights: Array) -> tuple[Array, float]:
    """Ridge regression on standardised columns, with the penalty of the least leave-one-out error.

    Args:
        columns: What is known of each row, (N, M).
        targets: The numbers to predict, (N,); rows of NaN are left out.
        weights: Weight of each row, (N,).

    Returns:
        A factor for each column, (M,), and the intercept.
    """
    from sklearn.linear_model import RidgeCV  # slow to import

    known = ~np.isnan(targets) & (weights > 0)
    given, wanted = columns[known], targets[known]
    if len(wanted) < 2:
        return np.full(columns.shape[1], 1 / columns.shape[1]), 0.0
    mean, spread = given.mean(0), given.std(0)
    spread = np.where(spread > 0, spread, 1)
    model = RidgeCV(alphas=ALPHAS * len(wanted))  # type: ignore[no-untyped-call]
    model.fit((given - mean) / spread, wanted, sample_weight=weights[known])
    factors: Array = model.coef_ / spread
    return factors, float(model.intercept_ - factors @ mean)


def log_odds(members: Array, are_classes: bool) -> Array:
    """Logarithms of the probabilities of classes, log odds of labels, (M, N, K)."""
    inside = np.clip(members, LEAST, 1 - LEAST)
    return np.log(inside) if are_classes else np.log(inside) - np.log1p(-inside)


def log_linear(logs: Array, targets: Array, weights: Array, are_classes: bool) -> tuple[Array, Array]:
    """Logistic regression with few parameters, by maximum likelihood, a little shrunk to the geometric mean.

    Args:
        logs: What `log_odds` gives, (M, N, K).
        targets: Targets (N, K); NaN where missing.
        weights: Weight of each row, (N,).
        are_classes: Whether the outputs of a row exclude each other.

    Returns:
        A factor for each member, (M,), and a bias for each output, (K,).
    """
    count, known = len(logs), ~np.isnan(targets)
    wanted, scale = np.where(known, targets, 0), known * (weights / weights.sum())[:, None]

    def loss(given: Array) -> tuple[float, Array]:
        factors, biases = given[:count], given[count:]
        logits = np.tensordot(factors, logs, 1) + biases
        total = logsumexp(logits, 1, keepdims=True) if are_classes else np.logaddexp(0, logits)
        normalizer = total * wanted if are_classes else total
        errors = scale * ((softmax(logits, 1) if are_classes else expit(logits)) - wanted)
        away = np.append(factors - 1 / count, biases)
        value = float((scale * (normalizer - wanted * logits)).sum() + SHRINKAGE / 2 * (away**2).sum())
        slope = np.append(np.tensordot(logs, errors, 2), errors.sum(0))
        return value, slope + SHRINKAGE * away

    start = np.append(np.full(count, 1 / count), np.zeros(logs.shape[2]))
    found = minimize(loss, start, jac=True, method="L-BFGS-B").x  # type: ignore[no-untyped-call]
    return found[:count], found[count:]
