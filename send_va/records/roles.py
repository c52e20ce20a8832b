"""Which column plays which part, and which codes mean which SEN level."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields

from send_va.errors import BrokenRule, Failure, StudyError

DERIVED_COLUMNS = ("row_number", "sen_level", "sen_level_entry", "complete")
_REQUIRED = ("pupil", "school", "outcome", "prior", "sen_status")
_LISTS = ("prior", "context", "prior_sem")
_CATEGORY_TERM = re.compile(r"^C\(\s*(.+?)\s*\)$")


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Spell out the closest known name, for an error message.

    Parameters
    ----------
    name : str
        The name that was given.
    known : iterable of str
        The names that would have been understood.

    Returns
    -------
    str
        ``"did you mean 'school'?"``, or an empty string when nothing is close.

    Examples
    --------
    >>> nearest_name("shcool", ["school", "pupil"])
    "did you mean 'school'?"
    """
    by_lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.6)
    return f"did you mean '{by_lower[close[0]]}'?" if close else ""


@dataclass(frozen=True)
class Roles:
    """The parts that columns play in a study.

    Attributes
    ----------
    pupil, school, outcome, sen_status : str
        Column of the pupil id (used to find duplicates, never written out), the school, the outcome and the SEN
        status now.
    prior : tuple of str
        Columns of prior attainment, at least one.
    sen_status_entry : str or None
        Column of the SEN status at the last census **before** transfer. Autumn Year 7 status is the new school's own
        and may not stand here.
    la, feeder, cohort : str or None
        Columns of the local authority, the school before transfer, and the academic year of the outcome.
    region : str or None
        Column of the region, for counts at a national standard.
    trust, feeder_trust : str or None
        Columns of the trusts of the school and of the feeder: labels of a feeder of the school's own trust are the
        rated body's own.
    feeder_la : str or None
        Column of the authority of the feeder; without it, a feeder is taken to lie in the authority in which most of
        its pupils go to school.
    context : tuple of str
        Terms of the pupil background: a plain column name for a number, ``C(name)`` for text or coded categories.
    prior_sem : tuple of str
        Columns with the standard error of measurement of each `prior`, in the same order; empty when unknown.
    terms_on_roll : str or None
        Column of the number of school terms, of the 15 from Year 7 to Year 11, that the pupil was on the roll of the
        school of the row. It weights pupils in one sensitivity column and is used for nothing else.
    on_roll_at_end : str or None
        Column with 1 in the row of the school at which the pupil is counted at the end of the key stage and 0 in rows
        of schools attended before. With it, and with `terms_on_roll`, a pupil may have one row a school; every
        published estimate is of the rows with 1.

    Raises
    ------
    StudyError
        When a column has two parts that exclude each other, `prior` is empty, `prior_sem` does not match `prior`,
        or a name is one of those the reader derives itself (``row_number``, ``sen_level``, ...).

    Examples
    --------
    >>> roles = Roles("id", "urn", "att8", ("ks2",), "sen", context=("C(sex)", "idaci"))
    >>> roles.context_columns, roles.categorical
    (('sex', 'idaci'), ('sex',))
    """

    pupil: str
    school: str
    outcome: str
    prior: tuple[str, ...]
    sen_status: str
    sen_status_entry: str | None = None
    la: str | None = None
    feeder: str | None = None
    cohort: str | None = None
    region: str | None = None
    trust: str | None = None
    feeder_trust: str | None = None
    feeder_la: str | None = None
    context: tuple[str, ...] = ()
    prior_sem: tuple[str, ...] = ()
    terms_on_roll: str | None = None
    on_roll_at_end: str | None = None

    def __post_init__(self) -> None:
        for name in _LISTS:
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))
        failures = list(_contradictions(self))
        if failures:
            raise StudyError(failures)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, object]) -> Roles:
        """Read roles from a mapping such as the ``[roles]`` table of a study file.

        Parameters
        ----------
        mapping : mapping of str to str or list of str
            Role to column name; `prior`, `context` and `prior_sem` take a name or a list of names.

        Returns
        -------
        Roles
            The same roles, validated.

        Raises
        ------
        StudyError
            When a key is unknown (the nearest known key is named), a required role is missing, or a value is not a
            column name.

        Examples
        --------
        >>> given = {"pupil": "id", "school": "urn", "outcome": "y", "prior": "ks2", "sen_status": "sen"}
        >>> Roles.from_mapping(given).prior
        ('ks2',)
        """
        known = [f.name for f in fields(cls)]
        failures = [
            BrokenRule("is a role this package knows", f"roles.{key}", remedy=_unknown_remedy(key, known))
            for key in mapping
            if key not in known
        ]
        failures += [
            BrokenRule("is given", f"roles.{name}", remedy=f"Name the column that holds the {name}.")
            for name in _REQUIRED
            if not mapping.get(name)
        ]
        failures += [
            BrokenRule("is a column name" + (" or a list of them" if key in _LISTS else ""), f"roles.{key}")
            for key, value in mapping.items()
            if key in known and value is not None and not _is_name(value, many=key in _LISTS)
        ]
        if failures:
            raise StudyError(failures)
        given = {key: value for key, value in mapping.items() if value is not None}
        return cls(**given)  # type: ignore[arg-type]

    @property
    def context_columns(self) -> tuple[str, ...]:
        """Column names of the context terms, in order."""
        return tuple(_term_column(term) for term in self.context)

    @property
    def categorical(self) -> tuple[str, ...]:
        """Column names of the context terms declared as ``C(name)``, in order."""
        return tuple(_term_column(term) for term in self.context if _CATEGORY_TERM.match(term))

    @property
    def numeric_context(self) -> tuple[str, ...]:
        """Column names of the context terms that are numbers, in order."""
        return tuple(name for name in self.context_columns if name not in self.categorical)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column the study needs, each once."""
        bodies = (self.la, self.region, self.feeder, self.trust, self.feeder_trust, self.feeder_la)
        single = (self.pupil, self.school, *bodies, self.cohort, self.outcome)
        status = (self.sen_status, self.sen_status_entry)
        roll = (self.terms_on_roll, self.on_roll_at_end)
        names = [*single, *self.prior, *self.prior_sem, *status, *self.context_columns, *roll]
        return tuple(dict.fromkeys(name for name in names if name))

    @property
    def needed_for_estimation(self) -> tuple[str, ...]:
        """Columns in which a missing value takes a row out of every estimate: the rule is the same everywhere."""
        return tuple(dict.fromkeys((self.school, self.outcome, *self.prior, self.sen_status, *self.context_columns)))


@dataclass(frozen=True)
class SenCodes:
    """The codes of SEN status in the file, by level of need.

    Attributes
    ----------
    none, support, ehcp : tuple of str
        Codes that mean no identified need (level 0), SEN support (level 1) and an Education, Health and Care plan or
        statement (level 2). The defaults N, K, E are those of the school census since 2014/15; earlier years use A and
        P for School Action and School Action Plus, S for statements (DfE, SEN provision codeset). Integer codes
        are compared as text.

    Raises
    ------
    StudyError
        When a code stands for two levels, `none` is empty, or no code means a need.

    References
    ----------
    Department for Education. Common Basic Data Set, codeset "SEN provision" (N, K, E; A, P and S historic).

    Examples
    --------
    >>> SenCodes(support=("K", "A", "P"), ehcp=("E", "S")).level_of("P")
    1
    """

    none: tuple[str, ...] = ("N",)
    support: tuple[str, ...] = ("K",)
    ehcp: tuple[str, ...] = field(default=("E",))

    def __post_init__(self) -> None:
        for level in ("none", "support", "ehcp"):
            object.__setattr__(self, level, _code_tuple(getattr(self, level)))
        repeated = sorted({code for code in self.codes if self.codes.count(code) > 1})
        if repeated:
            remedy = "Give each code to one of none, support, ehcp."
            raise StudyError(
                BrokenRule("each code has one level", "sen", len(repeated), values=tuple(repeated), remedy=remedy)
            )
        if not self.none or not (self.support or self.ehcp):
            raise StudyError("sen needs at least one code for none and one for support or ehcp", "Add the codes.")

    @property
    def codes(self) -> tuple[str, ...]:
        """Every allowed code, level by level."""
        return (*self.none, *self.support, *self.ehcp)

    def level_of(self, code: str) -> int:
        """Level of need that a code stands for.

        Parameters
        ----------
        code : str
            A code of the file.

        Returns
        -------
        int
            0 no identified need, 1 SEN support, 2 EHC plan.

        Raises
        ------
        StudyError
            When the code is not one of `codes`.

        Examples
        --------
        >>> SenCodes().level_of("E")
        2
        """
        for level, codes in enumerate((self.none, self.support, self.ehcp)):
            if code in codes:
                return level
        remedy = f"Allowed: {', '.join(self.codes)}. Add the code to the level it means."
        raise StudyError(BrokenRule("is a known SEN code", "sen", values=(code,), remedy=remedy))


def _term_column(term: str) -> str:
    match = _CATEGORY_TERM.match(term)
    return match.group(1) if match else term.strip()


def _unknown_remedy(key: str, known: Sequence[str]) -> str:
    hint = nearest_name(key, known)
    return f"{hint[0].upper() + hint[1:] + ' ' if hint else ''}Known roles: {', '.join(known)}."


def _is_name(value: object, many: bool) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    return many and isinstance(value, list | tuple) and all(isinstance(v, str) and v.strip() for v in value)


def _code_tuple(codes: object) -> tuple[str, ...]:
    if isinstance(codes, str):
        return (codes.strip(),)
    if not isinstance(codes, Iterable):
        raise StudyError("the codes of a SEN level are a list of text", 'Write for example support = ["K"].')
    return tuple(str(code).strip() for code in codes)


def _contradictions(roles: Roles) -> Iterable[Failure]:
    if not roles.prior:
        yield BrokenRule("names at least one column", "roles.prior", remedy="Value-added needs prior attainment.")
    if roles.prior_sem and len(roles.prior_sem) != len(roles.prior):
        counts = f"{len(roles.prior_sem)} for {len(roles.prior)} prior scores"
        remedy = f"Give one column per prior score, in the same order; there are {counts}."
        yield BrokenRule("matches prior one to one", "roles.prior_sem", remedy=remedy)
    measured = (roles.outcome, *roles.prior, *roles.context_columns)
    for name in sorted({name for name in measured if measured.count(name) > 1}):
        remedy = "Use the column once, as outcome, as prior or as context."
        yield BrokenRule("is used once among outcome, prior and context", name, measured.count(name), remedy=remedy)
    for name in roles.context_columns:
        if name in (roles.pupil, roles.school, roles.sen_status, roles.sen_status_entry):
            remedy = (
                "Pupil, school and SEN status have parts of their own in every estimate: take it out of the context."
            )
            yield BrokenRule("is no pupil id, school or SEN status", f"roles.context: {name}", remedy=remedy)
        elif name in (roles.la, roles.feeder, roles.feeder_la, roles.cohort) and name not in roles.categorical:
            yield BrokenRule("is declared as a category", f"roles.context: {name}", remedy=f"Write C({name}).")
    yield from _roll_contradictions(roles)
    others = (roles.school, roles.la, roles.feeder, roles.feeder_la, roles.cohort, roles.outcome, roles.sen_status)
    if roles.pupil in (*others, roles.sen_status_entry, *roles.prior, *roles.prior_sem):
        remedy = "Pupil ids find duplicates and have no other part."
        yield Failure("is the pupil id and has another role too", roles.pupil, remedy=remedy)
    for name in roles.columns:
        if name in DERIVED_COLUMNS:
            remedy = "The reader makes a column of this name; map yours to another name under [columns]."
            yield BrokenRule("does not use a reserved name", name, remedy=remedy)


def _roll_contradictions(roles: Roles) -> Iterable[Failure]:
    if roles.on_roll_at_end and not roles.terms_on_roll:
        remedy = "Name the column of the terms: rows of schools attended before are there for their terms only."
        yield BrokenRule("is given with on_roll_at_end", "roles.terms_on_roll", remedy=remedy)
    others = [
        *(getattr(roles, name) for name in ("pupil", "school", "la", "feeder", "cohort", "outcome", "sen_status")),
        *(roles.sen_status_entry, *roles.prior, *roles.prior_sem, *roles.context_columns),
    ]
    for name in ("terms_on_roll", "on_roll_at_end"):
        column = getattr(roles, name)
        twice = column is not None and (column in others or roles.terms_on_roll == roles.on_roll_at_end)
        if twice:
            remedy = "Time on a roll is partly the rated school's doing: it weights pupils and explains nothing."
            yield BrokenRule("has no other role", f"roles.{name}: {column}", remedy=remedy)
