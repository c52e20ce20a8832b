"""What is drawn inside the panels of the multiverse figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from send_va.publish.figure_panels import MOST_VECTOR_MARKS
from send_va.publish.figure_style import ACCENT, INK, MIDDLE, PALE

ROW_INCHES = 0.17
_GAP = 0.25  # rows left free between choices
_WORDS = {
    "send": "SEND",
    "years": "years pooled",
    "minimum_cohort": "fewest with need",
    "outcome": "outcome",
    "prior": "shrunken to",
}


def choice_words(term: str) -> str:
    """A choice, or two of them, as a figure names them.

    Examples
    --------
    >>> choice_words("send x minimum_cohort"), choice_words("context")
    ('SEND x fewest with need', 'context')
    """
    return " x ".join(_WORDS.get(name, name) for name in term.split(" x "))


def value_words(choice: str, value: object) -> str:
    """One value of a choice as a figure names it.

    Examples
    --------
    >>> value_words("years", 0), value_words("adjustment", "no_prior_slope"), value_words("send", "ehcp")
    ('all', 'no prior slope', 'plans only')
    """
    if choice == "years" and value == 0:
        return "all"
    if choice == "send":
        return {"any": "support or plan", "ehcp": "plans only"}.get(str(value), str(value))
    if choice == "prior":
        return {"model": "model", "none": "nothing"}.get(str(value), str(value).replace("_", " "))
    return str(value).replace("_", " ")


def matrix_rows(specifications: pd.DataFrame, choices: Sequence[str]) -> list[tuple[str, object, float]]:
    """Choice, value and height of every row of a matrix of choices, from the top down; those of a choice together."""
    rows: list[tuple[str, object, float]] = []
    at = 0.0
    for choice in choices:
        values = list(dict.fromkeys(specifications.sort_values("number")[choice]))
        for value in values:
            rows.append((choice, value, at))
            at += 1.0
        at += _GAP
    return rows


def above_and_below(figure: Figure, whole: Axes, below_inches: float) -> tuple[Axes, Axes]:
    """Split one panel into a high one and, below it, one of `below_inches`, with the same horizontal axis."""
    room = whole.get_position()
    whole.remove()
    tall = figure.get_figheight()
    below = below_inches / tall
    upper = figure.add_axes((room.x0, room.y0 + below + 0.12 / tall, room.width, room.height - below - 0.12 / tall))
    return upper, figure.add_axes((room.x0, room.y0, room.width, below))


def draw_curve(ax: Axes, effect: NDArray[np.float64], colors: Sequence[str], reference: int | None) -> None:
    """Draw effects in order, one dot a specification, in the tone of the fifth; the reference as a diamond."""
    at = np.arange(1, len(effect) + 1)
    ax.axhline(0.0, color=MIDDLE, linewidth=0.8)
    many = len(effect) > MOST_VECTOR_MARKS
    ax.scatter(at, effect, s=7, c=list(colors), linewidths=0.3, edgecolors=MIDDLE, rasterized=many, zorder=2)
    if reference is not None:
        ax.plot(
            at[reference], effect[reference], "D", markersize=6, markerfacecolor="white", markeredgecolor=ACCENT,
            markeredgewidth=1.4, zorder=3,
        )  # fmt: skip
    ax.set_ylabel("Effect (pupil SDs)")
    ax.set_xlim(0.0, len(effect) + 1.0)
    ax.set_xticks([])


def draw_matrix(ax: Axes, curve: pd.DataFrame, rows: Sequence[tuple[str, object, float]]) -> None:
    """Mark, below every dot of a curve, which values were chosen."""
    foot = rows[-1][2] + 0.6
    height = 0.36
    for choice, value, at in rows:
        chosen = np.flatnonzero((curve[choice] == value).to_numpy()) + 1
        ax.axhspan(at - 0.46, at + 0.46, color="#f3f5f7", linewidth=0, zorder=0)
        ax.vlines(
            chosen, at - height, at + height, color=INK, linewidth=min(2.0, 300.0 / len(curve)),
            rasterized=len(curve) > MOST_VECTOR_MARKS,
        )  # fmt: skip
    ax.set_ylim(foot, -0.6)
    ax.set_xlim(0.0, len(curve) + 1.0)
    ax.set_yticks([at for *_, at in rows], [value_words(choice, value) for choice, value, _ in rows], fontsize=7)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    for choice in dict.fromkeys(choice for choice, _, _ in rows):
        own = [at for name, _, at in rows if name == choice]
        ax.text(
            1.01, float(np.mean(own)), choice_words(choice), transform=ax.get_yaxis_transform(), fontsize=7.5,
            va="center", color=INK,
        )  # fmt: skip
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.set_xlabel("Specifications, from the lowest effect to the highest")


def draw_term_bars(ax: Axes, names: Sequence[str], effect: Sequence[float], place: Sequence[float]) -> None:
    """Draw two bars a term: its share of the variance of effects, and of places."""
    rows = np.arange(len(names))
    for offset, values, color, label in ((-0.19, effect, INK, "effects"), (0.19, place, PALE, "places")):
        ax.barh(rows + offset, values, 0.36, color=color, edgecolor=INK, linewidth=0.5, label=label)
        for row, value in zip(rows, values, strict=True):
            text = f" {100 * value:.0f} %" if value >= 0.005 else " under 1 %"
            ax.text(value, row + offset, text, va="center", fontsize=6.5, color=INK)
    ax.set_yticks(rows, names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    percent_axis(ax)


def draw_moved(ax: Axes, moved: NDArray[np.float64]) -> None:
    """Draw how many specifications move which share of schools, and the median."""
    counts, edges = np.histogram(moved, bins=np.linspace(0.0, 1.0, 41))
    ax.stairs(counts, edges, fill=True, color=PALE)
    ax.stairs(counts, edges, color=INK, linewidth=0.6)
    ax.axvline(float(np.median(moved)), color=ACCENT, linewidth=1.4, linestyle=(0, (4, 2)), label="median")
    ax.set_xlim(0.0, min(1.0, 1.15 * max(float(moved.max()), 0.05)))
    ax.set_ylabel("Specifications")
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    percent_axis(ax)


def draw_single_changes(ax: Axes, names: Sequence[str], moved: Sequence[float]) -> None:
    """Draw one dot a change of a single choice."""
    rows = np.arange(len(names))
    ax.hlines(rows, 0.0, moved, color=PALE, linewidth=2.0)
    ax.plot(moved, rows, "o", color=INK, markersize=4)
    ax.set_yticks(rows, names, fontsize=7)
    ax.set_ylim(max(len(names), 1) - 0.5, -0.5)
    ax.set_xlim(0.0, min(1.0, 1.15 * max([*moved, 0.05])))
    ax.tick_params(axis="y", length=0)
    percent_axis(ax)


def percent_axis(ax: Axes) -> None:
    """Label the horizontal axis in per cent."""
    ax.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))  # labels fit a narrow panel
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
