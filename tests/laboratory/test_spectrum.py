"""Spectra of matrices that are known: their eigenvalues, their density, and the Hessian of a loss."""

import numpy as np
import pytest
import torch
from torch import nn

from swinft.laboratory.hessian import negative_share, smoothed
from swinft.laboratory.spectrum import hessian_product, lanczos, largest, power_iteration


def matrix(eigenvalues: list[float]) -> torch.Tensor:
    """A symmetric matrix with these eigenvalues, in random directions."""
    torch.manual_seed(0)
    vectors, _ = torch.linalg.qr(torch.randn(len(eigenvalues), len(eigenvalues), dtype=torch.double))
    return vectors @ torch.diag(torch.tensor(eigenvalues, dtype=torch.double)) @ vectors.T


def start(size: int) -> torch.Tensor:
    return torch.randn(size, dtype=torch.double, generator=torch.Generator().manual_seed(1))


def test_lanczos_and_power_iteration_find_the_eigenvalues_of_a_quadratic():
    spread = [*np.linspace(-1, 1, 60).tolist(), -7.0, 5.0, 3.0]
    quadratic = matrix(spread)
    ritz = largest(lanczos(lambda v: quadratic @ v, start(63), 25), 3)
    np.testing.assert_allclose(ritz.values, [-7, 5, 3], rtol=1e-6)
    assert max(ritz.residuals) < 1e-6
    values, residuals = power_iteration(lambda v: quadratic @ v, [start(63), start(63).roll(1), start(63).roll(2)])
    np.testing.assert_allclose(values, [-7, 5, 3], rtol=1e-2)
    assert max(residuals) < 0.5


def test_all_steps_give_all_eigenvalues_and_fewer_if_the_space_is_exhausted():
    eigenvalues = sorted(np.linspace(-2, 4, 12).tolist())
    ritz = lanczos(lambda v: matrix(eigenvalues) @ v, start(12), 30)
    np.testing.assert_allclose(ritz.values, eigenvalues, atol=1e-9)
    assert ritz.weights.sum() == pytest.approx(1)
    twofold = lanczos(lambda v: matrix([1.0] * 5 + [2.0] * 5) @ v, start(10), 8)
    np.testing.assert_allclose(twofold.values, [1, 2], atol=1e-9)
    nothing = lanczos(lambda v: 0 * v, start(10), 8)
    np.testing.assert_array_equal(nothing.values, [0])
    assert negative_share(nothing.values, nothing.weights) == 0


def test_the_density_has_the_mass_of_known_clusters():
    quadratic = matrix([*np.linspace(-1.1, -0.9, 100).tolist(), *np.linspace(2.9, 3.1, 300).tolist()])
    found = [lanczos(lambda v: quadratic @ v, start(400).roll(shift), 20) for shift in range(8)]
    values, weights = (np.concatenate([getattr(each, name) for each in found]) for name in ("values", "weights"))
    assert negative_share(values, weights) == pytest.approx(0.25, abs=0.03)
    assert float((values * weights).sum() / len(found)) == pytest.approx(2, rel=0.05)  # the mean of all eigenvalues
    grid, height = smoothed(values, weights)
    below = grid < 1
    assert np.trapezoid(height[below], grid[below]) == pytest.approx(0.25, abs=0.03)
    assert np.trapezoid(height, grid) == pytest.approx(1, abs=1e-3)


def test_products_are_those_of_the_whole_hessian():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)).double()
    images, targets = torch.randn(6, 3, dtype=torch.double), torch.tensor([0, 1, 0, 1, 1, 0])
    shapes = {name: parameter.shape for name, parameter in net.named_parameters()}

    def loss(flat: torch.Tensor) -> torch.Tensor:
        parts = flat.split([shape.numel() for shape in shapes.values()])
        state = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
        return nn.functional.cross_entropy(torch.func.functional_call(net, state, images), targets)

    flat = torch.cat([parameter.detach().flatten() for parameter in net.parameters()])
    whole = torch.autograd.functional.hessian(loss, flat)
    product = hessian_product(nn.functional.cross_entropy(net(images), targets), list(net.parameters()))
    vector = start(len(flat))
    torch.testing.assert_close(product(vector), whole @ vector)
    eigenvalues = torch.linalg.eigvalsh(whole).numpy()
    ritz = largest(lanczos(product, vector, len(flat)), 3)
    expected = eigenvalues[np.argsort(-np.abs(eigenvalues))][:3]
    np.testing.assert_allclose(ritz.values, expected, rtol=1e-2)


def test_a_linear_loss_has_a_hessian_of_zeros():
    weight, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
    product = hessian_product((weight * torch.arange(3.0)).sum(), [weight, unused])
    assert torch.equal(product(torch.ones(5)), torch.zeros(5))


def test_a_matrix_that_is_not_finite_has_no_eigenvalues():
    for bad in (float("nan"), float("inf")):
        found = lanczos(lambda v, bad=bad: bad * v, start(6), 4)
        assert np.isnan(found.values).all()
        assert negative_share(found.values[:0], found.weights[:0]) == 0
        values, _ = power_iteration(lambda v, bad=bad: bad * v, [start(6)])
        assert not np.isfinite(values).any()
