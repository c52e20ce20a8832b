"""What every estimator of value-added returns in one context, and the words and tables they share."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from send_va.effects import SchoolEffects
from send_va.errors import BoundaryWarning
from send_va.multilevel.nested import NestedSolution
from send_va.records.design_columns import INTERCEPT
from send_va.value_added.row_coder import NEED, PRIOR_SLOPE

_PACKAGE = str(Path(__file__).parents[1])
_WORDS = {INTERCEPT: "u (level)", NEED: "gap", PRIOR_SLOPE: "slope on prior attainment"}
_NEGLIGIBLE = 1e-3  # SD between schools, as a share of the largest residual SD, that counts as zero


@dataclass(frozen=True)
class ValueAddedFit:
    """One estimator in one context.

    Attributes
    ----------
    effects : SchoolEffects
    coefficients : DataFrame
        estimator, context, term, estimate, se; in outcome units per unit of the column. Estimators with need estimated
        add lower and upper (95 %); there the term ``severity`` is ``delta``.
    variance_components : DataFrame
        estimator, context, group, term1, term2, variance, sd_or_corr; residual variance last (by SEN status, or the
        coefficients of its function of ``pi``).
    converged : bool
    notes : tuple of str
        What a reader must know: variances at zero, passes that did not settle.
    """

    effects: SchoolEffects
    coefficients: pd.DataFrame
    variance_components: pd.DataFrame
    converged: bool
    notes: tuple[str, ...]


def marked(table: pd.DataFrame, estimator: str, context: str) -> pd.DataFrame:
    """Name the estimator and the context in the first two columns of a table."""
    table.insert(0, "estimator", estimator)
    table.insert(1, "context", context)
    return table


def fit_notes(solution: NestedSolution, random: Sequence[str], residual_variance: float) -> tuple[str, ...]:
    """What a reader must know of a solution, in words.

    Parameters
    ----------
    solution : NestedSolution
    random : sequence of str
        Names of the columns whose effects differ between schools.
    residual_variance : float
        The largest one, in squared outcome units, against which a variance between schools counts as zero.

    Warns
    -----
    BoundaryWarning
        A variance between schools was estimated at zero.
    """
    notes = []
    if solution.convergence.at_boundary:
        what = _at_boundary(solution, random, residual_variance)
        notes.append(f"{what}; effects in that direction are shrunken to the average")
        warnings.warn(notes[-1], BoundaryWarning, skip_file_prefixes=(_PACKAGE,))  # points at the caller's line
    if not solution.convergence.converged:
        notes.append(f"REML did not converge: {solution.convergence.message}")
    return tuple(notes)


def _at_boundary(solution: NestedSolution, random: Sequence[str], residual_variance: float) -> str:
    """Which variance is zero, or which effects go together perfectly."""
    sd = np.sqrt(np.diag(solution.covariances[0]))
    zero = sd < _NEGLIGIBLE * np.sqrt(residual_variance)
    if zero.any():
        named = ", ".join(_WORDS[name] for name, none in zip(random, zero, strict=True) if none)
        return f"the variance of {named} between schools is estimated at zero: the records show no differences in it"
    correlation = solution.covariances[0] / np.outer(sd, sd)
    first, second = np.triu_indices(len(sd), 1)
    closest = int(np.abs(correlation[first, second]).argmax())
    pair = " and ".join(_WORDS[random[at]] for at in (first[closest], second[closest]))
    return f"school differences in {pair} are estimated as (nearly) perfectly correlated"
