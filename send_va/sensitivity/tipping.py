"""Tipping points: how lenient those who label, or how needy beyond all records, for a school's quintile to change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from send_va.effects import SchoolEffects
from send_va.errors import InputError, NotSupportedError
from send_va.identification.need import Need
from send_va.multilevel.threads import one_blas_thread
from send_va.records.design_columns import Context
from send_va.sensitivity.crossings import Crossings, find_crossings
from send_va.sensitivity.held_estimators import HeldNeed
from send_va.sensitivity.labellers import Labellers
from send_va.sensitivity.quintiles import Quintiles, answers, whole

Floats = NDArray[np.float64]
REACH = 3.0  # SDs of leniency tried each way
LENIENCY_GRID = tuple(np.arange(-6, 7) / 2.0)
NEED_GRID = tuple(np.arange(-20, 21) / 20.0)
ROBUST_LENIENCY, ROBUST_NEED = 1.0, 0.25
_NO_EFFECT = 1e-6  # pupil SDs by which an SD of need must move theta to count


@dataclass(frozen=True, eq=False)
class Tipping:
    """How large one departure must be to change each school's quintile, all other schools staying as they are.

    Attributes
    ----------
    table : DataFrame
        One row a school: school, theta (outcome units), quintile (1 the highest; missing where not compared); more and
        less: the smallest departure upwards and downwards at which the quintile changes (`size_unit`; missing: none
        within the grid), more_to and less_to: the quintile entered; nearest: the smaller of both in size, signed;
        theta_lowest and theta_highest: theta at the two ends of the grid; robust: no change up to `robust_to` either
        way.
    shares : DataFrame
        size (of the departure), share_changed: of compared schools, each moving alone.
    kind : str
        ``leniency`` or ``need``.
    estimator, context, unit : str
        `unit` of theta.
    size_unit : str
    size : float
        One `size_unit` in SDs of unexplained need.
    robust_to : float
    intake_sd : float
        SD of intake need between schools, SDs of unexplained need: what to compare unobserved need with.
    """

    table: pd.DataFrame
    shares: pd.DataFrame
    kind: str
    estimator: str
    context: str
    unit: str
    size_unit: str
    size: float
    robust_to: float
    intake_sd: float

    def share_at(self, size: float) -> float:
        """Share of schools whose quintile would change at a departure of the grid.

        Raises
        ------
        InputError
            `size` is not on the grid.
        """
        row = self.shares[np.isclose(self.shares["size"], size)]
        if not len(row):
            raise InputError(f"{size} is not among the departures tried", f"They are {list(self.shares['size'])}.")
        return float(row["share_changed"].iloc[0])

    @property
    def headline(self) -> str:
        """One sentence on all schools."""
        more, less = (100 * self.share_at(sign * self.robust_to) for sign in (1.0, -1.0))
        robust = 100 * float(self.table.loc[self.table["quintile"].notna(), "robust"].astype(bool).mean())
        if self.kind == "leniency":
            who = "a school" if self.estimator == "standardised" else "all the feeders of a school"
            what = f"{who} were {self.robust_to:g} SD more lenient than estimated"
            other = "as much less lenient"
        else:
            what = f"a school's pupils with need had {self.robust_to:g} SD more need than any record tells"
            other = "as much less"
        return (
            f"{more:.0f} % of schools would be in another quintile if {what}, {less:.0f} % if {other}, each school by "
            f"itself ({self.estimator}, {self.context}); {robust:.0f} % would stay where they are either way."
        )

    def words(self, school: str) -> str:
        """Say it of one school.

        Raises
        ------
        InputError
            No such school.
        """
        rows = self.table[self.table["school"] == school]
        if not len(rows):
            raise InputError(f"no school {school!r}")
        row = rows.iloc[0]
        if pd.isna(row["quintile"]):
            return f"School {school} is not compared."
        what = {"leniency": "leniency of those who label its pupils", "need": "unobserved need of its pupils"}[
            self.kind
        ]
        parts = [
            f"{abs(float(row[side])):.2g} {self.size_unit} {word} moves it to quintile {int(row[f'{side}_to'])}"
            for side, word in (("more", "more"), ("less", "less"))
            if pd.notna(row[side])
        ]
        said = "; ".join(parts) or f"none up to {self.shares['size'].max():g} {self.size_unit} either way moves it"
        return f"School {school} is in quintile {int(row['quintile'])} ({self.estimator}); {what}: {said}."

    def __str__(self) -> str:
        return self.headline

    def _repr_html_(self) -> str:
        return f"<p>{self.headline}</p>{self.table.to_html(index=False)}"


@one_blas_thread
def tip_by_leniency(
    held: HeldNeed,
    need: Need,
    context: Context = "cva",
    *,
    effects: SchoolEffects | None = None,
    grid: ArrayLike = LENIENCY_GRID,
    refinements: int = 12,
) -> Tipping:
    """Find the leniency of those who label its pupils at which each school's quintile changes.

    Labels are held as recorded. If those who set them were more lenient than estimated, the same labels stand for less
    need: expected need of the school's pupils falls, and its theta with it where need goes with slower progress. For
    ``standardised`` it is the school's own leniency now; for ``entry`` that of all its pupils' feeders at once, and the
    school's intake need is found again. National parameters are held; all schools are done at once.

    Parameters
    ----------
    held : HeldNeed
        From :func:`send_va.sensitivity.held_estimators.hold_need`, of ``entry`` or ``standardised``.
    need : Need
    context : str
    effects : SchoolEffects, optional
        The published ones: schools are ordered by their mean theta, to which changes are added. By default by the means
        at the estimates of the identification parameters.
    grid : array
        Departures tried, SDs of leniency; zero among them. Between two of them the crossing is found by `refinements`
        steps at most.

    Returns
    -------
    Tipping
        A small ``nearest``: the quintile rests on how exactly leniency is known. A school's feeders are several, and
        their mean is known better than each: one SD for all at once is a lot.

    Raises
    ------
    NotSupportedError
        ``label_free``; leniencies that do not differ.
    InputError
        Effects of other schools; a grid without zero.

    References
    ----------
    Manski & Pepper (2018), doi:10.1162/REST_a_00689 (bounds by the size of a departure).
    """
    labellers = Labellers.of(held, need, context)
    zero = labellers.values(np.zeros(len(held.equations[context].schools))).mean("theta")
    mean = _means(held, context, effects, zero)
    now = Quintiles.of(mean)

    def moved(sizes: Floats) -> Floats:
        return np.asarray(mean + labellers.values(labellers.sd * sizes).mean("theta") - zero)

    found = find_crossings(moved, now, np.asarray(grid, dtype=np.float64), refinements=refinements)
    return _tipping(held, need, context, found, now, "leniency", labellers.sd, ROBUST_LENIENCY, effects)


@one_blas_thread
def tip_by_need(
    held: HeldNeed,
    need: Need,
    context: Context = "cva",
    *,
    effects: SchoolEffects | None = None,
    grid: ArrayLike = NEED_GRID,
) -> Tipping:
    """Find the unobserved need of its pupils with need at which each school's quintile changes.

    If the pupils with need of a school needed more than severity says, by h SDs on average, ``-delta * h`` of their
    outcome would be put down to the school: theta rises by that much of it that shrinkage leaves. Closed form.

    Parameters
    ----------
    held, need, context, effects
        As in :func:`tip_by_leniency`.
    grid : array
        Departures at which the share of schools changed is counted, SDs of unexplained need; zero among them.

    Returns
    -------
    Tipping
        Compare with ``intake_sd``: unobserved need as large as that would make up a whole SD of what schools are known
        to differ by.

    Raises
    ------
    NotSupportedError
        An estimator without severity, or a ``delta`` of zero.
    InputError
        Effects of other schools; a grid without zero.
    """
    equation = held.equations[context]
    if len(equation.need_beta) < 2:
        raise NotSupportedError(
            f"{held.estimator!r} has no severity, so unobserved need has no coefficient. Use 'entry'."
        )
    before = held.before[context].mean("theta")
    delta = float(equation.need_beta[1])
    with_need = held.with_columns(held.columns_before, outcome=equation.outcome + held.columns_before[:, 0])
    per_sd = -delta * (with_need[context].mean("theta") - before)
    if not np.nanmax(np.abs(per_sd)) > _NO_EFFECT * equation.outcome_sd:
        raise NotSupportedError("the coefficient of severity is zero: no amount of unobserved need moves a school.")
    mean = _means(held, context, effects, before)
    now = Quintiles.of(mean)
    found = find_crossings(lambda h: mean + per_sd * h, now, np.asarray(grid, dtype=np.float64), refinements=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        up, down = (now.up - mean) / per_sd, (now.down - mean) / per_sd
    more, less = np.where(per_sd > 0, up, down), np.where(per_sd > 0, down, up)
    better = np.where(per_sd > 0, 1, -1)
    exact = Crossings(
        np.where(np.isfinite(more), more, np.nan),
        np.where(np.isfinite(less), less, np.nan),
        np.where(np.isfinite(more), now.quintile - better, 0),
        np.where(np.isfinite(less), now.quintile + better, 0),
        found.grid,
        found.values,
        found.quintiles,
    )
    return _tipping(held, need, context, exact, now, "need", 1.0, ROBUST_NEED, effects)


def _means(held: HeldNeed, context: Context, effects: SchoolEffects | None, before: Floats) -> Floats:
    """What schools are ordered by: the published means, or those with national parameters held."""
    if context not in held.equations:
        raise InputError(f"the estimator holds {', '.join(held.equations)}", f"Hold {context!r} too.")
    if effects is None:
        return before
    if tuple(effects.schools) != held.equations[context].schools:
        raise InputError("the effects are of other schools than the estimator", "Use one cohort.")
    given = effects.attrs["estimator"], effects.attrs["context"]
    if given != (held.estimator, context):
        raise InputError(f"the effects are of {' and '.join(map(str, given))}, not {held.estimator} and {context}")
    return np.asarray(effects.data["mean"].sel(measure="theta").to_numpy(), dtype=np.float64)


def _tipping(
    held: HeldNeed,
    need: Need,
    context: Context,
    found: Crossings,
    now: Quintiles,
    kind: str,
    size: float,
    robust_to: float,
    effects: SchoolEffects | None,
) -> Tipping:
    there = now.quintile > 0
    nearest = found.nearest
    table = pd.DataFrame(
        {
            "school": held.equations[context].schools,
            "theta": now.values,
            "quintile": whole(now.quintile),
            "more": np.where(there, found.more, np.nan),
            "more_to": whole(np.where(there, found.more_to, 0)),
            "less": np.where(there, found.less, np.nan),
            "less_to": whole(np.where(there, found.less_to, 0)),
            "nearest": np.where(there, nearest, np.nan),
            "theta_lowest": found.values[0],
            "theta_highest": found.values[-1],
            "robust": answers(~(np.abs(nearest) <= robust_to), there),
        }
    )
    return Tipping(
        table=table,
        shares=pd.DataFrame({"size": found.grid, "share_changed": found.share_changed(now)}),
        kind=kind,
        estimator=held.estimator,
        context=context,
        unit=str(effects.attrs.get("unit", "outcome units")) if effects is not None else "outcome units",
        size_unit={"leniency": "SD of leniency", "need": "SD of unexplained need"}[kind],
        size=size,
        robust_to=robust_to,
        intake_sd=float(np.sqrt(need.parameters.intake_variance)),
    )
