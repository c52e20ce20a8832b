"""The test of earlier scores: size, power and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from send_va.errors import InputError
from send_va.validation.falsification import PupilScores, effects_without, falsify, halves
from send_va.validation.falsification_worlds import FalsificationWorld, SimulatedPupils

NOISY = FalsificationWorld(schools=150, pupils=40, intake_sd=0.5, reliability=0.8)


def rejections(world: FalsificationWorld, runs: int, corrected: bool = True) -> int:
    drawn = [world.draw(np.random.default_rng([7, k])) for k in range(runs)]
    return sum(falsify(one.scores(corrected=corrected), outcome=one.outcome).rejects for one in drawn)


def test_corrected_it_holds_its_size_and_uncorrected_it_rejects_by_itself() -> None:
    """Of 40 runs, 2 expected at 5 %: more than 7 in one of 1,000 such tests."""
    assert rejections(NOISY, 40) <= 7
    assert rejections(NOISY, 10, corrected=False) >= 6


def test_it_finds_sorting_that_shows_in_earlier_scores_and_a_baseline_that_was_moved() -> None:
    assert rejections(replace(NOISY, violation="sorting", amount=0.6), 6) >= 4
    assert rejections(replace(NOISY, violation="baseline", amount=0.2), 6) >= 4


def test_it_does_not_see_drift() -> None:
    assert rejections(replace(NOISY, violation="drift", amount=0.4), 12) <= 4


def drawn(world: FalsificationWorld = NOISY, seed: int = 3) -> SimulatedPupils:
    return world.draw(np.random.default_rng(seed))


def test_standard_error_is_that_of_leaving_out_schools() -> None:
    """Everything done again without each school; a jackknife of 60 schools is itself known to about 10 %."""
    world = replace(NOISY, schools=60, violation="sorting", amount=0.5)
    every = drawn(world)
    found = falsify(every.scores(corrected=True), outcome=every.outcome)
    without = []
    for left_out in range(60):
        keep = every.school != left_out
        school = every.school[keep] - (every.school[keep] > left_out)
        scores = PupilScores.of(
            school=school,
            fold=every.fold[keep],
            earlier=every.earlier[keep],
            prior=every.prior[keep, None],
            reliability=0.8,
        )
        without.append(falsify(scores, outcome=every.outcome[keep]).coefficient)
    jackknife = np.sqrt(59 / 60 * ((np.array(without) - found.coefficient) ** 2).sum())
    assert found.se == pytest.approx(jackknife, rel=0.2)


def test_effects_come_from_other_folds_only() -> None:
    world = drawn(replace(NOISY, schools=30))
    scores = world.scores(corrected=True)
    before = effects_without(scores, world.outcome).effect
    at = (world.school == 4) & (world.fold == 1)
    moved = world.outcome + np.where(at, np.random.default_rng(1).standard_normal(len(at)), 0.0)
    moved[at] -= (moved - world.outcome)[at].mean()  # the mean of the cell and the national mean stay
    after = effects_without(scores, moved).effect
    np.testing.assert_allclose(
        after[at] / before[at], 1.0, rtol=0.1
    )  # slopes and shrinkage, shared by all, move a little
    assert (
        np.corrcoef(before[world.fold == 0], world.effect[world.school[world.fold == 0], 1])[0, 1] > 0.7
    )  # root of the reliability .64 of effects of 40 pupils


def test_effects_estimated_elsewhere_give_the_same_answer_up_to_scale() -> None:
    world = drawn()
    scores = world.scores(corrected=True)
    own = effects_without(scores, world.outcome).effect
    table = np.full((150, 2), np.nan)
    table[world.school, world.fold] = own
    outside = falsify(scores, effects=2.0 * table)
    inside = falsify(scores, outcome=world.outcome)
    assert 2.0 * outside.coefficient == pytest.approx(inside.coefficient)
    assert outside.p_value == pytest.approx(inside.p_value, abs=0.03)  # uncertain slopes add little near zero
    table[5:, :] = np.nan
    with pytest.raises(InputError, match="5 schools have effects"):
        falsify(scores, effects=table)


def test_covariates_standard_errors_of_measurement_and_words() -> None:
    world = drawn()
    sem = np.full(len(world.prior), 0.5)
    scores = PupilScores.of(
        school=world.school,
        fold=world.fold,
        earlier=world.earlier,
        prior=world.prior,
        sem=sem,
        covariates=np.random.default_rng(1).standard_normal((len(sem), 2)),
    )
    found = falsify(scores, outcome=world.outcome)
    plain = falsify(world.scores(corrected=True), outcome=world.outcome)
    assert found.coefficient == pytest.approx(plain.coefficient, abs=0.5 * plain.se)  # error variance .25 either way
    assert found.corrected and "does not see" in str(found) and found.as_dict()["schools"] == 150
    assert "Not corrected" in falsify(world.scores(corrected=False), outcome=world.outcome).verdict


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=12, max_size=60), st.integers(0, 1000))
def test_halves_of_a_school_differ_by_one_pupil_at_most(school: list[int], seed: int) -> None:
    codes = np.array(school)
    fold = halves(codes, np.random.default_rng(seed))
    first, second = (np.bincount(codes[fold == k], minlength=6) for k in (0, 1))
    assert set(np.unique(first - second)) <= {0, 1}


def test_halves_of_one_cohort_hold_their_size() -> None:
    world = replace(NOISY, cohorts=1)
    rejected = 0
    for k in range(30):
        rng = np.random.default_rng([8, k])
        one = world.draw(rng)
        scores = PupilScores.of(
            school=one.school,
            fold=halves(one.school, rng),
            earlier=one.earlier,
            prior=one.prior,
            reliability=0.8,
        )
        rejected += falsify(scores, outcome=one.outcome).rejects
    assert rejected <= 6  # more in 1 of 1,000


def test_bad_inputs() -> None:
    world = drawn(replace(NOISY, schools=12))
    given_ = {"school": world.school, "fold": world.fold, "prior": world.prior}
    with pytest.raises(InputError, match="no earlier score"):
        PupilScores.of(**given_, earlier=None, reliability=0.9)
    for value in (0.0, 1.2):
        with pytest.raises(InputError, match="reliability must be above 0"):
            PupilScores.of(**given_, earlier=world.earlier, reliability=value)
        with pytest.raises(InputError, match="reliability must be above 0"):
            FalsificationWorld(reliability=value)
    with pytest.raises(InputError, match="either the reliability"):
        PupilScores.of(**given_, earlier=world.earlier)
    with pytest.raises(InputError, match="below zero"):
        PupilScores.of(**given_, earlier=world.earlier, sem=np.full(len(world.prior), -1.0))
    with pytest.raises(InputError, match="earlier has no value for 1 pupils"):
        PupilScores.of(**given_, earlier=np.where(np.arange(len(world.prior)) == 3, np.nan, 1.0), reliability=0.9)
    with pytest.raises(InputError, match="all pupils are in one fold"):
        PupilScores.of(**given_ | {"fold": world.fold * 0}, earlier=world.earlier, reliability=0.9)
    with pytest.raises(InputError, match="one row each"):
        PupilScores.of(**given_ | {"fold": world.fold[1:]}, earlier=world.earlier, reliability=0.9)
    scores = world.scores(corrected=True)
    with pytest.raises(InputError, match="either the outcome"):
        falsify(scores)
    with pytest.raises(InputError, match="coverage"):
        falsify(scores, outcome=world.outcome, coverage=1.0)
    with pytest.raises(InputError, match="no violation"):
        FalsificationWorld(violation="magic")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="drift must lie"):
        FalsificationWorld(violation="drift", amount=1.5)
