"""Records by school and cohort: one fit of all cohorts, with a group for every school in every cohort.

One fit, so that coefficients and with them the scale of effects are the same in every cohort. Differences between
cohorts (marking, a new test) are taken out of every design column first, which is what an indicator of each cohort
among the fixed effects would do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import ibis
import numpy as np
from numpy.typing import NDArray

from send_va.errors import Failure, InputError
from send_va.multilevel.crossproducts import FloatArray
from send_va.records.academic_years import academic_year_end
from send_va.records.design_columns import INTERCEPT, ContextColumns
from send_va.records.profile import CohortProfile, count_schools, sort_codes
from send_va.records.reader import Cohort
from send_va.records.sources import reading
from send_va.value_added.pupil_design import PupilDesign, pupil_design
from send_va.value_added.row_coder import PRIOR_SLOPE
from send_va.value_added.year_estimates import year_ends

_BETWEEN = "|"


@dataclass(frozen=True, eq=False)
class YearGroups:
    """Records in which every school is as many groups as it has cohorts.

    Attributes
    ----------
    cohort : Cohort
        The same records, their schools renamed.
    profile : CohortProfile
        Knots and levels are those of all cohorts together.
    schools : tuple of str
    years : integer array, shape (years,)
        In which the academic years end, ascending.
    school, year : integer array, shape (groups,)
        Places of each group among `schools` and `years`.
    """

    cohort: Cohort
    profile: CohortProfile
    schools: tuple[str, ...]
    years: NDArray[np.int64]
    school: NDArray[np.intp]
    year: NDArray[np.intp]

    def wide(self, values: FloatArray) -> FloatArray:
        """Lay values by group, (..., groups), out as (..., schools, years); missing where there is no such group."""
        out = np.full((*values.shape[:-1], len(self.schools), len(self.years)), np.nan)
        out[..., self.school, self.year] = values
        return out

    def counts(self, values: NDArray[np.number]) -> NDArray[np.int64]:
        """Lay numbers of pupils out in the same way, zero where there is no such group."""
        return np.nan_to_num(self.wide(values.astype(np.float64))).astype(np.int64)

    def design(self, context: ContextColumns) -> PupilDesign:
        """Design rows of all pupils by group, national means of each cohort taken out."""
        design = pupil_design(self.cohort, self.profile, context)
        year = self.year[design.codes]
        moved = [k for k, name in enumerate(design.columns) if name not in (INTERCEPT, PRIOR_SLOPE)]
        shifts = np.zeros((len(self.years), len(design.columns)))
        pupils = np.maximum(np.bincount(year, minlength=len(self.years)), 1)
        for k in moved:
            shifts[:, k] = np.bincount(year, weights=design.rows[:, k], minlength=len(self.years)) / pupils
            design.rows[:, k] -= shifts[year, k]
        at = [design.columns.index(name) for name in context.composition]
        return replace(design, means=design.means - shifts[np.ix_(self.year, at)])


def cohort_counts(cohort: Cohort) -> dict[str | None, int]:
    """Complete pupils by academic year as recorded; the key None counts those without one.

    Returns
    -------
    dict
        Empty where the records have no role `cohort`.

    Raises
    ------
    InputError
        The file cannot be read to its end.
    """
    if cohort.roles.cohort is None:
        return {}
    complete = cohort.table.filter(cohort.table.complete)
    by_year = complete.group_by(label=complete[cohort.roles.cohort]).aggregate(n=complete.count())
    with reading(cohort.source.name):
        rows = cohort.connection.to_pyarrow(by_year).to_pylist()
    found = {row["label"]: int(row["n"]) for row in rows}
    known = sort_codes(label for label in found if label is not None)
    return {**{label: found[label] for label in known}, **({None: found[None]} if None in found else {})}


def n_years(cohort: Cohort) -> int:
    """How many academic years the complete records are of; those that cannot be read do not count."""
    ends = {academic_year_end(label) for label in cohort_counts(cohort) if label is not None}
    return len(ends - {None})


def year_groups(cohort: Cohort, profile: CohortProfile) -> YearGroups:
    """Split every school by cohort.

    Parameters
    ----------
    cohort : Cohort
        With the role `cohort`.
    profile : CohortProfile
        Of the same records.

    Returns
    -------
    YearGroups

    Raises
    ------
    InputError
        No role `cohort`, a single cohort, complete pupils without one, or cohorts that are no academic years.
    """
    role = cohort.roles.cohort
    counts = cohort_counts(cohort)
    _require_cohorts(role, counts)
    ends = year_ends([label for label in counts if label is not None])
    years = np.array(sorted(set(ends.values())), dtype=np.int64)
    if len(years) < 2:
        raise InputError(
            f"all records are of one cohort, {', '.join(ends)}: it says nothing of how schools change",
            "Give the records of two cohorts or more in one file, each pupil with an id of their own.",
        )
    table = cohort.table
    end = table[role].cases(*((label, str(end)) for label, end in ends.items()), else_=ibis.null("string"))
    grouped = replace(cohort, table=table.mutate(**{cohort.roles.school: table[cohort.roles.school] + _BETWEEN + end}))
    held = replace(profile, schools=count_schools(grouped))
    split = [name.rpartition(_BETWEEN) for name in held.schools.schools]
    schools = tuple(name for name in profile.schools.schools)
    place = {name: k for k, name in enumerate(schools)}
    return YearGroups(
        cohort=grouped,
        profile=held,
        schools=schools,
        years=years,
        school=np.array([place[name] for name, _, _ in split], dtype=np.intp),
        year=np.searchsorted(years, [int(year) for _, _, year in split]),
    )


def _require_cohorts(role: str | None, counts: dict[str | None, int]) -> None:
    if role is None:
        raise InputError(
            "the records have no role cohort, so years cannot be told apart",
            'Name the column of the academic year: cohort = "cohort" under [roles].',
        )
    if None in counts:
        remedy = "Fill in the academic year of every pupil."
        raise InputError(Failure("is missing for complete records", role, counts[None], remedy=remedy))
