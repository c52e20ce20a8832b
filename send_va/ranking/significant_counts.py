"""How many units lie significantly above and below each unit, by critical values from draws of the sampling errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from send_va.ranking import rank_set_kernels as kernels
from send_va.ranking import step_down_kernels as step
from send_va.ranking.noisy_estimates import NoisyEstimates
from send_va.ranking.threads import in_threads

Counts = NDArray[np.int64]

_DRAWS_AT_A_TIME = 128
_UNITS_AT_A_TIME = 64


@dataclass(frozen=True)
class Quantile:
    """Where a quantile lies among sorted draws: between `order` and the next, by linear interpolation (type 7)."""

    order: int
    fraction: float

    @classmethod
    def of(cls, coverage: float, draws: int) -> Quantile:
        """The place of the quantile `coverage` among `draws` numbers."""
        place = (draws - 1) * coverage
        return cls(int(place), place - int(place))


def simultaneous_counts(
    units: NoisyEstimates, z: NDArray[np.float32], quantile: Quantile, stepdown: bool
) -> tuple[Counts, Counts]:
    """Units significantly above and below each unit, by one critical value for all ordered pairs."""
    spread = units.spread
    maxima = np.empty(len(z))
    above, below = np.empty(len(z), np.int32), np.empty(len(z), np.int32)
    largest = kernels.pair_maxima if spread.ndim == 1 else kernels.pair_maxima_dependent
    starts = range(0, len(z), _DRAWS_AT_A_TIME)

    def first_pass(block: int) -> None:
        rows = slice(starts[block], starts[block] + _DRAWS_AT_A_TIME)
        largest(z[rows], spread, maxima[rows], above[rows], below[rows])

    in_threads(first_pass, range(len(starts)))
    open_up_to, rejected = np.inf, 0
    while True:
        limit = _open_limit(units, z, spread, quantile, open_up_to, (maxima, above, below))
        counts = _significant(units, spread, limit)
        total = int(counts[0].sum())
        if not stepdown or total == rejected:
            return counts
        open_up_to, rejected = limit, total


def _open_limit(
    units: NoisyEstimates,
    z: NDArray[np.float32],
    spread: NDArray[np.float64],
    quantile: Quantile,
    open_up_to: float,
    largest: tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.int32]],
) -> float:
    """Squared critical value over open pairs; brings those of the `largest` up to date that it depends on."""
    maxima, above, below = largest
    while True:
        low, limit = step.root_quantile(maxima, quantile.order, quantile.fraction)
        if np.isinf(open_up_to):
            return float(limit)
        difference = units.values[above] - units.values[below]
        variance = spread[above] + spread[below] if spread.ndim == 1 else spread[above, below]
        closed = difference * np.abs(difference) / variance > open_up_to
        stale = np.flatnonzero((maxima >= low) & closed & (above != kernels.NO_PARTNER))
        if not len(stale):
            return float(limit)
        pieces = np.array_split(stale, max(1, len(stale) // 16))

        def renew(piece: int, pieces: list[NDArray[np.intp]] = pieces) -> None:
            step.open_pair_maxima(z, spread, units.values, open_up_to, pieces[piece], maxima, above, below)

        in_threads(renew, range(len(pieces)))


def _significant(units: NoisyEstimates, spread: NDArray[np.float64], limit: float) -> tuple[Counts, Counts]:
    above, below = np.empty(units.n, np.int64), np.empty(units.n, np.int64)

    def count(tile: int) -> None:
        rows = slice(tile * _UNITS_AT_A_TIME, (tile + 1) * _UNITS_AT_A_TIME)
        kernels.count_significant(units.values, spread, limit, rows.start, above[rows], below[rows])

    in_threads(count, range(-(-units.n // _UNITS_AT_A_TIME)))
    return above, below


def marginal_counts(
    units: NoisyEstimates, z: NDArray[np.float32], quantile: Quantile, stepdown: bool, sides: tuple[bool, bool]
) -> tuple[Counts, Counts]:
    """Units significantly above and below each unit, by a critical value of its own for the pairs it belongs to.

    `sides`: whether the pairs with the unit above count, and those with it below.
    """
    spread, n, draws = units.spread, units.n, len(z)
    starts, members = candidates(z) if spread.ndim == 1 else (np.zeros(0, np.int64), np.zeros(0, np.int32))
    extremes = _extremes(z)
    above, below = np.empty(n, np.int64), np.empty(n, np.int64)

    def count(tile: int) -> None:
        rows = slice(tile * _UNITS_AT_A_TIME, min(n, (tile + 1) * _UNITS_AT_A_TIME))
        maxima = np.empty((rows.stop - rows.start, draws))
        partner = np.empty(maxima.shape, np.int32)
        if spread.ndim == 1:
            kernels.unit_maxima(z, spread, starts, members, rows.start, sides, maxima, partner)
        else:
            kernels.unit_maxima_dependent(z, spread, rows.start, sides, maxima, partner)
        step.unit_counts(
            z,
            extremes,
            spread,
            units.values,
            rows.start,
            sides,
            stepdown,
            (quantile.order, quantile.fraction),
            maxima,
            partner,
            above[rows],
            below[rows],
        )

    in_threads(count, range(-(-n // _UNITS_AT_A_TIME)))
    return above, below


def candidates(z: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Units that can win in each draw: running maxima, then running minima, and where each list starts."""
    counts = np.empty(2 * len(z), np.int64)
    blocks = range(0, len(z), _DRAWS_AT_A_TIME)

    def count(block: int) -> None:
        first = blocks[block]
        kernels.count_candidates(
            z[first : first + _DRAWS_AT_A_TIME], counts[2 * first : 2 * (first + _DRAWS_AT_A_TIME)]
        )

    in_threads(count, range(len(blocks)))
    starts = np.concatenate([[0], np.cumsum(counts)])
    members = np.empty(starts[-1], np.int32)

    def fill(block: int) -> None:
        first = blocks[block]
        kernels.fill_candidates(
            z[first : first + _DRAWS_AT_A_TIME], starts[2 * first : 2 * (first + _DRAWS_AT_A_TIME) + 1], members
        )

    in_threads(fill, range(len(blocks)))
    return starts, members


def _extremes(z: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lowest and highest value of each block of units in each draw."""
    shape = (len(z), -(-z.shape[1] // step.BLOCK))
    lowest, highest = np.empty(shape, np.float32), np.empty(shape, np.float32)
    step.block_extremes(z, lowest, highest)
    return lowest, highest
