"""Draw the figures of docs/identification.md from synthetic cohorts with fixed seeds.

Run ``python scripts/draw_identification_figures.py [FOLDER]``; the folder is ``docs/figures`` unless given. Every
school and pupil drawn here is made up.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from identification_worlds import (
    FEWEST,
    World,
    entry_effects,
    error_slope,
    theta_errors,
    three_schools,
    well_crossed,
    world,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

import send_va as sv
from send_va.errors import BoundaryWarning
from send_va.identification import kernels
from send_va.identification.tables import WEAK_INTAKE
from send_va.publish.figure_panels import DASHED
from send_va.publish.figure_style import ACCENT, INK, MIDDLE, PALE, save_svg_png, styled, titled_figure
from send_va.records.reader import Cohort
from send_va.validation.recovery import ROLES
from send_va.value_added.assumption_ranges import assumption_ranges

Floats = NDArray[np.float64]
FOLDER = Path(__file__).resolve().parents[1] / "docs" / "figures"
GEOGRAPHY_NAMES = {
    "scattered": "scattered feeders",
    "five_feeders": "70 % from five feeders",
    "nearly_nested": "nearly nested",
}
MANY, SOME, DRAWS = 1000, 300, 100  # schools where slopes are shown, schools elsewhere, joint draws
LARGE = 3000  # pupils a school, where every cell of a table must be readable


@styled
def same_need_three_thresholds(of: World) -> Figure:
    """Who is labelled when the same pupils meet three thresholds."""
    need, national = of.made.pupil_truth["need"].to_numpy(), float(str(of.made.attrs["threshold"]))
    shift = of.made.scenario.leniency_school_sd
    figure, axes = _synthetic_figure(
        "The same pupils, three thresholds: whoever labels more, labels less needy pupils",
        "Need of all pupils before transfer. Dashed: the national threshold, above which a pupil counts as having "
        "need. Triangle: mean need of those labelled.",
        f"{len(need):,} pupils. A sparing or a lenient body differs from the average one by one standard deviation of "
        f"leniency ({shift:g} on the scale of need).",
        panels=3,
        height=2.3,
    )
    height, edges = np.histogram(need, bins=120, range=(-4.0, 5.0), density=True)
    middle = 0.5 * (edges[1:] + edges[:-1])
    for ax, (name, own) in zip(
        axes,
        (("Sparing", national + shift), ("Average", national), ("Lenient", national - shift)),
        strict=True,
    ):
        kinds: dict[str, tuple[Any, dict[str, Any]]] = {
            "need, labelled": (middle > max(own, national), {"facecolor": ACCENT}),
            "need, not labelled": ((middle > national) & (middle <= own), _hatched("////", "white", ACCENT)),
            "no need, labelled": ((middle > own) & (middle <= national), _hatched("....", PALE, MIDDLE)),
        }
        for label, (where, look) in kinds.items():
            ax.fill_between(middle, height, where=where, step="mid", label=label, **look)
        ax.step(middle, height, where="mid", color=INK, linewidth=0.8)
        ax.axvline(national, color=INK, linewidth=0.9, linestyle=DASHED)
        mean = float(need[need > own].mean())
        ax.plot(mean, -0.018, marker="^", color=INK, markersize=6)
        _name_panel(ax, f"{name}:\n{100 * (need > own).mean():.0f} % labelled")
        ax.text(national + 0.2, 0.31, f"mean need\nof labelled\n{mean:.1f}", fontsize=8, va="top")
        ax.set(xlim=(-3.2, 4.6), ylim=(-0.035, 0.48), yticks=[], xlabel="Need")
        ax.spines["left"].set_visible(False)
    _legend_above(figure, axes)
    return figure


def _hatched(hatch: str, face: str, edge: str) -> dict[str, Any]:
    return {"facecolor": face, "hatch": hatch, "edgecolor": edge, "linewidth": 0.0}


@styled
def errors_against(of: World, column: str, verdict: str, errors: pd.DataFrame, remark: str = "") -> Figure:
    """Errors of two estimators against what they must not depend on."""
    x = (of.truth[column] / of.truth[column].std()).to_numpy()
    limit, ends = 0.22, np.array([-2.8, 2.8])
    outside = int((errors.abs() > limit).any(axis=1).sum())
    figure, axes = _synthetic_figure(
        verdict,
        "Error of theta, estimate less truth. Pale dots: schools. Bars: mean of each tenth of schools with its 95 % "
        "interval. Line: least squares.",
        f"{len(x):,} schools; {outside} lie outside the panels. The slope is given true theta, leniency and intake "
        f"need; ± is two standard errors. {remark}".rstrip(),
        panels=2,
        height=2.7,
    )
    for ax, estimator in zip(axes, errors, strict=True):
        y = errors[estimator].to_numpy()
        slope, se = error_slope(of, y, column)
        ax.scatter(x, y, s=4, color=PALE, linewidths=0, rasterized=True)
        for part in np.array_split(np.argsort(x), 10):
            reach = 1.96 * y[part].std(ddof=1) / np.sqrt(len(part))
            ax.errorbar(x[part].mean(), y[part].mean(), reach, color=INK, marker="o", markersize=3.5, linewidth=1.2)
        ax.plot(ends, np.polyval(np.polyfit(x, y, 1), ends), color=ACCENT, linewidth=1.4)
        ax.axhline(0.0, color=INK, linewidth=0.8, linestyle=DASHED)
        ax.set(ylim=(-limit, limit), xlim=(-3, 3), xlabel=f"True {column.replace('_', ' ')} (SD over schools)")
        ax.set_title(f"{estimator}: {_signed(slope, 3)} ± {2 * se:.3f} per SD", fontsize=8.5)
    axes[0].set_ylabel("Error of theta (pupil SDs)")
    return figure


def _expected_shrinkage(of: World) -> str:
    reliability = float(of.need.schools["intake_need_reliability"].mean())
    bias = -abs(of.made.scenario.delta) * of.made.scenario.intake_need_sd * (1 - reliability)
    return f"Shrinkage alone: {_signed(bias, 3)} per SD for entry, at a mean reliability of {reliability:.2f}."


@styled
def crossed_labels(of: World) -> Figure:
    """Share labelled before transfer by feeder and school, with what the model makes of rows and columns."""
    pupils = of.made.pupils.assign(labelled=of.made.pupils["sen_status_entry"] != "N")
    cells = pupils.pivot_table(index="feeder", columns="school", values="labelled", aggfunc=["size", "mean"])
    feeders, schools = well_crossed(cells[["size"]].droplevel(0, axis=1))
    leniency = of.made.feeders.set_index("feeder")["leniency"].loc[feeders].sort_values()
    intake = of.made.truth.set_index("school")["intake_need"].loc[schools].sort_values()
    share = cells["mean"].where(cells["size"] >= FEWEST).loc[leniency.index, intake.index].to_numpy()
    figure, (ax,) = _synthetic_figure(
        "A lenient feeder shows at every school, a magnet shows with every feeder",
        "Share of pupils labelled before transfer. Along a row: same feeder, different schools. Down a column: same "
        "school, different feeders.",
        f"{len(intake)} of {len(of.truth)} schools and {len(leniency)} of their feeders, chosen for what they share, "
        f"with about {LARGE:,} pupils a school so that shares can be read. Blank: fewer than {FEWEST} pupils. "
        "est.: by the model. Background differs between cells too, so that rows and columns are not quite in order.",
        panels=1,
        height=3.2,
        label_lines=2,
    )
    darkest = 1.25 * float(np.nanmax(share))
    ax.imshow(share, cmap="Greys", vmin=0.0, vmax=darkest, aspect="auto")
    for row, column in np.argwhere(np.isfinite(share)):
        colour = "white" if share[row, column] > 0.55 * darkest else INK
        text = f"{100 * share[row, column]:.0f} %"
        ax.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    by_feeder = dict(zip(of.need.labels.feeders, of.need.parameters.feeder[:, 0], strict=True))
    by_school = of.need.schools.set_index("school")["intake_need"]
    rows = [f"{_signed(true)} (est. {_signed(by_feeder[str(name)])})" for name, true in leniency.items()]
    columns = [f"{_signed(true)}\n(est. {_signed(by_school[str(name)])})" for name, true in intake.items()]
    ax.set_yticks(range(len(rows)), rows)
    ax.set_xticks(range(len(columns)), columns)
    ax.tick_params(length=0)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.set(xlabel="Schools, by intake need", ylabel="Feeders, by leniency")
    box = ax.get_position()
    ax.set_position((box.x0 + 0.08, box.y0, box.width - 0.08, box.height))
    return figure


@styled
def intake_by_geography(worlds: Sequence[World]) -> Figure:
    """How well intake need is told apart, by how feeders and schools are crossed."""
    figure, axes = _synthetic_figure(
        "The fewer feeders schools share, the less is known of their intake need",
        "Estimated against true intake need, one dot a school. Dashed: where they agree. Estimates of low reliability "
        "are drawn towards zero.",
        f"{len(worlds[0].truth)} schools each. Open dots: reliability of intake need below {WEAK_INTAKE:g}, flagged in "
        "identification.csv.",
        panels=3,
        height=2.0,
    )
    ends = (-1.25, 1.25)
    for ax, of in zip(axes, worlds, strict=True):
        table = of.need.schools.set_index("school")
        true, weak = of.truth["intake_need"].loc[table.index], table["intake_need_reliability"] < WEAK_INTAKE
        ax.scatter(true[~weak], table["intake_need"][~weak], s=6, color=ACCENT, linewidths=0, alpha=0.7)
        ax.scatter(true[weak], table["intake_need"][weak], s=10, facecolors="white", edgecolors=INK, linewidths=0.6)
        ax.plot(ends, ends, color=INK, linewidth=0.9, linestyle=DASHED)
        ax.set(xlim=ends, ylim=ends, xlabel="True intake need")
        ax.set_title(GEOGRAPHY_NAMES[of.made.geography], fontsize=8.5)
        _name_panel(ax, f"reliability {table['intake_need_reliability'].mean():.2f}")
    axes[0].set_ylabel("Estimated intake need")
    return figure


@styled
def need_given_label() -> Figure:
    """What is said of labelled and unlabelled pupils as a function of the leniency of whoever labelled."""
    figure, axes = _synthetic_figure(
        "What a label says depends on who gave it",
        "Left: probability that need is above the national threshold. Right: expected unexplained need. By the "
        "leniency of feeder and authority; solid with a label, dashed without.",
        "Closed form, no simulated pupils: h is what background explains less the national threshold, −1.3 for an "
        "average pupil. Intake need of the school is zero here; it would be added to severity.",
        panels=2,
        height=2.6,
    )
    leniency = np.linspace(-1.5, 1.5, 301)
    for h, width, colour in ((-2.3, 0.9, MIDDLE), (-1.3, 1.6, INK), (-0.3, 1.2, ACCENT)):
        for labelled in (True, False):
            values = scores_at(h, leniency, labelled)
            for ax, curve in zip(axes, values, strict=True):
                ax.plot(leniency, curve, color=colour, linewidth=width, linestyle="-" if labelled else DASHED)
        for ax, curve in zip(axes, scores_at(h, leniency, True), strict=True):
            ax.text(1.52, curve[-1], f"h = {_signed(h)}", fontsize=7.5, color=colour, va="center")
    for ax, name in zip(axes, ("pi", "severity (SD of unexplained need)"), strict=True):
        ax.axvline(0.0, color=MIDDLE, linewidth=0.6, linestyle=":")
        ax.set_xlim(-1.5, 2.0)
        ax.set_xticks([-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5])
        ax.set_xlabel("sparing      Leniency      lenient")
        ax.set_ylabel(name)
    return figure


def scores_at(h: float, leniency: Floats, labelled: bool) -> tuple[Floats, Floats]:
    """`pi` and `severity` of pupils `h` from the national threshold, by the package's own code."""
    cut = -(h + leniency)
    low, high = (cut, np.full_like(cut, 1e9)) if labelled else (np.full_like(cut, -1e9), cut)
    return kernels.entry_scores(np.full_like(cut, -h), low, high, 1.0, np.zeros(1), np.zeros(1))


@styled
def theta_over_assumptions(of: World) -> Figure:
    """Theta of two schools over the ranges of what labels alone cannot tell."""
    ranges = {"area_sorting_share": (0.0, 0.5, 1.0), "label_reliability": (1.0, 0.9, 0.8)}
    table = assumption_ranges(of.need, of.design, {"cva": entry_effects(of, 1000)}, "entry", ranges, seed=1)
    spread = table.groupby("school")["mean"].agg(np.ptp).sort_values()
    width = float((table["upper"] - table["lower"]).mean())
    figure, axes = _synthetic_figure(
        "What labels cannot tell moves schools less than chance, but more pupils do not help",
        "theta of two schools, estimator entry, with 95 % intervals, at each value of an assumption. Crosses: truth.",
        f"{len(spread)} schools. Over both ranges theta moves by {spread.median():.1f} points at the median school and "
        f"by {spread.max():.1f} at most; an interval is {width:.1f} points wide on average. True values here: 0 and 1.",
        panels=2,
        height=2.4,
    )
    truth = of.truth["theta"] - of.truth["theta"].mean()
    chosen = (
        ("school that moves most", spread.index[-1], -0.08, INK, "o"),
        ("typical school", spread.index[len(spread) // 2], 0.08, MIDDLE, "s"),
    )
    for ax, (assumption, values) in zip(axes, ranges.items(), strict=True):
        for name, school, beside, colour, mark in chosen:
            rows = table[(table["school"] == school) & (table["assumption"] == assumption)].set_index("value")
            rows, at = rows.loc[list(values)], np.arange(len(values)) + beside
            ax.vlines(at, rows["lower"], rows["upper"], color=colour, linewidth=1.2)
            ax.plot(at, rows["mean"], label=name, marker=mark, markersize=4.5, color=colour, linewidth=1.2)
            ax.plot(2.4, truth[school], marker="x", color=colour, markersize=6, markeredgewidth=1.4)
        ax.axhline(0.0, color=INK, linewidth=0.8, linestyle=DASHED)
        ax.set_xticks(range(len(values)), [f"{value:g}" for value in values])
        ax.set(xlim=(-0.4, 2.7), xlabel=assumption)
    axes[0].set_ylabel("theta (outcome points)")
    _same_height(axes)
    _legend_above(figure, axes)
    return figure


@styled
def theta_without_entry_labels(of: World) -> Figure:
    """Theta of three schools over the whole range of the sorting share, when no label before transfer is recorded."""
    cohort = Cohort.from_pandas(of.made.pupils, replace(ROLES, sen_status_entry=None), synthetic=True)
    need = sv.fit_identification(cohort, seed=1, draws=0)
    tables = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        assumed = need.under(sorting_share=share)
        effects = sv.fit_value_added(cohort, assumed, estimator="standardised", seed=1, draws=2000)
        tables.append(effects.summary("theta").assign(share=share))
    found, truth = pd.concat(tables), of.truth
    figure, axes = _synthetic_figure(
        "Without labels before transfer, a lenient school and a magnet look alike",
        "theta of three schools, estimator standardised, with 95 % intervals, over the share of their labelling that "
        "is taken for need. Dotted: the truth.",
        "Estimated from the labels now alone; intervals are plug-in. No value of the share is an estimate: the whole "
        "range is the result.",
        panels=3,
        height=2.3,
        label_lines=2,
    )
    for ax, (name, school) in zip(axes, three_schools(truth).items(), strict=True):
        rows, own = found[found["school"] == school], truth.loc[school].to_dict()
        ax.fill_between(rows["share"], rows["lower"], rows["upper"], color=PALE, linewidth=0)
        ax.plot(rows["share"], rows["mean"], color=INK, marker="o", markersize=3.5, linewidth=1.4)
        ax.axhline(float(own["theta"]) - float(truth["theta"].mean()), color=ACCENT, linewidth=1.4, linestyle=":")
        signed = (_signed(float(own[column])) for column in ("leniency", "intake_need"))
        _name_panel(ax, "{}:\nleniency {}, intake need {}".format(name, *signed))
        ax.set_xticks([0.0, 0.5, 1.0])
        ax.set_xlabel("sorting_share\n(0: all leniency, 1: all need)")
    axes[0].set_ylabel("theta (outcome points)")
    _same_height(axes, 1.25)
    return figure


@styled
def plug_in_against_draws(worlds: Sequence[World]) -> Figure:
    """How much joint draws of the identification parameters add to the standard error of theta."""
    names = [GEOGRAPHY_NAMES[of.made.geography] for of in worlds]
    tables = [
        {
            plug_in: entry_effects(of, 2000, plug_in=plug_in).summary("theta").set_index("school")
            for plug_in in (True, False)
        }
        for of in worlds
    ]
    more = [100 * (table[False]["se"] / table[True]["se"] - 1) for table in tables]
    most = 25.0
    figure, axes = _synthetic_figure(
        f"Taking identification as known hides {more[0].mean():.0f} to {more[-1].mean():.0f} % of the standard error "
        "on average, and more at some schools",
        "What joint draws of the identification parameters add to the standard error of theta (estimator entry, before "
        "shrinkage), by the reliability of intake need. One dot a school.",
        f"{len(worlds[0].truth)} schools, {worlds[0].need.n_draws} joint draws; dots below zero are chance. Above the "
        f"panels: {sum(int((added > most).sum()) for added in more)} schools, the highest at "
        f"{max(added.max() for added in more):.0f} %.",
        panels=2,
        height=2.7,
    )
    for ax, name, of, added in zip(axes, names, worlds, more, strict=True):
        reliability = of.need.schools.set_index("school")["intake_need_reliability"].loc[added.index]
        ax.scatter(reliability, added, s=7, facecolors="none", edgecolors=ACCENT, linewidths=0.6)
        ax.axhline(0.0, color=INK, linewidth=0.9, linestyle=DASHED)
        ax.set_title(f"{name}: {added.mean():.0f} % on average", fontsize=8.5)
        ax.set(xlim=(0.45, 0.95), ylim=(-5, most), xlabel="Reliability of intake need")
    axes[0].set_ylabel("Added to the standard error (%)")
    return figure


def _synthetic_figure(
    title: str, subtitle: str, note: str, *, panels: int, height: float, label_lines: int = 1
) -> tuple[Figure, list[Axes]]:
    return titled_figure(
        title,
        subtitle,
        note,
        synthetic=True,
        panels=(1.0,) * panels,
        plot_height_inches=height,
        legend_row=True,
        label_lines=label_lines,
    )


def _signed(value: float, digits: int = 1) -> str:
    rounded = round(value, digits)
    return f"{rounded:+.{digits}f}".replace("-", "−") if rounded else f"{0:.{digits}f}"


def _name_panel(ax: Axes, name: str) -> None:
    ax.text(0.03, 0.98, name, transform=ax.transAxes, va="top", fontsize=7.5)


def _same_height(axes: Sequence[Axes], stretch: float = 1.0) -> None:
    low, high = min(ax.get_ylim()[0] for ax in axes), max(ax.get_ylim()[1] for ax in axes)
    for ax in axes:
        ax.set_ylim(low, low + stretch * (high - low))


def _legend_above(figure: Figure, axes: Sequence[Axes]) -> None:
    handles, names = axes[0].get_legend_handles_labels()
    corner = (axes[0].get_position().x0, axes[0].get_position().y1 + 0.36 / figure.get_figheight())
    figure.legend(handles, names, loc="upper left", bbox_to_anchor=corner, ncol=3, frameon=False, fontsize=8)


def main(folder: Path) -> None:
    """Draw and save every figure of the page."""
    warnings.simplefilter("ignore", BoundaryWarning)
    many = world(1, MANY)
    errors = theta_errors(many)
    scattered, five, nested = (world(2, SOME, name, draws=DRAWS) for name in GEOGRAPHY_NAMES)
    figures = {
        "thresholds": same_need_three_thresholds(many),
        "leniency": errors_against(many, "leniency", "Taken as recorded, labels reward leniency", errors),
        "magnets": errors_against(
            many, "intake_need", "Taken as recorded, labels penalise magnets", errors, _expected_shrinkage(many)
        ),
        "crossed": crossed_labels(world(3, 12, pupils_per_school=LARGE)),
        "reliability": intake_by_geography([scattered, five, nested]),
        "scores": need_given_label(),
        "ranges": theta_over_assumptions(scattered),
        "sorting_share": theta_without_entry_labels(scattered),
        "draws": plug_in_against_draws([scattered, nested]),
    }
    for name, figure in figures.items():
        svg, _ = save_svg_png(figure, folder / f"identification_{name}")
        svg.unlink()  # the page shows the PNG
        print(f"identification_{name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
