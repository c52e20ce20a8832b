"""Sampling the joint model, and what its draws say of schools."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd
import pymc as pm
from numpy.typing import NDArray

from send_va.errors import InputError, NotSupportedError
from send_va.validation.joint_model import joint_model
from send_va.validation.joint_orthant import for_jax
from send_va.validation.joint_records import JointRecords

Floats = NDArray[np.float64]

TARGET_ACCEPT = 0.9  # at the sampler's .8, small spreads between schools gave a few divergences
SINGLE = ("delta", "mu", "kappa", "intake_sd", "level")  # parameters that are one number
BY_NAME = {  # parameters of a few numbers, and the dimension that names them
    "tau": "threshold",
    "tau_now": "threshold",
    "rho": "threshold",
    "feeder_leniency_sd": "threshold",
    "school_leniency_sd": "threshold",
    "la_entry_leniency_sd": "threshold",
    "la_now_leniency_sd": "threshold",
    "effect_sd": "effect",
    "sigma": "need",
}
CORRELATIONS = (
    "u_gap_correlation",
    "u_slope_correlation",
    "gap_slope_partial_correlation",
    "feeder_leniency_correlation",
    "school_leniency_correlation",
    "la_entry_leniency_correlation",
    "la_now_leniency_correlation",
)


@dataclass(frozen=True, eq=False)
class JointPosterior:
    """Draws of the joint model.

    Attributes
    ----------
    draws : dict of str to array, shape (chains, draws, ...)
        By parameter; schools in order of the records. Outcomes in pupil SDs.
    divergences : int
        Above zero, read nothing else before the reason is known.
    seconds : float
        Of sampling, warm-up included; compiling is not.
    gradient_steps : float
        Mean over draws after warm-up.
    """

    draws: Mapping[str, Floats]
    divergences: int
    seconds: float
    gradient_steps: float

    def flat(self, name: str) -> Floats:
        """Draws of a parameter with chains joined, shape (all draws, ...)."""
        values = self.draws[name]
        return values.reshape(-1, *values.shape[2:])

    def parameters(self) -> pd.DataFrame:
        """One row per national parameter: mean, sd, R-hat, bulk and tail ESS.

        An R-hat above 1.01, or an ESS below 400, says that chains were too short.
        """
        array_stats = _array_stats()
        rows = []
        for name, values in national(self.draws).items():
            rows.append(
                {
                    "parameter": name,
                    "mean": float(values.mean()),
                    "sd": float(values.std(ddof=1)),
                    "r_hat": float(array_stats.rhat(values)),
                    "ess_bulk": float(array_stats.ess(values, method="bulk")),
                    "ess_tail": float(array_stats.ess(values, method="tail", prob=(0.1, 0.9))),
                }
            )
        return pd.DataFrame(rows)

    def mixing(self, name: str = "theta") -> tuple[float, float]:
        """Largest R-hat and least bulk ESS over the schools of a measure."""
        array_stats = _array_stats()
        columns = [self.draws[name][:, :, j] for j in range(self.draws[name].shape[2])]
        return (
            max(float(array_stats.rhat(column)) for column in columns),
            min(float(array_stats.ess(column, method="bulk")) for column in columns),
        )


def _array_stats() -> Any:
    """Diagnostics on plain arrays, of a package without types."""
    return import_module("arviz_stats.base").array_stats


def national(draws: Mapping[str, Floats]) -> dict[str, Floats]:
    """Draws of every national parameter that there are, each a single number, by a name that says which.

    Examples
    --------
    >>> sorted(national({"delta": np.zeros((2, 5)), "rho": np.zeros((2, 5, 2)), "theta": np.zeros((2, 5, 9))}))
    ['delta', 'rho[ehcp]', 'rho[support]']
    """
    names = {"threshold": ("support", "ehcp"), "effect": ("u", "gap", "slope"), "need": ("without", "with")}
    out = {name: draws[name] for name in (*SINGLE, *CORRELATIONS) if name in draws}
    for name, dim in BY_NAME.items():
        if name in draws:
            out |= {f"{name}[{names[dim][k]}]": draws[name][..., k] for k in range(draws[name].shape[-1])}
    return out


def require_bayes() -> None:
    """Refuse where nutpie or JAX is not installed.

    Raises
    ------
    NotSupportedError
        Naming what is missing and how to get it.
    """
    missing = [name for name in ("nutpie", "jax") if find_spec(name) is None]
    if missing:
        raise NotSupportedError(
            f"the joint model is sampled with nutpie on JAX, and {' and '.join(missing)} cannot be imported: "
            'pip install "send-va[bayes]". The cut (fit_need) needs neither.'
        )


def compiled(model: pm.Model, start: Mapping[str, Floats] | None = None, *, replaceable: bool = False) -> Any:
    """Compile a joint model with nutpie on JAX, named explicitly.

    Parameters
    ----------
    start : mapping, optional
        Where chains start, by variable.
    replaceable : bool
        Keep the data as arguments, so that ``with_data`` can replace them.
    """
    require_bayes()
    import nutpie

    for_jax()
    return nutpie.compile_pymc_model(
        model,
        backend="jax",
        gradient_backend="jax",
        initial_points=dict(start) if start else None,
        jitter_rvs=set() if start else None,
        freeze_model=not replaceable,
    )


def sample_joint(
    records: JointRecords,
    rng: np.random.Generator,
    *,
    draws: int = 500,
    tune: int = 500,
    chains: int = 2,
    start: Mapping[str, Floats] | None = None,
    cores: int = 2,
    progress: bool = True,
) -> JointPosterior:
    """Sample the joint model of one region by NUTS.

    Parameters
    ----------
    records : JointRecords
    rng : numpy.random.Generator
        Seeds the sampler: same generator, same draws.
    draws, tune, chains : int
        Draws kept and steps of warm-up of every chain.
    start : mapping of str to array, optional
        Where chains start: :func:`send_va.validation.joint_comparison.starting_values`.
    cores : int
        Chains sampled side by side.
    progress : bool
        Show a bar.

    Returns
    -------
    JointPosterior
        Read ``divergences`` and :meth:`JointPosterior.parameters` first.

    Raises
    ------
    InputError
        Fewer than 2 chains or 4 draws, of which mixing cannot be judged.
    NotSupportedError
        nutpie or JAX is not installed.

    References
    ----------
    Hoffman & Gelman (2014), The No-U-Turn Sampler, Journal of Machine Learning Research 15.
    """
    if chains < 2 or draws < 4:
        raise InputError(f"{chains} chains of {draws} draws: mixing is judged from at least 2 chains of 4 draws")
    model = joint_model(records)
    begin = scattered(model, rng, start or {})
    return sampled(compiled(model, begin), rng, draws=draws, tune=tune, chains=chains, cores=cores, progress=progress)


def scattered(model: pm.Model, rng: np.random.Generator, start: Mapping[str, Floats]) -> dict[str, Floats]:
    """Start standardised effects and correlations that are not in `start` a little off zero.

    At zero the gradient is zero, from which the sampler cannot learn a scale.
    """
    begin = dict(start)
    shapes = model.eval_rv_shapes()
    for variable in model.free_RVs:
        name, shape = str(variable.name), shapes[variable.name]
        if name not in begin and name.endswith("_z"):
            begin[name] = rng.normal(0.0, 0.3, shape)
        elif name not in begin and name.endswith("_share"):
            begin[name] = rng.uniform(0.4, 0.6, shape)
    return begin


def sampled(
    model: Any, rng: np.random.Generator, *, draws: int, tune: int, chains: int, cores: int = 1, progress: bool
) -> JointPosterior:
    """Sample a compiled joint model."""
    import nutpie

    begin = time.perf_counter()
    tree = nutpie.sample(
        model,
        draws=draws,
        tune=tune,
        chains=chains,
        cores=cores,
        seed=int(rng.integers(2**31)),
        progress_bar=progress,
        save_warmup=False,
        target_accept=TARGET_ACCEPT,
    )
    posterior, stats = tree["posterior"], tree["sample_stats"]
    return JointPosterior(
        draws={str(name): np.asarray(posterior[name].to_numpy(), dtype=np.float64) for name in posterior.data_vars},
        divergences=int(stats["diverging"].to_numpy().sum()),
        seconds=time.perf_counter() - begin,
        gradient_steps=float(stats["n_steps"].to_numpy().mean()),
    )
