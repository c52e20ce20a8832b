"""The likelihood of a pupil against brute-force integration and against what it must add up to."""

from functools import cache

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.compile.mode import Mode
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm

from send_va.validation.joint_likelihood import LabelData, PupilTerms, pupil_log_likelihood
from send_va.validation.joint_orthant import Orthant

PLAIN = Mode("py", "None")  # NumPy, nothing compiled
RHO = np.array([0.0, 1.7, 2.8])
SIGMA = np.array([0.63, 0.7])


@cache
def pupils(levels: int, n: int = 80) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(levels)
    base, lenient, now = rng.normal(0, 0.7, n), rng.normal(0, 0.5, (n, 2)), rng.normal(0, 0.5, (n, 2))
    without = rng.normal(0, 0.8, n)
    return {
        "base": base,
        "cuts": (np.array([1.0, 2.0]) - base[:, None] - lenient)[:, :levels],
        "offset": (now - np.array([1.6, 3.2]))[:, :levels],
        "without": without,
        "with_need": without + rng.normal(0, 0.3, n),
        "outcome": without + rng.normal(0, 0.8, n),
        "entry": rng.integers(0, levels + 1, n),
        "now": rng.integers(0, levels + 1, n),
    }


def index_of(of: dict[str, np.ndarray], entry: np.ndarray, kappa: float) -> np.ndarray:
    return (kappa * of["base"] + RHO[entry])[:, None] + of["offset"]


def package(
    of: dict[str, np.ndarray], entry: np.ndarray, now: np.ndarray, kappa: float, delta: float, any_labels: bool = False
) -> np.ndarray:
    levels = of["cuts"].shape[1]
    data = LabelData.of(entry, now, levels, any_labels=any_labels)
    labels = LabelData(*(pt.as_tensor(values) for values in vars(data).values()))
    index = index_of(of, entry, kappa)
    given = (of["base"], 1.0, of["cuts"], index, kappa, of["without"], of["with_need"], delta, SIGMA)
    terms = PupilTerms(*(pt.as_tensor(value) for value in given))
    value = pupil_log_likelihood(pt.as_tensor(of["outcome"]), labels, terms, levels)
    return np.asarray(pytensor.function([], value, mode=PLAIN)())


def brute_force(of: dict[str, np.ndarray], i: int, kappa: float, delta: float) -> float:
    """Integral over need of everything that was observed of pupil i."""
    entry, now = int(of["entry"][i]), int(of["now"][i])
    cuts = np.maximum.accumulate(of["cuts"][i])
    edges = np.concatenate([[-9.0], cuts, [9.0]])
    low, high = edges[entry], edges[entry + 1]
    index = np.minimum.accumulate(index_of(of, of["entry"], kappa)[i])
    threshold = 1.0 - of["base"][i]

    def density(e: float) -> float:
        above = np.concatenate([[1.0], norm.cdf(kappa * e + index), [0.0]])
        need = e > threshold
        mean = (of["with_need"] if need else of["without"])[i] + delta * e
        label = above[now] - above[now + 1]
        return float(norm.pdf(of["outcome"][i], mean, SIGMA[int(need)]) * norm.pdf(e) * label)

    middle = min(max(threshold, low), high)
    return sum(quad(density, a, b, epsabs=1e-14, limit=100)[0] for a, b in ((low, middle), (middle, high)) if b > a)


@pytest.mark.parametrize(("levels", "kappa", "delta"), [(2, 0.6, -0.25), (1, 0.6, -0.25), (2, 1.0, 0.4)])
def test_each_pupil_is_integrated_as_by_brute_force(levels: int, kappa: float, delta: float) -> None:
    of = pupils(levels)
    found = package(of, of["entry"], of["now"], kappa, delta)
    chance = np.array([brute_force(of, i, kappa, delta) for i in range(40)])
    likely = chance > 1e-6  # others are labelled against everything known of them
    assert likely.sum() >= 30
    np.testing.assert_allclose(found[:40][likely], np.log(chance[likely]), atol=1e-5)


@pytest.mark.parametrize("levels", [1, 2])
def test_labels_sum_to_the_density_of_the_outcome(levels: int) -> None:
    """Over all labels, what is left is the outcome: two normal densities, each with its share of need."""
    of, kappa, delta = pupils(levels), 0.6, -0.25
    total = np.zeros(len(of["base"]))
    for entry in range(levels + 1):
        for now in range(levels + 1):
            whole = np.full(len(total), entry), np.full(len(total), now)
            total += np.exp(package(of, *whole, kappa, delta))
    expected = np.zeros(len(total))
    for N, name in enumerate(("without", "with_need")):
        variance = SIGMA[N] ** 2 + delta**2
        residual = of["outcome"] - of[name]
        sd, mean = SIGMA[N] / np.sqrt(variance), delta * residual / variance
        share = norm.cdf((1.0 - of["base"] - mean) / sd)
        expected += norm.pdf(residual, 0.0, np.sqrt(variance)) * (share if N == 0 else 1.0 - share)
    np.testing.assert_allclose(total, expected, rtol=1e-6)


def test_the_layout_for_any_labels_says_the_same() -> None:
    of = pupils(2)
    own = package(of, of["entry"], of["now"], 0.6, -0.25)
    np.testing.assert_allclose(package(of, of["entry"], of["now"], 0.6, -0.25, any_labels=True), own, rtol=1e-12)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_an_orthant_is_that_of_scipy_and_its_derivatives_those_of_differences(sign: float) -> None:
    h, k, slope = pt.dvector(), pt.dvector(), pt.dscalar()
    value = Orthant()(h, k, np.full(3, sign), np.zeros(3, dtype=bool), slope, np.float64(0.1))
    inputs = [np.array([0.3, -1.2, 2.0]), np.array([-0.5, 0.4, 1.1]), np.float64(0.7)]
    of = pytensor.function([h, k, slope], value, mode=PLAIN)
    by = pytensor.function([h, k, slope], pytensor.grad(value.sum(), [h, k, slope]), mode=PLAIN)(*inputs)
    r = sign * 0.7 / np.sqrt(1.0 + 0.7**2)
    exact = [multivariate_normal([0, 0], [[1, r], [r, 1]]).cdf(point) for point in np.column_stack(inputs[:2])]
    np.testing.assert_allclose(of(*inputs), exact, atol=1e-8)
    for place, derivative in enumerate(by):
        moved = [[value + step * (at == place) for at, value in enumerate(inputs)] for step in (1e-5, -1e-5)]
        difference = (of(*moved[0]) - of(*moved[1])) / 2e-5
        np.testing.assert_allclose(derivative, difference if place < 2 else difference.sum(), atol=1e-6)
