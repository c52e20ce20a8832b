"""How many schools would be in another quintile, by the size of each departure from what is assumed."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from send_va.errors import InputError
from send_va.publish.figure_data import require_columns
from send_va.publish.figure_style import ACCENT, INK, MIDDLE, PALE, styled, titled_figure

_COLUMNS = ("estimator", "context", "departure", "benchmark", "size", "share_changed")
_PANELS = {
    "leniency": ("Labellers more lenient", "SDs of leniency"),
    "need": ("Unobserved need", "SDs of need"),
    "definition": ("Threshold of need", "0 support, 1 EHCP"),
    "sorting": ("Unmeasured sorting", "times a benchmark's"),
}
_DASHES = ("solid", (0, (4, 2)), (0, (1, 1.5)), (0, (4, 1.5, 1, 1.5)))
_BENCHMARKS = 3
_AT = {"leniency": 1.0, "need": 0.25}


@styled
def tipping_figure(table: pd.DataFrame, *, synthetic: bool, title: str = "") -> Figure:
    """Draw the share of schools whose quintile changes against the size of each departure, one panel a departure.

    Parameters
    ----------
    table : pandas.DataFrame
        ``Robustness.shares`` of one context, of one or more estimators.
    synthetic : bool
    title : str
        Said in the note.

    Returns
    -------
    matplotlib.figure.Figure
        A line that stays low: quintiles survive departures of that size. Of the threshold of need all schools move at
        once; of the others each alone.

    Raises
    ------
    InputError
        A column is missing, no known departure, or rows of several contexts.

    Examples
    --------
    >>> table = pd.DataFrame({"estimator": "entry", "context": "cva", "departure": "need", "benchmark": "",
    ...     "size": [-0.5, 0.0, 0.5], "share_changed": [0.4, 0.0, 0.5]})
    >>> len(tipping_figure(table, synthetic=True).axes)
    1
    """
    require_columns(table, _COLUMNS, "tipping.csv")
    there = [name for name in _PANELS if (table["departure"] == name).any()]
    contexts = table["context"].unique().tolist()
    if not there or len(contexts) != 1:
        raise InputError(
            "there is no departure to draw, or rows of several contexts", "Give tipping.csv of one context."
        )
    estimators = list(dict.fromkeys(table["estimator"]))
    notes = [title] if title else []
    notes += [f"Context {contexts[0]}", "Each school moves alone, but the threshold of need moves for all"]
    figure, axes = titled_figure(
        _said(table, there),
        "Share of schools that would be in another quintile, by the size of a departure from what is assumed.",
        ". ".join(notes) + ".",
        synthetic=synthetic,
        panels=(1.0,) * len(there),
        plot_height_inches=2.5,
        legend_row=True,
    )
    top = max(0.1, float(table["share_changed"].max()) * 1.25)  # room for the legends
    for ax, name in zip(axes, there, strict=True):
        _draw(ax, table[table["departure"] == name], name, estimators)
        ax.set_ylim(0.0, top)
        ax.set_yticks([tick for tick in ax.get_yticks() if 0.0 <= tick <= min(top, 1.0)])
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        ax.set_title(_PANELS[name][0], fontsize=8.5, loc="left", color=INK)
        ax.set_xlabel(_PANELS[name][1])
    for ax in axes[1:]:
        ax.tick_params(labelleft=False)
    axes[0].set_ylabel("Schools in another quintile")
    return figure


def _said(table: pd.DataFrame, there: list[str]) -> str:
    first = table[table["estimator"] == table["estimator"].iloc[0]]
    for name, size in _AT.items():
        part = first[(first["departure"] == name) & np.isclose(first["size"].abs(), size)]
        if name in there and len(part):
            share = 100.0 * float(part["share_changed"].max())
            words = {
                "leniency": f"if those who label were {size:g} SD more or less lenient",
                "need": f"by {size:g} SD of unobserved need",
            }[name]
            return f"Up to {share:.0f} % of schools would change quintile {words} ({first['estimator'].iloc[0]})"
    return "Schools that would be in another quintile if what is assumed were otherwise"


def _draw(ax: Axes, part: pd.DataFrame, name: str, estimators: list[str]) -> None:
    ax.axvline(0.0, color=PALE, linewidth=0.8)
    colors = dict(zip(estimators, (INK, ACCENT, MIDDLE), strict=False))
    series = part.groupby(["estimator", "benchmark"], sort=False)["share_changed"].max()
    if name == "sorting":
        part = part[part["estimator"] == estimators[0]]
        series = series.loc[[estimators[0]]].nlargest(_BENCHMARKS)
    for k, (estimator, benchmark) in enumerate(series.index):
        line = part[(part["estimator"] == estimator) & (part["benchmark"] == benchmark)].sort_values("size")
        size, share = line["size"].to_numpy(dtype=np.float64), line["share_changed"].to_numpy(dtype=np.float64)
        if name == "sorting":
            size, share = np.concatenate([[0.0], size]), np.concatenate([[0.0], share])
        ax.plot(
            size,
            share,
            color=colors.get(estimator, MIDDLE),
            linewidth=1.3,
            linestyle=_DASHES[k % len(_DASHES)],
            marker="o" if name in ("definition", "sorting") else None,
            markersize=3,
            label=benchmark or estimator,
        )
    ax.legend(loc="upper left", frameon=False, fontsize=6.5, handlelength=2.2, borderaxespad=0.1)
