"""An NPD-like synthetic cohort with known truth, calibrated to published English figures."""

from send_va.records.simulator.calibration import calibration_table
from send_va.records.simulator.cohort import SimulatedCohort, simulate
from send_va.records.simulator.files import write_cohort
from send_va.records.simulator.geography import GEOGRAPHIES
from send_va.records.simulator.moves import with_moves
from send_va.records.simulator.scenarios import SCENARIOS, Scenario
from send_va.records.simulator.years import SimulatedYears, simulate_years

__all__ = [
    "GEOGRAPHIES",
    "SCENARIOS",
    "Scenario",
    "SimulatedCohort",
    "SimulatedYears",
    "calibration_table",
    "simulate",
    "simulate_years",
    "with_moves",
    "write_cohort",
]
