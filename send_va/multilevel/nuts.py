"""Sampling of collapsed models by NUTS, by nutpie or by PyMC itself: named, never guessed.

With nutpie, priors and transformations of the PyMC model are compiled by JAX (a second or two) and the likelihood by
numba, in a kernel that is cached between runs. Compiling the whole graph with either takes longer, and samples slower.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from send_va.errors import InputError, NotSupportedError
from send_va.multilevel.crossproducts import FloatArray

if TYPE_CHECKING:
    from send_va.multilevel.collapsed import BuiltModel, CollapsedModel

Sampler = Literal["nutpie", "pymc"]
SAMPLERS: tuple[Sampler, ...] = ("nutpie", "pymc")
_FRAME_RATE = 500  # milliseconds between reports of progress
_ONE = np.ones(1)


@dataclass(frozen=True)
class Sampling:
    """How to sample.

    Attributes
    ----------
    sampler : str
        ``nutpie`` (quick; ``pip install send-va[bayes]``) or ``pymc`` (slow, no further package needed).
    chains : int
        At least two, so that they can be compared.
    draws : int
        After tuning, by chain.
    tune : int
        Draws that adapt step size and mass matrix, by chain; thrown away.
    target_accept : float
        Raise it where there are divergences.
    cores : int, optional
        Chains that run at the same time: by default as many as there are cores. Draws do not depend on it.
    """

    sampler: Sampler = "nutpie"
    chains: int = 4
    draws: int = 500
    tune: int = 300
    target_accept: float = 0.8
    cores: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be sampled."""
        if self.sampler not in SAMPLERS:
            raise InputError(f"there is no sampler {self.sampler!r}", f"Use one of {', '.join(SAMPLERS)}.")
        if self.chains < 2 or self.draws < 50 or self.tune < 50:
            raise InputError(
                f"{self.chains} chains of {self.draws} draws after {self.tune} are too few to tell whether they agree",
                "Use at least 2 chains of 50 draws after 50.",
            )
        if not 0.5 <= self.target_accept < 1.0:
            raise InputError(f"target_accept must lie between 0.5 and 1, not {self.target_accept}")
        if self.cores is not None and self.cores < 1:
            raise InputError(f"cores must be 1 or more, not {self.cores}")


def sample(
    built: BuiltModel | SplitDensity, sampling: Sampling, seed: int, progress: Callable[[int], None] | None = None
) -> xr.DataTree:
    """Sample a built model.

    Parameters
    ----------
    built : BuiltModel or SplitDensity
        A density that is compiled already saves a second or two; for nutpie only.
    sampling : Sampling
    seed : int
        Same seed, same draws, whatever the number of cores.
    progress : callable, optional
        Called with the number of draws done, over all chains, tuning included.

    Returns
    -------
    DataTree
        Groups ``posterior`` and ``sample_stats``; dims (chain, draw).

    Raises
    ------
    NotSupportedError
        nutpie or JAX is not installed.
    KeyboardInterrupt
        Sampling was interrupted: a part of the draws is no result.
    """
    if sampling.sampler == "pymc":
        if isinstance(built, SplitDensity):
            raise InputError("PyMC's own sampler takes a built model, not a compiled density")
        return _by_pymc(built, sampling, seed)
    return _by_nutpie(built, sampling, seed, progress)


def _by_pymc(built: BuiltModel, sampling: Sampling, seed: int) -> xr.DataTree:
    import pymc as pm

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # convergence is judged by send_va.multilevel.convergence, and said in words
        tree: xr.DataTree = pm.sample(
            sampling.draws,
            tune=sampling.tune,
            chains=sampling.chains,
            cores=1,
            random_seed=seed,
            nuts_sampler="pymc",
            target_accept=sampling.target_accept,
            model=built.model,
            progressbar=False,
            quiet=True,
            compute_convergence_checks=False,
            compile_kwargs={"mode": "FAST_COMPILE"},
        )
    return tree


def _by_nutpie(
    built: BuiltModel | SplitDensity, sampling: Sampling, seed: int, progress: Callable[[int], None] | None
) -> xr.DataTree:
    try:
        import nutpie
        from nutpie.compiled_pyfunc import from_pyfunc
    except ImportError as error:
        raise _absent(error) from error
    density = built if isinstance(built, SplitDensity) else SplitDensity(built)
    compiled = from_pyfunc(
        density.size,
        lambda: density.value_and_gradient,
        lambda *_: density.constrained,
        [np.dtype(np.float64)] * len(density.names),
        density.shapes,
        density.names,
        coords=density.coords,
        dims=density.dims,
        make_initial_point_fn=density.initial_point,
    )

    def report(chains: list[Any]) -> None:
        if progress is not None:
            progress(sum(chain.finished_draws for chain in chains))

    tree: xr.DataTree = nutpie.sample(
        compiled,
        draws=sampling.draws,
        tune=sampling.tune,
        chains=sampling.chains,
        cores=min(sampling.chains, sampling.cores or os.cpu_count() or 1),
        seed=seed,
        save_warmup=False,
        progress_bar=False,
        progress_callback=report,
        progress_rate=_FRAME_RATE,
        target_accept=sampling.target_accept,
    )
    done = tree["posterior"].sizes
    if done["draw"] < sampling.draws or done["chain"] < sampling.chains:
        raise KeyboardInterrupt
    return tree


def _absent(error: ImportError) -> NotSupportedError:
    return NotSupportedError(
        f'{error.name} is not installed; run pip install "send-va[bayes]", or choose sampler "pymc", which is slow.'
    )


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
    coords, dims : dict
        Labels of dimensions, and dimensions of these variables.

    Raises
    ------
    NotSupportedError
        JAX is not installed.
    """

    def __init__(self, built: BuiltModel) -> None:
        try:
            import jax
            import jax.numpy as jnp
        except ImportError as error:
            raise _absent(error) from error
        from pymc.sampling.jax import get_jaxified_graph

        config: Any = jax.config
        config.update("jax_enable_x64", True)
        config.update("jax_cpu_enable_async_dispatch", False)  # calls wait for each other anyway
        model = built.model
        self._evaluate, self._constant = built.likelihood.evaluate, built.constant
        self._start = model.initial_point()
        values = [model.rvs_to_values[variable] for variable in model.free_RVs]
        places = [self._start[value.name].shape for value in values]
        self.size = sum(int(np.prod(place)) for place in places)
        self.names = [variable.name for variable in model.free_RVs]
        self.coords = {name: list(labels) for name, labels in model.coords.items()}
        self.dims = {name: tuple(model.named_vars_to_dims.get(name, ())) for name in self.names}
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

        def natural_parts(x: Any) -> Any:
            return graph(*split(x))

        def forward(x: Any) -> Any:
            return jnp.concatenate([jnp.ravel(part) for part in natural_parts(x)])

        def backward(x: Any, cotangents: Any) -> Any:
            return jax.vjp(forward, x)[1](cotangents)[0]

        given = [part.shape for part in jax.eval_shape(natural_parts, np.zeros(self.size))[1:]]
        self._places = [(place, int(np.prod(place))) for place in given]
        self._forward = jax.jit(forward)  # one array out, and one in below: handing over several costs more than this
        self._backward = jax.jit(backward)
        self._expand = jax.jit(lambda x: expanded(*split(x)))
        self.shapes = [np.shape(value) for value in self._expand(np.zeros(self.size))]

    def with_data(self, model: CollapsedModel, start: FloatArray) -> SplitDensity:
        """Take the likelihood of other data of the same design, without compiling anything anew.

        Parameters
        ----------
        model : CollapsedModel
            From :meth:`send_va.multilevel.collapsed.CollapsedModel.with_data` of the model this density was built of.
        start : array, shape (p,)
            Coordinates of the coefficients around which chains begin.
        """
        from send_va.multilevel.collapsed_op import MarginalLikelihood

        other = copy.copy(self)
        other._evaluate = MarginalLikelihood(model.products.arrays(model.data)).evaluate
        other._constant = model.constant
        other._start = self._start | {"w": start}
        return other

    def value_and_gradient(self, x: Any) -> tuple[float, Any]:
        """Log density at a point of unconstrained space (size,), and its gradient."""
        packed = np.array(self._forward(x))  # the prior, then the likelihood's parameters; writable, as kernels know it
        parameters, at = [], 1
        for place, size in self._places:
            parameters.append(packed[at : at + size].reshape(place))
            at += size
        value, *gradients = self._evaluate(*parameters)
        gradient = self._backward(x, np.concatenate([_ONE, *[part.ravel() for part in gradients]]))
        return float(packed[0] + value + self._constant), np.array(gradient, dtype=np.float64)

    def constrained(self, x: Any) -> dict[str, Any]:
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
