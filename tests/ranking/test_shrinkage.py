"""Shrinkage: against metafor, the certificate of the convex problem, simulated truth, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import norm

from send_va.errors import BoundaryWarning, InputError
from send_va.ranking.funnel import funnel_limits
from send_va.ranking.mixture_prior import fit_mixture_prior
from send_va.ranking.normal_prior import fit_normal_prior, normal_posterior, normal_prior_at
from send_va.ranking.precision_prior import fit_location_scale
from send_va.ranking.shrinkage import shrink


def units(seed: int, n: int, truth: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True values, estimates and standard errors."""
    rng = np.random.default_rng(seed)
    se = np.exp(rng.normal(-1.5, 0.5, n))
    if truth == "two points":
        theta = rng.choice([-0.3, 0.3], n)
    elif truth == "precision":  # less precise units have higher values
        theta = 0.5 * (np.log(se) + 1.5) + 0.15 * rng.normal(size=n)
    else:
        theta = rng.normal(0.1, 0.25, n)
    return theta, theta + se * rng.normal(size=n), se


def squared_error(table: pd.DataFrame, theta: np.ndarray) -> float:
    return float(np.mean((table["mean"] - theta) ** 2))


def test_normal_prior_against_metafor(shared_reference: Path) -> None:
    """metafor 3.8-1, rma(method="REML"), which stops at a change of 1e-5 in the variance; blup() at the DL variance."""
    data = pd.read_csv(shared_reference / "funnel" / "means_input.csv")
    found = json.loads((shared_reference / "funnel" / "means_metafor.json").read_text())
    y, se = data["mean"].to_numpy(), data["se"].to_numpy()
    prior = fit_normal_prior(y, se)
    assert prior.mean == pytest.approx(found["REML"]["mu"], rel=1e-8)
    assert prior.variance == pytest.approx(found["REML"]["tau2"], rel=1e-7)
    assert np.sqrt(prior.mean_variance) == pytest.approx(found["REML"]["se"], rel=1e-7)
    assert prior.log_likelihood == pytest.approx(found["REML"]["logLik"], abs=1e-9)
    mean, sd, _ = normal_posterior(y, se, normal_prior_at(y, se, found["DL"]["tau2"]))
    np.testing.assert_allclose(mean, [row["pred"] for row in found["blup_DL"]], rtol=1e-10)
    np.testing.assert_allclose(sd, [row["se"] for row in found["blup_DL"]], rtol=1e-10)
    table = shrink(data.set_index("group")["mean"], data["se"]).table
    assert table.index.tolist() == data["group"].tolist()
    np.testing.assert_allclose(table["reliability"], prior.variance / (prior.variance + se**2))


def test_mixture_is_the_maximum_of_the_likelihood() -> None:
    """Certified by the gap; and no better weights are found by another optimiser (softmax weights, L-BFGS)."""
    _, y, se = units(3, 60, "two points")
    support = np.linspace(y.min(), y.max(), 25)
    prior = fit_mixture_prior(y, se, support=support)
    density = norm.pdf(y[:, None], support, se[:, None])

    def negative(free: np.ndarray) -> float:
        weight = np.exp(free - free.max())
        return -float(np.sum(np.log(density @ (weight / weight.sum()))))

    other = -minimize(negative, np.zeros(25), method="L-BFGS-B", options={"maxiter": 3_000, "maxfun": 200_000}).fun
    assert prior.converged
    assert prior.gap <= 1e-6
    assert prior.log_likelihood == pytest.approx(np.sum(np.log(density @ prior.weight)), abs=1e-8)
    assert other - 1e-6 <= prior.log_likelihood + prior.gap
    assert prior.log_likelihood == pytest.approx(other, abs=1e-2)
    assert prior.weight.sum() == pytest.approx(1.0)


def test_mixture_posterior_by_hand() -> None:
    """Posterior mean, SD and interval ends from Bayes' rule on the reported point masses."""
    _, y, se = units(4, 80, "two points")
    result = shrink(y, se, "mixture", coverage=0.8)
    assert result.distribution is not None
    value, probability = (result.distribution[name].to_numpy() for name in ("value", "probability"))
    posterior = probability * norm.pdf(y[5], value, se[5])
    posterior /= posterior.sum()
    row = result.table.iloc[5]
    assert row["mean"] == pytest.approx(posterior @ value, abs=1e-4)
    assert row["sd"] == pytest.approx(np.sqrt(posterior @ (value - posterior @ value) ** 2), abs=1e-3)
    assert row["lower"] == pytest.approx(value[np.searchsorted(np.cumsum(posterior), 0.1)], abs=1e-9)
    assert row["upper"] == pytest.approx(value[np.searchsorted(np.cumsum(posterior), 0.9)], abs=1e-9)


def test_normal_recovers_its_truth() -> None:
    """Twenty cohorts of 300, seeds 0-19: the prior, and coverage within four binomial errors (6,000 units)."""
    fitted, covered = [], []
    for seed in range(20):
        theta, y, se = units(seed, 300, "normal")
        result = shrink(y, se)
        fitted.append([result.parameters["mean"], np.sqrt(result.parameters["variance"])])
        covered.append(((result.table["lower"] <= theta) & (theta <= result.table["upper"])).mean())
    np.testing.assert_allclose(np.mean(fitted, axis=0), [0.1, 0.25], atol=0.012)
    assert np.mean(covered) == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / 6_000))


def test_mixture_beats_normal_on_two_points() -> None:
    for seed in range(5):
        theta, y, se = units(seed, 400, "two points")
        errors = [squared_error(shrink(y, se, prior).table, theta) for prior in ("normal", "mixture")]
        assert errors[1] < 0.85 * errors[0]


def test_precision_dependent_beats_the_others_where_precision_predicts() -> None:
    """And loses little where it does not."""
    for seed in range(5):
        theta, y, se = units(seed, 400, "precision")
        normal, mixture, close = (
            squared_error(shrink(y, se, prior).table, theta) for prior in ("normal", "mixture", "precision_dependent")
        )
        assert close < 0.6 * min(normal, mixture)
        theta, y, se = units(seed, 400, "normal")
        assert squared_error(shrink(y, se, "precision_dependent").table, theta) < 1.2 * squared_error(
            shrink(y, se).table, theta
        )


def test_location_and_scale_are_found() -> None:
    _, y, se = units(1, 4_000, "precision")
    found = fit_location_scale(y, se)
    middle = np.abs(np.log(se) + 1.5) < 0.7
    np.testing.assert_allclose(found.location[middle], 0.5 * (np.log(se[middle]) + 1.5), atol=0.05)
    np.testing.assert_allclose(found.scale[middle], 0.15, atol=0.05)


def test_precision_dependent_falls_back() -> None:
    """Normal shape below 50 units; constants below 20 or where all standard errors are one, as in the normal prior."""
    _, y, se = units(2, 40, "normal")
    assert shrink(y, se, "precision_dependent").shape == "normal"
    assert shrink(*units(2, 60, "normal")[1:], "precision_dependent").shape == "mixture"
    assert shrink(*units(2, 60, "normal")[1:], "precision_dependent", shape="normal").distribution is None
    same = np.full(300, 0.2)
    y = np.random.default_rng(1).normal(0.3, 0.4, 300)
    close, normal = (shrink(y, same, prior, shape="normal") for prior in ("precision_dependent", "normal"))
    np.testing.assert_allclose(close.table["mean"], normal.table["mean"], rtol=1e-8)
    assert close.parameters["location_bandwidth"] == np.inf


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 60), st.integers(0, 10_000), st.floats(-5, 5), st.floats(0.01, 100))
def test_properties(n: int, seed: int, shift: float, factor: float) -> None:
    """Normal means lie between estimate and prior mean; reliability falls with the error; units do not matter."""
    rng = np.random.default_rng(seed)
    y, se = rng.normal(size=n) * 3, rng.uniform(0.1, 1.0, n)
    prior = fit_normal_prior(y, se)
    mean, _, reliability = normal_posterior(y, se, prior)
    tolerance = 1e-12 * (1 + np.abs(y))
    assert np.all(mean >= np.minimum(y, prior.mean) - tolerance)
    assert np.all(mean <= np.maximum(y, prior.mean) + tolerance)
    assert np.all(np.diff(reliability[np.argsort(se)]) <= 1e-15)
    other, *_ = normal_posterior(shift + factor * y, factor * se, fit_normal_prior(shift + factor * y, factor * se))
    np.testing.assert_allclose(other, shift + factor * mean, rtol=1e-6, atol=1e-6 * factor)
    table = shrink(y, se, "mixture").table
    assert np.all(table["mean"].between(y.min() - 1e-9, y.max() + 1e-9))
    assert np.all(table["lower"] <= table["upper"])


@pytest.mark.parametrize("prior", ["normal", "mixture", "precision_dependent"])
def test_all_equal(prior: str) -> None:
    """Everyone is given the common value, and a unit is not told from another."""
    if prior == "normal":
        with pytest.warns(BoundaryWarning, match="estimated at 0"):
            table = shrink(np.full(60, 0.4), np.linspace(0.1, 0.3, 60)).table
    else:
        table = shrink(np.full(60, 0.4), np.linspace(0.1, 0.3, 60), prior).table  # type: ignore[arg-type]
    np.testing.assert_allclose(table["mean"], 0.4, atol=1e-6)
    assert table["reliability"].max() < 0.1


def test_no_more_spread_than_errors_explain() -> None:
    y = 0.2 * np.random.default_rng(2).normal(size=100)
    with pytest.warns(BoundaryWarning):
        result = shrink(y, np.full(100, 0.4))
    assert result.parameters["variance"] == 0.0
    assert np.ptp(result.table["mean"]) == 0.0


@pytest.mark.parametrize(
    ("estimate", "se", "options", "message"),
    [
        ([1.0, 2.0], [0.1, 0.0], {}, "se: is zero or negative; 1 row fails; rows 2; values 0.0"),
        ([1.0, 2.0], [0.1, -0.2], {}, "se: is zero or negative"),
        ([1.0, np.nan], [0.1, 0.2], {}, "estimate: is not finite; 1 row fails; rows 2"),
        ([1.0, 2.0], [np.inf, 0.2], {}, "se: is not finite"),
        ([1.0, 2.0, 3.0], [0.1, 0.2], {}, "estimate has 3, se has 2"),
        ([1.0], [0.1], {}, "1 unit given, at least 2"),
        ([[1.0, 2.0]], [0.1, 0.2], {}, "2 dimensions"),
        (["a", "b"], [0.1, 0.2], {}, "not numbers"),
        ([1.0, 2.0], [0.1, 0.2], {"prior": "gamma"}, "no prior 'gamma'"),
        ([1.0, 2.0], [0.1, 0.2], {"shape": "t"}, "no shape 't'"),
        ([1.0, 2.0], [0.1, 0.2], {"coverage": 95}, "coverage must lie"),
    ],
)
def test_what_is_refused(estimate: list[float], se: list[float], options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        shrink(estimate, se, **options)  # type: ignore[arg-type]


def test_two_units_and_what_is_printed() -> None:
    result = shrink([0.0, 1.0], [0.1, 0.1])
    assert str(result).startswith("2 units shrunken, prior normal (normal)")
    assert "<table" in result._repr_html_()
    assert shrink([0.0, 1.0], [0.1, 0.1], "mixture").converged
    assert shrink([0.0, 1.0], [0.1, 0.2], "precision_dependent").table["mean"].between(0, 1).all()


def test_named_units_in_another_order_are_refused() -> None:
    estimate = pd.Series([-1.0, 0.2, 1.4], index=list("abc"))
    with pytest.raises(InputError, match="se: its index is not that of estimate"):
        shrink(estimate, pd.Series([0.1, 0.2, 0.3], index=list("cba")))
    with pytest.raises(InputError, match="denominator: its index is not that of numerator"):
        funnel_limits(
            pd.Series([1, 2, 3], index=list("abc")), pd.Series([9, 9, 9], index=list("bac")), kind="proportion"
        )
    kept = shrink(estimate, pd.Series([0.1, 0.2, 0.3])).table
    assert kept.index.tolist() == list("abc")
