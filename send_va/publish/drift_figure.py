"""How long school effects last, and what can be said of a cohort to come."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from send_va.errors import InputError
from send_va.publish.figure_data import require_columns
from send_va.publish.figure_style import ACCENT, INK, MIDDLE, PALE, axis_label, styled, titled_figure

_OF_LAGS = ("estimator", "context", "measure", "lag", "correlation", "se", "fitted", "pairs")
_OF_SCHOOLS = ("school", "estimator", "context", "measure", "mean", "lower", "upper", "n_cohorts")
_SHOWN = 14
_NORMAL_95 = 1.959963984540054
_MARKS = {"theta": ("D", INK), "u": ("o", "white")}
_WORDS = {"theta": "pupils with need", "u": "pupils without"}


@styled
def drift_figure(
    autocovariance: pd.DataFrame,
    averages: pd.DataFrame,
    forecast: pd.DataFrame,
    *,
    unit: str,
    synthetic: bool,
    title: str = "",
) -> Figure:
    """Draw the correlation of school effects by years between cohorts, and forecasts beside averages.

    Parameters
    ----------
    autocovariance, averages, forecast : pandas.DataFrame
        As of :class:`send_va.value_added.drift.Drift`; the first estimator and context are drawn.
    unit : str
        Of the outcome.
    synthetic : bool
    title : str
        Said in the note.

    Returns
    -------
    matplotlib.figure.Figure
        Left: correlation of the true effects of a school in two cohorts, 95 % intervals, and the line that forecasts
        use, dashed where it is assumed. A line that stays high: results of years ago still say something. Right: theta
        of some schools, evenly over the range; grey the average of the last years, black the forecast.

    Raises
    ------
    InputError
        A column is missing, or no row of theta.

    Examples
    --------
    >>> lags = pd.DataFrame({"estimator": "entry", "context": "cva", "measure": "theta", "lag": [0, 1, 2],
    ...     "correlation": [1, .8, np.nan], "se": [0, .1, np.nan], "fitted": [1, .8, .64], "pairs": [9, 6, 0]})
    >>> one = pd.DataFrame({"school": ["7", "8"], "estimator": "entry", "context": "cva", "measure": "theta",
    ...     "mean": [1.0, -1.0], "lower": [0.0, -2.0], "upper": [2.0, 0.0], "n_cohorts": 2})
    >>> future = one.assign(cohort="2029/30", reliability=0.3)
    >>> len(drift_figure(lags, one.assign(cohorts="2022/23 to 2023/24"), future, unit="points", synthetic=True).axes)
    2
    """
    require_columns(autocovariance, _OF_LAGS, "the autocovariances")
    require_columns(averages, (*_OF_SCHOOLS, "cohorts"), "the averages")
    require_columns(forecast, (*_OF_SCHOOLS, "cohort", "reliability"), "the forecast")
    lags, recent, future = (_first(table) for table in (autocovariance, averages, forecast))
    ahead, behind = future[future["measure"] == "theta"], recent[recent["measure"] == "theta"]
    if not len(ahead):
        raise InputError("there is no forecast of theta to draw", "Give all rows of forecast.csv.")
    cohort, span = str(ahead["cohort"].iloc[0]), str(behind["cohorts"].iloc[0])
    known = float(ahead.loc[ahead["n_cohorts"] > 0, "reliability"].median())
    figure, axes = titled_figure(
        f"{100 * known:.0f} % of what schools will differ by in {cohort} can be foretold for the middle school",
        "Left: correlation of a school's true effects in two cohorts, with 95 % intervals; lines: what forecasts use, "
        f"dashed where assumed. Right: pupils with need; grey {span}, black the forecast for {cohort}.",
        ". ".join(filter(None, [title, f"Right: {_SHOWN} schools, evenly over the range of the average"])) + ".",
        synthetic=synthetic,
        panels=(1.0, 1.0),
        legend_row=True,
    )
    _draw_lags(axes[0], lags)
    _draw_schools(axes[1], behind, ahead)
    axes[1].set_xlabel(axis_label("Theta", unit, 40))
    return figure


def _first(table: pd.DataFrame) -> pd.DataFrame:
    same: pd.Series[bool] = (table[["estimator", "context"]] == table[["estimator", "context"]].iloc[0]).all(axis=1)
    return table.loc[same]


def _draw_lags(ax: Axes, lags: pd.DataFrame) -> None:
    for k, (measure, (marker, face)) in enumerate(_MARKS.items()):
        part = lags[lags["measure"] == measure]
        lag = part["lag"].to_numpy(dtype=np.float64)
        fitted, seen = part["fitted"].to_numpy(dtype=np.float64), part["pairs"].to_numpy() > 0
        if not len(part):
            continue
        color, last = (INK, MIDDLE)[k], int(np.flatnonzero(seen)[-1])
        ax.plot(lag[: last + 1], fitted[: last + 1], color=color, linewidth=1.0)
        ax.plot(lag[last:], fitted[last:], color=color, linewidth=1.0, linestyle=(0, (3, 2)))
        at, value = lag[seen] + 0.06 * (2 * k - 1), part["correlation"].to_numpy(dtype=np.float64)[seen]
        reach = _NORMAL_95 * part["se"].to_numpy(dtype=np.float64)[seen]
        ax.vlines(at, value - reach, value + reach, color=color, linewidth=1.0)
        ax.plot(
            at,
            value,
            marker,
            markersize=4.5,
            markeredgecolor=INK,
            markerfacecolor=face,
            markeredgewidth=0.8,
            label=_WORDS[measure],
        )
    ax.set_ylim(0.0, max(1.05, ax.get_ylim()[1]))
    ax.set_xlim(-0.3, float(lags["lag"].max()) + 0.3)
    ax.set_xlabel("Years between cohorts")
    ax.set_ylabel("Correlation of school effects")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncol=2, frameon=False, fontsize=7.5, borderaxespad=0.1)


def _draw_schools(ax: Axes, behind: pd.DataFrame, ahead: pd.DataFrame) -> None:
    ordered = behind[behind["mean"].notna()].sort_values("mean", ignore_index=True)
    picks = np.unique(np.linspace(0, len(ordered) - 1, _SHOWN).round().astype(int))
    shown = ordered.iloc[picks].merge(ahead, on="school", suffixes=("", "_ahead"))
    at = np.arange(len(shown), dtype=np.float64)
    ax.axvline(0.0, color=MIDDLE, linewidth=0.8)
    ax.hlines(at + 0.16, shown["lower"], shown["upper"], color=PALE, linewidth=3.0)
    ax.plot(shown["mean"], at + 0.16, "o", color=MIDDLE, markersize=3.5, label="average of the last years")
    ax.hlines(at - 0.16, shown["lower_ahead"], shown["upper_ahead"], color=ACCENT, linewidth=1.0)
    ax.plot(shown["mean_ahead"], at - 0.16, "D", color=INK, markersize=3.5, label="forecast")
    ax.set_yticks(at, shown["school"].astype(str), fontsize=6.5)
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncol=2, frameon=False, fontsize=7.5, borderaxespad=0.1)
