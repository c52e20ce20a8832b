"""The figure of the identification lottery: how much of who is identified lies between schools and authorities."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from send_va.errors import BrokenRule, Failure, InputError
from send_va.publish.figure_data import require_columns
from send_va.publish.figure_style import INK, MIDDLE, styled, titled_figure

SHARE_COLUMNS = ("label", "level", "model", "share", "lower", "upper")
WITHIN = ("residual", "pupil")  # what is left between pupils of the same groups: written, not drawn
_LABEL_NAMES = {
    "support": "SEN support",
    "ehcp": "EHC plan",
    "entry": "Label at entry",
    "current": "Label now",
}
_LEVEL_NAMES = {"feeder": "Feeder\nschool", "school": "School", "la": "Local\nauthority"}
_GROUP_NAMES = {"feeder": "feeder schools", "school": "schools", "la": "local authorities"}
_MODEL_NAMES = {"null": "before adjustment (null model)", "full": "adjusted for intake (full model)"}
_MODEL_MARKS = {
    "null": {"marker": "o", "markerfacecolor": "white", "markersize": 4.4},
    "full": {"marker": "D", "markerfacecolor": INK, "markersize": 3.8},
}
_OFFSETS = {"null": -0.15, "full": 0.15}
_ROW_INCHES = 0.62


@styled
def identification_shares(
    table: pd.DataFrame, *, synthetic: bool, source: str = "", caution: str = "", title: str = ""
) -> Figure:
    r"""Draw the share of the variation in who is identified that lies at each level, with its interval.

    Parameters
    ----------
    table : pandas.DataFrame
        ``identification_variance.csv`` of a run, or `PublishedLottery.variance`: one row a label, level and model
        (and year): `share`, `lower`, `upper`, in [0, 1], of the variance on the latent scale. Labels become panels;
        levels and years become rows. The level `pupil` or `residual` is written below each panel's name, not drawn.
    synthetic : bool
        Stamp the figure.
    source : str
        Where the records come from and their licence, printed in the note.
    caution : str
        What the shares must not be called, printed in the note.
    title : str
        The study, printed in the note.

    Returns
    -------
    matplotlib.figure.Figure
        A mark far right says that where a pupil goes matters for being identified. Where the full model's mark lies
        left of the null model's, measured intake explains part of the difference; what is left is not all threshold.

    Raises
    ------
    InputError
        A column is missing, a label, level, model and year occur twice, or a share is not a number in [0, 1] inside
        its interval. (A bound may be missing: the mark is then drawn without a line.)

    References
    ----------
    Goldstein, H., Browne, W., & Rasbash, J. (2002). Partitioning variation in multilevel models. Understanding
    Statistics, 1(4), 223-231. https://doi.org/10.1207/S15328031US0104_02

    Examples
    --------
    >>> rows = pd.DataFrame({"label": "support", "level": ["school", "la", "residual"], "model": "null",
    ...     "share": [.08, .01, .91], "lower": [.07, .005, .90], "upper": [.09, .02, .92]})
    >>> figure = identification_shares(rows, synthetic=True)
    >>> [text.get_text() for text in figure.axes[0].get_yticklabels()]
    ['School', 'Local\nauthority']
    """
    rows = _checked(table)
    labels = list(rows["label"].unique())
    drawn = rows[~rows["level"].isin(WITHIN)]
    places = _places(drawn)
    finding, reading = _finding(rows)
    figure, axes = titled_figure(
        finding,
        f"Shares of all variation in who is identified (latent scale), with 95 % intervals. {reading}",
        _note(title, caution, source),
        synthetic=synthetic,
        panels=(1.0,) * len(labels),
        plot_height_inches=0.35 + _ROW_INCHES * len(places),
        legend_row=True,
    )
    right = 1.12 * max(drawn["share"].max(), drawn["upper"].max())
    for ax, label in zip(axes, labels, strict=True):
        _draw_panel(ax, drawn[drawn["label"] == label], places, right)
        _head_panel(ax, rows[rows["label"] == label], str(label))
    _name_rows(axes, places)
    handles, names = _all_marks(axes)
    figure.legend(
        handles,
        names,
        loc="upper left",
        bbox_to_anchor=(axes[0].get_position().x0, axes[0].get_position().y1 + 0.33 / figure.get_figheight()),
        ncol=2,
        frameon=False,
        fontsize=7.5,
        handletextpad=0.4,
        borderaxespad=0.0,
    )
    return figure


def _checked(table: pd.DataFrame) -> pd.DataFrame:
    require_columns(table, SHARE_COLUMNS, "the table of variance shares")
    rows = table.assign(
        year=table["year"].astype(str) if "year" in table else "",
        model=table["model"].fillna("null"),  # what pandas.read_csv makes of the word null
    ).reset_index(drop=True)
    keys = ["label", "year", "level", "model"]
    if len(rows) == 0 or rows["level"].isin(WITHIN).all():
        raise InputError("the table of variance shares has no level to draw", "It needs rows of level school.")
    for column, known in (("level", {*_LEVEL_NAMES, *WITHIN}), ("model", set(_MODEL_NAMES))):
        unknown = sorted(set(rows[column].astype(str)) - known)
        if unknown:
            remedy = f"Known: {', '.join(sorted(known))}."
            raise InputError(Failure("has an unknown name", column, len(unknown), values=tuple(unknown), remedy=remedy))
    twice = np.flatnonzero(rows.duplicated(keys, keep=False))
    if len(twice):
        rule = "label, year, level and model occur twice"
        raise InputError(Failure.of_rows(rule, "label", twice.tolist(), remedy="Draw one study at a time."))
    share, lower, upper = (pd.to_numeric(rows[name], errors="coerce") for name in ("share", "lower", "upper"))
    good = share.between(0, 1) & ~(lower < 0) & ~(lower > share) & ~(upper < share) & ~(upper > 1)
    bad = np.flatnonzero(~good)
    if len(bad):
        raise InputError(
            BrokenRule(
                rule="0 <= lower <= share <= upper <= 1, bounds that were not estimated left empty",
                column="share",
                count=len(bad),
                rows=tuple(int(row) + 1 for row in bad[:10]),
                values=tuple(str(value) for value in rows["share"].iloc[bad[:10]]),
                remedy="Shares are proportions, not percentages.",
            )
        )
    return rows.assign(share=share, lower=lower, upper=upper)


def _places(drawn: pd.DataFrame) -> list[tuple[str, str]]:
    """Rows of the picture from the top: level, then year."""
    years = sorted(drawn["year"].unique())
    present = set(drawn["level"])
    return [(level, year) for level in _LEVEL_NAMES if level in present for year in years]


def _finding(rows: pd.DataFrame) -> tuple[str, str]:
    """State the first label's shares in the last year under the fullest model, and which model that is."""
    last = rows[rows["year"] == rows["year"].max()]
    label, year = str(last["label"].iloc[0]), str(last["year"].iloc[0])
    model = "full" if (last["model"] == "full").any() else "null"
    chosen = last[(last["label"] == label) & (last["model"] == model)].set_index("level")
    first, *others = [level for level in _LEVEL_NAMES if level in chosen.index]
    told = [f"{_percent(chosen.loc[first, 'share'])} of the variation lies between {_GROUP_NAMES[first]}"]
    told += [f"{_percent(chosen.loc[level, 'share'])} between {_GROUP_NAMES[level]}" for level in others]
    named = _LABEL_NAMES.get(label, label) + (f" ({_year_name(year)})" if year else "")
    reading = f"Title: {_MODEL_NAMES[model]}. "
    if "median_odds_ratio" in chosen and first == "school":
        ratio = float(chosen.loc["school", "median_odds_ratio"])
        reading += f"The odds differ {ratio:.2f}-fold between two typical schools."
    return f"{named}: {', '.join(told)}", reading


def _draw_panel(ax: Axes, rows: pd.DataFrame, places: list[tuple[str, str]], right: float) -> None:
    place = {key: row for row, key in enumerate(places)}
    for model, part in rows.groupby("model", sort=False):
        name = str(model)
        at = np.array([place[key] for key in zip(part["level"], part["year"], strict=True)]) + _OFFSETS[name]
        ax.hlines(at, part["lower"], part["upper"], color=MIDDLE if name == "null" else INK, linewidth=1.4)
        ax.plot(
            part["share"],
            at,
            linestyle="none",
            markeredgecolor=INK,
            markeredgewidth=0.9,
            label=_MODEL_NAMES[name],
            **_MODEL_MARKS[name],  # type: ignore[arg-type]
        )
    ax.set_xlim(0, right)
    ax.set_ylim(len(places) - 0.45, -0.55)
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))
    ax.set_xlabel("Share of the variation")
    for row in range(1, len(places)):
        apart = places[row][0] != places[row - 1][0]
        ax.axhline(row - 0.5, color=MIDDLE, linewidth=0.6 if apart else 0.3, linestyle="-" if apart else ":")


def _head_panel(ax: Axes, rows: pd.DataFrame, label: str) -> None:
    """Name the label inside the panel, and say how much lies within the groups."""
    ax.text(
        0.985,
        0.985,
        _LABEL_NAMES.get(label, label),
        transform=ax.transAxes,
        ha="right",
        va="top",
        fontsize=8.5,
        fontweight="bold",
    )
    within = rows[rows["level"].isin(WITHIN)]
    if len(within):
        low, high = _percent(within["share"].min()), _percent(within["share"].max())
        told = low if low == high else f"{low.removesuffix(' %')} to {high}"
        ax.text(
            0.985,
            0.015,
            f"within: {told}",
            transform=ax.transAxes,
            ha="right",
            va="bottom",
            fontsize=7.5,
        )


def _name_rows(axes: list[Axes], places: list[tuple[str, str]]) -> None:
    names = [f"{_LEVEL_NAMES[level]}\n{_year_name(year)}".rstrip() for level, year in places]
    for number, ax in enumerate(axes):
        ax.set_yticks(range(len(places)), names if number == 0 else [])
        ax.tick_params(axis="y", length=0)


def _all_marks(axes: list[Axes]) -> tuple[list[Artist], list[str]]:
    """One legend entry a model, whichever panel draws it."""
    found: dict[str, Artist] = {
        name: handle for ax in axes for handle, name in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    named = [name for name in _MODEL_NAMES.values() if name in found]
    return [found[name] for name in named], named


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"


def _year_name(year: str) -> str:
    return year.replace("-", "/")


def _note(title: str, caution: str, source: str) -> str:
    parts = [
        title,
        "Within: between pupils of the same groups; its size is set by the scale of a yes-or-no label. An interval "
        "narrower than its mark is hidden by it",
        caution,
        source,
    ]
    return " ".join(f"{part.rstrip('.')}." for part in parts if part)
