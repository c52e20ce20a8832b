"""From a likelihood, covariates and random effects to estimates, by either method, and what neither can estimate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from send_va.errors import Failure, InputError, NotSupportedError
from send_va.multilevel.glmm_result import Estimates
from send_va.multilevel.laplace_fit import fit_by_laplace
from send_va.multilevel.quadrature import RowLikelihood, fit_quadrature
from send_va.multilevel.quadrature_fit import quadrature_estimates
from send_va.multilevel.random_terms import RandomTerm
from send_va.multilevel.threads import one_blas_thread

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

Method = Literal["laplace", "agq"]


@one_blas_thread
def estimate(
    likelihood: RowLikelihood,
    x: FloatArray,
    terms: Sequence[RandomTerm],
    rows: IntArray,
    method: Method,
    points: int,
    *,
    offset: FloatArray | None = None,
) -> Estimates:
    """Maximise the likelihood by either method; with an `offset` (d,) every predictor has a cutpoint as well.

    Parameters
    ----------
    likelihood : RowLikelihood
        Of the m rows used.
    x : array, shape (m, p)
    terms : sequence of RandomTerm
    rows : integer array, shape (m,)
        Rows of the terms that are used.
    method, points
        See `fit_glmm`.
    offset : array, shape (d,), optional
        Where cutpoints start.

    Returns
    -------
    Estimates
        Fixed effects, then cutpoints.
    """
    cutpoints = offset is not None
    shift = np.zeros((len(x), likelihood.d)) + (0.0 if offset is None else offset)
    if method == "laplace":
        found = fit_by_laplace(likelihood, x, terms, rows, offset=shift, cutpoints=cutpoints)
    else:
        term = terms[0]
        z = np.repeat(term.columns[rows], likelihood.d, axis=1)
        by_points = fit_quadrature(
            likelihood, x, term.codes[rows], len(term.labels), z, points=points, cutpoints=cutpoints, offset=shift
        )
        found = quadrature_estimates(by_points, term)
    if offset is None:
        return found
    return replace(found, beta=np.append(found.beta[: x.shape[1]], found.beta[x.shape[1] :] + offset))


def require_method(method: str, terms: Sequence[RandomTerm], points: int) -> None:
    """Refuse a method there is not, or that does not serve these random effects.

    Raises
    ------
    InputError
        No such method, or fewer points than one.
    NotSupportedError
        Quadrature for several groupings or several effects.
    """
    if method not in ("laplace", "agq"):
        raise InputError(f"there is no method {method!r}", "Use one of laplace, agq.")
    if not (isinstance(points, int) and points >= 1):
        raise InputError(f"points must be a whole number of at least 1, not {points!r}")
    if method == "agq" and (len(terms) > 1 or len(terms[0].names) > 1):
        effects = ", ".join(f"{term.name}: {' + '.join(term.names)}" for term in terms)
        raise NotSupportedError(
            f"adaptive quadrature is for one grouping with one effect, and this model has {effects}. "
            'Use method="laplace"; for quadrature over correlated slopes see GLMMadaptive (R).'
        )


def standardised(X: FloatArray, names: Sequence[str]) -> tuple[FloatArray, FloatArray]:
    """Centre (beside an intercept) and scale covariates, so that the search is as easy whatever their units.

    Parameters
    ----------
    X : array, shape (n, p)
    names : sequence of str

    Returns
    -------
    to_named : array, shape (p, p)
        From coefficients of the new columns to those of `X`.
    columns : array, shape (n, p)
    """
    at = list(names).index("Intercept") if "Intercept" in names else None
    centre = X.mean(axis=0) if at is not None else np.zeros(X.shape[1])
    if at is not None:
        centre[at] = 0.0
    columns = X - centre
    size = np.sqrt(np.einsum("np,np->p", columns, columns) / len(X))
    to_named = np.diag(1.0 / size)
    if at is not None:
        to_named[at] -= centre / size
    columns /= size
    return to_named, columns


def refuse_separated(
    X: FloatArray, names: Sequence[str], lowest: NDArray[np.bool_], highest: NDArray[np.bool_]
) -> None:
    """Refuse covariates whose coefficient has no finite estimate.

    Parameters
    ----------
    X : array, shape (n, p)
    names : sequence of str
    lowest, highest : bool array, shape (n,)
        Rows whose response is wholly the lowest or wholly the highest.

    Raises
    ------
    InputError
        Where a column is not zero, it has one sign and all responses are the lowest, or all the highest; or a 0/1
        column beside an intercept has that at its zeros.
    """
    failures = []
    for column, name in zip(X.T, names, strict=True):
        used = column != 0.0
        one_sign = bool((column[used] > 0.0).all() or (column[used] < 0.0).all())
        two_values = bool((column[used] == column[used].max(initial=0.0)).all()) and "Intercept" in names
        sides = ([used] if one_sign else []) + ([~used] if two_values else [])
        rows = next((side for side in sides if not used.all() and _uniform(side, lowest, highest)), None)
        if rows is not None:
            failures.append(
                Failure(
                    "has a value whose records all have the same response, so its coefficient has no finite estimate",
                    name,
                    count=int(rows.sum()),
                    remedy="Merge the category with another, or leave these records out and say so.",
                )
            )
    if failures:
        raise InputError(failures)


def _uniform(rows: NDArray[np.bool_], lowest: NDArray[np.bool_], highest: NDArray[np.bool_]) -> bool:
    return bool(lowest[rows].all() or highest[rows].all())
