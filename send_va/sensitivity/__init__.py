"""What a table of school effects rests on: choices, assumptions, and what schools would gain by acting on it.

Public names are loaded when first used, so that a study file can be read without what they need.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from send_va.sensitivity.audit_settings import AuditSettings
    from send_va.sensitivity.bounds import LeeBounds, lee_bounds
    from send_va.sensitivity.changed_tables import table_changes
    from send_va.sensitivity.coefficient import CoefficientSensitivity, coefficient_sensitivity, ols_sensitivity
    from send_va.sensitivity.incentives import IncentiveAudit, audit_incentives
    from send_va.sensitivity.need_coefficient import need_coefficients
    from send_va.sensitivity.school_robustness import Robustness, robustness
    from send_va.sensitivity.tipping import Tipping, tip_by_leniency, tip_by_need
    from send_va.sensitivity.unmeasured import (
        adjusted_estimate,
        adjusted_se,
        adjusted_t,
        benchmark_bounds,
        bias,
        group_partial_r2,
        partial_f2,
        partial_r2,
        robustness_value,
    )
    from send_va.sensitivity.unmeasured_schools import SortingSensitivity, unmeasured_schools
    from send_va.sensitivity.weighted_by_roll import RollWeighting, roll_weighting

_HOME = {
    "AuditSettings": "audit_settings",
    "CoefficientSensitivity": "coefficient",
    "IncentiveAudit": "incentives",
    "LeeBounds": "bounds",
    "Robustness": "school_robustness",
    "RollWeighting": "weighted_by_roll",
    "SortingSensitivity": "unmeasured_schools",
    "Tipping": "tipping",
    "adjusted_estimate": "unmeasured",
    "adjusted_se": "unmeasured",
    "adjusted_t": "unmeasured",
    "audit_incentives": "incentives",
    "benchmark_bounds": "unmeasured",
    "bias": "unmeasured",
    "coefficient_sensitivity": "coefficient",
    "group_partial_r2": "unmeasured",
    "lee_bounds": "bounds",
    "need_coefficients": "need_coefficient",
    "ols_sensitivity": "coefficient",
    "partial_f2": "unmeasured",
    "partial_r2": "unmeasured",
    "robustness": "school_robustness",
    "robustness_value": "unmeasured",
    "roll_weighting": "weighted_by_roll",
    "table_changes": "changed_tables",
    "tip_by_leniency": "tipping",
    "tip_by_need": "tipping",
    "unmeasured_schools": "unmeasured_schools",
}

__all__ = [
    "AuditSettings",
    "CoefficientSensitivity",
    "IncentiveAudit",
    "LeeBounds",
    "Robustness",
    "RollWeighting",
    "SortingSensitivity",
    "Tipping",
    "adjusted_estimate",
    "adjusted_se",
    "adjusted_t",
    "audit_incentives",
    "benchmark_bounds",
    "bias",
    "coefficient_sensitivity",
    "group_partial_r2",
    "lee_bounds",
    "need_coefficients",
    "ols_sensitivity",
    "partial_f2",
    "partial_r2",
    "robustness",
    "robustness_value",
    "roll_weighting",
    "table_changes",
    "tip_by_leniency",
    "tip_by_need",
    "unmeasured_schools",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'send_va.sensitivity' has no attribute {name!r}")
    return getattr(importlib.import_module(f"send_va.sensitivity.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
