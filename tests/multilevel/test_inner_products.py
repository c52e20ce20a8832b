"""The part of cross-products that a likelihood needs gives the same estimates as all of them."""

from dataclasses import replace

import numpy as np
import pytest

from send_va.multilevel.crossproducts import CrossProducts, cross_products
from send_va.multilevel.elimination import Level
from send_va.multilevel.inner_products import InnerProducts
from send_va.multilevel.nested import fit_nested
from send_va.multilevel.prediction import draw_effects, effect_covariances
from send_va.multilevel.variance_draws import inverse_curvature, variance_curvature, variance_draws

LEVEL, X, Y = [Level(np.array([0, 1]))], np.arange(3), 3


def products(seed: int, slope: float = 0.5) -> CrossProducts:
    rng = np.random.default_rng(seed)
    school = np.repeat(np.arange(60), 25)
    x, z = rng.normal(size=1500), rng.normal(size=1500)
    effects = rng.multivariate_normal([0, 0], [[0.3, 0.1], [0.1, 0.2]], size=60)
    y = slope * x + z + effects[school, 0] + effects[school, 1] * x + rng.normal(size=1500)
    return cross_products(np.column_stack([np.ones(1500), x, z, y]), school, 60, ["one", "x", "z", "y"])


def test_estimates_are_the_same() -> None:
    """Same sums in another order: to rounding of the search."""
    whole = products(1)
    full = fit_nested(whole, LEVEL, X, Y)
    part = fit_nested(InnerProducts.of(whole, LEVEL[0]), LEVEL, X, Y)
    assert part.llf == pytest.approx(full.llf, abs=1e-9)
    np.testing.assert_allclose(part.beta, full.beta, rtol=1e-9)
    np.testing.assert_allclose(part.modes[0], full.modes[0], atol=1e-6)
    draws = [draw_effects(fit, 5, np.random.default_rng(1)) for fit in (full, part)]
    np.testing.assert_allclose(*draws, atol=1e-6)


def test_newton_steps_end_at_the_same_optimum_sooner() -> None:
    """From the solution of a similar problem, whose exact curvature is known."""
    first, second = products(1), products(1, slope=0.6)
    second = replace(second, products=second.products * np.random.default_rng(2).uniform(0.98, 1.02, (60, 1, 1)))
    start = fit_nested(first, LEVEL, X, Y)
    curved = replace(start, inverse_curvature=inverse_curvature(variance_curvature(first, start)))
    warm = fit_nested(second, LEVEL, X, Y, start=curved, newton=True)
    cold = fit_nested(second, LEVEL, X, Y)
    assert warm.convergence.converged
    assert warm.llf == pytest.approx(cold.llf, abs=1e-6)
    np.testing.assert_allclose(warm.covariances[0], cold.covariances[0], rtol=1e-3)
    assert warm.convergence.evaluations < cold.convergence.evaluations / 2


def test_curvature_given_is_curvature_found() -> None:
    whole = products(3)
    fit = fit_nested(whole, LEVEL, X, Y)
    curvature = variance_curvature(whole, fit)
    given, found = (
        variance_draws(data, fit, 3, np.random.default_rng(4), curvature=known)
        for data, known in ((whole, None), (InnerProducts.of(whole, LEVEL[0]), curvature))
    )
    for one, other in zip(given, found, strict=True):
        np.testing.assert_allclose(one.covariances[0], other.covariances[0], rtol=1e-9)
        spread = (effect_covariances(solution, fixed=True)[0] for solution in (one, other))
        np.testing.assert_allclose(*spread, rtol=1e-9)
