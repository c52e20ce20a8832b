"""The density of any model stated in PyMC with a likelihood of its own: priors by JAX, likelihood by its kernel.

Slower than :mod:`send_va.multilevel.collapsed_density`, and a second or two to compile: for models it does not know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from send_va.multilevel.collapsed import BuiltModel


class SplitDensity:
    """Log density of a built model over unconstrained space: priors by JAX, likelihood by its own kernel.

    Attributes
    ----------
    size : int
        Dimensions of the unconstrained space.
    names : list of str
        Free variables, in their natural space.
    shapes : list of tuple
        Of these variables.
    dims : list of tuple
        Names of their dimensions.

    Raises
    ------
    ImportError
        JAX is not installed.
    """

    def __init__(self, built: BuiltModel) -> None:
        import jax
        import jax.numpy as jnp
        from pymc.sampling.jax import get_jaxified_graph

        config: Any = jax.config
        config.update("jax_enable_x64", True)
        model = built.model
        self._evaluate, self._constant = built.likelihood.evaluate, built.constant
        self._start = model.initial_point()
        values = [model.rvs_to_values[variable] for variable in model.free_RVs]
        places = [self._start[value.name].shape for value in values]
        self.size = sum(int(np.prod(place)) for place in places)
        self.names = [variable.name for variable in model.free_RVs]
        self.dims = [tuple(model.named_vars_to_dims.get(name, ())) for name in self.names]
        self._value_names = [value.name for value in values]
        prior = model.logp(vars=model.free_RVs, sum=True)
        parameters = model.replace_rvs_by_values(list(built.parameters))
        natural = model.replace_rvs_by_values(list(model.free_RVs))
        graph = get_jaxified_graph(inputs=values, outputs=[prior, *parameters])
        expanded = get_jaxified_graph(inputs=values, outputs=natural)

        def split(x: Any) -> list[Any]:
            parts, at = [], 0
            for place in places:
                size = int(np.prod(place))
                parts.append(jnp.reshape(x[at : at + size], place))
                at += size
            return parts

        def forward(x: Any) -> Any:
            return graph(*split(x))

        def backward(x: Any, cotangents: Any) -> Any:
            return jax.vjp(forward, x)[1](cotangents)[0]

        self._forward = jax.jit(forward)
        self._backward = jax.jit(backward)
        self._expand = jax.jit(lambda x: expanded(*split(x)))
        self.shapes = [np.shape(value) for value in self._expand(np.zeros(self.size))]

    def of_thread(self) -> Callable[[Any], tuple[float, Any]]:
        """The density, for one thread; its kernel has arrays of its own in every one."""
        return self.value_and_gradient

    def value_and_gradient(self, x: Any) -> tuple[float, Any]:
        """Log density at a point of unconstrained space (size,), and its gradient."""
        prior, *parameters = (np.array(part) for part in self._forward(x))
        value, *gradients = self._evaluate(*parameters)
        gradient = self._backward(x, (np.ones(()), *gradients))
        return float(prior) + float(value) + self._constant, np.array(gradient, dtype=np.float64)

    def natural(self, x: Any) -> dict[str, Any]:
        """Free variables in their natural space at a point of unconstrained space."""
        values = self._expand(x)
        return {name: np.array(value, dtype=np.float64) for name, value in zip(self.names, values, strict=True)}

    def initial_point(self, seed: int) -> Any:
        """Start of one chain: the model's own, coefficients moved by two of their posterior SDs at random."""
        rng = np.random.default_rng(seed)
        parts = []
        for name in self._value_names:
            value = np.ravel(self._start[name]).astype(np.float64)
            parts.append(value + (rng.uniform(-2.0, 2.0, len(value)) if name == "w" else 0.0))
        return np.concatenate(parts)
