"""Are ranks uniform? Exact simultaneous bands for the ECDF of integer ranks, and the test that goes with them.

A rank among L draws takes one of L + 1 values. The number of ranks below ``k`` of ``n`` is binomial with probability
``k / (L + 1)`` exactly, so a band evaluated at the edges between values (or between bins of equally many values) knows
about discreteness. Counts at successive edges are those of a Poisson process given its total: the probability that all
of them lie within limits is a product of truncated convolutions, with no simulation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from send_va.errors import InputError

Floats = NDArray[np.float64]
Integers = NDArray[np.integer]

FEWEST_SIMULATIONS = 20
_SAME = 1.0 + 1e-9  # tails that are equal in exact arithmetic differ by rounding
_CLEAR = 3.0  # standard errors beyond which a shift, or a wrong spread, is named
_HALVINGS = 40


@dataclass(frozen=True)
class RankUniformity:
    """Whether the ranks of every parameter are uniform, by simultaneous bands for their ECDF.

    Attributes
    ----------
    names : tuple of str, length p
    simulations : int
    draws : int
        Draws each rank was taken among; a rank is 0 to `draws`.
    confidence : float
        Probability that all parameters stay inside their bands when all are calibrated, by Bonferroni's bound.
    positions : array, shape (bins + 1,)
        Edges between bins as shares of the values, 0 to 1.
    differences : array, shape (bins + 1, p)
        ECDF of the ranks minus that of uniform ranks. Above zero on the left and below on the right: too narrow.
    lower, upper : array, shape (bins + 1,)
        Band of the differences.
    p_values : array, shape (p,)
        Probability that uniform ranks touch the limits of the narrowest band that these ranks leave. Exact but for
        rounding, which bounds it from below at about 1e-12.
    excursions, at : array, shape (p,)
        Difference at the edge where it is least probable, and that edge.
    shift, spread : array, shape (p,)
        Mean and variance of the ranks against uniform ones, in standard errors. A positive shift: posterior too low;
        a positive spread: posterior too narrow.
    """

    names: tuple[str, ...]
    simulations: int
    draws: int
    confidence: float
    positions: Floats
    differences: Floats
    lower: Floats
    upper: Floats
    p_values: Floats
    excursions: Floats
    at: Floats
    shift: Floats
    spread: Floats

    @property
    def threshold(self) -> float:
        """P-value below which one parameter is outside its band: ``(1 - confidence) / p``."""
        return (1.0 - self.confidence) / len(self.names)

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Which parameters stay inside their band, shape (p,)."""
        return np.asarray(self.p_values > self.threshold)

    @property
    def uniform(self) -> bool:
        """Whether all parameters stay inside."""
        return bool(self.inside.all())

    def table(self) -> pd.DataFrame:
        """One row a parameter.

        Returns
        -------
        DataFrame
            parameter, simulations, p_value, threshold, excursion, at, shift, spread, inside, diagnosis (``uniform``, or
            what the shape of the ranks says of the posterior).
        """
        return pd.DataFrame(
            {
                "parameter": self.names,
                "simulations": self.simulations,
                "p_value": self.p_values,
                "threshold": self.threshold,
                "excursion": self.excursions,
                "at": self.at,
                "shift": self.shift,
                "spread": self.spread,
                "inside": self.inside,
                "diagnosis": [
                    "uniform" if inside else _shape(shift, spread)
                    for inside, shift, spread in zip(self.inside, self.shift, self.spread, strict=True)
                ],
            }
        )

    def __str__(self) -> str:
        outside = int((~self.inside).sum())
        said = "every parameter inside its band" if not outside else f"{outside} of {len(self.names)} outside"
        head = (
            f"Ranks of {self.simulations} simulations among {self.draws} draws: {said} ({self.confidence:.0%} jointly)"
        )
        return f"{head}\n{self.table().to_string(index=False, float_format='{:.4g}'.format)}"

    def _repr_html_(self) -> str:
        return str(self.table().to_html(index=False))


def rank_uniformity(
    ranks: Integers,
    draws: int,
    names: Sequence[str],
    *,
    confidence: float = 0.99,
    bins: int | None = None,
) -> RankUniformity:
    """Test whether integer ranks are uniform, for several parameters at once.

    Parameters
    ----------
    ranks : integer array, shape (simulations, p)
        How many of `draws` lie below the truth; ties broken at random.
    draws : int
        L; ranks are 0 to L.
    names : sequence of str, length p
    confidence : float, default 0.99
        Joint probability of staying inside all bands when every parameter is calibrated; each band is at
        ``1 - (1 - confidence) / p``, which holds whatever the dependence between parameters.
    bins : int, optional
        Bins of equally many values, between which the ECDF is evaluated; every value on its own by default. Must divide
        L + 1.

    Returns
    -------
    RankUniformity
        ``inside`` is the answer; ``table()`` says in words what is wrong. Staying inside is no proof: with ten
        parameters and n simulations the band reaches ``2 / sqrt(n)`` either way in the middle.

    Raises
    ------
    InputError
        Fewer than 20 simulations; ranks that are not integers from 0 to L; bins that do not divide L + 1; as many names
        as columns were not given; a confidence outside (0, 1).

    References
    ----------
    Sailynoja, Buerkner & Vehtari (2022), doi:10.1007/s11222-022-10090-6 (simultaneous bands from pointwise ones).
    Moscovich & Nadler (2017), doi:10.1016/j.spl.2016.11.027 (exact crossing probabilities by Poisson convolution).

    Examples
    --------
    >>> import numpy as np
    >>> ranks = np.random.default_rng(1).integers(0, 100, (200, 2))
    >>> ranks[:, 1] = ranks[:, 1] // 2 + 25
    >>> rank_uniformity(ranks, 99, ["mu", "tau"]).table()[["parameter", "diagnosis"]]
      parameter           diagnosis
    0        mu             uniform
    1       tau  posterior too wide
    """
    checked = _checked(ranks, draws, names, confidence)
    bins = draws + 1 if bins is None else bins
    if not 2 <= bins <= draws + 1 or (draws + 1) % bins:
        raise InputError(
            f"{bins} bins do not hold equally many of the {draws + 1} values a rank among {draws} draws can take",
            f"Choose a divisor of {draws + 1}, from 2 on.",
        )
    simulations, p = checked.shape
    edges = np.arange(1, bins)
    binned = checked * bins // (draws + 1)
    counts = (binned[:, :, None] < edges).sum(axis=0)  # (p, bins - 1)
    tails = _tails(simulations, bins)
    rarity = tails[np.arange(bins - 1), counts]  # (p, bins - 1)
    worst = rarity.argmin(axis=1)
    lower, upper = limits(simulations, bins, _pointwise_level(simulations, bins, (1.0 - confidence) / p))
    positions = np.arange(bins + 1) / bins
    ecdf = np.column_stack([np.zeros(p), counts / simulations, np.ones(p)]).T
    differences = ecdf - positions[:, None]
    shift, spread = _moments(binned, bins)
    return RankUniformity(
        names=tuple(names),
        simulations=simulations,
        draws=draws,
        confidence=confidence,
        positions=positions,
        differences=differences,
        lower=np.concatenate([[0.0], lower / simulations, [1.0]]) - positions,
        upper=np.concatenate([[0.0], upper / simulations, [1.0]]) - positions,
        p_values=np.array([crossing_probability(simulations, bins, float(row.min())) for row in rarity]),
        excursions=differences[worst + 1, np.arange(p)],
        at=positions[worst + 1],
        shift=shift,
        spread=spread,
    )


def _checked(ranks: Integers, draws: int, names: Sequence[str], confidence: float) -> Integers:
    if ranks.ndim != 2 or ranks.shape[1] != len(names) or not len(names):
        raise InputError(f"ranks of shape {ranks.shape} do not fit {len(names)} names", "Give (simulations, names).")
    if len(ranks) < FEWEST_SIMULATIONS:
        raise InputError(
            f"{len(ranks)} simulations cannot show whether ranks are uniform", f"Run {FEWEST_SIMULATIONS} or more."
        )
    if not np.issubdtype(ranks.dtype, np.integer):
        raise InputError(f"ranks must be integers, not {ranks.dtype}", "Count the draws below the truth.")
    wrong = (ranks < 0) | (ranks > draws)
    if wrong.any():
        values = sorted(set(ranks[wrong].tolist()))[:10]
        columns = ", ".join(name for name, bad in zip(names, wrong.any(axis=0), strict=True) if bad)
        raise InputError(f"ranks among {draws} draws are 0 to {draws}, but {columns} has {values}", "Check `draws`.")
    if not 0.0 < confidence < 1.0:
        raise InputError(f"confidence must lie between 0 and 1, not {confidence}")
    return ranks


@lru_cache(maxsize=32)
def _tails(simulations: int, bins: int) -> Floats:
    """Two-sided tail probability of every count (bins - 1, simulations + 1) at every edge: twice the smaller tail."""
    probability = np.arange(1, bins)[:, None] / bins
    counts = np.arange(simulations + 1)
    below = stats.binom.cdf(counts, simulations, probability)
    above = stats.binom.sf(counts - 1, simulations, probability)
    return np.asarray(2.0 * np.minimum(below, above))


def limits(simulations: int, bins: int, level: float) -> tuple[Integers, Integers]:
    """Lowest and highest count at every edge whose two-sided tail is above `level`, each of shape (bins - 1,).

    Where there is none, the lowest is above the highest.
    """
    allowed = _tails(simulations, bins) > level * _SAME
    if not allowed.any(axis=1).all():
        return np.ones(bins - 1, dtype=np.intp), np.zeros(bins - 1, dtype=np.intp)
    return allowed.argmax(axis=1), simulations - allowed[:, ::-1].argmax(axis=1)


def probability_within(simulations: int, lower: Integers, upper: Integers) -> float:
    """Probability that uniform ranks have counts within limits at every edge.

    Parameters
    ----------
    simulations : int
    lower, upper : integer array, shape (bins - 1,)
        Counts of ranks below each edge, limits included.

    Returns
    -------
    float

    Examples
    --------
    >>> probability_within(2, np.array([1]), np.array([1]))  # one of two ranks in either half
    0.5
    """
    bins = len(lower) + 1
    lower, upper = np.maximum.accumulate(lower), np.minimum.accumulate(upper[::-1])[::-1]  # counts never fall
    if (lower > upper).any():
        return 0.0
    increment = stats.poisson.pmf(np.arange(simulations + 1), simulations / bins)
    state, first = np.ones(1), 0
    for low, high in zip(lower.tolist(), upper.tolist(), strict=True):
        reach = np.convolve(state, increment[: high - first + 1])
        state, first = reach[max(low - first, 0) : high - first + 1], max(low, first)
    left = simulations - first - np.arange(len(state))
    return float(state @ increment[left] / stats.poisson.pmf(simulations, simulations))


def crossing_probability(simulations: int, bins: int, level: float) -> float:
    """Probability that uniform ranks somewhere have a count whose two-sided tail is `level` or less."""
    within = probability_within(simulations, *limits(simulations, bins, level)) if level < 1.0 else 0.0
    return float(np.clip(1.0 - within, 0.0, 1.0))


@lru_cache(maxsize=32)
def _pointwise_level(simulations: int, bins: int, alpha: float) -> float:
    """Largest pointwise level whose band uniform ranks leave with probability `alpha` at most."""
    low, high = 0.0, alpha
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if crossing_probability(simulations, bins, middle) <= alpha:
            low = middle
        else:
            high = middle
    return low


def _moments(binned: Integers, bins: int) -> tuple[Floats, Floats]:
    """Mean and variance of ranks against discrete uniform ones, in standard errors, each of shape (p,)."""
    value = (np.arange(bins) + 0.5) / bins - 0.5
    square = value**2
    n = len(binned)
    shift = value[binned].mean(axis=0) / np.sqrt(square.mean() / n)
    variance = square.var()
    if variance < 1e-12:  # two bins tell a shift only
        return np.asarray(shift), np.zeros(binned.shape[1])
    return np.asarray(shift), np.asarray((square[binned].mean(axis=0) - square.mean()) / np.sqrt(variance / n))


def _shape(shift: float, spread: float) -> str:
    """What ranks that are not uniform say of the posterior, the clearer deviation first."""
    said = []
    if abs(spread) > _CLEAR:
        said.append((abs(spread), "too narrow" if spread > 0 else "too wide"))
    if abs(shift) > _CLEAR:
        said.append((abs(shift), "shifted down" if shift > 0 else "shifted up"))
    if not said:
        return "not uniform, neither shifted nor too narrow or wide"
    return "posterior " + " and ".join(words for _, words in sorted(said, reverse=True))
