"""Can need be told from leniency at all: what labels and feeders must show before a model is fitted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from send_va.errors import BrokenRule, Failure, InputError
from send_va.identification.labels import (
    FEWEST_LABELS,
    Ints,
    LabelRecords,
    components,
    set_by_school,
    text_codes,
    thresholds,
    usable,
)
from send_va.records.sources import reading

if TYPE_CHECKING:
    from send_va.records.reader import Cohort

_MOST_EXAMPLES = 10
_FEWEST_CHANGES = 20  # pupils whose label changed, below which school leniency has nothing to stand on
_APART = (
    "Check the mapping of the feeder column, or leave out both roles feeder and sen_status_entry: results are then "
    "shown for the whole range of sorting_share."
)


@dataclass(frozen=True)
class LabelCounts:
    """Complete pupils by school, feeder and labels: all that decides whether need can be told from leniency.

    Attributes
    ----------
    school, feeder : integer array, shape (k,)
        Codes; a feeder of -1 is unknown.
    now, entry : integer array, shape (k,)
        0 none, 1 support, 2 EHCP; -1 where the status at entry is not recorded.
    pupils : integer array, shape (k,)
        How many pupils each row stands for.
    schools : tuple of str
    feeders : int
        How many there are.
    """

    school: Ints
    feeder: Ints
    now: Ints
    entry: Ints
    pupils: Ints
    schools: tuple[str, ...]
    feeders: int

    @classmethod
    def of(cls, labels: LabelRecords) -> LabelCounts:
        """Of records already read, each row one pupil."""
        one = np.ones(len(labels.school), dtype=np.intp)
        return cls(labels.school, labels.feeder, labels.now, labels.entry, one, labels.schools, len(labels.feeders))

    @classmethod
    def counted(cls, cohort: Cohort) -> LabelCounts:
        """Count where the records lie, in one aggregate over the lazy table.

        Examples
        --------
        >>> import pandas as pd
        >>> from send_va.records.reader import Cohort
        >>> frame = pd.DataFrame({"pupil": [1, 2, 3], "school": [7, 7, 8], "outcome": [40.0, 50, 51],
        ...                       "prior": [100, 104, 99], "sen_status": ["N", "N", "E"]})
        >>> roles = {"pupil": "pupil", "school": "school", "outcome": "outcome", "prior": ["prior"],
        ...          "sen_status": "sen_status"}
        >>> counts = LabelCounts.counted(Cohort.from_pandas(frame, roles))
        >>> counts.schools, counts.now.tolist(), counts.pupils.tolist()
        (('7', '8'), [0, 2], [2, 1])
        """
        roles, rows = cohort.roles, cohort.table.filter(cohort.table.complete)
        labels = ["sen_level", *(["sen_level_entry"] if roles.sen_status_entry else [])]
        keys = list(dict.fromkeys([roles.school, *([roles.feeder] if roles.feeder else []), *labels]))
        with reading(cohort.source.name):
            counted = rows.group_by(keys).aggregate(pupils=rows.count()).order_by(keys)
            table: pa.Table = cohort.connection.to_pyarrow(counted)
        school, schools = text_codes(table, roles.school)
        feeder, feeders = text_codes(table, roles.feeder)
        now, entry = (_levels(table, name) for name in ("sen_level", "sen_level_entry"))
        return cls(school, feeder, now, entry, table.column("pupils").to_numpy().astype(np.intp), schools, len(feeders))

    @cached_property
    def component(self) -> Ints:
        """Connected component of every school in the graph of feeders; 0 is that with most pupils."""
        return components(self.school, self.feeder, len(self.schools), self.feeders, self.pupils)

    @property
    def used_at_entry(self) -> NDArray[np.bool_]:
        """Rows whose label before transfer is fitted to."""
        return usable(self.entry, self.feeder, self.component[self.school], self.feeders > 0)

    @property
    def has_entry(self) -> bool:
        """Whether any status before transfer is recorded."""
        return bool((self.entry >= 0).any())

    @property
    def estimators(self) -> tuple[str, ...]:
        """Estimators that `Need` will allow, if its model can be fitted."""
        if not self.has_entry:
            return ("standardised", "label_free")
        used = self.used_at_entry
        entry, now, pupils = self.entry[used], self.now[used], self.pupils[used]
        d = thresholds(entry, pupils)
        changing = labels_change(np.minimum(entry, d), np.minimum(now, d), d, pupils)
        return ("standardised", "entry", "label_free") if changing else ("entry", "label_free")


def _levels(table: pa.Table, name: str) -> Ints:
    if name not in table.column_names:
        return np.full(len(table), -1, dtype=np.intp)
    return np.asarray(table.column(name).fill_null(-1).to_numpy(), dtype=np.intp)


def check_labels(cohort: Cohort, counts: LabelCounts | None = None) -> tuple[Failure, ...]:
    """List everything for which the identification model would refuse a cohort, without fitting it.

    Parameters
    ----------
    cohort : Cohort
        The records; counted where they lie.
    counts : LabelCounts, optional
        Their counts, where these are at hand.

    Returns
    -------
    tuple of Failure
        Predictors that the rated school sets, labels that do not vary, feeders that connect no two schools (errors);
        schools that feeders do not connect with the others (a warning).

    Raises
    ------
    InputError
        When the file cannot be read to its end.

    Examples
    --------
    Every school has feeders of its own:

    >>> import send_va as sv
    >>> world = sv.simulate(np.random.default_rng(1), schools=12, pupils_per_school=20)
    >>> roles = {"pupil": "pupil", "school": "school", "feeder": "feeder", "outcome": "outcome", "prior": ["prior"],
    ...          "sen_status": "sen_status", "sen_status_entry": "sen_status_entry"}
    >>> pupils = world.pupils.assign(feeder=world.pupils["school"] * 10 + world.pupils["pupil"] % 3)
    >>> [failure.rule.partition(":")[0] for failure in check_labels(sv.Cohort.from_pandas(pupils, roles))]
    ['no two schools share a feeder']
    """
    background = (*cohort.roles.numeric_context, *cohort.roles.categorical)
    return (*set_by_school(background), *unidentified(counts or LabelCounts.counted(cohort)))


def refuse_unidentified(labels: LabelRecords) -> None:
    """Refuse labels that cannot tell need, or need from leniency.

    Raises
    ------
    InputError
        Listing all that `check_labels` lists as an error.
    """
    failures = [failure for failure in unidentified(LabelCounts.of(labels)) if failure.level == "error"]
    if failures:
        raise InputError(failures)


def unidentified(counts: LabelCounts) -> tuple[Failure, ...]:
    """List why labels cannot tell need from leniency; empty where they can.

    Parameters
    ----------
    counts : LabelCounts

    Returns
    -------
    tuple of Failure
        Errors, or at most one warning of schools that feeders do not connect with the largest group.

    Examples
    --------
    >>> every = np.array([0, 0, 1, 1])
    >>> label, one = np.array([0, 1, 0, 2]), np.ones(4, dtype=int)
    >>> unidentified(LabelCounts(every, np.array([0, 1, 1, 1]), label, label, one, ("A", "B"), 2))
    ()
    >>> print(unidentified(LabelCounts(every, np.array([0, 1, 1, 1]), label, 0 * label, one, ("A", "B"), 2))[0])
    roles.sen_status_entry: labels at entry do not vary (no pupil has SEN): need cannot be told from them; 4 pupils
    fail; values none.
    Check [sen] and sen_status_entry in the study file against the codes in the file (send-va check).
    """
    if not len(counts.school):
        return ()  # that no row is complete is said of the records
    found = [labels_that_do_not_vary(counts.now, counts.pupils, "now")]
    if len(np.unique(counts.school)) < 2:
        remedy = "Value-added compares schools: give the records of two or more, or check the mapping of the column."
        found.append(Failure("all complete pupils are in one school", "roles.school", remedy=remedy))
    elif counts.has_entry:
        found += _connection(counts)
    return tuple(failure for failure in found if failure is not None)


def labels_that_do_not_vary(labels: Ints, pupils: Ints, when: str) -> Failure | None:
    """Say that no pupil has a label, or that all have one.

    Parameters
    ----------
    labels : integer array, shape (k,)
        0 none, 1 support, 2 EHCP, of the pupils an equation is fitted to.
    pupils : integer array, shape (k,)
        How many pupils each stands for.
    when : str
        ``now`` or ``at entry``.
    """
    if len(labels) and labels.min() == 0 and labels.max() > 0:
        return None
    role = "sen_status" if when == "now" else "sen_status_entry"
    words = np.array(["none", "support", "EHCP"])
    how = "every pupil has SEN" if labels.any() else "no pupil has SEN"
    return Failure(
        f"labels {when} do not vary ({how if len(labels) else 'none can be used'}): need cannot be told from them",
        f"roles.{role}",
        int(pupils.sum()),
        values=tuple(words[np.unique(labels)].tolist()),
        remedy=f"Check [sen] and {role} in the study file against the codes in the file (send-va check).",
        unit="pupil",
    )


def labels_change(entry: Ints, now: Ints, d: int, pupils: Ints) -> bool:
    """Whether enough labels change between transfer and now, to and fro, to tell the leniency of schools.

    Parameters
    ----------
    entry, now : integer array, shape (k,)
        0 to `d`, of the pupils whose label before transfer is fitted to.
    d : int
        Thresholds.
    pupils : integer array, shape (k,)
        How many pupils each stands for.

    Returns
    -------
    bool
        False where fewer than twenty change, fewer than ten have one of the labels now, or some label before leaves but
        one label now, the lowest or the highest: nothing then bounds what a label before adds.

    Examples
    --------
    >>> before, after = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    >>> labels_change(before, after, 1, np.array([90, 9, 9, 20])), labels_change(before, after, 1, np.full(4, 10))
    (False, True)
    """
    after = [now[entry == level] for level in range(d + 1)]
    one_sided = any(len(own) == 0 or own.max() == 0 or own.min() == d for own in after)
    one_sided = one_sided or bool(np.bincount(now, pupils, minlength=d + 1).min() < FEWEST_LABELS)
    return not one_sided and int(pupils[entry != now].sum()) >= _FEWEST_CHANGES


def _connection(counts: LabelCounts) -> list[Failure | None]:
    """Look at the labels the entry equation uses, and at the schools that feeders connect."""
    component, used = counts.component, counts.used_at_entry
    there = np.unique(counts.school)
    inside = component[there] == 0
    if inside.sum() < 2:
        known = counts.entry >= 0
        varied = labels_that_do_not_vary(counts.entry[known], counts.pupils[known], "at entry")
        return [varied, _apart(len(np.unique(component[there])) == len(there), len(there))]
    found = [labels_that_do_not_vary(counts.entry[used], counts.pupils[used], "at entry")]
    if used.any() and len(np.unique(counts.school[used])) < 2:
        remedy = "Fill it in for other schools, or leave out the role sen_status_entry."
        rule = "labels at entry are recorded in one school only, so intake need cannot be compared"
        found.append(
            Failure(rule, "roles.sen_status_entry", int(counts.pupils[used].sum()), remedy=remedy, unit="pupil")
        )
    if not inside.all():
        outside = np.isin(counts.school, there[~inside])
        found.append(_outside(counts, there[~inside], int(counts.pupils[outside].sum())))
    return found


def _apart(all_apart: bool, n_schools: int) -> Failure:
    rule = "no two schools share a feeder" if all_apart else "the largest group of schools with common feeders is one"
    rule += ": leniency of feeders and intake need of schools cannot be told apart"
    return Failure(rule, "roles.feeder", n_schools, remedy=_APART, unit="school")


def _outside(counts: LabelCounts, schools: Ints, pupils: int) -> Failure:
    return BrokenRule(
        "shares feeders, directly or through other schools, with the largest group of schools",
        "roles.feeder",
        len(schools),
        values=tuple(counts.schools[code] for code in schools[:_MOST_EXAMPLES]),
        remedy=(
            f"Their {pupils:,} pupils get no estimate that uses need, and the schools are flagged: feeders do not let "
            "them be compared with the others. Check the feeder column if these are many."
        ),
        level="warning",
        unit="school",
    )
