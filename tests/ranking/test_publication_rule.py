"""The publication rule: clauses alone and together by hand, symbols, and limits out of range."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from send_va.errors import InputError
from send_va.ranking.publication_rule import SYMBOLS, PublicationRule
from send_va.records.dfe_symbols import symbol_map

SUMMARY = pd.DataFrame(
    {
        "school": list("abcdefg"),
        "mean": [1.0, 2.0, 0.0, np.nan, np.nan, 1.0, 1.0],
        "n_need": [9, 10, 50, 30, 0, 50, 0],
        "reliability": [0.9, 0.3, 0.9, np.nan, np.nan, 0.2, 0.9],
        "flag": ["", "", "", "not connected", "", "", "no pupil with SEN status"],
    }
)
WIDTH = np.array([0.1, 0.9, 0.2, np.nan, np.nan, 0.9, 0.1])
FAR = np.array([0.0, 0.0, -0.4, np.nan, np.nan, 0.0, 0.1])
RULE = PublicationRule(minimum_reliability=0.4, maximum_rank_width=0.5, maximum_disagreement=0.2)


def test_seven_schools_by_hand() -> None:
    decision = RULE.decide(SUMMARY, rank_width=WIDTH, disagreement=FAR)
    table = decision.table
    assert not table["published"].any()
    assert table["symbol"].tolist() == ["c", "u", "u", "x", "z", "u", "c"]
    assert table["reason"].tolist() == [
        "fewer than 10 pupils with need",
        "u: reliability below 0.4",
        "u: estimators differ by more than 0.2 pupil SD",
        "not connected",
        "cannot be compared",
        "u: reliability below 0.4",
        "fewer than 10 pupils with need",
    ]
    assert table["clauses"].tolist()[1] == "minimum_reliability; maximum_rank_width"
    counts = decision.counts.set_index("clause")
    assert counts["withheld"].tolist() == [2, 2, 2, 2, 1]
    assert counts["withheld_only"].tolist() == [2, 2, 0, 0, 1]
    assert counts.loc["minimum_need", "limit"] == "10"
    assert decision.combinations.to_numpy().tolist() == [
        ["comparable", 2],
        ["minimum_need", 2],
        ["minimum_reliability; maximum_rank_width", 2],
        ["maximum_disagreement", 1],
    ]
    assert decision.withheld == 7
    assert str(decision) == (
        "0 of 7 schools get a position; withheld: 2 by comparable (2 by it alone), 2 by minimum_need (2 by it alone), "
        "2 by minimum_reliability (0 by it alone), 2 by maximum_rank_width (0 by it alone), "
        "1 by maximum_disagreement (1 by it alone)"
    )


def test_clauses_that_ask_for_nothing_withhold_nothing() -> None:
    decision = PublicationRule().decide(SUMMARY)
    assert decision.table["published"].tolist() == [False, True, True, False, False, True, False]
    assert decision.table.loc[1, ["reason", "symbol", "clauses"]].tolist() == ["", "", ""]
    assert "0 by" not in str(decision)
    everyone = PublicationRule(minimum_need=1).decide(SUMMARY.iloc[:2])
    assert str(everyone) == "2 of 2 schools get a position; withheld: none"
    assert everyone.combinations.empty


def test_a_reliability_that_is_not_known_does_not_meet_the_clause() -> None:
    unknown = SUMMARY.iloc[[2]].assign(reliability=np.nan)
    assert PublicationRule().decide(unknown).table["published"].all()
    assert PublicationRule(minimum_reliability=0.1).decide(unknown).table["symbol"].tolist() == ["u"]


def test_symbols_of_performance_tables() -> None:
    table = RULE.decide(SUMMARY, rank_width=WIDTH, disagreement=FAR, symbols="performance_tables").table
    assert table["symbol"].tolist() == ["SUPP", "NP", "NP", "NP", "NA", "NP", "SUPP"]


def test_symbols_mean_what_the_records_read_them_as() -> None:
    """What is written for a reason is read back as that reason by the map of DfE's symbols."""
    meant = {"x": "not available", "z": "not applicable", "c": "suppressed", "u": "low reliability"}
    meant |= {"SUPP": "suppressed", "NP": "not published", "NA": "not applicable"}
    for release, symbols in SYMBOLS.items():
        known = symbol_map(release)
        for symbol in symbols.values():
            assert known[symbol] == meant[symbol]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(0, 1000))
def test_counts_agree_with_the_table(schools: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    summary = pd.DataFrame(
        {
            "school": np.arange(schools).astype(str),
            "mean": np.where(rng.random(schools) < 0.2, np.nan, 0.0),
            "n_need": rng.integers(0, 30, schools),
            "reliability": rng.random(schools),
            "flag": "",
        }
    )
    width, far = rng.random(schools), rng.normal(0, 0.2, schools)
    decision = RULE.decide(summary, rank_width=width, disagreement=far)
    table, counts = decision.table, decision.counts.set_index("clause")
    assert (table["published"] == (table["clauses"] == "")).all()
    assert (table["published"] == (table["symbol"] == "")).all()
    assert (table["published"] == (table["reason"] == "")).all()
    for clause, row in counts.iterrows():
        assert row["withheld"] == table["clauses"].str.contains(str(clause)).sum()
        assert row["withheld_only"] == (table["clauses"] == clause).sum()
    assert decision.combinations["schools"].sum() == decision.withheld
    np.testing.assert_array_equal(RULE.reasons(summary, rank_width=width, disagreement=far), table["reason"])
    order = rng.permutation(schools)
    moved = RULE.decide(summary.iloc[order], rank_width=width[order], disagreement=far[order])
    assert moved.table["symbol"].tolist() == table["symbol"].iloc[order].tolist()
    assert moved.counts.equals(decision.counts)
    assert moved.combinations.equals(decision.combinations)


def test_limits_out_of_range_are_refused_together() -> None:
    with pytest.raises(InputError) as caught:
        PublicationRule(minimum_need=0, minimum_reliability=1.5, maximum_rank_width=0.0, maximum_disagreement=-1.0)
    assert [failure.column for failure in caught.value.failures] == [
        "minimum_need",
        "minimum_reliability",
        "maximum_rank_width",
        "maximum_disagreement",
    ]
    with pytest.raises(InputError, match="minimum_need"):
        PublicationRule(minimum_need=2.5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="minimum_reliability"):
        PublicationRule(minimum_reliability=float("nan"))


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="limits maximum_rank_width but rank_width is not given"):
        RULE.decide(SUMMARY, disagreement=FAR)
    with pytest.raises(InputError, match="limits maximum_disagreement but disagreement is not given"):
        RULE.reasons(SUMMARY, rank_width=WIDTH)
    with pytest.raises(InputError, match=r"rank_width has shape \(2,\) for 7"):
        RULE.decide(SUMMARY, rank_width=WIDTH[:2], disagreement=FAR)
    with pytest.raises(InputError, match="reliability: is missing"):
        RULE.decide(SUMMARY.drop(columns="reliability"))
    with pytest.raises(InputError, match="no symbols 'welsh'"):
        RULE.decide(SUMMARY, rank_width=WIDTH, disagreement=FAR, symbols="welsh")  # type: ignore[arg-type]
