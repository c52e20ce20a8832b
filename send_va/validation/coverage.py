"""Frequentist coverage: how often intervals hold the truth in simulations, with Monte-Carlo error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from send_va.errors import InputError

Floats = NDArray[np.float64]

LEVELS = (0.5, 0.8, 0.95)
COLUMNS = ("what", "level", "cover", "simulation")
_CONFIDENCE = 0.99  # of all rows of a table together, for the words beside the numbers


@dataclass(frozen=True)
class Coverage:
    """Cover of intervals over simulations.

    Attributes
    ----------
    rows : DataFrame
        what, level, cover (share inside in one simulation), simulation: as :func:`cover_of` makes them, stacked.
    problems : int
        Simulations whose fit did not converge. They are in the rows all the same.
    """

    rows: pd.DataFrame
    problems: int = 0

    def __post_init__(self) -> None:
        missing = [name for name in COLUMNS if name not in self.rows]
        if missing:
            raise InputError(f"rows of cover lack {', '.join(missing)}", f"They need {', '.join(COLUMNS)}.")
        if not self.rows["cover"].between(0.0, 1.0).all():
            raise InputError(
                "cover must be a share from 0 to 1", "Leave out simulations without intervals, and say so."
            )
        least = self.rows.groupby(["what", "level"])["simulation"].nunique().min() if len(self.rows) else 0
        if not least >= 2:
            raise InputError(f"{least} simulations have no Monte-Carlo error", "Run two or more of everything.")

    def table(self) -> pd.DataFrame:
        """One row for what and level.

        Returns
        -------
        DataFrame
            what, level, cover, se (over simulations, so that quantities of one simulation may depend on each other;
            where all simulations agree, of a share at the stated level), simulations, diagnosis: ``as stated``, or
            ``too short`` or ``too long`` where cover is off by more than chance allows in 1 of 100 whole tables.
        """
        means = self.rows.groupby(["what", "level", "simulation"], sort=False)["cover"].mean()
        grouped = means.groupby(["what", "level"], sort=False)
        table = grouped.agg(cover="mean", se="sem", simulations="size").reset_index()
        level, size = table["level"].to_numpy(), table["simulations"].to_numpy()
        se = table["se"].to_numpy()
        table["se"] = np.where(se > 1e-12, se, np.sqrt(level * (1.0 - level) / size))
        clear = stats.t.isf((1.0 - _CONFIDENCE) / (2.0 * len(table)), size - 1)
        off = ((table["cover"] - level) / table["se"]).to_numpy()
        table["diagnosis"] = np.select([off < -clear, off > clear], ["too short", "too long"], "as stated")
        return table

    def __str__(self) -> str:
        head = f"Cover of intervals; fits that did not converge: {self.problems}"
        return f"{head}\n{self.table().to_string(index=False, float_format='{:.4f}'.format)}"

    def _repr_html_(self) -> str:
        return str(self.table().to_html(index=False))


def cover_of(
    what: str, truth: Floats, draws: Floats, simulation: int, levels: Sequence[float] = LEVELS
) -> pd.DataFrame:
    """Share of true values inside the central intervals of their draws, at every level.

    Parameters
    ----------
    what : str
        Name of the quantity, or of the kind of quantities.
    truth : array, shape (k,)
    draws : array, shape (draws, k)
    simulation : int
        Number of the simulation: the unit over which Monte-Carlo errors are counted.
    levels : sequence of float, default (0.5, 0.8, 0.95)

    Returns
    -------
    DataFrame
        what, level, cover, simulation. Limits are at place ``p (draws + 1)`` of the ordered draws, so that calibrated
        draws cover as stated however few they are.

    Raises
    ------
    InputError
        Shapes that do not fit, values that are not finite, levels outside (0, 1), or too few draws for a level.

    Examples
    --------
    >>> draws = np.arange(1.0, 20.0)[:, None]  # 1 to 19: the 80 % interval is 2 to 18
    >>> cover_of("theta", np.array([2.5]), draws, 0, [0.5, 0.8])["cover"].tolist()
    [0.0, 1.0]
    """
    if draws.ndim != 2 or truth.shape != draws.shape[1:] or not len(truth):
        raise InputError(f"draws of shape {draws.shape} do not fit true values of shape {truth.shape}")
    if not (np.isfinite(draws).all() and np.isfinite(truth).all()):
        raise InputError(f"{what} has draws or true values that are not finite")
    stated = np.asarray(levels, dtype=np.float64)
    if not ((stated > 0.0) & (stated < 1.0)).all():
        raise InputError(f"levels must lie between 0 and 1, not {list(levels)}")
    tail = (1.0 - stated) / 2.0
    place = np.round(tail * (len(draws) + 1), 9)
    if place.min() < 1.0:
        raise InputError(
            f"{len(draws)} draws have no {stated.max():.0%} interval", f"Take {int(np.ceil(1.0 / tail.min()))} or more."
        )
    ordered = np.sort(draws, axis=0)
    lower, upper = _at_place(ordered, place), _at_place(ordered[::-1], place)  # (levels, k)
    inside = ((lower <= truth) & (truth <= upper)).mean(axis=1)
    return pd.DataFrame({"what": what, "level": stated, "cover": inside, "simulation": simulation})


def _at_place(ordered: Floats, place: Floats) -> Floats:
    """Value at a place counted from 1, between two by a line, shape (places, k)."""
    below = place.astype(np.intp)
    low, high = ordered[below - 1], ordered[np.minimum(below, len(ordered) - 1)]
    return np.asarray(low + (place - below)[:, None] * (high - low))
