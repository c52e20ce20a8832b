"""Unshrunken estimates: what a school's own pupils say, by generalised least squares within the school."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from send_va.multilevel.crossproducts import FloatArray


@dataclass(frozen=True)
class WithinSchool:
    """Unshrunken estimates by school; missing where a school has no pupil of the kind.

    Attributes
    ----------
    estimate : dict of str to array, shape (schools,)
        For ``theta``, ``u`` and ``gap``, in outcome units.
    se : dict of str to array, shape (schools,)
        Sampling standard errors given fixed effects and variance parameters.
    """

    estimate: dict[str, FloatArray]
    se: dict[str, FloatArray]


def within_school(
    rows: FloatArray,
    columns: NDArray[np.integer],
    direction: FloatArray,
    *,
    slope_variance: float,
    scale: float,
    n_without: NDArray[np.number],
    n_with: NDArray[np.number],
) -> WithinSchool:
    """Estimate the effect on pupils without and with need from each school's own pupils.

    The school's slope on prior attainment stays random (its variance is part of the error), so a school with a handful
    of pupils with need still has an estimate. Where need is a probability, so are the two indicators.

    Parameters
    ----------
    rows : array, shape (2 or 3, schools, m)
        Precision-weighted cross-products of the ones, of need and, where schools differ in it, of prior attainment.
    columns : integer array, shape (2 or 3,)
        Positions of these columns among the m.
    direction : array, shape (m,)
        Minus the fixed effects; one at the outcome.
    slope_variance, scale : float
        Variance of the slope between schools; residual variance of a record of weight one.
    n_without, n_with : array, shape (schools,)
        Pupils without and with need, or how many are expected. Below one there is no estimate.

    References
    ----------
    Raudenbush & Bryk (2002), Hierarchical Linear Models, 2nd ed., chapter 3.
    """
    one, need = columns[:2]
    by_column = np.stack([rows[0] - rows[1], rows[1]], axis=1)  # of pupils without and with need, (schools, 2, m)
    normal = np.stack([by_column[:, :, one] - by_column[:, :, need], by_column[:, :, need]], axis=2)
    sums = rows @ direction  # (2 or 3, schools)
    right = np.stack([sums[0] - sums[1], sums[1]], axis=1)[..., None]  # (schools, 2, 1)
    if len(columns) == 3 and slope_variance > 0:
        shared = 1.0 / (scale / slope_variance + rows[2][:, columns[2]])
        with_slope = by_column[:, :, columns[2], None]  # (schools, 2, 1)
        normal = normal - shared[:, None, None] * with_slope @ with_slope.transpose(0, 2, 1)
        right = right - (shared * sums[2])[:, None, None] * with_slope
    have = np.stack([n_without >= 1, n_with >= 1], axis=1)
    have &= ~_alike(normal)[:, None] | (have.sum(axis=1) == 1)[:, None]
    filled = normal + np.where(have, 0.0, 1.0)[:, :, None] * np.eye(2)
    inverse = np.linalg.inv(filled)
    mean = (inverse @ right)[:, :, 0]
    cov = scale * inverse
    both = have.all(axis=1)
    variance_gap = cov[:, 0, 0] + cov[:, 1, 1] - 2.0 * cov[:, 0, 1]
    return WithinSchool(
        estimate={
            "theta": np.where(have[:, 1], mean[:, 1], np.nan),
            "u": np.where(have[:, 0], mean[:, 0], np.nan),
            "gap": np.where(both, mean[:, 1] - mean[:, 0], np.nan),
        },
        se={
            "theta": np.where(have[:, 1], np.sqrt(cov[:, 1, 1]), np.nan),
            "u": np.where(have[:, 0], np.sqrt(cov[:, 0, 0]), np.nan),
            "gap": np.where(both, np.sqrt(variance_gap), np.nan),
        },
    )


_ALIKE = 1e-6  # share of the information on pupils with need that is left when those without are taken out


def _alike(normal: FloatArray) -> NDArray[np.bool_]:
    """Schools whose pupils all have (nearly) the same probability of need: the two effects cannot be told apart."""
    determinant = normal[:, 0, 0] * normal[:, 1, 1] - normal[:, 0, 1] ** 2
    return np.asarray(determinant <= _ALIKE * normal[:, 0, 0] * normal[:, 1, 1])
