"""Log-likelihoods against SciPy, their derivatives against numerical differentiation, and both far out in the tails."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import expit, log_ndtr, ndtr
from scipy.stats import binom

from send_va.errors import InputError
from send_va.multilevel.likelihood_kernels import interval, log_normal_cdf, tail
from send_va.multilevel.likelihoods import Binomial, Ordinal, log_choose, require_link

LINKS = ("logit", "probit")
CDF = {"logit": expit, "probit": ndtr}
seeds = st.integers(0, 10_000)


def ordinal(rng: np.random.Generator, link: str, d: int, n: int = 12) -> tuple[Ordinal, np.ndarray]:
    eta = -np.sort(-rng.normal(0.0, 1.5, (n, d)), axis=1) - 0.2 * np.arange(d)
    return Ordinal(rng.integers(0, d + 1, n), d, link, rng.integers(1, 4, n).astype(float)), eta


def binomial(rng: np.random.Generator, link: str, n: int = 12) -> tuple[Binomial, np.ndarray]:
    trials = rng.integers(1, 6, n).astype(float)
    return Binomial(np.floor(rng.random(n) * (trials + 1.0)), trials, link), rng.normal(0.0, 2.0, (n, 1))


def numerically(function, eta: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Central differences by every predictor; the new axis comes last."""
    parts = []
    for c in range(eta.shape[1]):
        move = np.zeros_like(eta)
        move[:, c] = step
        parts.append((function(eta + move) - function(eta - move)) / (2 * step))
    return np.stack(parts, axis=-1)


@settings(max_examples=25, deadline=None)
@given(seeds, st.sampled_from(LINKS), st.sampled_from([0, 2, 3]))
def test_derivatives_agree_with_numerical_ones(seed: int, link: str, d: int) -> None:
    """Central differences with step 1e-5 are good to about 1e-9 of the size of the function two orders up."""
    rng = np.random.default_rng(seed)
    likelihood, eta = ordinal(rng, link, d) if d else binomial(rng, link)
    value, gradient, curvature = likelihood.derivatives(eta)
    third = likelihood.third(eta)
    size = 1.0 + np.abs(third).max()
    assert value == pytest.approx(likelihood.value(eta), rel=1e-12)
    np.testing.assert_allclose(gradient, numerically(likelihood.row_values, eta), atol=1e-7 * size)
    np.testing.assert_allclose(curvature, -numerically(lambda e: likelihood.derivatives(e)[1], eta), atol=1e-6 * size)
    np.testing.assert_allclose(third, numerically(lambda e: likelihood.derivatives(e)[2], eta), atol=1e-5 * size**2)
    assert np.linalg.eigvalsh(curvature).min() > -1e-12 * np.abs(curvature).max()


@pytest.mark.parametrize("link", LINKS)
def test_probabilities_of_the_categories_are_those_of_the_distribution(link: str) -> None:
    eta = np.array([[1.2, 0.3, -0.8]])
    rows = [np.exp(Ordinal(np.array([k]), 3, link).value(eta)) for k in range(4)]
    np.testing.assert_allclose(rows, -np.diff(np.concatenate([[1.0], CDF[link](eta[0]), [0.0]])), rtol=1e-13)
    yes = Binomial(np.array([3.0]), np.array([5.0]), link, log_choose(np.array([3.0]), np.array([5.0])))
    assert yes.value(eta[:, :1]) == pytest.approx(binom.logpmf(3, 5, CDF[link](1.2)), rel=1e-13)


def test_tails_keep_their_accuracy() -> None:
    x = np.linspace(-200.0, 37.0, 475)
    ours = np.array([log_normal_cdf(v) for v in x])
    np.testing.assert_allclose(ours, log_ndtr(x), rtol=1e-12)
    # Mills' ratio far out: log Phi(-x) = -x^2/2 - log x - log sqrt(2 pi) - 1/x^2; the curvature tends to 1.
    value, slope, curvature, third = tail(-1e3, False)
    assert value == pytest.approx(-5e5 - np.log(1e3) - 0.5 * np.log(2 * np.pi) - 1e-6, abs=1e-9)
    assert slope == pytest.approx(1000.001, rel=1e-9)
    assert curvature == pytest.approx(1.0, abs=2e-6)
    assert abs(third) < 1e-6
    assert tail(-800.0, True) == (-800.0, 1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("a", "b"), [(0.5, 0.2), (12.0, 11.0), (-20.0, -21.0), (35.0, 34.9), (9.0, -9.0), (0.3, 0.2999)]
)
def test_an_interval_in_the_tail_is_its_integral(a: float, b: float) -> None:
    """SciPy's quadrature of the density relative to its largest value in the interval, good to about 1e-10."""
    top = min(abs(a), abs(b)) if a * b > 0 else 0.0
    out = np.zeros(10)
    interval(a, b, False, out)
    integral = quad(lambda t: np.exp(-0.5 * (t * t - top * top)), b, a, epsabs=0.0, epsrel=1e-12, points=[0.0])[0]
    assert out[0] == pytest.approx(np.log(integral) - 0.5 * top * top - 0.5 * np.log(2 * np.pi), abs=1e-9)


@pytest.mark.parametrize("link", LINKS)
def test_predictors_that_cross_are_steep_but_finite(link: str) -> None:
    """The log-likelihood falls as they cross, stays concave and finite, and joins up where it changes form."""
    middle = Ordinal(np.array([1]), 2, link)
    gaps = np.array([1e-3, 1.0001e-6, 0.9999e-6, 0.0, -1e-3, -1.0, -30.0])
    values = np.array([middle.value(np.array([[0.4 + gap, 0.4]])) for gap in gaps])
    assert np.isfinite(values).all()
    assert (np.diff(values) < 0.0).all()
    assert values[1] - values[2] < 1e-3
    _, gradient, curvature = middle.derivatives(np.array([[0.4 - 1.0, 0.4]]))
    assert gradient[0, 0] > 0.0 > gradient[0, 1]
    assert np.linalg.eigvalsh(curvature[0])[0] >= -1e-3


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("size", [40.0, 1e3, 1e5])
def test_extreme_predictors_stay_finite(link: str, size: float) -> None:
    eta = np.array([[size, -size], [-size, -2 * size], [2 * size, size]])
    three = Ordinal(np.array([1, 2, 0]), 2, link)
    yes = Binomial(np.array([1.0, 1.0, 0.0]), np.ones(3), link)
    for likelihood, at in ((three, eta), (yes, eta[:, :1])):
        assert all(np.isfinite(part).all() for part in (*likelihood.derivatives(at), likelihood.third(at)))


def test_unknown_link_is_refused() -> None:
    with pytest.raises(InputError, match=r"no link 'cloglog'. Use one of logit, probit"):
        require_link("cloglog")
