"""Unmeasured sorting of schools: units against a simulated truth, multiples by moving a school by hand."""

import numpy as np
import pytest
from tipping_world import fitted, world

from send_va.errors import InputError
from send_va.sensitivity.quintiles import Quintiles
from send_va.sensitivity.unmeasured import robustness_value
from send_va.sensitivity.unmeasured_schools import SortingSensitivity, sorting_sd, unmeasured_schools
from send_va.value_added.labelled import fit_labelled


@pytest.fixture(scope="module")
def found() -> SortingSensitivity:
    return unmeasured_schools(world().design, fitted("entry"), line=2.0)


def test_a_unit_of_sorting_is_the_sd_of_school_means_net_of_chance() -> None:
    design = world().design
    rng = np.random.default_rng(1)
    between = rng.normal(0.0, 0.8, len(design.schools))
    contribution = between[design.codes] + rng.normal(0.0, 5.0, len(design.codes))
    raw, net = sorting_sd(design, contribution)
    chance = np.sqrt(np.mean(25.0 / design.n_pupils))
    assert raw == pytest.approx(np.hypot(between.std(ddof=1), chance), rel=0.15)  # 40 schools
    assert net == pytest.approx(between.std(ddof=1), rel=0.15) and net < raw
    assert sorting_sd(design, rng.normal(0.0, 1e-3, len(design.codes)))[1] < 1e-3


def test_a_school_biased_by_so_many_units_is_just_at_the_line(found: SortingSensitivity) -> None:
    rows, units = found.schools, found.units.set_index("benchmark")["sorting_sd"]
    effects = fitted("entry").effects
    mean, estimate, reliability = (
        effects.data[name].sel(measure="theta").to_numpy() for name in ("mean", "estimate", "reliability")
    )
    of = Quintiles.of(mean)
    for line in ("zero", "quintile", "stated"):
        part = rows[(rows["line"] == line) & (rows["scale"] == "shrunken")]
        moved = mean - reliability * part["times fsm6"].to_numpy() * units["fsm6"]
        np.testing.assert_allclose(moved, part["at"], atol=1e-9)
        own = rows[(rows["line"] == line) & (rows["scale"] == "unshrunken")]
        np.testing.assert_allclose(estimate - own["bias_needed"], own["at"], atol=1e-9)
    part = rows[(rows["line"] == "quintile") & (rows["scale"] == "shrunken")]
    past = mean - part["bias_needed"].to_numpy() * reliability * (1 + 1e-9)
    assert (of.if_moved(past) != of.quintile).all()
    assert (of.if_moved(mean - 0.99 * part["bias_needed"].to_numpy() * reliability) == of.quintile).all()


def test_shares_count_schools_and_the_robustness_value_is_that_of_their_t(found: SortingSensitivity) -> None:
    rows = found.schools
    part = rows[(rows["line"] == "zero") & (rows["scale"] == "shrunken")]
    shares = found.shares.set_index(["line", "scale", "benchmark", "times"])["share"]
    assert shares["zero", "shrunken", "prior attainment", 0.5] == (part["times prior attainment"].abs() <= 0.5).mean()
    effects = fitted("entry").effects.summary("theta")
    dof = effects["n_need"].sum() - len(effects)
    np.testing.assert_allclose(
        part["robustness_value"], robustness_value(effects["estimate"], effects["se"], dof), rtol=1e-12
    )


def test_words_for_one_school_and_for_all(found: SortingSensitivity) -> None:
    school = str(found.schools["school"].iloc[0])
    said = found.words(school, "zero", "unshrunken")
    assert said.startswith(f"School {school} is at") and "times that on prior attainment" in said
    assert "no evidence that it does" in str(found) and "<table" in found._repr_html_()
    with pytest.raises(InputError, match="no school"):
        found.words("nowhere")


def test_every_estimator_and_bad_input() -> None:
    fit = fit_labelled(world().data, "prior", rng=np.random.default_rng(1), draws=5)
    found = unmeasured_schools(world().design, fit)
    assert found.units["benchmark"].tolist() == ["prior attainment"]
    with pytest.raises(InputError, match="no coefficient of fsm6"):
        unmeasured_schools(world().design, fit, benchmarks={"meals": ["fsm6"]})
    for wrong in ([], [0.0]):
        with pytest.raises(InputError, match="multiples"):
            unmeasured_schools(world().design, fit, multiples=wrong)
    with pytest.raises(InputError, match="other schools"):
        fewer = world().design
        unmeasured_schools(type(fewer)(**{**vars(fewer), "schools": fewer.schools[::-1]}), fit)
