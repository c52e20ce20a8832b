"""The identification lottery: shares against simulated truth and against the model without crossed groups."""

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from worlds import labels, small, world

from send_va.identification.lottery import LEVELS, identification_lottery


@cache
def table() -> pd.DataFrame:
    return identification_lottery(labels())


def test_shares_add_up_and_lie_inside_their_intervals() -> None:
    found = table()
    assert list(found) == ["label", "level", "model", "variance", "share", "lower", "upper"]
    for _, part in found.groupby(["label", "model"]):
        assert tuple(part["level"]) == LEVELS
        assert part["share"].sum() == pytest.approx(1.0)
        assert part.set_index("level").loc["pupil", "variance"] == 1.0
    assert len(found) == 16
    small_ones = found["variance"] < 1e-4
    assert ((found["lower"] <= found["share"]) & ((found["share"] <= found["upper"]) | small_ones)).all()


def test_shares_of_the_label_before_are_those_that_made_it() -> None:
    """Full model: leniency of feeders, intake need of schools and leniency of authorities, in units of need."""
    found = table().set_index(["label", "model", "level"]).loc["entry", "full"]
    truth = world()
    known = {
        "feeder": truth.feeders["leniency"].var(),
        "school": truth.truth["intake_need"].var(),
        "la": truth.las["leniency_entry"].var(),
    }
    total = 1.0 + sum(known.values())
    for level in ("feeder", "school"):
        assert found.loc[level, "variance"] == pytest.approx(known[level], rel=0.3)
        assert found.loc[level, "lower"] < known[level] / total < found.loc[level, "upper"]
    assert found.loc["la", "share"] < 0.1


def test_the_school_counts_for_more_now_than_before_transfer() -> None:
    """Schools here set the label now, feeders the one before; leniency of schools adds to intake need."""
    share = table().set_index(["label", "model", "level"])["share"]
    for model in ("null", "full"):
        assert share["current", model, "school"] > share["entry", model, "school"]
        assert share["entry", model, "feeder"] > share["current", model, "feeder"]


def test_groups_that_do_not_matter_have_no_share() -> None:
    """Labels at random: pupils have all of the variance, as the binomial they are drawn from."""
    records, rng = small().labels, np.random.default_rng(2)
    at_random = (rng.random(len(records.now)) < 0.2).astype(np.intp)
    found = identification_lottery(replace(records, now=at_random, entry=np.full(len(at_random), -1)))
    assert set(found["label"]) == {"current"}
    share = found[found["model"] == "null"].set_index("level")["share"]
    assert share["pupil"] > 0.95
    assert share.drop("pupil").max() < 0.05


def test_levels_that_the_records_lack_are_left_out() -> None:
    records = small().labels
    n = len(records.now)
    bare = replace(
        records, feeders=(), feeder=np.full(n, -1), las=(), feeder_las=(), la=np.full(n, -1), feeder_la=np.full(n, -1)
    )
    found = identification_lottery(replace(bare, entry=np.full(n, -1)))
    assert set(found["level"]) == {"pupil", "school"}
    null = found[found["model"] == "null"].set_index("level")
    # between-school SD of the probit of the share, less sampling noise, by hand
    labelled = records.now > 0
    share = pd.Series(labelled).groupby(records.school).mean().clip(0.005)
    slope = norm.pdf(norm.ppf(share.mean()))
    noise = (share * (1 - share) / np.bincount(records.school)).mean()
    by_hand = (share.var() - noise) / slope**2
    assert null.loc["school", "variance"] == pytest.approx(by_hand, rel=0.4)


def test_wider_intervals_for_more_coverage() -> None:
    records = replace(small().labels, entry=np.full(len(small().labels.now), -1))
    wide, narrow = (identification_lottery(records, coverage).set_index(["model", "level"]) for coverage in (0.99, 0.8))
    inner = narrow["lower"] >= wide["lower"] - 1e-12
    assert inner.all()
    pd.testing.assert_series_equal(wide["share"], narrow["share"])


def test_a_variance_the_records_do_not_bound_has_no_upper_end() -> None:
    """Two schools that are alike, and many feeders: the school's share may be anything, and is not claimed to be small.

    G groups tell at most 2G of a log SD, so nothing narrower than that may be published.
    """
    records = small().labels
    pair = replace(records, school=np.arange(len(records.now)) % 2, schools=("a", "b"))
    found = identification_lottery(pair).set_index(["label", "model", "level"])
    for label in ("entry", "current"):
        row = found.loc[label, "null", "school"]
        assert row["lower"] < 1e-3
        assert np.isnan(row["upper"]) or row["upper"] > 0.02
