"""Elimination of the random effects of many groups: compiled loops over groups, each in the processor's cache.

Arrays lead with the effect: rows ``C[z, :]`` of the cross-products have shape (q, groups, m).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


@njit(cache=True, nogil=True, error_model="numpy")
def eliminate_groups(cz: Floats, z: Ints, factor: Floats) -> tuple[Floats, Floats, Floats, float]:
    """Whiten the rows of every group.

    Parameters
    ----------
    cz : array, shape (q, groups, m)
    z : integer array, shape (q,)
        Their columns among the m.
    factor : array, shape (q, q)
        ``Lambda``, not necessarily triangular.

    Returns
    -------
    white : array, shape (q, groups, m)
        ``root C[z, :]``; its squares, summed, are what elimination takes from the cross-products.
    modes : array, shape (q, groups, m)
        ``root' root C[z, :]``.
    root : array, shape (q, q, groups)
        ``L^-1 Lambda'`` with ``L L' = Lambda' C[z, z] Lambda + I``; missing where that is not positive definite.
    logdet : float
    """
    q, groups, m = cz.shape
    white, modes, roots = np.zeros((q, groups, m)), np.zeros((q, groups, m)), np.zeros((q, q, groups))
    logdet = 0.0
    lower, root = np.zeros((q, q)), np.zeros((q, q))
    half = np.zeros((q, q))
    for g in range(groups):
        for a in range(q):
            for b in range(q):
                half[a, b] = 0.0
                for c in range(q):
                    half[a, b] += factor[c, a] * cz[c, g, z[b]]
        for a in range(q):
            for b in range(a + 1):
                rest = 1.0 if a == b else 0.0
                for c in range(q):
                    rest += half[a, c] * factor[c, b]
                for k in range(b):
                    rest -= lower[a, k] * lower[b, k]
                lower[a, b] = math.sqrt(rest) if a == b else rest / lower[b, b]
            logdet += 2.0 * math.log(lower[a, a])
        for a in range(q):
            for b in range(q):
                rest = factor[b, a]
                for k in range(a):
                    rest -= lower[a, k] * root[k, b]
                root[a, b] = rest / lower[a, a]
                roots[a, b, g] = root[a, b]
        for a in range(q):
            for b in range(q):
                weight = root[a, b]
                for c in range(m):
                    white[a, g, c] += weight * cz[b, g, c]
        for a in range(q):
            for b in range(q):
                weight = root[b, a]
                for c in range(m):
                    modes[a, g, c] += weight * white[b, g, c]
    return white, modes, roots, logdet


@njit(cache=True, nogil=True)
def reduce_groups(cz: Floats, z: Ints, modes: Floats) -> Floats:
    """``T C[z, :]`` of every group, ``T = I - C[z, z] K``; shape (q, groups, m)."""
    q, groups, m = cz.shape
    out = cz.copy()
    for g in range(groups):
        for a in range(q):
            for b in range(q):
                weight = cz[a, g, z[b]]
                for c in range(m):
                    out[a, g, c] -= weight * modes[b, g, c]
    return out
