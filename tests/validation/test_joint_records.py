"""What the joint model reads, and what it refuses."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from send_va.errors import InputError
from send_va.validation import joint_records as module
from send_va.validation.joint_comparison import Region, region
from send_va.validation.joint_records import JointRecords, joint_records


@cache
def small() -> Region:
    return region("independent", seed=1, schools=12, pupils_per_school=30)


def of(**changes: object) -> JointRecords:
    return joint_records(replace(small().labels, **changes), small().design, "cva", prior_reference=100.0)


def test_outcomes_labels_and_schools_belong_to_the_same_pupils() -> None:
    records, world = of(), small().world
    pupils = world.pupils.reset_index(drop=True)
    mean = pupils["outcome"].mean()
    for j in (0, 7):
        own = pupils[pupils["school"].astype(str) == records.schools[j]]
        rows = records.school == j
        np.testing.assert_allclose(
            np.sort(records.outcome[rows] * records.outcome_sd + mean), np.sort(own["outcome"]), atol=1e-9
        )
        assert (records.entry[rows] > 0).sum() == (own["sen_status_entry"] != "N").sum()
        assert (records.now[rows] > 0).sum() == (own["sen_status"] != "N").sum()


def test_directions_span_the_columns_and_are_uncorrelated() -> None:
    records, labels = of(), small().labels
    n, p = records.x_need.shape
    np.testing.assert_allclose(records.x_need.T @ records.x_need / n, np.eye(p), atol=1e-9)
    columns = labels.x[small().design.order]
    columns = columns - columns.mean(axis=0)
    np.testing.assert_allclose(records.x_need @ (records.x_need.T @ columns) / n, columns, atol=1e-8)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"entry": np.full(len(small().labels.entry), -1)}, "no label before transfer"),
        ({"region": np.arange(len(small().labels.entry)) % 2}, "2 regions"),
        ({"feeder": np.where(np.arange(len(small().labels.entry)) < 3, -1, small().labels.feeder)}, "3 have no feeder"),
        ({"component": np.arange(12) // 11}, "1 schools share no feeder"),
        ({"school": small().labels.school[::-1]}, "hold other pupils"),
    ],
)
def test_records_it_cannot_use_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        of(**changes)


def test_too_many_pupils_are_refused_with_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PUPILS", 100)
    with pytest.raises(InputError, match=r"at most 100\. Select one region"):
        of()


def test_school_means_are_refused() -> None:
    with pytest.raises(InputError, match="no school means"):
        joint_records(small().labels, small().design, "composition", prior_reference=100.0)
