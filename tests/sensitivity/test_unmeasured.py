"""Formulas of unmeasured confounding, against brute force over confounders that are really there."""

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from send_va.errors import InputError
from send_va.sensitivity.unmeasured import (
    adjusted_estimate,
    adjusted_se,
    adjusted_t,
    benchmark_bounds,
    bias,
    group_partial_r2,
    partial_f2,
    partial_r2,
    robustness_value,
)


def r2(y: np.ndarray, x: np.ndarray) -> float:
    return float(sm.OLS(y, x).fit().ssr)


@pytest.fixture(scope="module")
def known() -> dict[str, float]:
    """A regression with and without a confounder that was in fact recorded."""
    rng = np.random.default_rng(5)
    n = 300
    x, z = rng.normal(size=(2, n))
    d = 0.5 * x + 0.6 * z + rng.normal(size=n)
    y = 0.8 * d + x + 0.7 * z + rng.normal(size=n)
    one = np.ones(n)
    without, whole = np.column_stack([one, d, x]), np.column_stack([one, d, x, z])
    short, long = sm.OLS(y, without).fit(), sm.OLS(y, whole).fit()
    return {
        "estimate": float(short.params[1]),
        "se": float(short.bse[1]),
        "dof": float(short.df_resid),
        "true": float(long.params[1]),
        "true_se": float(long.bse[1]),
        "r2_dz": 1.0 - r2(d, np.column_stack([one, x, z])) / r2(d, np.column_stack([one, x])),
        "r2_yz": 1.0 - r2(y, whole) / r2(y, without),
    }


def test_adjusting_by_the_strength_of_a_recorded_confounder_gives_the_fit_that_holds_it(
    known: dict[str, float],
) -> None:
    of = known["estimate"], known["se"], known["dof"], known["r2_dz"], known["r2_yz"]
    assert adjusted_estimate(*of) == pytest.approx(known["true"], abs=1e-10)
    assert adjusted_se(*of[1:]) == pytest.approx(known["true_se"], abs=1e-10)
    assert adjusted_t(*of) == pytest.approx(known["true"] / known["true_se"], rel=1e-9)
    assert bias(*of[1:]) == pytest.approx(known["estimate"] - known["true"], abs=1e-10)


def test_partial_r2_is_the_share_of_squares_that_the_treatment_takes(known: dict[str, float]) -> None:
    share = partial_r2(known["estimate"], known["se"], known["dof"])
    assert partial_f2(known["estimate"], known["se"], known["dof"]) == pytest.approx(share / (1 - share), rel=1e-12)
    assert group_partial_r2([known["estimate"]], [[known["se"] ** 2]], known["dof"]) == pytest.approx(share, rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    t=st.floats(0.05, 30.0),
    dof=st.integers(4, 5000),
    q=st.sampled_from([0.5, 1.0]),
    sign=st.sampled_from([-1.0, 1.0]),
)
def test_a_confounder_of_just_the_robustness_value_explains_the_share_q_away(
    t: float, dof: int, q: float, sign: float
) -> None:
    value = float(robustness_value(sign * t, 1.0, dof, q))
    assert 0.0 < value < 1.0
    assert adjusted_estimate(sign * t, 1.0, dof, value, value) == pytest.approx(sign * t * (1 - q), abs=1e-7 * t)


@pytest.mark.parametrize("alpha", [0.05, 0.3])
@pytest.mark.parametrize(("t", "dof"), [(1.0, 20), (4.2, 783), (8.0, 6), (25.0, 4), (200.0, 5)])
def test_significance_is_lost_at_the_robustness_value_and_not_before(t: float, dof: int, alpha: float) -> None:
    """Brute force over every confounder whose two shares are at most R; the last two bind on the treatment alone."""
    value = float(robustness_value(t, 1.0, dof, 1.0, alpha))
    critical = float(student.ppf(1 - alpha / 2, dof - 1))
    share = np.linspace(0.0, 1.0, 2001)

    def smallest(most: float) -> float:
        # the estimate falls with the share of the treatment; its t value need not with that of the outcome
        tried = np.append(share[share < most], most)
        return float(np.min(adjusted_t(t, 1.0, dof, most, np.minimum(tried, 1 - 1e-12))))

    if t <= critical * np.sqrt((dof - 1) / dof * 1.0) * 0.999:
        assert value == 0.0
        return
    assert smallest(min(value * 1.01, 1 - 1e-9)) < critical
    assert smallest(value * 0.99) > critical


def test_bounds_hold_for_a_confounder_exactly_as_strong_as_its_benchmark() -> None:
    """Two independent twins: leaving one out, the other bounds it to the digit."""
    rng = np.random.default_rng(1)
    n = 4000
    base = rng.normal(size=(n, 4))
    base, _ = np.linalg.qr(base - base.mean(axis=0))  # uncorrelated to the digit
    x, z, noise, error = (base * np.sqrt(n)).T
    d = 0.3 * x + 0.3 * z + noise
    y = d + 0.4 * x + 0.4 * z + error
    short = sm.OLS(y, np.column_stack([d, x])).fit()
    of_d = 1 - r2(d, x[:, None]) / float(d @ d)
    of_y = 1 - short.ssr / r2(y, d[:, None])
    bound = benchmark_bounds(of_d, of_y)
    actual_dz = 1 - r2(d, np.column_stack([x, z])) / r2(d, x[:, None])
    actual_yz = 1 - r2(y, np.column_stack([d, x, z])) / short.ssr
    assert bound.r2_dz == pytest.approx(actual_dz, rel=1e-9)
    assert bound.r2_yz >= actual_yz - 1e-12


def test_arrays_go_in_and_out_and_missing_values_stay() -> None:
    value = robustness_value(np.array([1.0, np.nan]), np.array([0.5, 0.5]), 100.0)
    assert isinstance(value, np.ndarray) and np.isnan(value[1]) and value[0] == robustness_value(1.0, 0.5, 100.0)
    assert isinstance(robustness_value(1.0, 0.5, 100.0), float)


def test_impossible_benchmarks_and_numbers_are_refused() -> None:
    for wrong in (
        lambda: robustness_value(1.0, 0.0, 10),
        lambda: robustness_value(1.0, 1.0, 1),
        lambda: robustness_value(1.0, 1.0, 10, q=-1.0),
        lambda: robustness_value(1.0, 1.0, 10, alpha=0.0),
        lambda: robustness_value(1.0, 1.0, 10, alpha=1.5),
        lambda: bias(1.0, 10, 1.0, 0.1),
        lambda: adjusted_se(1.0, 10, -0.1, 0.1),
        lambda: bias(1.0, 10, 0.1, 1.1),
        lambda: benchmark_bounds(0.1, 0.1, kd=-1.0),
        lambda: benchmark_bounds(0.1, 1.0),
        lambda: group_partial_r2([1.0, 2.0], [[1.0]], 10),
        lambda: group_partial_r2([1.0, 2.0], [[1.0, 1.0], [1.0, 1.0]], 10),
    ):
        with pytest.raises(InputError):
            wrong()
    with pytest.raises(InputError, match="all that is left of the treatment"):
        benchmark_bounds(0.4, 0.1, kd=2.0)
    assert benchmark_bounds(0.2, 0.6, kd=2.0).capped
