"""From a fitted model to SchoolEffects: draws, conditional means and unshrunken estimates of theta, u and gap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from send_va.effects import SchoolEffects, school_effects
from send_va.multilevel.crossproducts import FloatArray
from send_va.multilevel.prediction import draw_effects, effect_covariances
from send_va.multilevel.variance_draws import variance_draws
from send_va.value_added.contexts import INTERCEPT
from send_va.value_added.design import NEED, PRIOR_SLOPE
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
    drawn = _draws(fit, slopes, draws, rng)
    q = drawn.shape[2]
    spread = effect_covariances(solution, fixed=True)[0]
    own = _own_estimates(fit, counts)
    known: dict[str, dict[str, FloatArray]] = {}
    by_measure: dict[str, FloatArray] = {}
    for measure, weights in CONTRASTS.items():
        c = np.array(weights[:q])
        by_measure[measure] = drawn @ c
        variance = np.einsum("gab,a,b->g", spread, c, c)
        between = float(c @ solution.covariances[0] @ c)
        known[measure] = {
            "mean": solution.modes[0] @ c,
            "sd": by_measure[measure].std(axis=0, ddof=1),
            "reliability": np.clip(1.0 - variance / between, 0.0, 1.0) if between > 0 else np.zeros(len(variance)),
            "estimate": own.estimate[measure],
            "se": own.se[measure],
        }
    return school_effects(
        schools,
        by_measure,
        known,
        n_pupils=counts.sum(axis=1),
        n_need=counts[:, 1:].sum(axis=1),
        flag=flags,
        attrs=attrs,
    )


def _draws(fit: StratifiedSolution, slopes: PriorSlopes | None, draws: int, rng: np.random.Generator) -> FloatArray:
    """Draws of the effects, in runs that each have their own variance parameters."""
    runs = min(draws, max(_FEWEST_VARIANCE_DRAWS, _SCHOOLS_TIMES_DRAWS // len(fit.solution.modes[0])))
    sizes = np.full(runs, draws // runs)
    sizes[: draws % runs] += 1
    parts = []
    for solution, size in zip(variance_draws(fit.products, fit.solution, runs, rng), sizes.tolist(), strict=True):
        if slopes is None:
            parts.append(draw_effects(solution, size, rng))
        else:
            parts.append(draw_effects_with_slopes(solution, fit.products, slopes, size, rng))
    return np.concatenate(parts)


def _own_estimates(fit: StratifiedSolution, counts: NDArray[np.integer]) -> WithinSchool:
    solution, columns = fit.solution, fit.products.columns
    direction = np.zeros(len(columns))
    direction[solution.x], direction[solution.y] = -solution.beta, 1.0
    has_slope = len(solution.covariances[0]) == 3
    return within_school(
        fit.products.products,
        direction,
        intercept=columns.index(INTERCEPT),
        need=columns.index(NEED),
        slope=columns.index(PRIOR_SLOPE) if has_slope else None,
        slope_variance=float(solution.covariances[0][2, 2]) if has_slope else 0.0,
        scale=solution.scale,
        n_without=counts[:, 0],
        n_with=counts[:, 1:].sum(axis=1),
    )
