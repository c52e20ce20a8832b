"""A synthetic cohort like the National Pupil Database, with known truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from send_va.errors import BrokenRule, InputError
from send_va.records.simulator.background import (
    ETHNIC_GROUPS,
    PRIOR_SD,
    Background,
    draw_background,
    expected_need,
    expected_outcome,
)
from send_va.records.simulator.geography import (
    Floats,
    Ints,
    MapOfSchools,
    assign_feeders,
    draw_map,
    find_geography,
)
from send_va.records.simulator.labels import (
    Bools,
    Labels,
    Leniency,
    centred_normal,
    draw_labels,
    draw_leniency,
    draw_local_need,
    draw_need,
)
from send_va.records.simulator.outcomes import Effects, Outcomes, draw_effects, draw_outcomes, total_effects
from send_va.records.simulator.scenarios import Scenario, find_scenario

COHORT = "2022/23"
# Numbers that no English register uses: URNs there are below 200,000, authority codes 201 to 420 and 800 upwards.
FIRST_SCHOOL = 900_001
FIRST_FEEDER = 700_001
FIRST_LA = 501
FIRST_PUPIL = 1_000_001

_FEWEST_SCHOOLS = 10
_FEWEST_PUPILS = 5
_STATUS = ("N", "K", "E")


@dataclass(frozen=True)
class SimulatedCohort:
    """A synthetic cohort and the truth behind it.

    Attributes
    ----------
    pupils : DataFrame, one row a pupil
        What a study sees: `pupil`, `school`, `la`, `feeder`, `cohort`, `outcome` (Attainment 8 points, 0 to 90),
        `prior` (key stage 2 average scaled score, 80 to 120), `sen_status` and `sen_status_entry` (N none, K support,
        E plan), `sex`, `month_of_birth`, `fsm6`, `eal`, `ethnicity`, `idaci`, `looked_after`.
    truth : DataFrame, one row a school
        `school`, `theta`, `u`, `s` (outcome points, as estimates are), `leniency`, `leniency_ehcp`, `intake_need`
        (need scale), `prior_slope` (points per scaled-score point), `la`, `n_pupils`, `n_need`, then `theta_sd`,
        `u_sd`, `s_sd` (pupil SDs) and `prior_slope_sd` (pupil SDs per SD of prior attainment). ``theta = u + s`` is
        what the school adds for a pupil with need above the national threshold at transfer, against the average
        school, at prior attainment ``attrs["reference_prior"]``; `u` is at the same prior attainment.
    feeders : DataFrame, one row a feeder
        `feeder`, `la`, `leniency`, `leniency_ehcp`, `local_need` (need scale), `n_pupils`.
    las : DataFrame, one row an authority
        `la`, `leniency_entry`, `leniency_entry_ehcp` (before transfer), `leniency`, `leniency_ehcp` (after it).
    pupil_truth : DataFrame, one row a pupil in the order of `pupils`
        `pupil`, `need` (latent, at transfer), `severity` (need minus what background explains), `has_need`
        (need above the national support threshold at transfer), `now_margin` (by how much the pupil is above the
        threshold of the label now, leniency included; below 0 unlabelled). Never written out.
    scenario : Scenario
        The parameters.
    geography : str
        The name of the geography.
    attrs : dict
        `synthetic` (True), `title`, `seed`, `pupil_sd` (SD of the outcome, points), `reference_prior` (mean prior
        attainment of pupils with need at transfer), `threshold` and `threshold_ehcp` (national thresholds of need at
        transfer), `far_share` (share of pupils from feeders outside the school's neighbourhood), `top_five_share`
        (mean over schools of the share of pupils from the five largest feeders), `clipped_share` (share of outcomes
        moved to 0 or 90).
    """

    pupils: pd.DataFrame
    truth: pd.DataFrame
    feeders: pd.DataFrame
    las: pd.DataFrame
    pupil_truth: pd.DataFrame
    scenario: Scenario
    geography: str
    attrs: dict[str, object]


@dataclass(frozen=True)
class Membership:
    """Indices of the school and feeder of every pupil, and whether the feeder is far; shapes (n,)."""

    school: Ints
    feeder: Ints
    far: Bools


def simulate(
    rng: np.random.Generator,
    *,
    schools: int = 300,
    scenario: str | Scenario = "independent",
    geography: str = "scattered",
    pupils_per_school: float | None = None,
) -> SimulatedCohort:
    """Simulate one cohort at the end of key stage 4, and keep the truth.

    Need at transfer is ``need = x'gamma + m_j + e``; the label before transfer compares need plus the leniency of
    feeder and authority with a national threshold; the label now compares ``kappa*need + rho*[label before]`` plus
    the leniency of school and authority plus noise with another. Thresholds are set so that the national shares of
    labels are those of the scenario. The outcome is
    ``f(prior) + x'beta + delta*(m_j + e) + mu*h + u_j + s_j*h + r_j*(prior - reference) + residual`` with
    ``h = [need > national threshold at transfer]``.

    Parameters
    ----------
    rng : numpy.random.Generator
        The only source of randomness: the same state gives the same cohort.
    schools : int
        Number of schools, at least 10. England has about 3,400 mainstream secondaries.
    scenario : str or Scenario
        A name in `SCENARIOS`, or parameters of your own.
    geography : str
        ``"scattered"``, ``"five_feeders"`` (about 70 % of an intake from five feeders) or ``"nearly_nested"``.
    pupils_per_school : float, optional
        Mean number of pupils a school, at least 5; that of the scenario (174.5) by default. The SD scales with it.

    Returns
    -------
    SimulatedCohort
        Compare estimates with ``.truth``; nothing in ``.pupils`` reveals need. It is synthetic and says so in
        ``.attrs["title"]``.

    Raises
    ------
    InputError
        If the scenario or geography is unknown (the nearest name is suggested), or a size is too small.

    References
    ----------
    Leckie, G. & Goldstein, H. (2017). The evolution of school league tables in England 1992-2016: 'contextual
    value-added', 'expected progress' and 'progress 8'. British Educational Research Journal 43(2), 193-212.
    https://doi.org/10.1002/berj.3264

    Examples
    --------
    >>> cohort = simulate(np.random.default_rng(1), schools=12, scenario="magnets", pupils_per_school=20)
    >>> bool(np.allclose(cohort.truth["theta"], cohort.truth["u"] + cohort.truth["s"]))
    True
    >>> cohort.attrs["title"]
    'Synthetic cohort: magnets, scattered, seed 1'
    """
    world = find_scenario(scenario) if isinstance(scenario, str) else scenario
    travel = find_geography(geography)
    mean_size = world.pupils_per_school if pupils_per_school is None else pupils_per_school
    check_sizes(schools, mean_size)
    seed = seed_of(rng)

    places = draw_map(rng, schools)
    school = np.repeat(np.arange(schools), school_sizes(rng, world, schools, mean_size))
    at = Membership(school, *assign_feeders(rng, places, travel, school))
    background = draw_background(rng, places, at.school, at.feeder)
    leniency = draw_leniency(rng, world, places)
    effects = draw_effects(rng, world, leniency)
    intake_need = centred_normal(rng, world.intake_need_sd, schools)
    local_need = draw_local_need(rng, world, places)
    need = draw_need(rng, world, expected_need(background), intake_need[at.school] + local_need[at.feeder])
    labels = draw_labels(rng, world, places, leniency, need, at.school, at.feeder)
    has_need = need.latent > labels.threshold
    prior_deviation = background.prior_z - background.prior_z[has_need].mean()
    outcomes = draw_outcomes(
        rng, world, expected_outcome(background), prior_deviation, effects, need, labels, has_need, at.school
    )
    total = total_effects(world, places, leniency, effects, labels, has_need)
    pupils = pupil_table(rng, world, places, at, background, labels, outcomes.points)
    scale = (world.outcome_sd, float(outcomes.points.std(ddof=1)), float(background.prior.std(ddof=1)))
    return SimulatedCohort(
        pupils=pupils,
        truth=_school_table(places, at, leniency, total, intake_need, has_need, scale),
        feeders=_feeder_table(places, at, leniency, local_need),
        las=_la_table(leniency),
        pupil_truth=pd.DataFrame(
            {
                "pupil": pupils["pupil"],
                "need": need.latent,
                "severity": need.severity,
                "has_need": has_need,
                "now_margin": labels.now_before_leniency
                + leniency.school[at.school, 0]
                + leniency.la[places.school_la[at.school], 0]
                - labels.now_threshold,
            }
        ),
        scenario=world,
        geography=geography,
        attrs={"synthetic": True, "title": f"Synthetic cohort: {world.name}, {geography}, seed {seed}", "seed": seed}
        | _summary(at, background, labels, outcomes, has_need),
    )


def _summary(
    at: Membership, background: Background, labels: Labels, outcomes: Outcomes, has_need: Bools
) -> dict[str, object]:
    return {
        "pupil_sd": float(outcomes.points.std(ddof=1)),
        "reference_prior": float(background.prior[has_need].mean()),
        "threshold": labels.threshold,
        "threshold_ehcp": labels.threshold_ehcp,
        "far_share": float(at.far.mean()),
        "top_five_share": _top_five_share(at),
        "clipped_share": outcomes.clipped_share,
    }


def check_sizes(schools: int, mean_size: float) -> None:
    """Refuse worlds too small for labels and feeders to be told apart."""
    for column, value, least in (
        ("schools", schools, _FEWEST_SCHOOLS),
        ("pupils_per_school", mean_size, _FEWEST_PUPILS),
    ):
        if not value >= least:
            raise InputError(
                BrokenRule(
                    rule=f"at least {least}",
                    column=column,
                    values=(str(value),),
                    remedy="Labels and feeders cannot be told apart in anything smaller; ask for more",
                )
            )


def seed_of(rng: np.random.Generator) -> str:
    """Name the seed: the entropy of the generator, and its place among spawned generators if it has one."""
    sequence = getattr(rng.bit_generator, "seed_seq", None)
    if sequence is None:
        return "unknown"
    spawned = "".join(f".{key}" for key in sequence.spawn_key)
    return f"{sequence.entropy}{spawned}"


def school_sizes(rng: np.random.Generator, scenario: Scenario, schools: int, mean: float) -> Ints:
    """Draw the number of pupils of every school."""
    sd = scenario.pupils_per_school_sd * mean / scenario.pupils_per_school
    shape = (mean / sd) ** 2
    sizes = rng.gamma(shape, mean / shape, schools).round()
    return np.maximum(sizes, _FEWEST_PUPILS).astype(np.int64)


def _words(choices: tuple[str, ...], index: Ints) -> pd.Series[str]:
    """Make a text column from codes without a Python object for every row."""
    return pd.Series(pd.Categorical.from_codes(index, categories=pd.Index(choices))).astype("str")


def pupil_table(
    rng: np.random.Generator,
    scenario: Scenario,
    places: MapOfSchools,
    at: Membership,
    background: Background,
    labels: Labels,
    points: Floats,
) -> pd.DataFrame:
    """Lay out what a study sees, one row a pupil."""
    n = len(points)
    entry = _words(_STATUS, labels.entry)
    if scenario.entry_missing_share > 0:
        entry = entry.mask(rng.random(n) < scenario.entry_missing_share)
    return pd.DataFrame(
        {
            "pupil": FIRST_PUPIL + rng.permutation(n),
            "school": FIRST_SCHOOL + at.school,
            "la": FIRST_LA + places.school_la[at.school],
            "feeder": FIRST_FEEDER + at.feeder,
            "feeder_la": FIRST_LA + places.feeder_la[at.feeder],
            "cohort": _words((COHORT,), np.zeros(n, dtype=np.int64)),
            "outcome": points,
            "prior": background.prior,
            "sen_status": _words(_STATUS, labels.now),
            "sen_status_entry": entry,
            "sex": _words(("F", "M"), background.male.astype(np.int64)),
            "month_of_birth": background.month_of_birth,
            "fsm6": background.fsm6.astype(np.int64),
            "eal": background.eal.astype(np.int64),
            "ethnicity": _words(ETHNIC_GROUPS, background.ethnicity),
            "idaci": background.idaci,
            "looked_after": background.looked_after.astype(np.int64),
        }
    )


def _school_table(
    places: MapOfSchools,
    at: Membership,
    leniency: Leniency,
    effects: Effects,
    intake_need: Floats,
    has_need: Bools,
    scale: tuple[float, float, float],
) -> pd.DataFrame:
    """Lay out the truth by school; `scale` is points per unit of effect, pupil SD in points, SD of prior attainment."""
    n_schools = len(intake_need)
    points_per_unit, pupil_sd, prior_sd = scale
    u_points, s_points = points_per_unit * effects.u, points_per_unit * effects.s
    slope_points = points_per_unit * effects.slope / PRIOR_SD
    return pd.DataFrame(
        {
            "school": FIRST_SCHOOL + np.arange(n_schools),
            "theta": u_points + s_points,
            "u": u_points,
            "s": s_points,
            "leniency": leniency.school[:, 0],
            "leniency_ehcp": leniency.school[:, 1],
            "intake_need": intake_need,
            "prior_slope": slope_points,
            "la": FIRST_LA + places.school_la,
            "n_pupils": np.bincount(at.school, minlength=n_schools),
            "n_need": np.bincount(at.school[has_need], minlength=n_schools),
            "theta_sd": (u_points + s_points) / pupil_sd,
            "u_sd": u_points / pupil_sd,
            "s_sd": s_points / pupil_sd,
            "prior_slope_sd": slope_points * prior_sd / pupil_sd,
        }
    )


def _feeder_table(places: MapOfSchools, at: Membership, leniency: Leniency, local_need: Floats) -> pd.DataFrame:
    n_feeders = len(local_need)
    return pd.DataFrame(
        {
            "feeder": FIRST_FEEDER + np.arange(n_feeders),
            "la": FIRST_LA + places.feeder_la,
            "leniency": leniency.feeder[:, 0],
            "leniency_ehcp": leniency.feeder[:, 1],
            "local_need": local_need,
            "n_pupils": np.bincount(at.feeder, minlength=n_feeders),
        }
    )


def _la_table(leniency: Leniency) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "la": FIRST_LA + np.arange(len(leniency.la)),
            "leniency_entry": leniency.la_entry[:, 0],
            "leniency_entry_ehcp": leniency.la_entry[:, 1],
            "leniency": leniency.la[:, 0],
            "leniency_ehcp": leniency.la[:, 1],
        }
    )


def _top_five_share(at: Membership) -> float:
    n_feeders = int(at.feeder.max()) + 1
    pairs, count = np.unique(at.school * n_feeders + at.feeder, return_counts=True)
    school = pairs // n_feeders
    order = np.lexsort((-count, school))
    school, count = school[order], count[order]
    place = np.arange(len(school)) - np.searchsorted(school, school)
    top = np.bincount(school[place < 5], weights=count[place < 5])
    return float((top / np.bincount(at.school)).mean())
