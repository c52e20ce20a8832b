"""Funnel limits: against FunnelPlotR, PHEindicatormethods and metafor, counting by hand, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm, poisson

from send_va.errors import InputError
from send_va.ranking.funnel import funnel_limits

ROUNDED = tuple(1 - 2 * norm.sf([1.959964, 3.090232]))  # FunnelPlotR rounds its normal quantiles


@pytest.fixture(scope="module")
def folder(shared_reference: Path) -> Path:
    return shared_reference / "funnel"


def bounds(table: pd.DataFrame) -> np.ndarray:
    return table[[name for name in table if str(name).startswith(("lower_", "upper_"))]].to_numpy()


def test_proportions_against_funnelplotr(folder: Path) -> None:
    """FunnelPlotR 0.6.0, additive overdispersion and none, arcsine limits; closed forms, so 1e-8.

    A limit whose angle falls below zero is 0 here. FunnelPlotR squares its sine (and then zeroes the limits of smaller
    units only), which leaves 1.2e-5 for the 99.8 % limit of the fifth unit.
    """
    data = pd.read_csv(folder / "proportion_input.csv")
    adjusted, plain = (pd.read_csv(folder / f"funnelplotr_PR_{name}.csv") for name in ("od95", "unadj99"))
    told = json.loads((folder / "funnelplotr_PR_od95.json").read_text())
    counts = (data["numerator"], data["denominator"])
    found = funnel_limits(*counts, kind="proportion", overdispersion="additive", levels=ROUNDED)
    assert found.method == "transformed"
    assert found.phi == pytest.approx(told["phi"], abs=1e-12)
    assert found.tau2 == pytest.approx(told["tau2"], abs=1e-12)
    expected = adjusted[["OD95LCL", "OD95UCL", "OD99LCL", "OD99UCL"]].to_numpy().copy()
    assert expected[4, 2] == pytest.approx(1.2e-5, abs=1e-6)
    expected[4, 2] = 0.0
    np.testing.assert_allclose(bounds(found.table), expected, atol=1e-8)
    np.testing.assert_array_equal(found.table.iloc[:, -2] != 0, adjusted["outlier"] == 1)
    assert data["group"][found.table.iloc[:, -2] != 0].tolist() == told["outliers"]
    unadjusted = funnel_limits(*counts, kind="proportion", method="transformed", levels=ROUNDED)
    np.testing.assert_allclose(
        bounds(unadjusted.table), plain[["LCL95", "UCL95", "LCL99", "UCL99"]].to_numpy(), atol=1e-8
    )
    np.testing.assert_allclose(unadjusted.table["z"], plain["Uzscore"], atol=1e-10)
    np.testing.assert_array_equal(unadjusted.table.iloc[:, -1] != 0, plain["outlier"] == 1)


def test_proportions_against_pheindicatormethods(folder: Path) -> None:
    """PHEindicatormethods 2.1.1, Wilson, in per cent, at the baseline it was given."""
    phe = pd.read_csv(folder / "phe_proportion_limits.csv")
    counts = (np.zeros(len(phe)), phe["Population"])
    found = funnel_limits(*counts, kind="proportion", method="score", target=phe["baseline"][0] / 100)
    columns = ["lower_2s_limit", "upper_2s_limit", "lower_3s_limit", "upper_3s_limit"]
    np.testing.assert_allclose(100 * bounds(found.table), phe[columns], atol=1e-8)


def test_means_against_metafor(folder: Path) -> None:
    """metafor 3.8-1: fixed effect and DerSimonian-Laird, unwinsorised; its dispersion divides by units less one."""
    data = pd.read_csv(folder / "means_input.csv")
    told = json.loads((folder / "means_metafor.json").read_text())
    fixed, additive, multiplicative = (
        funnel_limits(data["mean"], se=data["se"], kind="mean", winsorise=0, overdispersion=kind)
        for kind in ("none", "additive", "multiplicative")
    )
    assert fixed.target == pytest.approx(told["FE"]["mu"], rel=1e-10)
    assert additive.target == pytest.approx(told["DL"]["mu"], rel=1e-10)
    assert additive.tau2 == pytest.approx(told["DL"]["tau2"], rel=1e-10)
    assert multiplicative.phi * 60 / 59 == pytest.approx(told["multiplicative"]["phi"], rel=1e-10)
    for found, rows in ((fixed, told["limits_FE"]), (additive, told["limits_DL_additive"])):
        expected = pd.DataFrame(rows)
        at = replace(found, table=pd.DataFrame({"denominator": expected["se"].iloc[[0, -1]] ** -2.0}))
        np.testing.assert_allclose(
            bounds(at.curve(2))[::-1], expected[["lo95", "hi95", "lo998", "hi998"]].iloc[[0, -1]], atol=1e-8
        )
    spread = np.sqrt(data["se"] ** 2 + told["DL"]["tau2"])
    np.testing.assert_allclose(additive.table["upper_95"], told["DL"]["mu"] + norm.isf(0.025) * spread, atol=1e-8)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.998])
def test_exact_limits_by_counting(level: float) -> None:
    """Spiegelhalter's interpolation from the distribution functions of SciPy."""
    tail = (1 - level) / 2
    sizes = np.array([5, 12, 30, 47, 200, 1_000])
    found = funnel_limits(np.ones(6), sizes, kind="proportion", target=0.3, levels=[level])
    ratio = funnel_limits(np.ones(6), sizes / 3.7, kind="ratio", target=1.2, levels=[level])
    for unit, size in enumerate(sizes):
        for table, law in ((found.table, binom(size, 0.3)), (ratio.table, poisson(1.2 * size / 3.7))):
            for name, p in (("lower", tail), ("upper", 1 - tail)):
                r = law.ppf(p)
                count = max(r - (law.cdf(r) - p) / law.pmf(r), 0.0)
                limit = table[f"{name}_{100 * level:g}"].iloc[unit]
                assert limit == pytest.approx(count / table["denominator"].iloc[unit], abs=1e-9)


def test_exact_flags_by_tail_probability() -> None:
    """Outside the interpolated limits means a distribution function below the one tail or above the other."""
    numerator = np.arange(41)
    table = funnel_limits(numerator, np.full(41, 40), kind="proportion", target=0.3).table
    below = binom.cdf(numerator, 40, 0.3)
    np.testing.assert_array_equal(table["outlier_95"], (below > 0.975).astype(int) - (below < 0.025).astype(int))


def test_multiplicative_overdispersion_widens_by_the_root_of_phi() -> None:
    rng = np.random.default_rng(1)
    sizes = rng.integers(200, 2_000, 100)
    counts = rng.binomial(sizes, np.clip(rng.normal(0.3, 0.06, 100), 0, 1))
    plain, wide, exact = (
        funnel_limits(counts, sizes, kind="proportion", method=method, overdispersion=kind)
        for method, kind in (("score", "none"), ("score", "multiplicative"), ("exact", "multiplicative"))
    )
    factor = (wide.table["upper_95"] - wide.target) / (plain.table["upper_95"] - plain.target)
    np.testing.assert_allclose(factor, np.sqrt(wide.phi))
    np.testing.assert_allclose(wide.table["z"], plain.table["z"] / np.sqrt(wide.phi))
    np.testing.assert_allclose(bounds(exact.table)[:, :2], bounds(wide.table)[:, :2], atol=0.02)


def test_additive_overdispersion_is_recovered() -> None:
    """Two thousand units whose means differ by .3, standard errors .2-.6: within three sampling errors; 5 % outside."""
    rng = np.random.default_rng(4)
    se = rng.uniform(0.2, 0.6, 2_000)
    found = funnel_limits(
        rng.normal(0, 0.3, 2_000) + se * rng.normal(size=2_000),
        se=se,
        kind="mean",
        overdispersion="additive",
        winsorise=0,
    )
    assert found.tau2 == pytest.approx(0.09, abs=0.02)
    assert (found.table["outlier_95"] != 0).mean() == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / 2_000))


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["proportion", "ratio", "mean"]),
    st.sampled_from(["exact", "transformed", "score"]),
    st.floats(0.01, 0.99),
    st.integers(0, 10_000),
)
def test_limits_hold_the_target_and_widen_as_units_shrink(kind: str, method: str, target: float, seed: int) -> None:
    sizes = np.sort(np.random.default_rng(seed).integers(1, 500, 30))
    if kind == "mean":
        found = funnel_limits(np.zeros(30), se=1 / np.sqrt(sizes), kind="mean", target=target)
    else:
        found = funnel_limits(np.zeros(30), sizes, kind=kind, method=method, target=target)  # type: ignore[arg-type]
    lower, upper, far_lower, far_upper = bounds(found.table).T
    assert np.all((far_lower <= lower) & (lower <= target) & (target <= upper) & (upper <= far_upper))
    if found.method != "exact":  # exact ones are not quite monotone: counts are whole
        assert np.all(np.diff(upper) <= 1e-12)
        assert np.all(np.diff(lower) >= -1e-12)


@pytest.mark.parametrize("kind", ["proportion", "ratio"])
@pytest.mark.parametrize("method", ["exact", "transformed", "score"])
def test_curve_passes_through_the_limits(kind: str, method: str) -> None:
    found = funnel_limits([3, 9, 40], [10, 30, 160], kind=kind, method=method, target=0.2)  # type: ignore[arg-type]
    curve = found.curve(50)
    np.testing.assert_allclose(bounds(curve)[[0, -1]], bounds(found.table)[[0, 2]], rtol=1e-9)
    assert curve["denominator"].is_monotonic_increasing
    assert np.all(curve["target"] == 0.2)


def test_labels_and_what_is_printed() -> None:
    counts = pd.Series([3, 9, 90], index=["a", "b", "c"])
    found = funnel_limits(counts, [10, 30, 160], kind="proportion", levels=[0.9])
    assert found.table.index.tolist() == ["a", "b", "c"]
    assert "outside 0.9" in str(found)
    assert "<table" in found._repr_html_()
    same = funnel_limits(value=[1.0, 2.0, 3.0], se=[1, 1, 1], kind="mean").table
    pd.testing.assert_frame_equal(same, funnel_limits([1.0, 2.0, 3.0], se=[1, 1, 1], kind="mean").table)


def test_all_equal() -> None:
    """No unit is outside, and no overdispersion is found."""
    found = funnel_limits([5] * 6, [20] * 6, kind="proportion", overdispersion="additive")
    assert found.tau2 == 0.0
    assert found.phi == pytest.approx(0.0, abs=1e-20)
    assert (found.table.filter(like="outlier") == 0).all(axis=None)


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        (([5, 3], [4, 9]), {"kind": "proportion"}, "numerator: is above its denominator; 1 row fails; rows 1"),
        (([-1, 3], [4, 9]), {"kind": "ratio"}, "numerator: is negative"),
        (([1, 3], [0, 9]), {"kind": "proportion"}, "denominator: is zero or negative"),
        (([1, np.nan], [4, 9]), {"kind": "proportion"}, "numerator: is not finite"),
        (([1, 3, 4], [4, 9]), {"kind": "proportion"}, "lengths differ"),
        (([1], [4]), {"kind": "proportion"}, "one unit"),
        (([1, 2], [4.5, 9]), {"kind": "proportion"}, "not a whole number"),
        (([0, 0], [4, 9]), {"kind": "proportion"}, "pooled proportion is 0"),
        (([4, 9], [4, 9]), {"kind": "proportion"}, "pooled proportion is 1"),
        (([1, 2], [4, 9]), {"kind": "proportion", "target": 25}, "target 25 is no proportion"),
        (([1, 2], [4, 9]), {"kind": "ratio", "target": 0}, "target 0 is no ratio"),
        (([1, 2], None), {"kind": "proportion"}, "needs numerator and denominator"),
        (([1, 2], [4, 9]), {"kind": "mean", "se": [1, 1]}, "no denominator"),
        (([1, 2],), {"kind": "mean"}, "needs value and se"),
        (([1, 2],), {"kind": "mean", "se": [1, 0]}, "se: is zero or negative"),
        (([1, 2],), {"kind": "mean", "se": [1, 1], "method": "exact"}, "no exact limits"),
        (([1],), {"kind": "mean", "se": [1]}, "1 unit given"),
        (([1, 2], [4, 9]), {"kind": "rate"}, "no kind 'rate'"),
        (([1, 2], [4, 9]), {"kind": "ratio", "method": "wald"}, "no method 'wald'"),
        (([1, 2], [4, 9]), {"kind": "ratio", "overdispersion": "both"}, "no overdispersion"),
        (([1, 2], [4, 9]), {"kind": "ratio", "overdispersion": "additive", "method": "exact"}, "no exact limits with"),
        (([1, 2], [4, 9]), {"kind": "ratio", "levels": [95]}, "levels must lie"),
        (([1, 2], [4, 9]), {"kind": "ratio", "levels": []}, "no levels"),
        (([1, 2], [4, 9]), {"kind": "ratio", "levels": 0.95}, r"levels is 0\.95, not a sequence.*such as \[0\.95"),
        (([1, 2], [4, 9]), {"kind": "ratio", "levels": None}, "levels is None, not a sequence"),
        (([1, 2], [4, 9]), {"kind": "ratio", "winsorise": 0.5}, "winsorise"),
    ],
)
def test_what_is_refused(arrays: tuple[list[float], ...], options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        funnel_limits(*arrays, **options)  # type: ignore[arg-type]


def test_levels_may_be_an_array() -> None:
    found = funnel_limits([1, 2], [4, 9], kind="ratio", levels=np.array([0.9, 0.95]))  # type: ignore[arg-type]
    assert found.levels == (0.9, 0.95)


def test_a_curve_of_one_point_is_refused() -> None:
    with pytest.raises(InputError, match="at least 2 points"):
        funnel_limits([1, 2], [4, 9], kind="ratio").curve(1)
