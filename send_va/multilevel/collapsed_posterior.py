"""The posterior of a collapsed model: draws of all parameters, and exact draws of the effects of groups given them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from send_va.errors import InputError
from send_va.multilevel.collapsed import CollapsedModel, padded_lower, padded_sd
from send_va.multilevel.collapsed_kernels import (
    EFFECTS,
    draw_effects_at,
    log_likelihood_by_group,
    residual_products,
    workspace,
)
from send_va.multilevel.collapsed_robust import LEAST_NU, NODES, draw_nu, inflation, log_node_weights
from send_va.multilevel.collapsed_robust_kernels import draw_student_effects_at, student_log_likelihood_by_group
from send_va.multilevel.crossproducts import FloatArray
from send_va.multilevel.nuts import Sampling, sample
from send_va.multilevel.threads import one_blas_thread

_LOG_2PI = float(np.log(2.0 * np.pi))
_BLOCK = 64  # draws whose sums of squares are worked out together


@dataclass(frozen=True)
class EffectDraws:
    """Effects of groups, of both levels together, in outcome units.

    Attributes
    ----------
    draws : array, shape (draws, groups, q)
    mean : array, shape (groups, q)
        Posterior mean: conditional means averaged over draws of the parameters.
    covariance : array, shape (groups, q, q)
        Posterior covariance, worked out likewise.
    """

    draws: FloatArray
    mean: FloatArray
    covariance: FloatArray


@dataclass(frozen=True)
class CollapsedPosterior:
    """Draws from the posterior of a collapsed model.

    Attributes
    ----------
    model : CollapsedModel
    beta : array, shape (chains, draws, p)
        Coefficients of the centred columns.
    group_cov : array, shape (chains, draws, q, q)
    outer_sd : array, shape (chains, draws, q2)
    residual_sd : array, shape (chains, draws, S)
    sample_stats : xarray.Dataset
        Of the sampler: divergences, energy, step sizes, steps.
    sampling : Sampling
    seed : int
    nu : array, shape (chains, draws), optional
        Degrees of freedom of Student-t effects. `group_cov` is their scale matrix then, `effect_cov` their covariance.
    """

    model: CollapsedModel
    beta: FloatArray
    group_cov: FloatArray
    outer_sd: FloatArray
    residual_sd: FloatArray
    sample_stats: xr.Dataset
    sampling: Sampling
    seed: int
    nu: FloatArray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Chains and draws of each."""
        return self.beta.shape[0], self.beta.shape[1]

    @property
    def effect_cov(self) -> FloatArray:
        """Covariance of the effects between groups, shape (chains, draws, q, q): `group_cov` but for Student-t."""
        if self.nu is None:
            return self.group_cov
        return np.asarray(self.group_cov * inflation(self.nu)[..., None, None])

    @property
    def between_cov(self) -> FloatArray:
        """Covariance of both levels' effects together between groups, shape (chains, draws, q, q)."""
        between = self.effect_cov.copy()
        for k, at in enumerate(self.model.data.outer_effects):
            between[..., at, at] += self.outer_sd[..., k] ** 2
        return between

    @property
    def group_sd(self) -> FloatArray:
        """SDs between groups, shape (chains, draws, q); scales where effects are Student-t."""
        return np.asarray(np.sqrt(np.einsum("...aa->...a", self.group_cov)))

    @property
    def group_corr(self) -> FloatArray:
        """Correlations between effects of a group, shape (chains, draws, q, q)."""
        sd = self.group_sd
        return np.asarray(self.group_cov / (sd[..., :, None] * sd[..., None, :]))

    def parameters(self) -> xr.Dataset:
        """Name all parameters: dims (chain, draw) and those of each."""
        data = self.model.data
        outer = [data.effects[at] for at in data.outer_effects]
        dims = ("chain", "draw")
        tails = {} if self.nu is None else {"nu": (dims, self.nu)}
        return xr.Dataset(
            {
                "beta": ((*dims, "coefficient"), self.beta),
                "group_sd": ((*dims, "effect"), self.group_sd),
                "group_corr": ((*dims, "effect", "effect_"), self.group_corr),
                "outer_sd": ((*dims, "outer_effect"), self.outer_sd),
                "residual_sd": ((*dims, "stratum"), self.residual_sd),
                **tails,
            },
            coords={
                "chain": np.arange(self.shape[0]),
                "draw": np.arange(self.shape[1]),
                "coefficient": list(data.columns),
                "effect": list(data.effects),
                "effect_": list(data.effects),
                "outer_effect": outer,
                "stratum": list(data.strata),
            },
        )

    def free_parameters(self) -> xr.Dataset:
        """:meth:`parameters` without what is fixed or doubled: correlations as pairs, nothing of size zero."""
        named = self.parameters()
        effects = self.model.data.effects
        rows, columns = np.tril_indices(len(effects), -1)
        free = named.drop_vars(["group_corr", "effect_"])
        if len(rows):
            pairs = [f"{effects[a]}, {effects[b]}" for a, b in zip(rows, columns, strict=True)]
            corr = self.group_corr[..., rows, columns]
            free["group_corr"] = xr.DataArray(corr, dims=("chain", "draw", "pair"), coords={"pair": pairs})
        return free.drop_vars([name for name, values in free.data_vars.items() if not values.size])

    def log_prior(self) -> dict[str, FloatArray]:
        """Log prior density by kind of parameter, shapes (chains, draws); for power-scaling."""
        return self.model.scales.log_density(
            self.beta, self.group_sd, self.group_corr, self.outer_sd, self.residual_sd, self.nu
        )

    def thinned(self, draws: int) -> CollapsedPosterior:
        """Keep `draws` draws over all chains, evenly spaced; all of them where there are fewer."""
        chains, have = self.shape
        each = min(have, -(-draws // chains))
        at = np.floor((np.arange(each) + 0.5) * have / each).astype(int)
        return replace(
            self,
            beta=self.beta[:, at],
            group_cov=self.group_cov[:, at],
            outer_sd=self.outer_sd[:, at],
            residual_sd=self.residual_sd[:, at],
            sample_stats=self.sample_stats.isel(draw=at),
            nu=None if self.nu is None else self.nu[:, at],
        )

    @one_blas_thread
    def effects(self, rng: np.random.Generator) -> EffectDraws:
        """Draw the effects of all groups once for every draw of the parameters, from their exact conditional law.

        That is a normal one; for Student-t effects, a mixture of normals over nodes of lambda.

        Returns
        -------
        EffectDraws
            In the order of chains, then draws. Add the outer level's effects: a school's with its authority's.
        """
        data = self.model.data
        groups, q = len(data.groups), len(data.effects)
        outer = max(len(data.outer), 1)
        total = self.shape[0] * self.shape[1]
        out = np.empty((total, groups, q))
        first, second = np.zeros((groups, EFFECTS)), np.zeros((groups, EFFECTS, EFFECTS))
        drawn = np.empty((groups, EFFECTS))

        def one(s: int, precision: FloatArray, lower: FloatArray, last: FloatArray, work: Any) -> None:
            noise = rng.standard_normal((groups, EFFECTS))
            if self.nu is not None:
                uniform = rng.random(groups)
                draw_student_effects_at(
                    precision, lower, last, NODES, data.zz, work, noise, uniform, drawn, first, second
                )
            else:
                above = rng.standard_normal((outer, EFFECTS))
                draw_effects_at(precision, lower, last, data.zz, data.parents, work, noise, above, drawn, first, second)
            out[s] = drawn[:, :q]

        self._for_each(one)
        mean = first[:, :q] / total
        return EffectDraws(out, mean, second[:, :q, :q] / total - mean[:, :, None] * mean[:, None, :])

    def log_likelihood(self) -> FloatArray:
        """Log-likelihood of every group given the others and the parameters, shape (chains, draws, groups).

        Effects of the group are integrated out, so that leaving one group out is what leave-one-out with these values
        approximates. Without an outer level they add up to the log-likelihood.
        """
        data = self.model.data
        squares = np.empty((self.shape[0] * self.shape[1], len(data.groups)))
        flat = data.own.reshape(len(data.strata), len(data.groups), -1)
        beta, sd = self.beta.reshape(len(squares), -1), self.residual_sd.reshape(len(squares), -1)
        for start in range(0, len(squares), _BLOCK):
            at = slice(start, start + _BLOCK)
            d = np.column_stack([-beta[at], np.ones(len(beta[at]))])
            pairs = (d[:, :, None] * d[:, None, :]).reshape(len(d), -1)
            squares[at] = 0.0
            for s, products in enumerate(flat):
                variance = sd[at, s][:, None] ** 2
                squares[at] += pairs @ products.T / variance + data.counts[s] * (np.log(variance) + _LOG_2PI)
                squares[at] -= data.log_weights[s]
        out = np.empty_like(squares)

        def one(s: int, precision: FloatArray, lower: FloatArray, last: FloatArray, work: Any) -> None:
            if self.nu is not None:
                student_log_likelihood_by_group(precision, lower, last, NODES, data.zz, work, squares[s], out[s])
            else:
                log_likelihood_by_group(precision, lower, last, data.zz, data.parents, work, squares[s], out[s])

        self._for_each(one)
        return out.reshape(*self.shape, -1)

    def joint_log_likelihood(self) -> FloatArray:
        """Log-likelihood of all records, shape (chains, draws)."""
        out = np.empty(self.shape)
        for chain, draw in np.ndindex(*self.shape):
            out[chain, draw] = self.model.log_likelihood(
                self.beta[chain, draw],
                self.group_cov[chain, draw],
                self.residual_sd[chain, draw] ** 2,
                self.outer_sd[chain, draw] ** 2,
                np.inf if self.nu is None else float(self.nu[chain, draw]),
            )
        return out

    def residual_sums(self, at: tuple[int, int]) -> tuple[FloatArray, FloatArray]:
        """Precision-weighted products of a group's effect columns with its residuals, and with one another.

        Parameters
        ----------
        at : tuple of int
            Chain and draw whose coefficients and residual variances are used.

        Returns
        -------
        sums, products : array, shapes (groups, q) and (groups, q, q)
        """
        data, q = self.model.data, len(self.model.data.effects)
        precision = 1.0 / self.residual_sd[at] ** 2
        direction = np.append(-self.beta[at], 1.0)
        sums = np.einsum("gsam,m,s->ga", data.zm, direction, precision, optimize=True)
        return sums[:, :q], np.einsum("gsab,s->gab", data.zz, precision)[:, :q, :q]

    def _for_each(self, one: Callable[..., None]) -> None:
        """Call `one` for every draw, with the products of its residuals in the arrays it works in.

        The last parameter it is given is the SDs of the outer level or, for Student-t effects, the weights of nodes.
        """
        data, model = self.model.data, self.model
        work = workspace(len(data.groups), len(data.strata))
        for s, (chain, draw) in enumerate(np.ndindex(*self.shape)):
            w = model.whitening.coordinates(self.beta[chain, draw])
            residual_products(model.products.r0, model.products.re, w, work)
            covariance = self.group_cov[chain, draw]
            one(
                s,
                1.0 / self.residual_sd[chain, draw] ** 2,
                padded_lower(root_of(covariance)),
                padded_sd(self.outer_sd[chain, draw], data.outer_effects)
                if self.nu is None
                else log_node_weights(float(self.nu[chain, draw])),
                work,
            )


def prior_draws(model: CollapsedModel, count: int, rng: np.random.Generator) -> CollapsedPosterior:
    """Draw from the prior, in the form of a posterior with one chain."""
    drawn = model.scales.draw(rng, count)
    covariance = drawn.group_sd[:, :, None] * drawn.group_corr * drawn.group_sd[:, None, :]
    none = xr.Dataset({"diverging": (("chain", "draw"), np.zeros((1, count), dtype=bool))})
    return CollapsedPosterior(
        model,
        drawn.beta[None],
        covariance[None],
        drawn.outer_sd[None],
        drawn.residual_sd[None],
        none,
        Sampling(),
        0,
        draw_nu(rng, count)[None] if model.groups == "student_t" else None,
    )


def root_of(covariance: FloatArray) -> FloatArray:
    """Lower-triangular factor; a variance of (nearly) zero is allowed."""
    size = np.diag(covariance)
    return np.linalg.cholesky(covariance + np.diag(1e-12 * np.maximum(size, size.max())))


@one_blas_thread
def sample_posterior(
    model: CollapsedModel,
    sampling: Sampling | None = None,
    *,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> CollapsedPosterior:
    """Sample the parameters of a collapsed model by NUTS.

    Parameters
    ----------
    model : CollapsedModel
    sampling : Sampling, optional
    seed : int
        Same seed, same draws.
    progress : callable, optional
        Called with the number of draws done.

    Returns
    -------
    CollapsedPosterior
        Read :func:`send_va.multilevel.convergence.check_convergence` of it before anything else.

    Raises
    ------
    InputError
        A negative seed.
    NotSupportedError
        The sampler is not installed.

    References
    ----------
    Hoffman & Gelman (2014), The No-U-Turn Sampler, JMLR 15, 1593-1623.

    Examples
    --------
    >>> from send_va.multilevel.collapsed import Start
    >>> from send_va.multilevel.collapsed_data import collapsed_data
    >>> from send_va.multilevel.crossproducts import cross_products
    >>> rng = np.random.default_rng(1)
    >>> school = np.repeat(np.arange(30), 20)
    >>> y = 2.0 + rng.normal(size=30)[school] + rng.normal(size=600)
    >>> products = cross_products(np.column_stack([np.ones(600), y]), school, 30, ["Intercept", "y"])
    >>> data = collapsed_data([products], fixed=["Intercept"], random=["Intercept"], outcome="y", groups=range(30))
    >>> start = Start(np.array([2.0]), np.array([[0.03]]), np.eye(1), np.ones(1), np.zeros(0))
    >>> posterior = sample_posterior(CollapsedModel.of(data, start), seed=1)
    >>> posterior.shape, bool(0.7 < posterior.group_sd.mean() < 1.3)
    ((4, 1000), True)
    """
    if seed < 0:
        raise InputError(f"the seed must be 0 or more, not {seed}")
    sampling = Sampling() if sampling is None else sampling
    tree = sample(model, sampling, seed, progress)
    posterior = tree["posterior"].to_dataset()
    signed = posterior["group_sd_signed"].to_numpy()
    lower = signed[..., None] * (
        posterior["group_corr_chol"].to_numpy() if signed.shape[-1] > 1 else np.ones((*signed.shape, 1))
    )
    none = np.zeros((*signed.shape[:2], 0))
    return CollapsedPosterior(
        model=model,
        beta=model.whitening.beta(posterior["w"].to_numpy()),
        group_cov=lower @ np.swapaxes(lower, -1, -2),
        outer_sd=np.abs(posterior["outer_sd_signed"].to_numpy()) if "outer_sd_signed" in posterior else none,
        residual_sd=posterior["residual_sd"].to_numpy(),
        sample_stats=tree["sample_stats"].to_dataset(),
        sampling=sampling,
        seed=seed,
        nu=LEAST_NU + posterior["nu_above"].to_numpy() if "nu_above" in posterior else None,
    )
