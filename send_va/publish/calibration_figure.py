"""Calibration at a glance: differences of ECDFs with their simultaneous band, and cover of intervals."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from send_va.errors import InputError
from send_va.publish.figure_data import require_columns
from send_va.publish.figure_style import (
    ACCENT,
    INK,
    MIDDLE,
    PALE,
    PANELS_ACROSS,
    small_panels,
    small_panels_height,
    styled,
    titled_figure,
)
from send_va.validation.uniformity import RankUniformity

_NAME_LINE_INCHES, _NAME_CHARACTERS = 0.14, 28
_ROW_INCHES = 0.17
_COVER_COLUMNS = ("what", "level", "cover", "se", "simulations", "diagnosis")


@styled
def rank_figure(found: RankUniformity, subject: str, *, problems: str = "") -> Figure:
    """Draw how far the ranks of every parameter are from uniform, one small panel a parameter.

    Parameters
    ----------
    found : RankUniformity
    subject : str
        What was calibrated, as in "the collapsed posterior".
    problems : str
        What went wrong on the way, for the note.

    Returns
    -------
    matplotlib.figure.Figure
        The line is the ECDF of ranks minus that of uniform ones, the area its simultaneous band. Above zero on the left
        and below on the right: posterior too narrow; above throughout: too high.

    Examples
    --------
    >>> import numpy as np
    >>> from send_va.validation.uniformity import rank_uniformity
    >>> ranks = np.random.default_rng(1).integers(0, 20, (50, 4))
    >>> len(rank_figure(rank_uniformity(ranks, 19, ["a", "b", "c", "d"]), "a toy").axes)
    4
    """
    name = _NAME_LINE_INCHES * max(_name(name).count("\n") + 1 for name in found.names)
    held = int(found.inside.sum())
    figure, axes = titled_figure(
        f"Ranks of the truth in {subject}: {held} of {len(found.names)} inside their bands",
        "ECDF of ranks minus that of uniform ones. Up, then down: too narrow. Down, then up: too wide. One side: off.",
        f"{found.simulations} simulations, ranks among {found.draws} draws. Bands hold all parameters jointly with "
        f"probability {found.confidence:.0%} when all is right.{' ' + problems if problems else ''}",
        synthetic=True,
        plot_height_inches=small_panels_height(len(found.names), name),
    )
    reach = 1.1 * max(float(np.abs([found.lower, found.upper]).max()), float(np.abs(found.differences).max()))
    for k, ax in enumerate(small_panels(figure, axes[0], len(found.names), name)):
        _draw_ranks(ax, found, k)
        ax.set_ylim(-reach, reach)
        ax.set_xticks([0.0, 0.5, 1.0], ["0", "0.5", "1"])
        if k % PANELS_ACROSS:
            ax.set_yticklabels([])
        if k + PANELS_ACROSS < len(found.names):
            ax.set_xticklabels([])
        else:
            ax.set_xlabel("Rank, as a share of draws")
    return figure


def _name(name: str) -> str:
    return textwrap.fill(name, _NAME_CHARACTERS)


def _draw_ranks(ax: Axes, found: RankUniformity, k: int) -> None:
    ax.fill_between(found.positions, found.lower, found.upper, color=PALE, linewidth=0)
    ax.axhline(0.0, color=MIDDLE, linewidth=0.6)
    inside = bool(found.inside[k])
    ax.plot(found.positions, found.differences[:, k], color=ACCENT if inside else INK, linewidth=1.0 if inside else 1.8)
    if not inside:
        ax.text(0.97, 0.04, "outside", transform=ax.transAxes, ha="right", fontsize=7.5, color=INK)
    ax.set_title(_name(found.names[k]), fontsize=8, loc="left", pad=3, fontweight="normal" if inside else "bold")
    ax.set_xlim(0.0, 1.0)


@styled
def coverage_figure(table: pd.DataFrame, subject: str) -> Figure:
    """Draw cover of intervals: one row for what was covered, one panel a level.

    Parameters
    ----------
    table : pandas.DataFrame
        As :meth:`send_va.validation.coverage.Coverage.table` makes it.
    subject : str
        Whose intervals, as in "REML".

    Returns
    -------
    matplotlib.figure.Figure
        Marks on the line: intervals hold the truth as often as they say. Left of it: too short. Filled marks are off by
        more than chance allows. Lines are two Monte-Carlo standard errors either way.

    Raises
    ------
    InputError
        A column is missing, or there are no rows.

    Examples
    --------
    >>> row = {"what": "theta", "level": 0.95, "cover": 0.94, "se": 0.01, "simulations": 400, "diagnosis": "as stated"}
    >>> len(coverage_figure(pd.DataFrame([row, row | {"level": 0.5, "cover": 0.52}]), "REML").axes)
    2
    """
    require_columns(table, _COVER_COLUMNS, "cover of intervals")
    if table.empty:
        raise InputError("there is no cover to draw", "Run the simulations first.")
    names = list(dict.fromkeys(table["what"].astype(str)))
    levels = sorted(table["level"].unique())
    held = int((table["diagnosis"] == "as stated").sum())
    figure, axes = titled_figure(
        f"Intervals of {subject} hold the truth as often as they say in {held} of {len(table)} cases",
        "Share of intervals that hold the truth. Left of the line: too short. Right: too long. Filled: not by chance.",
        f"{int(table['simulations'].min())} simulations or more. Lines: two Monte-Carlo standard errors.",
        synthetic=True,
        panels=(1.0,) * len(levels),
        plot_height_inches=0.3 + _ROW_INCHES * len(names),
    )
    left = 0.25 + 0.058 * max(len(name) for name in names)  # inches
    _make_room(figure, axes, left / figure.get_figwidth())
    for ax, level in zip(axes, levels, strict=True):
        _draw_cover(ax, table[table["level"] == level], names, float(level))
    axes[0].set_yticks(range(len(names)), names, fontsize=7)
    for ax in axes[1:]:
        ax.set_yticks([])
    return figure


def _make_room(figure: Figure, axes: list[Axes], left: float) -> None:
    first, last = axes[0].get_position(), axes[-1].get_position()
    between = 0.22 / figure.get_figwidth()
    width = (last.x1 - left - between * (len(axes) - 1)) / len(axes)
    for k, ax in enumerate(axes):
        ax.set_position((left + k * (width + between), first.y0, width, first.height))


def _draw_cover(ax: Axes, part: pd.DataFrame, names: list[str], level: float) -> None:
    at = np.array([names.index(name) for name in part["what"]])
    cover, reach = part["cover"].to_numpy(dtype=np.float64), 2.0 * part["se"].to_numpy(dtype=np.float64)
    clear = (part["diagnosis"] != "as stated").to_numpy()
    ax.axvline(level, color=MIDDLE, linewidth=0.8)
    ax.hlines(at, cover - reach, cover + reach, color=MIDDLE, linewidth=0.8)
    for chosen, face in ((~clear, "white"), (clear, INK)):
        ax.plot(
            cover[chosen],
            at[chosen],
            linestyle="none",
            marker="o",
            markersize=3.4,
            markerfacecolor=face,
            markeredgecolor=INK,
            markeredgewidth=0.8,
        )
    ax.set_ylim(len(names) - 0.4, -0.6)
    width = 1.15 * max(float(np.abs(np.concatenate([cover - reach, cover + reach]) - level).max()), 0.02)
    ax.set_xlim(max(level - width, -0.02), min(level + width, 1.02))
    ax.xaxis.set_major_locator(MaxNLocator(3))
    ax.set_xlabel(f"{level:.0%} intervals")
