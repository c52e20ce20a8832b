"""The lottery on published counts: beside lme4, on simulated truth, and on tables it must refuse."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from send_va.errors import CollinearityError, InputError, NotSupportedError
from send_va.identification.published_counts import NOT_LENIENCY, published_lottery
from send_va.records.dfe_census import england_census

REFERENCE = Path(__file__).parents[1] / "reference" / "lottery_lme4"
FULL_TERMS = {
    "Intercept": "(Intercept)",
    "fsm6": "fsm",
    "eal": "eal",
    "girls": "girls",
    "phase[T.secondary]": "secondary",
}


@pytest.fixture(scope="module")
def lme4():
    return json.loads((REFERENCE / "reference.json").read_text())


@pytest.fixture(scope="module")
def census(shared_data):
    return england_census(shared_data / "england").data


def _variances(lottery, label, model, year="2018-19"):
    rows = lottery.variance.query("label == @label and model == @model and year == @year")
    return rows.set_index("level")


def _close_to_glmer(lottery, expected, label, model):
    """Laplace in both. glmer's search stops up to 0.002 below the top here, so llf may be higher, never lower."""
    fit = lottery.fits.query("label == @label and model == @model").iloc[0]
    assert fit["converged"]
    assert fit["n_schools"] == expected["n"]
    assert -1e-3 < fit["llf"] - expected["llf"] < 5e-3
    rows = _variances(lottery, label, model)
    for level, group in (("school", "urn"), ("la", "la")):
        assert np.sqrt(rows.loc[level, "variance"]) == pytest.approx(expected["varcorr"][group]["sd"], rel=1e-3)
    found = lottery.coefficients.query("label == @label and model == @model").set_index("term")["estimate"]
    for term, value in found.items():
        assert value == pytest.approx(expected["fixef"][FULL_TERMS[term]], abs=1e-3)


def test_all_state_funded_schools_2018_19_equal_glmer(census, lme4):
    lottery = published_lottery(census[census["year"] == "2018-19"])
    assert lottery.n_schools == {"2018-19": 20_162}
    for label in ("support", "ehcp"):
        for model in ("null", "full"):
            _close_to_glmer(lottery, lme4[f"all_{label}_{model}"], label, model)
    assert len(lottery.persistence) == 0


def test_secondary_schools_equal_glmer_its_profile_and_its_bivariate_model(census, lme4):
    secondary = census[census["phase"] == "secondary"]
    # The reference keeps to URNs; a school in both years stays in the last year's authority.
    lottery = published_lottery(secondary.assign(school=secondary["urn"]), labels=["support"])
    expected = lme4["secondary_support"]
    # lme4 1.1-31 as stated for this project: SD of schools 0.509, of authorities 0.213, log-likelihood -17560.96.
    assert (expected["n"], round(expected["llf"], 2)) == (3_394, -17560.96)
    fit = lottery.fits.query("label == 'support' and year == '2018-19' and model == 'full'").iloc[0]
    assert fit["llf"] == pytest.approx(expected["llf"], abs=1e-2)
    rows = _variances(lottery, "support", "full")
    variances = rows["variance"]
    for level, group in (("school", "urn"), ("la", "la")):
        assert np.sqrt(variances[level]) == pytest.approx(expected["varcorr"][group]["sd"], rel=1e-3)
        # Profile likelihood of the SD, turned into a share at the other level's estimate: a normal log SD is within
        # 2 % of it (authorities, of whom there are 151, are the less normal).
        squared = np.square(expected["profile"][group])
        profile = squared / (squared + variances.sum() - variances[level])
        np.testing.assert_allclose(rows.loc[level, ["lower", "upper"]].astype(float), profile, rtol=0.02)
    both = lme4["persistence_secondary_support"]
    found = lottery.persistence.query("label == 'support'").set_index("level")
    assert lottery.n_schools["both"] == both["n"] // 2
    llf = lottery.fits.query("label == 'support' and year == 'both'")["llf"].iloc[0]
    assert -1e-3 < llf - both["llf"] < 5e-3
    for level, group in (("school", "urn"), ("la", "la")):
        expected_sd, expected_correlation = both["varcorr"][group]["sd"], both["varcorr"][group]["cor"][0][1]
        np.testing.assert_allclose(found.loc[level, ["sd_first", "sd_last"]].astype(float), expected_sd, rtol=1e-3)
        assert found.loc[level, "correlation"] == pytest.approx(expected_correlation, abs=1e-3)


def simulated(rng, schools=600, authorities=60, sds=((0.5, 0.3), (0.4, 0.2)), correlations=(0.6, 0.8), roll=200):
    """Two years; SDs by year of (school, authority), correlations over the years of (school, authority)."""
    la = np.arange(schools) % authorities
    effects = [
        rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], n)
        for rho, n in zip(correlations, (schools, authorities), strict=True)
    ]
    tables = []
    for number, year in enumerate(("2018-19", "2022-23")):
        table = pd.DataFrame(
            {
                "school": np.arange(schools) + 1, "year": year, "la": la, "roll": roll,
                "phase": np.where(np.arange(schools) % 5, "primary", "secondary"),
                "fsm6": rng.uniform(2, 60, schools), "eal": rng.uniform(0, 70, schools),
                "girls": rng.uniform(44, 56, schools),
            }
        )  # fmt: skip
        log_odds = -2.3 + 0.02 * table["fsm6"] + sds[number][0] * effects[0][:, number]
        log_odds += sds[number][1] * effects[1][la, number]
        table["n_sen_support"] = rng.binomial(roll, 1 / (1 + np.exp(-log_odds)))
        others = roll - table["n_sen_support"]
        table["n_ehcp"] = rng.binomial(others, 1 / (1 + np.exp(-log_odds)) / 4)  # same sides, a quarter of the odds
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


@pytest.fixture(scope="module")
def made_up():
    return simulated(np.random.default_rng(8))


@pytest.fixture(scope="module")
def of_made_up(made_up):
    return published_lottery(made_up, labels=["support"])


def test_simulated_shares_and_persistence_are_recovered(of_made_up):
    for year, school, la in (("2018-19", 0.5, 0.3), ("2022-23", 0.4, 0.2)):
        rows = _variances(of_made_up, "support", "full", year)
        total = school**2 + la**2 + np.pi**2 / 3
        for level, variance in (("school", school**2), ("la", la**2), ("residual", np.pi**2 / 3)):
            assert rows.loc[level, "lower"] < variance / total < rows.loc[level, "upper"], (year, level)
        assert rows["share"].sum() == pytest.approx(1)
        null = _variances(of_made_up, "support", "null", year)
        assert null.loc["school", "variance"] > rows.loc["school", "variance"]  # poverty explains some of it
    found = of_made_up.persistence.query("label == 'support'").set_index("level")
    for level, truth in (("school", 0.6), ("la", 0.8)):
        assert found.loc[level, "lower"] < truth < found.loc[level, "upper"]
        assert found.loc[level, "lower"] < found.loc[level, "correlation"] < found.loc[level, "upper"]
    slope = of_made_up.coefficients.query("label == 'support' and model == 'full' and term == 'fsm6'")
    np.testing.assert_allclose(slope["estimate"], 0.2, atol=4 * slope["se"].max())


def test_every_output_says_what_it_is_not(of_made_up):
    assert of_made_up.notes[0] == NOT_LENIENCY
    for text in (str(of_made_up), of_made_up._repr_html_()):
        assert "not leniency" in text
        assert "leniency" not in text.replace("not leniency", "")
    assert any("600 schools with counts in both years" in note for note in of_made_up.notes)


def test_rows_without_counts_and_empty_schools_are_left_out_and_counted(made_up):
    one = made_up[made_up["year"] == "2018-19"].astype({"roll": float})
    one.loc[[0, 1], "fsm6"] = np.nan
    one.loc[2, ["roll", "n_sen_support", "n_ehcp"]] = 0
    lottery = published_lottery(one, labels=["ehcp"])
    assert lottery.n_schools == {"2018-19": 597}
    assert "Left out: 2 rows with a missing count or covariate." in lottery.notes
    assert "Left out: 1 row of schools without pupils." in lottery.notes


def test_the_order_of_rows_changes_nothing(made_up):
    one = made_up[made_up["year"] == "2018-19"]
    tables = [
        published_lottery(rows, labels=["support"]).variance for rows in (one, one.sample(frac=1, random_state=3))
    ]
    pd.testing.assert_frame_equal(*tables, rtol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="eal"), r"eal: is not a column of the table\. Use england_census"),
        (lambda t: pd.concat([t, t.iloc[[5]]]), "school: a school has two rows in a year; 2 rows fail; rows 6, 1201"),
        (lambda t: t.assign(n_ehcp=t["n_ehcp"] + 0.5), "counts are whole numbers, zero or more; 1200 rows fail"),
        (
            lambda t: t.assign(n_sen_support=t["roll"]),
            "add up to no more than roll.*Give counts of pupils, not percentages",
        ),
        (lambda t: t.assign(la=1), "la: has 1 local authority for 600 schools in 2018-19, so .* cannot be told apart"),
        (lambda t: t.assign(la=t["school"]), "la: has 600 local authorities for 600 schools"),
        (lambda t: t.assign(school=t.index), "no school has a row in both years. Name a school alike in both"),
    ],
)
def test_bad_tables_are_refused(made_up, change, message):
    with pytest.raises(InputError, match=message):
        published_lottery(change(made_up))


def test_an_unknown_label_is_refused(made_up):
    with pytest.raises(InputError, match=r"no counts are known for K\. Known: support, ehcp"):
        published_lottery(made_up, labels=["support", "K"])


def test_three_years_and_constant_covariates_are_refused(made_up):
    third = made_up[made_up["year"] == "2018-19"].assign(year="2023-24")
    with pytest.raises(NotSupportedError, match="between two years, not 3"):
        published_lottery(pd.concat([made_up, third]))
    with pytest.raises(CollinearityError, match="girls"):
        published_lottery(made_up[made_up["year"] == "2018-19"].assign(girls=50.0))
