"""Everything for which a run would refuse the records of a study, listed before it starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from send_va.errors import Failure
from send_va.identification.identified import LabelCounts, check_labels
from send_va.identification.need import NEED_ESTIMATORS, why_not
from send_va.records.check import CheckReport, check_cohort
from send_va.records.reader import Cohort
from send_va.study import Study
from send_va.value_added.year_groups import n_years


def check_study(study: Study, cohort: Cohort) -> CheckReport:
    """Check the records of a study, and whether they identify what the study asks for.

    ``send-va check`` prints this report and a run starts by it, so the two cannot disagree.

    Parameters
    ----------
    study : Study
    cohort : Cohort
        Its records.

    Returns
    -------
    CheckReport
        ``report.ok`` when a run may start. Without an estimator that uses need, only rules of records are looked at.

    Raises
    ------
    InputError
        When the file cannot be read to its end.

    Examples
    --------
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import send_va as sv
    >>> from send_va.study import study_from
    >>> pupils = sv.simulate(np.random.default_rng(1), schools=12, pupils_per_school=20).pupils
    >>> roles = {"pupil": "pupil", "school": "school", "outcome": "outcome", "prior": ["prior"],
    ...          "sen_status": "sen_status", "context": ["exclusions"]}
    >>> study = study_from({"data": {"file": "pupils.parquet"}, "roles": roles}, Path())
    >>> cohort = sv.Cohort.from_pandas(pupils.assign(exclusions=pupils["pupil"] % 2), roles)
    >>> [(failure.column, failure.rule) for failure in check_study(study, cohort).errors]
    [('exclusions', 'cannot predict need: exclusions are decided by the rated school')]
    """
    report = check_cohort(cohort, baseline=study.prior.baseline).with_failures(check_years(study, cohort))
    named = study.value_added.estimators
    if study.publication.maximum_disagreement is not None and named is not None and len(set(named)) == 1:
        rule, remedy = "asks for two estimators or more", f"value_added.estimators names {named[0]} alone."
        report = report.with_failures([Failure(rule, "publication.maximum_disagreement", remedy=remedy)])
    if named is not None and not set(named) & set(NEED_ESTIMATORS):
        return report
    counts = LabelCounts.counted(cohort)
    found = [*_unnamed_entry(study, cohort), *check_labels(cohort, counts)]
    if not report.errors and all(failure.level == "warning" for failure in found):
        found += _left_over(study, cohort, counts)
    return report.with_failures(found)


def headline(estimators: Sequence[str]) -> str:
    """The estimator that is shown first: the one with no label the rated school set, where there is one."""
    return next(name for name in ("entry", "standardised", "label_free", "labelled") if name in estimators)


def wanted_estimators(study: Study, cohort: Cohort) -> tuple[str, ...]:
    """Estimators of the study that these records allow, need-based ones only.

    A study that names one they do not allow is refused by `check_study`.
    """
    named, has_entry = study.value_added.estimators, cohort.roles.sen_status_entry is not None
    allowed = [name for name in NEED_ESTIMATORS if name != "entry" or has_entry]
    return tuple(name for name in allowed if named is None or name in named)


def _unnamed_entry(study: Study, cohort: Cohort) -> tuple[Failure, ...]:
    if cohort.roles.sen_status_entry is not None:
        return ()
    if "entry" not in (study.value_added.estimators or ()):
        rule = "no SEN status before transfer: a school's leniency and its intake need cannot be told apart"
        remedy = "Results are shown for the range of sorting_share; if there is such a status, name it."
        return (Failure(rule, "roles.sen_status_entry", remedy=remedy, level="warning"),)
    rule = "names 'entry', but no sen_status_entry is named under [roles]"
    remedy = "Name the SEN status of the last census before transfer, or leave 'entry' out."
    return (Failure(rule, "value_added.estimators", remedy=remedy),)


def _left_over(study: Study, cohort: Cohort, counts: LabelCounts) -> Iterator[Failure]:
    """Say which estimators would be left out, and whether any is left over."""
    wanted, named = wanted_estimators(study, cohort), study.value_added.estimators
    missing = [name for name in wanted if name not in counts.estimators]
    labelled = named is None or "labelled" in named
    level = "warning" if labelled or len(missing) < len(wanted) else "error"
    for name in missing:
        remedy = "It is left out." if level == "warning" else "Nothing is left to estimate: name other estimators."
        yield Failure(why_not(name).rstrip("."), "value_added.estimators", remedy=remedy, level=level)


def check_years(study: Study, cohort: Cohort) -> tuple[Failure, ...]:
    """What keeps a study that asks for a forecast from getting one."""
    if not study.years.forecast:
        return ()
    if cohort.roles.cohort is None:
        remedy = 'Name the column of the academic year: cohort = "cohort" under [roles].'
        return (Failure("is true, but the records have no role cohort", "years.forecast", remedy=remedy),)
    found = n_years(cohort)
    if found < 2:
        remedy = "Give the records of two cohorts or more, or leave the key out."
        return (Failure(f"is true, but the records are of {found} academic year", "years.forecast", remedy=remedy),)
    return ()
