"""What is drawn inside the panels of the ranking figures: densities and strips that stay readable for thousands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, LinearSegmentedColormap, ListedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from send_va.publish.figure_panels import MOST_SCHOOLS_DRAWN_SINGLY, MOST_VECTOR_MARKS, ON_LINES
from send_va.publish.figure_style import ACCENT, INK, MIDDLE, PALE, WIDTH_INCHES
from send_va.ranking.pairwise_from_draws import even_blocks

Floats = NDArray[np.float64]
TONES = ("#0b2545", "#3f6485", "#8496a6", "#bcc6cf", "#e9edf0")  # apart in grey; the darkest is the highest
_SHADING = LinearSegmentedColormap.from_list("groups", TONES)
PAIR_LEVELS = (0.0, 0.025, 0.2, 0.8, 0.975, 1.0)  # separated at 95 %, four to one, open, and the same the other way
MOST_COLUMNS = 120  # of schools drawn side by side: single ones for few, blocks of even size for many
MOST_NAMED_GROUPS = 6
_COVER_LEVELS = (0.0, 0.05, 0.25, 0.5, 0.75, 1.001)
_COVER_SHADES = {
    "5 to 25 %": "#eef1f3",
    "25 to 50 %": "#d3dae0",
    "50 to 75 %": "#b0bcc7",
    "75 % or more": "#8797a7",
}
_CHARACTER_INCHES = 0.075


def shown_steps(n: int) -> Floats:
    """Edges of the columns of `n` schools on an axis where school k lies at k: from .5 to n + .5."""
    columns = min(MOST_COLUMNS, n)
    firsts = -(-np.arange(columns + 1) * n // columns)  # as even_blocks cuts them
    return firsts.astype(np.float64) + 0.5


def draw_cover(ax: Axes, lower: Floats, upper: Floats) -> None:
    """Shade, for columns of schools in order, the share of their intervals that covers each place."""
    n = len(lower)
    edges = shown_steps(n)
    rows = np.linspace(0.5, n + 0.5, MOST_COLUMNS + 1)
    middles = 0.5 * (rows[:-1] + rows[1:])
    band = even_blocks(np.arange(n, dtype=float), MOST_COLUMNS)
    covered = np.zeros((len(middles), len(edges) - 1))
    for column in range(len(edges) - 1):
        own = band == column
        starts, ends = np.sort(lower[own] - 0.5), np.sort(upper[own] + 0.5)
        inside = np.searchsorted(starts, middles, side="right") - np.searchsorted(ends, middles, side="right")
        covered[:, column] = inside / own.sum()
    colours = ListedColormap(["#ffffff", *_COVER_SHADES.values()])
    norm = BoundaryNorm(_COVER_LEVELS, 5)
    ax.pcolormesh(edges, rows, covered, cmap=colours, norm=norm, rasterized=True, linewidth=0)
    for level, colour in _COVER_SHADES.items():
        ax.fill_between([], [], color=colour, label=level)
    ax.plot([], [], color=INK, linewidth=1.3, label="expected rank")


def legend_above(ax: Axes, columns: int, title: str = "") -> None:
    """Put the legend in the row between subtitle and panel."""
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(-0.01, 1.0),
        ncol=columns,
        frameon=False,
        fontsize=7.5,
        handlelength=1.3,
        handletextpad=0.4,
        columnspacing=1.1,
        borderaxespad=0.1,
        title=title or None,
        title_fontsize=7.5,
    )


def draw_grades(ax: Axes, values: Floats, grade: NDArray[np.int64], schools: pd.Series, named: Sequence[int]) -> None:
    """Draw one row a grade, best on top: a histogram of values (ticks for few schools) and the named schools."""
    grades = np.arange(1, int(grade.max()) + 1)
    low, high = float(values.min()), float(values.max())
    pad = 0.03 * (high - low) or 1.0
    edges = np.linspace(low - 1e-9 - pad / 10, high + pad / 10, 61)
    few = len(values) <= MOST_SCHOOLS_DRAWN_SINGLY
    counts = [np.histogram(values[grade == g], edges)[0] for g in grades]
    tallest = max(1, max(int(count.max()) for count in counts))
    for g, count in zip(grades, counts, strict=True):
        own = values[grade == g]
        if few:
            ax.vlines(own, g + 0.15, g + 0.4, color=INK, linewidth=1.0)
        else:
            ax.bar(edges[:-1], -0.38 * count / tallest, np.diff(edges), g + 0.4, align="edge", color=MIDDLE, lw=0)
        ax.axhline(g + 0.4, color=PALE, linewidth=0.6, zorder=0)
        ax.text(
            1.01, g + 0.3, f"{len(own):,} ({100 * len(own) / len(values):.0f} %)", fontsize=8, va="bottom",
            transform=ax.get_yaxis_transform(),
        )  # fmt: skip
        _name_in_row(ax, values, [k for k in named if grade[k] == g], schools, g + 0.4, 4 * pad + high - low)
    ax.set_ylim(grades[-1] + 0.6, 0.55)
    ax.set_yticks(grades + 0.28, [str(g) for g in grades])
    ax.tick_params(axis="y", length=0)
    ax.set_xlim(low - 2 * pad, high + 2 * pad)
    ax.set_ylabel("Grade (1 = highest)")


def _name_in_row(ax: Axes, values: Floats, rows: Sequence[int], schools: pd.Series, foot: float, span: float) -> None:
    """Mark schools on the foot of a row and write their names above it, in two lanes where they are close."""
    ends = [-np.inf, -np.inf]  # where the last name of each lane ends
    for row in sorted(rows, key=lambda k: float(values[k])):
        name = str(schools.iloc[row])
        half = 0.5 * _CHARACTER_INCHES * (len(name) + 1) / (WIDTH_INCHES - 2.0) * span
        lane = 0 if values[row] - half >= ends[0] else int(np.argmin(ends))
        ends[lane] = values[row] + half
        top = foot - 0.42 - 0.2 * lane
        ax.plot([values[row]] * 2, [foot, top], color=ACCENT, linewidth=0.8)
        ax.plot([values[row]], [foot - 0.1], marker="D", markersize=4.2, color="white", markeredgecolor=ACCENT)
        ax.text(float(values[row]), top, name, ha="center", va="bottom", fontsize=7.5, color=ACCENT, bbox=ON_LINES)


def draw_pairs(figure: Figure, ax: Axes, chance: Floats, n: int) -> None:
    """Draw the chance that the school of a row is higher than that of a column, in five steps."""
    edges = np.linspace(0.5, n + 0.5, len(chance) + 1)
    colours = ListedColormap(list(TONES[::-1]))
    drawn = ax.pcolormesh(edges, edges, chance, cmap=colours, norm=BoundaryNorm(PAIR_LEVELS, 5), rasterized=True)
    ax.set_aspect("equal")
    ax.set_ylim(n + 0.5, 0.5)
    room = ax.get_position(original=True)
    wide, tall = figure.get_size_inches()
    side = room.height * tall / wide  # the panel is square, as high as its room
    ax.set_position((room.x0, room.y0, side, room.height))
    beside = figure.add_axes((room.x0 + side + 0.25 / wide, room.y0, 0.18 / wide, room.height))
    bar = figure.colorbar(drawn, cax=beside, spacing="uniform", ticks=PAIR_LEVELS)
    bar.ax.set_yticklabels([f"{100 * level:g} %" for level in PAIR_LEVELS], fontsize=8)
    bar.set_label("Chance that the school of the row is higher")
    bar.outline.set_linewidth(0.6)


def draw_shares(ax: Axes, chances: Floats, order: Floats, names: Sequence[str]) -> None:
    """Stack the mean chance of every group over columns of schools in order."""
    band = even_blocks(order, MOST_COLUMNS)
    count = np.bincount(band)
    edges = shown_steps(len(order))
    below = np.zeros(len(count))
    many = len(names) > MOST_NAMED_GROUPS
    for k, name in enumerate(names):
        share = np.bincount(band, weights=chances[:, k]) / count
        label = name if not many or k in (0, len(names) - 1) else None
        ax.bar(edges[:-1], share, np.diff(edges), below, align="edge", color=tone(k, len(names)), label=label, lw=0)
        below += share
        if many:
            ax.stairs(below, edges, baseline=None, color="white", linewidth=0.4)
    ax.set_ylim(0.0, 1.0)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    ax.set_ylabel("Chance of each group")


def draw_named_shares(ax: Axes, chances: Floats, names: Sequence[str]) -> None:
    """Draw one bar a named school, with the chances that fit written in."""
    groups = chances.shape[1]
    left = np.zeros(len(chances))
    rows = np.arange(len(chances))
    for k in range(groups):
        ax.barh(rows, chances[:, k], 0.62, left, color=tone(k, groups), edgecolor="white", lw=0.4)
        for row in rows[chances[:, k] >= 0.18]:
            ax.text(
                left[row] + 0.5 * chances[row, k], row, f"{100 * chances[row, k]:.0f}", fontsize=7.5, ha="center",
                va="center", color="white" if k < groups / 2 - 0.5 else INK,
            )  # fmt: skip
        left += chances[:, k]
    ax.set_yticks(rows, names)
    ax.set_ylim(len(chances) - 0.5, -0.5)
    ax.set_xlim(0.0, 1.0)
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))


def tone(k: int, groups: int) -> str:
    """Shade of group k of several, the darkest for the highest group."""
    return to_hex(_SHADING(k / max(groups - 1, 1)))


def draw_points(ax: Axes, x: Floats, value: Floats, outside: Sequence[NDArray[np.bool_]], names: Sequence[str]) -> None:
    """Draw values against x; `outside` says, from the innermost pair of curves, which lie beyond it."""
    looks: list[dict[str, Any]] = [
        {"marker": "o", "s": 9, "facecolors": "none", "edgecolors": MIDDLE},
        {"marker": "s", "s": 11, "color": ACCENT},
        {"marker": "^", "s": 22, "color": INK},
    ]
    level = np.sum(outside, axis=0) if len(outside) else np.zeros(len(x), dtype=int)
    for k, name in enumerate(["inside", *(f"outside {name}" for name in names)]):
        own = level == k
        ax.scatter(
            x[own], value[own], linewidths=0.6, rasterized=len(x) > MOST_VECTOR_MARKS, label=name,
            **looks[min(k, len(looks) - 1)],
        )  # fmt: skip


def draw_curves(ax: Axes, curves: pd.DataFrame, names: Sequence[str]) -> None:
    """Draw pairs of limit curves, the innermost dashed."""
    for name, line in zip(names, ["--", "-", ":", "-."], strict=False):
        for side in ("lower", "upper"):
            label = f"{curve_words(name)} limit" if side == "upper" else None
            ax.plot(
                curves["x"], curves[f"{side}_{name}"], color=INK, linewidth=0.9, label=label,
                linestyle=(0, (4, 2)) if line == "--" else line,
            )  # fmt: skip


def curve_words(name: str) -> str:
    """Name of a curve as it is written: ``95`` and ``99.8`` (or ``99_8``) are per cent, other names stay.

    Examples
    --------
    >>> curve_words("99_8"), curve_words("95"), curve_words("alarm")
    ('99.8 %', '95 %', 'alarm')
    """
    number = name.replace("_", ".")
    return f"{number} %" if number.replace(".", "", 1).isdigit() else name.replace("_", " ")


def draw_target(ax: Axes, target: float, name: str) -> None:
    """Draw the line that schools are held against."""
    ax.axhline(target, color=INK, linewidth=0.8, linestyle=":", label=name)
