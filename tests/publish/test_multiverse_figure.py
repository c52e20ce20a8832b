"""The figures of a multiverse."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from send_va.errors import InputError
from send_va.publish import multiverse_figure
from send_va.publish.figure_style import styled
from send_va.publish.multiverse_figure import (
    choice_bars,
    moved_schools,
    quintile_share_bands,
    save_multiverse_figures,
    specification_curve,
)
from send_va.sensitivity.multiverse import Multiverse
from send_va.sensitivity.school_places import by_school
from send_va.sensitivity.specifications import CHOICES, Choices
from send_va.sensitivity.specified_effects import compared_with, headline_of, variances_of


@pytest.fixture(scope="module")
def found() -> Multiverse:
    """Forty schools whose effects depend on the estimator and a little on all else."""
    choices = Choices(
        ("y",), ("cva", "prior"), ("any", "ehcp"), estimator=("entry", "labelled"), prior=("model", "none")
    )
    table = choices.table()
    rng = np.random.default_rng(1)
    theta = rng.standard_normal(40) + 0.1 * rng.standard_normal((len(table), 40))
    theta += (table["estimator"] == "labelled").to_numpy()[:, None] * rng.standard_normal(40)
    schools = np.array([str(900 + k) for k in range(40)])
    compared = compared_with(theta, 0)
    rows = table.reset_index().assign(status="done", reason="", llf=0.0, **compared)
    return Multiverse(
        specifications=rows,
        effects=pd.DataFrame(theta, index=table.index, columns=schools),
        by_school=by_school(schools, theta, 0),
        choices=variances_of(table, theta),
        headline=headline_of(by_school(schools, theta, 0), compared),
        reference=1,
        synthetic=True,
    )


def words(figure: Figure) -> str:
    return " ".join(text.get_text() for text in figure.texts).replace("\u00a0", " ")


def test_curve_marks_every_choice_below_its_dot(found: Multiverse) -> None:
    curve = found.curve("907")
    figure = specification_curve(curve, "907", reference=1, synthetic=True, title="A study")
    upper, lower = figure.axes
    assert upper.collections[0].get_offsets()[:, 1].tolist() == sorted(curve["effect"])
    assert [label.get_text() for label in lower.get_yticklabels()] == [
        "cva", "prior", "support or plan", "plans only", "entry", "labelled", "model", "nothing",
    ]  # fmt: skip
    marks = [part for part in lower.collections if len(part.get_paths()) == 8]
    assert len(marks) == 8  # each value stands in half of the specifications
    at = {path.vertices[0, 0] for path in marks[4].get_paths()}
    assert at == set((np.flatnonzero(curve["estimator"] == "entry") + 1).tolist())
    assert "School 907" in words(figure) and "Synthetic data" in words(figure) and "A study" in words(figure)


def test_bands_count_the_schools_of_the_reference_table(found: Multiverse) -> None:
    figure = quintile_share_bands(found.by_school, highlight=["901"], synthetic=True)
    depends = int(found.by_school["depends"].sum())
    assert f"{100 * depends / 40:.0f} % of 40 schools" in words(figure)
    heights = sum(np.array([bar.get_height() for bar in part]) for part in figure.axes[0].containers)
    np.testing.assert_allclose(heights, 1.0)


def test_bars_name_the_choice_that_matters_most(found: Multiverse) -> None:
    figure = choice_bars(found.choices, synthetic=False)
    assert "Most depends on the estimator" in words(figure) and "Synthetic" not in words(figure)
    effect, place = figure.axes[0].containers[:2]
    for part in (effect, place):
        assert sum(bar.get_width() for bar in part) == pytest.approx(1.0)


def test_moved_schools_are_those_in_another_fifth(found: Multiverse) -> None:
    figure = moved_schools(found.specifications, reference=1, synthetic=True)
    rows = found.specifications.set_index(list(CHOICES))
    labelled = 1.0 - float(rows.loc[("y", "cva", "any", "full", 0, "labelled", "model", 10), "same_quintile"])
    right = figure.axes[1]
    names = [label.get_text() for label in right.get_yticklabels()]
    assert names == ["context: prior", "SEND: plans only", "estimator: labelled", "shrunken to: nothing"]
    assert right.lines[0].get_xdata()[names.index("estimator: labelled")] == pytest.approx(labelled)
    assert "Reference: context cva, SEND support or plan, estimator entry, shrunken to model." in words(figure)


def test_same_multiverse_same_bytes(found: Multiverse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @styled
    def drawing_only(figure: Figure, stem: Path) -> list[Path]:
        """Leaves out the PNG, which takes most of the time."""
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None, "Creator": None})
        return [stem.with_suffix(".svg")]

    monkeypatch.setattr(multiverse_figure, "save_svg_png", drawing_only)
    first, second = (save_multiverse_figures(found, tmp_path / name, title="A study") for name in ("a", "b"))
    assert [file.stem for file in first] == [
        "multiverse_fifths",
        "multiverse_choices",
        "multiverse_moved",
        f"specification_curve_{found.typical_school}",
    ]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_tables_that_cannot_be_drawn_are_refused(found: Multiverse) -> None:
    with pytest.raises(InputError, match="quintile"):
        specification_curve(found.curve("907").drop(columns="quintile"), "907", reference=1, synthetic=True)
    with pytest.raises(InputError, match="no school is in a table"):
        quintile_share_bands(found.by_school.assign(median_place=np.nan), synthetic=True)
    with pytest.raises(InputError, match="nothing was varied"):
        choice_bars(found.choices[found.choices["order"] == 3], synthetic=True)
    with pytest.raises(InputError, match="no other specification"):
        moved_schools(found.specifications.head(1), reference=1, synthetic=True)
