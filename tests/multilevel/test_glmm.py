"""Yes/no and count models against lme4 and glmmTMB, a dense computation, and simulated truth."""

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import comb, expit

from send_va.errors import BoundaryWarning, CollinearityError, InputError, NotSupportedError
from send_va.multilevel import GlmmFit, fit_glmm
from send_va.records.dfe_tables import read_school_table

REFERENCE = Path(__file__).parents[1] / "reference" / "lme4_glmer"
# Tolerances: those stated with the reference numbers. Both sides difference second derivatives numerically, hence the
# one for standard errors; glmer stops its inner loop at a deviance flat to 1e-7, hence the one for the log-likelihood.
LLF, PARAMETER, SE, VARIANCE = 1e-3, 1e-3, 1e-2, 1e-3

CASES = {
    "crossed_slope": ("y ~ prior + fsm", {"school": "1 + prior", "feeder": "1"}, {}),
    "crossed_nested_probit": ("y ~ prior + fsm", {"la": "1", "feeder": "1", "school": "1"}, {"link": "probit"}),
    "counts": ("cbind(k, trials - k) ~ prior + fsm", {"school": "1", "feeder": "1"}, {}),
    "quadrature": ("y ~ prior + fsm", {"feeder": "1"}, {"method": "agq", "points": 9}),
    "quadrature_probit": ("y ~ prior + fsm", {"feeder": "1"}, {"method": "agq", "points": 9, "link": "probit"}),
}
# glmmTMB's conditional SDs include the uncertainty of the parameters, and glmer's for probit take expected curvature.
OTHER_CONDITIONAL_SD = ("crossed_nested_probit", "quadrature_probit")


@pytest.fixture(scope="module")
def pupils() -> pd.DataFrame:
    return pd.read_csv(REFERENCE / "input.csv").sample(frac=1.0, random_state=2)


def assert_matches(fit: GlmmFit, reference: dict) -> None:
    assert fit.converged
    assert fit.llf == pytest.approx(reference["logLik"], abs=LLF)
    np.testing.assert_allclose(fit.params, list(reference["fixef"].values()), rtol=PARAMETER)
    np.testing.assert_allclose(fit.bse, list(reference["se"].values()), rtol=SE)
    table = fit.variance_components.fillna("").set_index(["group", "term1", "term2"])["variance"]
    for row in reference["varcorr"]:
        one, two = ((row.get(name) or "").replace("(Intercept)", "Intercept") for name in ("var1", "var2"))
        assert table.loc[row["grp"], one, two] == pytest.approx(row["vcov"], rel=VARIANCE), row


def assert_effects_match(fit: GlmmFit, reference: pd.DataFrame, *, with_sd: bool = True) -> None:
    for group, expected in reference.groupby("grpvar"):
        ours = fit.random_effects(str(group))
        ours["term"] = ours["term"].replace("Intercept", "(Intercept)")
        both = ours.merge(expected, left_on=["level", "term"], right_on=["grp", "term"], validate="one_to_one")
        assert len(both) == len(expected) == len(ours)
        np.testing.assert_allclose(both["estimate"], both["condval"], atol=1e-3)
        if with_sd:
            np.testing.assert_allclose(both["se"], both["condsd"], rtol=SE)


@pytest.mark.parametrize("case", CASES)
def test_matches_lme4_and_glmmtmb(pupils: pd.DataFrame, case: str) -> None:
    """glmmTMB where glmer's Laplace approximation is another one: probit, expected instead of observed curvature."""
    formula, groups, options = CASES[case]
    fit = fit_glmm(formula, pupils, groups, **options)
    assert_matches(fit, json.loads((REFERENCE / "reference.json").read_text())[case])
    effects = pd.read_csv(REFERENCE / "effects.csv", dtype={"grp": str}).query("model == @case")
    assert_effects_match(fit, effects, with_sd=case not in OTHER_CONDITIONAL_SD)


def test_contraception_matches_lme4(shared_reference: Path) -> None:
    folder = shared_reference / "lme4"
    data = pd.read_csv(folder / "contraception_laplace_input.csv", dtype={"livch": str, "district": str})
    fit = fit_glmm("use ~ age + I(age**2) + urban + livch", data, {"district": "1"})
    assert fit.response == "use = Y"
    assert_matches(fit, json.loads((folder / "contraception_laplace.json").read_text()))
    assert_effects_match(fit, pd.read_csv(folder / "contraception_laplace_ranef.csv", dtype={"grp": str}))
    # An independent program of the same model: adaptive quadrature with one point is the Laplace approximation.
    one = fit_glmm("use ~ age + I(age**2) + urban + livch", data, {"district": "1"}, method="agq", points=1)
    assert one.llf == pytest.approx(fit.llf, abs=1e-6)


def test_secondary_schools_of_england_match_lme4(shared_data: Path) -> None:
    """SEN support in state-funded secondary schools 2018/19, one row a school: glmer (lme4 1.1-31) of the same records.

    The school intercept of a model with one row a school measures how far rates vary beyond binomial chance.
    """
    table = read_school_table(shared_data / "england" / "2018-19" / "england_census.csv").data
    schools = table[table["SCHOOLTYPE"] == "State-funded secondary"].dropna(
        subset=["TSENELK", "NOR", "PNUMFSMEVER", "PNUMEAL", "PNORG"]
    )
    schools = schools.assign(la=schools["laestab"] // 10_000)
    assert len(schools) == 3394
    fit = fit_glmm(
        "cbind(TSENELK, NOR - TSENELK) ~ I(PNUMFSMEVER / 10) + I(PNUMEAL / 10) + I(PNORG / 10)",
        schools,
        {"la": "1", "urn": "1"},
    )
    assert fit.converged
    assert fit.llf == pytest.approx(-17560.96, abs=0.01)  # given to two decimals
    sd = fit.variance_components.set_index("group")["sd_or_corr"]
    assert sd["urn"] == pytest.approx(0.509, abs=0.001)
    assert sd["la"] == pytest.approx(0.213, abs=0.001)


def crossed(rng: np.random.Generator, n: int = 120) -> pd.DataFrame:
    data = pd.DataFrame({"a": rng.integers(0, 7, n), "b": rng.integers(0, 5, n), "x": rng.normal(size=n)})
    data["region"] = data["a"] // 3
    eta = 0.3 + 0.5 * data["x"] + rng.normal(0, 0.8, 7)[data["a"]] + rng.normal(0, 0.6, 5)[data["b"]] * data["x"]
    data["trials"] = rng.integers(1, 5, n)
    data["k"] = rng.binomial(data["trials"], expit(eta))
    return data


def dense_laplace(fit: GlmmFit, data: pd.DataFrame, designs: list[tuple[str, list[np.ndarray]]]) -> float:
    """The Laplace log-likelihood at the fit's parameters by dense matrices and SciPy's optimiser."""
    fixed = fit.params["Intercept"] + fit.params["x"] * data["x"].to_numpy()
    columns = []
    for group, terms in designs:
        q = len(terms)
        table = fit.variance_components.query("group == @group")["variance"].to_numpy()
        cov = np.diag(table[:q])
        cov[np.tril_indices(q, -1)] = cov.T[np.tril_indices(q, -1)] = table[q:]
        root = np.linalg.cholesky(cov)
        member = (data[group].to_numpy()[:, None] == np.unique(data[group])).astype(float)
        z = np.stack([term[:, None] * member for term in terms], axis=2)  # (n, groups, q)
        columns.append((z @ root).reshape(len(data), -1))
    Z = np.hstack(columns)
    k, n = data["k"].to_numpy(), data["trials"].to_numpy()

    def negative(u: np.ndarray) -> tuple[float, np.ndarray]:
        eta = fixed + Z @ u
        value = float(k @ eta - n @ np.logaddexp(0.0, eta)) - 0.5 * float(u @ u)
        return -value, -(Z.T @ (k - n * expit(eta)) - u)

    found = minimize(negative, np.zeros(Z.shape[1]), jac=True, method="BFGS", options={"gtol": 1e-9})
    p = expit(fixed + Z @ found.x)
    return -negative(found.x)[0] - 0.5 * np.linalg.slogdet(np.eye(Z.shape[1]) + (Z.T * (n * p * (1 - p))) @ Z)[1]


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10_000))
def test_agrees_with_dense_computation(seed: int) -> None:
    """Two crossed groupings, one with a correlated slope, and a third that nests one of them; counts.

    The engine's mode is within about 1e-4 of the true one, which the log-determinant follows to first order.
    """
    data = crossed(np.random.default_rng(seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        fit = fit_glmm("cbind(k, trials - k) ~ x", data, {"a": "1", "b": "1 + x", "region": "1"})
    if fit.convergence.at_boundary:
        return
    one, x = np.ones(len(data)), data["x"].to_numpy()
    dense = dense_laplace(fit, data, [("a", [one]), ("b", [one, x]), ("region", [one])])
    assert fit.llf == pytest.approx(dense + np.log(comb(data["trials"], data["k"])).sum(), abs=2e-5)


def simulated(seed: int, schools: int = 150, rows: int = 40) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    school = np.repeat(np.arange(schools), rows)
    effects = rng.multivariate_normal([0, 0], [[0.4, 0.1], [0.1, 0.25]], schools)
    x = rng.normal(size=len(school))
    p = expit(-0.8 + 0.6 * x + effects[school, 0] + effects[school, 1] * x)
    return pd.DataFrame({"y": rng.random(len(school)) < p, "x": x, "school": school}), effects


def test_recovers_simulated_truth() -> None:
    """Parameters within four standard errors; 95 % intervals of the effects cover 95 % of them."""
    data, effects = simulated(1)
    fit = fit_glmm("y ~ x", data, {"school": "1 + x"})
    assert (np.abs(fit.params - [-0.8, 0.6]) < 4 * fit.bse).all()
    se = np.sqrt(np.diag(fit.cov_variance_components))
    assert (np.abs(fit.variance_components["variance"] - [0.4, 0.25, 0.1]) < 4 * se).all()
    shown = fit.random_effects("school")
    covered = np.abs(shown["estimate"] - effects.ravel()) < 1.96 * shown["se"]
    assert abs(covered.mean() - 0.95) < 4 * np.sqrt(0.95 * 0.05 / len(covered))


def test_standard_error_of_a_variance_is_its_spread() -> None:
    """Over 24 simulations the SD of log variances is what the fits say it is; its own error is 1/sqrt(48) = 14 %."""
    logs, errors = [], []
    for seed in range(24):
        fit = fit_glmm("y ~ x", simulated(seed, 50, 20)[0], {"school": "1"})
        variance = fit.variance_components["variance"][0]
        logs.append(np.log(variance))
        errors.append(np.sqrt(fit.cov_variance_components.iloc[0, 0]) / variance)
    assert np.std(logs, ddof=1) == pytest.approx(np.mean(errors), rel=0.45)


def test_identical_rows_count_as_often_as_they_occur(pupils: pd.DataFrame) -> None:
    """Yes/no records and their counts have the same estimates; the binomial coefficient is all that differs."""
    data = pupils.assign(band=np.round(pupils["prior"]), y=pupils["y"].astype(bool))
    table = data.groupby(["band", "fsm", "school"])["y"].agg(["sum", "size"]).reset_index()
    one = fit_glmm("y ~ band + fsm", data, {"school": "1"})
    many = fit_glmm("cbind(sum, size - sum) ~ band + fsm", table, {"school": "1"})
    np.testing.assert_allclose(one.params, many.params, atol=1e-5)
    np.testing.assert_allclose(one.bse, many.bse, rtol=1e-4)
    assert many.llf > one.llf
    assert (one.n_obs, many.n_obs) == (1200, len(table))


@settings(max_examples=4, deadline=None)
@given(st.floats(-1e3, 1e3), st.floats(1e-2, 1e3), st.integers(0, 1000))
def test_units_order_and_coding_do_not_matter(shift: float, factor: float, seed: int) -> None:
    """Another unit of a covariate with a random slope, another order, yes for no: the same model."""
    data, _ = simulated(1, 50, 25)
    plain = fit_glmm("y ~ x", data, {"school": "1 + x"})
    moved = data.assign(x=data["x"] * factor + shift, y=~data["y"]).sample(frac=1.0, random_state=seed)
    other = fit_glmm("y ~ x", moved, {"school": "1 + x"})
    assert other.llf == pytest.approx(plain.llf, abs=1e-5)
    assert other.params["x"] * factor == pytest.approx(-plain.params["x"], abs=1e-4)
    slope = other.variance_components["variance"][1] * factor**2
    assert slope == pytest.approx(plain.variance_components["variance"][1], rel=1e-3)


@pytest.mark.parametrize("method", ["laplace", "agq"])
def test_groups_with_one_response_only_are_shrunken_and_finite(method: str) -> None:
    data, _ = simulated(5, 40, 15)
    data.loc[data["school"] == 0, "y"], data.loc[data["school"] == 1, "y"] = True, False
    data = data[(data["school"] != 2) | ~data["school"].duplicated()]  # school 2 keeps one pupil
    fit = fit_glmm("y ~ x", data, {"school": "1"}, method=method)
    assert fit.converged
    effects = fit.random_effects("school").set_index("level")
    assert 0.5 < effects.loc["0", "estimate"] < 4.0
    assert -4.0 < effects.loc["1", "estimate"] < -0.5
    sd = fit.variance_components["sd_or_corr"][0]
    assert 0.9 * sd < effects.loc["2", "se"] <= sd


@pytest.mark.parametrize("method", ["laplace", "agq"])
def test_zero_variance_is_an_estimate_with_a_warning(method: str) -> None:
    """Every group has the same responses: less variation than chance gives. The rest is plain logistic regression."""
    x = np.tile(np.linspace(-1.0, 1.0, 20), 30)
    y = np.tile(np.random.default_rng(1).integers(0, 2, 20), 30)
    data = pd.DataFrame({"y": y, "x": x, "school": np.repeat(np.arange(30), 20)})
    with pytest.warns(BoundaryWarning, match="variance of the school effects"):
        fit = fit_glmm("y ~ x", data, {"school": "1"}, method=method)
    assert fit.converged
    assert fit.convergence.at_boundary == ("school",)
    assert fit.variance_components["variance"][0] == pytest.approx(0.0, abs=1e-9)

    def negative(beta: np.ndarray) -> float:
        eta = beta[0] + beta[1] * x
        return -float(y @ eta - np.logaddexp(0.0, eta).sum())

    assert fit.llf == pytest.approx(-minimize(negative, [0.0, 0.0], tol=1e-10).fun, abs=1e-5)
    assert np.isfinite(fit.bse).all()


def test_responses_may_be_texts_booleans_or_numbers(pupils: pd.DataFrame) -> None:
    data = pupils.assign(text=np.where(pupils["y"] == 1, "yes", "no"), flag=pupils["y"] == 1)
    fits = [fit_glmm(f"{name} ~ prior", data, {"school": "1"}) for name in ("y", "text", "flag")]
    assert [fit.response for fit in fits] == ["y", "text = yes", "flag = True"]
    assert len({fit.llf for fit in fits}) == 1
    text = fits[0].summary()
    assert "Multilevel logit model by Laplace approximation: y ~ prior" in text
    assert "1,200 records, 24 school" in text
    assert "<table" in fits[0]._repr_html_()


def test_unusable_responses_are_named(pupils: pd.DataFrame) -> None:
    groups = {"school": "1"}
    with pytest.raises(InputError, match=r"trials: rule broken: is 0 or 1.*cbind"):
        fit_glmm("trials ~ prior", pupils, groups)
    with pytest.raises(InputError, match="is the same in every row"):
        fit_glmm("y ~ prior", pupils.assign(y=1), groups)
    with pytest.raises(InputError, match=r"need: has 3 categories.*N, K, E|need: has 3 categories.*E, K, N"):
        fit_glmm("need ~ prior", pupils.assign(need=np.resize(["N", "K", "E"], len(pupils))), groups)
    with pytest.raises(InputError, match="k - trials: is not a count"):
        fit_glmm("cbind(k, k - trials) ~ prior", pupils[pupils["k"] < pupils["trials"]], groups)
    with pytest.raises(InputError, match=r"cbind\(successes, failures\)"):
        fit_glmm("cbind(k) ~ prior", pupils, groups)
    with pytest.raises(InputError, match="has no response"):
        fit_glmm("prior + fsm", pupils, groups)
    with pytest.raises(InputError, match=r"y: has missing values; 1 row fails; rows 3"):
        fit_glmm("y ~ prior", pupils.assign(y=pupils["y"].where(np.arange(len(pupils)) != 2)), groups)
    with pytest.raises(InputError, match=r"y: has missing values; 1 row fails; rows 1\."):
        flags = (pupils["y"] == 1).astype("boolean").mask(np.arange(len(pupils)) == 0)
        fit_glmm("y ~ prior", pupils.assign(y=flags), groups)
    with pytest.raises(InputError, match="text: has missing values"):
        text = pd.Series(np.where(pupils["y"] == 1, "yes", "no"), pupils.index)
        fit_glmm("text ~ prior", pupils.assign(text=text.where(np.arange(len(pupils)) > 4)), groups)


def test_bad_input_is_named(pupils: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="no link 'log'"):
        fit_glmm("y ~ prior", pupils, {"school": "1"}, link="log")
    with pytest.raises(InputError, match=r"no method 'pql'. Use one of laplace, agq"):
        fit_glmm("y ~ prior", pupils, {"school": "1"}, method="pql")
    with pytest.raises(InputError, match="at least 1"):
        fit_glmm("y ~ prior", pupils, {"school": "1"}, method="agq", points=0)
    with pytest.raises(NotSupportedError, match=r"one grouping with one effect.*laplace"):
        fit_glmm("y ~ prior", pupils, {"school": "1", "feeder": "1"}, method="agq")
    with pytest.raises(InputError, match="groups must map"):
        fit_glmm("y ~ prior", pupils, {})
    with pytest.raises(InputError, match="one group only in all"):
        fit_glmm("y ~ prior", pupils.assign(all="a"), {"all": "1"})
    with pytest.raises(InputError, match="school and copy hold the same groups"):
        fit_glmm("y ~ prior", pupils.assign(copy=-pupils["school"]), {"school": "1", "copy": "1"})
    with pytest.raises(InputError, match="every group of own has one yes/no record"):
        fit_glmm("y ~ prior", pupils.assign(own=range(len(pupils))), {"own": "1"})
    with pytest.raises(InputError, match="Did you mean 'school'"):
        fit_glmm("y ~ prior", pupils, {"schol": "1"})
    with pytest.raises(InputError, match="school: grouping column has missing values"):
        fit_glmm("y ~ prior", pupils.assign(school=pupils["school"].where(pupils["school"] > 3)), {"school": "1"})
    with pytest.raises(CollinearityError, match="twice"):
        fit_glmm("y ~ prior + twice", pupils.assign(twice=2 * pupils["prior"]), {"school": "1"})
    with pytest.raises(CollinearityError, match="random effects of school"):
        fit_glmm("y ~ prior", pupils.assign(c=3.0), {"school": "1 + c"})
    with pytest.raises(InputError, match="no grouping 'la'"):
        fit_glmm("y ~ prior", pupils, {"school": "1"}).random_effects("la")


def test_a_category_without_variation_is_refused(pupils: pd.DataFrame) -> None:
    """Its coefficient has no finite estimate; groups in the random part do not need this."""
    rare = np.where(pupils["y"] == 1, "b", "c")
    data = pupils.assign(kind=np.where(np.arange(len(pupils)) < 40, rare, "a"))
    with pytest.raises(InputError, match=r"kind\[T.b\]: has a value whose records all have the same response"):
        fit_glmm("y ~ prior + kind", data, {"school": "1"})
