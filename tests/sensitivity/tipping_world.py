"""One synthetic cohort, identified and fitted once for all tests of tipping points."""

import warnings
from dataclasses import dataclass
from functools import cache

import numpy as np

from send_va.errors import BoundaryWarning
from send_va.identification.labels import LabelRecords, read_labels
from send_va.identification.need import Need, estimate_need
from send_va.records.reader import Cohort
from send_va.records.simulator import SimulatedCohort, simulate
from send_va.sensitivity.held_estimators import HeldLabelled, HeldNeed, hold_labelled, hold_need
from send_va.validation.recovery import ROLES
from send_va.value_added.design import LabelledProducts, context_columns, labelled_products
from send_va.value_added.fit_result import ValueAddedFit
from send_va.value_added.need_fit import fit_need
from send_va.value_added.pupil_design import PupilDesign, pupil_design


@dataclass(frozen=True)
class World:
    simulated: SimulatedCohort
    cohort: Cohort
    labels: LabelRecords
    need: Need
    design: PupilDesign
    data: LabelledProducts


@cache
def world() -> World:
    simulated = simulate(np.random.default_rng(3), schools=40, scenario="lenient_better", pupils_per_school=120)
    return of(simulated, Cohort.from_pandas(simulated.pupils, ROLES, synthetic=True))


def of(simulated: SimulatedCohort, cohort: Cohort, need: Need | None = None) -> World:
    """Read the records; identified again where no `need` is given."""
    profile = cohort.profile(3)
    columns = context_columns(cohort, profile)
    labels = read_labels(cohort, profile, columns)
    need = need or estimate_need(labels, seed=1, draws=0)
    design = pupil_design(cohort, profile, columns)
    return World(simulated, cohort, labels, need, design, labelled_products(cohort, profile, columns))


@cache
def held(estimator: str) -> HeldNeed:
    known = world()
    return hold_need(known.design, known.need, estimator, ["cva"])


@cache
def labelled() -> HeldLabelled:
    known = world()
    return hold_labelled(known.design, known.labels, known.data, ["cva"])


@cache
def fitted(estimator: str) -> ValueAddedFit:
    known = world()
    compared = known.design.without_schools(np.flatnonzero(known.need.labels.component > 0))
    scores = known.need.scores(estimator)
    rng = np.random.default_rng(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)  # of few schools a correlation may be estimated at one
        return fit_need(compared, scores, estimator, ["cva"], rng=rng, draws=50, plug_in=True)["cva"]
