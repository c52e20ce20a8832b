"""Modes of schools' effects on labels against a general search of likelihoods written down anew."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from audit_world import need_of, records, without_entry
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.stats import norm

from send_va.sensitivity.held_identification import HeldIdentification
from send_va.sensitivity.held_modes import school_modes

Floats = NDArray[np.float64]
SCHOOLS = (0, 11, 42)


def weights() -> Floats:
    rng = np.random.default_rng(5)
    return rng.choice([0.0, 13.0 / 15.0, 1.0], size=len(records().labels.school), p=[0.05, 0.05, 0.9])


def of_school(school: int) -> NDArray[np.intp]:
    labels = records().labels
    return np.flatnonzero((labels.school == school) & labels.used_at_entry)


def test_intake_need_maximises_the_likelihood_of_labels_before_transfer() -> None:
    need, labels, weight = need_of(), records().labels, weights()
    known = need.parameters
    found, settled = HeldIdentification(need).parameters(weight=weight, leniency=False)
    assert settled.all()
    for school in SCHOOLS:
        rows = of_school(school)
        base = (labels.x @ known.gamma)[rows]
        lenient = known.leniency_before(labels)[rows]

        def negative(m: float, rows: NDArray[np.intp] = rows, base: Floats = base, lenient: Floats = lenient) -> float:
            above = norm.cdf(base[:, None] + m + lenient - known.tau)
            shares = -np.diff(np.column_stack([np.ones(len(rows)), above, np.zeros(len(rows))]), axis=1)
            chance = shares[np.arange(len(rows)), labels.entry[rows]]
            return float(-(weight[rows] * np.log(chance)).sum() + 0.5 * m**2 / known.intake_variance)

        best = minimize_scalar(negative, bracket=(-0.5, 0.5), tol=1e-12)
        assert found.intake[school] == pytest.approx(best.x, abs=1e-5)  # a search by values is good to a root of 1e-10


def test_leniency_maximises_the_likelihood_of_labels_now() -> None:
    need, labels, weight = need_of(), records().labels, weights()
    assert need.now_fit is not None
    now = labels.now.copy()
    now[::9] = (now[::9] == 0).astype(np.intp)
    found, settled = HeldIdentification(need).parameters(now, weight)
    assert settled.all()
    covariance = need.now_fit.solution.covariances[need.now_fit.names.index("school")]
    base, rho = found.base(labels), np.concatenate([[0.0], found.rho])
    cuts = found.cuts(labels, base)
    others = replace(found, school=np.zeros_like(found.school)).index_now(labels)
    school = SCHOOLS[1]
    rows = of_school(school)
    level, status = labels.entry[rows], now[rows]
    low = np.where(level == 0, -9.0, cuts[rows, np.maximum(level - 1, 0)])
    high = np.where(level == 2, 9.0, cuts[rows, np.minimum(level, 1)])
    nodes, shares = np.polynomial.legendre.leggauss(200)
    e = 0.5 * (low + high)[:, None] + 0.5 * (high - low)[:, None] * nodes  # (pupils, nodes)
    density = 0.5 * (high - low)[:, None] * shares * norm.pdf(e)

    def negative(a: Floats) -> float:
        index = found.kappa * (base[rows, None] + e)[..., None] + (others[rows] + a + rho[level][:, None])[:, None]
        above = np.concatenate([np.ones((*e.shape, 1)), norm.cdf(index), np.zeros((*e.shape, 1))], axis=2)
        at = np.take_along_axis(-np.diff(above, axis=2), status[:, None, None], axis=2)[..., 0]
        chance = (density * at).sum(axis=1)
        return float(-(weight[rows] * np.log(chance)).sum() + 0.5 * a @ np.linalg.solve(covariance, a))

    here, step = found.school[school], 1e-3
    slope = [(negative(here + step * one) - negative(here - step * one)) / (2 * step) for one in np.eye(2)]
    # Curvature is about 10, and the kernels keep eight digits: within 1e-5 of the mode.
    assert np.abs(slope).max() < 1e-4
    assert all(negative(here) < negative(here + move) for move in 0.05 * np.array([[1, 0], [0, -1], [1, 1]]))


def test_without_labels_before_transfer_what_a_school_adds_follows_its_labels() -> None:
    base, need = without_entry()
    held = HeldIdentification(need)
    pi, severity = held.scores("standardised")
    at_fit = need.scores("standardised").plug_in()
    np.testing.assert_allclose(pi, at_fit[0], atol=1e-6)
    np.testing.assert_allclose(severity, at_fit[1], atol=1e-6)
    now = np.where((base.labels.school == 7) & (base.labels.now == 0), 1, base.labels.now)
    known, settled = held._split(now, None)
    assert settled.all()
    before = need.parameters.intake + need.parameters.feeder[:, 0]
    after = known.intake + known.feeder[:, 0]
    others = np.arange(len(after)) != 7
    assert after[7] > before[7] + 0.5
    np.testing.assert_allclose(after[others], before[others], atol=1e-6)
    # half of what the school adds is taken to be need, as assumed
    assert known.intake[7] == pytest.approx(0.5 * after[7])


def test_a_covariance_of_zero_holds_effects_at_zero_and_one_without_rank_in_its_direction() -> None:
    rng = np.random.default_rng(2)

    def derivatives(rows: NDArray[np.intp], eta: Floats) -> tuple[Floats, Floats]:
        return target[rows] - eta, np.broadcast_to(np.eye(2), (len(rows), 2, 2))  # normal labels, unit variance

    target = rng.standard_normal((40, 2)) + 1.0
    codes, start, offset = np.repeat([0, 1], 20), np.zeros((3, 2)), np.zeros((40, 2))
    none, settled = school_modes(derivatives, codes, np.eye(2), np.zeros((2, 2)), start, offset)
    assert settled.all()
    np.testing.assert_array_equal(none, np.zeros((3, 2)))
    along, _ = school_modes(derivatives, codes, np.eye(2), np.ones((2, 2)), start, offset)
    # one shared effect with variance 1: its mean given 40 normal values is their sum over 41
    expected = [target[codes == k].sum() / 41.0 for k in (0, 1)]
    np.testing.assert_allclose(along[:2], np.repeat(expected, 2).reshape(2, 2), rtol=1e-9)
    np.testing.assert_array_equal(along[2], [0.0, 0.0])


def test_the_search_agrees_with_another_in_two_dimensions() -> None:
    rng = np.random.default_rng(8)
    counts, codes = rng.poisson(2.0, (60, 2)).astype(float), np.repeat(np.arange(6), 10)

    def derivatives(rows: NDArray[np.intp], eta: Floats) -> tuple[Floats, Floats]:
        rate = np.exp(eta)
        return counts[rows] - rate, rate[:, :, None] * np.eye(2)

    covariance = np.array([[0.5, 0.2], [0.2, 0.3]])
    offset = 0.3 * rng.standard_normal((60, 2))
    found, _ = school_modes(derivatives, codes, np.eye(2), covariance, np.zeros((6, 2)), offset)
    for school in range(6):
        rows = codes == school

        def negative(a: Floats, rows: NDArray[np.bool_] = rows) -> float:
            eta = offset[rows] + a
            return float((np.exp(eta) - counts[rows] * eta).sum() + 0.5 * a @ np.linalg.solve(covariance, a))

        best = minimize(negative, np.zeros(2), tol=1e-12)
        np.testing.assert_allclose(found[school], best.x, atol=1e-5)
