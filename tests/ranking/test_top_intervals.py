"""Intervals for the top: against closed forms, and by the share of the chosen units that they cover."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm, truncnorm

from send_va.errors import InputError
from send_va.ranking.top_intervals import corrected_bounds, top_intervals


def drawn(n: int, signal: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    se = 0.15 * np.exp(rng.normal(0.0, 0.4, n))
    return rng.normal(0.0, signal, n) + se * rng.normal(size=n), se


def test_where_all_are_shown_nothing_was_chosen() -> None:
    estimate, se = drawn(20, 0.3, 1)
    table = top_intervals(estimate, se, top=20, method="conditional")
    np.testing.assert_allclose(table["corrected"], table["estimate"], atol=1e-9)
    np.testing.assert_allclose(table["lower"], table["estimate"] - norm.ppf(0.975) * se[table.index], atol=1e-9)
    np.testing.assert_allclose(table["upper"], table["estimate"] + norm.ppf(0.975) * se[table.index], atol=1e-9)


@pytest.mark.parametrize("method", ["conditional", "hybrid"])
def test_cut_off_normal_distribution(method: str) -> None:
    """The bounds solve the quantile equations of SciPy's truncated normal distribution."""
    estimate, se = np.array([1.0, 0.2, 0.7, 0.1]), np.array([0.5, 0.4, 0.3, 0.6])
    table = top_intervals(estimate, se, top=2, coverage=0.9, method=method)
    assert table.index.tolist() == [0, 2]
    reach = norm.ppf(0.5 + 0.5 * 0.99 ** (1 / 4)) if method == "hybrid" else np.inf
    kept = 0.9 / 0.99 if method == "hybrid" else 0.9
    for unit in (0, 2):
        x, s = estimate[unit], se[unit]

        def below(value: float, x: float = x, s: float = s) -> float:
            return float(truncnorm.cdf((x - value) / s, max((0.2 - value) / s, -reach), reach))

        for name, level in {"corrected": 0.5, "lower": 0.5 + kept / 2, "upper": 0.5 - kept / 2}.items():
            within = min(reach, 5.0) * s * (1 - 1e-9)
            expected = brentq(lambda value, level=level: below(value) - level, x - within, x + within)
            assert table.loc[unit, name] == pytest.approx(expected, abs=1e-7)


def test_projection_is_that_of_all_units() -> None:
    estimate, se = drawn(30, 0.3, 2)
    table = top_intervals(estimate, se, top=3, method="projection")
    critical = norm.ppf(0.5 + 0.5 * 0.95 ** (1 / 30))
    np.testing.assert_allclose(table["upper"] - table["lower"], 2 * critical * se[table.index])
    np.testing.assert_array_equal(table["corrected"], table["estimate"])


@pytest.mark.parametrize("signal", [0.0, 0.25])
@pytest.mark.parametrize("top", [1, 5])
def test_coverage_of_the_chosen(top: int, signal: float) -> None:
    """Share of the units shown that are covered, 4,000 replications of 40; within four Monte-Carlo standard errors.

    Conditional: .95 exactly, and half of the corrected values above the truth. Hybrid: at least .95. Projection: all
    units of the top at once in at least .95. Ordinary intervals cover too few, which the correction is for.
    """
    rng = np.random.default_rng(top)
    n, replications = 40, 4_000
    se = 0.15 * np.exp(rng.normal(0.0, 0.4, n))
    truth = rng.normal(0.0, signal, n)
    estimate = truth + se * rng.normal(size=(replications, n))
    order = np.argsort(-estimate, axis=1)
    chosen = order[:, :top].ravel()
    x = np.take_along_axis(estimate, order[:, :top], axis=1).ravel()
    cut = np.repeat(np.take_along_axis(estimate, order[:, top : top + 1], axis=1), top)
    inside, corrected = {}, {}
    for method in ("conditional", "hybrid", "projection"):
        corrected[method], lower, upper = corrected_bounds(x, se[chosen], cut, n, 0.95, method)
        inside[method] = ((lower <= truth[chosen]) & (truth[chosen] <= upper)).reshape(replications, top)
    share = {
        "conditional": inside["conditional"].mean(axis=1),
        "hybrid": inside["hybrid"].mean(axis=1),
        "together": inside["projection"].all(axis=1),
        "above": (corrected["conditional"] > truth[chosen]).reshape(replications, top).mean(axis=1),
        "ordinary": (np.abs(x - truth[chosen]) <= norm.ppf(0.975) * se[chosen]).reshape(replications, top).mean(axis=1),
    }
    error = {name: 4.0 * values.std() / np.sqrt(replications) for name, values in share.items()}
    assert share["conditional"].mean() == pytest.approx(0.95, abs=error["conditional"])
    assert share["above"].mean() == pytest.approx(0.5, abs=error["above"])
    assert share["hybrid"].mean() > 0.95 - error["hybrid"]
    assert share["together"].mean() > 0.95 - error["together"]
    assert share["ordinary"].mean() < 0.95 - error["ordinary"]


def test_bounds_of_replications_are_those_of_the_table() -> None:
    estimate, se = drawn(40, 0.25, 3)
    table = top_intervals(estimate, se, top=5)
    cut = np.full(5, np.sort(estimate)[-6])
    bounds = corrected_bounds(estimate[table.index], se[table.index], cut, 40, 0.95, "hybrid")
    np.testing.assert_allclose(table[["corrected", "lower", "upper"]].to_numpy().T, bounds)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 60), st.integers(0, 10_000), st.floats(-5.0, 5.0), st.floats(0.1, 10.0))
def test_properties(n: int, seed: int, shift: float, scale: float) -> None:
    """Moving and stretching the scale moves and stretches the intervals; the order of units does not matter."""
    estimate, se = drawn(n, 0.3, seed)
    top = 1 + seed % n
    table = top_intervals(pd.Series(estimate), se, top)
    assert (table["lower"] <= table["corrected"]).all()
    assert (table["corrected"] <= table["upper"]).all()
    widest = top_intervals(estimate, se, top, 0.995, method="projection")
    assert (table["lower"] >= widest["lower"] - 1e-9).all()
    assert (table["upper"] <= widest["upper"] + 1e-9).all()
    moved = top_intervals(shift + scale * estimate, scale * se, top)
    columns = ["estimate", "corrected", "lower", "upper"]
    np.testing.assert_allclose(moved[columns], shift + scale * table[columns], atol=1e-6 * scale)
    shuffled = pd.Series(estimate).sample(frac=1.0, random_state=seed)
    pd.testing.assert_frame_equal(top_intervals(shuffled, se[shuffled.index], top), table)


def test_ties() -> None:
    """Units that equal the last one shown are shown too, with the projection interval and no corrected value."""
    table = top_intervals(pd.Series([2.0, 1.0, 1.0, 0.0], index=list("abcd")), [0.1] * 4, top=2)
    assert table.index.tolist() == ["a", "b", "c"]
    assert table["rank"].tolist() == [1, 2, 2]
    assert table["corrected"].isna().tolist() == [False, True, True]
    reach = 0.1 * norm.ppf(0.5 + 0.5 * 0.995 ** (1 / 4))
    assert table.loc["b", ["lower", "upper"]].tolist() == pytest.approx([1.0 - reach, 1.0 + reach])
    assert len(top_intervals(np.zeros(5), np.ones(5), top=1)) == 5


@pytest.mark.parametrize(
    ("estimate", "se", "settings", "message"),
    [
        ([1.0], [0.1], {}, "1 unit given, at least 2 needed"),
        ([1.0, np.nan], [0.1] * 2, {}, "finite.*rows 2"),
        ([1.0, 2.0], [0.1, 0.0], {}, "zero or negative.*rows 2"),
        ([1.0, 2.0], np.eye(2), {}, "2 dimensions.*independent"),
        ([1.0, 2.0], [0.1] * 2, {"top": 3}, "top must lie between 1 and the number of units, 2"),
        ([1.0, 2.0], [0.1] * 2, {"top": 0}, "top must lie"),
        ([1.0, 2.0], [0.1] * 2, {"coverage": 0.0}, "coverage"),
        ([1.0, 2.0], [0.1] * 2, {"method": "naive"}, "hybrid, conditional, projection"),
    ],
)
def test_what_is_refused(estimate: object, se: object, settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        top_intervals(estimate, se, **({"top": 1} | settings))
