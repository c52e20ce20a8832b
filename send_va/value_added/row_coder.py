"""From a batch of pupil records to rows of the design, with knots and levels frozen in the first pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from send_va.multilevel.crossproducts import FloatArray
from send_va.records.design_columns import INTERCEPT, OUTCOME, ContextColumns, numbers

if TYPE_CHECKING:
    from send_va.records.profile import CohortProfile
    from send_va.records.reader import Cohort

NEED, EHCP, SEVERITY, PRIOR_SLOPE = "need", "ehcp", "severity", "prior_slope"
SEVERITY_SQUARED = "severity_squared"


@dataclass(frozen=True)
class RowCoder:
    """Codes everything of a pupil but need: intercept, prior attainment, background, school slope, outcome.

    Attributes
    ----------
    columns : tuple of str
        Names of the m design columns; the first is the intercept, the last the outcome.
    wanted : list of str
        Columns of the records that a batch must hold.
    school, outcome : str
    context : ContextColumns
    schools : pyarrow.Array
        School identifiers in the order of their codes.
    prior_reference, prior_sd : float
        The slope column is ``(first score - prior_reference) / prior_sd``.
    """

    columns: tuple[str, ...]
    wanted: list[str]
    school: str
    outcome: str
    context: ContextColumns
    schools: pa.Array
    prior_reference: float
    prior_sd: float

    @classmethod
    def of(cls, cohort: Cohort, profile: CohortProfile, context: ContextColumns, prior_reference: float) -> RowCoder:
        """Lay out the columns; `prior_reference` is in units of the first prior score."""
        extra = tuple(
            name for name in context.prior_columns if name in context.composition and name not in context.prior_names
        )
        return cls(
            columns=(INTERCEPT, *context.prior_names, *extra, *context.background_names, PRIOR_SLOPE, OUTCOME),
            wanted=[cohort.roles.school, cohort.roles.outcome, *context.prior_columns, *context.background_columns],
            school=cohort.roles.school,
            outcome=cohort.roles.outcome,
            context=context,
            schools=pa.array(profile.schools.schools, pa.string()),
            prior_reference=prior_reference,
            prior_sd=profile.priors[cohort.roles.prior[0]].sd,
        )

    def rows(self, batch: pa.RecordBatch) -> FloatArray:
        """Design rows of a batch, shape (n, m)."""
        context = self.context
        first = numbers(batch, context.prior_columns[0])
        linear = [name for name in context.prior_columns if name in self.columns and name not in context.prior_names]
        parts: list[FloatArray] = [np.ones((len(first), 1)), *context.prior_of(batch)]
        parts += [numbers(batch, name)[:, None] for name in linear]
        parts += context.background_of(batch)
        parts += [((first - self.prior_reference) / self.prior_sd)[:, None], numbers(batch, self.outcome)[:, None]]
        return np.hstack(parts)

    def school_codes(self, batch: pa.RecordBatch) -> NDArray[np.int64]:
        """Position of each pupil's school among `schools`, shape (n,)."""
        at = pc.index_in(batch.column(self.school), value_set=self.schools)
        return np.asarray(at.to_numpy(zero_copy_only=False), dtype=np.int64)
