"""Scales on which funnel limits are drawn: values to a scale with known standard errors and back, and exact limits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, bdtrc, ndtr, pdtr, pdtrc

from send_va.effects import FloatArray

Kind = Literal["proportion", "ratio", "mean"]
Method = Literal["exact", "transformed", "score"]


@dataclass(frozen=True)
class FunnelScale:
    """Where values have a standard error that depends on the denominator and the target alone.

    Attributes
    ----------
    kind, method : str
        Exact limits use the transformed scale for z scores.
    target : float
        In the unit of the values.
    """

    kind: Kind
    method: Method
    target: float

    @property
    def _linear(self) -> bool:
        return self.kind == "mean" or self.method == "score"

    def forward(self, value: FloatArray | float) -> FloatArray:
        """Values on the scale: arcsine of the root of a proportion, root of a ratio, or themselves."""
        array = np.asarray(value, dtype=float)
        if self._linear:
            return array
        return np.arcsin(np.sqrt(array)) if self.kind == "proportion" else np.sqrt(array)

    def back(self, scaled: FloatArray) -> FloatArray:
        """Values of scaled values, held within what values can be."""
        if self.kind == "mean":
            return scaled
        if self._linear:
            return np.clip(scaled, 0.0, 1.0 if self.kind == "proportion" else np.inf)
        if self.kind == "proportion":
            return np.asarray(np.sin(np.clip(scaled, 0.0, 0.5 * math.pi)) ** 2)
        return np.maximum(scaled, 0.0) ** 2

    def standard_error(self, denominator: FloatArray) -> FloatArray:
        """Standard error on the scale of a unit at the target, shape (units,)."""
        if self.kind == "mean":
            return 1.0 / np.sqrt(denominator)
        if not self._linear:
            return 0.5 / np.sqrt(denominator)
        spread = self.target * (1.0 - self.target) if self.kind == "proportion" else self.target
        return np.sqrt(spread / denominator)

    def limits(self, se: FloatArray, z: float) -> tuple[FloatArray, FloatArray]:
        """Lower and upper limit `z` (inflated) standard errors from the target."""
        middle = self.forward(self.target)
        return self.back(middle - z * se), self.back(middle + z * se)

    def exact_limits(self, denominator: FloatArray, z: float) -> tuple[FloatArray, FloatArray]:
        """Limits from the binomial or Poisson distribution at the target, interpolated between counts.

        A limit is ``(r - a) / denominator``: r is the first count at which the distribution function reaches the
        probability of `z`, and a the share of r's probability by which it passes it (Spiegelhalter 2005, appendix).
        Limits do not pass the target.
        """
        tail = float(ndtr(-z))
        if self.kind == "proportion":
            count = np.rint(denominator)
            whole = count.astype(np.intp)

            def below(r: FloatArray) -> FloatArray:
                return np.where(r < 0.0, 0.0, bdtr(np.maximum(r, 0.0), whole, self.target))

            def above(r: FloatArray) -> FloatArray:
                return np.where(r < 0.0, 1.0, bdtrc(np.maximum(r, 0.0), whole, self.target))

            most = count
        else:
            expected = self.target * denominator

            def below(r: FloatArray) -> FloatArray:
                return np.where(r < 0.0, 0.0, pdtr(np.maximum(r, 0.0), expected))

            def above(r: FloatArray) -> FloatArray:
                return np.where(r < 0.0, 1.0, pdtrc(np.maximum(r, 0.0), expected))

            most = np.ceil(expected + (z + 10.0) * np.sqrt(expected) + (z + 10.0) ** 2)

        low = _first(lambda r: below(r) >= tail, most)
        high = _first(lambda r: above(r) <= tail, most)
        low_share = (below(low) - tail) / _positive(below(low) - below(low - 1.0))
        high_share = (tail - above(high)) / _positive(above(high - 1.0) - above(high))
        lower = np.maximum(low - low_share, 0.0) / denominator
        upper = (high - high_share) / denominator
        return np.minimum(lower, self.target), np.maximum(upper, self.target)


def _positive(probability: FloatArray) -> FloatArray:
    return np.maximum(probability, np.finfo(float).tiny)


def _first(reached: Callable[[FloatArray], NDArray[np.bool_]], most: FloatArray) -> FloatArray:
    """Smallest count from 0 to `most` at which a condition that stays true once true is true, by bisection."""
    low, high = np.full(len(most), -1.0), most.astype(float)
    while np.any(high - low > 1.0):
        middle = np.floor(0.5 * (low + high))
        yes = reached(middle)
        high = np.where(yes & (middle > low), middle, high)
        low = np.where(yes, low, middle)
    return high
