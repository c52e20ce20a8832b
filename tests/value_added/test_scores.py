"""The contract with identification: what scores must be."""

import numpy as np
import pytest

from send_va.errors import InputError
from send_va.value_added.scores import check_estimator, scores_table

HALF = np.array([0.5, 0.5, 0.5])


def test_label_free_has_no_severity() -> None:
    assert scores_table((HALF, None), 3, "label_free").shape == (3, 1)
    with pytest.raises(InputError, match="entry needs severity beside pi"):
        scores_table((HALF, None), 3, "entry")


@pytest.mark.parametrize(
    ("pi", "severity", "message"),
    [
        (HALF[:2], HALF, r"pi: has shape \(2,\), but there are 3 complete pupils"),
        (HALF, HALF[:2], r"severity: has shape \(2,\)"),
        (np.array([0.5, 1.5, np.nan]), HALF, r"pi: is no probability; 2 pupils fail; values 1.5, nan"),
        (HALF, np.array([0.0, np.inf, 0.0]), r"severity: is not finite; values inf"),
        (HALF / 10, HALF, r"less than one pupil with need"),
        (1 - HALF / 10, HALF, r"less than one pupil without need"),
    ],
)
def test_bad_scores_are_refused(pi: np.ndarray, severity: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        scores_table((pi, severity), 3, "standardised")


def test_at_most_ten_values_are_shown() -> None:
    with pytest.raises(InputError) as caught:
        scores_table((np.full(30, 7.0), np.zeros(30)), 30, "entry")
    assert str(caught.value).count("7") == 10


def test_unknown_estimator() -> None:
    with pytest.raises(InputError, match="Choose from standardised, entry, label_free"):
        check_estimator("labelled")
