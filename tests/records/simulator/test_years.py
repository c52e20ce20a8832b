"""Several synthetic cohorts: who stays, who is new, and how effects drift."""

import numpy as np
import pytest

import send_va as sv
from send_va.errors import InputError


def drawn(seed: int = 1, **options: object) -> sv.SimulatedYears:
    kept: dict[str, object] = {"schools": 30, "pupils_per_school": 20.0, "cohorts": 3, "ahead": 2} | options
    return sv.simulate_years(np.random.default_rng(seed), **kept)  # type: ignore[arg-type]


def test_schools_stay_and_pupils_are_new() -> None:
    years = drawn()
    assert years.pupils["pupil"].is_unique
    assert years.pupils.groupby("cohort")["school"].nunique().tolist() == [30, 30, 30]
    assert years.pupils.groupby("school")["la"].nunique().max() == 1
    assert years.attrs["synthetic"] is True and "Synthetic cohorts" in str(years.attrs["title"])
    counts = years.truth.groupby("cohort")["n_pupils"].sum()
    assert counts.tolist()[:3] == years.pupils.groupby("cohort").size().tolist() and counts.tolist()[3:] == [0, 0]


def test_same_seed_same_bytes() -> None:
    first, second = drawn(7), drawn(7)
    assert first.pupils.equals(second.pupils) and first.truth.equals(second.truth)
    assert not drawn(8).pupils["outcome"].equals(first.pupils["outcome"])


def test_effects_have_the_stated_autocorrelation() -> None:
    years = drawn(schools=3000, pupils_per_school=5.0, cohorts=1, ahead=5, lasting=0.5, persistence=0.7)
    for measure in ("u", "s", "theta"):
        wide = years.truth.pivot(index="school", columns="year", values=measure)
        found = [np.corrcoef(wide.iloc[:, 0], wide.iloc[:, lag])[0, 1] for lag in range(6)]
        np.testing.assert_allclose(found, years.autocorrelation, atol=0.05)
        np.testing.assert_allclose(wide.std(), wide.std().mean(), rtol=0.06)
    np.testing.assert_allclose(years.autocorrelation, 0.5 + 0.5 * 0.7 ** np.arange(6))
    np.testing.assert_allclose(years.truth.groupby("year")["theta"].mean(), 0.0, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cohorts": 0}, "cohorts must be 1 or more"),
        ({"lasting": 1.2}, "lasting must lie between"),
        ({"persistence": -0.1}, "persistence must lie between"),
        ({"scenario": "lenient_better"}, "go with their leniency"),
        ({"schools": 3}, "at least 10"),
    ],
)
def test_worlds_that_cannot_be_drawn_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        drawn(**options)
