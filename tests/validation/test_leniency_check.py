"""The check of leniency: its probabilities, its estimates, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import multivariate_normal

import send_va as sv
from send_va.errors import InputError
from send_va.validation.label_pairs import LabelPairs, bivariate_normal, fit_pairs
from send_va.validation.leniency_check import check_leniency, label_pairs_of
from send_va.validation.leniency_worlds import LeniencyWorld
from send_va.validation.recovery import ROLES

SMALL = LeniencyWorld(schools=80, pupils=100, feeders=400)


def pairs(correlation: float = 0.0, seed: int = 1) -> LabelPairs:
    return replace(SMALL, correlation=correlation).draw(np.random.default_rng(seed))


def test_bivariate_normal_probabilities() -> None:
    """Against the one of scipy, which is exact to 1e-8 in two dimensions."""
    for correlation in (0.0, 0.3, 0.6):
        for x, y in ((-1.2, 0.4), (0.0, 0.0), (2.0, -0.5)):
            outside = multivariate_normal.cdf([x, y], cov=[[1.0, correlation], [correlation, 1.0]])
            ours = bivariate_normal(np.array([x]), np.array([y]), correlation)[0]
            assert ours == pytest.approx(outside, abs=1e-6)


def test_likelihood_of_one_pupil_a_school_is_the_probability_of_its_labels() -> None:
    """Two labels have four outcomes: probabilities add up to one, and are those of simulated pupils."""
    parameters = np.array([0.8, 1.0, np.log(0.7), 0.6, np.log(0.3), np.log(0.5), np.arctanh(0.4)])
    one = LabelPairs(np.eye(4)[:, None, :], np.array([0.2]), np.array([-0.3]), 0.1, 0.02)
    found = np.exp(one.by_school(parameters))
    assert found.sum() == pytest.approx(1.0, abs=1e-9)
    rng, n = np.random.default_rng(1), 200_000
    z = rng.standard_normal((5, n))
    intake, leniency = 0.3 * z[0], 0.5 * (0.4 * z[0] + np.sqrt(1 - 0.16) * z[1])
    need = 0.2 + intake + z[2]
    before = need - 0.3 + np.sqrt(0.1) * z[3] > 0.8
    now = 0.7 * need + 0.6 * before + leniency - 1.0 + z[4] > 0.0
    seen = np.bincount(2 * before + now, minlength=4) / n
    np.testing.assert_allclose(found, seen, atol=4 * np.sqrt(0.25 / n))


def test_shared_error_of_feeders_is_taken_for_neither() -> None:
    """Over two draws; estimates of one have an SD of about .15."""
    found = [check_leniency(pairs(0.3, seed)) for seed in range(2)]
    assert abs(np.mean([one.correlation for one in found]) - 0.3) < 3 * 0.15 / np.sqrt(2)
    assert sum(one.lower <= 0.3 <= one.upper for one in found) >= 1
    assert all(one.converged for one in found)
    assert found[0].kappa == pytest.approx(0.8, abs=0.3) and found[0].schools == 80


def test_correlated_leniency_is_found_and_said() -> None:
    found = check_leniency(pairs(0.6, 3))
    assert found.rejects and "more need" in found.verdict and found.lower > 0.0
    assert "Correlation +0." in str(found) and "<br>" in found._repr_html_()


def test_maximum_is_one() -> None:
    made = pairs()
    fit = fit_pairs(made, correlated=True)
    for k in range(7):
        for step in (-0.1, 0.1):
            moved = fit.parameters.copy()
            moved[k] += step
            assert made.by_school(moved).sum() < fit.log_likelihood


def test_labels_of_an_identification_fit() -> None:
    world = sv.simulate(np.random.default_rng(1), schools=30, pupils_per_school=60, scenario="magnets")
    need = sv.fit_identification(sv.Cohort.from_pandas(world.pupils, ROLES, synthetic=True), seed=1, draws=3)
    made = label_pairs_of(need)
    assert made.counts.sum() == need.labels.used_at_entry.sum()
    assert 0.0 < made.shared_variance < made.error_variance < 1.0
    assert len(made.counts) == 30 and made.expected.std() > 0.3


def test_schools_that_do_not_differ_are_refused() -> None:
    made = replace(SMALL, intake_sd=0.0).draw(np.random.default_rng(1))
    with pytest.raises(InputError, match="schools hardly differ in intake need"):
        check_leniency(made)


def test_bad_inputs() -> None:
    made = pairs()
    with pytest.raises(InputError, match="20 schools have both labels"):
        check_leniency(replace(made, counts=made.counts[:20]))
    with pytest.raises(InputError, match="coverage"):
        check_leniency(made, coverage=1.0)
    n = np.arange(200)
    given = {"school": n % 40, "expected": n * 1.0, "leniency_before": n * 1.0}
    with pytest.raises(InputError, match="label now does not vary"):
        LabelPairs.of(**given, before=n < 9, now=n < 0, error_variance=0.1, shared_variance=0.0)
    with pytest.raises(InputError, match="second no larger"):
        LabelPairs.of(**given, before=n < 9, now=n < 9, error_variance=0.1, shared_variance=0.2)
    with pytest.raises(InputError, match="between -1 and 1"):
        LeniencyWorld(correlation=1.0)
