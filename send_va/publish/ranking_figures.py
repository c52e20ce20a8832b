"""Figures of ranks, grades, pairs and groups, readable for sixty schools and for thousands; each takes plain tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import ArrayLike, NDArray

from send_va.errors import BrokenRule, Failure, InputError
from send_va.publish.figure_data import highlighted_rows
from send_va.publish.figure_panels import (
    MOST_SCHOOLS_DRAWN_SINGLY,
    draw_intervals,
    name_schools,
    percent,
    set_school_axis,
    ticks_from_one,
)
from send_va.publish.figure_style import INK, WIDTH_INCHES, axis_label, study_words, styled, titled_figure
from send_va.publish.ranking_panels import (
    MOST_COLUMNS,
    draw_cover,
    draw_grades,
    draw_named_shares,
    draw_pairs,
    draw_shares,
    legend_above,
)
from send_va.ranking.estimate_inputs import column_numbers
from send_va.ranking.pairwise_from_draws import even_blocks

Floats = NDArray[np.float64]
_ORDER_LABEL = "Schools, from the highest expected rank to the lowest"


@styled
def rank_interval_density(
    table: pd.DataFrame,
    *,
    highlight: Sequence[object] = (),
    coverage: float = 0.95,
    kind: str = "rank interval",
    synthetic: bool,
    title: str = "",
) -> Figure:
    """Draw rank intervals: one line a school for up to 150 schools, the density of intervals for more.

    Parameters
    ----------
    table : pandas.DataFrame
        school, expected_rank, lower, upper: places, 1 the highest; schools without a place have missing bounds.
    highlight : sequence
        Schools to name; empty names five spread evenly over the order.
    coverage : float
        Of the intervals, for the words.
    kind : str
        What the intervals are: ``"simultaneous rank set"``, say.
    synthetic : bool
        Stamp the figure.
    title : str
        The study, printed in the note.

    Returns
    -------
    matplotlib.figure.Figure
        The darker a place above a school, the more schools of this expected rank may hold it: where all is dark,
        positions say nothing.

    Raises
    ------
    InputError
        A column is missing, no school has a place, bounds are no places, or a highlighted school is not there.

    Examples
    --------
    >>> rows = pd.DataFrame({"school": ["a", "b"], "expected_rank": [1.2, 1.8], "lower": [1, 1], "upper": [2, 2]})
    >>> bool(rank_interval_density(rows, synthetic=True).axes[0].yaxis_inverted())
    True
    """
    rows, left_out = _rows(table, ["expected_rank", "lower", "upper"])
    rows = rows.sort_values(["expected_rank", "school"], kind="stable", ignore_index=True)
    expected, lower, upper = (rows[name].to_numpy(dtype=float) for name in ("expected_rank", "lower", "upper"))
    n = len(rows)
    _refuse("bounds are places", "lower", ~((lower >= 1) & (lower <= upper)), "Give lower at most upper, from 1.")
    width = float(np.mean(upper - lower + 1))
    many = n > MOST_SCHOOLS_DRAWN_SINGLY
    places = max(n, int(upper.max()))
    how = (
        f"Shading: share of schools of that expected rank whose {100 * coverage:g} % {kind} covers the place."
        if many
        else f"Each vertical line is a school's {100 * coverage:g} % {kind}, each point its expected rank."
    )
    figure, (ax,) = titled_figure(
        f"Positions: the average {kind} covers {width:,.0f} of {places:,} places",
        f"{how} 1 is the highest.",
        f"{study_words(title)}Schools that cannot be compared: {left_out:,}.",
        synthetic=synthetic,
        plot_height_inches=3.5,
        legend_row=many,
    )
    if many:
        draw_cover(ax, lower, upper)
        ax.plot(np.arange(1, n + 1), expected, color=INK, linewidth=1.3)
        legend_above(ax, 5)
    else:
        draw_intervals(ax, expected, lower, upper)
    set_school_axis(ax, n, _ORDER_LABEL)
    ax.set_ylim(1.09 * places + 0.5, 0.5 - 0.07 * places)
    ax.set_yticks(ticks_from_one(places))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.set_ylabel("Rank (1 = highest)")
    named = highlighted_rows(rows["school"], highlight)
    name_schools(ax, rows["school"], named, expected, lower, upper, above_in_first_half=False)
    return figure


@styled
def grade_strip(
    table: pd.DataFrame, *, unit: str, highlight: Sequence[object] = (), synthetic: bool, title: str = ""
) -> Figure:
    """Draw the schools of each grade along their estimates: how far grades overlap.

    Parameters
    ----------
    table : pandas.DataFrame
        school, value (estimate or posterior mean, in `unit`), grade (1 the best; missing where there is none).
    unit : str
        Unit of the values.
    highlight : sequence
        Schools to name; empty names five spread evenly over the values.
    synthetic : bool
        Stamp the figure.
    title : str
        The study, printed in the note.

    Returns
    -------
    matplotlib.figure.Figure
        Grades of neighbouring rows overlap where precision differs: a school is not put apart by its estimate alone.

    Raises
    ------
    InputError
        A column is missing, no school has a grade, a grade is not a whole number from 1, or a highlighted school is
        not there.

    Examples
    --------
    >>> rows = pd.DataFrame({"school": ["a", "b", "c"], "value": [2.0, 1.0, -1.0], "grade": [1, 1, 2]})
    >>> len(grade_strip(rows, unit="points", synthetic=True).axes)
    1
    """
    rows, left_out = _rows(table, ["value", "grade"])
    given = rows["grade"].to_numpy(dtype=float)
    _refuse("is a whole number from 1", "grade", ~((given >= 1) & (given == np.floor(given))), "1 is the best grade.")
    rows = rows.sort_values(["value", "school"], kind="stable", ignore_index=True)
    values, grade = rows["value"].to_numpy(dtype=float), rows["grade"].to_numpy(dtype=float).astype(np.int64)
    grades = int(grade.max())
    largest = int(np.bincount(grade).max())
    few = len(rows) <= MOST_SCHOOLS_DRAWN_SINGLY
    one = "one grade" if grades == 1 else f"{grades} grades"
    label = axis_label("Estimate", unit)
    figure, (ax,) = titled_figure(
        f"The records support {one}: {percent(largest, len(rows))} of {len(rows):,} schools share the most common one",
        f"One row a grade, {'one tick a school' if few else 'a histogram of schools'}, by estimate; right: schools.",
        f"{study_words(title)}Schools without a grade: {left_out:,}.",
        synthetic=synthetic,
        plot_height_inches=0.45 + 0.72 * grades,
        label_lines=label.count("\n") + 1,
    )
    room = ax.get_position()
    ax.set_position((room.x0, room.y0, room.width - 0.75 / WIDTH_INCHES, room.height))
    draw_grades(ax, values, grade, rows["school"], highlighted_rows(rows["school"], highlight))
    ax.set_xlabel(label)
    return figure


@styled
def pairwise_heatmap(
    chance: ArrayLike, *, schools: int | None = None, coverage: float = 0.95, synthetic: bool, title: str = ""
) -> Figure:
    """Draw the chance that one school is higher than another, for all pairs in order of expected rank.

    Parameters
    ----------
    chance : array, shape (m, m)
        ``[a, b]``: P(a > b), rows and columns from the highest expected rank to the lowest: single schools, or blocks
        of them as :func:`send_va.ranking.pairwise_from_draws.chance_above_by_block` gives. More than 120 rows are
        averaged in blocks.
    schools : int, optional
        How many schools the rows stand for; `m` otherwise.
    coverage : float
        The title counts pairs (of schools, or of blocks) with a chance beyond ``(1 + coverage) / 2`` either way.
    synthetic : bool
        Stamp the figure.
    title : str
        The study, printed in the note.

    Returns
    -------
    matplotlib.figure.Figure
        The broader the band of the middle tone, the fewer pairs can be put in order.

    Raises
    ------
    InputError
        Not a square table of chances with ``[a, b] + [b, a] = 1``.

    Examples
    --------
    >>> figure = pairwise_heatmap([[0.5, 0.9], [0.1, 0.5]], synthetic=True)
    >>> figure.axes[0].get_xlabel()
    'School of the column, by expected rank'
    """
    table = np.asarray(chance, dtype=np.float64)
    _check_pairs(table)
    m = len(table)
    n = schools or m
    upper = table[np.triu_indices(m, 1)] if m > 1 else np.array([0.5])
    apart = float(np.mean(np.maximum(upper, 1.0 - upper) >= (1.0 + coverage) / 2.0))
    band = even_blocks(np.arange(m, dtype=float), MOST_COLUMNS)
    size = np.bincount(band)
    drawn = np.zeros((len(size), len(size)))
    np.add.at(drawn, (band[:, None], band[None, :]), table)
    drawn /= np.outer(size, size)
    blocks = (
        "" if len(drawn) == n else f" Each cell is the mean over two blocks of about {n / len(drawn):,.0f} schools."
    )
    figure, (ax,) = titled_figure(
        f"Which school is higher: a chance beyond {50 * (1.0 + coverage):g} % for {100 * apart:.0f} % of pairs"
        + ("" if m == n else " of blocks"),
        "Chance that the school of the row is higher than that of the column. Middle tone: the order is open.",
        f"{study_words(title)}{n:,} schools.{blocks}",
        synthetic=synthetic,
        plot_height_inches=4.6,
    )
    draw_pairs(figure, ax, drawn, n)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks(ticks_from_one(n))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.set_xlabel("School of the column, by expected rank")
    ax.set_ylabel("School of the row, by expected rank")
    return figure


@styled
def group_probability_bars(
    table: pd.DataFrame,
    *,
    highlight: Sequence[object] = (),
    group: str = "fifth",
    certain: float = 0.8,
    synthetic: bool,
    title: str = "",
) -> Figure:
    """Draw the chance of each group (quintile) over schools in order, and for the named schools one by one.

    Parameters
    ----------
    table : pandas.DataFrame
        school, expected_rank, and p_group_1, p_group_2, ... (or p_quintile_1, ...), group 1 the highest.
    highlight : sequence
        Schools to name; empty names five spread evenly over the order.
    group : str
        What a group is called: ``"fifth"``, ``"tenth"``.
    certain : float
        The title counts schools that have one group with this chance or more.
    synthetic : bool
        Stamp the figure.
    title : str
        The study, printed in the note.

    Returns
    -------
    matplotlib.figure.Figure
        A school belongs to a group for certain where one tone fills the column.

    Raises
    ------
    InputError
        A column is missing, no school has chances, chances do not sum to one, or a highlighted school is not there.

    Examples
    --------
    >>> rows = pd.DataFrame({"school": ["a", "b"], "expected_rank": [1.2, 1.8], "p_group_1": [0.8, 0.2],
    ...     "p_group_2": [0.2, 0.8]})
    >>> len(group_probability_bars(rows, synthetic=True).axes)
    2
    """
    columns = [str(name) for name in table.columns if str(name).startswith(("p_group_", "p_quintile_"))]
    if len(columns) < 2:
        raise InputError("the table has no chances of groups", "Give columns p_group_1, p_group_2, ...")
    rows, left_out = _rows(table, ["expected_rank", *columns])
    rows = rows.sort_values(["expected_rank", "school"], kind="stable", ignore_index=True)
    chances = rows[columns].to_numpy(dtype=float)
    _refuse("sum to one", columns[0], np.abs(chances.sum(axis=1) - 1.0) > 1e-6, "Give every group's chance.")
    sure = int((chances.max(axis=1) >= certain).sum())
    figure, (left, right) = titled_figure(
        f"{percent(sure, len(rows))} of {len(rows):,} schools belong to one {group} with a chance of "
        f"{100 * certain:.0f} % or more",
        "Left: chances of all schools, by expected rank. Right: of single schools, in per cent.",
        f"{study_words(title)}Schools that cannot be compared: {left_out:,}."
        + ("" if len(rows) <= MOST_COLUMNS else f" Left: means of {len(rows) / MOST_COLUMNS:,.0f} neighbours."),
        synthetic=synthetic,
        panels=(1.5, 1.0),
        legend_row=True,
    )
    names = [_ordinal(k, len(columns), group) for k in range(len(columns))]
    draw_shares(left, chances, np.arange(len(rows), dtype=float), names)
    set_school_axis(left, len(rows), "Schools, by expected rank")
    left.set_xlim(0.5, len(rows) + 0.5)
    left.set_xticks([tick for tick in ticks_from_one(len(rows)) if tick < 0.86 * len(rows) or tick == len(rows)])
    legend_above(left, len(columns))
    named = highlighted_rows(rows["school"], highlight)
    draw_named_shares(right, chances[named], [str(rows["school"].iloc[row]) for row in named])
    right.set_xlabel("Chance of each group")
    return figure


def _check_pairs(table: Floats) -> None:
    if table.ndim != 2 or table.shape[0] != table.shape[1] or not table.size:
        raise InputError(f"chances of pairs have shape {table.shape}", "Give a square table.")
    whole = np.isfinite(table).all() and (table >= 0.0).all() and (table <= 1.0).all()
    if not whole or np.abs(table + table.T - 1.0).max() > 1e-6:
        raise InputError("chances of pairs do not sum to one", "Give [a, b] + [b, a] = 1, with .5 on the diagonal.")


def _rows(table: pd.DataFrame, columns: Sequence[str]) -> tuple[pd.DataFrame, int]:
    """Rows that have all the columns, and the number of those that lack any."""
    missing = [name for name in ("school", *columns) if name not in table]
    if missing:
        raise InputError(Failure("is missing", column=name, remedy="The figure needs it.") for name in missing)
    empty = "Leave it empty where a school has none."
    numbers = np.column_stack([column_numbers(table[name], name, empty) for name in columns])
    placed = np.isfinite(numbers).all(axis=1)
    if not placed.any():
        raise InputError(f"no school has {' and '.join(columns[:3])}", "Give at least one school with a position.")
    return table.loc[placed].reset_index(drop=True), int((~placed).sum())


def _refuse(rule: str, column: str, bad: NDArray[np.bool_], remedy: str) -> None:
    if bad.any():
        raise InputError(BrokenRule(rule=rule, column=column, count=int(bad.sum()), remedy=remedy))


def _ordinal(k: int, groups: int, group: str) -> str:
    if k == 0:
        return f"highest {group}"
    return f"lowest {group}" if k == groups - 1 else f"{k + 1}"
