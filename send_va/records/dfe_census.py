"""England's school census tables: pupils on roll, with SEN support and with a plan, school by school over the years."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from send_va.errors import Failure, InputError, NotSupportedError
from send_va.records.academic_years import academic_year_end
from send_va.records.dfe_england import links_file
from send_va.records.dfe_join import JoinReport, join_school_tables, read_school_links
from send_va.records.dfe_tables import SchoolTable, read_school_table

CENSUS_YEARS = ("2018-19", "2022-23")

MAINSTREAM_TYPES = {"State-funded primary": "primary", "State-funded secondary": "secondary"}
# 98.3 % is PSENELSE of the national row SPE of the census table of 2018/19.
OTHER_TYPES_LEFT_OUT = (
    "Only state-funded primary and secondary schools (middle and all-through schools are under one or the other) are "
    "compared. Left out are special schools, where 98.3 % of pupils have an EHC plan (2018/19) and no threshold "
    "decides; pupil referral units and alternative provision, attended for short stays, often beside another school; "
    "nursery schools and independent schools, published without the shares of pupils that the model needs."
)
_NATIONAL_ROWS = {"primary": "PRI", "secondary": "SEC"}  # ESTAB of the rows whose URN is NAT

_COLUMNS = {
    "LA": "la",
    "SCHOOLTYPE": "phase",
    "NOR": "roll",
    "TSENELK": "n_sen_support",
    "TSENELSE": "n_ehcp",
    "PNUMFSMEVER": "fsm6",
    "PNUMEAL": "eal",
    "PNORG": "girls",
}
_COUNTS = {"NOR": "roll", "TSENELK": "n_sen_support", "TSENELSE": "n_ehcp"}


def england_census(folder: str | Path, years: Sequence[str] = CENSUS_YEARS) -> SchoolTable:
    r"""Assemble the census counts of state-funded mainstream schools, one row a school and year.

    Parameters
    ----------
    folder : path
        Holds one folder per year with ``england_census.csv`` of Compare School and College Performance as downloaded
        and, for several years, ``links/links_edubasealldata*.csv`` of Get Information about Schools.
    years : sequence of {"2018-19", "2022-23"}
        Earliest first.

    Returns
    -------
    SchoolTable
        `school`: the URN of the school in the last year, for every year of the same school; `year`; `urn`, `laestab`:
        as published that year; `la` (code, of that year's boundaries); `phase` (primary or secondary); `roll`,
        `n_sen_support`, `n_ehcp` (pupils); `fsm6` (eligible for free school meals in the last six years), `eal`,
        `girls` (per cent of pupils). A school closed, or merged so that it has no single predecessor, is a school of
        its own in each year. ``table.joins`` states how the schools of the last year were found in each earlier one.

    Raises
    ------
    InputError
        A file is absent or is not the table it should be, the years do not ascend, or the schools of a phase do not add
        up to DfE's national row.
    NotSupportedError
        Another year.

    Notes
    -----
    Every state-funded school is there with its full count: the census tables suppress nothing. The year is that of
    the January census (2018-19: January 2019). SEN counts are of the whole roll, nursery classes and sixth form too.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "2022-23", "england_census.csv")
    ...     path.parent.mkdir()
    ...     _ = path.write_text(
    ...         "URN,LA,Estab,SCHOOLTYPE,NOR,PNORG,TSENELSE,TSENELK,PNUMEAL,PNUMFSMEVER\n"
    ...         "100001,201,2001,State-funded primary,210,49.5%,5,31,10.5%,20.0%\n"
    ...         "100005,201,7005,State-funded special school,90,30.0%,88,2,10.0%,50.0%\n"
    ...     )
    ...     table = england_census(folder, ["2022-23"])
    >>> table.data[["school", "phase", "roll", "n_sen_support", "girls"]].to_dict("records")
    [{'school': 100001, 'phase': 'primary', 'roll': 210.0, 'n_sen_support': 31.0, 'girls': 49.5}]
    """
    folder = Path(folder)
    _check_years(years)
    tables = [_one_year(folder, year) for year in years]
    last = tables[-1]
    links = read_school_links(links_file(folder)) if len(tables) > 1 else None
    named: list[SchoolTable] = []
    joins: list[JoinReport] = []
    for table in tables[:-1]:
        joined, report = join_school_tables(last, table, {"urn": "earlier"}, links=links)
        joins.append(report)
        named.append(_named(table, _same_school(joined.data)))
    named.append(_named(last, pd.Series(dtype="Int64")))
    return SchoolTable(
        data=pd.concat([table.data for table in named], ignore_index=True),
        reasons=pd.concat([table.reasons for table in named], ignore_index=True).fillna(""),
        totals=pd.concat([table.totals for table in tables], ignore_index=True),
        sources=tuple(f"{year}: {table.sources[0]}" for year, table in zip(years, tables, strict=True)),
        joins=tuple(joins),
    )


def _check_years(years: Sequence[str]) -> None:
    unknown = [year for year in years if year not in CENSUS_YEARS]
    if unknown or not years:
        raise NotSupportedError(
            f"census tables are read for {', '.join(CENSUS_YEARS)}, not for {', '.join(unknown) or 'no year'}; read "
            "another year with read_school_table and name its columns alike"
        )
    if list(years) != sorted(set(years), key=lambda year: academic_year_end(year) or 0):
        raise InputError(f"the years {', '.join(years)} do not ascend", "Give each year once, earliest first.")


def _one_year(folder: Path, year: str) -> SchoolTable:
    """Return the mainstream schools of one year under the names of this package."""
    table = read_school_table(folder / year / "england_census.csv", columns=list(_COLUMNS))
    mainstream = table.select(table.data["SCHOOLTYPE"].isin(MAINSTREAM_TYPES))
    data = mainstream.data.rename(columns=_COLUMNS).assign(year=year)
    data["phase"] = data["phase"].map(MAINSTREAM_TYPES)
    data["la"] = data["la"].astype("int64")
    reasons = mainstream.reasons.rename(columns=_COLUMNS)
    _check_totals(folder / year / "england_census.csv", data)
    return replace(mainstream, data=data, reasons=reasons.loc[:, (reasons != "").any()])


def _check_totals(path: Path, schools: pd.DataFrame) -> None:
    """Compare schools with the national rows: a file cut short, or England counted twice, would go unnoticed."""
    text = pd.read_csv(path, dtype=str, encoding="utf-8-sig", keep_default_na=False)
    national = text[text["URN"] == "NAT"].set_index(next(name for name in ("ESTAB", "Estab") if name in text))
    failures = []
    for phase, row in _NATIONAL_ROWS.items():
        if row not in national.index:
            continue
        found = schools.loc[schools["phase"] == phase, list(_COUNTS.values())].sum().astype("int64")
        for published, name in _COUNTS.items():
            expected = int(str(national.loc[row, published]))
            if expected != found[name]:
                rule = (
                    f"{phase} schools of {path.parent.name} add up to {found[name]:,}, the national row to {expected:,}"
                )
                failures.append(Failure(rule, published, remedy="Download the file again."))
    if failures:
        raise InputError(failures)


def _same_school(joined: pd.DataFrame) -> pd.Series[Any]:
    """Map a URN of the earlier year to the one of the last year; a URN two schools descend from is left out.

    A school that kept its URN is that school, whoever else split from it.
    """
    found = joined.dropna(subset=["earlier"]).assign(kept=lambda rows: rows["urn"] == rows["earlier"])
    kept = found.loc[found["kept"]]
    others = found[~found["kept"] & ~found["earlier"].isin(kept["urn"])]
    once = others[~others["earlier"].duplicated(keep=False)]
    pairs = pd.concat([kept, once])
    return pd.Series(pairs["urn"].to_numpy(), index=pairs["earlier"].to_numpy(), dtype="Int64")


def _named(table: SchoolTable, later: pd.Series[Any]) -> SchoolTable:
    """Put the school's lasting number first."""
    school = table.data["urn"].map(later).fillna(table.data["urn"]).astype("Int64")
    first = ["school", "year", "urn", "laestab"]
    data = table.data.assign(school=school)
    return replace(table, data=data[[*first, *(name for name in data.columns if name not in first)]])
