"""The authority of every school, for a level of the model above schools."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

if TYPE_CHECKING:
    from send_va.records.reader import Cohort


def school_authorities(cohort: Cohort, schools: tuple[str, ...]) -> tuple[NDArray[np.intp], tuple[str, ...]] | None:
    """Code every school by the authority of most of its pupils.

    Parameters
    ----------
    cohort : Cohort
    schools : tuple of str
        In the order of the result.

    Returns
    -------
    codes, names or None
        Codes (schools,) of the names. A school whose authority is not recorded is one of its own. None where no
        authority is recorded, or fewer than two, or each has one school: there is then no such level.
    """
    roles = cohort.roles
    if roles.la is None:
        return None
    parts = [batch.to_pandas() for batch in cohort.batches([roles.school, roles.la])]
    pupils = pd.concat(parts, ignore_index=True).dropna()
    counts = pupils.groupby([roles.school, roles.la], sort=True).size().reset_index(name="n")
    largest = counts.sort_values("n", kind="stable", ascending=False).drop_duplicates(roles.school)
    of_school = largest.astype({roles.school: str, roles.la: str}).set_index(roles.school)[roles.la]
    named = of_school.reindex(list(schools))
    alone = pd.Series([f"school {name}" for name in schools], index=named.index)
    codes, names = pd.factorize(named.fillna(alone), sort=True)
    if len(names) < 2 or len(names) == len(schools):
        return None
    return np.asarray(codes, dtype=np.intp), tuple(str(name) for name in names)
