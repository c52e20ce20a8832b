"""Robust empirical-Bayes intervals: against published critical values, a linear programme, and simulated truth."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.stats import norm

from send_va.errors import InputError
from send_va.ranking.cva_kernels import missing_probability, tangent_point, worst_missing
from send_va.ranking.robust_intervals import cva, robust_intervals

# m2, kappa, alpha, value, tolerance (the digits that are published). The first three are those of the authors' paper
# and programs; the others are in the tests of ebci 1.0.0 (R), where m2 is given by its root.
PUBLISHED = [
    (0.0, math.inf, 0.05, 1.959964, 1e-6),
    (4.0, math.inf, 0.05, 7.216351, 1e-6),
    (4.0, 3.0, 0.05, 4.619513, 1e-6),
    (4.0, 20.0, 0.05, 7.216351, 1e-6),  # the bound on kurtosis does not bind
    (25.0, 3.0, 0.05, 11.88358367, 1e-8),
    (1.0, 3.0, 0.2, 1.8494683, 1e-7),
    (100.0, 3.0, 0.05, 24.86172217, 1e-8),
    (2.8**2, 8.0, 0.1, 7.0779747158, 1e-9),
]


@pytest.mark.parametrize(("m2", "kappa", "alpha", "value", "tolerance"), PUBLISHED)
def test_published_critical_values(m2: float, kappa: float, alpha: float, value: float, tolerance: float) -> None:
    assert float(cva(m2, kappa, alpha)) == pytest.approx(value, abs=tolerance)


@pytest.mark.parametrize("m2", [5e-324, 1e-300, 1e-15, 1e-12, 1e-9])
@pytest.mark.parametrize("kappa", [1.0, 1.0 + 1e-12, 3.0, 1e6, math.inf])
def test_critical_values_near_no_bias(m2: float, kappa: float) -> None:
    assert float(cva(m2, kappa)) == pytest.approx(norm.isf(0.025), abs=1e-7)


def test_published_probabilities() -> None:
    """ebci 1.0.0: two cases in which an earlier version of it failed."""
    assert worst_missing(1.0, 3.0, 11.9699639845401) == pytest.approx(6.0216e-05, abs=1e-9)
    assert worst_missing(2.8**2, 8.0, 7.1324290147839279896) == pytest.approx(0.09805099, abs=1e-8)


def test_worst_case_against_a_linear_programme() -> None:
    """Largest mean over distributions on a grid of 3,000 values, whose error is below 1e-5."""
    rng = np.random.default_rng(1)
    for _ in range(12):
        m2, kappa = math.exp(rng.uniform(-3, 3)), 1 + math.exp(rng.uniform(-2, 3))
        chi = 1.5 + math.sqrt(m2) * rng.uniform(0.3, 3) + rng.uniform(0, 2)
        grid = np.unique(np.append(np.linspace(0, 3 * max(tangent_point(chi), m2) + kappa * m2, 3_000), m2))
        missing = np.array([missing_probability(t, chi) for t in grid])
        moments = np.vstack([np.ones_like(grid), grid / m2])
        best = linprog(-missing, A_ub=[grid**2 / (kappa * m2**2)], b_ub=[1], A_eq=moments, b_eq=[1, 1])
        assert worst_missing(m2, kappa, chi) == pytest.approx(-best.fun, abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 50), st.floats(1, 30), st.floats(1.001, 2), st.floats(0.01, 0.4))
def test_critical_values_are_monotone(m2: float, kappa: float, more: float, alpha: float) -> None:
    """In the bias, in the kurtosis, and in the error; from the known-bias value to that of unbounded kurtosis."""
    value = float(cva(m2, kappa, alpha))
    assert value >= norm.isf(alpha / 2) - 1e-9
    assert float(cva(m2 * more, kappa, alpha)) >= value - 1e-8
    assert value - 1e-8 <= float(cva(m2, kappa * more, alpha)) <= float(cva(m2, math.inf, alpha)) + 1e-8
    assert float(cva(m2, kappa, alpha / more)) >= value - 1e-8
    assert missing_probability(m2, float(cva(m2, 1.0, alpha))) == pytest.approx(alpha, rel=1e-8)


def test_interpolated_values_agree_with_computed_ones() -> None:
    m2 = np.exp(np.random.default_rng(1).uniform(-2, 2, 1_500))
    np.testing.assert_allclose(cva(m2, 3.0)[:50], cva(m2[:50], 3.0), atol=5e-5)
    assert cva(m2[:20].reshape(5, 4), 3.0).shape == (5, 4)


def test_moments_by_hand() -> None:
    """Means of the unbiased terms, and their lower bounds, unit by unit, equal weights."""
    y, se = [1.0, -1.0, 0.5, -0.9, 0.0, 2.2], [0.3, 0.2, 0.5, 0.3, 0.2, 0.4]
    centre = sum(y) / 6
    second = sum((a - centre) ** 2 - s**2 for a, s in zip(y, se, strict=True)) / 6
    fourth = sum((a - centre) ** 4 - 6 * s**2 * (a - centre) ** 2 + 3 * s**4 for a, s in zip(y, se, strict=True)) / 6
    least = 32 * (sum(s**8 for s in se) / 6) / (6 * sum(s**4 for s in se) / 6)
    result = robust_intervals(y, se, weighting="equal")
    assert result.location == pytest.approx(centre)
    assert result.mu2 == pytest.approx(second)
    assert result.kappa_uncorrected == pytest.approx(fourth / second**2)
    assert result.kappa == pytest.approx(max(fourth / second**2, 1 + least / second**2))
    row = result.table.iloc[2]
    w = second / (second + 0.25)
    assert row["mean"] == pytest.approx(centre + w * (0.5 - centre))
    assert row["upper"] - row["mean"] == pytest.approx(float(cva(0.25 / second, result.kappa)) * w * 0.5)


def test_moments_do_not_reach_zero() -> None:
    """Estimates that differ less than their errors explain: least values by hand with equal standard errors."""
    y = 0.1 * np.random.default_rng(1).normal(size=50)
    result = robust_intervals(y, np.full(50, 0.4))
    assert result.mu2_uncorrected < 0.0
    assert result.mu2 == pytest.approx(2 * 0.4**2 / 50)
    assert result.kappa >= 1 + 32 * 0.4**4 / 50 / result.mu2**2 - 1e-9


def test_average_coverage_under_a_prior_of_two_points() -> None:
    """Fifteen cohorts of 300, seeds 0-14: robust intervals hold what they say, the normal ones do not."""
    robust, normal = [], []
    for seed in range(15):
        rng = np.random.default_rng(seed)
        se = np.exp(rng.normal(-1.0, 0.3, 300))
        theta = np.where(rng.random(300) < 0.9, -0.09, 0.81)
        result = robust_intervals(theta + se * rng.normal(size=300), se)
        table = result.table
        robust.append(((table["lower"] <= theta) & (theta <= table["upper"])).mean())
        half = norm.isf(0.025) * np.sqrt(table["shrinkage"]) * table["se"]
        normal.append((np.abs(table["mean"] - theta) <= half).mean())
    simulation_error = math.sqrt(0.05 * 0.95 / 4_500)
    assert np.mean(robust) >= 0.95 - 3 * simulation_error
    assert np.mean(normal) < 0.95 - 3 * simulation_error
    assert (result.table["upper"] - result.table["lower"]).mean() < 2 * norm.isf(0.025) * se.mean()


def test_worst_case_of_the_normal_interval() -> None:
    """With kurtosis 3 close to its nominal error; without a bound at most as the paper's figure says for w small."""
    rng = np.random.default_rng(1)
    se = np.full(100, 0.5)
    y = rng.normal(size=100) + se * rng.normal(size=100)
    table = robust_intervals(y, se, kappa=math.inf).table
    m2 = float(table["se"].iloc[0] ** 2 * (1 / table["shrinkage"].iloc[0] - 1) / 0.25)
    assert table["normal_miss"].iloc[0] == pytest.approx(
        worst_missing(m2, math.inf, norm.isf(0.025) * math.sqrt(1 + m2)), rel=1e-9
    )
    assert 0.05 <= table["normal_miss"].iloc[0] < 0.26


@pytest.mark.parametrize(
    ("estimate", "se", "options", "message"),
    [
        ([1.0, 2.0], [0.0, 0.2], {}, "zero or negative"),
        ([1.0, np.inf], [0.1, 0.2], {}, "not finite"),
        ([1.0, 2.0], [0.1], {}, "lengths differ"),
        ([1.0], [0.1], {}, "1 unit given"),
        ([1.0, 2.0], [0.1, 0.2], {"kappa": 0.5}, "at least 1"),
        ([1.0, 2.0], [0.1, 0.2], {"kappa": math.nan}, "at least 1"),
        ([1.0, 2.0], [0.1, 0.2], {"coverage": 1.0}, "coverage"),
        ([1.0, 2.0], [0.1, 0.2], {"weighting": "pupils"}, "no weighting"),
    ],
)
def test_what_is_refused(estimate: list[float], se: list[float], options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        robust_intervals(estimate, se, **options)  # type: ignore[arg-type]


def test_critical_values_that_are_refused() -> None:
    with pytest.raises(InputError, match="m2: is negative"):
        cva([1.0, -1.0])
    with pytest.raises(InputError, match="alpha"):
        cva(1.0, alpha=0.0)
    with pytest.raises(InputError, match="kurtosis"):
        cva(1.0, kappa=0.0)


def test_all_equal_and_what_is_printed() -> None:
    result = robust_intervals([0.3, 0.3, 0.3], [0.1, 0.2, 0.3])
    np.testing.assert_allclose(result.table["mean"], 0.3)
    assert np.isfinite(result.table.to_numpy()).all()
    assert "Robust 95% intervals of 3 units" in str(result)
    assert "<table" in result._repr_html_()
