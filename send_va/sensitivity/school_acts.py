"""What a school could do to look better, and to which pupils it would do it.

The pupils are the same whatever measure is looked at, so that what the measures reward can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from send_va.multilevel.crossproducts import FloatArray
from send_va.sensitivity.audit_settings import FULL_TERMS, AuditSettings

Ints = NDArray[np.intp]
Bools = NDArray[np.bool_]

LABELLING_ACTS = ("label_more", "label_fewer")
ROLL_ACTS = ("remove_lowest", "admit_fewer_ehcp", "withdraw")
ACTIONS = (*LABELLING_ACTS, *ROLL_ACTS)
IN_WORDS = {
    "label_more": "labelling more pupils",
    "label_fewer": "labelling fewer pupils",
    "remove_lowest": "taking those forecast lowest off the roll",
    "admit_fewer_ehcp": "admitting fewer pupils with an EHCP",
    "withdraw": "withdrawing those forecast below their prediction",
}
NO_PUPIL = "no pupil with a complete record"
ONE_PUPIL = "one pupil only: nobody would be left"
NOT_FORESEEN = "nothing is foreseen beyond the records (foresight 0)"
_NOBODY = {
    "label_more": "no pupil without a label",
    "label_fewer": "no pupil with SEN support",
    "remove_lowest": "no pupil whose outcome is forecast",
    "admit_fewer_ehcp": "no pupil with an EHCP before transfer",
    "withdraw": "no pupil is forecast below their own prediction",
}


@dataclass(frozen=True, eq=False)
class SchoolKnowledge:
    """What schools go by when they act; pupils in the order of ``PupilDesign.rows``.

    Attributes
    ----------
    starts : integer array, shape (schools + 1,)
    now, entry : integer array, shape (n,)
        0 none, 1 support, 2 EHCP; -1 where the status before transfer is not recorded.
    near : array, shape (n,)
        Probability of need, or of a label, by which pupils are near the line.
    near_by_background : array, shape (n,)
        Decides where `near` is equal.
    prediction : array, shape (n,)
        Outcome the model expects.
    foreseen : array, shape (n,)
        What the school foresees beyond it.
    """

    starts: NDArray[np.int64]
    now: Ints
    entry: Ints
    near: FloatArray
    near_by_background: FloatArray
    prediction: FloatArray
    foreseen: FloatArray


@dataclass(frozen=True, eq=False)
class Act:
    """One action of all schools, and the pupils it is done to.

    Attributes
    ----------
    action : str
    chosen : bool array, shape (n,)
    n_acted : integer array, shape (schools,)
    reason : tuple of str
        Why a school cannot act; empty where it can.
    """

    action: str
    chosen: Bools
    n_acted: NDArray[np.int64]
    reason: tuple[str, ...]


def foresee(residual: FloatArray, residual_sd: FloatArray, foresight: float, rng: np.random.Generator) -> FloatArray:
    r"""What a school foresees of every pupil's outcome beyond the prediction, shape (n,).

    The best forecast of the residual ``e`` from a signal ``rho e + sqrt(1 - rho^2) sigma z``, z standard normal: rho
    times the signal. Its correlation with the residual is rho, the `foresight`; it is 0 where nothing is foreseen, and
    the residual itself where all is.

    Examples
    --------
    >>> e = np.random.default_rng(1).standard_normal(100_000)
    >>> ahead = foresee(e, np.ones(100_000), 0.5, np.random.default_rng(2))
    >>> round(float(np.corrcoef(e, ahead)[0, 1]), 2), round(float(ahead.std()), 2)
    (0.5, 0.5)
    """
    noise = rng.standard_normal(len(residual))
    return np.asarray(foresight * (foresight * residual + np.sqrt(1.0 - foresight**2) * residual_sd * noise))


def pupils_acted_on(share: float, n_pupils: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many pupils each school would act on: rounded, halves up, at least one.

    Examples
    --------
    >>> pupils_acted_on(0.05, np.array([3, 50, 170])).tolist()
    [1, 3, 9]
    """
    return np.maximum(np.floor(share * n_pupils + 0.5).astype(np.int64), 1)


def school_act(action: str, known: SchoolKnowledge, settings: AuditSettings) -> Act:
    """Choose the pupils of one action at every school.

    ``label_more`` gives SEN support to the pupils without a label nearest to the line; ``label_fewer`` takes it from
    those nearest; ``remove_lowest`` takes those with the lowest forecast (prediction and what is foreseen) off the
    roll; ``admit_fewer_ehcp`` does without pupils with an EHCP before transfer (now, where it is unknown before),
    lowest prediction first; ``withdraw`` leaves out those whose forecast falls furthest below their own prediction.

    Parameters
    ----------
    action : str
        One of `ACTIONS`.
    known : SchoolKnowledge
    settings : AuditSettings
    """
    candidates, first, second = _order(action, known)
    n_pupils = np.diff(known.starts)
    codes = np.repeat(np.arange(len(n_pupils)), n_pupils)
    there = np.bincount(codes[candidates], minlength=len(n_pupils))
    most = n_pupils if action in LABELLING_ACTS else n_pupils - 1
    take = np.minimum(np.minimum(pupils_acted_on(settings.share, n_pupils), there), np.maximum(most, 0))
    order = np.lexsort((second, first, ~candidates, codes))
    place = np.arange(len(codes)) - np.repeat(known.starts[:-1], n_pupils)
    chosen = np.zeros(len(codes), dtype=bool)
    chosen[order] = place < take[codes]
    nobody = NOT_FORESEEN if action == "withdraw" and settings.foresight == 0.0 else _NOBODY[action]
    reason = np.select([n_pupils == 0, there == 0, take == 0], [NO_PUPIL, nobody, ONE_PUPIL], default="")
    return Act(action, chosen, take, tuple(reason.tolist()))


def _order(action: str, known: SchoolKnowledge) -> tuple[Bools, FloatArray, FloatArray]:
    """Who could be acted on, and in what order: lowest first."""
    nothing = np.zeros(len(known.now))
    if action == "label_more":
        return known.now == 0, -known.near, -known.near_by_background
    if action == "label_fewer":
        return known.now == 1, known.near, known.near_by_background
    if action == "admit_fewer_ehcp":
        with_plan = (known.entry == 2) | ((known.entry < 0) & (known.now == 2))
        return with_plan, known.prediction, nothing
    if action == "withdraw":
        return known.foreseen < 0.0, known.foreseen, nothing
    forecast = known.prediction + known.foreseen
    return np.isfinite(forecast), forecast, nothing


def consequences(act: Act, now: Ints, settings: AuditSettings) -> Iterator[tuple[bool, Ints | None, FloatArray | None]]:
    """What an action changes: whether pupils are weighted by terms on the roll, labels now, and weights.

    Labels and weights are None where they stay. Pupils that were never admitted have no terms on the roll, so roll
    weighting does not bring them back.
    """
    if act.action in LABELLING_ACTS:
        yield False, np.where(act.chosen, int(act.action == "label_more"), now).astype(np.intp), None
        return
    kept = 0.0 if act.action == "admit_fewer_ehcp" else settings.terms_kept / FULL_TERMS
    for roll_weighted, left in ((False, 0.0), (True, kept)):
        yield roll_weighted, None, np.where(act.chosen, left, 1.0)
