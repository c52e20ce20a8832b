"""One table of England's mainstream secondary schools: Progress 8 with its standard error, SEN shares and context."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from send_va.errors import InputError, NotSupportedError
from send_va.records.dfe_join import join_school_tables, read_school_links
from send_va.records.dfe_tables import SchoolTable, read_school_table

# DfE, Secondary accountability measures: the interval is P8 +- 1.96 * (pupil SD of the nation) / sqrt(pupils).
INTERVAL_Z = 1.96
MAINSTREAM = 1  # RECTYPE of the performance tables: 1 mainstream, 2 special, 4 local authority, 5 and 7 national
_YEARS = ("2018-19",)

_RESULTS = {
    "SCHNAME": "name",
    "LEA": "la",
    "NFTYPE": "school_type",
    "TPUP": "n_cohort",
    "P8PUP": "n_pupils",
    "P8MEA": "p8",
    "P8CILOW": "p8_lower",
    "P8CIUPP": "p8_upper",
    "ATT8SCR": "attainment8",
}
_CENSUS = {
    "NOR": "roll",
    "TSENELK": "n_sen_support",
    "TSENELSE": "n_ehcp",
    "PSENELK": "sen_support",
    "PSENELSE": "ehcp",
    "PNUMFSMEVER": "fsm6",
    "PNUMEAL": "eal",
}
_ABSENCE = {"PERCTOT": "absence"}
_COLLATED = {
    "Prior (KS2) attainment, 2019": "ks2",
    "Fixed period exclusion rate, 2019": "suspensions",
    "Permanent exclusion rate, 2019": "permanent_exclusions",
}

# The file splits the nine regions: 'North East A', 'London Central', 'South and West Yorkshire'.
_REGION_PARTS = r"(?<=London) (Central|East|North|South|West)$| [A-D]$"
_YORKSHIRE = {
    "South and West Yorkshire": "Yorkshire and The Humber",
    "North Yorkshire and The Humber": "Yorkshire and The Humber",
}


def england_schools(folder: str | Path, year: str = "2018-19") -> SchoolTable:
    """Assemble mainstream schools with a published Progress 8 interval.

    Parameters
    ----------
    folder : path
        Holds one folder per year with the tables as downloaded: ``england_ks4provisional.csv``,
        ``england_census.csv``, ``england_abs.csv`` and ``la_and_region_codes_meta.csv`` from Compare School and College
        Performance, ``fft_ks4_schools.csv`` (FFT Education Datalab's collation of DfE tables); and
        ``links/links_edubasealldata*.csv`` from Get Information about Schools.
    year : str
        ``"2018-19"``, the one year for which the tables hold the interval, prior attainment and exclusions.

    Returns
    -------
    SchoolTable
        One row per school: `urn`, `laestab`, `name`, `la` (code), `la_name`, `region`, `school_type`; `n_cohort`,
        `n_pupils` (in Progress 8); `p8`, `p8_lower`, `p8_upper`, `p8_se`, `attainment8`; of the whole roll: `roll`,
        `n_sen_support`, `n_ehcp` and in per cent `sen_support`, `ehcp`, `fsm6`, `eal`, `absence` (of sessions); `ks2`
        (average points of the cohort); `suspensions`, `permanent_exclusions` (per 100 pupils). ``table.joins`` states
        how many schools each table found, by URN, LAESTAB and links.

    Raises
    ------
    InputError
        A file is absent or is not the table it should be.
    NotSupportedError
        Another year.

    Notes
    -----
    SEN shares are of the whole roll and Progress 8 is of the Year 11 cohort, so what relates the two is ecological: it
    says nothing about the pupils with SEN themselves. DfE's intervals use one pupil SD (about 1.28) for every school
    and group; where pupils differ more than that, as SEN pupils do, the standard error is too small.
    """
    folder = Path(folder)
    if year not in _YEARS:
        raise NotSupportedError(
            f"no Progress 8 intervals with prior attainment and exclusions are published together for {year}; "
            f"use {', '.join(_YEARS)}, or join tables with join_school_tables"
        )
    tables = folder / year
    results = read_school_table(tables / "england_ks4provisional.csv", columns=["RECTYPE", *_RESULTS])
    data = results.data
    results = results.select((data["RECTYPE"] == MAINSTREAM) & data["P8CILOW"].notna() & data["P8CIUPP"].notna())
    schools = replace(
        results,
        data=results.data.drop(columns="RECTYPE").rename(columns=_RESULTS),
        reasons=results.reasons.rename(columns=_RESULTS),
    )
    links = read_school_links(links_file(folder))
    for file, release, columns in (
        ("england_census.csv", "performance_tables", _CENSUS),
        ("england_abs.csv", "performance_tables", _ABSENCE),
        ("fft_ks4_schools.csv", "fft_collated", _COLLATED),
    ):
        right = read_school_table(tables / file, release, columns=list(columns))
        schools, _ = join_school_tables(schools, right, columns, links=links)
    regions = _regions(tables / "la_and_region_codes_meta.csv")
    data = schools.data.assign(
        la=schools.data["la"].astype("int64"),
        p8_se=(schools.data["p8_upper"] - schools.data["p8_lower"]) / (2 * INTERVAL_Z),
    )
    return replace(schools, data=data.merge(regions, on="la", how="left", validate="many_to_one"))


def links_file(folder: Path) -> Path:
    """Find the newest table of linked establishments in a folder and the folders in it.

    Returns
    -------
    Path
        The last by name, which holds the date.

    Raises
    ------
    InputError
        There is none.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     for day in ("20240101", "20250422"):
    ...         Path(folder, f"links_edubasealldata{day}.csv").touch()
    ...     print(links_file(Path(folder)).name)
    links_edubasealldata20250422.csv
    """
    found = sorted(folder.glob("**/links_edubasealldata*.csv"))
    if not found:
        raise InputError(
            f"there is no links_edubasealldata*.csv in {folder.name}",
            "Download 'Establishment links' from Get Information about Schools.",
        )
    return found[-1]


def _regions(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"there is no file {path.name}", "Download the LA and region codes of the performance tables.")
    text = pd.read_csv(path, dtype=str, encoding="utf-8-sig")
    return pd.DataFrame(
        {
            "la": text["LEA"].astype("int64"),
            "la_name": text["LA Name"],
            "region": text["REGION NAME"].str.replace(_REGION_PARTS, "", regex=True).replace(_YORKSHIRE),
        }
    )
