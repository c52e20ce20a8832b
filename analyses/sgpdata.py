"""The records of R package SGPdata that the analyses share: mathematics, one row a pupil and year.

Semi-synthetic (GPL-3), read from ``SEND_VA_DATA``; names of pupils and schools are never read, school numbers are codes
of that file.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
GRADE = 8
COLUMNS = {
    "CONTENT_AREA": "subject",
    "YEAR": "year",
    "ID": "pupil",
    "GRADE": "grade",
    "SCALE_SCORE": "score",
    "ACHIEVEMENT_LEVEL": "level",
    "GENDER": "gender",
    "ETHNICITY": "ethnicity",
    "FREE_REDUCED_LUNCH_STATUS": "frl",
    "ELL_STATUS": "ell",
    "IEP_STATUS": "iep",
    "SCHOOL_NUMBER": "school",
    "EMH_LEVEL": "school_type",
}


def data_folder() -> Path:
    folder = Path(os.environ.get("SEND_VA_DATA", "../shared/data"))
    return folder if folder.is_absolute() else ROOT / folder


def read(counts: dict[str, int | float | str]) -> pd.DataFrame:
    """Mathematics records with a score, one a pupil and year; what is left out is counted."""
    path = data_folder() / "pupils" / "sgpdata_long.csv.gz"
    every = pd.read_csv(path, usecols=list(COLUMNS), dtype={"ID": str, "SCHOOL_NUMBER": str}).rename(columns=COLUMNS)
    counts["n_rows_file"] = len(every)
    maths = every[every["subject"] == "MATHEMATICS"]
    unscored = (maths["level"] == "No Score") | maths["score"].isna()
    counts["n_maths_rows"], counts["n_maths_no_score"] = len(maths), int(unscored.sum())
    maths = maths[~unscored]
    twice = maths.duplicated(["pupil", "year"], keep=False)
    counts["n_maths_duplicates"] = int(twice.sum())
    maths = maths[~twice].copy()
    for name in ("frl", "ell"):
        maths[name] = maths[name].str.endswith("Yes").astype(float)
    maths["iep"] = np.where(maths["iep"].str.endswith("Yes"), "yes", "no")
    maths["gender"] = maths["gender"].str.removeprefix("Gender: ")
    return maths


def last_cohort(maths: pd.DataFrame, counts: dict[str, int | float | str]) -> pd.DataFrame:
    """Grade-8 pupils of the last year with grade-7 and grade-6 scores, and IEP status in grade 5 (before transfer)."""
    years = sorted(maths["year"].unique())
    cohort = maths[(maths["year"] == years[-1]) & (maths["grade"] == GRADE)]
    counts |= {"year": years[-1], "n_grade8": len(cohort), "n_grade8_schools": cohort["school"].nunique()}
    counts["n_grade8_iep"] = int((cohort["iep"] == "yes").sum())
    for back in (1, 2, 3):
        earlier = maths[(maths["year"] == years[-1 - back]) & (maths["grade"] == GRADE - back)]
        kept = {"score": f"score_{GRADE - back}", "iep": f"iep_{GRADE - back}", "school_type": f"type_{GRADE - back}"}
        kept["school"] = f"school_{GRADE - back}"
        cohort = cohort.merge(earlier[["pupil", *kept]].rename(columns=kept), on="pupil", how="left", validate="1:1")
    for grade in (7, 6):
        gone = cohort[f"score_{grade}"].isna()
        counts[f"n_without_grade{grade}"] = int(gone.sum())
        counts[f"n_iep_without_grade{grade}"] = int((gone & (cohort["iep"] == "yes")).sum())
    return cohort[cohort["score_7"].notna() & cohort["score_6"].notna()].reset_index(drop=True)
