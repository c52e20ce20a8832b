"""The collapsed likelihood with its gradient, in one compiled pass over groups forwards and one backwards.

The algebra is that of :mod:`send_va.multilevel.collapsed_kernels`, whose passes also draw effects. Here every element
of the matrices of a group is a number of its own: numbers stay in registers, elements of arrays would go through
memory, which takes longer than the arithmetic. ``M = U D U'`` needs no square roots.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from send_va.multilevel.collapsed_kernels import _REORDERED, EFFECTS, Work, factorise, residual_products
from send_va.multilevel.crossproducts import FloatArray

KEPT = 27  # numbers kept of every group: A (6), r (3), K (6), b (3) and I - K A (9)


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_REORDERED)
def eliminate(
    zz: FloatArray,
    right: FloatArray,
    precision: FloatArray,
    lower: FloatArray,
    parent: NDArray[np.int64],
    kept: FloatArray,
    top: FloatArray,
    top_right: FloatArray,
) -> float:  # pragma: no cover (compiled)
    """Eliminate the effects of every group; returns the sum of ``log|M| - r'K r``.

    Fills `kept` (groups, 27), and adds ``A - A K A`` and ``r - A b`` of every group to those of its outer group in
    `top` (outer, 3, 3) and `top_right` (outer, 3).
    """
    n, strata = right.shape[0], right.shape[1]
    nested = len(parent) > 0
    l00, l10, l11 = lower[0, 0], lower[1, 0], lower[1, 1]
    l20, l21, l22 = lower[2, 0], lower[2, 1], lower[2, 2]
    total = 0.0
    for j in range(n):
        a00 = a10 = a11 = a20 = a21 = a22 = r0 = r1 = r2 = 0.0
        for s in range(strata):
            v = precision[s]
            a00 += v * zz[j, s, 0, 0]
            a10 += v * zz[j, s, 1, 0]
            a11 += v * zz[j, s, 1, 1]
            a20 += v * zz[j, s, 2, 0]
            a21 += v * zz[j, s, 2, 1]
            a22 += v * zz[j, s, 2, 2]
            r0 += v * right[j, s, 0]
            r1 += v * right[j, s, 1]
            r2 += v * right[j, s, 2]
        # A L, then M = L'A L + I = U D U'
        h00 = a00 * l00 + a10 * l10 + a20 * l20
        h10 = a10 * l00 + a11 * l10 + a21 * l20
        h20 = a20 * l00 + a21 * l10 + a22 * l20
        h11 = a11 * l11 + a21 * l21
        h21 = a21 * l11 + a22 * l21
        d0 = 1.0 + l00 * h00 + l10 * h10 + l20 * h20
        m10, m20 = l11 * h10 + l21 * h20, l22 * h20
        i0 = 1.0 / d0
        u10, u20 = m10 * i0, m20 * i0
        d1 = 1.0 + l11 * h11 + l21 * h21 - u10 * m10
        i1 = 1.0 / d1
        m21 = l22 * h21 - u20 * m10
        u21 = m21 * i1
        d2 = 1.0 + l22 * l22 * a22 - u20 * m20 - u21 * m21
        i2 = 1.0 / d2
        # X = L U'^-1 and K = X D^-1 X'
        x01 = -l00 * u10
        x02 = -l00 * u20 - x01 * u21
        x11 = l11 - l10 * u10
        x12 = -l10 * u20 - x11 * u21
        x21 = l21 - l20 * u10
        x22 = l22 - l20 * u20 - x21 * u21
        k00 = l00 * l00 * i0 + x01 * x01 * i1 + x02 * x02 * i2
        k10 = l10 * l00 * i0 + x11 * x01 * i1 + x12 * x02 * i2
        k11 = l10 * l10 * i0 + x11 * x11 * i1 + x12 * x12 * i2
        k20 = l20 * l00 * i0 + x21 * x01 * i1 + x22 * x02 * i2
        k21 = l20 * l10 * i0 + x21 * x11 * i1 + x22 * x12 * i2
        k22 = l20 * l20 * i0 + x21 * x21 * i1 + x22 * x22 * i2
        b0 = k00 * r0 + k10 * r1 + k20 * r2
        b1 = k10 * r0 + k11 * r1 + k21 * r2
        b2 = k20 * r0 + k21 * r1 + k22 * r2
        total += np.log(d0 * d1 * d2) - (b0 * r0 + b1 * r1 + b2 * r2)
        kept[j, 0], kept[j, 1], kept[j, 2] = a00, a10, a11
        kept[j, 3], kept[j, 4], kept[j, 5] = a20, a21, a22
        kept[j, 6], kept[j, 7], kept[j, 8] = r0, r1, r2
        kept[j, 9], kept[j, 10], kept[j, 11] = k00, k10, k11
        kept[j, 12], kept[j, 13], kept[j, 14] = k20, k21, k22
        kept[j, 15], kept[j, 16], kept[j, 17] = b0, b1, b2
        if nested:
            e00 = 1.0 - (k00 * a00 + k10 * a10 + k20 * a20)
            e01 = -(k00 * a10 + k10 * a11 + k20 * a21)
            e02 = -(k00 * a20 + k10 * a21 + k20 * a22)
            e10 = -(k10 * a00 + k11 * a10 + k21 * a20)
            e11 = 1.0 - (k10 * a10 + k11 * a11 + k21 * a21)
            e12 = -(k10 * a20 + k11 * a21 + k21 * a22)
            e20 = -(k20 * a00 + k21 * a10 + k22 * a20)
            e21 = -(k20 * a10 + k21 * a11 + k22 * a21)
            e22 = 1.0 - (k20 * a20 + k21 * a21 + k22 * a22)
            kept[j, 18], kept[j, 19], kept[j, 20] = e00, e01, e02
            kept[j, 21], kept[j, 22], kept[j, 23] = e10, e11, e12
            kept[j, 24], kept[j, 25], kept[j, 26] = e20, e21, e22
            at = parent[j]
            top[at, 0, 0] += a00 * e00 + a10 * e10 + a20 * e20
            top[at, 1, 0] += a10 * e00 + a11 * e10 + a21 * e20
            top[at, 1, 1] += a10 * e01 + a11 * e11 + a21 * e21
            top[at, 2, 0] += a20 * e00 + a21 * e10 + a22 * e20
            top[at, 2, 1] += a20 * e01 + a21 * e11 + a22 * e21
            top[at, 2, 2] += a20 * e02 + a21 * e12 + a22 * e22
            top_right[at, 0] += r0 - (a00 * b0 + a10 * b1 + a20 * b2)
            top_right[at, 1] += r1 - (a10 * b0 + a11 * b1 + a21 * b2)
            top_right[at, 2] += r2 - (a20 * b0 + a21 * b1 + a22 * b2)
    return total


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_REORDERED)
def eliminate_outer(
    top: FloatArray, top_right: FloatArray, outer_sd: FloatArray, by_outer: FloatArray
) -> tuple[float, FloatArray, FloatArray]:  # pragma: no cover (compiled)
    """Eliminate the outer level; returns its terms, and covariance and mean of the outer effects; fills `by_outer`.

    `top` holds its lower triangle, and is filled up.
    """
    cov, spread, mean = np.zeros_like(top), np.zeros_like(top), np.zeros_like(top_right)
    lower, root = np.diag(outer_sd), np.zeros((EFFECTS, EFFECTS))
    value = 0.0
    for g in range(len(top)):
        for a in range(EFFECTS):
            for b in range(a):
                top[g, b, a] = top[g, a, b]
        value += factorise(top, lower, cov, spread, root, g)
        for a in range(EFFECTS):
            for b in range(EFFECTS):
                mean[g, a] += cov[g, a, b] * top_right[g, b]
            value -= mean[g, a] * top_right[g, a]
        for a in range(EFFECTS):
            left, score = top[g, a, a], top_right[g, a]
            for b in range(EFFECTS):
                score -= top[g, a, b] * mean[g, b]
                for c in range(EFFECTS):
                    left -= top[g, a, b] * cov[g, b, c] * top[g, c, a]
            by_outer[a] += 2.0 * outer_sd[a] * (left - score**2)
    return value, cov, mean


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_REORDERED)
def differentiate(
    zz: FloatArray,
    right: FloatArray,
    precision: FloatArray,
    parent: NDArray[np.int64],
    kept: FloatArray,
    outer_cov: FloatArray,
    outer_mean: FloatArray,
    weights: FloatArray,
    by_precision: FloatArray,
) -> FloatArray:  # pragma: no cover (compiled)
    """Derivative by the covariance of a group's effects (3, 3), from what :func:`eliminate` kept.

    Fills `weights` (groups, S, 3) with the derivative by ``Z'd``, and adds to that by the precisions.
    """
    n, strata = right.shape[0], right.shape[1]
    nested = len(parent) > 0
    g00 = g10 = g11 = g20 = g21 = g22 = 0.0
    for j in range(n):
        a00, a10, a11 = kept[j, 0], kept[j, 1], kept[j, 2]
        a20, a21, a22 = kept[j, 3], kept[j, 4], kept[j, 5]
        c00, c10, c11 = kept[j, 9], kept[j, 10], kept[j, 11]
        c20, c21, c22 = kept[j, 12], kept[j, 13], kept[j, 14]
        f0, f1, f2 = kept[j, 15], kept[j, 16], kept[j, 17]
        if nested:  # C = K + E P E' and f = b + E t, with E = I - K A
            e00, e01, e02 = kept[j, 18], kept[j, 19], kept[j, 20]
            e10, e11, e12 = kept[j, 21], kept[j, 22], kept[j, 23]
            e20, e21, e22 = kept[j, 24], kept[j, 25], kept[j, 26]
            at = parent[j]
            t0, t1, t2 = outer_mean[at, 0], outer_mean[at, 1], outer_mean[at, 2]
            p00, p10, p11 = outer_cov[at, 0, 0], outer_cov[at, 1, 0], outer_cov[at, 1, 1]
            p20, p21, p22 = outer_cov[at, 2, 0], outer_cov[at, 2, 1], outer_cov[at, 2, 2]
            f0 += e00 * t0 + e01 * t1 + e02 * t2
            f1 += e10 * t0 + e11 * t1 + e12 * t2
            f2 += e20 * t0 + e21 * t1 + e22 * t2
            h0 = e00 * p00 + e01 * p10 + e02 * p20
            h1 = e00 * p10 + e01 * p11 + e02 * p21
            h2 = e00 * p20 + e01 * p21 + e02 * p22
            c00 += h0 * e00 + h1 * e01 + h2 * e02
            c10 += h0 * e10 + h1 * e11 + h2 * e12
            c20 += h0 * e20 + h1 * e21 + h2 * e22
            h0 = e10 * p00 + e11 * p10 + e12 * p20
            h1 = e10 * p10 + e11 * p11 + e12 * p21
            h2 = e10 * p20 + e11 * p21 + e12 * p22
            c11 += h0 * e10 + h1 * e11 + h2 * e12
            c21 += h0 * e20 + h1 * e21 + h2 * e22
            h0 = e20 * p00 + e21 * p10 + e22 * p20
            h1 = e20 * p10 + e21 * p11 + e22 * p21
            h2 = e20 * p20 + e21 * p21 + e22 * p22
            c22 += h0 * e20 + h1 * e21 + h2 * e22
        s0 = kept[j, 6] - (a00 * f0 + a10 * f1 + a20 * f2)
        s1 = kept[j, 7] - (a10 * f0 + a11 * f1 + a21 * f2)
        s2 = kept[j, 8] - (a20 * f0 + a21 * f1 + a22 * f2)
        h0 = a00 * c00 + a10 * c10 + a20 * c20
        h1 = a00 * c10 + a10 * c11 + a20 * c21
        h2 = a00 * c20 + a10 * c21 + a20 * c22
        g00 += a00 - s0 * s0 - (h0 * a00 + h1 * a10 + h2 * a20)
        g10 += a10 - s1 * s0 - (h0 * a10 + h1 * a11 + h2 * a21)
        g20 += a20 - s2 * s0 - (h0 * a20 + h1 * a21 + h2 * a22)
        h0 = a10 * c00 + a11 * c10 + a21 * c20
        h1 = a10 * c10 + a11 * c11 + a21 * c21
        h2 = a10 * c20 + a11 * c21 + a21 * c22
        g11 += a11 - s1 * s1 - (h0 * a10 + h1 * a11 + h2 * a21)
        g21 += a21 - s2 * s1 - (h0 * a20 + h1 * a21 + h2 * a22)
        h0 = a20 * c00 + a21 * c10 + a22 * c20
        h1 = a20 * c10 + a21 * c11 + a22 * c21
        h2 = a20 * c20 + a21 * c21 + a22 * c22
        g22 += a22 - s2 * s2 - (h0 * a20 + h1 * a21 + h2 * a22)
        c00 += f0 * f0
        c11 += f1 * f1
        c22 += f2 * f2
        c10 = 2.0 * (c10 + f1 * f0)
        c20 = 2.0 * (c20 + f2 * f0)
        c21 = 2.0 * (c21 + f2 * f1)
        for s in range(strata):
            change = c00 * zz[j, s, 0, 0] + c11 * zz[j, s, 1, 1] + c22 * zz[j, s, 2, 2]
            change += c10 * zz[j, s, 1, 0] + c20 * zz[j, s, 2, 0] + c21 * zz[j, s, 2, 1]
            change -= 2.0 * (f0 * right[j, s, 0] + f1 * right[j, s, 1] + f2 * right[j, s, 2])
            by_precision[s] += change
            v = -2.0 * precision[s]
            weights[j, s, 0], weights[j, s, 1], weights[j, s, 2] = v * f0, v * f1, v * f2
    return np.array([[g00, g10, g20], [g10, g11, g21], [g20, g21, g22]])


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_REORDERED)
def value_and_gradient(
    w: FloatArray,
    lower: FloatArray,
    variance: FloatArray,
    outer_sd: FloatArray,
    r0: FloatArray,
    re: FloatArray,
    zz: FloatArray,
    c0: FloatArray,
    ce: FloatArray,
    cee: FloatArray,
    records: FloatArray,
    parent: NDArray[np.int64],
    work: Work,
) -> tuple[float, FloatArray, FloatArray, FloatArray, FloatArray]:  # pragma: no cover (compiled)
    """Marginal log-likelihood but for its constant, and its gradient by the first four arguments.

    Parameters
    ----------
    w : array, shape (p,)
    lower : array, shape (3, 3)
        ``L``.
    variance : array, shape (S,)
    outer_sd : array, shape (3,)
        Zero for effects that the outer level does not have.
    r0, re, zz : array, shapes (groups, S, 3), (groups, S, 3, p) and (groups, S, 3, 3)
    c0, ce, cee : array, shapes (S,), (S, p) and (S, p, p)
    records : array, shape (S,)
    parent : integer array, shape (groups,)
        Outer group of each group; empty without an outer level.
    work : tuple of array
        From :func:`workspace`; one a thread.
    """
    n, strata, q, p = re.shape
    precision = 1.0 / variance
    residual_products(r0, re, w, work)
    right, weights, kept = work[7], work[8], work[10]
    nested = len(parent) > 0
    count = parent.max() + 1 if nested else 1
    top, top_right = np.zeros((count, EFFECTS, EFFECTS)), np.zeros((count, EFFECTS))
    total = eliminate(zz, right, precision, lower, parent, kept, top, top_right)
    by_w, by_precision, by_outer = np.zeros(p), np.zeros(strata), np.zeros(EFFECTS)
    for s in range(strata):
        turned = np.dot(cee[s], w)
        squares = c0[s] + 2.0 * np.dot(ce[s], w) + np.dot(w, turned)
        total += precision[s] * squares - records[s] * np.log(precision[s])
        by_precision[s] = squares - records[s] / precision[s]
        by_w += 2.0 * precision[s] * (ce[s] + turned)
    outer_cov, outer_mean = top, top_right
    if nested:
        value, outer_cov, outer_mean = eliminate_outer(top, top_right, outer_sd, by_outer)
        total += value
    by_covariance = differentiate(zz, right, precision, parent, kept, outer_cov, outer_mean, weights, by_precision)
    by_w += np.dot(weights.reshape(n * strata * q), re.reshape(n * strata * q, p))
    by_lower = 2.0 * np.dot(by_covariance, lower)
    by_variance = -by_precision * precision**2
    return -0.5 * total, -0.5 * by_w, -0.5 * by_lower, -0.5 * by_variance, -0.5 * by_outer
