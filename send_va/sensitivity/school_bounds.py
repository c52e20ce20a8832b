"""Bounds of a school's SEND value-added where it labels, or keeps, more pupils than others would."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from send_va.errors import InputError
from send_va.identification.need import Need
from send_va.identification.tables import NOT_CONNECTED, national_standard
from send_va.records.design_columns import Context
from send_va.records.reader import Cohort
from send_va.sensitivity.bounds import imbens_manski
from send_va.sensitivity.held_estimators import HeldLabelled
from send_va.sensitivity.quintiles import Quintiles, answers, whole

Floats = NDArray[np.float64]
FEWER_LABELLED = (
    "labels no more pupils than one national threshold would: whom it leaves out is not among its labelled pupils, so "
    "trimming says nothing of them"
)
FEWER_KEPT = (
    "keeps the outcome of no more pupils with SEND than schools do on average: those it lost are not in its records, "
    "so trimming says nothing of them"
)
NO_ESTIMATE = "no unshrunken estimate: no pupil with a label"
TOO_FEW = "less than one labelled pupil would be left after trimming"
NOT_KNOWN = "how many pupils the national standard would label is not known"
_NORMAL_95 = 1.959963984540054
_LEAST_LEFT = 1.0  # pupils that trimming must leave


@dataclass(frozen=True)
class SchoolBounds:
    """Trimming bounds of SEND value-added by school.

    Attributes
    ----------
    table : DataFrame
        One row a school: school; estimate (theta under `labelled`, unshrunken, outcome units) and se; lower, upper
        with lower_se, upper_se (the error of the share trimmed included); interval_lower, interval_upper (95 %, for
        theta itself); share (of pupils labelled, or kept), standard (what it would be elsewhere), share_trimmed (of
        its labelled pupils); n_labelled; quintile (of the shrunken theta), quintile_lower, quintile_upper (the same if
        the school had the bound in place of its estimate); sign_known (both bounds on one side of zero) and
        sign_known_95 (the interval); applicable, reason. Missing where it does not apply.
    kind : str
        ``labels`` or ``attrition``.
    unit : str
    """

    table: pd.DataFrame
    kind: str
    unit: str = "outcome units"

    def __str__(self) -> str:
        on = self.table[self.table["applicable"]]
        who = {
            "labels": "label more pupils than one national threshold would",
            "attrition": "keep the outcome of more of their pupils with SEND than schools do on average",
        }
        if not len(on):
            return f"No school of {len(self.table):,} can be bounded: none is known to {who[self.kind]}."
        width, sign = (on["upper"] - on["lower"]).median(), on["sign_known"].mean()
        same = (on["quintile_lower"] == on["quintile_upper"]).mean()
        return (
            f"{len(on):,} of {len(self.table):,} schools {who[self.kind]}. Trimming these from the top or the bottom "
            f"leaves bounds {width:.3g} {self.unit} apart at the middle school; at {100 * sign:.0f} % of them the sign "
            f"is the same at both, and at {100 * same:.0f} % the quintile."
        )

    def _repr_html_(self) -> str:
        return f"<p>{self}</p>{self.table.to_html(index=False)}"


def label_bounds(
    held: HeldLabelled, need: Need, context: Context = "cva", *, standard: pd.DataFrame | None = None
) -> SchoolBounds:
    """Bound SEND value-added for pupils who would be labelled anywhere, where a school labels more than that.

    Under monotonicity (a pupil labelled at the national threshold is labelled here too) the labelled pupils of a
    generous school are those who would be labelled anywhere and some more. The excess is cut off the top and off the
    bottom of the residuals of its labelled pupils: the truth for the others lies between.

    Parameters
    ----------
    held : HeldLabelled
        ``labelled`` with its national parameters held; see :func:`send_va.sensitivity.held_estimators.hold_labelled`.
    need : Need
        Of the same records: says how many pupils one national threshold would label.
    context : str
    standard : DataFrame, optional
        From :func:`send_va.identification.tables.national_standard`, with a level ``school``.

    Returns
    -------
    SchoolBounds
        A school whose sign is known, or whose quintile is the same at both ends, does not owe it to whom it labels. No
        bound for schools that label fewer: they are marked and say why. Pupils are cut by their residuals, in heads;
        the national comparison stays what it is. The standard is need at transfer: where labels have been added
        everywhere since, they count as excess too.

    Raises
    ------
    InputError
        `held` lacks the context, or holds other schools than `need`.

    References
    ----------
    Lee (2009), doi:10.1111/j.1467-937X.2009.00536.x.
    Imbens & Manski (2004), doi:10.1111/j.1468-0262.2004.00555.x.
    """
    labels = need.recorded or need.labels
    if held.equations[context].schools != labels.schools if context in held.equations else True:
        raise InputError(
            f"the estimator holds {', '.join(held.equations)}, or other schools than the labels", "Use one cohort."
        )
    if standard is None:
        standard = national_standard(need, {"school": (need.labels.school, need.labels.schools)})
    rows = standard[standard["level"] == "school"]
    n = rows["n_pupils"].to_numpy(dtype=np.float64)
    labelled = rows["labelled_now"].to_numpy(dtype=np.float64)
    expected = rows["expected"].to_numpy(dtype=np.float64)
    error = (rows["upper"] - rows["lower"]).to_numpy(dtype=np.float64) / (2.0 * _NORMAL_95)
    with np.errstate(divide="ignore", invalid="ignore"):
        excess, excess_se = 1.0 - expected / labelled, error / labelled
        share, at_standard = labelled / n, expected / n
    reason = np.select(
        [need.labels.component > 0, ~(labelled > 0), ~np.isfinite(excess), excess <= 0.0],
        [NOT_CONNECTED, NO_ESTIMATE, NOT_KNOWN, FEWER_LABELLED],
        default="",
    )
    return _bounded(held, context, "labels", share, at_standard, excess, excess_se, reason)


def attrition_bounds(held: HeldLabelled, cohort: Cohort, context: Context = "cva") -> SchoolBounds:
    """Bound SEND value-added for pupils whose outcome would be recorded anywhere, where a school keeps more than that.

    Among pupils with SEND now, the share with an outcome is compared with that of all schools together. A school that
    keeps more has some pupils whom the average school would have lost; they are cut off either end.

    Parameters
    ----------
    held : HeldLabelled
    cohort : Cohort
        With the records of pupils whose outcome is missing.
    context : str

    Returns
    -------
    SchoolBounds
        As :func:`label_bounds`.

    Raises
    ------
    InputError
        No record of a pupil with SEND lacks an outcome, or `held` lacks the context.

    References
    ----------
    Lee (2009), doi:10.1111/j.1467-937X.2009.00536.x.
    """
    if context not in held.equations:
        raise InputError(f"the estimator holds {', '.join(held.equations)}", f"Hold {context!r} too.")
    n, kept = _kept(cohort, held.equations[context].schools)
    if kept.sum() == n.sum():
        raise InputError(
            "no record of a pupil with SEND lacks an outcome: attrition cannot be seen",
            "Give the records of pupils on roll at entry, those who left or sat nothing included.",
        )
    national = kept.sum() / n.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        share = kept / n
        excess = 1.0 - national / share
        excess_se = national / share**2 * np.sqrt(share * (1.0 - share) / n)
    reason = np.select(
        [~held.equations[context].compared, ~(kept > 0), excess <= 0.0], [NO_ESTIMATE, NO_ESTIMATE, FEWER_KEPT], ""
    )
    return _bounded(held, context, "attrition", share, np.full(len(n), national), excess, excess_se, reason)


def _kept(cohort: Cohort, schools: tuple[str, ...]) -> tuple[Floats, Floats]:
    """Pupils with SEND now, and those of them with an outcome, by school."""
    n, kept = np.zeros(len(schools)), np.zeros(len(schools))
    known = pa.array(schools, pa.string())
    for batch in cohort.batches([cohort.roles.school, cohort.roles.outcome, "sen_level"], complete=False):
        at = pc.fill_null(pc.index_in(batch.column(cohort.roles.school), value_set=known), -1).to_numpy()
        send = pc.fill_null(batch.column("sen_level"), 0).to_numpy() > 0
        there = np.asarray(batch.column(cohort.roles.outcome).is_valid())
        use = send & (at >= 0)
        n += np.bincount(at[use], minlength=len(n))
        kept += np.bincount(at[use & there], minlength=len(n))
    return n, kept


def _bounded(
    held: HeldLabelled,
    context: Context,
    kind: str,
    share: Floats,
    standard: Floats,
    excess: Floats,
    excess_se: Floats,
    reason: NDArray[np.str_],
) -> SchoolBounds:
    equation, before = held.equations[context], held.before[context]
    labelled = held.columns_before[:, 0] > 0
    n_labelled = np.bincount(equation.codes[labelled], minlength=len(equation.schools))
    left = n_labelled * (1.0 - np.nan_to_num(excess))
    estimate = before.own.estimate["theta"]
    reason = np.where((reason == "") & ~np.isfinite(estimate), NO_ESTIMATE, reason)
    reason = np.where((reason == "") & (left < _LEAST_LEFT), TOO_FEW, reason)
    applies = reason == ""
    cut = np.where(applies, excess, 0.0)
    residual = equation.left_over - held.columns_before @ equation.need_beta
    ends = {
        end: _trimmed(held, context, residual, labelled, cut, np.where(applies, excess_se, 0.0), end)
        for end in ("top", "bottom")
    }
    blank = np.where(applies, 0.0, np.nan)
    (lower, lower_se), (upper, upper_se) = (tuple(part + blank for part in ends[end]) for end in ("top", "bottom"))
    reach = np.array(
        [
            imbens_manski(u - lo, a, b) if ok else np.nan
            for lo, u, a, b, ok in zip(lower, upper, lower_se, upper_se, applies, strict=True)
        ]
    )
    interval = lower - reach * lower_se, upper + reach * upper_se
    quintiles = _at_ends(held, context, estimate, lower, upper)
    table = pd.DataFrame(
        {
            "school": equation.schools,
            "estimate": estimate,
            "se": before.own.se["theta"],
            "lower": lower,
            "upper": upper,
            "lower_se": lower_se,
            "upper_se": upper_se,
            "interval_lower": interval[0],
            "interval_upper": interval[1],
            "share": share,
            "standard": standard,
            "share_trimmed": np.where(applies, excess, np.nan),
            "n_labelled": n_labelled,
            **quintiles,
            "sign_known": answers(lower * upper > 0.0, applies),
            "sign_known_95": answers(interval[0] * interval[1] > 0.0, applies),
            "applicable": applies,
            "reason": reason,
        }
    )
    return SchoolBounds(table, kind)


def _at_ends(
    held: HeldLabelled, context: Context, estimate: Floats, lower: Floats, upper: Floats
) -> dict[str, pd.api.extensions.ExtensionArray]:
    """Quintile of the shrunken theta now and with the bound in place of the estimate, all others as they are."""
    before, equation = held.before[context], held.equations[context]
    mean = before.mean("theta")
    moved = held.with_columns(held.columns_before, outcome=equation.outcome + held.columns_before[:, 0])
    response = moved[context].mean("theta") - mean  # of the shrunken to the unshrunken theta
    now = Quintiles.of(mean)
    found = {"quintile": now.quintile}
    for name, end in (("quintile_lower", lower), ("quintile_upper", upper)):
        found[name] = now.if_moved(mean + response * (end - estimate))
    return {name: whole(values) for name, values in found.items()}


def _trimmed(
    held: HeldLabelled,
    context: Context,
    residual: Floats,
    labelled: NDArray[np.bool_],
    excess: Floats,
    excess_se: Floats,
    end: str,
) -> tuple[Floats, Floats]:
    """Estimate of theta, and its standard error, with a share of labelled pupils cut off one end."""
    equation = held.equations[context]
    codes, at = equation.codes, np.flatnonzero(labelled)
    order = at[np.lexsort((residual[at] if end == "top" else -residual[at], codes[at]))]
    school = codes[order]
    n = np.bincount(school, minlength=len(excess))
    place = np.arange(len(order)) - (np.cumsum(n) - n)[school]
    left = n * (1.0 - excess)
    weight = np.ones(len(residual))
    weight[order] = np.clip(left[school] - place, 0.0, 1.0)
    values = held.with_columns(held.columns_before, weight)[context].own
    estimate = values.estimate["theta"]
    last = (weight[order] > 0.0) & ((place + 1 == n[school]) | (place + 1 >= left[school]))
    cut = np.full(len(excess), np.nan)
    cut[school[last]] = residual[order[last]]
    away = (cut - estimate) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        extra = away * excess / left + away / (1.0 - excess) ** 2 * excess_se**2
    return estimate, np.sqrt(values.se["theta"] ** 2 + np.where(excess > 0.0, extra, 0.0))
