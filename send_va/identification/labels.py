"""Labels of pupils and who set them: what the identification model reads from the records."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from send_va.errors import Failure, InputError
from send_va.records.design_columns import ContextColumns

if TYPE_CHECKING:
    from send_va.records.profile import CohortProfile
    from send_va.records.reader import Cohort

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

FEWEST_LABELS = 10  # pupils with a label, below which it has no threshold of its own
# What a predictor of need may not be: the rated school records or decides it, so that need would follow the school.
SET_BY_SCHOOL = {
    "sen_status": "the SEN status now is set by the rated school",
    "primary_need": "the primary need now is recorded by the rated school",
    "outcome": "the outcome is what the rated school is judged by",
    "absence": "absence at the rated school is partly its doing",
    "sessions_absent": "absence at the rated school is partly its doing",
    "suspensions": "suspensions are decided by the rated school",
    "permanent_exclusions": "exclusions are decided by the rated school",
    "terms_on_roll": "the time on roll is partly the rated school's doing",
    "exit_reason": "whether a pupil leaves is partly the rated school's doing",
    "destination": "the destination comes after the rated school",
}


# The same under other names: parts of them, without underscores and in lower case.
_SET_BY_SCHOOL_WORDS = {
    "absen": SET_BY_SCHOOL["absence"],
    "attendance": SET_BY_SCHOOL["absence"],
    "exclu": SET_BY_SCHOOL["permanent_exclusions"],
    "suspen": SET_BY_SCHOOL["suspensions"],
    "senprovision": SET_BY_SCHOOL["sen_status"],
}


@dataclass(frozen=True)
class LabelRecords:
    """Complete pupils in file order, with their labels and the bodies that set them.

    Attributes
    ----------
    row_number : integer array, shape (n,)
        Row of the input, from 1.
    x : array, shape (n, p)
        Predictors of need, each scaled to mean 0 and SD 1.
    x_names : tuple of str
    x_mean, x_sd : array, shape (p,)
    school, la : integer array, shape (n,)
        Index of the school and of its authority; -1 where no authority is known.
    feeder, feeder_la : integer array, shape (n,)
        Index of the feeder (-1 unknown) and of its authority: the recorded one, or that in which most of its pupils go
        to school.
    now, entry : integer array, shape (n,)
        0 none, 1 support, 2 EHCP; -1 where the status at entry is not recorded.
    region : integer array, shape (n,)
        Index of the region; -1 where unknown.
    schools, las, feeders, feeder_las, regions : tuple of str
    same_body : bool array, shape (n,)
        The feeder is the school itself (an all-through school) or of its trust, so the rated body set both labels.
    component : integer array, shape (schools,)
        Connected component of the feeder-school graph; 0 is the largest. All 0 where no status at entry is recorded.
    """

    row_number: NDArray[np.int64]
    x: Floats
    x_names: tuple[str, ...]
    x_mean: Floats
    x_sd: Floats
    school: Ints
    la: Ints
    feeder: Ints
    feeder_la: Ints
    region: Ints
    now: Ints
    entry: Ints
    schools: tuple[str, ...]
    las: tuple[str, ...]
    feeders: tuple[str, ...]
    feeder_las: tuple[str, ...]
    regions: tuple[str, ...]
    same_body: NDArray[np.bool_]
    component: Ints

    def differs_from(self, other: LabelRecords) -> tuple[str, ...]:
        """What is not the same, pupil by pupil, in other records; empty where all is.

        Predictors are compared where both records have the same ones.
        """
        parts = {
            "schools": (self.school, self.schools, other.school, other.schools),
            "feeders": (self.feeder, self.feeders, other.feeder, other.feeders),
            "labels before transfer": (self.entry, None, other.entry, None),
            "labels now": (self.now, None, other.now, None),
        }
        found = [name for name, (a, x, b, y) in parts.items() if x != y or not np.array_equal(a, b)]
        if self.x_names == other.x_names and not found:
            same = np.array_equal(self.x, other.x) and np.array_equal(self.x_mean, other.x_mean)
            found += [] if same else ["prior scores or background"]
        return tuple(found)

    @cached_property
    def has_entry(self) -> bool:
        """Whether any status before transfer is recorded."""
        return bool((self.entry >= 0).any())

    @property
    def used_at_entry(self) -> NDArray[np.bool_]:
        """Pupils whose label before transfer is fitted to: it and the feeder are known, and the school is connected."""
        return usable(self.entry, self.feeder, self.component[self.school], bool(self.feeders))

    @cached_property
    def levels(self) -> int:
        """Thresholds of the label before transfer (now, where none is recorded before): 2 or 1.

        Labels now have no say in it where there are others, or the rated school could move `entry`.
        """
        return thresholds(self.entry[self.used_at_entry] if self.has_entry else self.now)


def thresholds(label: Ints, pupils: Ints | None = None) -> int:
    """Thresholds a label has: 2 where ten pupils or more have each of support and EHCP, else 1 (any SEN).

    Parameters
    ----------
    label : integer array, shape (n,)
    pupils : integer array, shape (n,), optional
        How many pupils each stands for; one by default.
    """
    return 2 if np.bincount(label + 1, pupils, minlength=4)[2:].min() >= FEWEST_LABELS else 1


def usable(entry: Ints, feeder: Ints, component: Ints, feeders: bool) -> NDArray[np.bool_]:
    """Which labels before transfer can be fitted to, each array (n,); `feeders` says whether any feeder is recorded."""
    known = (entry >= 0) & (component == 0)
    return np.asarray(known & (feeder >= 0)) if feeders else np.asarray(known)


def read_labels(cohort: Cohort, profile: CohortProfile, context: ContextColumns) -> LabelRecords:
    """Read the labels of all complete pupils.

    Parameters
    ----------
    cohort, profile
        The records and their first pass.
    context : ContextColumns
        Prior attainment and background: the predictors of need.

    Returns
    -------
    LabelRecords
        Check ``component`` before comparing schools: only those of component 0 can be compared.

    Raises
    ------
    InputError
        A predictor is set by the rated school; no pupil has a complete record.

    Examples
    --------
    >>> from send_va.records.reader import Cohort
    >>> from send_va.records.simulator import simulate
    >>> from send_va.value_added.design import context_columns
    >>> roles = {"pupil": "pupil", "school": "school", "outcome": "outcome", "prior": ["prior"],
    ...          "sen_status": "sen_status", "context": ["fsm6"]}
    >>> world = simulate(np.random.default_rng(1), schools=12, pupils_per_school=20)
    >>> cohort = Cohort.from_pandas(world.pupils, roles)
    >>> profile = cohort.profile(0)
    >>> labels = read_labels(cohort, profile, context_columns(cohort, profile))
    >>> labels.x_names, labels.has_entry, len(labels.schools)
    (('prior', 'fsm6'), False, 12)
    """
    roles = cohort.roles
    refuse_set_by_school(context.background_columns)
    bodies = (roles.la, roles.region, roles.feeder, roles.feeder_la, roles.trust, roles.feeder_trust)
    optional = [name for name in bodies if name]
    status = ["sen_level", *(["sen_level_entry"] if roles.sen_status_entry else [])]
    kept = ["row_number", roles.school, *optional, *status]
    parts, batches = [], []
    for batch in cohort.batches(list(dict.fromkeys([*kept, *context.prior_columns, *context.background_columns]))):
        parts.append(np.hstack([*context.prior_of(batch), *context.background_of(batch)]))
        batches.append(batch.select(kept))
    if not parts:
        raise InputError("no pupil has a complete record", "send-va check lists what is missing, column by column.")
    return _assembled(pa.Table.from_batches(batches), np.concatenate(parts), cohort, profile, context)


def refuse_set_by_school(names: tuple[str, ...]) -> None:
    """Refuse predictors of need that the rated school sets.

    Parameters
    ----------
    names : tuple of str
        Names of the columns that predict need; known by their canonical names, or by words such as "exclusion".

    Raises
    ------
    InputError
        Naming each and why.

    Examples
    --------
    >>> refuse_set_by_school(("fsm6", "idaci"))
    """
    failures = set_by_school(names)
    if failures:
        raise InputError(failures)


def set_by_school(names: tuple[str, ...]) -> tuple[Failure, ...]:
    """List predictors of need that the rated school sets.

    Examples
    --------
    >>> [failure.column for failure in set_by_school(("fsm6", "suspensions"))]
    ['suspensions']
    """
    return tuple(
        Failure(
            f"cannot predict need: {reason}",
            name,
            remedy="Leave it out of the context; need is predicted from what was so before the school.",
        )
        for name in names
        if (reason := _why_set_by_school(name)) is not None
    )


def _why_set_by_school(name: str) -> str | None:
    plain = name.replace("_", "").lower()
    if name in SET_BY_SCHOOL or plain.endswith("entry"):
        return SET_BY_SCHOOL.get(name)
    return next((reason for word, reason in _SET_BY_SCHOOL_WORDS.items() if word in plain), None)


def text_codes(table: pa.Table, name: str | None, known: tuple[str, ...] | None = None) -> tuple[Ints, tuple[str, ...]]:
    """Codes of a text column, -1 where missing, and its values in order."""
    if name is None:
        return np.full(len(table), -1, dtype=np.intp), ()
    column = table.column(name).cast(pa.string())
    if known is None:
        present = pc.unique(column).drop_null().to_pylist()
        known = tuple(sorted(present, key=lambda text: (len(text), text)))
    codes = pc.index_in(column, value_set=pa.array(known, pa.string()))
    return pc.fill_null(codes, -1).to_numpy().astype(np.intp), known


def _assembled(
    table: pa.Table, raw: Floats, cohort: Cohort, profile: CohortProfile, context: ContextColumns
) -> LabelRecords:
    roles = cohort.roles
    mean, sd = raw.mean(axis=0), raw.std(axis=0)
    keep = sd > 1e-9
    school, schools = text_codes(table, roles.school, tuple(profile.schools.schools))
    la, las = text_codes(table, roles.la)
    feeder, feeders = text_codes(table, roles.feeder)
    if roles.feeder_la:
        feeder_la, feeder_las = text_codes(table, roles.feeder_la)
    else:
        feeder_la, feeder_las = _majority(feeder, la, len(feeders), len(las)), las
    region, regions = text_codes(table, roles.region)
    entry = np.full(len(table), -1, dtype=np.intp)
    if roles.sen_status_entry:
        entry = pc.fill_null(table.column("sen_level_entry"), -1).to_numpy().astype(np.intp)
    same = np.zeros(len(table), dtype=bool)
    if roles.feeder:
        names_f, names_s = np.array([*feeders, ""]), np.array(schools)
        same = (feeder >= 0) & (names_f[feeder] == names_s[school])
    if roles.trust and roles.feeder_trust:
        trust, trusts = text_codes(table, roles.trust)
        feeder_trust, _ = text_codes(table, roles.feeder_trust, trusts)
        same |= (trust >= 0) & (trust == feeder_trust)
    names = (*context.prior_names, *context.background_names)
    return LabelRecords(
        row_number=table.column("row_number").to_numpy().astype(np.int64),
        x=np.ascontiguousarray((raw[:, keep] - mean[keep]) / sd[keep]),
        x_names=tuple(name for name, kept in zip(names, keep, strict=True) if kept),
        x_mean=mean[keep],
        x_sd=sd[keep],
        school=school,
        la=la,
        feeder=feeder,
        feeder_la=feeder_la,
        region=region,
        now=table.column("sen_level").to_numpy().astype(np.intp),
        entry=entry,
        schools=schools,
        las=las,
        feeders=feeders,
        feeder_las=feeder_las,
        regions=regions,
        same_body=same,
        component=_compared(entry, school, feeder, len(schools), len(feeders)),
    )


def _majority(feeder: Ints, la: Ints, n_feeders: int, n_las: int) -> Ints:
    """The authority in which most pupils of a feeder go to school, by pupil; -1 where unknown."""
    if not n_las:
        return np.full(len(feeder), -1, dtype=np.intp)
    known = (feeder >= 0) & (la >= 0)
    counts = coo_array((np.ones(known.sum()), (feeder[known], la[known])), shape=(max(n_feeders, 1), n_las)).tocsr()
    counts.sum_duplicates()
    most = np.asarray(counts.argmax(axis=1)).reshape(-1).astype(np.intp)
    most = np.where(np.diff(counts.indptr) > 0, most, -1)
    return np.where(feeder >= 0, most[feeder], la)


def _compared(entry: Ints, school: Ints, feeder: Ints, n_schools: int, n_feeders: int) -> Ints:
    """Components of the schools; one where no label before transfer is recorded, which feeders could have set."""
    if not (entry >= 0).any():
        return np.zeros(n_schools, dtype=np.intp)
    return components(school, feeder, n_schools, n_feeders)


def components(school: Ints, feeder: Ints, n_schools: int, n_feeders: int, pupils: Ints | None = None) -> Ints:
    """Connected component of every school in the graph of feeders and schools; 0 is the one with most pupils.

    Parameters
    ----------
    school, feeder : integer array, shape (n,)
        Codes; a feeder of -1 joins nothing.
    pupils : integer array, shape (n,), optional
        How many pupils each row stands for; one by default.

    Examples
    --------
    >>> components(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2]), 3, 3).tolist()
    [0, 0, 1]
    """
    if not n_feeders:
        return np.zeros(n_schools, dtype=np.intp)
    known = feeder >= 0
    size = n_schools + n_feeders
    links = coo_array((np.ones(known.sum()), (school[known], n_schools + feeder[known])), shape=(size, size))
    label = connected_components(links, directed=False)[1]
    sizes = np.bincount(label[school], pupils, minlength=int(label.max()) + 1)
    rank = np.empty(len(sizes), dtype=np.intp)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return np.asarray(rank[label[:n_schools]], dtype=np.intp)
