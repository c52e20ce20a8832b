r"""Compiled passes over groups whose effects are Student-t: a mixture of normals over nodes of ``lambda``.

With the notation of :mod:`send_va.multilevel.collapsed_kernels`, the factor at node k is ``L / sqrt(lambda_k)``. The
eigendecomposition ``L'AL = U diag(d) U'`` serves all nodes: with ``c = U'L'r`` and ``e_k = 1 / (lambda_k + d)``,

    log|M_k| = sum_a log((lambda_k + d_a) / lambda_k),    K_k = LU diag(e_k) U'L',    r'K_k r = sum_a e_ka c_a^2,

so that a node costs a logarithm and an exponential, and the posterior means over nodes of ``e_k`` and ``e_k e_k'`` are
all that the gradient needs. With ``E`` the mean over nodes, weighted by their posterior probabilities, ``T =
diag(E e) + E[e e'] * c c'`` (elementwise) and ``f = LU (E e * c)``, -2 log p has the derivatives

    by A: LU T U'L',      by r: -2 f,      by L: 2 (A LU T - r (E e * c)') U',

and log p has the derivative by the logarithm of a node's weight that is the posterior probability of the node.
"""

from __future__ import annotations

import numba
import numpy as np

from send_va.multilevel.collapsed_kernels import EFFECTS, Work, residual_products, sum_strata
from send_va.multilevel.crossproducts import FloatArray

_REORDERED = {"reassoc", "contract", "arcp", "nsz"}  # sums may be vectorised; not-a-number stays what it is
_SWEEPS = 12  # of Jacobi rotations; four are enough but for matrices that are not finite


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_REORDERED)
def spectrum(
    j: int, square: FloatArray, summed: FloatArray, lower: FloatArray, scratch: FloatArray
) -> None:  # pragma: no cover (compiled)
    """Fill `scratch` (8, 3, 3) for group j: 0 is ``L'AL`` made diagonal, 1 ``U``, 2 ``LU``, 3 ``A LU``; 4[0] is ``c``.

    Rotations by Jacobi: exact for three effects, and free of allocations.
    """
    matrix, turn, root, across, sums = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4, 0]
    for a in range(EFFECTS):
        for b in range(EFFECTS):
            value = 0.0
            for c in range(EFFECTS):
                value += square[j, a, c] * lower[c, b]
            across[a, b] = value
            turn[a, b] = 1.0 if a == b else 0.0
    for a in range(EFFECTS):
        for b in range(EFFECTS):
            value = 0.0
            for c in range(EFFECTS):
                value += lower[c, a] * across[c, b]
            matrix[a, b] = value
    for _ in range(_SWEEPS):
        off = abs(matrix[0, 1]) + abs(matrix[0, 2]) + abs(matrix[1, 2])
        if not off > 1e-15 * (matrix[0, 0] + matrix[1, 1] + matrix[2, 2]):
            break
        for a in range(EFFECTS - 1):
            for b in range(a + 1, EFFECTS):
                _rotate(matrix, turn, a, b)
    for a in range(EFFECTS):
        for b in range(EFFECTS):
            value = 0.0
            for c in range(EFFECTS):
                value += lower[a, c] * turn[c, b]
            root[a, b] = value
    for a in range(EFFECTS):
        value = 0.0
        for b in range(EFFECTS):
            value += root[b, a] * summed[j, b]
            onward = 0.0
            for c in range(EFFECTS):
                onward += square[j, a, c] * root[c, b]
            across[a, b] = onward
        sums[a] = value


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_REORDERED)
def _rotate(matrix: FloatArray, turn: FloatArray, a: int, b: int) -> None:  # pragma: no cover (compiled)
    """Turn axes a and b so that ``matrix[a, b]`` is zero; `turn` collects the rotations.

    Golub & Van Loan (2013), Matrix Computations, 4th ed., section 8.5.
    """
    off = matrix[a, b]
    if off == 0.0:
        return
    slant = (matrix[b, b] - matrix[a, a]) / (2.0 * off)
    tangent = (1.0 if slant >= 0.0 else -1.0) / (abs(slant) + np.sqrt(1.0 + slant * slant))
    cosine = 1.0 / np.sqrt(1.0 + tangent * tangent)
    sine = tangent * cosine
    for k in range(EFFECTS):
        first, second = matrix[k, a], matrix[k, b]
        matrix[k, a], matrix[k, b] = cosine * first - sine * second, sine * first + cosine * second
    for k in range(EFFECTS):
        first, second = matrix[a, k], matrix[b, k]
        matrix[a, k], matrix[b, k] = cosine * first - sine * second, sine * first + cosine * second
        first, second = turn[k, a], turn[k, b]
        turn[k, a], turn[k, b] = cosine * first - sine * second, sine * first + cosine * second


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_REORDERED)
def node_posterior(
    scratch: FloatArray, log_node_weights: FloatArray, nodes: FloatArray, chance: FloatArray
) -> float:  # pragma: no cover (compiled)
    """Fill `chance` (nodes,) with posterior probabilities of the nodes; returns what the group adds to log p."""
    values, sums = scratch[0], scratch[4, 0]
    most = -np.inf
    for k in range(len(nodes)):
        size, explained = 1.0, 0.0
        for a in range(EFFECTS):
            own = nodes[k] + values[a, a]
            size *= nodes[k] / own
            explained += sums[a] * sums[a] / own
        chance[k] = log_node_weights[k] + 0.5 * (np.log(size) + explained)
        most = max(most, chance[k])
    total = 0.0
    for k in range(len(nodes)):
        chance[k] = np.exp(chance[k] - most)
        total += chance[k]
    for k in range(len(nodes)):
        chance[k] /= total
    return float(most + np.log(total))


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_REORDERED)
def mean_over_nodes(nodes: FloatArray, chance: FloatArray, scratch: FloatArray) -> None:  # pragma: no cover (compiled)
    """Fill `scratch`: 4[1] is ``E e * c``, 4[2] the mean ``f``, 5 is ``T``, 6 is ``LU T`` and 7 ``LU T U'L'``."""
    values, root, vectors, middle, half, second = scratch[0], scratch[2], scratch[4], scratch[5], scratch[6], scratch[7]
    for a in range(EFFECTS):
        once = 0.0
        for k in range(len(nodes)):
            once += chance[k] / (nodes[k] + values[a, a])
        vectors[1, a] = once * vectors[0, a]
        for b in range(a + 1):
            twice = 0.0
            for k in range(len(nodes)):
                twice += chance[k] / ((nodes[k] + values[a, a]) * (nodes[k] + values[b, b]))
            middle[a, b] = middle[b, a] = twice * vectors[0, a] * vectors[0, b]
        middle[a, a] += once
    for a in range(EFFECTS):
        mean = 0.0
        for b in range(EFFECTS):
            mean += root[a, b] * vectors[1, b]
            value = 0.0
            for c in range(EFFECTS):
                value += root[a, c] * middle[c, b]
            half[a, b] = value
        vectors[2, a] = mean
    for a in range(EFFECTS):
        for b in range(EFFECTS):
            value = 0.0
            for c in range(EFFECTS):
                value += half[a, c] * root[b, c]
            second[a, b] = value


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_REORDERED)
def student_value_and_gradient(
    w: FloatArray,
    lower: FloatArray,
    variance: FloatArray,
    log_node_weights: FloatArray,
    r0: FloatArray,
    re: FloatArray,
    zz: FloatArray,
    c0: FloatArray,
    ce: FloatArray,
    cee: FloatArray,
    records: FloatArray,
    nodes: FloatArray,
    work: Work,
) -> tuple[float, FloatArray, FloatArray, FloatArray, FloatArray]:  # pragma: no cover (compiled)
    """Marginal log-likelihood but for its constant, and its gradient by the first four arguments.

    Parameters
    ----------
    w : array, shape (p,)
    lower : array, shape (3, 3)
        ``L``, the factor of the scale matrix.
    variance : array, shape (S,)
    log_node_weights : array, shape (nodes,)
    r0, re, zz, c0, ce, cee, records
        As in :func:`send_va.multilevel.collapsed_kernels.value_and_gradient`.
    nodes : array, shape (nodes,)
        Values of lambda.
    work : tuple of array
        From :func:`send_va.multilevel.collapsed_kernels.workspace`; one a thread.
    """
    n, strata, q, p = re.shape
    precision = 1.0 / variance
    residual_products(r0, re, w, work)
    square, summed, right, weights, scratch = work[0], work[1], work[7], work[8], work[9]
    total = 0.0
    by_w, by_precision, by_nodes = np.zeros(p), np.zeros(strata), np.zeros(len(nodes))
    for s in range(strata):
        turned = np.dot(cee[s], w)
        squares = c0[s] + 2.0 * np.dot(ce[s], w) + np.dot(w, turned)
        total += precision[s] * squares - records[s] * np.log(precision[s])
        by_precision[s] = squares - records[s] / precision[s]
        by_w += 2.0 * precision[s] * (ce[s] + turned)
    by_lower, chance = np.zeros((EFFECTS, EFFECTS)), np.zeros(len(nodes))
    turn, across, vectors, middle, second = scratch[1], scratch[3], scratch[4], scratch[5], scratch[7]
    for j in range(n):
        sum_strata(j, zz, precision, work)
        spectrum(j, square, summed, lower, scratch)
        total -= 2.0 * node_posterior(scratch, log_node_weights, nodes, chance)
        by_nodes += chance
        mean_over_nodes(nodes, chance, scratch)
        for a in range(EFFECTS):
            for b in range(EFFECTS):
                value = -summed[j, a] * vectors[1, b]
                for c in range(EFFECTS):
                    value += across[a, c] * middle[c, b]
                for c in range(EFFECTS):
                    by_lower[a, c] += 2.0 * value * turn[c, b]
        for s in range(strata):
            change = 0.0
            for a in range(EFFECTS):
                weights[j, s, a] = -2.0 * precision[s] * vectors[2, a]
                change -= 2.0 * vectors[2, a] * right[j, s, a]
                for b in range(EFFECTS):
                    change += second[a, b] * zz[j, s, a, b]
            by_precision[s] += change
    by_w += np.dot(weights.reshape(n * strata * q), re.reshape(n * strata * q, p))
    by_variance = -by_precision * precision**2
    return -0.5 * total, -0.5 * by_w, -0.5 * by_lower, -0.5 * by_variance, by_nodes


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_REORDERED)
def draw_student_effects_at(
    precision: FloatArray,
    lower: FloatArray,
    log_node_weights: FloatArray,
    nodes: FloatArray,
    zz: FloatArray,
    work: Work,
    noise: FloatArray,
    uniform: FloatArray,
    effects: FloatArray,
    first: FloatArray,
    second: FloatArray,
) -> None:  # pragma: no cover (compiled)
    """Draw the effects of every group given one draw of all parameters: its node, then a normal at that node.

    Parameters
    ----------
    precision, lower, log_node_weights, nodes, zz
        As in :func:`student_value_and_gradient`; ``right`` of `work` is read.
    work : tuple of array
    noise : array, shape (groups, 3)
        Standard normal.
    uniform : array, shape (groups,)
        On (0, 1).
    effects : array, shape (groups, 3)
        Filled with the draw.
    first, second : array, shapes (groups, 3) and (groups, 3, 3)
        The conditional mean over nodes is added to the one, the conditional second moment to the other.
    """
    square, summed, scratch = work[0], work[1], work[9]
    chance = np.zeros(len(nodes))
    values, root, vectors = scratch[0], scratch[2], scratch[4]
    for j in range(len(effects)):
        sum_strata(j, zz, precision, work)
        spectrum(j, square, summed, lower, scratch)
        node_posterior(scratch, log_node_weights, nodes, chance)
        mean_over_nodes(nodes, chance, scratch)
        at, above = 0, chance[0]
        while above < uniform[j] and at < len(nodes) - 1:
            at += 1
            above += chance[at]
        for a in range(EFFECTS):
            value = 0.0
            for b in range(EFFECTS):
                own = 1.0 / (nodes[at] + values[b, b])
                value += root[a, b] * (own * vectors[0, b] + np.sqrt(own) * noise[j, b])
                second[j, a, b] += scratch[7, a, b]
            effects[j, a] = value
            first[j, a] += vectors[2, a]


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_REORDERED)
def student_log_likelihood_by_group(
    precision: FloatArray,
    lower: FloatArray,
    log_node_weights: FloatArray,
    nodes: FloatArray,
    zz: FloatArray,
    work: Work,
    squares: FloatArray,
    out: FloatArray,
) -> None:  # pragma: no cover (compiled)
    """Log-likelihood of every group, its effects and its lambda integrated out.

    Parameters
    ----------
    squares : array, shape (groups,)
        ``d'Wd + n log(2 pi) - log|W|`` of every group.
    out : array, shape (groups,)
    """
    square, summed, scratch = work[0], work[1], work[9]
    chance = np.zeros(len(nodes))
    for j in range(len(out)):
        sum_strata(j, zz, precision, work)
        spectrum(j, square, summed, lower, scratch)
        out[j] = node_posterior(scratch, log_node_weights, nodes, chance) - 0.5 * squares[j]
