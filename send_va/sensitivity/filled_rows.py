"""The rows of a design that change from one completed data set to the next: few, so nothing else is read again."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from send_va.errors import InputError
from send_va.identification.labels import LabelRecords
from send_va.multilevel.crossproducts import FloatArray, cross_products
from send_va.records.design_columns import ContextColumns, mean_name
from send_va.records.profile import CohortProfile
from send_va.records.reader import Cohort
from send_va.sensitivity.incomplete_records import IncompleteRecords
from send_va.value_added.design import LabelledProducts, with_school_means
from send_va.value_added.pupil_design import PupilDesign
from send_va.value_added.row_coder import RowCoder


@dataclass(frozen=True, eq=False)
class FilledRows:
    """Codes records that were filled in, and puts them where the design of all records has them.

    Attributes
    ----------
    coder, need_coder : RowCoder
        Rows of the labelled estimator and of those that use need, which state slopes at another score.
    context : ContextColumns
    codes : tuple of str
        Columns that are codes rather than numbers.
    at : integer array, shape (k,)
        Rows of the frame that are filled in.
    place : integer array, shape (k,)
        Their places among pupils with a completed record.
    level : integer array, shape (k,)
        SEN level now.
    """

    coder: RowCoder
    need_coder: RowCoder
    context: ContextColumns
    codes: tuple[str, ...]
    at: NDArray[np.intp]
    place: NDArray[np.intp]
    level: NDArray[np.int64]

    @classmethod
    def of(
        cls, records: IncompleteRecords, cohort: Cohort, profile: CohortProfile, context: ContextColumns
    ) -> FilledRows:
        """Lay out the rows; `cohort` and `profile` are of completed records."""
        prior = profile.priors[records.roles.prior[0]]
        at = np.flatnonzero(records.to_fill)
        return cls(
            RowCoder.of(cohort, profile, context, prior.mean_need),
            RowCoder.of(cohort, profile, context, prior.mean),
            context,
            (records.roles.school, *records.roles.categorical),
            at,
            np.searchsorted(np.flatnonzero(records.usable), at),
            records.level[at],
        )

    def batch(self, frame: pd.DataFrame) -> pa.RecordBatch:
        """Those rows of a completed data set."""
        rows = frame.iloc[self.at]
        return pa.RecordBatch.from_arrays(
            [
                pa.array(rows[name].astype(object), pa.string())
                if name in self.codes
                else pa.array(rows[name].to_numpy(dtype=np.float64))
                for name in self.coder.wanted
            ],
            names=self.coder.wanted,
        )

    def added(self, products: LabelledProducts, batch: pa.RecordBatch) -> LabelledProducts:
        """Cross-products of complete records with those of the rows added."""
        means = {mean_name(name) for name in self.context.composition}
        columns = tuple(name for name in products.strata[0].columns if name not in means)
        kept = [part.select(columns) for part in products.strata]
        rows = np.insert(
            self.coder.rows(batch),
            [1, 1],
            np.column_stack([self.level > 0, self.level == 2]).astype(np.float64),
            axis=1,
        )
        school, n = self.coder.school_codes(batch), len(products.schools)
        parts = []
        for k, part in enumerate(kept):
            of = self.level == k
            parts.append(part + cross_products(rows[of], school[of], n, columns, center=part.center))
        strata = with_school_means(tuple(parts), self.context)
        counts = np.column_stack([part.counts for part in strata]).astype(np.int64)
        left_out = products.n_left_out - len(self.at)
        return replace(products, strata=strata, counts=counts, n_left_out=left_out)

    def design(self, design: PupilDesign, batch: pa.RecordBatch) -> PupilDesign:
        """Pupil rows with these in the place of what was filled in before."""
        position = np.empty(len(design.order), dtype=np.intp)
        position[design.order] = np.arange(len(design.order))
        at = position[self.place]
        rows = design.rows.copy()
        rows[at] = self.need_coder.rows(batch) - design.center
        columns = [design.columns.index(name) for name in self.context.composition]
        school = self.need_coder.school_codes(batch)
        moved = (rows[at] - design.rows[at])[:, columns]
        sums = [np.bincount(school, weights=column, minlength=len(design.schools)) for column in moved.T]
        change = np.reshape(sums, (len(columns), len(design.schools))).T
        means = design.means + change / np.maximum(design.n_pupils, 1)[:, None]
        return replace(design, rows=rows, means=means)

    def labels(self, labels: LabelRecords, batch: pa.RecordBatch) -> LabelRecords:
        """Labels with the predictors of these rows, on the scale of `labels`, which its coefficients are on."""
        names = (*self.context.prior_names, *self.context.background_names)
        raw = np.hstack([*self.context.prior_of(batch), *self.context.background_of(batch)])
        kept = [names.index(name) for name in labels.x_names]
        if len(labels.x) <= int(self.place.max()):
            raise InputError("labels are of other pupils than the completed records")
        x: FloatArray = labels.x.copy()
        x[self.place] = (raw[:, kept] - labels.x_mean) / labels.x_sd
        return replace(labels, x=x)
