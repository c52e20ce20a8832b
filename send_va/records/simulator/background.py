"""Pupils' background: who lives where, what they scored at age 11, and what follows for need and outcome."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from send_va.records.simulator.geography import Floats, Ints, MapOfSchools, smooth_field

# Mean and SD of the key stage 2 average scaled score in DfE's 2024 transition matrices (band midpoints).
PRIOR_MEAN = 104.4
PRIOR_SD = 7.3
PRIOR_RANGE = (80.0, 120.0)  # the published range of the scaled score

ETHNIC_GROUPS = ("Asian", "Black", "Mixed", "Other", "White")
_ETHNICITY_GIVEN_ENGLISH = (0.05, 0.04, 0.06, 0.02, 0.83)
_ETHNICITY_GIVEN_EAL = (0.42, 0.17, 0.06, 0.10, 0.25)


@dataclass(frozen=True)
class Background:
    """What the rated school does not set, one array a characteristic.

    Attributes
    ----------
    prior : ndarray of float, shape (n,)
        Key stage 2 average scaled score, 80 to 120 in steps of .5.
    male, fsm6, eal, looked_after : ndarray of bool, shape (n,)
        Sex; free school meals in the last six years; English as an additional language; looked after.
    month_of_birth : ndarray of int, shape (n,)
        Calendar month, 1 to 12.
    idaci : ndarray of float, shape (n,)
        Income deprivation affecting children in the pupil's neighbourhood, 0 to 1.
    ethnicity : ndarray of int, shape (n,)
        Index into `ETHNIC_GROUPS`.
    """

    prior: Floats
    male: npt.NDArray[np.bool_]
    fsm6: npt.NDArray[np.bool_]
    eal: npt.NDArray[np.bool_]
    looked_after: npt.NDArray[np.bool_]
    month_of_birth: Ints
    idaci: Floats
    ethnicity: Ints

    @property
    def prior_z(self) -> Floats:
        """Prior attainment in SDs from the national mean, shape (n,)."""
        return (self.prior - PRIOR_MEAN) / PRIOR_SD


def draw_background(rng: np.random.Generator, places: MapOfSchools, school: Ints, feeder: Ints) -> Background:
    """Draw the background of every pupil, given where the school and the feeder lie.

    Neighbourhoods differ in income deprivation and in the share of pupils with another first language; feeders and
    schools also differ in the prior attainment of their pupils for other reasons (selection, parents' choice).

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    places : MapOfSchools
        The map.
    school, feeder : ndarray of int, shape (n,)
        Indices of each pupil's school and feeder.

    Returns
    -------
    Background
        One entry a pupil, in the order given.
    """
    n, n_schools, n_feeders = len(school), len(places.school_xy), len(places.feeder_xy)
    deprived_area = 0.75 * smooth_field(rng, places.feeder_xy, 2.5) + rng.normal(0, 0.35, n_feeders)
    eal_area = 1.9 * smooth_field(rng, places.feeder_xy, 5.0) + rng.normal(0, 0.6, n_feeders)
    deprived_intake = rng.normal(0, 0.45, n_schools)

    deprivation = deprived_area[feeder] + deprived_intake[school] + rng.normal(0, 0.5, n)
    idaci = expit(-1.75 + 0.65 * deprivation).round(3)
    fsm6 = rng.random(n) < expit(-1.36 + 1.15 * deprivation)
    eal = rng.random(n) < expit(-2.45 + eal_area[feeder])
    looked_after = rng.random(n) < expit(-5.3 + 0.5 * deprivation)
    male = rng.random(n) < 0.51
    month_of_birth = rng.integers(1, 13, size=n)
    given_english, given_eal = np.cumsum(_ETHNICITY_GIVEN_ENGLISH), np.cumsum(_ETHNICITY_GIVEN_EAL)
    uniform = rng.random(n)
    ethnicity = np.where(eal, np.searchsorted(given_eal, uniform), np.searchsorted(given_english, uniform))

    latent = (
        rng.normal(0, 0.35, n_schools)[school]
        + rng.normal(0, 0.15, n_feeders)[feeder]
        - 0.12 * deprivation
        - 0.30 * (fsm6 - 0.256)
        - 0.05 * (eal - 0.184)
        - 0.70 * looked_after
        - 0.025 * (_months_young(month_of_birth) - 5.5)
        + rng.normal(0, 0.89, n)
    )
    prior = (PRIOR_MEAN + 0.65 + 7.25 * latent - 0.55 * latent**2).clip(*PRIOR_RANGE)
    return Background(
        prior=(prior * 2).round() / 2,
        male=male,
        fsm6=fsm6,
        eal=eal,
        looked_after=looked_after,
        month_of_birth=month_of_birth,
        idaci=idaci,
        ethnicity=np.minimum(ethnicity, len(ETHNIC_GROUPS) - 1).astype(np.int64),
    )


def expected_need(background: Background) -> Floats:
    """Compute the part of latent need that background explains, ``x'gamma``.

    Signs follow the odds of identification reported by Strand & Lindorff (2018); the curve in prior attainment follows
    the share with any SEN by key stage 2 band in DfE's 2024 transition matrices.

    Parameters
    ----------
    background : Background
        The pupils.

    Returns
    -------
    ndarray of float, shape (n,)
        In units of the SD of unexplained need, with mean 0 over the pupils. 1 means that a pupil like this needs one
        SD more than the average pupil before anything else is known.

    References
    ----------
    Strand, S. & Lindorff, A. (2018). Ethnic disproportionality in the identification of special educational needs in
    England. Department of Education, University of Oxford.
    """
    prior = background.prior_z
    by_group = np.array([-0.20, 0.05, 0.05, -0.10, 0.0])
    need = (
        -0.68 * prior
        + 0.11 * prior**2
        + 0.35 * background.male
        + 0.28 * background.fsm6
        + 0.30 * background.idaci
        + 0.80 * background.looked_after
        - 0.25 * background.eal
        + 0.012 * _months_young(background.month_of_birth)
        + by_group[background.ethnicity]
    )
    centred: Floats = need - need.mean()
    return centred


def expected_outcome(background: Background) -> Floats:
    """Compute the part of the outcome that background explains, ``f(prior) + x'beta``.

    Parameters
    ----------
    background : Background
        The pupils.

    Returns
    -------
    ndarray of float, shape (n,)
        Pupil SDs, with mean 0 over the pupils; curved in prior attainment.
    """
    prior = background.prior_z
    by_group = np.array([0.15, 0.10, 0.0, 0.15, 0.0])
    outcome = (
        0.70 * prior
        + 0.02 * prior**2
        - 0.12 * background.male
        - 0.22 * background.fsm6
        - 0.40 * background.idaci
        - 0.40 * background.looked_after
        + 0.28 * background.eal
        + by_group[background.ethnicity]
    )
    centred: Floats = outcome - outcome.mean()
    return centred


def _months_young(month_of_birth: Ints) -> Ints:
    """Months by which a pupil is younger than one born in September, the oldest of an English school year."""
    return (month_of_birth - 9) % 12
