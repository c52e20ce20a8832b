"""Likelihood of two labels of the same pupils, before transfer and now, given intake need and leniency of schools."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from send_va.errors import InputError
from send_va.validation.corrected_regression import Floats

NAMES = ("tau", "tau_now", "log_kappa", "rho", "log_intake_sd", "log_leniency_sd", "atanh_correlation")
_NODES, _REACH = 15, 4.0  # of each school effect, in its SDs
_LEGENDRE = 6
_START = np.array([0.8, 0.8, 0.0, 0.5, np.log(0.4), np.log(0.4), 0.0])
_TINY = 1e-12
_LARGEST = 3.0  # of the transformed correlation, .995
_LEAST_LOG_SD = np.log(0.01)  # a variance of zero is not reached, and its score vanishes on the way
_RIDGE = 1e-6
_STEP = 1e-5
_MOST_STEPS, _MOST_HALVINGS = 60, 8
_GAIN, _GAIN_WARNED = 1e-4, 1e-2  # twice the log-likelihood still to be gained, by the quadratic approximation


@dataclass(frozen=True, eq=False)
class LabelPairs:
    """Counts of pupils by school, stratum and pair of labels.

    Attributes
    ----------
    counts : array, shape (schools, strata, 4)
        Labelled neither before nor now, now only, before only, both.
    expected : array, shape (strata,)
        Need that background explains, SDs of unexplained need.
    leniency_before : array, shape (strata,)
        Of feeder and authority, estimated.
    error_variance, shared_variance : float
        Of that estimate: of single pupils in all, and the part of it that pupils of a school have in common.
    """

    counts: Floats
    expected: Floats
    leniency_before: Floats
    error_variance: float
    shared_variance: float

    @classmethod
    def of(
        cls,
        *,
        school: NDArray[np.integer],
        before: NDArray[np.bool_],
        now: NDArray[np.bool_],
        expected: Floats,
        leniency_before: Floats,
        error_variance: float,
        shared_variance: float,
        bins: tuple[int, int] = (6, 4),
    ) -> LabelPairs:
        """Count pupils in bins of expected need and, within them, of leniency before transfer.

        Parameters
        ----------
        school : integer array, shape (n,)
        before, now : bool array, shape (n,)
            Labelled at all.
        expected, leniency_before : array, shape (n,)
        error_variance, shared_variance : float
        bins : pair of int
            Bins of equal size, each at the mean of its pupils.

        Raises
        ------
        InputError
            A label that nobody or everybody has, or error variances that cannot be.
        """
        for name, label in (("before transfer", before), ("now", now)):
            if label.all() or not label.any():
                raise InputError(f"the label {name} does not vary", "It takes pupils with and without.")
        if not error_variance >= shared_variance >= 0.0:
            raise InputError(
                f"the error variance of leniency before transfer is {error_variance}, of which schools share "
                f"{shared_variance}",
                "Both must be zero or more, and the second no larger than the first.",
            )
        stratum = _binned(expected, np.zeros(len(expected), dtype=np.intp), bins[0])
        stratum = stratum * bins[1] + _binned(leniency_before, stratum, bins[1])
        strata, cell = bins[0] * bins[1], stratum * 4 + 2 * before + now
        counts = np.zeros((int(school.max()) + 1, strata * 4))
        np.add.at(counts, (school, cell), 1.0)
        size = np.maximum(np.bincount(stratum, minlength=strata), 1)
        means = [np.bincount(stratum, weights=v, minlength=strata) / size for v in (expected, leniency_before)]
        return cls(counts.reshape(len(counts), strata, 4), means[0], means[1], error_variance, shared_variance)

    def by_school(self, parameters: Floats) -> Floats:
        """Log-likelihood of every school, shape (schools,), integrated over its intake need and its leniency.

        Error D in what is known of feeders that a school's pupils share looks like intake need before transfer and not
        now: ``m + D`` and ``a - kappa D`` take the places of intake need m and leniency a, with the covariance that
        this gives them.
        """
        tau, tau_now, log_kappa, rho, log_intake, log_leniency, turned = parameters
        kappa = np.exp(log_kappa)
        z = np.linspace(-_REACH, _REACH, _NODES)
        log_weight = -0.5 * z**2
        log_weight -= np.log(np.exp(log_weight).sum())
        root = self._root(np.exp(log_intake), np.exp(log_leniency), np.tanh(turned), kappa)
        intake, leniency = root[0, 0] * z, root[1, 0] * z[:, None] + root[1, 1] * z  # (M,), (M, A)
        need = self.expected[:, None] + intake  # (C, M)
        spread = np.sqrt(1.0 + self.error_variance - self.shared_variance)
        first = ((need + self.leniency_before[:, None] - tau) / spread)[:, :, None]
        scale = np.sqrt(1.0 + kappa**2)
        without = (kappa * need[:, :, None] + leniency - tau_now) / scale  # (C, M, A)
        link = kappa / (scale * spread)
        both = bivariate_normal(first, without + rho / scale, link)
        now_only = ndtr(without) - bivariate_normal(first, without, link)
        labelled = ndtr(first)
        cells = np.stack([1.0 - labelled - now_only, now_only, labelled - both, both], axis=1)  # (C, 4, M, A)
        log_cells = np.log(np.maximum(cells, _TINY)).reshape(-1, _NODES**2)
        at_nodes = self.counts.reshape(len(self.counts), -1) @ log_cells  # (J, M A)
        at_nodes += np.add.outer(log_weight, log_weight).ravel()
        top = at_nodes.max(axis=1)
        return np.asarray(top + np.log(np.exp(at_nodes - top[:, None]).sum(axis=1)))

    def _root(self, intake_sd: float, leniency_sd: float, correlation: float, kappa: float) -> Floats:
        shared = self.shared_variance
        across = correlation * intake_sd * leniency_sd - kappa * shared
        matrix = [[intake_sd**2 + shared, across], [across, leniency_sd**2 + kappa**2 * shared]]
        return np.linalg.cholesky(np.array(matrix))


@dataclass(frozen=True, eq=False)
class PairFit:
    """Maximum of the likelihood.

    Attributes
    ----------
    parameters, se : array, shape (7,)
        In the order of ``NAMES``; standard errors from the scores of schools, 0 where a parameter is held.
    log_likelihood : float
    converged : bool
    """

    parameters: Floats
    se: Floats
    log_likelihood: float
    converged: bool


def fit_pairs(pairs: LabelPairs, *, correlated: bool, start: Floats | None = None) -> PairFit:
    """Maximise the likelihood, with intake need and leniency correlated or not.

    Steps by the outer product of the schools' scores, halved where they do not climb.

    References
    ----------
    Berndt, Hall, Hall & Hausman (1974), Annals of Economic and Social Measurement 3, 653-665.
    """
    free = len(NAMES) if correlated else len(NAMES) - 1
    parameters = _START.copy() if start is None else start.copy()
    value = float(pairs.by_school(parameters).sum())
    for _ in range(_MOST_STEPS):
        scores = _scores(pairs, parameters, free)
        information = scores.T @ scores
        inverse = np.linalg.inv(information + _RIDGE * np.diag(np.diag(information) + 1.0))
        gradient = scores.sum(axis=0)
        step = inverse @ gradient
        gain = float(gradient @ step)
        parameters, climbed = _climb(pairs, parameters, step, value)
        done = gain < _GAIN or not climbed > value
        value = max(climbed, value)
        if done:
            break
    se = np.zeros(len(NAMES))
    se[:free] = np.sqrt(np.diag(inverse))
    return PairFit(parameters, se, value, gain < _GAIN_WARNED)


def _scores(pairs: LabelPairs, parameters: Floats, free: int) -> Floats:
    """Derivatives of the log-likelihood of every school by the free parameters, (schools, free)."""
    here = pairs.by_school(parameters)
    steps = _STEP * np.eye(len(parameters))[:free]
    return np.stack([(pairs.by_school(parameters + step) - here) / _STEP for step in steps], axis=1)


def _climb(pairs: LabelPairs, parameters: Floats, step: Floats, value: float) -> tuple[Floats, float]:
    """Go along a step, half as far as long as that is no higher; stay where nothing is."""
    padded = np.concatenate([step, np.zeros(len(parameters) - len(step))])
    for _ in range(_MOST_HALVINGS):
        tried = parameters + padded
        tried[4:6] = np.maximum(tried[4:6], _LEAST_LOG_SD)
        tried[-1] = np.clip(tried[-1], -_LARGEST, _LARGEST)
        reached = float(pairs.by_school(tried).sum())
        if reached > value:
            return tried, reached
        padded = padded / 2.0
    return parameters, value


def bivariate_normal(x: Floats, y: Floats, correlation: float) -> Floats:
    """Probability that two standard normal variables lie below x and y, by Gauss-Legendre over the correlation.

    References
    ----------
    Drezner & Wesolowsky (1990), doi:10.1080/00949659008811236.

    Examples
    --------
    >>> bivariate_normal(np.zeros(1), np.zeros(1), 0.5).round(6)  # a third
    array([0.333333])
    """
    nodes, weights = np.polynomial.legendre.leggauss(_LEGENDRE)
    top = np.arcsin(correlation)
    total = np.zeros(np.broadcast_shapes(x.shape, y.shape))
    squares, product = x**2 + y**2, 2.0 * x * y
    for node, weight in zip(0.5 * top * (nodes + 1.0), 0.5 * top * weights, strict=True):
        total += weight * np.exp((product * np.sin(node) - squares) / (2.0 * np.cos(node) ** 2))
    return np.asarray(ndtr(x) * ndtr(y) + total / (2.0 * np.pi))


def _binned(values: Floats, within: NDArray[np.integer], bins: int) -> NDArray[np.intp]:
    """Bins of equal size within groups."""
    order = np.lexsort((values, within))
    counts = np.bincount(within)
    starts = np.concatenate([[0], np.cumsum(counts)])[within[order]]
    place = np.empty(len(values), dtype=np.intp)
    place[order] = (np.arange(len(values)) - starts) * bins // counts[within[order]]
    return place
