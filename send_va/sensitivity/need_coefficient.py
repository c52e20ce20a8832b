"""How robust the coefficients on need are: ``delta`` on severity and ``mu`` on the probability of need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from send_va.errors import InputError, NotSupportedError
from send_va.multilevel.threads import one_blas_thread
from send_va.records.design_columns import INTERCEPT, OUTCOME, ContextColumns, check_contexts
from send_va.sensitivity.coefficient import CoefficientSensitivity, Regression, coefficient_sensitivity
from send_va.sensitivity.unmeasured import Floats
from send_va.value_added.pupil_design import PupilDesign
from send_va.value_added.row_coder import NEED, SEVERITY
from send_va.value_added.scores import NeedScores, check_estimator, scores_table

PRIOR_ATTAINMENT = "prior attainment"
SEVERITY_ALONE, NEED_ALONE = "severity_alone", "need_alone"
MEANING = (
    "This describes pupils under these labels, within schools: severity is need as labels tell it, so its coefficient "
    "is a calibration of this label regime and no effect of need. The robustness value says how strongly one more "
    "characteristic of pupils, beyond prior attainment and background, would have to go with expected need and with "
    "progress for the coefficient to vanish. It does not say that need causes slower progress, it says nothing of "
    "differences between schools, which are taken out, and nothing of labels that are set wrongly or leniently, which "
    "are no omitted variable; and its standard error takes expected need as known."
)
_WITHIN = 1e-10  # share of a column's squares left inside schools below which it counts as constant there


@one_blas_thread
def need_coefficients(
    design: PupilDesign,
    scores: NeedScores,
    estimator: str,
    context: str = "cva",
    *,
    benchmarks: Mapping[str, Sequence[str]] | None = None,
    kd: Sequence[float] = (1.0, 2.0, 3.0),
    ky: Sequence[float] | None = None,
    q: float = 1.0,
    alpha: float = 0.05,
) -> dict[str, CoefficientSensitivity]:
    """Say how strong an unmeasured characteristic of pupils must be to change the coefficients on need.

    Least squares with schools as fixed effects, from national cross-products with school means taken out. The random
    effects of the value-added model are a nuisance here; its coefficients differ a little from these, which weigh
    every pupil the same.

    Parameters
    ----------
    design : PupilDesign
    scores : NeedScores
        Of `estimator`, for the pupils of `design`.
    estimator : str
        ``standardised``, ``entry`` or ``label_free`` (no severity).
    context : str
        Covariates; school means (``composition``) are absorbed with the schools.
    benchmarks : mapping, optional
        Names, and the design columns of each. By default prior attainment and every column of the background that the
        context holds.
    kd, ky, q, alpha
        As in :func:`send_va.sensitivity.coefficient.coefficient_sensitivity`.

    Returns
    -------
    dict of str to CoefficientSensitivity
        ``severity`` (outcome units per SD of unexplained need; absent for `label_free`), ``need`` (outcome units from a
        probability of 0 to 1); then ``severity_alone`` and ``need_alone``, each without the other beside it. They say
        much the same of a pupil: given one, the other varies little and mostly with prior attainment, which is then no
        possible benchmark. Severity by itself is what background does not explain, so background explains next to
        nothing of it by construction and benchmarks flatter it. For how robust it is that pupils with need make other
        progress, read ``need_alone``. Read ``meaning`` with all.

    Raises
    ------
    InputError
        Unknown estimator, context or benchmark; scores that do not fit the records.
    CollinearityError
        A covariate is a combination of others.

    References
    ----------
    Cinelli & Hazlett (2020), doi:10.1111/rssb.12348.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from send_va.records.reader import Cohort
    >>> from send_va.records.simulator import simulate
    >>> from send_va.value_added.design import context_columns
    >>> from send_va.value_added.pupil_design import pupil_design
    >>> world = simulate(np.random.default_rng(2), schools=20, pupils_per_school=60)
    >>> roles = {"pupil": "pupil", "school": "school", "outcome": "outcome", "prior": ["prior"],
    ...          "sen_status": "sen_status", "context": ["fsm6"]}
    >>> cohort = Cohort.from_pandas(world.pupils, roles)
    >>> profile = cohort.profile(0)
    >>> design = pupil_design(cohort, profile, context_columns(cohort, profile))
    >>> entry = (world.pupils["sen_status_entry"] != "N").to_numpy()
    >>> stand_in = 0.05 + 0.8 * entry, 1.5 * entry + 0.2 * np.random.default_rng(1).standard_normal(len(entry))
    >>> scores = SimpleNamespace(n_draws=0, plug_in=lambda: stand_in)  # in place of those of identification
    >>> found = need_coefficients(design, scores, "entry", kd=[1.0])
    >>> list(found), found["need_alone"].benchmarks["label"].tolist()
    (['severity', 'need', 'severity_alone', 'need_alone'], ['1x prior attainment', '1x fsm6'])
    """
    known = check_estimator(estimator)
    (chosen,) = check_contexts([context])
    held = design.context.fixed("prior" if chosen == "prior" else "cva")
    table = scores_table(design.ordered(scores.plug_in()), len(design.rows), known)
    changing = (NEED, SEVERITY)[: table.shape[1]]
    names = (*changing, *held, OUTCOME)
    products = _within_schools(design, table, names)
    varying = [name for name in (*changing, *held) if products[names.index(name), names.index(name)] > 0.0]
    given = default_benchmarks(design.context, chosen) if benchmarks is None else benchmarks
    there = {label: [c for c in group if c in varying or c not in names] for label, group in given.items()}
    groups = {label: group for label, group in there.items() if group}
    records = float(len(design.rows) - int((design.n_pupils > 0).sum()))

    def of(name: str, without: Sequence[str] = ()) -> CoefficientSensitivity:
        beside = [c for c in varying if c != name and c not in without]
        outcome = Regression.of_products(products, names, OUTCOME, [name, *beside], records - len(beside) - 1.0)
        treatment = Regression.of_products(products, names, name, beside, records - len(beside))
        return coefficient_sensitivity(
            outcome, treatment, name, groups, kd=kd, ky=ky, q=q, alpha=alpha, meaning=MEANING
        )

    found = {name: of(name) for name in reversed(changing) if name in varying}
    if len(found) == 2:
        found |= {SEVERITY_ALONE: of(SEVERITY, without=(NEED,)), NEED_ALONE: of(NEED, without=(SEVERITY,))}
    if not found:
        raise NotSupportedError("need does not vary within schools: it has no coefficient there. Check the labels.")
    return found


def default_benchmarks(context: ContextColumns, chosen: str) -> dict[str, tuple[str, ...]]:
    """Prior attainment (all its columns) and, beyond the context ``prior``, every column of the background.

    Examples
    --------
    >>> from send_va.records.design_columns import CategoryColumn, SplineColumn
    >>> columns = ContextColumns((SplineColumn("ks2", ()),), ("fsm6",), (CategoryColumn("sex", ("F", "M")),), ())
    >>> default_benchmarks(columns, "cva")
    {'prior attainment': ('ks2',), 'fsm6': ('fsm6',), 'sex': ('sex[T.M]',)}
    """
    found = {PRIOR_ATTAINMENT: context.prior_names}
    if chosen != "prior":
        found |= {name: (name,) for name in context.numeric}
        found |= {category.column: category.names for category in context.categories if category.names}
    return found


def _within_schools(design: PupilDesign, scores: Floats, names: Sequence[str]) -> Floats:
    """Products of columns with school means taken out, (m, m); a column constant within schools is zero."""
    unknown = [name for name in names if name not in (NEED, SEVERITY) and name not in design.columns]
    if unknown or INTERCEPT in names:
        raise InputError(f"the design holds no column {', '.join(unknown) or INTERCEPT}")
    held = [name for name in names if name not in (NEED, SEVERITY)]
    rows = np.hstack([scores - scores.mean(axis=0), design.rows[:, [design.columns.index(name) for name in held]]])
    total = rows.T @ rows
    sums = np.column_stack([design.by_school(column) for column in rows.T])  # (schools, m)
    within = total - sums.T @ (sums / np.maximum(design.n_pupils, 1)[:, None])
    nothing = np.diag(within) <= _WITHIN * np.maximum(np.diag(total), np.finfo(np.float64).tiny)
    within[nothing] = within[:, nothing] = 0.0
    return np.asarray(0.5 * (within + within.T))
