"""Simulated schools for the size and the power of checks on cohorts: violations of a named kind and a stated size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from send_va.errors import InputError
from send_va.validation.corrected_regression import Floats
from send_va.validation.falsification import PupilScores
from send_va.value_added.year_estimates import YearEstimates, diagonal

Violation = Literal["none", "sorting", "baseline", "drift"]
VIOLATIONS: dict[Violation, str] = {
    "none": "assumptions hold",
    "sorting": "intakes differ in need that is not observed, by an SD of x pupil SDs of need between schools",
    "baseline": "schools move the baseline of their own pupils, by an SD of x pupil SDs between schools",
    "drift": "effects of a school in two cohorts one year apart correlate 1 - x",
}
FIRST_YEAR = 2019


@dataclass(frozen=True)
class FalsificationWorld:
    """Schools whose pupils have a noisy prior score, an earlier score and an outcome. All in SDs of true scores.

    Attributes
    ----------
    schools, pupils, cohorts : int
        Pupils a school and cohort.
    reliability : float
        Of the prior score.
    violation : str
        A key of ``VIOLATIONS``.
    amount : float
        Its size x.
    effect_sd : float
        Of effects of schools, per pupil SD.
    intake_sd : float
        Of mean true prior scores between schools: .45 is a fifth of the variance.
    prior_slope : float
        Of true prior scores in outcome and earlier score alike.
    need_slope : float
        Of unobserved need, given true prior scores, in outcome and earlier score alike.
    """

    schools: int = 300
    pupils: int = 30
    cohorts: int = 2
    reliability: float = 1.0
    violation: Violation = "none"
    amount: float = 0.0
    effect_sd: float = 0.2
    intake_sd: float = 0.45
    prior_slope: float = 0.7
    need_slope: float = -0.25

    def __post_init__(self) -> None:
        """Refuse worlds there are not."""
        if self.violation not in VIOLATIONS:
            raise InputError(f"there is no violation {self.violation!r}", f"Use one of {', '.join(VIOLATIONS)}.")
        if not 0.0 < self.reliability <= 1.0:
            raise InputError(f"reliability must be above 0 and at most 1, not {self.reliability}")
        if self.violation == "drift" and not 0.0 <= self.amount <= 1.0:
            raise InputError(f"drift must lie between 0 and 1, not {self.amount}")

    def draw(self, rng: np.random.Generator) -> SimulatedPupils:
        """Draw schools and their pupils."""
        size = (self.schools, self.cohorts, self.pupils)

        def at_random(sd: float = 1.0) -> Floats:
            return np.asarray(sd * rng.standard_normal(size))

        def by_school(sd: float) -> Floats:
            return np.asarray(sd * rng.standard_normal((self.schools, 1, 1)))

        true = by_school(self.intake_sd) + at_random(float(np.sqrt(1.0 - self.intake_sd**2)))
        need = at_random() + by_school(self._size("sorting"))
        effect = self._effects(rng)
        noise = np.sqrt(1.0 - self.prior_slope**2 - self.need_slope**2)
        known = self.prior_slope * true + self.need_slope * need
        earlier = known + at_random(noise)
        outcome = known + effect[:, :, None] + at_random(noise)
        error = np.sqrt((1.0 - self.reliability) / self.reliability)
        prior = true + at_random(error) + by_school(self._size("baseline"))
        school, fold = np.indices(size[:2])
        return SimulatedPupils(
            self,
            np.repeat(school.ravel(), self.pupils),
            np.repeat(fold.ravel(), self.pupils),
            earlier.ravel(),
            prior.ravel(),
            outcome.ravel(),
            effect,
        )

    def _size(self, violation: Violation) -> float:
        return self.amount if self.violation == violation else 0.0

    def _effects(self, rng: np.random.Generator) -> Floats:
        """By school and cohort, an AR(1) sequence with the same spread in every cohort."""
        persistence = 1.0 - self._size("drift")
        path = [rng.standard_normal(self.schools)]
        for _ in range(self.cohorts - 1):
            fresh = rng.standard_normal(self.schools)
            path.append(persistence * path[-1] + np.sqrt(1.0 - persistence**2) * fresh)
        return np.asarray(self.effect_sd * np.stack(path, axis=1))


@dataclass(frozen=True, eq=False)
class SimulatedPupils:
    """Pupils of one simulated world: codes and scores are (n,), true effects (schools, cohorts)."""

    world: FalsificationWorld
    school: NDArray[np.int64]
    fold: NDArray[np.int64]
    earlier: Floats
    prior: Floats
    outcome: Floats
    effect: Floats

    def scores(self, *, corrected: bool) -> PupilScores:
        """For the test; uncorrected, the prior score is taken to have no error."""
        return PupilScores.of(
            school=self.school,
            fold=self.fold,
            earlier=self.earlier,
            prior=self.prior[:, None],
            reliability=self.world.reliability if corrected else 1.0,
        )

    def year_estimates(self) -> YearEstimates:
        """Estimates of every school in every cohort, with the true slope held constant, and their error."""
        world = self.world
        shape = (world.schools, world.cohorts, world.pupils)
        left = (self.outcome - world.prior_slope * self.prior).reshape(shape)
        estimate = left.mean(axis=2)
        within = float(((left - estimate[:, :, None]) ** 2).sum() / (estimate.size * (world.pupils - 1)))
        counts = np.full(estimate.shape, world.pupils)
        return YearEstimates(
            schools=tuple(str(k) for k in range(world.schools)),
            years=FIRST_YEAR + np.arange(world.cohorts),
            estimate={"theta": estimate},
            error={"theta": diagonal(np.full(estimate.shape, within / world.pupils))},
            n_pupils=counts,
            n_need=counts,
            not_compared=np.zeros(world.schools, dtype=bool),
            attrs={"estimator": "simulated", "context": "prior", "synthetic": 1},
        )
