"""Multiple imputation of missing prior attainment by chained equations that know of schools.

Imputations are made with scikit-learn's ``IterativeImputer``: its chain takes any regression, is seeded, and works on
arrays. statsmodels' MICE was looked at: it pools only its own models, imputes by predictive mean matching, so never
beyond scores that were seen (a shift of what is imputed then changes what can be matched), and refits by formula.
scikit-learn's own draws come from the predictive distribution of each pupil independently; Rubin's rules need one draw
of the regression for all pupils of an imputation, and that is what the regression here hands to the chain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.experimental import enable_iterative_imputer  # noqa: F401 (makes the next import possible)
from sklearn.impute import IterativeImputer
from sklearn.linear_model import BayesianRidge

from send_va.errors import InputError
from send_va.sensitivity.incomplete_records import Bools, IncompleteRecords, refuse_unfillable
from send_va.sensitivity.school_terms import adjusted_means

Floats = NDArray[np.float64]

IMPUTATIONS = 20
MOST_COMPLETE = 100_000  # complete pupils that the imputation model is fitted to: coefficients are known well enough
_ROUNDS = 5  # of the chain, where more than one column is missing
_ALL_STATUSES = (0, 1, 2)


class _DrawnRegression(BayesianRidge):  # type: ignore[misc]
    """A regression that predicts with one draw of its posterior, the same for all pupils."""

    def __init__(self, rng: np.random.Generator | None = None) -> None:
        super().__init__(copy_X=False)
        self.rng = rng

    def __sklearn_clone__(self) -> _DrawnRegression:
        return _DrawnRegression(self.rng)  # one stream for the whole chain: a copy would repeat its draws

    def fit(self, X: Floats, y: Floats, sample_weight: None = None) -> Self:
        super().fit(X, y)
        rng = np.random.default_rng(0) if self.rng is None else self.rng
        n, p = X.shape
        residual = 1.0 / float(self.alpha_)
        drawn = residual * max(n - p, 1) / rng.chisquare(max(n - p, 1))
        root = np.linalg.cholesky(self.sigma_ / residual + 1e-14 * np.eye(p))
        self.coef_: Floats = self.coef_ + np.sqrt(drawn) * root @ rng.standard_normal(p)
        self._set_intercept(self.X_offset_, np.mean(y) + np.sqrt(drawn / n) * rng.standard_normal(), self.X_scale_)
        self.residual_sd_ = np.sqrt(drawn)
        return self

    def predict(self, X: Floats, return_std: bool = False) -> Any:
        mean = self._decision_function(X)
        return (mean, np.full(len(mean), self.residual_sd_)) if return_std else mean


@dataclass(frozen=True, eq=False)
class Imputations:
    """Values drawn for what is missing, m times.

    Attributes
    ----------
    records : IncompleteRecords
    numbers : dict of str to array, shape (m, missing of the column)
        In units of the column, in file order.
    categories : dict of str to array of object, shape (m, missing of the column)
    sd : dict of str to float
        SD of the observed values of each prior score: what a shift of one SD is.
    bounded : bool
        Whether prior scores are held to the range that was observed.
    """

    records: IncompleteRecords
    numbers: dict[str, Floats]
    categories: dict[str, NDArray[np.object_]]
    sd: Mapping[str, float]
    bounded: bool

    def __len__(self) -> int:
        return len(next(iter({**self.numbers, **self.categories}.values())))

    def __repr__(self) -> str:
        return f"<{len(self)} imputations of {', '.join({**self.numbers, **self.categories})}>"

    def completed(self, imputation: int, delta: float = 0.0, shifted: Sequence[int] = _ALL_STATUSES) -> pd.DataFrame:
        """All records with one imputation filled in.

        Parameters
        ----------
        imputation : int
            From 0.
        delta : float
            What is added to every imputed prior score, in SDs of the score.
        shifted : sequence of int
            SEN levels now whose scores are shifted: 0 none, 1 support, 2 EHC plan.
        """
        records = self.records
        filled: dict[str, Any] = {}
        for name, values in self.numbers.items():
            gone = records.missing(name)
            column = records.frame[name].to_numpy(dtype=np.float64, copy=True)
            column[gone] = self._moved(
                name, values[imputation], np.where(np.isin(records.level[gone], shifted), delta, 0.0)
            )
            filled[name] = column
        for name, codes in self.categories.items():
            text = records.frame[name].to_numpy(dtype=object, copy=True)
            text[records.missing(name)] = codes[imputation]
            filled[name] = text
        return records.frame.assign(**filled)

    def _moved(self, name: str, values: Floats, delta: Floats) -> Floats:
        if name not in self.sd:
            return values
        moved = values + delta * self.sd[name]
        if self.bounded:
            moved = moved.clip(self.records.frame[name].min(), self.records.frame[name].max())
        return moved


def impute(
    records: IncompleteRecords,
    *,
    imputations: int = IMPUTATIONS,
    seed: int = 1,
    bounded: bool = False,
    most_complete: int = MOST_COMPLETE,
) -> Imputations:
    """Draw missing prior scores and background several times, given everything else that is known of the pupil.

    Scores and numeric background are imputed by chained normal regressions on the outcome (with its square), SEN status
    now and before transfer, their interaction with the outcome, all background, the other scores, and terms of the
    school: means of the outcome and of observed scores, of all pupils and of those with SEND, each shrunken by its
    reliability. Without the outcome the relation of score and outcome would be diluted; without terms of the school,
    effects of schools would be pulled towards each other. A missing category is drawn from pupils of the same school,
    with or without SEND as the pupil is (approximate Bayesian bootstrap). Background that is coded 0 and 1 is not
    rounded, which would bias it.

    Parameters
    ----------
    records : IncompleteRecords
    imputations : int
        How many, at least 2.
    seed : int
    bounded : bool
        Hold imputed prior scores to the observed range. By default they may lie outside.
    most_complete : int
        Complete pupils that the regressions are fitted to, drawn at random where there are more; terms of the school
        are those of all pupils. Coefficients are drawn with the uncertainty this leaves.

    Returns
    -------
    Imputations
        Same seed, same values.

    Raises
    ------
    InputError
        Nothing is missing, or a column is missing for all pupils, all of one SEN status or all of one cohort; fewer
        than two imputations.

    References
    ----------
    Rubin (1987), doi:10.1002/9780470316696; Rubin & Schenker (1986), doi:10.1080/01621459.1986.10478280.
    Grund, Luedtke & Robitzsch (2018), doi:10.1177/1094428117703686 (imputation for multilevel models) and (2026),
    doi:10.3758/s13428-025-02915-9 (single-level models with adjusted group means).

    Examples
    --------
    >>> from send_va.records.reader import Cohort
    >>> from send_va.records.simulator import simulate
    >>> from send_va.sensitivity.incomplete_records import read_incomplete
    >>> pupils = simulate(np.random.default_rng(1), schools=12, pupils_per_school=20).pupils
    >>> pupils.loc[::9, "prior"] = np.nan
    >>> roles = {"pupil": "pupil", "school": "school", "outcome": "outcome", "prior": "prior",
    ...          "sen_status": "sen_status"}
    >>> drawn = impute(read_incomplete(Cohort.from_pandas(pupils, roles)), imputations=3)
    >>> len(drawn), int(drawn.completed(0)["prior"].isna().sum())
    (3, 0)
    """
    if imputations < 2 or seed < 0:
        raise InputError(
            f"imputations must be at least 2 and seed 0 or more, not {imputations} and {seed}",
            "One imputation says nothing of how much is not known; 20 are usual.",
        )
    refuse_unfillable(records)
    targets = [name for name in records.numbers if records.missing(name).any()]
    coded = [name for name in records.roles.categorical if records.missing(name).any()]
    rngs = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(17,))).spawn(imputations + 1)
    rows = _used_rows(records, most_complete, rngs[0])
    fixed = _Predictors.of(records, rows, targets, coded)
    numbers: dict[str, list[Floats]] = {name: [] for name in targets}
    categories: dict[str, list[NDArray[np.object_]]] = {name: [] for name in coded}
    for rng in rngs[1:]:
        for name in coded:
            categories[name].append(_hot_deck(records, name, rng))
        drawn = {name: categories[name][-1] for name in coded}
        for name, values in _chain(records, rows, fixed, targets, drawn, bounded, rng).items():
            numbers[name].append(values)
    return Imputations(
        records,
        {name: np.stack(values) for name, values in numbers.items()},
        {name: np.stack(values) for name, values in categories.items()},
        {name: float(records.frame[name][records.usable].std()) for name in records.roles.prior},
        bounded,
    )


def _used_rows(records: IncompleteRecords, most: int, rng: np.random.Generator) -> NDArray[np.intp]:
    complete = np.flatnonzero(records.usable & ~records.to_fill)
    if len(complete) > most:
        complete = rng.choice(complete, most, replace=False)
    return np.sort(np.concatenate([complete, np.flatnonzero(records.to_fill)]))


@dataclass(frozen=True)
class _Predictors:
    """What the chain predicts from, standardised; categories that are drawn anew are added by each imputation."""

    columns: Floats
    drawn: dict[str, tuple[str, ...]]

    @classmethod
    def of(
        cls, records: IncompleteRecords, rows: NDArray[np.intp], targets: Sequence[str], coded: Sequence[str]
    ) -> _Predictors:
        frame = records.frame.iloc[rows]
        outcome = _scaled(frame[records.roles.outcome].to_numpy(np.float64))
        now, entry = records.level[rows], records.entry[rows]
        need, before = (now > 0).astype(np.float64), (entry > 0).astype(np.float64)
        parts = [outcome, outcome**2, need, now == 2, before, entry == 2, entry < 0, need * outcome, before * outcome]
        parts += [frame[name].to_numpy(np.float64) for name in records.numbers if name not in targets]
        for name in records.roles.categorical:
            if name not in coded:
                parts += _indicators(frame[name].to_numpy(dtype=object), _levels(records, name))
        parts += _school_columns(records, rows, need)
        columns = [_scaled(np.asarray(part, dtype=np.float64)) for part in parts]
        kept = [column for column in columns if column.any()]
        return cls(np.column_stack(kept), {name: _levels(records, name) for name in coded})


def _school_columns(records: IncompleteRecords, rows: NDArray[np.intp], need: Floats) -> list[Floats]:
    """Adjusted school means of outcome, scores and numeric background, and for pupils with SEND those of their own."""
    parts = []
    with_need = records.level > 0
    for name in (records.roles.outcome, *records.numbers):
        values = records.frame[name].to_numpy(np.float64)
        seen = records.usable & ~np.isnan(values)
        parts.append(_of_school(records, values, seen)[records.school[rows]])
        if name in (records.roles.outcome, *records.roles.prior):
            parts.append(need * _of_school(records, values, seen & with_need)[records.school[rows]])
    share = adjusted_means(
        with_need[records.usable].astype(np.float64), records.school[records.usable], len(records.schools)
    )
    return [*parts, share[records.school[rows]]]


def _of_school(records: IncompleteRecords, values: Floats, seen: Bools) -> Floats:
    return adjusted_means(values[seen], records.school[seen], len(records.schools))


def _scaled(values: Floats) -> Floats:
    sd = values.std()
    return (values - values.mean()) / sd if sd > 1e-12 else np.zeros_like(values)


def _levels(records: IncompleteRecords, name: str) -> tuple[str, ...]:
    return tuple(sorted(records.frame[name][records.usable].dropna().unique()))


def _indicators(codes: NDArray[np.object_], levels: Sequence[str]) -> list[Floats]:
    return [(codes == level).astype(np.float64) for level in levels[1:]]


def _hot_deck(records: IncompleteRecords, name: str, rng: np.random.Generator) -> NDArray[np.object_]:
    """Categories of pupils of the same school and kind, or of the same kind anywhere where the school has none."""
    need = 1 * (records.level > 0)
    gone = records.missing(name)
    donors = np.flatnonzero(records.usable & ~gone)
    local = _donors(donors, (2 * records.school + need)[donors], (2 * records.school + need)[gone], rng)
    anywhere = _donors(donors, need[donors], need[gone], rng)
    chosen = np.where(local >= 0, local, anywhere)
    return np.asarray(records.frame[name].to_numpy(dtype=object)[chosen])


def _donors(
    donors: NDArray[np.intp], cell: NDArray[np.int64], wanted: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.intp]:
    """One donor of the cell for each wanted, from a bootstrap sample of the cell's donors; -1 where it has none."""
    order = np.argsort(cell, kind="stable")
    cells, starts, sizes = np.unique(cell[order], return_index=True, return_counts=True)
    start, size = np.repeat(starts, sizes), np.repeat(sizes, sizes)
    sample = donors[order][start + (rng.random(len(donors)) * size).astype(np.int64)]
    at = np.minimum(np.searchsorted(cells, wanted), len(cells) - 1)
    pick = sample[starts[at] + (rng.random(len(wanted)) * sizes[at]).astype(np.int64)]
    return np.asarray(np.where(cells[at] == wanted, pick, -1))


def _chain(
    records: IncompleteRecords,
    rows: NDArray[np.intp],
    fixed: _Predictors,
    targets: Sequence[str],
    drawn: Mapping[str, NDArray[np.object_]],
    bounded: bool,
    rng: np.random.Generator,
) -> dict[str, Floats]:
    """One run of the chained regressions: missing values of each target, in file order."""
    if not targets:
        return {}
    raw = records.frame[list(targets)].to_numpy(np.float64)[rows]
    mean, sd = np.nanmean(raw, axis=0), np.maximum(np.nanstd(raw, axis=0), 1e-12)
    parts = [(raw - mean) / sd, fixed.columns]
    for name, levels in fixed.drawn.items():
        codes = records.frame[name].to_numpy(dtype=object, copy=True)
        codes[records.missing(name)] = drawn[name]
        indicators = _indicators(codes[rows], levels)
        parts += [_scaled(indicator)[:, None] for indicator in indicators]
    table = np.hstack(parts)
    lowest, highest = np.full(table.shape[1], -np.inf), np.full(table.shape[1], np.inf)
    if bounded:
        held = [k for k, name in enumerate(targets) if name in records.roles.prior]
        seen = (records.frame[[targets[k] for k in held]].to_numpy(np.float64)[records.usable] - mean[held]) / sd[held]
        lowest[held], highest[held] = np.nanmin(seen, axis=0), np.nanmax(seen, axis=0)
    chain = IterativeImputer(
        _DrawnRegression(rng),
        sample_posterior=True,
        max_iter=1 if len(targets) == 1 else _ROUNDS,
        skip_complete=True,
        min_value=lowest,
        max_value=highest,
        random_state=int(rng.integers(2**31)),
    )
    filled = chain.fit_transform(table)[:, : len(targets)] * sd + mean
    return {name: filled[records.missing(name)[rows], k] for k, name in enumerate(targets)}
