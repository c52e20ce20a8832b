"""Whether an outcome is at its floor: counts by group, kind of record and band, with effects of groups, in PyMC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from scipy.special import expit, logit

from send_va.errors import InputError
from send_va.multilevel.crossproducts import FloatArray
from send_va.multilevel.nuts import Sampling, by_nutpie, by_pymc

if TYPE_CHECKING:
    import pymc as pm

EFFECTS = ("without", "with")
_KIND_SD = 2.5  # of a kind's log-odds around those of all: shares from a hundredth to a hundred times the odds
_BAND_SD = 1.5  # of the log-odds of a band against the lowest
_TAIL = 0.025
_GROUP_SD = 1.0  # half-normal: in one case of three, groups differ by more than an odds ratio of e


@dataclass(frozen=True)
class FloorCells:
    """Records at the floor out of all, by group, kind and band; cells without records are allowed.

    Attributes
    ----------
    groups, kinds : tuple of str
    with_need : bool array, shape (kinds,)
        Kinds whose records feel the group's second effect; the others feel its first.
    at_floor, records : integer array, shape (groups, kinds, bands)
    """

    groups: tuple[str, ...]
    kinds: tuple[str, ...]
    with_need: NDArray[np.bool_]
    at_floor: NDArray[np.int64]
    records: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Refuse counts that cannot be."""
        if self.at_floor.shape != self.records.shape or np.any(self.at_floor > self.records):
            raise InputError("more records lie at the floor than there are in a cell", "Count both over all records.")
        if not 0 < self.at_floor.sum() < self.records.sum():
            raise InputError(
                f"{int(self.at_floor.sum()):,} of {int(self.records.sum()):,} records lie at the floor, so nothing "
                "tells one part from the other",
                "Use the model without a floor.",
            )


@dataclass(frozen=True)
class FloorPosterior:
    """Draws of the model of counts at the floor.

    ``logit P(floor) = kind + band + effect_j`` of the group on records without need or on those with need, jointly
    normal: both are told by records of their own, which a level and an extra for need are not.

    Attributes
    ----------
    cells : FloorCells
    kind : array, shape (chains, draws, kinds)
        Log-odds of each kind in the lowest band, in the average group.
    band : array, shape (chains, draws, bands)
        Differences to the lowest band, whose own is zero.
    group_sd : array, shape (chains, draws, 2)
    group_corr : array, shape (chains, draws)
    effects : array, shape (chains, draws, groups, 2)
    sample_stats : xarray.Dataset
    """

    cells: FloorCells
    kind: FloatArray
    band: FloatArray
    group_sd: FloatArray
    group_corr: FloatArray
    effects: FloatArray
    sample_stats: xr.Dataset

    @property
    def shape(self) -> tuple[int, int]:
        """Chains and draws of each."""
        return self.kind.shape[0], self.kind.shape[1]

    def free_parameters(self) -> xr.Dataset:
        """Name the parameters that are not effects of groups."""
        dims = ("chain", "draw")
        return xr.Dataset(
            {
                "kind": ((*dims, "stratum"), self.kind),
                "band": ((*dims, "above_lowest"), self.band[..., 1:]),
                "group_sd": ((*dims, "effect"), self.group_sd),
                "group_correlation": (dims, self.group_corr),
            },
            coords={
                "stratum": list(self.cells.kinds),
                "above_lowest": np.arange(1, self.band.shape[-1]),
                "effect": list(EFFECTS),
            },
        )

    def probability(self, at: tuple[int, int], *, average_group: bool = False) -> FloatArray:
        """Probability of the floor at one draw, shape (groups, kinds, bands); (1, kinds, bands) for the average group.

        Parameters
        ----------
        at : tuple of int
            Chain and draw.
        average_group : bool
            With effects of zero.
        """
        effects = np.zeros((1, 2)) if average_group else self.effects[at]
        own = np.where(self.cells.with_need, effects[:, 1:], effects[:, :1])  # (groups, kinds)
        return np.asarray(expit((self.kind[at] + own)[:, :, None] + self.band[at]))

    def replicated_shares(self, rng: np.random.Generator) -> FloatArray:
        """Shares at the floor by kind in replicates of the same records, shape (draws, kinds); NaN without records."""
        records = self.cells.records
        shares = np.empty((self.shape[0] * self.shape[1], len(self.cells.kinds)))
        total = records.sum(axis=(0, 2))
        for s, at in enumerate(np.ndindex(*self.shape)):
            again = rng.binomial(records, self.probability(at)).sum(axis=(0, 2))
            shares[s] = np.divide(again, total, out=np.full(len(total), np.nan), where=total > 0)
        return shares

    def share_table(self, rng: np.random.Generator) -> pd.DataFrame:
        """Compare shares at the floor with replicates: kind, observed, replicated, lower, upper (95 %)."""
        records = self.cells.records.sum(axis=(0, 2))
        there = records > 0
        again = self.replicated_shares(rng)[:, there]
        lower, upper = np.quantile(again, [_TAIL, 1.0 - _TAIL], axis=0)
        return pd.DataFrame(
            {
                "kind": np.array(self.cells.kinds)[there],
                "observed": self.cells.at_floor.sum(axis=(0, 2))[there] / records[there],
                "replicated": again.mean(axis=0),
                "lower": lower,
                "upper": upper,
            }
        )


def sample_floor(cells: FloorCells, sampling: Sampling | None = None, *, seed: int) -> FloorPosterior:
    """Sample the model of counts at the floor by NUTS, effects of groups as parameters (non-centred).

    Parameters
    ----------
    cells : FloorCells
    sampling : Sampling, optional
    seed : int
        Same seed, same draws.

    Returns
    -------
    FloorPosterior
        Read :func:`send_va.multilevel.convergence.check_convergence` of it before anything else.

    Raises
    ------
    InputError
        A negative seed.
    NotSupportedError
        The sampler is not installed.

    References
    ----------
    Duan, Manning, Morris & Newhouse (1983), doi:10.1080/07350015.1983.10509330 (two-part models).
    """
    if seed < 0:
        raise InputError(f"the seed must be 0 or more, not {seed}")
    sampling = Sampling() if sampling is None else sampling
    tree = _sampled(_model(cells), sampling, seed)
    posterior = tree["posterior"].to_dataset()
    band = posterior["band"].to_numpy()
    return FloorPosterior(
        cells,
        posterior["kind"].to_numpy(),
        np.concatenate([np.zeros((*band.shape[:2], 1)), band], axis=-1),
        posterior["group_sd"].to_numpy(),
        posterior["corr"].to_numpy(),
        posterior["effects"].to_numpy(),
        tree["sample_stats"].to_dataset(),
    )


def _model(cells: FloorCells) -> pm.Model:
    import pymc as pm
    import pytensor.tensor as tensor

    pt: Any = tensor
    group, kind, band = np.nonzero(cells.records)
    which = cells.with_need[kind].astype(int)
    bands, groups = cells.records.shape[2], len(cells.groups)
    overall = float(logit(cells.at_floor.sum() / cells.records.sum()))
    with pm.Model() as model:
        by_kind = pm.Normal("kind", overall, _KIND_SD, shape=len(cells.kinds))
        by_band = pm.Normal("band", 0.0, _BAND_SD, shape=bands - 1)
        sd = pm.HalfNormal("group_sd", _GROUP_SD, shape=len(EFFECTS), initval=np.full(len(EFFECTS), 0.3))
        corr = pm.Uniform("corr", -1.0, 1.0, initval=0.0)
        z = pm.Normal("z", 0.0, 1.0, shape=(groups, len(EFFECTS)))
        without = corr * z[:, 1] + pt.sqrt(1.0 - corr**2) * z[:, 0]
        effects = pm.Deterministic("effects", sd * pt.concatenate([without[:, None], z[:, 1:]], axis=1))
        steps = pt.concatenate([pt.zeros(1), by_band])
        at = by_kind[kind] + steps[band] + effects[group, which]
        pm.Binomial(
            "at_floor", n=cells.records[group, kind, band], logit_p=at, observed=cells.at_floor[group, kind, band]
        )
    return model


def _sampled(model: pm.Model, sampling: Sampling, seed: int) -> xr.DataTree:
    if sampling.sampler == "pymc":
        return by_pymc(model, sampling, seed)
    return by_nutpie(lambda: _compiled(model), sampling, seed)


def _compiled(model: pm.Model) -> Any:
    import nutpie

    return nutpie.compile_pymc_model(model, backend="jax", gradient_backend="jax")
