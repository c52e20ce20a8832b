"""Drift: autocovariances and best linear predictors against known truth and closed forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import solve_toeplitz, toeplitz

import send_va as sv
from send_va.effects import SchoolEffects, school_effects
from send_va.errors import InputError
from send_va.value_added.autocovariance import BEYOND, autocovariance, convex_sequence, extended
from send_va.value_added.best_linear import best_linear, plain_average
from send_va.value_added.drift import NO_COHORT, ONE_COHORT, Drift, estimate_drift
from send_va.value_added.year_estimates import YearEstimates, diagonal

LASTING, PERSISTENCE, VARIANCE = 0.6, 0.6, 0.09


def true_autocovariance(lags: int) -> np.ndarray:
    return VARIANCE * (LASTING + (1 - LASTING) * PERSISTENCE ** np.arange(lags))


def world(
    seed: int, schools: int = 400, years: int = 4, ahead: int = 6, missing: float = 0.1
) -> tuple[YearEstimates, np.ndarray]:
    """Estimates of `years` cohorts, and the true effects of these and `ahead` more; national means differ."""
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky(toeplitz(true_autocovariance(years + ahead)))
    true = rng.standard_normal((schools, years + ahead)) @ root.T
    se = rng.uniform(0.08, 0.35, (schools, years))
    seen = true[:, :years] + se * rng.standard_normal(se.shape) + 5.0 * np.arange(years)
    seen[rng.random(se.shape) < missing] = np.nan
    return estimates_of(seen, diagonal(se**2)), true


def estimates_of(seen: np.ndarray, error: np.ndarray, years: tuple[int, ...] = ()) -> YearEstimates:
    schools, n = seen.shape
    counts = np.where(np.isfinite(seen), 20, 0)
    ends = np.array(years or range(2025 - n, 2025))
    attrs = {"estimator": "entry", "context": "cva", "unit": "pupil SDs"}
    names = tuple(str(k) for k in range(schools))
    return YearEstimates(
        names, ends, {"theta": seen}, {"theta": error}, counts, counts, np.zeros(schools, dtype=bool), attrs
    )


def drift_of(estimates: YearEstimates, **options: object) -> Drift:
    return estimate_drift(estimates, rng=np.random.default_rng(3), **options)  # type: ignore[arg-type]


def test_known_autocovariances_are_recovered_within_monte_carlo_error() -> None:
    runs = [autocovariance(e.estimate["theta"], e.error["theta"], e.years) for e, _ in map(world, range(40))]
    moments = np.stack([run.moments for run in runs])
    mean, se = moments.mean(axis=0), moments.std(axis=0, ddof=1) / np.sqrt(len(runs))
    assert (np.abs(mean - true_autocovariance(4)) < 3.0 * se).all()
    said = np.stack([np.sqrt(np.diag(run.covariance)) for run in runs]).mean(axis=0)
    np.testing.assert_allclose(said, moments.std(axis=0, ddof=1), rtol=0.35)  # the spread itself is known to 11 %


def test_correlations_have_honest_standard_errors() -> None:
    truth = true_autocovariance(4) / VARIANCE
    inside = []
    for seed in range(60):
        estimates, _ = world(seed)
        found = autocovariance(estimates.estimate["theta"], estimates.error["theta"], estimates.years)
        inside.append(np.abs(found.correlation - truth)[1:] <= 1.96 * found.correlation_se[1:])
    assert 0.88 <= np.mean(inside) <= 0.99


def test_shared_errors_are_not_taken_for_effects_that_last() -> None:
    rng = np.random.default_rng(1)
    schools = 6000
    noise = np.full((3, 3), 0.04) + 0.05 * np.eye(3)  # of each school's three estimates, .04 of it shared
    true = 0.3 * rng.standard_normal((schools, 3))  # nothing lasts
    seen = true + rng.multivariate_normal(np.zeros(3), noise, schools)
    years = np.array([2022, 2023, 2024])
    shared = autocovariance(seen, np.tile(noise, (schools, 1, 1)), years)
    ignored = autocovariance(seen, np.tile(np.diag(np.diag(noise)), (schools, 1, 1)), years)
    assert abs(shared.moments[1]) < 3.0 * np.sqrt(shared.covariance[1, 1])
    assert ignored.moments[1] > 0.03


def test_prediction_is_the_conditional_normal_mean_by_hand() -> None:
    # One school, two cohorts; effects have variance 1 and correlation 1/2 a year, errors variance 1. For the cohort
    # one year after the last: weights [[2, .5], [.5, 2]]^-1 [1/4, 1/2] = [1/15, 7/30].
    between = np.array([[1.0, 0.5], [0.5, 1.0]])
    found = best_linear(np.array([[2.0, 1.0]]), np.eye(2)[None], between, np.array([0.25, 0.5]), 1.0)
    np.testing.assert_allclose(found.mean, 2 / 15 + 7 / 30, rtol=1e-8)
    np.testing.assert_allclose(found.sd**2, 1 - (0.25 / 15 + 0.5 * 7 / 30), rtol=1e-8)
    np.testing.assert_allclose(found.reliability, 0.25 / 15 + 0.5 * 7 / 30, rtol=1e-8)


def test_equal_errors_give_the_weights_of_chetty_friedman_and_rockoff() -> None:
    # Their equation (6): psi = Sigma^-1 gamma, one vector for all, Sigma a Toeplitz matrix with sigma_A on the diagonal
    # (the variance of a year's mean, error included); solved here by Levinson's recursion.
    sigma, noise, years = true_autocovariance(8), 0.03, 5
    column = sigma[:years].copy()
    column[0] += noise
    gamma = sigma[1 : years + 1][::-1]
    psi = solve_toeplitz(column, gamma)
    found = best_linear(
        np.eye(years), np.tile(noise * np.eye(years), (years, 1, 1)), toeplitz(sigma[:years]), gamma, sigma[0]
    )
    np.testing.assert_allclose(found.mean, psi, rtol=1e-7)


def test_missing_cohorts_are_left_out_of_the_system() -> None:
    sigma = true_autocovariance(4)
    between, to_target = toeplitz(sigma[:3]), sigma[1:][::-1]
    error = np.diag([0.02, 0.05, 0.03])
    gap = best_linear(np.array([[0.2, np.nan, -0.1]]), error[None], between, to_target, sigma[0])
    kept = [0, 2]
    two = best_linear(
        np.array([[0.2, -0.1]]), error[np.ix_(kept, kept)][None], between[np.ix_(kept, kept)], to_target[kept], sigma[0]
    )
    np.testing.assert_allclose([gap.mean, gap.sd], [two.mean, two.sd], rtol=1e-8)
    average, se, n = plain_average(np.array([[0.2, np.nan, -0.1]]), error[None])
    np.testing.assert_allclose(average, (0.2 / 0.02 - 0.1 / 0.03) / (1 / 0.02 + 1 / 0.03))
    np.testing.assert_allclose(se, (1 / 0.02 + 1 / 0.03) ** -0.5)
    assert n.tolist() == [2]


@pytest.mark.parametrize("horizon", [1, 2])
def test_forecasts_beat_simpler_ones_and_intervals_cover(horizon: int) -> None:
    cover, errors = [], []
    for seed in range(20):
        estimates, truth = world(seed, missing=0.0)
        drift = drift_of(estimates, horizon=horizon, draws=400)
        true = truth[:, 3 + horizon]
        table, average = drift.forecast, drift.averages
        cover.append(((table["lower"] <= true) & (true <= table["upper"])).mean())
        centred = estimates.estimate["theta"] - estimates.estimate["theta"].mean(axis=0)
        last, noise = centred[:, -1], estimates.error["theta"][:, -1, -1]
        candidates = [table["mean"], average["mean"], average["estimate"], last * VARIANCE / (VARIANCE + noise), last]
        errors.append([np.mean((np.asarray(guess) - true) ** 2) for guess in candidates])
    assert abs(np.mean(cover) - 0.95) < 0.02  # Monte-Carlo SE .005
    rmse = np.sqrt(np.mean(errors, axis=0))
    assert rmse[0] < rmse[1] < rmse[2]
    assert rmse[0] < 0.97 * rmse[3] < 0.97 * rmse[4]


def test_reliability_is_the_share_of_variance_foretold() -> None:
    estimates, truth = world(2, schools=4000)
    drift = drift_of(estimates, horizon=1, draws=100)
    table = drift.forecast
    r_squared = np.corrcoef(table["mean"], truth[:, 4])[0, 1] ** 2
    assert abs(table["reliability"].mean() - r_squared) < 0.04
    window = drift.averages
    r_squared = np.corrcoef(window["mean"].fillna(0.0), truth[:, 1:4].mean(axis=1))[0, 1] ** 2
    assert abs(window["reliability"].fillna(0.0).mean() - r_squared) < 0.04


@given(
    moments=st.lists(st.floats(-1.0, 1.0), min_size=2, max_size=6),
    held=st.floats(0.0, 1.0),
    to=st.integers(2, 15),
)
def test_sequences_are_positive_definite_at_any_horizon(moments: list[float], held: float, to: int) -> None:
    fitted = convex_sequence(np.array(moments), np.full(len(moments), 0.1))
    sequence = extended(fitted, len(moments) - 1, to, held)
    assert len(sequence) == to + 1 and (sequence >= 0).all()
    assert (np.diff(sequence) <= 1e-12).all() and (np.diff(sequence, 2) >= -1e-9).all()
    assert np.linalg.eigvalsh(toeplitz(sequence)).min() >= -1e-9


def test_valid_moments_are_left_as_they_are() -> None:
    moments = true_autocovariance(5)
    np.testing.assert_allclose(convex_sequence(moments, np.full(5, 0.01)), moments, atol=1e-9)


def test_lags_that_no_two_cohorts_have_are_filled_in() -> None:
    estimates, _ = world(1)
    kept = [0, 3]
    seen, error = estimates.estimate["theta"][:, kept], estimates.error["theta"][:, kept][:, :, kept]
    drift = drift_of(estimates_of(seen, error, (2019, 2022)), horizon=1)
    lags = drift.autocovariance
    assert lags.loc[lags["pairs"] > 0, "lag"].tolist() == [0, 3]
    assert lags["covariance"].notna().tolist() == [True, False, False, True, False]
    assert (np.diff(lags["fitted"]) <= 1e-12).all()
    assert drift.averages["n_cohorts"].max() == 1  # 2020, 2021, 2022
    assert drift.averages["cohorts"].unique().tolist() == ["2019/20 to 2021/22"]


def test_a_school_in_one_cohort_is_kept_and_flagged() -> None:
    estimates, _ = world(1, missing=0.0)
    estimates.estimate["theta"][0, 1:] = np.nan
    estimates.estimate["theta"][1, :] = np.nan
    drift = drift_of(estimates, horizon=1)
    table = drift.forecast.set_index("school")
    assert table.loc["0", "flag"] == ONE_COHORT and table.loc["0", "last_cohort"] == "2020/21"
    assert table.loc["1", "flag"] == NO_COHORT and table.loc["1", "reliability"] == 0.0 and table.loc["1", "mean"] == 0
    assert 0 < table.loc["0", "reliability"] < table.loc["2", "reliability"]
    average = drift.averages.set_index("school")
    assert average.loc[["0", "1"], "estimate"].isna().all() and average.loc["0", "n_cohorts"] == 0
    assert any(ONE_COHORT in note for note in drift.notes)


def test_lags_beyond_the_records_are_marked_and_bounded_by_the_assumptions() -> None:
    estimates, truth = world(4, schools=800)
    found = {beyond: drift_of(estimates, horizon=6, beyond=beyond) for beyond in BEYOND}
    known = {beyond: drift.forecast["reliability"].mean() for beyond, drift in found.items()}
    assert known["decay"] < known["between"] < known["hold"]
    for beyond, drift in found.items():
        assert (drift.forecast.loc[drift.forecast["n_cohorts"] > 0, "beyond"] == beyond).all()
        assert any("records reach to 3" in note for note in drift.notes)
    table = found["between"].forecast
    assert ((table["lower"] <= truth[:, 9]) & (truth[:, 9] <= table["upper"])).mean() > 0.93
    near = drift_of(estimates_of(estimates.estimate["theta"], estimates.error["theta"]), horizon=1)
    assert (near.forecast["cohort"] == "2024/25").all()


def test_ranks_and_the_same_bytes_again() -> None:
    estimates, _ = world(5, schools=50)
    first, second = drift_of(estimates, horizon=1, draws=300), drift_of(estimates, horizon=1, draws=300)
    np.testing.assert_array_equal(first.effects.draws(), second.effects.draws())
    ranks = sv.rank(first.effects).table
    assert ranks["expected_rank"].between(1, 50).all() and ranks["published"].all()
    assert "2024/25" in str(first) and "<table" in first._repr_html_()
    order = first.forecast.sort_values("mean", ascending=False)["school"].iloc[0]
    assert ranks.set_index("school").loc[order, "expected_rank"] < 10


def test_schools_that_do_not_differ_are_forecast_as_average() -> None:
    rng = np.random.default_rng(0)
    seen = 0.01 * rng.standard_normal((60, 3))
    drift = drift_of(estimates_of(seen, diagonal(np.full((60, 3), 0.25))), horizon=2)
    np.testing.assert_allclose(drift.forecast["mean"], 0.0)
    assert (drift.forecast["reliability"] == 0).all()
    assert any("do not differ" in note for note in drift.notes)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"horizon": 0}, "horizon must be 1 or more"),
        ({"average": 0}, "average must be 1 or more"),
        ({"beyond": "stop"}, "beyond cannot be 'stop'"),
        ({"coverage": 1.0}, "coverage must lie between"),
        ({"draws": 1}, "draws must be 2 or more"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        drift_of(world(1, schools=30)[0], **options)


def test_cohorts_that_share_no_school_are_refused() -> None:
    estimates, _ = world(1, schools=60, years=2)
    seen = estimates.estimate["theta"]
    seen[:30, 0] = seen[30:, 1] = np.nan
    with pytest.raises(InputError, match="0 schools have estimates in two cohorts"):
        drift_of(estimates)
    with pytest.raises(InputError, match="one cohort says nothing"):
        drift_of(estimates_of(seen[:, :1], np.ones((60, 1, 1))))
    with pytest.raises(InputError, match="no school has an estimate in 2023"):
        drift_of(estimates_of(np.column_stack([np.full(60, np.nan), seen[:, 1]]), np.ones((60, 2, 2))))


def effects(values: np.ndarray, schools: list[str], estimator: str = "entry") -> SchoolEffects:
    known = {"theta": {"estimate": values, "se": np.full(len(values), 0.2)}}
    counts = np.full(len(values), 12)
    return school_effects(
        schools,
        {"theta": np.zeros((2, len(values)))},
        known,
        n_pupils=counts,
        n_need=counts,
        flag=[""] * len(values),
        attrs={"estimator": estimator, "context": "cva", "unit": "points"},
    )


def test_effects_of_cohorts_estimated_by_themselves_are_gathered() -> None:
    seen = world(1, missing=0.0)[0].estimate["theta"]
    names = [str(k) for k in range(len(seen))]
    gathered = YearEstimates.of_effects(
        {"2024": effects(seen[1:, 1], names[1:]), "2022/23": effects(seen[:, 0], names)}
    )
    assert gathered.years.tolist() == [2023, 2024] and gathered.labels == ("2022/23", "2023/24")
    assert np.isnan(gathered.estimate["theta"][0, 1]) and gathered.n_pupils[0].tolist() == [12, 0]
    np.testing.assert_allclose(gathered.error["theta"][5], 0.04 * np.eye(2))
    assert len(drift_of(gathered, horizon=1).forecast) == len(names)


def test_effects_that_do_not_go_together_are_refused() -> None:
    one = effects(np.array([0.1, -0.1]), ["7", "8"])
    with pytest.raises(InputError, match="no academic year") as told:
        YearEstimates.of_effects({"2022/23": one, "spring": one})
    assert "'spring'" in str(told.value)
    with pytest.raises(InputError, match="the same academic year"):
        YearEstimates.of_effects({"2022/23": one, "2023": one})
    with pytest.raises(InputError, match="cohorts differ in estimator: entry, labelled"):
        YearEstimates.of_effects({"2022": one, "2023": effects(np.array([0.1, 0.2]), ["7", "8"], "labelled")})
    with pytest.raises(InputError, match="one cohort"):
        YearEstimates.of_effects({"2022": one})
