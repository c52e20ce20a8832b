"""Whether feeders' extra labels are need: against statsmodels, and at the true identification parameters."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import statsmodels.api as sm

from send_va.errors import NotSupportedError
from send_va.identification.labels import read_labels
from send_va.identification.model import Parameters
from send_va.identification.need import Need
from send_va.records.reader import Cohort
from send_va.records.simulator import simulate
from send_va.validation.recovery import ROLES
from send_va.value_added.design import context_columns
from send_va.value_added.feeder_sorting import FeederSorting, _within, _zero, estimate_feeder_sorting
from send_va.value_added.pupil_design import PupilDesign, pupil_design


@cache
def at_the_truth(scenario: str) -> tuple[Need, PupilDesign]:
    """Need at the parameters that made the labels; a feeder's leniency as labels show it holds its local need."""
    world = simulate(np.random.default_rng(5), schools=200, scenario=scenario)
    cohort = Cohort.from_pandas(world.pupils, ROLES)
    profile = cohort.profile(3)
    context = context_columns(cohort, profile)
    labels = read_labels(cohort, profile, context)
    explained = (world.pupil_truth["need"] - world.pupil_truth["severity"]).to_numpy()
    feeders = world.feeders.set_index("feeder").loc[[int(name) for name in labels.feeders]]
    las = world.las.set_index("la").loc[[int(name) for name in labels.las]]
    ordered = feeders[["leniency", "leniency_ehcp"]].to_numpy() + feeders[["local_need"]].to_numpy()
    parameters = Parameters(
        gamma=np.linalg.lstsq(labels.x, explained, rcond=None)[0],
        tau=np.array([world.attrs["threshold"], world.attrs["threshold_ehcp"]]),
        intake=world.truth["intake_need"].to_numpy(),
        feeder=ordered,
        la_entry=las[["leniency_entry", "leniency_entry_ehcp"]].to_numpy(),
        intake_variance=0.0,
    )
    need = Need(labels, None, None, parameters, ())  # type: ignore[arg-type]
    return need, pupil_design(cohort, profile, context)


def test_leniency_says_nothing_more_about_outcomes() -> None:
    """Labels are leniency alone: coefficient zero within three standard errors, share near zero."""
    found = estimate_feeder_sorting(*at_the_truth("independent"))
    assert abs(found.coefficient) < 3 * found.coefficient_se
    assert found.lower == 0.0
    assert found.share < 0.15


def test_need_of_feeders_is_found_in_outcomes() -> None:
    """Need of SD .3 beside leniency of SD .5: .09 / .34 of what labels show is need (design: .26 to .29)."""
    found = estimate_feeder_sorting(*at_the_truth("feeder_need"))
    assert found.coefficient < -3 * found.coefficient_se
    assert found.lower < 0.09 / 0.34 < found.upper
    assert found.share == pytest.approx(0.09 / 0.34, abs=0.12)
    assert found.upper - found.lower < 0.5


def test_moving_that_share_takes_the_coefficient_to_zero() -> None:
    """The share is a root: with it counted as need, leniency has nothing left to say.

    A quarter of its standard error: the line between shares is drawn through three of them.
    """
    need, design = at_the_truth("feeder_need")
    share = estimate_feeder_sorting(need, design).share
    labels = need.labels
    pi, severity = need.under(feeder_sorting_share=share).scores("entry").plug_in()
    own = need.parameters.feeder[labels.feeder, 0]
    held = [k for k, name in enumerate(design.columns) if name in design.context.fixed("cva")]
    columns = np.column_stack([own, pi, severity])[design.order]
    coefficient, se = _within(
        np.hstack([columns, design.rows[:, held]]),
        design.rows[:, design.columns.index("outcome")],
        labels.school[design.order],
        labels.feeder[design.order],
    )
    assert abs(coefficient) < 0.25 * se


def test_within_schools_is_least_squares_with_dummies_and_clusters() -> None:
    """statsmodels OLS with school dummies and errors clustered by feeder, without its small-sample factor."""
    rng = np.random.default_rng(3)
    school, feeder = rng.integers(0, 6, 200), rng.integers(0, 30, 200)
    x = rng.standard_normal((200, 3)) + 0.3 * school[:, None]
    y = x @ [0.4, -0.2, 1.0] + 0.5 * school + rng.standard_normal(200) + 0.5 * rng.standard_normal(30)[feeder]
    reference = sm.OLS(y, np.hstack([x, np.eye(6)[school]])).fit(
        cov_type="cluster", cov_kwds={"groups": feeder, "use_correction": False}
    )
    coefficient, se = _within(x, y, school, feeder)
    assert coefficient == pytest.approx(reference.params[0], abs=1e-10)
    assert se == pytest.approx(reference.bse[0], abs=1e-10)


@pytest.mark.parametrize(
    ("coefficients", "share"),
    [((-0.2, 0.0, 0.2), 0.5), ((-0.1, 0.15, 0.4), 0.2), ((0.1, 0.2, 0.3), 0.0), ((-0.5, -0.4, -0.3), 1.0)],
)
def test_a_straight_line_crosses_where_it_does(coefficients: tuple[float, ...], share: float) -> None:
    """Cut to 0 and 1; the interval is the coefficient's, over the slope of the line."""
    found = _zero(np.column_stack([coefficients, np.full(3, 0.02)]))
    slope = coefficients[2] - coefficients[0]
    assert found.share == pytest.approx(share)
    assert found.upper == pytest.approx(np.clip(-coefficients[0] / slope + 1.959964 * 0.02 / slope, 0, 1), abs=1e-6)
    assert found.lower <= found.share <= found.upper


def test_a_bent_line_crosses_at_its_root() -> None:
    """-0.2 + 0.3 s + 0.1 s^2 is zero at s = .5616, between what a line through its ends gives (.5) and 1."""
    shares = np.array([0.0, 0.5, 1.0])
    found = _zero(np.column_stack([-0.2 + 0.3 * shares + 0.1 * shares**2, np.full(3, 0.01)]))
    assert found.share == pytest.approx((-0.3 + np.sqrt(0.17)) / 0.2, abs=1e-9)


def test_a_coefficient_that_no_share_moves_leaves_everything_open() -> None:
    found = _zero(np.column_stack([np.full(3, 0.1), np.full(3, 0.02)]))
    assert (found.lower, found.upper) == (0.0, 1.0)


def test_it_says_what_it_found() -> None:
    said = str(FeederSorting(0.26, 0.1, 0.4, -0.05, 0.012))
    assert "0.26 (0.10 to 0.40)" in said
    assert "-0.050 (SE 0.012)" in said


def test_records_without_entry_labels_or_feeders_are_refused() -> None:
    need, design = at_the_truth("independent")
    bare = replace(need, parameters=replace(need.parameters, feeder=np.zeros((0, 2))))
    for unable in (bare, replace(need, has_entry=False)):
        with pytest.raises(NotSupportedError, match="labels before transfer, and feeders that differ"):
            estimate_feeder_sorting(unable, design)
