"""The figure of missing prior attainment."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from send_va.errors import InputError
from send_va.publish.figure_style import save_svg_png
from send_va.publish.missing_prior_figure import missing_prior_figure


def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    patterns = pd.DataFrame(
        {
            "pattern": ["complete", "prior", "idaci", "prior, idaci", "other patterns"],
            "n_pupils": [9000, 300, 90, 12, np.nan],
            "share": [0.955, 0.032, 0.01, 0.001, np.nan],
            "send_share": [0.15, 0.31, 0.16, np.nan, np.nan],
            "mean_outcome": [0.01, -0.42, 0.02, -0.3, np.nan],
        }
    )
    steps = pd.DataFrame(
        {
            "estimator": ["entry"] * 3 + ["labelled"] * 3,
            "delta": [-0.5, 0.0, 0.5] * 2,
            "n_schools": 150,
            "changed": [0.12, 0.08, 0.11, 0.13, 0.1, 0.12],
            "changed_from_mar": [0.07, 0.0, 0.06, 0.08, 0.0, 0.07],
        }
    )
    return patterns, steps


def test_it_says_what_was_found_and_repeats_to_the_byte(tmp_path: Path) -> None:
    for name in ("first", "second"):
        figure = missing_prior_figure(*tables(), tolerance=0.05, synthetic=True)
        save_svg_png(figure, tmp_path / name)
    said = " ".join(text.get_text() for text in figure.texts)
    assert "10 % of 150 schools" in said and "8 % again" in said and "Synthetic data" in said
    assert (tmp_path / "first.svg").read_bytes() == (tmp_path / "second.svg").read_bytes()
    assert len(figure.axes[0].get_yticks()) == 3  # patterns of a handful have no numbers and no bar


def test_tables_that_cannot_be_drawn_are_refused() -> None:
    patterns, steps = tables()
    with pytest.raises(InputError, match="changed_from_mar"):
        missing_prior_figure(patterns, steps.drop(columns="changed_from_mar"), tolerance=0.05, synthetic=True)
    with pytest.raises(InputError, match="no pattern"):
        missing_prior_figure(patterns.head(1), steps, tolerance=0.05, synthetic=True)
