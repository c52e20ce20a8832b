"""Every exception and warning of the package: what was wrong, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


def _list_some(items: Sequence[object], most: int = 10) -> str:
    shown = ", ".join(str(item) for item in items[:most])
    return shown if len(items) <= most else f"{shown}, ... ({len(items)} in all)"


@dataclass(frozen=True)
class Failure:
    """One thing that is wrong with the input.

    Attributes
    ----------
    rule : str
        What is wrong, in words, e.g. ``"has missing values"``.
    column : str
        The column (or the study key) it concerns; empty where several are meant.
    count : int
        How many rows (or entries) break the rule.
    rows : tuple of int
        Up to ten row numbers of the input, counted from 1 after the header.
    values : tuple of str
        The offending values of those rows, never a pupil id or name.
    remedy : str
        What the user can do.
    level : str
        ``"error"`` stops a run, ``"warning"`` is reported and the run goes on.
    unit : str
        What is counted: ``"row"``, or ``"school"`` where a rule is about schools.
    """

    rule: str
    column: str = ""
    count: int = 1
    rows: tuple[int, ...] = ()
    values: tuple[str, ...] = ()
    remedy: str = ""
    level: str = "error"
    unit: str = "row"

    @classmethod
    def of_rows(
        cls, rule: str, column: str, positions: Sequence[int], *, values: Sequence[object] = (), remedy: str = ""
    ) -> Failure:
        """State a rule that some rows break.

        Parameters
        ----------
        positions : sequence of int
            Positions of the failing rows, counted from 0; at most ten are shown, counted from 1.
        values : sequence
            Their values, where these may be shown.
        """
        rows = tuple(int(position) + 1 for position in positions[:10])
        return cls(rule, column, len(positions), rows, tuple(str(value) for value in values[:10]), remedy)

    def __str__(self) -> str:
        parts = [self.heading]
        if self.count > 1 or self.rows:
            parts.append(f"{self.count} {self.unit}{'s fail' if self.count != 1 else ' fails'}")
        if self.rows:
            parts.append(f"rows {_list_some(self.rows)}")
        if self.values:
            parts.append(f"values {_list_some(self.values)}")
        text = "; ".join(parts)
        return f"{text}. {self.remedy}" if self.remedy else f"{text}."

    @property
    def heading(self) -> str:
        """The column and what is wrong with it."""
        return f"{self.column}: {self._said()}" if self.column else self._said()

    def _said(self) -> str:
        return self.rule


@dataclass(frozen=True)
class BrokenRule(Failure):
    """A requirement the input does not meet; `rule` says what is required, e.g. ``"is between 0 and 90"``."""

    def _said(self) -> str:
        return f"rule broken: {self.rule}"


class SendVaError(Exception):
    """Base of everything the package raises on purpose; ``exit_code`` is what the command line returns."""

    exit_code = 2


class InputError(SendVaError):
    """The records, a table or an array cannot be used as they are.

    Parameters
    ----------
    problem : str or Failure or iterable of Failure
        One sentence, or the failing rules. All of them are listed in the message.
    remedy : str
        What to do, when `problem` is a sentence.
    """

    def __init__(self, problem: str | Failure | Iterable[Failure], remedy: str = "") -> None:
        if isinstance(problem, str):
            failures: tuple[Failure, ...] = (Failure(rule=problem, remedy=remedy),)
        elif isinstance(problem, Failure):
            failures = (problem,)
        else:
            failures = tuple(problem)
        self.failures = failures
        super().__init__("\n".join(str(failure) for failure in failures))


class StudyError(InputError):
    """The study file says something that cannot be done; `column` of its failures names the key."""


class CollinearityError(InputError):
    """A design column is constant, empty or a combination of others; the message names the columns."""


class NotSupportedError(SendVaError):
    """What was asked for is well defined but not something this version estimates; the message names an alternative."""


class ConvergenceError(SendVaError):
    """An estimate did not converge; results are kept in ``private/`` and nothing is published."""

    exit_code = 3


class BoundaryWarning(UserWarning):
    """A variance was estimated at zero; the message says which one and what it means for the results."""
