"""Stability between years, where it is known how much schools change."""

from dataclasses import replace

import numpy as np
import pytest

from send_va.errors import InputError
from send_va.validation.falsification_worlds import FalsificationWorld
from send_va.validation.stability import stability
from send_va.value_added.year_estimates import YearEstimates

WORLD = FalsificationWorld(schools=400, cohorts=3)


def years(world: FalsificationWorld = WORLD) -> YearEstimates:
    return world.draw(np.random.default_rng(2)).year_estimates()


def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def test_correlations_are_those_of_pairs_of_cohorts_with_the_error_taken_out() -> None:
    made = years()
    found = stability({"entry": made}, rng=rng()).correlations.set_index("lag")
    value = made.estimate["theta"]
    by_hand = np.corrcoef(value.T)
    assert found.loc[2, "raw"] == pytest.approx(by_hand[0, 2], abs=0.005)  # means weighted, variances pooled over pairs
    assert found.loc[1, "raw"] == pytest.approx((by_hand[0, 1] + by_hand[1, 2]) / 2, abs=0.005)
    noise = made.error["theta"][:, 0, 0].mean()
    assert found.loc[1, "reliability"] == pytest.approx(1 - noise / value.var(axis=0).mean(), abs=0.01)
    assert found.loc[1, "corrected"] == pytest.approx(found.loc[1, "raw"] / found.loc[1, "reliability"], abs=0.05)
    assert (found["lower"] < 1.0).all() and (found["upper"] > 1.0).all()  # effects do not change in this world


def test_quintiles_of_schools_that_do_not_change_move_as_chance_has_it() -> None:
    found = stability({"entry": years()}, rng=rng())
    row = found.quintiles.iloc[0]
    assert row["same_lower"] <= row["same"] <= row["same_upper"] and row["pairs"] == 800
    assert row["verdict"] == "as chance alone would have it"
    sums = found.transitions.groupby("before")[["share", "chance", "random"]].sum()
    np.testing.assert_allclose(sums, 1.0)


def test_schools_that_change_move_more_and_the_corrected_correlation_says_how_much() -> None:
    found = stability({"entry": years(replace(WORLD, violation="drift", amount=0.5))}, rng=rng())
    assert found.quintiles["verdict"].item() == "less stable than chance alone would have it"
    lags = found.correlations.set_index("lag")
    assert lags.loc[1, "lower"] < 0.5 < lags.loc[1, "upper"] and lags.loc[2, "lower"] < 0.25 < lags.loc[2, "upper"]


def test_same_quintile_by_brute_force() -> None:
    made = years(replace(WORLD, schools=50, cohorts=2))
    place = (-made.estimate["theta"]).argsort(axis=0).argsort(axis=0) // 10  # 0 the highest fifth
    found = stability({"entry": made}, rng=rng())
    assert found.quintiles["same"].item() == pytest.approx((place[:, 0] == place[:, 1]).mean())
    stays = found.transitions.set_index(["before", "after"]).loc[(1, 1), "share"]
    assert stays == pytest.approx((place[place[:, 0] == 0, 1] == 0).mean())


def test_estimators_beside_each_other_and_words() -> None:
    noisy = replace(years(), error={"theta": 10.0 * years().error["theta"]})
    found = stability({"entry": years(), "labelled": noisy}, rng=rng())
    assert found.correlations["estimator"].unique().tolist() == ["entry", "labelled"]
    assert found.notes == ("labelled: no variance between schools is left beyond error, so nothing can be stable",)
    assert "labelled" in str(found) and "<table" in found._repr_html_()


def test_bad_inputs() -> None:
    with pytest.raises(InputError, match="one cohort says nothing of stability"):
        stability({"entry": years(replace(WORLD, cohorts=1))}, rng=rng())
    with pytest.raises(InputError, match="no measure 'gap'"):
        stability({"entry": years()}, rng=rng(), measure="gap")
    with pytest.raises(InputError, match="no estimator"):
        stability({}, rng=rng())
    with pytest.raises(InputError, match="coverage"):
        stability({"entry": years()}, rng=rng(), coverage=2.0)
