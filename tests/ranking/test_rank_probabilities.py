"""Probabilities of places: by hand, calibrated in simulated worlds, and what must hold for any draws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_draws import normal_world, places_of

from send_va.errors import InputError
from send_va.ranking.draw_places import draw_places
from send_va.ranking.published_groups import published_groups
from send_va.ranking.rank_probabilities import rank_probabilities

DRAWS = np.array([[9.0, 5.0, 1.0, 0.0], [9.0, 4.0, 6.0, 0.0], [3.0, 4.0, 1.0, 0.0], [9.0, 8.0, 1.0, 2.0]])


def test_four_schools_by_hand() -> None:
    table = rank_probabilities(DRAWS, schools=list("abcd"), groups=2, top=1, bottom=0.25, coverage=0.5).table
    assert table["school"].tolist() == ["a", "b", "c", "d"]
    assert table["expected_rank"].tolist() == [1.25, 2.0, 3.0, 3.75]
    assert table["rank_of_expected"].tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(table["percentile"], [0.75, 0.6, 0.4, 0.25])
    assert table["p_top"].tolist() == [0.75, 0.25, 0.0, 0.0]
    assert table["p_bottom"].tolist() == [0.0, 0.0, 0.25, 0.75]
    assert table["p_group_1"].tolist() == [1.0, 0.75, 0.25, 0.0]
    assert table["p_group_2"].tolist() == [0.0, 0.25, 0.75, 1.0]
    # order statistics 1 and 3 of four places: a 1 1 1 2, b 1 2 2 3, c 2 3 3 4, d 3 4 4 4
    assert table["rank_lower"].tolist() == [1, 1, 2, 3]
    assert table["rank_upper"].tolist() == [1, 2, 3, 4]


def test_schools_that_are_all_equal_share_every_place() -> None:
    """With a variance of zero all draws are equal: no order may come out of the file's."""
    found = rank_probabilities(np.zeros((60, 6)), groups=3, top=1)
    table = found.table
    assert (table["expected_rank"] == 3.5).all()
    assert (table["rank_of_expected"] == 1).all()
    np.testing.assert_allclose(found.groups, 1 / 3)
    np.testing.assert_allclose(table["p_top"], 1 / 6)
    for kind in ("", "_joint"):
        assert (table[f"rank_lower{kind}"] == 1).all()
        assert (table[f"rank_upper{kind}"] == 6).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 30), st.integers(2, 12), st.integers(0, 10_000), st.booleans())
def test_properties(schools: int, groups: int, seed: int, tied: bool) -> None:
    """Chances sum to one and to the size of each group; relabelled schools keep their numbers."""
    rng = np.random.default_rng(seed)
    draws = rng.normal(rng.normal(size=schools), 1.0, (60, schools))
    draws = draws.round(0) if tied else draws
    found = rank_probabilities(draws, groups=groups)
    np.testing.assert_allclose(found.groups.sum(axis=1), 1.0, atol=1e-12)
    sizes = np.bincount(np.arange(schools) * groups // schools, minlength=groups)
    np.testing.assert_allclose(found.groups.sum(axis=0), sizes, atol=1e-9)
    assert found.table["expected_rank"].sum() == pytest.approx(schools * (schools + 1) / 2)
    assert found.table["p_top"].sum() == pytest.approx(found.top)
    order = rng.permutation(schools)
    moved = rank_probabilities(draws[:, order], groups=groups).table.drop(columns="school")
    for name, values in found.table.drop(columns="school").iloc[order].reset_index(drop=True).items():
        np.testing.assert_allclose(moved[name].astype(float), values.astype(float), atol=1e-12, err_msg=str(name))


def test_joint_intervals_hold_each_schools_own() -> None:
    _, _, draws = normal_world(np.random.default_rng(3), 80, 400)
    found = rank_probabilities(draws_of := draw_places(draws))
    assert (found.table["rank_lower_joint"] <= found.table["rank_lower"]).all()
    assert (found.table["rank_upper_joint"] >= found.table["rank_upper"]).all()
    assert found.joint_inside >= 0.95
    assert "hold for all at once" in str(found)
    without = rank_probabilities(draws_of, joint=False)
    assert without.table["rank_lower_joint"].isna().all()
    assert without.table["expected_rank"].equals(found.table["expected_rank"])


def test_too_few_draws_for_joint_intervals_leave_them_empty() -> None:
    found = rank_probabilities(np.random.default_rng(1).normal(size=(39, 4)))
    assert found.table["rank_upper_joint"].isna().all()
    assert np.isnan(found.joint_multiple)


def test_chance_of_the_published_fifth_is_the_share_that_is_right() -> None:
    """Forty worlds of 200 schools whose draws are right; bounds are four standard errors, schools as independent."""
    rng = np.random.default_rng(20)
    chances, right, inside = [], [], []
    for _ in range(40):
        truth, mean, draws = normal_world(rng, 200, 500)
        place, assigned = places_of(truth), (places_of(mean) - 1) * 5 // 200 + 1
        found = rank_probabilities(draws, joint=False)
        table = published_groups(found, assigned).table
        chances.append(table["p_correct"].to_numpy())
        right.append((place - 1) * 5 // 200 + 1 == assigned)
        inside.append((found.table["rank_lower"] <= place) & (place <= found.table["rank_upper"]))
    p, hit = np.concatenate(chances), np.concatenate(right)
    assert p.mean() == pytest.approx(hit.mean(), abs=4 * np.sqrt(0.25 / len(p)))
    for low, high in ((0.0, 0.3), (0.3, 0.5), (0.5, 0.8), (0.8, 1.0)):
        own = (p >= low) & (p < high)
        assert own.sum() > 300
        assert p[own].mean() == pytest.approx(hit[own].mean(), abs=4 * np.sqrt(0.25 / own.sum()))
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="coverage"):
        rank_probabilities(DRAWS, coverage=0.0)
    with pytest.raises(InputError, match="groups must be 2"):
        rank_probabilities(DRAWS, groups=1)
    with pytest.raises(InputError, match=r"top is 1\.5"):
        rank_probabilities(DRAWS, top=1.5)
    with pytest.raises(InputError, match="bottom is 5"):
        rank_probabilities(DRAWS, bottom=5)
    with pytest.raises(InputError, match="3 names for 4"):
        rank_probabilities(DRAWS, schools=["a", "b", "c"])
