"""Contextual value-added for pupils with special educational needs, by school, with its uncertainty.

Public names are loaded when first used, so that ``import send_va`` stays fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from send_va import multilevel, ranking, sensitivity
    from send_va.audit_stage import AuditRun, audit
    from send_va.effects import SchoolEffects
    from send_va.estimation import fit_drift, fit_identification, fit_value_added, read_cohort
    from send_va.identification.need import Need
    from send_va.pipeline import Run, run
    from send_va.ranking import PublicationRule, Ranking, rank
    from send_va.records.check import CheckReport, check_cohort
    from send_va.records.reader import Cohort
    from send_va.records.roles import Roles, SenCodes
    from send_va.records.simulator import SimulatedCohort, SimulatedYears, simulate, simulate_years
    from send_va.study import Study, load_study
    from send_va.value_added.drift import Drift

__version__ = "0.1.0"

_HOME = {
    "multilevel": "send_va.multilevel",
    "ranking": "send_va.ranking",
    "sensitivity": "send_va.sensitivity",
    "AuditRun": "send_va.audit_stage",
    "audit": "send_va.audit_stage",
    "SchoolEffects": "send_va.effects",
    "fit_drift": "send_va.estimation",
    "fit_identification": "send_va.estimation",
    "fit_value_added": "send_va.estimation",
    "read_cohort": "send_va.estimation",
    "Need": "send_va.identification.need",
    "Run": "send_va.pipeline",
    "run": "send_va.pipeline",
    "PublicationRule": "send_va.ranking",
    "Ranking": "send_va.ranking",
    "rank": "send_va.ranking",
    "CheckReport": "send_va.records.check",
    "check_cohort": "send_va.records.check",
    "Cohort": "send_va.records.reader",
    "Roles": "send_va.records.roles",
    "SenCodes": "send_va.records.roles",
    "SimulatedCohort": "send_va.records.simulator",
    "SimulatedYears": "send_va.records.simulator",
    "simulate": "send_va.records.simulator",
    "simulate_years": "send_va.records.simulator",
    "Study": "send_va.study",
    "load_study": "send_va.study",
    "Drift": "send_va.value_added.drift",
}

__all__ = [
    "AuditRun",
    "CheckReport",
    "Cohort",
    "Drift",
    "Need",
    "PublicationRule",
    "Ranking",
    "Roles",
    "Run",
    "SchoolEffects",
    "SenCodes",
    "SimulatedCohort",
    "SimulatedYears",
    "Study",
    "audit",
    "check_cohort",
    "fit_drift",
    "fit_identification",
    "fit_value_added",
    "load_study",
    "multilevel",
    "rank",
    "ranking",
    "read_cohort",
    "run",
    "sensitivity",
    "simulate",
    "simulate_years",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'send_va' has no attribute {name!r}")
    module = importlib.import_module(_HOME[name])
    return module if _HOME[name] == f"send_va.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
