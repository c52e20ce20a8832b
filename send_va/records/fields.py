"""Every field of a pupil record as a Pandera column: type, unit, bounds, source, and whether it may be published."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import pandas as pd
import pandera.pandas as pa

from send_va.records.roles import SenCodes

type OutcomeRange = tuple[float | None, float | None]
type Kind = Literal["number", "whole number", "flag", "code"]

# Left never above right, row by row.
ORDERED_FIELDS: Final = (("sessions_absent", "sessions_possible"),)
ROLE_FIELDS: Final = (
    "pupil",
    "school",
    "la",
    "region",
    "feeder",
    "trust",
    "feeder_trust",
    "feeder_la",
    "cohort",
    "outcome",
    "prior",
    "prior_sem",
    "sen_status",
    "sen_status_entry",
    "on_roll_at_end",
)
TERMS: Final = 15  # from the autumn of Year 7 to the summer of Year 11
REQUIRED_FIELDS: Final = ("pupil", "school", "outcome", "prior", "sen_status")

_NEVER = "never"
_AGGREGATED = "only aggregated, after disclosure control"


def _is_whole(series: pd.Series[float]) -> pd.Series[bool]:
    return series.eq(series.round())


def _is_finite(series: pd.Series[float]) -> pd.Series[bool]:
    return series.abs().lt(np.inf)


def define_field(
    kind: Kind,
    description: str,
    *,
    unit: str = "none",
    source: str,
    published: str = _AGGREGATED,
    allowed: str = "",
    checks: Sequence[pa.Check] = (),
    nullable: bool = True,
    level: Literal["error", "warning"] = "error",
) -> pa.Column:
    """Define one field, with what the data dictionary says of it.

    Parameters
    ----------
    kind : str
        ``"number"``, ``"whole number"``, ``"flag"`` (0 or 1) or ``"code"``; each brings its own checks.
    description, unit, source, published, allowed : str
        Text of the data dictionary.
    checks : sequence of pandera.Check
        Further checks; each needs a form in `send_va.records.rules.sql_form`.
    nullable : bool
        Whether values may be missing.
    level : str
        ``"error"`` when a breaking value stops a run, ``"warning"`` when it is only reported.

    Returns
    -------
    pandera.Column
        Optional until a role requires it.

    Examples
    --------
    >>> define_field("flag", "Ever excluded.", source="local record").metadata["kind"]
    'flag'
    """
    numeric = kind != "code"
    standard = [pa.Check(_is_finite, name="finite")] if numeric else []
    if kind == "whole number":
        standard.append(pa.Check(_is_whole, name="whole_number"))
    if kind == "flag":
        standard.append(pa.Check.isin([0, 1]))
    return pa.Column(
        float if numeric else str,
        checks=[*standard, *checks],
        nullable=nullable,
        coerce=True,
        required=False,
        description=description,
        metadata={
            "kind": kind,
            "unit": unit,
            "source": source,
            "published": published,
            "allowed": allowed,
            "level": level,
        },
    )


def _bounds(low: float | None, high: float | None) -> list[pa.Check]:
    if low is not None and high is not None:
        return [pa.Check.in_range(low, high)]
    if low is not None:
        return [pa.Check.ge(low)]
    return [] if high is None else [pa.Check.le(high)]


def _who_and_where() -> dict[str, pa.Column]:
    return {
        "pupil": define_field(
            "code",
            "Pupil id. Used to find duplicates; it never leaves the reader.",
            published=_NEVER,
            nullable=False,
            source="KS4_PupilMatchingRefAnonymous",
            allowed="any; one row a pupil (with `on_roll_at_end` one a pupil and school)",
        ),
        "school": define_field(
            "code",
            "School at the end of the key stage (URN).",
            published="yes, as the label of a published school",
            source="KS4_URN",
            allowed="any",
            nullable=False,
        ),
        "la": define_field(
            "code",
            "Local authority of the school, three-digit code.",
            source="KS4_LEA",
            allowed="any",
            published="yes, as the label of an area",
        ),
        "region": define_field(
            "code",
            "Region of the school, for counts at a national standard.",
            source="GOR of the school in Get Information About Schools",
            allowed="any",
            published="yes, as the label of an area",
        ),
        "trust": define_field(
            "code",
            "Trust of the school (UID of its academy trust); labels set within one trust are flagged.",
            source="Trusts (code) in Get Information About Schools",
            allowed="any",
        ),
        "feeder_trust": define_field(
            "code",
            "Trust of the feeder, coded as `trust`.",
            source="Trusts (code) in Get Information About Schools",
            allowed="any",
        ),
        "feeder": define_field(
            "code",
            "School (URN) on the roll of the last census before transfer.",
            source="URN_SPRyy of Year 6",
            allowed="any",
        ),
        "feeder_la": define_field(
            "code",
            "Local authority of the feeder, coded as `la`. Without it, the one most of its pupils go to school in.",
            source="LA (code) of the feeder in Get Information About Schools",
            allowed="any",
        ),
        "cohort": define_field(
            "code",
            "Academic year of the outcome. One year alone (2025) is the year it ends.",
            source="KS4_ACADYR",
            allowed='"2022/23", "2022-23", "202223", "2022/2023" or "2023"',
            published="yes",
        ),
    }


def _attainment(outcome_range: OutcomeRange) -> dict[str, pa.Column]:
    return {
        "outcome": define_field(
            "number",
            "Result at the end of the key stage, for example Attainment 8.",
            unit="outcome points, named in the study file",
            source="KS4_ATT8",
            checks=_bounds(*outcome_range),
            allowed="minimum and maximum of the study file; at least 0 unless given",
        ),
        "prior": define_field(
            "number",
            "Prior attainment (Key Stage 2). Several columns may have this role.",
            unit="points of the test",
            allowed="finite",
            source="KS2 scaled scores, e.g. KS2_READSCORE, KS2_MATSCORE, or their average",
        ),
        "prior_sem": define_field(
            "number",
            "Standard error of measurement of a prior score.",
            unit="points of the test",
            source="test handbook; not in the NPD",
            checks=[pa.Check.ge(0)],
            allowed="0 or more",
        ),
    }


def _sen(sen: SenCodes) -> dict[str, pa.Column]:
    codes = [pa.Check.isin(list(sen.codes))]
    return {
        "sen_status": define_field(
            "code",
            "SEN status now, at the end of the key stage. Set by the school that is rated.",
            source="SENprovision_SPRyy of Year 11",
            checks=codes,
            allowed="codes of the study file; N none, K SEN support, E EHC plan unless given",
        ),
        "sen_status_entry": define_field(
            "code",
            "SEN status at entry, the last census before transfer. Autumn Year 7 is refused: it is the new school's.",
            source="SENprovision_SPRyy or SENprovision_SUMyy of Year 6, never SENprovision_AUTyy of Year 7",
            checks=copy.deepcopy(codes),
            allowed="as sen_status",
        ),
        "primary_need": define_field(
            "code",
            "Primary type of need, as recorded.",
            source="PrimarySENtype_SPRyy",
            allowed="any; DfE codes are SPLD, MLD, SLD, PMLD, SEMH, SLCN, HI, VI, MSI, PD, ASD, OTH, NSA",
        ),
    }


def _background() -> dict[str, pa.Column]:
    return {
        "sex": define_field(
            "code",
            "Sex.",
            source="Sex_SPRyy (Gender_SPRyy before 2022)",
            allowed="F, M (others are reported)",
            checks=[pa.Check.isin(["F", "M"])],
            level="warning",
        ),
        "month_of_birth": define_field(
            "whole number",
            "Month of birth.",
            unit="calendar month",
            source="MonthOfBirth_SPRyy",
            checks=[pa.Check.in_range(1, 12)],
            allowed="1 to 12",
        ),
        "fsm6": define_field(
            "flag", "Free school meals at any census of the last six years.", source="EVERFSM_6_SPRyy", allowed="0, 1"
        ),
        "eal": define_field(
            "flag",
            "First language known or believed to be other than English.",
            source="LanguageGroupMajor_SPRyy recoded",
            allowed="0, 1",
        ),
        "ethnicity": define_field(
            "code", "Ethnic group, major or minor.", source="EthnicGroupMajor_SPRyy", allowed="any"
        ),
        "idaci": define_field(
            "number",
            "Income Deprivation Affecting Children Index of the home neighbourhood.",
            unit="share of children, 0 to 1",
            source="IDACIScore_SPRyy",
            checks=[pa.Check.in_range(0, 1)],
            allowed="0 to 1",
        ),
        "looked_after": define_field(
            "flag", "Looked after by the local authority.", source="CLA return, matched to the pupil", allowed="0, 1"
        ),
    }


def _school_life() -> dict[str, pa.Column]:
    return {
        "terms_on_roll": define_field(
            "whole number",
            "Terms on the school's roll, of the 15 from Year 7 to Year 11. With the role, they weight pupils in one "
            "sensitivity column, after FFT Education Datalab (Who's Left, 2017); no run needs it.",
            unit="terms",
            source="derived from EntryDate_SPRyy and termly census rolls",
            checks=[pa.Check.in_range(0, TERMS)],
            allowed="0 to 15; with the role 1 to 15",
        ),
        "on_roll_at_end": define_field(
            "flag",
            "1 in the row of the school at which the pupil is counted at the end of the key stage, 0 in rows of "
            "schools attended before, which serve the sensitivity column of `terms_on_roll` and nothing else.",
            source="derived: KS4_URN against termly census rolls",
            allowed="0, 1; as a role only",
            nullable=False,
        ),
        "sessions_absent": define_field(
            "whole number",
            "Half-day sessions missed in the year.",
            unit="sessions",
            source="absence return of the termly census, summed over terms",
            checks=[pa.Check.ge(0)],
            allowed="0 to sessions_possible",
        ),
        "sessions_possible": define_field(
            "whole number",
            "Half-day sessions the pupil could have attended in the year.",
            unit="sessions",
            source="SessionsPossible, summed over terms",
            checks=[pa.Check.ge(0)],
            allowed="0 or more",
        ),
        "suspensions": define_field(
            "whole number",
            "Suspensions (fixed-period exclusions) in the year.",
            unit="suspensions",
            source="exclusions table, rows counted by pupil",
            checks=[pa.Check.ge(0)],
            allowed="0 or more",
        ),
        "permanent_exclusions": define_field(
            "whole number",
            "Permanent exclusions in the year.",
            unit="exclusions",
            source="exclusions table, rows counted by pupil",
            checks=[pa.Check.ge(0)],
            allowed="0 or more",
        ),
        "exit_reason": define_field(
            "code",
            "Why the pupil left the roll before the end of Year 11, where known.",
            source="local record; not in the NPD",
            allowed="any",
        ),
        "destination": define_field(
            "code", "Destination after Key Stage 4.", source="KS4 destination measures, pupil level", allowed="any"
        ),
    }


def field_definitions(sen: SenCodes | None = None, outcome_range: OutcomeRange = (0.0, None)) -> dict[str, pa.Column]:
    """Every field of a pupil record by its canonical name.

    Parameters
    ----------
    sen : SenCodes, optional
        Codes of SEN status in the file.
    outcome_range : tuple of float or None
        Lowest and highest possible outcome, in outcome points; None where there is no bound.

    Returns
    -------
    dict of str to pandera.Column
        In dictionary order. ``.metadata`` of each holds kind, unit, source, published, allowed and level.

    Examples
    --------
    >>> field_definitions()["terms_on_roll"].metadata["allowed"]
    '0 to 15; with the role 1 to 15'
    """
    return {
        **_who_and_where(),
        **_attainment(outcome_range),
        **_sen(sen or SenCodes()),
        **_background(),
        **_school_life(),
    }
