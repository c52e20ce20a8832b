"""SchoolEffects: shapes, summaries and what they refuse."""

import numpy as np
import pytest

from send_va.effects import SchoolEffects, school_effects
from send_va.errors import InputError

ATTRS = {"estimator": "labelled", "context": "cva", "unit": "points"}


def effects(draws: dict[str, np.ndarray], **attrs: str) -> SchoolEffects:
    schools = [f"s{k}" for k in range(next(iter(draws.values())).shape[1])]
    count = np.full(len(schools), 9)
    return school_effects(
        schools, draws, {}, n_pupils=count, n_need=count, flag=[""] * len(schools), attrs=ATTRS | attrs
    )


def test_summary_of_known_draws() -> None:
    """Quantiles of 0, 1, ..., 100 are the numbers themselves."""
    draws = np.tile(np.arange(101.0)[:, None], (1, 2)) + np.array([0.0, 10.0])
    table = effects({"theta": draws}).summary("theta", coverage=0.9)
    assert table["mean"].tolist() == [50.0, 60.0]
    assert table["lower"].tolist() == pytest.approx([5.0, 15.0])
    assert table["upper"].tolist() == pytest.approx([95.0, 105.0])
    assert table["estimate"].isna().all()


def test_table_has_the_columns_of_school_effects_csv() -> None:
    table = effects({"theta": np.zeros((4, 3)), "u": np.ones((4, 3))}).table()
    assert table.columns[:13].tolist() == (
        [
            "school",
            "estimator",
            "context",
            "measure",
            "mean",
            "sd",
            "lower",
            "upper",
            "reliability",
            "n_pupils",
            "n_need",
            "estimate",
            "se",
        ]
    )
    assert table["measure"].tolist() == ["theta"] * 3 + ["u"] * 3


def test_what_is_refused() -> None:
    held = effects({"theta": np.zeros((4, 3))})
    with pytest.raises(InputError, match="no measure 'gap'"):
        held.summary("gap")
    with pytest.raises(InputError, match="coverage"):
        held.summary("theta", coverage=95)
    with pytest.raises(InputError, match="shapes"):
        effects({"theta": np.zeros((4, 3)), "u": np.zeros((5, 3))})
    with pytest.raises(InputError, match="'context'"):
        school_effects(
            ["a"],
            {"theta": np.zeros((2, 1))},
            {},
            n_pupils=np.ones(1, int),
            n_need=np.ones(1, int),
            flag=[""],
            attrs={"estimator": "labelled"},
        )


def test_shown_as_text_and_html() -> None:
    held = effects({"theta": np.zeros((4, 3))})
    assert "3 schools, 4 draws, points" in str(held)
    assert "<table" in held._repr_html_()
