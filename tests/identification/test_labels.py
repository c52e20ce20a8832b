"""What the identification model reads from records: codes, bodies, components, and what it refuses to read."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from worlds import labels_of, small_pupils

from send_va.errors import InputError
from send_va.identification.labels import SET_BY_SCHOOL, components, refuse_set_by_school
from send_va.records.fields import field_definitions
from send_va.validation.recovery import ROLES

FEW = replace(ROLES, context=("fsm6", "C(sex)"))


@pytest.fixture(scope="module")
def pupils() -> pd.DataFrame:
    return small_pupils()


def test_codes_name_the_bodies_of_every_pupil(pupils: pd.DataFrame) -> None:
    """In file order, against pandas; missing statuses are -1."""
    frame = pupils.astype({"sen_status_entry": "str"})
    frame.loc[[3, 9], "sen_status_entry"] = None
    labels = labels_of(frame, FEW)
    level = {"N": 0, "K": 1, "E": 2}
    np.testing.assert_array_equal(labels.row_number, np.arange(1, len(frame) + 1))
    np.testing.assert_array_equal(np.array(labels.schools)[labels.school], frame["school"].astype(str))
    np.testing.assert_array_equal(np.array(labels.feeders)[labels.feeder], frame["feeder"].astype(str))
    np.testing.assert_array_equal(np.array(labels.las)[labels.la], frame["la"].astype(str))
    np.testing.assert_array_equal(labels.now, frame["sen_status"].map(level))
    np.testing.assert_array_equal(labels.entry, frame["sen_status_entry"].map(level).fillna(-1))
    assert labels.has_entry
    assert labels.levels == 2


def test_predictors_have_mean_0_and_sd_1_and_constant_ones_are_left_out(pupils: pd.DataFrame) -> None:
    labels = labels_of(pupils.assign(eal=0), replace(FEW, context=("fsm6", "eal", "C(sex)")))
    assert "eal" not in labels.x_names
    assert {"fsm6", "sex[T.M]"} <= set(labels.x_names)
    np.testing.assert_allclose(labels.x.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(labels.x.std(axis=0), 1.0, atol=1e-12)
    fsm6 = labels.x_names.index("fsm6")
    np.testing.assert_allclose(labels.x[:, fsm6] * labels.x_sd[fsm6] + labels.x_mean[fsm6], pupils["fsm6"])


def test_incomplete_pupils_are_left_out(pupils: pd.DataFrame) -> None:
    frame = pupils.copy()
    frame.loc[[0, 5], "prior"] = np.nan
    labels = labels_of(frame, FEW)
    assert not {1, 6} & set(labels.row_number)
    assert len(labels.now) == len(frame) - 2
    with pytest.raises(InputError, match=r"no row is complete\. Each row needs school, outcome, prior"):
        labels_of(pupils.assign(outcome=np.nan), FEW)


@pytest.mark.parametrize("column", ["sen_status", "sen_status_entry"])
def test_an_unknown_category_is_refused_with_row_and_code(pupils: pd.DataFrame, column: str) -> None:
    frame = pupils.copy()
    frame.loc[7, column] = "Q"
    with pytest.raises(InputError, match=f"{column}: rule broken: is one of N, K, E.*rows 8; values Q") as raised:
        labels_of(frame, FEW)
    assert str(frame.loc[7, "pupil"]) not in str(raised.value)


def test_an_authority_of_a_feeder_is_where_most_of_its_pupils_go(pupils: pd.DataFrame) -> None:
    labels = labels_of(pupils, replace(FEW, feeder_la=None))
    most = pupils.groupby("feeder")["la"].agg(lambda la: set(la.mode()))
    found = np.array(labels.las)[labels.feeder_la]
    assert all(int(la) in most[feeder] for la, feeder in zip(found, pupils["feeder"], strict=True))
    assert len(set(zip(found, labels.feeder, strict=True))) == len(labels.feeders)


def test_a_recorded_authority_of_the_feeder_is_used(pupils: pd.DataFrame) -> None:
    of_feeder = pupils["feeder"].map(lambda feeder: f"authority {feeder % 3}")
    labels = labels_of(pupils.assign(feeder_la=of_feeder), replace(FEW, feeder_la="feeder_la"))
    assert labels.feeder_las == ("authority 0", "authority 1", "authority 2")
    np.testing.assert_array_equal(np.array(labels.feeder_las)[labels.feeder_la], of_feeder)
    assert labels.las == labels_of(pupils, FEW).las  # those of the schools


def test_records_without_feeder_authority_or_entry(pupils: pd.DataFrame) -> None:
    labels = labels_of(pupils, replace(FEW, feeder=None, feeder_la=None, la=None, sen_status_entry=None))
    assert not labels.has_entry
    assert (labels.feeders, labels.las, labels.feeder_las, labels.regions) == ((), (), (), ())
    for codes in (labels.feeder, labels.la, labels.feeder_la, labels.region, labels.entry):
        assert (codes == -1).all()
    assert (labels.component == 0).all()
    assert not labels.same_body.any()


def test_pupils_of_an_unknown_feeder_or_authority(pupils: pd.DataFrame) -> None:
    """No code; the authority before transfer is then that of the school."""
    frame = pupils.astype({"feeder": "str", "la": "str"})
    frame.loc[0, "feeder"] = None
    frame.loc[1, "la"] = None
    labels = labels_of(frame, replace(FEW, feeder_la=None))
    assert labels.feeder[0] == -1
    assert labels.feeder_la[0] == labels.la[0] >= 0
    assert labels.la[1] == -1


def test_labels_by_the_schools_own_body_are_flagged(pupils: pd.DataFrame) -> None:
    """All-through schools (feeder is the school), and feeders of the school's trust; unknown trusts share nothing."""
    frame = pupils.copy()
    frame.loc[:4, "feeder"] = frame.loc[:4, "school"]
    all_through = labels_of(frame, FEW)
    assert all_through.same_body[:5].all()
    assert not all_through.same_body[5:].any()
    trusts = pd.Series(["A", "A", "B", None, None], dtype="str").reindex(range(len(pupils)))
    feeder_trusts = pd.Series(["A", "B", "C", None, "A"], dtype="str").reindex(range(len(pupils)))
    frame = pupils.assign(trust=trusts, feeder_trust=feeder_trusts)
    labels = labels_of(frame, replace(FEW, trust="trust", feeder_trust="feeder_trust"))
    assert labels.same_body.tolist() == [True] + [False] * (len(pupils) - 1)


def test_components_of_the_feeder_graph() -> None:
    """The largest by pupils is 0, whatever the order; a pupil without feeder joins nothing."""
    school = np.array([0, 1, 2, 2, 3, 3, 3])
    feeder = np.array([0, 0, 1, 2, 2, 1, -1])
    assert components(school, feeder, 4, 3).tolist() == [1, 1, 0, 0]
    assert sorted(components(school, np.full(7, -1), 4, 3)) == [0, 1, 2, 3]
    alone = components(np.array([0, 1, 1]), np.array([-1, 0, 0]), 2, 1)
    assert alone.tolist() == [1, 0]


@pytest.mark.parametrize("name", sorted(SET_BY_SCHOOL))
def test_a_predictor_the_rated_school_sets_is_refused(name: str) -> None:
    with pytest.raises(InputError) as raised:
        refuse_set_by_school(("fsm6", name))
    message = str(raised.value)
    assert message.startswith(f"{name}: cannot predict need: ")
    assert SET_BY_SCHOOL[name] in message
    assert "Leave it out of the context" in message
    assert "fsm6" not in message


@pytest.mark.parametrize(
    "name", ["exclusions", "PersistentAbsence", "SENprovision_SPR23", "sen_provision", "attendance"]
)
def test_other_names_for_it_are_refused_too(name: str) -> None:
    with pytest.raises(InputError, match="cannot predict need"):
        refuse_set_by_school((name,))


def test_what_was_set_before_transfer_may_predict() -> None:
    refuse_set_by_school(("idaci", "absence_entry", "ethnicity"))


def test_a_context_with_what_the_school_sets_is_refused_when_read(pupils: pd.DataFrame) -> None:
    frame = pupils.assign(suspensions=1.0, primary_need="SEMH", terms_on_roll=15)
    with pytest.raises(InputError, match="suspensions are decided by the rated school") as raised:
        labels_of(frame, replace(FEW, context=("fsm6", "suspensions", "C(primary_need)")))
    assert len(raised.value.failures) == 2


def test_every_refused_name_is_a_field_of_the_records() -> None:
    known = set(field_definitions(None, (0.0, None)))
    assert set(SET_BY_SCHOOL) - {"absence"} <= known
    after = {"sessions_absent", "suspensions", "permanent_exclusions", "terms_on_roll", "exit_reason", "destination"}
    assert after <= set(SET_BY_SCHOOL)


def test_no_pupil_id_is_kept(pupils: pd.DataFrame) -> None:
    labels = labels_of(pupils, FEW)
    ids = set(pupils["pupil"].astype(str))
    texts = {*labels.schools, *labels.feeders, *labels.las, *labels.x_names}
    assert not ids & texts
    assert not ids & set(labels.row_number.astype(str))
