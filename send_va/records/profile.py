"""The first pass over the records: counts, bounds, knots and levels that every later batch is held to."""

# ruff: noqa: PD003, PD004 (Ibis expressions, whose isnull and notnull have no other name)
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import ibis.expr.types as ir
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from send_va.errors import InputError
from send_va.records.rules import evaluate, reading_rules
from send_va.records.sources import reading

if TYPE_CHECKING:
    from send_va.records.reader import Cohort

NO_COMPLETE_PUPIL = "no complete pupil"
ONE_PUPIL = "one pupil"
ONLY_SEND = "only pupils with SEND"
NO_SEND = "no pupil with SEND"


@dataclass(frozen=True)
class NumberSummary:
    """A number over the complete rows, in its own unit.

    Attributes
    ----------
    n : int
        Rows with a value.
    mean, sd, minimum, maximum : float
        `sd` divides by n - 1 and is 0 for a constant; all are NaN without a value.
    """

    n: int
    mean: float
    sd: float
    minimum: float
    maximum: float


@dataclass(frozen=True)
class PriorSummary(NumberSummary):
    """A prior score over the complete rows, in points of the test.

    Attributes
    ----------
    knots : tuple of float
        Interior knots: distinct values strictly between `minimum` and `maximum`, ascending; equally spaced quantiles
        (linear interpolation). Fewer than asked where quantiles coincide.
    mean_need : float
        Mean among pupils with need now (SEN level above 0), NaN when there is none: where effects are stated.
    mean_need_entry : float
        The same by SEN status at entry; NaN without that role.
    """

    knots: tuple[float, ...]
    mean_need: float
    mean_need_entry: float


@dataclass(frozen=True, eq=False)
class SchoolCounts:
    """Pupils of each school; arrays are aligned with `schools`.

    Attributes
    ----------
    schools : tuple of str
        Every school of the file, schools without a complete pupil included; numeric ids in numeric order.
    rows, complete : int array, shape (n_schools,)
        All rows, and complete rows.
    levels : int array, shape (n_schools, 3)
        Complete rows by SEN level now: none, SEN support, EHC plan.
    levels_entry : int array, shape (n_schools, 3), or None
        The same by SEN level at entry (rows where it is missing are in no column); None without that role.
    la : tuple of str or None
        Most frequent local authority of each school.
    n_in_several_las : int
        Schools whose rows name more than one local authority.
    """

    schools: tuple[str, ...]
    rows: NDArray[np.int64]
    complete: NDArray[np.int64]
    levels: NDArray[np.int64]
    levels_entry: NDArray[np.int64] | None
    la: tuple[str | None, ...]
    n_in_several_las: int

    @property
    def flags(self) -> tuple[str, ...]:
        """What is unusual about each school, in words; empty for an ordinary one. Flagged schools are kept."""
        need = self.levels[:, 1:].sum(axis=1)
        conditions = [self.complete == 0, self.complete == 1, need == self.complete, need == 0]
        words = [NO_COMPLETE_PUPIL, ONE_PUPIL, ONLY_SEND, NO_SEND]
        return tuple(str(flag) for flag in np.select(conditions, words, default=""))

    def table(self) -> pd.DataFrame:
        """One row per school: school, la, rows, complete, none, support, ehcp, flag."""
        none, support, ehcp = self.levels.T
        counts = {"rows": self.rows, "complete": self.complete, "none": none, "support": support, "ehcp": ehcp}
        return pd.DataFrame({"school": self.schools, "la": self.la, **counts, "flag": self.flags})


@dataclass(frozen=True, eq=False)
class CohortProfile:
    """What the first pass found; later passes are held to it.

    Attributes
    ----------
    n_rows, n_complete : int
        All rows, and rows with nothing missing that an estimate needs.
    missing : mapping of str to int
        Missing values of each column with a role, over all rows.
    schools : SchoolCounts
        Pupils by school and SEN level.
    outcome : NumberSummary
        In outcome points. ``outcome.sd`` is the pupil SD.
    priors : mapping of str to PriorSummary
        By prior column, in order.
    prior_sem, numeric : mapping of str to NumberSummary
        Standard errors of measurement, and context numbers.
    levels : mapping of str to mapping of str to int
        Levels of each context category with their complete rows, sorted (as numbers where all are integers).
    cohorts : mapping of str to int
        Academic years with their complete rows; empty without that role.
    """

    n_rows: int
    n_complete: int
    missing: Mapping[str, int]
    schools: SchoolCounts
    outcome: NumberSummary
    priors: Mapping[str, PriorSummary]
    prior_sem: Mapping[str, NumberSummary]
    numeric: Mapping[str, NumberSummary]
    levels: Mapping[str, Mapping[str, int]]
    cohorts: Mapping[str, int]


def profile_cohort(cohort: Cohort, prior_knots: int = 5) -> CohortProfile:
    """Take the first pass over a cohort.

    Means and SDs are summed in file order from equal batches, and quantiles are exact: the same file gives the same
    bytes, whatever the number of threads.

    Parameters
    ----------
    cohort : Cohort
        The records.
    prior_knots : int
        Interior knots of each prior score; 5 leaves about 17 % of the pupils between neighbours.

    Returns
    -------
    CohortProfile
        Aggregates only; no value of a single pupil but minima, maxima and knots.

    Raises
    ------
    InputError
        When a number column holds text, a SEN code is unknown, no row is complete, or `prior_knots` is negative.

    Examples
    --------
    >>> from send_va.records.reader import Cohort
    >>> from send_va.records.roles import Roles
    >>> frame = pd.DataFrame({"pupil": range(4), "school": [10, 9, 9, 9], "outcome": [40, 50, None, 60.0],
    ...                       "prior": [100, 104, 99, 98], "sen_status": ["N", "K", "E", "N"]})
    >>> roles = Roles("pupil", "school", "outcome", ("prior",), "sen_status")
    >>> profile = profile_cohort(Cohort.from_pandas(frame, roles))
    >>> profile.n_complete, profile.schools.schools, profile.outcome.mean, profile.priors["prior"].mean_need
    (3, ('9', '10'), 50.0, 104.0)
    """
    if prior_knots < 0:
        raise InputError(f"prior_knots is {prior_knots}, but knots cannot be negative", "Give 0 or more.")
    unreadable = evaluate(cohort, reading_rules(cohort))
    if unreadable:
        raise InputError(unreadable)
    roles = cohort.roles
    columns = (roles.outcome, *roles.prior, *roles.prior_sem, *roles.numeric_context)
    moments, need, need_entry = _stream_moments(cohort, tuple(dict.fromkeys(columns)))
    if moments.n[0] == 0:
        raise InputError(
            "no row is complete", f"Each row needs {', '.join(roles.needed_for_estimation)}; run the check for counts."
        )
    summaries = dict(zip(moments.columns, moments.summaries(), strict=True))
    knots = _knots(cohort, prior_knots)
    at = {name: i for i, name in enumerate(moments.columns)}
    priors = {
        name: PriorSummary(
            **vars(summaries[name]),
            knots=tuple(sorted({k for k in knots[name] if summaries[name].minimum < k < summaries[name].maximum})),
            mean_need=float(need.mean_or_nan()[at[name]]),
            mean_need_entry=float(need_entry.mean_or_nan()[at[name]]),
        )
        for name in roles.prior
    }
    return CohortProfile(
        n_rows=cohort.n_rows,
        n_complete=int(moments.n[0]),
        missing=MappingProxyType(_missing_counts(cohort)),
        schools=count_schools(cohort),
        outcome=summaries[roles.outcome],
        priors=MappingProxyType(priors),
        prior_sem=MappingProxyType({name: summaries[name] for name in roles.prior_sem}),
        numeric=MappingProxyType({name: summaries[name] for name in roles.numeric_context}),
        levels=MappingProxyType({name: _levels(cohort, name) for name in roles.categorical}),
        cohorts=_levels(cohort, roles.cohort) if roles.cohort else MappingProxyType({}),
    )


def count_schools(cohort: Cohort) -> SchoolCounts:
    """Count the pupils of every school by SEN level.

    Parameters
    ----------
    cohort : Cohort
        The records.

    Returns
    -------
    SchoolCounts
        Rows without a school are in no count.

    Raises
    ------
    InputError
        When the file cannot be read to its end.
    """
    school = cohort.roles.school
    table = cohort.table.filter(cohort.table[school].notnull())
    counts = {"rows": table.count(), "complete": table.count(where=table.complete)}
    names = ["sen_level", *(["sen_level_entry"] if cohort.roles.sen_status_entry else [])]
    for name in names:
        counts |= {f"{name}_{k}": table.count(where=table.complete & (table[name] == k)) for k in range(3)}
    counted = _fetch(cohort, table.group_by(school).aggregate(**counts))
    ordered = counted.set_index(school).loc[list(sort_codes(counted[school]))]
    schools = tuple(str(name) for name in ordered.index)
    la, several = _school_la(cohort, schools)

    def by_level(name: str) -> NDArray[np.int64]:
        return ordered[[f"{name}_{k}" for k in range(3)]].to_numpy(dtype=np.int64)

    return SchoolCounts(
        schools=schools,
        rows=ordered["rows"].to_numpy(dtype=np.int64),
        complete=ordered["complete"].to_numpy(dtype=np.int64),
        levels=by_level("sen_level"),
        levels_entry=by_level("sen_level_entry") if len(names) == 2 else None,
        la=la,
        n_in_several_las=several,
    )


def sort_codes(codes: Iterable[object]) -> tuple[str, ...]:
    """Sort codes as numbers where all are integers, as text otherwise.

    Parameters
    ----------
    codes : iterable of str
        Distinct codes.

    Returns
    -------
    tuple of str
        The same codes in order.

    Examples
    --------
    >>> sort_codes(["10", "9"]), sort_codes(["10", "9", "A"])
    (('9', '10'), ('10', '9', 'A'))
    """
    texts = [str(code) for code in codes]
    if all(text.removeprefix("-").isdecimal() for text in texts):
        return tuple(sorted(texts, key=lambda text: (int(text), text)))
    return tuple(sorted(texts))


class _Moments:
    """Running count, mean, sum of squares and range of columns, merged batch by batch (Chan, Golub & LeVeque 1983)."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        width = len(columns)
        self.columns = columns
        self.n: NDArray[np.int64] = np.zeros(width, dtype=np.int64)
        self.mean: NDArray[np.float64] = np.zeros(width)
        self.squares: NDArray[np.float64] = np.zeros(width)
        self.low: NDArray[np.float64] = np.full(width, np.inf)
        self.high: NDArray[np.float64] = np.full(width, -np.inf)

    def add(self, values: NDArray[np.float64]) -> None:
        """Add rows; `values` has shape (rows, columns), NaN where missing."""
        present = ~np.isnan(values)
        n = present.sum(axis=0)
        divisor = np.maximum(n, 1)
        mean = np.where(present, values, 0.0).sum(axis=0) / divisor
        deviation = np.where(present, values - mean, 0.0)
        shift, total = mean - self.mean, np.maximum(self.n + n, 1)
        self.squares += (deviation**2).sum(axis=0) + shift**2 * self.n * n / total
        self.mean += shift * n / total
        self.n += n
        self.low = np.minimum(self.low, np.where(present, values, np.inf).min(axis=0, initial=np.inf))
        self.high = np.maximum(self.high, np.where(present, values, -np.inf).max(axis=0, initial=-np.inf))

    def mean_or_nan(self) -> NDArray[np.float64]:
        return np.where(self.n > 0, self.mean, np.nan)

    def summaries(self) -> list[NumberSummary]:
        sd = np.sqrt(self.squares / np.maximum(self.n - 1, 1))
        rows = zip(self.n, self.mean, sd, self.low, self.high, strict=True)
        empty = (float("nan"),) * 4
        return [NumberSummary(int(n), *(map(float, rest) if n else empty)) for n, *rest in rows]


def _stream_moments(cohort: Cohort, columns: tuple[str, ...]) -> tuple[_Moments, _Moments, _Moments]:
    everyone, need, need_entry = _Moments(columns), _Moments(columns), _Moments(columns)
    has_entry = cohort.roles.sen_status_entry is not None
    statuses = ["sen_level", *(["sen_level_entry"] if has_entry else [])]
    for batch in cohort.batches([*columns, *statuses]):
        arrays = [batch.column(name).to_numpy(zero_copy_only=False) for name in columns]
        values = np.column_stack([array.astype(np.float64) for array in arrays])
        everyone.add(values)
        need.add(values[batch.column("sen_level").to_numpy(zero_copy_only=False) > 0])
        if has_entry:
            need_entry.add(values[batch.column("sen_level_entry").to_numpy(zero_copy_only=False) > 0])
    return everyone, need, need_entry


def _knots(cohort: Cohort, count: int) -> dict[str, list[float]]:
    if count == 0:
        return {name: [] for name in cohort.roles.prior}
    shares = [(i + 1) / (count + 1) for i in range(count)]
    rows = cohort.table.filter(cohort.table.complete)
    aggregates = {f"prior_{i}": rows[name].quantile(shares) for i, name in enumerate(cohort.roles.prior)}
    row = _fetch(cohort, rows.aggregate(**aggregates)).iloc[0]
    return {name: [float(value) for value in row[f"prior_{i}"]] for i, name in enumerate(cohort.roles.prior)}


def _missing_counts(cohort: Cohort) -> dict[str, int]:
    names = cohort.roles.columns
    row = _fetch(
        cohort, cohort.table.aggregate(**{f"c_{i}": cohort.table[n].isnull().sum() for i, n in enumerate(names)})
    ).iloc[0]
    return {name: int(row[f"c_{i}"]) for i, name in enumerate(names)}


def _levels(cohort: Cohort, name: str) -> Mapping[str, int]:
    rows = cohort.table.filter(cohort.table.complete & cohort.table[name].notnull())
    counted = _fetch(cohort, rows.group_by(level=rows[name]).aggregate(rows=rows.count()))
    by_level = dict(zip(counted["level"], counted["rows"], strict=True))
    return MappingProxyType({level: int(by_level[level]) for level in sort_codes(by_level)})


def _school_la(cohort: Cohort, schools: tuple[str, ...]) -> tuple[tuple[str | None, ...], int]:
    if cohort.roles.la is None:
        return (None,) * len(schools), 0
    table, roles = cohort.table, cohort.roles
    rows = table.filter(table[roles.school].notnull() & table[roles.la].notnull())
    counted = _fetch(cohort, rows.group_by(school=rows[roles.school], la=rows[roles.la]).aggregate(rows=rows.count()))
    several = int((counted.groupby("school").size() > 1).sum())
    most = counted.sort_values(["rows", "la"], ascending=[False, True]).drop_duplicates("school")
    la_of = dict(zip(most["school"], most["la"], strict=True))
    return tuple(la_of.get(school) for school in schools), several


def _fetch(cohort: Cohort, expression: ir.Table) -> pd.DataFrame:
    with reading(cohort.source.name):
        frame: pd.DataFrame = cohort.connection.to_pyarrow(expression).to_pandas()
    return frame
