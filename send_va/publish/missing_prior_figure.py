"""Who has no prior attainment, and whether the table of schools depends on what they are taken to have had."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from send_va.errors import InputError
from send_va.publish.figure_data import require_columns
from send_va.publish.figure_style import ACCENT, INK, MIDDLE, PALE, styled, titled_figure
from send_va.sensitivity.incomplete_records import COMPLETE

_OF_PATTERNS = ("pattern", "n_pupils", "share", "send_share", "mean_outcome")
_OF_DELTAS = ("estimator", "delta", "n_schools", "changed", "changed_from_mar")
_MARKS = ("o", "s", "D")
_SHOWN = 6
_NAME_CHARACTERS = 20


@styled
def missing_prior_figure(
    patterns: pd.DataFrame, by_delta: pd.DataFrame, *, tolerance: float, synthetic: bool, title: str = ""
) -> Figure:
    """Draw which values are missing, and the share of schools whose quintile changes with the shift.

    Parameters
    ----------
    patterns, by_delta : pandas.DataFrame
        As of :class:`send_va.sensitivity.missing_prior.MissingPrior`.
    tolerance : float
        Share of schools above which a shift is said to tip the table; drawn as a line.
    synthetic : bool
    title : str
        Said in the note.

    Returns
    -------
    matplotlib.figure.Figure
        Left: share of records with each pattern, the commonest; the words say the share with SEND and the mean outcome.
        Right: share of schools in another fifth of the table, against complete records (hollow) and against plain
        imputation (filled), by the shift. Filled marks below the line: what is not known of these pupils does not
        decide the table.

    Raises
    ------
    InputError
        A column is missing, or nothing is.

    Examples
    --------
    >>> patterns = pd.DataFrame({"pattern": ["complete", "prior"], "n_pupils": [970, 30], "share": [0.97, 0.03],
    ...     "send_share": [0.15, 0.3], "mean_outcome": [0.01, -0.4]})
    >>> steps = pd.DataFrame({"estimator": "labelled", "delta": [0.0, 0.5], "n_schools": 40, "changed": [0.05, 0.1],
    ...     "changed_from_mar": [0.0, 0.08]})
    >>> len(missing_prior_figure(patterns, steps, tolerance=0.05, synthetic=True).axes)
    2
    """
    require_columns(patterns, _OF_PATTERNS, "the patterns of missing values")
    require_columns(by_delta, _OF_DELTAS, "the table by shift")
    bars = patterns[(patterns["pattern"] != COMPLETE) & patterns["share"].notna()].head(_SHOWN)
    if not len(bars):
        raise InputError("no pattern of missing values can be shown", "Give patterns of MissingPrior.")
    figure, axes = titled_figure(
        _finding(by_delta),
        "Left: records by what is missing. Right: schools in another fifth of the table by theta when imputed prior "
        "scores are moved by so many SDs: filled against no shift, hollow against complete records.",
        ". ".join(
            filter(None, [title, f"Dotted: tolerance of {100.0 * tolerance:g} % of schools", _left_out(patterns)])
        )
        + ".",
        synthetic=synthetic,
        panels=(1.0, 1.15),
        plot_height_inches=2.9,
        legend_row=True,
    )
    _draw_patterns(axes[0], bars)
    _draw_shifts(axes[1], by_delta, tolerance)
    return figure


def _finding(by_delta: pd.DataFrame) -> str:
    """The most that any of the estimators shows, so that none hides behind another."""
    unmoved = by_delta.loc[by_delta["delta"].abs() == by_delta["delta"].abs().min(), "changed"].max()
    moved, schools = by_delta["changed_from_mar"].max(), int(by_delta["n_schools"].max())
    return (
        f"Up to {100.0 * unmoved:.0f} % of {schools:,} schools change fifth when missing prior scores are imputed, "
        f"and up to {100.0 * moved:.0f} % again if those are moved"
    )


def _left_out(patterns: pd.DataFrame) -> str:
    hidden = len(patterns[(patterns["pattern"] != COMPLETE) & patterns["share"].notna()]) - _SHOWN
    return f"{hidden} rarer patterns are not drawn" if hidden > 0 else ""


def _draw_patterns(ax: Axes, bars: pd.DataFrame) -> None:
    at = np.arange(len(bars), dtype=np.float64)[::-1]
    share = 100.0 * bars["share"].to_numpy(dtype=np.float64)
    ax.barh(at, share, color=PALE, edgecolor=INK, linewidth=0.6, height=0.5)
    words = zip(bars["n_pupils"], bars["send_share"], bars["mean_outcome"], strict=True)
    for y, (n, send, outcome) in zip(at, words, strict=True):
        said = [f"{int(n):,} pupils"]
        if np.isfinite(send):
            said.append(f"{100.0 * send:.0f} % SEND")
        if np.isfinite(outcome):
            said.append(f"outcome {outcome:+.2f} SD".replace("-", "\N{MINUS SIGN}"))
        ax.text(0.01 * share.max(), y + 0.31, ", ".join(said), fontsize=6.8, color=INK, va="bottom")
    names = ["\n".join(textwrap.wrap(str(name), _NAME_CHARACTERS)) for name in bars["pattern"]]
    ax.set_yticks(at, names, fontsize=7.0)
    ax.set_ylim(-0.6, len(bars) - 0.25)
    ax.set_xlim(0.0, 1.08 * float(share.max()))
    ax.set_xlabel("Share of records (%)")


def _draw_shifts(ax: Axes, by_delta: pd.DataFrame, tolerance: float) -> None:
    ax.axhline(100.0 * tolerance, color=MIDDLE, linewidth=0.9, linestyle=(0, (1, 2)))
    colors = (ACCENT, INK, MIDDLE)
    for k, (name, part) in enumerate(by_delta.groupby("estimator", sort=False)):
        ordered = part.sort_values("delta")
        delta = ordered["delta"].to_numpy(dtype=np.float64)
        of = {column: 100.0 * ordered[column].to_numpy(dtype=np.float64) for column in ("changed", "changed_from_mar")}
        mark, color = _MARKS[k % len(_MARKS)], colors[k % len(colors)]
        look: dict[str, Any] = {"color": color, "marker": mark, "markersize": 4.5, "linewidth": 1.0}
        ax.plot(delta, of["changed_from_mar"], label=str(name), **look)
        ax.plot(delta, of["changed"], linestyle=(0, (3, 2)), markerfacecolor="white", **look)
    ax.set_ylim(0.0, max(1.15 * ax.get_ylim()[1], 200.0 * tolerance))
    ax.set_xlabel("Shift of imputed prior scores (SDs)")
    ax.set_ylabel("Schools in another fifth (%)")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncol=3, frameon=False, fontsize=7.5, borderaxespad=0.1)
