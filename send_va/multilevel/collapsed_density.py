r"""The posterior density of a collapsed model over unconstrained space, compiled, with its gradient.

The coordinates are those of the model in PyMC, in its order: ``w``, signed SDs of effects, rows of the factor of their
correlations, logarithms of residual SDs, signed SDs of the outer level. A row of the factor is
``v = (x, 1) / |(x, 1)|``, so that with the LKJ density of shape ``h`` over n effects and the Jacobian of this map

    log p(x) = -(n + 2 h - 1) / 2 * sum over rows of log(1 + |x|^2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numpy.typing import NDArray

from send_va.multilevel.collapsed_gradient import value_and_gradient
from send_va.multilevel.collapsed_kernels import EFFECTS, Work, workspace
from send_va.multilevel.crossproducts import FloatArray

if TYPE_CHECKING:
    from send_va.multilevel.collapsed import CollapsedModel

# Coordinate of every element of the factor below its diagonal, by number of effects: PyMC fills a triangle in a spiral.
_PLACES = (
    np.zeros((1, 1), dtype=np.int64),
    np.array([[0, 0], [0, 0]]),
    np.array([[0, 0, 0], [2, 0, 0], [1, 0, 0]]),
)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def correlation_factor(x: FloatArray, places: NDArray[np.int64]) -> FloatArray:  # pragma: no cover (compiled)
    """Lower-triangular factor (q, q) of a correlation matrix at coordinates ``x``, shape (q (q - 1) / 2,)."""
    q = len(places)
    factor = np.zeros((q, q))
    for a in range(q):
        size = 1.0
        for b in range(a):
            size += x[places[a, b]] ** 2
        size = np.sqrt(size)
        for b in range(a):
            factor[a, b] = x[places[a, b]] / size
        factor[a, a] = 1.0 / size
    return factor


@numba.njit(cache=True, nogil=True, error_model="numpy")
def log_density(
    x: FloatArray,
    places: NDArray[np.int64],
    outer_at: NDArray[np.int64],
    mean: FloatArray,
    sd: FloatArray,
    group_scale: FloatArray,
    outer_scale: FloatArray,
    shape: float,
    residual_scale: float,
    r0: FloatArray,
    re: FloatArray,
    zz: FloatArray,
    c0: FloatArray,
    ce: FloatArray,
    cee: FloatArray,
    records: FloatArray,
    parent: NDArray[np.int64],
    work: Work,
) -> tuple[float, FloatArray]:  # pragma: no cover (compiled)
    """Log posterior density but for a constant, and its gradient.

    Parameters
    ----------
    x : array, shape (size,)
        Unconstrained coordinates.
    places : integer array, shape (q, q)
        Which coordinate of the correlations an element of their factor has.
    outer_at : integer array, shape (q2,)
        Which effects the outer level has.
    mean, sd : array, shape (p,)
        Of the normal prior of ``w``.
    group_scale, outer_scale : array, shapes (q,) and (q2,)
        Of the half-normal priors of SDs.
    shape : float
        Of the LKJ prior.
    residual_scale : float
    r0, re, zz, c0, ce, cee, records, parent, work
        As in :func:`send_va.multilevel.collapsed_gradient.value_and_gradient`.
    """
    p, q, strata, above = len(mean), len(places), len(records), len(outer_at)
    at_corr, at_residual = p + q, p + q + q * (q - 1) // 2
    at_outer = at_residual + strata
    w, signed = x[:p].copy(), x[p : p + q]
    factor = correlation_factor(x[at_corr:at_residual], places)
    lower, outer_sd = np.zeros((EFFECTS, EFFECTS)), np.zeros(EFFECTS)
    for a in range(q):
        for b in range(a + 1):
            lower[a, b] = signed[a] * factor[a, b]
    residual_sd = np.exp(x[at_residual:at_outer])
    for k in range(above):
        outer_sd[outer_at[k]] = x[at_outer + k]
    value, by_w, by_lower, by_variance, by_outer = value_and_gradient(
        w, lower, residual_sd**2, outer_sd, r0, re, zz, c0, ce, cee, records, parent, work
    )
    gradient = np.empty(len(x))
    for c in range(p):
        z = (w[c] - mean[c]) / sd[c]
        value -= 0.5 * z**2
        gradient[c] = by_w[c] - z / sd[c]
    power = q + 2.0 * shape - 1.0
    for a in range(q):
        z = signed[a] / group_scale[a]
        value += power * np.log(factor[a, a]) - 0.5 * z**2
        slope = 0.0
        for b in range(a + 1):
            slope += by_lower[a, b] * factor[a, b]
        gradient[p + a] = slope - z / group_scale[a]
        for b in range(a):
            turn = signed[a] * (by_lower[a, b] - factor[a, b] * slope) - power * factor[a, b]
            gradient[at_corr + places[a, b]] = turn * factor[a, a]
    for s in range(strata):
        z = residual_sd[s] / residual_scale
        value += x[at_residual + s] - 0.5 * z**2
        gradient[at_residual + s] = 2.0 * by_variance[s] * residual_sd[s] ** 2 + 1.0 - z**2
    for k in range(above):
        z = x[at_outer + k] / outer_scale[k]
        value -= 0.5 * z**2
        gradient[at_outer + k] = by_outer[outer_at[k]] - z / outer_scale[k]
    return value, gradient


class CollapsedDensity:
    """Log density of a collapsed model over unconstrained space, in the form that samplers call.

    It is that of the model in PyMC but for a constant: :meth:`CollapsedModel.build` states the same priors there.

    Attributes
    ----------
    size : int
        Dimensions of the unconstrained space.
    names : list of str
        Free variables, in their natural space.
    shapes : list of tuple
        Of these variables.
    dims : list of tuple of str
    """

    def __init__(self, model: CollapsedModel) -> None:
        data, scales, white = model.data, model.scales, model.whitening
        p, q, strata, above = len(data.columns), len(data.effects), len(data.strata), len(data.outer_effects)
        self.names = ["w", "group_sd_signed"]
        self.shapes: list[tuple[int, ...]] = [(p,), (q,)]
        self.dims: list[tuple[str, ...]] = [("coefficient",), ("effect",)]
        if q > 1:
            self._add("group_corr_chol", (q, q), ("effect", "effect_"))
        self._add("residual_sd", (strata,), ("stratum",))
        if above:
            self._add("outer_sd_signed", (above,), ("outer_effect",))
        pairs = q * (q - 1) // 2
        self._ends = np.cumsum([p, q, pairs, strata, above])
        self.size = int(self._ends[-1])
        self._places = _PLACES[q - 1]
        self._start = np.concatenate(
            [
                np.zeros(p),
                np.sqrt(np.maximum(np.diag(model.start.group_cov), (0.1 * scales.group_sd) ** 2)),
                np.zeros(pairs),
                0.5 * np.log(model.start.residual_variance),
                np.sqrt(np.maximum(model.start.outer_variance, (0.1 * scales.outer_sd) ** 2))[:above],
            ]
        )
        self._given: tuple[Any, ...] = (
            self._places,
            np.array(data.outer_effects, dtype=np.int64),
            white.prior_mean,
            white.prior_sd,
            scales.group_sd,
            scales.outer_sd,
            float(scales.correlation),
            float(scales.residual_sd),
            *model.products.arrays(data),
        )
        self._size_of_work = model.products.r0.shape[:2]

    def _add(self, name: str, shape: tuple[int, ...], dims: tuple[str, ...]) -> None:
        self.names.append(name)
        self.shapes.append(shape)
        self.dims.append(dims)

    def of_thread(self) -> Any:
        """Build the function that returns log density and gradient at a point (size,), for one thread at a time."""
        given, work = self._given, workspace(*self._size_of_work)
        evaluate: Any = log_density

        def at(x: FloatArray) -> tuple[float, FloatArray]:
            value, gradient = evaluate(x, *given, work)
            return value, gradient

        return at

    def natural(self, x: FloatArray) -> dict[str, FloatArray]:
        """Free variables in their natural space at a point of unconstrained space."""
        w, signed, corr, residual, outer = np.split(x, self._ends[:-1])
        values = {"w": w, "group_sd_signed": signed, "residual_sd": np.exp(residual), "outer_sd_signed": outer}
        if len(signed) > 1:
            values["group_corr_chol"] = correlation_factor(corr, self._places)
        return {name: values[name] for name in self.names}

    def initial_point(self, seed: int) -> FloatArray:
        """Start of one chain: where REML ended, coefficients moved by two of their posterior SDs at random."""
        point = self._start.copy()
        point[: self._ends[0]] += np.random.default_rng(seed).uniform(-2.0, 2.0, self._ends[0])
        return point
