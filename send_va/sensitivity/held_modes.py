"""Effects of schools on labels at their mode given all that is national: Newton's method, school by school."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from send_va.multilevel.crossproducts import FloatArray

Derivatives = Callable[[NDArray[np.intp], FloatArray], tuple[FloatArray, FloatArray]]

_STEPS, _LONGEST, _SETTLED = 60, 1.0, 1e-7  # Newton converges by squares: an error of 1e-14 is left after such a step


def school_modes(
    derivatives: Derivatives,
    codes: NDArray[np.intp],
    design: FloatArray,
    covariance: FloatArray,
    start: FloatArray,
    offset: FloatArray,
    weight: FloatArray | None = None,
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Most likely effects of every school given its own pupils' labels.

    The log-likelihoods of labels are concave, so Newton's method with steps of bounded length finds the one mode. Each
    school stops on its own account: what it gets does not depend on the others.

    Parameters
    ----------
    derivatives : callable
        Of the log-likelihoods of some pupils (their places, linear predictors (k, d)): gradient (k, d) and minus the
        second derivative (k, d, d).
    codes : integer array, shape (n,)
        School of each pupil.
    design : array, shape (d, q)
        What a school's effects add to a pupil's linear predictors.
    covariance : array, shape (q, q)
        Of the effects between schools.
    start : array, shape (schools, q)
    offset : array, shape (n, d)
        The rest of the linear predictors.
    weight : array, shape (n,), optional
        How much each pupil counts.

    Returns
    -------
    modes : array, shape (schools, q)
        Zero for a school without pupils.
    settled : bool array, shape (schools,)

    Examples
    --------
    >>> from send_va.multilevel.likelihoods import Ordinal
    >>> labels = Ordinal(np.array([0, 1, 1, 0]), 1)
    >>> def derivatives(rows, eta):
    ...     return labels.of_rows(rows).derivatives(eta)[1:]
    >>> school = np.array([0, 0, 1, 1])
    >>> school_modes(derivatives, school, np.eye(1), np.eye(1), np.ones((2, 1)), np.zeros((4, 1)))[0].round(6) + 0.0
    array([[0.],
           [0.]])
    """
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.clip(values, 0.0, None))  # effects are root @ standardised ones, singular or not
    seen = np.bincount(codes, minlength=len(start)) > 0
    unit = np.where(seen[:, None], start @ np.linalg.pinv(root).T, 0.0)
    turned = design @ root  # (d, q)
    active, rows = seen.copy(), np.arange(len(codes), dtype=np.intp)
    for _ in range(_STEPS):
        here = codes[rows]
        gradient, curvature = derivatives(rows, offset[rows] + unit[here] @ turned.T)
        if weight is not None:
            gradient = gradient * weight[rows][:, None]
            curvature = curvature * weight[rows][:, None, None]
        score = _by_school(gradient, here, len(start)) @ turned - unit
        information = turned.T @ _by_school(curvature, here, len(start)) @ turned + np.eye(unit.shape[1])
        step = np.linalg.solve(information, score[..., None])[..., 0]
        moved = np.abs(step @ root.T).max(axis=1)
        step *= np.minimum(1.0, _LONGEST / np.maximum(moved, _LONGEST))[:, None]
        unit[active] += step[active]
        active &= moved > _SETTLED
        if not active.any():
            break
        rows = rows[active[here]]
    return np.asarray(unit @ root.T), ~active


def _by_school(values: FloatArray, codes: NDArray[np.intp], schools: int) -> FloatArray:
    """Sums over the pupils of each school of arrays (n, ...)."""
    flat = values.reshape(len(values), -1)
    sums = [np.bincount(codes, weights=column, minlength=schools) for column in flat.T]
    return np.asarray(np.stack(sums, axis=1).reshape(schools, *values.shape[1:]))
