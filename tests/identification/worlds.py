"""Simulated cohorts and their fits, each made once for all tests of identification."""

from functools import cache

import numpy as np
import pandas as pd

from send_va.identification.labels import LabelRecords, read_labels
from send_va.identification.need import Need, estimate_need
from send_va.records.reader import Cohort
from send_va.records.simulator import SimulatedCohort, simulate
from send_va.validation.recovery import ROLES
from send_va.value_added.design import context_columns

DRAWS = 24


def labels_of(pupils: pd.DataFrame, roles: object = ROLES) -> LabelRecords:
    cohort = Cohort.from_pandas(pupils, roles)
    profile = cohort.profile(3)
    return read_labels(cohort, profile, context_columns(cohort, profile))


@cache
def world() -> SimulatedCohort:
    """120 schools, some 21,000 pupils: magnets and leniency, and lenient schools do more for pupils with need."""
    return simulate(np.random.default_rng(3), schools=120, scenario="lenient_better")


@cache
def labels() -> LabelRecords:
    return labels_of(world().pupils)


@cache
def need() -> Need:
    return estimate_need(labels(), seed=1, draws=DRAWS)


@cache
def small_pupils() -> pd.DataFrame:
    """40 schools with some 2,400 pupils, cut from the head of every school's list in `world`."""
    pupils = world().pupils
    schools = sorted(pupils["school"].unique())[:40]
    few = pupils[pupils["school"].isin(schools)].groupby("school").head(60)
    return few.sort_values("pupil").reset_index(drop=True)


@cache
def small() -> Need:
    return estimate_need(labels_of(small_pupils()), seed=1, draws=6)
