"""How much more units differ than their standard errors explain, by winsorised z scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from send_va.effects import FloatArray
from send_va.errors import InputError

Overdispersion = Literal["none", "additive", "multiplicative"]


@dataclass(frozen=True)
class Dispersion:
    """Overdispersion of z scores.

    Attributes
    ----------
    phi : float
        Mean square of the winsorised z scores. Without overdispersion it is about 1 unwinsorised and .68 with 10 %
        winsorised at each end: it finds less overdispersion than there is, and outliers the more readily.
    tau2 : float
        Variance between units beyond sampling, on the scale of the standard errors; 0 at least.
    """

    phi: float
    tau2: float


def winsorised(z: FloatArray, share: float) -> FloatArray:
    """Set the lowest and the highest `share` of z scores to the quantiles there (linear between order statistics)."""
    if share == 0.0:
        return z
    low, high = np.quantile(z, [share, 1.0 - share])
    return np.clip(z, low, high)


def dispersion(z: FloatArray, se: FloatArray, winsorise: float) -> Dispersion:
    """Mean square of z scores and the moment estimate of the variance between units.

    References
    ----------
    Spiegelhalter (2005), doi:10.1002/sim.1970; DerSimonian & Laird (1986), doi:10.1016/0197-2456(86)90046-2.
    """
    n = len(z)
    phi = float(np.mean(winsorised(z, winsorise) ** 2))
    # Sums of weights in units of the largest: 1 / se**4 may overflow.
    weight = (se.min() / se) ** 2
    room = float(weight.sum() - (weight**2).sum() / weight.sum()) / float(se.min()) ** 2
    return Dispersion(phi, max(0.0, (n * phi - (n - 1)) / room) if room > 0.0 else 0.0)


def inflated(se: FloatArray, found: Dispersion, overdispersion: str) -> FloatArray:
    """Standard errors with overdispersion counted; underdispersion is never."""
    if overdispersion == "additive":
        return np.sqrt(se**2 + found.tau2)
    return se * np.sqrt(max(found.phi, 1.0)) if overdispersion == "multiplicative" else se


def check_winsorise(winsorise: float) -> None:
    """Raise unless the winsorised share at each end lies in [0, .5)."""
    if not 0.0 <= winsorise < 0.5:
        raise InputError(f"winsorise must be at least 0 and below 0.5, not {winsorise}", "0 winsorises nothing.")
