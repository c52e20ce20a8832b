"""From a batch of pupil records to rows of the design, with knots and levels frozen in the first pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from send_va.multilevel.crossproducts import FloatArray
from send_va.records.design_columns import INTERCEPT, OUTCOME, ContextColumns

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
    levels : dict of str to pyarrow.Array
    prior_reference, prior_sd : float
        The slope column is ``(first score - prior_reference) / prior_sd``.
    """

    columns: tuple[str, ...]
    wanted: list[str]
    school: str
    outcome: str
    context: ContextColumns
    schools: pa.Array
    levels: dict[str, pa.Array]
    prior_reference: float
    prior_sd: float

    @classmethod
    def of(cls, cohort: Cohort, profile: CohortProfile, context: ContextColumns, prior_reference: float) -> RowCoder:
        """Lay out the columns; `prior_reference` is in units of the first prior score."""
        scores = tuple(spline.column for spline in context.splines)
        extra = tuple(name for name in scores if name in context.composition and name not in context.prior_names)
        background = (*context.numeric, *(category.column for category in context.categories))
        return cls(
            columns=(INTERCEPT, *context.prior_names, *extra, *context.background_names, PRIOR_SLOPE, OUTCOME),
            wanted=[cohort.roles.school, cohort.roles.outcome, *scores, *background],
            school=cohort.roles.school,
            outcome=cohort.roles.outcome,
            context=context,
            schools=pa.array(profile.schools.schools, pa.string()),
            levels={category.column: pa.array(category.levels, pa.string()) for category in context.categories},
            prior_reference=prior_reference,
            prior_sd=profile.priors[cohort.roles.prior[0]].sd,
        )

    def rows(self, batch: pa.RecordBatch) -> FloatArray:
        """Design rows of a batch, shape (n, m)."""

        def numbers(name: str) -> FloatArray:
            return np.asarray(batch.column(name).to_numpy(zero_copy_only=False), dtype=np.float64)

        scores = {spline.column: numbers(spline.column) for spline in self.context.splines}
        first = scores[self.context.splines[0].column]
        parts: list[FloatArray] = [np.ones((len(first), 1))]
        parts += [spline.columns(scores[spline.column]) for spline in self.context.splines]
        parts += [
            scores[name][:, None] for name in scores if name in self.columns and name not in self.context.prior_names
        ]
        parts += [numbers(name)[:, None] for name in self.context.numeric]
        for category in self.context.categories:
            at = pc.index_in(batch.column(category.column), value_set=self.levels[category.column])
            parts.append(category.columns(at.to_numpy(zero_copy_only=False)))
        parts += [((first - self.prior_reference) / self.prior_sd)[:, None], numbers(self.outcome)[:, None]]
        return np.hstack(parts)

    def school_codes(self, batch: pa.RecordBatch) -> NDArray[np.int64]:
        """Position of each pupil's school among `schools`, shape (n,)."""
        at = pc.index_in(batch.column(self.school), value_set=self.schools)
        return np.asarray(at.to_numpy(zero_copy_only=False), dtype=np.int64)
