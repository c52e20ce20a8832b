"""Rank sets and grades on simulated schools: promises kept where the prior is right, and the worlds are as stated."""

import numpy as np
import pytest

from send_va.errors import InputError
from send_va.validation.ranking_check import SHAPES, RankingWorld, check_grades, check_rank_sets, summarised

SMALL = RankingWorld(schools=40)


@pytest.mark.parametrize("shape", SHAPES)
def test_effects_have_the_stated_spread_whatever_their_shape(shape: str) -> None:
    world = RankingWorld(schools=40_000, sd=0.25, shape=shape)
    theta, estimate, se = world.draw(np.random.default_rng(1))
    assert theta.mean() == pytest.approx(0.0, abs=0.01)
    assert theta.std() == pytest.approx(0.25, rel=0.02)
    assert (estimate - theta).std() == pytest.approx(np.sqrt((se**2).mean()), rel=0.02)
    prior = world.prior()
    assert (prior.mean, prior.sd) == (pytest.approx(0.0, abs=0.002), pytest.approx(0.25, rel=0.01))
    below = prior.density[prior.grid <= 0.1].sum()
    assert below == pytest.approx((theta <= 0.1).mean(), abs=0.01)


def test_rank_sets_hold_every_rank_as_often_as_they_say() -> None:
    """150 tables of 40 schools: coverage of .95 within two Monte-Carlo errors, or above."""
    rngs = np.random.default_rng(2).spawn(150)
    found = summarised([check_rank_sets(SMALL, rng, draws=500) for rng in rngs]).set_index("what")
    for name in ("covered", "no_false_separation"):
        assert found.loc[name, "mean"] >= 0.95 - 2 * np.sqrt(0.95 * 0.05 / 150)
    assert found.loc["marginal", "mean"] >= 0.95 - 2 * found.loc["marginal", "se"]
    assert found.loc["marginal_width", "mean"] < found.loc["width", "mean"] < 40


def test_grades_put_as_many_pairs_in_the_wrong_order_as_they_say_under_the_right_prior() -> None:
    rngs = np.random.default_rng(3).spawn(60)
    found = summarised([check_grades(SMALL, rng, discordance_rate=0.05) for rng in rngs]).set_index("what")
    assert found.loc["realised", "mean"] <= 0.05 + 2 * found.loc["realised", "se"]
    assert found.loc["realised", "mean"] == pytest.approx(
        found.loc["expected", "mean"], abs=3 * found.loc["realised", "se"]
    )
    assert found.loc["tau", "mean"] == pytest.approx(found.loc["expected_tau", "mean"], abs=3 * found.loc["tau", "se"])


def test_what_there_is_not_is_refused() -> None:
    with pytest.raises(InputError, match="there is no shape 'flat'"):
        RankingWorld(shape="flat")
    with pytest.raises(InputError, match="there is no prior 'flat'"):
        check_grades(SMALL, np.random.default_rng(1), prior="flat")
