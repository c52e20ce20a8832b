"""What check lists of identification, which is what a run refuses and what the Python way refuses."""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import send_va as sv
from send_va.errors import InputError
from send_va.identification.identified import LabelCounts, check_labels, refuse_unidentified, unidentified
from send_va.identification.labels import LabelRecords, read_labels
from send_va.study import study_from
from send_va.study_check import check_study, wanted_estimators
from send_va.value_added.design import context_columns

ROLES = {
    "pupil": "pupil",
    "school": "school",
    "feeder": "feeder",
    "outcome": "outcome",
    "prior": ["prior"],
    "sen_status": "sen_status",
    "sen_status_entry": "sen_status_entry",
}
N_SCHOOLS = 14


@cache
def pupils() -> pd.DataFrame:
    return sv.simulate(np.random.default_rng(1), schools=N_SCHOOLS, pupils_per_school=30).pupils


def roles_without(*names: str) -> dict[str, object]:
    return {name: column for name, column in ROLES.items() if name not in names}


def cohort_of(frame: pd.DataFrame, roles: dict[str, object] = ROLES) -> sv.Cohort:
    return sv.Cohort.from_pandas(frame, roles)


def labels_of(frame: pd.DataFrame, roles: dict[str, object] = ROLES) -> LabelRecords:
    cohort = cohort_of(frame, roles)
    profile = cohort.profile(0)
    return read_labels(cohort, profile, context_columns(cohort, profile))


def messages(frame: pd.DataFrame, roles: dict[str, object] = ROLES) -> list[str]:
    return [str(failure) for failure in check_labels(cohort_of(frame, roles))]


def nested(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(feeder=frame["school"] * 10 + frame["pupil"] % 3)


def with_entry(status: object) -> pd.DataFrame:
    return pupils().assign(sen_status_entry=status)


def every_pupil_labelled() -> np.ndarray:
    return np.where(np.arange(len(pupils())) % 3, "K", "E")


def test_good_records_pass() -> None:
    assert messages(pupils()) == []
    assert messages(pupils(), roles_without("feeder", "sen_status_entry")) == []


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (
            nested(pupils()),
            f"roles.feeder: no two schools share a feeder: leniency of feeders and intake need of schools cannot be "
            f"told apart; {N_SCHOOLS} schools fail. Check the mapping of the feeder column, or leave out both roles "
            "feeder and sen_status_entry: results are then shown for the whole range of sorting_share.",
        ),
        (
            with_entry("N"),
            "roles.sen_status_entry: labels at entry do not vary (no pupil has SEN): need cannot be told from them; "
            f"{len(pupils())} pupils fail; values none. Check [sen] and sen_status_entry in the study file",
        ),
        (
            with_entry(every_pupil_labelled()),
            "roles.sen_status_entry: labels at entry do not vary (every pupil has SEN)",
        ),
        (
            pupils().assign(sen_status=every_pupil_labelled()),
            "roles.sen_status: labels now do not vary (every pupil has SEN): need cannot be told from them",
        ),
        (
            with_entry(pupils()["sen_status_entry"].where(pupils()["school"] == pupils()["school"].iloc[0])),
            "roles.sen_status_entry: labels at entry are recorded in one school only",
        ),
        (pupils().assign(school=1), "roles.school: all complete pupils are in one school"),
    ],
    ids=["nested", "entry none", "entry all", "now all", "entry in one school", "one school"],
)
def test_check_and_the_model_refuse_the_same_in_the_same_words(frame: pd.DataFrame, message: str) -> None:
    found = messages(frame)
    assert len(found) == 1
    assert found[0].startswith(message)
    with pytest.raises(InputError) as by_model:
        refuse_unidentified(labels_of(frame))
    assert str(by_model.value) == found[0]
    with pytest.raises(InputError) as by_python:
        sv.fit_identification(cohort_of(frame), draws=0)
    assert found[0] in str(by_python.value)


def test_a_single_school_larger_than_any_group_is_said_to_be_so() -> None:
    frame = pupils()
    first = sorted(frame["school"].unique())[:10]
    large = frame["school"].isin(first)
    frame = frame.assign(school=frame["school"].mask(large, 1), feeder=frame["feeder"].mask(large, 99))
    (found,) = messages(frame)
    assert found.startswith("roles.feeder: the largest group of schools with common feeders is one")


def test_labels_only_count_where_the_equation_uses_them() -> None:
    """Pupils with SEN at entry whose feeder is unknown say nothing of thresholds."""
    frame = pupils()
    frame = frame.assign(feeder=frame["feeder"].where(frame["sen_status_entry"] == "N"))
    (found,) = messages(frame)
    assert "labels at entry do not vary (no pupil has SEN)" in found
    assert f"{(frame['sen_status_entry'] == 'N').sum()} pupils fail" in found


def test_ehcps_the_equation_does_not_use_make_no_threshold() -> None:
    """Those of unknown feeders: any SEN in place of support and EHCP, where the search found no way before."""
    frame = pupils()
    frame = frame.assign(feeder=frame["feeder"].where(frame["sen_status_entry"] != "E"))
    labels = labels_of(frame)
    assert (labels.entry == 2).any()
    assert labels.levels == 1


def test_schools_outside_the_largest_group_are_a_warning_with_schools_and_pupils() -> None:
    frame = pupils()
    apart = sorted(frame["school"].unique())[:2]
    own = frame["school"].isin(apart)
    (found,) = check_labels(cohort_of(frame.assign(feeder=frame["feeder"].where(~own, frame["school"]))))
    assert (found.level, found.count, found.unit) == ("warning", 2, "school")
    assert found.values == tuple(str(school) for school in apart)
    assert f"Their {own.sum()} pupils get no estimate that uses need" in found.remedy
    refuse_unidentified(labels_of(frame.assign(feeder=frame["feeder"].where(~own, frame["school"]))))


def test_without_labels_before_transfer_feeders_need_not_connect_schools() -> None:
    roles = roles_without("sen_status_entry")
    assert messages(nested(pupils()), roles) == []
    labels = labels_of(nested(pupils()), roles)
    assert len(labels.feeders) > 0
    assert (labels.component == 0).all()


def test_counts_are_those_of_the_records_read() -> None:
    """One aggregate over the lazy table tells what all pupils tell, incomplete ones left out."""
    frame = pupils().astype({"feeder": "float"})
    frame.loc[[1, 5], "feeder"] = np.nan
    frame.loc[[2, 9], "outcome"] = np.nan
    counts, read = LabelCounts.counted(cohort_of(frame)), LabelCounts.of(labels_of(frame))
    assert int(counts.pupils.sum()) == len(read.school) == len(frame) - 2
    np.testing.assert_array_equal(np.bincount(counts.now, counts.pupils), np.bincount(read.now))
    np.testing.assert_array_equal(np.bincount(counts.feeder + 1, counts.pupils)[0], 2)
    assert len(counts.pupils) < len(read.pupils)
    assert unidentified(counts) == unidentified(read) == ()


def study_of(roles: dict[str, object], **value_added: object) -> sv.Study:
    return study_from({"data": {"file": "x.parquet"}, "roles": roles, "value_added": value_added}, Path())


def test_everything_is_listed_at_once() -> None:
    """Records and identification in one report, errors first."""
    frame = nested(pupils()).assign(sen_status_entry="N", exclusions=pupils()["pupil"] % 2, school_absence=1.5)
    frame.loc[3, "outcome"] = -1.0
    frame.loc[7, "school_absence"] = 2.5
    roles = ROLES | {"context": ["exclusions", "school_absence"]}
    report = check_study(study_of(roles), cohort_of(frame, roles))
    assert [failure.column for failure in report.errors] == [
        "outcome",
        "exclusions",
        "school_absence",
        "roles.sen_status_entry",
        "roles.feeder",
    ]
    levels = [failure.level for failure in report.failures]
    assert levels == sorted(levels)


def test_a_study_without_need_is_not_asked_for_it() -> None:
    frame = nested(pupils()).assign(sen_status_entry="N", exclusions=pupils()["pupil"] % 2)
    roles = ROLES | {"context": ["exclusions"]}
    assert check_study(study_of(roles, estimators=["labelled"]), cohort_of(frame, roles)).ok
    assert not check_study(study_of(roles, estimators=["labelled", "entry"]), cohort_of(frame, roles)).ok


def test_entry_without_labels_before_transfer_is_listed_with_the_rest() -> None:
    roles = roles_without("sen_status_entry", "feeder") | {"context": ["suspensions"]}
    cohort = cohort_of(pupils().assign(suspensions=pupils()["pupil"] % 2), roles)
    study = study_of(roles, estimators=["entry"])
    found = check_study(study, cohort).errors
    assert [failure.column for failure in found] == ["value_added.estimators", "suspensions"]
    assert "names 'entry', but no sen_status_entry is named under [roles]. Name the SEN" in str(found[0])
    assert wanted_estimators(study, cohort) == ()


def test_labels_that_hardly_change_leave_standardised_out_or_nothing_at_all() -> None:
    """Where `standardised` is all that is asked for, the run would end with nothing; elsewhere it is a note of it."""
    frame = pupils().assign(sen_status=pupils()["sen_status_entry"])
    cohort = cohort_of(frame)
    alone = check_study(study_of(ROLES, estimators=["standardised"]), cohort)
    assert [failure.column for failure in alone.errors] == ["value_added.estimators"]
    assert "needs pupils whose label changed between transfer and now" in str(alone.errors[0])
    for estimators in (None, ["standardised", "labelled"], ["standardised", "entry"]):
        named = {} if estimators is None else {"estimators": estimators}
        report = check_study(study_of(ROLES, **named), cohort)
        assert report.ok
        assert "value_added.estimators" in [failure.column for failure in report.warnings]


@pytest.mark.parametrize("changed", [0, 19, 20, 60])
def test_estimators_foreseen_are_those_the_fit_allows(changed: int) -> None:
    frame = pupils()
    now = frame["sen_status_entry"].to_numpy().copy()
    at = np.flatnonzero(now == "N")[:changed]
    now[at] = "K"
    lose = np.flatnonzero(np.isin(frame["sen_status_entry"], ["K", "E"]))[: changed // 20]
    now[lose] = "N"
    frame = frame.assign(sen_status=now)
    need = sv.fit_identification(cohort_of(frame), draws=0)
    assert LabelCounts.counted(cohort_of(frame)).estimators == need.estimators
    bare = roles_without("sen_status_entry")
    assert LabelCounts.counted(cohort_of(frame, bare)).estimators == ("standardised", "label_free")


@pytest.mark.filterwarnings("ignore::send_va.errors.BoundaryWarning")
def test_need_of_other_records_or_of_another_order_is_refused() -> None:
    frame = pupils()
    cohort = cohort_of(frame)
    need = sv.fit_identification(cohort, draws=0)
    school = frame["school"]
    one = frame.index[school == school.iloc[0]]
    turned = frame.copy()
    turned.loc[one] = frame.loc[one[::-1]].to_numpy()  # within one school only
    turned = turned.astype(frame.dtypes)
    shifted = frame.assign(prior=frame["prior"] + (frame["prior"] > 100.0))
    labels = frame["sen_status"].to_numpy()
    relabelled = frame.assign(sen_status=np.roll(labels, 1))
    for other in (frame.iloc[::-1], turned, shifted, relabelled):
        with pytest.raises(InputError, match=r"need was estimated from other records.*in another order.*Estimate it"):
            sv.fit_value_added(cohort_of(other), need, draws=2)
    with pytest.raises(InputError, match=r"not as many. Estimate it from this cohort: need = fit_identification"):
        sv.fit_value_added(cohort_of(frame.iloc[1:]), need, draws=2)
    rescored = frame.assign(outcome=frame["outcome"] + 1.0)
    assert len(sv.fit_value_added(cohort_of(rescored), need, draws=2).schools) == N_SCHOOLS
