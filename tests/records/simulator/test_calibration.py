"""Every published target is recomputed from DfE's files."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from send_va.records.simulator import calibration_table, simulate
from send_va.records.simulator.calibration import PUBLISHED_PASS_SHARE, PUBLISHED_TARGETS, between_sd
from send_va.records.simulator.cohort import FIRST_LA

TARGETS: Mapping[str, float] = {target.quantity: target.value for target in PUBLISHED_TARGETS}
BANDS = {
    "80-95.5": ["80 - 89.5", "90 - 95.5"],
    "96-102": ["96 - 99.5", "100 - 102"],
    "102.5-107": ["102.5 - 104.5", "105 - 107"],
    "107.5-120": ["107.5 - 109.5", "110 - 113", "113.5 - 116.5", "117 - 120"],
}


def _numbers(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    return table[columns].apply(pd.to_numeric, errors="coerce")


def _cohort_2023_24(england: Path) -> dict[str, float]:
    file = england / "2023-24" / "ks4_school_info_2024.csv"
    columns = [
        "t_pupils", "t_sen_no_ehcp", "t_sen_with_ehcp", "t_disadvantaged", "t_language_not_english",
        "avg_ks2_scaledscore",
    ]  # fmt: skip
    school = _numbers(pd.read_csv(file, dtype=str, usecols=columns), columns)
    school = school[school["t_sen_no_ehcp"].notna()]
    # A handful of schools have a suppressed count of disadvantaged pupils or of other first languages: taken as 0.
    school[["t_disadvantaged", "t_language_not_english"]] = school[
        ["t_disadvantaged", "t_language_not_english"]
    ].fillna(0)
    size = school["t_pupils"]
    share = school.sum() / size.sum()
    return {
        "share with SEN support, key stage 4 cohort": share["t_sen_no_ehcp"],
        "share with EHCP, key stage 4 cohort": share["t_sen_with_ehcp"],
        "between-school SD of SEN support share, key stage 4 cohort": between_sd(school["t_sen_no_ehcp"], size),
        "between-school SD of EHCP share, key stage 4 cohort": between_sd(school["t_sen_with_ehcp"], size),
        "share disadvantaged (FSM6)": share["t_disadvantaged"],
        "between-school SD of share disadvantaged": between_sd(school["t_disadvantaged"], size),
        "share with English as an additional language": share["t_language_not_english"],
        "between-school SD of share with English as an additional language": between_sd(
            school["t_language_not_english"], size
        ),
        "mean over schools of mean key stage 2 score": school["avg_ks2_scaledscore"].mean(),
        "between-school SD of mean key stage 2 score": school["avg_ks2_scaledscore"].std(),
        "pupils a school, mean, 2023/24": size.mean(),
        "pupils a school, SD": size.std(),
    }


def _schools_2018_19(england: Path) -> dict[str, float]:
    folder = england / "2018-19"
    ks4 = pd.read_csv(folder / "england_ks4provisional.csv", dtype=str, encoding="utf-8-sig")
    figures = ["TPUP", "P8MEA", "P8CILOW", "P8CIUPP", "P8PUP"]
    ks4[figures] = _numbers(ks4, figures)
    ks4 = ks4[(ks4["RECTYPE"] == "1") & ks4["P8MEA"].notna()]
    pupil_sd = (ks4["P8CIUPP"] - ks4["P8CILOW"]) / (2 * 1.96) * np.sqrt(ks4["P8PUP"])

    census = pd.read_csv(folder / "england_census.csv", dtype=str, encoding="utf-8-sig")
    counts = ["NOR", "TSENELK", "TSENELSE"]
    census[counts] = _numbers(census, counts)
    school = ks4.merge(census[["URN", *counts]], on="URN").dropna(subset=counts)
    share = school[counts].sum() / school["NOR"].sum()
    return {
        "pupils a school, mean, 2018/19": ks4["TPUP"].mean(),
        "between-school SD of Progress 8": ks4["P8MEA"].std(),
        "pupil SD of Progress 8": pupil_sd.median(),
        "share with SEN support, whole school": share["TSENELK"],
        "share with EHCP, whole school": share["TSENELSE"],
        "between-school SD of SEN support share, whole school": between_sd(school["TSENELK"], school["NOR"]),
    }


def _outcomes_by_sen_2017_18(england: Path) -> dict[str, float]:
    file = england / "national" / "ks4_2018_national_characteristics.csv"
    national = pd.read_csv(file, dtype=str)
    rows = national[
        (national["school_characteristic"] == "state_funded_mainstream")
        & (national["breakdown"] == "SEN_status")
        & (national["characteristic_gender"] == "Total")
        & (national["characteristic_free_school_meals"] == "Total")
    ].set_index("characteristic_sen_status")
    total = _numbers(rows, ["t_p8score", "t_inp8calc", "t_att8", "t_pupils"])
    figures = {}
    for code, name in (("No_Sen", "no SEN"), ("Sen_Supp", "SEN support"), ("SenStateEhc", "EHCP")):
        status = total.loc[code]
        figures |= {
            f"Progress 8, {name}": status["t_p8score"] / status["t_inp8calc"],
            f"Attainment 8, {name}": status["t_att8"] / status["t_pupils"],
        }
    return figures


def _matrix(england: Path) -> pd.DataFrame:
    matrix = pd.read_csv(england / "national" / "2024_Key_stage_2_to_4_transition_matrices_KS4_measures.csv")
    passed = matrix["Basics_9-4_Achieved"]
    matrix = matrix.assign(
        band=matrix["ks2_scaled_score_group"].map({group: band for band, groups in BANDS.items() for group in groups}),
        passed=passed,
        pupils=passed + matrix["Basics_9-4_Not_Achieved"],
    )
    return matrix[(matrix["breakdown_topic"] == "SEN status") & matrix["band"].notna()]


def _bands_2023_24(england: Path) -> dict[str, float]:
    counts = _matrix(england).groupby(["band", "breakdown"])[["passed", "pupils"]].sum()
    figures = {}
    for band in BANDS:
        any_sen, no_sen = counts.loc[(band, "Any SEN")], counts.loc[(band, "No identified SEN")]
        figures |= {
            f"share with any SEN, key stage 2 score {band}": any_sen["pupils"] / counts.loc[band, "pupils"].sum(),
            f"grade 4+ in English and maths, any SEN, {band}": any_sen["passed"] / any_sen["pupils"],
            f"grade 4+ in English and maths, no SEN, {band}": no_sen["passed"] / no_sen["pupils"],
        }
    return figures


def test_every_target_is_recomputed_from_the_published_files(shared_data: Path) -> None:
    england = shared_data / "england"
    recomputed = (
        _cohort_2023_24(england)
        | _schools_2018_19(england)
        | _outcomes_by_sen_2017_18(england)
        | _bands_2023_24(england)
    )
    assert recomputed.keys() == TARGETS.keys()
    for quantity, figure in recomputed.items():
        # Targets are typed with three significant digits.
        assert TARGETS[quantity] == pytest.approx(figure, rel=0.005, abs=0.0006), quantity


def test_share_that_passes_is_that_of_the_published_matrix(shared_data: Path) -> None:
    matrix = _matrix(shared_data / "england")
    assert matrix["passed"].sum() / matrix["pupils"].sum() == pytest.approx(PUBLISHED_PASS_SHARE, abs=0.0006)


def test_no_english_authority_has_a_synthetic_code(shared_data: Path) -> None:
    codes = pd.read_csv(shared_data / "england" / "2018-19" / "la_and_region_codes_meta.csv")["LEA"]
    assert not codes.between(FIRST_LA, FIRST_LA + 150).any()


def test_england_sized_cohorts_keep_the_calibration() -> None:
    table = calibration_table(simulate(np.random.default_rng(2), schools=1000)).set_index("quantity")
    assert table["within"].all(), table.loc[~table["within"], ["target", "achieved"]].to_string()
