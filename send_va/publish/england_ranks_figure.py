"""How surely schools in England belong to one quintile of a table, before and after context."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from send_va.publish.figure_data import require_columns
from send_va.publish.figure_style import INK, MIDDLE, PALE, styled, titled_figure

_COLUMNS = ("context", "expected_rank", "p_quintile")
_NAMES = {"none": "Progress 8 as published", "sen": "context held constant"}


@styled
def england_ranks_figure(table: pd.DataFrame, *, sure: float = 0.8) -> Figure:
    """Draw every school's chance of the quintile it most probably belongs to, one panel before and one after context.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a school and context (``none`` and ``sen`` are drawn): expected_rank (1 is highest) and p_quintile.
    sure : float
        Probability from which a school is said to belong to one quintile; drawn as a line.

    Returns
    -------
    matplotlib.figure.Figure
        Schools above the line can be put into one fifth of the table. Those where two fifths meet cannot.

    Raises
    ------
    InputError
        A column is missing.

    Examples
    --------
    >>> rows = pd.DataFrame({"context": ["none", "sen"], "expected_rank": [1.0, 2.0], "p_quintile": [0.9, 0.5]})
    >>> len(england_ranks_figure(rows).axes)
    2
    """
    require_columns(table, _COLUMNS, "the table of England's schools")
    parts = {name: table[table["context"] == name] for name in _NAMES}
    counts = {name: int((part["p_quintile"] >= sure).sum()) for name, part in parts.items()}
    schools = len(parts["none"])
    figure, axes = titled_figure(
        f"{counts['none']:,} of {schools:,} schools belong to one fifth of the table with probability {sure:g}, "
        f"{counts['sen']:,} once context is held constant",
        "Each dot is a mainstream school: along the table by its expected place (1 is highest), upwards its "
        "probability of the fifth that it most probably belongs to.",
        "England 2018/19, Progress 8 of all pupils. Context: test at entry, poverty, language and shares of pupils "
        "with SEN support and EHC plans. Intervals as published by DfE, effects shrunken with a level for local "
        "authorities. Contains public sector information licensed under the Open Government Licence v3.0.",
        synthetic=False,
        panels=(1.0, 1.0),
        plot_height_inches=2.5,
    )
    for ax, (name, part) in zip(axes, parts.items(), strict=True):
        ax.axhline(sure, color=MIDDLE, linewidth=0.8)
        for edge in range(1, 5):
            ax.axvline(edge * schools / 5, color=PALE, linewidth=0.6)
        above = part["p_quintile"] >= sure
        for rows, colour in ((part[~above], MIDDLE), (part[above], INK)):
            ax.plot(
                rows["expected_rank"], rows["p_quintile"], linestyle="none", marker=".", markersize=1.6, color=colour
            )
        ax.set_ylim(0.2, 1.01)
        ax.set_xlim(0, schools + 1)
        ax.set_xlabel(f"Expected place, {_NAMES[name]}")
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes[0].set_ylabel("Probability of the surest fifth")
    axes[1].set_yticklabels([])
    return figure
