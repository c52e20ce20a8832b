"""Records in, estimates out, in one call each: what notebooks and scripts use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from send_va.effects import SchoolEffects
from send_va.errors import ConvergenceError, InputError, NotSupportedError
from send_va.identification.identified import check_labels
from send_va.identification.labels import LabelRecords, read_labels
from send_va.identification.need import Need, estimate_need
from send_va.identification.scores import Assumptions
from send_va.records.check import check_cohort
from send_va.records.design_columns import check_contexts
from send_va.records.reader import Cohort, open_cohort
from send_va.stage_inputs import context_generator
from send_va.study import ENGINES, ESTIMATORS, Study, load_study
from send_va.study_check import headline
from send_va.value_added.authorities import school_authorities
from send_va.value_added.bayes import BayesFit, BayesOptions
from send_va.value_added.bayes_estimators import fit_labelled_bayes, fit_need_bayes
from send_va.value_added.design import context_columns, labelled_products
from send_va.value_added.drift import AVERAGE, HORIZON, Drift, estimate_drift
from send_va.value_added.labelled import fit_labelled
from send_va.value_added.need_fit import fit_need
from send_va.value_added.pupil_design import pupil_design
from send_va.value_added.year_groups import year_groups
from send_va.year_stages import estimates_by_year, year_generator


def read_cohort(study: str | Path | Study) -> Cohort:
    """Open the records of a study, lazily.

    Parameters
    ----------
    study : str, Path or Study
        A study file, or a study already loaded.

    Returns
    -------
    Cohort

    Raises
    ------
    StudyError
        The study file cannot be used.
    InputError
        The file of records is missing, unreadable or lacks columns.
    """
    study = study if isinstance(study, Study) else load_study(study)
    return open_cohort(
        study.folder / study.data.file,
        study.roles,
        columns=study.columns,
        sen=study.sen,
        table=study.data.table,
        outcome_range=(study.outcome.minimum, study.outcome.maximum),
        synthetic=study.study.synthetic,
    )


def fit_identification(
    cohort: Cohort, *, seed: int = 1, draws: int = 200, prior_knots: int = 5, assumptions: Assumptions | None = None
) -> Need:
    """Estimate the need of every pupil, and who labels leniently.

    Parameters
    ----------
    cohort : Cohort
        With the SEN status before transfer and the feeder of every pupil, leniency and intake need are told apart;
        without, they are not, and everything depends on ``assumptions.sorting_share``.
    seed : int
    draws : int
        Joint draws of the identification parameters, at least 2; 0 for none.
    prior_knots : int
        Interior knots of the spline of each prior score.
    assumptions : Assumptions, optional
        What labels alone cannot tell.

    Returns
    -------
    Need
        ``.schools``, ``.pupils``, ``.variance``; give it to :func:`fit_value_added`.

    Raises
    ------
    InputError
        Records that cannot be used, labels that do not vary, a predictor that the rated school sets, feeders of which
        no two schools share one. All are listed.
    """
    if draws < 0 or draws == 1 or seed < 0:
        raise InputError(
            f"draws must be 0 or at least 2, and seed 0 or more, not {draws} and {seed}", "One draw has no spread."
        )
    check_cohort(cohort, baseline="not stated").with_failures(check_labels(cohort)).raise_if_failed()
    profile = cohort.profile(prior_knots)
    labels = read_labels(cohort, profile, context_columns(cohort, profile))
    return estimate_need(labels, seed=seed, draws=draws, assumptions=assumptions)


def fit_value_added(
    cohort: Cohort,
    need: Need | None = None,
    *,
    estimator: str | None = None,
    context: str = "cva",
    seed: int = 1,
    draws: int = 1000,
    prior_knots: int = 5,
    unit: str = "outcome points",
    engine: str = "reml",
    bayes: BayesOptions | None = None,
) -> SchoolEffects:
    """Estimate value-added for pupils with need, by school.

    Parameters
    ----------
    cohort : Cohort
    need : Need, optional
        From :func:`fit_identification` on the same cohort; every estimator but `labelled` needs it.
    estimator : str, optional
        ``labelled`` (SEN status now, as recorded), ``standardised`` (both labels), ``entry`` (only labels set before
        the pupil arrived) or ``label_free`` (none). By default ``entry``, or what comes closest, where `need` is given.
    context : str
        What is held constant: ``prior`` (attainment), ``cva`` (and background), ``composition`` (and school means).
    seed : int
    draws : int
    prior_knots : int
        Interior knots of the spline of each prior score; 0 for a line.
    unit : str
        Unit of the outcome, for labels.
    engine : str
        ``reml``, or ``bayes``: the posterior by NUTS, with priors and an authority level.
    bayes : BayesOptions, optional
        Priors, sampler and limits of that engine.

    Returns
    -------
    SchoolEffects
        Draws of ``theta``, ``u`` and ``gap`` in outcome units. A `need` without draws gives plug-in intervals, marked
        ``plug-in`` in the attributes.

    Raises
    ------
    InputError
        An unknown context, records that cannot be used, an estimator without `need`, or `need` of other records or of
        the same in another order.
    NotSupportedError
        An unknown estimator or engine, or an estimator the records do not allow.
    ConvergenceError
        The chains of the Bayesian engine do not meet its limits.
    """
    (chosen,) = check_contexts([context])
    if bayes is not None and not isinstance(bayes, BayesOptions):
        raise InputError(
            f"bayes must be a BayesOptions, not {type(bayes).__name__}",
            "from send_va.value_added.bayes import BayesOptions",
        )
    if engine not in ENGINES:
        raise NotSupportedError(f"there is no engine {engine!r}; use one of {', '.join(ENGINES)}.")
    if draws < 1 or seed < 0:
        raise InputError(f"draws must be 1 or more and seed 0 or more, not {draws} and {seed}")
    name = _estimator(estimator, need)
    check_cohort(cohort, baseline="not stated").raise_if_failed()
    profile = cohort.profile(prior_knots)
    columns = context_columns(cohort, profile)
    rng = context_generator(seed, chosen)
    attrs: dict[str, Any] = {"seed": seed, "engine": engine, "unit": unit, "synthetic": int(cohort.synthetic)}
    among: dict[str, Any] = {"options": bayes}
    if engine == "bayes":
        among["authorities"] = school_authorities(cohort, tuple(profile.schools.schools))
    if name == "labelled":
        data = labelled_products(cohort, profile, columns)
        if engine == "bayes":
            return _converged(fit_labelled_bayes(data, chosen, rng=rng, draws=draws, attrs=attrs, **among))
        return fit_labelled(data, chosen, rng=rng, draws=draws, attrs=attrs).effects
    if need is None:
        raise InputError(f"the estimator {name!r} needs estimates of need", "need = fit_identification(cohort)")
    _refuse_other_records(need, read_labels(cohort, profile, columns))
    design = pupil_design(cohort, profile, columns)
    design = design.without_schools(np.flatnonzero(need.labels.component > 0))
    scores, plug_in = need.scores(name), need.n_draws < 2
    attrs["assumes"] = need.assumes(name)
    wanted: dict[str, Any] = {"rng": rng, "draws": draws, "plug_in": plug_in, "attrs": attrs}
    if engine == "bayes":
        return _converged(fit_need_bayes(design, scores, name, [chosen], **wanted, **among)[chosen])
    return fit_need(design, scores, name, [chosen], **wanted)[chosen].effects


def _converged(fitted: BayesFit) -> SchoolEffects:
    if not fitted.fit.converged:
        raise ConvergenceError("\n".join(fitted.fit.notes))
    return fitted.fit.effects


def fit_drift(
    cohort: Cohort,
    need: Need | None = None,
    *,
    estimator: str | None = None,
    context: str = "cva",
    horizon: int = HORIZON,
    average: int = AVERAGE,
    beyond: str = "between",
    seed: int = 1,
    draws: int = 1000,
    prior_knots: int = 5,
    unit: str = "outcome points",
    coverage: float = 0.95,
) -> Drift:
    """Estimate how school effects drift over cohorts, average the last ones, and forecast a cohort to come.

    The value-added model is fitted once to all cohorts, differences between cohorts taken out, with a group for every
    school in every cohort; :func:`send_va.value_added.drift.estimate_drift` goes on from their unshrunken estimates.

    Parameters
    ----------
    cohort : Cohort
        Records of two cohorts or more, with the role `cohort`. Outcomes and prior scores of all must be on one scale.
    need : Need, optional
        From :func:`fit_identification` on the same records, all cohorts together; not needed by `labelled`.
    estimator, context, seed, draws, prior_knots, unit
        As in :func:`fit_value_added`.
    horizon : int
        Years from the last cohort to the one forecast. 6: results of summer t, choice in the autumn, entry in September
        t + 1, Year 11 in summer t + 6.
    average : int
        Years that averages are taken over.
    beyond : str
        Autocovariances at lags longer than the records: ``decay`` (they fall on), ``hold`` (no further drift) or
        ``between``, which lets intervals carry that it is not known which.
    coverage : float
        Of intervals.

    Returns
    -------
    Drift
        ``.autocovariance``, ``.averages``, ``.forecast``, and ``.effects`` for :func:`send_va.rank`.

    Raises
    ------
    InputError
        One cohort, cohorts that are no academic years, fewer than ten schools in two cohorts, and as
        :func:`fit_value_added`.
    NotSupportedError
        An unknown estimator, or one the records do not allow.

    References
    ----------
    Chetty, Friedman & Rockoff (2014), doi:10.1257/aer.104.9.2593.

    Examples
    --------
    >>> import send_va as sv
    >>> years = sv.simulate_years(np.random.default_rng(1), schools=40, pupils_per_school=40, cohorts=3)
    >>> roles = {"pupil": "pupil", "school": "school", "cohort": "cohort", "outcome": "outcome", "prior": ["prior"],
    ...          "sen_status": "sen_status"}
    >>> drift = fit_drift(sv.Cohort.from_pandas(years.pupils, roles, synthetic=True), context="prior", horizon=1)
    >>> drift.forecast["cohort"].unique().tolist(), len(drift.averages)
    (['2021/22'], 120)
    """
    (chosen,) = check_contexts([context])
    if draws < 2 or seed < 0:
        raise InputError(f"draws must be 2 or more and seed 0 or more, not {draws} and {seed}")
    name = _estimator(estimator, need)
    check_cohort(cohort, baseline="not stated").raise_if_failed()
    profile = cohort.profile(prior_knots)
    columns = context_columns(cohort, profile)
    if need is not None:
        _refuse_other_records(need, read_labels(cohort, profile, columns))
    attrs = {"seed": seed, "engine": "reml", "unit": unit, "synthetic": int(cohort.synthetic)}
    estimates = estimates_by_year(year_groups(cohort, profile), columns, need, name, chosen, attrs=attrs)
    return estimate_drift(
        estimates,
        rng=year_generator(seed, name),
        horizon=horizon,
        average=average,
        beyond=beyond,
        draws=draws,
        coverage=coverage,
    )


def _estimator(wanted: str | None, need: Need | None) -> str:
    name = wanted or ("labelled" if need is None else headline(need.estimators))
    if name not in ESTIMATORS:
        raise NotSupportedError(f"no estimator {name!r}; there are {', '.join(ESTIMATORS)}.")
    return name


def _refuse_other_records(need: Need, given: LabelRecords) -> None:
    """Scores of need are matched to pupils by their place, so the records must be the same, in the same order."""
    of_need = need.recorded or need.labels
    differing = of_need.differs_from(given)
    if not differing:
        return
    there, here = len(of_need.school), len(given.school)
    how = "not as many" if there != here else f"with other {', '.join(differing)}, or in another order"
    raise InputError(
        f"need was estimated from other records: {there:,} complete pupils there, {here:,} in this cohort, {how}",
        "Estimate it from this cohort: need = fit_identification(cohort).",
    )
