"""Tipping points by brute force: set a school's leniency, or its pupils' need, and look at its quintile."""

from dataclasses import replace

import numpy as np
import pytest
from tipping_world import fitted, held, world

from send_va.errors import InputError, NotSupportedError
from send_va.identification.need import Need, estimate_need
from send_va.identification.scores import both_need, entry_need
from send_va.sensitivity.held_estimators import hold_need
from send_va.sensitivity.held_identification import HeldIdentification
from send_va.sensitivity.labellers import Labellers
from send_va.sensitivity.quintiles import Quintiles
from send_va.sensitivity.tipping import Tipping, tip_by_leniency, tip_by_need

ESTIMATORS = ("entry", "standardised")


@pytest.fixture(scope="module")
def leniency() -> dict[str, Tipping]:
    return {name: tip_by_leniency(held(name), world().need) for name in ESTIMATORS}


def theta(name: str, pi: np.ndarray, severity: np.ndarray) -> np.ndarray:
    columns = np.column_stack([pi, severity])[held(name).order]
    return held(name).with_columns(columns)["cva"].mean("theta")


def with_own_leniency(j: int, shift: float) -> float:
    """Theta of school j, its own leniency now moved, straight from the identification model."""
    need = world().need
    known, _ = held("standardised").identification.parameters()
    school = known.school.copy()
    school[j] += shift
    scores = both_need(need.labels, replace(known, school=school), need.assumptions, need.labels.entry)
    return float(theta("standardised", *scores)[j])


def with_feeders_leniency(j: int, shift: float) -> float:
    """Theta of school j, every feeder of its pupils moved (for all schools alike; only j is read)."""
    need: Need = world().need
    met = np.unique(need.labels.feeder[need.labels.school == j])
    feeder = need.parameters.feeder.copy()
    feeder[met[met >= 0]] += shift
    moved = replace(need, parameters=replace(need.parameters, feeder=feeder))
    known, settled = HeldIdentification(moved).parameters(leniency=False)
    assert settled[j]
    return float(theta("entry", *entry_need(need.labels, known, need.assumptions, need.labels.entry))[j])


@pytest.mark.parametrize(("name", "alone"), [("entry", with_feeders_leniency), ("standardised", with_own_leniency)])
def test_at_the_tipping_leniency_the_quintile_changes_just_beyond_and_not_just_before(
    name: str, alone: object, leniency: dict[str, Tipping]
) -> None:
    found = leniency[name]
    now = Quintiles.of(held(name).before["cva"].mean("theta"))
    tried = 0
    for side in ("more", "less"):
        for j in found.table.index[found.table[side].notna()][:5]:
            size = float(found.table[side].iloc[j])
            for factor, changes in ((1e-3, True), (-1e-3, False)):
                moved = now.values.copy()
                moved[j] = alone(j, found.size * (size + factor * np.sign(size)))  # type: ignore[operator]
                assert (now.if_moved(moved)[j] != now.quintile[j]) is np.bool_(changes)
                if changes:
                    assert now.if_moved(moved)[j] == found.table[f"{side}_to"].iloc[j]
            tried += 1
    assert tried >= 6


def test_more_lenient_feeders_mean_less_need_and_a_lower_theta_where_need_goes_with_slower_progress() -> None:
    labellers = Labellers.of(held("entry"), world().need, "cva")
    schools = len(world().design.schools)
    none, one = (labellers.scores(np.full(schools, shift)) for shift in (0.0, 1.0))
    labelled = world().labels.entry > 0
    assert one[0][labelled].mean() < none[0][labelled].mean() and one[1].mean() < none[1].mean() - 0.3
    assert held("entry").equations["cva"].need_beta[1] < 0
    known = held("entry").columns_before
    np.testing.assert_allclose(none[0][held("entry").order], known[:, 0], atol=1e-6)  # modes found to 1e-7
    moved = labellers.values(np.full(schools, 1.0)).mean("theta") - labellers.values(np.zeros(schools)).mean("theta")
    assert moved.mean() < -0.3


def test_a_shift_of_one_school_leaves_the_others_where_they_are() -> None:
    for name in ESTIMATORS:
        labellers = Labellers.of(held(name), world().need, "cva")
        shift = np.zeros(len(world().design.schools))
        all_of_them = labellers.values(shift + 0.7).mean("theta")
        before = labellers.values(shift).mean("theta")
        shift[4] = 0.7
        after = labellers.values(shift).mean("theta")
        assert after[4] == pytest.approx(all_of_them[4], abs=1e-7)
        np.testing.assert_allclose(np.delete(after, 4), np.delete(before, 4), atol=1e-7)


def test_at_the_tipping_need_the_quintile_changes_just_beyond_and_not_just_before() -> None:
    known = held("entry")
    found = tip_by_need(known, world().need)
    now = Quintiles.of(known.before["cva"].mean("theta"))
    for side in ("more", "less"):
        size = found.table[side].to_numpy()
        there = np.isfinite(size)
        assert there.sum() > 20
        for factor, changes in ((1 + 1e-6, True), (1 - 1e-6, False)):
            columns = known.columns_before.copy()
            # need beyond severity of pupils with need: to the fixed effects it is severity that is not in the records
            columns[:, 1] += np.where(there, size * factor, 0.0)[known.equations["cva"].codes] * columns[:, 0]
            moved = now.if_moved(known.with_columns(columns)["cva"].mean("theta"))
            assert ((moved != now.quintile) == changes)[there].all()
            if changes:
                np.testing.assert_array_equal(moved[there], found.table.loc[there, f"{side}_to"].to_numpy())
    assert found.intake_sd == pytest.approx(np.sqrt(world().need.parameters.intake_variance))


def test_shares_words_and_flags_agree(leniency: dict[str, Tipping]) -> None:
    found = leniency["entry"]
    table = found.table
    more = table["more"].to_numpy()
    assert found.share_at(1.0) == pytest.approx(np.mean(more <= 1.0), abs=0.051)  # one that comes back may differ
    assert found.share_at(0.0) == 0.0
    np.testing.assert_array_equal(table["robust"], ~(table["nearest"].abs() <= 1.0))
    assert "feeders of a school were 1 SD more lenient" in str(found) and "<table" in found._repr_html_()
    j = int(table.index[table["more"].notna()][0])
    assert f"moves it to quintile {table['more_to'].iloc[j]}" in found.words(str(table["school"].iloc[j]))
    with pytest.raises(InputError, match="no school"):
        found.words("nowhere")
    with pytest.raises(InputError, match="not among the departures"):
        found.share_at(0.3)


def test_published_effects_give_the_order_and_changes_are_added_to_them() -> None:
    effects = fitted("entry").effects
    found = tip_by_need(held("entry"), world().need, effects=effects)
    np.testing.assert_allclose(found.table["theta"], effects.summary("theta")["mean"], rtol=1e-12)
    with pytest.raises(InputError, match="not entry and cva"):
        tip_by_need(held("entry"), world().need, effects=fitted("standardised").effects)


def test_without_labels_before_transfer_what_leniency_gains_intake_loses() -> None:
    known = world()
    labels = replace(known.labels, entry=np.full_like(known.labels.entry, -1))
    need = estimate_need(labels, seed=1, draws=0)
    alone = hold_need(known.design, need, "standardised", ["cva"])
    labellers = Labellers.of(alone, need, "cva")
    none, one = (labellers.scores(np.full(len(labels.schools), shift)) for shift in (0.0, 0.5))
    # the same labels, cut at the same places: expected unexplained need is lower by what intake loses
    np.testing.assert_allclose(none[1] - one[1], 0.5, atol=1e-9)
    found = tip_by_leniency(alone, need, refinements=2)
    assert found.table["quintile"].notna().all() and found.share_at(3.0) > found.share_at(0.5)


def test_what_does_not_apply_is_refused_with_the_reason() -> None:
    need = world().need
    free = hold_need(world().design, need, "label_free", ["cva"])
    with pytest.raises(NotSupportedError, match="uses no label"):
        tip_by_leniency(free, need)
    with pytest.raises(NotSupportedError, match="no severity"):
        tip_by_need(free, need)
    with pytest.raises(NotSupportedError, match="area_sorting_share 0"):
        tip_by_leniency(held("entry"), need.under(area_sorting_share=0.5))
    flat = replace(need.entry_fit.solution, covariances=tuple(0.0 * c for c in need.entry_fit.solution.covariances))
    same = replace(need, entry_fit=replace(need.entry_fit, solution=flat))
    with pytest.raises(NotSupportedError, match="not found to differ"):
        tip_by_leniency(held("entry"), same)
    zero = replace(held("entry").equations["cva"], need_beta=np.array([1.0, 0.0]))
    with pytest.raises(NotSupportedError, match="coefficient of severity is zero"):
        tip_by_need(replace(held("entry"), equations={"cva": zero}), need)
