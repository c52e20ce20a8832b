"""Places and fifths of one table against SciPy's ranks and counting by hand."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from send_va.ranking.table_places import fifths, places_among, share_in_other_fifth, table_places


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), min_size=1, max_size=30))
def test_places_are_those_of_scipy(values: list[float]) -> None:
    table = np.array(values)
    np.testing.assert_array_equal(table_places(table), rankdata(-table, method="min"))


def test_fifths_of_a_table_without_ties_are_as_equal_as_can_be() -> None:
    for schools in (5, 7, 60, 3_401):
        values = np.random.default_rng(schools).permutation(schools).astype(float)
        sizes = np.bincount(fifths(values).astype(int))[1:]
        assert len(sizes) == 5
        assert sizes.max() - sizes.min() <= 1
        assert values[fifths(values) == 1].min() > values[fifths(values) == 2].max()


def test_a_missing_school_has_no_place_and_takes_none() -> None:
    values = np.array([np.nan, 3.0, 1.0, np.nan, 2.0])
    np.testing.assert_array_equal(table_places(values), [np.nan, 1.0, 3.0, np.nan, 2.0])
    np.testing.assert_array_equal(places_among(np.array([2.5, np.nan]), values), [2.0, np.nan])


def test_share_in_another_fifth_counts_schools_of_both_tables() -> None:
    first = np.array([5.0, 4.0, 3.0, 2.0, 1.0, np.nan])
    second = np.array([5.0, 4.0, 3.0, 1.0, 2.0, 9.0])
    assert share_in_other_fifth(first, second) == 0.4
    assert np.isnan(share_in_other_fifth(first, np.full(6, np.nan)))


def test_unrelated_tables_put_four_in_five_schools_in_another_fifth() -> None:
    rng = np.random.default_rng(3)
    shares = [share_in_other_fifth(rng.random(500), rng.random(500)) for _ in range(40)]
    assert abs(np.mean(shares) - 0.8) < 4 * np.std(shares) / np.sqrt(40)
