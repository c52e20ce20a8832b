"""Student-t effects of groups: against integrals by quadrature, against the normal model, and with one outlier."""

from dataclasses import replace

import numpy as np
import pytest
from collapsed_worlds import COLUMNS, start, world
from scipy.integrate import quad
from scipy.stats import gamma, multivariate_normal

from send_va.errors import InputError, NotSupportedError
from send_va.multilevel.collapsed import CollapsedModel, Start, padded_lower
from send_va.multilevel.collapsed_data import CollapsedData, collapsed_data
from send_va.multilevel.collapsed_kernels import workspace
from send_va.multilevel.collapsed_posterior import CollapsedPosterior, prior_draws, sample_posterior
from send_va.multilevel.collapsed_robust import NU_RATE, NU_SHAPE, check_groups, inflation, log_node_weights
from send_va.multilevel.collapsed_robust_kernels import student_value_and_gradient
from send_va.multilevel.convergence import check_convergence
from send_va.multilevel.crossproducts import cross_products
from send_va.multilevel.nuts import Sampling

SCALE = np.array([[0.4, 0.1], [0.1, 0.3]])
VARIANCE = np.array([1.0, 2.0])
NU = 4.0


def records(seed: int = 3, groups: int = 4) -> tuple[np.ndarray, np.ndarray, CollapsedData]:
    """Rows (intercept, need, prior, outcome), codes and sums of a handful of groups; the first one lies far out."""
    rng = np.random.default_rng(seed)
    code = np.repeat(np.arange(groups), [5, 7, 3, 6][:groups])
    n = len(code)
    rows = np.column_stack([np.ones(n), np.arange(n) % 3 == 0, rng.standard_normal(n), rng.standard_normal(n)])
    rows[code == 0, 3] += 6.0
    kinds = [rows[:, 1] == 0, rows[:, 1] == 1]
    data = collapsed_data(
        [cross_products(rows[kind], code[kind], groups, COLUMNS) for kind in kinds],
        fixed=COLUMNS[:3],
        random=COLUMNS[:2],
        outcome="y",
        groups=[f"g{j}" for j in range(groups)],
        strata_names=("without", "with"),
    )
    return rows, code, data


def joint(rows: np.ndarray, beta: np.ndarray, nu: float):
    """Density of lambda times likelihood of one group, as a function of log lambda, and its normal parts."""
    z, y = rows[:, :2], rows[:, 3] - rows[:, :3] @ beta
    noise = np.diag(VARIANCE[rows[:, 1].astype(int)])

    def density(x: float) -> float:
        prior = gamma.pdf(np.exp(x), nu / 2, scale=2 / nu) * np.exp(x)
        return float(prior * multivariate_normal.pdf(y, cov=noise + z @ SCALE @ z.T / np.exp(x)))

    def mode(x: float) -> np.ndarray:
        return SCALE @ z.T @ np.linalg.solve(noise * np.exp(x) + z @ SCALE @ z.T, y)

    return density, mode


def some_start() -> Start:
    return replace(
        start(world(1, strata=2)), beta=np.array([0.3, -0.2, 0.5]), group_cov=SCALE, residual_variance=VARIANCE
    )


def one_draw(model: CollapsedModel, beta: np.ndarray, nu: float, copies: int = 1) -> CollapsedPosterior:
    """The same parameters `copies` times, in the form of a posterior."""
    drawn = prior_draws(model, copies, np.random.default_rng(1))
    return replace(
        drawn,
        beta=np.tile(beta, (1, copies, 1)),
        group_cov=np.tile(SCALE, (1, copies, 1, 1)),
        residual_sd=np.tile(np.sqrt(VARIANCE), (1, copies, 1)),
        nu=np.full((1, copies), nu),
    )


@pytest.mark.parametrize("nu", [2.5, 4.0, 30.0])
def test_likelihood_is_the_integral_over_lambda(nu: float) -> None:
    """By group, by adaptive quadrature over lambda of dense normal densities."""
    rows, code, data = records()
    beta = np.array([0.3, -0.2, 0.5])
    model = CollapsedModel.of(data, some_start(), groups="student_t")
    expected = []
    for j in range(len(data.groups)):
        density, _ = joint(rows[code == j], beta, nu)
        expected.append(np.log(quad(density, -14, 4, epsabs=0, epsrel=1e-7, limit=300)[0]))
    shifted = beta - np.array([data.center[-1] - data.center[:-1] @ beta, 0.0, 0.0])
    assert model.log_likelihood(shifted, SCALE, VARIANCE, np.zeros(0), nu) == pytest.approx(sum(expected), abs=1e-3)
    by_group = one_draw(model, shifted, nu).log_likelihood()[0, 0]
    np.testing.assert_allclose(by_group, expected, atol=1e-3)


def test_effects_are_the_mixture_over_lambda() -> None:
    """Posterior means of effects on a fine grid of lambda; draws have the moments that are worked out."""
    rows, code, data = records()
    beta = np.array([0.3, -0.2, 0.5])
    model = CollapsedModel.of(data, some_start(), groups="student_t")
    shifted = beta - np.array([data.center[-1] - data.center[:-1] @ beta, 0.0, 0.0])
    effects = one_draw(model, shifted, NU, copies=5_000).effects(np.random.default_rng(5))
    for j in range(len(data.groups)):
        density, mode = joint(rows[code == j], beta, NU)
        fine = np.linspace(-12, 4, 321)
        mean = np.average([mode(x) for x in fine], axis=0, weights=[density(x) for x in fine])
        np.testing.assert_allclose(effects.mean[j], mean, atol=2e-3)
        np.testing.assert_allclose(effects.draws[:, j].mean(axis=0), effects.mean[j], atol=0.05)
        np.testing.assert_allclose(np.cov(effects.draws[:, j].T), effects.covariance[j], atol=0.08)


@pytest.mark.parametrize("scale", [1.0, 0.0])
def test_gradient_is_that_of_the_value(scale: float) -> None:
    """By central differences, also where the effects have no variance."""
    data = world(2, groups=6, size=8, strata=2)
    model = CollapsedModel.of(data, start(data), groups="student_t")
    rng = np.random.default_rng(1)
    at = [rng.standard_normal(3), padded_lower(scale * np.linalg.cholesky(SCALE)), VARIANCE, log_node_weights(NU)]
    work = workspace(*model.products.r0.shape[:2])

    def value(moved: list[np.ndarray]) -> float:
        return float(student_value_and_gradient(*moved, *model.arrays(), work)[0])

    gradient = student_value_and_gradient(*at, *model.arrays(), work)[1:]
    step = 1e-5
    for k, array in enumerate(at):
        for place in np.ndindex(*array.shape):
            ends = []
            for sign in (1.0, -1.0):
                moved = [part.copy() for part in at]
                moved[k][place] += sign * step
                ends.append(value(moved))
            assert gradient[k][place] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-6)


def test_without_bound_on_nu_it_is_the_normal_model() -> None:
    data = world(3, strata=2)
    begin = start(data)
    given = (begin.beta, begin.group_cov, np.array([1.1, 2.0]), np.zeros(0))
    normal = CollapsedModel.of(data, begin).log_likelihood(*given)
    robust = CollapsedModel.of(data, begin, groups="student_t")
    assert robust.log_likelihood(*given, 1e8) == pytest.approx(normal, abs=1e-6)
    assert robust.log_likelihood(*given, 3.0) != pytest.approx(normal, abs=0.1)


def with_outlier(data: CollapsedData, at: int, shift: float) -> CollapsedData:
    """The same sums with every outcome of group `at` moved by `shift`."""
    move = np.eye(data.own.shape[-1])
    move[-1, 0] = shift
    own, zm = data.own.copy(), data.zm.copy()
    own[:, at] = move @ own[:, at] @ move.T
    zm[at] = zm[at] @ move.T
    return replace(data, own=own, zm=zm)


@pytest.fixture(scope="module")
def outlying() -> dict[str, CollapsedPosterior]:
    """Posteriors of forty groups, one of which is moved by 10 SDs of the others."""
    data = with_outlier(world(4), 0, 5.0)
    begin = start(world(4))
    sampling = Sampling(chains=2, draws=150, tune=120)
    return {
        name: sample_posterior(CollapsedModel.of(data, begin, groups=name), sampling, seed=1)
        for name in ("normal", "student_t")
    }


def test_an_outlier_is_let_be(outlying: dict[str, CollapsedPosterior]) -> None:
    """Its effect is drawn in less, and it does not widen the distribution of the others."""
    data = outlying["normal"].model.data
    own = data.own[0, 0]
    drawn_in, spread, others = {}, {}, {}
    for name, posterior in outlying.items():
        effects = posterior.effects(np.random.default_rng(2))
        beta = posterior.beta.mean(axis=(0, 1))
        unshrunken = (own[0, -1] - own[0, :-1] @ beta - effects.mean[0, 1] * own[0, 1]) / own[0, 0]
        drawn_in[name] = unshrunken - effects.mean[0, 0]
        spread[name] = float(posterior.group_sd[..., 0].mean())
        others[name] = effects.mean[1:, 0].std()
    assert 0.0 <= drawn_in["student_t"] < drawn_in["normal"]
    assert spread["student_t"] < 0.8 * spread["normal"]
    assert 0.3 < spread["student_t"] < 0.7  # truth is .5
    assert outlying["student_t"].nu is not None
    assert np.median(outlying["student_t"].nu) < NU_SHAPE / NU_RATE


def test_nu_is_one_of_the_parameters(outlying: dict[str, CollapsedPosterior]) -> None:
    """In the table of convergence, in the prior, in thinned draws and in the covariance of effects."""
    posterior = outlying["student_t"]
    assert posterior.nu is not None
    table = check_convergence(posterior).table.set_index("parameter")
    assert table.loc["nu", "rhat"] < 1.05
    assert "nu" not in set(check_convergence(outlying["normal"]).table["parameter"])
    assert posterior.log_prior()["nu"].shape == posterior.shape
    few = posterior.thinned(10)
    assert few.nu is not None and few.nu.shape == (2, 5)
    np.testing.assert_allclose(few.effect_cov[0, 0], few.group_cov[0, 0] * inflation(few.nu[0, 0]))
    by_group, whole = few.log_likelihood().sum(axis=-1), few.joint_log_likelihood()
    np.testing.assert_allclose(by_group, whole, atol=1e-6)


def test_prior_of_nu_has_a_finite_variance_of_effects() -> None:
    data = world(1)
    drawn = prior_draws(CollapsedModel.of(data, start(data), groups="student_t"), 50_000, np.random.default_rng(1))
    assert drawn.nu is not None and drawn.nu.min() > 2.0
    assert drawn.nu.mean() == pytest.approx(22.0, abs=0.3)
    assert inflation(drawn.nu).mean() == pytest.approx(1.2, abs=0.02)


def test_what_is_refused() -> None:
    data = world(1, outer=5)
    with pytest.raises(NotSupportedError, match="authority level"):
        CollapsedModel.of(data, start(data), groups="student_t")
    with pytest.raises(InputError, match="normal, student_t"):
        check_groups("cauchy")
