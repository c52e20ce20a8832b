"""Places within draws: by hand, ties shared, against SciPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from send_va.errors import InputError
from send_va.ranking.draw_places import draw_places, draw_ranks


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(2, 9), st.integers(0, 1000), st.integers(2, 40))
def test_places_are_scipys(draws: int, schools: int, seed: int, values: int) -> None:
    table = np.random.default_rng(seed).integers(0, values, (draws, schools)).astype(float)
    places = draw_places(table)
    np.testing.assert_array_equal(places.best, rankdata(-table, method="min", axis=1))
    np.testing.assert_array_equal(places.worst, rankdata(-table, method="max", axis=1))
    np.testing.assert_array_equal(draw_ranks(table), rankdata(-table, method="ordinal", axis=1))


def test_more_draws_than_a_tile_and_no_second_array_without_ties() -> None:
    table = np.random.default_rng(1).normal(size=(700, 9))
    places = draw_places(table)
    np.testing.assert_array_equal(places.best, rankdata(-table, axis=1))
    assert places.worst is places.best
    assert not places.tied
    assert places.best.dtype == np.int32
    table[650, 3] = table[650, 4]
    assert draw_places(table).tied
    half = places.of_draws(slice(100, 200))
    assert half.worst is half.best
    assert half.draws == 100


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="shape"):
        draw_places(np.zeros(3))
    with pytest.raises(InputError, match="one school"):
        draw_places(np.zeros((4, 1)))
    with pytest.raises(InputError, match="no draw"):
        draw_places(np.zeros((0, 3)))
    with pytest.raises(InputError, match=r"not finite; 2 rows fail; rows 2, 3"):
        draw_places(np.array([[0.0, np.nan, 1.0], [0.0, 1.0, np.inf]]))
