"""Value-added with SEN status as recorded now: what a league table would show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from send_va.errors import InputError, NotSupportedError
from send_va.multilevel.crossproducts import CrossProducts, FloatArray
from send_va.multilevel.elimination import Level
from send_va.multilevel.gaussian import uncentred, variance_table
from send_va.multilevel.threads import one_blas_thread
from send_va.records.design_columns import INTERCEPT, OUTCOME, Context, mean_name
from send_va.value_added.design import STRATA, LabelledProducts
from send_va.value_added.fit_result import ValueAddedFit, fit_notes, marked
from send_va.value_added.full_rank import require_full_rank
from send_va.value_added.given_slopes import PriorSlopes, adjust_outcome
from send_va.value_added.measurement_error import correct_cross_products, corrected_slopes
from send_va.value_added.readout import read_effects
from send_va.value_added.row_coder import NEED, PRIOR_SLOPE
from send_va.value_added.strata import StratifiedSolution, combine, fit_strata


@dataclass(frozen=True)
class LabelledColumns:
    """Columns of one context: fixed effects, random effects, and everything the cross-products hold."""

    fixed: tuple[str, ...]
    random: tuple[str, ...]
    held: tuple[str, ...]

    @classmethod
    def of(cls, data: LabelledProducts, context: Context, prior_slope: bool) -> LabelledColumns:
        """Lay out a context."""
        fixed = (INTERCEPT, *data.need_columns, *data.context.fixed(context))
        random = (INTERCEPT, NEED, PRIOR_SLOPE) if prior_slope else (INTERCEPT, NEED)
        return cls(fixed, random, (*fixed, *(name for name in random if name not in fixed), OUTCOME))

    def x(self, without: Sequence[str] = ()) -> np.ndarray[Any, np.dtype[np.intp]]:
        """Positions of the fixed effects but those left out."""
        return np.array([self.held.index(name) for name in self.fixed if name not in without], dtype=np.intp)


@one_blas_thread
def fit_labelled(
    data: LabelledProducts,
    context: Context,
    *,
    rng: np.random.Generator,
    draws: int = 1000,
    residual_by_need: bool = True,
    prior_slope: bool = True,
    correct_error: bool = False,
    attrs: dict[str, Any] | None = None,
) -> ValueAddedFit:
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
        Draws of the school effects given the data, uncertainty of the variances included.
    residual_by_need : bool
        One residual variance for each status; otherwise one for all.
    prior_slope : bool
        Let schools differ in their slope on prior attainment. Left out, such differences leak into `gap`.
    correct_error : bool
        Take the known standard errors of measurement of the prior scores into account. Prior attainment then enters as
        a line: a spline of a score with error cannot be corrected so.
    attrs : dict, optional
        Added to the attributes of the effects.

    Returns
    -------
    ValueAddedFit

    Raises
    ------
    CollinearityError
        A covariate is constant or a combination of others; they are named.
    InputError
        `correct_error` without standard errors, or with so much error that no true variation would be left.
    NotSupportedError
        `correct_error` with prior attainment as a spline.

    Warns
    -----
    BoundaryWarning
        A variance between schools was estimated at zero.

    References
    ----------
    Raudenbush & Willms (1995), doi:10.3102/10769986020004307 (type A and type B effects: contexts without and with
    composition).
    """
    columns = LabelledColumns.of(data, context, prior_slope)
    strata = [part.select(columns.held) for part in data.strata]
    x = columns.x()
    total = combine(strata, np.ones(3)).total[np.ix_(x, x)]
    require_full_rank(total, columns.fixed, data.context, len(data.schools))
    fit = fit_labelled_columns(strata, columns, x, residual_by_need)
    slopes = None
    if correct_error:
        slopes = _true_slopes(data, columns, strata, fit)
        adjusted = _adjusted(data, columns, strata, slopes)
        fit = fit_labelled_columns(adjusted, columns, columns.x(without=slopes.names), residual_by_need)
    return ValueAddedFit(
        effects=read_effects(
            fit,
            data.schools,
            data.counts,
            data.flags,
            draws=draws,
            rng=rng,
            slopes=slopes,
            attrs=(attrs or {}) | labelled_attributes(data, fit, context, draws, correct_error),
        ),
        coefficients=marked(_coefficient_table(fit, columns, slopes), "labelled", context),
        variance_components=marked(_variance_rows(fit, columns, residual_by_need), "labelled", context),
        converged=fit.solution.convergence.converged and fit.settled,
        notes=_notes(fit, columns),
    )


def fit_labelled_columns(
    strata: Sequence[CrossProducts], columns: LabelledColumns, x: Any, residual_by_need: bool
) -> StratifiedSolution:
    """Fit the columns `x` by REML, with one residual variance a stratum or one for all."""
    level = Level(strata[0].index(columns.random))
    parts = strata if residual_by_need else [combine(strata, np.ones(len(strata)))]
    return fit_strata(parts, [level], x, columns.held.index(OUTCOME))


def _aliases(data: LabelledProducts, columns: LabelledColumns) -> dict[str, tuple[str, float]]:
    """Columns that carry the error of a score: schools' slopes run on the first one, in SDs."""
    first = data.context.splines[0].column
    return {PRIOR_SLOPE: (first, 1.0 / data.prior_sd)} if PRIOR_SLOPE in columns.random else {}


def _school_means(data: LabelledProducts) -> tuple[str, ...]:
    """School means count as free of error: it averages out over a year group."""
    return tuple(mean_name(name) for name in data.context.composition)


def _true_slopes(
    data: LabelledProducts, columns: LabelledColumns, strata: Sequence[CrossProducts], start: StratifiedSolution
) -> PriorSlopes:
    if not data.error_sums:
        raise InputError(
            "the prior scores have no standard errors of measurement, so their error cannot be taken out",
            "Name them as prior_sem under [roles], or set correct_error = false under [prior].",
        )
    curved = [spline.column for spline in data.context.splines if spline.names != (spline.column,)]
    if curved:
        raise NotSupportedError(
            f"{', '.join(curved)} enters as a spline, and known error can be taken out of a line only: "
            "use 0 knots, or set correct_error = false."
        )
    precision = np.ones(len(strata))
    if len(start.residual_variance) == len(strata):
        precision = start.residual_variance.mean() / start.residual_variance
    summed = {
        name: np.asarray(sum(weight * part[name] for weight, part in zip(precision, data.error_sums, strict=True)))
        for name in data.error_sums[0]
    }
    return corrected_slopes(
        combine(strata, precision),
        summed,
        [Level(strata[0].index(columns.random))],
        columns.x(),
        columns.held.index(OUTCOME),
        aliases=_aliases(data, columns),
        error_free=_school_means(data),
    )


def _adjusted(
    data: LabelledProducts, columns: LabelledColumns, strata: Sequence[CrossProducts], slopes: PriorSlopes
) -> list[CrossProducts]:
    aliases, means = _aliases(data, columns), _school_means(data)
    corrected = [
        correct_cross_products(part, errors, aliases=aliases, error_free=means) if part.counts.any() else part
        for part, errors in zip(strata, data.error_sums, strict=True)
    ]
    return [
        adjust_outcome(part, OUTCOME, slopes, errors) for part, errors in zip(corrected, data.error_sums, strict=True)
    ]


def labelled_attributes(
    data: LabelledProducts, fit: StratifiedSolution, context: Context, draws: int, correct_error: bool
) -> dict[str, Any]:
    """What effects say of themselves."""
    return {
        "estimator": "labelled",
        "context": context,
        "draws": draws,
        "outcome_sd": data.outcome_sd,
        "prior_reference": data.prior_reference,
        "n_left_out": data.n_left_out,
        "llf": fit.solution.llf,
        "measurement_error": "corrected" if correct_error else "not corrected",
    }


def _coefficient_table(fit: StratifiedSolution, columns: LabelledColumns, slopes: PriorSlopes | None) -> pd.DataFrame:
    names = tuple(name for name in columns.fixed if slopes is None or name not in slopes.names)
    beta, cov = uncentred(fit.solution, fit.products, names)
    table = pd.DataFrame({"term": names, "estimate": beta, "se": np.sqrt(np.diag(cov))})
    if slopes is None:
        return table
    given = pd.DataFrame({"term": slopes.names, "estimate": slopes.estimate, "se": np.sqrt(np.diag(slopes.cov))})
    return pd.concat([table, given], ignore_index=True)


def _variance_rows(fit: StratifiedSolution, columns: LabelledColumns, by_need: bool) -> pd.DataFrame:
    between = variance_table(fit.solution, {"school": columns.random}).iloc[:-1]
    return pd.concat([between, _residual_rows(fit.residual_variance, by_need)], ignore_index=True)


def _residual_rows(variance: FloatArray, by_need: bool) -> pd.DataFrame:
    names = STRATA if by_need else ("all",)
    return pd.DataFrame(
        {"group": "Residual", "term1": names, "term2": None, "variance": variance, "sd_or_corr": np.sqrt(variance)}
    )


def _notes(fit: StratifiedSolution, columns: LabelledColumns) -> tuple[str, ...]:
    unsettled = () if fit.settled else (f"residual variances by status still moved after {fit.passes} passes",)
    return (*fit_notes(fit.solution, columns.random, float(fit.residual_variance.max())), *unsettled)
