"""A funnel of any statistic: values against a denominator or precision, with limit curves worked out elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import ArrayLike, NDArray

from send_va.errors import Failure, InputError
from send_va.publish.figure_style import study_words, styled, titled_figure
from send_va.publish.ranking_panels import curve_words, draw_curves, draw_points, draw_target, legend_above

Floats = NDArray[np.float64]


@styled
def funnel_plot(
    x: ArrayLike,
    value: ArrayLike,
    curves: pd.DataFrame,
    *,
    x_label: str,
    value_label: str,
    target: float | None = None,
    target_name: str = "target",
    outside: pd.DataFrame | None = None,
    synthetic: bool,
    title: str = "",
) -> Figure:
    """Draw values against a denominator or precision, with control limits.

    Parameters
    ----------
    x, value : array, shape (schools,)
        Missing ones are counted in the note.
    curves : pandas.DataFrame
        x, and pairs lower_NAME, upper_NAME, from the innermost pair: ``lower_95``, ``upper_95``, ``lower_99_8``, ...
    x_label, value_label : str
        With their units.
    target : float, optional
        Line schools are held against.
    target_name : str
    outside : pandas.DataFrame, optional
        Columns named as the pairs, boolean, one row a school: which lie outside, where limits are not a function of x
        alone. Worked out from the curves otherwise.
    synthetic : bool
        Stamp the figure.
    title : str
        The study, printed in the note.

    Returns
    -------
    matplotlib.figure.Figure
        By chance alone 5 % of schools fall outside 95 % limits; many more mean that schools differ.

    Raises
    ------
    InputError
        Lengths disagree, no school has both numbers, or the curves lack x or one of a pair.

    References
    ----------
    Spiegelhalter (2005), Funnel plots for comparing institutional performance, doi:10.1002/sim.1970.

    Examples
    --------
    >>> curves = pd.DataFrame({"x": [1.0, 9.0], "lower_95": [-2.0, -0.7], "upper_95": [2.0, 0.7]})
    >>> figure = funnel_plot([4, 9], [0.5, 3.0], curves, x_label="Pupils", value_label="Points", synthetic=True)
    >>> figure.texts[0].get_text()
    '1 of 2 schools lie outside the 95 % limits'
    """
    xs, values = np.asarray(x, dtype=np.float64), np.asarray(value, dtype=np.float64)
    if xs.shape != values.shape or xs.ndim != 1:
        raise InputError(f"x has shape {xs.shape} and value {values.shape}", "Give one of each a school.")
    kept = np.isfinite(xs) & np.isfinite(values)
    if not kept.any():
        raise InputError("no school has both numbers of the funnel", "Give finite x and value.")
    names = _curve_names(curves)
    beyond = [
        _beyond(xs[kept], values[kept], curves, name) if outside is None else outside[name].to_numpy(dtype=bool)[kept]
        for name in names
    ]
    n = int(kept.sum())
    counts = [f"{int(own.sum()):,} outside {curve_words(name)}" for name, own in zip(names, beyond, strict=True)]
    figure, (ax,) = titled_figure(
        f"{int(beyond[-1].sum()):,} of {n:,} schools lie outside the {curve_words(names[-1])} limits",
        f"Each mark is a school; {', '.join(counts)}.",
        f"{study_words(title)}Schools without both numbers: {len(xs) - n:,}.",
        synthetic=synthetic,
        legend_row=True,
        label_lines=x_label.count("\n") + 1,
    )
    draw_points(ax, xs[kept], values[kept], beyond, [curve_words(name) for name in names])
    draw_curves(ax, curves, names)
    if target is not None:
        draw_target(ax, target, target_name)
    _funnel_limits(ax, xs[kept], values[kept], curves, names)
    ax.set_xlabel(x_label)
    ax.set_ylabel(value_label)
    legend_above(ax, 2 * len(names) + 2)
    return figure


def _funnel_limits(ax: Axes, x: Floats, value: Floats, curves: pd.DataFrame, names: Sequence[str]) -> None:
    """Show every school, and as much of the curves as lies where half of the schools are."""
    wide = curves[curves["x"] >= np.median(x)]
    if wide.empty:
        wide = curves
    bounds = wide[[f"{side}_{names[-1]}" for side in ("lower", "upper")]].to_numpy(dtype=float)
    low, high = min(float(value.min()), float(bounds.min())), max(float(value.max()), float(bounds.max()))
    pad = 0.06 * (high - low) or 1.0
    ax.set_ylim(low - pad, high + pad)
    ax.set_xlim(0.0 if x.min() >= 0.0 else 1.03 * float(x.min()), 1.03 * float(x.max()))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda at, _: f"{at:,.10g}"))


def _beyond(x: Floats, value: Floats, curves: pd.DataFrame, name: str) -> NDArray[np.bool_]:
    ordered = curves.sort_values("x")
    at = ordered["x"].to_numpy(dtype=float)
    lower, upper = (np.interp(x, at, ordered[f"{side}_{name}"].to_numpy(dtype=float)) for side in ("lower", "upper"))
    beyond: NDArray[np.bool_] = (value < lower) | (value > upper)
    return beyond


def _curve_names(curves: pd.DataFrame) -> list[str]:
    names = [str(column).removeprefix("upper_") for column in curves.columns if str(column).startswith("upper_")]
    needed = ["x", *(f"lower_{name}" for name in names)] if names else ["x", "lower_95", "upper_95"]
    missing = [column for column in needed if column not in curves]
    if missing:
        raise InputError(
            Failure("is missing", column=column, remedy="Curves need x and pairs lower_NAME, upper_NAME.")
            for column in missing
        )
    return names
