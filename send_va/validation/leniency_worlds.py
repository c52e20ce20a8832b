"""Simulated labels of pupils before transfer and now, for the size and the power of the check of leniency."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from send_va.errors import InputError
from send_va.validation.label_pairs import LabelPairs


@dataclass(frozen=True)
class LeniencyWorld:
    """Schools, feeders and two labels of every pupil. All in SDs of unexplained need.

    Attributes
    ----------
    schools, pupils, feeders : int
        Pupils are of one school; feeders are scattered over all of them, fifteen a school.
    correlation : float
        Of leniency with intake need: the violation.
    intake_sd, leniency_sd, feeder_sd : float
    feeder_reliability : float
        Share of the variance of feeders' leniency that is known.
    background_sd : float
        Of need that background explains.
    tau, tau_now, kappa, rho : float
        Thresholds; what need and a label before transfer say of the label now.
    """

    schools: int = 300
    pupils: int = 120
    feeders: int = 1500
    correlation: float = 0.0
    intake_sd: float = 0.3
    leniency_sd: float = 0.5
    feeder_sd: float = 0.5
    feeder_reliability: float = 0.6
    background_sd: float = 0.7
    tau: float = 1.2
    tau_now: float = 1.4
    kappa: float = 0.8
    rho: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a correlation there is not."""
        if not -1.0 < self.correlation < 1.0:
            raise InputError(f"the correlation must lie between -1 and 1, not {self.correlation}")

    def draw(self, rng: np.random.Generator) -> LabelPairs:
        """Draw schools, feeders and pupils, and count their pairs of labels."""
        intake = rng.standard_normal(self.schools)
        other = rng.standard_normal(self.schools)
        leniency = self.leniency_sd * (self.correlation * intake + np.sqrt(1.0 - self.correlation**2) * other)
        known = self.feeder_sd * np.sqrt(self.feeder_reliability) * rng.standard_normal(self.feeders)
        unknown = self.feeder_sd * np.sqrt(1.0 - self.feeder_reliability) * rng.standard_normal(self.feeders)
        school = np.repeat(np.arange(self.schools), self.pupils)
        of_school = rng.integers(self.feeders, size=(self.schools, 15))
        feeder = of_school[school, rng.integers(15, size=len(school))]
        background = self.background_sd * rng.standard_normal(len(school))
        need = background + self.intake_sd * intake[school] + rng.standard_normal(len(school))
        before = need + known[feeder] + unknown[feeder] > self.tau
        index = self.kappa * need + self.rho * before + leniency[school] - self.tau_now
        error = self.feeder_sd**2 * (1.0 - self.feeder_reliability)
        return LabelPairs.of(
            school=school,
            before=before,
            now=index + rng.standard_normal(len(school)) > 0.0,
            expected=background,
            leniency_before=known[feeder],
            error_variance=error,
            shared_variance=error * _in_common(school, feeder),
        )


def _in_common(school: NDArray[np.integer], feeder: NDArray[np.integer]) -> float:
    """Chance that two pupils of a school (a pupil with itself included) come from one feeder, over schools."""
    pairs, counts = np.unique(np.stack([school, feeder]), axis=1, return_counts=True)
    size = np.bincount(school)
    return float((np.bincount(pairs[0], weights=counts.astype(np.float64) ** 2) / size**2).mean())
