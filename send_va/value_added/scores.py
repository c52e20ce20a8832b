"""What value-added needs to know of every pupil's need: the contract with identification, and its check."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from send_va.errors import Failure, InputError
from send_va.identification.need import NEED_ESTIMATORS, NeedEstimator
from send_va.multilevel.crossproducts import FloatArray


class NeedScores(Protocol):
    """Scores of one estimator, for all complete pupils in ascending row number.

    ``pi`` is the probability that need exceeds the national threshold, given what the estimator uses: both labels
    (``standardised``), the label at entry only (``entry``), or none (``label_free``). ``severity`` is expected need
    beyond what background explains, intake need of the school included; ``label_free`` has none.
    """

    @property
    def n_draws(self) -> int:
        """Joint draws of the identification parameters; 0 where there are estimates only."""
        ...

    def plug_in(self) -> tuple[FloatArray, FloatArray | None]:
        """``pi`` and ``severity``, shapes (n,), expected: averaged over draws if there are any."""
        ...

    def draw(self, d: int) -> tuple[FloatArray, FloatArray | None]:
        """The same with draw `d` of the identification parameters; called from several threads at once."""
        ...


def scores_table(
    scores: tuple[FloatArray, FloatArray | None], n: int, estimator: str, curved: bool = False
) -> FloatArray:
    """Check scores and lay them side by side.

    Parameters
    ----------
    scores : tuple
        ``pi`` and ``severity``, as a :class:`NeedScores` hands them over.
    n : int
        Number of complete pupils.
    estimator : str
    curved : bool
        Append the square of severity.

    Returns
    -------
    array, shape (n, 1), (n, 2) or (n, 3)
        ``pi`` and, but for ``label_free``, ``severity``; then its square if asked for.

    Raises
    ------
    InputError
        Another number of pupils, missing values, a probability outside 0 to 1, no severity, or no need at all.

    Examples
    --------
    >>> scores_table((np.array([0.1, 0.9]), np.array([-0.2, 1.4])), 2, "entry")
    array([[ 0.1, -0.2],
           [ 0.9,  1.4]])
    """
    pi, severity = scores
    if estimator == "label_free":
        given = {"pi": pi}
    elif severity is None:
        raise InputError(f"{estimator} needs severity beside pi", "Only label_free does without it.")
    else:
        given = {"pi": pi, "severity": severity}
    for name, values in given.items():
        if values.shape != (n,):
            rule = f"has shape {values.shape}, but there are {n:,} complete pupils"
            raise InputError(Failure(rule, name, remedy="Fit identification to the same records."))
        allowed = (values >= 0.0) & (values <= 1.0) if name == "pi" else np.isfinite(values)
        bad = np.flatnonzero(~allowed)
        if len(bad):
            rule = "is no probability" if name == "pi" else "is not finite"
            shown = tuple(f"{value:.6g}" for value in values[bad[:10]])
            remedy = "Check that identification converged."
            raise InputError(Failure(rule, name, len(bad), values=shown, remedy=remedy, unit="pupil"))
    if pi.sum() < 1.0 or (1.0 - pi).sum() < 1.0:
        which = "with" if pi.sum() < 1.0 else "without"
        raise InputError(
            f"less than one pupil {which} need is expected in all records: there is nothing to compare",
            "Check the codes of SEN status and the threshold of need.",
        )
    if curved and severity is not None and estimator != "label_free":
        given["severity squared"] = severity**2
    return np.column_stack(list(given.values()))


def check_estimator(estimator: str) -> NeedEstimator:
    """Refuse an estimator that does not use scores of need.

    Raises
    ------
    InputError
        With the allowed values.

    Examples
    --------
    >>> check_estimator("entry")
    'entry'
    """
    for known in NEED_ESTIMATORS:
        if estimator == known:
            return known
    raise InputError(f"no estimator {estimator!r} with scores of need", f"Choose from {', '.join(NEED_ESTIMATORS)}.")
