"""Yes/no responses and counts out of totals, from the left-hand side of a formula."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

from send_va.errors import BrokenRule, Failure, InputError
from send_va.multilevel.formula import random_design, response_and_design

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class BinomialResponse:
    """Successes out of trials.

    Attributes
    ----------
    successes, trials : array, shape (n,)
    name : str
        What counts as success, e.g. ``"use = Y"``.
    data : DataFrame
        The records, with the response as numbers where it is one column.
    counts : bool
        Whether it was given as ``cbind(successes, failures)``.
    """

    successes: FloatArray
    trials: FloatArray
    name: str
    data: pd.DataFrame
    counts: bool


def binomial_response(formula: str, data: pd.DataFrame) -> BinomialResponse:
    """Read the left-hand side of a formula.

    Parameters
    ----------
    formula : str
        ``"y ~ x"`` with y of 0 and 1, booleans or two categories (the second counts as success), or
        ``"cbind(successes, failures) ~ x"`` with arithmetic allowed in both parts.
    data : DataFrame, n rows

    Returns
    -------
    BinomialResponse

    Raises
    ------
    InputError
        No response, a response of another kind, missing values, or counts that are negative or not whole.

    Examples
    --------
    >>> import pandas as pd
    >>> response = binomial_response("cbind(send, roll - send) ~ 1", pd.DataFrame({"send": [3], "roll": [20]}))
    >>> response.successes.tolist(), response.trials.tolist(), response.name
    ([3.0], [20.0], 'send')
    """
    left, tilde, _ = formula.partition("~")
    if not tilde or not left.strip():
        raise InputError(f"the formula {formula!r} has no response", "Write it as 'sen ~ prior + context'.")
    counts = re.fullmatch(r"\s*cbind\((.*)\)\s*", left, flags=re.DOTALL)
    if counts:
        return _counts(_two_parts(counts.group(1), formula), data)
    name = left.strip().strip("`")
    if name not in data.columns:
        return _zero_one(formula, data, name)
    column = data[name]
    if types.is_bool_dtype(column.dtype):
        return _zero_one(formula, data.assign(**{name: column.astype("Float64")}), f"{name} = True")
    if types.is_numeric_dtype(column.dtype):
        return _zero_one(formula, data, name)
    return _two_categories(formula, data, column.astype("category"))


def _two_parts(inside: str, formula: str) -> list[str]:
    """Split at the one comma that is in no bracket."""
    depth, at = 0, []
    for position, character in enumerate(inside):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            at.append(position)
    if len(at) != 1:
        raise InputError(f"{formula!r}: cbind needs two parts", "Write cbind(successes, failures).")
    return [inside[: at[0]].strip(), inside[at[0] + 1 :].strip()]


def _counts(parts: list[str], data: pd.DataFrame) -> BinomialResponse:
    columns = [random_design(f"0 + I({part})", data, check_rank=False)[0] for part in parts]
    failures = []
    for part, column in zip(parts, columns, strict=True):
        whole = (column == np.round(column)) & (column >= 0.0)
        bad = np.flatnonzero(~whole.all(axis=1)).tolist()
        if column.shape[1] > 1 or bad:
            values = column[bad[:10], 0].tolist() if column.shape[1] == 1 else ()
            remedy = "Successes and failures must be whole numbers, 0 or more."
            failures.append(Failure.of_rows("is not a count", part, bad, values=values, remedy=remedy))
    if failures:
        raise InputError(failures)
    return BinomialResponse(columns[0][:, 0], columns[0][:, 0] + columns[1][:, 0], parts[0], data, counts=True)


def _two_categories(formula: str, data: pd.DataFrame, column: pd.Series[Any]) -> BinomialResponse:
    present = column.cat.remove_unused_categories()
    levels = list(present.cat.categories)
    if len(levels) != 2:
        raise InputError(
            Failure(
                f"has {len(levels)} categories, and a yes/no response has two",
                str(column.name),
                count=len(levels),
                values=tuple(str(level) for level in levels[:10]),
                remedy="Make it 0 and 1, or use fit_ordinal for ordered categories.",
                unit="category",
            )
        )
    numbers = present.cat.codes.astype("float64").where(column.notna())
    return _zero_one(formula, data.assign(**{str(column.name): numbers}), f"{column.name} = {levels[1]}")


def _zero_one(formula: str, data: pd.DataFrame, name: str) -> BinomialResponse:
    y = response_and_design(formula, data, check_rank=False).y
    bad = np.flatnonzero((y != 0.0) & (y != 1.0)).tolist()
    if bad:
        remedy = "Code it 0 and 1, or give counts as cbind(successes, failures)."
        raise InputError(BrokenRule.of_rows("is 0 or 1", name, bad, values=y[bad[:10]].tolist(), remedy=remedy))
    return BinomialResponse(y, np.ones(len(y)), name, data, counts=False)
