"""What a study file says of the incentive audit."""

from __future__ import annotations

from dataclasses import dataclass

from send_va.errors import Failure
from send_va.records.design_columns import CONTEXTS
from send_va.sensitivity.audit_settings import AuditSettings


@dataclass(frozen=True)
class AuditSection:
    """``[audit]``: what schools would gain by acting on the measures.

    Attributes
    ----------
    share : float
        Share of a school's pupils in the measure that it acts on.
    foresight : float
        How much of a pupil's outcome the school foresees beyond the records: a correlation.
    terms_kept : float
        Of 15 terms, those that count for a pupil taken off the roll or withdrawn, under roll weighting.
    tolerance : float or None
        Largest mean gain, in pupil SDs, with which a measure passes; the stated default unless given.
    contexts : tuple of str or None
        Contexts to audit; the headline's alone unless given.
    """

    share: float = 0.05
    foresight: float = 0.5
    terms_kept: float = 13.0
    tolerance: float | None = None
    contexts: tuple[str, ...] | None = None

    @property
    def settings(self) -> AuditSettings:
        """As the audit takes them."""
        return AuditSettings(self.share, self.foresight, self.terms_kept, self.tolerance)

    def failures(self) -> list[Failure]:
        """List values out of range."""
        found = self.settings.failures("audit")
        if self.contexts is None:
            return found
        unknown = tuple(context for context in self.contexts if context not in CONTEXTS)
        if unknown or not self.contexts:
            rule = f"must name one or more of {', '.join(CONTEXTS)}"
            found.append(Failure(rule, column="audit.contexts", values=tuple(map(repr, unknown))))
        return found
