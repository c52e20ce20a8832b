"""What a study file says of several cohorts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from send_va.errors import Failure

BEYOND = ("between", "decay", "hold")


@dataclass(frozen=True)
class YearsSection:
    """``[years]``: what is made of several cohorts.

    Attributes
    ----------
    forecast : bool or None
        Estimate drift, average years and forecast. By default where the records hold three cohorts or more.
    horizon : int
        Years from the last cohort to the one that is forecast. Who takes the results of summer t to choose a school
        for entry in September t + 1 has a child in Year 11 in summer t + 6.
    average : int
        Years that averages are taken over.
    beyond : str
        What is assumed of autocovariances at lags longer than the records: ``decay`` (they fall on), ``hold`` (no
        further drift) or ``between`` (anything between these two).
    estimators : tuple of str or None
        The headline by default.
    """

    forecast: bool | None = None
    horizon: int = 6
    average: int = 3
    beyond: str = "between"
    estimators: tuple[str, ...] | None = None

    def failures(self, known: Sequence[str]) -> list[Failure]:
        """List values out of range; `known` are the estimators there are."""
        found = [
            Failure("must be 1 or more", column=f"years.{name}", values=(repr(value),))
            for name, value in (("horizon", self.horizon), ("average", self.average))
            if value < 1
        ]
        choices = [("beyond", self.beyond, BEYOND), *(("estimators", name, known) for name in self.estimators or ())]
        found += [
            Failure(
                "is not a value of this key",
                f"years.{key}",
                values=(repr(value),),
                remedy=f"Choose from {', '.join(allowed)}.",
            )
            for key, value, allowed in choices
            if value not in allowed
        ]
        if self.estimators is not None and not self.estimators:
            found.append(Failure("names nothing", column="years.estimators", remedy="Leave it out for the headline."))
        return found
