"""Which schools get a position, and why the others do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from send_va.effects import FloatArray
from send_va.errors import Failure, InputError
from send_va.ranking.estimate_inputs import check_choice

Symbols = Literal["open_data", "performance_tables"]
COMPARABLE, NEED, RELIABILITY, WIDTH, DISAGREEMENT = CLAUSES = (
    "comparable",
    "minimum_need",
    "minimum_reliability",
    "maximum_rank_width",
    "maximum_disagreement",
)
_NOBODY = "no pupil with need"

# open_data: Government Analysis Function, Symbols in tables, as DfE's open data standards list them (Analysts' guide,
# Open Data Standards, Data symbols): c confidential, u low reliability, x unavailable for other reasons, z not
# applicable. performance_tables: abbreviations listed with the downloads of Compare School and College Performance in
# England: SUPP suppressed for small numbers, NP not published, NA not applicable; they have none for low reliability.
SYMBOLS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "open_data": MappingProxyType(
            {COMPARABLE: "x", _NOBODY: "z", NEED: "c", RELIABILITY: "u", WIDTH: "u", DISAGREEMENT: "u"}
        ),
        "performance_tables": MappingProxyType(
            {COMPARABLE: "NP", _NOBODY: "NA", NEED: "SUPP", RELIABILITY: "NP", WIDTH: "NP", DISAGREEMENT: "NP"}
        ),
    }
)


@dataclass(frozen=True)
class PublicationDecision:
    """Which schools are published, and what withholds the others.

    Attributes
    ----------
    table : DataFrame
        One row a school: school, published, reason (words; of the first clause failed, empty where published), symbol
        (what stands in place of the position; empty where published), clauses (all that it fails, joined by "; ").
    counts : DataFrame
        One row a clause: clause, limit, withheld (schools that fail it), withheld_only (that fail no other one).
    combinations : DataFrame
        clauses, schools: how many schools fail just these.
    """

    table: pd.DataFrame
    counts: pd.DataFrame
    combinations: pd.DataFrame

    @property
    def withheld(self) -> int:
        """Schools that get no position."""
        return int((~self.table["published"]).sum())

    def __str__(self) -> str:
        failing = [
            f"{withheld:,} by {clause} ({alone:,} by it alone)"
            for clause, withheld, alone in self.counts[["clause", "withheld", "withheld_only"]].to_numpy()
            if withheld
        ]
        published = f"{len(self.table) - self.withheld:,} of {len(self.table):,} schools get a position"
        return f"{published}; withheld: {', '.join(failing) or 'none'}"

    def _repr_html_(self) -> str:
        return str(self.counts.to_html(index=False))


@dataclass(frozen=True)
class PublicationRule:
    """Clauses a school must meet to be given a position.

    Attributes
    ----------
    minimum_need : int
        Fewest pupils with need. 10 is the usual threshold for counts leaving a secure environment (Office for National
        Statistics, Secure Research Service, output checking rules).
    minimum_reliability : float
        Lowest reliability of the ranked measure; 0 asks for none.
    maximum_rank_width : float
        Widest rank set, as a share of places; 1 asks for nothing.
    maximum_disagreement : float or None
        Pupil SDs by which another estimator may differ from the ranked one; None asks for nothing.

    Raises
    ------
    InputError
        A limit out of its range.

    Examples
    --------
    >>> PublicationRule(minimum_reliability=1.2)
    Traceback (most recent call last):
    send_va.errors.InputError: minimum_reliability: must be between 0 and 1; values 1.2.
    """

    minimum_need: int = 10
    minimum_reliability: float = 0.0
    maximum_rank_width: float = 1.0
    maximum_disagreement: float | None = None

    def __post_init__(self) -> None:
        far = self.maximum_disagreement
        checks = [
            (
                self.minimum_need >= 1 and self.minimum_need == int(self.minimum_need),
                NEED,
                "must be a whole number from 1",
            ),
            (0.0 <= self.minimum_reliability <= 1.0, RELIABILITY, "must be between 0 and 1"),
            (0.0 < self.maximum_rank_width <= 1.0, WIDTH, "must be above 0 and at most 1"),
            (far is None or 0.0 < far < np.inf, DISAGREEMENT, "must be a number above 0, or None"),
        ]
        wrong = [
            Failure(rule, column=name, values=(f"{getattr(self, name)}",)) for good, name, rule in checks if not good
        ]
        if wrong:
            raise InputError(wrong)

    def reasons(
        self, summary: pd.DataFrame, *, rank_width: ArrayLike | None = None, disagreement: ArrayLike | None = None
    ) -> NDArray[np.object_]:
        """Why each school gets no position; empty text where it gets one. Arguments as for :meth:`decide`."""
        decision = self.decide(summary, rank_width=rank_width, disagreement=disagreement)
        return decision.table["reason"].to_numpy(dtype=object)

    def decide(
        self,
        summary: pd.DataFrame,
        *,
        rank_width: ArrayLike | None = None,
        disagreement: ArrayLike | None = None,
        symbols: Symbols = "open_data",
    ) -> PublicationDecision:
        """Hold every school against every clause.

        A value that is missing where a clause asks for it does not meet the clause. Schools that cannot be compared
        (missing mean) fail that clause and are not held against the others.

        Parameters
        ----------
        summary : DataFrame
            With columns school, mean, n_need, reliability and flag, as
            :meth:`send_va.effects.SchoolEffects.summary` returns.
        rank_width : array, shape (schools,), optional
            Places in each school's rank set, as a share of all places; needed where the rule limits it.
        disagreement : array, shape (schools,), optional
            Largest difference of another estimator from the ranked one, in pupil SDs, either sign; needed where the
            rule limits it.
        symbols : {"open_data", "performance_tables"}
            Whose symbols stand in place of what is withheld.

        Returns
        -------
        PublicationDecision
            A school withheld by one clause only would be published if that clause were dropped: read `withheld_only`
            before moving a limit.

        Raises
        ------
        InputError
            A column is missing, an array has another length, the rule limits what is not given, or an unknown set of
            symbols.

        Examples
        --------
        >>> summary = pd.DataFrame({"school": ["a", "b", "c"], "mean": [1.0, 2.0, 0.5], "n_need": [9, 40, 50],
        ...                         "reliability": [0.3, 0.3, 0.8], "flag": ""})
        >>> decision = PublicationRule(minimum_reliability=0.4).decide(summary)
        >>> decision.table["symbol"].tolist(), decision.table["clauses"].tolist()
        (['c', 'u', ''], ['minimum_need; minimum_reliability', 'minimum_reliability', ''])
        """
        check_choice(symbols, get_args(Symbols), "symbols")
        failed = self._failed(summary, rank_width, disagreement)
        first = np.where(failed.any(axis=1), failed.argmax(axis=1), -1)
        nobody = failed[:, 0] & (summary["n_need"].to_numpy() == 0)
        signs = SYMBOLS[symbols]
        symbol = np.array(["", *(signs[clause] for clause in CLAUSES)], dtype=object)[first + 1]
        symbol[nobody] = signs[_NOBODY]
        reason = np.array(["", "", *self._words()], dtype=object)[first + 1]
        reason[first == 0] = summary["flag"].to_numpy(dtype=object)[first == 0]
        reason[(first == 0) & (reason == "")] = "cannot be compared"
        clauses = pd.Series([_joined(row) for row in failed], dtype=object)
        table = pd.DataFrame(
            {
                "school": summary["school"].to_numpy() if "school" in summary else np.arange(1, len(summary) + 1),
                "published": first < 0,
                "reason": reason,
                "symbol": symbol,
                "clauses": clauses.to_numpy(),
            }
        )
        alone = failed.sum(axis=1) == 1
        limits = ["", self.minimum_need, self.minimum_reliability, self.maximum_rank_width, self.maximum_disagreement]
        counts = pd.DataFrame(
            {
                "clause": CLAUSES,
                "limit": ["" if limit is None else str(limit) for limit in limits],
                "withheld": failed.sum(axis=0),
                "withheld_only": failed[alone].sum(axis=0),
            }
        )
        sizes = clauses[clauses != ""].value_counts(sort=False)
        combinations = pd.DataFrame({"clauses": sizes.index.to_numpy(dtype=object), "schools": sizes.to_numpy()})
        ordered = combinations.sort_values(["schools", "clauses"], ascending=[False, True], ignore_index=True)
        return PublicationDecision(table, counts, ordered)

    def _failed(
        self, summary: pd.DataFrame, rank_width: ArrayLike | None, disagreement: ArrayLike | None
    ) -> NDArray[np.bool_]:
        """Clauses failed, shape (schools, clauses)."""
        missing = [name for name in ("mean", "n_need", "reliability", "flag") if name not in summary]
        if missing:
            raise InputError(
                Failure("is missing", column=name, remedy="Give SchoolEffects.summary().") for name in missing
            )
        n = len(summary)
        width = _column(rank_width, n, WIDTH, asked=self.maximum_rank_width < 1.0)
        far = _column(disagreement, n, DISAGREEMENT, asked=self.maximum_disagreement is not None)
        reliability = summary["reliability"].to_numpy(dtype=np.float64)
        comparable = summary["mean"].notna().to_numpy()
        met = np.ones((n, len(CLAUSES)), dtype=bool)
        met[:, 1] = summary["n_need"].to_numpy() >= self.minimum_need
        if self.minimum_reliability > 0.0:
            met[:, 2] = reliability >= self.minimum_reliability
        if self.maximum_rank_width < 1.0:
            met[:, 3] = width <= self.maximum_rank_width
        if self.maximum_disagreement is not None:
            met[:, 4] = np.abs(far) <= self.maximum_disagreement
        met[~comparable] = True
        met[:, 0] = comparable
        return ~met

    def _words(self) -> list[str]:
        """Reason of each clause after the first."""
        return [
            f"fewer than {self.minimum_need} pupils with need",
            f"u: reliability below {self.minimum_reliability:g}",
            f"u: rank set covers more than {100 * self.maximum_rank_width:g} % of places",
            f"u: estimators differ by more than {self.maximum_disagreement or 0.0:g} pupil SD",
        ]


def _column(values: ArrayLike | None, n: int, clause: str, *, asked: bool) -> FloatArray:
    name = "rank_width" if clause == WIDTH else "disagreement"
    if values is None:
        if asked:
            raise InputError(f"the rule limits {clause} but {name} is not given", f"Give {name}, one number a school.")
        return np.full(n, np.nan)
    column = np.asarray(values, dtype=np.float64)
    if column.shape != (n,):
        raise InputError(f"{name} has shape {column.shape} for {n} schools", "Give one number a school.")
    return column


def _joined(failed: NDArray[np.bool_]) -> str:
    return "; ".join(clause for clause, fails in zip(CLAUSES, failed, strict=True) if fails)
