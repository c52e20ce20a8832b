"""What a run says of places: rank sets among the schools it compares, grades, the rule, and what the table can tell."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from send_va.effects import SchoolEffects, school_effects
from send_va.ranking import confidence_sets
from send_va.ranking_stage import FEWEST_GRADED, chances_of_pairs, rank_schools, said_of
from send_va.records.roles import Roles
from send_va.study import PublicationSection, RankingSection, Study

ROLES = Roles(pupil="pupil", school="school", outcome="y", prior=("prior",), sen_status="sen")


def study(**changes: object) -> Study:
    return replace(Study(roles=ROLES, ranking=RankingSection(set_draws=500)), **changes)  # type: ignore[arg-type]


def effects(n: int = 40, *, estimator: str = "entry", unknown: int = 0, gone: int = 0, seed: int = 1) -> SchoolEffects:
    """Schools with SD 3 and standard errors about 1; the last ones have no estimate, or cannot be compared at all."""
    rng = np.random.default_rng(seed)
    theta, se = 3.0 * rng.standard_normal(n), rng.uniform(0.7, 1.4, n)
    estimate = theta + se * rng.standard_normal(n)
    estimate[n - unknown - gone :] = np.nan
    shrunk = np.where(np.isfinite(estimate), 9.0 / (9.0 + se**2) * estimate, 0.0)
    sd = np.where(np.isfinite(estimate), 3.0 * se / np.hypot(3.0, se), 3.0)
    draws = shrunk + sd * rng.standard_normal((400, n))
    draws[:, n - gone :] = np.nan
    return school_effects(
        [f"s{j}" for j in range(n)],
        {"theta": draws},
        {"theta": {"mean": draws.mean(axis=0), "sd": sd, "estimate": estimate, "se": se}},
        n_pupils=np.full(n, 100),
        n_need=np.r_[5, np.full(n - 1, 20)],
        flag=[""] * n,
        attrs={"estimator": estimator, "context": "cva", "outcome_sd": 10.0},
    )


def test_rank_sets_are_those_of_the_unshrunken_estimates() -> None:
    of = effects()
    table = rank_schools(study(), [of], None).rankings
    known = of.summary("theta")
    sets = confidence_sets(known["estimate"], known["se"], draws=500, seed=1)
    np.testing.assert_array_equal(table["rank_lower_simultaneous"], sets["lower"])
    np.testing.assert_array_equal(table["rank_upper_simultaneous"], sets["upper"])
    assert (table["rank_upper_simultaneous"] - table["rank_lower_simultaneous"]).gt(
        table["rank_upper"] - table["rank_lower"]
    ).mean() > 0.9


def test_a_school_without_an_estimate_can_be_anywhere_and_widens_the_others() -> None:
    table = rank_schools(study(), [effects(unknown=2, gone=1)], None).rankings.set_index("school")
    assert table.loc[["s37", "s38"], "rank_lower_simultaneous"].tolist() == [1, 1]
    assert table.loc[["s37", "s38"], "rank_upper_simultaneous"].tolist() == [39, 39]
    assert table.loc["s39"].filter(like="rank").isna().all()
    known = effects(unknown=2, gone=1).summary("theta").iloc[:37]
    sets = confidence_sets(known["estimate"], known["se"], draws=500, seed=1)
    np.testing.assert_array_equal(table["rank_upper_simultaneous"].iloc[:37], sets["upper"] + 2)
    assert table["grade"].iloc[:37].notna().all() and table["grade"].iloc[37:].isna().all()


def test_grades_follow_the_estimates_and_few_schools_get_none() -> None:
    table = rank_schools(study(), [effects()], None).rankings
    by_grade = effects().summary("theta")["estimate"].groupby(table["grade"].astype(int)).mean()
    assert len(by_grade) > 1 and by_grade.is_monotonic_decreasing
    few = rank_schools(study(), [effects(FEWEST_GRADED - 1)], None)
    assert few.rankings["grade"].isna().all() and np.isnan(few.summary["grades"].iloc[0])
    assert "grades" not in said_of(few.summary, "entry", "cva", 0.8)


@pytest.mark.parametrize("prior", ["spline", "mixture"])
def test_a_discordance_rate_bounds_the_pairs_in_the_wrong_order(prior: str) -> None:
    found = rank_schools(
        study(ranking=RankingSection(set_draws=200, discordance_rate=0.02, grade_prior=prior)), [effects()], None
    )
    assert 0.0 < found.summary["discordance"].iloc[0] <= 0.02 + 1e-9


def test_every_clause_is_counted_and_disagreement_withholds() -> None:
    both = [effects(), effects(estimator="labelled")]
    apart = pd.DataFrame(
        {
            "school": [f"s{j}" for j in range(40)],
            "context": "cva",
            "estimator": "labelled",
            "against": "entry",
            "difference_sd": np.r_[np.zeros(30), np.full(10, -0.4)],
        }
    )
    limits = PublicationSection(maximum_disagreement=0.3)
    found = rank_schools(study(publication=limits), both, apart)
    of = found.rankings[found.rankings["estimator"] == "entry"].set_index("school")
    assert "differ" in of.loc["s35", "reason"] and not of.loc["s35", "published"]
    assert "fewer than 10" in of.loc["s0", "reason"]
    limits = PublicationSection(maximum_disagreement=0.3, maximum_rank_width=0.9)
    found = rank_schools(study(publication=limits), both, apart)
    counts = found.withheld[found.withheld["estimator"] == "entry"].set_index("clause")["withheld"]
    assert counts["maximum_disagreement"] == 10 and counts["minimum_need"] == 1
    width = (of["rank_upper_simultaneous"] - of["rank_lower_simultaneous"] + 1) / 40
    assert counts["maximum_rank_width"] == int((width > 0.9).sum())


def test_what_the_table_can_say_is_said_in_a_sentence() -> None:
    summary = rank_schools(study(), [effects()], None).summary
    row = summary.iloc[0]
    said = said_of(summary, "entry", "cva", 0.8)
    assert said.startswith("39 of 40 schools get a position")
    assert f"{row['certain_of_quintile']:.0f} schools belong to one quintile with probability 0.8" in said
    assert 0.2 < row["quintiles_correct"] < 1.0 and row["strata"] > 1.0 and row["chain"] >= 2
    assert said_of(summary.assign(published=0), "entry", "cva", 0.8).startswith("no school of 40 is given a position")


def test_chances_of_pairs_run_from_the_highest_to_the_lowest() -> None:
    of = effects(150, gone=2)
    places = rank_schools(study(), [of], None).rankings["expected_rank"].to_numpy(dtype=float, na_value=np.nan)
    chances = chances_of_pairs(of, places)
    assert chances.shape == (120, 120)
    np.testing.assert_allclose(chances + chances.T, 1.0)
    assert chances[0, -1] > 0.99 and np.diff(chances[60]).mean() > 0.0


def test_same_seed_same_places() -> None:
    first, again = (rank_schools(study(), [effects()], None) for _ in range(2))
    pd.testing.assert_frame_equal(first.rankings, again.rankings)
    pd.testing.assert_frame_equal(first.summary, again.summary)
