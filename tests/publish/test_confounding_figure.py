"""The picture of confounders."""

from pathlib import Path

import pandas as pd
import pytest

from send_va.errors import InputError
from send_va.publish.confounding_figure import confounding_figure
from send_va.publish.figure_style import save_svg_png
from send_va.sensitivity.unmeasured import adjusted_estimate


def bounds() -> pd.DataFrame:
    table = pd.DataFrame(
        {"benchmark": ["", "fsm6", "fsm6", "prior"], "label": ["unadjusted", "1x fsm6", "2x fsm6", "1x prior"]}
    )
    table = table.assign(
        r2_dz=[0.0, 0.02, 0.04, 0.95], r2_yz=[0.0, 0.05, 0.1, 0.3], treatment="need", estimate=-4.0, se=0.5
    )
    return table.assign(dof=900.0, robustness=0.23)


def test_contours_run_through_the_adjusted_estimates_and_what_is_left_out_is_named(tmp_path: Path) -> None:
    figure = confounding_figure(bounds(), unit="points", synthetic=True, title="A study")
    assert [path.suffix for path in save_svg_png(figure, tmp_path / "first")] == [".svg", ".png"]
    said = " ".join(text.get_text() for text in figure.texts)
    assert (
        "23.0 % of both need and" in said.replace("\n", " ") and "not drawn: 1x prior" in said and "Synthetic" in said
    )
    thick = next(part for part in figure.axes[0].collections if part.get_linewidth()[0] == 2.0)
    for path in thick.get_paths():
        for x, y in path.vertices[:: max(1, len(path.vertices) // 20)]:
            assert adjusted_estimate(-4.0, 0.5, 900.0, x, y) == pytest.approx(0.0, abs=0.02)


def test_missing_columns_and_two_coefficients_are_refused() -> None:
    with pytest.raises(InputError, match="r2_yz"):
        confounding_figure(bounds().drop(columns="r2_yz"), unit="points", synthetic=True)
    two = pd.concat([bounds(), bounds().assign(treatment="severity")])
    with pytest.raises(InputError, match="more than one"):
        confounding_figure(two, unit="points", synthetic=True)
