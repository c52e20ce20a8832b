"""Draws of random effects against the exact conditional distribution, written out densely."""

import numpy as np
import pandas as pd
import pytest

from send_va.errors import InputError
from send_va.multilevel import fit_gaussian
from send_va.multilevel.prediction import direction_moments, draw_effects, effect_covariances


@pytest.fixture(scope="module")
def nested() -> pd.DataFrame:
    rng = np.random.default_rng(8)
    school = np.repeat(np.arange(24), 9)
    la = school // 4
    x = rng.normal(size=len(school))
    v, u, s = rng.normal(0, 0.5, 6), rng.normal(0, 0.6, 24), rng.normal(0, 0.4, 24)
    y = 1 + 0.5 * x + v[la] + u[school] + s[school] * x + rng.normal(0, 0.8, len(school))
    return pd.DataFrame({"y": y, "x": x, "school": school, "la": la})


def dense_conditional(data: pd.DataFrame, fit) -> tuple[np.ndarray, np.ndarray]:
    """Henderson's equations for all random effects at once: mean and prediction error covariance."""
    n_school, n_la = 24, 6
    x = data["x"].to_numpy()
    X = np.column_stack([np.ones(len(x)), x])
    Z = np.zeros((len(x), 2 * n_school + n_la))
    rows = np.arange(len(x))
    Z[rows, 2 * data["school"]], Z[rows, 2 * data["school"] + 1] = 1.0, x
    Z[rows, 2 * n_school + data["la"]] = 1.0
    school_cov, la_cov = fit.solution.covariances
    G = np.zeros((Z.shape[1],) * 2)
    for j in range(n_school):
        G[2 * j : 2 * j + 2, 2 * j : 2 * j + 2] = school_cov
    G[2 * n_school :, 2 * n_school :] = la_cov[0, 0] * np.eye(n_la)
    W = np.column_stack([X, Z])
    precision = W.T @ W / fit.scale
    precision[2:, 2:] += np.linalg.inv(G)
    covariance = np.linalg.inv(precision)
    return (covariance @ W.T @ data["y"].to_numpy() / fit.scale), covariance


def test_moments_and_draws_match_hendersons_equations(nested: pd.DataFrame) -> None:
    """Exact to rounding for the moments; draws within four Monte-Carlo errors."""
    fit = fit_gaussian("y ~ x", nested, {"la": "1", "la:school": "1 + x"})
    assert fit.labels["la:school"].tolist() == [f"{j // 4}:{j}" for j in range(24)]
    mean, covariance = dense_conditional(nested, fit)
    np.testing.assert_allclose(fit.params, mean[:2], rtol=1e-6)
    school, la = effect_covariances(fit.solution, fixed=True)
    for j in range(24):
        block = slice(2 + 2 * j, 4 + 2 * j)
        np.testing.assert_allclose(school[j], covariance[block, block], rtol=1e-6, atol=1e-10)
    np.testing.assert_allclose(la[:, 0, 0], np.diag(covariance)[-6:], rtol=1e-6)
    draws = draw_effects(fit.solution, 20_000, np.random.default_rng(2)).reshape(20_000, -1)
    schools = slice(2, 50)
    sd = np.sqrt(np.diag(covariance)[schools])
    assert np.abs((draws.mean(0) - mean[schools]) / sd).max() < 4.5 / np.sqrt(20_000)
    target = covariance[schools, schools] / np.outer(sd, sd)
    assert np.abs(np.cov(draws.T) / np.outer(sd, sd) - target).max() < 5.5 * np.sqrt(2 / 20_000)


def test_direction_moments_match_hendersons_equations(nested: pd.DataFrame) -> None:
    fit = fit_gaussian("y ~ x", nested, {"la": "1", "la:school": "1 + x"})
    mean, covariance = dense_conditional(nested, fit)
    direction, spread = direction_moments(fit.solution)
    j = 13  # school 13 lies in authority 3; columns are Intercept, x, y
    pick = np.zeros((2, len(mean)))
    pick[[0, 0, 0], [0, 2 + 2 * j, 50 + j // 4]] = 1.0
    pick[[1, 1], [1, 3 + 2 * j]] = 1.0
    moved = fit.solution.eliminated[0].cz.shape[2]
    assert moved == 3
    np.testing.assert_allclose(spread[j][:2, :2], pick @ covariance @ pick.T, rtol=1e-6)
    np.testing.assert_allclose(-direction[j][1], (pick @ mean)[1], rtol=1e-6)


def test_same_seed_same_draws_and_bad_counts(nested: pd.DataFrame) -> None:
    fit = fit_gaussian("y ~ x", nested, {"school": "1"})
    one, two = (draw_effects(fit.solution, 5, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    with pytest.raises(InputError, match="at least 1"):
        draw_effects(fit.solution, 0, np.random.default_rng(3))
