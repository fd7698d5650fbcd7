"""Eigenvalues of a symmetric matrix that is only known by its products with vectors; pure functions.

Shapes: P numbers of a vector, M steps of Lanczos, k eigenvalues.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Product = Callable[[Tensor], Tensor]  # a vector (P,) to the matrix times it, (P,)
# PyHessian's criterion (arXiv 1912.07145): the relative change of the eigenvalue from one product to the next.
TOLERANCE, MOST_PRODUCTS = 1e-3, 100
# Below this share of the matrix's scale, the next vector of Lanczos is rounding: the space is exhausted.
EXHAUSTED = 1e-6


class Ritz(NamedTuple):
    """Approximations of eigenvalues from one start vector.

    Args:
        values: Float64 (M,), ascending.
        weights: The share of the start vector in each direction, (M,), which sum to 1: the nodes and weights of a
            quadrature of the spectral density.
        residuals: Upper bound of the distance of each value to an eigenvalue, (M,).
    """

    values: NDArray[np.float64]
    weights: NDArray[np.float64]
    residuals: NDArray[np.float64]


def lanczos(product: Product, start: Tensor, steps: int) -> Ritz:
    """Approximates the spectrum of a symmetric matrix by Lanczos' method with full reorthogonalisation.

    Args:
        product: The matrix.
        start: A random vector (P,), not zero.
        steps: M, products with the matrix; fewer where the space is exhausted before.

    Returns:
        NaN where a product is not finite.
    """
    basis = [start / start.norm()]
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(min(steps, len(start))):
        image = product(basis[-1])
        diagonal.append(float(image @ basis[-1]))
        for _ in range(2):  # once leaves rounding that grows into false copies of eigenvalues
            for vector in basis:
                image = image - (image @ vector) * vector
        length = float(image.norm())
        beside.append(length)
        if length <= EXHAUSTED * max(*map(abs, diagonal), *beside, 1e-30):
            break
        basis.append(image / length)
    triangle = np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1)
    if not np.isfinite(triangle).all():  # of a loss without finite second derivatives
        nothing = np.full(len(diagonal), np.nan)
        return Ritz(nothing, nothing, nothing)
    values, vectors = np.linalg.eigh(triangle)
    return Ritz(values, vectors[0] ** 2, np.abs(beside[-1] * vectors[-1]))


def largest(ritz: Ritz, count: int) -> Ritz:
    """The values of the largest magnitudes, the largest first."""
    order = np.argsort(-np.abs(ritz.values), kind="stable")[:count]
    return Ritz(ritz.values[order], ritz.weights[order], ritz.residuals[order])


def power_iteration(product: Product, starts: list[Tensor]) -> tuple[list[float], list[float]]:
    """The eigenvalues of the largest magnitudes by power iteration, each orthogonal to those before (deflation).

    Args:
        product: The matrix.
        starts: A random vector (P,) for each eigenvalue.

    Returns:
        The eigenvalues (k,), by falling magnitude, and the length of what each vector lacks to be an eigenvector.
    """
    found: list[Tensor] = []
    values: list[float] = []
    residuals: list[float] = []
    for start in starts:
        vector, value, residual = _orthogonal(start, found), float("nan"), float("nan")
        for _ in range(MOST_PRODUCTS):
            image = product(vector)
            before, value = value, float(image @ vector)
            residual = float((image - value * vector).norm())
            image = _orthogonal(image, found, scaled=False)
            length = float(image.norm())
            if length == 0 or abs(value - before) <= TOLERANCE * abs(value):
                break
            vector = image / length
        found.append(vector)
        values.append(value)
        residuals.append(residual)
    return values, residuals


def _orthogonal(vector: Tensor, others: list[Tensor], scaled: bool = True) -> Tensor:
    for other in others:
        vector = vector - (vector @ other) * other
    return vector / vector.norm() if scaled else vector


def hessian_product(loss: Tensor, parameters: list[torch.nn.Parameter]) -> Product:
    """Products with the Hessian of a loss, from two backward passes; the first one is done once.

    Args:
        loss: A number with its graph.
        parameters: What it is differentiated by; P is the number of their entries.
    """
    gradients = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
    # A gradient that is constant has a Hessian of zeros, and no graph.
    at = [place for place, gradient in enumerate(gradients) if gradient.requires_grad]
    sizes = [parameter.numel() for parameter in parameters]

    def product(vector: Tensor) -> Tensor:
        parts = [part.view_as(p) for part, p in zip(torch.split(vector, sizes), parameters, strict=True)]
        if not at:
            return torch.zeros_like(vector)
        found = torch.autograd.grad(
            [gradients[place] for place in at],
            parameters,
            [parts[place].to(gradients[place].dtype) for place in at],
            retain_graph=True,
            materialize_grads=True,
        )
        return torch.cat([each.reshape(-1) for each in found]).to(vector.dtype)

    return product
