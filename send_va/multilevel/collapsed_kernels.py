r"""Compiled passes over groups for the collapsed likelihood: its value, its gradient, and what is known of every group.

With residuals as columns times a direction ``d`` (minus the fixed effects, one at the outcome), the records of a group
enter through ``A = Z'WZ`` and ``r = Z'Wd``, where ``W`` holds the precision of each stratum. With ``G = L L'`` the
covariance of the group's effects, ``M = L'AL + I``, ``K = L M^-1 L'`` and ``b = K r`` (the conditional mean),

    -2 log p = log|V| + d'V^-1 d = [d'Wd - log|W|] + log|M| - r'K r,

and an outer level with columns among Z sees ``A - A K A`` and ``r - A b`` of its groups, added up. Backwards, with
``t`` and ``P`` the conditional mean and covariance of the outer effects, the sum of both effects of a group has mean
``f = b + (I - K A) t`` and covariance ``C = K + (I - K A) P (I - A K)``, and -2 log p has the derivatives

    by A: C + f f',      by r: -2 f,      by G: A - A C A - g g',      with  g = r - A f.

Groups have three effects here: fewer are padded with columns of zeros, whose variance is zero too. Loops of a length
that is known when compiling are unrolled, which makes a pass several times quicker than automatic differentiation of
arithmetic on whole arrays.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from send_va.multilevel.crossproducts import FloatArray

EFFECTS = 3  # of a group, padded
_REORDERED = {"reassoc", "contract", "arcp", "nsz"}  # sums may be vectorised; not-a-number stays what it is

Work = Any  # a tuple of arrays, as `workspace` makes it


def workspace(groups: int, strata: int) -> Work:
    """Arrays that passes fill and overwrite: allocating them anew would cost as much as the arithmetic.

    Returns
    -------
    square, summed : array, shapes (groups, 3, 3) and (groups, 3)
        ``A`` and ``r``.
    kernel, spread : array, shape (groups, 3, 3)
        ``K`` and a root of it.
    modes : array, shape (groups, 3)
        ``b``.
    logdet, explained : array, shape (groups,)
        ``log|M|`` and ``r'K r``.
    right, weights : array, shape (groups, S, 3)
        ``Z'd`` by stratum, and the derivative by it.
    scratch : array, shape (8, 3, 3)
    kept : array, shape (groups, 27)
        Of :mod:`send_va.multilevel.collapsed_gradient`.
    """
    matrices = [np.zeros((groups, EFFECTS, EFFECTS)) for _ in range(3)]
    vectors = [np.zeros((groups, EFFECTS)) for _ in range(2)]
    scalars = [np.zeros(groups) for _ in range(2)]
    by_stratum = [np.zeros((groups, strata, EFFECTS)) for _ in range(2)]
    scratch = np.zeros((8, EFFECTS, EFFECTS))
    kept = np.zeros((groups, 27))
    return (matrices[0], vectors[0], matrices[1], matrices[2], vectors[1], *scalars, *by_stratum, scratch, kept)


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_REORDERED)
def factorise(
    square: FloatArray, lower: FloatArray, kernel: FloatArray, spread: FloatArray, root: FloatArray, j: int
) -> float:  # pragma: no cover (compiled)
    """Fill ``K`` and a root of it (``spread spread' = K``) of group j; returns ``log|M|``. `root` (3, 3) is scratch."""
    for a in range(EFFECTS):
        for b in range(a + 1):
            value = 1.0 if a == b else 0.0
            for c in range(a, EFFECTS):
                half = 0.0
                for e in range(b, EFFECTS):
                    half += square[j, c, e] * lower[e, b]
                value += lower[c, a] * half
            for c in range(b):
                value -= root[a, c] * root[b, c]
            root[a, b] = np.sqrt(value) if a == b else value / root[b, b]
    for a in range(EFFECTS):  # spread = L R'^-1: rows x with x R' = L[a]
        for b in range(EFFECTS):
            value = lower[a, b]
            for c in range(b):
                value -= spread[j, a, c] * root[b, c]
            spread[j, a, b] = value / root[b, b]
    for a in range(EFFECTS):
        for b in range(EFFECTS):
            value = 0.0
            for c in range(EFFECTS):
                value += spread[j, a, c] * spread[j, b, c]
            kernel[j, a, b] = value
    return float(2.0 * np.log(root[0, 0] * root[1, 1] * root[2, 2]))


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_REORDERED)
def sum_strata(j: int, zz: FloatArray, precision: FloatArray, work: Work) -> None:  # pragma: no cover (compiled)
    """Fill ``A`` and ``r`` of group j: its products by stratum, weighted by precisions and added up."""
    square, summed, right = work[0], work[1], work[7]
    for a in range(EFFECTS):
        total = 0.0
        for s in range(len(precision)):
            total += precision[s] * right[j, s, a]
        summed[j, a] = total
        for b in range(a + 1):
            total = 0.0
            for s in range(len(precision)):
                total += precision[s] * zz[j, s, a, b]
            square[j, a, b] = square[j, b, a] = total


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_REORDERED)
def forward(
    zz: FloatArray, precision: FloatArray, lower: FloatArray, work: Work
) -> None:  # pragma: no cover (compiled)
    """Eliminate the effects of every group: fills all of `work` but what comes after ``right``, which it reads.

    Parameters
    ----------
    zz : array, shape (groups, S, 3, 3)
    precision : array, shape (S,)
    lower : array, shape (3, 3)
    work : tuple of array
        From :func:`workspace`.
    """
    square, summed, kernel, spread, modes, logdet, explained, right, _, scratch, _ = work
    root = scratch[0]
    for j in range(right.shape[0]):
        sum_strata(j, zz, precision, work)
        logdet[j] = factorise(square, lower, kernel, spread, root, j)
        both = 0.0
        for a in range(EFFECTS):
            mode = 0.0
            for b in range(EFFECTS):
                mode += kernel[j, a, b] * summed[j, b]
            modes[j, a] = mode
            both += mode * summed[j, a]
        explained[j] = both


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_REORDERED)
def outer_sums(
    work: Work, parent: NDArray[np.int64], top: FloatArray, top_right: FloatArray
) -> None:  # pragma: no cover (compiled)
    """Add up what the outer level sees of its groups: ``A - A K A`` into `top` (outer, 3, 3), ``r - A b`` beside it."""
    square, summed, kernel, _, modes = work[:5]
    turned = work[9][0]
    for j in range(len(parent)):
        at = parent[j]
        for a in range(EFFECTS):
            for b in range(EFFECTS):
                value = 0.0
                for c in range(EFFECTS):
                    value += kernel[j, a, c] * square[j, c, b]
                turned[a, b] = value
        for a in range(EFFECTS):
            rest = summed[j, a]
            for b in range(EFFECTS):
                rest -= square[j, a, b] * modes[j, b]
                value = square[j, a, b]
                for c in range(EFFECTS):
                    value -= square[j, a, c] * turned[c, b]
                top[at, a, b] += value
            top_right[at, a] += rest


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_REORDERED)
def residual_products(r0: FloatArray, re: FloatArray, w: FloatArray, work: Work) -> None:  # pragma: no cover (compiled)
    """Fill ``right`` of `work` with ``Z'd`` at ``d = d0 + E w``."""
    right = work[7]
    n, strata, q, p = re.shape
    for j in range(n):
        for s in range(strata):
            for a in range(q):
                value = r0[j, s, a]
                for c in range(p):
                    value += re[j, s, a, c] * w[c]
                right[j, s, a] = value


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_REORDERED)
def total_effect(
    j: int,
    at: int,
    square: FloatArray,
    kernel: FloatArray,
    modes: FloatArray,
    outer_cov: FloatArray,
    outer_mean: FloatArray,
    keep: FloatArray,
    half: FloatArray,
    cov: FloatArray,
    mean: FloatArray,
) -> None:  # pragma: no cover (compiled)
    """Fill `cov` (3, 3) and `mean` (3,): ``C`` and ``f`` of group j, whose outer group is `at`.

    `keep` and `half` (3, 3) are scratch: ``I - K A``, and that times ``P``.
    """
    for a in range(EFFECTS):
        for b in range(EFFECTS):
            value = 1.0 if a == b else 0.0
            for c in range(EFFECTS):
                value -= kernel[j, a, c] * square[j, c, b]
            keep[a, b] = value
    for a in range(EFFECTS):
        value = modes[j, a]
        for b in range(EFFECTS):
            value += keep[a, b] * outer_mean[at, b]
            onward = 0.0
            for c in range(EFFECTS):
                onward += keep[a, c] * outer_cov[at, c, b]
            half[a, b] = onward
        mean[a] = value
    for a in range(EFFECTS):
        for b in range(a + 1):
            value = kernel[j, a, b]
            for c in range(EFFECTS):
                value += half[a, c] * keep[b, c]
            cov[a, b] = cov[b, a] = value


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_REORDERED)
def draw_effects_at(
    precision: FloatArray,
    lower: FloatArray,
    outer_sd: FloatArray,
    zz: FloatArray,
    parent: NDArray[np.int64],
    work: Work,
    noise: FloatArray,
    outer_noise: FloatArray,
    effects: FloatArray,
    first: FloatArray,
    second: FloatArray,
) -> None:  # pragma: no cover (compiled)
    """Draw the sum of both levels' effects of every group given one draw of all parameters.

    Parameters
    ----------
    precision, lower, outer_sd, zz, parent
        As in :func:`send_va.multilevel.collapsed_gradient.value_and_gradient`; ``right`` of `work` is read.
    work : tuple of array
    noise, outer_noise : array, shapes (groups, 3) and (outer, 3)
        Standard normal.
    effects : array, shape (groups, 3)
        Filled with the draw.
    first, second : array, shapes (groups, 3) and (groups, 3, 3)
        The conditional mean is added to the one, conditional covariance plus its square to the other.
    """
    forward(zz, precision, lower, work)
    square, _, kernel, spread, modes = work[:5]
    scratch = work[9]
    keep, half, cov, mean = scratch[1], scratch[2], scratch[4], scratch[5, 0]
    nested = len(parent) > 0
    outer_cov, outer_mean, moved = np.zeros((1, EFFECTS, EFFECTS)), np.zeros((1, EFFECTS)), np.zeros((1, EFFECTS))
    if nested:
        top = np.zeros((len(outer_noise), EFFECTS, EFFECTS))
        outer_mean, moved = np.zeros((len(outer_noise), EFFECTS)), np.zeros((len(outer_noise), EFFECTS))
        outer_sums(work, parent, top, moved)
        outer_cov, root = np.zeros_like(top), np.zeros_like(top)
        for g in range(len(outer_noise)):
            factorise(top, np.diag(outer_sd), outer_cov, root, scratch[0], g)
            outer_mean[g] = np.dot(outer_cov[g], moved[g])
            moved[g] = outer_mean[g] + np.dot(root[g], outer_noise[g])
    for j in range(len(effects)):
        at = parent[j] if nested else 0
        total_effect(j, at, square, kernel, modes, outer_cov, outer_mean, keep, half, cov, mean)
        for a in range(EFFECTS):
            value = modes[j, a]
            for b in range(EFFECTS):
                value += keep[a, b] * moved[at, b] + spread[j, a, b] * noise[j, b]
                second[j, a, b] += cov[a, b] + mean[a] * mean[b]
            effects[j, a] = value
            first[j, a] += mean[a]


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_REORDERED)
def log_likelihood_by_group(
    precision: FloatArray,
    lower: FloatArray,
    outer_sd: FloatArray,
    zz: FloatArray,
    parent: NDArray[np.int64],
    work: Work,
    squares: FloatArray,
    out: FloatArray,
) -> None:  # pragma: no cover (compiled)
    """Log-likelihood of every group given all others: with an outer level, what leaving the group out changes.

    Parameters
    ----------
    squares : array, shape (groups,)
        ``d'Wd + n log(2 pi) - log|W|`` of every group.
    out : array, shape (groups,)
    """
    forward(zz, precision, lower, work)
    square, summed, kernel, spread, modes, logdet, explained, right, weights, scratch, kept = work
    n = len(out)
    for j in range(n):
        out[j] = -0.5 * (squares[j] + logdet[j] - explained[j])
    if len(parent) == 0:
        return
    count = parent.max() + 1
    top, top_right = np.zeros((count, EFFECTS, EFFECTS)), np.zeros((count, EFFECTS))
    outer_sums(work, parent, top, top_right)
    own, root, diagonal = np.zeros((1, EFFECTS, EFFECTS)), np.zeros((1, EFFECTS, EFFECTS)), np.diag(outer_sd)
    whole = np.zeros(count)
    for g in range(count):
        whole[g] = _outer_term(top[g : g + 1], top_right[g], diagonal, own, root, scratch[0])
    rest, rest_right, one = np.zeros((1, EFFECTS, EFFECTS)), np.zeros((1, EFFECTS)), np.zeros(1, dtype=np.int64)
    for j in range(n):
        g = parent[j]
        rest[:], rest_right[:] = 0.0, 0.0
        part = (
            square[j : j + 1],
            summed[j : j + 1],
            kernel[j : j + 1],
            spread[j : j + 1],
            modes[j : j + 1],
            logdet[j : j + 1],
            explained[j : j + 1],
            right[j : j + 1],
            weights[j : j + 1],
            scratch,
            kept[j : j + 1],
        )
        outer_sums(part, one, rest, rest_right)
        rest[0] = top[g] - rest[0]
        rest_right[0] = top_right[g] - rest_right[0]
        out[j] -= 0.5 * (whole[g] - _outer_term(rest, rest_right[0], diagonal, own, root, scratch[0]))


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_REORDERED)
def _outer_term(
    top: FloatArray, top_right: FloatArray, lower: FloatArray, own: FloatArray, root: FloatArray, scratch: FloatArray
) -> float:  # pragma: no cover (compiled)
    """What one outer group adds to -2 log p."""
    value = factorise(top, lower, own, root, scratch, 0)
    for a in range(EFFECTS):
        for b in range(EFFECTS):
            value -= top_right[a] * own[0, a, b] * top_right[b]
    return value
