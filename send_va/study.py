"""Study: what study.toml says, as typed and validated objects."""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from send_va.errors import Failure, StudyError
from send_va.records.roles import Roles, SenCodes
from send_va.study_audit import AuditSection
from send_va.study_bayes import BayesSection
from send_va.study_missing import MissingPriorSection
from send_va.study_multiverse import MultiverseSection
from send_va.study_ranking import PublicationSection, RankingSection
from send_va.study_years import YearsSection

ESTIMATORS = ("labelled", "standardised", "entry", "label_free")
ENGINES = ("reml", "bayes")
CONTEXTS = ("prior", "cva", "composition")


@dataclass(frozen=True)
class StudySection:
    """``[study]``: what the study is.

    Attributes
    ----------
    title : str
    synthetic : bool
        True for simulated records; stamped on everything made from them.
    seed : int
        Seed of every random number of a run.
    """

    title: str = "Untitled study"
    synthetic: bool = False
    seed: int = 1


@dataclass(frozen=True)
class DataSection:
    """``[data]``: where the records are.

    Attributes
    ----------
    file : str
        Parquet, CSV or DuckDB file, relative to the study file.
    table : str or None
        Table of a DuckDB file.
    """

    file: str = ""
    table: str | None = None


@dataclass(frozen=True)
class OutcomeSection:
    """``[outcome]``: its possible range and its unit."""

    minimum: float | None = 0.0
    maximum: float | None = None
    unit: str = "outcome points"


@dataclass(frozen=True)
class PriorSection:
    """``[prior]``: how prior attainment enters.

    Attributes
    ----------
    knots : int
        Interior knots of the cubic spline of each score; 0 for a straight line.
    baseline : str
        What the prior scores are. ``KS2`` is refused for Year 11 cohorts of 2024/25 and 2025/26, whose tests were
        cancelled.
    correct_error : bool
        Take out the known error of the scores (``prior_sem`` under ``[roles]``); needs ``knots = 0``, a line.
    """

    knots: int = 5
    baseline: str = "KS2"
    correct_error: bool = False


@dataclass(frozen=True)
class ValueAddedSection:
    """``[value_added]``: what is estimated.

    Attributes
    ----------
    estimators : tuple of str or None
        By default all that the records allow: `entry` needs the SEN status before transfer.
    contexts : tuple of str
    draws : int
        Draws of the school effects.
    coverage : float
        Share of draws inside published intervals.
    residual_by_need : bool
        One residual variance for each SEN status.
    prior_slope : bool
        Schools differ in their slope on prior attainment.
    composition : tuple of str or None
        Columns whose school means enter the ``composition`` context.
    """

    estimators: tuple[str, ...] | None = None
    contexts: tuple[str, ...] = CONTEXTS
    draws: int = 1000
    coverage: float = 0.95
    residual_by_need: bool = True
    prior_slope: bool = True
    composition: tuple[str, ...] | None = None


@dataclass(frozen=True)
class IdentificationSection:
    """``[identification]``: how need is told from labels, and what labels cannot tell.

    Attributes
    ----------
    draws : int
        Joint draws of the identification parameters that intervals carry.
    plug_in : bool
        Take these parameters as known: quick, intervals too short, and marked so everywhere.
    area_sorting_share, label_reliability, sorting_share : tuple of float
        Values of each assumption that the result is shown for: the share of authorities' leniency that is need of their
        population, the share of judged need that is need and not error of judgement, and (without labels before
        transfer) the share of a school's labelling that is need of its intake.
    disagreement : float
        Pupil SDs beyond which two estimators are said to disagree about a school.
    """

    draws: int = 200
    plug_in: bool = False
    area_sorting_share: tuple[float, ...] = (0.0, 0.5, 1.0)
    label_reliability: tuple[float, ...] = (1.0, 0.9, 0.8)
    sorting_share: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    disagreement: float = 0.1


@dataclass(frozen=True)
class Study:
    """A validated study file.

    Attributes
    ----------
    roles : Roles
        Which column plays which part.
    sen : SenCodes
        Which codes of SEN status mean which level of need.
    columns : mapping
        Canonical name to name in the file, where they differ.
    folder : Path
        Folder of the study file; never written out.
    """

    roles: Roles
    study: StudySection = field(default_factory=StudySection)
    data: DataSection = field(default_factory=DataSection)
    columns: Mapping[str, str] = field(default_factory=dict)
    sen: SenCodes = field(default_factory=SenCodes)
    outcome: OutcomeSection = field(default_factory=OutcomeSection)
    prior: PriorSection = field(default_factory=PriorSection)
    value_added: ValueAddedSection = field(default_factory=ValueAddedSection)
    identification: IdentificationSection = field(default_factory=IdentificationSection)
    years: YearsSection = field(default_factory=YearsSection)
    bayes: BayesSection = field(default_factory=BayesSection)
    ranking: RankingSection = field(default_factory=RankingSection)
    publication: PublicationSection = field(default_factory=PublicationSection)
    audit: AuditSection = field(default_factory=AuditSection)
    multiverse: MultiverseSection = field(default_factory=MultiverseSection)
    missing_prior: MissingPriorSection = field(default_factory=MissingPriorSection)
    folder: Path = field(default=Path(), compare=False)

    def settings(self) -> dict[str, Any]:
        """Everything that decides the result, as plain data without paths."""
        plain = asdict(self)
        plain.pop("folder")
        plain["data"]["file"] = Path(self.data.file).name
        return plain

    def fingerprint(self, *more: object) -> str:
        """Hash of the settings and of `more`, to recognise a run that can be resumed."""
        text = json.dumps([self.settings(), *more], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


def validated(study: Study) -> Study:
    """Check the ranges of a study made or changed in Python.

    Raises
    ------
    StudyError
        Listing every value out of range.
    """
    failures = _out_of_range(vars(study))
    if failures:
        raise StudyError(failures)
    return study


_TYPED = {
    "study": StudySection,
    "data": DataSection,
    "outcome": OutcomeSection,
    "prior": PriorSection,
    "value_added": ValueAddedSection,
    "identification": IdentificationSection,
    "years": YearsSection,
    "bayes": BayesSection,
    "ranking": RankingSection,
    "publication": PublicationSection,
    "audit": AuditSection,
    "multiverse": MultiverseSection,
    "missing_prior": MissingPriorSection,
}
_CHECK_THEMSELVES = ("bayes", "ranking", "publication", "multiverse", "missing_prior")
_FREE = ("roles", "columns", "sen")


def load_study(path: str | Path) -> Study:
    """Read and validate a study file.

    Parameters
    ----------
    path : str or Path
        A TOML file with the tables ``[data]`` and ``[roles]`` at least.

    Raises
    ------
    StudyError
        The file is absent or not TOML, a key is unknown (the nearest known one is suggested) or a value has the wrong
        type or is out of range. All problems are listed.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StudyError(
            f"there is no study file {path.name}", "send-va simulate DIR writes one to start from."
        ) from error
    except OSError as error:
        raise StudyError(f"{path.name or path} cannot be read as a file", "Name the study file itself.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StudyError(
            f"{path.name} is not a TOML file: {error}", "See data_dictionary.md for an example."
        ) from error
    return study_from(content, path.parent)


def study_from(content: Mapping[str, Any], folder: Path) -> Study:
    """Validate the content of a study file; `folder` is where relative file names start."""
    failures = [_unknown(key, [*_TYPED, *_FREE], "table") for key in content if key not in _TYPED and key not in _FREE]
    sections: dict[str, Any] = {}
    for name, kind in _TYPED.items():
        values, bad = _section(name, kind, content.get(name, {}))
        failures += bad
        sections[name] = values
    untidy = [name for name in _FREE if not isinstance(content.get(name, {}), dict)]
    if untidy:
        raise StudyError(
            Failure("must be a table", column=name, remedy=f"Write [{name}] and its keys below it.") for name in untidy
        )
    failures += _out_of_range(sections)
    if not sections["data"].file:
        failures.append(Failure("file is missing", column="data.file", remedy='Write file = "pupils.parquet".'))
    failures += [
        Failure("must be text, the name of a column of the file", column=f"columns.{key}", values=(repr(value),))
        for key, value in content.get("columns", {}).items()
        if not isinstance(value, str)
    ]
    free: dict[str, Any] = {}
    for name, read in (("roles", Roles.from_mapping), ("sen", _sen_codes)):
        try:
            free[name] = read(content.get(name, {}))
        except StudyError as error:
            failures += error.failures
    if failures:
        raise StudyError(failures)
    return Study(**sections, **free, columns=dict(content.get("columns", {})), folder=folder)


def _sen_codes(given: Mapping[str, Any]) -> SenCodes:
    known = ("none", "support", "ehcp")
    unknown = [_unknown(key, list(known), "key in [sen]") for key in given if key not in known]
    if unknown:
        raise StudyError(unknown)
    return SenCodes(**given)


def _unknown(key: str, known: list[str], what: str) -> Failure:
    near = difflib.get_close_matches(key, [name.rsplit(".", 1)[-1] for name in known], 1, cutoff=0.4)
    hint = f"Did you mean {near[0]}? " if near else ""
    return Failure(f"unknown {what}", column=key, remedy=f"{hint}Known: {', '.join(known)}.")


def _section(name: str, kind: type[Any], given: object) -> tuple[Any, list[Failure]]:
    if not isinstance(given, dict):
        return kind(), [Failure("must be a table", column=name, remedy=f"Write [{name}] and its keys below it.")]
    known = {item.name: item for item in fields(kind)}
    failures, values = [], {}
    for key, value in given.items():
        if key not in known:
            failures.append(_unknown(key, list(known), f"key in [{name}]"))
            continue
        fault = _type_fault(str(known[key].type), value)
        if fault:
            failures.append(Failure(fault, column=f"{name}.{key}", values=(repr(value),)))
            continue
        values[key] = tuple(value) if isinstance(value, list) else value
    return kind(**values), failures


def _type_fault(annotation: str, value: object) -> str:
    """What is wrong with the type of a value, in words; empty when nothing is."""
    if annotation.startswith("tuple[str"):
        ok = isinstance(value, list) and all(isinstance(item, str) for item in value)
        return "" if ok else "must be a list of text"
    if annotation.startswith("tuple[int"):
        ok = isinstance(value, list) and all(isinstance(v, int) and not isinstance(v, bool) for v in value)
        return "" if ok else "must be a list of whole numbers"
    if annotation.startswith("tuple[float"):
        ok = isinstance(value, list) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
        return "" if ok else "must be a list of numbers"
    if annotation.startswith("bool"):
        return "" if isinstance(value, bool) else "must be true or false"
    if annotation.startswith("int"):
        return "" if isinstance(value, int) and not isinstance(value, bool) else "must be a whole number"
    if annotation.startswith("float"):
        return "" if isinstance(value, int | float) and not isinstance(value, bool) else "must be a number"
    return "" if isinstance(value, str) else "must be text"


def _out_of_range(sections: Mapping[str, Any]) -> list[Failure]:
    va, outcome, prior = (sections[name] for name in ("value_added", "outcome", "prior"))
    failures = []
    for key, given, allowed in (("estimators", va.estimators, ESTIMATORS), ("contexts", va.contexts, CONTEXTS)):
        for item in given or ():
            if item not in allowed:
                failures.append(_unknown(item, list(allowed), f"value of value_added.{key}"))
        if given is not None and not given:
            failures.append(
                Failure("names nothing", column=f"value_added.{key}", remedy=f"Choose from {', '.join(allowed)}.")
            )
    checks = (
        (sections["study"].seed >= 0, "study.seed", "must be 0 or more", sections["study"].seed),
        (
            isinstance(va.draws, int) and va.draws >= 100,
            "value_added.draws",
            "must be a whole number, 100 or more",
            va.draws,
        ),
        (0.5 <= va.coverage < 1.0, "value_added.coverage", "must be at least 0.5 and below 1", va.coverage),
        (bool(prior.baseline.strip()), "prior.baseline", "must name what the prior scores are", prior.baseline),
        (prior.knots >= 0, "prior.knots", "must be 0 or more", prior.knots),
        (
            prior.knots == 0 or not prior.correct_error,
            "prior.knots",
            "must be 0 where correct_error is true: a spline of a score with error cannot be corrected",
            prior.knots,
        ),
        (
            outcome.minimum is None or outcome.maximum is None or outcome.minimum < outcome.maximum,
            "outcome.minimum",
            "must be below outcome.maximum",
            outcome.minimum,
        ),
    )
    failures += [Failure(rule, column=key, values=(repr(value),)) for good, key, rule, value in checks if not good]
    years: YearsSection = sections["years"]
    audit: AuditSection = sections["audit"]
    failures += _identification_out_of_range(sections["identification"])
    failures += years.failures(ESTIMATORS) + audit.failures(CONTEXTS)
    return failures + [failure for name in _CHECK_THEMSELVES for failure in sections[name].failures()]


def _identification_out_of_range(given: IdentificationSection) -> list[Failure]:
    failures = []
    if given.draws < 2:
        rule, remedy = "must be 2 or more", "For none, set plug_in = true."
        failures.append(Failure(rule, column="identification.draws", values=(repr(given.draws),), remedy=remedy))
    if not given.disagreement > 0:
        failures.append(
            Failure("must be above 0", column="identification.disagreement", values=(repr(given.disagreement),))
        )
    for name, least in (("area_sorting_share", 0.0), ("label_reliability", 0.3), ("sorting_share", 0.0)):
        if not getattr(given, name):
            remedy = "Name the values to show results for, or leave the key out for the usual ones."
            failures.append(Failure("names no value", column=f"identification.{name}", remedy=remedy))
        bad = tuple(repr(value) for value in getattr(given, name) if not least <= value <= 1.0)
        if bad:
            failures.append(Failure(f"must lie between {least} and 1", column=f"identification.{name}", values=bad))
    return failures
