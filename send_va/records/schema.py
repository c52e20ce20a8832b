"""The one definition of a pupil record, for the columns of a study."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import pandas as pd
import pandera.pandas as pa

from send_va.records.fields import (
    ORDERED_FIELDS,
    ROLE_FIELDS,
    Kind,
    OutcomeRange,
    define_field,
    field_definitions,
)
from send_va.records.roles import Roles, SenCodes


def _context_definition(name: str, categorical: bool, known: Mapping[str, pa.Column]) -> pa.Column:
    definition = known.get(name)
    if definition is not None and (definition.metadata or {})["kind"] in (
        ("code",) if categorical else ("number", "whole number", "flag")
    ):
        return copy.copy(definition)
    kind: Kind = "code" if categorical else "number"
    description = (
        "Context category named in the study file." if categorical else "Context number named in the study file."
    )
    return define_field(kind, description, source="study file", allowed="any" if categorical else "finite")


def _terms_definition(known: pa.Column) -> pa.Column:
    """With the role, a row of no term at all stands for nothing."""
    definition = copy.copy(known)
    definition.checks = [*known.checks, pa.Check.gt(0)]
    return definition


def role_fields(roles: Roles) -> dict[str, str]:
    """Canonical field behind each column that has one of the main roles.

    Parameters
    ----------
    roles : Roles
        Roles of the study.

    Returns
    -------
    dict of str to str
        Column name to field name, context columns left out.

    Examples
    --------
    >>> role_fields(Roles("id", "urn", "y", ("reading", "maths"), "sen"))["maths"]
    'prior'
    """
    named: dict[str, str] = {}
    for name in (*ROLE_FIELDS, "terms_on_roll"):
        value = getattr(roles, name)
        for column in (value,) if isinstance(value, str) else (value or ()):
            named[column] = name
    return named


def pupil_schema(
    roles: Roles,
    *,
    sen: SenCodes | None = None,
    outcome_range: OutcomeRange = (0.0, None),
) -> pa.DataFrameSchema:
    """Pandera schema of a pupil record, for the columns of one study.

    The rules that run over millions of rows as SQL are derived from this object (`send_va.records.rules`): Pandera's
    own Ibis backend ignores uniqueness and pulls every failing row into memory.

    Parameters
    ----------
    roles : Roles
        Which column plays which part. Columns of the roles are required.
    sen : SenCodes, optional
        Allowed codes of SEN status; N, K, E unless given.
    outcome_range : tuple of float or None
        Lowest and highest possible outcome, in outcome points; None where there is no bound.

    Returns
    -------
    pandera.DataFrameSchema
        Columns with a role first, then the optional fields under their canonical names. Other columns of a frame
        are let through unread.

    Examples
    --------
    >>> schema = pupil_schema(Roles("pupil", "school", "outcome", ("prior",), "sen_status"), outcome_range=(0, 90))
    >>> schema.columns["outcome"].required, schema.columns["fsm6"].required
    (True, False)
    """
    known = field_definitions(sen, outcome_range)
    columns: dict[str, pa.Column] = {}
    for column, name in role_fields(roles).items():
        columns[column] = copy.copy(known[name])
    if roles.terms_on_roll is not None:
        columns[roles.terms_on_roll] = _terms_definition(known["terms_on_roll"])
    for column in roles.context_columns:
        columns[column] = _context_definition(column, column in roles.categorical, known)
    for definition in columns.values():
        definition.required = True
    for name, definition in known.items():
        if name not in ROLE_FIELDS and name not in columns:
            columns[name] = definition
    return pa.DataFrameSchema(columns, checks=_ordered_checks(), strict=False, name="pupil record")


def _ordered_checks() -> list[pa.Check]:
    def in_order(left: str, right: str) -> pa.Check:
        def holds(frame: pd.DataFrame) -> pd.Series[bool] | bool:
            if left not in frame or right not in frame:
                return True
            return ~(frame[left] > frame[right])

        return pa.Check(holds, name=f"{left}_at_most_{right}", ignore_na=False)

    return [in_order(left, right) for left, right in ORDERED_FIELDS]


def column_kinds(schema: pa.DataFrameSchema) -> dict[str, Kind]:
    """How each column is read: as a number or as a code.

    Parameters
    ----------
    schema : pandera.DataFrameSchema
        From `pupil_schema`.

    Returns
    -------
    dict of str to str
        ``"number"``, ``"whole number"``, ``"flag"`` (all read as floats) or ``"code"`` (read as text).

    Examples
    --------
    >>> column_kinds(pupil_schema(Roles("pupil", "school", "outcome", ("prior",), "sen_status")))["prior"]
    'number'
    """
    return {name: column.metadata["kind"] for name, column in schema.columns.items() if column.metadata}
