"""Need of every pupil, given labels and the identification model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from send_va.identification import kernels
from send_va.identification.kernels import Floats, Ints
from send_va.identification.labels import LabelRecords
from send_va.identification.model import Parameters

_SMOOTH = np.polynomial.legendre.leggauss(10)  # errors of pi below 1e-4 on each side of the threshold
_STEPPED = np.polynomial.legendre.leggauss(24)  # smooth steps in place of the label's cuts need more


@dataclass(frozen=True)
class Assumptions:
    """What labels alone cannot tell.

    Attributes
    ----------
    feeder_sorting_share, area_sorting_share : float
        Share of the leniency of feeders and of authorities that is need of their population, 0 to 1.
    sorting_share : float
        Without labels before transfer: share of a school's labelling that is need of its intake, 0 to 1.
    label_reliability : float
        Share of judged need, net of what is explained, that is need; below one, those who label misjudge.
    """

    feeder_sorting_share: float = 0.0
    area_sorting_share: float = 0.0
    sorting_share: float = 0.5
    label_reliability: float = 1.0


def entry_need(
    records: LabelRecords, parameters: Parameters, assumptions: Assumptions, entry: Ints, above: float = 0.0
) -> tuple[Floats, Floats]:
    """Expected need of every pupil from the label before transfer alone; closed form.

    Parameters
    ----------
    records, parameters, assumptions
    entry : integer array, shape (n,)
        Label before transfer; -1 unknown.
    above : float
        How far above the national support threshold need counts as need, in SDs of unexplained need.

    Returns
    -------
    pi : array, shape (n,)
        Probability that need is above the national support threshold (by `above`).
    severity : array, shape (n,)
        Expected need minus what background explains, intake need included, in SDs of unexplained need.

    Examples
    --------
    Not every pupil with a label is above the national threshold, and some without one are:

    >>> import numpy as np
    >>> import send_va as sv
    >>> roles = {"pupil": "pupil", "school": "school", "feeder": "feeder", "outcome": "outcome", "prior": ["prior"],
    ...          "sen_status": "sen_status", "sen_status_entry": "sen_status_entry"}
    >>> world = sv.simulate(np.random.default_rng(1), schools=20, pupils_per_school=50)
    >>> cohort = sv.Cohort.from_pandas(world.pupils, roles)
    >>> need = sv.fit_identification(cohort, draws=0)
    >>> pi, _ = entry_need(need.labels, need.parameters, Assumptions(), need.labels.entry)
    >>> [round(float(pi[need.labels.entry == level].mean()), 2) for level in (0, 1, 2)]
    [0.02, 0.7, 1.0]
    """
    base, cuts = _base_and_cuts(records, parameters)
    threshold, moved = _threshold(records, parameters, assumptions, base, above)
    low, high = kernels.intervals(cuts, entry)
    pi, mean = kernels.entry_scores(threshold, low, high, assumptions.label_reliability, *_SMOOTH)
    return pi, mean + moved


def both_need(
    records: LabelRecords, parameters: Parameters, assumptions: Assumptions, entry: Ints, above: float = 0.0
) -> tuple[Floats, Floats]:
    """Expected need of every pupil from both labels; an unknown label before transfer is summed over.

    Returns
    -------
    pi, severity : array, shape (n,)
        As `entry_need` returns them.

    Examples
    --------
    A label that was kept says more than one that was dropped:

    >>> import numpy as np
    >>> import send_va as sv
    >>> roles = {"pupil": "pupil", "school": "school", "feeder": "feeder", "outcome": "outcome", "prior": ["prior"],
    ...          "sen_status": "sen_status", "sen_status_entry": "sen_status_entry"}
    >>> world = sv.simulate(np.random.default_rng(1), schools=20, pupils_per_school=50)
    >>> cohort = sv.Cohort.from_pandas(world.pupils, roles)
    >>> need = sv.fit_identification(cohort, draws=0)
    >>> labels = need.labels
    >>> pi, _ = both_need(labels, need.parameters, Assumptions(), labels.entry)
    >>> before = labels.entry == 1
    >>> bool(pi[before & (labels.now == 1)].mean() > pi[before & (labels.now == 0)].mean())
    True
    """
    base, cuts = _base_and_cuts(records, parameters)
    threshold, moved = _threshold(records, parameters, assumptions, base, above)
    pi, mean = kernels.both_scores(
        threshold,
        cuts,
        np.minimum(entry, records.levels),
        np.minimum(records.now, records.levels),
        base,
        parameters.index_now(records),
        np.concatenate([[0.0], parameters.rho]),
        parameters.kappa,
        assumptions.label_reliability,
        *(_SMOOTH if assumptions.label_reliability >= 1.0 else _STEPPED),
    )
    return pi, mean + moved


def background_need(records: LabelRecords, parameters: Parameters, assumptions: Assumptions) -> Floats:
    """Probability ``p0`` of need above the national threshold from background alone, no label and no school; (n,).

    Examples
    --------
    >>> import numpy as np
    >>> import send_va as sv
    >>> roles = {"pupil": "pupil", "school": "school", "feeder": "feeder", "outcome": "outcome", "prior": ["prior"],
    ...          "sen_status": "sen_status", "sen_status_entry": "sen_status_entry"}
    >>> world = sv.simulate(np.random.default_rng(1), schools=20, pupils_per_school=50)
    >>> cohort = sv.Cohort.from_pandas(world.pupils, roles)
    >>> need = sv.fit_identification(cohort, draws=0)
    >>> p0 = background_need(need.labels, need.parameters, Assumptions())
    >>> round(float(p0.mean()), 2)
    0.15
    """
    spread = np.sqrt(assumptions.label_reliability + parameters.intake_variance)
    return np.asarray(ndtr((records.x @ parameters.gamma - parameters.tau[0]) / spread))


def _base_and_cuts(records: LabelRecords, parameters: Parameters) -> tuple[Floats, Floats]:
    base = parameters.base(records)
    cuts = parameters.cuts(records, base)
    for c in range(1, cuts.shape[1]):  # an EHCP asks for at least what support asks for
        np.maximum(cuts[:, c - 1], cuts[:, c], out=cuts[:, c])
    return base, cuts


def _threshold(
    records: LabelRecords, parameters: Parameters, assumptions: Assumptions, base: Floats, above: float
) -> tuple[Floats, Floats]:
    """Unexplained need at the national threshold, and unexplained need shared by school, feeder and authority."""
    shared = parameters.intake[records.school]
    sorted_in = np.zeros(len(base))
    if assumptions.feeder_sorting_share and len(parameters.feeder):
        own = parameters.feeder[:, 0][records.feeder]
        sorted_in += assumptions.feeder_sorting_share * np.where(records.feeder >= 0, own, 0.0)
    if assumptions.area_sorting_share and len(parameters.la_entry):
        own = parameters.la_entry[:, 0][records.feeder_la]
        sorted_in += assumptions.area_sorting_share * np.where(records.feeder_la >= 0, own, 0.0)
    scale = np.sqrt(assumptions.label_reliability)
    return (parameters.tau[0] + above - base - sorted_in) / scale, (shared + sorted_in) / scale
