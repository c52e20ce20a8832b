"""Unshrunken estimates of every school in every cohort, on one scale: what drift is estimated from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from send_va.effects import SchoolEffects
from send_va.errors import Failure, InputError
from send_va.multilevel.crossproducts import FloatArray
from send_va.records.academic_years import academic_year_end

YEAR_MEASURES = ("theta", "u", "gap")
_SAME = ("estimator", "context", "unit")


@dataclass(frozen=True, eq=False)
class YearEstimates:
    """Estimates by school and cohort.

    Attributes
    ----------
    schools : tuple of str
    years : integer array, shape (years,)
        Calendar years in which the academic years end, ascending; gaps are allowed.
    estimate : dict of measure to array, shape (schools, years)
        Outcome units, missing where there is none. National means by cohort may still be in them.
    error : dict of measure to array, shape (schools, years, years)
        Covariance of the errors of a school's estimates: sampling on the diagonal, what cohorts share (of need being
        estimated) everywhere.
    n_pupils, n_need : integer array, shape (schools, years)
    not_compared : bool array, shape (schools,)
        Schools that cannot be compared with the others.
    attrs : dict
        ``estimator``, ``context`` and more, as of SchoolEffects.
    """

    schools: tuple[str, ...]
    years: NDArray[np.int64]
    estimate: dict[str, FloatArray]
    error: dict[str, FloatArray]
    n_pupils: NDArray[np.int64]
    n_need: NDArray[np.int64]
    not_compared: NDArray[np.bool_]
    attrs: dict[str, Any]

    @property
    def labels(self) -> tuple[str, ...]:
        """The cohorts as academic years."""
        return tuple(academic_year(int(year)) for year in self.years)

    @classmethod
    def of_effects(cls, by_cohort: Mapping[str, SchoolEffects]) -> YearEstimates:
        """Gather the effects of several cohorts, each estimated by itself.

        Their errors count as independent; where need was estimated once for all cohorts they are not quite, and
        :func:`send_va.fit_drift` knows it.

        Parameters
        ----------
        by_cohort : mapping of academic year to SchoolEffects
            Of one estimator and context; ``estimate`` and ``se`` are used, never shrunken means.

        Raises
        ------
        InputError
            Fewer than two cohorts, names that are no academic years or mean the same, effects of different estimators,
            contexts or units.

        Examples
        --------
        >>> import pandas as pd
        >>> from send_va.effects import school_effects
        >>> def made(value):
        ...     known = {"theta": {"estimate": np.array([value, -value]), "se": np.array([0.1, 0.1])}}
        ...     return school_effects(["7", "8"], {"theta": np.zeros((2, 2))}, known, n_pupils=np.array([9, 9]),
        ...         n_need=np.array([3, 3]), flag=["", ""], attrs={"estimator": "entry", "context": "cva"})
        >>> YearEstimates.of_effects({"2023/24": made(1.0), "2022/23": made(2.0)}).estimate["theta"]
        array([[ 2.,  1.],
               [-2., -1.]])
        """
        ends = year_ends(list(by_cohort))
        if len(set(ends.values())) < len(ends):
            raise InputError(f"two of the cohorts {', '.join(by_cohort)} are the same academic year", "Name each once.")
        parts = [by_cohort[name] for name in sorted(ends, key=ends.__getitem__)]
        _require_alike(parts)
        schools = tuple(dict.fromkeys(name for part in parts for name in part.schools))
        measures = [name for name in YEAR_MEASURES if all(name in part.measures for part in parts)]
        estimate = {name: _wide(parts, schools, name, "estimate") for name in measures}
        return cls(
            schools=schools,
            years=np.array(sorted(ends.values()), dtype=np.int64),
            estimate=estimate,
            error={name: diagonal(_wide(parts, schools, name, "se") ** 2) for name in measures},
            n_pupils=_counts(parts, schools, "n_pupils"),
            n_need=_counts(parts, schools, "n_need"),
            not_compared=_never_compared(parts, schools),
            attrs={key: value for key, value in parts[-1].attrs.items() if all(key in p.attrs for p in parts)},
        )


def year_ends(labels: list[str]) -> dict[str, int]:
    """Calendar year in which each academic year ends.

    Raises
    ------
    InputError
        Labels that are no academic years, so that cohorts cannot be put in order.

    Examples
    --------
    >>> year_ends(["2022/23", "2024"])
    {'2022/23': 2023, '2024': 2024}
    """
    ends = {label: academic_year_end(label) for label in labels}
    unread = tuple(repr(label) for label, end in ends.items() if end is None)
    if unread:
        rule = "is no academic year, so that cohorts cannot be put in order"
        remedy = 'Write "2022/23", "2022-23", "202223", "2022/2023", or "2023" for the year it ends.'
        raise InputError(Failure(rule, "cohort", len(unread), values=unread[:10], remedy=remedy, unit="cohort"))
    return {label: end for label, end in ends.items() if end is not None}


def academic_year(end: int) -> str:
    """The academic year that ends in a calendar year.

    Examples
    --------
    >>> academic_year(2030)
    '2029/30'
    """
    return f"{end - 1}/{end % 100:02d}"


def diagonal(variance: FloatArray) -> FloatArray:
    """Diagonal matrices, (schools, years, years), of variances (schools, years).

    Examples
    --------
    >>> diagonal(np.array([[1.0, 2.0]]))
    array([[[1., 0.],
            [0., 2.]]])
    """
    return np.asarray(np.where(np.eye(variance.shape[1], dtype=bool), variance[:, :, None], 0.0))


def _require_alike(parts: list[SchoolEffects]) -> None:
    if len(parts) < 2:
        raise InputError("one cohort says nothing of how schools change", "Give the effects of two cohorts or more.")
    for key in _SAME:
        found = sorted({str(part.attrs.get(key, "")) for part in parts})
        if len(found) > 1:
            raise InputError(
                f"cohorts differ in {key}: {', '.join(found)}", "Estimate every cohort in the same way, on one scale."
            )


def _at(parts: list[SchoolEffects], schools: tuple[str, ...]) -> list[NDArray[np.intp]]:
    place = {name: k for k, name in enumerate(schools)}
    return [np.array([place[name] for name in part.schools], dtype=np.intp) for part in parts]


def _wide(parts: list[SchoolEffects], schools: tuple[str, ...], measure: str, what: str) -> FloatArray:
    out = np.full((len(schools), len(parts)), np.nan)
    for t, (part, at) in enumerate(zip(parts, _at(parts, schools), strict=True)):
        out[at, t] = part.data[what].sel(measure=measure).to_numpy()
    return out


def _counts(parts: list[SchoolEffects], schools: tuple[str, ...], what: str) -> NDArray[np.int64]:
    out = np.zeros((len(schools), len(parts)), dtype=np.int64)
    for t, (part, at) in enumerate(zip(parts, _at(parts, schools), strict=True)):
        out[at, t] = part.data[what].to_numpy()
    return out


def _never_compared(parts: list[SchoolEffects], schools: tuple[str, ...]) -> NDArray[np.bool_]:
    never = np.ones(len(schools), dtype=bool)
    for part, at in zip(parts, _at(parts, schools), strict=True):
        never[at] &= np.isnan(part.draws(part.measures[0])).all(axis=0)
    return never
