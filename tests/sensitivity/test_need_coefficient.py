"""Coefficients on need within schools, against least squares with a dummy for every school."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from tipping_world import world

from send_va.errors import InputError, NotSupportedError
from send_va.sensitivity.coefficient import ols_sensitivity
from send_va.sensitivity.need_coefficient import MEANING, need_coefficients
from send_va.value_added.pupil_design import PupilDesign


class Fixed:
    n_draws = 0

    def __init__(self, pi: np.ndarray, severity: np.ndarray | None) -> None:
        self.pi, self.severity = pi, severity

    def plug_in(self) -> tuple[np.ndarray, np.ndarray | None]:
        return self.pi, self.severity

    def draw(self, d: int) -> tuple[np.ndarray, np.ndarray | None]:
        raise IndexError(d)


@pytest.fixture(scope="module")
def with_dummies() -> sm.regression.linear_model.RegressionResultsWrapper:
    known = world()
    design: PupilDesign = known.design
    pi, severity = known.need.scores("entry").plug_in()
    assert severity is not None
    held = list(design.context.fixed("cva"))
    frame = pd.DataFrame({"need": pi[design.order], "severity": severity[design.order]})
    frame[held] = design.rows[:, [design.columns.index(name) for name in held]]
    schools = pd.get_dummies(pd.Series(design.codes), prefix="school", dtype=float)
    return sm.OLS(design.rows[:, -1], pd.concat([frame, schools], axis=1)).fit()


@pytest.mark.parametrize("name", ["severity", "need"])
def test_estimate_robustness_and_bounds_are_those_of_a_regression_with_dummies(name: str, with_dummies: object) -> None:
    ours = need_coefficients(world().design, world().need.scores("entry"), "entry")[name]
    context = world().design.context
    groups = {"prior attainment": context.prior_names, "fsm6": ["fsm6"]} | {
        c.column: c.names for c in context.categories if c.column in ("sex", "ethnicity")
    }
    theirs = ols_sensitivity(with_dummies, name, groups)
    assert (ours.estimate, ours.se, ours.dof) == pytest.approx((theirs.estimate, theirs.se, theirs.dof), rel=1e-7)
    assert ours.robustness == pytest.approx(theirs.robustness, rel=1e-7)
    assert set(theirs.impossible) <= set(ours.impossible)
    both = theirs.benchmarks.merge(ours.benchmarks, on="label", suffixes=("", "_ours"))
    assert len(both) == len(theirs.benchmarks) >= 6
    for column in ("r2_dz", "r2_yz", "adjusted_estimate", "adjusted_se"):
        np.testing.assert_allclose(both[f"{column}_ours"], both[column], rtol=1e-6)
    assert ours.meaning == MEANING and "no effect of need" in str(ours)


def test_alone_leaves_the_other_out_and_label_free_has_no_severity() -> None:
    found = need_coefficients(world().design, world().need.scores("entry"), "entry", kd=[1.0])
    assert list(found) == ["severity", "need", "severity_alone", "need_alone"]
    assert found["severity_alone"].dof == found["severity"].dof + 1
    # severity is what background does not explain of need: none of it goes with prior attainment
    alone = found["severity_alone"].benchmarks.set_index("benchmark")
    assert alone.loc["prior attainment", "r2_dz"] < 0.01
    free = need_coefficients(world().design, world().need.scores("label_free"), "label_free", "prior")
    assert list(free) == ["need"]


def test_bad_input() -> None:
    design, scores = world().design, world().need.scores("entry")
    with pytest.raises(InputError, match="no estimator"):
        need_coefficients(design, scores, "labelled")
    with pytest.raises(InputError, match="no context"):
        need_coefficients(design, scores, "entry", "everything")
    with pytest.raises(InputError, match="no covariate wealth"):
        need_coefficients(design, scores, "entry", benchmarks={"wealth": ["wealth"]})
    by_school = np.linspace(0.1, 0.9, len(design.schools))[design.codes]
    constant = np.empty(len(by_school))
    constant[design.order] = by_school
    with pytest.raises(NotSupportedError, match="does not vary within schools"):
        need_coefficients(design, Fixed(constant, None), "label_free")
