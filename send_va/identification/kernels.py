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
from scipy.special import ndtr

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

_REACH = 6.0  # SDs of need beyond which nothing is left (1e-9)
_BEYOND = 5.0  # the same for need given judged need; quadrature is finest there, where the label's cut is
_ROOT_HALF = math.sqrt(0.5)
_DENSITY = 1.0 / math.sqrt(2.0 * math.pi)
_TINY = 1e-300
_TABLED, _PER_UNIT = 9.0, 32.0  # reach of the table of the normal distribution, and its points a unit
_FEW_ANGLES, _MORE_ANGLES = np.polynomial.legendre.leggauss(6), np.polynomial.legendre.leggauss(10)
_GENTLE, _STEEPEST = 0.8, 2.0  # slopes up to which these give nine digits
_FAR, _ENOUGH, _MUCH = 1e8, 1e-5, 1e-4  # an open cut; probabilities of a row above which differences keep digits
_GRID = np.arange(int(2 * _TABLED * _PER_UNIT) + 2) / _PER_UNIT - _TABLED
_POWERS, _SMALLEST = np.exp(-np.arange(0, 700 * 16 + 2) / 16.0), -699.0
_CDF, _PDF = ndtr(_GRID), np.exp(-0.5 * _GRID**2) / math.sqrt(2.0 * math.pi)


@njit(cache=True, nogil=True)
def _exact_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x * _ROOT_HALF)


@njit(cache=True, nogil=True)
def normal_cdf(x: float) -> float:
    """Normal distribution function: Taylor's series from the nearest point of a table; relative error below 1e-8."""
    if not -_TABLED < x < _TABLED:
        return _exact_cdf(x)
    at = int((x + _TABLED) * _PER_UNIT + 0.5)
    near = at / _PER_UNIT - _TABLED
    h = x - near
    second = near * near - 1.0
    third = near * second - 2.0 * near
    fourth = near * third - 3.0 * second
    series = 1.0 - h * (near / 2.0 - h * (second / 6.0 - h * (third / 24.0 - h * fourth / 120.0)))
    return float(_CDF[at] + _PDF[at] * h * series)


@njit(cache=True, nogil=True)
def _exp(x: float) -> float:
    """Exponential of a number that is not positive, from a table; relative error below 1e-11."""
    if x < _SMALLEST:
        return 0.0
    at = int(0.5 - 16.0 * x)
    h = x + 0.0625 * at
    series = 1.0 + h * (1.0 + h * (1.0 / 2.0 + h * (1.0 / 6.0 + h * (1.0 / 24.0 + h / 120.0))))
    return float(_POWERS[at] * series)


@njit(cache=True, nogil=True)
def _pdf(x: float) -> float:
    return _DENSITY * _exp(-0.5 * x * x)


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
    return normal_cdf((high - centre) / spread) - normal_cdf((low - centre) / spread)


@njit(cache=True, nogil=True)
def _correlation(slope: float) -> Floats:
    """Nodes at which the orthants of two normal variables are integrated over their correlation; shape (3, nodes).

    Sines of the angles, ``1 / (2 cos^2)``, and weights, for the correlation of z with ``slope * z`` plus noise.
    """
    half = 0.5 * math.asin(slope / math.sqrt(1.0 + slope * slope))
    nodes, weights = _FEW_ANGLES if abs(slope) < _GENTLE else _MORE_ANGLES
    out = np.empty((3, len(nodes)))
    for k in range(len(nodes)):
        angle = half * (1.0 + nodes[k])
        out[0, k] = math.sin(angle)
        out[1, k] = 0.5 / math.cos(angle) ** 2
        out[2, k] = half * weights[k] / (2.0 * math.pi)
    return out


@njit(cache=True, nogil=True)
def _orthant(h: float, k: float, correlation: Floats) -> float:
    """Probability that two normal variables with a negative correlation lie below h and k (Drezner & Wesolowsky)."""
    total = 0.0
    squares, product = h * h + k * k, 2.0 * h * k
    for j in range(correlation.shape[1]):
        total += correlation[2, j] * _exp(-(squares + product * correlation[0, j]) * correlation[1, j])
    return normal_cdf(h) * normal_cdf(k) - total


@njit(cache=True, nogil=True)
def _chance(
    start: float, low: float, high: float, slope: float, correlation: Floats, nodes: Floats, weights: Floats
) -> float:
    """Integral of ``phi(z) Phi(start + slope z)`` over an interval; `correlation` is that of `slope`.

    Between two orthants where that keeps enough digits, by quadrature of the interval elsewhere.
    """
    if -_STEEPEST < slope < _STEEPEST:
        k = start / math.sqrt(1.0 + slope * slope)
        above = normal_cdf(k) if high > _FAR else _orthant(high, k, correlation)
        value = above - (0.0 if low < -_FAR else _orthant(low, k, correlation))
        if value > _ENOUGH:
            return value
    a, b = _range(low, high)
    half, middle = 0.5 * (b - a), 0.5 * (a + b)
    total = 0.0
    for j in range(len(nodes)):
        z = middle + half * nodes[j]
        total += weights[j] * _pdf(z) * normal_cdf(start + slope * z)
    return half * total


@njit(cache=True, nogil=True)
def _chance_derivatives(start: float, low: float, high: float, slope: float) -> tuple[float, float, float]:
    """Its first three derivatives by `start`: moments of a normal distribution between two cuts, closed form.

    ``phi(z) phi(s) = phi(start / r) phi(u)`` with ``s = start + slope z``, ``r^2 = 1 + slope^2`` and
    ``u = r z + start slope / r``.
    """
    a, b = _range(low, high)
    r = math.sqrt(1.0 + slope * slope)
    left, right = r * a + start * slope / r, r * b + start * slope / r
    at_left, at_right = _pdf(left), _pdf(right)
    mass = normal_cdf(-left) - normal_cdf(-right) if left > 0.0 else normal_cdf(right) - normal_cdf(left)
    first = at_left - at_right
    second = mass + left * at_left - right * at_right
    level, turn = start / (r * r), slope / r  # s = level + turn u
    height = _pdf(start / r) / r
    mean = level * mass + turn * first
    square = level * level * mass + 2.0 * level * turn * first + turn * turn * second
    return height * mass, -height * mean, height * (square - mass)


@njit(cache=True, nogil=True)
def _moment(start: float, low: float, high: float, slope: float) -> float:
    """Integral of ``z phi(z) Phi(start + slope z)`` over an interval, by parts."""
    a, b = _range(low, high)
    edges = _pdf(a) * normal_cdf(start + slope * a) - _pdf(b) * normal_cdf(start + slope * b)
    return edges + slope * _chance_derivatives(start, a, b, slope)[0]


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
    rising, falling = _correlation(slope), _correlation(-slope)
    first, second, fourth = np.zeros(d), np.zeros(d), np.zeros(d)  # derivatives of f by each predictor
    for i in range(n):
        y = status[i]
        first[:] = 0.0
        second[:] = 0.0
        fourth[:] = 0.0
        f = 0.0
        for c in range(max(y - 1, 0), min(y + 1, d)):
            start, sign = scale * (kappa * base[i] + eta[i, c]), 1.0 if c == y - 1 else -1.0
            if y == 0:
                f = _chance(-start, low[i], high[i], -slope, falling, nodes, weights)
            else:
                f += sign * _chance(start, low[i], high[i], slope, rising, nodes, weights)
            by_one, by_two, by_three = _chance_derivatives(start, low[i], high[i], slope)
            first[c], second[c] = sign * scale * by_one, sign * scale**2 * by_two
            fourth[c] = sign * scale**3 * by_three
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
            share, mean[i] = _truncated(t, a, b)
            pi[i] = _rounded_in(share)
            continue
        # given the judged need z, e is normal with mean sqrt(r) z and variance 1 - r: the chance to lie above the
        # threshold rises from 0 to 1 around z = t / sqrt(r)
        root, spread = math.sqrt(reliability), math.sqrt(1.0 - reliability)
        lower, upper = _range(a, b)
        middle, reach = t / root, _BEYOND * spread / root
        left, right = min(max(middle - reach, lower), upper), min(max(middle + reach, lower), upper)
        above, turn = _between(right, upper), _correlation(root / spread)
        for side in range(2):
            centre = min(max(middle, left), right)
            start, end = (left, centre) if side == 0 else (centre, right)
            if end > start:
                above += _chance(-t / spread, start, end, root / spread, turn, nodes, weights)
        mass = max(_between(lower, upper), _TINY)
        pi[i], mean[i] = _rounded_in(above / mass), root * (_pdf(lower) - _pdf(upper)) / mass
    return pi, mean


@njit(cache=True, nogil=True)
def _between(low: float, high: float) -> float:
    """Probability of an interval, in the tail where digits are kept."""
    return _exact_cdf(-low) - _exact_cdf(-high) if low > 0.0 else _exact_cdf(high) - _exact_cdf(low)


@njit(cache=True, nogil=True)
def _rounded_in(share: float) -> float:
    """A probability that rounding has left a little below 0 or above 1."""
    return min(max(share, 0.0), 1.0)


@njit(cache=True, nogil=True)
def _truncated(t: float, a: float, b: float) -> tuple[float, float]:
    """P(e > t) and E[e] of a standard normal between a and b, in the tail where digits are kept."""
    flip = a > 0.0
    low, high = (-b, -a) if flip else (a, b)
    mass = normal_cdf(high) - normal_cdf(low)
    if mass > _MUCH:
        mean = (_pdf(low) - _pdf(high)) / mass
        cut = min(max(-t if flip else t, low), high)
        if flip:
            return (normal_cdf(cut) - normal_cdf(low)) / mass, -mean
        return (normal_cdf(high) - normal_cdf(cut)) / mass, mean
    mass = _exact_cdf(high) - _exact_cdf(low)
    if mass < 1e-290:
        edge = a if flip else b
        return (1.0 if edge > t else 0.0), edge
    mean = (_pdf(low) - _pdf(high)) / mass
    if flip:
        mean = -mean
        cut = min(max(-t, low), high)
        return (_exact_cdf(cut) - _exact_cdf(low)) / mass, mean
    cut = min(max(t, low), high)
    return (_exact_cdf(high) - _exact_cdf(cut)) / mass, mean


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
    rising, falling = _correlation(slope), _correlation(-slope)
    for i in range(n):
        mass, above, first = 0.0, 0.0, 0.0
        y = now[i]
        t = threshold[i]
        if reliability >= 1.0 and entry[i] >= 0 and y in (0, d):
            level = min(entry[i], d)
            low = -1e9 if level == 0 else cuts[i, level - 1]
            high = 1e9 if level == d else cuts[i, level]
            centre = kappa * base[i] + rho[level]
            if y == 0:
                start, turn, by = -centre - eta[i, 0], -slope, falling
            else:
                start, turn, by = centre + eta[i, d - 1], slope, rising
            mass = _chance(start, low, high, turn, by, nodes, weights)
            if mass > _MUCH:
                if t <= low or t >= high:
                    above = mass if t <= low else 0.0
                else:
                    above = mass - _chance(start, low, t, turn, by, nodes, weights)
                pi[i] = _rounded_in(above / mass)
                mean[i] = _moment(start, low, high, turn) / mass
                continue
            mass, above = 0.0, 0.0
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
                        w *= normal_cdf(-(lower + slope * e))
                    elif y == d:
                        w *= normal_cdf(upper + slope * e)
                    else:
                        w *= max(normal_cdf(upper + slope * e) - normal_cdf(lower + slope * e), 0.0)
                    mass += w
                    first += w * e
                    if side == 1:
                        above += w
        pi[i], mean[i] = above / max(mass, _TINY), first / max(mass, _TINY)
    return pi, mean


@njit(cache=True, nogil=True)
def add_by_code(out: Floats, codes: Ints, values: Floats) -> None:
    """Add ``values[code]`` to the rows of `out` (n, d); nothing where the code is -1."""
    d = out.shape[1]
    for i in range(len(codes)):
        if codes[i] >= 0:
            for c in range(d):
                out[i, c] += values[codes[i], c]


@njit(cache=True, nogil=True)
def intervals(cuts: Floats, entry: Ints) -> tuple[Floats, Floats]:
    """Cuts (n, d) between which the label before transfer says that judged need lies; anywhere for a label of -1."""
    n, d = cuts.shape
    low, high = np.full(n, -1e9), np.full(n, 1e9)
    for i in range(n):
        level = min(entry[i], d)
        if level > 0:
            low[i] = cuts[i, level - 1]
        if 0 <= level < d:
            high[i] = cuts[i, level]
    return low, high
