"""Figures of forecast bias, and of the size and power of checks."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from send_va.errors import InputError
from send_va.publish.falsification_figure import falsification_figure
from send_va.publish.figure_style import save_svg_png
from send_va.publish.forecast_figure import binned, forecast_figure


def forecasts() -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(1)
    predicted = rng.standard_normal(60)
    rows = pd.DataFrame({"prediction": "plain", "measure": "theta", "school": range(60), "predicted": predicted})
    rows = rows.assign(shown=0.5 * predicted, weight=1.0)
    row = {"prediction": "plain", "measure": "theta", "coefficient": 0.5, "lower": 0.4, "upper": 0.6, "schools": 60}
    return rows, pd.DataFrame([row | {"targets": 1, "coverage": 0.95, "verdict": "too bold"}])


def test_points_of_the_forecast_figure_are_weighted_means_of_bins() -> None:
    rows, _ = forecasts()
    bins = binned(rows.assign(weight=np.arange(1.0, 61.0)), 6)
    assert bins["rows"].tolist() == [10] * 6
    np.testing.assert_allclose(bins["shown"], 0.5 * bins["predicted"])
    first = rows.assign(weight=np.arange(1.0, 61.0)).sort_values("predicted").head(10)
    assert bins["predicted"].iloc[0] == pytest.approx(np.average(first["predicted"], weights=first["weight"]))


def test_forecast_figure_says_the_coefficient_and_what_it_cannot_see(tmp_path: Path) -> None:
    for name in ("first", "second"):
        figure = forecast_figure(*forecasts(), unit="points", synthetic=True)
        save_svg_png(figure, tmp_path / name)
    said = " ".join(text.get_text() for text in figure.texts)
    assert "0.50" in said and "sorting that lasts" in said and "Synthetic data" in said
    assert (tmp_path / "first.svg").read_bytes() == (tmp_path / "second.svg").read_bytes()


def test_falsification_figure_draws_a_panel_for_every_violation() -> None:
    base = {"part": "size", "violation": "none", "amount": 0.0, "test": "earlier scores", "runs": 500, "se": 0.01}
    size = [base | {"reliability": r, "rejects": share} for r, share in ((1.0, 0.05), (0.9, 0.04), (0.8, 0.06))]
    power = [
        base | {"part": "power", "violation": violation, "amount": amount, "reliability": 0.9, "rejects": share}
        for violation, amount, share in (("none", 0.0, 0.05), ("sorting", 0.4, 0.9), ("drift", 0.3, 0.05))
    ]
    found = pd.DataFrame([{"violation": "sorting", "test": "earlier scores", "detectable": 0.35}])
    figure = falsification_figure(pd.DataFrame(size + power), found)
    assert len(figure.axes) == 3
    assert "6 %" in " ".join(text.get_text() for text in figure.texts)


def test_what_cannot_be_drawn_is_refused() -> None:
    rows, table = forecasts()
    with pytest.raises(InputError, match="weight"):
        forecast_figure(rows.drop(columns="weight"), table, unit="points", synthetic=True)
    with pytest.raises(InputError, match="too few to draw"):
        forecast_figure(rows.head(8), table, unit="points", synthetic=True)
    rates = pd.DataFrame(columns=["part", "violation", "amount", "reliability", "test", "runs", "rejects", "se"])
    with pytest.raises(InputError, match="no rows of size"):
        falsification_figure(rates, pd.DataFrame(columns=["violation", "test", "detectable"]))
