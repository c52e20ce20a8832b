"""A small synthetic cohort with everything an audit takes, made once."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
import pandas as pd

from send_va.errors import BoundaryWarning
from send_va.identification.labels import LabelRecords, read_labels
from send_va.identification.need import Need, estimate_need
from send_va.records.design_columns import ContextColumns
from send_va.records.profile import CohortProfile
from send_va.records.reader import Cohort
from send_va.records.roles import Roles
from send_va.records.simulator import SimulatedCohort, simulate
from send_va.validation import recovery
from send_va.value_added.design import LabelledProducts, context_columns, labelled_products
from send_va.value_added.pupil_design import PupilDesign, pupil_design

CONTEXTS = ("prior", "composition")
ROLES = replace(recovery.ROLES, context=("fsm6", "idaci"))


@dataclass(frozen=True, eq=False)
class Records:
    """One reading of a table of pupils; each part is read when it is asked for."""

    cohort: Cohort
    profile: CohortProfile
    context: ContextColumns

    @classmethod
    def read(cls, pupils: pd.DataFrame, roles: Roles = ROLES, like: Records | None = None) -> Records:
        """With knots, centres and references of its own, or those of other records."""
        cohort = Cohort.from_pandas(pupils, roles)
        if like is None:
            profile = cohort.profile(3)
            return cls(cohort, profile, context_columns(cohort, profile))
        return cls(cohort, replace(like.profile, n_rows=len(pupils), n_complete=len(pupils)), like.context)

    @cached_property
    def design(self) -> PupilDesign:
        return pupil_design(self.cohort, self.profile, self.context)

    @cached_property
    def labels(self) -> LabelRecords:
        return read_labels(self.cohort, self.profile, self.context)

    @cached_property
    def data(self) -> LabelledProducts:
        return labelled_products(self.cohort, self.profile, self.context)


@cache
def world(scenario: str = "magnets", schools: int = 60, pupils: int = 100, seed: int = 3) -> SimulatedCohort:
    """A cohort with its truth."""
    return simulate(np.random.default_rng(seed), schools=schools, scenario=scenario, pupils_per_school=pupils)


@cache
def records(scenario: str = "magnets", schools: int = 60, pupils: int = 100, seed: int = 3) -> Records:
    """A cohort as read."""
    return Records.read(world(scenario, schools, pupils, seed).pupils)


@cache
def need_of(scenario: str = "magnets", schools: int = 60, pupils: int = 100, seed: int = 3) -> Need:
    """Identification at the estimates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        return estimate_need(records(scenario, schools, pupils, seed).labels, seed=1, draws=0)


@cache
def without_entry() -> tuple[Records, Need]:
    """The cohort without labels before transfer."""
    base = Records.read(world().pupils, replace(ROLES, sen_status_entry=None))
    return base, estimate_need(base.labels, seed=1, draws=0)
