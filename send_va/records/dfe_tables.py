"""Read DfE's published school tables as downloaded, keeping why each missing value is missing."""

from __future__ import annotations

import difflib
import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from send_va.errors import BrokenRule, Failure, InputError
from send_va.records.dfe_symbols import symbol_map

if TYPE_CHECKING:
    from send_va.records.dfe_join import JoinReport

# Names under which DfE (and FFT's collation of its tables) publish the keys of a school.
URN_NAMES = ("URN", "urn", "school_urn")
LA_NAMES = ("LEA", "LA", "la_code", "old_la_code")
ESTAB_NAMES = ("ESTAB", "Estab", "estab")
LAESTAB_NAMES = ("LAESTAB", "laestab", "school_laestab", "DfE number")
_KEY_NAMES = {*URN_NAMES, *LA_NAMES, *ESTAB_NAMES, *LAESTAB_NAMES, "geographic_level"}

# Share of a column's unsymbolic values that must be numbers for the rest to be called errors and not text.
_MOSTLY_NUMBERS = 0.5


@dataclass(frozen=True)
class SchoolTable:
    """One row per school.

    Attributes
    ----------
    data : DataFrame
        `urn` and `laestab` (nullable integers) first, then the columns of the file under their published names.
        Numbers are float64; percentages stay percentages (``62.5``, not ``0.625``).
    reasons : DataFrame
        Same rows, one column for each column of `data` that has missing values: why a value is missing
        (``"suppressed"``, ``"no entries"``, ...), empty where it is present. ``"no matching school"`` is from a join.
    totals : DataFrame
        Rows that are not a school (national, regional and local authority rows), as text under published names.
    sources : tuple of str
        File names, with the encoding each was read in.
    joins : tuple of JoinReport
        How tables were joined, in order.
    """

    data: pd.DataFrame
    reasons: pd.DataFrame
    totals: pd.DataFrame
    sources: tuple[str, ...]
    joins: tuple[JoinReport, ...] = ()

    def missing(self) -> pd.DataFrame:
        """Count missing values by column and reason.

        Returns
        -------
        DataFrame
            Index column, one column per reason. A column whose ``suppressed`` count is high is not missing at random:
            small schools are missing.
        """
        missing = {name: column[column != ""] for name, column in self.reasons.items() if (column != "").any()}
        return pd.DataFrame({name: column.value_counts() for name, column in missing.items()}).T.fillna(0).astype(int)

    def select(self, rows: pd.Series[bool]) -> SchoolTable:
        """Return the table with the rows where `rows` is true."""
        kept = rows.to_numpy(dtype=bool, na_value=False)
        return SchoolTable(
            data=self.data[kept].reset_index(drop=True),
            reasons=self.reasons[kept].reset_index(drop=True),
            totals=self.totals,
            sources=self.sources,
            joins=self.joins,
        )


def read_school_table(
    path: str | Path,
    release: str = "performance_tables",
    *,
    symbols: Mapping[str, str] | None = None,
    columns: Sequence[str] | None = None,
    unique: bool = True,
) -> SchoolTable:
    r"""Read one published school table.

    Parameters
    ----------
    path : path
        CSV, plain or gzipped, as downloaded: UTF-8 with or without byte order mark, or Latin-1 (tried in that order).
    release : str, default ``"performance_tables"``
        Whose symbols it uses; see `symbol_map`.
    symbols : mapping, optional
        Symbols that this file adds or uses otherwise.
    columns : sequence of str, optional
        Columns to keep beside the keys; all by default.
    unique : bool, default True
        Refuse a school that has several rows. Switch off for tables of several years.

    Returns
    -------
    SchoolTable
        National and local authority rows are apart in `totals`: left in, they count England twice.

    Raises
    ------
    InputError
        No such file, an empty file, no URN or LAESTAB column, a school twice, or a number column with a symbol that the
        release does not define (the message names column, rows and values).

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "ks4.csv")
    ...     _ = path.write_text("URN,LEA,ESTAB,P8MEA,PTEBACC\n100001,201,6005,SUPP,51.5%\nNAT,,,-0.03,40%\n")
    ...     table = read_school_table(path, columns=["P8MEA", "PTEBACC"])
    >>> table.data.to_dict("records")
    [{'urn': 100001, 'laestab': 2016005, 'P8MEA': nan, 'PTEBACC': 51.5}]
    >>> table.missing().to_dict("index")
    {'P8MEA': {'suppressed': 1}}
    """
    path = Path(path)
    text, encoding = _read_text(path, columns)
    keys = _keys(text, path.name)
    schools = text[keys.school]
    data_keys = pd.DataFrame({"urn": keys.urn, "laestab": keys.laestab})[keys.school]
    if unique:
        _refuse_twice(data_keys)
    kept = [name for name in text.columns if name not in keys.names] if columns is None else list(columns)
    data, reasons = _converted(schools[kept], symbol_map(release, symbols))
    return SchoolTable(
        data=pd.concat([data_keys, data], axis=1).reset_index(drop=True),
        reasons=reasons.reset_index(drop=True),
        totals=text[~keys.school].reset_index(drop=True),
        sources=(f"{path.name} ({encoding})",),
    )


def _read_text(path: Path, columns: Sequence[str] | None) -> tuple[pd.DataFrame, str]:
    if not path.is_file():
        raise InputError(f"there is no file {path.name} in {path.parent.name}", "Download it and check the name.")
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if not raw.strip():
        raise InputError(f"{path.name} is empty", "Download it again.")
    try:
        content, encoding = raw.decode("utf-8-sig"), "UTF-8"
    except UnicodeDecodeError:
        content, encoding = raw.decode("latin-1"), "Latin-1"
    try:
        header = pd.read_csv(StringIO(content), nrows=0).columns.to_list()
        _refuse_absent(columns or [], header, path.name)
        wanted = header if columns is None else [name for name in header if name in {*columns, *_KEY_NAMES}]
        table = pd.read_csv(StringIO(content), dtype=str, keep_default_na=False, usecols=wanted)
    except pd.errors.ParserError as error:
        raise InputError(f"{path.name} is not a CSV table: {error}", "Download it again.") from error
    return table.apply(lambda column: column.str.strip()), encoding


@dataclass(frozen=True)
class _Keys:
    urn: pd.Series[Any]
    laestab: pd.Series[Any]
    school: pd.Series[bool]
    names: tuple[str, ...]


def _keys(text: pd.DataFrame, file: str) -> _Keys:
    """Find the columns that identify a school; LAESTAB is built from LA and establishment number where it is absent."""
    urn_name, laestab_name = _first(URN_NAMES, text), _first(LAESTAB_NAMES, text)
    la_name, estab_name = _first(LA_NAMES, text), _first(ESTAB_NAMES, text)
    nowhere = pd.Series("", index=text.index)
    if laestab_name is not None:
        laestab = text[laestab_name].str.replace("/", "")
    elif la_name is not None and estab_name is not None:
        laestab = text[la_name] + text[estab_name].str.zfill(4)
    else:
        laestab = nowhere
    if urn_name is None and laestab is nowhere:
        raise InputError(
            f"{file} has no column that identifies a school",
            f"Expected one of {', '.join(URN_NAMES + LAESTAB_NAMES)}, or LA and ESTAB.",
        )
    urn = nowhere if urn_name is None else text[urn_name]
    school = (laestab if urn_name is None else urn).str.fullmatch(r"\d+")
    if "geographic_level" in text:
        school &= text["geographic_level"] == "School"
    return _Keys(
        urn=pd.to_numeric(urn.where(urn.str.fullmatch(r"\d{5,6}")), errors="coerce").astype("Int64"),
        laestab=pd.to_numeric(laestab.where(laestab.str.fullmatch(r"\d{7}")), errors="coerce").astype("Int64"),
        school=school,
        names=tuple(name for name in (urn_name, laestab_name) if name is not None),
    )


def _first(names: Sequence[str], text: pd.DataFrame) -> str | None:
    return next((name for name in names if name in text.columns), None)


def _refuse_twice(keys: pd.DataFrame) -> None:
    name = "urn" if keys["urn"].notna().any() else "laestab"
    twice = keys[name].notna() & keys[name].duplicated(keep=False)
    if twice.any():
        raise InputError(
            BrokenRule(
                rule="a school has one row",
                column=name,
                count=int(twice.sum()),
                rows=tuple(int(row) + 1 for row in np.flatnonzero(twice)[:10]),
                values=tuple(str(value) for value in keys.loc[twice, name].iloc[:10]),
                remedy="Keep one row per school, or read with `unique=False` where the table has several years.",
            )
        )


def _refuse_absent(names: Sequence[str], header: Sequence[str], file: str) -> None:
    absent = [name for name in names if name not in header]
    if absent:
        nearest = difflib.get_close_matches(absent[0], header, n=1)
        remedy = f"Did you mean {nearest[0]!r}?" if nearest else "Check the name in the file's first line."
        raise InputError(Failure(f"is not a column of {file}", absent[0], remedy=remedy))


def _converted(text: pd.DataFrame, symbols: Mapping[str, str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    columns: dict[str, pd.Series[Any]] = {}
    reasons: dict[str, pd.Series[Any]] = {}
    for name in text.columns:
        symbolic = text[name].isin(list(symbols))
        plain = text[name].mask(symbolic)
        numbers = pd.to_numeric(plain.str.removesuffix("%").str.replace(",", ""), errors="coerce")
        wrong = numbers.isna() & ~symbolic
        if wrong.sum() > (1 - _MOSTLY_NUMBERS) * (~symbolic).sum():
            columns[name], symbolic = text[name].mask(text[name] == ""), text[name] == ""
        elif wrong.any():
            raise InputError(_unknown_symbol(text[name], wrong))
        else:
            columns[name] = numbers.astype("float64")
        if symbolic.any():
            reasons[name] = text[name].where(symbolic).map(symbols).fillna("")
    return pd.DataFrame(columns, index=text.index), pd.DataFrame(reasons, index=text.index)


def _unknown_symbol(column: pd.Series[Any], wrong: pd.Series[bool]) -> Failure:
    rows = column.index[wrong]
    return Failure(
        rule="is a column of numbers and holds text that the release's symbols do not explain",
        column=str(column.name),
        count=len(rows),
        rows=tuple(int(row) + 1 for row in rows[:10]),
        values=tuple(dict.fromkeys(column[wrong].iloc[:1000]))[:10],
        remedy="Look the symbol up in the release's guidance and pass it, e.g. symbols={'low': 'rounds to zero'}.",
    )
