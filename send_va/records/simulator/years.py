"""Several synthetic cohorts of the same schools, whose effects drift by known autocorrelations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from send_va.errors import InputError
from send_va.records.simulator.background import draw_background, expected_need, expected_outcome
from send_va.records.simulator.cohort import (
    FIRST_SCHOOL,
    Membership,
    check_sizes,
    pupil_table,
    school_sizes,
    seed_of,
)
from send_va.records.simulator.geography import Floats, Ints, assign_feeders, draw_map, find_geography
from send_va.records.simulator.labels import (
    Bools,
    centred_normal,
    draw_labels,
    draw_leniency,
    draw_local_need,
    draw_need,
)
from send_va.records.simulator.outcomes import Effects, draw_outcomes, total_effects
from send_va.records.simulator.scenarios import Scenario, find_scenario

FIRST_YEAR = 2019  # the first cohort finishes 2018/19


@dataclass(frozen=True)
class SimulatedYears:
    """Synthetic cohorts and the truth behind them.

    Attributes
    ----------
    pupils : DataFrame, one row a pupil
        As of :class:`SimulatedCohort`; `cohort` tells the years apart. Nobody is in two of them.
    truth : DataFrame, one row a school and cohort
        `school`, `cohort`, `year` (in which it ends), `theta`, `u`, `s` (outcome points), `n_pupils`, `n_need`.
        Cohorts to come, of whom there are no pupils yet, are there too, so that forecasts can be scored.
    autocorrelation : ndarray of float, shape (cohorts,)
        Of school effects at lags 0, 1, ...: the truth, before chance in the schools drawn.
    scenario : Scenario
    attrs : dict
        `synthetic` (True), `title`, `seed`, `pupil_sd` (points).
    """

    pupils: pd.DataFrame
    truth: pd.DataFrame
    autocorrelation: Floats
    scenario: Scenario
    attrs: dict[str, object]


def simulate_years(
    rng: np.random.Generator,
    *,
    cohorts: int = 3,
    ahead: int = 6,
    lasting: float = 0.6,
    persistence: float = 0.6,
    schools: int = 300,
    scenario: str | Scenario = "independent",
    geography: str = "scattered",
    pupils_per_school: float | None = None,
) -> SimulatedYears:
    """Simulate several cohorts of the same schools, one a year, and keep the truth.

    Schools, feeders and authorities, their leniency, their neighbourhoods and the unexplained need of their intakes
    stay; pupils are new every year. The effects `u` and `s` of a school are
    ``sqrt(lasting) * a + sqrt(1 - lasting) * b_t`` with `b` an AR(1) process, so that their autocorrelation at lag k is
    ``lasting + (1 - lasting) * persistence**k`` and their variance the same in every cohort.

    Parameters
    ----------
    rng : numpy.random.Generator
    cohorts : int
        Cohorts with pupils; the first finishes 2018/19.
    ahead : int
        Further cohorts of which only the truth is drawn.
    lasting : float
        Share of the variance of effects that never changes, 0 to 1.
    persistence : float
        Correlation of the rest from one year to the next, 0 to 1. The defaults give .84, .74, .69 at one to three
        years: an illustration, no estimate.
    schools, scenario, geography, pupils_per_school
        As of :func:`simulate`; the number of pupils a school varies from year to year by chance.

    Returns
    -------
    SimulatedYears
        Give ``.pupils`` to a study with the role `cohort`, and compare forecasts with ``.truth``.

    Raises
    ------
    InputError
        An unknown scenario or geography, one in which leniency and effects are correlated, or a number out of range.

    Examples
    --------
    >>> years = simulate_years(np.random.default_rng(1), schools=12, pupils_per_school=20, cohorts=2, ahead=1)
    >>> years.pupils["cohort"].unique().tolist(), years.truth["cohort"].unique().tolist()
    (['2018/19', '2019/20'], ['2018/19', '2019/20', '2020/21'])
    >>> years.autocorrelation.round(3)
    array([1.   , 0.84 , 0.744])
    """
    world = find_scenario(scenario) if isinstance(scenario, str) else scenario
    travel = find_geography(geography)
    mean_size = world.pupils_per_school if pupils_per_school is None else pupils_per_school
    check_sizes(schools, mean_size)
    _check_drift(world, cohorts, ahead, lasting, persistence)
    seed = seed_of(rng)

    places = draw_map(rng, schools)
    leniency = draw_leniency(rng, world, places)
    intake_need = centred_normal(rng, world.intake_need_sd, schools)
    local_need = draw_local_need(rng, world, places)
    sizes = np.maximum(rng.poisson(school_sizes(rng, world, schools, mean_size), (cohorts, schools)), 1)
    school, year = np.tile(np.arange(schools), cohorts), np.repeat(np.arange(cohorts), schools)
    school, year = np.repeat(school, sizes.ravel()), np.repeat(year, sizes.ravel())
    at = Membership(school, *assign_feeders(rng, places, travel, school))
    background = draw_background(rng, places, at.school, at.feeder)
    need = draw_need(rng, world, expected_need(background), intake_need[at.school] + local_need[at.feeder])
    labels = draw_labels(rng, world, places, leniency, need, at.school, at.feeder)
    has_need = need.latent > labels.threshold

    drawn = _drifting(rng, world, schools, cohorts + ahead, lasting, persistence)
    prior_deviation = background.prior_z - background.prior_z[has_need].mean()
    outcomes = draw_outcomes(
        rng,
        world,
        expected_outcome(background),
        prior_deviation,
        drawn,
        need,
        labels,
        has_need,
        year * schools + at.school,
    )
    of_labels = total_effects(world, places, leniency, _none(schools), labels, has_need)
    total = Effects(
        drawn.u + np.tile(of_labels.u, cohorts + ahead), drawn.s + np.tile(of_labels.s, cohorts + ahead), drawn.slope
    )
    pupils = pupil_table(rng, world, places, at, background, labels, outcomes.points)
    names = np.array([f"{FIRST_YEAR + k - 1}/{(FIRST_YEAR + k) % 100:02d}" for k in range(cohorts + ahead)])
    return SimulatedYears(
        pupils=pupils.assign(cohort=names[year]),
        truth=_truth(total, world.outcome_sd, names, schools, year * schools + at.school, has_need),
        autocorrelation=lasting + (1.0 - lasting) * persistence ** np.arange(cohorts + ahead, dtype=np.float64),
        scenario=world,
        attrs={
            "synthetic": True,
            "title": f"Synthetic cohorts: {world.name}, {geography}, {cohorts} years, seed {seed}",
            "seed": seed,
            "pupil_sd": float(outcomes.points.std(ddof=1)),
        },
    )


def _check_drift(world: Scenario, cohorts: int, ahead: int, lasting: float, persistence: float) -> None:
    if cohorts < 1 or ahead < 0:
        raise InputError(f"cohorts must be 1 or more and ahead 0 or more, not {cohorts} and {ahead}")
    for name, share in (("lasting", lasting), ("persistence", persistence)):
        if not 0.0 <= share <= 1.0:
            raise InputError(f"{name} must lie between 0 and 1, not {share}")
    if world.leniency_u_correlation or world.leniency_s_correlation:
        raise InputError(
            f"in {world.name} the effects of schools go with their leniency, which does not drift",
            "Choose a scenario without leniency_u_correlation and leniency_s_correlation.",
        )


def _drifting(
    rng: np.random.Generator, world: Scenario, schools: int, years: int, lasting: float, persistence: float
) -> Effects:
    """Effects of every year one after the other, shapes (years * schools,); the slope on prior attainment stays."""

    def path(sd: float) -> Floats:
        always = centred_normal(rng, sd, schools)
        passing = [centred_normal(rng, sd, schools)]
        for _ in range(years - 1):
            fresh = centred_normal(rng, sd, schools)
            passing.append(persistence * passing[-1] + np.sqrt(1.0 - persistence**2) * fresh)
        values: Floats = np.sqrt(lasting) * always + np.sqrt(1.0 - lasting) * np.stack(passing)
        return values.ravel()

    return Effects(path(world.u_sd), path(world.s_sd), np.tile(centred_normal(rng, world.slope_sd, schools), years))


def _none(schools: int) -> Effects:
    return Effects(*(np.zeros(schools) for _ in range(3)))


def _truth(
    effects: Effects,
    points: float,
    names: np.ndarray[tuple[int], np.dtype[np.str_]],
    schools: int,
    at: Ints,
    has_need: Bools,
) -> pd.DataFrame:
    size = len(names) * schools
    return pd.DataFrame(
        {
            "school": np.tile(FIRST_SCHOOL + np.arange(schools), len(names)),
            "cohort": np.repeat(names, schools),
            "year": np.repeat(FIRST_YEAR + np.arange(len(names)), schools),
            "theta": points * (effects.u + effects.s),
            "u": points * effects.u,
            "s": points * effects.s,
            "n_pupils": np.bincount(at, minlength=size),
            "n_need": np.bincount(at[has_need], minlength=size),
        }
    )
