r"""The profiled likelihood of nested Gaussian models, and its gradient, from cross-products alone.

For one level with random-effects columns z and relative covariance ``G = Lambda Lambda'`` (in units of the residual
variance), eliminating the random effects of a group turns its cross-products ``C`` into

    S = C - C[:, z] K C[z, :],      K = Lambda (Lambda' C[z, z] Lambda + I)^-1 Lambda',

which is the matrix of the same columns weighted by the inverse marginal covariance. Sums of S over the groups of a
parent are the cross-products of the next level, so nesting is recursion. After the last level
``beta = S_xx^-1 S_xy`` and the criterion needs ``log|S_xx|``, the residual sum of squares and the log-determinants
collected on the way. The gradient runs the recursion backwards (the adjoint of each step):

    dL/dC = P (dL/dS) P' + K,       P = I - E_z K C[z, :],
    dL/dG = T C[z, z] - T C[z, :] (dL/dS) C[:, z] T',    T = I - C[z, z] K.

References
----------
Bates, Maechler, Bolker & Walker (2015), doi:10.18637/jss.v067.i01 (the profiled criterion).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from send_va.multilevel import elimination_kernels as kernels
from send_va.multilevel.crossproducts import FloatArray, IntArray


@dataclass(frozen=True)
class Level:
    """One grouping level, innermost first.

    Attributes
    ----------
    z : array, shape (q,)
        Positions of the random-effects columns among the columns of the cross-products.
    parent : array, shape (groups,), or None
        Group of the next level each group belongs to; None at the outermost level.
    """

    z: IntArray
    parent: NDArray[np.integer] | None = None

    @property
    def q(self) -> int:
        """Random effects per group."""
        return len(self.z)

    @property
    def n_parameters(self) -> int:
        """Free elements of the lower-triangular factor."""
        return self.q * (self.q + 1) // 2


@dataclass(frozen=True)
class Eliminated:
    """One level after elimination; arrays lead with the effect so that arithmetic runs over all groups at once.

    Attributes
    ----------
    cz : array, shape (q, groups, m)
    modes : array, shape (q, groups, m)
        ``K C[z, :]``: times a coefficient vector it gives conditional means.
    root : array, shape (q, q, groups)
        ``root' root = K``; times the residual variance K is the conditional covariance.
    logdet : float
        Sum over groups of ``log|Lambda' C[z, z] Lambda + I|``.
    schur : array, shape (m, m) or (parents, m, m)
    """

    cz: FloatArray
    modes: FloatArray
    root: FloatArray
    logdet: float
    schur: FloatArray

    @property
    def kernel(self) -> FloatArray:
        """``K`` of every group, shape (groups, q, q)."""
        return np.asarray(np.einsum("bag,bcg->gac", self.root, self.root))


def unpack(theta: FloatArray, levels: Sequence[Level]) -> list[FloatArray]:
    """Lower-triangular factors, one a level, from the vector of their free elements (row by row)."""
    factors, start = [], 0
    for level in levels:
        factor = np.zeros((level.q, level.q))
        factor[np.tril_indices(level.q)] = theta[start : start + level.n_parameters]
        factors.append(factor)
        start += level.n_parameters
    return factors


def eliminate(products: FloatArray, level: Level, factor: FloatArray, summed: FloatArray | None = None) -> Eliminated:
    """Integrate the random effects of one level out of the cross-products.

    Parameters
    ----------
    products : array, shape (groups, m, m)
    level : Level
    factor : array, shape (q, q)
        Lower-triangular ``Lambda``.
    summed : array, optional
        Sums of `products` over parents, where they are known already.
    """
    cz = np.ascontiguousarray(products[:, level.z, :].transpose(1, 0, 2))
    return eliminate_prepared(cz, level, factor, sum_over_parents(products, level) if summed is None else summed)


def eliminate_prepared(cz: FloatArray, level: Level, factor: FloatArray, summed: FloatArray) -> Eliminated:
    """:func:`eliminate` for rows ``C[z, :]`` (q, groups, m) and parent sums that were laid out beforehand."""
    white, modes, root, logdet = kernels.eliminate_groups(cz, level.z, np.ascontiguousarray(factor))
    return Eliminated(cz, modes, root, logdet, summed - _sum_of_squares(white, level))


def parent_slices(level: Level) -> list[slice]:
    """Runs of groups with the same parent; groups are ordered by parent."""
    if level.parent is None:
        return []
    edges = np.concatenate([[0], np.cumsum(np.bincount(level.parent))])
    return [slice(int(a), int(b)) for a, b in itertools.pairwise(edges)]


def sum_over_parents(products: FloatArray, level: Level) -> FloatArray:
    """Sums of (groups, m, m) over the groups of each parent, or over all groups."""
    if level.parent is None:
        return np.asarray(products.sum(axis=0))
    return np.stack([products[run].sum(axis=0) for run in parent_slices(level)])


def _sum_of_squares(white: FloatArray, level: Level) -> FloatArray:
    m = white.shape[2]
    if level.parent is None:
        flat = white.reshape(-1, m)
        return np.asarray(flat.T @ flat)
    runs = [np.ascontiguousarray(white[:, run]).reshape(-1, m) for run in parent_slices(level)]
    return np.stack([run.T @ run for run in runs])


def adjoint_factor(done: Eliminated, level: Level, factor: FloatArray, schur_bar: FloatArray) -> FloatArray:
    """Derivative with respect to ``Lambda``, shape (q, q), of the log-determinants and of `schur`.

    `schur_bar` (m, m), or (parents, m, m), is the derivative of the criterion with respect to `schur`.
    """
    q, groups, m = done.cz.shape
    reduced = kernels.reduce_groups(done.cz, level.z, done.modes)
    if level.parent is None:
        carried = (reduced.reshape(-1, m) @ schur_bar).reshape(q, groups, m)
    else:
        carried = np.empty_like(reduced)
        for run, bar in zip(parent_slices(level), schur_bar, strict=True):
            carried[:, run] = reduced[:, run] @ bar
    g_bar = -np.array([[np.vdot(carried[a], reduced[b]) for b in range(q)] for a in range(q)])
    g_bar += reduced[:, :, level.z].sum(axis=1)
    return np.asarray((g_bar + g_bar.T) @ factor)


def adjoint_products(done: Eliminated, level: Level, schur_bar: FloatArray) -> FloatArray:
    """Derivative with respect to the cross-products of each group, shape (groups, m, m)."""
    _, groups, m = done.cz.shape
    project = np.broadcast_to(np.eye(m), (groups, m, m)).copy()
    project[:, level.z, :] -= done.modes.transpose(1, 0, 2)
    bar = schur_bar if level.parent is None else schur_bar[level.parent]
    result = project @ bar @ project.transpose(0, 2, 1)
    result[:, level.z[:, None], level.z] += done.kernel
    return np.asarray(result)
