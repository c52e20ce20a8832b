"""Value-added with SEN status as recorded now: what a league table would show."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from send_va.effects import SchoolEffects, school_effects
from send_va.errors import BoundaryWarning
from send_va.multilevel.crossproducts import FloatArray
from send_va.multilevel.elimination import Level
from send_va.multilevel.formula import check_full_rank
from send_va.multilevel.gaussian import uncentred, variance_table
from send_va.multilevel.prediction import draw_effects, effect_covariances
from send_va.multilevel.threads import one_blas_thread
from send_va.value_added.contexts import INTERCEPT, OUTCOME, Context
from send_va.value_added.design import NEED, PRIOR_SLOPE, STRATA, LabelledProducts
from send_va.value_added.strata import StratifiedSolution, combine, fit_strata
from send_va.value_added.within_school import WithinSchool, within_school

CONTRASTS = {"theta": (1.0, 1.0, 0.0), "u": (1.0, 0.0, 0.0), "gap": (0.0, 1.0, 0.0)}


@dataclass(frozen=True)
class LabelledFit:
    """The labelled estimator in one context.

    Attributes
    ----------
    effects : SchoolEffects
    coefficients : DataFrame
        estimator, context, term, estimate, se; in outcome units per unit of the column.
    variance_components : DataFrame
        estimator, context, group, term1, term2, variance, sd_or_corr; residual variance by SEN status last.
    converged : bool
    notes : tuple of str
        What a reader must know: variances at zero, passes that did not settle.
    """

    effects: SchoolEffects
    coefficients: pd.DataFrame
    variance_components: pd.DataFrame
    converged: bool
    notes: tuple[str, ...]


@one_blas_thread
def fit_labelled(
    data: LabelledProducts,
    context: Context,
    *,
    rng: np.random.Generator,
    draws: int = 1000,
    residual_by_need: bool = True,
    prior_slope: bool = True,
    attrs: dict[str, Any] | None = None,
) -> LabelledFit:
    """Estimate value-added for pupils with recorded SEN, by school.

    The outcome depends on prior attainment (splines), the context, and recorded status; schools differ in level
    (`u`), in the extra for pupils with need (`gap`) and in their slope on prior attainment, all correlated. Residual
    variance differs by status. ``theta = u + gap`` is stated at the national mean prior attainment of pupils with need.

    Parameters
    ----------
    data : LabelledProducts
    context : str
        ``prior``, ``cva`` or ``composition``.
    rng : numpy.random.Generator
    draws : int
        Draws of the school effects given the data and the estimated variances.
    residual_by_need : bool
        One residual variance for each status; otherwise one for all.
    prior_slope : bool
        Let schools differ in their slope on prior attainment. Left out, such differences leak into `gap`.
    attrs : dict, optional
        Added to the attributes of the effects.

    Returns
    -------
    LabelledFit

    Raises
    ------
    CollinearityError
        A covariate is constant or a combination of others; they are named.

    Warns
    -----
    BoundaryWarning
        A variance between schools was estimated at zero.

    References
    ----------
    Raudenbush & Willms (1995), doi:10.3102/10769986020004307 (type A and type B effects: contexts without and with
    composition).
    """
    fixed = (INTERCEPT, *data.need_columns, *data.context.fixed(context))
    random = (INTERCEPT, NEED, PRIOR_SLOPE) if prior_slope else (INTERCEPT, NEED)
    columns = (*fixed, *(name for name in random if name not in fixed), OUTCOME)
    strata = [part.select(columns) for part in data.strata]
    x = np.arange(len(fixed))
    pooled = combine(strata, np.ones(3))
    check_full_rank(pooled.total[np.ix_(x, x)], fixed)
    level = Level(pooled.index(random))
    outcome = columns.index(OUTCOME)
    fit = fit_strata(strata if residual_by_need else [pooled], [level], x, outcome)
    notes = _notes(fit)
    table = pd.concat(
        [
            variance_table(fit.solution, {"school": random}).iloc[:-1],
            _residual_rows(fit.residual_variance, residual_by_need),
        ],
        ignore_index=True,
    )
    return LabelledFit(
        effects=_effects(data, fit, columns, context, rng, draws, attrs or {}),
        coefficients=_marked(_coefficient_table(fit, fixed), context),
        variance_components=_marked(table, context),
        converged=fit.solution.convergence.converged and fit.settled,
        notes=notes,
    )


def _marked(table: pd.DataFrame, context: str) -> pd.DataFrame:
    table.insert(0, "estimator", "labelled")
    table.insert(1, "context", context)
    return table


def _coefficient_table(fit: StratifiedSolution, fixed: tuple[str, ...]) -> pd.DataFrame:
    beta, cov = uncentred(fit.solution, fit.products, fixed)
    return pd.DataFrame({"term": fixed, "estimate": beta, "se": np.sqrt(np.diag(cov))})


def _residual_rows(variance: FloatArray, by_need: bool) -> pd.DataFrame:
    names = STRATA if by_need else ("all",)
    return pd.DataFrame(
        {"group": "Residual", "term1": names, "term2": None, "variance": variance, "sd_or_corr": np.sqrt(variance)}
    )


def _notes(fit: StratifiedSolution) -> tuple[str, ...]:
    notes = []
    if fit.solution.convergence.at_boundary:
        notes.append(
            "a variance between schools is estimated at zero, or two effects as perfectly correlated: the records show "
            "no school differences beyond chance in that direction, and effects in it are shrunken to the average"
        )
        warnings.warn(notes[-1], BoundaryWarning, stacklevel=3)
    if not fit.settled:
        notes.append(f"residual variances by status still moved after {fit.passes} passes")
    if not fit.solution.convergence.converged:
        notes.append(f"REML did not converge: {fit.solution.convergence.message}")
    return tuple(notes)


def _effects(
    data: LabelledProducts,
    fit: StratifiedSolution,
    columns: tuple[str, ...],
    context: Context,
    rng: np.random.Generator,
    draws: int,
    attrs: dict[str, Any],
) -> SchoolEffects:
    solution = fit.solution
    drawn = draw_effects(solution, draws, rng)  # (draws, schools, q)
    q = drawn.shape[2]
    spread = effect_covariances(solution, fixed=True)[0]
    own = _own_estimates(data, fit, columns)
    known: dict[str, dict[str, FloatArray]] = {}
    by_measure: dict[str, FloatArray] = {}
    for measure, weights in CONTRASTS.items():
        c = np.array(weights[:q])
        variance = np.einsum("gab,a,b->g", spread, c, c)
        between = float(c @ solution.covariances[0] @ c)
        by_measure[measure] = drawn @ c
        known[measure] = {
            "mean": solution.modes[0] @ c,
            "sd": np.sqrt(variance),
            "reliability": np.clip(1.0 - variance / between, 0.0, 1.0) if between > 0 else np.zeros(len(variance)),
            "estimate": own.estimate[measure],
            "se": own.se[measure],
        }
    return school_effects(
        data.schools,
        by_measure,
        known,
        n_pupils=data.counts.sum(axis=1),
        n_need=data.counts[:, 1:].sum(axis=1),
        flag=data.flags,
        attrs=attrs
        | {
            "estimator": "labelled",
            "context": context,
            "draws": draws,
            "outcome_sd": data.outcome_sd,
            "prior_reference": data.prior_reference,
            "n_left_out": data.n_left_out,
            "llf": solution.llf,
        },
    )


def _own_estimates(data: LabelledProducts, fit: StratifiedSolution, columns: tuple[str, ...]) -> WithinSchool:
    solution = fit.solution
    direction = np.zeros(len(columns))
    direction[solution.x], direction[solution.y] = -solution.beta, 1.0
    has_slope = PRIOR_SLOPE in columns
    return within_school(
        fit.products.products,
        direction,
        intercept=columns.index(INTERCEPT),
        need=columns.index(NEED),
        slope=columns.index(PRIOR_SLOPE) if has_slope else None,
        slope_variance=float(solution.covariances[0][2, 2]) if has_slope else 0.0,
        scale=solution.scale,
        n_without=data.counts[:, 0],
        n_with=data.counts[:, 1:].sum(axis=1),
    )
