"""The cut against the joint model, on simulated regions whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from send_va.identification.labels import LabelRecords, read_labels
from send_va.records.reader import Cohort
from send_va.records.simulator import SimulatedCohort, simulate
from send_va.validation.joint_records import JointRecords, joint_records
from send_va.validation.recovery import CONTEXT, ROLES, world_of
from send_va.value_added.design import context_columns
from send_va.value_added.pupil_design import PupilDesign, pupil_design

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Region:
    """A simulated region: truth, labels and design."""

    world: SimulatedCohort
    labels: LabelRecords
    design: PupilDesign

    def records(self, prior_reference: float | None = None) -> JointRecords:
        """What the joint model reads; effects are stated at the true mean prior attainment of pupils with need."""
        reference = float(self.world.attrs["reference_prior"]) if prior_reference is None else prior_reference  # type: ignore[arg-type]
        return joint_records(self.labels, self.design, CONTEXT, prior_reference=reference)


def region(scenario: str, *, seed: int, schools: int, pupils_per_school: float | None = None) -> Region:
    """Simulate a region.

    Parameters
    ----------
    scenario : str
        Name of the simulator.
    seed, schools : int
    pupils_per_school : float, optional
        Mean; 174.5 by default.

    Examples
    --------
    >>> len(region("magnets", seed=1, schools=12, pupils_per_school=20).labels.schools)
    12
    """
    world = simulate(
        np.random.default_rng(seed),
        schools=schools,
        scenario=world_of(scenario),
        pupils_per_school=pupils_per_school,
    )
    cohort = Cohort.from_pandas(world.pupils, ROLES)
    profile = cohort.profile(5)
    context = context_columns(cohort, profile)
    return Region(world, read_labels(cohort, profile, context), pupil_design(cohort, profile, context))
