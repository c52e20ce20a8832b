"""The national table of mainstream schools against what is known of it."""

import numpy as np
import pytest

from send_va.errors import InputError, NotSupportedError
from send_va.records.dfe_england import england_schools
from send_va.records.dfe_join import join_school_tables
from send_va.records.dfe_tables import read_school_table


@pytest.fixture(scope="module")
def england(shared_data):
    return england_schools(shared_data / "england")


def test_every_school_with_an_interval_is_there_once(england):
    assert len(england.data) == 3_182
    assert england.data["urn"].is_unique
    for column in ("p8", "p8_se", "n_pupils", "sen_support", "ehcp", "fsm6", "eal", "region", "la_name"):
        assert england.data[column].notna().all(), column
    assert england.data["region"].nunique() == 9


def test_join_rates_are_reported_step_by_step(england):
    assert len(england.joins) == 3
    census, absence, collated = england.joins
    assert (census.by_urn, census.by_urn + census.by_laestab) == (3_135, 3_152)
    assert census.unmatched == ()
    assert len(absence.unmatched) == 1
    assert len(collated.unmatched) == 9
    assert england.missing().loc["ks2", "no matching school"] == 9


def test_intervals_use_one_pupil_sd_for_every_school(england):
    implied = england.data["p8_se"] * np.sqrt(england.data["n_pupils"])
    # Bounds have two decimals: rounding alone moves the implied SD by up to 0.0026 * sqrt(n), 0.03 for 150 pupils.
    assert implied.median() == pytest.approx(1.283, abs=0.002)
    assert implied.between(1.24, 1.32).all()


def test_complete_schools_without_links_are_the_known_number(shared_data):
    folder = shared_data / "england" / "2018-19"
    results = read_school_table(
        folder / "england_ks4provisional.csv", columns=["RECTYPE", "P8MEA", "P8PUP", "P8CILOW", "P8CIUPP"]
    )
    results = results.select((results.data["RECTYPE"] == 1) & results.data["P8CILOW"].notna())
    census = read_school_table(folder / "england_census.csv", columns=["PSENELK", "PSENELSE"])
    collated = read_school_table(
        folder / "fft_ks4_schools.csv",
        "fft_collated",
        columns=[
            "Progress 8, 2019",
            "FSM6, %",
            "Prior (KS2) attainment, 2019",
            "Fixed period exclusion rate, 2019",
            "Absence rate",
        ],
    )
    assert collated.data["Progress 8, 2019"].notna().sum() == 3_171
    joined, _ = join_school_tables(results, census)
    joined, _ = join_school_tables(joined, collated)
    # Stated with the data: 3,074 schools complete on P8, pupils, interval, SEN, FSM6, KS2, exclusions and absence.
    assert joined.data.drop(columns=["urn", "laestab"]).notna().all(axis=1).sum() == 3_074


def test_other_years_and_absent_files_are_refused(tmp_path):
    with pytest.raises(NotSupportedError, match="2022-23; use 2018-19"):
        england_schools(tmp_path, "2022-23")
    with pytest.raises(InputError, match=r"there is no file england_ks4provisional\.csv in 2018-19"):
        england_schools(tmp_path)
