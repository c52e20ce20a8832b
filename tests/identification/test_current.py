"""The equation of the label now: known truth recovered, the same whatever the number of cores."""

import os
from dataclasses import replace

import numpy as np
import pytest

from send_va.identification import current
from send_va.identification.current import CurrentLabel, fit_current
from send_va.multilevel.latent_system import Term

SCHOOLS, N = 120, 8_000
KAPPA, RHO, TAU, SD = 0.6, np.array([1.7, 2.8]), np.array([2.0, 4.0]), 0.5


def simulated(reliability: float = 1.0, seed: int = 4) -> tuple[CurrentLabel, np.ndarray, np.ndarray, np.ndarray]:
    """Likelihood at the true need model, label before, school and its leniency."""
    rng = np.random.default_rng(seed)
    school = rng.integers(0, SCHOOLS, N)
    leniency = SD * rng.standard_normal((SCHOOLS, 1)) * [1.0, 0.5]
    base = 0.6 * rng.standard_normal(N)
    need = rng.standard_normal(N)
    judged = np.sqrt(reliability) * need + np.sqrt(1 - reliability) * rng.standard_normal(N)
    cuts = np.column_stack([np.full(N, -1e9), 1.0 - base, 2.4 - base, np.full(N, 1e9)])
    entry = (judged[:, None] > cuts[:, 1:3]).sum(axis=1)
    index = KAPPA * (base + np.sqrt(reliability) * need) + np.array([0.0, *RHO])[entry] + rng.standard_normal(N)
    now = (index[:, None] + leniency[school] > TAU).sum(axis=1)
    at = np.arange(N)
    likelihood = CurrentLabel(
        status=now, base=base, low=cuts[at, entry], high=cuts[at, entry + 1], d=2, reliability=reliability
    )
    return likelihood, entry, school, leniency


@pytest.mark.parametrize("reliability", [1.0, 1 / 1.36])
def test_recovers_what_made_the_labels(reliability: float) -> None:
    """Within four standard errors; leniency correlates with the truth as its reliability allows."""
    likelihood, entry, school, leniency = simulated(reliability)
    found = fit_current(likelihood, entry, [Term(school, SCHOOLS, np.eye(2)[None])])
    assert found.convergence.converged
    assert len(found.parameters) == 4  # a covariance of two thresholds, then kappa
    se = np.sqrt(found.parameters_cov[-1, -1])
    assert 0 < se < 0.2
    assert abs(found.parameters[-1] - KAPPA) < 4 * se
    expected = [*RHO, *-TAU]
    assert (np.abs(found.beta - expected) < 4 * np.sqrt(np.diag(found.beta_cov)) + 4 * se).all()
    assert np.sqrt(found.covariances[0][0, 0]) == pytest.approx(SD, abs=0.12)
    assert np.corrcoef(found.modes[0][:, 0], leniency[:, 0])[0, 1] > 0.85


def test_an_earlier_fit_is_a_start_and_changes_nothing() -> None:
    likelihood, entry, school, _ = simulated()
    terms = [Term(school, SCHOOLS, np.eye(2)[None])]
    first = fit_current(likelihood, entry, terms)
    again = fit_current(likelihood, entry, terms, start=first)
    assert again.llf == pytest.approx(first.llf, abs=1e-3)
    np.testing.assert_allclose(again.parameters, first.parameters, atol=5e-3)
    assert again.convergence.evaluations < first.convergence.evaluations


def test_one_threshold() -> None:
    """Any label in place of support and EHCP: the same need model with one cut, so nearly the same estimates."""
    likelihood, entry, school, _ = simulated()
    both = fit_current(likelihood, entry, [Term(school, SCHOOLS, np.eye(2)[None])])
    any_label, cut = np.minimum(entry, 1), 1.0 - likelihood.base
    single = replace(
        likelihood,
        status=np.minimum(likelihood.status, 1),
        low=np.where(any_label == 1, cut, -1e9),
        high=np.where(any_label == 1, 1e9, cut),
        d=1,
    )
    found = fit_current(single, any_label, [Term(school, SCHOOLS, np.ones((1, 1, 1)))])
    assert found.convergence.converged
    assert found.beta.shape == (2,)
    np.testing.assert_allclose(found.beta, both.beta[[0, 2]], atol=0.15)
    assert np.sqrt(found.covariances[0][0, 0]) == pytest.approx(SD, abs=0.12)


def test_the_sum_does_not_depend_on_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are cut into parts of fixed size: one core and several give the same bits."""
    monkeypatch.setattr(current, "_PART", 1_000)
    likelihood, _, _, _ = simulated()
    eta = np.random.default_rng(1).normal(-1.5, 1.0, (N, 1)) - np.array([0.0, 2.0])
    results = []
    for cores in (1, 2, 5):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        results.append((*likelihood.derivatives(eta), likelihood.third(eta)))
    for other in results[1:]:
        assert other[0] == results[0][0]
        for a, b in zip(other[1:], results[0][1:], strict=True):
            np.testing.assert_array_equal(a, b)


def test_kappa_is_the_likelihoods_own_parameter() -> None:
    likelihood, *_ = simulated()
    other = likelihood.with_shape(np.array([0.3]))
    assert other.shape.tolist() == [0.3]
    assert likelihood.shape.tolist() == [current.START_KAPPA]
    eta = np.tile([-2.0, -4.0], (N, 1))
    assert other.derivatives(eta)[0] != likelihood.derivatives(eta)[0]
