"""Which choice matters: the variance of a school's result over specifications, shared out to choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
_NOTHING = 1e-12  # singular values of the design below this share of the largest are none


@dataclass(frozen=True)
class ChoiceVariance:
    """Shares of the variance over specifications within schools.

    Attributes
    ----------
    table : DataFrame
        term (a choice, two choices joined by `` x ``, or ``three choices or more``), order (1, 2 or 3), share. Shares
        add up to one. A choice with share .5 accounts for half of how a school's result varies, whatever the others.
    method : str
        ``exact``: the specifications are a full crossing, so this is the analysis of variance; ``shared out``: some are
        missing, so what choices explain together is averaged over the orders in which they could be entered.
    variance : float
        Mean over schools of the variance over specifications, squared units of the result.
    n_specifications, n_schools : int
        Schools that are in every specification.
    """

    table: pd.DataFrame
    method: str
    variance: float
    n_specifications: int
    n_schools: int

    def __str__(self) -> str:
        first = self.table[self.table["order"] == 1].sort_values("share", ascending=False, kind="stable")
        named = ", ".join(f"{row.term} {row.share:.0%}" for row in first.itertuples())
        over = f"{self.n_specifications:,} specifications, {self.n_schools:,} schools"
        return f"Variance within schools over {over} ({self.method}): {named or 'one specification'}"

    def _repr_html_(self) -> str:
        return f"<p>{self}</p>{self.table.to_html(index=False)}"


def choice_variance(choices: pd.DataFrame, values: FloatArray) -> ChoiceVariance:
    r"""Share out the variance over specifications to choices and pairs of choices.

    For every school the values under all specifications are analysed as one analysis of variance with main effects and
    pairwise interactions of the choices; sums of squares are then added over schools. In a full crossing the terms are
    orthogonal and the shares exact. Where specifications are missing, the share of a choice is what it adds to the
    choices entered before it, averaged over all orders (Shapley; Lindeman, Merenda & Gold). What pairs add together is
    shared out by what each adds when entered first and when entered last.

    Parameters
    ----------
    choices : DataFrame
        One row a specification, one column a choice; a column with one value is left out.
    values : array, shape (specifications, schools)
        Schools with a missing value are left out.

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
    if len(choices) != len(values) or choices.duplicated().any():
        raise InputError(
            f"{len(choices):,} specifications, of which some are the same, for {len(values):,} rows of values",
            "Give one row of values a specification, and each once.",
        )
    levels = {name: len(choices[name].unique()) for name in choices.columns}
    varied = [name for name in choices.columns if levels[name] > 1]
    kept = values[:, np.isfinite(values).all(axis=0)]
    deviation = kept - kept.mean(axis=0)
    total = float((deviation**2).sum())
    full = len(choices) == prod(levels.values())
    if not full and len(varied) > _MOST_CHOICES:
        raise InputError(
            f"{len(varied)} choices with missing specifications", f"At most {_MOST_CHOICES} are shared out."
        )
    explained = _Explained.of(choices[varied], deviation)
    main = _exact(explained, varied) if full else _shapley(explained, varied)
    pairs = _of_pairs(explained, varied)
    parts = [(name, 1, main[name]) for name in varied]
    parts += [(" x ".join(pair), 2, pairs[pair]) for pair in pairs]
    parts.append((REST, 3, total - sum(value for _, _, value in parts)))
    table = pd.DataFrame(parts, columns=["term", "order", "share"])
    table["share"] = np.maximum(table["share"].to_numpy(dtype=np.float64), 0.0) / (total if total > 0 else 1.0)
    schools = kept.shape[1]
    variance = total / (len(choices) * schools) if schools else np.nan
    return ChoiceVariance(table, EXACT if full else SHARED_OUT, variance, len(choices), schools)


Term = tuple[str, ...]


@dataclass(frozen=True)
class _Explained:
    """Sums of squares, over all schools, that sets of terms explain: from products of the design, not the schools.

    Attributes
    ----------
    columns : mapping of term to positions
        A choice is a term of one name.
    gram : array, shape (p, p)
        Products of the design's columns.
    outer : array, shape (p, p)
        Products of the design's columns with the values, multiplied with themselves over schools.
    """

    columns: Mapping[Term, NDArray[np.intp]]
    gram: FloatArray
    outer: FloatArray

    @classmethod
    def of(cls, choices: pd.DataFrame, deviation: FloatArray) -> _Explained:
        """Lay out sum-to-zero contrasts of the choices and their pairs; `deviation` has mean zero over rows."""
        coded: dict[Term, FloatArray] = {(name,): _contrasts(choices[name]) for name in choices.columns}
        for first, second in combinations(choices.columns, 2):
            product = coded[(first,)][:, :, None] * coded[(second,)][:, None, :]
            coded[(first, second)] = product.reshape(len(choices), -1)
        columns: dict[Term, NDArray[np.intp]] = {}
        start = 0
        for term, block in coded.items():
            columns[term] = np.arange(start, start + block.shape[1], dtype=np.intp)
            start += block.shape[1]
        design = np.hstack(list(coded.values())) if coded else np.zeros((len(choices), 0))
        design = design - design.mean(axis=0)
        with_values = design.T @ deviation
        return cls(columns, design.T @ design, with_values @ with_values.T)

    def by(self, terms: Sequence[Term]) -> float:
        """Sum of squares that these terms explain together."""
        if not terms:
            return 0.0
        at = np.concatenate([self.columns[term] for term in terms])
        inverse = np.linalg.pinv(self.gram[np.ix_(at, at)], rcond=_NOTHING, hermitian=True)
        return float(np.vdot(inverse, self.outer[np.ix_(at, at)]))


def _contrasts(values: pd.Series) -> FloatArray:
    """Indicators of all levels but the first, minus that of the first; shape (specifications, levels - 1)."""
    code, levels = pd.factorize(values)
    indicator = np.eye(len(levels))[code]
    return np.asarray(indicator[:, 1:] - indicator[:, :1])


def _exact(explained: _Explained, names: Sequence[str]) -> dict[str, float]:
    return {name: explained.by([(name,)]) for name in names}


def _shapley(explained: _Explained, names: Sequence[str]) -> dict[str, float]:
    """What each choice adds, averaged over all orders of entering them."""
    n = len(names)
    of = {
        frozenset(subset): explained.by([(name,) for name in subset])
        for size in range(n + 1)
        for subset in combinations(names, size)
    }
    share = dict.fromkeys(names, 0.0)
    for subset, value in of.items():
        weight = factorial(len(subset)) * factorial(n - len(subset) - 1) / factorial(n) if len(subset) < n else 0.0
        for name in names:
            if name not in subset:
                share[name] += weight * (of[subset | {name}] - value)
    return share


def _of_pairs(explained: _Explained, names: Sequence[str]) -> dict[Term, float]:
    """What pairs add to all choices: each entered first and last, scaled to what they add together."""
    main: list[Term] = [(name,) for name in names]
    pairs: list[Term] = list(combinations(names, 2))
    base, everything = explained.by(main), explained.by([*main, *pairs])
    gain = {}
    for pair in pairs:
        last = everything - explained.by([*main, *(other for other in pairs if other != pair)])
        gain[pair] = max(0.5 * (explained.by([*main, pair]) - base + last), 0.0)
    summed = sum(gain.values())
    return {pair: value * (everything - base) / summed if summed > 0 else 0.0 for pair, value in gain.items()}
