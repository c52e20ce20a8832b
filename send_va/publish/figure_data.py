"""The rows a figure needs, taken from ``school_effects.csv`` and ``rankings.csv`` and checked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from send_va.errors import BrokenRule, InputError

EFFECT_COLUMNS = ("school", "estimator", "context", "measure", "mean", "lower", "upper", "n_need", "estimate", "se")
RANKING_COLUMNS = ("school", "estimator", "context", "expected_rank", "rank_lower", "rank_upper", "published")


def require_columns(table: pd.DataFrame, columns: Sequence[str], name: str) -> None:
    """Refuse a table that lacks a column, naming each.

    Parameters
    ----------
    table : pandas.DataFrame
        As read from the run directory.
    columns : sequence of str
        What the figure needs.
    name : str
        Name of the table, for the message.

    Returns
    -------
    None
        Nothing is returned when every column is there.

    Raises
    ------
    InputError
        For each missing column.

    Examples
    --------
    >>> require_columns(pd.DataFrame({"school": [1]}), ["school"], "school_effects.csv")
    """
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise InputError(
            BrokenRule(
                rule=f"{name} has the columns of this version",
                column=column,
                remedy=f"The column is missing; found {', '.join(map(str, table.columns))}. Run send-va run again.",
            )
            for column in missing
        )


def select_effects(effects: pd.DataFrame, *, measure: str, estimator: str, context: str) -> pd.DataFrame:
    """Rows of one measure, estimator and context, sorted from the lowest to the highest mean.

    Parameters
    ----------
    effects : pandas.DataFrame
        ``school_effects.csv``: one row for each school, estimator, context and measure.
    measure, estimator, context : str
        Which rows, e.g. ``"theta"``, ``"labelled"``, ``"cva"``.

    Returns
    -------
    pandas.DataFrame
        One row a school that has an effect; ties are in the order of the school's identifier.
        ``attrs["not_compared"]`` is the number of the others.

    Raises
    ------
    InputError
        A column is missing, no row is left, or a number is not finite.

    Examples
    --------
    >>> rows = pd.DataFrame({"school": [2, 1], "estimator": "labelled", "context": "cva", "measure": "theta",
    ...                      "mean": [.3, .1], "lower": 0., "upper": 1., "n_need": 9, "estimate": .2, "se": .1})
    >>> select_effects(rows, measure="theta", estimator="labelled", context="cva")["school"].tolist()
    [1, 2]
    """
    require_columns(effects, EFFECT_COLUMNS, "school_effects.csv")
    wanted = {"measure": measure, "estimator": estimator, "context": context}
    selected = _select(effects, wanted, "school_effects.csv")
    rows = selected[selected[["mean", "lower", "upper"]].notna().any(axis=1)].reset_index(drop=True)
    if not len(rows):
        raise InputError("no school of school_effects.csv has an effect", "See the column flag.")
    usable = np.isfinite(rows[["mean", "lower", "upper"]].to_numpy(dtype=float, na_value=np.nan)).all(axis=1)
    if not usable.all():
        bad = np.flatnonzero(~usable)[:10]
        raise InputError(
            BrokenRule(
                rule="mean, lower and upper are finite numbers",
                column="mean",
                count=int((~usable).sum()),
                values=tuple(str(rows["school"].iloc[row]) for row in bad),
                remedy="Values are school identifiers. Leave all three empty for a school without an effect.",
            )
        )
    ordered = rows.sort_values(["mean", "school"], kind="stable").reset_index(drop=True)
    ordered.attrs["not_compared"] = len(selected) - len(rows)
    return ordered


def select_rankings(rankings: pd.DataFrame, *, estimator: str, context: str) -> pd.DataFrame:
    """Rows of one estimator and context with a position, sorted from the highest position down.

    Parameters
    ----------
    rankings : pandas.DataFrame
        ``rankings.csv``: one row for each school, estimator and context.
    estimator, context : str
        Which rows.

    Returns
    -------
    pandas.DataFrame
        One row a school that has a position and is published. ``attrs["left_out"]`` is the number of the others.

    Raises
    ------
    InputError
        A column is missing or no row is left.

    Examples
    --------
    >>> rows = pd.DataFrame({"school": [1, 2], "estimator": "labelled", "context": "cva", "expected_rank": [1.8, 1.2],
    ...                      "rank_lower": 1, "rank_upper": 2, "published": True})
    >>> select_rankings(rows, estimator="labelled", context="cva")["school"].tolist()
    [2, 1]
    """
    require_columns(rankings, RANKING_COLUMNS, "rankings.csv")
    rows = _select(rankings, {"estimator": estimator, "context": context}, "rankings.csv")
    placed = rows[["expected_rank", "rank_lower", "rank_upper"]].notna().all(axis=1) & is_published(rows)
    if not placed.any():
        raise InputError(
            BrokenRule(
                rule="at least one school has a published position",
                column="published",
                count=len(rows),
                remedy="See the column reason of rankings.csv; there is no figure of ranks for this run.",
            )
        )
    kept = rows[placed].sort_values(["expected_rank", "school"], kind="stable").reset_index(drop=True)
    kept.attrs["left_out"] = int((~placed).sum())
    return kept


def is_published(rankings: pd.DataFrame) -> pd.Series[bool]:
    """Which rows are given a position, whether the column published holds truth values or words read from a file.

    Parameters
    ----------
    rankings : pandas.DataFrame
        ``rankings.csv``, as made or as read again.

    Returns
    -------
    pandas.Series of bool
        With the index of `rankings`; a row where nothing is said is not published.

    Raises
    ------
    KeyError
        There is no column published; see :func:`require_columns`.

    Examples
    --------
    >>> is_published(pd.DataFrame({"published": [True, "true", "False", None]})).tolist()
    [True, True, False, False]
    """
    return rankings["published"].astype(str).str.lower().eq("true")


def places(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Place of each value, 1 for the highest; ties keep their order.

    Parameters
    ----------
    values : ndarray, shape (n,)
        Any unit, no missing values.

    Returns
    -------
    ndarray, shape (n,)
        A permutation of 1 to n.

    Raises
    ------
    ValueError
        A value is missing.

    Examples
    --------
    >>> places(np.array([0.1, 0.5, -0.2])).tolist()
    [2, 1, 3]
    """
    if np.isnan(values).any():
        raise ValueError("places need a value for every school; leave out the missing ones first")
    place = np.empty(len(values), dtype=np.int64)
    place[np.argsort(-values, kind="stable")] = np.arange(1, len(values) + 1)
    return place


def highlighted_rows(schools: pd.Series, highlight: Sequence[object], spread: int = 5) -> list[int]:
    """Row numbers of the schools to name: the ones asked for, or some spread evenly over the order.

    Parameters
    ----------
    schools : pandas.Series
        School identifiers in the order of the figure.
    highlight : sequence
        Identifiers to name; empty means evenly spread ones.
    spread : int
        How many to name when none is asked for.

    Returns
    -------
    list of int
        Row numbers, ascending.

    Raises
    ------
    InputError
        A school asked for is not among the rows.

    Examples
    --------
    >>> highlighted_rows(pd.Series([11, 12, 13, 14, 15]), [], spread=2)
    [0, 4]
    """
    if not highlight:
        edge = round(0.02 * (len(schools) - 1))
        return sorted({round(row) for row in np.linspace(edge, len(schools) - 1 - edge, min(spread, len(schools)))})
    row_of = {str(school): row for row, school in enumerate(schools)}
    unknown = [str(school) for school in highlight if str(school) not in row_of]
    if unknown:
        raise InputError(
            BrokenRule(
                rule="a highlighted school is in the table",
                column="school",
                count=len(unknown),
                values=tuple(unknown[:10]),
                remedy="Check the identifier, or leave highlight empty.",
            )
        )
    return sorted(row_of[str(school)] for school in highlight)


def _select(table: pd.DataFrame, wanted: dict[str, str], name: str) -> pd.DataFrame:
    chosen = np.ones(len(table), dtype=bool)
    for column, value in wanted.items():
        chosen &= table[column].astype(str).eq(value).to_numpy()
    if not chosen.any():
        found = "; ".join(f"{column}: {', '.join(sorted(table[column].astype(str).unique()))}" for column in wanted)
        asked = ", ".join(f"{column} {value}" for column, value in wanted.items())
        raise InputError(f"{name} has no row for {asked}", remedy=f"It holds {found or 'no rows'}.")
    return table.loc[chosen].reset_index(drop=True)
