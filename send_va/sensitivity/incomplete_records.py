"""Records in which prior attainment or background is missing: which, of whom, and whether they can be filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from send_va.errors import Failure, InputError
from send_va.records.profile import sort_codes
from send_va.records.reader import Cohort
from send_va.records.roles import Roles

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

FEWEST_PUPILS = 10  # as for outputs of secure environments; rarer patterns are shown together
FEWEST_IN_SHARE = 3  # on either side of a share that is shown
COMPLETE, OTHER, UNUSABLE = "complete", "other patterns", "school, outcome or SEN status missing"
_STATUS = ("none", "support", "ehcp")
_NO_PROXY = (
    "It cannot be imputed from other pupils (key stage 2 tests of 2020 and 2021 were not taken by anyone): use another "
    "baseline, or publish no value-added for them."
)


@dataclass(frozen=True, eq=False)
class IncompleteRecords:
    """All records of a study in memory, with what is missing.

    Attributes
    ----------
    frame : DataFrame
        One row a record in file order, every column with a role but the pupil id, in whose place there is a row number.
    roles : Roles
        Without standard errors of measurement, which imputed scores do not have.
    source : Cohort
        Where the records come from.
    usable : bool array, shape (n,)
        School, outcome and SEN status now are recorded.
    level, entry : integer array, shape (n,)
        0 none, 1 SEN support, 2 EHC plan; -1 where unknown.
    school : integer array, shape (n,)
        Place of the school among `schools`; -1 where unknown.
    schools : tuple of str
    """

    frame: pd.DataFrame
    roles: Roles
    source: Cohort
    usable: Bools
    level: Ints
    entry: Ints
    school: Ints
    schools: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Prior scores and background, which are filled in where missing."""
        return (*self.roles.prior, *self.roles.context_columns)

    @property
    def numbers(self) -> tuple[str, ...]:
        """Those of them that are numbers."""
        return (*self.roles.prior, *self.roles.numeric_context)

    def missing(self, name: str) -> Bools:
        """Usable records without a value of a column, shape (n,)."""
        return np.asarray(self.frame[name].isna().to_numpy() & self.usable)

    @property
    def to_fill(self) -> Bools:
        """Usable records in which anything is missing, shape (n,)."""
        return np.asarray(self.frame[list(self.columns)].isna().any(axis=1).to_numpy() & self.usable)

    def cohort(self, frame: pd.DataFrame | None = None) -> Cohort:
        """A cohort of these records, or of `frame`, made from them by filling values in."""
        return Cohort.from_pandas(
            self.frame if frame is None else frame,
            self.roles,
            sen=self.source.sen,
            outcome_range=self.source.outcome_range,
            synthetic=self.source.synthetic,
        )


def read_incomplete(cohort: Cohort) -> IncompleteRecords:
    """Read all records of a cohort, complete or not.

    Parameters
    ----------
    cohort : Cohort

    Returns
    -------
    IncompleteRecords
        600,000 pupils with 20 columns take about 0.1 GB.
    """
    roles = replace(cohort.roles, prior_sem=())
    wanted = [name for name in roles.columns if name != roles.pupil]
    levels = ["sen_level", *(["sen_level_entry"] if roles.sen_status_entry else [])]
    table = pa.Table.from_batches(list(cohort.batches([*wanted, *levels], complete=False)))
    frame = table.select(wanted).to_pandas()
    frame.insert(0, roles.pupil, np.arange(len(frame)))
    level, entry = (_codes(table, name) for name in ("sen_level", "sen_level_entry"))
    schools = sort_codes(frame[roles.school].dropna().unique())
    school = pd.Categorical(frame[roles.school], categories=list(schools)).codes.astype(np.int64)
    usable = (school >= 0) & frame[roles.outcome].notna().to_numpy() & (level >= 0)
    return IncompleteRecords(frame, roles, cohort, usable, level, entry, school, schools)


def _codes(table: pa.Table, name: str) -> Ints:
    if name not in table.column_names:
        return np.full(len(table), -1, dtype=np.int64)
    return np.asarray(table.column(name).fill_null(-1).to_numpy(), dtype=np.int64)


def refuse_unfillable(records: IncompleteRecords) -> None:
    """Refuse records that have nothing to fill in, or a column that no pupil of some kind has.

    Raises
    ------
    InputError
        Nothing is missing; a column is missing for all pupils, for all of one SEN status, or for all of one cohort.
    """
    if not records.to_fill.any():
        raise InputError(
            "no prior score and no background is missing where school, outcome and SEN status are recorded",
            "There is nothing to impute: leave missing prior attainment out of the sensitivity analyses.",
        )
    failures = []
    for name in records.columns:
        present = records.frame[name].notna().to_numpy() & records.usable
        if not present.any():
            failures.append(Failure("is missing for all pupils", name, int(records.usable.sum()), remedy=_NO_PROXY))
            continue
        for what, of in _kinds(records).items():
            if of.any() and not (present & of).any():
                failures.append(Failure(f"is missing for all pupils {what}", name, int(of.sum()), remedy=_NO_PROXY))
    if failures:
        raise InputError(failures)


def _kinds(records: IncompleteRecords) -> Mapping[str, Bools]:
    """Kinds of pupils each of whom must be seen with a value: by SEN status now and by cohort."""
    kinds = {f"with SEN status {name}": records.usable & (records.level == k) for k, name in enumerate(_STATUS)}
    if records.roles.cohort:
        of = records.frame[records.roles.cohort]
        kinds |= {
            f"of cohort {name}": records.usable & (of == name).to_numpy() for name in sort_codes(of.dropna().unique())
        }
    return kinds


def pattern_table(records: IncompleteRecords, fewest: int = FEWEST_PUPILS) -> pd.DataFrame:
    """Which prior scores and background are missing together, and who the pupils are.

    Patterns of fewer than `fewest` pupils are shown together, so that no row describes a handful of pupils; if that row
    is still smaller, the rarest patterns join it.

    Parameters
    ----------
    records : IncompleteRecords
    fewest : int
        Pupils below which a pattern is not shown by itself.

    Returns
    -------
    DataFrame
        pattern (what is missing; ``complete`` first, then by number of pupils), n_pupils, share (of all records),
        n_schools, send_share and send_share_entry (share with SEN support or EHC plan now and before transfer, of those
        whose status is known; missing where it would rest on fewer than three pupils), mean_outcome (mean difference
        from all pupils with an outcome, in pupil SDs). A pattern with low outcomes or many pupils with SEND is one that
        leaving out incomplete records does not treat fairly.

    Examples
    --------
    >>> pupils = pd.DataFrame({"pupil": range(60), "school": [1, 2] * 30, "outcome": np.arange(60.0), "prior": 100.0,
    ...                        "sen_status": ["N", "N", "K"] * 20})
    >>> pupils.loc[:11, "prior"] = np.nan
    >>> roles = {"pupil": "pupil", "school": "school", "outcome": "outcome", "prior": "prior",
    ...          "sen_status": "sen_status"}
    >>> table = pattern_table(read_incomplete(Cohort.from_pandas(pupils, roles)))
    >>> table[["pattern", "n_pupils", "mean_outcome"]].round(2)
        pattern  n_pupils  mean_outcome
    0  complete        48          0.34
    1     prior        12         -1.37
    """
    names = _pattern_names(records)
    sizes = names.value_counts()
    sizes = sizes.sort_index(kind="stable").sort_values(ascending=False, kind="stable")
    kept = [name for name in sizes.index if sizes[name] >= fewest]
    while 0 < len(names) - sizes[kept].sum() < fewest and kept not in ([], [COMPLETE]):
        patterns = [name for name in kept if name not in (COMPLETE, UNUSABLE)]
        kept.remove(patterns[-1] if patterns else UNUSABLE)
    shown = names.where(names.isin(kept), OTHER).to_numpy()
    patterns = [name for name in kept if name not in (COMPLETE, UNUSABLE)]
    order = [name for name in (COMPLETE, *patterns, OTHER, UNUSABLE) if (shown == name).any()]
    outcome = records.frame[records.roles.outcome].to_numpy(dtype=np.float64)
    score = (outcome - np.nanmean(outcome)) / np.nanstd(outcome, ddof=1)
    return pd.DataFrame([_pattern_row(records, name, shown == name, score, fewest) for name in order])


def _pattern_names(records: IncompleteRecords) -> pd.Series[str]:
    names = np.full(len(records.frame), "", dtype=object)
    for column in records.columns:
        gone = records.missing(column)
        names[gone] = [f"{name}, {column}" if name else column for name in names[gone]]
    names[names == ""] = COMPLETE
    names[~records.usable] = UNUSABLE
    return pd.Series(names)


def _pattern_row(
    records: IncompleteRecords, name: str, of: Bools, score: NDArray[np.float64], fewest: int
) -> dict[str, object]:
    n = int(of.sum())
    if n < fewest:
        return {"pattern": name, "n_pupils": np.nan} | dict.fromkeys(_DESCRIBED, np.nan)
    known = of & ~np.isnan(score)
    return {
        "pattern": name,
        "n_pupils": n,
        "share": n / len(of),
        "n_schools": len(np.unique(records.school[of & (records.school >= 0)])),
        "send_share": _share(records.level[of]),
        "send_share_entry": _share(records.entry[of]),
        "mean_outcome": float(score[known].mean()) if known.sum() >= fewest else np.nan,
    }


_DESCRIBED = ("share", "n_schools", "send_share", "send_share_entry", "mean_outcome")


def _share(level: Ints) -> float:
    known, with_need = int((level >= 0).sum()), int((level > 0).sum())
    if min(with_need, known - with_need) < FEWEST_IN_SHARE:
        return float("nan")
    return with_need / known


def n_imputed(records: IncompleteRecords, schools: Sequence[str]) -> Ints:
    """Usable pupils of each school whose first prior score is missing, in the order of `schools`."""
    gone = records.missing(records.roles.prior[0])
    counts = np.bincount(records.school[gone], minlength=len(records.schools))
    of = dict(zip(records.schools, counts.tolist(), strict=True))
    return np.array([of.get(school, 0) for school in schools], dtype=np.int64)
