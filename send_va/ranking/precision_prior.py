"""Location and scale of the true values as smooth functions of the logarithm of the standard error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit

from send_va.effects import FloatArray
from send_va.ranking.normal_prior import fit_normal_prior

FEWEST_UNITS = 20  # below it both functions are constants
_POINTS = 200  # at which the functions are fitted; linear between them
_BANDWIDTHS = 16


@dataclass(frozen=True)
class LocationScale:
    """Prior mean and SD of every unit, given its precision.

    Attributes
    ----------
    location, scale : array (units,)
        Mean and SD of true values among units with this standard error.
    location_bandwidth, scale_bandwidth : float
        In units of log standard error; infinite where the function is a constant.
    floored : int
        Units whose scale is the floor and not the estimate.
    """

    location: FloatArray
    scale: FloatArray
    location_bandwidth: float
    scale_bandwidth: float
    floored: int


@dataclass(frozen=True)
class _Smooth:
    fit: FloatArray
    leverage: FloatArray
    effective_size: float
    bandwidth: float


def fit_location_scale(y: FloatArray, se: FloatArray) -> LocationScale:
    """Local linear fits of the estimates, then of their squared residuals less the sampling variance.

    Bandwidths minimise the leave-one-out error; every window holds at least ``2 sqrt(units)`` units. Squared residuals
    are divided by one minus the leverage. The variance is not let fall below ``2 / (m + 2)`` times the total variance,
    m the mean effective size of the windows (Chen 2022, arXiv:2212.14444, after Kubokawa, Robert & Saleh 1993).
    """
    prior = fit_normal_prior(y, se)
    x = np.log(se)
    if len(y) < FEWEST_UNITS or np.ptp(x) < 1e-8:
        variance = max(prior.variance, _floor(0.0, float(np.mean(se**2)), len(y)))
        scale, floored = np.full(len(y), math.sqrt(variance)), len(y) if variance > prior.variance else 0
        return LocationScale(np.full(len(y), prior.mean), scale, math.inf, math.inf, floored)
    weight = 1.0 / (prior.variance + se**2)
    location = _smooth(x, y, weight)
    excess = (y - location.fit) ** 2 / (1.0 - location.leverage) - se**2
    spread = _smooth(x, excess, weight**2)
    floor = 2.0 / (spread.effective_size + 2.0) * (np.maximum(spread.fit, 0.0) + se**2)
    scale = np.sqrt(np.maximum(spread.fit, floor))
    floored = int(np.sum(spread.fit < floor))
    return LocationScale(location.fit, scale, location.bandwidth, spread.bandwidth, floored)


def _floor(variance: float, sampling_variance: float, effective_size: float) -> float:
    return 2.0 / (effective_size + 2.0) * (variance + sampling_variance)


def _smooth(x: FloatArray, y: FloatArray, weight: FloatArray) -> _Smooth:
    """Weighted local linear fit whose bandwidth minimises the weighted leave-one-out error."""
    order = np.argsort(x, kind="stable")
    xs, ys, ws = x[order], y[order], weight[order] / weight.max()
    points = np.linspace(xs[0], xs[-1], _POINTS)
    nearest = _distance_to_kth(xs, points, min(len(x), max(10, math.ceil(2.0 * math.sqrt(len(x))))))
    best, least = None, math.inf
    for bandwidth in np.geomspace(3.0, 0.05, _BANDWIDTHS) * (xs[-1] - xs[0]):
        fit, leverage, size = _local_linear(points, np.maximum(bandwidth, nearest), xs, ys, ws)
        at, own = np.interp(xs, points, fit), np.minimum(ws * np.interp(xs, points, leverage), 0.9)
        error = float(np.sum(ws * ((ys - at) / (1.0 - own)) ** 2))
        if error < least * (1.0 - 1e-9):
            best, least = (at, own, float(np.mean(size)), float(bandwidth)), error
    if best is None:
        raise AssertionError("no bandwidth has a finite leave-one-out error")
    back = np.empty_like(order)
    back[order] = np.arange(len(x))
    return _Smooth(best[0][back], best[1][back], best[2], best[3])


def _distance_to_kth(xs: FloatArray, points: FloatArray, k: int) -> FloatArray:
    """Distance from each point to its k-th nearest entry, a little further so that this entry has weight."""
    out = np.empty(len(points))
    for i, point in enumerate(points):
        out[i] = np.partition(np.abs(xs - point), k - 1)[k - 1]
    return 1.05 * out


@njit(cache=True, nogil=True)
def _local_linear(
    points: FloatArray, bandwidth: FloatArray, xs: FloatArray, ys: FloatArray, ws: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Fit at every point with the Epanechnikov kernel, what an entry there weighs in it, and the effective size."""
    fit, leverage, size = np.empty(len(points)), np.empty(len(points)), np.empty(len(points))
    for p in range(len(points)):
        h = bandwidth[p]
        first, last = np.searchsorted(xs, points[p] - h), np.searchsorted(xs, points[p] + h)
        s0, s1, s2, t0, t1 = 0.0, 0.0, 0.0, 0.0, 0.0
        for i in range(first, last):
            u = (xs[i] - points[p]) / h
            k = ws[i] * (1.0 - u * u)
            s0, s1, s2 = s0 + k, s1 + k * u, s2 + k * u * u
            t0, t1 = t0 + k * ys[i], t1 + k * u * ys[i]
        determinant = s0 * s2 - s1 * s1
        if determinant <= 1e-8 * s0 * s0:  # the window holds one standard error only: a mean, not a line
            s1, s2, determinant = 0.0, 1.0, s0
        fit[p] = (s2 * t0 - s1 * t1) / determinant
        leverage[p] = s2 / determinant
        squares = 0.0
        for i in range(first, last):
            u = (xs[i] - points[p]) / h
            share = ws[i] * (1.0 - u * u) * (s2 - s1 * u) / determinant
            squares += share * share
        size[p] = 1.0 / squares
    return fit, leverage, size
