"""Chances of pairs: against counting every pair of every draw."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from send_va.errors import InputError
from send_va.ranking.pairwise_from_draws import chance_above, chance_above_by_block, chance_above_each, even_blocks


def counted(draws: np.ndarray) -> np.ndarray:
    first, second = draws[:, :, None], draws[:, None, :]
    return (first > second).mean(axis=0) + 0.5 * (first == second).mean(axis=0)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 12), st.integers(1, 5), st.integers(0, 1000), st.booleans())
def test_every_pair_of_every_draw(schools: int, blocks: int, seed: int, tied: bool) -> None:
    rng = np.random.default_rng(seed)
    draws = rng.normal(rng.normal(size=schools), 1.0, (50, schools))
    draws = draws.round(0) if tied else draws
    pairs = counted(draws)
    np.testing.assert_allclose(chance_above_by_block(draws, np.arange(schools)), pairs, atol=1e-12)
    np.testing.assert_allclose(chance_above_each(draws, 1), pairs[1], atol=1e-12)
    assert chance_above(draws, 0, 1) == pytest.approx(pairs[0, 1])
    block = even_blocks(draws[0], blocks)
    found = chance_above_by_block(draws, block)
    np.testing.assert_allclose(found + found.T, 1.0, atol=1e-12)
    for a in range(len(found)):
        for b in set(range(len(found))) - {a}:
            assert found[a, b] == pytest.approx(pairs[np.ix_(block == a, block == b)].mean())


def test_two_normal_schools() -> None:
    draws = np.random.default_rng(4).normal([0.6, 0.0], [1.0, 0.5], (40_000, 2))
    assert chance_above(draws, 0, 1) == pytest.approx(norm.cdf(0.6 / np.sqrt(1.25)), abs=4 * 0.0025)


def test_one_pair_from_draws_of_many_units() -> None:
    draws = np.random.default_rng(2).normal(size=(50, 100_000))
    assert chance_above(draws, 5, 99_999) == np.mean(draws[:, 5] > draws[:, 99_999])


def test_more_draws_than_a_tile() -> None:
    draws = np.random.default_rng(4).normal(size=(1300, 6))
    np.testing.assert_allclose(chance_above_by_block(draws, np.arange(6)), counted(draws), atol=1e-12)


def test_a_table_of_100_000_units_is_refused_with_its_size() -> None:
    draws = np.zeros((1, 100_000))
    with pytest.raises(InputError, match=r"100,000 units takes 80 GB .*even_blocks.*chance_above_each"):
        chance_above_by_block(draws, np.arange(100_000))
    blocks = even_blocks(np.arange(100_000.0), 100)
    np.testing.assert_allclose(chance_above_by_block(np.arange(100_000.0)[None, :], blocks)[0, 1], 0.0)


def test_what_is_refused() -> None:
    draws = np.random.default_rng(1).normal(size=(20, 4))
    with pytest.raises(InputError, match="no school at position 4"):
        chance_above_each(draws, 4)
    with pytest.raises(InputError, match="no school at position -1"):
        chance_above(draws, 0, -1)
    with pytest.raises(InputError, match="without gaps"):
        chance_above_by_block(draws, [0, 0, 2, 2])
    with pytest.raises(InputError, match=r"shape \(2,\)"):
        chance_above_by_block(draws, [0, 1])
    with pytest.raises(InputError, match="0 blocks"):
        even_blocks([1.0, 2.0], 0)
    with pytest.raises(InputError, match="order: is not finite"):
        even_blocks([1.0, np.nan], 1)
