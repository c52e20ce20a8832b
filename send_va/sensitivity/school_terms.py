"""School means, each shrunken by how much its pupils say of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def adjusted_means(values: Floats, school: NDArray[np.integer], n_schools: int) -> Floats:
    """Estimate the mean of every school by best linear prediction, variances by moments.

    Parameters
    ----------
    values : array, shape (n,)
    school : integer array, shape (n,)
    n_schools : int

    Returns
    -------
    array, shape (n_schools,)
        Deviation of the school from the mean of schools, times its reliability: 0 for a school without a value, close
        to the plain deviation for one with many pupils.

    References
    ----------
    Searle, Casella & McCulloch (1992), Variance Components, chapter 3, doi:10.1002/9780470316856 (moments).
    Grund, Luedtke & Robitzsch (2026), doi:10.3758/s13428-025-02915-9 (adjusted means in imputation).

    Examples
    --------
    >>> adjusted_means(np.array([1.0, 1.2, 5.0, 5.2]), np.array([0, 0, 1, 1]), 3).round(2).tolist()
    [-2.0, 2.0, 0.0]
    """
    n = np.bincount(school, minlength=n_schools).astype(np.float64)
    sums = np.bincount(school, weights=values, minlength=n_schools)
    own = np.divide(sums, n, out=np.zeros(n_schools), where=n > 0)
    groups, total = int((n > 0).sum()), float(n.sum())
    if groups < 2 or total <= groups:
        return np.zeros(n_schools)
    within = float(((values - own[school]) ** 2).sum() / (total - groups))
    centre = float(values.mean())
    typical = (total - float((n**2).sum()) / total) / (groups - 1)
    spread = float((n * (own - centre) ** 2).sum() / (groups - 1))
    between = max((spread - within) / typical, 0.0)
    if between == 0.0:
        return np.zeros(n_schools)
    reliability = n / (n + within / between)
    middle = float((reliability * own).sum() / reliability.sum())
    return np.where(n > 0, reliability * (own - middle), 0.0)
