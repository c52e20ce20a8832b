"""Where estimators disagree."""

import numpy as np
import pytest

from send_va.effects import SchoolEffects, school_effects
from send_va.errors import InputError
from send_va.value_added.disagreement import disagreements


def effects(estimator: str, context: str, level: list[float], seed: int, schools: str = "ABC") -> SchoolEffects:
    draws = np.array(level) + np.random.default_rng(seed).standard_normal((4000, len(level)))
    counts = np.full(len(level), 9)
    return school_effects(
        list(schools),
        {"theta": draws},
        {"theta": {"mean": np.array(level)}},
        n_pupils=counts,
        n_need=counts,
        flag=[""] * len(level),
        attrs={"estimator": estimator, "context": context, "outcome_sd": 10.0},
    )


def test_differences_in_pupil_sds() -> None:
    all_of_them = [
        effects("labelled", "cva", [0.5, 0.0, 3.0], 1),
        effects("entry", "cva", [0.0, 0.0, 0.0], 2),
        effects("labelled", "prior", [9.0, 9.0, 9.0], 3),
    ]
    table = disagreements(all_of_them)
    assert table["context"].unique().tolist() == ["cva"]  # the headline is not there in `prior`
    assert table["against"].unique().tolist() == ["entry"]
    np.testing.assert_allclose(table["difference_sd"], [0.05, 0.0, 0.3])
    assert table["disagrees"].tolist() == [False, False, True]


def test_the_amount_is_the_readers() -> None:
    both = [effects("entry", "cva", [0.0, 0.0, 0.0], 1), effects("labelled", "cva", [0.5, 0.0, 3.0], 2)]
    assert disagreements(both, amount=0.04)["disagrees"].tolist() == [True, False, True]
    assert disagreements(both, headline="labelled")["difference"].tolist() == [-0.5, 0.0, -3.0]
    assert disagreements(both[:1]).empty


def test_bad_input_is_refused() -> None:
    entry = effects("entry", "cva", [0.0, 0.0, 0.0], 1)
    with pytest.raises(InputError, match=r"no estimator 'standardised' to compare with.* There is entry"):
        disagreements([entry], headline="standardised")
    with pytest.raises(InputError, match="above zero, not 0"):
        disagreements([entry], amount=0.0)
    with pytest.raises(InputError, match="labelled and entry hold different schools"):
        disagreements([entry, effects("labelled", "cva", [0.0, 0.0, 0.0], 1, schools="ABD")])
