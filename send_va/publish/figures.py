"""The figures of a run: school effects with intervals, rank intervals, funnel, and what context moves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from send_va.errors import InputError
from send_va.publish.figure_data import highlighted_rows, is_published, places, select_effects, select_rankings
from send_va.publish.figure_panels import (
    FUNNEL_Z,
    SHARE_OF_PLACES,
    draw_funnel,
    draw_intervals,
    draw_moves,
    draw_shift,
    mark_of_middle,
    name_average,
    name_schools,
    percent,
    set_school_axis,
    ticks_from_one,
)
from send_va.publish.figure_style import axis_label, save_svg_png, study_words, styled, titled_figure
from send_va.records.design_columns import shown_context

_MEASURE_NAMES = {
    "theta": "Value-added for pupils with SEND",
    "u": "Value-added for pupils without SEND",
    "gap": "Extra value-added for pupils with SEND",
}
_CONTEXT_NAMES = {
    "prior": "prior attainment",
    "cva": "prior attainment and pupil background",
    "composition": "prior attainment, pupil background and school intake",
}


@styled
def caterpillar(
    effects: pd.DataFrame,
    *,
    measure: str = "theta",
    estimator: str,
    context: str,
    unit: str,
    highlight: Sequence[object] = (),
    synthetic: bool,
    title: str = "",
) -> Figure:
    """Draw every school's effect with its interval, from the lowest to the highest.

    Parameters
    ----------
    effects : pandas.DataFrame
        ``school_effects.csv``; ``mean``, ``lower`` and ``upper`` are in `unit`.
    measure : {"theta", "u", "gap"}
        Which effect.
    estimator, context : str
        Which rows.
    unit : str
        Unit of the effects, e.g. ``"Attainment 8 points"``.
    highlight : sequence
        Schools to name; empty names five spread evenly over the order.
    synthetic : bool
        Stamp the figure.
    title : str
        The study, printed in the note.

    Returns
    -------
    matplotlib.figure.Figure
        Two schools whose intervals overlap widely should not be told apart by their order.

    Raises
    ------
    InputError
        A column is missing, nothing is selected, or a highlighted school is not there.

    References
    ----------
    Goldstein, H., & Spiegelhalter, D. J. (1996). League tables and their limitations. JRSS A, 159(3), 385-409.
    https://doi.org/10.2307/2983325

    Examples
    --------
    >>> rows = pd.DataFrame({"school": [1, 2], "estimator": "labelled", "context": "cva", "measure": "theta",
    ...     "mean": [-1., 1.], "lower": [-2., 0.], "upper": [0., 2.], "n_need": 9, "estimate": 0., "se": 1.})
    >>> figure = caterpillar(rows, estimator="labelled", context="cva", unit="points", synthetic=True)
    >>> len(figure.axes)
    1
    """
    rows = select_effects(effects, measure=measure, estimator=estimator, context=context)
    mean, lower, upper = (rows[column].to_numpy(dtype=float) for column in ("mean", "lower", "upper"))
    average = float(mean.mean())
    apart = int(((lower > average) | (upper < average)).sum())
    figure, (ax,) = titled_figure(
        f"{_MEASURE_NAMES.get(measure, measure)}: {percent(apart, len(rows))} of {len(rows):,} schools "
        "differ clearly from the average",
        f"Each vertical line is a school's 95 % interval, {mark_of_middle(len(rows))} the mean, lowest first. "
        f"Intervals that do not include the average: {apart:,}.",
        f"{_note(title, estimator, context)}{_not_compared(rows)}",
        synthetic=synthetic,
    )
    draw_intervals(ax, mean, lower, upper)
    set_school_axis(ax, len(rows), "Schools, from lowest to highest")
    span = float(upper.max() - lower.min()) or 1.0
    ax.set_ylim(lower.min() - 0.14 * span, upper.max() + 0.14 * span)
    ax.set_ylabel(axis_label(_short(measure), unit))
    name_average(ax, average, len(rows))
    named = highlighted_rows(rows["school"], highlight)
    name_schools(ax, rows["school"], named, mean, lower, upper, above_in_first_half=True)
    return figure


@styled
def rank_intervals(
    rankings: pd.DataFrame,
    *,
    estimator: str,
    context: str,
    highlight: Sequence[object] = (),
    synthetic: bool,
    title: str = "",
) -> Figure:
    """Draw every school's expected rank with its interval, rank 1 at the top.

    Parameters
    ----------
    rankings : pandas.DataFrame
        ``rankings.csv``; rank 1 is the highest theta.
    estimator, context : str
        Which rows.
    highlight : sequence
        Schools to name; empty names five spread evenly over the order.
    synthetic : bool
        Stamp the figure.
    title : str
        The study, printed in the note.

    Returns
    -------
    matplotlib.figure.Figure
        The longer the lines, the less a position says. Schools without a published position are counted, not drawn.

    Raises
    ------
    InputError
        A column is missing, nothing is selected or published, or a highlighted school is not there.

    Examples
    --------
    >>> rows = pd.DataFrame({"school": [1, 2], "estimator": "labelled", "context": "cva", "expected_rank": [1.2, 1.8],
    ...     "rank_lower": [1, 1], "rank_upper": [2, 2], "published": True})
    >>> figure = rank_intervals(rows, estimator="labelled", context="cva", synthetic=True)
    >>> bool(figure.axes[0].yaxis_inverted())
    True
    """
    rows = select_rankings(rankings, estimator=estimator, context=context)
    columns = ("expected_rank", "rank_lower", "rank_upper")
    expected, best, worst = (rows[column].to_numpy(dtype=float) for column in columns)
    n = len(rows) + int(rows.attrs["left_out"])
    width = float(np.mean(worst - best + 1))
    figure, (ax,) = titled_figure(
        f"Positions for SEND value-added: the average interval covers {width:,.0f} of {n:,} places",
        f"Each vertical line is a school's 95 % rank interval, {mark_of_middle(len(rows))} the expected rank; 1 is the "
        "highest.",
        f"{_note(title, estimator, context)} Schools without a published position: {rows.attrs['left_out']:,}.",
        synthetic=synthetic,
        plot_height_inches=3.5,
    )
    draw_intervals(ax, expected, best, worst)
    set_school_axis(ax, len(rows), "Schools, from the highest expected rank to the lowest")
    ax.set_ylim(1.09 * n + 0.5, 0.5 - 0.07 * n)
    ax.set_yticks(ticks_from_one(n))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.set_ylabel("Rank (1 = highest)")
    name_schools(
        ax,
        rows["school"],
        highlighted_rows(rows["school"], highlight),
        expected,
        best,
        worst,
        above_in_first_half=False,
    )
    return figure


@styled
def funnel(
    effects: pd.DataFrame,
    *,
    measure: str = "theta",
    estimator: str,
    context: str,
    unit: str,
    synthetic: bool,
    title: str = "",
) -> Figure:
    """Draw each school's unshrunken estimate against its number of pupils with need, with control limits.

    The limits are ``average +- z * c / sqrt(n_need)``, ``c`` the median over schools of ``se * sqrt(n_need)``;
    the average is weighted by precision.

    Parameters
    ----------
    effects : pandas.DataFrame
        ``school_effects.csv``; ``estimate`` and ``se`` are in `unit` and empty where not estimable.
    measure : {"theta", "u", "gap"}
        Which effect.
    estimator, context : str
        Which rows.
    unit : str
        Unit of the estimates.
    synthetic : bool
        Stamp the figure.
    title : str
        The study, printed in the note.

    Returns
    -------
    matplotlib.figure.Figure
        About 5 % of schools fall outside the inner limits by chance alone, 0.2 % outside the outer ones; more than
        that means that schools differ.

    Raises
    ------
    InputError
        A column is missing, nothing is selected, or no school has an estimate.

    References
    ----------
    Spiegelhalter, D. J. (2005). Funnel plots for comparing institutional performance. Statistics in Medicine, 24(8),
    1185-1202. https://doi.org/10.1002/sim.1970

    Examples
    --------
    >>> rows = pd.DataFrame({"school": [1, 2], "estimator": "labelled", "context": "cva", "measure": "theta",
    ...     "mean": 0., "lower": -1., "upper": 1., "n_need": [4, 9], "estimate": [3., None], "se": [2., None]})
    >>> figure = funnel(rows, estimator="labelled", context="cva", unit="points", synthetic=True)
    >>> "not estimable: 1" in " ".join(text.get_text() for text in figure.texts)
    True
    """
    rows = select_effects(effects, measure=measure, estimator=estimator, context=context)
    n_need, estimate, se = (
        pd.to_numeric(rows[column]).to_numpy(dtype=float, na_value=np.nan) for column in ("n_need", "estimate", "se")
    )
    estimable = np.isfinite(estimate) & (se > 0) & (n_need > 0)
    if not estimable.any():
        raise InputError(
            f"no school has an unshrunken estimate of {measure} with a standard error",
            remedy="A funnel needs the columns estimate and se; use the caterpillar figure instead.",
        )
    n_need, estimate, se = n_need[estimable], estimate[estimable], se[estimable]
    average = float(np.average(estimate, weights=se**-2.0))
    spread = float(np.median(se * np.sqrt(n_need)))
    distance = np.abs(estimate - average) * np.sqrt(n_need) / spread
    outside = {name: int((distance > z).sum()) for name, z in FUNNEL_Z.items()}
    figure, (ax,) = titled_figure(
        f"{_MEASURE_NAMES.get(measure, measure)}: {outside['99.8 %']:,} of {len(estimate):,} schools "
        "lie outside the 99.8 % limits",
        f"Estimates before shrinkage, by number of pupils with need. {outside['95 %']:,} schools lie outside the "
        f"95 % limits, where chance alone would put about {0.05 * len(estimate):,.0f}.",
        f"{_note(title, estimator, context)} Limits show sampling error only (median of se x square root of n). "
        f"Schools not estimable: {int((~estimable).sum()) + int(rows.attrs['not_compared']):,}.",
        synthetic=synthetic,
        legend_row=True,
    )
    draw_funnel(ax, n_need, estimate, distance, average, spread)
    ax.set_xlabel("Pupils with need in the school")
    ax.set_ylabel(axis_label("Estimate before shrinkage", unit))
    return figure


@styled
def context_shift(
    effects: pd.DataFrame,
    *,
    estimator: str = "labelled",
    contexts: tuple[str, str] = ("prior", "cva"),
    unit: str,
    synthetic: bool,
    title: str = "",
) -> Figure:
    """Draw theta under one context against theta under another, and how many places schools move.

    Parameters
    ----------
    effects : pandas.DataFrame
        ``school_effects.csv`` with both contexts.
    estimator : str
        Which rows.
    contexts : tuple of str
        From (horizontal axis) and to (vertical axis).
    unit : str
        Unit of theta.
    synthetic : bool
        Stamp the figure.
    title : str
        The study, printed in the note.

    Returns
    -------
    matplotlib.figure.Figure
        Schools above the line look better under the second context. Places are of the means, without uncertainty:
        read the share that moves beside the figure of rank intervals.

    Raises
    ------
    InputError
        A column is missing, or one of the contexts has no rows or shares no school with the other.

    Examples
    --------
    >>> rows = pd.DataFrame({"school": [1, 2, 1, 2], "estimator": "labelled", "measure": "theta",
    ...     "context": ["prior", "prior", "cva", "cva"], "mean": [0., 1., 1., 0.], "lower": -1., "upper": 2.,
    ...     "n_need": 9, "estimate": 0., "se": 1.})
    >>> len(context_shift(rows, unit="points", synthetic=True).axes)
    2
    """
    first, second = (
        select_effects(effects, measure="theta", estimator=estimator, context=context).set_index("school")["mean"]
        for context in contexts
    )
    both = pd.concat({"first": first, "second": second}, axis=1).dropna().sort_index()
    if both.empty:
        raise InputError(f"no school has theta under both {contexts[0]} and {contexts[1]}")
    before, after = both["first"].to_numpy(dtype=float), both["second"].to_numpy(dtype=float)
    moved = np.abs(places(after) - places(before))
    far = moved > SHARE_OF_PLACES * len(both)
    label = axis_label(f"Theta, {contexts[0]}", unit, 42)
    figure, (left, right) = titled_figure(
        f"What context moves: {percent(int(far.sum()), len(both))} of {len(both):,} schools move by more than "
        f"{100 * SHARE_OF_PLACES:.0f} % of places",
        f"Theta given {_CONTEXT_NAMES.get(contexts[0], contexts[0])}, against theta given "
        f"{_CONTEXT_NAMES.get(contexts[1], contexts[1])}. Median move: {np.median(moved):,.0f} places.",
        _note(title, estimator, " and ".join(contexts)),
        synthetic=synthetic,
        panels=(1.15, 1.0),
        plot_height_inches=2.9,
        label_lines=label.count("\n") + 1,
    )
    draw_shift(left, before, after, far)
    left.set_xlabel(label)
    left.set_ylabel(axis_label(f"Theta, {contexts[1]}", unit, 42))
    draw_moves(right, moved, len(both))
    return figure


def save_figures(
    effects: pd.DataFrame,
    rankings: pd.DataFrame,
    directory: Path,
    *,
    unit: str,
    synthetic: bool,
    title: str,
) -> list[Path]:
    """Draw the four figures of a run and write each as SVG and PNG.

    The first estimator of the table is drawn, under ``cva`` where it is there and under the last context otherwise;
    the context shift needs ``prior`` and ``cva``, the funnel an unshrunken estimate, and the rank intervals a school
    that is given a position: without them the figure is left out.

    Parameters
    ----------
    effects, rankings : pandas.DataFrame
        ``school_effects.csv`` and ``rankings.csv``.
    directory : pathlib.Path
        Made when it does not exist.
    unit : str
        Unit of the outcome.
    synthetic : bool
        Stamp every figure.
    title : str
        Title of the study.

    Returns
    -------
    list of pathlib.Path
        The files written, SVG before PNG.

    Raises
    ------
    InputError
        As the single figures.

    Examples
    --------
    >>> import tempfile
    >>> rows = pd.DataFrame({"school": [1, 2], "estimator": "labelled", "context": "cva", "measure": "theta",
    ...     "mean": [-1., 1.], "lower": [-2., 0.], "upper": [0., 2.], "n_need": 9, "estimate": [-2., 2.], "se": 1.})
    >>> ranks = pd.DataFrame({"school": [1, 2], "estimator": "labelled", "context": "cva", "expected_rank": [1.8, 1.2],
    ...     "rank_lower": 1, "rank_upper": 2, "published": True})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = save_figures(rows, ranks, Path(folder), unit="points", synthetic=True, title="Two schools")
    >>> [file.name for file in files if file.suffix == ".png"]
    ['caterpillar.png', 'rank_intervals.png', 'funnel.png']
    """
    estimator = str(effects["estimator"].iloc[0])
    contexts = [str(context) for context in effects.loc[effects["estimator"] == estimator, "context"].unique()]
    context = shown_context(contexts)
    drawn = {
        "caterpillar": caterpillar(
            effects, estimator=estimator, context=context, unit=unit, synthetic=synthetic, title=title
        ),
    }
    of_run = rankings[(rankings["estimator"] == estimator) & (rankings["context"] == context)]
    if is_published(of_run).any():
        drawn["rank_intervals"] = rank_intervals(
            rankings, estimator=estimator, context=context, synthetic=synthetic, title=title
        )
    chosen = select_effects(effects, measure="theta", estimator=estimator, context=context)
    if chosen[["estimate", "se"]].notna().all(axis=1).any():
        drawn["funnel"] = funnel(
            effects, estimator=estimator, context=context, unit=unit, synthetic=synthetic, title=title
        )
    if {"prior", "cva"} <= set(contexts):
        drawn["context_shift"] = context_shift(
            effects, estimator=estimator, unit=unit, synthetic=synthetic, title=title
        )
    directory.mkdir(parents=True, exist_ok=True)
    return [path for name, figure in drawn.items() for path in save_svg_png(figure, directory / name)]


def _short(measure: str) -> str:
    return {"theta": "Theta", "u": "u", "gap": "Gap"}.get(measure, measure)


def _note(title: str, estimator: str, context: str) -> str:
    return f"{study_words(title)}Estimator: {estimator}. Context: {context}."


def _not_compared(rows: pd.DataFrame) -> str:
    count = int(rows.attrs["not_compared"])
    return f" Schools that cannot be compared: {count:,}." if count else ""
