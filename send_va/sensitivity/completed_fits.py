"""Value-added of records that were filled in: the same design and the same reference for every completed data set."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from send_va.errors import InputError, NotSupportedError
from send_va.identification.labels import read_labels
from send_va.identification.need import Need, estimate_need
from send_va.records.design_columns import INTERCEPT, Context
from send_va.sensitivity.filled_rows import FilledRows
from send_va.sensitivity.incomplete_records import IncompleteRecords
from send_va.value_added.design import LabelledProducts, context_columns, labelled_products
from send_va.value_added.fit_result import ValueAddedFit
from send_va.value_added.labelled import fit_labelled
from send_va.value_added.need_fit import fit_need
from send_va.value_added.pupil_design import PupilDesign, pupil_design
from send_va.value_added.row_coder import NEED

ESTIMATORS = ("labelled", "standardised", "entry")
LABELLED = "labelled"


@dataclass(frozen=True)
class FitPlan:
    """What is fitted to every completed data set.

    Attributes
    ----------
    estimators : tuple of str
        ``labelled``, ``standardised``, ``entry``.
    context : str
    draws : int
        Draws of the school effects of one data set.
    identification_draws : int
        Joint draws of the identification parameters in each; 0 takes them as known.
    refit_identification : bool
        Estimate the identification model in every data set; otherwise in the first only, and the need of every pupil
        is worked out anew from its parameters.
    seed : int
    prior_knots : int
    """

    estimators: tuple[str, ...] = (LABELLED,)
    context: Context = "cva"
    draws: int = 50
    identification_draws: int = 8
    refit_identification: bool = False
    seed: int = 1
    prior_knots: int = 5

    def __post_init__(self) -> None:
        """Refuse an estimator that is not carried through imputations."""
        unknown = [name for name in self.estimators if name not in ESTIMATORS]
        if unknown or not self.estimators:
            raise NotSupportedError(f"missing prior attainment is studied for {', '.join(ESTIMATORS)}, not {unknown}.")
        if self.identification_draws == 1 or self.identification_draws < 0 or self.prior_knots < 0:
            raise InputError("identification_draws must be 0 or at least 2, and prior_knots 0 or more")

    @property
    def needs_identification(self) -> bool:
        """Whether an estimator uses need."""
        return any(name != LABELLED for name in self.estimators)


@dataclass(frozen=True, eq=False)
class CompletedFits:
    """Fits the plan to one completed data set after the other; only rows that were filled in are coded anew.

    Attributes
    ----------
    records : IncompleteRecords
    plan : FitPlan
    rows : FilledRows
        Codes what was filled in, with knots and reference of the scores that were observed: theta is stated at the same
        prior attainment, and splines bend at the same points, whatever was imputed.
    products : LabelledProducts or None
        Of complete records.
    design : PupilDesign or None
        Of the first completed data set.
    need : Need or None
        Identification from the first completed data set: the labels of all pupils, of incomplete records too.
    """

    records: IncompleteRecords
    plan: FitPlan
    rows: FilledRows
    products: LabelledProducts | None
    design: PupilDesign | None
    need: Need | None

    @classmethod
    def of(cls, records: IncompleteRecords, plan: FitPlan, first: pd.DataFrame) -> CompletedFits:
        """Freeze the design; `first` is a completed data set."""
        observed = records.cohort()
        cohort = records.cohort(first)
        profile = replace(cohort.profile(plan.prior_knots), priors=observed.profile(plan.prior_knots).priors)
        context = context_columns(cohort, profile)
        rows = FilledRows.of(records, cohort, profile, context)
        products = labelled_products(observed, profile, context) if LABELLED in plan.estimators else None
        if not plan.needs_identification:
            return cls(records, plan, rows, products, None, None)
        labels = read_labels(cohort, profile, context)
        need = estimate_need(labels, seed=plan.seed, draws=plan.identification_draws)
        return cls(records, plan, rows, products, pupil_design(cohort, profile, context), need)

    def fit(self, frame: pd.DataFrame, rng: np.random.Generator) -> dict[str, ValueAddedFit]:
        """Fit every estimator to completed records."""
        batch = self.rows.batch(frame)
        data = None if self.products is None else self.rows.added(self.products, batch)
        if self.need is None or self.design is None:
            return fit_estimators(data, None, None, self.plan, rng, self.records)
        need = replace(self.need, labels=self.rows.labels(self.need.labels, batch))
        if self.plan.refit_identification:
            known = self.need.recorded or self.need.labels
            again = self.rows.labels(known, batch)
            need = estimate_need(again, seed=self.plan.seed, draws=self.plan.identification_draws)
        return fit_estimators(data, self.rows.design(self.design, batch), need, self.plan, rng, self.records)


def complete_case_fits(records: IncompleteRecords, plan: FitPlan, rng: np.random.Generator) -> dict[str, ValueAddedFit]:
    """The same estimators on complete records only, which is what every other result of a study rests on."""
    cohort = records.cohort()
    profile = cohort.profile(plan.prior_knots)
    context = context_columns(cohort, profile)
    data = labelled_products(cohort, profile, context) if LABELLED in plan.estimators else None
    if not plan.needs_identification:
        return fit_estimators(data, None, None, plan, rng, records)
    labels = read_labels(cohort, profile, context)
    need = estimate_need(labels, seed=plan.seed, draws=plan.identification_draws)
    return fit_estimators(data, pupil_design(cohort, profile, context), need, plan, rng, records)


def fit_estimators(
    data: LabelledProducts | None,
    design: PupilDesign | None,
    need: Need | None,
    plan: FitPlan,
    rng: np.random.Generator,
    records: IncompleteRecords,
) -> dict[str, ValueAddedFit]:
    """Fit the estimators of a plan to one set of records."""
    attrs = {"seed": plan.seed, "engine": "reml", "synthetic": int(records.source.synthetic)}
    fits: dict[str, ValueAddedFit] = {}
    children = dict(zip(ESTIMATORS, rng.spawn(len(ESTIMATORS)), strict=True))
    if data is not None:
        fits[LABELLED] = fit_labelled(data, plan.context, rng=children[LABELLED], draws=plan.draws, attrs=attrs)
    if need is None or design is None:
        return fits
    design = design.without_schools(np.flatnonzero(need.labels.component > 0))
    for name in plan.estimators:
        if name == LABELLED:
            continue
        fits[name] = fit_need(
            design,
            need.scores(name),
            name,
            [plan.context],
            rng=children[name],
            draws=plan.draws,
            plug_in=need.n_draws < 2,
            attrs=attrs | {"assumes": need.assumes(name)},
        )[plan.context]
    return {name: fits[name] for name in plan.estimators}


def between_schools(fit: ValueAddedFit) -> dict[str, float]:
    """Variances between schools of theta, u and gap, squared outcome units."""
    table = fit.variance_components[fit.variance_components["group"] == "school"]
    first, second, variances = (table[name].tolist() for name in ("term1", "term2", "variance"))
    value = {
        frozenset((a, b if isinstance(b, str) else a)): float(variance)
        for a, b, variance in zip(first, second, variances, strict=True)
    }
    u, gap, both = (value[frozenset(names)] for names in ((INTERCEPT,), (NEED,), (INTERCEPT, NEED)))
    return {"theta": u + gap + 2.0 * both, "u": u, "gap": gap}
