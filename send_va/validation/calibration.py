"""Simulation-based calibration: parameters from the prior, data from the model, and the rank of the truth.

If parameters are drawn from the prior, data given them, and draws from the posterior given the data, the rank of every
parameter (and of every function of parameters and data) among its draws is uniform. A sampler, a likelihood or a
simulator that is wrong shows as ranks that are not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from arviz_stats.base import array_stats
from numpy.typing import NDArray

from send_va.errors import ConvergenceError, InputError
from send_va.validation.uniformity import RankUniformity, rank_uniformity

Floats = NDArray[np.float64]
Integers = NDArray[np.integer]

DRAWS = 99  # one hundred values of a rank
AUTOCORRELATED = "fewer effective draws than ranks need"
NO_RANK = -1


@dataclass(frozen=True)
class PosteriorDraws:
    """What a posterior returns for one data set.

    Attributes
    ----------
    draws : array, shape (chains, draws, p)
        Of the parameters, in the order of their names.
    problems : tuple of str
        Kinds of trouble (``"divergences"``, ``"R-hat above 1.01"``), without numbers so that they can be counted.
    independent : bool
        Exact draws, not those of a Markov chain: their effective number is not estimated.
    """

    draws: Floats
    problems: tuple[str, ...] = ()
    independent: bool = False


@dataclass(frozen=True)
class GenerativeModel[Data]:
    """A prior, a simulator and a posterior that are supposed to belong together.

    Attributes
    ----------
    names : tuple of str, length p
        Parameters to be ranked. Effects of single schools may be among them: `draw_prior` then draws them too.
    draw_prior : callable
        Generator -> parameters, shape (p,).
    simulate : callable
        Parameters and generator -> data.
    posterior : callable
        Data and generator -> PosteriorDraws. Raises ConvergenceError where it has no draws to give.
    quantities : mapping of str to callable
        Further quantities to rank: parameters, shape (k, p), and data -> values, shape (k,). The log-likelihood is the
        one to have: a posterior that ignores the data passes on every parameter, and fails on it.
    """

    names: tuple[str, ...]
    draw_prior: Callable[[np.random.Generator], Floats]
    simulate: Callable[[Floats, np.random.Generator], Data]
    posterior: Callable[[Data, np.random.Generator], PosteriorDraws]
    quantities: Mapping[str, Callable[[Floats, Data], Floats]] = field(default_factory=dict)

    @property
    def ranked(self) -> tuple[str, ...]:
        """Names of everything that is ranked: parameters, then quantities."""
        return (*self.names, *self.quantities)


@dataclass(frozen=True)
class SimulatedRanks:
    """Ranks of the truth, one row a simulation, whatever became of it.

    Attributes
    ----------
    names : tuple of str, length r
    draws : int
        L: ranks are 0 to L.
    ranks : integer array, shape (simulations, r)
        -1 throughout a simulation whose posterior failed.
    effective : array, shape (simulations,)
        Smallest bulk effective sample size over parameters, before thinning; missing where the posterior failed.
    problems : tuple of tuple of str
        Kinds of trouble of every simulation; those of a failed one begin with ``"failed: "``.
    """

    names: tuple[str, ...]
    draws: int
    ranks: Integers
    effective: Floats
    problems: tuple[tuple[str, ...], ...]

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Simulations without ranks, shape (simulations,)."""
        return np.asarray((self.ranks == NO_RANK).any(axis=1))

    def problem_table(self) -> pd.DataFrame:
        """Kinds of trouble with the number and share of simulations that had them."""
        counted = Counter(kind for kinds in self.problems for kind in sorted(set(kinds)))
        table = pd.DataFrame(sorted(counted.items()), columns=["problem", "simulations"])
        return table.assign(share=table["simulations"] / max(len(self.ranks), 1))

    def to_frame(self) -> pd.DataFrame:
        """One row a simulation: effective, problems (joined by ``"; "``) and a column for every rank."""
        frame = pd.DataFrame(self.ranks, columns=list(self.names))
        frame.insert(0, "effective", self.effective)
        frame.insert(1, "problems", ["; ".join(kinds) for kinds in self.problems])
        return frame

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, draws: int) -> SimulatedRanks:
        """Read back what :meth:`to_frame` wrote; frames of several runs may be stacked."""
        names = tuple(str(name) for name in frame.columns if name not in ("effective", "problems"))
        return cls(
            names=names,
            draws=draws,
            ranks=frame[list(names)].to_numpy(dtype=np.int64),
            effective=frame["effective"].to_numpy(dtype=np.float64),
            problems=tuple(tuple(text.split("; ")) if text else () for text in frame["problems"].astype(str)),
        )


@dataclass(frozen=True)
class Calibration:
    """Result of simulation-based calibration.

    Attributes
    ----------
    ranks : SimulatedRanks
    uniformity : RankUniformity
        Of the simulations that have ranks.
    """

    ranks: SimulatedRanks
    uniformity: RankUniformity

    @property
    def calibrated(self) -> bool:
        """Every parameter inside its band, and no simulation without ranks: those left out might be the bad ones."""
        return self.uniformity.uniform and not bool(self.ranks.failed.any())

    def table(self) -> pd.DataFrame:
        """One row a parameter: :meth:`RankUniformity.table` with the number of simulations that failed."""
        return self.uniformity.table().assign(failed=int(self.ranks.failed.sum()))

    def __str__(self) -> str:
        problems = self.ranks.problem_table()
        lines = [str(self.uniformity)]
        lines += [
            f"{row.simulations} of {len(self.ranks.ranks)} simulations: {row.problem}" for row in problems.itertuples()
        ]
        return "\n".join(lines if len(problems) else [*lines, "No simulation failed or had problems."])

    def _repr_html_(self) -> str:
        return str(self.table().to_html(index=False)) + str(self.ranks.problem_table().to_html(index=False))


def simulation_based_calibration[Data](
    model: GenerativeModel[Data],
    simulations: int,
    rng: np.random.Generator,
    *,
    draws: int = DRAWS,
    confidence: float = 0.99,
    bins: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Calibration:
    """Check that a posterior is the posterior of its prior and simulator.

    Parameters
    ----------
    model : GenerativeModel
    simulations : int
        At least 20. Of ten parameters with normal posteriors, 500 see an SD 20 % too small with probability .93 and a
        shift by .3 SD with .99; 100 see an SD 40 % too small with .92 and a shift by .5 SD with .86, but an SD 20 % too
        small with .07 only. An SD too large is harder to see: 25 % with .79 by 500.
    rng : numpy.random.Generator
        Spawns one generator a simulation: same seed, same bytes, whatever order or share of them is run.
    draws : int, default 99
        L, the draws each truth is ranked among, thinned from those of the posterior.
    confidence, bins
        Of :func:`send_va.validation.uniformity.rank_uniformity`.
    progress : callable, optional
        Called with the number of simulations done.

    Returns
    -------
    Calibration
        ``calibrated`` is the answer, ``table()`` says what is wrong, ``ranks.problem_table()`` what went wrong on the
        way: simulations with problems keep their ranks, failed ones have none and are counted.

    Raises
    ------
    InputError
        Fewer than 20 simulations; draws of a shape that does not fit the names, or fewer than L of them.

    References
    ----------
    Talts, Betancourt, Simpson, Vehtari & Gelman (2018), arXiv:1804.06788.
    Modrak et al. (2023), doi:10.1214/23-BA1404 (which quantities to rank).
    Sailynoja, Buerkner & Vehtari (2022), doi:10.1007/s11222-022-10090-6 (bands).

    Examples
    --------
    >>> import numpy as np
    >>> model = GenerativeModel(  # mu ~ N(0, 1), one observation with variance 1
    ...     names=("mu",),
    ...     draw_prior=lambda rng: rng.standard_normal(1),
    ...     simulate=lambda mu, rng: float(mu[0] + rng.standard_normal()),
    ...     posterior=lambda y, rng: PosteriorDraws(y / 2 + rng.standard_normal((1, 99, 1)) / 2**0.5, independent=True),
    ... )
    >>> found = simulation_based_calibration(model, 200, np.random.default_rng(1))
    >>> found.calibrated, found.table()["diagnosis"].tolist()
    (True, ['uniform'])
    """
    return calibration(simulated_ranks(model, rng.spawn(simulations), draws=draws, progress=progress), confidence, bins)


def calibration(ranks: SimulatedRanks, confidence: float = 0.99, bins: int | None = None) -> Calibration:
    """Test the ranks of simulations that have them; :class:`Calibration` counts the others."""
    there = ranks.ranks[~ranks.failed]
    return Calibration(ranks, rank_uniformity(there, ranks.draws, ranks.names, confidence=confidence, bins=bins))


def simulated_ranks[Data](
    model: GenerativeModel[Data],
    rngs: Sequence[np.random.Generator],
    *,
    draws: int = DRAWS,
    progress: Callable[[int], None] | None = None,
) -> SimulatedRanks:
    """Simulate and rank, once for every generator given.

    Parameters
    ----------
    model : GenerativeModel
    rngs : sequence of numpy.random.Generator
        ``rng.spawn(simulations)``, or a slice of it: a long study can be done in parts and stacked.
    draws : int
    progress : callable, optional

    Returns
    -------
    SimulatedRanks
    """
    rows, effective, problems = [], [], []
    for done, rng in enumerate(rngs, start=1):
        rank, size, kinds = _one(model, rng, draws)
        rows.append(rank)
        effective.append(size)
        problems.append(kinds)
        if progress is not None:
            progress(done)
    ranks = np.array(rows, dtype=np.int64).reshape(len(rows), len(model.ranked))
    return SimulatedRanks(model.ranked, draws, ranks, np.array(effective), tuple(problems))


def _one[Data](
    model: GenerativeModel[Data], rng: np.random.Generator, draws: int
) -> tuple[Integers, float, tuple[str, ...]]:
    """Ranks (r,) of one simulation, effective draws before thinning, and problems."""
    truth = np.asarray(model.draw_prior(rng), dtype=np.float64)
    if truth.shape != (len(model.names),):
        raise InputError(f"the prior drew parameters of shape {truth.shape} for {len(model.names)} names")
    data = model.simulate(truth, rng)
    try:
        found = model.posterior(data, rng)
    except ConvergenceError as error:
        return np.full(len(model.ranked), NO_RANK), float("nan"), (f"failed: {error}",)
    _require_draws(found.draws, model.names, draws)
    size = float(np.prod(found.draws.shape[:2])) if found.independent else effective_draws(found.draws)
    problems = (*found.problems, AUTOCORRELATED) if size < draws else found.problems
    kept = thinned(found.draws, draws)
    known = np.vstack([truth, kept])  # (1 + L, p)
    values = np.column_stack([known, *(quantity(known, data) for quantity in model.quantities.values())])
    return ranks_of(values[0], values[1:], rng), size, problems


def _require_draws(drawn: Floats, names: Sequence[str], draws: int) -> None:
    if drawn.ndim != 3 or drawn.shape[2] != len(names):
        raise InputError(f"posterior draws have shape {drawn.shape}", f"Give (chains, draws, {len(names)}).")
    if drawn.shape[0] * drawn.shape[1] < draws:
        raise InputError(
            f"a posterior of {drawn.shape[0] * drawn.shape[1]} draws cannot be thinned to {draws}", "Draw more."
        )
    if not np.isfinite(drawn).all():
        bad = ", ".join(name for name, wrong in zip(names, ~np.isfinite(drawn).all(axis=(0, 1)), strict=True) if wrong)
        raise InputError(f"posterior draws of {bad} are not finite", "Raise ConvergenceError where sampling failed.")


def effective_draws(drawn: Floats) -> float:
    """Smallest bulk effective sample size over parameters.

    Parameters
    ----------
    drawn : array, shape (chains, draws, p)
        A parameter that never changes counts as known: it does not make the size small.

    References
    ----------
    Vehtari, Gelman, Simpson, Carpenter & Buerkner (2021), doi:10.1214/20-BA1221.
    """
    sizes = np.asarray(array_stats.ess(drawn, chain_axis=0, draw_axis=1), dtype=np.float64)
    constant = np.ptp(drawn, axis=(0, 1)) == 0.0
    return float(np.where(constant, drawn.shape[0] * drawn.shape[1], sizes).min())


def thinned(drawn: Floats, draws: int) -> Floats:
    """Keep `draws` equally spaced draws of all chains after each other, shape (draws, p).

    With as many effective draws as are kept, those kept are nearly independent.

    Examples
    --------
    >>> thinned(np.arange(8.0).reshape(2, 4, 1), 4)[:, 0]
    array([1., 3., 5., 7.])
    """
    flat = drawn.reshape(-1, drawn.shape[2])
    return np.asarray(flat[((np.arange(draws) + 0.5) * len(flat) / draws).astype(np.intp)])


def ranks_of(truth: Floats, drawn: Floats, rng: np.random.Generator) -> Integers:
    """How many draws lie below the truth, ties broken at random.

    Parameters
    ----------
    truth : array, shape (r,)
    drawn : array, shape (draws, r)
    rng : numpy.random.Generator

    Returns
    -------
    integer array, shape (r,)
        0 to draws. A tie of t draws with the truth puts it at any of t + 1 places with equal probability: ranks of a
        discrete quantity, or of a variance at its boundary, are uniform too.
    """
    below, ties = (drawn < truth).sum(axis=0), (drawn == truth).sum(axis=0)
    return np.asarray(below + rng.integers(0, ties + 1))
