"""The same records under another definition of SEND, or with fewer cohorts pooled."""

from __future__ import annotations

from dataclasses import replace

import ibis

from send_va.errors import InputError
from send_va.records.reader import Cohort
from send_va.records.roles import SenCodes
from send_va.value_added.year_estimates import year_ends
from send_va.value_added.year_groups import cohort_counts


def defined_send(cohort: Cohort, send: str) -> Cohort:
    """Count only plans as need (``ehcp``), pupils with SEN support joining those without; or leave it (``any``).

    Raises
    ------
    InputError
        The records have no code for a plan.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"pupil": [1, 2, 3], "school": [7, 7, 8], "outcome": [40.0, 50, 51],
    ...                       "prior": [100, 104, 99], "sen_status": ["N", "K", "E"]})
    >>> roles = {"pupil": "pupil", "school": "school", "outcome": "outcome", "prior": ["prior"],
    ...          "sen_status": "sen_status"}
    >>> plans = defined_send(Cohort.from_pandas(frame, roles), "ehcp")
    >>> [batch.to_pydict() for batch in plans.batches(["sen_level"])]
    [{'sen_level': [0, 0, 2]}]
    """
    if send == "any":
        return cohort
    codes = cohort.sen
    if not codes.ehcp:
        raise InputError("no code of SEN status means a plan, so it cannot count alone", "Add ehcp under [sen].")
    names = [name for name in ("sen_level", "sen_level_entry") if name in cohort.table.columns]
    levels = {
        name: cohort.table[name].cases((1, ibis.literal(0, type="int8")), else_=cohort.table[name]) for name in names
    }
    sen = SenCodes(none=(*codes.none, *codes.support), support=(), ehcp=codes.ehcp)
    return replace(cohort, table=cohort.table.mutate(**levels), sen=sen)


def latest_years(cohort: Cohort, years: int) -> Cohort:
    """Keep the latest cohorts; 0 keeps all records.

    Raises
    ------
    InputError
        No role `cohort`, cohorts that are no academic years, or no more of them than are to be kept.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"pupil": [1, 2, 3], "school": [7, 7, 8], "outcome": [40.0, 50, 51],
    ...                       "prior": [100, 104, 99], "sen_status": ["N", "K", "E"],
    ...                       "cohort": ["2021/22", "2022/23", "2022/23"]})
    >>> roles = {"pupil": "pupil", "school": "school", "outcome": "outcome", "prior": ["prior"],
    ...          "sen_status": "sen_status", "cohort": "cohort"}
    >>> latest_years(Cohort.from_pandas(frame, roles), 1).n_rows
    2
    """
    if years == 0:
        return cohort
    role = cohort.roles.cohort
    if role is None:
        raise InputError(
            "multiverse.years: the records have no role cohort, so years cannot be told apart",
            'Name the column of the academic year: cohort = "cohort" under [roles].',
        )
    ends = year_ends([label for label in cohort_counts(cohort) if label is not None])
    known = sorted(set(ends.values()))
    if len(known) <= years:
        raise InputError(
            f"multiverse.years: the records are of {len(known)} cohort{'s' if len(known) != 1 else ''}, so that to "
            f"pool the latest {years} is to pool all there are, which is the value 0",
            "Give the records of more cohorts, or leave the value out.",
        )
    kept = [label for label, end in ends.items() if end in known[-years:]]
    return replace(cohort, table=cohort.table.filter(cohort.table[role].isin(kept)))
