"""The Laplace core: exact where the likelihood is Gaussian, and against brute force where it is not."""

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.integrate import nquad
from scipy.optimize import minimize
from scipy.stats import binom, multivariate_normal, norm

from send_va.errors import InputError
from send_va.multilevel import laplace_criterion
from send_va.multilevel.laplace import fit_laplace
from send_va.multilevel.laplace_criterion import LaplaceCriterion
from send_va.multilevel.latent_system import LatentSystem, Term
from send_va.multilevel.likelihoods import Binomial, Ordinal

LOG_2PI = np.log(2 * np.pi)


@dataclass(frozen=True)
class Gaussian:
    """Normal responses (n, d), independent given their predictors; its shape is the log SD of each of the d."""

    y: np.ndarray
    shape: np.ndarray = field(default_factory=lambda: np.zeros(0))
    sd: tuple[float, ...] = (1.0,)

    @property
    def d(self) -> int:
        return self.y.shape[1]

    @property
    def sds(self) -> np.ndarray:
        return np.exp(self.shape) if len(self.shape) else np.array(self.sd)

    def with_shape(self, shape: np.ndarray) -> "Gaussian":
        return replace(self, shape=np.array(shape))

    def value(self, eta: np.ndarray) -> float:
        return float(norm.logpdf(self.y, eta, self.sds).sum())

    def derivatives(self, eta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        precision = 1.0 / self.sds**2
        curvature = np.tile(np.diag(precision), (len(eta), 1, 1))
        return self.value(eta), (self.y - eta) * precision, curvature

    def third(self, eta: np.ndarray) -> np.ndarray:
        return np.zeros((len(eta), self.d, self.d, self.d))

    def of_rows(self, rows: np.ndarray) -> "Gaussian":
        return replace(self, y=self.y[rows])


@dataclass(frozen=True)
class Model:
    """Forty rows with two predictors: an outer factor with a slope, crossed with two more."""

    x: np.ndarray
    terms: tuple[Term, ...]
    offset: np.ndarray
    parameters: np.ndarray
    rng: np.random.Generator

    @property
    def dense(self) -> tuple[np.ndarray, np.ndarray]:
        """Columns of fixed effects (n * d, fixed) and of random effects (n * d, all groups)."""
        n, d = self.offset.shape
        fixed = np.hstack([np.repeat(self.x, d, axis=0), np.tile(np.eye(d), (n, 1))])
        parts = []
        for term in self.terms:
            z = np.zeros((n, d, term.n_groups, term.q))
            for i in range(n):
                z[i, :, term.codes[i]] = term.design[i if len(term.design) > 1 else 0]
            parts.append(z.reshape(n * d, -1))
        return fixed, np.hstack(parts)

    def covariance(self, lambdas: list[np.ndarray]) -> np.ndarray:
        """Of all random effects, block diagonal."""
        blocks = [np.kron(np.eye(t.n_groups), lam @ lam.T) for t, lam in zip(self.terms, lambdas, strict=True)]
        size = sum(map(len, blocks))
        out, at = np.zeros((size, size)), 0
        for block in blocks:
            out[at : at + len(block), at : at + len(block)] = block
            at += len(block)
        return out

    def criterion(self, likelihood: object, integrate: bool) -> LaplaceCriterion:
        system = LatentSystem(self.x, self.terms, offset=self.offset, cutpoints=True, integrate_fixed=integrate)
        return LaplaceCriterion(likelihood, system)


@pytest.fixture
def model() -> Model:
    rng = np.random.default_rng(11)
    n = 40
    slope = np.zeros((n, 2, 3))  # two intercepts and a slope that moves both predictors
    slope[:, 0, 0] = slope[:, 1, 1] = 1.0
    slope[:, :, 2] = rng.standard_normal((n, 1))
    terms = (
        Term(rng.integers(0, 4, n), 4, np.ones((1, 2, 1))),
        Term(rng.integers(0, 9, n), 9, slope),
        Term(rng.integers(0, 3, n), 3, np.eye(2)[None]),
    )
    return Model(rng.standard_normal((n, 2)), terms, 0.1 * rng.standard_normal((n, 2)), _parameters(), rng)


def _parameters() -> np.ndarray:
    """Log SDs on the diagonal of each Cholesky factor: q of 1, 3 and 2."""
    return np.array([-0.6, -0.4, 0.2, -0.7, 0.1, -0.3, -0.5, -0.2, 0.3, -0.9])


@pytest.mark.parametrize("restricted", [True, False])
def test_is_the_exact_marginal_likelihood_of_a_gaussian(model: Model, restricted: bool) -> None:
    """Against the dense density (scipy): REML is the density with the fixed effects integrated out."""
    sds = np.array([0.8, 1.3])
    y = model.rng.standard_normal((40, 2))
    criterion = model.criterion(Gaussian(y, sd=tuple(sds)), restricted)
    fixed, random = model.dense
    lambdas = criterion.lambdas(model.parameters)
    total = random @ model.covariance(lambdas) @ random.T + np.diag(np.tile(sds**2, 40))
    shifted = (y - model.offset).reshape(-1)
    if not restricted:
        beta = np.array([0.3, -0.2, 0.5, -0.4])
        exact = multivariate_normal.logpdf(shifted, fixed @ beta, total)
        assert criterion(model.parameters, beta) == pytest.approx(exact, abs=1e-8)
        return
    information = fixed.T @ np.linalg.solve(total, fixed)
    beta = np.linalg.solve(information, fixed.T @ np.linalg.solve(total, shifted))
    exact = multivariate_normal.logpdf(shifted, fixed @ beta, total)
    exact += 0.5 * (len(beta) * LOG_2PI - np.linalg.slogdet(information)[1])
    assert criterion(model.parameters) == pytest.approx(exact, abs=1e-8)


def test_effects_of_a_gaussian_are_hendersons(model: Model) -> None:
    """At the estimates: fixed and random effects and their covariance against the dense mixed-model equations."""
    likelihood = Gaussian(model.rng.standard_normal((40, 2)), sd=(0.8, 1.3))
    found = fit_laplace(likelihood, model.x, model.terms, offset=model.offset, cutpoints=True)
    mean, cov = _posterior(model, likelihood, list(found.covariances))
    np.testing.assert_allclose(found.beta, mean[:4], atol=1e-6)
    np.testing.assert_allclose(found.beta_cov, cov[:4, :4], atol=1e-6)
    at = 4
    for term, modes, covs in zip(model.terms, found.modes, found.mode_covs, strict=True):
        size = term.n_groups * term.q
        np.testing.assert_allclose(modes.reshape(-1), mean[at : at + size], atol=1e-6)
        own = cov[at : at + size, at : at + size].reshape(term.n_groups, term.q, term.n_groups, term.q)
        np.testing.assert_allclose(covs, np.einsum("iaib->iab", own), atol=1e-6)
        at += size


def _posterior(model: Model, likelihood: Gaussian, covariances: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of fixed and random effects given data and variances; fixed effects with a flat prior.

    A variance at zero is given by its smallest standard deviation.
    """
    fixed, random = model.dense
    both = np.hstack([fixed, random])
    prior = np.zeros((both.shape[1],) * 2)
    at = 4
    for term, cov in zip(model.terms, covariances, strict=True):
        block = np.kron(np.eye(term.n_groups), np.linalg.pinv(cov, rcond=1e-30))
        prior[at : at + len(block), at : at + len(block)] = block
        at += len(block)
    weight = np.tile(1.0 / likelihood.sds**2, 40)
    cov = np.linalg.inv(both.T @ (both * weight[:, None]) + prior)
    return cov @ (both.T @ (weight * (likelihood.y - model.offset).reshape(-1))), cov


def test_draws_have_the_mean_and_covariance_of_the_mode(model: Model) -> None:
    """Variances held: 1,500 draws against the dense inverse Hessian; four Monte-Carlo errors."""
    likelihood = Gaussian(_data(model, (0.8, 1.3)), sd=(0.8, 1.3))
    found = fit_laplace(likelihood, model.x, model.terms, offset=model.offset, cutpoints=True)
    mean, cov = _posterior(model, likelihood, list(found.covariances))
    rng, n = np.random.default_rng(5), 1_500
    draws = np.array([_flat(found.draw(rng)) for _ in range(n)])
    sd = np.sqrt(np.diag(cov))
    assert np.abs((draws.mean(axis=0) - mean) / sd).max() < 4 / np.sqrt(n)
    # an estimated correlation has a standard error of at most 1 / sqrt(n); 820 of them are compared
    scaled = np.cov(draws.T) / np.outer(sd, sd)
    assert np.abs(scaled - cov / np.outer(sd, sd)).max() < 5.5 * np.sqrt(2 / n)


def _data(model: Model, sds: tuple[float, float]) -> np.ndarray:
    """Responses with strong effects of every term, so that no variance is estimated at zero."""
    _, random = model.dense
    effects = 1.5 * model.rng.standard_normal(random.shape[1])
    return (random @ effects).reshape(40, 2) + model.rng.standard_normal((40, 2)) * sds


def _flat(drawn: object) -> np.ndarray:
    return np.concatenate([drawn.beta, *(effect.reshape(-1) for effect in drawn.effects)])


def test_a_draw_follows_another_likelihood_exactly_where_it_is_gaussian(model: Model) -> None:
    """The chord step of a quadratic reaches its mode: the draw moves by the difference of the two posterior means."""
    likelihood = Gaussian(_data(model, (0.8, 1.3)), sd=(0.8, 1.3))
    other = replace(likelihood, y=likelihood.y + 0.3 * model.rng.standard_normal((40, 2)))
    found = fit_laplace(likelihood, model.x, model.terms, offset=model.offset, cutpoints=True)
    before, _ = _posterior(model, likelihood, list(found.covariances))
    after, _ = _posterior(model, other, list(found.covariances))
    same = _flat(found.draw(np.random.default_rng(2)))
    moved = _flat(found.draw(np.random.default_rng(2), other))
    np.testing.assert_allclose(moved - same, after - before, atol=1e-6)


@pytest.mark.parametrize("integrated", [True, False])
@pytest.mark.parametrize("kind", ["ordinal", "gaussian with a scale of its own"])
def test_gradient_is_that_of_numerical_differences(
    model: Model, integrated: bool, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Crossed terms, a slope, two predictors, cutpoints; fixed effects integrated, or parameters themselves.

    The mode is sought further than in a fit, since differences of the value magnify what is left.
    """
    monkeypatch.setattr(laplace_criterion, "_SETTLED", 1e-18)
    beta = np.array([0.2, -0.3, 0.4, -0.8])
    parameters = model.parameters
    if kind == "ordinal":
        likelihood: object = Ordinal(model.rng.integers(0, 3, 40), 2)
        far = replace(model, offset=model.offset + np.array([0.6, -0.6]))  # keeps the cutpoints apart
        terms = (model.terms[0], Term(model.terms[1].codes, 9, np.eye(2)[None]), model.terms[2])
        far, parameters = replace(far, terms=terms), np.array([-0.6, -0.9, 0.1, -1.2, -1.1, 0.1, -1.4])
    else:
        far, likelihood = model, Gaussian(model.rng.standard_normal((40, 2)), shape=np.array([-0.2, 0.1]))
        parameters = np.concatenate([parameters, likelihood.shape])
    criterion = far.criterion(likelihood, integrated)
    criterion.beta = beta.copy()
    point = parameters if integrated else np.concatenate([parameters, beta])

    def value(at: np.ndarray) -> float:
        return criterion(at[: len(parameters)], None if integrated else at[len(parameters) :])

    gradient = criterion.with_gradient(parameters, None if integrated else beta).gradient
    assert len(gradient) == len(point)
    step = 1e-4
    numerical = [(value(point + step * e) - value(point - step * e)) / (2 * step) for e in np.eye(len(point))]
    # the scale's own derivative is itself a central difference, of step 1e-3
    np.testing.assert_allclose(gradient, numerical, atol=1e-4)


def test_value_is_that_of_a_general_optimiser() -> None:
    """Crossed binomial: the mode by scipy, the Hessian by differences of the joint density; no algebra shared."""
    successes, trials = np.array([3.0, 7, 5, 1, 9, 4]), np.full(6, 10.0)
    left, right = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 0, 1, 0, 1])
    terms = [Term(left, 3, np.ones((1, 1, 1))), Term(right, 2, np.ones((1, 1, 1)))]
    likelihood, sds = Binomial(successes, trials, "probit"), np.array([0.7, 0.4])

    def negative(v: np.ndarray) -> float:
        eta = 0.1 + sds[0] * v[:3][left] + sds[1] * v[3:][right]
        return -likelihood.value(eta[:, None]) + 0.5 * v @ v

    mode = minimize(negative, np.zeros(5), method="BFGS", options={"gtol": 1e-9}).x
    step, hessian = 1e-3, np.zeros((5, 5))
    for i, a in enumerate(step * np.eye(5)):
        for j, b in enumerate(step * np.eye(5)):
            corners = (negative(mode + s * a + t * b) * s * t for s in (-1, 1) for t in (-1, 1))
            hessian[i, j] = sum(corners) / (4 * step**2)
    brute = -negative(mode) - 0.5 * np.linalg.slogdet(hessian)[1]
    system = LatentSystem(np.ones((6, 1)), terms, offset=np.zeros((6, 1)), cutpoints=False, integrate_fixed=False)
    found = LaplaceCriterion(likelihood, system)(np.log(sds), np.array([0.1]))
    assert found == pytest.approx(brute, abs=1e-5)


def test_is_close_to_the_integral_itself() -> None:
    """Three groups of 200 trials: the true marginal likelihood by quadrature; Laplace errs by the order of 1/200."""
    successes, trials, sd = np.array([60.0, 110.0, 95.0]), np.full(3, 200.0), 0.5
    term = Term(np.arange(3), 3, np.ones((1, 1, 1)))
    system = LatentSystem(np.ones((3, 1)), [term], offset=np.zeros((3, 1)), cutpoints=False, integrate_fixed=False)
    found = LaplaceCriterion(Binomial(successes, trials, "probit"), system)(np.array([np.log(sd)]), np.array([-0.1]))
    kept = binom(200, norm.cdf(-0.1)).pmf(0)  # probit likelihood without binomial coefficients
    assert kept >= 0

    def one(k: int) -> float:
        def density(u: float) -> float:
            p = norm.cdf(-0.1 + sd * u)
            return float(np.exp(successes[k] * np.log(p) + (200 - successes[k]) * np.log1p(-p) + 140.0) * norm.pdf(u))

        return np.log(nquad(density, [(-6, 6)], opts={"points": [-1.0, 0.0, 1.0], "limit": 200})[0]) - 140.0

    assert found == pytest.approx(sum(one(k) for k in range(3)), abs=3e-3)


def test_covariance_of_variance_parameters_is_the_inverse_curvature() -> None:
    """Against second differences of the criterion; 3 % because it is a one-sided difference of the gradient."""
    found = _fitted_crossed(parameters_cov=True)
    criterion, at = found.criterion, found.parameters
    step = 0.05
    curvature = np.zeros((2, 2))
    for i, a in enumerate(step * np.eye(2)):
        for j, b in enumerate(step * np.eye(2)):
            corners = (criterion(at + s * a + t * b) * s * t for s in (-1, 1) for t in (-1, 1))
            curvature[i, j] = -sum(corners) / (4 * step**2)
    np.testing.assert_allclose(found.parameters_cov, np.linalg.inv(curvature), rtol=0.1, atol=3e-4)


def test_expected_information_is_near_the_observed() -> None:
    """Standard errors within 15 % and no covariance."""
    observed, expected = (_fitted_crossed(parameters_cov=kind) for kind in (True, "expected"))
    se = [np.sqrt(np.diag(found.parameters_cov)) for found in (observed, expected)]
    np.testing.assert_allclose(se[1], se[0], rtol=0.15)
    assert expected.parameters_cov[0, 1] == 0.0
    assert _fitted_crossed(parameters_cov=False).parameters_cov.tolist() == [[0.0, 0.0], [0.0, 0.0]]


def _fitted_crossed(parameters_cov: bool | str) -> object:
    rng = np.random.default_rng(8)
    left, right = rng.integers(0, 60, 3_000), rng.integers(0, 30, 3_000)
    effects = (0.5 * rng.standard_normal(60))[left] + (0.3 * rng.standard_normal(30))[right]
    x = rng.standard_normal((3_000, 1))
    success = (0.4 * x[:, 0] + effects + rng.standard_normal(3_000) > 0.8).astype(float)
    one = np.ones((1, 1, 1))
    return fit_laplace(
        Binomial(success, np.ones(3_000), "probit"),
        x,
        [Term(left, 60, one), Term(right, 30, one)],
        cutpoints=True,
        start_fixed=np.array([0.0, -0.8]),
        parameters_cov=parameters_cov,
    )


def test_recovers_and_draws_variance_parameters() -> None:
    """Truth .5 and .3, slope .4, cut -.8; draws have the estimated covariance and the effects follow them."""
    found = _fitted_crossed(parameters_cov=True)
    assert found.convergence.converged
    assert found.convergence.at_boundary == ()
    se = np.sqrt(np.diag(found.parameters_cov))
    assert (np.abs(found.parameters - np.log([0.5, 0.3])) < 3 * se).all()
    assert (np.abs(found.beta - [0.4, -0.8]) < 4 * np.sqrt(np.diag(found.beta_cov))).all()
    rng = np.random.default_rng(4)
    drawn = [found.draw(rng) for _ in range(800)]
    logs = np.array([[0.5 * np.log(cov[0, 0]) for cov in draw.covariances] for draw in drawn])
    np.testing.assert_allclose(logs.std(axis=0), se, rtol=4 / np.sqrt(2 * 800))
    np.testing.assert_allclose(logs.mean(axis=0), found.parameters, atol=4 * se.max() / np.sqrt(800))
    # an effect is shrunken less where its variance is drawn larger
    size = np.array([np.abs(draw.effects[0]).mean() for draw in drawn])
    assert np.corrcoef(size, logs[:, 0])[0, 1] > 0.3


def test_the_mode_follows_the_variances_as_refitting_does() -> None:
    """Derivatives of the mode by each log SD against modes found again a step away."""
    found = _fitted_crossed(parameters_cov=True)
    criterion, step = found.criterion, 0.02
    for k, (d_fixed, d_effects) in enumerate(found.mode_derivatives):
        ends = []
        for sign in (-1, 1):
            at = found.parameters.copy()
            at[k] += sign * step
            lambdas = criterion.lambdas(at)
            mode = criterion.find_mode(lambdas)
            ends.append((mode.beta, [u @ lam.T for u, lam in zip(mode.u, lambdas, strict=True)]))
        np.testing.assert_allclose(d_fixed, (ends[1][0] - ends[0][0]) / (2 * step), atol=1e-3)
        for term in range(2):
            numerical = (ends[1][1][term] - ends[0][1][term]) / (2 * step)
            np.testing.assert_allclose(d_effects[term], numerical, atol=1e-3)


def test_a_variance_of_zero_is_said_and_stays_finite() -> None:
    """Groups that are exactly alike: the SD goes to zero, the effects with it, and draws of it do not wander."""
    codes = np.repeat(np.arange(20), 10)
    success = np.tile([1.0, 0, 0, 1, 0, 0, 1, 0, 0, 0], 20)
    found = fit_laplace(
        Binomial(success, np.ones(200), "probit"),
        np.zeros((200, 0)),
        [Term(codes, 20, np.ones((1, 1, 1)))],
        cutpoints=True,
        parameters_cov=True,
    )
    assert found.convergence.converged
    assert found.covariances[0][0, 0] < 1e-3
    assert np.abs(found.modes[0]).max() < 0.02
    assert found.beta[0] == pytest.approx(norm.ppf(0.3), abs=0.02)
    rng = np.random.default_rng(1)
    assert all(draw.covariances[0][0, 0] < 0.05 for draw in (found.draw(rng) for _ in range(50)))


def test_fixed_effects_that_maximise_are_glms_where_there_is_no_variance() -> None:
    """Alike groups again, one covariate: statsmodels' probit, to the size of a variance not quite at zero."""
    import statsmodels.api as sm

    rng = np.random.default_rng(3)
    x = rng.standard_normal((400, 1))
    success = (0.5 * x[:, 0] + rng.standard_normal(400) > 0.2).astype(float)
    codes = np.argsort(np.argsort(x[:, 0])) % 8  # every group has the same spread of x
    found = fit_laplace(
        Binomial(success, np.ones(400), "probit"),
        np.column_stack([np.ones(400), x]),
        [Term(codes, 8, np.ones((1, 1, 1)))],
        integrate_fixed=False,
    )
    reference = sm.Probit(success, np.column_stack([np.ones(400), x])).fit(disp=0)
    np.testing.assert_allclose(found.beta, reference.params, atol=5e-3)
    np.testing.assert_allclose(np.sqrt(np.diag(found.beta_cov)), reference.bse, rtol=0.02)
    assert found.llf == pytest.approx(reference.llf, abs=0.02)


def test_collinear_covariates_are_refused() -> None:
    x = np.ones((30, 2))
    term = Term(np.arange(30) % 5, 5, np.ones((1, 1, 1)))
    likelihood = Binomial((np.arange(30) % 2).astype(float), np.ones(30), "probit")
    with pytest.raises(InputError, match=r"singular: a covariate is constant or a combination.*Leave out one"):
        fit_laplace(likelihood, x, [term])


class _Edge:
    """A log-likelihood that rises for ever, but has no curvature to go on from beyond one."""

    def derivatives(self, eta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        beyond = eta[:, :, None] > 1.0
        return float(eta.sum()), np.ones_like(eta), np.where(beyond, np.inf, 1.0)


def test_no_step_ends_where_there_is_no_curvature() -> None:
    """A label that crossing thresholds make all but impossible has infinite derivatives, and the search died there."""
    system = SimpleNamespace(predictors=lambda beta, parts: parts[0])
    search = SimpleNamespace(system=system, likelihood=_Edge(), integrated=False)
    zero, unit = np.zeros((1, 1)), np.ones((1, 1))
    _, (moved,), _, there = LaplaceCriterion._step(search, np.zeros(0), [zero], None, [5.0 * unit], [unit], 0.0)
    assert moved.item() == 0.625  # the longest half of five that stays below one
    assert np.isfinite(there[2]).all()
