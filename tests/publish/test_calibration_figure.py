"""Pictures of calibration: what is outside is marked, nothing overlaps, bad tables are refused."""

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from send_va.errors import InputError
from send_va.publish.calibration_figure import coverage_figure, rank_figure
from send_va.publish.figure_style import INK, save_svg_png
from send_va.validation.uniformity import RankUniformity, rank_uniformity


def ranked(parameters: int = 7, wrong: int = 2) -> RankUniformity:
    ranks = np.random.default_rng(3).integers(0, 100, (200, parameters))
    ranks[:, wrong] //= 2
    names = [f"SD of gap between schools of one authority {k}" for k in range(parameters)]
    return rank_uniformity(ranks, 99, names)


def cover() -> pd.DataFrame:
    rows = [
        (what, level, level - 0.05 * (what == "gap"), 0.01, 400, "too short" if what == "gap" else "as stated")
        for what, level in itertools.product(
            ("correlation of u and gap, 150 schools", "theta", "gap"), (0.5, 0.8, 0.95)
        )
    ]
    return pd.DataFrame(rows, columns=["what", "level", "cover", "se", "simulations", "diagnosis"])


@pytest.mark.parametrize(
    "figure",
    [
        rank_figure(ranked(), "the collapsed posterior", problems="Failed: 0."),
        rank_figure(ranked(3), "a toy"),
        coverage_figure(cover(), "REML"),
        coverage_figure(cover()[cover()["level"] == 0.95], "the cut"),
    ],
)
def test_no_text_overlaps_or_leaves_the_page(figure) -> None:
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    outside = [
        label
        for ax in figure.axes
        for axis, (low, high) in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, sorted(ax.get_ylim())))
        for tick in axis.get_major_ticks()
        for label in (tick.label1, tick.label2)
        if not low <= tick.get_loc() <= high
    ]
    shown = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in shown if text not in outside]
    assert len(boxes) > 8
    page = figure.bbox
    for label, box in boxes:
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1, label
    for (first, a), (second, b) in itertools.combinations(boxes, 2):
        wide, tall = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert wide <= 0.5 or tall <= 0.5, f"{first!r} covers {second!r}"


def test_the_line_is_that_of_the_ranks_and_those_outside_are_marked() -> None:
    found = ranked()
    figure = rank_figure(found, "a toy")
    assert len(figure.axes) == 7
    for k, ax in enumerate(figure.axes):
        line = ax.lines[-1]
        np.testing.assert_array_equal(line.get_ydata(), found.differences[:, k])
        assert ([text.get_text() for text in ax.texts] == ["outside"]) == (k == 2) == (to_hex(line.get_color()) == INK)
        assert ax.get_title(loc="left").replace("\n", " ") == found.names[k]
        low, high = ax.get_ylim()
        assert low <= min(found.lower.min(), found.differences.min()) and high >= found.differences.max()
    assert "6 of 7 inside" in " ".join(text.get_text() for text in figure.texts).replace("\n", " ")


def test_cover_is_drawn_where_the_table_has_it() -> None:
    figure = coverage_figure(cover(), "REML")
    assert [ax.get_xlabel() for ax in figure.axes] == ["50% intervals", "80% intervals", "95% intervals"]
    words = " ".join(text.get_text() for text in figure.texts).replace("\n", " ")
    assert "6 of 9 cases" in words and "400 simulations" in words
    ax = figure.axes[2]
    hollow, filled = ax.lines[1:]
    assert hollow.get_xdata().tolist() == [0.95, 0.95] and hollow.get_ydata().tolist() == [0, 1]
    assert filled.get_xdata().tolist() == pytest.approx([0.90]) and filled.get_ydata().tolist() == [2]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][2] == "gap"


def test_same_table_same_bytes(tmp_path) -> None:
    for name in ("one", "two"):
        save_svg_png(rank_figure(ranked(3), "a toy"), tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_bad_tables_are_refused() -> None:
    with pytest.raises(InputError, match="se"):
        coverage_figure(cover().drop(columns="se"), "REML")
    with pytest.raises(InputError, match="no cover"):
        coverage_figure(cover().iloc[:0], "REML")
