"""Integrals over unexplained need, against scipy's distributions, adaptive quadrature and brute-force simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm, truncnorm

from send_va.identification import kernels

NODES, WEIGHTS = np.polynomial.legendre.leggauss(10)  # as the scores use them where labels are exact
NOISY = np.polynomial.legendre.leggauss(24)  # and where they are not
NODES_NOW, WEIGHTS_NOW = np.polynomial.legendre.leggauss(16)  # as the equation of the label now uses them
FAR = 1e9
INTERVALS = [(-FAR, -1.2), (-FAR, 1.1), (1.1, FAR), (1.1, 2.6), (2.6, FAR), (-0.5, 0.1), (4.5, FAR), (-FAR, -4.0)]


def entry_scores(threshold: float, low: float, high: float, reliability: float = 1.0) -> tuple[float, float]:
    pi, mean = kernels.entry_scores(
        np.array([threshold]), np.array([low]), np.array([high]), reliability, NODES, WEIGHTS
    )
    return float(pi[0]), float(mean[0])


@pytest.mark.parametrize(("low", "high"), INTERVALS)
@pytest.mark.parametrize("threshold", [-1.0, 0.3, 1.5, 5.0])
def test_one_label_is_a_truncated_normal(low: float, high: float, threshold: float) -> None:
    """scipy.stats.truncnorm; 1e-9 also in the tails, where digits cancel in the plain formula."""
    known = truncnorm(max(low, -40.0), min(high, 40.0))
    pi, mean = entry_scores(threshold, low, high)
    assert pi == pytest.approx(known.sf(threshold), abs=1e-9)
    assert mean == pytest.approx(known.mean(), abs=1e-8)


def test_one_label_is_the_closed_form_of_the_design() -> None:
    """``h`` is expected need over the national threshold, ``a`` leniency: Phi(h)/Phi(h + a) and so on."""
    for h in (-2.5, -1.2, 0.4):
        for a in (-0.8, -0.1, 0.0, 0.3, 1.2):
            labelled, _ = entry_scores(-h, -h - a, FAR)
            unlabelled, _ = entry_scores(-h, -FAR, -h - a)
            assert labelled == pytest.approx(1.0 if a <= 0 else norm.cdf(h) / norm.cdf(h + a), abs=1e-12)
            expected = 0.0 if a >= 0 else (norm.cdf(h) - norm.cdf(h + a)) / (1 - norm.cdf(h + a))
            assert unlabelled == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("reliability", [1.0, 0.9])
def test_a_probability_stays_one_where_rounding_would_take_it_out_of_its_range(reliability: float) -> None:
    rng = np.random.default_rng(3)
    low, width, threshold = rng.uniform(-9.0, 9.0, 200_000), rng.exponential(1.0, 200_000), rng.uniform(-9, 9, 200_000)
    threshold[::2] = low[::2] + width[::2] * rng.uniform(0.0, 1.0, 100_000) ** 8
    pi, _ = kernels.entry_scores(threshold, low, low + width, reliability, NODES, WEIGHTS)
    assert ((pi >= 0.0) & (pi <= 1.0)).all()


def test_where_the_interval_has_no_mass_left_need_is_at_its_edge() -> None:
    """A label that is all but impossible: finite, and on the right side of the threshold."""
    assert entry_scores(1.0, 45.0, FAR) == (1.0, 45.0)
    assert entry_scores(1.0, -FAR, -45.0) == (0.0, -45.0)


@pytest.mark.parametrize("reliability", [0.9, 0.8, 1 / 1.36])
@pytest.mark.parametrize(("low", "high"), INTERVALS[:6])
def test_a_misjudged_label_is_a_bivariate_normal(low: float, high: float, reliability: float) -> None:
    """Need and judged need correlate by the root of reliability: scipy's bivariate normal."""
    threshold, root = 1.3, np.sqrt(reliability)
    joint = multivariate_normal([0, 0], [[1, root], [root, 1]])
    edges = np.clip([low, high], -12, 12)
    below = joint.cdf([threshold, edges[1]]) - joint.cdf([threshold, edges[0]])
    mass = norm.cdf(edges[1]) - norm.cdf(edges[0])
    pi, mean = entry_scores(threshold, low, high, reliability)
    assert pi == pytest.approx(1 - below / mass, abs=2e-5)
    assert mean == pytest.approx(root * (norm.pdf(edges[0]) - norm.pdf(edges[1])) / mass, abs=2e-5)


def both_scores(
    entry: int, now: int, *, reliability: float = 1.0, threshold: float = 1.2, d: int = 2
) -> tuple[float, float]:
    case = _case(d)
    pi, mean = kernels.both_scores(
        np.array([threshold]),
        case["cuts"],
        np.array([entry]),
        np.array([now]),
        np.array([case["base"]]),
        case["eta"],
        case["rho"],
        case["kappa"],
        reliability,
        *((NODES, WEIGHTS) if reliability == 1.0 else NOISY),
    )
    return float(pi[0]), float(mean[0])


def _case(d: int) -> dict:
    return {
        "cuts": np.array([[1.0, 2.3]])[:, :d],
        "base": 0.2,
        "eta": np.array([[-1.6, -3.4]])[:, :d],
        "rho": np.array([0.0, 1.6, 2.7])[: d + 1],
        "kappa": 0.6,
    }


def _simulated(d: int, reliability: float, n: int) -> dict[str, np.ndarray]:
    """The model as it reads: judged need against cuts, then the label now."""
    case, rng = _case(d), np.random.default_rng(7)
    need = rng.standard_normal(n)
    judged = np.sqrt(reliability) * need + np.sqrt(1 - reliability) * rng.standard_normal(n)
    entry = (judged[:, None] > case["cuts"]).sum(axis=1)
    index = case["kappa"] * (case["base"] + np.sqrt(reliability) * need) + case["rho"][entry] + rng.standard_normal(n)
    now = (index[:, None] + case["eta"] > 0).sum(axis=1)
    return {"need": need, "entry": entry, "now": now}


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("reliability", [1.0, 0.8])
def test_two_labels_are_what_simulation_finds(d: int, reliability: float) -> None:
    """Two million pupils by the definition of the model; four Monte-Carlo errors."""
    world = _simulated(d, reliability, 2_000_000)
    for entry in range(-1, d + 1):
        for now in range(d + 1):
            those = (world["now"] == now) & ((world["entry"] == entry) | (entry < 0))
            need = world["need"][those]
            if len(need) < 2_000:
                continue
            pi, mean = both_scores(entry, now, reliability=reliability, d=d)
            assert mean == pytest.approx(need.mean(), abs=4 * need.std() / np.sqrt(len(need)))
            share = (need > 1.2).mean()
            assert pi == pytest.approx(share, abs=4 * np.sqrt(max(pi * (1 - pi), 1e-4) / len(need)))


@pytest.mark.parametrize(("entry", "now"), [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 2), (2, 0)])
def test_two_labels_by_adaptive_quadrature(entry: int, now: int) -> None:
    """scipy's quad; ten nodes on each side of the threshold are good to 1e-4."""
    case = _case(2)
    edges = np.array([-9.0, *case["cuts"][0], 9.0])

    def density(e: float) -> float:
        centre = case["kappa"] * (case["base"] + e) + case["rho"][entry]
        above = [1.0, *norm.cdf(centre + case["eta"][0]), 0.0]
        return norm.pdf(e) * (above[now] - above[now + 1])

    low, high = edges[entry], edges[entry + 1]
    mass = quad(density, low, high, epsabs=1e-13, points=[0.0])[0]
    above = quad(density, max(low, min(1.2, high)), high, epsabs=1e-13)[0]
    mean = quad(lambda e: e * density(e), low, high, epsabs=1e-13, points=[0.0])[0]
    pi, found = both_scores(entry, now)
    assert pi == pytest.approx(above / mass, abs=1e-4)
    assert found == pytest.approx(mean / mass, abs=2e-4)


def test_an_unknown_label_before_is_the_mixture_of_those_possible() -> None:
    """Weighted by their probability given the label now; half of a second million, by simulation."""
    world = _simulated(2, 1.0, 1_000_000)
    for now in range(3):
        share = np.bincount(world["entry"][world["now"] == now], minlength=3) / (world["now"] == now).sum()
        expected = share @ [both_scores(level, now)[0] for level in range(3)]
        assert both_scores(-1, now)[0] == pytest.approx(expected, abs=5e-3)


@settings(max_examples=60, deadline=None)
@given(
    threshold=st.floats(-8, 8),
    cut=st.floats(-8, 8),
    more=st.floats(0, 3),
    labelled=st.booleans(),
    reliability=st.sampled_from([1.0, 0.9, 0.7]),
)
def test_a_label_by_a_more_lenient_body_says_less(
    threshold: float, cut: float, more: float, labelled: bool, reliability: float
) -> None:
    """Probabilities lie in [0, 1]; a lower cut means less need, for labelled and for unlabelled pupils."""

    def pi(at: float) -> float:
        return entry_scores(threshold, at if labelled else -FAR, FAR if labelled else at, reliability)[0]

    strict, lenient = pi(cut), pi(cut - more)
    assert 0.0 <= lenient <= 1.0
    assert 0.0 <= strict <= 1.0
    assert lenient <= strict + (1e-9 if reliability == 1.0 else 1e-4)


@settings(max_examples=40, deadline=None)
@given(entry=st.integers(-1, 2), now=st.integers(0, 2), threshold=st.floats(-4, 4))
def test_probabilities_of_two_labels_lie_between_0_and_1(entry: int, now: int, threshold: float) -> None:
    pi, mean = both_scores(entry, now, threshold=threshold)
    assert 0.0 <= pi <= 1.0
    assert np.isfinite(mean)
    if entry == 2 and threshold <= 2.3:  # the cut of an EHCP
        assert pi == pytest.approx(1.0)


ROWS = {  # base, low, high of three pupils: not labelled, labelled, support only
    "base": np.array([-0.5, 0.2, 0.8]),
    "low": np.array([-FAR, 1.1, 0.4]),
    "high": np.array([0.9, FAR, 2.0]),
}
ETA = np.array([[-1.4, -2.9], [-0.3, -2.0], [0.8, -0.1]])


def now_derivatives(eta: np.ndarray, status: np.ndarray, reliability: float, rows: slice = slice(None)) -> tuple:
    fixed = (ROWS["base"][rows], ROWS["low"][rows], ROWS["high"][rows])
    return kernels.current_derivatives(eta, status, *fixed, 0.6, reliability, NODES_NOW, WEIGHTS_NOW, True)


@pytest.mark.parametrize("reliability", [1.0, 0.8])
@pytest.mark.parametrize("d", [1, 2])
def test_labels_now_add_up_to_the_label_before(d: int, reliability: float) -> None:
    """The likelihood is that of both labels: over all labels now it is the normal mass between the cuts (scipy)."""
    for i in range(3):
        at = slice(i, i + 1)
        parts = [now_derivatives(ETA[at, :d], np.array([y]), reliability, at)[0] for y in range(d + 1)]
        mass = norm.cdf(ROWS["high"][i]) - norm.cdf(ROWS["low"][i])
        assert np.exp(parts).sum() == pytest.approx(mass, abs=2e-5)


@pytest.mark.parametrize("status", [0, 1, 2])
def test_the_likelihood_of_both_labels_by_quadrature(status: int) -> None:
    """scipy's quad over need at a reliability of .8: need times the chance of being judged between the cuts."""
    root, spread = np.sqrt(0.8), np.sqrt(0.2)

    def density(e: float, i: int) -> float:
        judged = norm.cdf((ROWS["high"][i] - root * e) / spread) - norm.cdf((ROWS["low"][i] - root * e) / spread)
        above = [1.0, *norm.cdf(0.6 * (ROWS["base"][i] + root * e) + ETA[i]), 0.0]
        return norm.pdf(e) * judged * (above[status] - above[status + 1])

    exact = sum(np.log(quad(density, -9, 9, args=(i,), epsabs=1e-13, points=[0.0])[0]) for i in range(3))
    assert now_derivatives(ETA, np.full(3, status), 0.8)[0] == pytest.approx(exact, abs=1e-4)


@pytest.mark.parametrize("reliability", [1.0, 0.8])
@pytest.mark.parametrize("d", [1, 2])
def test_derivatives_are_those_of_numerical_differences(d: int, reliability: float) -> None:
    for status in (np.array([0, 1, d]), np.array([d, 0, 1])):
        _, gradient, curvature, third = now_derivatives(ETA[:, :d].copy(), status, reliability)
        step = 1e-4
        for c in range(d):
            moved = step * np.eye(d)[c]
            up, down = (now_derivatives(ETA[:, :d] + s * moved, status, reliability) for s in (1, -1))
            by_row = [
                now_derivatives(ETA[i : i + 1, :d] + s * moved, status[i : i + 1], reliability, slice(i, i + 1))[0]
                for i in range(3)
                for s in (1, -1)
            ]
            numerical = -np.diff(np.array(by_row).reshape(3, 2), axis=1)[:, 0] / (2 * step)
            np.testing.assert_allclose(gradient[:, c], numerical, atol=1e-6)
            np.testing.assert_allclose(curvature[:, :, c], -(up[1] - down[1]) / (2 * step), atol=1e-6)
            np.testing.assert_allclose(third[:, :, :, c], (up[2] - down[2]) / (2 * step), atol=1e-6)


def test_the_likelihood_is_concave_where_labels_are_possible() -> None:
    """Minus the second derivative has no negative eigenvalue, as the search for the mode requires."""
    rng = np.random.default_rng(3)
    support = rng.normal(-0.5, 1.5, (400, 1))
    eta = np.hstack([support, support - rng.uniform(0.3, 3, (400, 1))])
    base, cut = rng.normal(0, 0.5, 400), rng.normal(0.8, 0.5, 400)
    labelled = rng.random(400) < 0.4
    low, high = np.where(labelled, cut, -FAR), np.where(labelled, FAR, cut)
    status = rng.integers(0, 3, 400)
    curvature = kernels.current_derivatives(eta, status, base, low, high, 0.6, 1.0, NODES_NOW, WEIGHTS_NOW, False)[2]
    assert np.linalg.eigvalsh(curvature).min() > -1e-8
