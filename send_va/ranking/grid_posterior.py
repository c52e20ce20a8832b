"""Posteriors of units on a grid of values: moments, intervals and draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from send_va.effects import FloatArray
from send_va.ranking.estimate_inputs import check_fraction

_BLOCK = 8_192  # units worked on at once
_ROUNDING = 1e-12  # of cumulated weights


@dataclass(frozen=True)
class Posterior:
    """What is known of each unit's effect, on the grid of the prior.

    Attributes
    ----------
    grid : array (points,)
        Values of the effect, increasing.
    weights : array (units, points)
        Probability of each value for each unit; rows sum to one.
    """

    grid: FloatArray
    weights: FloatArray

    @property
    def mean(self) -> FloatArray:
        """Posterior mean of each unit."""
        return np.asarray(self.weights @ self.grid)

    @property
    def sd(self) -> FloatArray:
        """Posterior standard deviation of each unit."""
        mean, variance = self.mean, np.empty(len(self.weights))
        for start in range(0, len(variance), _BLOCK):
            rows = slice(start, start + _BLOCK)
            variance[rows] = np.sum(self.weights[rows] * (self.grid - mean[rows, None]) ** 2, axis=1)
        return np.sqrt(variance)

    def interval(self, coverage: float = 0.95) -> tuple[FloatArray, FloatArray]:
        """Equal-tailed interval of each unit: its lower and its upper ends, both grid points."""
        check_fraction(coverage, "coverage")
        up_to = np.cumsum(self.weights, axis=1)
        tail = (1.0 - coverage) / 2.0
        lower = self.grid[np.argmax(up_to >= tail, axis=1)]
        upper = self.grid[np.argmax(up_to >= 1.0 - tail - _ROUNDING, axis=1)]
        return lower, upper

    def draws(self, draws: int, rng: np.random.Generator) -> FloatArray:
        """Independent draws of every unit's effect, shape (draws, units)."""
        out = np.empty((draws, len(self.weights)))
        for unit, row in enumerate(self.weights):
            cumulative = np.cumsum(row)
            at = np.searchsorted(cumulative, rng.random(draws) * cumulative[-1], side="right")
            out[:, unit] = self.grid[np.minimum(at, len(self.grid) - 1)]
        return out
