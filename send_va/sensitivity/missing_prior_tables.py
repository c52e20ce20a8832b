"""How a table of schools changes with what missing prior scores are taken to have been."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from send_va.effects import SchoolEffects
from send_va.multilevel.crossproducts import FloatArray
from send_va.ranking.table_places import fifths


def _theta(effects: SchoolEffects) -> FloatArray:
    return np.asarray(effects.data["mean"].sel(measure="theta").to_numpy(), dtype=np.float64)


def _quintiles_of(a: SchoolEffects, b: SchoolEffects) -> tuple[FloatArray, FloatArray]:
    """Quintiles of both among schools that both have pupils for."""
    compared = np.isfinite(_theta(a)) & np.isfinite(_theta(b))
    for effects in (a, b):
        compared &= effects.data["n_pupils"].to_numpy() > 0
    return fifths(np.where(compared, _theta(a), np.nan)), fifths(np.where(compared, _theta(b), np.nan))


def _changed(a: SchoolEffects, b: SchoolEffects) -> float:
    one, other = _quintiles_of(a, b)
    compared = np.isfinite(one)
    return float((one[compared] != other[compared]).mean())


def school_rows(
    pooled: SchoolEffects,
    complete: SchoolEffects,
    name: str,
    step: float,
    counts: NDArray[np.int64],
) -> pd.DataFrame:
    """Theta of every school under one shift and its fifth, and that from complete records.

    `counts` are pupils whose score is imputed, in the order of the schools.
    """
    now, before = _quintiles_of(pooled, complete)
    return pd.DataFrame(
        {
            "school": pooled.schools,
            "estimator": name,
            "delta": step,
            "mean": _theta(pooled),
            "sd": pooled.data["sd"].sel(measure="theta").to_numpy(),
            "quintile": now,
            "quintile_complete": before,
            "n_imputed": counts,
        }
    )


def by_delta_table(
    effects: Mapping[tuple[str, float], SchoolEffects], complete: Mapping[str, SchoolEffects]
) -> pd.DataFrame:
    """One row an estimator and shift: how far the table is from that of complete records and of no shift."""
    rows = []
    for (name, step), pooled in effects.items():
        known = complete[name]
        both = np.isfinite(_quintiles_of(pooled, known)[0])
        theta, before = _theta(pooled)[both], _theta(known)[both]
        rows.append(
            {
                "estimator": name,
                "delta": step,
                "n_schools": int(both.sum()),
                "correlation": float(np.corrcoef(theta, before)[0, 1]),
                "mean_change": float(np.abs(theta - before).mean()) / float(known.attrs["outcome_sd"]),
                "changed": _changed(pooled, known),
                "changed_from_mar": _changed(pooled, effects[name, 0.0]),
            }
        )
    return pd.DataFrame(rows)


def tipping_table(by_delta: pd.DataFrame, tolerance: float) -> pd.DataFrame:
    """One row an estimator and direction: the smallest shift that moves more than `tolerance` of the schools."""
    rows = []
    for name, part in by_delta.groupby("estimator", sort=False):
        for direction, sign in (("lower", -1.0), ("higher", 1.0)):
            side = part[sign * part["delta"] >= 0.0].sort_values("delta", key=np.abs)
            size, share = side["delta"].abs().to_numpy(), side["changed_from_mar"].to_numpy()
            rows.append(
                {
                    "estimator": name,
                    "direction": direction,
                    "delta": sign * tipping_delta(size, share, tolerance),
                    "largest": sign * float(size[-1]),
                    "tolerance": tolerance,
                }
            )
    return pd.DataFrame(rows)


def tipping_delta(size: FloatArray, share: FloatArray, tolerance: float) -> float:
    """Smallest shift at which a share exceeds the tolerance, by a line between steps; missing where none does.

    Examples
    --------
    >>> tipping_delta(np.array([0.0, 0.25, 0.5]), np.array([0.0, 0.02, 0.10]), 0.06)
    0.375
    """
    above = np.flatnonzero(share > tolerance)
    if not len(above):
        return float("nan")
    last = int(above[0])
    if last == 0:
        return float(size[0])
    part = (tolerance - share[last - 1]) / (share[last] - share[last - 1])
    return float(size[last - 1] + part * (size[last] - size[last - 1]))
