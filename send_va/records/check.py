"""Every rule that the records of a study break, listed at once."""

# ruff: noqa: PD003, PD004 (Ibis expressions, whose isnull and notnull have no other name)
from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import ibis
import ibis.expr.types as ir
import pandas as pd

from send_va.errors import BrokenRule, Failure, InputError
from send_va.records.academic_years import NO_KS2_REASON, YEAR_11_ENDS_WITHOUT_KS2, academic_year_end
from send_va.records.columns import as_code
from send_va.records.fields import TERMS
from send_va.records.profile import NO_COMPLETE_PUPIL, NO_SEND, ONE_PUPIL, ONLY_SEND, count_schools
from send_va.records.roll import count_earlier
from send_va.records.rules import MOST_EXAMPLES, RowRule, evaluate, schema_rules
from send_va.records.sources import reading

if TYPE_CHECKING:
    from send_va.records.reader import Cohort

# NPD census columns carry the term in their name, e.g. SENprovision_AUT18 (NPD data tables, school census).
_AUTUMN_CENSUS = re.compile(r"_AUT\d{2}$", re.IGNORECASE)
_CONSTANT_OUTCOME = "Every pupil has the same outcome: there is nothing to explain. Check the mapping of the column."
_CONSTANT_COVARIATE = "It can explain nothing: take it out of the roles, or check the mapping."
_SCHOOL_FLAGS = {
    NO_COMPLETE_PUPIL: "has at least one complete pupil",
    ONE_PUPIL: "has more than one pupil",
    ONLY_SEND: "has pupils without SEND",
    NO_SEND: "has pupils with SEND",
}


@dataclass(frozen=True)
class CheckReport:
    """What the check found.

    Attributes
    ----------
    failures : tuple of Failure
        Every broken rule, errors first.
    n_rows : int
        Rows looked at.
    source : str
        File name and hash.
    """

    failures: tuple[Failure, ...]
    n_rows: int
    source: str

    @property
    def errors(self) -> tuple[Failure, ...]:
        """Broken rules that stop a run."""
        return tuple(failure for failure in self.failures if failure.level == "error")

    @property
    def warnings(self) -> tuple[Failure, ...]:
        """Broken rules that are reported while the run goes on."""
        return tuple(failure for failure in self.failures if failure.level == "warning")

    @property
    def ok(self) -> bool:
        """True when a run may start: there is no error (there may be warnings)."""
        return not self.errors

    def table(self) -> pd.DataFrame:
        """One row per broken rule: column, rule, level, rows (count of `unit`), unit, examples, values, remedy."""
        columns = ["column", "rule", "level", "rows", "unit", "examples", "values", "remedy"]
        return pd.DataFrame(
            [
                (f.column, f.rule, f.level, f.count, f.unit, ", ".join(map(str, f.rows)), ", ".join(f.values), f.remedy)
                for f in self.failures
            ],
            columns=columns,
        )

    def with_failures(self, more: Iterable[Failure]) -> CheckReport:
        """The same with what another check of the same records has found, errors first."""
        found = sorted((*self.failures, *more), key=lambda failure: failure.level != "error")
        return replace(self, failures=tuple(found))

    def raise_if_failed(self) -> None:
        """Stop when there is an error.

        Raises
        ------
        InputError
            Listing every error, not only the first.
        """
        if not self.ok:
            raise InputError(self.errors)

    def __str__(self) -> str:
        head = f"{self.source}: {self.n_rows:,} rows, {len(self.errors)} errors, {len(self.warnings)} warnings"
        return "\n".join([head, *(f"{failure.level}: {failure}" for failure in self.failures)])


def check_cohort(cohort: Cohort, *, baseline: str = "KS2") -> CheckReport:
    """Check the records of a study against every rule, in a few aggregates over the lazy table.

    Rows are counted where they lie; at most ten row numbers (from 1, the header not counted) come back for each rule,
    and never a pupil id.

    Parameters
    ----------
    cohort : Cohort
        The records.
    baseline : str
        What prior attainment is. ``"KS2"`` refuses Year 11 cohorts of 2024/25 and 2025/26, for whom there are no tests;
        any other name (``"KS1"``, ``"CAT4"``) says that another baseline is used.

    Returns
    -------
    CheckReport
        ``report.ok`` when a run may start; ``report.table()`` to read or print.

    Raises
    ------
    InputError
        When the file cannot be read to its end.

    Examples
    --------
    >>> from send_va.records.reader import Cohort
    >>> from send_va.records.roles import Roles
    >>> frame = pd.DataFrame({"pupil": [1, 2, 3, 3], "school": [9, 9, 9, 9], "outcome": [40, 50, -1, 60.0],
    ...                       "prior": [100, 104, 99, 98], "sen_status": ["N", "K", "N", "N"]})
    >>> cohort = Cohort.from_pandas(frame, Roles("pupil", "school", "outcome", ("prior",), "sen_status"))
    >>> check_cohort(cohort).table()[["column", "rule", "rows", "examples"]].values.tolist()
    [['outcome', 'is at least 0', 1, '3'], ['pupil', 'has one row', 2, '3, 4']]
    """
    found = [
        *_entry_mapping(cohort),
        *_row_failures(cohort),
        *_column_failures(cohort),
        *_pupil_failures(cohort),
        *_roll_failures(cohort),
        *_school_failures(cohort),
        *_cohort_year_failures(cohort, baseline),
    ]
    n_rows = cohort.n_rows + count_earlier(cohort)
    return CheckReport((), n_rows, str(cohort.source)).with_failures(found)


def _entry_mapping(cohort: Cohort) -> Iterator[Failure]:
    entry = cohort.roles.sen_status_entry
    if entry is None:
        return
    in_file = cohort.columns.get(entry, entry)
    if in_file == cohort.columns.get(cohort.roles.sen_status, cohort.roles.sen_status):
        remedy = f"Both read {in_file}. Map the last census before transfer, or leave the role sen_status_entry out."
        yield BrokenRule("is another column than SEN status now", entry, remedy=remedy)
    if _AUTUMN_CENSUS.search(in_file):
        remedy = "Autumn Year 7 status is the new school's own. Use the spring or summer census of Year 6."
        yield BrokenRule(f"is recorded before transfer ({in_file} is an autumn census)", entry, remedy=remedy)


def _row_failures(cohort: Cohort) -> Iterator[Failure]:
    for failure in evaluate(cohort, schema_rules(cohort)):
        all_missing = failure.rule == "is not missing" and failure.count == cohort.n_rows
        if all_missing and failure.level == "warning":
            remedy = "The column is empty: map another one under [columns], or take it out of the roles."
            yield replace(failure, rule="has a value in at least one row", rows=(), remedy=remedy, level="error")
        else:
            yield failure


def _column_failures(cohort: Cohort) -> Iterator[Failure]:
    """Look for what only a whole column shows: constants, one SEN level, a copied status, no complete row."""
    table, roles = cohort.table, cohort.roles
    measured = (roles.outcome, *roles.prior, *roles.context_columns)
    aggregates: dict[str, ir.Value] = {"complete": table.count(where=table.complete)}
    for i, name in enumerate(measured):
        aggregates |= {f"low_{i}": table[name].min(), f"high_{i}": table[name].max()}
    aggregates |= {"level_low": table.sen_level.min(), "level_high": table.sen_level.max()}
    if roles.sen_status_entry:
        aggregates["changed"] = table.count(where=table.sen_level != table.sen_level_entry)
        aggregates["known"] = table.count(where=table.sen_level_entry.notnull() & table.sen_level.notnull())
    row = _rows(cohort, table.aggregate(**aggregates))[0]
    for i, name in enumerate(measured):
        if row[f"low_{i}"] is not None and row[f"low_{i}"] == row[f"high_{i}"]:
            remedy = _CONSTANT_OUTCOME if name == roles.outcome else _CONSTANT_COVARIATE
            yield BrokenRule("takes more than one value", name, cohort.n_rows, remedy=remedy)
    if row["level_low"] is not None and row["level_low"] == row["level_high"]:
        remedy = (
            "Nothing to compare: the records need pupils with and without identified need. Check the codes under [sen]."
        )
        yield BrokenRule("has more than one level", roles.sen_status, cohort.n_rows, remedy=remedy)
    if roles.sen_status_entry and row["known"] and not row["changed"]:
        remedy = "Check that it is not a copy of SEN status now; real statuses change between Year 6 and Year 11."
        yield BrokenRule(
            "differs from SEN status now in at least one row", roles.sen_status_entry, remedy=remedy, level="warning"
        )
    if row["complete"] == 0:
        remedy = f"Each row needs {', '.join(roles.needed_for_estimation)}."
        yield BrokenRule("at least one row is complete", count=cohort.n_rows, remedy=remedy)


def _pupil_failures(cohort: Cohort) -> Iterator[Failure]:
    table, pupil, school = cohort.table, cohort.roles.pupil, cohort.roles.school
    known = table.filter(table[pupil].notnull())
    pairs = known.group_by([pupil, school]).aggregate(rows=known.count())
    by_pupil = pairs.group_by(pupil).aggregate(schools=pairs[school].count(), most=pairs.rows.max())
    twice, moved = by_pupil.filter(by_pupil.most > 1), by_pupil.filter(by_pupil.schools > 1)
    counts = _rows(cohort, by_pupil.aggregate(twice=(by_pupil.most > 1).sum(), moved=(by_pupil.schools > 1).sum()))[0]
    if counts["twice"]:
        remedy = "Keep one row per pupil and key stage; pool years by giving each its own pupil ids."
        yield _pupil_failure(cohort, known, twice, BrokenRule("has one row", pupil, remedy=remedy))
    if counts["moved"]:
        remedy = "Keep the school at which the pupil is counted at the end of the key stage."
        if cohort.roles.terms_on_roll is not None:
            remedy += " Rows of schools attended before need 0 in the column of on_roll_at_end."
        yield _pupil_failure(cohort, known, moved, BrokenRule("is in one school", pupil, remedy=remedy))


def _pupil_failure(cohort: Cohort, among: ir.Table, pupils: ir.Table, broken: BrokenRule) -> Failure:
    """Count the rows of the pupils who break a rule, and name the first of them; never the pupils."""
    rows = among.semi_join(pupils, cohort.roles.pupil)
    first = _rows(cohort, rows.select("row_number").order_by("row_number").limit(MOST_EXAMPLES))
    total = _rows(cohort, rows.aggregate(rows=rows.count()))[0]["rows"]
    return replace(broken, count=int(str(total)), rows=tuple(int(str(row["row_number"])) for row in first))


def _roll_failures(cohort: Cohort) -> Iterator[Failure]:
    """Look at pupils with rows of several schools: terms must add up, and one row is that at the end."""
    roles = cohort.roles
    if cohort.earlier is None or roles.terms_on_roll is None:
        return
    pupil, school, terms = roles.pupil, roles.school, roles.terms_on_roll
    every = cohort.table.select("row_number", pupil, school, terms, at_end=ibis.literal(1))
    before = cohort.earlier.select("row_number", pupil, school, terms, at_end=ibis.literal(0))
    both = every.union(before)
    both = both.filter(both[pupil].notnull())
    pairs = both.group_by([pupil, school]).aggregate(
        rows=both.count(),
        before=both.count(where=both.at_end == 0),
        terms=both[terms].sum(),
        blank=both[terms].isnull().sum(),
    )
    pairs = pairs.mutate(again=(pairs.before > 0) & (pairs.rows > 1))
    found = pairs.group_by(pupil).aggregate(
        before=pairs.before.sum(),
        at_end=pairs.rows.sum() - pairs.before.sum(),
        terms=pairs.terms.sum(),
        blank=pairs.blank.sum(),
        again=pairs.again.any(),
    )
    rules = _roll_rules(found, pupil, terms)
    counts = _rows(cohort, found.aggregate(**{f"rule_{i}": breaks.sum() for i, (breaks, _) in enumerate(rules)}))[0]
    for i, (breaks, rule) in enumerate(rules):
        if counts[f"rule_{i}"]:
            yield _pupil_failure(cohort, both, found.filter(breaks), rule)


def _roll_rules(found: ir.Table, pupil: str, terms: str) -> list[tuple[ir.BooleanColumn, BrokenRule]]:
    """Which pupils break which rule; `found` has a row a pupil."""
    stays = "Add up the terms of all stays at the school in one row."
    sums = "Give each term to the school on whose roll the pupil was in that term."
    blanks = "Fill it in: how much of the pupil each school stands for hangs on it."
    nowhere = "Without one there is no result to share out: these rows are in no estimate."
    several = "is not missing where a pupil has rows of several schools"
    at_end = "has a row at the school at the end of the key stage"
    return [
        (found.again, BrokenRule("has one row a school", pupil, remedy=stays)),
        (
            (found.terms > TERMS) & (found.before > 0),
            BrokenRule(f"adds up to at most {TERMS} over the rows of a pupil", terms, remedy=sums),
        ),
        ((found.blank > 0) & (found.before > 0), BrokenRule(several, terms, remedy=blanks)),
        (found.at_end == 0, BrokenRule(at_end, pupil, remedy=nowhere, level="warning")),
    ]


def _school_failures(cohort: Cohort) -> Iterator[Failure]:
    counted = count_schools(cohort)
    remedy = "Kept, and flagged in every result; never dropped silently."
    for flag, rule in _SCHOOL_FLAGS.items():
        schools = [school for school, f in zip(counted.schools, counted.flags, strict=True) if f == flag]
        if schools:
            shown = tuple(schools[:MOST_EXAMPLES])
            yield BrokenRule(
                rule, cohort.roles.school, len(schools), values=shown, remedy=remedy, level="warning", unit="school"
            )
    if counted.n_in_several_las:
        remedy = "The most frequent local authority of each school is used."
        assert cohort.roles.la is not None
        yield BrokenRule(
            "is one per school",
            cohort.roles.la,
            counted.n_in_several_las,
            remedy=remedy,
            level="warning",
            unit="school",
        )


def _cohort_year_failures(cohort: Cohort, baseline: str) -> Iterator[Failure]:
    if cohort.roles.cohort is None or re.sub(r"[^a-z0-9]|stage|key", "", baseline.lower()) not in ("ks2", "2"):
        return
    known = cohort.table.filter(cohort.table[cohort.roles.cohort].notnull())
    counted = known.group_by(label=known[cohort.roles.cohort]).aggregate(rows=known.count())
    labels = [str(row["label"]) for row in _rows(cohort, counted.order_by(ibis.desc("rows")).limit(1_000))]
    recorded = cohort.recorded[cohort.roles.cohort]
    unknown = [label for label in labels if academic_year_end(label) is None]
    untested = [label for label in labels if academic_year_end(label) in YEAR_11_ENDS_WITHOUT_KS2]
    rules = []
    for bad, rule, remedy in (
        (unknown, "is an academic year", 'Write it as "2022/23" (or 2023, the year it ends).'),
        (untested, NO_KS2_REASON, "Leave these cohorts out, or name the baseline that was used instead of KS2."),
    ):
        if bad:
            rules.append(
                RowRule(
                    cohort.roles.cohort, rule, as_code(recorded).isin(bad), remedy, as_code(recorded), distinct=True
                )
            )
    yield from evaluate(cohort, rules)


def _rows(cohort: Cohort, expression: ir.Table) -> list[dict[str, object]]:
    with reading(cohort.source.name):
        rows: list[dict[str, object]] = cohort.connection.to_pyarrow(expression).to_pylist()
    return rows
