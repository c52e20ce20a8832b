"""How a synthetic cohort compares with published English figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from send_va.records.simulator.cohort import SimulatedCohort


@dataclass(frozen=True)
class Target:
    """A published figure.

    Attributes
    ----------
    quantity : str
        What it is, with its unit.
    value : float
        The published figure.
    tolerance : float
        How far a synthetic cohort of 1,000 schools may be from it, in the same unit.
    source : str
        Table, year and population, and where they differ from the cohort, how.
    """

    quantity: str
    value: float
    tolerance: float
    source: str


_KS4_2024 = "DfE key stage 4 school information 2023/24, state-funded mainstream, pupils at the end of key stage 4"
_CENSUS = (
    "DfE school census in the performance tables 2018/19, mainstream schools with Progress 8, whole school; "
    "five years before the other table, hence the tolerance"
)
_KS4_2018 = "DfE key stage 4 national characteristics 2017/18, state-funded mainstream"
_TABLES_2019 = "DfE key stage 4 performance tables 2018/19, mainstream schools with Progress 8"
_MATRIX = (
    "DfE key stage 2 to 4 transition matrices 2023/24, all state-funded, special schools included; pupils with a "
    "scaled score of 80 or more, which leaves out most pupils of special schools"
)
_ONE_NEED = "; wider, since one need with one linear effect cannot bring EHCP as close to SEN support as published"
_PASS = "; synthetic: share above the Attainment 8 score that as many pupils reach as published"
_LOWEST = "; wider, since one such score stands in poorly for English and maths at the lowest prior attainment"

PUBLISHED_TARGETS: tuple[Target, ...] = (
    Target("share with SEN support, key stage 4 cohort", 0.1275, 0.005, _KS4_2024),
    Target("share with EHCP, key stage 4 cohort", 0.0266, 0.003, _KS4_2024),
    Target("share with SEN support, whole school", 0.1072, 0.025, _CENSUS),
    Target("share with EHCP, whole school", 0.0166, 0.012, _CENSUS),
    Target("between-school SD of SEN support share, key stage 4 cohort", 0.0619, 0.010, _KS4_2024),
    Target("between-school SD of SEN support share, whole school", 0.0564, 0.015, _CENSUS),
    Target("between-school SD of EHCP share, key stage 4 cohort", 0.0168, 0.006, _KS4_2024),
    Target("Progress 8, no SEN", 0.077, 0.04, _KS4_2018),
    Target("Progress 8, SEN support", -0.429, 0.08, f"{_KS4_2018} (all state-funded: -0.434)"),
    Target("Progress 8, EHCP", -0.487, 0.15, f"{_KS4_2018} (all state-funded, special included: -1.092){_ONE_NEED}"),
    Target("Attainment 8, no SEN", 49.76, 2.0, _KS4_2018),
    Target("Attainment 8, SEN support", 32.24, 3.0, f"{_KS4_2018} (all state-funded: 32.17)"),
    Target("Attainment 8, EHCP", 25.12, 3.0, f"{_KS4_2018} (all state-funded, special included: 13.50)"),
    Target("pupil SD of Progress 8", 1.28, 0.06, f"{_TABLES_2019}, implied by the published intervals"),
    Target("between-school SD of Progress 8", 0.474, 0.08, f"{_TABLES_2019}, sampling error included"),
    Target("share with any SEN, key stage 2 score 80-95.5", 0.493, 0.08, _MATRIX),
    Target("share with any SEN, key stage 2 score 96-102", 0.201, 0.04, _MATRIX),
    Target("share with any SEN, key stage 2 score 102.5-107", 0.117, 0.03, _MATRIX),
    Target("share with any SEN, key stage 2 score 107.5-120", 0.073, 0.03, _MATRIX),
    Target("grade 4+ in English and maths, any SEN, 80-95.5", 0.069, 0.10, _MATRIX + _PASS),
    Target("grade 4+ in English and maths, any SEN, 96-102", 0.292, 0.10, _MATRIX + _PASS),
    Target("grade 4+ in English and maths, any SEN, 102.5-107", 0.529, 0.10, _MATRIX + _PASS),
    Target("grade 4+ in English and maths, any SEN, 107.5-120", 0.781, 0.10, _MATRIX + _PASS),
    Target("grade 4+ in English and maths, no SEN, 80-95.5", 0.148, 0.13, _MATRIX + _PASS + _LOWEST),
    Target("grade 4+ in English and maths, no SEN, 96-102", 0.461, 0.10, _MATRIX + _PASS),
    Target("grade 4+ in English and maths, no SEN, 102.5-107", 0.746, 0.10, _MATRIX + _PASS),
    Target("grade 4+ in English and maths, no SEN, 107.5-120", 0.938, 0.10, _MATRIX + _PASS),
    Target("mean over schools of mean key stage 2 score", 104.43, 0.3, _KS4_2024),
    Target("between-school SD of mean key stage 2 score", 2.70, 0.3, _KS4_2024),
    Target("share disadvantaged (FSM6)", 0.256, 0.02, _KS4_2024),
    Target("between-school SD of share disadvantaged", 0.136, 0.02, _KS4_2024),
    Target("share with English as an additional language", 0.184, 0.03, _KS4_2024),
    Target("between-school SD of share with English as an additional language", 0.193, 0.05, _KS4_2024),
    Target("pupils a school, mean, 2018/19", 165.8, 15.0, _TABLES_2019),
    Target("pupils a school, mean, 2023/24", 185.5, 15.0, _KS4_2024),
    Target("pupils a school, SD", 62.5, 5.0, _KS4_2024),
)

# Key stage 2 bands: label, lowest and highest score. The lowest starts above 80, where pupils below 80 are put.
_BANDS = (("80-95.5", 80.5, 95.5), ("96-102", 96.0, 102.0), ("102.5-107", 102.5, 107.0), ("107.5-120", 107.5, 120.0))
# Share of pupils with a scaled score of 80 or more and grade 4 or better in English and mathematics, same table.
PUBLISHED_PASS_SHARE = 0.673


def calibration_table(simulated: SimulatedCohort) -> pd.DataFrame:
    """Compare a synthetic cohort with published English figures.

    Only the default scenario with 1,000 schools or more is meant to be within the tolerances. Mainstream figures are
    used wherever DfE publishes them, since a synthetic cohort holds no special schools.

    Parameters
    ----------
    simulated : SimulatedCohort
        The cohort.

    Returns
    -------
    DataFrame
        One row a figure: `quantity`, `target`, `achieved`, `tolerance` (all in the unit of the quantity), `within`
        (whether achieved is within the tolerance of the target) and `source`. A row that is not within says in which
        respect results on this cohort should not be read as if they were about England.

    Examples
    --------
    >>> import numpy as np
    >>> from send_va.records.simulator.cohort import simulate
    >>> table = calibration_table(simulate(np.random.default_rng(1), schools=20))
    >>> table.columns.to_list()
    ['quantity', 'target', 'achieved', 'tolerance', 'within', 'source']
    """
    achieved = _achieved(simulated.pupils)
    rows = [
        (t.quantity, t.value, achieved[t.quantity], t.tolerance, abs(achieved[t.quantity] - t.value) <= t.tolerance)
        for t in PUBLISHED_TARGETS
    ]
    table = pd.DataFrame(rows, columns=["quantity", "target", "achieved", "tolerance", "within"])
    return table.assign(source=[target.source for target in PUBLISHED_TARGETS])


def between_sd(count: pd.Series[float], size: pd.Series[float]) -> float:
    """Estimate the SD over schools of a share, beyond what binomial noise gives.

    Parameters
    ----------
    count, size : Series
        Pupils counted and pupils in all, one entry a school; schools with fewer than two pupils are left out.

    Returns
    -------
    float
        On the scale of the share; 0 where the schools differ no more than chance would have them.

    Examples
    --------
    >>> round(between_sd(pd.Series([10.0, 30.0]), pd.Series([100.0, 100.0])), 4)
    0.136
    """
    enough = size > 1
    share = count[enough] / size[enough]
    noise = (share * (1 - share) / (size[enough] - 1)).mean()
    return float(np.sqrt(max(share.var() - noise, 0.0)))


def _achieved(pupils: pd.DataFrame) -> dict[str, float]:
    progress8 = (pupils["outcome"] - pupils.groupby("prior")["outcome"].transform("mean")) / 10
    status = pupils["sen_status"]
    by_status_p8 = progress8.groupby(status).mean()
    by_status_a8 = pupils["outcome"].groupby(status).mean()
    achieved = {
        "Progress 8, no SEN": by_status_p8["N"],
        "Progress 8, SEN support": by_status_p8["K"],
        "Progress 8, EHCP": by_status_p8["E"],
        "Attainment 8, no SEN": by_status_a8["N"],
        "Attainment 8, SEN support": by_status_a8["K"],
        "Attainment 8, EHCP": by_status_a8["E"],
        "pupil SD of Progress 8": float(progress8.std()),
        "between-school SD of Progress 8": float(progress8.groupby(pupils["school"]).mean().std()),
    }
    return achieved | _school_figures(pupils) | _band_figures(pupils)


def _school_figures(pupils: pd.DataFrame) -> dict[str, float]:
    by_school = pupils.assign(
        support=pupils["sen_status"] == "K",
        ehcp=pupils["sen_status"] == "E",
    ).groupby("school")
    size = by_school.size().astype(float)
    counts = by_school[["support", "ehcp", "fsm6", "eal"]].sum().astype(float)
    share = counts.sum() / size.sum()
    sd = {column: between_sd(counts[column], size) for column in counts}
    ks2 = by_school["prior"].mean()
    return {
        "share with SEN support, key stage 4 cohort": share["support"],
        "share with EHCP, key stage 4 cohort": share["ehcp"],
        "share with SEN support, whole school": share["support"],
        "share with EHCP, whole school": share["ehcp"],
        "between-school SD of SEN support share, key stage 4 cohort": sd["support"],
        "between-school SD of SEN support share, whole school": sd["support"],
        "between-school SD of EHCP share, key stage 4 cohort": sd["ehcp"],
        "mean over schools of mean key stage 2 score": float(ks2.mean()),
        "between-school SD of mean key stage 2 score": float(ks2.std()),
        "share disadvantaged (FSM6)": share["fsm6"],
        "between-school SD of share disadvantaged": sd["fsm6"],
        "share with English as an additional language": share["eal"],
        "between-school SD of share with English as an additional language": sd["eal"],
        "pupils a school, mean, 2018/19": float(size.mean()),
        "pupils a school, mean, 2023/24": float(size.mean()),
        "pupils a school, SD": float(size.std()),
    }


def _band_figures(pupils: pd.DataFrame) -> dict[str, float]:
    scored = pupils[pupils["prior"] >= _BANDS[0][1]]
    passed = scored["outcome"] > scored["outcome"].quantile(1 - PUBLISHED_PASS_SHARE)
    any_sen = scored["sen_status"] != "N"
    figures: dict[str, float] = {}
    for label, low, high in _BANDS:
        inside = scored["prior"].between(low, high)
        figures[f"share with any SEN, key stage 2 score {label}"] = float(any_sen[inside].mean())
        for name, group in (("any SEN", any_sen), ("no SEN", ~any_sen)):
            figures[f"grade 4+ in English and maths, {name}, {label}"] = float(passed[inside & group].mean())
    return figures
