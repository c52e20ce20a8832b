"""Two schools held against each other: normal theory, words, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from send_va.effects import SchoolEffects, school_effects
from send_va.errors import InputError
from send_va.ranking.comparison import Comparison, compare, not_separable


def effects(draws: np.ndarray, names: list[str], **attrs: str) -> SchoolEffects:
    n = np.full(len(names), 40)
    known = {"estimator": "entry", "context": "cva", "unit": "Attainment 8 points"} | attrs
    return school_effects(names, {"theta": draws}, {}, n_pupils=n, n_need=n, flag=[""] * len(names), attrs=known)


def test_two_normal_schools() -> None:
    """Difference N(2, 1 + 0.25 - 2 * 0.3): shared error cancels; bounds within four errors of a quantile."""
    rng = np.random.default_rng(1)
    cov = np.array([[1.0, 0.3], [0.3, 0.25]])
    draws = rng.multivariate_normal([2.0, 0.0], cov, 40_000)
    found = compare(effects(draws, ["A", "B"]), "A", "B")
    sd = np.sqrt(0.65)
    assert found.probability == pytest.approx(norm.cdf(2 / sd), abs=0.002)
    assert found.difference == pytest.approx(2.0, abs=4 * sd / 200)
    assert found.lower == pytest.approx(2 - 1.96 * sd, abs=0.05)
    assert found.upper == pytest.approx(2 + 1.96 * sd, abs=0.05)
    assert found.separated


def test_the_sentence() -> None:
    found = Comparison("A", "B", 0.83, 3.06, -2.04, 8.3, 0.95, "points")
    assert str(found) == (
        "School A's effect is higher than school B's with probability .83; the difference is 3.1 points "
        "(95 % interval -2.0 to 8.3): the records do not separate them."
    )
    sure = Comparison("A", "B", 0.9999, 9.0, 5.0, 13.0, 0.95, "points", assumes="half of it is need")
    assert "probability above .99" in str(sure)
    assert str(sure).endswith("the records separate them. This rests on an assumption: half of it is need.")
    assert "below .01" in str(Comparison("A", "B", 0.0, -9.0, -13.0, -5.0, 0.95, "points"))
    assert sure._repr_html_().startswith("<p>School A")


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.5, 0.99))
def test_turned_round_everything_changes_sign(seed: int, coverage: float) -> None:
    draws = np.random.default_rng(seed).normal([0.5, 0.0], 1.0, (101, 2)).round(1)
    one, other = (compare(draws, *pair, coverage=coverage) for pair in (("1", "2"), ("2", "1")))
    assert one.probability + other.probability == pytest.approx(1.0)
    assert one.difference == pytest.approx(-other.difference)
    assert (one.lower, one.upper) == pytest.approx((-other.upper, -other.lower))
    assert one.separated == other.separated


def test_schools_that_cannot_be_told_from_one() -> None:
    rng = np.random.default_rng(2)
    centres = np.array([0.0, 0.4, -0.2, 6.0, -7.0])
    draws = rng.normal(centres, 1.0, (2000, 5))
    draws[:, 4] = np.nan
    found = not_separable(effects(draws, list("abcde")), "a")
    assert found["school"].tolist() == ["c", "b"]
    for row in found.itertuples():
        pair = compare(effects(draws, list("abcde")), "a", row.school)
        assert row.probability == pytest.approx(pair.probability)
        assert (row.difference, row.lower, row.upper) == pytest.approx((pair.difference, pair.lower, pair.upper))
    assert "d" not in found["school"].tolist()


def test_what_is_refused() -> None:
    draws = np.random.default_rng(1).normal(size=(50, 3))
    draws[:, 2] = np.nan
    some = effects(draws, ["100234", "100567", "999999"])
    with pytest.raises(InputError, match=r"no school '100235'. The nearest name is '100234'"):
        compare(some, "100235", "100567")
    with pytest.raises(InputError, match=r"no school 'zz'. No name is near it"):
        not_separable(some, "zz")
    with pytest.raises(InputError, match="cannot be compared with itself"):
        compare(some, "100234", "100234")
    with pytest.raises(InputError, match="999999 cannot be compared with others"):
        compare(some, "100234", "999999")
    with pytest.raises(InputError, match="coverage"):
        compare(some, "100234", "100567", coverage=1.0)
    with pytest.raises(InputError, match="coverage"):
        not_separable(some, "100234", coverage=0.0)
    with pytest.raises(InputError, match="2 names for 3"):
        compare(draws, "a", "b", schools=["a", "b"])
    with pytest.raises(InputError, match="shape"):
        compare(draws[0], "1", "2")
    with pytest.raises(InputError, match="draws are dict, not a table of numbers"):
        compare({"a": 1}, "1", "2")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no measure"):
        compare(some, "100234", "100567", measure="gap")
