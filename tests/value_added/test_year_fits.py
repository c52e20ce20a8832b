"""From records of several cohorts to drift: one fit, cohorts on one scale, errors that cohorts share."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import send_va as sv
from send_va.errors import InputError, NotSupportedError
from send_va.records.simulator import SCENARIOS

ROLES = {
    "pupil": "pupil",
    "school": "school",
    "cohort": "cohort",
    "outcome": "outcome",
    "prior": ["prior"],
    "sen_status": "sen_status",
    "context": ["fsm6"],
}


def years(seed: int = 1, **options: object) -> sv.SimulatedYears:
    kept: dict[str, object] = {"schools": 100, "pupils_per_school": 60.0, "cohorts": 3, "ahead": 1} | options
    return sv.simulate_years(np.random.default_rng(seed), **kept)  # type: ignore[arg-type]


def fitted(pupils: pd.DataFrame, **options: object) -> sv.Drift:
    cohort = sv.Cohort.from_pandas(pupils, ROLES, outcome_range=(None, None), synthetic=True)
    return sv.fit_drift(cohort, prior_knots=0, draws=200, horizon=1, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def world() -> sv.SimulatedYears:
    return years()


@pytest.fixture(scope="module")
def drift(world: sv.SimulatedYears) -> sv.Drift:
    return fitted(world.pupils)


def test_forecasts_follow_the_truth(world: sv.SimulatedYears, drift: sv.Drift) -> None:
    truth = world.truth[world.truth["cohort"] == "2021/22"].set_index("school")
    assert drift.effects.attrs["cohort"] == "2021/22"
    for measure, least in (("u", 0.6), ("theta", 0.5)):
        table = drift.forecast[drift.forecast["measure"] == measure]
        true = truth.loc[table["school"].astype(int), measure].to_numpy()
        assert np.corrcoef(table["mean"], true)[0, 1] > least
        inside = ((table["lower"] <= true) & (true <= table["upper"])).mean()
        assert inside > 0.88  # 100 schools: 95 % is 2.2 % away
    assert drift.effects.attrs["estimator"] == "labelled" and drift.effects.attrs["synthetic"] == 1
    assert (drift.forecast["n_cohorts"] <= 3).all()


def test_harder_marking_in_one_cohort_changes_nothing(world: sv.SimulatedYears, drift: sv.Drift) -> None:
    pupils = world.pupils.copy()
    one = pupils["cohort"] == "2019/20"
    pupils.loc[one, "outcome"] -= 25.0
    pupils["cohort"] = pupils["cohort"].map({"2018/19": "2018-19", "2019/20": "201920", "2020/21": "2021"})
    moved = fitted(pupils)
    both = [found.autocovariance["covariance"].dropna() for found in (drift, moved)]
    np.testing.assert_allclose(both[1], both[0], rtol=1e-6)
    np.testing.assert_allclose(moved.forecast["mean"], drift.forecast["mean"], atol=1e-6)


def test_slopes_of_schools_are_not_taken_for_effects_that_last() -> None:
    scenario = replace(SCENARIOS["independent"], slope_sd=0.3, u_sd=0.3, delta=0.0, bounded=False)
    drifting = years(2, schools=200, scenario=scenario, lasting=0.0, persistence=0.0)
    lags = fitted(drifting.pupils).autocovariance.set_index(["measure", "lag"])
    # Left in, slopes give u of two cohorts of a school a correlation: pupils without need have higher prior scores than
    # the reference. Nobody's need touches outcomes here, so that leniency, which lasts, cannot do so either.
    for lag in (1, 2):
        assert abs(lags.loc[("u", lag), "correlation"]) < 3.0 * lags.loc[("u", lag), "se"]


def test_a_school_that_opened_last_year(world: sv.SimulatedYears) -> None:
    gone = (world.pupils["school"] == 900_001) & (world.pupils["cohort"] != "2020/21")
    table = fitted(world.pupils[~gone]).forecast.query("school == '900001' and measure == 'u'")
    assert table["flag"].item() == "estimate in one cohort only" and table["n_cohorts"].item() == 1
    assert table["mean"].notna().item() and table["last_cohort"].item() == "2020/21"


def test_records_without_years_are_refused(world: sv.SimulatedYears) -> None:
    pupils = world.pupils[world.pupils["school"] < 900_013].reset_index(drop=True)
    with pytest.raises(InputError, match="all records are of one cohort, 2018/19"):
        fitted(pupils[pupils["cohort"] == "2018/19"])
    with pytest.raises(InputError, match="no academic year, so that cohorts cannot be put in order") as told:
        fitted(pupils.assign(cohort=pupils["cohort"].replace("2018/19", "first")))
    assert "'first'" in str(told.value)
    with pytest.raises(InputError, match="missing for complete records"):
        fitted(pupils.assign(cohort=pupils["cohort"].where(pupils.index > 5)))
    without = sv.Cohort.from_pandas(pupils, {key: value for key, value in ROLES.items() if key != "cohort"})
    with pytest.raises(InputError, match="no role cohort"):
        sv.fit_drift(without)
    with pytest.raises(InputError, match="needs estimates of need"):
        fitted(pupils, estimator="entry")
    with pytest.raises(NotSupportedError, match="no estimator 'best'"):
        fitted(pupils, estimator="best")


def test_schools_that_never_meet_in_two_cohorts_are_refused(world: sv.SimulatedYears) -> None:
    pupils = world.pupils[world.pupils["cohort"] != "2020/21"]
    half = pupils["school"] < 900_051
    apart = pupils[half == (pupils["cohort"] == "2018/19")]
    with pytest.raises(InputError, match="0 schools have estimates in two cohorts"):
        fitted(apart)
