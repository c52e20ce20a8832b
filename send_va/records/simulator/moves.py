"""Pupils who change school during key stages 3 and 4, laid over a synthetic cohort: terms on roll with known truth."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from send_va.errors import InputError
from send_va.records.fields import TERMS
from send_va.records.simulator.cohort import SimulatedCohort
from send_va.records.simulator.geography import Floats, Ints
from send_va.records.simulator.outcomes import OUTCOME_RANGE

_RATE_SPREAD = 0.45  # SD over schools of the log odds of leaving: a few schools in a thousand lose half
_LATE = (11, 13)  # terms on the roll of pupils who go in Year 10 or early in Year 11, before the census that counts


@dataclass(frozen=True)
class _Moves:
    """Old and new school of every pupil, and terms at either; shapes (n,). Stayers have 15 terms at the new one."""

    old: Ints
    new: Ints
    terms_old: Ints
    terms_new: Ints
    late: Ints  # 1 for pupils with low progress whom their school lost late

    @property
    def moved(self) -> Ints:
        """Rows of pupils who were on the roll of another school before."""
        return np.flatnonzero(self.terms_old > 0)


def with_moves(
    simulated: SimulatedCohort,
    rng: np.random.Generator,
    *,
    leaver_rate: float = 0.135,
    joiner_share: float = 0.02,
    losing_schools: float = 0.0,
    lost_share: float = 0.05,
) -> SimulatedCohort:
    """Let pupils of a synthetic cohort change school, and keep the truth.

    What schools add for a pupil is shared out by terms: the outcome of a mover moves by the difference between the
    schools' effects times the share of terms at the new school. So the truth of every school stays what it was.

    Parameters
    ----------
    simulated : SimulatedCohort
        Not changed.
    rng : numpy.random.Generator
        Another than the one the cohort was drawn from.
    leaver_rate : float
        Median over schools of pupils who left before the end of Year 11, as a share of all ever on the roll. FFT
        Education Datalab (Who's left, 2017) has about 13.5 % in the year group of 2014/15, and 50 % at the extreme.
        Terms at the old school are drawn evenly; pupils go to a school of the same authority where there is one.
    joiner_share : float
        Share of stayers who came from outside the records instead (abroad, independent schools).
    losing_schools : float
        Share of schools that lose pupils with low progress late: chosen for their outcome given prior attainment, the
        one thing an ordinary move has nothing to do with.
    lost_share : float
        Share of its pupils that such a school loses so.

    Returns
    -------
    SimulatedCohort
        ``pupils`` has the columns `terms_on_roll` and `on_roll_at_end`, the school of every pupil is that at the end,
        and a row for each school attended before comes after all others (`pupil_truth` likewise). ``truth`` has
        `leaver_rate` and `lost_late` (pupils lost for low progress) more. ``attrs`` has `median_leaver_rate`.

    Raises
    ------
    InputError
        A share outside 0 to 1 (`leaver_rate` below .5), or a cohort that has moves already.

    References
    ----------
    FFT Education Datalab (2017). Who's left: how much do leaver rates vary from school to school?

    Examples
    --------
    >>> from send_va.records.simulator.cohort import simulate
    >>> still = simulate(np.random.default_rng(1), schools=12, pupils_per_school=20)
    >>> moved = with_moves(still, np.random.default_rng(2))
    >>> rows = moved.pupils.groupby("pupil")["terms_on_roll"].agg(["size", "sum"])
    >>> int(rows["size"].max()), int(rows["sum"].max()), bool((moved.truth["theta"] == still.truth["theta"]).all())
    (2, 15, True)
    """
    _check(simulated, leaver_rate, joiner_share, losing_schools, lost_share)
    pupils, truth = simulated.pupils, simulated.truth
    old = truth["school"].searchsorted(pupils["school"]).astype(np.int64)
    moves = _draw_moves(rng, simulated, old, (leaver_rate, joiner_share, losing_schools, lost_share))
    at_end = pupils.assign(
        school=truth["school"].to_numpy()[moves.new],
        la=truth["la"].to_numpy()[moves.new],
        outcome=_outcomes(simulated, moves),
        terms_on_roll=moves.terms_new,
        on_roll_at_end=1,
    )
    before = at_end.iloc[moves.moved].assign(
        school=truth["school"].to_numpy()[old[moves.moved]],
        la=truth["la"].to_numpy()[old[moves.moved]],
        terms_on_roll=moves.terms_old[moves.moved],
        on_roll_at_end=0,
    )
    rates = _leaver_rates(moves, len(truth))
    known = simulated.pupil_truth
    return replace(
        simulated,
        pupils=pd.concat([at_end, before], ignore_index=True),
        truth=_truth(simulated, moves).assign(leaver_rate=rates),
        pupil_truth=pd.concat([known, known.iloc[moves.moved]], ignore_index=True),
        attrs=simulated.attrs
        | {
            "title": f"{simulated.attrs['title']}, with moves",
            "pupil_sd": float(at_end["outcome"].std(ddof=1)),
            "median_leaver_rate": float(np.median(rates)),
        },
    )


def _check(simulated: SimulatedCohort, leaver_rate: float, *shares: float) -> None:
    if "terms_on_roll" in simulated.pupils:
        raise InputError("this cohort has moves already", "Start from the one that simulate() gave.")
    if not 0.0 <= leaver_rate < 0.5:
        raise InputError(f"leaver_rate must be 0 or more and below .5, not {leaver_rate}")
    for name, share in zip(("joiner_share", "losing_schools", "lost_share"), shares, strict=True):
        if not 0.0 <= share <= 1.0:
            raise InputError(f"{name} must lie between 0 and 1, not {share}")


def _draw_moves(
    rng: np.random.Generator, simulated: SimulatedCohort, old: Ints, wanted: tuple[float, float, float, float]
) -> _Moves:
    leaver_rate, joiner_share, losing_schools, lost_share = wanted
    n, schools = len(old), len(simulated.truth)
    # a school has about as many joiners as leavers, and both are ever on its roll
    leaving = leaver_rate / (1.0 - leaver_rate)
    odds = leaving / (1.0 - leaving) * np.exp(_RATE_SPREAD * rng.standard_normal(schools))
    leaves = rng.random(n) < (odds / (1.0 + odds))[old]
    late = _lost_late(simulated, old, rng.random(schools).argsort()[: round(losing_schools * schools)], lost_share)
    terms_old = np.where(leaves, rng.integers(1, TERMS, n), 0)
    terms_old = np.where(late, rng.integers(_LATE[0], _LATE[1] + 1, n), terms_old)
    elsewhere = _another_school(rng, simulated.truth["la"].to_numpy(), old)
    joined = (terms_old == 0) & (rng.random(n) < joiner_share)
    terms_new = np.where(joined, rng.integers(1, TERMS, n), TERMS - terms_old)
    return _Moves(old, np.where(terms_old > 0, elsewhere, old), terms_old, terms_new, late.astype(np.int64))


def _lost_late(
    simulated: SimulatedCohort, old: Ints, losing: Ints, share: float
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Pupils with the lowest outcome given prior attainment, of the schools that lose such pupils."""
    outcome, prior = (simulated.pupils[name].to_numpy(np.float64) for name in ("outcome", "prior"))
    progress = outcome - np.polyval(np.polyfit(prior, outcome, 2), prior)
    lost = np.zeros(len(old), dtype=np.bool_)
    for school in losing.tolist():
        own = np.flatnonzero(old == school)
        lost[own[np.argsort(progress[own], kind="stable")[: round(share * len(own))]]] = True
    return lost


def _another_school(rng: np.random.Generator, la: Ints, old: Ints) -> Ints:
    """Draw another school for every pupil, of the same authority where there is one."""
    schools = len(la)
    by_la = np.argsort(la, kind="stable")
    place = np.empty(schools, dtype=np.int64)
    place[by_la] = np.arange(schools)
    first = np.searchsorted(la[by_la], la)
    size = np.searchsorted(la[by_la], la, side="right") - first
    chance = rng.random(len(old))
    step = 1 + np.floor(chance * (np.maximum(size[old], 2) - 1)).astype(np.int64)
    near = by_la[first[old] + (place[old] - first[old] + step) % size[old]]
    anywhere = (old + 1 + np.floor(chance * (schools - 1)).astype(np.int64)) % schools
    return np.where(size[old] > 1, near, anywhere)


def _outcomes(simulated: SimulatedCohort, moves: _Moves) -> Floats:
    """Outcomes with what schools add shared out by terms; time elsewhere adds what the average school does."""
    truth, pupils, world = simulated.truth, simulated.pupils, simulated.scenario
    u, s, slope = (truth[name].to_numpy() for name in ("u", "s", "prior_slope"))
    has_need = simulated.pupil_truth["has_need"].to_numpy(np.float64)
    deviation = pupils["prior"].to_numpy(np.float64) - float(simulated.attrs["reference_prior"])  # type: ignore[arg-type]

    def added(school: Ints) -> Floats:
        return np.asarray(u[school] + s[school] * has_need + slope[school] * deviation)

    before = added(moves.old)
    shared = (moves.terms_old * before + moves.terms_new * added(moves.new)) / TERMS
    points = pupils["outcome"].to_numpy(np.float64)
    low, high = OUTCOME_RANGE if world.bounded else (-np.inf, np.inf)
    other = (points + shared - before).clip(low, high).round(2)
    same = moves.terms_new == TERMS
    return np.where(same | ((points == 0.0) & (world.floor_share > 0.0)), points, other)


def _leaver_rates(moves: _Moves, schools: int) -> Floats:
    left = np.bincount(moves.old[moves.moved], minlength=schools)
    return np.asarray(left / np.maximum(np.bincount(moves.new, minlength=schools) + left, 1))


def _truth(simulated: SimulatedCohort, moves: _Moves) -> pd.DataFrame:
    schools = len(simulated.truth)
    has_need = simulated.pupil_truth["has_need"].to_numpy(np.bool_)
    return simulated.truth.assign(
        n_pupils=np.bincount(moves.new, minlength=schools),
        n_need=np.bincount(moves.new[has_need], minlength=schools),
        lost_late=np.bincount(moves.old, weights=moves.late, minlength=schools).astype(np.int64),
    )
