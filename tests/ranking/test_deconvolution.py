"""Priors by deconvolution, against drrank (9f61736) and simulated truth."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from send_va.errors import InputError
from send_va.ranking.deconvolution import MOST_ENTRIES, Prior, deconvolve, natural_spline_basis
from send_va.ranking.grid_posterior import Posterior

# where drrank's search of the penalty ended, from the slope of the likelihood at its prior: 4.0e-5, 1 % up or down
REFERENCE_PENALTY = 4.01e-5


@pytest.fixture(scope="module")
def names(shared_reference: Path) -> dict[str, pd.DataFrame]:
    folder = shared_reference / "grades"
    return {
        "input": pd.read_csv(folder / "names_input.csv"),
        "prior": pd.read_csv(folder / "names_prior_Rns.csv"),
        "posterior": pd.read_csv(folder / "names_posterior_Rns.csv"),
    }


@pytest.mark.parametrize("penalty", [None, REFERENCE_PENALTY])
def test_prior_and_posterior_are_those_of_drrank(names, shared_reference, penalty):
    y, s = names["input"]["thetas"].to_numpy(), names["input"]["s"].to_numpy()
    meta = json.loads((shared_reference / "grades/names_meta_Rns.json").read_text())
    prior = deconvolve(y, s, penalty=penalty)
    assert prior.converged
    np.testing.assert_allclose(prior.grid, names["prior"]["theta"], rtol=1e-12)
    assert np.abs(prior.density - names["prior"]["g"]).max() < 1e-3 * names["prior"]["g"].max()
    assert prior.mean == pytest.approx(meta["mean_theta"], rel=1e-5)
    assert prior.sd == pytest.approx(meta["sd_theta"], rel=1e-4)
    posterior = prior.posterior(y, s)
    np.testing.assert_allclose(posterior.mean, names["posterior"]["pmean"], rtol=1e-5)
    step = prior.grid[1] - prior.grid[0]  # ends are grid points; rounding moves some by one
    lower, upper = posterior.interval(0.95)
    assert np.abs(lower - names["posterior"]["lci"]).max() < 1.01 * step
    assert np.abs(upper - names["posterior"]["uci"]).max() < 1.01 * step


def test_basis_spans_the_log_density_of_drrank(names):
    theta, log_g = names["prior"]["theta"].to_numpy(), np.log(names["prior"]["g"].to_numpy())
    basis = np.column_stack([np.ones(len(theta)), natural_spline_basis(theta, 5)])
    fitted = basis @ np.linalg.lstsq(basis, log_g, rcond=None)[0]
    assert np.abs(fitted - log_g).max() < 1e-9


def _simulated(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    theta = rng.normal(0.1, 0.25, n)
    se = rng.uniform(0.1, 0.2, n)
    return theta, theta + se * rng.normal(size=n), se


@pytest.mark.parametrize("method", ["spline", "mixture"])
def test_recovers_a_normal_prior(method):
    theta, y, se = _simulated(2_000, 3)
    prior = deconvolve(y, se, method=method, grid=300)
    assert prior.converged
    assert prior.mean == pytest.approx(0.1, abs=4 * 0.29 / np.sqrt(2_000))
    assert prior.sd == pytest.approx(0.25, abs=0.02)
    posterior = prior.posterior(y, se)
    normal = (0.1 / 0.0625 + y / se**2) / (1 / 0.0625 + 1 / se**2)
    loss, best = np.mean((posterior.mean - theta) ** 2), np.mean((normal - theta) ** 2)
    assert loss < 1.03 * best  # regret against the posterior mean under the true prior
    if method == "spline":
        lower, upper = posterior.interval(0.9)
        assert np.mean((lower <= theta) & (theta <= upper)) == pytest.approx(0.9, abs=0.03)
        assert posterior.sd == pytest.approx((1 / 0.0625 + 1 / se**2) ** -0.5, rel=0.25)


def test_mixture_finds_two_points_and_no_prior_on_the_grid_is_likelier():
    rng = np.random.default_rng(4)
    theta = np.where(rng.random(1_500) < 0.3, 1.0, -1.0)
    y = theta + 0.3 * rng.normal(size=1_500)
    prior = deconvolve(y, np.full(1_500, 0.3), method="mixture", grid=200)
    assert prior.converged
    assert prior.density[prior.grid > 0].sum() == pytest.approx(0.3, abs=0.04)
    assert prior.density[np.abs(np.abs(prior.grid) - 1) < 0.15].sum() > 0.95
    for seed in range(5):
        other = np.random.default_rng(seed).dirichlet(50 * prior.density + 0.01)
        density = np.exp(-0.5 * ((y[:, None] - prior.grid) / 0.3) ** 2) / (0.3 * np.sqrt(2 * np.pi))
        assert np.log(density @ other).sum() <= prior.log_likelihood + 1e-6 * 1_500


def test_larger_penalties_flatten_the_spline():
    _, y, se = _simulated(400, 5)
    sds = [deconvolve(y, se, grid=200, penalty=penalty).sd for penalty in (0.0, 0.3, 1e6)]
    assert sds[0] < sds[1] < sds[2]
    assert sds[2] == pytest.approx(np.linspace(y.min(), y.max(), 200).std(), rel=1e-3)


def test_the_penalty_is_chosen_inside_where_that_matches_best():
    _, y, se = _simulated(300, 12)
    prior = deconvolve(y, se, grid=200)
    target = np.sqrt(y.var(ddof=1) - np.mean(se**2))
    unpenalised = deconvolve(y, se, grid=200, penalty=4e-5)
    assert abs(prior.sd - target) <= abs(unpenalised.sd - target) + 1e-3


@settings(max_examples=15, deadline=None)
@given(
    shift=st.floats(-5, 5),
    scale=st.floats(0.1, 10),
    method=st.sampled_from(["spline", "mixture"]),
    seed=st.integers(0, 9),
)
def test_units_of_measurement_do_not_matter(shift, scale, method, seed):
    _, y, se = _simulated(80, seed)
    prior = deconvolve(y, se, method=method, grid=60, penalty=0.01)
    moved = deconvolve(shift + scale * y, scale * se, method=method, grid=60, penalty=0.01)
    assert moved.mean == pytest.approx(shift + scale * prior.mean, abs=1e-3 * scale)
    assert moved.sd == pytest.approx(scale * prior.sd, rel=1e-2, abs=1e-3 * scale)
    rows = moved.posterior(shift + scale * y, scale * se).weights.sum(axis=1)
    np.testing.assert_allclose(rows, 1.0, rtol=1e-12)


def test_equal_estimates_give_one_point():
    prior = deconvolve(np.full(9, 0.3), np.linspace(0.1, 0.2, 9))
    assert (prior.method, prior.sd, prior.mean) == ("point", 0.0, 0.3)
    posterior = prior.posterior([0.1, 0.9], [0.1, 0.1])
    assert posterior.mean.tolist() == [0.3, 0.3]
    assert posterior.sd.tolist() == [0.0, 0.0]
    assert "one point" in str(prior)


def test_two_units_have_a_mixture():
    prior = deconvolve([0.0, 1.0], [0.1, 0.1], method="mixture", grid=50)
    assert prior.converged
    assert prior.density[[0, -1]] == pytest.approx([0.5, 0.5], abs=1e-3)


def test_intervals_end_where_the_tails_are_full():
    posterior = Posterior(
        np.arange(4.0), np.array([[0.25, 0.25, 0.25, 0.25], [0.0, 0.0, 0.0, 1.0], [0.3, 0.7, 0.0, 0.0]])
    )
    lower, upper = posterior.interval(0.5)
    assert lower.tolist() == [0.0, 3.0, 0.0]
    assert upper.tolist() == [2.0, 3.0, 1.0]
    assert posterior.sd == pytest.approx([np.sqrt(1.25), 0.0, np.sqrt(0.21)], abs=1e-12)


def test_draws_follow_the_posterior():
    posterior = Posterior(np.array([0.0, 1.0, 2.0]), np.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]]))
    draws = posterior.draws(20_000, np.random.default_rng(1))
    assert draws.shape == (20_000, 2)
    assert draws[:, 0].mean() == pytest.approx(posterior.mean[0], abs=0.03)
    assert (draws[:, 1] == 0).all()
    np.testing.assert_array_equal(draws, posterior.draws(20_000, np.random.default_rng(1)))


def test_prints():
    _, y, se = _simulated(50, 1)
    prior = deconvolve(y, se, grid=50)
    assert "log-spline" in str(prior)
    assert str(prior) in prior._repr_html_()
    stopped = Prior(prior.grid, prior.density, "spline", 0.1, 0.0, False)
    assert "did not converge" in str(stopped)


@pytest.mark.parametrize(
    ("estimate", "se", "options", "message"),
    [
        ([0.1, np.nan] * 5, [0.1] * 10, {}, "estimate: is not finite"),
        ([0.1, 0.2] * 5, [0.1, 0.0] * 5, {}, "se: is zero or negative"),
        ([0.1, 0.2] * 5, [0.1, -1.0] * 5, {}, "rows 2, 4, 6, 8, 10"),
        ([0.1, 0.2] * 5, [0.1, np.inf] * 5, {}, "se: is not finite"),
        ([0.1, 0.2], [0.1], {}, "lengths differ: estimate has 2, se has 1"),
        ([0.1, 0.2, 0.3], [0.1] * 3, {}, "3 units are too few"),
        ([0.1], [0.1], {"method": "mixture"}, "too few"),
        ([0.1, 0.2] * 5, [0.1] * 10, {"method": "kernel"}, "no method 'kernel'"),
        ([0.1, 0.2] * 5, [0.1] * 10, {"grid": 3}, "too short"),
        ([0.1, 0.2] * 5, [0.1] * 10, {"grid": [0.0, 0.0, 1.0]}, "increasing"),
        ([0.1, 0.2] * 5, [0.1] * 10, {"grid": [1e160, 2e160]}, "so far from some estimates"),
        ([0.1, 0.2] * 5, [0.1] * 10, {"grid": [1e160, 2e160], "method": "mixture"}, "so far from some estimates"),
        ([0.1, 0.2] * 5, [0.1] * 10, {"penalty": -1.0}, "penalty"),
        ([0.1, 0.2] * 5, [0.1] * 10, {"grid": MOST_ENTRIES}, "GB"),
    ],
)
def test_refuses(estimate, se, options, message):
    with pytest.raises(InputError, match=message):
        deconvolve(estimate, se, **options)


def test_refuses_a_coverage_outside():
    with pytest.raises(InputError, match="coverage"):
        Posterior(np.zeros(1), np.ones((1, 1))).interval(1.0)
