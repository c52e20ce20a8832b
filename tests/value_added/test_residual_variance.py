"""The residual variance function: known ones are found; with certain need it is one variance a group."""

from dataclasses import replace

import numpy as np
import pytest
from true_scores import ROLES, design_of

from send_va.records.reader import Cohort
from send_va.records.simulator import simulate
from send_va.value_added.changing_products import NeedColumns
from send_va.value_added.design import context_columns, labelled_products
from send_va.value_added.labelled import fit_labelled
from send_va.value_added.residual_variance import ResidualVariance, fit_weighted


def test_three_ways_to_write_it() -> None:
    function = ResidualVariance(4.0, 7.0, 9.0)
    v0, v1, v2 = function.coefficients
    pi = np.linspace(0, 1, 11)
    np.testing.assert_allclose(function.at(pi), v0 + v1 * pi + v2 * pi * (1 - pi), rtol=1e-12)


@pytest.mark.parametrize("truth", [ResidualVariance(100.0, 160.0, 225.0), ResidualVariance(150.0, 80.0, 90.0)])
def test_a_known_function_is_found(truth: ResidualVariance) -> None:
    """Outcomes drawn with v(pi) on 35,000 pupils: each coefficient within four standard errors.

    A mean of n squares has a relative standard error of sqrt(2 / n); a coefficient that rests on about a tenth of the
    pupils, sqrt(20 / 35,000) = 2.4 %.
    """
    world = simulate(np.random.default_rng(8), schools=200)
    design = design_of(world.pupils)
    rng = np.random.default_rng(2)
    pi = rng.beta(0.4, 0.6, size=len(design.rows))
    rows = design.rows.copy()
    u, s = rng.normal(0, 3, 200), rng.normal(0, 3, 200)
    noise = np.sqrt(truth.at(pi)) * rng.standard_normal(len(pi))
    rows[:, -1] = u[design.codes] + (s[design.codes] - 5.0) * pi + noise
    columns = NeedColumns.of(design, "prior", False, True)
    fit = fit_weighted(replace(design, rows=rows), columns, pi[:, None], 100.0)
    assert fit.settled
    for name in ("without", "between", "with_need"):
        assert getattr(fit.residual, name) == pytest.approx(getattr(truth, name), rel=4 * 0.024), name
    sd = np.sqrt(np.diag(fit.solution.covariances[0]))
    assert sd[:2] == pytest.approx([3.0, 3.0], rel=4 * 0.5 / np.sqrt(2 * 200) * 2)


def test_certain_need_is_one_variance_a_group() -> None:
    """With pi 0 or 1 it is the labelled estimator (checked against nlme): to 1e-3, at which the passes stop."""
    pupils = simulate(np.random.default_rng(9), schools=60).pupils
    pupils["sen_status"] = pupils["sen_status"].replace("E", "K")
    cohort = Cohort.from_pandas(pupils, ROLES)
    profile = cohort.profile(3)
    products = labelled_products(cohort, profile, context_columns(cohort, profile))
    reference = fit_labelled(products, "cva", rng=np.random.default_rng(1), draws=100)
    variance = reference.variance_components.query("group == 'Residual'").set_index("term1")["variance"]
    design = design_of(pupils)
    pi = (pupils["sen_status"] != "N").to_numpy(dtype=float)[design.order]
    columns = NeedColumns.of(design, "cva", False, True)
    fit = fit_weighted(design, columns, pi[:, None], products.prior_reference)
    assert fit.residual.without == pytest.approx(variance["none"], rel=1e-3)
    assert fit.residual.with_need == pytest.approx(variance["support"], rel=1e-3)
    assert fit.residual.coefficients[2] == pytest.approx(0.0, abs=1e-3 * variance["none"])  # nothing says otherwise
    assert fit.solution.llf == pytest.approx(reference.effects.attrs["llf"], abs=1e-3)
    modes = fit.solution.modes[0]
    np.testing.assert_allclose(modes[:, 0] + modes[:, 1], reference.effects.summary("theta")["mean"], atol=5e-3)


def test_one_variance_for_all_on_request() -> None:
    design = design_of(simulate(np.random.default_rng(9), schools=20, pupils_per_school=40).pupils)
    pi = np.random.default_rng(1).uniform(size=(len(design.rows), 1))
    fit = fit_weighted(design, NeedColumns.of(design, "prior", False, True), pi, 100.0, by_need=False)
    np.testing.assert_array_equal(fit.weights, 1.0)
    assert fit.residual.coefficients == (fit.solution.scale, 0.0, 0.0)
