"""The figure of drift."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from send_va.errors import InputError
from send_va.publish.drift_figure import drift_figure
from send_va.publish.figure_style import save_svg_png


def tables() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    same = {"estimator": "entry", "context": "cva"}
    lag = np.arange(4)
    lags = pd.concat(
        pd.DataFrame(
            same
            | {"measure": measure, "lag": lag, "correlation": [1.0, 0.8, 0.7, np.nan], "se": [0.0, 0.05, 0.1, np.nan]}
            | {"fitted": [1.0, 0.8, 0.7, 0.65], "pairs": [60, 40, 20, 0]}
        )
        for measure in ("theta", "u")
    )
    mean = np.linspace(-3, 3, 20)
    schools = pd.DataFrame(same | {"school": [str(k) for k in range(20)], "measure": "theta", "mean": mean})
    schools = schools.assign(lower=mean - 1, upper=mean + 1, n_cohorts=3)
    ahead = schools.assign(cohort="2029/30", reliability=0.41, mean=mean / 2)
    return lags, schools.assign(cohorts="2021/22 to 2023/24"), ahead


def test_title_says_how_much_can_be_foretold_and_bytes_are_the_same(tmp_path: Path) -> None:
    for name in ("first", "second"):
        figure = drift_figure(*tables(), unit="points", synthetic=True)
        save_svg_png(figure, tmp_path / name)
    said = " ".join(text.get_text() for text in figure.texts)
    assert "41 %" in said and "2029/30" in said and "Synthetic data" in said
    assert (tmp_path / "first.svg").read_bytes() == (tmp_path / "second.svg").read_bytes()
    assert len(figure.axes[1].get_yticks()) == 14


def test_missing_columns_and_tables_without_theta_are_refused() -> None:
    lags, recent, ahead = tables()
    with pytest.raises(InputError, match="fitted"):
        drift_figure(lags.drop(columns="fitted"), recent, ahead, unit="points", synthetic=True)
    with pytest.raises(InputError, match="no forecast of theta"):
        drift_figure(lags, recent, ahead.assign(measure="u"), unit="points", synthetic=True)
