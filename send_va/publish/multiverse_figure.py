"""The multiverse in pictures: the curve of one school, fifths of all schools, which choice matters, who moves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from send_va.errors import InputError
from send_va.publish.figure_data import highlighted_rows, require_columns
from send_va.publish.figure_panels import percent, set_school_axis, ticks_from_one
from send_va.publish.figure_style import MIDDLE, save_svg_png, study_words, styled, titled_figure
from send_va.publish.multiverse_panels import (
    ROW_INCHES,
    above_and_below,
    choice_words,
    draw_curve,
    draw_matrix,
    draw_moved,
    draw_single_changes,
    draw_term_bars,
    matrix_rows,
    value_words,
)
from send_va.publish.ranking_panels import (
    MOST_COLUMNS,
    draw_named_shares,
    draw_shares,
    legend_above,
    tone,
)
from send_va.ranking.table_places import FIFTHS
from send_va.sensitivity.multiverse import Multiverse
from send_va.sensitivity.school_places import SHARES
from send_va.sensitivity.specifications import CHOICES

_FIFTHS = ["highest fifth", "2", "3", "4", "lowest fifth"]
_PAIRS_SHOWN = 5
_DONE = "done"
_WORDS_INCHES = 1.55

_TITLES = {"prior": "prior that estimates are shrunken to", "send": "definition of SEND"}


@styled
def specification_curve(
    curve: pd.DataFrame, school: str, *, reference: int, synthetic: bool, title: str = ""
) -> Figure:
    """Draw the effect of one school under every specification, and below what was chosen for each.

    Parameters
    ----------
    curve : pandas.DataFrame
        Of :meth:`send_va.sensitivity.multiverse.Multiverse.curve`.
    school : str
    reference : int
        Number of the reference specification.
    synthetic : bool
    title : str
        The study, printed in the note.

    Returns
    -------
    matplotlib.figure.Figure
        Where the marks of a value crowd to one side, that value raises or lowers this school. Dots of several tones:
        the fifth depends on the specification.

    Raises
    ------
    InputError
        A column is missing.

    References
    ----------
    Simonsohn, Simmons & Nelson (2020), doi:10.1038/s41562-020-0912-z.

    Examples
    --------
    >>> rest = ["any", "full", 0, "entry", "model", 1]
    >>> rows = pd.DataFrame([["y", "cva", *rest], ["y", "prior", *rest]], columns=CHOICES)
    >>> rows = rows.assign(number=[1, 2], effect=[-0.1, 0.2], quintile=[4, 2], place=[0.7, 0.3])
    >>> len(specification_curve(rows, "7", reference=1, synthetic=True).axes)
    2
    """
    require_columns(curve, ("number", "effect", "quintile", *CHOICES), "the specification curve")
    curve = curve.sort_values(["effect", "number"], ignore_index=True)
    varied = [name for name in CHOICES if len(curve[name].unique()) > 1] or ["estimator"]
    rows = matrix_rows(curve, varied)
    below = ROW_INCHES * (rows[-1][2] + 1.2)
    fifth = curve["quintile"].to_numpy(dtype=int)
    often = int(np.bincount(fifth, minlength=FIFTHS + 1).argmax())
    effect = curve["effect"].to_numpy(dtype=float)
    figure, (whole,) = titled_figure(
        f"School {school}: from {effect.min():+.2f} to {effect.max():+.2f} pupil SDs, most often in fifth {often} "
        f"({percent(int((fifth == often).sum()), len(fifth))} of {len(fifth):,} specifications)",
        "Each dot is a specification, in the tone of the school's fifth under it; below it, what was chosen. "
        "Diamond: the reference.",
        f"{study_words(title)}Fifth 1 is the highest. The spread is that of choices, not of chance.",
        synthetic=synthetic,
        plot_height_inches=2.0 + below,
        legend_row=True,
    )
    _make_room(figure, whole)
    upper, lower = above_and_below(figure, whole, below)
    marked = np.flatnonzero(curve["number"].to_numpy() == reference)
    draw_curve(upper, effect, [tone(k - 1, FIFTHS) for k in fifth], int(marked[0]) if len(marked) else None)
    for k in sorted(set(fifth.tolist())):
        label = _FIFTHS[k - 1]
        upper.scatter([], [], s=14, color=tone(k - 1, FIFTHS), edgecolors=MIDDLE, linewidths=0.3, label=label)
    legend_above(upper, FIFTHS)
    draw_matrix(lower, curve, rows)
    return figure


def _make_room(figure: Figure, ax: Axes) -> None:
    """Leave room for names on both sides of a panel."""
    wide = figure.get_figwidth()
    room = ax.get_position(original=True)
    left = _WORDS_INCHES / wide
    ax.set_position((left, room.y0, 1.0 - left - 1.1 / wide, room.height))


@styled
def quintile_share_bands(
    schools: pd.DataFrame, *, highlight: Sequence[object] = (), synthetic: bool, title: str = ""
) -> Figure:
    """Draw the share of specifications in each fifth, over schools by their median place, and for named schools.

    Parameters
    ----------
    schools : pandas.DataFrame
        ``Multiverse.by_school``.
    highlight : sequence
        Schools to name; empty names five spread evenly over the order.
    synthetic : bool
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        A school's grade does not depend on the choice where one tone fills its column.

    Raises
    ------
    InputError
        A column is missing, no school is in a table, or a highlighted school is not there.

    Examples
    --------
    >>> shares = pd.DataFrame([[1.0, 0, 0, 0, 0], [0, 0, 0, 0.5, 0.5]], columns=list(SHARES))
    >>> rows = shares.assign(school=["a", "b"], median_place=[0.25, 0.75], depends=[False, True])
    >>> rows["reference_quintile"] = [1, 5]
    >>> len(quintile_share_bands(rows, synthetic=True).axes)
    2
    """
    require_columns(schools, ("school", "median_place", "depends", "reference_quintile", *SHARES), "by_school")
    rows = schools[schools["median_place"].notna()]
    if not len(rows):
        raise InputError("no school is in a table", "Lower minimum_cohort.")
    rows = rows.sort_values(["median_place", "school"], kind="stable", ignore_index=True)
    own = rows[rows["reference_quintile"].notna()]
    shares = rows[list(SHARES)].to_numpy(dtype=float)
    figure, (left, right) = titled_figure(
        f"For {percent(int(own['depends'].sum()), len(own))} of {len(own):,} schools the fifth depends on the choice",
        "Left: share of specifications in each fifth, schools by median place. Right: single schools, in per cent.",
        f"{study_words(title)}Title: schools of the reference table; left: all {len(rows):,} in any table."
        + ("" if len(rows) <= MOST_COLUMNS else f" Means of {len(rows) / MOST_COLUMNS:,.0f} neighbours."),
        synthetic=synthetic,
        panels=(1.5, 1.0),
        legend_row=True,
    )
    draw_shares(left, shares, np.arange(len(rows), dtype=float), _FIFTHS)
    left.set_ylabel("Share of specifications")
    set_school_axis(left, len(rows), "Schools, by median place")
    left.set_xlim(0.5, len(rows) + 0.5)
    left.set_xticks([tick for tick in ticks_from_one(len(rows)) if tick < 0.86 * len(rows) or tick == len(rows)])
    legend_above(left, FIFTHS)
    named = highlighted_rows(rows["school"], highlight)
    draw_named_shares(right, shares[named], [str(rows["school"].iloc[row]) for row in named])
    right.set_xlabel("Share of specifications")
    return figure


@styled
def choice_bars(choices: pd.DataFrame, *, synthetic: bool, title: str = "") -> Figure:
    """Draw how much of the variance over specifications each choice accounts for.

    Parameters
    ----------
    choices : pandas.DataFrame
        ``Multiverse.choices``.
    synthetic : bool
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        Longest bar first: the choice to settle, and to defend, before any other.

    Raises
    ------
    InputError
        A column is missing, or nothing was varied.

    Examples
    --------
    >>> rows = pd.DataFrame({"result": ["effect", "place"], "term": "estimator", "order": 1, "share": [0.8, 0.7],
    ...     "method": "exact", "n_schools": 9, "n_exact": 9, "n_specifications": 4})
    >>> len(choice_bars(rows, synthetic=True).axes)
    1
    """
    require_columns(choices, ("result", "term", "order", "share", "method", "n_schools", "n_exact"), "choices")
    wide = choices.pivot_table(index=["order", "term"], columns="result", values="share", sort=False).reset_index()
    main = wide[wide["order"] == 1].sort_values("place", ascending=False, kind="stable")
    if not len(main):
        raise InputError("nothing was varied", "Name two values of a choice or more.")
    pairs = wide[wide["order"] == 2].sort_values("place", ascending=False, kind="stable")
    shown = pd.concat([main, pairs.head(_PAIRS_SHOWN)])
    others = wide[~wide["term"].isin(shown["term"])][["effect", "place"]].sum()
    names = [choice_words(str(term)) for term in shown["term"]] + ["all other interactions"]
    effect, place = ([*shown[result].astype(float), float(others[result])] for result in ("effect", "place"))
    first, info = main.iloc[0], choices.iloc[0]
    figure, (ax,) = titled_figure(
        f"Most depends on the {_TITLES.get(str(first['term']), choice_words(str(first['term'])))}: "
        f"{100 * float(first['place']):.0f}\u00a0% of how a school's place varies over specifications",
        "Share of the variance over specifications within schools, by choice and for the largest interactions of two.",
        f"{study_words(title)}{int(info['n_specifications']):,} specifications, {int(info['n_schools']):,} schools; "
        f"exact for {int(info['n_exact']):,}, averaged over the order of choices for those missing from some tables.",
        synthetic=synthetic,
        plot_height_inches=0.3 + 0.34 * len(names),
        legend_row=True,
    )
    room = ax.get_position()
    left = 2.1 / figure.get_figwidth()
    ax.set_position((left, room.y0, room.x1 - left - 0.03, room.height))
    draw_term_bars(ax, names, effect, place)
    legend_above(ax, 2)
    ax.set_xlabel("Share of the variance")
    return figure


@styled
def moved_schools(specifications: pd.DataFrame, *, reference: int, synthetic: bool, title: str = "") -> Figure:
    """Draw which share of schools leaves its fifth, over specifications and for single changes.

    Parameters
    ----------
    specifications : pandas.DataFrame
        ``Multiverse.specifications``.
    reference : int
        Number of the reference specification.
    synthetic : bool
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        Left: all specifications. Right: those that change one choice of the reference and leave the rest.

    Raises
    ------
    InputError
        A column is missing, or there is no other specification.

    Examples
    --------
    >>> rest = ["any", "full", 0, "entry", "model", 1]
    >>> rows = pd.DataFrame([["y", "cva", *rest], ["y", "prior", *rest]], columns=CHOICES)
    >>> rows = rows.assign(number=[1, 2], status="done", same_quintile=[1.0, 0.8])
    >>> len(moved_schools(rows, reference=1, synthetic=True).axes)
    2
    """
    require_columns(specifications, ("number", "status", "same_quintile", *CHOICES), "specifications")
    known = (specifications["status"] == _DONE) & specifications["same_quintile"].notna()
    others = specifications[known & (specifications["number"] != reference)]
    if not len(others):
        raise InputError("there is no other specification to compare the reference with", "Name more values.")
    base = specifications.set_index("number").loc[reference, list(CHOICES)]
    moved = 1.0 - others["same_quintile"].to_numpy(dtype=float)
    changed = np.stack([others[name].to_numpy() != base[name] for name in CHOICES], axis=1)
    single = others[changed.sum(axis=1) == 1].assign(moved=moved[changed.sum(axis=1) == 1])
    varied = [name for name in CHOICES if len(specifications[name].unique()) > 1]
    names, values = [], []
    for name in varied:
        for row in single[single[name] != base[name]].sort_values("moved", ascending=False).itertuples():
            names.append(f"{choice_words(name)}: {value_words(name, getattr(row, name))}")
            values.append(float(row.moved))
    figure, (left, right) = titled_figure(
        f"The middle specification moves {100 * float(np.median(moved)):.0f}\u00a0% of schools into another fifth",
        "Schools in another fifth than under the reference. Left: all specifications. Right: one choice changed, "
        "the rest left.",
        f"{study_words(title)}Reference: "
        + ", ".join(f"{choice_words(name)} {value_words(name, base[name])}" for name in CHOICES if name in varied)
        + ".",
        synthetic=synthetic,
        panels=(1.0, 1.0),
        plot_height_inches=max(2.6, 0.4 + 0.19 * len(names)),
        legend_row=True,
    )
    draw_moved(left, moved)
    legend_above(left, 1)
    left.set_xlabel("Schools in another fifth")
    draw_single_changes(right, names, values)
    right.set_xlabel("Schools in another fifth")
    room, wide = right.get_position(), figure.get_figwidth()
    right.set_position((room.x0 + 1.2 / wide, room.y0, room.width - 1.2 / wide, room.height))
    return figure


def save_multiverse_figures(found: Multiverse, folder: Path, *, title: str, schools: Sequence[str] = ()) -> list[Path]:
    """Write the figures of a multiverse as SVG and PNG, with the curves of `schools` (by default of a typical one).

    Returns
    -------
    list of Path
        What was written. Nothing is drawn of a single specification.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if len(found.effects) < 2:
        return []
    drawn = {
        "multiverse_fifths": quintile_share_bands(found.by_school, synthetic=found.synthetic, title=title),
        "multiverse_choices": choice_bars(found.choices, synthetic=found.synthetic, title=title),
        "multiverse_moved": moved_schools(
            found.specifications, reference=found.reference, synthetic=found.synthetic, title=title
        ),
    }
    for school in schools or (found.typical_school,):
        drawn[f"specification_curve_{school}"] = specification_curve(
            found.curve(school), school, reference=found.reference, synthetic=found.synthetic, title=title
        )
    return [path for name, figure in drawn.items() for path in save_svg_png(figure, folder / name)]
