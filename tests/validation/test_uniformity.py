"""Bands for ranks: exact against enumeration, simulation and ArviZ; wrong ranks are named for what they are."""

import itertools

import numpy as np
import pytest
from arviz_stats.ecdf_utils import simulate_confidence_bands
from hypothesis import given, settings
from hypothesis import strategies as st

from send_va.errors import InputError
from send_va.validation.uniformity import (
    RankUniformity,
    crossing_probability,
    limits,
    probability_within,
    rank_uniformity,
)

TEN = tuple("abcdefghij")


@pytest.mark.parametrize(("lower", "upper"), [([0, 1, 2], [3, 4, 4]), ([1, 1, 1], [1, 2, 4]), ([2, 1, 3], [4, 4, 3])])
def test_probability_is_that_of_all_samples(lower, upper) -> None:
    """All 4^4 samples of four ranks in four bins, counted one by one."""
    samples = np.array(list(itertools.product(range(4), repeat=4)))
    counts = (samples[:, :, None] < np.arange(1, 4)).sum(axis=1)
    inside = ((counts >= lower) & (counts <= upper)).all(axis=1).mean()
    assert probability_within(4, np.array(lower), np.array(upper)) == pytest.approx(inside, abs=1e-13)


def test_impossible_limits_have_no_probability() -> None:
    assert probability_within(5, np.array([4, 0]), np.array([5, 3])) == 0.0  # counts never fall
    assert crossing_probability(30, 10, 1.0) == 1.0


def test_the_band_is_that_of_arviz() -> None:
    """ArviZ 1.3 finds the pointwise level by simulation; its band must have the stated probability, exactly computed.

    4,000 simulated samples: three Monte-Carlo errors of a share of .95 are .010.
    """
    simulations, bins = 150, 25
    rng = np.random.default_rng(1)
    within = simulate_confidence_bands(simulations, 1, np.arange(1, bins) / bins, 0.95, 4000, rng)
    assert crossing_probability(simulations, bins, 1.0 - within) == pytest.approx(0.05, abs=0.011)


@pytest.mark.parametrize("bins", [10, 50])
def test_p_values_of_uniform_ranks_are_uniform(bins) -> None:
    """1,200 p-values: shares below .01, .05, .25 and .5 within four Monte-Carlo errors."""
    rng = np.random.default_rng(4)
    p = np.concatenate(
        [rank_uniformity(rng.integers(0, 50, (80, 10)), 49, TEN, bins=bins).p_values for _ in range(300)]
    )
    for share in (0.01, 0.05, 0.25, 0.5):
        assert (p <= share).mean() == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / len(p)) + 0.01)


@settings(max_examples=60, deadline=None)
@given(st.integers(20, 120), st.sampled_from([9, 19, 99]), st.floats(0.3, 3.0), st.integers(0, 2**32 - 1))
def test_inside_means_between_the_limits(simulations, draws, power, seed) -> None:
    """Whether the p-value is above the threshold and whether the line stays in the band are one question."""
    u = np.random.default_rng(seed).random((simulations, 3))
    u[:, 1] **= power
    found = rank_uniformity((u * (draws + 1)).astype(int), draws, ["a", "b", "c"])
    slack = 1e-12
    between = (found.differences >= found.lower[:, None] - slack) & (found.differences <= found.upper[:, None] + slack)
    np.testing.assert_array_equal(between.all(axis=0), found.inside)
    assert ((found.p_values >= 0.0) & (found.p_values <= 1.0)).all()
    assert (found.lower <= 0.0).all() and (found.upper >= 0.0).all()


def test_mirrored_ranks_have_the_same_p_value() -> None:
    ranks = np.random.default_rng(2).binomial(99, 0.45, (60, 2))
    one, two = (rank_uniformity(part, 99, ["a", "b"]) for part in (ranks, 99 - ranks))
    np.testing.assert_allclose(one.p_values, two.p_values, rtol=1e-6)
    np.testing.assert_allclose(one.shift, -two.shift, atol=1e-9)
    np.testing.assert_allclose(one.spread, two.spread, atol=1e-9)


def shaped(change) -> RankUniformity:
    u = (np.arange(400) + 0.5) / 400  # ranks as even as can be, then bent
    ranks = np.floor(change(u) * 100).astype(int)
    return rank_uniformity(np.column_stack([ranks, np.floor(u * 100).astype(int)]), 99, ["bent", "even"])


@pytest.mark.parametrize(
    ("change", "diagnosis", "sign"),
    [
        (lambda u: 0.5 + np.sign(u - 0.5) * np.abs(2 * u - 1) ** 0.5 * 0.49999, "posterior too narrow", None),
        (lambda u: 0.5 + np.sign(u - 0.5) * np.abs(2 * u - 1) ** 1.8 / 2, "posterior too wide", None),
        (lambda u: 0.1 + 0.9 * u, "posterior too wide and shifted down", -1),
        (lambda u: u + 0.4 * u * (1 - u), "posterior shifted down", -1),
        (lambda u: u - 0.4 * u * (1 - u), "posterior shifted up", 1),
        (
            lambda u: np.where((u > 0.4) & (u < 0.6), 0.5, u),
            "not uniform, neither shifted nor too narrow or wide",
            None,
        ),
    ],
)
def test_shapes_are_named(change, diagnosis, sign) -> None:
    found = shaped(change)
    table = found.table().set_index("parameter")
    assert table.loc["bent", "diagnosis"] == diagnosis
    assert sign is None or np.sign(table.loc["bent", "excursion"]) == sign
    assert not table.loc["bent", "inside"] and not found.uniform
    assert table.loc["even", "diagnosis"] == "uniform"
    assert table.loc["even", "p_value"] > 0.99


def test_the_joint_level_is_bonferroni() -> None:
    ranks = np.random.default_rng(1).integers(0, 100, (60, 10))
    found = rank_uniformity(ranks, 99, TEN)
    assert found.threshold == pytest.approx(0.001)
    lower = np.round((found.lower + found.positions)[1:-1] * 60).astype(int)
    upper = np.round((found.upper + found.positions)[1:-1] * 60).astype(int)
    assert 0.0008 < 1.0 - probability_within(60, lower, upper) <= 0.001
    wider = rank_uniformity(ranks[:, :1], 99, ["a"])
    assert (wider.lower >= found.lower - 1e-12).all() and (wider.upper <= found.upper + 1e-12).all()
    assert (limits(60, 100, 0.5)[0] <= limits(60, 100, 0.5)[1]).all()


def test_the_account_counts_those_outside() -> None:
    found = shaped(lambda u: 0.1 + 0.9 * u)
    assert "1 of 2 outside" in str(found)
    assert "shifted down" in found._repr_html_()
    assert "every parameter inside" in str(shaped(lambda u: u))


@pytest.mark.parametrize(
    ("ranks", "draws", "names", "options", "message"),
    [
        (np.zeros((19, 1), dtype=int), 9, ["a"], {}, "19 simulations cannot"),
        (np.full((20, 2), 10), 9, ["a", "b"], {}, r"0 to 9, but a, b has \[10\]"),
        (np.full((20, 1), -1), 9, ["a"], {}, r"a has \[-1\]"),
        (np.zeros((20, 1)), 9, ["a"], {}, "must be integers, not float64"),
        (np.zeros((20, 2), dtype=int), 9, ["a"], {}, "do not fit 1 names"),
        (np.zeros(20, dtype=int), 9, ["a"], {}, "do not fit"),
        (np.zeros((20, 1), dtype=int), 9, ["a"], {"bins": 20}, "20 bins do not hold equally many of the 10"),
        (np.zeros((20, 1), dtype=int), 9, ["a"], {"bins": 3}, "Choose a divisor of 10"),
        (np.zeros((20, 1), dtype=int), 9, ["a"], {"bins": 1}, "1 bins"),
        (np.zeros((20, 1), dtype=int), 9, ["a"], {"confidence": 1.0}, "between 0 and 1, not 1.0"),
    ],
)
def test_bad_ranks_are_refused(ranks, draws, names, options, message) -> None:
    with pytest.raises(InputError, match=message):
        rank_uniformity(ranks, draws, names, **options)
