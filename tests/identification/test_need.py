"""Need of pupils and leniency of schools, end to end on simulated cohorts, and on records that tell little."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from worlds import DRAWS, labels, labels_of, need, small, small_pupils, world

from send_va.errors import InputError, NotSupportedError
from send_va.identification.labels import LabelRecords, components
from send_va.identification.need import Need, estimate_need
from send_va.identification.scores import Assumptions
from send_va.identification.tables import national_standard
from send_va.records.simulator import simulate
from send_va.validation.recovery import ROLES


def by_tenths(predicted: np.ndarray, observed: np.ndarray) -> pd.DataFrame:
    """Means of predicted and observed over tenths of predicted, with the number of pupils."""
    bins = pd.qcut(predicted, 10, labels=False, duplicates="drop")
    table = pd.DataFrame({"bin": bins, "predicted": predicted, "observed": observed}).groupby("bin")
    return table.mean().assign(n=table.size())


@pytest.mark.parametrize("estimator", ["standardised", "entry", "label_free"])
def test_probability_of_need_is_calibrated(estimator: str) -> None:
    """Of pupils with a probability of p, about p have need: in every tenth within .02 and four binomial errors."""
    pi, _ = need().scores(estimator).plug_in()
    curve = by_tenths(pi, world().pupil_truth["has_need"].to_numpy(float))
    error = np.sqrt(curve["predicted"] * (1 - curve["predicted"]) / curve["n"])
    assert len(curve) >= 5
    assert ((curve["predicted"] - curve["observed"]).abs() < 0.02 + 4 * error).all()
    assert pi.mean() == pytest.approx(world().pupil_truth["has_need"].mean(), abs=0.02)


def test_more_labels_say_more() -> None:
    """Log loss against true need: both labels below one, one below none."""
    truth = world().pupil_truth["has_need"].to_numpy(float)

    def log_loss(estimator: str) -> float:
        pi = np.clip(need().scores(estimator).plug_in()[0], 1e-9, 1 - 1e-9)
        return float(-(truth * np.log(pi) + (1 - truth) * np.log1p(-pi)).mean())

    assert log_loss("standardised") < log_loss("entry") < log_loss("label_free")


@pytest.mark.parametrize("estimator", ["standardised", "entry"])
def test_severity_is_an_expectation(estimator: str) -> None:
    """True severity (intake need included) regressed on expected: slope one, intercept zero, by schools and pupils."""
    _, severity = need().scores(estimator).plug_in()
    truth = world().pupil_truth["severity"].to_numpy()
    slope, intercept = np.polyfit(severity, truth, 1)
    assert slope == pytest.approx(1.0, abs=0.08)
    assert intercept == pytest.approx(0.0, abs=0.06)
    means = [pd.Series(v).groupby(labels().school).mean() for v in (severity, truth)]
    assert np.corrcoef(*means)[0, 1] > 0.85
    assert np.polyfit(*means, 1)[0] == pytest.approx(1.0, abs=0.2)


def test_leniency_and_intake_need_of_schools() -> None:
    """The evidence of the design at 120 schools: correlation with truth, and 95 % intervals from draws."""
    table, truth = need().schools, world().truth
    for name, least in (("leniency", 0.8), ("intake_need", 0.85)):
        assert np.corrcoef(table[name], truth[name])[0, 1] > least
        z = (truth[name] - truth[name].mean() - table[name] + table[name].mean()) / table[f"{name}_sd"]
        assert (np.abs(z) < 1.96).mean() > 0.85  # 24 draws make the SD itself uncertain by 15 %
    # they are told apart: neither is the other
    error = table["leniency"] - truth["leniency"]
    assert abs(np.corrcoef(error, truth["intake_need"])[0, 1]) < 0.35


def test_draws_vary_around_the_estimates() -> None:
    assert need().n_draws == DRAWS == len(need().draws)
    for name in ("tau", "intake", "feeder", "school"):
        drawn = np.array([getattr(p, name) for p in need().draws])
        z = (drawn.mean(axis=0) - getattr(need().parameters, name)) / drawn.std(axis=0, ddof=1)
        assert np.abs(z).mean() < 0.5
    for name in ("tau", "rho", "tau_now", "kappa"):  # centred on the estimates, to four Monte-Carlo errors
        drawn = np.array([np.atleast_1d(getattr(p, name)) for p in need().draws])
        error = drawn.std(axis=0, ddof=1) / np.sqrt(DRAWS)
        assert (np.abs(drawn.mean(axis=0) - getattr(need().parameters, name)) < 4 * error).all()
    scores = need().scores("entry")
    assert not np.array_equal(scores.draw(0)[0], scores.draw(1)[0])


@cache
def relabelled() -> Need:
    """One school gives every pupil a label, others take some away; labels before transfer as they were."""
    records = small().labels
    now = records.now.copy()
    now[records.school == 3] = 1
    now[(records.school > 20) & (np.arange(len(now)) % 3 == 0)] = 0
    return estimate_need(replace(records, now=now), seed=1, draws=6)


@pytest.mark.parametrize("estimator", ["entry", "label_free"])
def test_what_a_school_writes_down_now_moves_nothing_to_the_bit(estimator: str) -> None:
    before, after = small().scores(estimator), relabelled().scores(estimator)
    for get in (lambda s: s.plug_in(), lambda s: s.draw(0), lambda s: s.draw(5)):
        for a, b in zip(get(before), get(after), strict=True):
            assert (a is None and b is None) or np.array_equal(a, b)


def test_a_school_that_starts_to_label_everybody_is_found_lenient() -> None:
    """Labels of its pupils then say less: `standardised` moves little where leniency is seen for what it is."""
    before, after = small().schools.iloc[3], relabelled().schools.iloc[3]
    assert after["leniency"] > before["leniency"] + 0.5
    assert after["leniency"] < 4
    assert after["flag"].split("; ")[0] == "every pupil labelled"
    assert after["intake_need"] == before["intake_need"]
    moved = [n.scores("standardised").plug_in()[0][n.labels.school == 3].mean() for n in (small(), relabelled())]
    assert 0 < moved[1] < moved[0] + 0.15


@pytest.mark.parametrize("cores", [1, 2])
def test_same_seed_same_bytes_whatever_the_cores(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    again = estimate_need(small().labels, seed=1, draws=6)
    for a, b in ((small().parameters, again.parameters), *zip(small().draws, again.draws, strict=True)):
        for name in ("gamma", "tau", "intake", "feeder", "la_entry", "rho", "tau_now", "school", "la_now"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert a.kappa == b.kappa
    pd.testing.assert_frame_equal(small().schools, again.schools, check_exact=True)
    pd.testing.assert_frame_equal(small().pupils, again.pupils, check_exact=True)


def test_another_seed_moves_draws_but_not_estimates() -> None:
    other = estimate_need(small().labels, seed=2, draws=1)
    np.testing.assert_array_equal(other.parameters.feeder, small().parameters.feeder)
    assert not np.array_equal(other.draws[0].feeder, small().draws[0].feeder)


def test_assumptions_out_of_range_are_refused_after_the_fit() -> None:
    for changes in ({"area_sorting_share": 2.0}, {"label_reliability": -1.0}):
        with pytest.raises(InputError, match=next(iter(changes))):
            small().under(**changes)


def test_schools_that_share_no_feeder_with_the_others_are_not_compared() -> None:
    """Two islands: the smaller gets no numbers and a flag; the larger is unmoved by what happens there."""
    records = islands(small().labels)
    outside = records.component > 0
    assert 0 < outside.sum() < len(outside)
    found = estimate_need(records, seed=1, draws=3)
    table = found.schools
    flagged = table["flag"].str.startswith("not connected with other schools")
    np.testing.assert_array_equal(flagged, outside)
    numbers = ["leniency", "leniency_sd", "leniency_ehcp", "intake_need", "intake_need_reliability", "standard_share"]
    assert table.loc[outside, numbers].isna().all(axis=None)
    assert table.loc[~outside, numbers].notna().all(axis=None)
    assert table["labelled_share"].notna().all()
    at = outside[records.school]
    for estimator in found.estimators:
        for values in (*found.scores(estimator).plug_in(), *found.scores(estimator).draw(1)):
            if values is not None:
                np.testing.assert_array_equal(np.isnan(values), at)
    assert found.pupils["pi"].isna().sum() == at.sum()
    everywhere = np.zeros(len(records.school), dtype=np.intp)
    levels = {"school": (records.school, records.schools), "nation": (everywhere, ("all",))}
    standard = national_standard(found, levels).set_index("level")
    np.testing.assert_array_equal(standard.loc["school", "expected"].isna(), outside)
    nation = standard.loc["nation"]  # the same pupils in every column
    assert nation["n_pupils"] == (~at).sum()
    assert nation["labelled_now"] == (records.now[~at] > 0).sum()
    assert nation["expected"] == pytest.approx(standard.loc["school", "expected"].sum())
    entry = records.entry.copy()
    entry[at] = np.where(entry[at] >= 0, 1, entry[at])
    same = estimate_need(replace(records, entry=entry), seed=1, draws=0)
    np.testing.assert_array_equal(same.parameters.intake[~outside], found.parameters.intake[~outside])


def islands(records: LabelRecords) -> LabelRecords:
    """Feeders of the first eight schools get names of their own there."""
    apart = records.school < 8
    feeder = np.where(apart, records.feeder + len(records.feeders), records.feeder)
    names = (*records.feeders, *(f"{name} apart" for name in records.feeders))
    return replace(records, feeder=feeder, feeders=names, component=components(records.school, feeder, 40, len(names)))


@cache
def now_only() -> Need:
    roles = replace(ROLES, sen_status_entry=None, feeder=None)
    return estimate_need(labels_of(small_pupils(), roles), seed=1, draws=3)


def test_without_labels_before_transfer_the_split_is_a_stated_assumption() -> None:
    """Share 0: schools label as they please and have the same intake; share 1: what they label is what came."""
    found = now_only()
    assert not found.has_entry
    assert found.estimators == ("standardised", "label_free")
    assert found.warnings[0].startswith("no SEN status before transfer")
    assert "whole range" in found.warnings[0]
    none, half, whole = (found.under(sorting_share=share) for share in (0.0, 0.5, 1.0))
    for at, parts in ((none, none.draws), (whole, whole.draws)):
        for p in (at.parameters, *parts):
            np.testing.assert_allclose(p.intake if at is none else p.feeder[:, 0], 0.0, atol=1e-12)
    total = none.parameters.feeder[:, 0]
    np.testing.assert_allclose(whole.parameters.intake, total)
    np.testing.assert_allclose(half.parameters.intake, 0.5 * total)
    np.testing.assert_allclose(half.parameters.feeder[:, 0], 0.5 * total)
    again = half.under(sorting_share=0.0).parameters
    np.testing.assert_allclose(again.feeder, none.parameters.feeder, atol=1e-12)
    # counted as need, labels of a school that labels most mean more
    most = int(np.argmax(total))
    pi = [n.scores("standardised").plug_in()[0][n.labels.school == most].mean() for n in (none, half, whole)]
    assert pi[0] < pi[1] < pi[2]
    table = none.schools
    assert table["intake_need_reliability"].isna().all()
    assert "labelled_share_entry" not in table
    with pytest.raises(NotSupportedError, match=r"'entry' needs the SEN status before transfer \(sen_status_entry"):
        found.scores("entry")


def test_missing_labels_before_are_expected_from_the_rest() -> None:
    pupils = small_pupils().copy()
    pupils["sen_status_entry"] = pupils["sen_status_entry"].mask(np.arange(len(pupils)) % 10 == 0)
    found = estimate_need(labels_of(pupils), seed=1, draws=0)
    missing = found.labels.entry < 0
    assert f"{missing.sum():,} of {len(pupils):,} pupils have no SEN status before transfer" in found.warnings[0]
    pi, severity = found.scores("entry").plug_in()
    assert np.isfinite(pi).all()
    np.testing.assert_allclose(severity[missing], found.parameters.intake[found.labels.school[missing]])
    both = found.scores("standardised").plug_in()[0]
    labelled = missing & (found.labels.now > 0)
    assert both[labelled].mean() > 2 * pi[labelled].mean()  # the label now is all there is


def test_a_school_where_all_or_none_are_labelled_is_finite_shrunken_and_flagged() -> None:
    records = small().labels
    entry, now = records.entry.copy(), records.now.copy()
    for school, label in ((5, 1), (6, 0)):
        entry[records.school == school] = now[records.school == school] = label
    found = estimate_need(replace(records, entry=entry, now=now), seed=1, draws=3)
    table = found.schools.set_index(found.schools.index)
    assert table.loc[5, "flag"].startswith("every pupil labelled")
    assert table.loc[6, "flag"].startswith("no pupil labelled")
    numbers = table.loc[[5, 6], ["leniency", "leniency_sd", "intake_need", "intake_need_sd", "standard_share"]]
    assert np.isfinite(numbers).all(axis=None)
    assert numbers[["leniency", "intake_need"]].abs().max(axis=None) < 4
    assert table.loc[5, "intake_need"] > 0.5 > 0 > table.loc[6, "intake_need"]
    for estimator in found.estimators:
        assert np.isfinite(found.scores(estimator).plug_in()[0]).all()


def test_labels_that_never_change_leave_standardised_out_with_the_reason() -> None:
    found = estimate_need(replace(small().labels, now=small().labels.entry), seed=1, draws=2)
    assert found.now_fit is None
    assert found.estimators == ("entry", "label_free")
    with pytest.raises(NotSupportedError, match=r"hardly any did, or all with one label kept it.*Use 'entry'"):
        found.scores("standardised")
    assert found.schools["leniency"].isna().all()
    assert found.schools[["intake_need", "standard_share"]].notna().all(axis=None)
    assert np.isfinite(found.pupils["pi"]).all()


def test_labels_by_the_schools_own_body_can_be_left_out() -> None:
    records = replace(small().labels, same_body=small().labels.school == 2)
    found = replace(small(), labels=records)
    pi, severity = found.scores("entry", without=records.same_body).plug_in()
    kept, _ = found.scores("entry").plug_in()
    np.testing.assert_array_equal(pi[~records.same_body], kept[~records.same_body])
    assert not np.array_equal(pi[records.same_body], kept[records.same_body])
    np.testing.assert_allclose(severity[records.same_body], np.mean([p.intake[2] for p in found.draws]))
    others = found.scores("entry", without=records.school == 4).plug_in()[0]
    np.testing.assert_array_equal(others[records.school == 2], kept[records.school == 2])
    table = found.schools
    assert table.loc[2, "n_same_body"] == (records.school == 2).sum()
    assert "feeders of the school's own body" in table.loc[2, "flag"]
    assert table.drop(index=2)["n_same_body"].sum() == 0


@cache
def noisy() -> tuple[LabelRecords, np.ndarray, Callable[[float], Need]]:
    """Those who label misjudge need with an SD of .6."""
    simulated = simulate(np.random.default_rng(8), schools=40, scenario="noisy_labels", pupils_per_school=100)
    records = labels_of(simulated.pupils)

    def under(reliability: float) -> Need:
        return estimate_need(records, seed=1, draws=0, assumptions=Assumptions(label_reliability=reliability))

    return records, simulated.pupil_truth["has_need"].to_numpy(float), under


def test_the_right_label_reliability_calibrates_noisy_labels() -> None:
    """r = 1/1.36: labels taken at their word are overconfident; with r need is calibrated. SDs of judged need are 1."""
    _, truth, under = noisy()
    exact, right = under(1.0), under(1 / 1.36)

    def worst(found: Need, estimator: str) -> float:
        curve = by_tenths(found.scores(estimator).plug_in()[0], truth)
        return float((curve["predicted"] - curve["observed"]).abs().max())

    for estimator in ("entry", "standardised"):
        assert worst(right, estimator) < 0.06
        assert worst(exact, estimator) > 2 * worst(right, estimator)


@pytest.mark.parametrize(
    ("assumptions", "message"),
    [
        (Assumptions(feeder_sorting_share=1.2), "feeder_sorting_share must be between 0 and 1, not 1.2"),
        (Assumptions(area_sorting_share=-0.1), "area_sorting_share must be between 0 and 1, not -0.1"),
        (Assumptions(sorting_share=2.0), "sorting_share must be between 0 and 1, not 2.0"),
        (Assumptions(label_reliability=0.2), "label_reliability must be between 0.3 and 1, not 0.2"),
        (Assumptions(label_reliability=1.5), "label_reliability must be between 0.3 and 1, not 1.5"),
    ],
)
def test_assumptions_out_of_range_are_refused(assumptions: Assumptions, message: str) -> None:
    with pytest.raises(InputError, match=message):
        estimate_need(small().labels, seed=1, draws=0, assumptions=assumptions)


def test_an_unknown_assumption_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"no assumption 'reliability'\. Assumptions are feeder_sorting_share, area"):
        small().under(reliability=0.9)


def test_an_unknown_estimator_is_refused_with_the_known_ones() -> None:
    with pytest.raises(NotSupportedError, match=r"no estimator 'oracle'.*standardised, entry, label_free"):
        small().scores("oracle")


def test_no_pupil_id_in_what_comes_out() -> None:
    """Row numbers stand for pupils; ids are seven digits and distinct from every other number here."""
    ids = set(small_pupils()["pupil"].astype(str))
    pupils = small().pupils
    assert list(pupils) == ["row_number", "pi", "severity", "p0"]
    np.testing.assert_array_equal(pupils["row_number"], np.arange(1, len(pupils) + 1))
    text = " ".join([small().schools.to_csv(), pupils.to_csv(), str(small()), *small().warnings])
    assert not ids & set(text.replace(",", " ").split())
    assert str(small()) == "Need of 2,400 pupils in 40 schools from labels before transfer and now"


def test_expected_scores_average_over_draws() -> None:
    """Need at the most likely leniency is not need given the labels: leniency is integrated out."""
    scores = small().scores("entry")
    drawn = [scores.draw(d) for d in range(6)]
    for k in range(2):
        np.testing.assert_allclose(scores.plug_in()[k], np.mean([values[k] for values in drawn], axis=0))
    alone = replace(small(), draws=()).scores("entry").plug_in()[0]
    assert not np.array_equal(alone, scores.plug_in()[0])
