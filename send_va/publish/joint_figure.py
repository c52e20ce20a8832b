"""Theta by the joint model against the cut, with their intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from send_va.publish.figure_data import require_columns
from send_va.publish.figure_style import INK, MIDDLE, PALE, styled, titled_figure

_COLUMNS = ("region", "mean_cut", "lower_cut", "upper_cut", "mean_joint", "lower_joint", "upper_joint")


@styled
def joint_figure(table: pd.DataFrame) -> Figure:
    """Draw theta of every school by both, one panel a region.

    Parameters
    ----------
    table : pandas.DataFrame
        Rows of `send_va.validation.joint_comparison.by_school` with a column ``region``.

    Returns
    -------
    matplotlib.figure.Figure
        On the diagonal both say the same. Lines are 95 % intervals: across those of the cut, upwards those of the joint
        model.

    Raises
    ------
    InputError
        A column is missing.

    Examples
    --------
    >>> row = {"region": "magnets", "mean_cut": 0.1, "lower_cut": -0.1, "upper_cut": 0.3,
    ...        "mean_joint": 0.1, "lower_joint": -0.1, "upper_joint": 0.3}
    >>> len(joint_figure(pd.DataFrame([row])).axes)
    1
    """
    require_columns(table, _COLUMNS, "the comparison of the joint model with the cut")
    regions = list(dict.fromkeys(table["region"].astype(str)))
    moved = float((table["mean_joint"] - table["mean_cut"]).abs().max())
    largest = np.ceil(100.0 * moved) / 100.0  # the title says at most
    figure, axes = titled_figure(
        f"No school's theta moves by more than {largest:.2f} pupil SDs when outcomes have a say in who has need",
        "Theta in pupil SDs: across by the cut (standardised), upwards by the joint model; lines are 95 % intervals.",
        "On the diagonal both say the same.",
        synthetic=True,
        panels=(1.0,) * len(regions),
        plot_height_inches=2.1,
    )
    bounds = table[["lower_cut", "upper_cut", "lower_joint", "upper_joint"]]
    low, high = float(bounds.min().min()) - 0.05, float(bounds.max().max()) + 0.05
    for ax, name in zip(axes, regions, strict=True):
        part = table[table["region"] == name]
        ax.plot([low, high], [low, high], color=MIDDLE, linewidth=0.8)
        ax.hlines(part["mean_joint"], part["lower_cut"], part["upper_cut"], color=PALE, linewidth=0.7)
        ax.vlines(part["mean_cut"], part["lower_joint"], part["upper_joint"], color=PALE, linewidth=0.7)
        ax.plot(part["mean_cut"], part["mean_joint"], linestyle="none", marker="o", markersize=2.4, color=INK)
        ax.set_xlim(low, high)
        ax.set_ylim(low, high)
        ax.set_xlabel(name.replace("_", " "))
    return figure
