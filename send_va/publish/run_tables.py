"""Tables of a finished run, and all that was varied in it as rows of one unit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

_BOTH_WAYS = ("leniency", "need")
_DEPARTED = {
    "leniency": (1.0, -1.0),
    "need": (0.25, -0.25),
    "definition": (0.25, 0.5, 1.0),
    "sorting": (0.1, 0.25, 0.5),
}


@dataclass(frozen=True)
class RunTables:
    """Tables of a finished run that a statement is written from, read where they are.

    Attributes
    ----------
    folder : Path
    estimator, context : str
        The headline.
    """

    folder: Path
    estimator: str
    context: str

    def get(self, name: str) -> pd.DataFrame | None:
        """One table, None where the run has not made it."""
        file = self.folder / f"{name}.csv"
        return pd.read_csv(file, dtype={"school": str}, keep_default_na=True) if file.exists() else None

    def record(self, name: str) -> dict[str, Any] | None:
        """One JSON record, None where the run has not made it."""
        file = self.folder / f"{name}.json"
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else None

    def own(self, name: str) -> pd.DataFrame:
        """Rows of the headline; none where there is no such table."""
        table = self.get(name)
        if table is None:
            return pd.DataFrame()
        return table[(table["estimator"] == self.estimator) & (table["context"] == self.context)]


def all_changes(tables: RunTables) -> pd.DataFrame:
    """Everything that was varied: departure, value, share_other_fifth, largest_places (missing where not counted)."""
    parts = [_table_changes(tables), _tipping(tables), _roll(tables), _missing(tables)]
    columns = ["departure", "value", "share_other_fifth", "largest_places"]
    there = [part.reindex(columns=columns) for part in parts if len(part)]
    return pd.concat(there, ignore_index=True) if there else pd.DataFrame(columns=columns)


def _table_changes(tables: RunTables) -> pd.DataFrame:
    changes = tables.get("table_changes")
    assert changes is not None  # every run writes it
    named = changes["departure"].isin(["estimator", "context"])
    return changes.assign(
        value=changes["value"].astype(str).where(~named, "`" + changes["value"].astype(str) + "`") + ":"
    )


def _tipping(tables: RunTables) -> pd.DataFrame:
    """Departures of a stated size from what is assumed, each school by itself but for the definition of need."""
    shares = tables.own("tipping")
    if shares.empty:
        return shares
    rows = [
        {
            "departure": departure,
            "value": f"{size:{'+' if departure in _BOTH_WAYS else ''}g}:",
            "share_other_fifth": part["share_changed"].iloc[0],
        }
        for departure, sizes in _DEPARTED.items()
        for size in sizes
        for part in [
            shares[(shares["departure"] == departure) & _is_near(shares["size"], size) & _first_benchmark(shares)]
        ]
        if len(part)
    ]
    return pd.DataFrame(rows)


def _is_near(values: pd.Series, size: float) -> pd.Series:
    return (values - size).abs() < 1e-9


def _first_benchmark(shares: pd.DataFrame) -> pd.Series:
    """Rows without a benchmark, and those of prior attainment."""
    return shares["benchmark"].isna() | (shares["benchmark"] == "prior attainment")


def _roll(tables: RunTables) -> pd.DataFrame:
    """Pupils weighted by terms on roll, where the records have them."""
    rows = tables.own("roll_weighting")
    if rows.empty:
        return rows
    both = rows.dropna(subset=["quintile", "quintile_roll_weighted"])
    return pd.DataFrame(
        {
            "departure": ["roll_weighting"],
            "value": [""],
            "share_other_fifth": [(both["quintile"] != both["quintile_roll_weighted"]).mean()],
            "largest_places": [(both["place"] - both["place_roll_weighted"]).abs().max()],
        }
    )


def _missing(tables: RunTables) -> pd.DataFrame:
    """Missing prior attainment imputed, and shifted, where that was done."""
    table = tables.get("missing_prior")
    if table is None:
        return pd.DataFrame()
    own = table[table["estimator"] == tables.estimator]
    if own.empty:
        own = table[table["estimator"] == table["estimator"].iloc[0]]
    shifted = own[own["delta"] != 0.0]
    plain = own.loc[own["delta"] == 0.0, "changed"].iloc[0]
    rows = [{"departure": "missing_prior", "value": "filled in and not left out:", "share_other_fifth": plain}]
    rows += [
        {"departure": "missing_prior", "value": f"filled in {delta:+g} SD from there:", "share_other_fifth": share}
        for delta, share in zip(shifted["delta"], shifted["changed_from_mar"], strict=True)
    ]
    return pd.DataFrame(rows)
