"""The area model beside metafor, beside dense algebra, on simulated truth, and on what it must refuse."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from send_va.errors import BoundaryWarning, InputError
from send_va.multilevel.area import fit_area
from send_va.multilevel.area_likelihood import AreaPoint, fit_area_arrays
from send_va.records.dfe_tables import read_school_table

P8 = ["P8MEA", "P8CILOW", "P8CIUPP"]
CONTEXT = ["PSENELK", "PSENELSE", "PNUMFSMEVER", "PNUMEAL"]
REFERENCE = Path(__file__).parents[1] / "reference" / "area_metafor"


@pytest.fixture(scope="module")
def units():
    return pd.read_csv(REFERENCE / "input.csv")


@pytest.fixture(scope="module")
def metafor():
    return json.loads((REFERENCE / "fit.json").read_text())


# metafor 3.8-1, R 4.2.2: the script beside the numbers. Its optimisers stop near 1e-8 in the variances, so 1e-6.
@pytest.mark.parametrize("method", ["REML", "ML"])
def test_one_level_equals_metafor_rma(units, metafor, method):
    fit, expected = fit_area("y ~ x", units, se="se", reml=method == "REML"), metafor["plain"][method]
    assert fit.converged
    assert fit.llf == pytest.approx(expected["llf"], abs=1e-8)
    assert fit.tau2 == pytest.approx(expected["tau2"], rel=1e-6)
    assert fit.tau2_se == pytest.approx(expected["tau2_se"], rel=1e-6)
    np.testing.assert_allclose(fit.params, expected["params"], rtol=1e-6)
    np.testing.assert_allclose(fit.bse, expected["bse"], rtol=1e-6)
    for column, name in (("u", "unit"), ("estimate", "unit"), ("theta", "theta")):
        np.testing.assert_allclose(fit.effects[column], expected[name]["estimate"], atol=1e-6)
    for column, name in (("u_se", "unit"), ("se", "unit"), ("theta_se", "theta")):
        np.testing.assert_allclose(fit.effects[column], expected[name]["se"], atol=1e-6)


@pytest.mark.parametrize("method", ["REML", "ML"])
def test_area_level_equals_metafor_rma_mv(units, metafor, method):
    fit, expected = fit_area("y ~ x", units, se="se", area="area", reml=method == "REML"), metafor["nested"][method]
    assert fit.converged
    assert fit.llf == pytest.approx(expected["llf"], abs=1e-8)
    variances = fit.variance_components.set_index("group")["variance"]
    assert variances["area"] == pytest.approx(expected["area_variance"], rel=1e-6)
    assert variances["unit"] == fit.tau2 == pytest.approx(expected["tau2"], rel=1e-6)
    np.testing.assert_allclose(fit.params, expected["params"], rtol=1e-6)
    np.testing.assert_allclose(fit.bse, expected["bse"], rtol=1e-6)
    np.testing.assert_allclose(fit.effects["u"], expected["unit"]["estimate"], atol=1e-6)
    np.testing.assert_allclose(fit.effects["u_se"], expected["unit"]["se"], atol=1e-6)
    assert list(fit.area_effects["level"]) == expected["area"]["level"]
    np.testing.assert_allclose(fit.area_effects["estimate"], expected["area"]["estimate"], atol=1e-6)
    np.testing.assert_allclose(fit.area_effects["se"], expected["area"]["se"], atol=1e-6)


# metafor's default stops at a step of 1e-5 in tau2, and its tau2 is stated from there: 2e-7 relative here.
@pytest.mark.parametrize("method", ["REML", "ML"])
def test_means_of_sixty_groups_equal_metafor(shared_reference, method):
    expected = json.loads((shared_reference / "funnel" / "means_metafor.json").read_text())[method]
    fit = fit_area(
        "mean ~ 1", pd.read_csv(shared_reference / "funnel" / "means_input.csv"), "se", reml=method == "REML"
    )
    assert fit.llf == pytest.approx(expected["logLik"], abs=1e-8)
    assert fit.tau2 == pytest.approx(expected["tau2"], rel=1e-6)
    assert fit.params.iloc[0] == pytest.approx(expected["mu"], rel=1e-8)
    assert fit.bse.iloc[0] == pytest.approx(expected["se"], rel=1e-6)


def _point(units, tau2, area_variance):
    X = np.column_stack([np.ones(len(units)), units["x"]])
    area = pd.factorize(units["area"])[0].astype(np.int64)
    return AreaPoint(units["y"].to_numpy(), X, units["se"].to_numpy(), area, tau2, area_variance)


def _dense(point):
    Z = np.eye(point.area.max() + 1)[point.area]
    V = np.diag(point.se**2 + point.tau2) + point.area_variance * Z @ Z.T
    inverse = np.linalg.inv(V)
    P = inverse - inverse @ point.X @ np.linalg.inv(point.X.T @ inverse @ point.X) @ point.X.T @ inverse
    return Z, V, inverse, P


@pytest.mark.parametrize("variances", [(0.05, 0.1), (0.05, 0.0), (0.0, 0.1), (0.0, 0.0)])
def test_structured_algebra_equals_dense_matrices(units, variances):
    point = _point(units, *variances)
    Z, V, inverse, P = _dense(point)
    rows = np.arange(len(V))
    np.testing.assert_allclose(point.weighted_residual, P @ point.y, atol=1e-10)
    np.testing.assert_allclose(point.p_diagonal, np.diag(P), atol=1e-10)
    np.testing.assert_allclose(point.pz_diagonal, (P @ Z)[rows, point.area], atol=1e-10)
    np.testing.assert_allclose(point.zpz_diagonal, np.diag(Z.T @ P @ Z), atol=1e-10)
    for reml, kernel in ((True, P), (False, inverse)):
        A, B = kernel, kernel @ Z @ Z.T
        expected = 0.5 * np.array([[np.trace(A @ A), np.trace(A @ B)], [np.trace(A @ B), np.trace(B @ B)]])
        np.testing.assert_allclose(point.score(reml)[1], expected, rtol=1e-10)


@pytest.mark.parametrize("reml", [True, False])
def test_the_gradient_is_that_of_the_log_likelihood(units, reml):
    gradient, _ = _point(units, 0.05, 0.1).score(reml)
    h = 1e-5
    numeric = [
        (_point(units, 0.05 + h, 0.1).llf(reml) - _point(units, 0.05 - h, 0.1).llf(reml)) / (2 * h),
        (_point(units, 0.05, 0.1 + h).llf(reml) - _point(units, 0.05, 0.1 - h).llf(reml)) / (2 * h),
    ]
    np.testing.assert_allclose(gradient, numeric, rtol=1e-6)


def _simulated(rng, areas=40, per_area=15, tau2=0.1, area_variance=0.04):
    area = np.repeat(np.arange(areas), per_area)
    se = rng.uniform(0.1, 0.4, len(area))
    x = rng.normal(size=len(area))
    effect = rng.normal(0, np.sqrt(area_variance), areas)[area] + rng.normal(0, np.sqrt(tau2), len(area))
    y = 0.2 - 0.3 * x + effect + rng.normal(0, se)
    return pd.DataFrame({"y": y, "x": x, "se": se, "la": area, "truth": effect})


def test_recovers_simulated_variances_and_covers_the_true_effects():
    rng = np.random.default_rng(11)
    fits = [(table, fit_area("y ~ x", table, "se", "la")) for table in (_simulated(rng) for _ in range(40))]
    # Monte Carlo error of the mean over 40 fits: SD of tau2 is about 0.008, of the area variance 0.012.
    assert np.mean([fit.tau2 for _, fit in fits]) == pytest.approx(0.1, abs=4 * 0.008 / np.sqrt(40))
    area_variance = np.mean([fit.variance_components["variance"].iloc[0] for _, fit in fits])
    assert area_variance == pytest.approx(0.04, abs=4 * 0.012 / np.sqrt(40))
    inside = [np.abs(t["truth"] - f.effects["estimate"]) < 1.959964 * f.effects["se"] for t, f in fits]
    # 24,000 units, dependent within areas: binomial error 0.0014, doubled.
    assert np.mean(inside) == pytest.approx(0.95, abs=0.01)
    reliability = np.mean([fit.effects["reliability"].mean() for _, fit in fits])
    squared = np.mean([np.corrcoef(t["truth"], f.effects["estimate"])[0, 1] ** 2 for t, f in fits])
    assert squared == pytest.approx(reliability, abs=0.03)


@pytest.mark.filterwarnings("ignore::send_va.errors.BoundaryWarning")
def test_unshrunken_estimates_are_off_by_their_stated_error():
    rng = np.random.default_rng(12)
    fits = [(table, fit_area("y ~ x", table, "se", "la")) for table in (_simulated(rng, 20, 5) for _ in range(60))]
    z = [(f.effects["unshrunken"] - t["truth"]) / f.effects["unshrunken_se"] for t, f in fits]
    assert np.std(z) == pytest.approx(1.0, abs=0.04)


def test_draws_have_the_stated_means_and_errors(units):
    fit = fit_area("y ~ x", units, se="se", area="area")
    draws = fit.draw_effects(20_000, np.random.default_rng(5))
    # Monte Carlo error of a mean is 0.7 % of an SD, of an SD 0.5 %; 60 of each, so four of them.
    assert np.max(np.abs(draws.mean(axis=0) - fit.effects["estimate"]) / fit.effects["se"]) < 0.03
    np.testing.assert_allclose(draws.std(axis=0), fit.effects["se"], rtol=0.025)
    np.testing.assert_array_equal(draws, fit.draw_effects(20_000, np.random.default_rng(5)))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.01, 100), shift=st.floats(-5, 5))
def test_units_of_the_outcome_only_rescale_the_result(seed, scale, shift):
    table = _simulated(np.random.default_rng(seed), 8, 4, tau2=0.3, area_variance=0.2)
    X = np.column_stack([np.ones(len(table)), table["x"]])
    y, se, area = (table[name].to_numpy() for name in ("y", "se", "la"))
    one = fit_area_arrays(y, X, se, area)
    other = fit_area_arrays(shift + scale * y, X, scale * se, area)
    assert one.converged
    assert other.converged
    assert other.tau2 == pytest.approx(scale**2 * one.tau2, rel=1e-4, abs=1e-8 * scale**2)
    assert other.llf == pytest.approx(one.llf - (len(y) - 2) * np.log(scale), abs=1e-6)


def test_zero_variance_is_kept_with_a_warning_that_says_what_it_means():
    table = pd.DataFrame({"y": [0.1, -0.1, 0.05, -0.05, 0.0, 0.02], "se": 0.5, "la": list("aabbcc")})
    with pytest.warns(BoundaryWarning) as caught:
        fit = fit_area("y ~ 1", table, se="se", area="la")
    messages = [str(record.message) for record in caught]
    assert any("tau2 is estimated at zero" in text and "no ranking of units" in text for text in messages)
    assert any("variance between la is estimated at zero" in text for text in messages)
    assert fit.tau2 == 0
    assert fit.converged
    assert np.isnan(fit.tau2_se)
    assert (fit.effects["estimate"] == 0).all()
    assert (fit.effects["reliability"] == 0).all()


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({}, {"se": "ses"}, r"ses: is not a column of the table. Did you mean 'se'\?"),
        ({}, {"area": "lea"}, r"lea: is not a column of the table. Did you mean 'la'\?"),
        ({"se": [0.1, 0.0, -1.0, np.nan]}, {}, r"above zero; 3 rows fail; rows 2, 3, 4; values 0.0, -1.0, nan\. Leave"),
        ({"se": ["0.1", "NE", "0.2", "0.3"]}, {}, r"above zero; 1 row fails; rows 2; values NE"),
        ({"la": [None, "a", "b", "b"]}, {"area": "la"}, r"la: has missing values; 1 row fails; rows 1"),
        ({"la": list("abcd")}, {"area": "la"}, "one unit in every area. Leave `area` out"),
        ({"la": "a"}, {"area": "la"}, "one area only"),
        ({"y": [1.0, np.nan, 2.0, 3.0]}, {}, "y: has missing values; 1 row fails; rows 2"),
    ],
)
def test_bad_input_is_named_with_rows_and_remedy(change, arguments, message):
    table = pd.DataFrame({"y": [1.0, 2.0, 0.5, 3.0], "se": 0.2, "la": list("aabb")}).assign(**change)
    with pytest.raises(InputError, match=message):
        fit_area("y ~ 1", table, **{"se": "se", **arguments})


def test_as_many_coefficients_as_rows_is_refused():
    table = pd.DataFrame({"y": [1.0, 2.0], "x": [0.0, 1.0], "se": 0.1})
    with pytest.raises(InputError, match="2 rows cannot support 2 fixed effects"):
        fit_area("y ~ x", table, se="se")


def test_england_2018_19_equals_metafor(shared_data):
    folder = shared_data / "england" / "2018-19"
    results = read_school_table(folder / "england_ks4provisional.csv", columns=["RECTYPE", "LEA", *P8])
    census = read_school_table(folder / "england_census.csv", columns=CONTEXT)
    schools = results.data[results.data["RECTYPE"] == 1].merge(census.data.drop(columns="laestab"), on="urn")
    schools = schools.dropna(subset=[*P8, *CONTEXT]).reset_index(drop=True)
    schools["se"] = (schools["P8CIUPP"] - schools["P8CILOW"]) / (2 * 1.96)
    formula = f"P8MEA ~ {' + '.join(CONTEXT)}"
    # metafor 3.8-1, R 4.2.2: rma(method="REML"), printed to these digits.
    fit = fit_area(formula, schools, se="se")
    assert fit.n_obs == 3_135
    assert fit.tau2 == pytest.approx(0.126476, abs=5e-7)
    assert fit.llf == pytest.approx(-1380.989, abs=5e-4)
    assert fit.params["PSENELK"] == pytest.approx(-0.0092, abs=5e-5)
    # metafor 3.8-1: rma.mv(random = ~ 1 | LEA/school, method = "REML", sparse = TRUE), printed to these digits.
    nested = fit_area(formula, schools, se="se", area="LEA")
    assert nested.tau2 == pytest.approx(0.1118362, abs=1e-6)
    assert nested.variance_components["variance"].iloc[0] == pytest.approx(0.0177650, abs=1e-6)
    assert nested.llf == pytest.approx(-1302.833873, abs=5e-6)
    np.testing.assert_allclose(nested.params, [0.4848957, -0.0088540, -0.0207394, -0.0178692, 0.0102761], atol=2e-7)
    np.testing.assert_allclose(nested.bse, [0.0224229, 0.0013534, 0.0054739, 0.0006023, 0.0004626], atol=1e-7)
