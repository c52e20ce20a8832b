"""What a study file says of missing prior attainment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from send_va.errors import Failure

MOST_IMPUTATIONS = 200
STATUSES = ("none", "support", "ehcp")
ESTIMATORS = ("labelled", "standardised", "entry")


@dataclass(frozen=True)
class MissingPriorSection:
    """``[missing_prior]``: multiple imputation of prior scores that are not there, and shifts of them.

    Attributes
    ----------
    imputations : int
        Completed data sets.
    deltas : tuple of float
        Shifts of imputed scores, SDs of the score; 0 among them.
    shifted : tuple of str
        SEN status now of the pupils who are shifted.
    estimators : tuple of str or None
        ``labelled``, ``standardised``, ``entry``; the headline and ``labelled`` by default.
    bounded : bool
        Hold imputed scores to the range that was observed.
    tolerance : float
        Share of schools in another quintile above which a shift is said to tip the table.
    refit_identification : bool
        Estimate the identification model in every completed data set, which takes as long again for each.
    """

    imputations: int = 20
    deltas: tuple[float, ...] = (-0.5, -0.25, 0.0, 0.25, 0.5)
    shifted: tuple[str, ...] = STATUSES
    estimators: tuple[str, ...] | None = None
    bounded: bool = False
    tolerance: float = 0.05
    refit_identification: bool = False

    def failures(self) -> list[Failure]:
        """List values out of range."""
        checks = [
            (2 <= self.imputations <= MOST_IMPUTATIONS, "imputations", f"must lie between 2 and {MOST_IMPUTATIONS}"),
            (0.0 in self.deltas, "deltas", "must have 0, no shift, among them"),
            (all(math.isfinite(step) and abs(step) <= 3.0 for step in self.deltas), "deltas", "must lie within 3 SDs"),
            (len(set(self.deltas)) == len(self.deltas), "deltas", "must not name a shift twice"),
            (0.0 < self.tolerance < 1.0, "tolerance", "must lie between 0 and 1"),
        ]
        found = [
            Failure(rule, column=f"missing_prior.{name}", values=(repr(getattr(self, name)),))
            for good, name, rule in checks
            if not good
        ]
        return [
            *found,
            *_not_known("shifted", self.shifted, STATUSES),
            *(_not_known("estimators", self.estimators, ESTIMATORS) if self.estimators is not None else []),
        ]


def _not_known(key: str, given: Sequence[str], known: Sequence[str]) -> list[Failure]:
    if not given:
        return [Failure("names nothing", f"missing_prior.{key}", remedy=f"Choose from {', '.join(known)}.")]
    return [
        Failure(
            "is not a value of this key",
            f"missing_prior.{key}",
            values=(repr(name),),
            remedy=f"Choose from {', '.join(known)}.",
        )
        for name in given
        if name not in known
    ]
