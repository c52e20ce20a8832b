"""One region's pupils as the joint model reads them: need, labels and outcome side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from send_va.errors import InputError
from send_va.identification.labels import LabelRecords
from send_va.identification.model import several
from send_va.records.design_columns import Context
from send_va.value_added.pupil_design import PupilDesign
from send_va.value_added.row_coder import PRIOR_SLOPE

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

MOST_PUPILS = 30_000
_NO_DIRECTION = 1e-8  # singular values below this share of the largest are collinear columns


@dataclass(frozen=True, eq=False)
class JointRecords:
    """Pupils of one region, sorted by school.

    Attributes
    ----------
    x_need : array, shape (n, p)
        Predictors of need, turned to uncorrelated directions of SD 1, so that priors and geometry do not depend on how
        columns were written. ``x_need @ need_root_inverse`` are the predictors of the identification model, centred.
    x_outcome : array, shape (n, q)
        Covariates of the outcome, likewise; no intercept.
    prior : array, shape (n,)
        Prior attainment in pupil SDs, zero where effects are stated.
    outcome : array, shape (n,)
        In pupil SDs, mean zero.
    outcome_sd : float
        Pupil SD of the outcome, in its units.
    school, feeder : integer array, shape (n,)
    la_entry, la_now : integer array, shape (n,)
        Authority before transfer and now; all zero where there is one.
    entry, now : integer array, shape (n,)
        Labels: 0 none, 1 support, 2 EHCP; at most `levels`.
    schools, feeders, las_entry, las_now : tuple of str
    levels : int
        Thresholds of a label.
    """

    x_need: Floats
    x_outcome: Floats
    prior: Floats
    outcome: Floats
    outcome_sd: float
    school: Ints
    feeder: Ints
    la_entry: Ints
    la_now: Ints
    entry: Ints
    now: Ints
    schools: tuple[str, ...]
    feeders: tuple[str, ...]
    las_entry: tuple[str, ...]
    las_now: tuple[str, ...]
    levels: int

    @property
    def thresholds(self) -> tuple[str, ...]:
        """Names of the thresholds of a label."""
        return ("support", "ehcp")[: self.levels]

    @property
    def several_las(self) -> tuple[bool, bool]:
        """Whether more than one authority labels, before transfer and now."""
        return several(self.la_entry), several(self.la_now)


def joint_records(
    labels: LabelRecords, design: PupilDesign, context: Context, *, prior_reference: float
) -> JointRecords:
    """Bring the labels and the outcome of one region's pupils together.

    Parameters
    ----------
    labels : LabelRecords
        Of all complete pupils.
    design : PupilDesign
        Of the same pupils.
    context : str
        ``prior`` or ``cva``; school means are no part of the joint model.
    prior_reference : float
        Prior attainment at which effects are stated, in units of the first score: that of the cut, if compared with it
        (``effects.attrs["prior_reference"]``).

    Returns
    -------
    JointRecords

    Raises
    ------
    InputError
        No label before transfer; several regions; more than 30,000 pupils; a pupil without label, feeder or authority;
        schools that cannot be compared; other pupils in `labels` than in `design`; context ``composition``.

    Examples
    --------
    >>> import send_va as sv
    >>> from send_va.validation.joint_comparison import region
    >>> world = region("independent", seed=1, schools=12, pupils_per_school=30)
    >>> records = joint_records(world.labels, world.design, "cva", prior_reference=100.0)
    >>> len(records.schools), records.thresholds, bool(abs(records.outcome.mean()) < 1e-9)
    (12, ('support',), True)
    """
    _refuse(labels, design, context)
    order = design.order
    columns = [design.columns.index(name) for name in design.context.fixed(context)]
    slope = design.rows[:, design.columns.index(PRIOR_SLOPE)]
    outcome = design.rows[:, -1]
    two_las = several(labels.feeder_la), several(labels.la)
    nobody = np.zeros(len(order), dtype=np.intp)
    return JointRecords(
        x_need=uncorrelated(labels.x[order]),
        x_outcome=uncorrelated(design.rows[:, columns]),
        prior=slope - (prior_reference - design.prior_mean) / design.prior_sd,
        outcome=(outcome - outcome.mean()) / design.outcome_sd,
        outcome_sd=design.outcome_sd,
        school=labels.school[order],
        feeder=labels.feeder[order],
        la_entry=labels.feeder_la[order] if two_las[0] else nobody,
        la_now=labels.la[order] if two_las[1] else nobody,
        entry=np.minimum(labels.entry[order], labels.levels),
        now=np.minimum(labels.now[order], labels.levels),
        schools=labels.schools,
        feeders=labels.feeders,
        las_entry=labels.feeder_las,
        las_now=labels.las,
        levels=labels.levels,
    )


def uncorrelated(columns: Floats) -> Floats:
    """Turn columns (n, k) into uncorrelated ones of mean 0 and SD 1 that span the same; (n, at most k).

    Examples
    --------
    >>> white = uncorrelated(np.array([[0.0, 1.0], [1.0, 3.0], [2.0, 3.0], [5.0, 4.0]]))
    >>> np.allclose(white.T @ white / 4, np.eye(2))
    True
    """
    left, values, _ = np.linalg.svd(columns - columns.mean(axis=0), full_matrices=False)
    keep = values > _NO_DIRECTION * values.max(initial=0.0)
    return np.ascontiguousarray(left[:, keep] * np.sqrt(len(columns)))


def _refuse(labels: LabelRecords, design: PupilDesign, context: Context) -> None:
    n = len(labels.school)
    if not labels.has_entry:
        raise InputError(
            "no label before transfer is recorded, and the joint model cannot tell need from leniency without it",
            "Name the column under [roles] as sen_status_entry.",
        )
    regions = len(np.unique(labels.region[labels.region >= 0]))
    if regions > 1:
        raise InputError(f"{regions} regions, but the joint model is of one", "Select the pupils of one region first.")
    if n > MOST_PUPILS:
        raise InputError(
            f"{n:,} pupils, but the joint model samples at most {MOST_PUPILS:,}",
            "Select one region, or some of its schools; the cut (fit_need) has no such limit.",
        )
    if context == "composition":
        raise InputError("the joint model has no school means", "Ask for the context 'cva' or 'prior'.")
    if n != design.n_scored or not np.array_equal(labels.school[design.order], design.codes):
        raise InputError("labels and design hold other pupils", "Read both from the same cohort, no school left out.")
    _refuse_incomplete(labels)


def _refuse_incomplete(labels: LabelRecords) -> None:
    apart = int((labels.component > 0).sum())
    if apart:
        raise InputError(
            f"{apart} schools share no feeder with the others, directly or through others",
            "Leave them out: they cannot be compared.",
        )
    lacking = {
        "label before transfer": int((labels.entry < 0).sum()),
        "feeder": int((labels.feeder < 0).sum()),
        "authority of the feeder": int((labels.feeder_la < 0).sum()) if several(labels.feeder_la) else 0,
        "authority": int((labels.la < 0).sum()) if several(labels.la) else 0,
    }
    said = ", ".join(f"{count:,} have no {what}" for what, count in lacking.items() if count)
    if said:
        raise InputError(
            f"of {len(labels.school):,} pupils {said}", "Leave them out of the joint model and of the cut."
        )
