"""How a recorded column is read: as a number, as a code, as a level of need (Ibis expressions, nothing is computed)."""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from send_va.records.roles import SenCodes


def _trim_signature(text: str) -> str:  # type: ignore[empty-body]
    """Signature of DuckDB's own function, which is what runs."""


# Ibis' strip() names its characters, which DuckDB evaluates ten times slower than trim(text).
_trim = ibis.udf.scalar.builtin(_trim_signature, name="trim")


def as_number(column: ir.Column) -> ir.FloatingColumn:
    """Column as float64; blanks, text that is not a number, and NaN become missing.

    Parameters
    ----------
    column : ibis column
        As recorded in the file.

    Returns
    -------
    ibis floating column
        Missing where there is no number. `is_not_a_number` tells text from blanks.
    """
    dtype = column.type()
    if dtype.is_string():
        number = column.try_cast("float64")
    elif dtype.is_boolean():
        number = column.cast("int8").cast("float64")
    elif dtype.is_numeric():
        number = column.cast("float64")
    else:
        return ibis.null("float64")
    exact = dtype.is_integer() or dtype.is_boolean()
    return number if exact else number.nullif(float("nan"))  # in DuckDB NaN equals NaN


def is_not_a_number(column: ir.Column) -> ir.BooleanColumn:
    """Tell where something is recorded that cannot be read as a number.

    Parameters
    ----------
    column : ibis column
        As recorded in the file.

    Returns
    -------
    ibis boolean column
        False for blanks and missing values.
    """
    dtype = column.type()
    if dtype.is_string():
        return column.notnull() & (_trim(column) != "") & column.try_cast("float64").isnull()
    return ibis.literal(False) if dtype.is_numeric() or dtype.is_boolean() else column.notnull()


def as_code(column: ir.Column) -> ir.StringColumn:
    """Column as text, so that 301 in a Parquet file and "301" in a CSV file are the same code.

    Parameters
    ----------
    column : ibis column
        As recorded in the file.

    Returns
    -------
    ibis string column
        Outer blanks removed, empty text missing; whole floats lose their ".0".
    """
    dtype = column.type()
    if dtype.is_string():
        return _trim(column).nullif("")
    if dtype.is_floating() or dtype.is_decimal():
        number = column.cast("float64")
        broken = number.isnan() | number.isinf() | (number != number.floor())
        text = broken.ifelse(number.cast("string"), number.try_cast("int64").cast("string"))
        return number.isnan().ifelse(ibis.null("string"), text)
    return column.cast("string")


def as_sen_level(code: ir.StringColumn, sen: SenCodes) -> ir.IntegerColumn:
    """Level of need of a SEN code: 0 none, 1 support, 2 EHC plan, missing for an unknown code.

    Parameters
    ----------
    code : ibis string column
        From `as_code`.
    sen : SenCodes
        Codes by level.

    Returns
    -------
    ibis int8 column
        0, 1, 2 or missing.
    """
    branches = [
        (code.isin(codes), ibis.literal(level, type="int8"))
        for level, codes in enumerate((sen.none, sen.support, sen.ehcp))
        if codes
    ]
    return ibis.cases(*branches, else_=ibis.null("int8"))
