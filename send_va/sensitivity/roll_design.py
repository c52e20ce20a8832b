"""Pupils counted at every school on whose roll they were, by the terms they were on it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from send_va.multilevel.crossproducts import CrossProducts, FloatArray
from send_va.records.design_columns import ContextColumns
from send_va.records.fields import TERMS
from send_va.records.profile import CohortProfile
from send_va.records.reader import Cohort
from send_va.records.roll import HOME_ROW, batches_by_roll, count_earlier, earlier_rows, roll_shares
from send_va.value_added.design import by_status, status_sums
from send_va.value_added.pupil_design import PupilDesign, school_means
from send_va.value_added.row_coder import RowCoder


@dataclass(frozen=True, eq=False)
class RollTerms:
    """Who was on which roll for how long, of complete pupils.

    Attributes
    ----------
    school : integer array, shape (n,)
        School at the end of the key stage, of pupils in ascending row number.
    share : array, shape (n,)
        Share of the 15 terms on its roll.
    earlier_pupil, earlier_school : integer array, shape (k,)
        Place of the pupil among the n, and the school attended before.
    earlier_share : array, shape (k,)
    schools : int
        Number of schools.
    unused : int
        Rows of schools attended before that stand for nobody: no complete row at the end, or nobody counted at that
        school.
    """

    school: NDArray[np.int64]
    share: FloatArray
    earlier_pupil: NDArray[np.int64]
    earlier_school: NDArray[np.int64]
    earlier_share: FloatArray
    schools: int
    unused: int

    @property
    def mean_terms(self) -> FloatArray:
        """Mean terms on its roll of the pupils each school is counted by, shape (schools,); missing where none are."""
        sums, pupils = self._at_end(self.share), self._at_end(np.ones(len(self.share)))
        return np.asarray(TERMS * np.where(pupils > 0.0, sums, np.nan) / np.where(pupils > 0.0, pupils, 1.0))

    @property
    def share_left(self) -> FloatArray:
        """Share of each school's pupil-terms that belong to pupils who are counted elsewhere at the end, (schools,)."""
        left = np.bincount(self.earlier_school, weights=self.earlier_share, minlength=self.schools)
        total = self._at_end(self.share) + left
        return np.asarray(np.where(total > 0.0, left, np.nan) / np.where(total > 0.0, total, 1.0))

    def _at_end(self, weights: FloatArray) -> FloatArray:
        return np.bincount(self.school, weights=weights, minlength=self.schools)


def read_roll(cohort: Cohort, profile: CohortProfile) -> RollTerms:
    """Read the time on rolls of all complete pupils.

    Parameters
    ----------
    cohort : Cohort
        With the role `terms_on_roll`.
    profile : CohortProfile
        Of the same cohort.

    Returns
    -------
    RollTerms

    Raises
    ------
    InputError
        No role `terms_on_roll`, or terms that are not above 0 and at most 15.
    """
    before = earlier_rows(cohort)  # refuses records without terms
    terms, known = str(cohort.roles.terms_on_roll), pa.array(profile.schools.schools, pa.string())
    batches = list(cohort.batches(["row_number", cohort.roles.school, terms]))
    row_number = np.concatenate([_integers(batch.column("row_number")) for batch in batches])
    return RollTerms(
        school=np.concatenate([_integers(pc.index_in(batch.column(cohort.roles.school), known)) for batch in batches]),
        share=np.concatenate([roll_shares(batch, terms) for batch in batches]),
        earlier_pupil=np.searchsorted(row_number, _integers(before.column(HOME_ROW))),
        earlier_school=_integers(pc.index_in(before.column(cohort.roles.school), known)),
        earlier_share=roll_shares(before, terms, earlier=True),
        schools=len(known),
        unused=count_earlier(cohort) - before.num_rows,
    )


def _integers(column: pa.Array) -> NDArray[np.int64]:
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.int64)


def design_by_roll(design: PupilDesign, roll: RollTerms) -> PupilDesign:
    """Count every pupil at each school attended by the share of terms on its roll.

    Parameters
    ----------
    design : PupilDesign
        Of all complete pupils, no school left out.
    roll : RollTerms
        Of the same records.

    Returns
    -------
    PupilDesign
        The rows of `design` and, for each school attended before, a copy of the pupil's own row; ``frequencies`` are
        the shares, and school means are weighted by them. Scores of need are the pupil's in every row.
    """
    place = np.empty(len(design.rows), dtype=np.int64)
    place[design.order] = np.arange(len(design.rows))
    codes = np.concatenate([design.codes, roll.earlier_school])
    taken = np.concatenate([np.arange(len(design.rows)), place[roll.earlier_pupil]])
    share = np.concatenate([roll.share[design.order], roll.earlier_share])
    by_school = np.argsort(codes, kind="stable")
    taken, share = taken[by_school], share[by_school]
    starts = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=len(design.schools)))])
    rows = design.rows[taken]
    at = [design.columns.index(name) for name in design.context.composition]
    return replace(
        design,
        rows=rows,
        starts=starts,
        order=design.order[taken],
        means=school_means(rows[:, at], starts, share) + design.center[at],
        frequencies=share,
    )


def strata_by_roll(cohort: Cohort, profile: CohortProfile, context: ContextColumns) -> tuple[CrossProducts, ...]:
    """Cross-products by SEN status and school, every pupil counted at each school by the share of terms on its roll.

    Parameters
    ----------
    cohort, profile, context
        As in :func:`send_va.value_added.design.labelled_products`, whose ``strata`` these are in place of.

    Returns
    -------
    tuple of CrossProducts
        By SEN status (none, support, EHCP), which is the one recorded at the end of the key stage.
    """
    coder = RowCoder.of(cohort, profile, context, profile.priors[cohort.roles.prior[0]].mean_need)
    return by_status(status_sums(coder, batches_by_roll(cohort, [*coder.wanted, "sen_level"])), context)
