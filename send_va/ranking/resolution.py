"""How finely the data can tell schools apart: strata, and the longest chain of schools of which all pairs separate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from send_va.effects import FloatArray, SchoolEffects
from send_va.errors import InputError
from send_va.ranking.draw_places import checked_draws, draw_table, school_names
from send_va.ranking.estimate_inputs import check_fraction
from send_va.ranking.pairwise_from_draws import chance_above_each


@dataclass(frozen=True)
class Resolution:
    """How finely schools can be told apart.

    Attributes
    ----------
    separation : float
        G, SD between schools over the error of one: infinite without error, 0 where schools do not differ.
    reliability : float
        ``G**2 / (1 + G**2)``: share of the variance between schools that is known.
    strata : float
        ``(4 G + 1) / 3``: levels whose centres lie three errors apart, within two SD of the average.
    chain : tuple of str
        Schools from the highest down, each pair of them separated at the coverage.
    coverage : float
    n_schools : int
    """

    separation: float
    reliability: float
    strata: float
    chain: tuple[str, ...]
    coverage: float
    n_schools: int

    def __str__(self) -> str:
        levels = "any number of" if math.isinf(self.strata) else f"{self.strata:.1f}"
        return (
            f"{self.n_schools:,} schools: separation {self.separation:.2f} (reliability {self.reliability:.2f}), "
            f"{levels} strata; at most {len(self.chain)} schools found of which every pair is separated at "
            f"{self.coverage:.0%}"
        )

    def _repr_html_(self) -> str:
        return f"<p>{self}</p>"


def resolution(
    effects: SchoolEffects | FloatArray,
    *,
    measure: str = "theta",
    coverage: float = 0.95,
    schools: Sequence[str] | None = None,
) -> Resolution:
    """Estimate how many groups of schools the draws can tell apart.

    Separation is the SD of the schools' means over the root mean square of their SDs: with normal effects of SD tau and
    errors of SD s both shrink by the same factor, so that it estimates tau / s.

    The chain is built as intervals are scheduled: of the schools still separated from every one taken, the next is the
    one whose interval ends highest. Each step asks the draws themselves (P of at least 1 - (1 - coverage) / 2), errors
    that schools share included. Where differences are independent and equally precise no chain is longer; otherwise it
    is a chain that exists, and a longer one may.

    Parameters
    ----------
    effects : SchoolEffects, or array of shape (draws, schools)
        Schools that cannot be compared are left out.
    measure : str
        Which measure of SchoolEffects.
    coverage : float
        Of the interval of each difference.
    schools : sequence of str, optional
        Names of the columns, where draws are given.

    Returns
    -------
    Resolution
        Publishing more groups than there are strata claims distinctions that the data do not hold: five groups need a
        separation of 3.5, a reliability of .92.

    Raises
    ------
    InputError
        Fewer than two schools or draws, or a coverage outside (0, 1).

    References
    ----------
    Wright & Masters (1982), Rating Scale Analysis, MESA Press, pp. 92, 106.
    Goldstein & Healy (1995), doi:10.2307/2983411.

    Examples
    --------
    >>> draws = np.random.default_rng(1).normal([0.0, 0.2, 4.0, 8.0], 1.0, (500, 4))
    >>> resolution(draws, schools=["A", "B", "C", "D"]).chain
    ('D', 'C', 'B')
    """
    check_fraction(coverage, "coverage")
    if isinstance(effects, SchoolEffects):
        schools, effects = effects.schools, effects.draws(measure)
    values = draw_table(effects)
    compared = np.flatnonzero(np.isfinite(values).all(axis=0))
    names = school_names(schools, values.shape[1])
    draws = checked_draws(values if len(compared) == len(names) else values[:, compared])
    if draws.shape[0] < 2:
        raise InputError("one draw says nothing of error", "Give many draws.")
    mean, sd = draws.mean(axis=0), draws.std(axis=0, ddof=1)
    between, error = float(mean.std(ddof=1)), float(np.sqrt(np.mean(sd**2)))
    g = between / error if error > 0.0 else (math.inf if between > 0.0 else 0.0)
    reliability = 1.0 if math.isinf(g) else g * g / (1.0 + g * g)
    chain = tuple(names[compared[k]] for k in _longest_chain(draws, mean, sd, coverage))
    return Resolution(g, reliability, (4.0 * g + 1.0) / 3.0, chain, coverage, len(mean))


def _longest_chain(draws: FloatArray, mean: FloatArray, sd: FloatArray, coverage: float) -> list[int]:
    """Positions of schools from the highest down, every pair separated."""
    needed = (1.0 + coverage) / 2.0
    # intervals of this multiple do not overlap where a difference of two equal errors is significant (Goldstein-Healy)
    low_end = mean - float(ndtri(needed)) / math.sqrt(2.0) * sd
    open_ = np.ones(len(mean), dtype=bool)
    chain: list[int] = []
    while open_.any():
        candidates = np.flatnonzero(open_)
        chosen = int(candidates[np.argmax(low_end[candidates])])
        chain.append(chosen)
        open_ &= chance_above_each(draws, chosen) >= needed
        open_[chosen] = False
    return chain
