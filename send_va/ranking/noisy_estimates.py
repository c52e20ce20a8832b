"""Estimates with their sampling errors: what every method that ranks unshrunken estimates takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import LinAlgError, cholesky, eigh

from send_va.effects import FloatArray
from send_va.errors import InputError
from send_va.ranking.estimate_inputs import (
    check_count,
    check_fraction,
    numbers,
    refuse,
    standard_errors,
    unit_index,
    vector,
)
from send_va.ranking.threads import in_threads

BLOCK = 256  # draws of one child generator
_MOST_BYTES = 8 * 2**30
_COPIES = 4  # of a covariance matrix, at most, while it is checked, factored and turned into variances of differences
_ROUNDING = 1e-10


@dataclass(frozen=True)
class NoisyEstimates:
    """Estimates sorted by variance, then by value: what is computed does not depend on the order of rows.

    Attributes
    ----------
    values : array, shape (n,)
    variances : array, shape (n,)
        Squared standard errors.
    covariance : array, shape (n, n), or None
        Where estimates are not independent.
    order : int array, shape (n,)
        Position in the input of each sorted unit.
    index : Index
        Of the input.
    """

    values: FloatArray
    variances: FloatArray
    covariance: FloatArray | None
    order: NDArray[np.intp]
    index: pd.Index

    @property
    def n(self) -> int:
        """Number of units."""
        return len(self.values)

    @property
    def spread(self) -> FloatArray:
        """Variances, or those of all differences (1 on the diagonal) where estimates are not independent."""
        if self.covariance is None:
            return self.variances
        spread: FloatArray = self.variances[:, None] + self.variances - 2.0 * self.covariance
        np.fill_diagonal(spread, 1.0)
        return spread

    def unsorted(self, by_unit: NDArray[np.generic]) -> NDArray[np.generic]:
        """Put numbers of sorted units into the order of the input."""
        out = np.empty_like(by_unit)
        out[self.order] = by_unit
        return out

    def noise(self, draws: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Draw sampling errors, shape (draws, n).

        Blocks of draws have generators of their own, so that the numbers do not depend on how many cores draw them.
        Dependent errors are centred draw by draw: only differences count, and these keep their digits that way.
        """
        out = np.empty((draws, self.n), dtype=np.float32)
        factor = None if self.covariance is None else _factor(self.covariance).T
        sd = np.sqrt(self.variances)
        starts = range(0, draws, BLOCK)
        generators = rng.spawn(len(starts))

        def fill(block: int) -> None:
            rows = out[starts[block] : starts[block] + BLOCK]
            standard = generators[block].standard_normal(rows.shape)
            if factor is None:
                np.multiply(standard, sd, out=rows, casting="same_kind")
            else:
                dependent = standard @ factor
                rows[:] = dependent - dependent.mean(axis=1, keepdims=True)

        in_threads(fill, range(len(starts)))
        return out


def noisy_estimates(estimate: ArrayLike, se_or_cov: ArrayLike, *, fewest: int = 2) -> NoisyEstimates:
    """Check estimates and their standard errors or covariance, and sort them.

    Parameters
    ----------
    estimate : array-like, shape (n,)
    se_or_cov : array-like, shape (n,) or (n, n)
        Standard errors of independent estimates, or their covariance matrix. It may be singular as long as every
        difference of two estimates has a positive variance.
    fewest : int
        Units needed.

    Raises
    ------
    InputError
        Too few units; values that are not finite; standard errors of 0 or below; an index that differs from that of
        the estimates; a matrix that is not square, symmetric and positive semidefinite; two units whose difference
        has no variance; a matrix too large to work on.
    """
    values = vector(estimate, "estimate")
    noise = numbers(se_or_cov, "se_or_cov")
    n = len(values)
    check_count(n, fewest)
    if noise.shape not in {(n,), (n, n)}:
        raise InputError(
            f"se_or_cov: has shape {noise.shape}, and there are {n:,} estimates",
            "Give one standard error a unit, or a square covariance matrix.",
        )
    if noise.ndim == 2 and (size := _COPIES * noise.nbytes) > _MOST_BYTES:
        raise InputError(
            f"se_or_cov: work on the covariance matrix of {n:,} units takes {size / 2**30:,.1f} GiB",
            "Give standard errors where estimates are independent, or rank fewer units.",
        )
    _check_index(estimate, se_or_cov)
    index = unit_index(estimate)
    covariance: FloatArray | None = None
    if noise.ndim == 1:
        variances = standard_errors(noise, "se_or_cov") ** 2
    else:
        covariance = _checked_covariance(noise, index)
        variances = covariance.diagonal().copy()
        if not (covariance - np.diag(variances)).any():
            covariance = None
    order = np.lexsort((values, variances))
    if covariance is not None:
        covariance = np.ascontiguousarray(covariance[np.ix_(order, order)])
    return NoisyEstimates(values[order], variances[order], covariance, order, index)


def check_settings(coverage: float, draws: int, n: int) -> None:
    """Refuse a coverage outside (0, 1), no draws, and draws that no ordinary machine holds."""
    check_fraction(coverage, "coverage")
    if draws < 1:
        raise InputError(f"draws: at least 1 is needed, not {draws}")
    size = 4 * draws * n
    if size > _MOST_BYTES:
        raise InputError(
            f"{draws:,} draws of {n:,} units take {size / 2**30:,.1f} GiB",
            f"Give draws={_MOST_BYTES // (4 * n):,} or fewer, or rank fewer units.",
        )


def _check_index(estimate: ArrayLike, se_or_cov: ArrayLike) -> None:
    if not isinstance(estimate, pd.Series) or not isinstance(se_or_cov, pd.Series | pd.DataFrame):
        return
    same = se_or_cov.index.equals(estimate.index)
    if isinstance(se_or_cov, pd.DataFrame):
        same = same and se_or_cov.columns.equals(estimate.index)
    if not same:
        raise InputError("se_or_cov: its index is not that of the estimates", "Bring both into the same order first.")


def _checked_covariance(matrix: FloatArray, index: pd.Index) -> FloatArray:
    """The matrix, made exactly symmetric, or an error that says what is wrong with it."""
    if not np.isfinite(matrix).all():
        raise InputError("se_or_cov: the covariance matrix has entries that are not finite numbers")
    if not np.allclose(matrix, matrix.T, rtol=1e-8, atol=1e-12 * np.abs(matrix).max()):
        raise InputError("se_or_cov: the covariance matrix is not symmetric")
    variances = matrix.diagonal()
    refuse(variances < 0.0, variances, "se_or_cov", "has a negative variance", "Check the diagonal of the matrix.")
    matrix = (matrix + matrix.T) / 2.0
    total = variances[:, None] + variances
    spread = total - 2.0 * matrix
    np.fill_diagonal(spread, np.inf)
    without = np.argwhere(spread <= _ROUNDING * total)
    if len(without):
        a, b = without[0]
        raise InputError(
            f"se_or_cov: the difference between units {index[a]!r} and {index[b]!r} (rows {a + 1} and {b + 1}) has no "
            f"variance, nor have {len(without) // 2 - 1:,} other pairs",
            "Check the covariance matrix, or leave out one unit of each pair.",
        )
    return matrix


def _factor(covariance: FloatArray) -> FloatArray:
    """A matrix F with F F' equal to the covariance: Cholesky, or from eigenvalues where it is singular."""
    try:
        return np.asarray(cholesky(covariance, lower=True))
    except LinAlgError:
        values, vectors = eigh(covariance)
    if values[0] < -1e-8 * values[-1]:
        raise InputError(
            f"se_or_cov: the matrix has a negative eigenvalue ({values[0]:.3g}; the largest is {values[-1]:.3g})",
            "Give a positive semidefinite matrix.",
        )
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))
