"""Quintiles and the departures at which they change, against trying them out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from send_va.errors import InputError
from send_va.ranking.rank_probabilities import rank_probabilities
from send_va.sensitivity.crossings import find_crossings
from send_va.sensitivity.quintiles import Quintiles, answers, whole


def slow_quintile(values: np.ndarray, j: int, value: float) -> int:
    others = np.delete(values, j)
    others = others[np.isfinite(others)]
    n = len(others) + 1
    return 1 + int((others > value).sum()) * 5 // n


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.integers(-20, 20), min_size=6, max_size=30), seed=st.integers(0, 99))
def test_cuts_and_moved_quintiles_are_those_of_counting(values: list[int], seed: int) -> None:
    x = np.array(values, dtype=float)
    x[0] = np.nan
    of = Quintiles.of(x)
    moved = np.random.default_rng(seed).integers(-25, 25, len(x)).astype(float)
    there = of.if_moved(moved)
    assert of.quintile[0] == 0 and there[0] == 0
    for j in range(1, len(x)):
        assert of.quintile[j] == slow_quintile(x, j, x[j])
        assert there[j] == slow_quintile(x, j, moved[j])
        if np.isfinite(of.up[j]):
            assert slow_quintile(x, j, of.up[j]) < of.quintile[j] <= slow_quintile(x, j, of.up[j] - 0.5)
        if np.isfinite(of.down[j]):
            assert slow_quintile(x, j, of.down[j]) <= of.quintile[j] or of.down[j] == x[j]
            assert slow_quintile(x, j, of.down[j] - 0.5) > of.quintile[j]


def test_quintiles_are_those_of_rankings() -> None:
    x = np.random.default_rng(1).normal(size=53)
    chances = rank_probabilities(np.tile(x, (2, 1)), joint=False).table
    groups = chances[[f"p_group_{k}" for k in range(1, 6)]].to_numpy().argmax(axis=1) + 1
    np.testing.assert_array_equal(Quintiles.of(x).quintile, groups)


@pytest.mark.parametrize("bend", [lambda d: d, np.tanh, lambda d: d**3, lambda d: d + 0.4 * np.sin(3 * d)])
def test_a_departure_just_beyond_changes_the_quintile_and_one_just_short_of_it_does_not(bend: object) -> None:
    rng = np.random.default_rng(2)
    x, slope = rng.normal(size=60), rng.uniform(0.1, 2.0, 60)
    now = Quintiles.of(x)

    def moved(d: np.ndarray) -> np.ndarray:
        return np.asarray(x - slope * bend(d))  # type: ignore[operator]

    found = find_crossings(moved, now, np.arange(-6, 7) / 2.0)
    for end, to in ((found.more, found.more_to), (found.less, found.less_to)):
        known = np.isfinite(end)
        assert known.sum() > 15
        sign = np.sign(end[known][0])
        beyond = now.if_moved(moved(np.where(known, end + 1e-4 * sign, 0.0)))
        short = now.if_moved(moved(np.where(known, end - 1e-4 * sign, 0.0)))
        assert (short == now.quintile)[known].all()
        np.testing.assert_array_equal(beyond[known], to[known])
        assert (to[~known] == 0).all()
    share = found.share_changed(now)
    assert share[6] == 0.0 and share[0] == (now.if_moved(moved(np.full(60, -3.0))) != now.quintile).mean()
    reach = np.fmin(np.abs(found.more), np.abs(found.less))
    np.testing.assert_array_equal(np.abs(found.nearest), reach)


def test_bad_input() -> None:
    with pytest.raises(InputError, match="quintiles need five"):
        Quintiles.of(np.array([1.0, 2.0, np.nan, 3.0, 4.0]))
    now = Quintiles.of(np.arange(5.0))
    for grid in ([-1.0, 1.0], [1.0, 0.0]):
        with pytest.raises(InputError, match="not ascending, or lack zero"):
            find_crossings(lambda d: now.values + d, now, np.array(grid))
    assert whole(np.array([0, 3])).isna().tolist() == [True, False]
    assert answers(np.array([True, False]), np.array([True, False])).isna().tolist() == [False, True]
