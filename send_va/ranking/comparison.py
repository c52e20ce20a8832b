"""Two schools held against each other: a sentence with its probability, and the schools one cannot be told from."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from send_va.effects import FloatArray, SchoolEffects
from send_va.errors import InputError
from send_va.ranking.draw_places import checked_draws, draw_table, school_names
from send_va.ranking.estimate_inputs import check_fraction
from send_va.ranking.pairwise_from_draws import chance_above, chance_above_each
from send_va.ranking.threads import in_threads

_TILE = 256
_EXTREME = 0.995  # probabilities closer to 0 or 1 than this are said as bounds: two digits would read as certain


@dataclass(frozen=True)
class Comparison:
    """What draws say of the difference between two schools.

    Attributes
    ----------
    first, second : str
    probability : float
        That the first is higher; ties by half.
    difference : float
        Mean of first minus second, in `unit`.
    lower, upper : float
        Interval of the difference.
    coverage : float
    unit : str
    assumes : str
        What the effects rest on that labels do not tell; empty where they tell it.
    """

    first: str
    second: str
    probability: float
    difference: float
    lower: float
    upper: float
    coverage: float
    unit: str
    assumes: str = ""

    @property
    def separated(self) -> bool:
        """The interval of the difference does not hold zero."""
        return self.lower > 0.0 or self.upper < 0.0

    def __str__(self) -> str:
        verdict = "separate them" if self.separated else "do not separate them"
        text = (
            f"School {self.first}'s effect is higher than school {self.second}'s with probability "
            f"{_probability(self.probability)}; the difference is {self.difference:.1f} {self.unit} "
            f"({100 * self.coverage:g} % interval {self.lower:.1f} to {self.upper:.1f}): the records {verdict}."
        )
        return f"{text} This rests on an assumption: {self.assumes}." if self.assumes else text

    def _repr_html_(self) -> str:
        return f"<p>{self}</p>"


def compare(
    effects: SchoolEffects | FloatArray,
    first: str,
    second: str,
    *,
    measure: str = "theta",
    coverage: float = 0.95,
    schools: Sequence[str] | None = None,
    unit: str = "points",
) -> Comparison:
    """Compare two schools.

    Parameters
    ----------
    effects : SchoolEffects, or array of shape (draws, schools)
        Draws of the two schools are taken together, so that what they share cancels.
    first, second : str
        Names of the schools.
    measure : str
        Which measure of SchoolEffects.
    coverage : float
        Of the interval of the difference.
    schools : sequence of str, optional
        Names of the columns, where draws are given; positions from 1 otherwise.
    unit : str
        Unit of the draws; SchoolEffects bring their own.

    Returns
    -------
    Comparison
        ``str()`` of it is a sentence. Two schools picked because they lie far apart are separated too easily.

    Raises
    ------
    InputError
        An unknown school (the message names the nearest), the same school twice, a school that cannot be compared, or
        a coverage outside (0, 1).

    References
    ----------
    Goldstein & Spiegelhalter (1996), doi:10.2307/2983325.

    Examples
    --------
    >>> draws = np.array([[4.0, 0.0], [3.0, 1.0], [0.0, 2.0], [5.0, 1.0]])
    >>> print(compare(draws, "A", "B", schools=["A", "B"], coverage=0.5))
    School A's effect is higher than school B's with probability .75; the difference is 2.0 points (50 % interval 1.0
    to 4.0): the records separate them.
    """
    names, draws, unit, assumes = _unpack(effects, measure, schools, unit)
    if str(first) == str(second):
        raise InputError(f"school {first} cannot be compared with itself", "Name two schools.")
    columns = [_position(name, names) for name in (first, second)]
    for name, column in zip((first, second), columns, strict=True):
        _refuse_missing(name, draws[:, column])
    pair = checked_draws(draws[:, columns])
    difference = pair[:, 0] - pair[:, 1]
    lower, upper = np.quantile(difference, _tails(coverage))
    return Comparison(
        str(first),
        str(second),
        chance_above(pair, 0, 1),
        float(difference.mean()),
        float(lower),
        float(upper),
        coverage,
        unit,
        assumes,
    )


def not_separable(
    effects: SchoolEffects | FloatArray,
    school: str,
    *,
    measure: str = "theta",
    coverage: float = 0.95,
    schools: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Schools that one school cannot be told from, the nearest first.

    Parameters
    ----------
    effects, measure, schools
        As for :func:`compare`; schools that cannot be compared are left out.
    school : str
    coverage : float
        Of the interval of the difference, which has to hold zero.

    Returns
    -------
    DataFrame
        school, probability (that the school named in the call is higher), difference (it minus the other), lower,
        upper, in outcome units, by distance of the mean. Its length is the number of schools whose order to this one
        the records leave open.

    Raises
    ------
    InputError
        An unknown school or one that cannot be compared, or a coverage outside (0, 1).

    Examples
    --------
    >>> draws = np.random.default_rng(1).normal([0.0, 0.1, 9.0], 1.0, (400, 3))
    >>> not_separable(draws, "A", schools=["A", "B", "C"])["school"].tolist()
    ['B']
    """
    names, draws, _, _ = _unpack(effects, measure, schools, "")
    column = _position(school, names)
    _refuse_missing(school, draws[:, column])
    tails = _tails(coverage)
    compared = np.flatnonzero(np.isfinite(draws).all(axis=0))
    own = int(np.searchsorted(compared, column))
    draws = checked_draws(draws[:, compared])
    bounds = np.empty((2, len(compared)))

    def bound(part: slice) -> None:
        bounds[:, part] = np.quantile(draws[:, own, None] - draws[:, part], tails, axis=0)

    in_threads(bound, [slice(start, start + _TILE) for start in range(0, len(compared), _TILE)])
    means = draws.mean(axis=0)
    table = pd.DataFrame(
        {
            "school": [names[k] for k in compared],
            "probability": chance_above_each(draws, own),
            "difference": means[own] - means,
            "lower": bounds[0],
            "upper": bounds[1],
        }
    )
    nearest = np.argsort(np.abs(means[own] - means), kind="stable")
    open_order = (bounds[0] <= 0.0) & (bounds[1] >= 0.0) & (np.arange(len(compared)) != own)
    kept: pd.DataFrame = table.iloc[nearest[open_order[nearest]]].reset_index(drop=True)
    return kept


def _unpack(
    effects: SchoolEffects | FloatArray, measure: str, schools: Sequence[str] | None, unit: str
) -> tuple[list[str], FloatArray, str, str]:
    if isinstance(effects, SchoolEffects):
        attrs = effects.attrs
        return effects.schools, effects.draws(measure), str(attrs.get("unit", unit)), str(attrs.get("assumes") or "")
    draws = draw_table(effects)
    names = school_names(schools, draws.shape[1])
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"the name {twice!r} stands for several schools", "Give each school a name of its own.")
    return names, draws, unit, ""


def _position(school: str, names: Sequence[str]) -> int:
    if str(school) in names:
        return names.index(str(school))
    near = difflib.get_close_matches(str(school), names, n=1)
    raise InputError(f"no school {school!r}", f"The nearest name is {near[0]!r}." if near else "No name is near it.")


def _refuse_missing(school: str, values: FloatArray) -> None:
    if not np.isfinite(values).all():
        raise InputError(f"school {school} cannot be compared with others", "The column flag of its effects says why.")


def _tails(coverage: float) -> list[float]:
    check_fraction(coverage, "coverage")
    return [(1.0 - coverage) / 2.0, (1.0 + coverage) / 2.0]


def _probability(p: float) -> str:
    if p > _EXTREME:
        return "above .99"
    return "below .01" if p < 1.0 - _EXTREME else f"{p:.2f}".removeprefix("0")
