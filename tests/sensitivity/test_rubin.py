"""Rubin's rules: against another program, by hand, and into draws."""

import warnings

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.imputation import mice

from send_va.effects import SchoolEffects, school_effects
from send_va.errors import InputError
from send_va.sensitivity.rubin import pool_coefficients, pool_effects, pool_estimates
from send_va.value_added.fit_result import ValueAddedFit


def effects_of(rng: np.random.Generator, mean: np.ndarray, sd: float, draws: int = 40) -> SchoolEffects:
    u = rng.normal(mean, sd, (draws, len(mean)))
    gap = rng.normal(0.0 * mean, sd, u.shape)
    own = {"estimate": mean * 2, "se": np.full(len(mean), 0.5), "reliability": np.full(len(mean), 0.6)}
    known = {measure: dict(own) for measure in ("theta", "u", "gap")}
    return school_effects(
        [str(k) for k in range(len(mean))],
        {"theta": u + gap, "u": u, "gap": gap},
        known,
        n_pupils=np.full(len(mean), 50),
        n_need=np.full(len(mean), 8),
        flag=[""] * len(mean),
        attrs={"estimator": "labelled", "context": "cva", "outcome_sd": 1.0},
    )


def test_coefficients_pool_as_statsmodels_pools_them() -> None:
    """statsmodels' MICE fits and combines; the same fits pooled here give its estimates, errors and lost shares."""
    rng = np.random.default_rng(3)
    data = pd.DataFrame(rng.normal(size=(150, 2)), columns=["x", "z"])
    data["y"] = 1.0 + 0.5 * data["x"] - 0.3 * data["z"] + rng.normal(size=150)
    data.loc[rng.random(150) < 0.3, "x"] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        imputer = mice.MICE("y ~ x + z", sm.OLS, mice.MICEData(data, rng=np.random.default_rng(1)))
        reference = imputer.fit(n_burnin=1, n_imputations=5)
    fits = [
        ValueAddedFit(
            effects=None,  # type: ignore[arg-type]
            coefficients=pd.DataFrame({"term": ["Intercept", "x", "z"], "estimate": one.params, "se": one.bse}).assign(
                estimator="labelled", context="cva"
            ),
            variance_components=pd.DataFrame(),
            converged=True,
            notes=(),
        )
        for one in imputer.results_list
    ]
    table = pool_coefficients(fits)
    np.testing.assert_allclose(table["estimate"], reference.params, rtol=1e-12)
    np.testing.assert_allclose(table["se"], reference.bse, rtol=1e-10)
    # statsmodels reports the share of variance, which is what is left of the lost share without its small-sample term
    pooled = pool_estimates(
        np.stack([one.params for one in imputer.results_list]), np.stack([one.bse**2 for one in imputer.results_list])
    )
    np.testing.assert_allclose(1.0 - pooled.within / pooled.total, reference.frac_miss_info, rtol=1e-10)
    assert (table["fraction_missing"] > reference.frac_miss_info).all()
    assert table.set_index("term")["fraction_missing"]["x"] > table.set_index("term")["fraction_missing"]["z"]


def test_by_hand_with_degrees_of_freedom() -> None:
    """Rubin (1987), equations 3.1.2 to 3.1.8, and Barnard & Rubin (1999), equations 3 to 5, worked by hand."""
    pooled = pool_estimates(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0]), complete_dof=20.0)
    share = (4.0 / 3.0) / (2.0 + 4.0 / 3.0)
    large = 2.0 / share**2
    observed = 21.0 / 23.0 * 20.0 * (1.0 - share)
    dof = large * observed / (large + observed)
    assert pooled.total == pytest.approx(2.0 + 4.0 / 3.0)
    assert pooled.dof == pytest.approx(dof)
    ratio = (4.0 / 3.0) / 2.0
    assert pooled.fraction_missing == pytest.approx((ratio + 2.0 / (dof + 3.0)) / (ratio + 1.0))
    same = pool_estimates(np.ones((4, 2)), np.full((4, 2), 0.3))
    assert np.isinf(same.dof).all() and (same.fraction_missing == 0.0).all()


@settings(max_examples=10, deadline=None)
@given(m=st.integers(2, 6), schools=st.integers(1, 5), apart=st.floats(0.0, 3.0), seed=st.integers(0, 10_000))
def test_draws_carry_the_rules_exactly(m: int, schools: int, apart: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [effects_of(rng, rng.normal(0.0, apart, schools), 0.7) for _ in range(m)]
    pooled, information = pool_effects(parts)
    for measure in ("theta", "u", "gap"):
        means = np.stack([part.data["mean"].sel(measure=measure).to_numpy() for part in parts])
        sds = np.stack([part.data["sd"].sel(measure=measure).to_numpy() for part in parts])
        total = (sds**2).mean(axis=0) + (1.0 + 1.0 / m) * means.var(axis=0, ddof=1)
        draws = pooled.draws(measure)
        np.testing.assert_allclose(draws.mean(axis=0), means.mean(axis=0), atol=1e-10)
        np.testing.assert_allclose(draws.var(axis=0), total, rtol=1e-9)
        np.testing.assert_allclose(pooled.data["sd"].sel(measure=measure), np.sqrt(total), rtol=1e-12)
    assert information["fraction_missing"].between(0.0, 1.0).all()


def test_theta_stays_the_sum_within_every_draw_and_prefixes_are_balanced() -> None:
    rng = np.random.default_rng(1)
    parts = [effects_of(rng, np.array([offset, 0.0]), 0.3) for offset in (-1.0, 0.0, 1.0)]
    pooled, _ = pool_effects(parts, between_schools=[{"theta": 4.0, "u": 4.0, "gap": 4.0}] * 3)
    np.testing.assert_allclose(pooled.draws("theta"), pooled.draws("u") + pooled.draws("gap"), atol=1e-9)
    first, whole = pooled.draws("u")[:30, 0], pooled.draws("u")[:, 0]
    assert abs(first.mean() - whole.mean()) < 0.2  # a prefix of one data set only would be off by more than one
    lost = 0.6 - pooled.data["reliability"].sel(measure="theta").to_numpy()
    means = np.stack([part.data["mean"].sel(measure="theta").to_numpy() for part in parts])
    np.testing.assert_allclose(lost, (4.0 / 3.0) * means.var(axis=0, ddof=1) / 4.0, atol=1e-12)
    assert pooled.attrs["imputations"] == 3


def test_schools_that_cannot_be_compared_stay_missing() -> None:
    rng = np.random.default_rng(1)
    parts = [effects_of(rng, np.array([0.0, np.nan]), 0.3) for _ in range(3)]
    pooled, information = pool_effects(parts)
    assert np.isnan(pooled.draws("theta")[:, 1]).all() and np.isfinite(pooled.draws("theta")[:, 0]).all()
    assert information.set_index("school")["fraction_missing"]["1"].isna().all()


def test_bad_input_is_refused() -> None:
    rng = np.random.default_rng(1)
    with pytest.raises(InputError, match="two or more completed data sets"):
        pool_estimates(np.ones((1, 2)), np.ones((1, 2)))
    with pytest.raises(InputError, match="cannot be pooled"):
        pool_estimates(np.ones((3, 2)), np.ones((3, 1)))
    with pytest.raises(InputError, match="negative"):
        pool_estimates(np.ones(3), -np.ones(3))
    one = effects_of(rng, np.zeros(2), 1.0)
    with pytest.raises(InputError, match="Impute at least twice"):
        pool_effects([one])
    with pytest.raises(InputError, match="numbers of draws"):
        pool_effects([one, effects_of(rng, np.zeros(2), 1.0, draws=10)])
    with pytest.raises(InputError, match="other schools"):
        pool_effects([one, effects_of(rng, np.zeros(3), 1.0)])
