"""Sums over rows of a latent Gaussian model: compiled loops, one for each kind of block.

Rows have ``d`` linear predictors. A term contributes ``design[i] @ effects[codes[i]]`` to them, with `design` of shape
(n, d, q), or (1, d, q) where it is the same for every row. Fixed effects are the columns of `x`, which move all
predictors together, followed by one cutpoint for every predictor if the model has them.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


@njit(cache=True, nogil=True)
def add_effects(eta: Floats, codes: Ints, design: Floats, effects: Floats) -> None:
    """Add a term's effects (groups, q) to the predictors `eta` (n, d)."""
    n, d = eta.shape
    q = effects.shape[1]
    varies = design.shape[0] > 1
    for i in range(n):
        z = design[i if varies else 0]
        g = codes[i]
        for c in range(d):
            for a in range(q):
                eta[i, c] += z[c, a] * effects[g, a]


@njit(cache=True, nogil=True)
def sum_scores(codes: Ints, design: Floats, gradient: Floats, n_groups: int) -> Floats:
    """Sum ``design' gradient`` by group; returns (groups, q)."""
    n, d = gradient.shape
    q = design.shape[2]
    out = np.zeros((n_groups, q))
    varies = design.shape[0] > 1
    for i in range(n):
        z = design[i if varies else 0]
        g = codes[i]
        for c in range(d):
            for a in range(q):
                out[g, a] += z[c, a] * gradient[i, c]
    return out


@njit(cache=True, nogil=True)
def sum_with_fixed(codes: Ints, design: Floats, curvature: Floats, x: Floats, cutpoints: bool, n_groups: int) -> Floats:
    """Sum ``design' W [x, cutpoints]`` by group; returns (groups, q, fixed)."""
    n, p = x.shape
    d = curvature.shape[1]
    q = design.shape[2]
    out = np.zeros((n_groups, q, p + (d if cutpoints else 0)))
    varies = design.shape[0] > 1
    for i in range(n):
        z = design[i if varies else 0]
        g = codes[i]
        for a in range(q):
            total = 0.0
            for e in range(d):
                weight = 0.0
                for c in range(d):
                    weight += z[c, a] * curvature[i, c, e]
                total += weight
                if cutpoints:
                    out[g, a, p + e] += weight
            for k in range(p):
                out[g, a, k] += total * x[i, k]
    return out


@njit(cache=True, nogil=True)
def sum_pairs(pair: Ints, left: Floats, right: Floats, curvature: Floats, n_pairs: int) -> Floats:
    """Sum ``left' W right`` by pair of groups of two terms, or by group of one; returns (pairs, q_left, q_right)."""
    n, d = curvature.shape[0], curvature.shape[1]
    q, r = left.shape[2], right.shape[2]
    out = np.zeros((n_pairs, q, r))
    varies_left, varies_right = left.shape[0] > 1, right.shape[0] > 1
    for i in range(n):
        z, v = left[i if varies_left else 0], right[i if varies_right else 0]
        k = pair[i]
        for c in range(d):
            for e in range(d):
                w = curvature[i, c, e]
                for a in range(q):
                    for b in range(r):
                        out[k, a, b] += z[c, a] * w * v[e, b]
    return out


@njit(cache=True, nogil=True)
def add_own_covariance(out: Floats, codes: Ints, design: Floats, covariance: Floats) -> None:
    """Add ``design V design'`` of one term, V (groups, q, q), to the covariance of the predictors (n, d, d)."""
    n, d = out.shape[0], out.shape[1]
    q = design.shape[2]
    varies = design.shape[0] > 1
    for i in range(n):
        z = design[i if varies else 0]
        g = codes[i]
        for c in range(d):
            for e in range(d):
                for a in range(q):
                    for b in range(q):
                        out[i, c, e] += z[c, a] * covariance[g, a, b] * z[e, b]


@njit(cache=True, nogil=True)
def add_pair_covariance(out: Floats, pair: Ints, left: Floats, right: Floats, covariance: Floats) -> None:
    """Add the covariance of two terms' contributions, V (pairs, q_left, q_right), and its transpose."""
    n, d = out.shape[0], out.shape[1]
    q, r = left.shape[2], right.shape[2]
    varies_left, varies_right = left.shape[0] > 1, right.shape[0] > 1
    for i in range(n):
        z, v = left[i if varies_left else 0], right[i if varies_right else 0]
        k = pair[i]
        for c in range(d):
            for e in range(d):
                total = 0.0
                for a in range(q):
                    for b in range(r):
                        total += z[c, a] * covariance[k, a, b] * v[e, b]
                out[i, c, e] += total
                out[i, e, c] += total


@njit(cache=True, nogil=True)
def add_fixed_covariance(
    out: Floats, codes: Ints, design: Floats, covariance: Floats, x: Floats, cutpoints: bool
) -> None:
    """Add the covariance of a term with the fixed effects, V (groups, q, fixed), and its transpose."""
    n, d = out.shape[0], out.shape[1]
    p, q = x.shape[1], design.shape[2]
    varies = design.shape[0] > 1
    for i in range(n):
        z = design[i if varies else 0]
        g = codes[i]
        for a in range(q):
            shared = 0.0
            for k in range(p):
                shared += covariance[g, a, k] * x[i, k]
            for e in range(d):
                total = shared + (covariance[g, a, p + e] if cutpoints else 0.0)
                for c in range(d):
                    out[i, c, e] += z[c, a] * total
                    out[i, e, c] += z[c, a] * total


@njit(cache=True, nogil=True)
def add_quadratic_form(out: Floats, x: Floats, covariance: Floats) -> None:
    """Add ``x' V x`` of the covariates, V (p, p), to every element of the covariance of the predictors (n, d, d)."""
    n, d = out.shape[0], out.shape[1]
    p = x.shape[1]
    for i in range(n):
        total = 0.0
        for a in range(p):
            inner = 0.5 * covariance[a, a] * x[i, a]
            for b in range(a):
                inner += covariance[a, b] * x[i, b]
            total += 2.0 * inner * x[i, a]
        for c in range(d):
            for e in range(d):
                out[i, c, e] += total


@njit(cache=True, nogil=True)
def eliminated_covariances(
    starts: Ints,
    columns: Ints,
    modes: Floats,
    rest: NDArray[np.floating],
    own: Floats,
    fixed_modes: Floats,
    first_fixed: int,
) -> tuple[Floats, Floats, Floats]:
    """Covariance blocks that involve an eliminated group, from the inverse of the Schur complement.

    Parameters
    ----------
    starts, columns : integer arrays
        Columns of the rest that group f touches: ``columns[starts[f]:starts[f + 1]]``.
    modes : array, shape (len(columns), q)
        ``H_ff^-1 H_fr`` at those columns.
    rest : array, shape (R, R)
        Inverse of the Schur complement.
    own : array, shape (groups, q, q)
        ``H_ff^-1``; the rest's part is added in place.
    fixed_modes : array, shape (groups, q, fixed)
        ``H_ff^-1 H_fx``.
    first_fixed : int
        Column of the rest at which the fixed effects start.

    Returns
    -------
    own : array, shape (groups, q, q)
    touching : array, shape (len(columns), q)
        Covariance with the columns each group touches.
    fixed : array, shape (groups, q, fixed)
    """
    n_groups, q = own.shape[0], own.shape[1]
    n_fixed = fixed_modes.shape[2]
    touching = np.zeros((len(columns), q))
    fixed = np.zeros((n_groups, q, n_fixed))
    for f in range(n_groups):
        for k in range(starts[f], starts[f + 1]):
            column = columns[k]
            for m in range(starts[f], starts[f + 1]):
                value = rest[columns[m], column]
                for a in range(q):
                    touching[k, a] -= modes[m, a] * value
            for m in range(n_fixed):
                value = rest[first_fixed + m, column]
                for a in range(q):
                    touching[k, a] -= fixed_modes[f, a, m] * value
        for j in range(n_fixed):
            for m in range(starts[f], starts[f + 1]):
                value = rest[columns[m], first_fixed + j]
                for a in range(q):
                    fixed[f, a, j] -= modes[m, a] * value
            for m in range(n_fixed):
                value = rest[first_fixed + m, first_fixed + j]
                for a in range(q):
                    fixed[f, a, j] -= fixed_modes[f, a, m] * value
        for a in range(q):
            for b in range(q):
                total = 0.0
                for k in range(starts[f], starts[f + 1]):
                    total -= touching[k, a] * modes[k, b]
                for j in range(n_fixed):
                    total -= fixed[f, a, j] * fixed_modes[f, b, j]
                own[f, a, b] += total
    return own, touching, fixed


@njit(cache=True, nogil=True)
def subtract_products(matrix: Floats, starts: Ints, columns: Ints, values: Floats) -> None:
    """Subtract, for every group, the products of its values (columns, q), summed over q, in the lower triangle."""
    q = values.shape[1]
    for f in range(len(starts) - 1):
        for k in range(starts[f], starts[f + 1]):
            for m in range(starts[f], starts[f + 1]):
                if columns[m] >= columns[k]:
                    for a in range(q):
                        matrix[columns[m], columns[k]] -= values[m, a] * values[k, a]


@njit(cache=True, nogil=True)
def mirror_lower(matrix: NDArray[np.floating], tile: int = 64) -> None:
    """Copy the lower triangle of a square matrix onto its upper one, by tiles."""
    n = len(matrix)
    for top in range(0, n, tile):
        for left in range(0, top + tile, tile):
            for j in range(left, min(left + tile, n)):
                for i in range(max(top, j + 1), min(top + tile, n)):
                    matrix[j, i] = matrix[i, j]
