"""Critical values that keep average coverage whatever the distribution of the bias: compiled functions.

Notation of Armstrong, Kolesar & Plagborg-Moller (2022): a normalised estimate with bias b misses at critical value chi
with probability ``r(t)``, ``t = b**2``; ``rho`` is the largest mean of r(t) over distributions of t with mean m2 and
second moment at most ``kappa * m2**2``.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from send_va.effects import FloatArray

_SQRT2 = math.sqrt(2.0)
_INV_SQRT_2PI = 1.0 / math.sqrt(2.0 * math.pi)
_GRID = 48
_GOLDEN = 0.5 * (math.sqrt(5.0) - 1.0)


@njit(cache=True, nogil=True)
def missing_probability(t: float, chi: float) -> float:
    """``P(|Z + sqrt(t)| > chi)``."""
    b = math.sqrt(t)
    return 0.5 * (math.erfc((chi + b) / _SQRT2) + math.erfc((chi - b) / _SQRT2))


@njit(cache=True, nogil=True)
def _slope(t: float, chi: float) -> float:
    b = math.sqrt(t)
    if b < 1e-4:
        return chi * math.exp(-0.5 * chi * chi) * _INV_SQRT_2PI
    return (math.exp(-0.5 * (b - chi) ** 2) - math.exp(-0.5 * (b + chi) ** 2)) * _INV_SQRT_2PI / (2.0 * b)


@njit(cache=True, nogil=True)
def tangent_point(chi: float) -> float:
    """Where the line from ``r(0)`` touches r: the least concave majorant of r is that line below it, r above."""
    if chi * chi <= 3.0:
        return 0.0  # r is concave
    at_zero = missing_probability(0.0, chi)
    low, high = chi * chi - 3.0, 2.0 * chi * chi
    while missing_probability(high, chi) - high * _slope(high, chi) < at_zero:
        high *= 2.0
    for _ in range(100):
        middle = 0.5 * (low + high)
        if missing_probability(middle, chi) - middle * _slope(middle, chi) < at_zero:
            low = middle
        else:
            high = middle
        if high - low <= 1e-14 * high:
            break
    return 0.5 * (low + high)


@njit(cache=True, nogil=True)
def _two_points(gap: float, m2: float, variance: float, chi: float) -> float:
    """Mean of r(t) when t is ``m2 - gap`` or ``m2 + variance / gap``, with the probabilities that give the moments."""
    share = variance / (variance + gap * gap)
    low, high = missing_probability(max(m2 - gap, 0.0), chi), missing_probability(m2 + variance / gap, chi)
    return share * low + (1.0 - share) * high


@njit(cache=True, nogil=True)
def worst_missing(m2: float, kappa: float, chi: float) -> float:
    """``rho(m2, kappa, chi)``: the largest average probability of missing.

    Where the bound on kurtosis binds, the least favourable t has two values; these are one family, searched over a grid
    and then by golden section between the neighbours of the best point.
    """
    touch = tangent_point(chi)
    if m2 >= touch or kappa <= 1.0 or m2 == 0.0:
        return missing_probability(m2, chi)
    if kappa * m2 >= touch:
        at_zero = missing_probability(0.0, chi)
        return at_zero + m2 / touch * (missing_probability(touch, chi) - at_zero)
    variance = (kappa - 1.0) * m2 * m2
    # The upper point need not lie beyond the tangent point; a gap below this puts it far beyond.
    smallest = min(m2, variance / (4.0 * touch + 100.0))
    ratio = (m2 / smallest) ** (1.0 / (_GRID - 1))
    best, at, gap = -1.0, 0, smallest
    for k in range(_GRID):
        value = _two_points(gap, m2, variance, chi)
        if value > best:
            best, at = value, k
        gap *= ratio
    low, high = smallest * ratio ** max(at - 1, 0), min(smallest * ratio ** (at + 1), m2)
    a, b = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    fa, fb = _two_points(a, m2, variance, chi), _two_points(b, m2, variance, chi)
    for _ in range(40):
        if fa > fb:
            high, b, fb = b, a, fa
            a = high - _GOLDEN * (high - low)
            fa = _two_points(a, m2, variance, chi)
        else:
            low, a, fa = a, b, fb
            b = low + _GOLDEN * (high - low)
            fb = _two_points(b, m2, variance, chi)
    return max(best, fa, fb, missing_probability(m2, chi))


@njit(cache=True, nogil=True)
def critical_value(m2: float, kappa: float, alpha: float, z: float) -> float:
    """Solve ``rho(m2, kappa, chi) = alpha`` for chi; `z` is the usual two-sided critical value.

    The Illinois variant of false position on the logarithm of rho, which is nearly linear in chi**2.
    """
    if m2 < 1e-15:
        return z  # the difference is of the order of m2
    low, high = z, z + math.sqrt(m2)
    target = math.log(alpha)
    f_low = math.log(worst_missing(m2, kappa, low)) - target
    f_high = math.log(worst_missing(m2, kappa, high)) - target
    while f_high > 0.0:
        low, f_low, high = high, f_high, 2.0 * high
        f_high = math.log(max(worst_missing(m2, kappa, high), 1e-300)) - target
    for _ in range(100):
        if high - low <= 1e-11 * high:
            break
        middle = 0.5 * (low + high)
        if f_low > f_high:
            secant = (low * f_high - high * f_low) / (f_high - f_low)
            middle = secant if low < secant < high else middle
        f_middle = math.log(max(worst_missing(m2, kappa, middle), 1e-300)) - target
        if f_middle == 0.0:
            return middle
        if f_middle > 0.0:
            low, f_low, f_high = middle, f_middle, 0.5 * f_high
        else:
            high, f_high, f_low = middle, f_middle, 0.5 * f_low
    return 0.5 * (low + high)


@njit(cache=True, nogil=True)
def critical_values(m2: FloatArray, kappa: float, alpha: float, z: float) -> FloatArray:
    """Critical value of every entry of `m2`."""
    out = np.empty(len(m2))
    for i in range(len(m2)):
        out[i] = critical_value(m2[i], kappa, alpha, z)
    return out
