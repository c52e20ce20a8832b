"""Pairwise probabilities, against drrank (9f61736), closed forms and counting."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from send_va.errors import InputError
from send_va.ranking.deconvolution import Prior, deconvolve
from send_va.ranking.pairwise import pairwise_probabilities


def normal_prior(sd: float, points: int = 2_001) -> Prior:
    grid = np.linspace(-6 * sd, 6 * sd, points)
    density = norm.pdf(grid, 0, sd)
    return Prior(grid, density / density.sum(), "spline", 0.0, 0.0, True)


def test_twelve_names_are_those_of_drrank(shared_reference: Path):
    folder = shared_reference / "grades"
    names = pd.read_csv(folder / "names_input.csv")
    prior = deconvolve(names["thetas"], names["s"])
    twelve = names.set_index("name_id").loc[pd.read_csv(folder / "names12_Rns_grades.csv")["name_id"]]
    found = pairwise_probabilities(prior=prior, estimate=twelve["thetas"], se=twelve["s"], split_ties=False)
    expected = np.loadtxt(folder / "names12_Rns_pij.csv", delimiter=",")
    np.testing.assert_allclose(found, expected, atol=1e-4)  # 1e-3 asked for


def test_prior_agrees_with_the_normal_closed_form():
    y, se = np.array([-0.3, 0.0, 0.2, 0.2]), np.array([0.1, 0.2, 0.1, 0.3])
    variance = 1 / (1 / 0.0625 + 1 / se**2)
    mean = variance * y / se**2
    z = (mean[:, None] - mean) / np.sqrt(variance[:, None] + variance)
    expected = norm.cdf(z)
    np.fill_diagonal(expected, 0.0)
    found = pairwise_probabilities(prior=normal_prior(0.25), estimate=y, se=se)
    np.testing.assert_allclose(found, expected, atol=1e-5)  # grid of .0015
    strict = pairwise_probabilities(prior=normal_prior(0.25), estimate=y, se=se, split_ties=False)
    np.testing.assert_allclose(strict, expected, atol=5e-3)  # half the probability of a shared grid point
    assert (strict <= found).all()


@settings(max_examples=25, deadline=None)
@given(units=st.integers(1, 70), draws=st.integers(1, 30), levels=st.integers(1, 6), seed=st.integers(0, 99))
def test_draws_are_counted_with_ties(units, draws, levels, seed):
    values = np.random.default_rng(seed).integers(0, levels, (draws, units)).astype(float)
    found = pairwise_probabilities(values)
    expected = (values[:, :, None] > values[:, None, :]).mean(axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_array_equal(np.diag(found), 0.0)
    ties = (values[:, :, None] == values[:, None, :]).mean(axis=0)
    np.testing.assert_allclose(found + found.T + ties, 1.0, atol=1e-12)


def test_a_hundred_thousand_units_are_refused_with_size_and_alternative():
    with pytest.raises(InputError, match=r"100,000 x 100,000 .* 80\.0 GB.*22,360 units.*chance_above"):
        pairwise_probabilities(np.zeros((1, 100_000)))
    with pytest.raises(InputError, match=r"80\.0 GB"):
        pairwise_probabilities(prior=normal_prior(1.0), estimate=np.zeros(100_000), se=np.ones(100_000))


def test_equal_estimates_are_never_above_each_other():
    prior = deconvolve(np.full(9, 0.3), np.full(9, 0.1))
    assert not pairwise_probabilities(prior=prior, estimate=np.full(9, 0.3), se=np.full(9, 0.1)).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "nothing to compare"),
        ({"prior": normal_prior(1.0), "estimate": [0.1]}, "nothing to compare"),
        ({"draws": np.zeros((2, 2)), "se": [0.1]}, "draws and a prior"),
        ({"draws": np.zeros(3)}, "shape"),
        ({"draws": object()}, r"draws are object, not a table of numbers.*effects\.draws"),
        ({"draws": [["a", "b"]]}, "draws are list, not a table of numbers"),
        ({"prior": "spline", "estimate": [0.1], "se": [0.1]}, "the prior is str, not Prior.*deconvolve"),
        ({"prior": normal_prior(1.0), "estimate": 0.1, "se": 0.1}, "estimate has 0 dimensions"),
        ({"draws": np.zeros((3, 0))}, "of no school"),
        ({"draws": np.array([[0.0, np.nan, 1.0, np.inf]])}, "rows 2, 4"),
        ({"prior": normal_prior(1.0), "estimate": [0.1, np.nan], "se": [0.1, 0.1]}, "estimate: is not finite"),
        ({"prior": normal_prior(1.0), "estimate": [0.1, 0.2], "se": [0.1, 0.0]}, "se: is zero or negative"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(InputError, match=message):
        pairwise_probabilities(**arguments)
