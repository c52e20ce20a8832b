"""Where estimators disagree about a school, beyond a stated amount."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from send_va.effects import SchoolEffects
from send_va.errors import InputError

_COLUMNS = ["school", "context", "estimator", "against", "difference", "difference_sd", "disagrees", "flag"]


def disagreements(
    effects: Sequence[SchoolEffects], *, headline: str = "entry", amount: float = 0.1, measure: str = "theta"
) -> pd.DataFrame:
    """Compare every estimator with the headline, school by school, in each context.

    Parameters
    ----------
    effects : sequence of SchoolEffects
        Of several estimators and contexts, on the same schools. Contexts without the headline are left out.
    headline : str
        The estimator the others are compared with.
    amount : float
        Pupil SDs of the outcome beyond which two estimators disagree. A tenth is about half the SD between schools.
    measure : str
        ``theta``, ``u`` or ``gap``.

    Returns
    -------
    DataFrame
        One row a context, estimator and school that both estimate: school, context, estimator, against (the headline),
        difference (of means: estimator minus headline, outcome units), difference_sd (the same in pupil SDs), disagrees
        (``|difference_sd| > amount``), flag (what either of the two assumes that labels do not tell). Where a school
        disagrees, its result hangs on how need is identified: read the headline with that in mind. There is no
        probability beside it: errors of estimators on the same pupils go together, and draws of different estimators
        do not show how far.

    Raises
    ------
    InputError
        The headline is not among the effects, `amount` is not above zero, or estimators hold different schools.

    Examples
    --------
    >>> from send_va.effects import school_effects
    >>> def made(estimator, level):
    ...     draws = level + 0.1 * np.random.default_rng(1).standard_normal((200, 2))
    ...     attrs = {"estimator": estimator, "context": "cva", "outcome_sd": 10.0}
    ...     counts = {"n_pupils": np.array([9, 9]), "n_need": np.array([2, 2]), "flag": ["", ""]}
    ...     return school_effects(["A", "B"], {"theta": draws}, {}, **counts, attrs=attrs)
    >>> both = [made("entry", np.array([0.0, 1.0])), made("labelled", np.array([2.0, 1.0]))]
    >>> disagreements(both)[["school", "estimator", "difference_sd", "disagrees"]].round(2).to_dict("records")
    [{'school': 'A', 'estimator': 'labelled', 'difference_sd': 0.2, 'disagrees': True},
     {'school': 'B', 'estimator': 'labelled', 'difference_sd': 0.0, 'disagrees': False}]
    """
    if not amount > 0.0:
        raise InputError(f"the amount beyond which estimators disagree must be above zero, not {amount}")
    heads = {part.attrs["context"]: part for part in effects if part.attrs["estimator"] == headline}
    if not heads:
        there = ", ".join(dict.fromkeys(str(part.attrs["estimator"]) for part in effects)) or "no estimator"
        raise InputError(f"no estimator {headline!r} to compare with", f"There is {there}.")
    others = [part for part in effects if part.attrs["estimator"] != headline and part.attrs["context"] in heads]
    frames = [_compared(part, heads[part.attrs["context"]], amount, measure) for part in others]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=_COLUMNS)


def _compared(other: SchoolEffects, head: SchoolEffects, amount: float, measure: str) -> pd.DataFrame:
    estimator, against = str(other.attrs["estimator"]), str(head.attrs["estimator"])
    if other.schools != head.schools:
        raise InputError(f"{estimator} and {against} hold different schools", "Estimate both from the same records.")
    unit = float(head.attrs["outcome_sd"])
    mean, head_mean = (part.data["mean"].sel(measure=measure).to_numpy() for part in (other, head))
    difference = mean - head_mean
    frame = pd.DataFrame({"school": head.schools, "context": head.attrs["context"], "estimator": estimator})
    compared: pd.DataFrame = frame.assign(
        against=against,
        difference=difference,
        difference_sd=difference / unit,
        disagrees=np.abs(difference) > amount * unit,
        flag=str(other.attrs.get("assumes") or head.attrs.get("assumes") or ""),
    )
    estimated: pd.DataFrame = compared.loc[np.isfinite(difference)]
    return estimated
