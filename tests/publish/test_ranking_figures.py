"""Figures of ranks, grades, pairs, groups and funnels: words agree with a count, nothing overlaps, same bytes."""

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from send_va.errors import InputError
from send_va.publish.figure_style import SYNTHETIC_STAMP, save_svg_png
from send_va.publish.funnel_figure import funnel_plot
from send_va.publish.ranking_figures import (
    grade_strip,
    group_probability_bars,
    pairwise_heatmap,
    rank_interval_density,
)
from send_va.publish.ranking_panels import MOST_COLUMNS, shown_steps, tone
from send_va.ranking.pairwise_from_draws import chance_above_by_block, even_blocks
from send_va.ranking.rank_probabilities import rank_probabilities

SIZES = (3, 60, 3400)
TITLE = "Synthetic cohort: magnets, nearly nested, seed 20260101"


def world(n: int) -> dict[str, object]:
    rng = np.random.default_rng(4)
    need = rng.integers(8, 90, n)
    se = 17 / np.sqrt(need)
    estimate = rng.normal(0, 4.2, n) + se * rng.normal(size=n)
    reliability = 4.2**2 / (4.2**2 + se**2)
    draws = reliability * estimate + 4.2 * np.sqrt(1 - reliability) * rng.normal(size=(100, n))
    names = [str(900001 + k) for k in range(n)]
    table = rank_probabilities(draws, schools=names).table
    grade = pd.array(np.select([reliability * estimate > 3.0, reliability * estimate > -2.0], [1, 2], 3), dtype="Int64")
    grade[-1] = pd.NA
    x = np.linspace(5, 95, 50)
    limits = {}
    for name, z in (("95", 1.96), ("99_8", 3.09)):
        limits |= {f"lower_{name}": -z * 17 / np.sqrt(x), f"upper_{name}": z * 17 / np.sqrt(x)}
    block = even_blocks(table["expected_rank"], min(n, 120))
    return {
        "ranks": table.rename(columns={"rank_lower": "lower", "rank_upper": "upper"}),
        "grades": pd.DataFrame({"school": names, "value": estimate, "grade": grade}),
        "pairs": chance_above_by_block(draws, block),
        "funnel": (need, estimate, pd.DataFrame({"x": x} | limits)),
        "n": n,
    }


@pytest.fixture(scope="module")
def worlds():
    return {n: world(n) for n in SIZES}


def draw(name, world, synthetic=True, title=TITLE):
    shared = {"synthetic": synthetic, "title": title}
    if name == "ranks":
        return rank_interval_density(world["ranks"], **shared)
    if name == "grades":
        return grade_strip(world["grades"], unit="Attainment 8 points", **shared)
    if name == "pairs":
        return pairwise_heatmap(world["pairs"], schools=world["n"], **shared)
    if name == "groups":
        return group_probability_bars(world["ranks"], **shared)
    labels = {"x_label": "Pupils with need", "value_label": "Estimate (points)", "target": 0.0}
    return funnel_plot(*world["funnel"], **labels, **shared)


NAMES = ("ranks", "grades", "pairs", "groups", "funnel")


def words(figure) -> str:
    return " ".join(text.get_text() for text in figure.texts)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_no_text_overlaps_or_leaves_the_page(worlds, name, n):
    figure = draw(name, worlds[n])
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    shown = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in shown if not _outside(text, figure)]
    page = figure.bbox
    for label, box in boxes:
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1, label
    for (first, a), (second, b) in itertools.combinations(boxes, 2):
        wide, tall = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert wide <= 0.5 or tall <= 0.5, f"{first!r} covers {second!r}"


def _outside(text, figure) -> bool:
    for ax in figure.axes:
        for axis, (low, high) in ((ax.xaxis, sorted(ax.get_xlim())), (ax.yaxis, sorted(ax.get_ylim()))):
            for tick in axis.get_major_ticks() + axis.get_minor_ticks():
                if text in (tick.label1, tick.label2):
                    return not low <= tick.get_loc() <= high or not text.get_text()
    return False


@pytest.mark.parametrize("name", NAMES)
def test_stamp_title_and_labels(worlds, name):
    figure = draw(name, worlds[60])
    assert SYNTHETIC_STAMP in words(figure)
    assert TITLE in words(figure)
    assert SYNTHETIC_STAMP not in words(draw(name, worlds[60], synthetic=False))
    assert figure.axes[0].get_xlabel()
    assert figure.axes[0].get_ylabel()


@pytest.mark.parametrize("name", NAMES)
def test_same_tables_same_bytes(worlds, tmp_path, name):
    first = save_svg_png(draw(name, worlds[60]), tmp_path / "first")
    again = save_svg_png(draw(name, worlds[60]), tmp_path / "again")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]


def test_density_counts_the_intervals_that_cover_a_place():
    n = 200
    lower, upper = np.repeat([1, 101], 100), np.repeat([100, 200], 100)
    table = pd.DataFrame({"school": np.arange(n), "expected_rank": np.arange(n) + 1.0, "lower": lower, "upper": upper})
    figure = rank_interval_density(table, synthetic=True)
    assert "covers 100 of 200 places" in words(figure)
    mesh = figure.axes[0].collections[0].get_array()
    assert mesh.shape == (120, 120)
    assert (mesh[:60, :60] == 1.0).all()
    assert (mesh[60:, :60] == 0.0).all()
    assert (mesh[60:, 60:] == 1.0).all()


def test_schools_without_a_place_are_counted_not_drawn(worlds):
    table = worlds[60]["ranks"].copy()
    table["lower"] = table["lower"].astype("Int64")
    table.loc[:6, "lower"] = pd.NA
    assert "Schools that cannot be compared: 7." in words(rank_interval_density(table, synthetic=True))
    assert "Schools without a grade: 1." in words(draw("grades", worlds[60]))


def test_words_agree_with_a_count(worlds):
    for n in (60, 3400):
        chances = worlds[n]["ranks"].filter(like="p_group_").to_numpy()
        share = 100 * (chances.max(axis=1) >= 0.8).mean()
        assert f"{share:.0f} % of {n:,} schools belong to one fifth" in words(draw("groups", worlds[n])).replace(
            "\n", " "
        )
        need, estimate, _ = worlds[n]["funnel"]
        beyond = np.abs(estimate) > np.interp(need, np.linspace(5, 95, 50), 3.09 * 17 / np.sqrt(np.linspace(5, 95, 50)))
        assert f"{beyond.sum():,} of {n:,} schools lie outside the 99.8 % limits" in words(draw("funnel", worlds[n]))
    pairs = worlds[60]["pairs"][np.triu_indices(60, 1)]
    apart = 100 * (np.maximum(pairs, 1 - pairs) >= 0.975).mean()
    assert f"97.5 % for {apart:.0f} % of pairs" in words(draw("pairs", worlds[60]))
    largest = worlds[60]["grades"]["grade"].value_counts().max()
    assert f"{100 * largest / 59:.0f} % of 59 schools" in words(draw("grades", worlds[60])).replace("\n", " ")


def test_stacked_chances_fill_every_column(worlds):
    figure = draw("groups", worlds[3400])
    bars = figure.axes[0].patches
    assert len(bars) == 5 * 120
    tops = {}
    for bar in bars:
        tops[bar.get_x()] = tops.get(bar.get_x(), 0.0) + bar.get_height()
    np.testing.assert_allclose(list(tops.values()), 1.0)
    edges = shown_steps(3400)
    widths = np.bincount(even_blocks(np.arange(3400.0), MOST_COLUMNS))
    np.testing.assert_array_equal(np.diff(edges), widths)
    assert (edges[0], edges[-1]) == (0.5, 3400.5)


def test_a_full_table_of_pairs_is_averaged_in_blocks():
    order = np.arange(240.0)
    table = np.where(order[:, None] < order[None, :], 0.9, 0.1) + 0.4 * np.eye(240)
    figure = pairwise_heatmap(table, synthetic=True)
    assert "Each cell is the mean over two blocks of about 2 schools." in words(figure).replace("\n", " ")
    mesh = figure.axes[0].collections[0].get_array()
    assert mesh.shape == (120, 120)
    assert mesh[0, 1] == pytest.approx(0.9)
    assert mesh[3, 3] == pytest.approx(0.5)


def test_tenths_have_ten_tones_and_two_names(worlds):
    draws = np.random.default_rng(1).normal(np.linspace(3, 0, 40), 1.0, (60, 40))
    figure = group_probability_bars(rank_probabilities(draws, groups=10).table, group="tenth", synthetic=True)
    assert len({tone(k, 10) for k in range(10)}) == 10
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert legend == ["highest tenth", "lowest tenth"]


def test_highlighted_schools_are_named(worlds):
    figure = grade_strip(worlds[60]["grades"], unit="points", highlight=["900007", 900011], synthetic=True)
    assert {"900007", "900011"} <= {text.get_text() for text in figure.axes[0].texts}
    bars = group_probability_bars(worlds[60]["ranks"], highlight=["900007"], synthetic=True)
    assert [label.get_text() for label in bars.axes[1].get_yticklabels()] == ["900007"]


def test_limits_that_are_not_a_function_of_x_can_be_given(worlds):
    need, estimate, curves = worlds[60]["funnel"]
    outside = pd.DataFrame({"95": np.arange(60) < 10, "99_8": np.arange(60) < 4})
    labels = {"x_label": "x", "value_label": "y"}
    figure = funnel_plot(need, estimate, curves, outside=outside, synthetic=True, **labels)
    assert "4 of 60 schools lie outside the 99.8 % limits" in words(figure)
    missing = np.where(np.arange(60) < 2, np.nan, estimate)
    assert "Schools without both numbers: 2." in words(funnel_plot(need, missing, curves, synthetic=True, **labels))


def test_what_is_refused(worlds):
    ranks, grades = worlds[60]["ranks"], worlds[60]["grades"]
    need, estimate, curves = worlds[60]["funnel"]
    labels = {"x_label": "x", "value_label": "y", "synthetic": True}
    with pytest.raises(InputError, match="lower: is missing"):
        rank_interval_density(ranks.drop(columns="lower"), synthetic=True)
    with pytest.raises(InputError, match="no school has expected_rank and lower and upper"):
        rank_interval_density(ranks.assign(lower=np.nan), synthetic=True)
    with pytest.raises(InputError, match="bounds are places; 60 rows fail"):
        rank_interval_density(ranks.assign(lower=70), synthetic=True)
    with pytest.raises(InputError, match="values 123"):
        rank_interval_density(ranks, highlight=[123], synthetic=True)
    with pytest.raises(InputError, match="whole number from 1; 59 rows fail"):
        grade_strip(grades.assign(grade=grades["grade"].astype("Float64") - 0.5), unit="points", synthetic=True)
    with pytest.raises(InputError, match="grade: is not a number; 60 rows fail; rows 1, 2"):
        grade_strip(grades.assign(grade="A"), unit="points", synthetic=True)
    with pytest.raises(InputError, match="no chances of groups"):
        group_probability_bars(grades, synthetic=True)
    with pytest.raises(InputError, match="sum to one"):
        group_probability_bars(ranks.assign(p_group_1=1.0), synthetic=True)
    with pytest.raises(InputError, match="square"):
        pairwise_heatmap(np.zeros((2, 3)), synthetic=True)
    with pytest.raises(InputError, match="do not sum to one"):
        pairwise_heatmap(np.full((2, 2), 0.7), synthetic=True)
    with pytest.raises(InputError, match="upper_95: is missing"):
        funnel_plot(need, estimate, curves[["x"]], **labels)
    with pytest.raises(InputError, match="x has shape"):
        funnel_plot(need[:3], estimate, curves, **labels)
    with pytest.raises(InputError, match="no school has both"):
        funnel_plot(need, np.full(60, np.nan), curves, **labels)


def test_the_chance_from_which_a_school_belongs_to_a_group_is_said(worlds):
    title = words(group_probability_bars(worlds[60]["ranks"], certain=0.9, synthetic=True))
    assert "with a chance of 90 % or more" in " ".join(title.split())
