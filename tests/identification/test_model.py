"""The two equations of the identification model, against the truth of a simulated cohort and on awkward records."""

from dataclasses import replace

import numpy as np
import pytest
from worlds import labels, need, small, world

from send_va.errors import InputError
from send_va.identification.labels import LabelRecords
from send_va.identification.model import fit_entry, fit_now, now_likelihood


@pytest.fixture(scope="module")
def effects() -> dict[str, np.ndarray]:
    fit = need().entry_fit
    return dict(zip(fit.names, fit.solution.modes, strict=True))


def test_variances_are_near_those_that_made_the_labels() -> None:
    """Within three standard errors of the log SD; authorities (18) are too few for more than an upper bound."""
    solution = need().entry_fit.solution
    truth = world()
    covs = dict(zip(need().entry_fit.names, solution.covariances, strict=True))
    se = np.sqrt(np.diag(solution.parameters_cov))  # log SDs of feeder (support first), then school
    weights = truth.feeders["n_pupils"] > 0
    feeder_sd, intake_sd = truth.feeders["leniency"][weights].std(), truth.truth["intake_need"].std()
    assert abs(0.5 * np.log(covs["feeder"][0, 0]) - np.log(feeder_sd)) < 3 * se[0]
    assert abs(0.5 * np.log(covs["school"][0, 0]) - np.log(intake_sd)) < 3 * se[3]
    assert np.sqrt(covs["feeder"][1, 1]) == pytest.approx(truth.feeders["leniency_ehcp"].std(), abs=0.12)
    assert np.sqrt(covs["la"][0, 0]) < 0.4
    now = dict(zip(need().now_fit.names, need().now_fit.solution.covariances, strict=True))
    assert np.sqrt(now["school"][0, 0]) == pytest.approx(truth.truth["leniency"].std(), abs=0.1)


def test_thresholds_and_need_are_on_the_national_scale() -> None:
    truth, p = world(), need().parameters
    assert p.tau[0] == pytest.approx(truth.attrs["threshold"], abs=0.1)
    assert p.tau[1] == pytest.approx(truth.attrs["threshold_ehcp"], abs=0.25)
    explained = (truth.pupil_truth["need"] - truth.pupil_truth["severity"]).to_numpy()
    found = labels().x @ p.gamma
    assert np.corrcoef(found, explained)[0, 1] > 0.98
    assert np.polyfit(found, explained, 1)[0] == pytest.approx(1.0, abs=0.06)
    assert p.kappa == pytest.approx(truth.scenario.kappa, abs=0.25)
    assert p.rho == pytest.approx([truth.scenario.rho_support, truth.scenario.rho_ehcp], abs=0.4)


def test_leniency_of_feeders_is_recovered_and_shrunken(effects: dict[str, np.ndarray]) -> None:
    feeders = world().feeders.set_index("feeder")["leniency"]
    known = feeders.loc[[int(name) for name in labels().feeders]].to_numpy()
    found = effects["feeder"][:, 0]
    assert np.corrcoef(found, known)[0, 1] > 0.7
    assert np.polyfit(found, known, 1)[0] == pytest.approx(1.0, abs=0.12)  # what shrinkage is for
    n = np.bincount(labels().feeder)
    few, many = n <= np.quantile(n, 0.2), n >= np.quantile(n, 0.8)
    assert found[few].std() < found[many].std()


def test_a_feeder_with_one_pupil_is_hardly_moved() -> None:
    records = small().labels
    feeder = records.feeder.copy()
    alone = int(np.flatnonzero(records.entry == 1)[0])
    feeder[alone] = len(records.feeders)
    changed = replace(records, feeder=feeder, feeders=(*records.feeders, "alone"))
    fit = fit_entry(changed)
    modes = fit.solution.modes[fit.names.index("feeder")]
    assert np.isfinite(modes).all()
    assert 0 < modes[-1, 0] < 0.4
    cov = fit.solution.covariances[fit.names.index("feeder")][0, 0]
    assert fit.solution.mode_covs[fit.names.index("feeder")][-1, 0, 0] > 0.7 * cov  # as uncertain as before


def test_pupils_whose_authority_is_unknown_get_none_of_its_leniency() -> None:
    records = small().labels
    feeder_la = records.feeder_la.copy()
    feeder_la[:200] = -1
    changed = replace(records, feeder_la=feeder_la)
    fit = fit_entry(changed)
    p = fit.parameters(changed)
    assert fit.solution.convergence.converged
    np.testing.assert_array_equal(p.leniency_before(changed)[:200], p.feeder[changed.feeder[:200]])
    whole = p.feeder[changed.feeder] + p.la_entry[changed.feeder_la]
    np.testing.assert_array_equal(p.leniency_before(changed)[200:], whole[200:])


def test_an_authority_with_one_school() -> None:
    records = small().labels
    la, feeder_la = records.la.copy(), records.feeder_la.copy()
    la[records.school == 0] = feeder_la[records.school == 0] = len(records.las)
    changed = replace(
        records, la=la, feeder_la=feeder_la, las=(*records.las, "alone"), feeder_las=(*records.feeder_las, "alone")
    )
    fit = fit_entry(changed)
    p = fit.parameters(changed)
    now = fit_now(changed, fit, p)
    complete = now.complete(p, now.solution)
    for values in (p.la_entry, p.intake, complete.la_now, complete.school):
        assert np.isfinite(values).all()
        assert np.abs(values).max() < 3


def test_without_feeders_or_intake_the_terms_are_left_out() -> None:
    records = small().labels
    n = len(records.now)
    bare = replace(records, feeders=(), feeder=np.full(n, -1), component=np.zeros(len(records.schools), dtype=np.intp))
    fit = fit_entry(bare)
    assert "feeder" not in fit.names
    assert fit.parameters(bare).feeder.shape == (0, 2)
    np.testing.assert_array_equal(fit.parameters(bare).leniency_before(bare)[:, 0], _of_areas(fit, bare))
    assert "school" not in fit_entry(records, intake=False).names


def _of_areas(fit: object, records: object) -> np.ndarray:
    return fit.parameters(records).la_entry[records.feeder_la, 0]


def test_labels_of_another_kind_can_stand_in() -> None:
    """Labels passed explicitly replace those of the records: the label now as if it had been set before."""
    records = small().labels
    by_now = fit_entry(records, records.now)
    swapped = fit_entry(replace(records, entry=records.now))
    assert by_now.solution.llf == swapped.solution.llf


def test_pupils_without_label_feeder_or_connection_are_not_fitted_to() -> None:
    records = small().labels
    entry, feeder, component = records.entry.copy(), records.feeder.copy(), records.component.copy()
    entry[:50], feeder[50:90] = -1, -1
    component[records.school[-1]] = 1
    fit = fit_entry(replace(records, entry=entry, feeder=feeder, component=component))
    left_out = set(range(90)) | set(np.flatnonzero(records.school == records.school[-1]))
    assert set(fit.rows) == set(range(len(entry))) - left_out


def test_any_sen_alone_makes_one_threshold() -> None:
    records = small().labels
    single = replace(records, now=np.minimum(records.now, 1), entry=np.minimum(records.entry, 1))
    assert single.levels == 1
    fit = fit_entry(single)
    p = fit.parameters(single)
    assert p.tau.shape == (1,)
    now = fit_now(single, fit, p)
    assert now.complete(p, now.solution).school.shape == (len(records.schools), 1)


def test_labels_that_hardly_change_leave_leniency_of_schools_open() -> None:
    """None, rather than an estimate that stands on nothing: below twenty changes there is no equation now."""
    records = small().labels
    now = records.entry.copy()
    now[np.flatnonzero(records.entry == 0)[:19]] = 1
    still = replace(records, now=now)
    fit = small().entry_fit
    assert fit_now(still, fit, fit.parameters(still)) is None


def test_the_label_before_bounds_judged_need() -> None:
    """Cuts are thresholds less leniency and explained need; the label before says between which two need lies."""
    records, fit = small().labels, small().entry_fit
    p = fit.parameters(records)
    likelihood = now_likelihood(records, fit.rows, p, 0.9)
    base = p.base(records)
    cut = p.tau - base[:, None] - p.leniency_before(records)
    entry = records.entry
    assert likelihood.reliability == 0.9
    np.testing.assert_allclose(likelihood.low[entry == 1], cut[entry == 1, 0])
    np.testing.assert_allclose(likelihood.high[entry == 0], cut[entry == 0, 0])
    assert (likelihood.low[entry == 0] < -1e8).all()
    assert (likelihood.high[entry == 2] > 1e8).all()
    assert (likelihood.high > likelihood.low).all()


def test_labels_that_change_one_way_only_leave_leniency_of_schools_open() -> None:
    """Nobody with an EHCP loses it, or nobody gains a label: what a label before adds has no bound."""
    records, fit = small().labels, small().entry_fit
    kept = replace(records, now=np.where(records.entry == 2, 2, records.now))
    lost_only = replace(records, now=np.where(records.entry == 0, 0, np.minimum(records.now, records.entry)))
    for changed in (kept, lost_only):
        assert changed.levels == 2
        assert fit_now(changed, fit, fit.parameters(changed)) is None


def with_nine_plans(column: str) -> LabelRecords:
    records = small().labels
    values = getattr(records, column)
    return replace(records, **{column: np.where(np.cumsum(values == 2) <= 9, values, np.minimum(values, 1))})


def test_a_label_that_hardly_occurs_has_no_threshold_of_its_own() -> None:
    """Nine EHCPs before transfer: any SEN in place of support and EHCP, and both equations hold."""
    changed = with_nine_plans("entry")
    assert changed.levels == 1
    fit = fit_entry(changed)
    p = fit.parameters(changed)
    assert p.tau.shape == (1,)
    assert fit_now(changed, fit, p) is not None


def test_labels_now_have_no_say_in_the_entry_equation() -> None:
    """Nine EHCPs now: the rated school's labels do not change a byte of it; its own leniency cannot be told."""
    before, after = fit_entry(small().labels), fit_entry(with_nine_plans("now"))
    np.testing.assert_array_equal(before.solution.beta, after.solution.beta)
    np.testing.assert_array_equal(before.solution.parameters, after.solution.parameters)
    changed = with_nine_plans("now")
    assert fit_now(changed, after, after.parameters(changed)) is None


@pytest.mark.parametrize("label", [0, 1])
def test_labels_that_do_not_vary_are_refused(label: int) -> None:
    records = small().labels
    with pytest.raises(InputError, match=r"labels at entry do not vary.*Check \[sen\] and sen_status_entry"):
        fit_entry(replace(records, entry=np.full(len(records.now), label)))
