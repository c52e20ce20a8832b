"""Unshrunken estimates of every school in every cohort, from one fit of the value-added model to all cohorts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from send_va.errors import InputError
from send_va.multilevel.crossproducts import FloatArray
from send_va.multilevel.nested import NestedSolution, fit_nested
from send_va.multilevel.threads import one_blas_thread
from send_va.records.design_columns import Context, ContextColumns
from send_va.records.reader import Cohort
from send_va.value_added.autocovariance import autocovariance, extended
from send_va.value_added.changing_products import ChangingProducts, NeedColumns, changed_sums
from send_va.value_added.need_draws import PlugInFit
from send_va.value_added.readout import own_estimates
from send_va.value_added.residual_variance import fit_weighted
from send_va.value_added.scores import NeedScores, scores_table
from send_va.value_added.within_school import within_school
from send_va.value_added.year_estimates import YEAR_MEASURES, YearEstimates, diagonal
from send_va.value_added.year_groups import YearGroups

MOST_DRAWS = 40  # of identification parameters: error that cohorts share is a small part of the whole
_LEAST = 0.01  # share of the information on a slope, or on need, that must be a group's own


@one_blas_thread
def fit_years(
    groups: YearGroups,
    context_columns: ContextColumns,
    scores: NeedScores,
    estimator: str,
    context: Context,
    *,
    left_out: NDArray[np.integer],
    prior_slope: bool = True,
    residual_by_need: bool = True,
    attrs: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> YearEstimates:
    """Estimate every school in every cohort.

    Need is estimated once for all cohorts. What is uncertain about it (the leniency of a school's feeders, its intake
    need) is wrong in the same direction in all of them: the covariance of a school's estimates over draws of the
    identification parameters is part of their error, and is not taken for something that lasts. Likewise the slope of a
    school on prior attainment, which moves its estimates in all cohorts if their pupils are alike.

    Parameters
    ----------
    groups : YearGroups
    context_columns : ContextColumns
    scores : NeedScores
        For all complete pupils, in ascending row number; :class:`LabelScores` for ``labelled``.
    estimator : str
        ``entry``, ``standardised``, ``label_free`` or ``labelled`` (one residual variance for all labels).
    context : str
    left_out : integer array
        Places, among ``groups.schools``, of schools that cannot be compared.
    prior_slope, residual_by_need : bool
        As in :func:`send_va.value_added.need_fit.fit_need`.
    attrs : mapping, optional
    progress : callable, optional
        Called with the number of identification draws done.

    Returns
    -------
    YearEstimates

    Raises
    ------
    InputError, CollinearityError
        As in :func:`send_va.value_added.need_fit.fit_need`.
    """
    design = groups.design(context_columns)
    design = design.without_schools(np.flatnonzero(np.isin(groups.school, left_out)))
    expected_scores = scores.plug_in()
    known = "label_free" if expected_scores[1] is None else estimator
    table = scores_table(design.ordered(expected_scores), len(design.rows), known)
    reference = design.prior_at(table[:, 0])
    columns = NeedColumns.of(design, context, table.shape[1] > 1, prior_slope)
    fit = fit_weighted(design, columns, table, reference, by_need=residual_by_need)
    changing = ChangingProducts.of(design, columns, fit.products, reference)
    expected = design.by_school(table[:, 0])
    start = PlugInFit(columns, fit, changing, design.n_pupils - expected, expected)
    own = start.own(fit.solution)
    used = min(scores.n_draws, MOST_DRAWS)
    weights = fit.weights[None]

    def again(draw: int) -> FloatArray:
        drawn = scores_table(design.ordered(scores.draw(draw)), len(design.rows), known)
        inner = changing.at(changed_sums(design.rows, design.starts, weights, drawn)[0])
        solution = fit_nested(inner, [columns.level], columns.x, columns.y, start=fit.solution, newton=True)
        if progress is not None:
            progress(draw + 1)
        return _stacked(own_estimates(solution, inner, start.n_without, start.n_with).estimate)

    shared = _shared_error(groups, [again(draw) for draw in range(used)]) + _slope_error(groups, start)
    about = {"estimator": estimator, "context": context, "outcome_sd": design.outcome_sd}
    about |= {"prior_reference": reference, "identification": f"{used} joint draws" if used > 1 else "plug-in"}
    return YearEstimates(
        schools=groups.schools,
        years=groups.years,
        estimate={name: groups.wide(own.estimate[name]) for name in YEAR_MEASURES},
        error={name: diagonal(groups.wide(own.se[name]) ** 2) + shared[k] for k, name in enumerate(YEAR_MEASURES)},
        n_pupils=groups.counts(design.n_pupils),
        n_need=groups.counts(np.rint(expected)),
        not_compared=np.isin(np.arange(len(groups.schools)), left_out),
        attrs=dict(attrs or {}) | about,
    )


def _slope_error(groups: YearGroups, start: PlugInFit) -> FloatArray:
    """Covariance between cohorts of the error from the slope on prior attainment, (measures, schools, years, years).

    The estimate of a measure moves by ``l_jt`` for a unit of the slope. Slopes of two cohorts of a school have the
    covariance that unshrunken slopes show; their variance is in the sampling errors already.
    """
    shape = (len(YEAR_MEASURES), len(groups.schools), len(groups.years), len(groups.years))
    z = start.columns.level.z
    if len(z) < 3:
        return np.zeros(shape)
    solution, inner = start.fit.solution, start.changing.base
    slope, variance = own_slopes(inner.rows, z, solution, len(inner.total))
    try:
        lasting = autocovariance(groups.wide(slope), diagonal(groups.wide(variance)), groups.years)
    except InputError:  # too few schools in two cohorts; drift says so of the effects themselves
        return np.zeros(shape)
    gaps = np.abs(np.subtract.outer(groups.years, groups.years))
    between = np.where(gaps > 0, extended(lasting.fitted, lasting.last_lag, int(gaps.max()), 1.0)[gaps], 0.0)
    along = np.zeros(len(inner.total))
    along[z[2]] = 1.0
    moves = within_school(
        inner.rows,
        z,
        along,
        slope_variance=float(solution.covariances[0][2, 2]),
        scale=solution.scale,
        n_without=start.n_without,
        n_with=start.n_with,
    )
    wide = groups.wide(_stacked(moves.estimate))
    return np.asarray(np.nan_to_num(np.einsum("mjt,mjs,ts->mjts", wide, wide, between)))


def own_slopes(
    rows: FloatArray, z: NDArray[np.integer], solution: NestedSolution, size: int
) -> tuple[FloatArray, FloatArray]:
    """Unshrunken slopes on prior attainment and their error variance by group; missing where there is none.

    Parameters
    ----------
    rows : array, shape (3, groups, m)
        Precision-weighted cross-products of the ones, of need and of prior attainment.
    z : integer array, shape (3,)
    solution : NestedSolution
    size : int
        m.
    """
    direction = np.zeros(size)
    direction[solution.x], direction[solution.y] = -solution.beta, 1.0
    normal = rows[:, :, z].transpose(1, 0, 2)  # (groups, 3, 3)
    outer, side = normal[:, :2, :2], normal[:, :2, 2]
    good = outer[:, 0, 0] * outer[:, 1, 1] - outer[:, 0, 1] ** 2 > _LEAST * outer[:, 0, 0] * outer[:, 1, 1]
    sums = (rows @ direction).T  # (groups, 3)
    safe = np.where(good[:, None, None], outer, np.eye(2))
    weights = np.linalg.solve(safe, side[:, :, None])[:, :, 0]
    left = normal[:, 2, 2] - (weights * side).sum(axis=1)
    good &= left > _LEAST * normal[:, 2, 2]
    left = np.where(good, left, 1.0)
    slope = (sums[:, 2] - (weights * sums[:, :2]).sum(axis=1)) / left
    return np.where(good, slope, np.nan), np.where(good, solution.scale / left, np.nan)


def _stacked(by_measure: Mapping[str, FloatArray]) -> FloatArray:
    return np.stack([by_measure[name] for name in YEAR_MEASURES])


def _shared_error(groups: YearGroups, draws: list[FloatArray]) -> FloatArray:
    """Covariance over draws of the estimates of a school's cohorts, (measures, schools, years, years)."""
    if len(draws) < 2:
        return np.zeros((len(YEAR_MEASURES), len(groups.schools), len(groups.years), len(groups.years)))
    wide = groups.wide(np.stack(draws))  # (draws, measures, schools, years)
    deviations = wide - wide.mean(axis=0)
    return np.asarray(np.einsum("dmjt,dmjs->mjts", deviations, deviations) / (len(draws) - 1))


@dataclass(frozen=True, eq=False)
class LabelScores:
    """SEN status now in the place of scores of need: a label is need, and an EHCP is the more severe one.

    Attributes
    ----------
    labelled, ehcp : array, shape (n,)
        0 or 1, for all complete pupils in ascending row number.
    """

    labelled: FloatArray
    ehcp: FloatArray

    @classmethod
    def read(cls, cohort: Cohort) -> LabelScores:
        """Read the status of all complete pupils."""
        parts = [
            np.asarray(batch.column("sen_level").to_numpy(zero_copy_only=False))
            for batch in cohort.batches(["sen_level"])
        ]
        level = np.concatenate(parts)
        return cls((level > 0).astype(np.float64), (level == 2).astype(np.float64))

    @property
    def n_draws(self) -> int:
        """A label is taken as it is."""
        return 0

    def plug_in(self) -> tuple[FloatArray, FloatArray | None]:
        """The labels; without a severity where all are of one kind."""
        several = bool(self.ehcp.any() and (self.ehcp < self.labelled).any())
        return self.labelled, self.ehcp if several else None

    def draw(self, d: int) -> tuple[FloatArray, FloatArray | None]:
        """The same."""
        return self.plug_in()
