"""How far a table moves under another choice."""

import numpy as np
import pandas as pd
import pytest

from send_va.errors import InputError
from send_va.sensitivity.changed_tables import changes_of_a_run, table_changes

SCHOOLS = [str(number) for number in range(10)]


def table(values: np.ndarray) -> pd.Series:
    return pd.Series(values, index=SCHOOLS)


def test_schools_are_matched_by_name_and_counted_where_both_have_a_value() -> None:
    reference = table(np.arange(10.0))
    other = table(np.arange(10.0)).sample(frac=1.0, random_state=1)
    other["3"] = np.nan
    (row,) = table_changes(reference, {("context", "prior"): other}).to_dict("records")
    assert row["schools"] == 9
    assert (row["share_other_fifth"], row["largest_places"], row["rank_correlation"]) == (0.0, 0.0, 1.0)


def test_a_reversed_table_moves_everybody_but_the_middle() -> None:
    (row,) = table_changes(table(np.arange(10.0)), {("x", "y"): table(-np.arange(10.0))}).to_dict("records")
    assert row["share_other_fifth"] == 0.8  # the two schools in the middle fifth change places with each other
    assert (row["largest_places"], row["median_places"]) == (9.0, 5.0)
    assert row["rank_correlation"] == pytest.approx(-1.0, abs=1e-12)


def test_a_school_given_twice_is_refused() -> None:
    twice = pd.Series([1.0, 2.0], index=["1", "1"])
    with pytest.raises(InputError, match="twice in the table of context prior"):
        table_changes(table(np.arange(10.0)), {("context", "prior"): twice})


def effects() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    rows = [
        pd.DataFrame(
            {"school": SCHOOLS, "estimator": name, "context": held, "measure": measure, "mean": rng.random(10)}
        )
        for name in ("entry", "labelled")
        for held in ("prior", "cva")
        for measure in ("theta", "u")
    ]
    return pd.concat(rows, ignore_index=True)


def test_a_run_is_compared_with_its_headline_only() -> None:
    found = changes_of_a_run(effects(), "entry", "cva")
    departures = list(zip(found["departure"], found["value"], strict=True))
    assert departures == [("estimator", "labelled"), ("context", "prior")]
    theta = effects().query("measure == 'theta'").set_index(["estimator", "context", "school"])["mean"].sort_index()
    expected = table_changes(theta["entry", "cva"], {("context", "prior"): theta["entry", "prior"]})
    pd.testing.assert_frame_equal(found.iloc[[1]].reset_index(drop=True), expected)


def test_an_assumption_at_the_value_of_the_headline_is_no_departure() -> None:
    headline = effects().query("measure == 'theta' and estimator == 'entry' and context == 'cva'")
    same = headline.assign(assumption="label_reliability", value=1.0)
    other = headline.assign(assumption="label_reliability", value=0.8, mean=headline["mean"].to_numpy()[::-1])
    found = changes_of_a_run(effects(), "entry", "cva", pd.concat([same, other]))
    assert found.query("departure == 'label_reliability'")["value"].tolist() == ["0.8"]


def test_a_headline_that_was_not_estimated_is_refused() -> None:
    with pytest.raises(InputError, match="no estimate by 'standardised'"):
        changes_of_a_run(effects(), "standardised", "cva")
