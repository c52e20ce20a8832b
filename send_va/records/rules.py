"""The schema's rules as SQL: counted in one aggregate over the lazy table, with at most ten example rows each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import ibis
import ibis.expr.types as ir
import pandera.pandas as pan

from send_va.errors import BrokenRule, Failure
from send_va.records.columns import as_code, as_number, is_not_a_number
from send_va.records.fields import ORDERED_FIELDS, TERMS
from send_va.records.schema import pupil_schema
from send_va.records.sources import reading

if TYPE_CHECKING:
    from send_va.records.reader import Cohort

MOST_EXAMPLES: Final = 10
# A longer value in a column of codes or numbers is likely a name or an id that was mapped by mistake: not repeated.
_LONGEST_SHOWN = 12


def _min_signature(row: int, most: int) -> list[int]:  # type: ignore[empty-body]
    """Signature of DuckDB's own aggregate, which is what runs."""


def _arg_min_signature(value: str, row: int, most: int) -> list[str]:  # type: ignore[empty-body]
    """Signature of DuckDB's own aggregate, which is what runs."""


_first_rows = ibis.udf.agg.builtin(_min_signature, name="min")
_values_of_first_rows = ibis.udf.agg.builtin(_arg_min_signature, name="arg_min")


@dataclass(frozen=True)
class RowRule:
    """One rule that each row keeps or breaks.

    Attributes
    ----------
    column : str
        Column it concerns.
    rule : str
        What is required, in words.
    breaks : ibis boolean column over the recorded table
        True in the rows that break it; missing counts as kept.
    remedy : str
        What the user can do.
    value : ibis column or None
        What to show of a breaking row; None where it must not be shown.
    level : str
        ``"error"`` or ``"warning"``.
    distinct : bool
        Show the different values, most frequent first, instead of those of the example rows.
    reading : bool
        True when breaking it means that the value cannot be read at all.
    """

    column: str
    rule: str
    breaks: ir.BooleanColumn
    remedy: str
    value: ir.Column | None = None
    level: Literal["error", "warning"] = "error"
    distinct: bool = False
    reading: bool = False


def schema_rules(cohort: Cohort) -> list[RowRule]:
    """Rules of the pupil schema, for the columns this cohort has.

    Parameters
    ----------
    cohort : Cohort
        The records.

    Returns
    -------
    list of RowRule
        In the order of the schema's columns: type, bounds, codes, missing values, then order between columns.
    """
    schema = pupil_schema(cohort.roles, sen=cohort.sen, outcome_range=cohort.outcome_range)
    rules: list[RowRule] = []
    for name, definition in schema.columns.items():
        if name in cohort.recorded.columns:
            rules += _column_rules(cohort, name, definition)
    for left, right in ORDERED_FIELDS:
        if left in cohort.recorded.columns and right in cohort.recorded.columns:
            small, large = as_number(cohort.recorded[left]), as_number(cohort.recorded[right])
            remedy = "Correct the records; both are counts of half-day sessions of the same year."
            rules.append(
                RowRule(left, f"is not above {right}", small > large, remedy, cohort.recorded[left].cast("string"))
            )
    return rules


def reading_rules(cohort: Cohort) -> list[RowRule]:
    """Rules without which values would silently count as missing: numbers that are text, and unknown SEN codes.

    Parameters
    ----------
    cohort : Cohort
        The records.

    Returns
    -------
    list of RowRule
        A part of `schema_rules`.
    """
    return [rule for rule in schema_rules(cohort) if rule.reading]


def evaluate(cohort: Cohort, rules: Sequence[RowRule]) -> list[Failure]:
    """Count the rows that break each rule, and look up examples for the broken ones.

    Parameters
    ----------
    cohort : Cohort
        The records.
    rules : sequence of RowRule
        Rules over ``cohort.recorded``.

    Returns
    -------
    list of Failure
        One for each broken rule, in the order given; empty when all rules are kept.

    Raises
    ------
    InputError
        When the file cannot be read to its end.
    """
    if not rules:
        return []
    recorded = cohort.recorded
    counts = _one_row(cohort, {f"rule_{i}": recorded.count(where=rule.breaks) for i, rule in enumerate(rules)})
    broken = [(rule, int(str(counts[f"rule_{i}"]))) for i, rule in enumerate(rules) if counts[f"rule_{i}"]]
    examples: dict[str, ir.Value] = {}
    for i, (rule, _) in enumerate(broken):
        examples[f"rows_{i}"] = _first_rows(recorded.row_number, MOST_EXAMPLES, where=rule.breaks)
        if rule.value is not None:
            shown = rule.value.fill_null("")
            examples[f"values_{i}"] = _values_of_first_rows(
                shown, recorded.row_number, MOST_EXAMPLES, where=rule.breaks
            )
    found = _one_row(cohort, examples) if examples else {}
    return [
        BrokenRule(
            rule.rule,
            rule.column,
            count,
            rows=_integers(found[f"rows_{i}"]),
            values=_shown_values(cohort, rule, found.get(f"values_{i}")),
            remedy=rule.remedy,
            level=rule.level,
        )
        for i, (rule, count) in enumerate(broken)
    ]


def _one_row(cohort: Cohort, aggregates: dict[str, ir.Value]) -> dict[str, object]:
    with reading(cohort.source.name):
        rows: list[dict[str, object]] = cohort.connection.to_pyarrow(
            cohort.recorded.aggregate(**aggregates)
        ).to_pylist()
    return rows[0]


def _integers(values: object) -> tuple[int, ...]:
    return tuple(int(value) for value in values) if isinstance(values, list) else ()


def _shown_values(cohort: Cohort, rule: RowRule, values: object) -> tuple[str, ...]:
    if rule.distinct and rule.value is not None:
        broken = cohort.recorded.filter(rule.breaks).select(value=rule.value)
        counted = broken.group_by("value").aggregate(rows=lambda table: table.count())
        ordered = counted.order_by([ibis.desc("rows"), "value"]).limit(MOST_EXAMPLES)
        with reading(cohort.source.name):
            values = cohort.connection.to_pyarrow(ordered).column("value").to_pylist()
    if not isinstance(values, list):
        return ()
    return tuple(
        text if len(text) <= _LONGEST_SHOWN else f"(text of {len(text)} characters)" for text in map(str, values)
    )


def _column_rules(cohort: Cohort, name: str, definition: pan.Column) -> list[RowRule]:
    recorded, metadata = cohort.recorded[name], definition.metadata or {}
    numeric = metadata["kind"] != "code"
    # The pupil id is never shown.
    shown = None if name == cohort.roles.pupil else recorded.cast("string")
    typed = as_number(recorded) if numeric else as_code(recorded)
    rules = []
    unreadable = is_not_a_number(recorded) if numeric else ibis.literal(False)
    if numeric and not (recorded.type().is_numeric() or recorded.type().is_boolean()):
        remedy = "Correct the values, or leave them empty where missing; declare a column of categories as C(name)."
        rules.append(RowRule(name, "is a number", unreadable, remedy, shown, reading=True))
    for check in definition.checks:
        rules.append(_checked(name, check, typed, shown, metadata["level"], is_status=name in _status_columns(cohort)))
    if name in cohort.roles.columns:
        missing = typed.isnull() & ~unreadable & _needed_in(cohort, name)
        rules.append(_missing_rule(cohort, name, missing, definition.nullable))
    return rules


def _needed_in(cohort: Cohort, name: str) -> ir.BooleanColumn:
    """Rows that must hold a value: in rows of schools attended before, all but who, where and how long may be blank."""
    roles = cohort.roles
    if roles.on_roll_at_end is None or name in (roles.pupil, roles.school, roles.terms_on_roll, roles.on_roll_at_end):
        return ibis.literal(True)
    return (as_number(cohort.recorded[roles.on_roll_at_end]) != 0).fill_null(True)


def _status_columns(cohort: Cohort) -> tuple[str | None, ...]:
    return (cohort.roles.sen_status, cohort.roles.sen_status_entry)


def _missing_rule(cohort: Cohort, name: str, missing: ir.BooleanColumn, nullable: bool) -> RowRule:
    if not nullable:
        return RowRule(name, "is not missing", missing, "Fill it in, or leave these rows out of the file.")
    if name in cohort.roles.needed_for_estimation:
        remedy = "These rows are counted, reported and left out of every estimate."
        if name == cohort.roles.sen_status:
            remedy += f" If a blank means no SEN, write {cohort.sen.none[0]}."
    elif name == cohort.roles.sen_status_entry:
        remedy = "These rows stay in, but their need at transfer is unknown."
    elif name == cohort.roles.terms_on_roll:
        remedy = f"These rows stay in, and count as {TERMS} terms in the column weighted by terms on roll."
    else:
        remedy = "These rows stay in."
    return RowRule(name, "is not missing", missing, remedy, level="warning")


def _checked(
    name: str,
    check: pan.Check,
    typed: ir.Column,
    shown: ir.Column | None,
    level: Literal["error", "warning"],
    is_status: bool,
) -> RowRule:
    breaks, rule = sql_form(check, typed)
    if is_status:
        remedy = "Correct the codes, or add them to the level they mean under [sen]."
        return RowRule(name, rule, breaks, remedy, shown, level, distinct=True, reading=True)
    remedy = "Correct the values, or leave them empty where unknown." if level == "error" else "Kept as they are."
    return RowRule(name, rule, breaks, remedy, shown, level, distinct=check.name == "isin")


def sql_form(check: pan.Check, column: ir.Column) -> tuple[ir.BooleanColumn, str]:
    """Translate one Pandera check of the schema.

    Parameters
    ----------
    check : pandera.Check
        One of the checks `send_va.records.schema` uses.
    column : ibis column
        The typed column.

    Returns
    -------
    breaks : ibis boolean column
        True where the check fails; missing values keep it.
    rule : str
        What is required, in words.

    Raises
    ------
    LookupError
        When the schema uses a check that has no form here.

    Examples
    --------
    >>> sql_form(pan.Check.in_range(1, 12), ibis.table({"month": "float64"}).month)[1]
    'is between 1 and 12'
    """
    bounds = check.statistics or {}
    match check.name:
        case "finite":
            return column.isinf(), "is finite"
        case "whole_number":
            return column != column.floor(), "is a whole number"
        case "in_range":
            low, high = bounds["min_value"], bounds["max_value"]
            return (column < low) | (column > high), f"is between {low:g} and {high:g}"
        case "greater_than":
            return column <= bounds["min_value"], f"is above {bounds['min_value']:g}"
        case "greater_than_or_equal_to":
            return column < bounds["min_value"], f"is at least {bounds['min_value']:g}"
        case "less_than_or_equal_to":
            return column > bounds["max_value"], f"is at most {bounds['max_value']:g}"
        case "isin":
            allowed = list(bounds["allowed_values"])
            return column.notin(allowed), f"is one of {', '.join(map(str, allowed))}"
    raise LookupError(f"the check {check.name!r} of the pupil schema has no SQL form")
