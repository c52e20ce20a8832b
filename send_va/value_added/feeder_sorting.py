"""How much of feeders' leniency is need: what outcomes of pupils of one school say about extra labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from send_va.errors import NotSupportedError
from send_va.multilevel.crossproducts import FloatArray, IntArray
from send_va.multilevel.threads import one_blas_thread
from send_va.records.design_columns import INTERCEPT, OUTCOME, Context

if TYPE_CHECKING:
    from send_va.identification.need import Need
    from send_va.value_added.pupil_design import PupilDesign

_TRIED = (0.0, 0.5, 1.0)
_LEAST_SD = 0.05  # of the leniency of feeders, in SDs of unexplained need
_NORMAL_95 = 1.959963984540054


@dataclass(frozen=True)
class FeederSorting:
    """Share of feeders' leniency that outcomes within schools reveal as need.

    Attributes
    ----------
    share : float
        Between 0 (extra labels of a feeder say nothing more about outcomes: leniency) and 1 (they are need).
    lower, upper : float
        95 % interval, from the error of the coefficient; cut to 0 and 1.
    coefficient, coefficient_se : float
        Of a feeder's leniency in the outcome equation when none of it counts as need; outcome units per SD of
        unexplained need, clustered by feeder. Assumed to be zero if it is all leniency.
    """

    share: float
    lower: float
    upper: float
    coefficient: float
    coefficient_se: float

    def __str__(self) -> str:
        return (
            f"share of feeders' leniency that is need of their pupils: {self.share:.2f} "
            f"({self.lower:.2f} to {self.upper:.2f}); coefficient of leniency in the outcome "
            f"{self.coefficient:+.3f} (SE {self.coefficient_se:.3f})"
        )


def feeders_differ(need: Need) -> bool:
    """Whether labels before transfer are recorded, and estimated leniencies of feeders differ (by an SD above .05)."""
    if not need.has_entry or not len(need.parameters.feeder):
        return False
    return bool(need.parameters.feeder[:, 0].std() > _LEAST_SD)


@one_blas_thread
def estimate_feeder_sorting(need: Need, design: PupilDesign, context: Context = "cva") -> FeederSorting:
    """Estimate the share of feeders' leniency that is need, within schools.

    If a feeder's extra labels are leniency, they say nothing about later outcomes of pupils of the same school beyond
    what need says; if they are need, its pupils do worse than their adjusted need suggests. The share is where the
    coefficient of leniency in the outcome equation, with school fixed effects, is zero. A feeder's leniency is assumed
    to be otherwise unrelated to later progress.

    Parameters
    ----------
    need : Need
        With labels before transfer and feeders.
    design : PupilDesign
        Of the same records.
    context : str
        What is held constant.

    Returns
    -------
    FeederSorting

    Raises
    ------
    NotSupportedError
        No labels before transfer, no feeders, or feeders that do not differ.
    """
    if not feeders_differ(need):
        raise NotSupportedError(
            "the sorting share of feeders needs labels before transfer, and feeders that differ in leniency."
        )
    labels = need.labels
    own = np.where(labels.feeder >= 0, need.parameters.feeder[labels.feeder, 0], 0.0)
    inside = (labels.component[labels.school] == 0) & (labels.feeder >= 0)
    place = design.order[inside[design.order]]  # places of complete pupils, in order of the design rows kept
    rows = design.rows[inside[design.order]]
    school, feeder = labels.school[place], labels.feeder[place]
    held = [k for k, name in enumerate(design.columns) if name in design.context.fixed(context) and name != INTERCEPT]
    outcome = rows[:, design.columns.index(OUTCOME)]
    found = []
    for share in _TRIED:
        pi, severity = need.under(feeder_sorting_share=share).scores("entry").plug_in()
        assert severity is not None  # entry always has one
        columns = np.column_stack([own[place], pi[place], severity[place], rows[:, held]])
        found.append(_within(columns, outcome, school, feeder))
    return _zero(np.array(found))


def _within(columns: FloatArray, outcome: FloatArray, school: IntArray, feeder: IntArray) -> tuple[float, float]:
    """Coefficient of the first column and its standard error, school effects fixed, clustered by feeder."""
    x, y = _demeaned(columns, school), _demeaned(outcome[:, None], school)[:, 0]
    inverse = np.linalg.pinv(x.T @ x)
    beta = inverse @ (x.T @ y)
    residual = y - x @ beta
    influence = (x @ inverse[:, 0]) * residual
    by_feeder = np.bincount(feeder, weights=influence)
    return float(beta[0]), float(np.sqrt((by_feeder**2).sum()))


def _demeaned(values: FloatArray, codes: IntArray) -> FloatArray:
    n = np.maximum(np.bincount(codes), 1)
    out = values.copy()
    for k in range(values.shape[1]):
        out[:, k] -= (np.bincount(codes, weights=values[:, k]) / n)[codes]
    return out


def _zero(found: FloatArray) -> FeederSorting:
    """Where the line (a parabola through three points, nearly straight) crosses zero."""
    coefficient, se = found[:, 0], found[:, 1]
    slope = coefficient[-1] - coefficient[0]
    bend = np.polyfit(_TRIED, coefficient, 2)
    roots = np.roots(bend)
    line = -coefficient[0] / slope if slope != 0 else 0.0
    near = [float(root.real) for root in roots if abs(root.imag) < 1e-9 and abs(root.real - line) < 0.5]
    share = min(near, key=lambda root: abs(root - line)) if near else float(line)
    reach = _NORMAL_95 * se[0] / abs(slope) if slope != 0 else np.inf
    low, value, high = (float(np.clip(v, 0.0, 1.0)) for v in (share - reach, share, share + reach))
    return FeederSorting(value, low, high, float(coefficient[0]), float(se[0]))
