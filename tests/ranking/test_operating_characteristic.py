"""Lines between schools: by hand, against the normal theory, and the best order against every other one."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal, norm
from simulated_draws import normal_world

from send_va.errors import InputError
from send_va.ranking.operating_characteristic import operating_characteristic, operating_characteristics


def test_by_hand() -> None:
    draws = np.array([[3.0, 2.0, 1.0, 0.0], [3.0, 1.0, 2.0, 0.0], [2.0, 3.0, 1.0, 0.0], [2.0, 3.0, 1.0, 0.0]])
    found = operating_characteristic(draws, 0.75)  # of 4 schools those above 3.75 places from below: one
    assert found.places_above == 1
    assert found.p_above.tolist() == [0.5, 0.5, 0.0, 0.0]
    assert found.rank.tolist() == [1, 2, 3, 4]  # equal chances: expected ranks 1.5 and 1.75 decide
    assert found.false_above == 0.5
    assert found.false_below == pytest.approx(0.5 / 3)
    assert found.misclassified == 0.25
    assert found.oc == pytest.approx(2 / 3)


@pytest.mark.parametrize("gamma", [0.5, 0.8, 0.9])
def test_large_cohorts_follow_the_normal_theory(gamma: float) -> None:
    """Truth and mean are bivariate normal with correlation sqrt(reliability) when schools are equally precise."""
    se = 0.7
    _, _, draws = normal_world(np.random.default_rng(8), 4000, 300, se)
    found = operating_characteristic(draws, gamma)
    r = 1 / np.sqrt(1 + se**2)
    q = norm.ppf(gamma)
    below_both = multivariate_normal([0, 0], [[1, r], [r, 1]]).cdf([q, q])
    expected = (gamma - below_both) / (1 - gamma) + (gamma - below_both) / gamma
    assert found.oc == pytest.approx(expected, abs=0.03)
    assert found.misclassified == pytest.approx(2 * (gamma - below_both), abs=0.01)


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 7), st.floats(0.2, 0.8), st.integers(0, 1000))
def test_no_set_of_schools_has_fewer_on_the_wrong_side(schools: int, gamma: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    draws = rng.normal(rng.normal(size=schools), rng.uniform(0.2, 2, schools), (80, schools))
    try:
        found = operating_characteristic(draws, gamma)
    except InputError:
        return
    best = min(
        sum(1 - found.p_above[k] if k in above else found.p_above[k] for k in range(schools))
        for above in combinations(range(schools), found.places_above)
    )
    assert found.misclassified * schools == pytest.approx(best)
    # as many are wrongly below as above, so that the OC is the loss over its value by chance
    wrong = found.false_above * found.places_above
    assert wrong == pytest.approx(found.false_below * (schools - found.places_above), abs=1e-9)


def test_schools_without_signal_are_put_by_chance() -> None:
    found = operating_characteristic(np.zeros((10, 10)), 0.8)
    assert found.oc == pytest.approx(1.0)


def test_expected_ranks_are_never_better() -> None:
    _, _, draws = normal_world(np.random.default_rng(2), 200, 400)
    table = operating_characteristics(draws, [0.1, 0.5, 0.9])
    assert (table["oc"] <= table["oc_expected_rank"] + 1e-12).all()
    assert "OC" in str(operating_characteristic(draws, 0.9))


def test_what_is_refused() -> None:
    draws = np.random.default_rng(1).normal(size=(20, 4))
    for gamma in (0.0, 0.1, 0.9, 1.0, float("nan")):
        with pytest.raises(InputError, match="one side of the line"):
            operating_characteristic(draws, gamma)
    with pytest.raises(InputError, match="order has shape"):
        operating_characteristic(draws, 0.5, order=[1, 2])
    with pytest.raises(InputError, match="order: is not finite; 1 row fails; rows 2"):
        operating_characteristic(draws, 0.5, order=[1, np.nan, 3, 4])
