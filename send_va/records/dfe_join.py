"""Join published school tables: by URN, then LAESTAB, then predecessor and successor links, counting each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from send_va.errors import BrokenRule, Failure, InputError
from send_va.records.dfe_tables import SchoolTable

NO_SCHOOL = "no matching school"

# Get Information about Schools (DfE), establishment links: types that mean the same school, or part of it, before or
# after a change. Sixth form centres, expansions and closures are other relations.
_CONTINUATION = r"Predecessor|Successor|Result of Amalgamation|^Merged"
_MOST_LINKS = 4


@dataclass(frozen=True)
class JoinReport:
    """How the rows of one table found their school in another.

    Attributes
    ----------
    left, right : str
        The two files.
    rows : int
        Rows of the left table.
    by_urn, by_laestab, by_link : int
        Rows joined at each step, each step for what the one before left over.
    ambiguous : int
        Rows with several equally near linked schools; not joined.
    shared : int
        Schools of the right table given to more than one row (after a merger, say).
    unmatched : tuple of int
        URNs of the rows without a school.
    """

    left: str
    right: str
    rows: int
    by_urn: int
    by_laestab: int
    by_link: int
    ambiguous: int
    shared: int
    unmatched: tuple[int, ...]

    @property
    def rates(self) -> tuple[float, float, float]:
        """Share of rows joined after URN, after LAESTAB and after links; below .95 look at who is missing."""
        reached = np.cumsum([self.by_urn, self.by_laestab, self.by_link])
        after = reached / self.rows if self.rows else np.zeros(3)
        return float(after[0]), float(after[1]), float(after[2])

    def __str__(self) -> str:
        urn, laestab, link = (f"{rate:.1%}" for rate in self.rates)
        return (
            f"{self.left} to {self.right}: {self.rows:,} rows; joined by URN {urn}, with LAESTAB {laestab}, "
            f"with predecessor and successor links {link}; {len(self.unmatched):,} without a school"
            + (f", {self.ambiguous} of them with several candidates" if self.ambiguous else "")
            + (f"; {self.shared} schools joined to more than one row" if self.shared else "")
        )


def read_school_links(path: str | Path) -> pd.DataFrame:
    """Read Get Information about Schools' table of linked establishments.

    Parameters
    ----------
    path : path
        ``links_edubasealldata<date>.csv`` as downloaded (Latin-1).

    Returns
    -------
    DataFrame
        `urn`, `linked`: pairs of URNs of the same school before and after a change.

    Raises
    ------
    InputError
        No such file, or a column is absent.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path.name}", "Download the links file of Get Information about Schools.")
    text = pd.read_csv(path, dtype=str, encoding="latin-1", keep_default_na=False)
    for name in ("URN", "LinkURN", "LinkType"):
        if name not in text:
            raise InputError(Failure(f"is not a column of {path.name}", name, remedy="Download the links file again."))
    kept = text[text["LinkType"].str.contains(_CONTINUATION)]
    return pd.DataFrame({"urn": kept["URN"].astype("int64"), "linked": kept["LinkURN"].astype("int64")})


def join_school_tables(
    left: SchoolTable,
    right: SchoolTable,
    columns: Sequence[str] | Mapping[str, str] | None = None,
    *,
    links: pd.DataFrame | None = None,
) -> tuple[SchoolTable, JoinReport]:
    """Add the columns of one school table to another, many to one.

    A row looks for its school by URN; if there is none, by LAESTAB (a converted academy keeps it); if there is none,
    along predecessor and successor links to the nearest URN that the right table has.

    Parameters
    ----------
    left : SchoolTable
        Keeps all its rows, in order.
    right : SchoolTable
        One row per school.
    columns : sequence or mapping of str, optional
        Columns of `right` to take, or published name to new name; all but the keys by default.
    links : DataFrame, optional
        From `read_school_links`; without it the third step is left out.

    Returns
    -------
    table : SchoolTable
        Rows without a school have missing values with the reason ``"no matching school"``.
    report : JoinReport
        Also appended to ``table.joins``.

    Raises
    ------
    InputError
        The right table has a school twice, or a column is absent or already in the left table.

    Examples
    --------
    >>> import pandas as pd
    >>> def table(urn, laestab, **columns):
    ...     keys = {"urn": pd.array(urn, dtype="Int64"), "laestab": pd.array(laestab, dtype="Int64")}
    ...     return SchoolTable(pd.DataFrame(keys | columns), pd.DataFrame(), pd.DataFrame(), ("file.csv",))
    >>> results = table([100001, 140002], [2014001, 2014002], p8=[0.1, -0.2])
    >>> census = table([100001, 100002], [2014001, 2014002], sen=[12.0, 15.0])
    >>> joined, report = join_school_tables(results, census)
    >>> joined.data["sen"].tolist(), report.by_urn, report.by_laestab
    ([12.0, 15.0], 1, 1)
    """
    names = _new_names(left, right, columns)
    positions, steps, ambiguous = _find(left.data, right.data, links)
    found = positions >= 0
    taken = right.data[list(names)].reset_index(drop=True).reindex(positions).reset_index(drop=True)
    known = right.reasons.reindex(columns=list(names), fill_value="").reset_index(drop=True)
    reasons = known.reindex(positions, fill_value=NO_SCHOOL).reset_index(drop=True).rename(columns=names)
    uses = np.bincount(positions[found], minlength=1)
    report = JoinReport(
        left=left.sources[0],
        right=right.sources[0],
        rows=len(found),
        by_urn=int((steps == 1).sum()),
        by_laestab=int((steps == 2).sum()),
        by_link=int((steps == 3).sum()),
        ambiguous=ambiguous,
        shared=int((uses > 1).sum()),
        unmatched=tuple(int(urn) for urn in left.data.loc[~found, "urn"].dropna()),
    )
    joined = SchoolTable(
        data=pd.concat([left.data, taken.rename(columns=names)], axis=1),
        reasons=pd.concat([left.reasons, reasons.loc[:, (reasons != "").any()]], axis=1),
        totals=left.totals,
        sources=left.sources + right.sources,
        joins=(*left.joins, report),
    )
    return joined, report


def _new_names(
    left: SchoolTable, right: SchoolTable, columns: Sequence[str] | Mapping[str, str] | None
) -> dict[str, str]:
    if columns is None:
        columns = [name for name in right.data.columns if name not in ("urn", "laestab")]
    names = dict(columns) if isinstance(columns, Mapping) else {name: name for name in columns}
    for old, new in names.items():
        if old not in right.data:
            raise InputError(Failure(f"is not a column of {right.sources[0]}", old, remedy="Check the name."))
        if new in left.data:
            remedy = "Give it another name: columns={'old': 'new'}."
            raise InputError(Failure(f"is already a column of {left.sources[0]}", new, remedy=remedy))
    return names


def _find(
    left: pd.DataFrame, right: pd.DataFrame, links: pd.DataFrame | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Return, for each row of `left`, its row of `right` (-1: none) and the step; and how many were ambiguous."""
    positions = np.full(len(left), -1, dtype=np.int64)
    steps = np.zeros(len(left), dtype=np.int64)
    for step, key in ((1, "urn"), (2, "laestab")):
        places = _places(right[key])
        todo = np.flatnonzero(positions < 0)
        values = left[key].iloc[todo]
        hits = values.map(places).fillna(-1).to_numpy(dtype=np.int64)
        positions[todo], steps[todo] = hits, np.where(hits >= 0, step, 0)
    ambiguous = 0
    if links is not None:
        places = _places(right["urn"])
        neighbours = _neighbours(links)
        for row in np.flatnonzero(positions < 0):
            nearest = _nearest(left["urn"].iloc[row], neighbours, places)
            if len(nearest) == 1:
                positions[row], steps[row] = places[nearest.pop()], 3
            ambiguous += len(nearest) > 1
    return positions, steps, ambiguous


def _places(keys: pd.Series[Any]) -> dict[int, int]:
    """Map each key to its row; a key that several rows have (two schools on one LAESTAB) identifies none."""
    known = keys.dropna()
    once = known[~known.duplicated(keep=False)]
    if keys.name == "urn" and len(once) < len(known):
        twice = known[known.duplicated(keep=False)]
        raise InputError(
            BrokenRule(
                rule="a school of the right table has one row",
                column="urn",
                count=len(twice),
                values=tuple(str(urn) for urn in twice.unique()[:10]),
                remedy="Keep one row per school before joining.",
            )
        )
    positions = np.flatnonzero(keys.notna().to_numpy() & ~keys.duplicated(keep=False).to_numpy())
    return {int(key): int(position) for key, position in zip(keys.iloc[positions], positions, strict=True)}


def _neighbours(links: pd.DataFrame) -> dict[int, set[int]]:
    neighbours: dict[int, set[int]] = {}
    for one, other in zip(links["urn"].tolist(), links["linked"].tolist(), strict=True):
        neighbours.setdefault(one, set()).add(other)
        neighbours.setdefault(other, set()).add(one)
    return neighbours


def _nearest(urn: Any, neighbours: Mapping[int, set[int]], places: Mapping[int, int]) -> set[int]:
    """Walk the links outwards until schools of the right table are met; return all of the nearest ones."""
    if pd.isna(urn):
        return set()
    seen = front = {int(urn)}
    for _ in range(_MOST_LINKS):
        front = {other for one in front for other in neighbours.get(one, ())} - seen
        met = {other for other in front if other in places}
        if met or not front:
            return met
        seen = seen | front
    return set()
