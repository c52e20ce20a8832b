"""Estimates and standard errors of units, checked in one place."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from send_va.effects import FloatArray
from send_va.errors import Failure, InputError


def unit_index(values: ArrayLike) -> pd.Index:
    """Labels of the units: the index of a Series, else positions from 0."""
    return values.index if isinstance(values, pd.Series) else pd.RangeIndex(len(np.asarray(values)))


def numbers(values: ArrayLike, name: str, remedy: str = "Give one number a unit.") -> FloatArray:
    """Numbers of any shape, or an error that says that some are not."""
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        given = type(values).__name__
        raise InputError(f"{name}, given as {given}, holds entries that are not numbers", remedy) from None


def column_numbers(column: pd.Series, name: str, remedy: str) -> FloatArray:
    """Numbers of a column, missing where it is empty; rows and values of entries that are none are in the error."""
    try:
        return np.asarray(pd.to_numeric(column).to_numpy(dtype=np.float64, na_value=np.nan))
    except (TypeError, ValueError):
        wrong = np.flatnonzero(pd.to_numeric(column, errors="coerce").isna() & column.notna())
        values = [repr(value) for value in column.iloc[wrong]]
        raise InputError(
            Failure.of_rows("is not a number", name, wrong.tolist(), values=values, remedy=remedy)
        ) from None


def vector(values: ArrayLike, name: str) -> FloatArray:
    """One finite number a unit, shape (units,).

    Raises
    ------
    InputError
        Not one-dimensional, not numbers, or not finite.
    """
    array = numbers(values, name)
    if array.ndim != 1:
        raise InputError(f"{name} has {array.ndim} dimensions", "Give a vector with one number a unit.")
    refuse(~np.isfinite(array), array, name, "is not finite", "Leave units without an estimate out.")
    return array


def refuse(broken: NDArray[np.bool_], values: FloatArray, name: str, rule: str, remedy: str) -> None:
    """Raise with positions and values of the units that break a rule, if any do."""
    at = np.flatnonzero(broken)
    if len(at):
        raise InputError(Failure.of_rows(rule, name, at.tolist(), values=values[at].tolist(), remedy=remedy))


def same_length(**vectors: FloatArray) -> None:
    """Raise unless all named vectors have one entry for each unit."""
    lengths = {name: len(values) for name, values in vectors.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} has {length:,}" for name, length in lengths.items())
        raise InputError(f"lengths differ: {found}", "Give one entry for each unit, in one order.")


def same_units(**given: object) -> None:
    """Raise where Series name their units differently or in another order; those only numbered go by position."""
    labels = {name: values.index for name, values in given.items() if isinstance(values, pd.Series)}
    named = {name: index for name, index in labels.items() if not isinstance(index, pd.RangeIndex)}
    for name, index in named.items():
        first = next(iter(named))
        if not index.equals(named[first]):
            raise InputError(f"{name}: its index is not that of {first}", "Bring both into the same order first.")


def check_fraction(value: float, name: str) -> None:
    """Raise unless a probability lies strictly between 0 and 1."""
    if not isinstance(value, int | float | np.number) or not 0.0 < value < 1.0:
        raise InputError(f"{name} must lie between 0 and 1, not {value}")


def check_choice(value: str, allowed: tuple[str, ...], name: str) -> None:
    """Raise unless an option is one of those there are."""
    if value not in allowed:
        raise InputError(f"no {name} {value!r}", f"One of: {', '.join(allowed)}.")


def check_count(units: int, fewest: int) -> None:
    """Raise where fewer units are given than a method needs."""
    if units < fewest:
        raise InputError(
            f"{units} unit{'s' * (units != 1)} given, at least {fewest} needed",
            f"Give estimates of {fewest} units or more.",
        )


def whole_number(value: float, name: str, *, least: int | None = None) -> int:
    """A whole number given as one, or as a float that is one (``1e4``); the error names what was given."""
    whole = isinstance(value, int | float | np.number) and not isinstance(value, bool) and float(value).is_integer()
    if not whole or (least is not None and value < least):
        above = "" if least is None else f" from {least}"
        raise InputError(f"{name} must be a whole number{above}, not {value!r}")
    return int(value)


def standard_errors(se: ArrayLike, name: str = "se") -> FloatArray:
    """Finite standard errors above zero, shape (units,).

    Raises
    ------
    InputError
        Not one-dimensional, not numbers, not finite, zero or below.
    """
    s = vector(se, name)
    refuse(s <= 0.0, s, name, "is zero or negative", "A standard error is above zero; leave units without one out.")
    return s


def check_estimates(estimate: ArrayLike, se: ArrayLike, *, fewest: int = 2) -> tuple[FloatArray, FloatArray]:
    """Estimates and their standard errors as float vectors.

    Raises
    ------
    InputError
        Entries that are not finite, standard errors of zero or below, lengths or indices that differ, fewer than
        `fewest` units.
    """
    y, s = vector(estimate, "estimate"), standard_errors(se)
    same_units(estimate=estimate, se=se)
    same_length(estimate=y, se=s)
    check_count(len(y), fewest)
    return y, s
