"""How strong unmeasured sorting of pupils between schools must be to move a school across a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from send_va.effects import SchoolEffects
from send_va.errors import InputError
from send_va.records.design_columns import CONTEXTS
from send_va.sensitivity.need_coefficient import default_benchmarks
from send_va.sensitivity.quintiles import Quintiles
from send_va.sensitivity.unmeasured import Floats, robustness_value
from send_va.value_added.fit_result import ValueAddedFit
from send_va.value_added.pupil_design import PupilDesign

Scale = Literal["shrunken", "unshrunken"]
_SAID = 3  # benchmarks named in words
MULTIPLES = (0.1, 0.25, 0.5, 1.0)
ZERO, QUINTILE, STATED = "zero", "quintile", "stated"
MEANING = (
    "One unit of sorting on a benchmark is the SD between schools of what the mean of the benchmark over all their "
    "pupils adds to outcomes, net of chance. The benchmarks themselves are held constant; they measure how much "
    "schools are known to differ in their intake. That something unmeasured could move a school is no evidence that it "
    "does."
)


@dataclass(frozen=True)
class SortingSensitivity:
    """How much unmeasured sorting would move each school across a line.

    Attributes
    ----------
    units : DataFrame
        One row a benchmark: benchmark, sorting_sd (outcome units: one unit of sorting), sorting_sd_raw (chance in small
        schools included), share_of_theta (of the SD of the values compared).
    schools : DataFrame
        One row a school, line and scale: school, line (``zero``, ``quintile``: the nearer cut, ``stated``), scale,
        value, at (where the line is), bias_needed (unshrunken scale, outcome units, signed: what would have to be wrong
        with the estimate, positive where the school is too high), and for each benchmark ``times <name>``: that bias in
        units of sorting. Below .25 in size: a quarter of the known sorting on the benchmark would do.
        ``robustness_value``: see :func:`unmeasured_schools`.
    shares : DataFrame
        line, scale, benchmark, times, share: of schools that sorting `times` as strong as that on the benchmark, in
        the direction of the line, moves across it.
    context, unit : str
    """

    units: pd.DataFrame
    schools: pd.DataFrame
    shares: pd.DataFrame
    context: str
    unit: str

    def words(self, school: str, line: str = QUINTILE, scale: Scale = "shrunken") -> str:
        """Say it of one school.

        Raises
        ------
        InputError
            No such school, line or scale.
        """
        rows = self.schools
        row = rows[(rows["school"] == school) & (rows["line"] == line) & (rows["scale"] == scale)]
        if not len(row):
            raise InputError(f"no school {school!r} with a line {line!r} on the {scale} scale")
        found = row.iloc[0]
        if not np.isfinite(found["bias_needed"]):
            return f"School {school} has no value that could cross the line."
        name = {ZERO: "the average", QUINTILE: "the nearest quintile cut", STATED: "the stated line"}[line]
        times = ", ".join(
            f"{abs(float(found[f'times {benchmark}'])):.2g} times that on {benchmark}" for benchmark in self._strongest
        )
        direction = "stronger" if found["bias_needed"] > 0 else "weaker"
        return (
            f"School {school} is at {found['value']:.3g} {self.unit}; {name} is at {found['at']:.3g}. To put it there, "
            f"its pupils would have to be {direction} than measured by {abs(found['bias_needed']):.3g} {self.unit} for "
            f"a reason that is in no record: sorting {times or 'of unknown size'}."
        )

    @property
    def _strongest(self) -> list[str]:
        """Benchmarks on which schools are sorted most; those on which they hardly are say nothing."""
        most = self.units[self.units["sorting_sd"] > 0.0].nlargest(_SAID, "sorting_sd")
        return most["benchmark"].astype(str).tolist()

    def __str__(self) -> str:
        lines = []
        for benchmark in self._strongest:
            part = self.shares[(self.shares["benchmark"] == benchmark) & (self.shares["scale"] == "shrunken")]
            at = part[part["line"] == QUINTILE].set_index("times")["share"]
            said = ", ".join(f"{100 * at[m]:.0f} % at {m:g}" for m in at.index)
            lines.append(f"Schools in another quintile, by unmeasured sorting in units of that on {benchmark}: {said}.")
        return "\n".join([*lines, MEANING])

    def _repr_html_(self) -> str:
        return f"<p>{MEANING}</p>{self.units.to_html(index=False)}{self.shares.to_html(index=False)}"


def unmeasured_schools(
    design: PupilDesign,
    fit: ValueAddedFit,
    *,
    benchmarks: Mapping[str, Sequence[str]] | None = None,
    line: float | None = None,
    measure: str = "theta",
    multiples: Sequence[float] = MULTIPLES,
) -> SortingSensitivity:
    """Compare the bias that would move a school across a line with how strongly schools are known to be sorted.

    Parameters
    ----------
    design : PupilDesign
    fit : ValueAddedFit
        Of the same records and schools; its coefficients weigh the benchmarks.
    benchmarks : mapping, optional
        Names, and the design columns of each; by default prior attainment and every column of the background that the
        fit's context holds.
    line : float, optional
        A further line, in outcome units on the scale of the effects.
    measure : str
    multiples : sequence of float
        Strengths of sorting at which the share of schools that would cross is counted.

    Returns
    -------
    SortingSensitivity
        On the shrunken scale a bias of the unshrunken estimate counts by the school's reliability, so
        ``bias_needed = (value - line) / reliability``. ``robustness_value`` takes being at this school as the
        treatment, among all pupils: it is small for every school, as no school has many of all pupils, and compares
        schools with each other, not with .1 or .2 of other studies. Schools without an estimate are missing.

    Raises
    ------
    InputError
        Other schools than the design's, a benchmark without coefficient, multiples that are not positive.

    References
    ----------
    Cinelli & Hazlett (2020), doi:10.1111/rssb.12348 (robustness value, benchmarks).
    Altonji, Elder & Taber (2005), doi:10.1086/426036 (selection on observed characteristics as a measure).

    Examples
    --------
    >>> from send_va.records.reader import Cohort
    >>> from send_va.records.simulator import simulate
    >>> from send_va.value_added.design import context_columns, labelled_products
    >>> from send_va.value_added.labelled import fit_labelled
    >>> from send_va.value_added.pupil_design import pupil_design
    >>> world = simulate(np.random.default_rng(2), schools=40, pupils_per_school=60)
    >>> roles = {"pupil": "pupil", "school": "school", "outcome": "outcome", "prior": ["prior"],
    ...          "sen_status": "sen_status", "context": ["fsm6"]}
    >>> cohort = Cohort.from_pandas(world.pupils, roles)
    >>> profile = cohort.profile(0)
    >>> columns = context_columns(cohort, profile)
    >>> rng = np.random.default_rng(1)
    >>> fit = fit_labelled(labelled_products(cohort, profile, columns), "cva", rng=rng, draws=50)
    >>> found = unmeasured_schools(pupil_design(cohort, profile, columns), fit)
    >>> found.units["benchmark"].tolist(), sorted(set(found.schools["line"]))
    (['prior attainment', 'fsm6'], ['quintile', 'zero'])
    """
    if not len(multiples) or not all(m > 0.0 for m in multiples):
        raise InputError(f"multiples of sorting must be above 0, not {list(multiples)}", "0.5: half as strong.")
    effects = fit.effects
    context = str(effects.attrs["context"])
    if tuple(effects.schools) != design.schools or context not in CONTEXTS:
        raise InputError("the fit holds other schools than the design, or an unknown context", "Use one cohort.")
    groups = default_benchmarks(design.context, context) if benchmarks is None else benchmarks
    units = _units(design, fit, groups, effects, measure)
    sizes = dict(zip(units["benchmark"], units["sorting_sd"], strict=True))
    schools = _schools(effects, measure, line, sizes)
    return SortingSensitivity(
        units,
        schools,
        _shares(schools, list(sizes), multiples),
        context,
        str(effects.attrs.get("unit", "outcome units")),
    )


def _units(
    design: PupilDesign,
    fit: ValueAddedFit,
    groups: Mapping[str, Sequence[str]],
    effects: SchoolEffects,
    measure: str,
) -> pd.DataFrame:
    beta = fit.coefficients.set_index("term")["estimate"]
    missing = sorted(
        {name for group in groups.values() for name in group if name not in beta or name not in design.columns}
    )
    if missing:
        raise InputError(f"no coefficient of {', '.join(missing)}", f"The fit holds {', '.join(map(str, beta.index))}.")
    spread = float(np.nanstd(effects.data["mean"].sel(measure=measure).to_numpy()))
    rows = []
    for name, group in groups.items():
        at = [design.columns.index(column) for column in group]
        raw, net = sorting_sd(design, design.rows[:, at] @ beta.loc[list(group)].to_numpy(dtype=np.float64))
        share = net / spread if spread > 0 else np.nan
        rows.append({"benchmark": name, "sorting_sd": net, "sorting_sd_raw": raw, "share_of_theta": share})
    return pd.DataFrame(rows)


def sorting_sd(design: PupilDesign, contribution: Floats) -> tuple[float, float]:
    """SD between schools of the mean of a contribution (n,): as found, and net of chance in schools of this size.

    Schools count equally. Net of chance: less the mean over schools of the variance within the school over its pupils.
    """
    n = design.n_pupils
    there = n > 1
    mean = design.by_school(contribution) / np.maximum(n, 1)
    squares = design.by_school((contribution - mean[design.codes]) ** 2)
    chance = squares[there] / (n[there] - 1.0) / n[there]
    raw = float(mean[there].var(ddof=1)) if there.sum() > 1 else 0.0
    return float(np.sqrt(raw)), float(np.sqrt(max(raw - float(chance.mean()) if there.any() else 0.0, 0.0)))


def _schools(effects: SchoolEffects, measure: str, line: float | None, sizes: Mapping[str, float]) -> pd.DataFrame:
    known = {
        name: effects.data[name].sel(measure=measure).to_numpy() for name in ("mean", "reliability", "estimate", "se")
    }
    n_need = effects.data["n_need"].to_numpy().astype(np.float64)
    there = np.isfinite(known["estimate"]) & (known["se"] > 0.0)
    robust = np.full(len(there), np.nan)
    dof = float(n_need[there].sum() - there.sum())
    if there.any() and dof > 1.0:
        robust[there] = robustness_value(known["estimate"][there], known["se"][there], dof)
    counts = np.where(known["reliability"] > 0.0, known["reliability"], np.nan)
    parts = []
    for scale, value, factor in (
        ("shrunken", known["mean"], counts),
        ("unshrunken", known["estimate"], np.ones(len(there))),
    ):
        for name, at in _lines(value, line).items():
            part = pd.DataFrame({"school": effects.schools, "line": name, "scale": scale, "value": value, "at": at})
            part["bias_needed"] = (value - at) / factor
            for benchmark, size in sizes.items():
                part[f"times {benchmark}"] = part["bias_needed"] / size if size > 0.0 else np.nan
            parts.append(part.assign(robustness_value=robust))
    return pd.concat(parts, ignore_index=True)


def _lines(value: Floats, line: float | None) -> dict[str, Floats]:
    of = Quintiles.of(value)
    nearer_up = of.up - value <= value - of.down
    lines = {ZERO: np.zeros(len(value)), QUINTILE: np.where(nearer_up, of.up, of.down)}
    return lines if line is None else lines | {STATED: np.full(len(value), line)}


def _shares(schools: pd.DataFrame, benchmarks: Sequence[str], multiples: Sequence[float]) -> pd.DataFrame:
    rows = []
    for (line, scale), part in schools.groupby(["line", "scale"], sort=False):
        for benchmark in benchmarks:
            needed = part[f"times {benchmark}"].abs().dropna().to_numpy()
            for times in multiples:
                share = float((needed <= times).mean()) if len(needed) else float("nan")
                rows.append({"line": line, "scale": scale, "benchmark": benchmark, "times": times, "share": share})
    return pd.DataFrame(rows)
