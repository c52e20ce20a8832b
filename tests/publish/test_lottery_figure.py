"""The figure of the identification lottery: what it says is in the table, nothing overlaps, bad tables are refused."""

import io
import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from send_va.errors import InputError
from send_va.publish.figure_style import SYNTHETIC_STAMP, save_svg_png
from send_va.publish.lottery_figure import identification_shares

CAUTION = "These differences are not leniency: how much need the pupils of a school have is part of them"
SOURCE = "Source: Department for Education, school census tables 2018/19 and 2022/23, Open Government Licence v3.0"


def published(labels=("support", "ehcp"), years=("2018-19", "2022-23"), models=("null", "full")) -> pd.DataFrame:
    rows = []
    for (i, label), (j, year), (k, model) in itertools.product(*map(enumerate, (labels, years, models))):
        school, la = 0.08 + 0.02 * i - 0.012 * j - 0.015 * k, 0.01 + 0.03 * i
        for level, share in (("school", school), ("la", la), ("residual", 1 - school - la)):
            rows.append((label, year, level, model, share, 0.95 * share, min(1, 1.06 * share), np.exp(share)))
    names = ["label", "year", "level", "model", "share", "lower", "upper", "median_odds_ratio"]
    return pd.DataFrame(rows, columns=names)


def of_pupils() -> pd.DataFrame:
    shares = {"pupil": 0.62, "feeder": 0.18, "school": 0.16, "la": 0.04}
    rows = [
        (label, level, model, share, 0.9 * share, 1.1 * share)
        for label, model in itertools.product(("entry", "current"), ("null", "full"))
        for level, share in shares.items()
    ]
    return pd.DataFrame(rows, columns=["label", "level", "model", "share", "lower", "upper"])


def words(figure) -> str:
    return " ".join(text.get_text() for text in figure.texts).replace("\n", " ")


@pytest.mark.parametrize(
    ("table", "synthetic"), [(published(), False), (of_pupils(), True), (published(("ehcp",), ("2022-23",)), False)]
)
def test_no_text_overlaps_or_leaves_the_page(table, synthetic):
    figure = identification_shares(table, synthetic=synthetic, caution=CAUTION, source=SOURCE, title="A study, seed 1")
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    shown = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in shown if text not in _undrawn(figure)]
    page = figure.bbox
    for label, box in boxes:
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1, label
    for (first, a), (second, b) in itertools.combinations(boxes, 2):
        wide, tall = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert wide <= 0.5 or tall <= 0.5, f"{first!r} covers {second!r}"


def _undrawn(figure) -> list[Text]:
    ticks = [(tick, *ax.get_xlim()) for ax in figure.axes for tick in ax.xaxis.get_major_ticks()]
    return [
        text for tick, low, high in ticks for text in (tick.label1, tick.label2) if not low <= tick.get_loc() <= high
    ]


def test_published_shares_are_drawn_where_the_table_has_them():
    table = published()
    figure = identification_shares(table, synthetic=False, caution=CAUTION, source=SOURCE)
    assert [ax.texts[0].get_text() for ax in figure.axes] == ["SEN support", "EHC plan"]
    for ax, label in zip(figure.axes, ("support", "ehcp"), strict=True):
        for line, model in zip(ax.lines[:2], ("null", "full"), strict=True):
            chosen = table[(table["label"] == label) & (table["model"] == model) & (table["level"] != "residual")]
            assert sorted(line.get_xdata()) == pytest.approx(sorted(chosen["share"]))
    rows = [text.get_text().replace("\n", " ") for text in figure.axes[0].get_yticklabels()]
    assert rows == ["School 2018/19", "School 2022/23", "Local authority 2018/19", "Local authority 2022/23"]
    low, high = figure.axes[0].get_ylim()
    assert low > high  # schools on top


def test_the_title_states_the_last_year_and_the_fullest_model_and_the_note_what_it_is_not():
    told = words(identification_shares(published(), synthetic=False, caution=CAUTION, source=SOURCE))
    assert "SEN support (2022/23): 5.3 % of the variation lies between schools, 1.0 % between local authorities" in told
    assert "The odds differ 1.05-fold between two typical schools." in told
    assert "are not leniency" in told
    assert "Open Government Licence" in told
    assert SYNTHETIC_STAMP not in told
    null = words(identification_shares(published(models=("null",)), synthetic=False))
    assert "Title: before adjustment (null model)" in null


def test_the_table_of_a_run_is_drawn_with_feeders_and_stamped():
    figure = identification_shares(of_pupils(), synthetic=True)
    assert SYNTHETIC_STAMP in words(figure)
    rows = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert rows == ["Feeder\nschool", "School", "Local\nauthority"]
    assert figure.axes[1].texts[0].get_text() == "Label now"
    assert figure.axes[0].texts[1].get_text() == "within: 62 %"


def test_the_null_model_survives_a_file():
    text = of_pupils().to_csv(index=False)
    read = pd.read_csv(io.StringIO(text))
    assert read["model"].isna().any()  # pandas takes the word null for a missing value
    figure = identification_shares(read, synthetic=True)
    assert figure.axes[0].lines[0].get_label() == "before adjustment (null model)"


def test_a_variance_at_zero_is_a_mark_without_a_line():
    table = of_pupils()
    none = table["level"] == "la"
    table = table.assign(share=table["share"].mask(none, 0.0), lower=table["lower"].mask(none, 0.0))
    figure = identification_shares(table.assign(upper=table["upper"].mask(none)), synthetic=True)
    assert min(figure.axes[0].lines[0].get_xdata()) == 0.0


def test_same_table_same_bytes(tmp_path):
    first, again = (
        save_svg_png(identification_shares(published(), synthetic=False), tmp_path / name) for name in ("one", "two")
    )
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="upper"), "upper: rule broken: the table of variance shares has the columns"),
        (lambda t: t[t["level"] == "residual"], "no level to draw. It needs rows of level school"),
        (
            lambda t: t.replace({"level": {"la": "LA"}}),
            "level: has an unknown name; values LA. Known: feeder, la, pupil",
        ),
        (lambda t: pd.concat([t, t.iloc[[3]]]), "occur twice; 2 rows fail; rows 4, 25. Draw one study at a time"),
        (lambda t: t.assign(share=t["share"].mask(t.index == 4, 1.2)), "1 row fails; rows 5; values 1.2. Shares are"),
        (
            lambda t: t.assign(upper=t["share"] / 2),
            "share: rule broken: 0 <= lower <= share <= upper <= 1.*24 rows fail",
        ),
        (lambda t: t.assign(share=np.nan), "24 rows fail"),
    ],
)
def test_bad_tables_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        identification_shares(change(published()), synthetic=False)
