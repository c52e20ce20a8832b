"""Variance components as a table, with their sampling covariance, and what a singular one means."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from send_va.errors import BoundaryWarning

FloatArray = NDArray[np.float64]
COMPONENT_COLUMNS = ["group", "term1", "term2", "variance", "sd_or_corr"]


def component_table(terms: Mapping[str, tuple[str, ...]], covariances: Sequence[FloatArray]) -> pd.DataFrame:
    """Lay out covariance matrices as rows: variances first, then covariances, one grouping after the other.

    Parameters
    ----------
    terms : mapping
        Grouping to the names of its q random effects.
    covariances : sequence of array, shape (q, q)
        In the order of `terms`.

    Returns
    -------
    DataFrame
        group, term1, term2, variance, sd_or_corr. Where `term2` is empty the row is a variance and its square root;
        otherwise a covariance and the correlation, NaN where a variance is zero.

    Examples
    --------
    >>> import numpy as np
    >>> component_table({"school": ("Intercept",)}, [np.array([[0.25]])])
        group      term1 term2  variance  sd_or_corr
    0  school  Intercept  None      0.25         0.5
    """
    rows: list[tuple[str, str, str | None, float, float]] = []
    for (group, names), cov in zip(terms.items(), covariances, strict=True):
        sd = np.sqrt(np.diag(cov))
        rows += [(group, name, None, float(cov[k, k]), float(sd[k])) for k, name in enumerate(names)]
        rows += [
            (
                group,
                names[b],
                names[a],
                float(cov[a, b]),
                float(cov[a, b] / (sd[a] * sd[b])) if sd[a] * sd[b] else np.nan,
            )
            for a in range(len(names))
            for b in range(a)
        ]
    return pd.DataFrame(rows, columns=COMPONENT_COLUMNS)


def component_values(covariances: Sequence[FloatArray]) -> FloatArray:
    """Variances and covariances in the order of `component_table`."""
    parts = [np.concatenate([np.diag(cov), cov[np.tril_indices(len(cov), -1)]]) for cov in covariances]
    return np.concatenate(parts)


def component_covariance(
    covariances_at: Callable[[FloatArray], Sequence[FloatArray]], parameters: FloatArray, parameters_cov: FloatArray
) -> FloatArray:
    """Sampling covariance of the components by the delta method.

    Parameters
    ----------
    covariances_at : callable
        From the k parameters to the covariance matrices.
    parameters : array, shape (k,)
    parameters_cov : array, shape (k, k)

    Returns
    -------
    array, shape (rows, rows)
        In the order of `component_table`. A variance's interval is better taken on the log scale, where its standard
        error is that of the variance over the variance.
    """
    step = 1e-6
    jacobian = np.column_stack(
        [
            (
                component_values(covariances_at(parameters + step * direction))
                - component_values(covariances_at(parameters - step * direction))
            )
            / (2.0 * step)
            for direction in np.eye(len(parameters))
        ]
    )
    return np.asarray(jacobian @ parameters_cov @ jacobian.T)


def warn_singular(group: str, size: int) -> None:
    """Say that the covariance of a grouping's `size` effects lies on the boundary, and what it means."""
    what = "variance" if size == 1 else "covariance matrix"
    warnings.warn(
        f"the {what} of the {group} effects is estimated on the boundary (a variance of zero, or effects that are "
        f"perfectly correlated): the data show no {group} differences beyond chance in that direction. Estimates "
        "stand; effects in that direction are shrunken to zero. A simpler random part would give the same likelihood.",
        BoundaryWarning,
        stacklevel=4,
    )
