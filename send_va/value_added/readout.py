"""From a fitted model to SchoolEffects: draws, conditional means and unshrunken estimates of theta, u and gap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from send_va.effects import SchoolEffects, school_effects
from send_va.multilevel.crossproducts import CrossProducts, FloatArray
from send_va.multilevel.inner_products import InnerProducts
from send_va.multilevel.nested import NestedSolution
from send_va.multilevel.prediction import draw_effects, effect_covariances
from send_va.multilevel.variance_draws import variance_draws
from send_va.value_added.given_slopes import PriorSlopes, draw_effects_with_slopes
from send_va.value_added.strata import StratifiedSolution
from send_va.value_added.within_school import WithinSchool, within_school

# Draws of the variance parameters: as many as draws of the effects where schools are few and variances matter, down to
# 25 where schools are many and they do not.
_FEWEST_VARIANCE_DRAWS, _SCHOOLS_TIMES_DRAWS = 25, 60_000
CONTRASTS = {"theta": (1.0, 1.0, 0.0), "u": (1.0, 0.0, 0.0), "gap": (0.0, 1.0, 0.0)}


def read_effects(
    fit: StratifiedSolution,
    schools: Sequence[str],
    counts: NDArray[np.integer],
    flags: Sequence[str],
    *,
    draws: int,
    rng: np.random.Generator,
    attrs: Mapping[str, Any],
    slopes: PriorSlopes | None = None,
) -> SchoolEffects:
    """Draw the effects of the innermost groups and state them as theta, u and gap.

    Parameters
    ----------
    fit : StratifiedSolution
        Random effects in the order intercept, need and, where schools differ in it, slope on prior attainment.
    schools : sequence of str
    counts : integer array, shape (schools, strata)
        Pupils by SEN status; the first column is without need.
    flags : sequence of str
    draws : int
    rng : numpy.random.Generator
    attrs : mapping
        Must name ``estimator`` and ``context``.
    slopes : PriorSlopes, optional
        Slopes on true prior attainment that the outcome was adjusted by; their uncertainty is drawn with the rest.

    Returns
    -------
    SchoolEffects
        ``mean`` is the conditional mean at the estimated variances; ``sd`` and the draws carry the uncertainty of
        fixed effects and variances too.
    """
    solution = fit.solution
    drawn = effect_draws(fit.products, solution, draws, rng, slopes)
    inner = InnerProducts.of(fit.products, solution.levels[0])
    own = own_estimates(solution, inner, counts[:, 0], counts[:, 1:].sum(axis=1))
    by_measure, known = stated(
        drawn, solution.modes[0], effect_covariances(solution, fixed=True)[0], solution.covariances[0], own, CONTRASTS
    )
    return school_effects(
        schools,
        by_measure,
        known,
        n_pupils=counts.sum(axis=1),
        n_need=counts[:, 1:].sum(axis=1),
        flag=flags,
        attrs=attrs,
    )


def stated(
    drawn: FloatArray,
    modes: FloatArray,
    spread: FloatArray,
    covariance: FloatArray,
    own: WithinSchool,
    contrasts: Mapping[str, tuple[float, float, float]],
) -> tuple[dict[str, FloatArray], dict[str, dict[str, FloatArray]]]:
    """State effects on intercept, need and slope as measures: their draws, and what is known of each by school.

    Parameters
    ----------
    drawn : array, shape (draws, schools, q)
    modes : array, shape (schools, q)
        Means of the effects given the data.
    spread : array, shape (schools, q, q)
        Their covariances given the data.
    covariance : array, shape (q, q)
        Of the effects between schools.
    own : WithinSchool
        Unshrunken estimates; missing for a measure it does not hold.
    contrasts : mapping of measure to weights
    """
    q = drawn.shape[2]
    by_measure: dict[str, FloatArray] = {}
    known: dict[str, dict[str, FloatArray]] = {}
    for measure, weights in contrasts.items():
        c = np.array(weights[:q])
        by_measure[measure] = drawn @ c
        variance = np.einsum("gab,a,b->g", spread, c, c)
        between = float(c @ covariance @ c)
        known[measure] = {
            "mean": modes @ c,
            "sd": by_measure[measure].std(axis=0, ddof=1),
            "reliability": np.clip(1.0 - variance / between, 0.0, 1.0) if between > 0 else np.zeros(len(variance)),
        }
        if measure in own.estimate:
            known[measure] |= {"estimate": own.estimate[measure], "se": own.se[measure]}
    return by_measure, known


def effect_draws(
    products: CrossProducts,
    solution: NestedSolution,
    draws: int,
    rng: np.random.Generator,
    slopes: PriorSlopes | None = None,
) -> FloatArray:
    """Draws of the effects, shape (draws, schools, q), in runs that each have their own variance parameters."""
    runs = variance_runs(draws, len(solution.modes[0]))
    parts = []
    for drawn, size in zip(variance_draws(products, solution, runs, rng), shared_out(draws, runs), strict=True):
        if slopes is None:
            parts.append(draw_effects(drawn, size, rng))
        else:
            parts.append(draw_effects_with_slopes(drawn, products, slopes, size, rng))
    return np.concatenate(parts)


def variance_runs(draws: int, schools: int) -> int:
    """How many draws of the variance parameters `draws` of the effects need."""
    return min(draws, max(_FEWEST_VARIANCE_DRAWS, _SCHOOLS_TIMES_DRAWS // schools))


def shared_out(draws: int, runs: int) -> list[int]:
    """How many draws each run makes.

    Examples
    --------
    >>> shared_out(10, 4)
    [3, 3, 2, 2]
    """
    return [draws // runs + (run < draws % runs) for run in range(runs)]


def own_estimates(
    solution: NestedSolution, inner: InnerProducts, n_without: NDArray[np.number], n_with: NDArray[np.number]
) -> WithinSchool:
    """Unshrunken estimates of every school given a solution and what it was fitted to."""
    direction = np.zeros(len(inner.total))
    direction[solution.x], direction[solution.y] = -solution.beta, 1.0
    covariance = solution.covariances[0]
    return within_school(
        inner.rows,
        solution.levels[0].z,
        direction,
        slope_variance=float(covariance[2, 2]) if len(covariance) == 3 else 0.0,
        scale=solution.scale,
        n_without=n_without,
        n_with=n_with,
    )
