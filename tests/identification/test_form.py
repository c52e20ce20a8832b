"""The form of the need model against gradient boosting: it passes where it is right and loses where it is wrong."""

import warnings
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.special import ndtr
from worlds import small

from send_va.identification import form
from send_va.identification.form import NeedForm, NeedFormWarning, check_form
from send_va.identification.labels import LabelRecords

SCHOOLS, PER_SCHOOL = 40, 150


def made(crossed: bool, seed: int = 1) -> LabelRecords:
    """Labels by a probit that is linear in two predictors, or by their product, which no linear form sees."""
    rng = np.random.default_rng(seed)
    n = SCHOOLS * PER_SCHOOL
    x = rng.standard_normal((n, 2))
    index = 1.2 * x[:, 0] * x[:, 1] - 0.8 if crossed else 0.6 * x[:, 0] - 0.3 * x[:, 1] - 1.0
    entry = (rng.random(n) < ndtr(index)).astype(np.intp)
    body = np.full(n, -1)
    return replace(
        small().labels,
        row_number=np.arange(1, n + 1),
        x=x,
        x_names=("a", "b"),
        school=np.repeat(np.arange(SCHOOLS), PER_SCHOOL),
        schools=tuple(map(str, range(SCHOOLS))),
        entry=entry,
        now=1 - entry,
        feeder=body,
        la=body,
        feeder_la=body,
        region=body,
        same_body=np.zeros(n, dtype=bool),
    )


@cache
def right() -> NeedForm:
    with warnings.catch_warnings():
        warnings.simplefilter("error", NeedFormWarning)
        return check_form(made(crossed=False), np.random.default_rng(2))


def test_the_right_form_is_as_good_as_boosting_and_calibrated() -> None:
    found = right()
    assert not found.loses
    assert "is as good as gradient boosting" in str(found)
    curve = found.calibration[found.calibration["model"] == "parametric"]
    error = np.sqrt(curve["observed"] * (1 - curve["observed"]) / curve["n"])
    assert ((curve["predicted"] - curve["observed"]).abs() < 4 * error + 0.01).all()
    assert curve["n"].sum() == SCHOOLS * PER_SCHOOL
    loss = found.log_loss.set_index("model")["log_loss"]
    # the best there is: entropy of the probabilities that made the labels
    records = made(crossed=False)
    p = ndtr(0.6 * records.x[:, 0] - 0.3 * records.x[:, 1] - 1.0)
    entropy = -(records.entry * np.log(p) + (1 - records.entry) * np.log1p(-p)).mean()
    assert loss["parametric"] == pytest.approx(entropy, abs=0.003)
    assert loss["difference"] == pytest.approx(loss["parametric"] - loss["flexible"])


def test_a_product_of_predictors_is_found_and_said() -> None:
    with pytest.warns(NeedFormWarning, match=r"loses to gradient boosting.*add knots or terms to the predictors"):
        found = check_form(made(crossed=True), np.random.default_rng(2))
    assert found.loses
    row = found.log_loss.set_index("model").loc["difference"]
    assert row["log_loss"] > 5 * row["se"] > 0


def test_same_generator_same_numbers() -> None:
    again = check_form(made(crossed=False), np.random.default_rng(2))
    assert again.log_loss.equals(right().log_loss)
    assert again.calibration.equals(right().calibration)


def test_a_sample_is_of_whole_schools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(form, "_MOST_PUPILS", 2_000)
    found = check_form(made(crossed=False), np.random.default_rng(2))
    n = found.calibration.groupby("model")["n"].sum()
    assert (n == 13 * PER_SCHOOL).all()


def test_pupils_without_a_label_before_are_left_out() -> None:
    records = made(crossed=False)
    entry = records.entry.copy()
    entry[:300] = -1
    found = check_form(replace(records, entry=entry), np.random.default_rng(2))
    assert (found.calibration.groupby("model")["n"].sum() == len(entry) - 300).all()


def test_without_labels_before_the_label_now_is_predicted() -> None:
    """Here the opposite of the label before: the observed shares are turned round."""
    records = made(crossed=False)
    none = replace(records, entry=np.full(len(records.now), -1))
    found = check_form(none, np.random.default_rng(2))
    curve = found.calibration[found.calibration["model"] == "parametric"]
    share = (curve["observed"] * curve["n"]).sum() / curve["n"].sum()
    assert share == pytest.approx((records.now > 0).mean())
