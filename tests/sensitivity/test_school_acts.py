"""Whom an act is done to, what is foreseen, and what cannot be done."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from send_va.sensitivity.audit_settings import AuditSettings
from send_va.sensitivity.school_acts import (
    ACTIONS,
    NO_PUPIL,
    NOT_FORESEEN,
    ONE_PUPIL,
    SchoolKnowledge,
    consequences,
    foresee,
    pupils_acted_on,
    school_act,
)


def known(sizes: list[int], seed: int = 1, **changes: np.ndarray) -> SchoolKnowledge:
    rng, n = np.random.default_rng(seed), sum(sizes)
    parts = {
        "now": rng.choice(3, n, p=[0.7, 0.2, 0.1]),
        "entry": rng.choice([-1, 0, 1, 2], n, p=[0.1, 0.6, 0.2, 0.1]),
        "near": rng.random(n).round(1),
        "near_by_background": rng.random(n),
        "prediction": rng.normal(45.0, 10.0, n),
        "foreseen": rng.standard_normal(n),
    } | changes
    return SchoolKnowledge(np.concatenate([[0], np.cumsum(sizes)]), **parts)


def codes_of(records: SchoolKnowledge) -> np.ndarray:
    return np.repeat(np.arange(len(records.starts) - 1), np.diff(records.starts))


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.integers(0, 1000), st.floats(0.01, 0.5))
def test_acts_are_done_to_the_first_in_line_of_the_school_itself(sizes: list[int], seed: int, share: float) -> None:
    records, settings = known(sizes, seed), AuditSettings(share=share)
    forecast = records.prediction + records.foreseen
    lines = {
        "label_more": (records.now == 0, -records.near),
        "label_fewer": (records.now == 1, records.near),
        "remove_lowest": (np.ones(len(forecast), dtype=bool), forecast),
        "admit_fewer_ehcp": ((records.entry == 2) | ((records.entry == -1) & (records.now == 2)), records.prediction),
        "withdraw": (records.foreseen < 0, records.foreseen),
    }
    wanted = pupils_acted_on(share, np.array(sizes))
    for action, (candidates, line) in lines.items():
        act = school_act(action, records, settings)
        for school, size in enumerate(sizes):
            own = codes_of(records) == school
            chosen, left = own & act.chosen, own & candidates & ~act.chosen
            assert chosen.sum() == act.n_acted[school] <= min(wanted[school], (own & candidates).sum())
            assert not (chosen & ~candidates).any()
            assert (act.reason[school] == "") == (act.n_acted[school] > 0)
            if chosen.any() and left.any():
                assert line[chosen].max() <= line[left].min()
            if action not in ("label_more", "label_fewer") and size:
                assert act.n_acted[school] < size


def test_what_cannot_be_done_says_why() -> None:
    sizes = [0, 1, 6]
    none = np.zeros(7, dtype=int)
    records = known(sizes, now=none, entry=none, foreseen=np.zeros(7))
    reasons = {action: school_act(action, records, AuditSettings()).reason for action in ACTIONS}
    assert {reason[0] for reason in reasons.values()} == {NO_PUPIL}
    assert reasons["label_more"][1:] == ("", "")
    assert reasons["label_fewer"][1:] == ("no pupil with SEN support",) * 2
    assert reasons["remove_lowest"][1:] == (ONE_PUPIL, "")
    assert reasons["admit_fewer_ehcp"][2] == "no pupil with an EHCP before transfer"
    assert reasons["withdraw"][2] == "no pupil is forecast below their own prediction"
    assert school_act("withdraw", records, AuditSettings(foresight=0.0)).reason[2] == NOT_FORESEEN


def test_equal_nearness_is_decided_by_background() -> None:
    near = np.array([0.0, 0.0, 0.0, 0.2])
    by_background = np.array([0.1, 0.3, 0.2, 0.0])
    records = known([4], now=np.zeros(4, dtype=int), near=near, near_by_background=by_background)
    act = school_act("label_more", records, AuditSettings(share=0.5))
    assert act.chosen.tolist() == [False, True, False, True]


def test_consequences_are_labels_or_weights() -> None:
    records, settings = known([20]), AuditSettings(share=0.2, terms_kept=12.0)
    ((weighted, labels, weight),) = consequences(school_act("label_fewer", records, settings), records.now, settings)
    assert (weighted, weight) == (False, None)
    assert labels is not None
    assert set(records.now[labels != records.now]) == {1}
    assert set(labels[labels != records.now]) == {0}
    act = school_act("remove_lowest", records, settings)
    gone, kept = consequences(act, records.now, settings)
    assert (gone[0], gone[1], kept[0], kept[1]) == (False, None, True, None)
    np.testing.assert_array_equal(gone[2], np.where(act.chosen, 0.0, 1.0))
    np.testing.assert_array_equal(kept[2], np.where(act.chosen, 0.8, 1.0))
    never = list(consequences(school_act("admit_fewer_ehcp", records, settings), records.now, settings))
    np.testing.assert_array_equal(never[0][2], never[1][2])  # no term on the roll to count


@pytest.mark.parametrize("foresight", [0.0, 0.3, 1.0])
def test_what_is_foreseen_has_the_stated_correlation_with_what_comes(foresight: float) -> None:
    rng = np.random.default_rng(4)
    sd = np.where(rng.random(200_000) < 0.2, 2.0, 1.0)
    residual = sd * rng.standard_normal(200_000)
    ahead = foresee(residual, sd, foresight, np.random.default_rng(1))
    if foresight == 0.0:
        assert not ahead.any()
        return
    assert np.corrcoef(residual, ahead)[0, 1] == pytest.approx(foresight, abs=0.01)  # four errors of a correlation
    assert np.polyfit(ahead, residual, 1)[0] == pytest.approx(1.0, abs=0.04)  # a forecast: no more, no less
    if foresight == 1.0:
        np.testing.assert_allclose(ahead, residual)
