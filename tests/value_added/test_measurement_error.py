"""Measurement error in prior scores: published and outside numbers, simulated truth, and what is refused."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from send_va.errors import CollinearityError, InputError, NotSupportedError
from send_va.multilevel.crossproducts import CrossProducts, cross_products
from send_va.multilevel.elimination import Level
from send_va.multilevel.gaussian import fit_gaussian
from send_va.multilevel.nested import fit_nested
from send_va.multilevel.prediction import draw_effects
from send_va.value_added.given_slopes import PriorSlopes, adjust_outcome, draw_effects_with_slopes
from send_va.value_added.instrumented import WeakInstrumentWarning, instrumented_slope
from send_va.value_added.measurement_error import (
    correct_cross_products,
    corrected_slopes,
    error_sums,
    prior_reliability,
)

COLUMNS = ("Intercept", "need", "prior", "y")
LEVEL = [Level(np.array([0, 1]))]
X = np.arange(3)
TRUE_SLOPE, GAP_SD = 0.8, 0.25


def simulate(seed, schools=40, pupils=25, reliability=0.8, random_slope=0.0):
    """Schools differ in intake, level and gap; the error is 1.7 times as large for low attainers as for high ones."""
    rng = np.random.default_rng(seed)
    code = np.repeat(np.arange(schools), pupils)
    need = (rng.random(code.size) < 0.25).astype(float)
    true = rng.normal(0, 0.5, schools)[code] + rng.normal(size=code.size) - 0.8 * need
    sem = np.sqrt(1 / reliability - 1) * np.where(true < 0, 1.2, 0.7)
    prior = true + sem * rng.normal(size=code.size)
    u, gap, slope = rng.normal(0, 0.3, schools), rng.normal(0, GAP_SD, schools), rng.normal(0, random_slope, schools)
    y = (TRUE_SLOPE + slope[code]) * true + u[code] + (gap[code] - 0.2) * need + rng.normal(0, 0.6, code.size)
    rows = np.column_stack([np.ones(code.size), need, prior, y])
    return rows, code, sem, true, u + gap


def products_of(rows, code, sem, schools=40):
    return cross_products(rows, code, schools, COLUMNS), {"prior": error_sums(sem, code, schools)}


# Fuller (1987), Measurement Error Models, doi:10.1002/9780470316665, example 1.2.1: corn yields on soil nitrogen of 11
# plots, error variance of nitrogen 57. Published slope 0.4232 and intercept 67.56 (four digits, hence the tolerance).
NITROGEN = np.array([70, 97, 53, 64, 95, 64, 50, 70, 94, 69, 51], dtype=float)
YIELD = np.array([86, 115, 90, 86, 110, 91, 99, 96, 99, 104, 96], dtype=float)


def test_fuller_corn_yields():
    rows = np.column_stack([np.ones(11), NITROGEN, YIELD])
    raw = cross_products(rows, np.zeros(11, dtype=int), 1, ("Intercept", "nitrogen", "yield"))
    total = correct_cross_products(raw, {"nitrogen": np.array([57.0 * 10])}).total  # Fuller divides by n - 1
    intercept, slope = np.linalg.solve(total[:2, :2], total[:2, 2])
    assert slope == pytest.approx(0.4232, abs=5e-5)
    assert intercept == pytest.approx(67.56, abs=5e-3)
    assert prior_reliability(NITROGEN, np.full(11, 57.0**0.5)) == pytest.approx(1 - 57.0 / 304.8545, abs=1e-6)


def test_reliability_is_the_classical_attenuation():
    """In simple regression the naive slope is reliability times the true one, so dividing gives the corrected slope."""
    rng = np.random.default_rng(2)
    sem = rng.uniform(0.3, 0.8, 500)
    score = rng.normal(size=500) + sem * rng.normal(size=500)
    y = score + rng.normal(size=500)
    centred = np.column_stack([score - score.mean(), y - y.mean()])
    raw = cross_products(centred, np.zeros(500, dtype=int), 1, ("score", "y"))
    naive = raw.total[0, 1] / raw.total[0, 0]
    corrected = correct_cross_products(raw, {"score": np.array([499 * np.mean(sem**2)])}).total
    assert corrected[0, 1] / corrected[0, 0] == pytest.approx(naive / prior_reliability(score, sem), rel=1e-12)


def test_slopes_recover_simulated_truth():
    """Naive slopes are attenuated; corrected ones are right within two Monte Carlo errors, and so is their error."""
    found = []
    for seed in range(40):
        rows, code, sem, _, _ = simulate(seed)
        products, error = products_of(rows, code, sem)
        naive = fit_nested(products, LEVEL, X, 3).beta[2]
        slopes = corrected_slopes(products, error, LEVEL, X, 3)
        found.append((naive, slopes.estimate[0], np.sqrt(slopes.cov[0, 0])))
    naive, corrected, se = np.array(found).T
    spread = corrected.std(ddof=1)
    assert abs(corrected.mean() - TRUE_SLOPE) < 2 * spread / np.sqrt(40)
    assert naive.mean() < TRUE_SLOPE - 0.1
    assert 0.75 < se.mean() / spread < 1.35  # 40 runs know the SD to 11 %


def test_second_step_gives_the_variance_and_the_effects_of_schools():
    """Effects from corrected cross-products alone overstate the gap's variance; after the second step they do not."""
    direct, second, covered, tilt, naive_tilt = [], [], [], [], []
    for seed in range(20):
        rows, code, sem, true, theta = simulate(seed)
        products, error = products_of(rows, code, sem)
        rng = np.random.default_rng(seed)
        slopes = corrected_slopes(products, error, LEVEL, X, 3)
        direct.append(fit_nested(correct_cross_products(products, error), LEVEL, X, 3).covariances[0][1, 1])
        adjusted = adjust_outcome(products, "y", slopes)
        solution = fit_nested(adjusted, LEVEL, X[:2], 3)
        second.append(solution.covariances[0][1, 1])
        drawn = draw_effects_with_slopes(solution, adjusted, slopes, 400, rng).sum(axis=2)
        lower, upper = np.quantile(drawn, [0.025, 0.975], axis=0)
        covered.append(np.mean((lower <= theta) & (theta <= upper)))
        intake = np.bincount(code, weights=true) / 25
        naive = fit_nested(products, LEVEL, X, 3).modes[0].sum(axis=1)
        tilt.append(np.polyfit(intake, drawn.mean(axis=0) - theta, 1)[0])
        naive_tilt.append(np.polyfit(intake, naive - theta, 1)[0])
    mc = np.std(second, ddof=1) / np.sqrt(20)
    assert abs(np.mean(second) - GAP_SD**2) < 2 * mc
    assert np.mean(direct) > np.mean(second) + 2 * mc
    assert np.mean(covered) > 0.89  # plug-in variances, six pupils with need a school
    assert np.mean(naive_tilt) > 0.08  # schools with high intakes look better than they are
    assert abs(np.mean(tilt)) < 2 * np.std(tilt, ddof=1) / np.sqrt(20)


def test_random_slope_on_a_score_with_error():
    """The slope's column carries the same error, scaled; its variance and the slope itself are recovered."""
    rows, code, sem, _, _ = simulate(5, schools=300, pupils=40, random_slope=0.15)
    wide = np.column_stack([rows[:, :3], (rows[:, 2] - 0.3) / 2.0, rows[:, 3]])
    names = ("Intercept", "need", "prior", "prior_slope", "y")
    products, aliases = cross_products(wide, code, 300, names), {"prior_slope": ("prior", 0.5)}
    error, level = {"prior": error_sums(sem, code, 300)}, [Level(np.array([0, 1, 3]))]
    slopes = corrected_slopes(products, error, level, X, 4, aliases=aliases)
    assert slopes.estimate[0] == pytest.approx(TRUE_SLOPE, abs=3 * np.sqrt(slopes.cov[0, 0]))
    corrected = correct_cross_products(products, error, aliases=aliases)
    solution = fit_nested(adjust_outcome(corrected, "y", slopes, error), level, X[:2], 4)
    assert np.sqrt(solution.covariances[0][2, 2]) / 2.0 == pytest.approx(0.15, abs=0.03)  # 300 schools: SE about .01
    assert abs(solution.modes[0][:, 2].mean()) / 2.0 < 0.02  # nothing of the average slope is left to the schools


@pytest.mark.parametrize("nested", [False, True])
def test_clustered_covariance_equals_dense_algebra(nested):
    """The sandwich from cross-products is the textbook one: V from the same variances, clusters = outermost groups."""
    rows, code, sem, _, _ = simulate(3, schools=12, pupils=8)
    area = np.repeat(np.arange(4), 3) if nested else np.arange(12)
    products, error = products_of(rows, code, np.zeros_like(sem), 12)
    levels = [Level(np.array([0, 1]), area), Level(np.array([0]))] if nested else LEVEL
    slopes = corrected_slopes(products, error, levels, X, 3)
    fit = fit_nested(products, levels, X, 3)
    bread, meat = np.zeros((3, 3)), np.zeros((3, 3))
    for cluster in range(area.max() + 1):
        at = np.isin(code, np.flatnonzero(area == cluster))
        own, school = rows[at], code[at]
        same = school[:, None] == school[None, :]
        v = fit.scale * np.eye(at.sum()) + same * (own[:, :2] @ fit.covariances[0] @ own[:, :2].T)
        if nested:
            v += fit.covariances[1][0, 0]
        weighted = np.linalg.solve(v, own[:, :3])
        bread += own[:, :3].T @ weighted
        score = weighted.T @ (own[:, 3] - own[:, :3] @ fit.beta)
        meat += np.outer(score, score)
    clusters = area.max() + 1
    cov = np.linalg.inv(bread) @ meat @ np.linalg.inv(bread) * clusters / (clusters - 1)
    assert slopes.cov[0, 0] == pytest.approx(cov[2, 2], rel=1e-6)


def test_adjusted_outcome_equals_another_pass():
    rows, code, sem, _, _ = simulate(2)
    products, _ = products_of(rows, code, sem)
    slopes = PriorSlopes(("prior",), np.array([0.7]), np.zeros((1, 1)))
    by_hand = rows.copy()
    by_hand[:, 3] -= 0.7 * rows[:, 2]
    adjusted = adjust_outcome(products, "y", slopes)
    assert adjusted.products == pytest.approx(cross_products(by_hand, code, 40, COLUMNS).products, abs=1e-9)
    data = pd.DataFrame({"need": rows[:, 1], "y": by_hand[:, 3], "school": code})
    reference = fit_gaussian("y ~ need", data, {"school": "1 + need"})
    assert fit_nested(adjusted, LEVEL, X[:2], 3).llf == pytest.approx(reference.llf, abs=1e-7)


def test_draws_carry_the_error_of_the_slope():
    """At fixed variances, effects move with the slope by G Z'P times the score: dense algebra, seven digits."""
    rows, code, sem, _, _ = simulate(4, schools=6, pupils=10)
    products, _ = products_of(rows, code, sem, 6)
    at = PriorSlopes(("prior",), np.array([0.8]), np.array([[4.0]]))
    adjusted = adjust_outcome(products, "y", at)
    solution = fit_nested(adjusted, LEVEL, X[:2], 3)
    with_error = draw_effects_with_slopes(solution, adjusted, at, 3, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    without = draw_effects(solution, 3, rng)
    error = 2.0 * rng.standard_normal((3, 1))[:, 0]
    indicator = np.equal.outer(code, np.arange(6)).astype(float)
    z = np.stack([indicator, indicator * rows[:, [1]]], axis=2).reshape(60, 12)
    g = np.kron(np.eye(6), solution.covariances[0])
    inverse = np.linalg.inv(z @ g @ z.T + solution.scale * np.eye(60))
    x = rows[:, :2]
    project = inverse - inverse @ x @ np.linalg.solve(x.T @ inverse @ x, x.T @ inverse)
    moves = (g @ z.T @ project @ rows[:, 2]).reshape(6, 2)
    assert np.abs(error).min() > 0.1
    assert with_error == pytest.approx(without - error[:, None, None] * moves, abs=1e-7)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 0.4), st.floats(-3.0, 3.0))
def test_correction_adds_up_over_partitions(seed, sem, factor):
    """Correcting two halves of the records and adding is correcting the whole."""
    rng = np.random.default_rng(seed)
    score = rng.normal(size=60)
    rows = np.column_stack([np.ones(60), score, factor * score - 1.0, rng.normal(size=60)])
    code, errors, names = rng.integers(0, 3, 60), np.full(60, sem), ("Intercept", "prior", "moved", "y")

    def corrected(at):
        sums = {"prior": error_sums(errors[at], code[at], 3)}
        raw = cross_products(rows[at], code[at], 3, names)
        return correct_cross_products(raw, sums, aliases={"moved": ("prior", factor)})

    halves = corrected(np.arange(30)) + corrected(np.arange(30, 60))
    assert halves.products == pytest.approx(corrected(np.arange(60)).products, abs=1e-9)


def test_refuses_what_cannot_be_corrected():
    rows, code, sem, _, _ = simulate(0)
    products, error = products_of(rows, code, sem)
    with pytest.raises(InputError, match=r"reliability it implies is prior -?0\.\d\d.*check their unit"):
        correct_cross_products(products, {"prior": 6.0 * error["prior"]})
    spline = CrossProducts(("Intercept", "bs(prior, df=4)[1]", "prior", "y"), *_arrays(products))
    with pytest.raises(NotSupportedError, match=r"bs\(prior, df=4\)\[1\].*instrument"):
        correct_cross_products(spline, error)
    product = CrossProducts(("Intercept", "need:prior", "prior", "y"), *_arrays(products))
    with pytest.raises(NotSupportedError, match="need:prior"):
        correct_cross_products(product, error)
    assert correct_cross_products(product, error, error_free=["need:prior"]).n_groups == 40
    with pytest.raises(InputError, match="prior: error variance must be one sum for each of 40 groups"):
        correct_cross_products(products, {"prior": np.ones(3)})
    with pytest.raises(InputError, match="hold no column reading"):
        correct_cross_products(products, {"reading": error["prior"]})
    with pytest.raises(InputError, match="prior: not among the fixed effects"):
        corrected_slopes(products, error, LEVEL, X[:2], 3)
    with pytest.raises(InputError, match=r"2 rows fail; rows 2, 5; values nan, -1\.0"):
        error_sums(np.array([1.0, np.nan, 0.0, 2.0, -1.0]), np.zeros(5, dtype=int), 1)
    with pytest.raises(InputError, match="same unit"):
        prior_reliability(np.array([1.0, 2.0, 3.0]), np.full(3, 10.0))


def _arrays(products):
    return products.products, products.counts, products.center


# AER 1.2-10 ivreg and sandwich 3.0-2 (R 4.2.2) on testscores.csv, all columns less their school means:
#   m <- ivreg(math ~ 0 + math_lag1 + sped + frl | 0 + lang_lag1 + sped + frl)
#   vcovCL(m, cluster = schoolid, type = "HC0", cadjust = FALSE); summary(m, diagnostics = TRUE)
# and lm() for the first stage. linearmodels multiplies the clustered covariance by G/(G-1) * (n-1)/(n-k), with
# G = 21, n = 4853, k = 3. Closed forms, so the digits printed by R must agree.
AER = {"slope": 0.962080053082, "se_hc0": 0.0453436399, "ols": 0.737771247241, "f_hc0": 794.4955805, "wh": 395.9811341}
SMALL_SAMPLE = 21 / 20 * 4852 / 4850


@pytest.fixture(scope="module")
def testscores(shared_data):
    return pd.read_csv(shared_data / "pupils" / "testscores.csv")


def test_instrument_equals_ivreg(testscores):
    slope = instrumented_slope(
        testscores,
        outcome="math",
        prior="math_lag1",
        instrument="lang_lag1",
        school="schoolid",
        covariates="sped + frl",
    )
    assert slope.coefficient == pytest.approx(AER["slope"], rel=1e-8)
    assert slope.coefficient_ols == pytest.approx(AER["ols"], rel=1e-8)
    assert slope.se == pytest.approx(AER["se_hc0"] * SMALL_SAMPLE**0.5, rel=1e-7)
    assert slope.first_stage_f == pytest.approx(AER["f_hc0"] / SMALL_SAMPLE, rel=1e-7)
    assert slope.wu_hausman == pytest.approx(AER["wh"], rel=1e-7)
    assert slope.implied_reliability == pytest.approx(AER["ols"] / AER["slope"], rel=1e-8)
    assert "instrumented by lang_lag1: 0.9621" in str(slope)


def test_instrument_recovers_simulated_truth():
    estimates = []
    for seed in range(20):
        rows, code, _, true, _ = simulate(seed)
        second = true + np.random.default_rng(1000 + seed).normal(0, 0.5, code.size)
        data = pd.DataFrame(rows[:, 1:], columns=["need", "prior", "y"]).assign(school=code, second=second)
        slope = instrumented_slope(
            data, outcome="y", prior="prior", instrument="second", school="school", covariates="need"
        )
        estimates.append((slope.coefficient, slope.se, slope.coefficient_ols))
    estimate, se, ols = np.array(estimates).T
    assert abs(estimate.mean() - TRUE_SLOPE) < 2 * estimate.std(ddof=1) / np.sqrt(20)
    assert ols.mean() < TRUE_SLOPE - 0.1
    assert 0.7 < se.mean() / estimate.std(ddof=1) < 1.4  # 20 runs know the SD to 16 %


def test_instrument_refusals():
    rows, code, _, true, _ = simulate(0)
    rng = np.random.default_rng(0)
    data = pd.DataFrame(rows[:, 1:], columns=["need", "prior", "y"]).assign(
        school=code, second=true, copy=2 * rows[:, 2] - 1, noise=rng.normal(size=code.size), mean=code / 7.0, one=1
    )

    def run(**changes):
        given = {"outcome": "y", "prior": "prior", "instrument": "second", "school": "school", "covariates": "need"}
        return instrumented_slope(data, **(given | changes))

    with pytest.raises(InputError, match="only one prior score"):
        run(instrument=None)
    with pytest.raises(InputError, match="the instrument is the prior score itself"):
        run(instrument="prior")
    with pytest.raises(InputError, match="copy or linear transform of prior"):
        run(instrument="copy")
    with pytest.raises(InputError, match="second: the prior score and its instrument cannot be covariates too"):
        run(covariates="need + second")
    with pytest.raises(CollinearityError, match="mean: does not vary among pupils of the same school"):
        run(covariates="need + mean")
    with pytest.raises(InputError, match=r"thrid.*is not a column"):
        run(instrument="thrid")
    with pytest.raises(InputError, match="two schools"):
        run(school="one")
    with pytest.warns(WeakInstrumentWarning, match=r"noise is a weak instrument for prior: first-stage F \d\.\d"):
        run(instrument="noise")
    data.loc[3, "second"] = np.nan
    with pytest.raises(InputError, match="second: has missing values; 1 row fails; rows 4"):
        run()
