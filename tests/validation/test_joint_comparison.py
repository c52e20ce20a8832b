"""What is said of joint and cut, on numbers made by hand, and the figure of it."""

import numpy as np
import pandas as pd
import pytest

from send_va.errors import InputError
from send_va.publish.joint_figure import joint_figure
from send_va.validation.joint_comparison import compared


def made() -> pd.DataFrame:
    theta = np.array([-0.3, -0.1, 0.1, 0.3])
    table = pd.DataFrame({"theta": theta, "leniency": [1.0, -1.0, 1.0, -1.0], "intake_need": 0.0, "region": "magnets"})
    for name, mean, sd in (("cut", theta + 0.1, 0.2), ("joint", theta + np.array([0.1, 0.1, 0.1, 0.2]), 0.1)):
        table[f"mean_{name}"], table[f"sd_{name}"] = mean, sd
        table[f"lower_{name}"], table[f"upper_{name}"] = mean - 1.5 * sd, mean + 1.5 * sd
    return table


def test_differences_are_counted_by_hand() -> None:
    found = compared(made())
    assert found["largest_difference"] == pytest.approx(0.1)
    assert found["largest_share"] == pytest.approx(0.5)
    assert found["sd_ratio"] == pytest.approx(0.5)
    assert found["mean_difference"] == pytest.approx(0.025)
    assert found["rmse_cut"] == pytest.approx(0.1)
    assert (found["cover_cut"], found["cover_joint"]) == (1.0, 0.75)
    # covariance of (0, 0, 0, .1) with (1, -1, 1, -1) is -1/30, and the SD of the latter sqrt(4/3)
    assert found["difference_by_leniency"] == pytest.approx(-1 / 30 / np.sqrt(4 / 3))
    assert found["difference_by_intake"] == 0.0


def test_the_figure_says_how_far_a_school_moves_at_most() -> None:
    figure = joint_figure(made())
    assert any("0.10 pupil" in text.get_text() or "than 0.1" in text.get_text() for text in figure.texts)
    assert [ax.get_xlabel() for ax in figure.axes] == ["magnets"]


def test_a_figure_without_its_columns_is_refused() -> None:
    with pytest.raises(InputError, match="upper_joint"):
        joint_figure(made().drop(columns="upper_joint"))
