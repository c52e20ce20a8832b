"""Whether chains agree: R-hat, effective draws, Monte-Carlo error and divergences, against stated limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pandas as pd
import xarray as xr

from send_va.errors import InputError


class Sampled(Protocol):
    """Draws that can be checked: those of a collapsed model, or of another."""

    @property
    def shape(self) -> tuple[int, int]:
        """Chains and draws of each."""

    @property
    def sample_stats(self) -> xr.Dataset:
        """Of the sampler."""

    def free_parameters(self) -> xr.Dataset:
        """All parameters by name."""


@dataclass(frozen=True)
class Limits:
    """Beyond which a posterior is not used.

    Attributes
    ----------
    rhat : float
        Largest R-hat of a parameter (rank-normalised, split).
    ess : float
        Fewest effective draws of a parameter, in bulk and in the tails: a hundred for each of four chains.
    mcse : float
        Largest Monte-Carlo error of a posterior mean, as a share of the posterior SD.
    divergences : float
        Largest share of draws that diverged.

    References
    ----------
    Vehtari, Gelman, Simpson, Carpenter & Burkner (2021), doi:10.1214/20-BA1221.
    """

    rhat: float = 1.01
    ess: float = 400.0
    mcse: float = 0.05
    divergences: float = 0.001


@dataclass(frozen=True)
class Convergence:
    """What the chains of one posterior say of each other.

    Attributes
    ----------
    table : DataFrame
        parameter, mean, sd, mcse, ess_bulk, ess_tail, rhat, diagnosis (``converged`` or what fails).
    divergences : int
    draws : int
        Over all chains.
    limits : Limits
    """

    table: pd.DataFrame
    divergences: int
    draws: int
    limits: Limits = field(default_factory=Limits)

    @property
    def failures(self) -> tuple[str, ...]:
        """What fails the limits, in words; empty where nothing does."""
        bad = self.table[self.table["diagnosis"] != "converged"]
        said = [f"{name}: {why}" for name, why in zip(bad["parameter"], bad["diagnosis"], strict=True)]
        if self.divergences > self.limits.divergences * self.draws:
            said.append(f"{self.divergences:,} of {self.draws:,} draws diverged: raise target_accept")
        return tuple(said)

    @property
    def converged(self) -> bool:
        """Whether everything is within the limits."""
        return not self.failures

    def __str__(self) -> str:
        """One sentence, with the worst values."""
        worst = self.table
        least = float(worst[["ess_bulk", "ess_tail"]].to_numpy().min())
        return (
            f"{'converged' if self.converged else 'NOT converged'}: R-hat at most {float(worst['rhat'].max()):.3f}, at "
            f"least {least:,.0f} effective of {self.draws:,} draws, "
            f"{self.divergences:,} divergences"
        )


def check_convergence(posterior: Sampled, limits: Limits | None = None) -> Convergence:
    """Compare the chains of a posterior.

    Parameters
    ----------
    posterior : CollapsedPosterior or other draws with the same interface
    limits : Limits, optional

    Returns
    -------
    Convergence
        Use the posterior only where ``converged``: otherwise its draws are not draws from the model.

    Raises
    ------
    InputError
        One chain only, which nothing can be compared with.
    """
    import arviz_stats

    if posterior.shape[0] < 2:
        raise InputError("one chain cannot be compared with another", "Sample at least two.")
    limits = Limits() if limits is None else limits
    dataset = posterior.free_parameters()
    rows = []
    bulk, tail = arviz_stats.ess(dataset, method="bulk"), arviz_stats.ess(dataset, method="tail")
    rhat, mcse = arviz_stats.rhat(dataset), arviz_stats.mcse(dataset)
    for name, values in dataset.data_vars.items():
        draws, dims = values.to_numpy(), values.dims[2:]
        for at in np.ndindex(*draws.shape[2:]):
            own = draws[(slice(None), slice(None), *at)]
            places = [str(values.coords[dim].to_numpy()[k]) for dim, k in zip(dims, at, strict=True)]
            row: dict[str, Any] = {
                "parameter": f"{name!s}[{', '.join(places)}]" if places else str(name),
                "mean": float(own.mean()),
                "sd": float(own.std(ddof=1)),
            }
            measured = {"mcse": mcse, "ess_bulk": bulk, "ess_tail": tail, "rhat": rhat}
            row |= {key: float(table[name].to_numpy()[at]) for key, table in measured.items()}
            rows.append(row | {"diagnosis": _diagnosis(row, limits)})
    diverging = posterior.sample_stats["diverging"].to_numpy()
    return Convergence(pd.DataFrame(rows), int(diverging.sum()), int(diverging.size), limits)


def _diagnosis(row: dict[str, Any], limits: Limits) -> str:
    said = []
    if not row["rhat"] <= limits.rhat:
        said.append(f"chains disagree (R-hat {row['rhat']:.3f} above {limits.rhat})")
    least = min(row["ess_bulk"], row["ess_tail"])
    if not least >= limits.ess:
        said.append(f"too few effective draws ({least:,.0f} below {limits.ess:,.0f}): raise draws")
    if not row["mcse"] <= limits.mcse * row["sd"]:
        said.append(f"Monte-Carlo error above {limits.mcse:.0%} of the posterior SD")
    return "; ".join(said) or "converged"
