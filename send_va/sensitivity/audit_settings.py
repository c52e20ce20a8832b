"""What an incentive audit supposes of schools that act, and what it lets a measure reward."""

from __future__ import annotations

from dataclasses import dataclass

from send_va.errors import Failure, InputError

DEFAULT_TOLERANCE = 0.02  # pupil SDs
FULL_TERMS = 15  # of the five years of secondary school up to the end of key stage 4


@dataclass(frozen=True)
class AuditSettings:
    """How far schools go, how much they foresee, and how much a measure may reward it.

    Attributes
    ----------
    share : float
        Share of a school's pupils in the measure that it acts on: rounded, halves up, and at least one pupil; fewer
        where fewer can be acted on.
    foresight : float
        Correlation of what a school foresees of a pupil's outcome, beyond what the model predicts from the records,
        with what is to come. 0: it knows only what the records know. 1: it knows the outcome.
    terms_kept : float
        Of 15 terms, those that count for a pupil who is taken off the roll or withdrawn, where pupils are weighted by
        their terms on the roll. 13: off the roll before the January census of Year 11.
    tolerance : float or None
        Largest mean gain, in pupil SDs, with which a measure passes; .02 unless given.
    """

    share: float = 0.05
    foresight: float = 0.5
    terms_kept: float = 13.0
    tolerance: float | None = None

    @property
    def used_tolerance(self) -> float:
        """The tolerance given, or the default."""
        return DEFAULT_TOLERANCE if self.tolerance is None else self.tolerance

    @property
    def said_tolerance(self) -> str:
        """The tolerance in words, with whether it is the default."""
        return f"{self.used_tolerance:g} pupil SDs{' (default)' if self.tolerance is None else ''}"

    def failures(self, section: str = "audit") -> list[Failure]:
        """List values out of range, named as keys of a section of a study file.

        Examples
        --------
        >>> print(AuditSettings(share=0.0).failures()[0])
        audit.share: must be above 0 and at most 0.5; values 0.0.
        """
        checks = [
            (_within(self.share, 0.0, 0.5) and self.share > 0.0, "share", "must be above 0 and at most 0.5"),
            (_within(self.foresight, 0.0, 1.0), "foresight", "must be between 0 and 1"),
            (_within(self.terms_kept, 0.0, FULL_TERMS), "terms_kept", f"must be between 0 and {FULL_TERMS}"),
            (
                self.tolerance is None or (_within(self.tolerance, 0.0, 10.0) and self.tolerance > 0.0),
                "tolerance",
                "must be above 0 and at most 10 pupil SDs",
            ),
        ]
        return [
            Failure(rule, column=f"{section}.{name}", values=(repr(getattr(self, name)),))
            for good, name, rule in checks
            if not good
        ]

    def require(self) -> None:
        """Refuse values out of range.

        Raises
        ------
        InputError
            Listing all of them.
        """
        failures = self.failures()
        if failures:
            raise InputError(failures)


def _within(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
