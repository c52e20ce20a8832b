"""The incentive audit at a glance: what every act gains schools under every measure, roll weighting beside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from send_va.errors import InputError
from send_va.publish.figure_data import require_columns
from send_va.publish.figure_style import ESTIMATOR_MARKS, INK, MIDDLE, PALE, styled, titled_figure
from send_va.sensitivity.audit_settings import FULL_TERMS, AuditSettings
from send_va.sensitivity.school_acts import ACTIONS

_COLUMNS = (
    *("estimator", "context", "measure", "action", "roll_weighted", "n_schools"),
    *("mean_gain_sd", "q05", "q25", "q75", "q95"),
)
_NAMES = {
    "label_more": "label more\npupils",
    "label_fewer": "label fewer\npupils",
    "remove_lowest": "take the lowest\nforecast off the roll",
    "admit_fewer_ehcp": "admit fewer\nwith an EHCP",
    "withdraw": "withdraw those\nbelow prediction",
}
_ROW_INCHES, _LEFT, _BETWEEN = 0.62, 0.2, 0.04


@styled
def incentives_figure(
    summary: pd.DataFrame, settings: AuditSettings, *, context: str, synthetic: bool, measure: str = "theta"
) -> Figure:
    """Draw the distribution of gains over schools by act and estimator.

    Parameters
    ----------
    summary : pandas.DataFrame
        Of :class:`send_va.sensitivity.incentives.IncentiveAudit`.
    settings : AuditSettings
        Those of the audit.
    context, measure : str
        Which rows to draw.
    synthetic : bool
        Stamp it.

    Returns
    -------
    matplotlib.figure.Figure
        Marks are mean gains (pupil SDs), thick lines hold the middle half of schools, thin ones 90 %. A measure passes
        where no mark reaches the dashed line. Left as the table stands, right with pupils weighted by their terms on
        the roll; acts of labelling know no such weighting.

    Raises
    ------
    InputError
        A column is missing, or there is no such row.

    Examples
    --------
    >>> row = {"estimator": "entry", "context": "cva", "measure": "theta", "action": "label_more",
    ...        "roll_weighted": False, "n_schools": 9, "mean_gain_sd": 0.0, "q05": 0.0, "q25": 0.0, "q75": 0.0,
    ...        "q95": 0.0}
    >>> len(incentives_figure(pd.DataFrame([row]), AuditSettings(), context="cva", synthetic=True).axes)
    2
    """
    require_columns(summary, _COLUMNS, "the summary of the incentive audit")
    rows = summary[(summary["context"] == context) & (summary["measure"] == measure) & (summary["n_schools"] > 0)]
    if not len(rows):
        raise InputError(
            f"the audit holds no gain in {measure} in context {context}",
            f"Contexts are {', '.join(summary['context'].unique())}.",
        )
    figure, axes = titled_figure(
        _finding(rows, settings, measure),
        "Gain of a school that acts alone, pupil SDs. Mark: mean over schools; thick line: middle half; thin: 90 %.",
        f"Acts on {100.0 * settings.share:g} % of a school's pupils; foresight {settings.foresight:g}. Dashed: the "
        f"tolerance of the mean, {settings.said_tolerance}. Right: pupils who leave count {settings.terms_kept:g} of "
        f"{FULL_TERMS} terms, those never admitted none. Context {context}.",
        synthetic=synthetic,
        panels=(1.0, 1.0),
        plot_height_inches=0.3 + _ROW_INCHES * len(ACTIONS),
        legend_row=True,
    )
    widest = float(rows[["q05", "q95"]].abs().to_numpy().max())
    reach = max(1.05 * widest, 1.2 * settings.used_tolerance)
    for k, (ax, name) in enumerate(zip(axes, ("As the table stands", "With roll weighting"), strict=True)):
        _draw(ax, rows[rows["roll_weighted"] == bool(k)])
        ax.axvline(0.0, color=PALE, linewidth=0.8, zorder=0)
        ax.axvline(settings.used_tolerance, color=INK, linewidth=0.8, linestyle=(0, (4, 2)), zorder=0)
        ax.set_ylim(len(ACTIONS) - 0.45, -0.55)
        ax.set_xlim(-reach, reach)
        ax.set_xticks(_ticks(reach))
        ax.set_xlabel(f"{name}: gain (pupil SDs)")
        ax.set_yticks([])
    axes[0].set_yticks(range(len(ACTIONS)), [_NAMES[action] for action in ACTIONS], fontsize=7.5)
    _place(figure, axes)
    return figure


def _finding(rows: pd.DataFrame, settings: AuditSettings, measure: str) -> str:
    """Under how many estimators an act gains the tolerance or more, by the same rule as the verdicts."""
    worst = rows[~rows["roll_weighted"]].groupby("estimator")["mean_gain_sd"].max()
    failing = int((worst >= settings.used_tolerance).sum())
    of_labels = rows[rows["action"].isin(["label_more", "label_fewer"])].groupby("estimator")["mean_gain_sd"].max()
    by_labels = [str(name) for name in of_labels.index[of_labels >= settings.used_tolerance]]
    if len(worst) == 1:
        pays = "pays" if by_labels else "does not pay"
        return f"Acts that help no pupil {'pay' if failing else 'do not pay'} in {measure}; labelling {pays}"
    whose = " and ".join(by_labels) or "none"
    return (
        f"Acts that help no pupil pay in {measure} under {failing} of {len(worst)} estimators, labelling under {whose}"
    )


def _ticks(reach: float) -> list[float]:
    return [float(value) for value in MaxNLocator(5).tick_values(-reach, reach) if abs(value) <= reach]


def _draw(ax: Axes, rows: pd.DataFrame) -> None:
    for k, (name, style) in enumerate(ESTIMATOR_MARKS.items()):
        part = rows[rows["estimator"] == name]
        if not len(part):
            continue
        at = np.array([ACTIONS.index(action) for action in part["action"]]) + 0.19 * (k - 1.5)
        thin, thick = ("q05", "q95"), ("q25", "q75")
        for (low, high), width in ((thin, 0.8), (thick, 2.4)):
            ax.hlines(at, part[low].to_numpy(), part[high].to_numpy(), color=MIDDLE, linewidth=width)
        drawn: dict[str, Any] = {"markersize": 4.0, "markeredgecolor": INK, "markeredgewidth": 0.8, **style}
        ax.plot(part["mean_gain_sd"].to_numpy(), at, linestyle="none", **drawn)


def _place(figure: Figure, axes: list[Axes]) -> None:
    """Make room for the names of acts, and put the legend above the panels."""
    first, last = axes[0].get_position(), axes[-1].get_position()
    width = (last.x1 - _LEFT - _BETWEEN) / 2.0
    for k, ax in enumerate(axes):
        ax.set_position((_LEFT + k * (width + _BETWEEN), first.y0, width, first.height))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="upper left",
        bbox_to_anchor=(_LEFT, first.y1 + 0.33 / figure.get_figheight()),
        ncol=4,
        frameon=False,
        fontsize=7.5,
        borderaxespad=0.0,
    )
