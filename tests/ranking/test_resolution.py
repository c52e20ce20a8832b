"""How many groups the draws tell apart: normal theory, hand-made chains, and chains that are what they say."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_draws import normal_world

from send_va.errors import InputError
from send_va.ranking.pairwise_from_draws import chance_above_by_block
from send_va.ranking.resolution import resolution


@pytest.mark.parametrize("se", [0.4, 0.8, 1.5])
def test_separation_is_the_sd_over_the_error(se: float) -> None:
    """2,000 schools: a standard deviation is known to 1.6 %, G to somewhat more."""
    _, _, draws = normal_world(np.random.default_rng(4), 2000, 400, se)
    found = resolution(draws)
    assert found.separation == pytest.approx(1 / se, rel=0.07)
    assert found.reliability == pytest.approx(1 / (1 + se**2), abs=0.03)
    assert found.strata == pytest.approx((4 * found.separation + 1) / 3)


def test_five_strata_need_a_reliability_of_92() -> None:
    _, _, draws = normal_world(np.random.default_rng(4), 3000, 300, np.sqrt(1 / 0.9245 - 1))
    assert resolution(draws).strata == pytest.approx(5.0, abs=0.3)


def test_hand_made_chain() -> None:
    draws = np.random.default_rng(1).normal([0.0, 10.0, 5.0, 5.5, -5.0, -5.4], 1.0, (1000, 6))
    found = resolution(draws, schools=list("abcdef"))
    assert found.chain == ("b", "d", "a", "e")
    assert "at most 4 schools found" in str(found)
    assert resolution(draws[:, :3]).chain == ("2", "3", "1")


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 9), st.integers(0, 1000), st.sampled_from([0.5, 0.8, 0.95]))
def test_every_pair_of_the_chain_is_separated(schools: int, seed: int, coverage: float) -> None:
    """And with equal precision no set of schools of which all pairs separate is larger."""
    rng = np.random.default_rng(seed)
    draws = rng.normal(3 * rng.normal(size=schools), 1.0, (400, schools))
    chance = chance_above_by_block(draws, np.arange(schools))
    needed = (1 + coverage) / 2
    chain = [int(name) - 1 for name in resolution(draws, coverage=coverage).chain]
    assert all(chance[a, b] >= needed for a, b in combinations(chain, 2))
    apart = np.maximum(chance, chance.T) >= needed
    sizes = [
        len(some)
        for size in range(1, schools + 1)
        for some in combinations(range(schools), size)
        if all(apart[a, b] for a, b in combinations(some, 2))
    ]
    # a pair near the limit can count by Monte-Carlo error: one school of difference at most
    assert max(sizes) - 1 <= len(chain) <= max(sizes)


def test_schools_that_do_not_differ() -> None:
    found = resolution(np.zeros((20, 5)))
    assert found.separation == 0.0
    assert found.strata == pytest.approx(1 / 3)
    assert len(found.chain) == 1
    exact = resolution(np.tile([1.0, 2.0, 3.0], (20, 1)))
    assert exact.separation == np.inf
    assert exact.reliability == 1.0
    assert exact.chain == ("3", "2", "1")
    assert "any number of strata" in str(exact)


def test_schools_that_cannot_be_compared_are_left_out() -> None:
    draws = np.random.default_rng(1).normal([0.0, 9.0, 0.0], 1.0, (100, 3))
    draws[:, 0] = np.nan
    found = resolution(draws, schools=["a", "b", "c"])
    assert found.n_schools == 2
    assert found.chain == ("b", "c")


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="one school"):
        resolution(np.zeros((5, 1)))
    with pytest.raises(InputError, match="one draw"):
        resolution(np.zeros((1, 3)))
    with pytest.raises(InputError, match="coverage"):
        resolution(np.zeros((5, 3)), coverage=1.0)
    with pytest.raises(InputError, match="2 names for 3"):
        resolution(np.zeros((5, 3)), schools=["a", "b"])
    with pytest.raises(InputError, match="shape"):
        resolution(np.zeros(5))
    with pytest.raises(InputError, match="draws are dict, not a table of numbers"):
        resolution({"a": 1})  # type: ignore[arg-type]
