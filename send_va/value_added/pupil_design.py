"""All pupils' design rows in memory, by school: read once, for every estimator that knows need by its probability."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from send_va.errors import InputError
from send_va.multilevel.crossproducts import FloatArray
from send_va.multilevel.threads import one_blas_thread
from send_va.records.design_columns import INTERCEPT, ContextColumns, mean_name
from send_va.value_added.row_coder import PRIOR_SLOPE, RowCoder

if TYPE_CHECKING:
    from send_va.records.profile import CohortProfile
    from send_va.records.reader import Cohort


@dataclass(frozen=True, eq=False)
class PupilDesign:
    """Everything of every complete pupil but need and labels. Nothing in it depends on what the rated school set.

    Attributes
    ----------
    columns : tuple of str, length m
        Design columns of all contexts but school means; the first is the intercept, the last the outcome.
    rows : array, shape (n, m)
        Sorted by school; `center` has been subtracted.
    center : array, shape (m,)
        Zero for the intercept and the column of the school slope.
    starts : integer array, shape (schools + 1,)
        Pupils of school j are ``rows[starts[j]:starts[j + 1]]``.
    order : integer array, shape (n,)
        For each row, its place among complete pupils in ascending row number: ``scores[order]`` are in order of `rows`.
    schools : tuple of str
    context : ContextColumns
    means : array, shape (schools, k)
        School means of the columns of the composition context; the national mean where a school has no pupil.
    n_left_out : int
        Records left out because a value is missing.
    prior_mean, prior_sd : float
        Of the first prior score: the slope column is ``(score - prior_mean) / prior_sd``.
    outcome_sd : float
        Pupil SD of the outcome, in its units.
    n_scored : int
        Complete pupils of the records, those of schools left out included: scores are given for all of them.
    left_out : tuple of int
        Places of schools left out because they cannot be compared.
    frequencies : array, shape (n,), optional
        How many records each row counts for, above 0; one each where None.
    """

    columns: tuple[str, ...]
    rows: FloatArray
    center: FloatArray
    starts: NDArray[np.int64]
    order: NDArray[np.int64]
    schools: tuple[str, ...]
    context: ContextColumns
    means: FloatArray
    n_left_out: int
    prior_mean: float
    prior_sd: float
    outcome_sd: float
    n_scored: int
    left_out: tuple[int, ...] = ()
    frequencies: FloatArray | None = None

    def without_schools(self, left_out: NDArray[np.integer]) -> PupilDesign:
        """The same without the pupils of some schools (places in `schools`), which keep their names and no pupil."""
        if not len(left_out):
            return self
        keep = ~np.isin(self.codes, left_out)
        sizes = self.n_pupils.copy()
        sizes[left_out] = 0
        starts = np.concatenate([[0], np.cumsum(sizes)])
        places = tuple(int(place) for place in left_out)
        frequencies = None if self.frequencies is None else self.frequencies[keep]
        return replace(
            self,
            rows=self.rows[keep],
            order=self.order[keep],
            starts=starts,
            left_out=places,
            frequencies=frequencies,
        )

    def ordered(self, scores: tuple[FloatArray, FloatArray | None]) -> tuple[FloatArray, FloatArray | None]:
        """Scores of all complete pupils, in order of `rows`; ones of another number are handed back as they are."""
        pi, severity = scores
        if len(pi) != self.n_scored or (severity is not None and len(severity) != self.n_scored):
            return scores
        return pi[self.order], None if severity is None else severity[self.order]

    @property
    def n_pupils(self) -> NDArray[np.int64]:
        """Complete pupils of each school, shape (schools,)."""
        return np.diff(self.starts)

    @property
    def codes(self) -> NDArray[np.int64]:
        """School of each row, shape (n,)."""
        return np.repeat(np.arange(len(self.schools)), self.n_pupils)

    @property
    def mean_names(self) -> tuple[str, ...]:
        """Names of the columns of `means`."""
        return tuple(mean_name(name) for name in self.context.composition)

    def by_school(self, values: FloatArray) -> FloatArray:
        """Sums of `values` (n,), in order of `rows`, over the pupils of each school."""
        return np.bincount(self.codes, weights=values, minlength=len(self.schools))

    def prior_at(self, weights: FloatArray) -> float:
        """Mean of the first prior score with `weights` (n,), in order of `rows`; in its own unit."""
        slope = self.rows[:, self.columns.index(PRIOR_SLOPE)]
        return float(self.prior_mean + self.prior_sd * (slope @ weights) / weights.sum())


@one_blas_thread
def pupil_design(
    cohort: Cohort,
    profile: CohortProfile,
    context: ContextColumns,
    progress: Callable[[int], None] | None = None,
) -> PupilDesign:
    """Read all complete pupils once into memory.

    A number takes eight bytes: 593,000 pupils with 23 columns are 110 MB, and twice that while they are sorted.

    Parameters
    ----------
    cohort, profile, context
        The records, their first pass and the frozen columns of all contexts.
    progress : callable, optional
        Called with the number of records done after every batch.

    Returns
    -------
    PupilDesign

    Raises
    ------
    InputError
        No pupil has a complete record.

    Examples
    --------
    >>> from send_va.records.reader import Cohort
    >>> from send_va.records.simulator import simulate
    >>> from send_va.value_added.design import context_columns
    >>> roles = {"pupil": "pupil", "school": "school", "outcome": "outcome", "prior": ["prior"],
    ...          "sen_status": "sen_status", "context": ["fsm6"]}
    >>> world = simulate(np.random.default_rng(1), schools=12, pupils_per_school=20)
    >>> cohort = Cohort.from_pandas(world.pupils, roles)
    >>> profile = cohort.profile(0)
    >>> design = pupil_design(cohort, profile, context_columns(cohort, profile))
    >>> design.columns, len(design.schools), int(design.n_pupils.sum()) == cohort.n_rows
    (('Intercept', 'prior', 'fsm6', 'prior_slope', 'outcome'), 12, True)
    """
    prior = profile.priors[cohort.roles.prior[0]]
    coder = RowCoder.of(cohort, profile, context, prior.mean)
    rows = np.empty((profile.n_complete, len(coder.columns)))
    codes = np.empty(profile.n_complete, dtype=np.int64)
    done = 0
    for batch in cohort.batches(coder.wanted):
        run = slice(done, done + batch.num_rows)
        rows[run], codes[run] = coder.rows(batch), coder.school_codes(batch)
        done += batch.num_rows
        if progress is not None:
            progress(done)
    if done == 0:
        raise InputError("no pupil has a complete record", "send-va check lists what is missing, column by column.")
    order = np.argsort(codes, kind="stable")
    center = rows.mean(axis=0)
    center[[coder.columns.index(name) for name in (INTERCEPT, PRIOR_SLOPE)]] = 0.0
    rows = rows[order]
    rows -= center
    starts = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=len(profile.schools.schools)))])
    at = [coder.columns.index(name) for name in context.composition]
    return PupilDesign(
        columns=coder.columns,
        rows=rows,
        center=center,
        starts=starts,
        order=order,
        schools=tuple(profile.schools.schools),
        context=context,
        means=school_means(rows[:, at], starts) + center[at],
        n_left_out=int(profile.n_rows) - done,
        prior_mean=prior.mean,
        prior_sd=prior.sd,
        outcome_sd=float(profile.outcome.sd),
        n_scored=done,
    )


def school_means(columns: FloatArray, starts: NDArray[np.int64], frequencies: FloatArray | None = None) -> FloatArray:
    """Means of centred columns (n, k) over the pupils of each school, zero for a school without pupils.

    Parameters
    ----------
    columns : array, shape (n, k)
        Sorted by school.
    starts : integer array, shape (schools + 1,)
    frequencies : array, shape (n,), optional
        How many pupils each row counts for.

    Returns
    -------
    array, shape (schools, k)
    """
    sizes = np.diff(starts)
    codes = np.repeat(np.arange(len(sizes)), sizes)
    times = np.ones(len(codes)) if frequencies is None else frequencies
    pupils = np.bincount(codes, weights=times, minlength=len(sizes))
    sums = [np.bincount(codes, weights=column * times, minlength=len(sizes)) for column in columns.T]
    return np.asarray(np.reshape(sums, (len(sums), len(sizes))).T / np.where(pupils > 0.0, pupils, 1.0)[:, None])
