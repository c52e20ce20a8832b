"""The constant-risk check: against the package's own fit of a table, and where the truth is known."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2

import send_va as sv
from send_va.errors import InputError
from send_va.validation.constant_risk import ConstantRisk, constant_risk

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Records:
    outcome: Floats
    sen: Floats
    prior: Floats
    school: NDArray[np.int64]
    share: Floats


def records(seed: int, *, generosity: float = 0.0, spread: float = 0.0, noisier: float = 1.0) -> Records:
    """80 schools of 60 pupils; those who label more have a gap nearer zero by `generosity` an SD."""
    rng = np.random.default_rng(seed)
    school = np.repeat(np.arange(80), 60)
    lenient = rng.standard_normal(80)
    sen = (rng.standard_normal(4800) + 0.4 * lenient[school] > 0.8).astype(float)
    gap = -0.5 + generosity * lenient + spread * rng.standard_normal(80)
    prior = rng.standard_normal(4800)
    noise = np.where(sen > 0, noisier, 1.0) * rng.standard_normal(4800)
    outcome = 0.5 * prior + 0.3 * rng.standard_normal(80)[school] + gap[school] * sen + 0.7 * noise
    return Records(outcome, sen, prior, school, np.bincount(school, weights=sen) / 60)


def checked(made: Records, **options: Any) -> ConstantRisk:
    return constant_risk(
        made.outcome, made.sen, made.prior[:, None], made.school, moderators={"labelled share": made.share}, **options
    )


def test_likelihood_ratio_is_that_of_the_multilevel_engine() -> None:
    made = records(1, spread=0.3)
    found = checked(made)
    frame = pd.DataFrame({"y": made.outcome, "sen": made.sen, "prior": made.prior, "school": made.school})
    # Weighted as the check weights: within schools and kinds of pupils.
    inside = frame.groupby(["school", "sen"])[["y", "prior"]].transform(lambda v: v - v.mean())
    slope = float((inside["prior"] * inside["y"]).sum() / (inside["prior"] ** 2).sum())
    left = (inside["y"] - slope * inside["prior"]) ** 2
    per_kind = left.groupby(frame["sen"]).sum() / (
        frame["sen"].value_counts().sort_index() - frame.groupby("sen")["school"].nunique()
    )
    weights = (per_kind[0.0] / per_kind[frame["sen"].to_numpy()]).to_numpy()
    fits = [
        sv.multilevel.fit_gaussian("y ~ sen + prior", frame, groups={"school": term}, weights=weights)
        for term in ("1 + sen", "1")
    ]
    ratio = 2 * (fits[0].llf - fits[1].llf)
    assert found.statistic == pytest.approx(ratio, abs=1e-4)
    assert found.p_value == pytest.approx(0.5 * (chi2.sf(ratio, 1) + chi2.sf(ratio, 2)), rel=1e-3)
    assert found.coefficient == pytest.approx(fits[0].params["sen"], abs=1e-4)


def test_one_coefficient_for_all_is_accepted_also_where_pupils_with_sen_vary_more() -> None:
    """Of 8, at most 10 % expected, the ratio and the moderator together: more than 4 in one of 1,000."""
    assert sum(not checked(records(k, noisier=1.4)).constant for k in range(8)) <= 4


def test_generous_labelling_moves_the_coefficient_and_the_verdict_says_so() -> None:
    found = checked(records(2, generosity=0.25), name="recorded SEN")
    row = found.moderators.iloc[0]
    assert not found.constant and row["p_value"] < 0.001 and row["coefficient"] > 0.1 and row["explained"] > 0.5
    assert "higher where labelled share is high" in found.verdict
    assert found.sd == pytest.approx(0.25, abs=0.07)  # two standard errors of an SD over 80 schools


def test_differences_that_go_with_nothing_are_found_without_a_moderator() -> None:
    made = records(3, spread=0.3)
    found = constant_risk(made.outcome, made.sen, made.prior[:, None], made.school, name="need")
    assert not found.constant and len(found.moderators) == 0 and "adjusts schools by" in str(found)
    assert found.lower < found.coefficient < found.upper


def test_bad_inputs() -> None:
    made = records(4)
    with pytest.raises(InputError, match="outcome has no value for 2 pupils"):
        constant_risk(np.where(np.arange(4800) < 2, np.nan, 1.0), made.sen, made.prior[:, None], made.school)
    with pytest.raises(InputError, match="0 schools have pupils with and without"):
        constant_risk(made.outcome, made.sen * 0, made.prior[:, None], made.school)
    with pytest.raises(InputError, match="one row each"):
        constant_risk(made.outcome[1:], made.sen, made.prior[:, None], made.school)
    with pytest.raises(InputError, match="share must be one number a school"):
        constant_risk(made.outcome, made.sen, made.prior[:, None], made.school, moderators={"share": np.ones(80)})
    with pytest.raises(InputError, match="coverage"):
        checked(made, coverage=0.0)
