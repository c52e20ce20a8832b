"""The choices behind a table of schools, and every combination of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import product
from math import prod
from typing import TYPE_CHECKING

from send_va.errors import Failure, InputError

if TYPE_CHECKING:
    import pandas as pd

# A study file is read before heavy libraries are loaded, so names that stand elsewhere too are spelt out.
CONTEXTS = ("prior", "cva", "composition")
SEND = ("any", "ehcp")
ADJUSTMENTS = {  # schools differ in slope on prior attainment, residual variance by need
    "full": (True, True),
    "no_prior_slope": (False, True),
    "one_variance": (True, False),
    "plain": (False, False),
}
ESTIMATORS = ("labelled", "standardised", "entry", "label_free")
MODEL, UNSHRUNKEN = "model", "none"
PRIORS = (MODEL, UNSHRUNKEN, "normal", "mixture", "precision_dependent")
MOST_SPECIFICATIONS = 5_000
_NAMED = {
    "context": CONTEXTS,
    "send": SEND,
    "adjustment": tuple(ADJUSTMENTS),
    "estimator": ESTIMATORS,
    "prior": PRIORS,
}
_LEAST = {"years": 0, "minimum_cohort": 1}


@dataclass(frozen=True)
class Choices:
    """What could have been chosen: every field lists values, the first being the reference.

    Attributes
    ----------
    outcome : tuple of str
        Columns of the outcome.
    context : tuple of str
        What is held constant: ``prior``, ``cva``, ``composition``.
    send : tuple of str
        ``any``: SEN support and plans count as need; ``ehcp``: plans only, support joins those without.
    adjustment : tuple of str
        ``full``: schools differ in their slope on prior attainment, and residual variance differs by need;
        ``no_prior_slope``, ``one_variance``: without the one, without the other; ``plain``: without both.
    years : tuple of int
        How many of the latest cohorts are pooled; 0 for all.
    estimator : tuple of str
        ``labelled``, ``standardised``, ``entry``, ``label_free``.
    prior : tuple of str
        What estimates are shrunken to: ``model``, the conditional means of the value-added model; ``none``, the
        unshrunken estimates; ``normal``, ``mixture`` and ``precision_dependent`` as in
        :func:`send_va.ranking.shrinkage.shrink`.
    minimum_cohort : tuple of int
        Fewest (expected) pupils with need for a school to be in the table.

    Raises
    ------
    InputError
        A choice without a value, an unknown or repeated value, or more than 5,000 specifications. All are listed.

    Examples
    --------
    >>> choices = Choices(outcome=("outcome",), estimator=("entry", "labelled"), prior=("model", "none"))
    >>> choices.n, choices.table()[["estimator", "prior"]].to_numpy().tolist()
    (4, [['entry', 'model'], ['entry', 'none'], ['labelled', 'model'], ['labelled', 'none']])
    """

    outcome: tuple[str, ...]
    context: tuple[str, ...] = ("cva",)
    send: tuple[str, ...] = ("any",)
    adjustment: tuple[str, ...] = ("full",)
    years: tuple[int, ...] = (0,)
    estimator: tuple[str, ...] = ("entry",)
    prior: tuple[str, ...] = (MODEL,)
    minimum_cohort: tuple[int, ...] = (10,)

    def __post_init__(self) -> None:
        failures = [fault for name in CHOICES for fault in choice_faults(name, getattr(self, name))]
        failures += crowd_faults(self.n)
        if failures:
            raise InputError(failures)

    @property
    def n(self) -> int:
        """Number of specifications."""
        return prod(len(getattr(self, name)) for name in CHOICES)

    @property
    def n_fits(self) -> int:
        """Fits that the specifications are made from: priors and minimum cohorts need none of their own."""
        return self.n // (len(self.prior) * len(self.minimum_cohort))

    @property
    def varied(self) -> tuple[str, ...]:
        """Names of the choices with more than one value."""
        return tuple(name for name in CHOICES if len(getattr(self, name)) > 1)

    def table(self) -> pd.DataFrame:
        """All specifications, one a row, the reference first; one column a choice, the index their number from 1."""
        import pandas as pd

        rows = list(product(*(getattr(self, name) for name in CHOICES)))
        return pd.DataFrame(rows, columns=list(CHOICES), index=pd.RangeIndex(1, len(rows) + 1, name="number"))


CHOICES = tuple(item.name for item in fields(Choices))


def choice_faults(name: str, values: Sequence[object], column: str = "") -> list[Failure]:
    """List what is wrong with the values of one choice; `column` is what they are called where they were given."""
    column = column or name
    if not values:
        return [Failure("names no value", column, remedy="Leave it out for the usual one.")]
    found = []
    repeated = tuple(repr(value) for value, times in Counter(values).items() if times > 1)
    if repeated:
        found.append(Failure("names a value twice", column, values=repeated, remedy="Each specification counts once."))
    if name in _NAMED:
        bad = tuple(repr(value) for value in values if value not in _NAMED[name])
        rule, remedy = "is not a value of this choice", f"Choose from {', '.join(_NAMED[name])}."
    elif name in _LEAST:
        bad = tuple(repr(v) for v in values if not isinstance(v, int) or isinstance(v, bool) or v < _LEAST[name])
        rule, remedy = f"must be whole numbers, {_LEAST[name]} or more", ""
    else:
        bad = tuple(repr(value) for value in values if not isinstance(value, str) or not value.strip())
        rule, remedy = "must be names of columns", ""
    return [*found, Failure(rule, column, values=bad, remedy=remedy)] if bad else found


def crowd_faults(n: int, column: str = "") -> list[Failure]:
    """Refuse more specifications than a reader or a computer can go through."""
    if n <= MOST_SPECIFICATIONS:
        return []
    rule = f"the choices make {n:,} specifications, more than {MOST_SPECIFICATIONS:,}"
    return [Failure(rule, column, remedy="Name fewer values: each choice multiplies the others.")]
