"""Checks on cohorts at a glance: how often they reject where nothing is wrong, and where something is."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from send_va.errors import InputError
from send_va.publish.figure_data import require_columns
from send_va.publish.figure_style import INK, MIDDLE, PALE, styled, titled_figure

_COLUMNS = ("part", "violation", "amount", "reliability", "test", "runs", "rejects", "se")
_BAND = (0.03, 0.07)
_MARKS = {
    "earlier scores": {"marker": "D", "markerfacecolor": INK, "linestyle": "-"},
    "earlier scores, uncorrected": {"marker": "x", "markerfacecolor": INK, "linestyle": ":"},
    "forecast, plain": {"marker": "o", "markerfacecolor": "white", "linestyle": "--"},
    "forecast, drift": {"marker": "^", "markerfacecolor": "white", "linestyle": "-."},
    "leniency": {"marker": "s", "markerfacecolor": INK, "linestyle": "-"},
}
_PANELS = {
    "sorting": "Need not observed,\nSD between schools",
    "baseline": "Baseline moved,\nSD between schools",
    "drift": "Drift, 1 - correlation\nof two years",
    "lenient": "Correlation of leniency\nand intake need",
}


@styled
def falsification_figure(rates: pd.DataFrame, detectable: pd.DataFrame) -> Figure:
    """Draw sizes and powers.

    Parameters
    ----------
    rates : pandas.DataFrame
        part (``size`` or a part with violations), violation, amount, reliability, test, runs, rejects, se.
    detectable : pandas.DataFrame
        violation, test, detectable: sizes found in 80 % of runs.

    Returns
    -------
    matplotlib.figure.Figure
        Left: share of runs that reject where nothing is wrong, by reliability of the prior score; the band is 3 to
        7 %. Then one panel a violation: share that reject by its size; the line is 80 %.

    Raises
    ------
    InputError
        A column is missing, or there are no rows of ``size``.

    Examples
    --------
    >>> row = {"part": "size", "violation": "none", "amount": 0.0, "reliability": 0.9, "test": "earlier scores",
    ...     "runs": 500, "rejects": 0.05, "se": 0.01}
    >>> power = [row | {"part": "power", "violation": v, "amount": a} for v, a in (("none", 0.0), ("sorting", 0.4))]
    >>> found = pd.DataFrame([{"violation": "sorting", "test": "earlier scores", "detectable": 0.3}])
    >>> len(falsification_figure(pd.DataFrame([row, *power]), found).axes)
    2
    """
    require_columns(rates, _COLUMNS, "the rates of rejection")
    require_columns(detectable, ("violation", "test", "detectable"), "the sizes that are detected")
    size = rates[rates["part"] == "size"]
    if not len(size):
        raise InputError("there are no rows of size to draw", "Run the part `size`.")
    shown = [name for name in _PANELS if (rates["violation"] == name).any()]
    kept = size[size["test"] == "earlier scores"]
    worst = kept["rejects"].max()
    figure, axes = titled_figure(
        f"Corrected for error in prior scores, the test of earlier scores rejects in {100.0 * worst:.0f} % of runs "
        "at worst where nothing is wrong",
        "Share of simulated runs in which a check rejects at 5 %. Left: nothing is wrong (band: 3 to 7 %). Right: one "
        "thing is, by its size (line: 80 %).",
        f"Runs a point: {int(rates['runs'].min())} to {int(rates['runs'].max())}. "
        "Lines: two Monte-Carlo standard errors.",
        synthetic=True,
        panels=(1.15,) + (1.0,) * len(shown),
        plot_height_inches=2.6,
        legend_row=True,
        label_lines=2,
    )
    _sizes(axes[0], size)
    for ax, violation in zip(axes[1:], shown, strict=True):
        _power(ax, rates, violation)
    handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    top = axes[0].get_position()
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="upper left",
        bbox_to_anchor=(top.x0 - 0.08, top.y1 + 0.33 / figure.get_figheight()),
        ncol=5,
        frameon=False,
        fontsize=7.0,
        borderaxespad=0.0,
        columnspacing=1.2,
    )
    return figure


def _sizes(ax: Axes, size: pd.DataFrame) -> None:
    ax.axhspan(*_BAND, color=PALE, zorder=0, linewidth=0)
    for name, table in size.groupby("test", sort=False):
        _line(ax, table.sort_values("reliability"), "reliability", str(name))
    ax.invert_xaxis()
    ax.set_xticks(sorted(size["reliability"].unique()))
    ax.set_xlabel("Reliability of the\nprior score", fontsize=7.5)
    ax.set_ylabel("Share of runs that reject")
    ax.set_ylim(0.0, 1.03)


def _power(ax: Axes, rates: pd.DataFrame, violation: str) -> None:
    ax.axhline(0.8, color=MIDDLE, linewidth=0.7)
    ax.axhline(0.05, color=PALE, linewidth=0.8)
    for part in rates.loc[rates["violation"] == violation, "part"].unique():
        of_part = rates[(rates["part"] == part) & rates["violation"].isin(["none", violation])]
        for name, table in of_part.groupby("test", sort=False):
            if name != "earlier scores, uncorrected":
                _line(ax, table.sort_values("amount"), "amount", str(name))
    ax.set_ylim(0.0, 1.03)
    ax.set_yticklabels([])
    ax.set_xlabel(_PANELS[violation], fontsize=7.5)


def _line(ax: Axes, table: pd.DataFrame, along: str, name: str) -> None:
    x, y = table[along].to_numpy(dtype=np.float64), table["rejects"].to_numpy(dtype=np.float64)
    reach = 2.0 * table["se"].to_numpy(dtype=np.float64)
    ax.vlines(x, np.clip(y - reach, 0.0, 1.0), np.clip(y + reach, 0.0, 1.0), color=MIDDLE, linewidth=0.8)
    ax.plot(
        x,
        y,
        color=INK,
        linewidth=0.9,
        markersize=3.6,
        markeredgecolor=INK,
        markeredgewidth=0.8,
        label=name,
        **_MARKS.get(name, _MARKS["earlier scores"]),  # type: ignore[arg-type]
    )
