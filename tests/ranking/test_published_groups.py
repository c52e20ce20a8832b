"""Published groups: by hand, and what is refused."""

import numpy as np
import pytest

from send_va.errors import InputError
from send_va.ranking.published_groups import published_groups

CHANCES = np.array([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8], [0.4, 0.4, 0.2]])


def test_by_hand() -> None:
    found = published_groups(CHANCES, [1, 1, 3, 2], schools=list("abcd"))
    assert found.table["p_correct"].tolist() == [0.7, 0.2, 0.8, 0.4]
    np.testing.assert_allclose(found.table["p_next"], [0.2, 0.5, 0.1, 0.6])
    assert found.table["likeliest"].tolist() == [1, 2, 3, 1]
    assert found.by_group["schools"].tolist() == [2, 1, 1]
    np.testing.assert_allclose(found.by_group["expected_correct"], [0.45, 0.4, 0.8])
    assert found.expected_correct == pytest.approx(0.525)
    assert str(published_groups(CHANCES, [1, 2, 3, 1])).startswith("Published groups of 4 schools: 60% are expected")
    assert "<table" in found._repr_html_()


def test_a_group_without_schools_has_no_share() -> None:
    assert published_groups(CHANCES, [1, 1, 1, 1]).by_group["expected_correct"].isna().tolist() == [False, True, True]


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match=r"assigned: names no group; 2 rows fail; rows 2, 3; values 4.0, 1.5"):
        published_groups(CHANCES, [1, 4, 1.5, 2])
    with pytest.raises(InputError, match="no probabilities"):
        published_groups(CHANCES * 2, [1, 1, 1, 1])
    with pytest.raises(InputError, match="3 groups and 4 names"):
        published_groups(CHANCES, [1, 1, 1])
    with pytest.raises(InputError, match="3 names for 4 schools"):
        published_groups(CHANCES, [1, 1, 1, 1], schools=["a", "b", "c"])
    with pytest.raises(InputError, match="shape"):
        published_groups(CHANCES[0], [1, 1, 1])
    with pytest.raises(InputError, match="assigned, given as list, holds entries that are not numbers"):
        published_groups(CHANCES, ["A", "B", "C", "C"])
    with pytest.raises(InputError, match="probabilities, given as object, holds"):
        published_groups(object(), [1, 1, 1, 1])  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"shape \(\)"):
        published_groups(0.5, [1])  # type: ignore[arg-type]
