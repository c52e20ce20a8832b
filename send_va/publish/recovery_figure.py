"""The recovery study at a glance: cover, error and bias of every estimator in every scenario."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from send_va.publish.figure_data import require_columns
from send_va.publish.figure_style import ESTIMATOR_MARKS, INK, MIDDLE, PALE, styled, titled_figure

_COLUMNS = ("scenario", "geography", "estimator", "replicates", "cover", "cover_se", "rmse_ratio", "leniency_bias")
_ROW_INCHES = 0.2
_TARGET = (0.92, 0.97)


@styled
def recovery_figure(table: pd.DataFrame) -> Figure:
    """Draw a recovery study: one row a scenario and geography, three panels.

    Parameters
    ----------
    table : pandas.DataFrame
        As `send_va.validation.recovery.summarise` makes it.

    Returns
    -------
    matplotlib.figure.Figure
        Left: share of true theta inside 95 % intervals, the band being 92 to 97 %. Middle and right: bias for a school
        one SD more lenient, and one SD more of a magnet, in pupil SDs; zero is none. Lines are two Monte-Carlo standard
        errors either way.

    Raises
    ------
    InputError
        A column is missing.

    Examples
    --------
    >>> row = {"scenario": "magnets", "geography": "scattered", "estimator": "entry", "replicates": 20, "cover": .95,
    ...     "cover_se": .01, "rmse_ratio": .9, "leniency_bias": float("nan"), "leniency_bias_se": float("nan"),
    ...     "magnet_bias": -.01, "magnet_bias_se": .002}
    >>> len(recovery_figure(pd.DataFrame([row])).axes)
    3
    """
    require_columns(table, _COLUMNS, "the recovery study")
    rows = table[["scenario", "geography"]].drop_duplicates().reset_index(drop=True)
    kept = table[table["estimator"].isin(list(ESTIMATOR_MARKS))]
    entry = table[table["estimator"] == "entry"]
    inside = int(entry["cover"].between(*_TARGET).sum())
    figure, axes = titled_figure(
        f"The headline's intervals hold the truth for 92 to 97 % of schools in {inside} of {len(entry)} worlds",
        "Cover of 95 % intervals; bias for a school one SD more lenient, and one SD more of a magnet (pupil SDs).",
        f"Fewest replicates of a world: {int(table['replicates'].min())}. Lines: two Monte-Carlo standard errors.",
        synthetic=True,
        panels=(1.0, 1.0, 1.0),
        plot_height_inches=0.4 + _ROW_INCHES * len(rows),
        legend_row=True,
    )
    worlds = list(zip(rows["scenario"].astype(str), rows["geography"].astype(str), strict=True))
    places = {world: k for k, world in enumerate(worlds)}
    panels = (("cover", "Cover"), ("leniency_bias", "Bias by leniency"), ("magnet_bias", "Bias by intake need"))
    for ax, (measure, name) in zip(axes, panels, strict=True):
        _draw(ax, kept, places, measure)
        ax.set_xlabel(name)
        ax.set_ylim(len(rows) - 0.4, -0.6)
    axes[0].axvspan(*_TARGET, color=PALE, zorder=0, linewidth=0)
    for ax in axes[1:]:
        ax.axvline(0.0, color=MIDDLE, linewidth=0.8)
        ax.set_yticks([])
    names = [scenario.replace("_", " ") + _place(geography) for scenario, geography in worlds]
    axes[0].set_yticks(range(len(rows)), names, fontsize=6.5)
    _make_room(axes, 0.25)
    handles, labels = axes[0].get_legend_handles_labels()
    top = axes[0].get_position()
    figure.legend(
        handles,
        labels,
        loc="upper left",
        bbox_to_anchor=(top.x0, top.y1 + 0.33 / figure.get_figheight()),
        ncol=4,
        frameon=False,
        fontsize=7.5,
        borderaxespad=0.0,
    )
    return figure


def _make_room(axes: list[Axes], left: float) -> None:
    """Move the panels right, so that the names of worlds fit beside the first."""
    first, last = axes[0].get_position(), axes[-1].get_position()
    width = (last.x1 - left - 0.04 * (len(axes) - 1)) / len(axes)
    for k, ax in enumerate(axes):
        ax.set_position((left + k * (width + 0.04), first.y0, width, first.height))


def _place(geography: str) -> str:
    return "" if geography == "scattered" else f" ({geography.replace('_', ' ')})"


def _draw(ax: Axes, table: pd.DataFrame, places: dict[tuple[str, str], int], measure: str) -> None:
    for k, (name, style) in enumerate(ESTIMATOR_MARKS.items()):
        part = table[table["estimator"] == name]
        at = np.array([places[key] for key in zip(part["scenario"], part["geography"], strict=True)]) + 0.14 * (k - 1.5)
        value = part[measure].to_numpy(dtype=np.float64)
        reach = 2.0 * part[f"{measure}_se"].to_numpy(dtype=np.float64)
        ax.hlines(at, value - reach, value + reach, color=MIDDLE, linewidth=0.8)
        ax.plot(
            value,
            at,
            linestyle="none",
            markersize=3.2,
            markeredgecolor=INK,
            markeredgewidth=0.8,
            **style,  # type: ignore[arg-type]
        )
