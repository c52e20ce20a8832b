"""Do chains agree, and does the model make schools like these: pictures of a posterior's diagnostics."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import binom, rankdata

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

_BINS = 20
_NAME_INCHES = 0.16
_ROW_INCHES = 0.24
_SHADES = (ACCENT, INK, MIDDLE, "#8a5a2b", "#3f7f5f", "#7a3f7a")
_CHECK_COLUMNS = ("check", "group", "observed", "replicated", "lower", "upper", "reading")


@styled
def chain_ranks(draws: Mapping[str, NDArray[np.floating]], title: str, *, synthetic: bool) -> Figure:
    """Draw how the ranks of every chain's draws are spread, one small panel a parameter.

    Parameters
    ----------
    draws : mapping of str to array, shape (chains, draws)
    title : str
        Whose chains.
    synthetic : bool

    Returns
    -------
    matplotlib.figure.Figure
        Lines that stay level and near one another: chains explore the same posterior. A chain that rises to one side
        sits elsewhere. The area holds 95 % of the bars of one chain of independent draws.

    Raises
    ------
    InputError
        There is nothing to draw, or one chain only.

    References
    ----------
    Vehtari et al. (2021), doi:10.1214/20-BA1221.

    Examples
    --------
    >>> len(chain_ranks({"sd": np.random.default_rng(1).normal(size=(4, 100))}, "A toy", synthetic=True).axes)
    1
    """
    if not draws or min(len(values) for values in draws.values()) < 2:
        raise InputError("ranks need draws of two chains or more")
    figure, axes = titled_figure(
        f"Chains of {title}",
        "Share of each chain's draws by rank among all draws. Level lines: the chains agree.",
        f"Area: 95 % of bars if draws were independent and chains the same. {_BINS} bars a chain.",
        synthetic=synthetic,
        plot_height_inches=small_panels_height(len(draws), _NAME_INCHES),
    )
    for k, (ax, (name, values)) in enumerate(
        zip(small_panels(figure, axes[0], len(draws), _NAME_INCHES), draws.items(), strict=True)
    ):
        chains, each = values.shape
        ranks = (rankdata(values).reshape(values.shape) - 0.5) / values.size
        low, high = binom.ppf([0.025, 0.975], each, 1.0 / _BINS) * _BINS / each
        ax.axhspan(low, high, color=PALE, linewidth=0)
        for chain in range(chains):
            bars = np.histogram(ranks[chain], bins=_BINS, range=(0.0, 1.0))[0] * _BINS / each
            ax.step(np.linspace(0, 1, _BINS + 1), np.append(bars, bars[-1]), where="post", lw=0.8,
                    color=_SHADES[chain % len(_SHADES)])  # fmt: skip
        ax.set_title(name, fontsize=8, loc="left", pad=3)
        ax.set_xlim(0.0, 1.0)
        ax.set_ylim(0.0, max(2.0, 1.15 * high))
        ax.set_xticks([0.0, 0.5, 1.0], ["0", "0.5", "1"] if k + PANELS_ACROSS >= len(draws) else [])
    return figure


@styled
def predictive_figure(checks: pd.DataFrame, title: str, *, unit: str, synthetic: bool) -> Figure:
    """Draw what schools are like beside what the model makes of them, one row a check.

    Parameters
    ----------
    checks : DataFrame
        As :func:`send_va.value_added.bayes_checks.predictive_checks` makes it, of one estimator and context.
    title : str
    unit : str
        Of the outcome.
    synthetic : bool

    Returns
    -------
    matplotlib.figure.Figure
        Each row on its own scale: intervals of replicates as lines, the observed value as a mark. A mark off the line:
        the model does not make schools like these in that respect.

    Raises
    ------
    InputError
        A column is missing, or there are no rows.
    """
    require_columns(checks, _CHECK_COLUMNS, "predictive checks")
    if checks.empty:
        raise InputError("there are no predictive checks to draw")
    off = int((checks["reading"] != "as the model makes").sum())
    figure, axes = titled_figure(
        f"{title}: {len(checks) - off} of {len(checks)} checks as the model makes them",
        "Marks: these schools. Lines: 95 % of what the model makes, each row on a scale of its own.",
        f"Filled mark: off. Numbers: observed and replicated, in {unit} (shares for the floor).",
        synthetic=synthetic,
        plot_height_inches=0.2 + _ROW_INCHES * len(checks),
    )
    ax, (left, bottom, width, height) = axes[0], axes[0].get_position().bounds
    ax.set_position((left + 0.42 * width, bottom, 0.36 * width, height))
    numbers = checks[["observed", "replicated", "lower", "upper"]].to_numpy(dtype=float)
    words = checks[["check", "group", "reading"]].astype(str).to_numpy()
    for row, ((observed, replicated, lower, upper), (check, group, reading)) in enumerate(
        zip(numbers, words, strict=True)
    ):
        at = len(checks) - 1 - row
        half, middle = max((upper - lower) / 2.0, 1e-12), (upper + lower) / 2.0
        place = float(np.clip((observed - middle) / half, -2.6, 2.6))
        good = reading == "as the model makes"
        ax.plot([-1.0, 1.0], [at, at], color=MIDDLE, lw=1.4, solid_capstyle="butt")
        ax.plot([place], [at], "o", ms=5, mfc="white" if good else INK, mec=INK, mew=1.0)
        ax.text(-3.0, at, f"{check},\n{group}", ha="right", va="center", fontsize=6.6, linespacing=1.05)
        ax.text(3.0, at, f"{observed:.3g} | {replicated:.3g}", ha="left", va="center", fontsize=7.5)
    ax.set_xlim(-2.8, 2.8)
    ax.set_ylim(-0.6, len(checks) - 0.4)
    ax.set_yticks([])
    ax.set_xticks([-1, 0, 1], ["2.5 %", "", "97.5 %"])
    ax.spines["left"].set_visible(False)
    return figure
