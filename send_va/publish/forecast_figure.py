"""Later estimates of schools against what earlier cohorts foretold."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from send_va.errors import InputError
from send_va.publish.figure_data import require_columns
from send_va.publish.figure_style import ACCENT, INK, MIDDLE, PALE, axis_label, styled, titled_figure

_OF_ROWS = ("prediction", "measure", "school", "predicted", "shown", "weight")
_OF_TABLE = ("prediction", "measure", "coefficient", "lower", "upper", "schools", "targets", "coverage", "verdict")
_BINS = 20
_NAMES = {"plain": "as if effects lasted", "drift": "with drift"}


@styled
def forecast_figure(
    rows: pd.DataFrame, table: pd.DataFrame, *, unit: str, synthetic: bool, title: str = "", bins: int = _BINS
) -> Figure:
    """Draw estimates of later cohorts in bins of their predictions.

    Parameters
    ----------
    rows, table : pandas.DataFrame
        As of :class:`send_va.validation.forecast.ForecastBias`, of one measure.
    unit : str
        Of the outcome.
    synthetic : bool
    title : str
        Said in the note.
    bins : int
        Of equal size; a bin shows the weighted mean of five schools and cohorts or more.

    Returns
    -------
    matplotlib.figure.Figure
        A panel for each prediction. Points near the dashed line, of slope 1: what was foretold came true on average.
        The full line is the fitted one; flatter means predictions too bold.

    Raises
    ------
    InputError
        A column is missing, there are no rows, or fewer than two bins of five.

    Examples
    --------
    >>> from send_va.validation.falsification_worlds import FalsificationWorld
    >>> from send_va.validation.forecast import forecast_bias
    >>> years = FalsificationWorld(schools=60, cohorts=3).draw(np.random.default_rng(1)).year_estimates()
    >>> found = forecast_bias(years, groups=10)
    >>> len(forecast_figure(found.rows, found.table, unit="pupil SD", synthetic=True).axes)
    2
    """
    require_columns(rows, _OF_ROWS, "the rows of forecasts")
    require_columns(table, _OF_TABLE, "the table of forecast bias")
    used = min(bins, int(rows.groupby("prediction").size().min()) // 5) if len(rows) else 0
    if used < 2:
        raise InputError(f"{len(rows)} rows are too few to draw", "Two bins of five schools and cohorts are the least.")
    last = table.iloc[-1]
    figure, axes = titled_figure(
        f"What earlier cohorts foretold came true by a factor of {last['coefficient']:.2f}",
        f"Estimates of a later cohort against predictions, means of {used} bins; dashed: slope 1, full: fitted. 1 does "
        "not rule out sorting that lasts.",
        f"{'. '.join(filter(None, [title, str(int(last['schools'])) + ' schools']))}, "
        f"{int(last['targets'])} cohorts predicted. Deviations from the mean of the cohort.",
        synthetic=synthetic,
        panels=(1.0,) * len(table),
        plot_height_inches=2.7,
        label_lines=2,
    )
    slopes = table[["coefficient", "lower", "upper"]].to_numpy(dtype=np.float64)
    for ax, kind, measure, slope in zip(axes, table["prediction"], table["measure"], slopes, strict=True):
        _panel(ax, binned(rows[(rows["prediction"] == kind) & (rows["measure"] == measure)], used), slope[0])
        said = f"{slope[0]:.2f} ({slope[1]:.2f} to {slope[2]:.2f})"
        ax.set_title(f"{_NAMES.get(str(kind), kind)}: {said}", fontsize=8.0, loc="left")
        ax.set_xlabel(axis_label("Prediction", unit, 34))
    axes[0].set_ylabel(axis_label("Later estimate", unit, 34))
    return figure


def binned(rows: pd.DataFrame, bins: int) -> pd.DataFrame:
    """Weighted means by bin of the prediction: the data of the figure.

    Returns
    -------
    DataFrame
        bin, predicted, shown, se (of the mean shown, from the spread inside the bin), rows.
    """
    place = rows["predicted"].rank(method="first").to_numpy() - 1
    made = []
    for k, part in rows.groupby((place * bins // len(rows)).astype(int)):
        weight = part["weight"].to_numpy(dtype=np.float64)
        x, y = (np.average(part[name], weights=weight) for name in ("predicted", "shown"))
        share = weight / weight.sum()
        se = float(np.sqrt((share**2 * (part["shown"] - y) ** 2).sum()))
        made.append({"bin": int(str(k)) + 1, "predicted": x, "shown": y, "se": se, "rows": len(part)})
    return pd.DataFrame(made)


def _panel(ax: Axes, bins: pd.DataFrame, slope: float) -> None:
    x, y = bins["predicted"].to_numpy(), bins["shown"].to_numpy()
    ends = np.array([x.min(), x.max()]) * 1.08
    ax.axhline(0.0, color=PALE, linewidth=0.8, zorder=0)
    ax.axvline(0.0, color=PALE, linewidth=0.8, zorder=0)
    ax.vlines(x, y - 2.0 * bins["se"], y + 2.0 * bins["se"], color=MIDDLE, linewidth=0.8)
    ax.plot(ends, ends, color=MIDDLE, linestyle="--", linewidth=1.0)
    ax.plot(ends, slope * ends, color=ACCENT, linewidth=1.3)
    ax.plot(x, y, linestyle="none", marker="o", markersize=3.4, markerfacecolor=INK, markeredgecolor=INK)
