"""Forecast bias: against statsmodels, and where the truth is known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from send_va.errors import InputError
from send_va.validation.falsification_worlds import FalsificationWorld
from send_va.validation.forecast import forecast_bias, leave_year_out
from send_va.value_added.year_estimates import YearEstimates

WORLD = FalsificationWorld(schools=300, cohorts=4)


def years(world: FalsificationWorld = WORLD, seed: int = 1) -> YearEstimates:
    return world.draw(np.random.default_rng(seed)).year_estimates()


def test_coefficient_and_given_standard_error_are_those_of_weighted_least_squares_clustered_by_school() -> None:
    found = forecast_bias(years(replace(WORLD, schools=50)), groups=10)
    for kind in ("plain", "drift"):
        rows = found.rows[found.rows["prediction"] == kind]
        row = found.table.set_index("prediction").loc[kind]
        dummies = np.eye(2)[pd.factorize(rows["cohort"])[0]]
        x = np.column_stack([rows["predicted"], dummies])
        codes = rows["school"].astype(int).to_numpy()
        fit = sm.WLS(rows["shown"].to_numpy(), x, weights=rows["weight"].to_numpy())
        outside = fit.fit(cov_type="cluster", cov_kwds={"groups": codes, "use_correction": False})
        assert row["coefficient"] == pytest.approx(outside.params[0], rel=1e-9)
        # Cohort means were taken out before: the cluster scores are the same.
        assert row["se_given"] == pytest.approx(outside.bse[0] * np.sqrt(50 / 49), rel=1e-6)
        assert row["rows"] == 100 and row["targets"] == 2


def test_effects_that_last_are_foretold_and_drift_is_seen_by_the_plain_prediction_only() -> None:
    steady = forecast_bias(years(), groups=20).table.set_index("prediction")
    assert (steady["verdict"] == "nothing found").all()
    # Four standard errors of .03 either way.
    assert steady["coefficient"].between(0.88, 1.12).all()
    moved = forecast_bias(years(replace(WORLD, violation="drift", amount=0.3)), groups=20)
    table = moved.table.set_index("prediction")
    assert table.loc["plain", "verdict"] == "too bold" and table.loc["plain", "coefficient"] < 0.85
    assert table.loc["drift", "verdict"] == "nothing found"


def test_sorting_that_lasts_is_not_seen_and_the_result_says_so() -> None:
    world = replace(WORLD, violation="sorting", amount=0.4)  # .1 pupil SD
    found = forecast_bias(years(world), groups=20)
    assert found.table["coefficient"].between(0.88, 1.12).all()
    assert "cannot see sorting that lasts" in str(found)


def test_too_little_shrinkage_is_too_bold() -> None:
    """Where errors are understated the plain prediction is; the other goes by covariances between cohorts."""
    made = years(replace(WORLD, pupils=8, cohorts=3))
    understated = {name: value / 10.0 for name, value in made.error.items()}
    table = forecast_bias(replace(made, error=understated), groups=20).table
    assert table["verdict"].tolist() == ["too bold", "nothing found"]


def test_error_that_cohorts_share_is_taken_out() -> None:
    """A shared error is foretold as well as an effect: left in, the coefficient would be about .04 too high."""
    slopes = []
    for seed in range(6):
        made = years(WORLD, seed)
        rng = np.random.default_rng([5, seed])
        shared = 0.1
        value = {"theta": made.estimate["theta"] + shared * rng.standard_normal((300, 1))}
        error = {"theta": made.error["theta"] + shared**2}
        slopes.append(forecast_bias(replace(made, estimate=value, error=error), groups=2).table["coefficient"])
    assert np.mean(slopes, axis=0) == pytest.approx([1.0, 1.0], abs=0.05)  # four errors of the mean of six


def test_two_cohorts_have_the_plain_prediction_and_one_none() -> None:
    found = forecast_bias(years(replace(WORLD, cohorts=2)), rng=np.random.default_rng(1))
    assert found.table["prediction"].tolist() == ["plain"] and "plain one only" in found.notes[0]
    with pytest.raises(InputError, match="one cohort foretells nothing"):
        forecast_bias(years(replace(WORLD, cohorts=1)))


def test_schools_without_some_years_and_few_schools() -> None:
    made = years(replace(WORLD, schools=35))
    value = made.estimate["theta"].copy()
    value[:5, 3], value[5:8, :2], value[9, :3] = np.nan, np.nan, np.nan
    found = forecast_bias(replace(made, estimate={"theta": value}))
    assert "35 schools only" in found.notes[0] or "34 schools only" in found.notes[0]
    assert found.table["rows"].tolist() == [70 - 5 - 3 - 2, 70 - 5 - 3 - 2]
    predicted = leave_year_out(replace(made, estimate={"theta": value}))
    assert np.isfinite(predicted[5:8, 0]).all() and np.isfinite(predicted[9, :3]).all()
    assert np.isnan(predicted[9, 3])


def test_predictions_without_a_year_do_not_change_with_it() -> None:
    made = years(replace(WORLD, schools=40))
    value = made.estimate["theta"].copy()
    value[:, 2] = np.random.default_rng(1).standard_normal(40)
    again = leave_year_out(replace(made, estimate={"theta": value}))
    np.testing.assert_array_equal(again[:, 2], leave_year_out(made)[:, 2])
    two = years(replace(WORLD, schools=40, cohorts=2))
    assert np.corrcoef(leave_year_out(two)[:, 0], two.estimate["theta"][:, 1])[0, 1] == pytest.approx(1.0)


def test_bad_inputs() -> None:
    made = years(replace(WORLD, schools=12))
    with pytest.raises(InputError, match="no measure 'gap'"):
        forecast_bias(made, measure="gap")
    with pytest.raises(InputError, match="coverage"):
        forecast_bias(made, coverage=0.0)
    value = np.where(np.arange(12)[:, None] < 4, np.nan, made.estimate["theta"])
    with pytest.raises(InputError, match="8 schools"):
        forecast_bias(replace(made, estimate={"theta": value}))
    noisy = {"theta": 50.0 * made.error["theta"]}
    with pytest.raises(InputError, match="no variance between schools"):
        forecast_bias(replace(made, error=noisy))
