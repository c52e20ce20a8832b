"""Sampling of collapsed models by NUTS, by nutpie or by PyMC itself: named, never guessed.

nutpie samples the density of :mod:`send_va.multilevel.collapsed_density`, compiled by numba and kept between runs:
there is no graph to compile. PyMC samples the same model stated in PyMC.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from send_va.errors import InputError, NotSupportedError
from send_va.multilevel.collapsed_density import CollapsedDensity
from send_va.multilevel.split_density import SplitDensity

if TYPE_CHECKING:
    import pymc as pm

    from send_va.multilevel.collapsed import CollapsedModel

Sampler = Literal["nutpie", "pymc"]
SAMPLERS: tuple[Sampler, ...] = ("nutpie", "pymc")
_FRAME_RATE = 500  # milliseconds between reports of progress


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
    draws: int = 1000
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
    model: CollapsedModel, sampling: Sampling, seed: int, progress: Callable[[int], None] | None = None
) -> xr.DataTree:
    """Sample a collapsed model.

    Parameters
    ----------
    model : CollapsedModel
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
        nutpie is not installed.
    KeyboardInterrupt
        Sampling was interrupted: a part of the draws is no result.
    """
    if sampling.sampler == "pymc":
        return by_pymc(model.build().model, sampling, seed, progress, mode="FAST_COMPILE")
    return by_nutpie(lambda: _compiled(model), sampling, seed, progress)


def by_pymc(
    model: pm.Model,
    sampling: Sampling,
    seed: int,
    progress: Callable[[int], None] | None = None,
    *,
    mode: str | None = None,
) -> xr.DataTree:
    """Sample a model by PyMC's own sampler, one chain after the other; `mode` is how PyTensor compiles it."""
    import pymc as pm

    done = count(1)

    def report(*, trace: Any, draw: Any) -> None:
        if progress is not None:
            progress(next(done))

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
            model=model,
            progressbar=False,
            callback=report,
            quiet=True,
            compute_convergence_checks=False,
            **({} if mode is None else {"compile_kwargs": {"mode": mode}}),
        )
    return tree


def by_nutpie(
    compiled: Callable[[], Any], sampling: Sampling, seed: int, progress: Callable[[int], None] | None = None
) -> xr.DataTree:
    """Sample what `compiled` makes, as nutpie takes it; called only where nutpie is installed.

    Raises
    ------
    NotSupportedError
        nutpie, or what `compiled` imports, is not installed.
    KeyboardInterrupt
        Sampling was interrupted: a part of the draws is no result.
    """
    os.environ.setdefault("NPROC", "1")  # read by XLA when it starts: chains run side by side, one thread for each
    try:
        import nutpie

        ready = compiled()
    except ImportError as error:
        raise NotSupportedError(
            f'{error.name} is not installed; run pip install "send-va[bayes]", or choose sampler "pymc", which is slow.'
        ) from error

    def report(chains: list[Any]) -> None:
        if progress is not None:
            progress(sum(chain.finished_draws for chain in chains))

    tree: xr.DataTree = nutpie.sample(
        ready,
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


def _compiled(model: CollapsedModel) -> Any:
    """The density of a collapsed model as nutpie takes it: the compiled one, or that of its statement in PyMC."""
    from nutpie.compiled_pyfunc import from_pyfunc

    density = CollapsedDensity(model) if model.groups == "normal" else SplitDensity(model.build())
    return from_pyfunc(
        density.size,
        density.of_thread,
        lambda *_: density.natural,
        [np.dtype(np.float64)] * len(density.names),
        density.shapes,
        density.names,
        coords=model.coords,
        dims=dict(zip(density.names, density.dims, strict=True)),
        make_initial_point_fn=density.initial_point,
    )
