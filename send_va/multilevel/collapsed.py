"""The Bayesian multilevel model on cross-products, effects of groups integrated out, in PyMC."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from send_va.errors import InputError, NotSupportedError
from send_va.multilevel.collapsed_data import CollapsedData, WhitenedProducts, Whitening
from send_va.multilevel.collapsed_gradient import value_and_gradient
from send_va.multilevel.collapsed_kernels import EFFECTS, workspace
from send_va.multilevel.collapsed_priors import Priors, PriorScales
from send_va.multilevel.collapsed_robust import (
    LEAST_NU,
    NODES,
    NU_RATE,
    NU_SHAPE,
    GroupDistribution,
    check_groups,
    log_node_weights,
    tensor_log_node_weights,
)
from send_va.multilevel.collapsed_robust_kernels import student_value_and_gradient
from send_va.multilevel.crossproducts import FloatArray

if TYPE_CHECKING:
    import pymc as pm

    from send_va.multilevel.collapsed_op import MarginalLikelihood

_LOG_2PI = float(np.log(2.0 * np.pi))
_NU_START = 8.0  # of nu less two


@dataclass(frozen=True)
class Start:
    """Where sampling begins, and the scale on which coefficients are sampled: a fit by REML.

    Attributes
    ----------
    beta : array, shape (p,)
        Of centred columns.
    beta_cov : array, shape (p, p)
    group_cov : array, shape (q, q)
    residual_variance : array, shape (S,)
    outer_variance : array, shape (q2,)
    """

    beta: FloatArray
    beta_cov: FloatArray
    group_cov: FloatArray
    residual_variance: FloatArray
    outer_variance: FloatArray

    def __post_init__(self) -> None:
        """Refuse a start from which no sampler can move."""
        for name, value in vars(self).items():
            if not np.all(np.isfinite(value)):
                raise InputError(f"the start of {name} is not finite", "Start from a fit that converged.")


@dataclass(frozen=True)
class CollapsedModel:
    """A collapsed model, ready to be sampled.

    Attributes
    ----------
    data : CollapsedData
    priors : Priors
    scales : PriorScales
    start : Start
    whitening : Whitening
    products : WhitenedProducts
    groups : str
        ``normal`` effects of groups, or ``student_t``, whose degrees of freedom ``nu`` are one more parameter.
    """

    data: CollapsedData
    priors: Priors
    scales: PriorScales
    start: Start
    whitening: Whitening
    products: WhitenedProducts
    groups: GroupDistribution = "normal"

    @classmethod
    def of(
        cls,
        data: CollapsedData,
        start: Start,
        priors: Priors | None = None,
        *,
        scales: PriorScales | None = None,
        groups: str = "normal",
    ) -> CollapsedModel:
        """Put priors on the scale of the outcome and change to coordinates that are easy to sample.

        Parameters
        ----------
        data : CollapsedData
        start : Start
        priors : Priors, optional
        scales : PriorScales, optional
            The priors themselves, where they must not depend on the outcomes of `data`: for simulated outcomes.
        groups : str
            ``normal``; or ``student_t``, with which one outlying group neither widens the distribution of the others
            nor is drawn in as far as they are.

        Raises
        ------
        InputError
            A constant outcome or column; a start that is not finite; an unknown distribution.
        NotSupportedError
            Student-t effects of groups under an outer level.
        """
        distribution = check_groups(groups)
        if distribution == "student_t" and data.parent is not None:
            raise NotSupportedError(
                "student_t effects of groups cannot stand under an outer level (an authority level), whose effects "
                "could not be integrated out: leave the outer level out (la_level = false), or use normal effects."
            )
        priors = Priors() if priors is None else priors
        scales = PriorScales.of(priors, data) if scales is None else scales
        whitening = Whitening.of(scales.mean, scales.sd, start.beta, np.linalg.inv(start.beta_cov))
        return cls(data, priors, scales, start, whitening, WhitenedProducts.of(data, whitening), distribution)

    @property
    def constant(self) -> float:
        """What the log-likelihood has that no parameter changes."""
        return 0.5 * (float(self.data.log_weights.sum()) - self.data.n_records * _LOG_2PI)

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """What the kernel of this model takes beside parameters, in its order."""
        if self.groups == "student_t":
            return (*self.products.sums(self.data), NODES)
        return self.products.arrays(self.data)

    def log_likelihood(
        self,
        beta: FloatArray,
        group_cov: FloatArray,
        residual_variance: FloatArray,
        outer_variance: FloatArray,
        nu: float = np.inf,
    ) -> float:
        """Marginal log-likelihood at given parameters, effects integrated out, constants included.

        Parameters
        ----------
        beta : array, shape (p,)
            Of centred columns.
        group_cov : array, shape (q, q)
            The scale matrix where effects are Student-t.
        residual_variance : array, shape (S,)
        outer_variance : array, shape (q2,)
        nu : float
            Degrees of freedom of Student-t effects; read for these only.
        """
        data, robust = self.data, self.groups == "student_t"
        evaluate: Any = student_value_and_gradient if robust else value_and_gradient
        value = evaluate(
            self.whitening.coordinates(beta),
            padded_lower(np.linalg.cholesky(group_cov)),
            np.asarray(residual_variance, dtype=np.float64),
            log_node_weights(nu) if robust else padded_sd(np.sqrt(outer_variance), data.outer_effects),
            *self.arrays(),
            workspace(*self.products.r0.shape[:2]),
        )[0]
        return float(value) + self.constant

    def build(self) -> BuiltModel:
        """Build the model in PyMC: parameters with their priors, and the marginal likelihood as a potential.

        Variables are ``w`` (coordinates of the coefficients), ``group_sd_signed``, ``outer_sd_signed``, ``residual_sd``
        and, with several effects, ``group_corr_chol``; with Student-t effects ``nu_above``, which is nu less two. The
        likelihood depends on squares of the signed SDs (and on
        products of two with their correlation), so that their absolute values are half-normal a priori, and a variance
        of zero is no edge of the space.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="PyTensor could not link")  # nothing here needs its BLAS
            import pymc as pm
            import pytensor.tensor as tensor

        from send_va.multilevel.collapsed_op import MarginalLikelihood

        pt: Any = tensor

        data, scales, start, q = self.data, self.scales, self.start, len(self.data.effects)
        robust = self.groups == "student_t"
        likelihood: Any = MarginalLikelihood(
            self.arrays(), student_value_and_gradient if robust else value_and_gradient
        )
        with pm.Model(coords=self.coords) as model:
            white = self.whitening
            w = pm.Normal(
                "w", white.prior_mean, white.prior_sd, dims="coefficient", initval=np.zeros(len(data.columns))
            )
            begin = np.sqrt(np.maximum(np.diag(start.group_cov), (0.1 * scales.group_sd) ** 2))
            lower = pm.Normal("group_sd_signed", 0.0, scales.group_sd, dims="effect", initval=begin)[:, None]
            if q > 1:
                lower = lower * pm.LKJCorr("group_corr_chol", n=q, eta=scales.correlation, dims=("effect", "effect_"))
            lower = pt.set_subtensor(pt.zeros((EFFECTS, EFFECTS))[:q, :q], lower)
            begin = np.sqrt(start.residual_variance)
            residual_sd = pm.HalfNormal("residual_sd", scales.residual_sd, dims="stratum", initval=begin)
            outer_sd: Any = pt.zeros(EFFECTS)
            if data.outer_effects:
                begin = np.sqrt(np.maximum(start.outer_variance, (0.1 * scales.outer_sd) ** 2))
                signed = pm.Normal("outer_sd_signed", 0.0, scales.outer_sd, dims="outer_effect", initval=begin)
                outer_sd = pt.set_subtensor(outer_sd[np.array(data.outer_effects)], signed)
            last = outer_sd
            if robust:
                last = tensor_log_node_weights(LEAST_NU + pm.Gamma("nu_above", NU_SHAPE, NU_RATE, initval=_NU_START))
            parameters = (w, lower, residual_sd**2, last)
            pm.Potential("marginal_likelihood", likelihood(*parameters)[0] + self.constant)
        return BuiltModel(model, likelihood, parameters, self.constant)

    @property
    def coords(self) -> dict[str, list[str]]:
        """Names along every dimension of the parameters."""
        effects = list(self.data.effects)
        return {
            "coefficient": list(self.data.columns),
            "effect": effects,
            "effect_": effects,
            "outer_effect": [effects[at] for at in self.data.outer_effects],
            "stratum": list(self.data.strata),
        }


@dataclass(frozen=True)
class BuiltModel:
    """A collapsed model in PyMC.

    Attributes
    ----------
    model : pymc.Model
    likelihood : MarginalLikelihood
    parameters : tuple of PyTensor variables
        What the likelihood takes: coordinates, factor, residual variances, and outer SDs or weights of nodes.
    constant : float
        Added to the likelihood.
    """

    model: pm.Model
    likelihood: MarginalLikelihood
    parameters: tuple[Any, ...]
    constant: float


def padded_lower(lower: FloatArray) -> FloatArray:
    """A factor (q, q) as the kernels take it, (3, 3)."""
    out = np.zeros((EFFECTS, EFFECTS))
    out[: len(lower), : len(lower)] = lower
    return out


def padded_sd(sd: FloatArray, places: tuple[int, ...]) -> FloatArray:
    """SDs of the outer level as the kernels take them, (3,): zero for effects it does not have."""
    out = np.zeros(EFFECTS)
    out[list(places)] = sd
    return out
