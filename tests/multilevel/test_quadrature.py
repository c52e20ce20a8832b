"""Adaptive quadrature against direct integration, and its one-point case against the Laplace engine."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import expit

from send_va.multilevel.laplace import fit_laplace
from send_va.multilevel.latent_system import Term
from send_va.multilevel.likelihoods import Binomial, Ordinal, marginal_predictors
from send_va.multilevel.quadrature import MarginalLikelihood, fit_quadrature


def simulated(seed: int, groups: int = 15, rows: int = 8, sd: float = 1.0) -> tuple[Binomial, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(groups), rows)
    x = np.column_stack([np.ones(len(codes)), rng.normal(size=len(codes))])
    p = expit(x @ [-0.3, 0.8] + rng.normal(0.0, sd, groups)[codes])
    return Binomial((rng.random(len(codes)) < p).astype(float), np.ones(len(codes)), "logit"), x, codes


def marginal(likelihood: Binomial, x: np.ndarray, codes: np.ndarray, points: int) -> MarginalLikelihood:
    one = np.ones((len(x), 1))
    return MarginalLikelihood(likelihood, x, codes, codes.max() + 1, one, points, False, 0.0 * one)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1000), st.floats(0.3, 2.0))
def test_many_points_give_the_integral(seed: int, sigma: float) -> None:
    """25 points against SciPy's quadrature of every group's integral, both good to about 1e-7."""
    likelihood, x, codes = simulated(seed, groups=6)
    theta = np.array([-0.2, 0.6, sigma])
    direct = 0.0
    for group in range(6):
        eta, y = x[codes == group] @ theta[:2], likelihood.successes[codes == group]

        def density(u: float, eta: np.ndarray = eta, y: np.ndarray = y) -> float:
            p = expit(eta + sigma * u)
            return float(np.prod(np.where(y == 1.0, p, 1.0 - p)) * np.exp(-0.5 * u * u) / np.sqrt(2 * np.pi))

        direct += np.log(quad(density, -12.0, 12.0, epsabs=0.0, epsrel=1e-10, limit=200)[0])
    assert marginal(likelihood, x, codes, 25)(theta)[0] == pytest.approx(direct, abs=2e-6)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1, 2, 5]))
def test_gradient_is_that_of_the_approximation(seed: int, points: int) -> None:
    """Exact for any number of points, the nodes' movement included; central differences are good to about 1e-7."""
    likelihood, x, codes = simulated(seed)
    criterion = marginal(likelihood, x, codes, points)
    theta = np.array([-0.5, 0.4, 0.7])
    gradient = criterion(theta)[1]
    for k in range(3):
        step = 1e-5 * np.eye(3)[k]
        assert gradient[k] == pytest.approx((criterion(theta + step)[0] - criterion(theta - step)[0]) / 2e-5, abs=1e-5)


def test_gradient_with_cutpoints() -> None:
    rng = np.random.default_rng(3)
    codes, x = np.repeat(np.arange(12), 10), rng.normal(size=(120, 1))
    likelihood = Ordinal(rng.integers(0, 3, 120), 2, "probit")
    offset = np.tile(marginal_predictors([1 / 3, 1 / 3, 1 / 3], "probit"), (120, 1))
    criterion = MarginalLikelihood(likelihood, x, codes, 12, np.ones((120, 2)), 3, True, offset)
    theta = np.array([0.3, 0.1, -0.1, 0.6])
    gradient = criterion(theta)[1]
    for k in range(4):
        step = 1e-5 * np.eye(4)[k]
        assert gradient[k] == pytest.approx((criterion(theta + step)[0] - criterion(theta - step)[0]) / 2e-5, abs=1e-5)


def test_one_point_is_the_laplace_approximation() -> None:
    """Two engines written apart: joint Newton steps with block elimination, and one integral after the other."""
    likelihood, x, codes = simulated(4, groups=60, rows=15)
    one = fit_quadrature(likelihood, x, codes, 60, np.ones((len(x), 1)), points=1)
    other = fit_laplace(likelihood, x, [Term(codes, 60, np.ones((1, 1, 1)))], integrate_fixed=False)
    assert one.converged
    assert one.llf == pytest.approx(other.llf, abs=1e-5)
    np.testing.assert_allclose(one.beta, other.beta, atol=1e-3)
    assert one.sigma == pytest.approx(float(np.sqrt(other.covariances[0][0, 0])), rel=3e-3)
    np.testing.assert_allclose(one.modes, other.modes[0][:, 0], atol=5e-3)


def test_quadrature_undoes_the_bias_of_laplace_in_small_groups() -> None:
    """Three yes/no records a group, true SD 2: one point is a tenth too low, 9 points are within sampling error.

    The SD of one estimate is about 0.2 (over 10 seeds), so the mean of six is within 4 x 0.08 of the truth.
    """
    found = {1: [], 9: [], 15: []}
    for seed in range(6):
        likelihood, x, codes = simulated(seed, groups=500, rows=3, sd=2.0)
        for points, sigmas in found.items():
            sigmas.append(fit_quadrature(likelihood, x, codes, 500, np.ones((len(x), 1)), points=points).sigma)
    assert np.mean(found[1]) / np.mean(found[15]) == pytest.approx(0.89, abs=0.02)
    assert np.mean(found[15]) == pytest.approx(2.0, abs=0.33)
    np.testing.assert_allclose(found[9], found[15], rtol=5e-3)


def test_constant_comes_once() -> None:
    likelihood, x, codes = simulated(5)
    moved = Binomial(likelihood.successes, likelihood.trials, "logit", constant=-7.0)
    theta = np.array([0.1, 0.2, 0.5])
    before, after = marginal(likelihood, x, codes, 5)(theta)[0], marginal(moved, x, codes, 5)(theta)[0]
    assert after == pytest.approx(before - 7.0, abs=1e-10)
