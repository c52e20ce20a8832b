"""What a study file says of the choices behind its table."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from send_va.errors import Failure
from send_va.sensitivity.specifications import ADJUSTMENTS, ESTIMATORS, SEND, Choices, choice_faults, crowd_faults

_KEYS = {
    "outcomes": "outcome",
    "contexts": "context",
    "send": "send",
    "adjustments": "adjustment",
    "years": "years",
    "estimators": "estimator",
    "priors": "prior",
    "minimum_cohort": "minimum_cohort",
}


@dataclass(frozen=True)
class MultiverseSection:
    """``[multiverse]``: what could have been chosen; every combination of the values is a specification.

    Every key is a list whose first value is the reference. Values mean what they mean in
    :class:`send_va.sensitivity.specifications.Choices`.

    Attributes
    ----------
    outcomes : tuple of str
        Columns; the outcome of the study where none is named.
    contexts, send, adjustments : tuple of str
    years : tuple of int
        Latest cohorts that are pooled; 0 for all.
    estimators, priors : tuple of str
    minimum_cohort : tuple of int

    Examples
    --------
    >>> MultiverseSection().choices("att8").n
    288
    >>> [failure.column for failure in MultiverseSection(send=("ehc",), years=(-1,)).failures()]
    ['multiverse.send', 'multiverse.years']
    """

    outcomes: tuple[str, ...] = ()
    contexts: tuple[str, ...] = ("cva", "prior", "composition")
    send: tuple[str, ...] = SEND
    adjustments: tuple[str, ...] = tuple(ADJUSTMENTS)
    years: tuple[int, ...] = (0,)
    estimators: tuple[str, ...] = ("entry", *(name for name in ESTIMATORS if name != "entry"))
    priors: tuple[str, ...] = ("model", "none", "normal")
    minimum_cohort: tuple[int, ...] = (10,)

    def failures(self) -> list[Failure]:
        """List values out of range, and too many specifications."""
        given = {key: getattr(self, key) for key in _KEYS if key != "outcomes" or self.outcomes}
        found = [
            fault for key, values in given.items() for fault in choice_faults(_KEYS[key], values, f"multiverse.{key}")
        ]
        return [*found, *crowd_faults(prod(len(values) for values in given.values()), "multiverse")]

    def choices(self, outcome: str) -> Choices:
        """The choices, with the outcome of the study where no other is named.

        Raises
        ------
        InputError
            Values out of range.
        """
        given = {name: getattr(self, key) for key, name in _KEYS.items()}
        return Choices(**given | {"outcome": self.outcomes or (outcome,)})
