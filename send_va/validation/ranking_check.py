"""Do rank sets and grades keep their promises? Simulated schools whose true order is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import expon, norm

from send_va.errors import InputError
from send_va.ranking.confidence_sets import confidence_sets
from send_va.ranking.deconvolution import Prior, deconvolve
from send_va.ranking.grades import grades
from send_va.ranking.pairwise import pairwise_probabilities

Floats = NDArray[np.float64]
Shape = Literal["normal", "two groups", "skewed"]
PriorName = Literal["true", "normal", "spline"]
SHAPES: tuple[Shape, ...] = ("normal", "two groups", "skewed")
PRIORS: tuple[PriorName, ...] = ("true", "normal", "spline")
_GRID = np.linspace(-6.0, 12.0, 1801)  # SDs of effects; the tail of skewed ones is long
_HIGH, _APART = 0.15, 2.0  # share of the upper group, and how far it lies above the other
_WITHIN = np.sqrt(1.0 - _APART**2 * _HIGH * (1.0 - _HIGH))


@dataclass(frozen=True)
class RankingWorld:
    """Schools with independent estimates.

    Attributes
    ----------
    schools : int
    sd : float
        Of effects between schools, pupil SDs: .25 is a realistic signal.
    se : float
        Median standard error; a school's own is that times a factor between a half and two.
    shape : str
        Of the distribution of effects: ``normal``; ``two groups``, 15 % of schools two SDs above the others;
        ``skewed``, exponential.
    """

    schools: int = 300
    sd: float = 0.25
    se: float = 0.15
    shape: Shape = "normal"

    def __post_init__(self) -> None:
        """Refuse a shape there is not."""
        if self.shape not in SHAPES:
            raise InputError(f"there is no shape {self.shape!r}", f"Use one of {', '.join(SHAPES)}.")

    def draw(self, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
        """True effects, estimates and standard errors, each (schools,)."""
        theta = self.sd * self._standard(rng)
        se = self.se * 2.0 ** rng.uniform(-1.0, 1.0, self.schools)
        return theta, theta + se * rng.standard_normal(self.schools), se

    def prior(self) -> Prior:
        """The distribution that effects are drawn from."""
        density = {
            "normal": norm.pdf(_GRID),
            "skewed": expon.pdf(_GRID, loc=-1.0),
            "two groups": _HIGH * norm.pdf(_GRID, _APART * (1.0 - _HIGH), _WITHIN)
            + (1.0 - _HIGH) * norm.pdf(_GRID, -_APART * _HIGH, _WITHIN),
        }[self.shape]
        return _known(self.sd * _GRID, density)

    def _standard(self, rng: np.random.Generator) -> Floats:
        """Effects with mean 0 and SD 1."""
        if self.shape == "normal":
            return rng.standard_normal(self.schools)
        if self.shape == "skewed":
            return rng.exponential(1.0, self.schools) - 1.0
        high = rng.random(self.schools) < _HIGH
        return np.asarray(_APART * (high - _HIGH) + _WITHIN * rng.standard_normal(self.schools))


def check_rank_sets(
    world: RankingWorld, rng: np.random.Generator, *, coverage: float = 0.95, draws: int = 1000
) -> dict[str, float]:
    """Simultaneous rank sets of one simulated table of schools against the truth.

    Returns
    -------
    dict
        ``covered``: 1 if the sets of all schools hold their true ranks. ``no_false_separation``: 1 if no two schools
        with sets that do not overlap are in the wrong order. ``marginal``: share of schools whose marginal set holds
        its rank. ``width`` and ``marginal_width``: mean number of places in a set.
    """
    theta, estimate, se = world.draw(rng)
    seed = int(rng.integers(2**31))
    truth = (-theta).argsort().argsort() + 1
    lower, upper = _bounds(confidence_sets(estimate, se, coverage, draws=draws, seed=seed))
    own_lower, own_upper = _bounds(confidence_sets(estimate, se, coverage, simultaneous=False, draws=draws, seed=seed))
    apart = upper[:, None] < lower[None, :]  # the first is said to be better than the second
    return {
        "covered": float(((lower <= truth) & (truth <= upper)).all()),
        "no_false_separation": float(not (apart & (theta[:, None] < theta[None, :])).any()),
        "marginal": float(((own_lower <= truth) & (truth <= own_upper)).mean()),
        "width": float((upper - lower + 1).mean()),
        "marginal_width": float((own_upper - own_lower + 1).mean()),
    }


def check_grades(
    world: RankingWorld,
    rng: np.random.Generator,
    *,
    discordance_rate: float = 0.05,
    prior: PriorName = "true",
) -> dict[str, float]:
    """Grades of one simulated table of schools against the truth.

    Parameters
    ----------
    discordance_rate : float
        What grades are asked to stay below, as an expected share of pairs.
    prior : str
        Behind the pairwise probabilities: ``true``, the one that effects are drawn from; ``normal`` by moments, which
        is wrong unless effects are normal; ``spline``, deconvolved.

    Returns
    -------
    dict
        ``realised``: share of pairs of schools that are graded in the wrong order; ``expected``, what was said of it;
        ``tau`` and ``expected_tau``: rank correlation of grades with true effects; ``grades``: how many.
    """
    theta, estimate, se = world.draw(rng)
    found = grades(
        pairwise_probabilities(prior=_prior(world, prior, estimate, se), estimate=estimate, se=se),
        discordance_rate=discordance_rate,
        counting="pairs",
    )
    given = np.asarray(found.grades)
    better = given[:, None] < given[None, :]
    wrong, right = (theta[:, None] < theta[None, :])[better].sum(), (theta[:, None] > theta[None, :])[better].sum()
    pairs = world.schools * (world.schools - 1) / 2.0
    return {
        "realised": float(wrong / pairs),
        "expected": found.discordance,
        "tau": float((right - wrong) / pairs),
        "expected_tau": found.tau,
        "grades": float(given.max()),
    }


def summarised(rows: list[dict[str, float]]) -> pd.DataFrame:
    """Mean of every quantity over replications with its Monte-Carlo standard error: what, mean, se, replications."""
    table = pd.DataFrame(rows)
    return pd.DataFrame(
        {
            "what": table.columns,
            "mean": table.mean().to_numpy(),
            "se": table.std(ddof=1).to_numpy() / np.sqrt(len(table)),
            "replications": len(table),
        }
    )


def _prior(world: RankingWorld, name: PriorName, estimate: Floats, se: Floats) -> Prior:
    if name == "true":
        return world.prior()
    if name == "spline":
        return deconvolve(estimate, se)
    if name not in PRIORS:
        raise InputError(f"there is no prior {name!r}", f"Use one of {', '.join(PRIORS)}.")
    variance = max(float(estimate.var(ddof=1) - (se**2).mean()), 1e-4 * float(estimate.var()))
    return _known(float(estimate.mean()) + np.sqrt(variance) * _GRID, norm.pdf(_GRID))


def _known(grid: Floats, density: Floats) -> Prior:
    return Prior(grid, density / density.sum(), "spline", 0.0, np.nan, True)


def _bounds(sets: pd.DataFrame) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    return sets["lower"].to_numpy(dtype=np.intp), sets["upper"].to_numpy(dtype=np.intp)
