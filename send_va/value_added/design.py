"""Streamed pupil records to cross-products by school and need status, for all contexts at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from send_va.errors import Failure, InputError
from send_va.multilevel.crossproducts import CrossProducts, FloatArray, cross_products
from send_va.multilevel.formula import MOST_LEVELS
from send_va.multilevel.threads import one_blas_thread
from send_va.records.design_columns import INTERCEPT, CategoryColumn, ContextColumns, SplineColumn, mean_name
from send_va.value_added.measurement_error import error_sums
from send_va.value_added.row_coder import EHCP, NEED, PRIOR_SLOPE, RowCoder

if TYPE_CHECKING:
    from send_va.records.profile import CohortProfile, PriorSummary
    from send_va.records.reader import Cohort

STRATA = ("none", "support", "ehcp")


@dataclass(frozen=True)
class LabelledProducts:
    """Everything the labelled estimator needs from the records.

    Attributes
    ----------
    strata : tuple of CrossProducts
        By SEN status now (none, support, EHCP); groups are schools, in the order of `schools`.
    schools : tuple of str
    context : ContextColumns
        Which columns each context uses.
    need_columns : tuple of str
        Fixed-effects columns of the status: ``need`` (support or EHCP) and, where both occur, ``ehcp``.
    counts : array, shape (schools, 3)
        Pupils with complete records by status.
    flags : tuple of str
        What is unusual about each school (one pupil, no pupil with SEND, ...); empty for an ordinary one.
    n_left_out : int
        Records left out because a value is missing.
    prior_reference : float
        Prior attainment at which theta is stated: the national mean of pupils with need, in units of the first score.
    prior_sd : float
        SD of the first prior score, by which the school slope is scaled.
    outcome_sd : float
        Pupil SD of the outcome, in its units.
    error_sums : tuple of dict
        For each status, the summed error variance of each prior score by school (squared score units); empty where the
        records hold no standard errors of measurement.
    """

    strata: tuple[CrossProducts, ...]
    schools: tuple[str, ...]
    context: ContextColumns
    need_columns: tuple[str, ...]
    counts: NDArray[np.int64]
    flags: tuple[str, ...]
    n_left_out: int
    prior_reference: float
    prior_sd: float
    outcome_sd: float
    error_sums: tuple[dict[str, FloatArray], ...] = ()


def context_columns(
    cohort: Cohort, profile: CohortProfile, composition: tuple[str, ...] | None = None
) -> ContextColumns:
    """Freeze knots and levels found in the first pass.

    Parameters
    ----------
    cohort : Cohort
    profile : CohortProfile
        Of the same cohort.
    composition : tuple of str, optional
        Design columns whose school means enter; by default the prior scores and all numeric background columns.

    Raises
    ------
    InputError
        `composition` names a column that is neither a prior score nor a numeric background column, or a category has
        more levels than can be estimated.
    """
    roles = cohort.roles
    splines = tuple(_spline(name, profile.priors[name]) for name in roles.prior)
    _refuse_many_levels(cohort, profile)
    categories = tuple(CategoryColumn(name, tuple(profile.levels[name])) for name in roles.categorical)
    numeric = roles.numeric_context
    allowed = (*roles.prior, *numeric)
    chosen = allowed if composition is None else composition
    unknown = [name for name in chosen if name not in allowed]
    if unknown:
        raise InputError(
            f"composition cannot use {', '.join(unknown)}", f"School means are taken of {', '.join(allowed)}."
        )
    return ContextColumns(splines, numeric, categories, chosen)


def _refuse_many_levels(cohort: Cohort, profile: CohortProfile) -> None:
    crowded = [name for name in cohort.roles.categorical if len(profile.levels[name]) > MOST_LEVELS]
    if crowded:
        raise InputError(
            Failure(
                f"has {len(profile.levels[name]):,} levels, more than the {MOST_LEVELS} a category may have",
                name,
                remedy="If it is a number, leave out C(); if it identifies pupils or places, leave it out.",
            )
            for name in crowded
        )


def _spline(name: str, score: PriorSummary) -> SplineColumn:
    """A spline over the whole range; a line where the first pass was asked for no interior knot."""
    if not score.knots:
        return SplineColumn(name, ())
    return SplineColumn(name, (score.minimum, *score.knots, score.maximum))


@one_blas_thread
def labelled_products(
    cohort: Cohort,
    profile: CohortProfile,
    context: ContextColumns,
    progress: Callable[[int], None] | None = None,
) -> LabelledProducts:
    """Stream the records once and sum products of all design columns by school and SEN status.

    Parameters
    ----------
    cohort, profile, context
        The records, their first pass and the frozen columns.
    progress : callable, optional
        Called with the number of records done after every batch.

    Raises
    ------
    InputError
        No pupil with need, or none without, has a complete record.
    """
    coder = RowCoder.of(cohort, profile, context, profile.priors[cohort.roles.prior[0]].mean_need)
    _require_complete_errors(cohort, profile)
    errors = _ErrorSums.zero(cohort, 3 * len(profile.schools.schools))
    done = 0

    def each(batch: pa.RecordBatch, codes: NDArray[np.int64]) -> None:
        nonlocal done
        errors.add(batch, codes)
        done += batch.num_rows
        if progress is not None:
            progress(done)

    batches = cohort.batches([*coder.wanted, "sen_level", *cohort.roles.prior_sem])
    total = status_sums(coder, ((batch, None) for batch in batches), each)
    return replace(_assembled(total, coder, profile, context, done), error_sums=errors.by_status())


def status_sums(
    coder: RowCoder,
    batches: Iterable[tuple[pa.RecordBatch, FloatArray | None]],
    each: Callable[[pa.RecordBatch, NDArray[np.int64]], None] | None = None,
) -> CrossProducts:
    """Sum products of all design columns by SEN status and school.

    Parameters
    ----------
    coder : RowCoder
    batches : iterable of (pyarrow.RecordBatch, array or None)
        Columns ``coder.wanted`` and ``sen_level``; how many records each row counts for, None for one each.
    each : callable, optional
        Called with every batch and the group of each of its rows.

    Returns
    -------
    CrossProducts
        Groups are ``level * schools + school``.

    Raises
    ------
    InputError
        There is no batch.
    """
    columns = (INTERCEPT, NEED, EHCP, *coder.columns[1:])
    schools = len(coder.schools)
    total: CrossProducts | None = None
    center: FloatArray | None = None
    for batch, frequencies in batches:
        level = np.asarray(batch.column("sen_level").to_numpy(zero_copy_only=False), dtype=np.int64)
        rows = np.insert(coder.rows(batch), [1, 1], np.column_stack([level > 0, level == 2]), axis=1)
        codes = level * schools + coder.school_codes(batch)
        if center is None:
            center = rows.mean(axis=0)
            center[[columns.index(name) for name in (INTERCEPT, NEED, EHCP, PRIOR_SLOPE)]] = 0.0
        part = cross_products(rows, codes, 3 * schools, columns, center=center, frequencies=frequencies)
        total = part if total is None else total + part
        if each is not None:
            each(batch, codes)
    if total is None:
        raise InputError("no pupil has a complete record", "send-va check lists what is missing, column by column.")
    return total


def by_status(total: CrossProducts, context: ContextColumns) -> tuple[CrossProducts, ...]:
    """Part the sums of :func:`status_sums` by status (none, support, EHCP) and add the school means of `context`."""
    n = total.n_groups // 3
    strata = tuple(
        replace(total, products=total.products[k * n : (k + 1) * n], counts=total.counts[k * n : (k + 1) * n])
        for k in range(3)
    )
    return with_school_means(strata, context)


def _require_complete_errors(cohort: Cohort, profile: CohortProfile) -> None:
    for name in cohort.roles.prior_sem:
        missing = profile.n_complete - profile.prior_sem[name].n
        if missing:
            raise InputError(
                Failure(
                    rule="has missing values, and every record that enters needs a standard error of measurement",
                    column=name,
                    count=missing,
                    remedy="Fill it in from the test's table of conditional standard errors, or leave prior_sem out.",
                )
            )


@dataclass(frozen=True)
class _ErrorSums:
    """Sums of squared standard errors of measurement by status and school, one array a prior score."""

    columns: dict[str, str]
    sums: dict[str, FloatArray]

    @classmethod
    def zero(cls, cohort: Cohort, groups: int) -> _ErrorSums:
        columns = dict(zip(cohort.roles.prior, cohort.roles.prior_sem, strict=bool(cohort.roles.prior_sem)))
        return cls(columns, {score: np.zeros(groups) for score in columns})

    def add(self, batch: pa.RecordBatch, codes: NDArray[np.int64]) -> None:
        for score, column in self.columns.items():
            sem = np.asarray(batch.column(column).to_numpy(zero_copy_only=False), dtype=np.float64)
            self.sums[score] += error_sums(sem, codes, len(self.sums[score]))

    def by_status(self) -> tuple[dict[str, FloatArray], ...]:
        if not self.columns:
            return ()
        split = {score: sums.reshape(3, -1) for score, sums in self.sums.items()}
        return tuple({score: sums[k] for score, sums in split.items()} for k in range(3))


def _assembled(
    total: CrossProducts, coder: RowCoder, profile: CohortProfile, context: ContextColumns, done: int
) -> LabelledProducts:
    n = len(profile.schools.schools)
    counts = total.counts.reshape(3, n).T.astype(np.int64)
    pupils = counts.sum(axis=0)
    if pupils[0] == 0 or pupils[1:].sum() == 0:
        which = "without need" if pupils[0] == 0 else "with need"
        raise InputError(
            f"no pupil {which} has a complete record: there is nothing to compare",
            "Check [sen] in the study file against the codes in the file (send-va check).",
        )
    return LabelledProducts(
        strata=by_status(total, context),
        schools=tuple(profile.schools.schools),
        context=context,
        need_columns=(NEED, EHCP) if pupils[1] and pupils[2] else (NEED,),
        counts=counts,
        flags=profile.schools.flags,
        n_left_out=int(profile.n_rows) - done,
        prior_reference=coder.prior_reference,
        prior_sd=coder.prior_sd,
        outcome_sd=float(profile.outcome.sd),
    )


def with_school_means(strata: tuple[CrossProducts, ...], context: ContextColumns) -> tuple[CrossProducts, ...]:
    """Add columns of school means, which need no second pass: they are sums within schools divided by counts."""
    if not context.composition:
        return strata
    sums = sum(part.products for part in strata)
    counts = sum(part.counts for part in strata)
    one = strata[0].columns.index(INTERCEPT)
    at = strata[0].index(context.composition)
    means = np.asarray(sums)[:, one, at] / np.maximum(counts, 1.0)[:, None] + strata[0].center[at]
    means = np.where(np.asarray(counts)[:, None] > 0, means, strata[0].center[at])
    names = [mean_name(name) for name in context.composition]
    return tuple(part.with_group_constants(names, means, INTERCEPT) for part in strata)
