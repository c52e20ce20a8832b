"""What the collapsed posterior needs of cross-products, in coordinates in which coefficients are nearly independent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from send_va.errors import InputError
from send_va.multilevel.collapsed_kernels import EFFECTS
from send_va.multilevel.crossproducts import CrossProducts, FloatArray, IntArray


@dataclass(frozen=True)
class CollapsedData:
    """Sums of a Gaussian model whose groups have random effects, by group and by stratum of the residual variance.

    Attributes
    ----------
    columns : tuple of str, length p
        Fixed-effects columns.
    effects : tuple of str, length q
        Random-effects columns, one to three.
    strata : tuple of str, length S
        Kinds of records that each have their own residual variance.
    groups, outer : tuple of str
        Names of the groups, and of the groups of the outer level (empty without one).
    parent : integer array, shape (groups,), or None
        Outer group of each group.
    outer_effects : tuple of int
        Which of `effects` differ between outer groups too.
    zz : array, shape (groups, S, 3, 3)
        Products of the random-effects columns, padded with zeros.
    zm : array, shape (groups, S, 3, m)
        Products of the random-effects columns with the p fixed-effects columns and, last, the outcome; padded.
    own : array, shape (S, groups, m, m)
        Products of these columns in every group.
    counts : array, shape (S, groups)
        Records.
    log_weights : array, shape (S, groups)
        Sums of the logarithms of precision weights.
    center : array, shape (m,)
        What was subtracted from the columns.
    """

    columns: tuple[str, ...]
    effects: tuple[str, ...]
    strata: tuple[str, ...]
    groups: tuple[str, ...]
    outer: tuple[str, ...]
    parent: NDArray[np.intp] | None
    outer_effects: tuple[int, ...]
    zz: FloatArray
    zm: FloatArray
    own: FloatArray
    counts: FloatArray
    log_weights: FloatArray
    center: FloatArray

    @property
    def parents(self) -> NDArray[np.int64]:
        """Outer group of each group as kernels take it: empty without an outer level."""
        return np.zeros(0, dtype=np.int64) if self.parent is None else self.parent.astype(np.int64)

    @property
    def total(self) -> FloatArray:
        """Products over all records, shape (S, m, m)."""
        return np.asarray(self.own.sum(axis=1))

    @property
    def n_records(self) -> float:
        """Number of records."""
        return float(self.counts.sum())

    @property
    def outcome_mean(self) -> float:
        """Mean of the (centred) outcome; needs an intercept among the columns, else 0."""
        return self._means()[-1]

    def column_sds(self) -> FloatArray:
        """SD of every fixed-effects column and, last, of the outcome, shape (m,); 0 for the intercept."""
        total = self.total.sum(axis=0)
        mean = np.array(self._means())
        return np.asarray(np.sqrt(np.maximum(np.diag(total) / self.n_records - mean**2, 0.0)))

    def _means(self) -> list[float]:
        total = self.total.sum(axis=0)
        if "Intercept" not in self.columns:
            return [0.0] * len(total)
        return [float(value) for value in total[self.columns.index("Intercept")] / self.n_records]


def collapsed_data(
    strata: Sequence[CrossProducts],
    *,
    fixed: Sequence[str],
    random: Sequence[str],
    outcome: str,
    groups: Sequence[str],
    strata_names: Sequence[str] = ("all",),
    parent: NDArray[np.integer] | None = None,
    outer: Sequence[str] = (),
    outer_random: Sequence[str] = (),
    log_weights: FloatArray | None = None,
) -> CollapsedData:
    """Take what the collapsed posterior needs from cross-products.

    Parameters
    ----------
    strata : sequence of CrossProducts
        Same columns and groups, disjoint records; those without records are left out.
    fixed, random : sequence of str
        Columns with fixed effects, and columns whose effects differ between groups (one to three).
    outcome : str
    groups : sequence of str
    strata_names : sequence of str
    parent : integer array, shape (groups,), optional
        Outer group of each group.
    outer, outer_random : sequence of str
        Names of the outer groups, and the columns of `random` that have effects there.
    log_weights : array, shape (S, groups), optional
        Sums of the logarithms of precision weights by stratum with records and group; by default those of a stratum are
        shared out by records, which puts the log-likelihood of single groups off by a constant.

    Returns
    -------
    CollapsedData

    Raises
    ------
    InputError
        More than three random effects; fewer than two groups with records; no records at all; an outer effect that is
        no random effect.
    """
    if not 1 <= len(random) <= 3:
        raise InputError(f"there are {len(random)} random effects a group; one to three can be integrated out")
    missing = [name for name in outer_random if name not in random]
    if missing:
        raise InputError(f"{', '.join(missing)}: effects of the outer level must be among those of the groups")
    kept = [(name, part) for name, part in zip(strata_names, strata, strict=True) if part.counts.sum() > 0]
    if not kept:
        raise InputError("there are no records")
    counts = np.stack([part.counts for _, part in kept])
    if (counts.sum(axis=0) > 0).sum() < 2:
        raise InputError(
            "there is one group only, so no difference between groups can be estimated", "Give two groups or more."
        )
    first = kept[0][1]
    at_z: IntArray = first.index(random)
    at_m: IntArray = first.index([*fixed, outcome])
    products = [part.products for _, part in kept]
    return CollapsedData(
        columns=tuple(fixed),
        effects=tuple(random),
        strata=tuple(name for name, _ in kept),
        groups=tuple(groups),
        outer=tuple(outer) if parent is not None else (),
        parent=None if parent is None else np.asarray(parent, dtype=np.intp),
        outer_effects=tuple(list(random).index(name) for name in outer_random) if parent is not None else (),
        zz=_padded(np.stack([part[:, at_z[:, None], at_z] for part in products], axis=1), (2, 3)),
        zm=_padded(np.stack([part[:, at_z[:, None], at_m] for part in products], axis=1), (2,)),
        own=np.stack([part[:, at_m[:, None], at_m] for part in products]),
        counts=counts,
        log_weights=_log_weights([part for _, part in kept], log_weights),
        center=first.center[at_m],
    )


def _log_weights(kept: Sequence[CrossProducts], given: FloatArray | None) -> FloatArray:
    if given is not None:
        return given
    return np.stack([part.log_weights * part.counts / part.counts.sum() for part in kept])


def _padded(values: FloatArray, axes: tuple[int, ...]) -> FloatArray:
    """Zeros at the end of some axes, up to the number of effects of the kernels."""
    width = [(0, EFFECTS - size if axis in axes else 0) for axis, size in enumerate(values.shape)]
    return np.ascontiguousarray(np.pad(values, width))


@dataclass(frozen=True)
class Whitening:
    """Coordinates ``w`` of the coefficients in which prior and likelihood are both nearly independent and of unit size.

    ``beta = origin + map w``. With ``D`` the prior covariance and ``P`` the likelihood's precision, ``map`` is
    ``D^(1/2) U (I + Lambda)^(-1/2)`` where ``U Lambda U'`` is the eigendecomposition of ``D^(1/2) P D^(1/2)``: the
    prior of ``w`` stays exactly normal and independent, with these means and SDs; its posterior is about standard
    normal.

    Attributes
    ----------
    origin : array, shape (p,)
    map : array, shape (p, p)
    prior_mean, prior_sd : array, shape (p,)
        Of ``w``.
    """

    origin: FloatArray
    map: FloatArray
    prior_mean: FloatArray
    prior_sd: FloatArray

    @classmethod
    def of(cls, mean: FloatArray, sd: FloatArray, estimate: FloatArray, precision: FloatArray) -> Whitening:
        """From the prior mean and SD (p,), and estimate (p,) and precision (p, p) of the likelihood."""
        values, vectors = np.linalg.eigh(sd[:, None] * precision * sd)
        size = np.sqrt(1.0 + np.maximum(values, 0.0))
        spread = sd[:, None] * vectors  # prior standard-normal coordinates z: beta = mean + spread z
        z = vectors.T @ ((estimate - mean) / sd)
        return cls(estimate, spread / size, -z * size, size)

    def beta(self, w: FloatArray) -> FloatArray:
        """Coefficients at coordinates ``w`` (..., p)."""
        return np.asarray(self.origin + w @ self.map.T)

    def coordinates(self, beta: FloatArray) -> FloatArray:
        """Coordinates of coefficients (p,)."""
        return np.linalg.solve(self.map, beta - self.origin)


@dataclass(frozen=True)
class WhitenedProducts:
    """Sums of :class:`CollapsedData` as functions of ``w``: with direction ``d = d0 + E w``.

    Attributes
    ----------
    r0, re : array, shapes (groups, S, 3) and (groups, S, 3, p)
        ``Z'd0`` and ``Z'E``.
    c0, ce, cee : array, shapes (S,), (S, p) and (S, p, p)
        ``d0'd0``, ``E'd0`` and ``E'E``.
    """

    r0: FloatArray
    re: FloatArray
    c0: FloatArray
    ce: FloatArray
    cee: FloatArray

    @classmethod
    def of(cls, data: CollapsedData, whitening: Whitening) -> WhitenedProducts:
        """Change coordinates once, so that an evaluation needs no products of columns."""
        origin = np.append(-whitening.origin, 1.0)
        change = np.vstack([-whitening.map, np.zeros(len(whitening.origin))])  # (m, p)
        total = data.total
        part = total @ origin  # (S, m)
        return cls(
            r0=data.zm @ origin,
            re=np.ascontiguousarray(data.zm @ change),
            c0=part @ origin,
            ce=part @ change,
            cee=change.T @ total @ change,
        )

    def arrays(self, data: CollapsedData) -> tuple[NDArray[Any], ...]:
        """What the kernel of normal effects takes beside parameters, in its order."""
        return (*self.sums(data), data.parents)

    def sums(self, data: CollapsedData) -> tuple[NDArray[Any], ...]:
        """What every kernel takes of the records, in its order."""
        return (self.r0, self.re, data.zz, self.c0, self.ce, self.cee, data.counts.sum(axis=1))
