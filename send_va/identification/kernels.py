"""Integrals over unexplained need, given labels: compiled loops over pupils.

A pupil's unexplained need ``e`` is standard normal. With a label reliability r below one, what decides about the label
before transfer is ``sqrt(r) e`` plus noise of variance ``1 - r``. The label before transfer says that this sum lies
between two cuts; the label now is a probit in need.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

_REACH = 6.0  # SDs of need beyond which nothing is left (1e-9)
_BEYOND = 5.0  # the same for need given judged need; quadrature is finest there, where the label's cut is
_ROOT_HALF = math.sqrt(0.5)
_DENSITY = 1.0 / math.sqrt(2.0 * math.pi)
_TINY = 1e-300


@njit(cache=True, nogil=True)
def _cdf(x: float) -> float:
    return 0.5 * math.erfc(-x * _ROOT_HALF)


@njit(cache=True, nogil=True)
def _pdf(x: float) -> float:
    return _DENSITY * math.exp(-0.5 * x * x)


@njit(cache=True, nogil=True)
def _range(low: float, high: float) -> tuple[float, float]:
    """The part of an interval that holds what there is of a standard normal."""
    a, b = max(low, -_REACH), min(high, _REACH)
    if low > _REACH - 0.5:
        a, b = low, min(high, low + 1.5)
    elif high < 0.5 - _REACH:
        a, b = max(low, high - 1.5), high
    return a, b


@njit(cache=True, nogil=True)
def _within(e: float, low: float, high: float, reliability: float) -> float:
    """Probability of the label before transfer given e, for reliability below one."""
    centre, spread = math.sqrt(reliability) * e, math.sqrt(1.0 - reliability)
    return _cdf((high - centre) / spread) - _cdf((low - centre) / spread)


@njit(cache=True, nogil=True)
def _weighted_moments(
    s0: float, low: float, high: float, slope: float, scale: float, nodes: Floats, weights: Floats, out: Floats
) -> None:
    """``out`` = integral over judged need z, with ``s = scale * s0 + slope * z``, of the chance of the label now.

    Phi(s), Phi(-s) and the first three derivatives of Phi(s) by `s0`.
    """
    out[:] = 0.0
    a, b = _range(low, high)
    half, middle = 0.5 * (b - a), 0.5 * (a + b)
    for k in range(len(nodes)):
        z = middle + half * nodes[k]
        w = half * weights[k] * _pdf(z)
        s = scale * s0 + slope * z
        density = w * _pdf(s) * scale
        above = _cdf(s)
        out[0] += w * above
        out[1] += w * (1.0 - above)
        out[2] += density
        out[3] -= s * density * scale
        out[4] += (s * s - 1.0) * density * scale * scale


@njit(cache=True, nogil=True)
def current_derivatives(
    eta: Floats,
    status: Ints,
    base: Floats,
    low: Floats,
    high: Floats,
    kappa: float,
    reliability: float,
    nodes: Floats,
    weights: Floats,
    with_third: bool,
) -> tuple[float, Floats, Floats, Floats]:
    """Sum, gradient (n, d), minus second derivative (n, d, d) and, if asked for, its derivative (n, d, d, d).

    Given judged need z, need is normal around ``r z`` with variance ``r (1 - r)``, which joins the noise of the label.
    """
    n, d = eta.shape
    gradient, curvature = np.zeros((n, d)), np.zeros((n, d, d))
    third = np.zeros((n if with_third else 0, d, d, d))
    scale = 1.0 / math.sqrt(1.0 + kappa * kappa * reliability * (1.0 - reliability))
    slope = scale * kappa * reliability
    total = 0.0
    moments = np.empty(5)
    first, second, fourth = np.zeros(d), np.zeros(d), np.zeros(d)  # derivatives of f by each predictor
    for i in range(n):
        y = status[i]
        first[:] = 0.0
        second[:] = 0.0
        fourth[:] = 0.0
        f = 0.0
        for c in range(max(y - 1, 0), min(y + 1, d)):
            _weighted_moments(kappa * base[i] + eta[i, c], low[i], high[i], slope, scale, nodes, weights, moments)
            sign = 1.0 if c == y - 1 else -1.0
            f += moments[1] if y == 0 else sign * moments[0]
            first[c], second[c], fourth[c] = sign * moments[2], sign * moments[3], sign * moments[4]
        f = max(f, _TINY)
        total += math.log(f)
        for a in range(d):
            first[a] /= f
            second[a] /= f
            fourth[a] /= f
            gradient[i, a] = first[a]
        for a in range(d):
            for b in range(d):
                curvature[i, a, b] = first[a] * first[b] - (second[a] if a == b else 0.0)
                if with_third:
                    for c in range(d):
                        value = 2.0 * first[a] * first[b] * first[c]
                        if a == b:
                            value -= second[a] * first[c]
                        if a == c:
                            value -= second[a] * first[b]
                        if b == c:
                            value -= second[b] * first[a]
                        if a == b and b == c:
                            value += fourth[a]
                        third[i, a, b, c] = -value
    return total, gradient, curvature, third


@njit(cache=True, nogil=True)
def entry_scores(
    threshold: Floats, low: Floats, high: Floats, reliability: float, nodes: Floats, weights: Floats
) -> tuple[Floats, Floats]:
    """P(e > threshold) and E[e] given that the judged need lies between two cuts; shapes (n,).

    Closed form for a reliability of one.
    """
    n = len(threshold)
    pi, mean = np.empty(n), np.empty(n)
    for i in range(n):
        a, b, t = low[i], high[i], threshold[i]
        if reliability >= 1.0:
            pi[i], mean[i] = _truncated(t, a, b)
            continue
        # given the judged need z, e is normal with mean sqrt(r) z and variance 1 - r
        root, spread = math.sqrt(reliability), math.sqrt(1.0 - reliability)
        lower, upper = _range(a, b)
        middle = min(max(t / root, lower), upper)  # nodes are finest where the chance to lie above changes
        mass, above, first = 0.0, 0.0, 0.0
        for side in range(2):
            left, right = (lower, middle) if side == 0 else (middle, upper)
            half, centre = 0.5 * (right - left), 0.5 * (left + right)
            for k in range(len(nodes)):
                z = centre + half * nodes[k]
                w = half * weights[k] * _pdf(z)
                mass += w
                above += w * _cdf((root * z - t) / spread)
                first += w * root * z
        pi[i], mean[i] = above / max(mass, _TINY), first / max(mass, _TINY)
    return pi, mean


@njit(cache=True, nogil=True)
def _truncated(t: float, a: float, b: float) -> tuple[float, float]:
    """P(e > t) and E[e] of a standard normal between a and b, in the tail where digits are kept."""
    flip = a > 0.0
    low, high = (-b, -a) if flip else (a, b)
    mass = _cdf(high) - _cdf(low)
    if mass < 1e-290:
        edge = a if flip else b
        return (1.0 if edge > t else 0.0), edge
    mean = (_pdf(low) - _pdf(high)) / mass
    if flip:
        mean = -mean
        cut = min(max(-t, low), high)
        return (_cdf(cut) - _cdf(low)) / mass, mean
    cut = min(max(t, low), high)
    return (_cdf(high) - _cdf(cut)) / mass, mean


@njit(cache=True, nogil=True)
def both_scores(
    threshold: Floats,
    cuts: Floats,
    entry: Ints,
    now: Ints,
    base: Floats,
    eta: Floats,
    rho: Floats,
    kappa: float,
    reliability: float,
    nodes: Floats,
    weights: Floats,
) -> tuple[Floats, Floats]:
    """P(e > threshold) and E[e] given both labels; an unknown label before is summed over; shapes (n,).

    ``cuts`` (n, d) are what the judged need is compared with before transfer; ``eta`` (n, d) is added to
    ``kappa * (base + need)`` now, with ``rho[label before]``.
    """
    n, d = cuts.shape
    pi, mean = np.empty(n), np.empty(n)
    root, spread = math.sqrt(reliability), math.sqrt(1.0 - reliability)
    slope = kappa * root
    for i in range(n):
        mass, above, first = 0.0, 0.0, 0.0
        y = now[i]
        t = threshold[i]
        for level in range(d + 1):
            if entry[i] >= 0 and entry[i] != level:
                continue
            low = -1e9 if level == 0 else cuts[i, level - 1]
            high = 1e9 if level == d else cuts[i, level]
            if high <= low:
                continue
            a, b = _range(low, high)
            if reliability < 1.0:  # need of those judged to lie between a and b
                a = max(root * a - _BEYOND * spread, -_REACH)
                b = min(root * b + _BEYOND * spread, _REACH)
            centre = kappa * base[i] + rho[level]
            upper = centre + eta[i, y - 1] if y > 0 else 0.0
            lower = centre + eta[i, y] if y < d else 0.0
            for side in range(2):
                left, right = (a, min(b, t)) if side == 0 else (max(a, t), b)
                if right <= left:
                    continue
                half, middle = 0.5 * (right - left), 0.5 * (left + right)
                for k in range(len(nodes)):
                    e = middle + half * nodes[k]
                    w = half * weights[k] * _pdf(e)
                    if reliability < 1.0:
                        w *= _within(e, low, high, reliability)
                    if y == 0:
                        w *= _cdf(-(lower + slope * e))
                    elif y == d:
                        w *= _cdf(upper + slope * e)
                    else:
                        w *= max(_cdf(upper + slope * e) - _cdf(lower + slope * e), 0.0)
                    mass += w
                    first += w * e
                    if side == 1:
                        above += w
        pi[i], mean[i] = above / max(mass, _TINY), first / max(mass, _TINY)
    return pi, mean
