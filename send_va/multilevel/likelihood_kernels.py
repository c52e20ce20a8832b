"""Log-likelihood of one row and its derivatives to third order, accurate in the tails: compiled functions.

A row's log-probability is ``log F(x)`` or ``log(F(a) - F(b))``, F the logistic or the normal distribution function.
Curvature means minus the second derivative, so that it is positive: every log-probability here is concave.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)
# Below this distance between two neighbouring predictors log(distance) goes on as its second-order expansion: finite
# and concave where predictors cross on the way, and far below any distance at which an estimate can lie (one record
# in a million in a category puts its predictors about 2e-6 apart).
SMALLEST_GAP = 1e-6
_FAR = -30.0  # below it the asymptotic series of the normal tail are exact to rounding


@njit(cache=True, nogil=True)
def log_normal_cdf(x: float) -> float:
    """Logarithm of the normal distribution function."""
    if x < _FAR:
        r = 1.0 / (x * x)
        series = 1.0 - r * (1.0 - r * (3.0 - r * (15.0 - r * 105.0)))
        return -0.5 * x * x - LOG_SQRT_2PI - math.log(-x) + math.log(series)
    if x < 0.0:
        return math.log(0.5 * math.erfc(-x / math.sqrt(2.0)))
    return math.log1p(-0.5 * math.erfc(x / math.sqrt(2.0)))


@njit(cache=True, nogil=True)
def tail(x: float, logit: bool) -> tuple[float, float, float, float]:
    """Return ``log F(x)``, its derivative, its curvature, and the derivative of the curvature."""
    if logit:
        e = math.exp(-abs(x))
        below, above = (1.0 / (1.0 + e), e / (1.0 + e)) if x > 0.0 else (e / (1.0 + e), 1.0 / (1.0 + e))
        value = min(x, 0.0) - math.log1p(e)
        return value, above, below * above, below * above * (above - below)
    value = log_normal_cdf(x)
    if x < _FAR:
        r = 1.0 / (x * x)
        excess = -(1.0 - r * (2.0 - r * (10.0 - r * (74.0 - r * (706.0 - r * 8162.0))))) / x
        mills = excess - x
    else:
        mills = math.exp(-0.5 * x * x - LOG_SQRT_2PI - value)
        excess = mills + x
    return value, mills, mills * excess, mills * (1.0 - excess * (mills + excess))


@njit(cache=True, nogil=True)
def _log_gap(w: float, logit: bool) -> tuple[float, float, float, float]:
    """``log(1 - exp(-w))`` (logit) or ``log(w)`` (probit) and three derivatives; a parabola below the smallest gap."""
    at = max(w, SMALLEST_GAP)
    if logit:
        u, v = math.exp(-at), -math.expm1(-at)
        value, first, second, third = math.log(v), u / v, -u / (v * v), u * (1.0 + u) / (v * v * v)
    else:
        value, first, second, third = math.log(at), 1.0 / at, -1.0 / (at * at), 2.0 / (at * at * at)
    if w < SMALLEST_GAP:
        step = w - SMALLEST_GAP
        return value + first * step + 0.5 * second * step * step, first + second * step, second, 0.0
    return value, first, second, third


@njit(cache=True, nogil=True)
def _normal_interval(a: float, b: float) -> float:
    """``log(Phi(a) - Phi(b))``, a > b."""
    high, low = (a, b) if a + b <= 0.0 else (-b, -a)
    upper = log_normal_cdf(high)
    return upper + math.log(-math.expm1(log_normal_cdf(low) - upper))


@njit(cache=True, nogil=True)
def interval(a: float, b: float, logit: bool, out: Floats) -> None:
    """Fill `out` with ``log(F(a) - F(b))`` and its derivatives.

    Order: value; by a, b; curvature aa, ab, bb; derivatives of the curvature aaa, aab, abb, bbb.
    """
    w = a - b
    if not logit and w >= SMALLEST_GAP:
        value = _normal_interval(a, b)
        ga = math.exp(-0.5 * a * a - LOG_SQRT_2PI - value)
        gb = -math.exp(-0.5 * b * b - LOG_SQRT_2PI - value)
        haa, hab, hbb = ga * (ga + a), ga * gb, gb * (gb + b)
        out[0], out[1], out[2], out[3], out[4], out[5] = value, ga, gb, haa, hab, hbb
        out[6], out[7] = ga - (2.0 * ga + a) * haa, -(2.0 * ga + a) * hab
        out[8], out[9] = -hab * gb - ga * hbb, gb - (2.0 * gb + b) * hbb
        return
    gap, d1, d2, d3 = _log_gap(w, logit)
    if logit:
        fa, ga, ha, ta = tail(a, True)
        fb, gb, hb, tb = tail(-b, True)
        out[0], out[1], out[2] = fa + fb + gap, ga + d1, -gb - d1
        out[3], out[4], out[5] = ha - d2, d2, hb - d2
        out[6], out[7], out[8], out[9] = ta - d3, d3, -d3, d3 - tb
        return
    middle = 0.5 * (a + b)  # Phi(a) - Phi(b) = w phi(middle), to order w^3
    out[0], out[1], out[2] = gap - 0.5 * middle * middle - LOG_SQRT_2PI, d1 - 0.5 * middle, -d1 - 0.5 * middle
    out[3], out[4], out[5] = 0.25 - d2, 0.25 + d2, 0.25 - d2
    out[6:] = 0.0


@njit(cache=True, nogil=True)
def binomial_values(eta: Floats, successes: Floats, trials: Floats, logit: bool) -> Floats:
    """Log-likelihood of every row, without the binomial coefficient."""
    out = np.zeros(len(successes))
    for i in range(len(successes)):
        failures = trials[i] - successes[i]
        if successes[i] > 0.0:
            out[i] += successes[i] * tail(eta[i, 0], logit)[0]
        if failures > 0.0:
            out[i] += failures * tail(-eta[i, 0], logit)[0]
    return out


@njit(cache=True, nogil=True)
def binomial_derivatives(eta: Floats, successes: Floats, trials: Floats, logit: bool) -> tuple[float, Floats, Floats]:
    """Log-likelihood, gradient (n, 1) and curvature (n, 1, 1)."""
    n = len(successes)
    total = 0.0
    gradient, curvature = np.zeros((n, 1)), np.zeros((n, 1, 1))
    for i in range(n):
        y, failures = successes[i], trials[i] - successes[i]
        if y > 0.0:
            value, g, h, _ = tail(eta[i, 0], logit)
            total += y * value
            gradient[i, 0] += y * g
            curvature[i, 0, 0] += y * h
        if failures > 0.0:
            value, g, h, _ = tail(-eta[i, 0], logit)
            total += failures * value
            gradient[i, 0] -= failures * g
            curvature[i, 0, 0] += failures * h
    return total, gradient, curvature


@njit(cache=True, nogil=True)
def binomial_third(eta: Floats, successes: Floats, trials: Floats, logit: bool) -> Floats:
    """Derivative of the curvature by the predictor, shape (n, 1, 1, 1)."""
    third = np.zeros((len(successes), 1, 1, 1))
    for i in range(len(successes)):
        failures = trials[i] - successes[i]
        if successes[i] > 0.0:
            third[i, 0, 0, 0] += successes[i] * tail(eta[i, 0], logit)[3]
        if failures > 0.0:
            third[i, 0, 0, 0] -= failures * tail(-eta[i, 0], logit)[3]
    return third


@njit(cache=True, nogil=True)
def ordinal_values(eta: Floats, status: Ints, weights: Floats, logit: bool) -> Floats:
    """Weighted log-probability of every row's category."""
    n, d = eta.shape
    out, cell = np.zeros(n), np.zeros(10)
    for i in range(n):
        k = status[i]
        if k == 0:
            out[i] = weights[i] * tail(-eta[i, 0], logit)[0]
        elif k == d:
            out[i] = weights[i] * tail(eta[i, d - 1], logit)[0]
        else:
            interval(eta[i, k - 1], eta[i, k], logit, cell)
            out[i] = weights[i] * cell[0]
    return out


@njit(cache=True, nogil=True)
def ordinal_derivatives(eta: Floats, status: Ints, weights: Floats, logit: bool) -> tuple[float, Floats, Floats]:
    """Log-likelihood, gradient (n, d) and curvature (n, d, d)."""
    n, d = eta.shape
    total = 0.0
    gradient, curvature, cell = np.zeros((n, d)), np.zeros((n, d, d)), np.zeros(10)
    for i in range(n):
        k, w = status[i], weights[i]
        if k == 0 or k == d:
            sign = -1.0 if k == 0 else 1.0
            c = 0 if k == 0 else d - 1
            value, g, h, _ = tail(sign * eta[i, c], logit)
            total += w * value
            gradient[i, c] = w * sign * g
            curvature[i, c, c] = w * h
        else:
            interval(eta[i, k - 1], eta[i, k], logit, cell)
            total += w * cell[0]
            gradient[i, k - 1], gradient[i, k] = w * cell[1], w * cell[2]
            curvature[i, k - 1, k - 1], curvature[i, k, k] = w * cell[3], w * cell[5]
            curvature[i, k - 1, k] = curvature[i, k, k - 1] = w * cell[4]
    return total, gradient, curvature


@njit(cache=True, nogil=True)
def ordinal_third(eta: Floats, status: Ints, weights: Floats, logit: bool) -> Floats:
    """Derivative of the curvature by the predictors, shape (n, d, d, d)."""
    n, d = eta.shape
    third, cell = np.zeros((n, d, d, d)), np.zeros(10)
    for i in range(n):
        k, w = status[i], weights[i]
        if k == 0 or k == d:
            sign = -1.0 if k == 0 else 1.0
            c = 0 if k == 0 else d - 1
            third[i, c, c, c] = w * sign * tail(sign * eta[i, c], logit)[3]
        else:
            interval(eta[i, k - 1], eta[i, k], logit, cell)
            a, b = k - 1, k
            third[i, a, a, a], third[i, b, b, b] = w * cell[6], w * cell[9]
            third[i, a, a, b] = third[i, a, b, a] = third[i, b, a, a] = w * cell[7]
            third[i, a, b, b] = third[i, b, a, b] = third[i, b, b, a] = w * cell[8]
    return third
