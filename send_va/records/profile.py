"""The first pass over the records: counts, bounds, knots and levels that every later batch is held to."""

# ruff: noqa: PD003, PD004 (Ibis expressions, whose isnull and notnull have no other name)
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import ibis
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
    roles = cohort.roles
    n_rows, missing, knots = _aggregate(cohort, prior_knots)
    columns = dict.fromkeys((roles.outcome, *roles.prior, *roles.prior_sem, *roles.numeric_context))
    streamed = _stream(cohort, tuple(columns))
    if streamed.everyone.n[0] == 0:
        needed = ", ".join(roles.needed_for_estimation)
        raise InputError("no row is complete", f"Each row needs {needed}; the check gives counts by column.")
    summaries = dict(zip(columns, streamed.everyone.summaries(), strict=True))
    need = dict(zip(columns, streamed.need.summaries(), strict=True))
    need_entry = dict(zip(columns, streamed.need_entry.summaries(), strict=True))

    def prior_summary(name: str) -> PriorSummary:
        whole = summaries[name]
        inside = {knot for knot in knots[name] if whole.minimum < knot < whole.maximum}
        return PriorSummary(
            **vars(whole),
            knots=tuple(sorted(inside)),
            mean_need=need[name].mean,
            mean_need_entry=need_entry[name].mean,
        )

    return CohortProfile(
        n_rows=n_rows,
        n_complete=int(streamed.everyone.n[0]),
        missing=MappingProxyType(missing),
        schools=count_schools(cohort),
        outcome=summaries[roles.outcome],
        priors=MappingProxyType({name: prior_summary(name) for name in roles.prior}),
        prior_sem=MappingProxyType({name: summaries[name] for name in roles.prior_sem}),
        numeric=MappingProxyType({name: summaries[name] for name in roles.numeric_context}),
        levels=MappingProxyType({name: _sorted_counts(streamed.levels[name]) for name in roles.categorical}),
        cohorts=_sorted_counts(streamed.levels[roles.cohort] if roles.cohort else Counter()),
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
    known = cohort.table.filter(cohort.table[cohort.roles.school].notnull())
    counts = {"rows": known.count(), "complete": known.count(where=known.complete)}
    statuses = ["sen_level", *(["sen_level_entry"] if cohort.roles.sen_status_entry else [])]
    for name in statuses:
        counts |= {f"{name}_{k}": known.count(where=known.complete & (known[name] == k)) for k in range(3)}
    la = known[cohort.roles.la] if cohort.roles.la else ibis.null("string")
    by_la = _fetch(cohort, known.group_by(school=known[cohort.roles.school], la=la).aggregate(**counts))
    by_school = by_la.groupby("school")[list(counts)].sum()
    schools = sort_codes(by_school.index)
    ordered = by_school.loc[list(schools)]
    named = by_la.dropna(subset="la").sort_values(["rows", "la"], ascending=[False, True])
    la_of = (
        dict(zip(*named.drop_duplicates("school")[["school", "la"]].to_numpy().T, strict=True)) if len(named) else {}
    )

    def by_level(name: str) -> NDArray[np.int64]:
        return ordered[[f"{name}_{k}" for k in range(3)]].to_numpy(dtype=np.int64)

    return SchoolCounts(
        schools=schools,
        rows=ordered["rows"].to_numpy(dtype=np.int64),
        complete=ordered["complete"].to_numpy(dtype=np.int64),
        levels=by_level("sen_level"),
        levels_entry=by_level("sen_level_entry") if len(statuses) == 2 else None,
        la=tuple(la_of.get(school) for school in schools),
        n_in_several_las=int((named.groupby("school").size() > 1).sum()),
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

    def __init__(self, width: int) -> None:
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

    def summaries(self) -> list[NumberSummary]:
        sd = np.sqrt(self.squares / np.maximum(self.n - 1, 1))
        rows = zip(self.n, self.mean, sd, self.low, self.high, strict=True)
        empty = (float("nan"),) * 4
        return [NumberSummary(int(n), *(map(float, rest) if n else empty)) for n, *rest in rows]


@dataclass(frozen=True)
class _Streamed:
    everyone: _Moments
    need: _Moments
    need_entry: _Moments
    levels: dict[str, Counter[str]]


def _stream(cohort: Cohort, columns: tuple[str, ...]) -> _Streamed:
    """Sum the complete rows in file order, so that the last bit does not depend on threads."""
    roles = cohort.roles
    coded = [*roles.categorical, *([roles.cohort] if roles.cohort else [])]
    statuses = ["sen_level", *(["sen_level_entry"] if roles.sen_status_entry else [])]
    everyone, need, need_entry = (_Moments(len(columns)) for _ in range(3))
    found = _Streamed(everyone, need, need_entry, {name: Counter() for name in coded})
    for batch in cohort.batches(list(dict.fromkeys([*columns, *statuses, *coded]))):
        values = np.column_stack([batch.column(name).to_numpy(zero_copy_only=False) for name in columns])
        found.everyone.add(values.astype(np.float64))
        for status, moments in zip(statuses, (found.need, found.need_entry), strict=False):
            moments.add(values[batch.column(status).to_numpy(zero_copy_only=False) > 0].astype(np.float64))
        for name in coded:
            for pair in batch.column(name).drop_null().value_counts().to_pylist():
                found.levels[name][pair["values"]] += pair["counts"]
    return found


def _aggregate(cohort: Cohort, prior_knots: int) -> tuple[int, dict[str, int], dict[str, list[float]]]:
    """Count rows and missing values and take quantiles of prior scores, once every value can be read."""
    table, roles = cohort.table, cohort.roles
    shares = [(i + 1) / (prior_knots + 1) for i in range(prior_knots)]
    unreadable = evaluate(cohort, reading_rules(cohort))
    if unreadable:
        raise InputError(unreadable)
    aggregates = {"rows": table.count()}
    aggregates |= {f"missing_{i}": table[name].isnull().sum() for i, name in enumerate(roles.columns)}
    if shares:
        aggregates |= {
            f"knots_{i}": table[name].quantile(shares, where=table.complete) for i, name in enumerate(roles.prior)
        }
    row = _fetch(cohort, table.aggregate(**aggregates)).iloc[0]
    missing = {name: int(row[f"missing_{i}"]) for i, name in enumerate(roles.columns)}
    at_shares = {name: row[f"knots_{i}"] if shares else None for i, name in enumerate(roles.prior)}
    knots = {name: [] if values is None else [float(value) for value in values] for name, values in at_shares.items()}
    return int(row["rows"]), missing, knots


def _sorted_counts(counts: Counter[str]) -> Mapping[str, int]:
    return MappingProxyType({level: counts[level] for level in sort_codes(counts)})


def _fetch(cohort: Cohort, expression: ir.Table) -> pd.DataFrame:
    with reading(cohort.source.name):
        frame: pd.DataFrame = cohort.connection.to_pyarrow(expression).to_pandas()
    return frame
