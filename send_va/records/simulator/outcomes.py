"""School effects and outcomes of a synthetic cohort (statistical design, sections 1 and 5)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from send_va.records.simulator.geography import Floats, Ints, MapOfSchools
from send_va.records.simulator.labels import Bools, Labels, Leniency, Need, centred_normal
from send_va.records.simulator.scenarios import Scenario

OUTCOME_RANGE = (0.0, 90.0)  # Attainment 8: ten slots of at most nine points


@dataclass(frozen=True)
class Effects:
    """What schools add, in pupil SDs, each with mean 0 over schools; shapes (n_schools,).

    Attributes
    ----------
    u : ndarray of float
        For pupils without need.
    s : ndarray of float
        The extra for pupils with need at transfer.
    slope : ndarray of float
        The extra per SD of prior attainment.
    """

    u: Floats
    s: Floats
    slope: Floats


@dataclass(frozen=True)
class Outcomes:
    """Outcomes of every pupil in points.

    Attributes
    ----------
    points : ndarray of float, shape (n,)
        Between 0 and 90, to two decimals.
    clipped_share : float
        Share of pupils moved to a bound.
    """

    points: Floats
    clipped_share: float


def draw_effects(rng: np.random.Generator, scenario: Scenario, leniency: Leniency) -> Effects:
    """Draw the effects of schools, correlated with their leniency where the scenario says so.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    scenario : Scenario
        SDs and correlations.
    leniency : Leniency
        Of the schools, at the support threshold.

    Returns
    -------
    Effects
        Pupil SDs.
    """
    n = len(leniency.school)
    lenient = leniency.school[:, 0] / (scenario.leniency_school_sd or 1.0)

    def correlated(sd: float, r: float) -> Floats:
        return sd * r * lenient + centred_normal(rng, sd * np.sqrt(1 - r**2), n)

    return Effects(
        u=correlated(scenario.u_sd, scenario.leniency_u_correlation),
        s=correlated(scenario.s_sd, scenario.leniency_s_correlation),
        slope=centred_normal(rng, scenario.slope_sd, n),
    )


def total_effects(
    scenario: Scenario, places: MapOfSchools, leniency: Leniency, effects: Effects, labels: Labels, has_need: Bools
) -> Effects:
    """Add what schools do by labelling to what they do otherwise: the effects that a study should find.

    A school that labels more of the nation's pupils with need gives more of them the benefit of a label
    (`Scenario.label_effect`); likewise for pupils without need.

    Parameters
    ----------
    scenario, places, leniency, effects, labels
        The parts of the cohort.
    has_need : ndarray of bool, shape (n,)
        Need above the national threshold at transfer.

    Returns
    -------
    Effects
        The same as `effects` where labels do nothing.
    """
    if scenario.label_effect == 0:
        return effects
    lowered = leniency.school[:, 0] + leniency.la[places.school_la, 0]

    def gain(of: Bools) -> Floats:
        index = np.sort(labels.now_before_leniency[of])
        labelled = 1 - np.searchsorted(index, labels.now_threshold - lowered, side="right") / len(index)
        benefit: Floats = scenario.label_effect * (labelled - labelled.mean())
        return benefit

    without, with_need = gain(~has_need), gain(has_need)
    return replace(effects, u=effects.u + without, s=effects.s + with_need - without)


def draw_outcomes(
    rng: np.random.Generator,
    scenario: Scenario,
    expected: Floats,
    prior_deviation: Floats,
    effects: Effects,
    need: Need,
    labels: Labels,
    has_need: Bools,
    school: Ints,
) -> Outcomes:
    """Draw the outcome of every pupil.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    scenario : Scenario
        ``delta``, ``mu``, residual SDs, label effect, floor.
    expected : ndarray of float, shape (n,)
        ``f(prior) + x'beta`` in pupil SDs.
    prior_deviation : ndarray of float, shape (n,)
        Prior attainment minus the reference, in SDs.
    effects, need, labels : Effects, Need, Labels
        The parts of the cohort; effects without those of labelling.
    has_need : ndarray of bool, shape (n,)
        Need above the national threshold at transfer.
    school : ndarray of int, shape (n,)
        Index of each pupil's school.

    Returns
    -------
    Outcomes
        Points.
    """
    residual_sd = np.where(has_need, scenario.residual_sd_need, scenario.residual_sd)
    score = (
        expected
        + scenario.delta * need.severity_now
        + scenario.mu * has_need
        + scenario.label_effect * (labels.now > 0)
        + effects.u[school]
        + effects.s[school] * has_need
        + effects.slope[school] * prior_deviation
        + residual_sd * rng.normal(0, 1, len(school))
    )
    latent = scenario.outcome_mean + scenario.outcome_sd * (score - score.mean())
    low, high = OUTCOME_RANGE if scenario.bounded else (-np.inf, np.inf)
    points = latent.clip(low, high).round(2)
    clipped_share = float(((latent < low) | (latent > high)).mean())
    if scenario.floor_share > 0:
        points[_without_counted_entries(rng, scenario.floor_share, points, need, labels)] = 0.0
    return Outcomes(points=points, clipped_share=clipped_share)


def _without_counted_entries(
    rng: np.random.Generator, share: float, points: Floats, need: Need, labels: Labels
) -> Ints:
    """Choose pupils with an EHCP until `share` of them have no points; the more severe the need, the likelier."""
    with_plan = np.flatnonzero(labels.now == 2)
    scoring = with_plan[points[with_plan] > 0]
    propensity = need.severity_now[scoring] + rng.normal(0, 1, len(scoring))
    chosen = max(round(share * len(with_plan)) - (len(with_plan) - len(scoring)), 0)
    return scoring[np.argsort(-propensity, kind="stable")[:chosen]]
