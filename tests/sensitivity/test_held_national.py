"""One block at a time against everything anew with the same national parameters, and against the fits themselves."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from audit_world import CONTEXTS, Records, need_of, records, world
from numpy.typing import NDArray

from send_va.errors import BoundaryWarning, InputError, NotSupportedError
from send_va.identification.labels import LabelRecords
from send_va.identification.need import Need
from send_va.multilevel.crossproducts import CrossProducts
from send_va.multilevel.elimination import Level, eliminate
from send_va.multilevel.nested import conditional_modes
from send_va.records.design_columns import INTERCEPT, OUTCOME
from send_va.sensitivity.audit_settings import AuditSettings
from send_va.sensitivity.held_estimators import HeldEstimator, HeldLabelled, HeldNeed, hold_labelled, hold_need
from send_va.sensitivity.held_identification import HeldIdentification
from send_va.sensitivity.incentives import knowledge
from send_va.sensitivity.school_acts import ACTIONS, LABELLING_ACTS, consequences, school_act
from send_va.value_added.changing_products import NeedColumns, design_rows, weighted_products
from send_va.value_added.labelled import LabelledColumns, fit_labelled
from send_va.value_added.strata import combine

Floats = NDArray[np.float64]
SIZES, CONTEXT = (*[1] * 10, *[8] * 7), "composition"


@cache
def held() -> dict[str, HeldEstimator]:
    base, need = records(), need_of()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        found: dict[str, HeldEstimator] = {"labelled": hold_labelled(base.design, base.labels, base.data, CONTEXTS)}
        return found | {name: hold_need(base.design, need, name, CONTEXTS) for name in need.estimators}


@pytest.mark.parametrize("estimator", ["labelled", "standardised", "entry", "label_free"])
@pytest.mark.parametrize("context", CONTEXTS)
def test_nothing_changed_gives_the_conditional_means_of_the_fit(estimator: str, context: str) -> None:
    one = held()[estimator]
    equation = one.equations[context]
    # Sums in another order, and modes of identification that its search leaves 1e-8 off at most: rounding.
    assert np.abs(one.before[context].effects - equation.fitted).max() < 1e-9 * equation.outcome_sd


def test_own_intake_need_and_leniency_are_where_the_joint_fit_has_them() -> None:
    need = need_of()
    parameters, settled = HeldIdentification(need).parameters()
    assert settled.all()
    # The joint search ends at a Newton decrement of 1e-8 over all effects together.
    np.testing.assert_allclose(parameters.intake, need.parameters.intake, atol=1e-6)
    np.testing.assert_allclose(parameters.school, need.parameters.school, atol=1e-6)


def cases() -> Iterator[list[tuple[int, str, str]]]:
    """Schools, actions and estimators at random, always the same; ten alone in their records, the others by eight."""
    rng = np.random.default_rng(20261122)
    for size in SIZES:
        schools = rng.choice(len(records().design.schools), size, replace=False)
        yield [(int(school), str(rng.choice(ACTIONS)), str(rng.choice(list(held())))) for school in schools]


def test_one_block_equals_a_full_recomputation_with_national_parameters_held() -> None:
    base, settings = records(), AuditSettings()
    known, _, _ = knowledge(list(held().values()), base.design, base.labels, need_of(), 1, settings, CONTEXT)
    acts = {action: school_act(action, known, settings) for action in ACTIONS}
    once = {
        (action, name): one.at(*next(consequences(acts[action], known.now, settings))[1:])[CONTEXT].effects
        for action in ACTIONS
        for name, one in held().items()
    }
    done = 0
    for drawn in cases():
        possible = [case for case in drawn if not acts[case[1]].reason[case[0]]]
        chosen = {
            school: (action, base.design.order[acts[action].chosen & (base.design.codes == school)])
            for school, action, _ in possible
        }
        changed = changed_records(chosen)
        everywhere = {name: recomputed(held()[name], changed) for name in {case[2] for case in possible}}
        others = ~np.isin(np.arange(len(base.design.schools)), list(chosen))
        for school, action, estimator in possible:
            after, before = everywhere[estimator], held()[estimator].before[CONTEXT].effects
            scale = held()[estimator].equations[CONTEXT].outcome_sd
            assert np.abs(after[school] - once[action, estimator][school]).max() < 1e-8 * scale
            assert np.abs(after[others] - before[others]).max() < 1e-8 * scale
            moved = np.abs(after[school] - before[school]).max() / scale
            idle = action in LABELLING_ACTS and estimator in ("entry", "label_free")
            assert moved < 1e-8 if idle else moved > 1e-6
            done += 1
    assert done >= 50


def changed_records(chosen: dict[int, tuple[str, NDArray[np.int64]]]) -> Records:
    """The records with rows of some schools relabelled or gone, everything else as it was."""
    pupils = world().pupils
    status, gone = pupils["sen_status"].to_numpy(dtype=object).copy(), np.zeros(len(pupils), dtype=bool)
    for action, rows in chosen.values():
        if action in LABELLING_ACTS:
            status[rows] = "K" if action == "label_more" else "N"
        else:
            gone[rows] = True
    return Records.read(pupils.assign(sen_status=status)[~gone], like=records())


def recomputed(one: HeldEstimator, changed: Records) -> Floats:
    """Effects of all schools from other records: cross-products of all columns, school by school eliminated."""
    products = labelled_again(one, changed) if one.estimator == "labelled" else need_again(one, changed)
    equation = one.equations[CONTEXT]
    names = list(products.columns)
    level = Level(products.index([INTERCEPT, "need", "prior_slope"]))
    factor = np.linalg.cholesky(equation.covariance / equation.scale)
    direction = np.zeros(len(names))
    coefficients = coefficients_of(one)
    for name, value in coefficients.items():
        direction[names.index(name)] = -value
    direction[names.index(OUTCOME)] = 1.0
    centred = dict(zip(names, products.center, strict=True))
    direction[names.index(INTERCEPT)] += centred[OUTCOME] - sum(coefficients[k] * centred[k] for k in coefficients)
    return conditional_modes([eliminate(products.products, level, factor)], [level], direction)[0]


def coefficients_of(one: HeldEstimator) -> dict[str, float]:
    """National coefficients, read off what the equation takes out of outcomes."""
    equation, design = one.equations[CONTEXT], records().design
    changing = ("need", "ehcp") if one.estimator == "labelled" else ("need", "severity")
    changing = changing[: len(equation.need_beta)]
    names = list(design.context.fixed("composition"))
    means = dict(zip(design.mean_names, design.means[design.codes].T, strict=True))
    x = [
        means[n] if n in means else design.rows[:, design.columns.index(n)] + design.center[design.columns.index(n)]
        for n in names
    ]
    x = np.column_stack([np.ones(len(design.rows)), *x])
    found = np.linalg.lstsq(x, equation.outcome - equation.left_over, rcond=None)[0]
    return dict(zip([INTERCEPT, *names], found, strict=True)) | dict(zip(changing, equation.need_beta, strict=True))


def labelled_again(one: HeldEstimator, changed: Records) -> CrossProducts:
    assert isinstance(one, HeldLabelled)
    columns = LabelledColumns.of(changed.data, CONTEXT, True)
    strata = [part.select(columns.held) for part in changed.data.strata]
    return combine(strata, 1.0 / one.residual_variance[CONTEXT])


def need_again(one: HeldEstimator, changed: Records) -> CrossProducts:
    assert isinstance(one, HeldNeed)
    need = need_for(changed)
    pi, severity = HeldIdentification(need).scores(one.estimator)
    scores = np.column_stack([part[changed.design.order] for part in (pi, severity) if part is not None])
    columns = NeedColumns.of(changed.design, CONTEXT, severity is not None, True)
    reference = records().design.prior_at(one.columns_before[:, 0])
    rows = design_rows(changed.design, columns, scores, reference)
    weights = 1.0 / one.residual[CONTEXT].at(scores[:, 0])
    return weighted_products(changed.design, columns, rows, weights)


def need_for(changed: Records) -> Need:
    """The identification model with these labels and its estimates as they were."""
    before, need = records().labels, need_of()
    labels = as_coded(changed.labels, before)
    rows = np.flatnonzero(labels.used_at_entry)
    now_fit = replace(need.now_fit, rows=rows)
    return replace(need, labels=labels, entry_fit=replace(need.entry_fit, rows=rows), now_fit=now_fit)


def as_coded(labels: LabelRecords, before: LabelRecords) -> LabelRecords:
    """With the scale of predictors and the codes of feeders of other records."""
    assert labels.x_names == before.x_names
    assert (labels.schools, labels.las, labels.feeder_las) == (before.schools, before.las, before.feeder_las)
    codes = np.array([before.feeders.index(name) for name in labels.feeders])
    x = (labels.x * labels.x_sd + labels.x_mean - before.x_mean) / before.x_sd
    return replace(labels, x=x, feeder=codes[labels.feeder], feeders=before.feeders, component=before.component)


def test_terms_on_the_roll_are_frequencies() -> None:
    """Thirteen of fifteen terms: as if a pupil stood thirteen times in records that hold every other fifteen times."""
    one = held()["entry"]
    weight = np.ones(len(records().design.rows))
    weight[::7] = 13.0 / 15.0
    some = one.at(weight=weight)["prior"].effects
    equation, columns = one.equations["prior"], one.need_columns(weight=weight)
    precision = weight / one.relative_variance("prior", columns)
    left = equation.left_over - columns @ equation.need_beta
    z = np.column_stack([np.ones(len(left)), columns[:, 0], equation.slope])
    inverse = np.linalg.inv(equation.covariance / equation.scale)
    for school in (0, 7, 31):
        run = slice(equation.starts[school], equation.starts[school + 1])
        zw = z[run] * precision[run, None]
        np.testing.assert_allclose(
            some[school], np.linalg.solve(zw.T @ z[run] + inverse, zw.T @ left[run]), rtol=1e-9, atol=1e-12
        )


def test_other_outcomes_move_effects_as_they_would_from_the_start() -> None:
    one = held()["label_free"]
    equation = one.equations["prior"]
    more = one.at(outcome=equation.outcome + 2.0)["prior"]
    assert (more.mean("u") > one.before["prior"].mean("u")).all()
    same = one.at(outcome=equation.outcome)["prior"]
    np.testing.assert_array_equal(same.effects, one.before["prior"].effects)


@pytest.mark.filterwarnings("ignore::send_va.errors.BoundaryWarning")
def test_unshrunken_estimates_are_those_of_the_fit() -> None:
    base = records()
    fit = fit_labelled(base.data, "prior", rng=np.random.default_rng(1), draws=2)
    own = held()["labelled"].before["prior"].own
    for measure in ("theta", "u", "gap"):
        table = fit.effects.summary(measure)
        np.testing.assert_allclose(own.estimate[measure], table["estimate"], rtol=1e-8)
        np.testing.assert_allclose(own.se[measure], table["se"], rtol=1e-8)


@pytest.mark.filterwarnings("ignore::send_va.errors.BoundaryWarning")
@pytest.mark.parametrize(("by_need", "slope"), [(False, True), (True, False)])
def test_plainer_models_are_held_too(by_need: bool, slope: bool) -> None:
    base, need = records(), need_of()
    options = {"residual_by_need": by_need, "prior_slope": slope}
    for one in (
        hold_labelled(base.design, base.labels, base.data, ["prior"], **options),
        hold_need(base.design, need, "entry", ["prior"], **options),
    ):
        equation = one.equations["prior"]
        assert equation.fitted.shape[1] == 2 + slope
        assert np.abs(one.before["prior"].effects - equation.fitted).max() < 1e-9 * equation.outcome_sd
        assert np.isfinite(one.before["prior"].own.estimate["u"]).all()


@pytest.mark.filterwarnings("ignore::send_va.errors.BoundaryWarning")
def test_a_status_nobody_has_yet_counts_as_need() -> None:
    pupils = world().pupils
    base = Records.read(pupils.assign(sen_status=pupils["sen_status"].replace("K", "N")))
    one = hold_labelled(base.design, base.labels, base.data, ["prior"])
    assert one.status_columns == ("need",)
    now = np.where(one.now == 2, 1, one.now)  # support in place of every EHCP: the same indicator of need
    np.testing.assert_array_equal(one.at(now)["prior"].effects, one.before["prior"].effects)


def test_what_cannot_be_asked_for() -> None:
    base, need = records(), need_of()
    with pytest.raises(InputError, match="no measure"):
        held()["entry"].before["prior"].mean("effect")
    with pytest.raises(NotSupportedError, match="whose label changed"):
        hold_need(base.design, replace(need, now_fit=None), "standardised", ["prior"])
    with pytest.raises(InputError, match="no context"):
        hold_need(base.design, need, "entry", ["region"])


def test_schools_that_are_not_compared_are_missing() -> None:
    base, need = records(), need_of()
    component = np.zeros(len(base.design.schools), dtype=np.intp)
    component[4] = 1
    apart = replace(need, labels=replace(need.labels, component=component))
    one = hold_need(base.design, apart, "label_free", ["prior"])
    missing = np.isnan(one.before["prior"].mean("theta"))
    assert missing[4]
    assert missing.sum() == 1
