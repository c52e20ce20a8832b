"""Orthants of two normal variables as an operation of PyTensor, with its derivatives in closed form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytensor.tensor as pt
from numpy.typing import NDArray
from pytensor.gradient import DisconnectedType
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from scipy.special import ndtr

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Tensor = Any  # of PyTensor, which has no types

NODES = 6  # log-likelihoods of pupils to five digits and better for slopes up to 1
_X, _W = np.polynomial.legendre.leggauss(NODES)
_DENSITY = 1.0 / np.sqrt(2.0 * np.pi)


class Orthant(Op):  # type: ignore[misc]
    """Probability that two standard normal variables lie below h and k.

    Their correlation is that of z with ``slope * z`` plus independent standard noise, times a sign. The function is an
    integral over the correlation (Drezner & Wesolowsky 1990) by five nodes, its derivatives are closed form.

    Inputs are h, k and sign (1 or -1), shape (n,); `second`, shape (n,), whether the second slope is meant; and the two
    slopes, scalars.

    References
    ----------
    Drezner & Wesolowsky (1990), doi:10.1080/00949659008811236.

    Examples
    --------
    >>> from scipy.stats import multivariate_normal
    >>> value = Orthant()(np.array([0.3]), np.array([-0.5]), np.array([-1.0]), np.array([False]), 0.75, 0.1).eval()
    >>> r = -0.75 / np.sqrt(1 + 0.75**2)
    >>> bool(abs(value[0] - multivariate_normal([0, 0], [[1, r], [r, 1]]).cdf([0.3, -0.5])) < 1e-8)
    True
    """

    __props__ = ()

    def make_node(self, *inputs: Any) -> Apply:
        """Type the inputs."""
        tensors = [pt.as_tensor(value) for value in inputs]
        return Apply(self, tensors, [pt.vector(dtype="float64", shape=tensors[0].type.shape)])

    def infer_shape(self, node: Any, shapes: Any) -> list[Any]:
        """Shape of h."""
        return [shapes[0]]

    def perform(self, node: Any, inputs: Sequence[NDArray[np.float64]], outputs: Any) -> None:
        """Evaluate in NumPy."""
        outputs[0][0] = _orthant(np, ndtr, *inputs)

    def pullback(self, inputs: Any, outputs: Any, cotangents: Any) -> list[Any]:
        """Differentiate, in closed form."""
        second = inputs[3]
        by_h, by_k, by_slope = _derivatives(pt, _tensor_cdf, *inputs)
        given = cotangents[0]
        of_slopes = [(given * by_slope * chosen).sum() for chosen in (1.0 - second, 1.0 * second)]
        return [given * by_h, given * by_k, DisconnectedType()(), DisconnectedType()(), *of_slopes]

    def connection_pattern(self, node: Any) -> list[list[bool]]:
        """Signs and choices are not differentiated by."""
        return [[True], [True], [False], [False], [True], [True]]


def _tensor_cdf(x: Tensor) -> Tensor:
    return 0.5 * pt.erfc(-np.sqrt(0.5) * x)


def _orthant(xp: Any, cdf: Callable[[Any], Any], h: Any, k: Any, sign: Any, second: Any, slope: Any, other: Any) -> Any:
    """Value, with the array functions of NumPy or JAX."""
    halves = 0.5 * xp.arctan(slope), 0.5 * xp.arctan(other)
    squares, product = h * h + k * k, 2.0 * sign * h * k
    total = 0.0
    for x, w in zip(_X, _W, strict=True):
        angles = [half * (1.0 + x) for half in halves]
        sine = xp.where(second, xp.sin(angles[1]), xp.sin(angles[0]))
        rate = xp.where(second, 0.5 / xp.cos(angles[1]) ** 2, 0.5 / xp.cos(angles[0]) ** 2)
        total = total + (w / (2.0 * np.pi)) * xp.exp((product * sine - squares) * rate)
    return cdf(h) * cdf(k) + sign * xp.where(second, halves[1], halves[0]) * total


def _derivatives(
    xp: Any, cdf: Callable[[Any], Any], h: Any, k: Any, sign: Any, second: Any, slope: Any, other: Any
) -> tuple[Any, Any, Any]:
    """Derivatives by h, k and the slope that is meant."""
    own = xp.where(second, other, slope)
    norm = xp.sqrt(1.0 + own * own)  # 1 / sqrt(1 - r^2)
    density = _DENSITY * xp.exp(-0.5 * h * h)
    rest = norm * k - sign * own * h
    by_k = _DENSITY * xp.exp(-0.5 * k * k) * cdf(norm * h - sign * own * k)
    by_slope = sign * density * _DENSITY * xp.exp(-0.5 * rest * rest) / norm**2
    return density * cdf(rest), by_k, by_slope


def for_jax() -> None:
    """Teach PyTensor the operation in JAX; harmless when repeated."""
    import jax
    import jax.numpy as jnp
    from jax.scipy.special import erfc
    from pytensor.link.jax.dispatch import jax_funcify

    def cdf(x: Any) -> Any:
        return 0.5 * erfc(-np.sqrt(0.5) * x)

    # barriers: XLA would rather compute it again for every use than keep it
    keep = jax.lax.optimization_barrier

    def evaluated(*inputs: Any) -> Any:
        return keep(_orthant(jnp, cdf, *keep(inputs)))

    def with_derivative(inputs: Any, tangents: Any) -> tuple[Any, Any]:
        by_h, by_k, by_slope = keep(_derivatives(jnp, cdf, *keep(inputs)))
        slope = jnp.where(inputs[3], tangents[5], tangents[4])
        return value(*inputs), by_h * tangents[0] + by_k * tangents[1] + by_slope * slope

    value = jax.custom_jvp(evaluated)
    value.defjvp(with_derivative)
    jax_funcify.register(Orthant, lambda op, **_: value)
