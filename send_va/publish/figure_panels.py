"""What is drawn inside the panels of the figures: marks and lines, told apart by shape and darkness."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator
from numpy.typing import NDArray

from send_va.publish.figure_style import ACCENT, INK, MIDDLE, PALE

MOST_SCHOOLS_DRAWN_SINGLY = 150
MOST_VECTOR_MARKS = 1000
DASHED = (0, (5, 3))
ON_LINES = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}  # behind words that may stand on a line
# Spiegelhalter (2005), doi:10.1002/sim.1970: control limits at two and three standard deviations, 95 % and 99.8 %.
FUNNEL_Z = {"95 %": 1.959964, "99.8 %": 3.090232}
SHARE_OF_PLACES = 0.10


def percent(part: int, whole: int) -> str:
    """Write a share in whole per cent, as in ``"12 %"``.

    Parameters
    ----------
    part, whole : int
        Counts.

    Returns
    -------
    str
        With a space before the sign.

    Raises
    ------
    ZeroDivisionError
        When `whole` is 0.

    Examples
    --------
    >>> percent(1, 8)
    '12 %'
    """
    return f"{100 * part / whole:.0f} %"


def mark_of_middle(n: int) -> str:
    """Say what `draw_intervals` marks the middles of `n` intervals with.

    Parameters
    ----------
    n : int
        Number of schools.

    Returns
    -------
    str
        For the subtitle.

    Raises
    ------
    TypeError
        When `n` is not a number.

    Examples
    --------
    >>> mark_of_middle(60), mark_of_middle(3400)
    ('each point', 'the dark line')
    """
    return "the dark line" if n > MOST_SCHOOLS_DRAWN_SINGLY else "each point"


def ticks_from_one(n: int) -> list[float]:
    """Ticks at 1, at `n`, and at round whole numbers far enough from both to be read.

    Parameters
    ----------
    n : int
        Last place, at least 1.

    Returns
    -------
    list of float
        Ascending.

    Raises
    ------
    ValueError
        When `n` is below 1.

    Examples
    --------
    >>> ticks_from_one(60)
    [1.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0]
    """
    if n < 1:
        raise ValueError(f"there is no place {n}")
    between = MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]).tick_values(1, n)
    return [1.0, *(float(tick) for tick in between if 1 + 0.05 * n < tick < 0.95 * n), *([float(n)] if n > 1 else [])]


def name_average(ax: Axes, average: float, n: int) -> None:
    """Draw the average line and write its name right of the last school."""
    ax.axhline(average, color=INK, linewidth=0.9, linestyle=DASHED)
    ax.set_xlim(right=1.13 * n)
    ax.text(
        1.12 * n,
        average,
        "average\nschool",
        ha="right",
        va="center",
        fontsize=7.5,
        bbox=ON_LINES,
    )


def draw_intervals(
    ax: Axes, middle: NDArray[np.float64], lower: NDArray[np.float64], upper: NDArray[np.float64]
) -> None:
    """Draw one vertical interval a school and its middle: points for few schools, a line over a band for many."""
    x = np.arange(1, len(middle) + 1)
    crowded = len(middle) > MOST_SCHOOLS_DRAWN_SINGLY
    segments = np.stack(
        [np.column_stack([x, lower]), np.column_stack([x, upper])], axis=1
    )  # (n, 2 ends, 2 coordinates)
    ax.add_collection(
        LineCollection(
            list(segments),
            colors=PALE if crowded else MIDDLE,
            linewidths=max(0.25, min(1.4, 260 / len(x))),
            rasterized=len(x) > MOST_VECTOR_MARKS,
        )
    )
    if crowded:
        ax.plot(x, middle, color=INK, linewidth=1.3)
    else:
        ax.plot(x, middle, linestyle="none", marker="o", markersize=min(3.5, 200 / len(x)), color=INK)


def set_school_axis(ax: Axes, n: int, label: str) -> None:
    """Label the horizontal axis from the first to the last of `n` schools."""
    ax.set_xlim(0.5 - 0.01 * n, n + 0.5 + 0.01 * n)
    ax.set_xticks(ticks_from_one(n))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.set_xlabel(label)


def name_schools(
    ax: Axes,
    schools: pd.Series,
    rows: Sequence[int],
    middle: NDArray[np.float64],
    lower: NDArray[np.float64],
    upper: NDArray[np.float64],
    *,
    above_in_first_half: bool,
) -> None:
    """Redraw the named schools' intervals in ink and write their identifiers where the band leaves room."""
    n = len(middle)
    characters = max((len(str(schools.iloc[row])) for row in rows), default=0)
    reach = max(1, round(n * (0.035 + 0.006 * characters)))
    for row in rows:
        x = row + 1
        ax.plot([x, x], [lower[row], upper[row]], color=ACCENT, linewidth=2.2, solid_capstyle="butt")
        ax.plot([x], [middle[row]], marker="D", markersize=4.2, color="white", markeredgecolor=ACCENT)
        near = slice(max(0, row - reach), row + reach + 1)
        high_end = (row < n / 2) == above_in_first_half
        edge = float(upper[near].max() if high_end else lower[near].min())
        up = high_end != ax.yaxis_inverted()
        own = upper[row] if high_end else lower[row]
        ax.plot([x, x], [own, edge], color=ACCENT, linewidth=0.7, linestyle=":")
        ax.annotate(
            str(schools.iloc[row]),
            (x, edge),
            xytext=(0, 3 if up else -3),
            textcoords="offset points",
            ha="left" if row < 0.06 * n else "right" if row > 0.94 * n else "center",
            va="bottom" if up else "top",
            fontsize=7.5,
            color=ACCENT,
            bbox=ON_LINES,
        )


def draw_funnel(
    ax: Axes,
    n_need: NDArray[np.float64],
    estimate: NDArray[np.float64],
    distance: NDArray[np.float64],
    average: float,
    spread: float,
) -> None:
    """Draw estimates by `n_need`; `distance` is how many standard errors of the funnel they lie off the average."""
    z_inner, z_outer = FUNNEL_Z.values()
    groups: list[tuple[str, NDArray[np.bool_], Any]] = [
        ("inside", distance <= z_inner, {"marker": "o", "s": 9, "facecolors": "none", "edgecolors": MIDDLE}),
        ("outside 95 %", (distance > z_inner) & (distance <= z_outer), {"marker": "s", "s": 11, "color": ACCENT}),
        ("outside 99.8 %", distance > z_outer, {"marker": "^", "s": 22, "color": INK}),
    ]
    for name, chosen, look in groups:
        ax.scatter(
            n_need[chosen],
            estimate[chosen],
            label=name,
            linewidths=0.6,
            rasterized=len(n_need) > MOST_VECTOR_MARKS,
            **look,
        )
    grid = np.linspace(max(0.5, 0.8 * n_need.min()), 1.03 * n_need.max(), 400)
    for (name, z), line in zip(FUNNEL_Z.items(), ((0, (4, 2)), "-"), strict=True):
        for sign in (-1, 1):
            ax.plot(
                grid,
                average + sign * z * spread / np.sqrt(grid),
                color=INK,
                linewidth=0.9,
                linestyle=line,
                label=f"{name} limit" if sign == 1 else None,
            )
    ax.axhline(average, color=INK, linewidth=0.8, linestyle=":", label="average")
    half = max(1.1 * float(np.abs(estimate - average).max()), 1.15 * z_outer * spread / np.sqrt(np.median(n_need)))
    ax.set_ylim(average - half, average + half)
    ax.set_xlim(0, 1.03 * float(n_need.max()))
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(-0.01, 1.0),
        ncol=6,
        frameon=False,
        fontsize=7.5,
        handletextpad=0.4,
        columnspacing=1.1,
        borderaxespad=0.1,
    )


def draw_shift(ax: Axes, before: NDArray[np.float64], after: NDArray[np.float64], far: NDArray[np.bool_]) -> None:
    """Draw the second context's theta against the first's; `far` marks schools that move many places."""
    low, high = float(min(before.min(), after.min())), float(max(before.max(), after.max()))
    pad = 0.05 * (high - low) or 1.0
    size = 10 if len(before) <= MOST_SCHOOLS_DRAWN_SINGLY else 5
    raster = len(before) > MOST_VECTOR_MARKS
    ax.scatter(
        before[~far], after[~far], s=size, facecolors="none", edgecolors=MIDDLE, linewidths=0.5, rasterized=raster
    )
    ax.scatter(before[far], after[far], s=1.6 * size, marker="^", color=INK, linewidths=0, alpha=0.7, rasterized=raster)
    ax.plot([low - pad, high + pad], [low - pad, high + pad], color=INK, linewidth=0.9, linestyle=DASHED)
    ax.set_xlim(low - pad, high + pad)
    ax.set_ylim(low - pad, high + pad)
    ax.text(0.02, 0.98, "better once context counts", transform=ax.transAxes, fontsize=7.5, va="top")
    ax.text(0.98, 0.02, "worse once context counts", transform=ax.transAxes, fontsize=7.5, ha="right")


def draw_moves(ax: Axes, moved: NDArray[np.int64], n: int) -> None:
    """Draw how many of `n` places schools move, as a histogram of shares."""
    step = 0.02 if n > MOST_SCHOOLS_DRAWN_SINGLY else 0.05
    bins = np.maximum(np.ceil(moved / n / step - 1e-9).astype(int) - 1, 0)  # (lower, upper]: exactly 10 % is not more
    last = max(int(bins.max()) + 1, round(0.2 / step))
    counts = np.bincount(bins, minlength=last)
    edges = step * np.arange(last + 1)
    beyond = edges[:-1] >= SHARE_OF_PLACES - 1e-9
    ax.bar(
        edges[:-1],
        counts,
        width=step,
        align="edge",
        color=np.where(beyond, INK, PALE).tolist(),
        edgecolor="white",
        lw=0.5,
    )
    ax.axvline(SHARE_OF_PLACES, color=INK, linewidth=0.9, linestyle=DASHED)
    ax.set_ylim(0, 1.18 * max(1, int(counts.max())))
    ax.set_xlim(0, float(edges[-1]))
    ax.xaxis.set_major_locator(MultipleLocator(0.1 if edges[-1] <= 0.61 else 0.2))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    ax.set_xlabel("Places moved, as a share of all schools")
    ax.yaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    ax.set_ylabel("Schools")
    far = int((moved > SHARE_OF_PLACES * n).sum())
    ax.text(
        0.98,
        0.97,
        f"{percent(far, n)} move by more\nthan {100 * SHARE_OF_PLACES:.0f} % of places",
        transform=ax.transAxes,
        ha="right",
        va="top",
        fontsize=8,
    )
