"""Figures: what they say agrees with a direct count, nothing overlaps, grey print works, same input same bytes."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from synthetic_tables import run_tables

from send_va.errors import InputError
from send_va.publish import figures
from send_va.publish.figure_data import highlighted_rows, places
from send_va.publish.figure_style import ACCENT, INK, MIDDLE, PALE, SYNTHETIC_STAMP, save_svg_png

SIZES = (3, 60, 3400)
LABELLED_CVA = {"estimator": "labelled", "context": "cva"}
POINTS = {"unit": "Attainment 8 points", "synthetic": True}


@pytest.fixture(scope="module")
def tables():
    return {n: run_tables(n) for n in SIZES}


def draw(name, tables, unit="Attainment 8 points", **changes):
    effects, rankings = tables
    changes |= {"synthetic": True}
    if name == "rank_intervals":
        return figures.rank_intervals(rankings, **LABELLED_CVA, **changes)
    if name == "context_shift":
        return figures.context_shift(effects, unit=unit, **changes)
    return getattr(figures, name)(effects, **LABELLED_CVA, unit=unit, **changes)


def words(figure) -> str:
    return " ".join(text.get_text() for text in figure.texts)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", ["caterpillar", "rank_intervals", "funnel", "context_shift"])
@pytest.mark.parametrize("unit", ["points", "scale-score points of the grade-8 mathematics test"])
def test_no_text_overlaps_or_leaves_the_page(tables, name, n, unit):
    figure = draw(name, tables[n], unit=unit, title="Synthetic cohort: magnets, nearly nested, seed 20260101")
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    shown = [
        text
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and not _is_undrawn_tick(text, figure)
    ]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in shown]
    page = figure.bbox
    for label, box in boxes:
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1, label
    for (first, a), (second, b) in itertools.combinations(boxes, 2):
        wide, tall = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert wide <= 0.5 or tall <= 0.5, f"{first!r} covers {second!r}"


def _is_undrawn_tick(text, figure) -> bool:
    for ax in figure.axes:
        for axis, (low, high) in ((ax.xaxis, sorted(ax.get_xlim())), (ax.yaxis, sorted(ax.get_ylim()))):
            for tick in axis.get_major_ticks() + axis.get_minor_ticks():
                if text in (tick.label1, tick.label2):
                    return not low <= tick.get_loc() <= high or not text.get_text()
    return False


@pytest.mark.parametrize("name", ["caterpillar", "rank_intervals", "funnel", "context_shift"])
def test_synthetic_data_is_stamped_and_real_data_is_not(tables, name):
    effects, rankings = tables[60]
    assert SYNTHETIC_STAMP in words(draw(name, tables[60]))
    if name == "rank_intervals":
        real = figures.rank_intervals(rankings, **LABELLED_CVA, synthetic=False)
    elif name == "context_shift":
        real = figures.context_shift(effects, unit="points", synthetic=False)
    else:
        real = getattr(figures, name)(effects, **LABELLED_CVA, unit="points", synthetic=False)
    assert SYNTHETIC_STAMP not in words(real)


def test_caterpillar_counts_the_intervals_off_the_average(tables):
    effects, _ = tables[3400]
    rows = effects[effects["context"] == "cva"]
    average = rows["mean"].mean()
    apart = ((rows["lower"] > average) | (rows["upper"] < average)).sum()
    assert f"Intervals that do not include the average: {apart:,}." in words(draw("caterpillar", tables[3400])).replace(
        "\n", " "
    )


def test_funnel_limits_cover_95_and_998_per_cent_when_schools_do_not_differ():
    rng = np.random.default_rng(5)
    n = 20_000
    n_need = rng.integers(4, 80, n)
    se = 17.0 / np.sqrt(n_need)
    table = pd.DataFrame(
        {
            "school": np.arange(n), "estimator": "labelled", "context": "cva", "measure": "theta", "mean": 0.0,
            "lower": -1.0, "upper": 1.0, "n_need": n_need, "estimate": rng.normal(0, se), "se": se,
        }
    )  # fmt: skip
    figure = figures.funnel(table, **LABELLED_CVA, **POINTS)
    title, subtitle = words(figure), words(figure)
    outer = int(title.split(":")[1].split(" of ")[0].replace(",", ""))
    inner = int(subtitle.split("number of pupils with need. ")[1].split(" schools")[0].replace(",", ""))
    # Binomial: 1,000 expected with standard deviation 31; 40 expected with standard deviation 6.3. Four of each.
    assert abs(inner - 1000) < 4 * 31
    assert abs(outer - 40) < 4 * 6.3


def test_funnel_counts_schools_without_an_estimate(tables):
    effects, _ = tables[3400]
    rows = effects[effects["context"] == "cva"]
    missing = int(rows["se"].isna().sum())
    assert missing > 0
    assert f"Schools not estimable: {missing:,}" in words(draw("funnel", tables[3400]))


def test_context_shift_states_the_share_that_moves(tables):
    effects, _ = tables[3400]
    wide = effects.pivot_table(index="school", columns="context", values="mean")
    moved = (wide["prior"].rank(ascending=False) - wide["cva"].rank(ascending=False)).abs()
    share = 100 * (moved > 340).mean()
    assert f"What context moves: {share:.0f} % of 3,400 schools" in words(draw("context_shift", tables[3400]))
    drawn = draw("context_shift", tables[60]).axes[1].patches
    black = sum(bar.get_height() for bar in drawn if bar.get_facecolor()[:3] == pytest.approx((0x11 / 255,) * 3))
    wide = run_tables(60)[0].pivot_table(index="school", columns="context", values="mean").to_numpy()
    far = np.abs(places(wide[:, 2]) - places(wide[:, 1])) > 6
    assert black == far.sum()


def test_rank_one_is_at_the_top_and_unpublished_schools_are_counted(tables):
    figure = draw("rank_intervals", tables[60])
    low, high = figure.axes[0].get_ylim()
    assert low > high
    _, rankings = tables[60]
    hidden = int((~rankings.loc[rankings["context"] == "cva", "published"]).sum())
    assert f"without a published position: {hidden}" in words(figure)


def test_highlighted_schools_are_named(tables):
    figure = draw("caterpillar", tables[60], highlight=[900007, "900011"])
    named = {text.get_text() for text in figure.axes[0].texts}
    assert {"900007", "900011"} <= named
    assert highlighted_rows(pd.Series(range(100)), []) == [2, 26, 50, 73, 97]


def test_tones_stay_apart_in_grey():
    def luminance(colour):
        red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
        return (0.299 * red + 0.587 * green + 0.114 * blue) / 255  # ITU-R BT.601, as Pillow's mode L

    tones = sorted(luminance(colour) for colour in (INK, MIDDLE, PALE, "#ffffff"))
    assert min(np.diff(tones)) > 0.18
    assert luminance(ACCENT) < 0.25


def test_same_tables_same_bytes(tables, tmp_path):
    effects, rankings = tables[3]
    first = figures.save_figures(effects, rankings, tmp_path, **POINTS, title="Study")
    names = ("caterpillar", "rank_intervals", "funnel", "context_shift")
    assert [path.name for path in first] == [f"{name}.{kind}" for name in names for kind in ("svg", "png")]
    again = save_svg_png(draw("caterpillar", tables[3], title="Study"), tmp_path / "again")
    assert [path.read_bytes() for path in first[:2]] == [path.read_bytes() for path in again]
    svg = first[0].read_text(encoding="utf-8")
    assert "<dc:date>" not in svg and "matplotlib.org" not in svg.split("<defs>")[0].split("<metadata>")[-1]


def test_callers_settings_neither_matter_nor_change(tables, tmp_path):
    import matplotlib as mpl

    plain = save_svg_png(draw("caterpillar", tables[3]), tmp_path / "plain")[0].read_bytes()
    with mpl.rc_context({"font.size": 20, "svg.hashsalt": "other", "axes.facecolor": "red"}):
        changed = save_svg_png(draw("caterpillar", tables[3]), tmp_path / "changed")[0].read_bytes()
        assert mpl.rcParams["font.size"] == 20
    assert changed == plain


def test_missing_column_is_named(tables):
    effects, _ = tables[3]
    with pytest.raises(
        InputError, match=r"se: rule broken: school_effects.csv has the columns of this version.*Run send-va run again"
    ):
        figures.funnel(effects.drop(columns="se"), **LABELLED_CVA, **POINTS)


def test_unknown_context_lists_what_there_is(tables):
    effects, _ = tables[3]
    with pytest.raises(InputError, match=r"no row for measure theta, estimator labelled, context none.*prior"):
        figures.caterpillar(effects, estimator="labelled", context="none", **POINTS)


def test_unknown_highlight_is_named(tables):
    with pytest.raises(InputError, match="values 1234567"):
        draw("caterpillar", tables[3], highlight=[1234567])


def test_missing_means_and_no_estimates_are_refused(tables):
    effects, rankings = tables[3]
    with pytest.raises(InputError, match="mean, lower and upper are finite numbers"):
        figures.caterpillar(effects.assign(mean=np.nan), **LABELLED_CVA, **POINTS)
    with pytest.raises(InputError, match="use the caterpillar figure instead"):
        figures.funnel(effects.assign(estimate=None), **LABELLED_CVA, **POINTS)
    with pytest.raises(InputError, match="at least one school has a published position"):
        figures.rank_intervals(rankings.assign(published=False), **LABELLED_CVA, synthetic=True)
    with pytest.raises(FileNotFoundError, match="create it first"):
        save_svg_png(draw("caterpillar", tables[3]), Path("no_such_folder") / "figure")
