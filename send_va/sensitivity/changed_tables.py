"""How far a table moves under another choice or assumption, in one unit for all of them: schools in another fifth."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from send_va.effects import FloatArray
from send_va.errors import InputError
from send_va.ranking.table_places import share_in_other_fifth, table_places

COLUMNS = ["departure", "value", "schools", "share_other_fifth", "rank_correlation", "median_places", "largest_places"]


def table_changes(reference: pd.Series[float], others: Mapping[tuple[str, str], pd.Series[float]]) -> pd.DataFrame:
    """Compare one table of school effects with those under other choices or assumptions.

    Parameters
    ----------
    reference : Series
        Effect by school, in any unit; missing where a school is not in the table.
    others : mapping of (departure, value) to Series
        What differs, and the value it takes there: ``("context", "prior")``. Schools in any order.

    Returns
    -------
    DataFrame
        One row a departure and value: departure, value, schools (in both tables), share_other_fifth (of these, share
        that is in another fifth of the table), rank_correlation (Spearman), median_places and largest_places (moved).
        A share of .8 is what two unrelated tables have.

    Raises
    ------
    InputError
        A school stands twice in a table.

    Examples
    --------
    >>> before = pd.Series([0.3, 0.1, -0.2, 0.0, 0.2], index=list("abcde"))
    >>> after = before.where(before.index != "c", 0.4)
    >>> table_changes(before, {("context", "prior"): after})[["schools", "share_other_fifth", "largest_places"]]
       schools  share_other_fifth  largest_places
    0        5                1.0             4.0
    """
    for name, values in (("the reference", reference), *((" ".join(key), table) for key, table in others.items())):
        if not values.index.is_unique:
            raise InputError(f"a school stands twice in the table of {name}", "Give one effect a school.")
    rows = [
        {"departure": departure, "value": value, **_compared(reference, values.reindex(reference.index))}
        for (departure, value), values in others.items()
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _compared(reference: pd.Series[float], other: pd.Series[float]) -> dict[str, float]:
    first = np.asarray(reference.to_numpy(), dtype=np.float64)
    second = np.asarray(other.to_numpy(), dtype=np.float64)
    both = np.isfinite(first) & np.isfinite(second)
    first, second = first[both], second[both]
    moved = np.abs(table_places(first) - table_places(second))
    return {
        "schools": int(both.sum()),
        "share_other_fifth": share_in_other_fifth(first, second),
        "rank_correlation": _rank_correlation(first, second),
        "median_places": float(np.median(moved)) if len(moved) else np.nan,
        "largest_places": float(moved.max()) if len(moved) else np.nan,
    }


def _rank_correlation(first: FloatArray, second: FloatArray) -> float:
    if len(first) < 2 or np.ptp(first) == 0.0 or np.ptp(second) == 0.0:
        return float("nan")
    return float(pd.Series(first).corr(pd.Series(second), method="spearman"))


def changes_of_a_run(
    schools: pd.DataFrame, estimator: str, context: str, ranges: pd.DataFrame | None = None
) -> pd.DataFrame:
    """What the choices and assumptions of a run do to its headline table of theta.

    Parameters
    ----------
    schools : DataFrame
        As ``school_effects.csv``.
    estimator, context : str
        The headline: every other estimator is compared with it in its context, and every other context under its
        estimator.
    ranges : DataFrame, optional
        As ``assumption_ranges.csv``.

    Returns
    -------
    DataFrame
        As :func:`table_changes`; departures are ``estimator``, ``context`` and the names of assumptions, at values
        other than the headline's own.
    """
    theta = schools[schools["measure"] == "theta"]
    by_fit = {
        (str(name), str(held)): part.set_index("school")["mean"]
        for (name, held), part in theta.groupby(["estimator", "context"], sort=False)
    }
    if (estimator, context) not in by_fit:
        raise InputError(f"the run holds no estimate by {estimator!r} in context {context!r}")
    others = {("estimator", name): values for (name, held), values in by_fit.items() if held == context}
    others |= {("context", held): values for (name, held), values in by_fit.items() if name == estimator}
    del others["estimator", estimator], others["context", context]
    if ranges is not None:
        own = ranges[(ranges["estimator"] == estimator) & (ranges["context"] == context)]
        for (assumption, value), part in own.groupby(["assumption", "value"], sort=False):
            under = part.set_index("school")["mean"]
            if not np.allclose(under, by_fit[estimator, context].reindex(under.index), equal_nan=True):
                others[str(assumption), f"{value:g}"] = under
    return table_changes(by_fit[estimator, context], others)
