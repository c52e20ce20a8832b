"""Need, leniency and SEN labels of a synthetic cohort (statistical design, section 4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from send_va.records.simulator.geography import Floats, Ints, MapOfSchools, smooth_field
from send_va.records.simulator.scenarios import Scenario

Bools = npt.NDArray[np.bool_]

# Distance over which unexplained need of neighbourhoods changes: a unit square holds one school on average.
_NEIGHBOURHOOD_LENGTH = 1.5


@dataclass(frozen=True)
class Leniency:
    """By how much every body that labels lowers the thresholds (need scale).

    Attributes
    ----------
    school, feeder, la_entry, la : ndarray of float, shape (number of bodies, 2)
        Columns: support threshold, EHCP threshold. Authorities have one policy before transfer and one after it.
    """

    school: Floats
    feeder: Floats
    la_entry: Floats
    la: Floats


@dataclass(frozen=True)
class Need:
    """Need of every pupil, shapes (n,), in SDs of unexplained need within a school.

    Attributes
    ----------
    latent : ndarray of float
        Need at transfer.
    severity, severity_now : ndarray of float
        Need minus what background explains, at transfer and at the end of the key stage.
    explained : ndarray of float
        What background explains.
    """

    latent: Floats
    severity: Floats
    severity_now: Floats
    explained: Floats


@dataclass(frozen=True)
class Labels:
    """SEN levels of every pupil: 0 none, 1 support, 2 EHCP.

    Attributes
    ----------
    entry, now : ndarray of int, shape (n,)
        Before transfer and at the end of the key stage.
    threshold, threshold_ehcp : float
        National thresholds of need at transfer.
    now_before_leniency : ndarray of float, shape (n,)
        What the label now compares with its support threshold, before the leniency of school and authority.
    now_threshold : float
        That threshold.
    """

    entry: Ints
    now: Ints
    threshold: float
    threshold_ehcp: float
    now_before_leniency: Floats
    now_threshold: float


def centred_normal(rng: np.random.Generator, sd: float, n: int) -> Floats:
    """Draw `n` normal deviations and subtract their mean, since effects and leniency are against the average."""
    draws = rng.normal(0, 1, n)
    deviations: Floats = sd * (draws - draws.mean()) + 0.0  # + 0.0 turns -0.0 into 0.0
    return deviations


def draw_leniency(rng: np.random.Generator, scenario: Scenario, places: MapOfSchools) -> Leniency:
    """Draw the leniency of schools, feeders and authorities at both thresholds.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    scenario : Scenario
        SDs and the correlation between thresholds.
    places : MapOfSchools
        For the numbers of bodies.

    Returns
    -------
    Leniency
        Positive values label more pupils than the national threshold would; means are 0.
    """
    r = scenario.leniency_correlation

    def partner(first: Floats, sd: float) -> Floats:
        return r * first + centred_normal(rng, sd * np.sqrt(1 - r**2), len(first))

    def pair(sd: float, n: int, ehcp_ratio: float = 1.0) -> Floats:
        support = centred_normal(rng, sd, n)
        return np.column_stack([support, ehcp_ratio * partner(support, sd)])

    la_entry = pair(scenario.leniency_la_sd, places.n_las)
    la = np.column_stack([partner(policy, scenario.leniency_la_sd) for policy in la_entry.T])
    ratio = scenario.leniency_ehcp_ratio
    return Leniency(
        school=pair(scenario.leniency_school_sd, len(places.school_xy), ratio),
        feeder=pair(scenario.leniency_feeder_sd, len(places.feeder_xy), ratio),
        la_entry=la_entry,
        la=la,
    )


def draw_local_need(rng: np.random.Generator, scenario: Scenario, places: MapOfSchools) -> Floats:
    """Draw the unexplained need of feeders' populations, independent and clustered over neighbourhoods.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    scenario : Scenario
        The two SDs.
    places : MapOfSchools
        Places of the feeders.

    Returns
    -------
    ndarray of float, shape (n_feeders,)
        Need scale, mean 0.
    """
    independent = centred_normal(rng, scenario.feeder_need_sd, len(places.feeder_xy))
    return independent + scenario.area_need_sd * smooth_field(rng, places.feeder_xy, _NEIGHBOURHOOD_LENGTH)


def draw_need(rng: np.random.Generator, scenario: Scenario, explained: Floats, intake: Floats) -> Need:
    """Draw latent need, ``x'gamma + m_j + e`` plus the feeder's local need.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    scenario : Scenario
        Shape of the distribution of ``e`` and its persistence.
    explained : ndarray of float, shape (n,)
        ``x'gamma``.
    intake : ndarray of float, shape (n,)
        Unexplained need that a pupil shares with others of the school and the feeder.

    Returns
    -------
    Need
        At transfer and now. Only ``e`` changes between the two.
    """
    first, second = (_unexplained(rng, scenario.need_skew_shape, len(explained)) for _ in range(2))
    r = scenario.need_persistence
    severity = intake + first
    return Need(
        latent=explained + severity,
        severity=severity,
        severity_now=intake + r * first + np.sqrt(1 - r**2) * second,
        explained=explained,
    )


def _unexplained(rng: np.random.Generator, shape: float | None, n: int) -> Floats:
    if shape is None:
        return rng.normal(0, 1, n)
    skewed: Floats = (rng.gamma(shape, 1.0, n) - shape) / np.sqrt(shape)
    return skewed


def draw_labels(
    rng: np.random.Generator,
    scenario: Scenario,
    places: MapOfSchools,
    leniency: Leniency,
    need: Need,
    school: Ints,
    feeder: Ints,
) -> Labels:
    """Label every pupil before transfer and now; thresholds give the scenario's national shares.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    scenario : Scenario
        Shares, ``kappa``, ``rho`` and the noise of identification.
    places : MapOfSchools
        Which authority a school or feeder lies in.
    leniency : Leniency
        Of all bodies.
    need : Need
        Of all pupils.
    school, feeder : ndarray of int, shape (n,)
        Indices of each pupil's school and feeder.

    Returns
    -------
    Labels
        Levels 0, 1, 2 and the thresholds.
    """
    n, noise = len(school), scenario.identification_noise_sd
    judged = need.latent + noise * rng.normal(0, 1, n)
    entry_leniency = leniency.feeder[feeder] + leniency.la_entry[places.feeder_la[feeder]]  # (n, 2)
    entry, thresholds = _levels(judged[:, None] + entry_leniency, (scenario.entry_sen_share, scenario.entry_ehcp_share))

    rho = np.array([0.0, scenario.rho_support, scenario.rho_ehcp])
    before_leniency = (
        scenario.kappa * (need.explained + need.severity_now) + rho[entry] + np.sqrt(1 + noise**2) * rng.normal(0, 1, n)
    )
    now_leniency = leniency.school[school] + leniency.la[places.school_la[school]]
    now, now_thresholds = _levels(before_leniency[:, None] + now_leniency, (scenario.sen_share, scenario.ehcp_share))
    return Labels(
        entry=entry,
        now=now,
        threshold=thresholds[0],
        threshold_ehcp=thresholds[1],
        now_before_leniency=before_leniency,
        now_threshold=now_thresholds[0],
    )


def _levels(index: Floats, shares: tuple[float, float]) -> tuple[Ints, tuple[float, float]]:
    """Cut the two columns of `index` so that each share of the pupils lies above its threshold."""
    support, ehcp = (float(np.quantile(index[:, c], 1 - shares[c])) for c in range(2))
    level = np.where(index[:, 1] > ehcp, 2, np.where(index[:, 0] > support, 1, 0))
    return level.astype(np.int64), (support, ehcp)
