"""Which choice matters: the variance of a school's result over specifications, shared out to choices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import factorial, prod

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from send_va.errors import InputError
from send_va.multilevel.crossproducts import FloatArray

EXACT, SHARED_OUT = "exact", "shared out"
REST = "three choices or more"
_MOST_CHOICES = 10  # of which all subsets are gone through where the crossing is not full
_NOTHING = 1e-10  # eigenvalues of the design below this share of the largest are none


@dataclass(frozen=True)
class ChoiceVariance:
    """Shares of the variance over specifications within schools.

    Attributes
    ----------
    table : DataFrame
        term (a choice, two choices joined by `` x ``, or ``three choices or more``), order (1, 2 or 3), share. Shares
        add up to one. A choice with share .5 accounts for half of how a school's result varies, whatever the others.
    method : str
        ``exact``: the specifications of every school are a full crossing, so this is the analysis of variance; ``shared
        out``: for some schools some are missing, and what choices explain together there is averaged over the orders in
        which they could be entered.
    variance : float
        Mean over schools of the variance over specifications, squared units of the result.
    n_specifications : int
    n_schools, n_exact : int
        Schools in two tables or more, and those whose specifications are a full crossing.
    """

    table: pd.DataFrame
    method: str
    variance: float
    n_specifications: int
    n_schools: int
    n_exact: int

    def __str__(self) -> str:
        first = self.table[self.table["order"] == 1].sort_values("share", ascending=False, kind="stable")
        named = ", ".join(f"{row.term} {row.share:.0%}" for row in first.itertuples())
        over = f"{self.n_specifications:,} specifications, {self.n_schools:,} schools"
        return f"Variance within schools over {over} ({self.method}): {named or 'one specification'}"

    def _repr_html_(self) -> str:
        return f"<p>{self}</p>{self.table.to_html(index=False)}"


def choice_variance(choices: pd.DataFrame, values: FloatArray) -> ChoiceVariance:
    r"""Share out the variance over specifications to choices and pairs of choices.

    For every school the values under its specifications are analysed as one analysis of variance with main effects and
    pairwise interactions of the choices; variances are then averaged over schools. In a full crossing the terms are
    orthogonal and the shares exact. Where specifications are missing, because they failed or the school is not in their
    tables, the share of a choice is what it adds to the choices entered before it, averaged over all orders (Shapley;
    Lindeman, Merenda & Gold). What pairs add together is shared out by what each adds when entered first and when
    entered last. A choice that a school has only one value of has no part in its variance; one that changes nothing can
    be given a small share where it decides which of the other specifications a school is in.

    Parameters
    ----------
    choices : DataFrame
        One row a specification, one column a choice; a column with one value is left out.
    values : array, shape (specifications, schools)
        Missing where a school is not in the table of a specification.

    Returns
    -------
    ChoiceVariance

    Raises
    ------
    InputError
        Numbers of rows that differ, repeated specifications, or more than ten choices of which specifications are
        missing.

    References
    ----------
    Lindeman, Merenda & Gold (1980), Introduction to Bivariate and Multivariate Analysis. Gromping (2007),
    doi:10.1198/000313007X188252.

    Examples
    --------
    >>> choices = pd.DataFrame({"a": [0, 0, 1, 1], "b": [0, 1, 0, 1]})
    >>> found = choice_variance(choices, np.array([[0.0], [1.0], [3.0], [4.0]]))
    >>> found.method, found.table["share"].round(2).tolist()
    ('exact', [0.9, 0.1, 0.0, 0.0])
    """
    if len(choices) != len(values):
        raise InputError(f"{len(choices):,} specifications, but {len(values):,} rows of values", "Give one row each.")
    if choices.duplicated().any():
        raise InputError("the same specification twice", "Give each once, or its choices count double.")
    varied = choices[[name for name in choices.columns if len(choices[name].unique()) > 1]]
    design, columns = _design(varied)
    summed: dict[Term, float] = dict.fromkeys([*columns, (REST,)], 0.0)
    schools = exact = 0
    for rows, own in _alike(values):
        full = len(rows) == prod(len(varied[name].iloc[rows].unique()) for name in varied.columns)
        if not full and len(varied.columns) > _MOST_CHOICES:
            rule = f"{len(varied.columns)} choices with missing specifications"
            raise InputError(rule, f"At most {_MOST_CHOICES} are shared out.")
        for term, value in _shared_out(design[rows], columns, own, full).items():
            summed[term] += value / len(rows)
        schools += own.shape[1]
        exact += own.shape[1] * full
    total = sum(summed.values())
    parts = [(" x ".join(term), 3 if term == (REST,) else len(term), value) for term, value in summed.items()]
    table = pd.DataFrame(parts, columns=["term", "order", "share"])
    table["share"] = np.maximum(table["share"].to_numpy(dtype=np.float64), 0.0) / (total if total > 0 else 1.0)
    method = EXACT if exact == schools else SHARED_OUT
    return ChoiceVariance(table, method, total / schools if schools else np.nan, len(choices), schools, exact)


Term = tuple[str, ...]


Columns = Mapping[Term, NDArray[np.intp]]


def _alike(values: FloatArray) -> Iterator[tuple[NDArray[np.intp], FloatArray]]:
    """Schools in the same specifications, two or more: which these are, and their values, (specifications, schools)."""
    there = np.isfinite(values)
    patterns, group = np.unique(there, axis=1, return_inverse=True)
    for k, pattern in enumerate(patterns.T):
        rows = np.flatnonzero(pattern)
        if len(rows) > 1:
            yield rows, values[np.ix_(rows, np.flatnonzero(group == k))]


def _design(choices: pd.DataFrame) -> tuple[FloatArray, dict[Term, NDArray[np.intp]]]:
    """Contrasts of the choices and products of those of their pairs, and the columns of each term."""
    coded: dict[Term, FloatArray] = {(name,): _contrasts(choices[name]) for name in choices.columns}
    for first, second in combinations(choices.columns, 2):
        product = coded[(first,)][:, :, None] * coded[(second,)][:, None, :]
        coded[(first, second)] = product.reshape(len(choices), -1)
    columns: dict[Term, NDArray[np.intp]] = {}
    start = 0
    for term, block in coded.items():
        columns[term] = np.arange(start, start + block.shape[1], dtype=np.intp)
        start += block.shape[1]
    return np.hstack([np.zeros((len(choices), 0)), *coded.values()]), columns


def _contrasts(values: pd.Series) -> FloatArray:
    """Indicators of all levels but the first, minus that of the first; shape (specifications, levels - 1)."""
    code, levels = pd.factorize(values)
    indicator = np.eye(len(levels))[code]
    return np.asarray(indicator[:, 1:] - indicator[:, :1])


def _shared_out(design: FloatArray, columns: Columns, values: FloatArray, full: bool) -> dict[Term, float]:
    """Sums of squares of all terms, summed over schools with the same specifications."""
    deviation = values - values.mean(axis=0)
    explained = _Explained.of(design, columns, deviation)
    names = [term for term in columns if len(term) == 1]
    main = {name: explained.by([name]) for name in names} if full else _shapley(explained, names)
    found = main | _of_pairs(explained, names)
    return found | {(REST,): float((deviation**2).sum()) - sum(found.values())}


@dataclass(frozen=True)
class _Explained:
    """Sums of squares, over schools, that sets of terms explain: from products of the design, not the schools.

    Attributes
    ----------
    columns : mapping of term to positions
        A choice is a term of one name.
    gram : array, shape (p, p)
        Products of the design's columns.
    outer : array, shape (p, p)
        Products of the design's columns with the values, multiplied with themselves over schools.
    """

    columns: Columns
    gram: FloatArray
    outer: FloatArray

    @classmethod
    def of(cls, design: FloatArray, columns: Columns, deviation: FloatArray) -> _Explained:
        """From the design (specifications, p) and values whose mean over specifications is zero."""
        centred = design - design.mean(axis=0)
        with_values = centred.T @ deviation
        return cls(columns, centred.T @ centred, with_values @ with_values.T)

    def by(self, terms: Sequence[Term]) -> float:
        """Sum of squares that these terms explain together."""
        if not terms:
            return 0.0
        at = np.concatenate([self.columns[term] for term in terms])
        inverse = np.linalg.pinv(self.gram[np.ix_(at, at)], rcond=_NOTHING, hermitian=True)
        return float(np.vdot(inverse, self.outer[np.ix_(at, at)]))


def _shapley(explained: _Explained, names: Sequence[Term]) -> dict[Term, float]:
    """What each choice adds, averaged over all orders of entering them."""
    n = len(names)
    of = {frozenset(own): explained.by(own) for size in range(n + 1) for own in combinations(names, size)}
    share = dict.fromkeys(names, 0.0)
    for subset, value in of.items():
        weight = factorial(len(subset)) * factorial(n - len(subset) - 1) / factorial(n) if len(subset) < n else 0.0
        for name in names:
            if name not in subset:
                share[name] += weight * (of[subset | {name}] - value)
    return share


def _of_pairs(explained: _Explained, names: Sequence[Term]) -> dict[Term, float]:
    """What pairs add to all choices: each entered first and last, scaled to what they add together."""
    pairs = [term for term in explained.columns if len(term) == 2]
    base, everything = explained.by(names), explained.by([*names, *pairs])
    gain = {}
    for pair in pairs:
        last = everything - explained.by([*names, *(other for other in pairs if other != pair)])
        gain[pair] = max(0.5 * (explained.by([*names, pair]) - base + last), 0.0)
    summed = sum(gain.values())
    return {pair: value * (everything - base) / summed if summed > 0 else 0.0 for pair, value in gain.items()}
