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
    products: FloatArray,
    direction: FloatArray,
    *,
    intercept: int,
    need: int,
    slope: int | None,
    slope_variance: float,
    scale: float,
    n_without: NDArray[np.integer],
    n_with: NDArray[np.integer],
) -> WithinSchool:
    """Estimate the effect on pupils without and with need from each school's own pupils.

    The school's slope on prior attainment stays random (its variance is part of the error), so a school with a handful
    of pupils with need still has an estimate.

    Parameters
    ----------
    products : array, shape (schools, m, m)
        Precision-weighted cross-products.
    direction : array, shape (m,)
        Minus the fixed effects; one at the outcome.
    intercept, need, slope : int
        Positions of the ones, the need indicator, the random slope's column (None without).
    slope_variance, scale : float
        Variance of the slope between schools; residual variance of a record of weight one.
    n_without, n_with : integer array, shape (schools,)
        Pupils without and with need.

    References
    ----------
    Raudenbush & Bryk (2002), Hierarchical Linear Models, 2nd ed., chapter 3.
    """
    # Indicators of pupils without and with need, as combinations of the columns.
    m = products.shape[1]
    pick = np.zeros((2, m))
    pick[0, intercept], pick[0, need], pick[1, need] = 1.0, -1.0, 1.0
    normal = pick @ products @ pick.T  # (schools, 2, 2)
    right = pick @ (products @ direction)[..., None]  # (schools, 2, 1)
    if slope is not None and slope_variance > 0:
        shared = 1.0 / (scale / slope_variance + products[:, slope, slope])
        with_slope = pick @ products[:, :, [slope]]  # (schools, 2, 1)
        normal = normal - shared[:, None, None] * with_slope @ with_slope.transpose(0, 2, 1)
        right = right - shared[:, None, None] * with_slope * (products[:, slope] @ direction)[:, None, None]
    have = np.stack([n_without > 0, n_with > 0], axis=1)
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
