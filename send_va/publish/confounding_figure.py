"""How an unmeasured confounder of any strength would change a coefficient."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from send_va.errors import InputError
from send_va.publish.figure_data import require_columns
from send_va.publish.figure_style import ACCENT, INK, MIDDLE, styled, titled_figure
from send_va.sensitivity.unmeasured import adjusted_estimate

_OF_COEFFICIENT = ("treatment", "estimate", "se", "dof", "robustness")
_COLUMNS = (*_OF_COEFFICIENT, "benchmark", "label", "r2_dz", "r2_yz")
_POINTS, _LEVELS = 200, 8
_LEAST, _MOST = 0.05, 0.9  # of either share that the axes show
_NAMED = 6


@styled
def confounding_figure(
    table: pd.DataFrame, *, unit: str, synthetic: bool, treatment_name: str = "", title: str = ""
) -> Figure:
    """Draw contours of the adjusted coefficient over the strength of a confounder, with benchmarks.

    Parameters
    ----------
    table : pandas.DataFrame
        ``CoefficientSensitivity.table``.
    unit : str
        Of the coefficient.
    synthetic : bool
    treatment_name : str
        What to call the treatment; as in the table by default.
    title : str
        Said in the note.

    Returns
    -------
    matplotlib.figure.Figure
        Across: share of what is left of the treatment that a confounder explains; up: of the outcome. On the thick line
        the coefficient would be zero. Diamonds: confounders as strong as observed covariates. A diamond short of the
        thick line: nothing as strong as that covariate brings the coefficient to zero.

    Raises
    ------
    InputError
        A column is missing, or rows of more than one coefficient.

    Examples
    --------
    >>> table = pd.DataFrame({"treatment": "d", "estimate": 0.1, "se": 0.02, "dof": 700.0, "robustness": 0.15,
    ...     "benchmark": ["", "x"], "label": ["unadjusted", "1x x"], "r2_dz": [0.0, 0.02], "r2_yz": [0.0, 0.1],
    ...     "adjusted_estimate": [0.1, 0.08]})
    >>> len(confounding_figure(table, unit="points", synthetic=True).axes)
    1
    """
    require_columns(table, _COLUMNS, "the bounds")
    if not len(table) or len(table[["treatment", "estimate", "se", "dof"]].drop_duplicates()) != 1:
        raise InputError("the bounds are of no coefficient, or of more than one", "Draw one coefficient at a time.")
    first = table.iloc[0]
    name = treatment_name or str(first["treatment"])
    shown = table[(table["r2_dz"] <= _MOST) & (table["r2_yz"] <= _MOST)]
    beyond = table.loc[~table.index.isin(shown.index), "label"].astype(str).tolist()
    notes = [title] if title else []
    notes.append("Shares of what covariates leave")
    if beyond:
        notes.append(f"Beyond {100 * _MOST:.0f} % and not drawn: {', '.join(beyond)}")
    figure, axes = titled_figure(
        f"A confounder must explain {100 * float(first['robustness']):.1f} % of both {name} and outcome to bring "
        f"{float(first['estimate']):.3g} to zero",
        f"Contours: coefficient of {name} ({unit}) if an unmeasured confounder were this strong; thick: zero. "
        "Diamonds: confounders as strong as observed covariates, or so many times as strong.",
        ". ".join(notes) + ".",
        synthetic=synthetic,
        plot_height_inches=3.8,
    )
    _draw(axes[0], shown, first)
    axes[0].set_xlabel(f"Share of {name} that it explains")
    axes[0].set_ylabel("Share of the outcome that it explains")
    return figure


def _draw(ax: Axes, shown: pd.DataFrame, first: pd.Series) -> None:
    estimate, se, dof = (float(first[key]) for key in ("estimate", "se", "dof"))
    reach = max(_LEAST, 1.35 * float(first["robustness"]))
    wide, tall = (min(_MOST, max(reach, 1.25 * float(shown[key].max()))) for key in ("r2_dz", "r2_yz"))
    across, up = np.meshgrid(np.linspace(0.0, wide, _POINTS), np.linspace(0.0, tall, _POINTS))
    moved = np.asarray(adjusted_estimate(estimate, se, dof, across, up))
    levels = [level for level in MaxNLocator(_LEVELS).tick_values(moved.min(), moved.max()) if level != 0.0]
    lines = ax.contour(across, up, moved, levels=levels, colors=MIDDLE, linewidths=0.7, linestyles="solid")
    ax.clabel(lines, fontsize=7, fmt="%.3g", colors=INK)
    if moved.min() < 0.0 < moved.max():
        ax.contour(across, up, moved, levels=[0.0], colors=INK, linewidths=2.0, linestyles="solid")
    points = shown[shown["benchmark"] != ""]
    ax.plot(0.0, 0.0, "o", color=INK, markersize=5, clip_on=False)
    ax.plot(points["r2_dz"], points["r2_yz"], "D", color=ACCENT, markersize=4.5, clip_on=False)
    far = points.assign(away=points["r2_dz"] / wide + points["r2_yz"] / tall).nlargest(_NAMED, "away")
    for x, y, label in zip(far["r2_dz"], far["r2_yz"], far["label"], strict=True):
        right = float(x) > 0.7 * wide
        ax.annotate(
            str(label),
            (float(x), float(y)),
            xytext=(-6 if right else 6, 4),
            textcoords="offset points",
            ha="right" if right else "left",
            fontsize=7.5,
            color=ACCENT,
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
        )
    ax.set_xlim(0.0, wide)
    ax.set_ylim(0.0, tall)
