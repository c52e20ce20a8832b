"""Grades: the same objective as drrank (9f61736), known cases, and error under the right prior."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from send_va.errors import InputError
from send_va.ranking.deconvolution import Prior, deconvolve
from send_va.ranking.grades import grades
from send_va.ranking.pairwise import pairwise_probabilities


@pytest.fixture(scope="module")
def twelve(shared_reference: Path) -> tuple[np.ndarray, pd.DataFrame]:
    folder = shared_reference / "grades"
    above = np.loadtxt(folder / "names12_Rns_pij.csv", delimiter=",")
    return above, pd.read_csv(folder / "names12_Rns_grades.csv")


def counted(above: np.ndarray, grade: np.ndarray) -> tuple[float, float]:
    """Discordance and tau of grades, as shares of pairs."""
    better = grade[:, None] < grade[None, :]
    pairs = len(grade) * (len(grade) - 1) / 2
    return (above.T * better).sum() / pairs, ((above - above.T) * better).sum() / pairs


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5, 0.75, 1.0])
def test_loss_ratios_of_drrank(twelve, ratio):
    above, reference = twelve
    found = grades(above, loss_ratio=ratio)
    expected = reference[f"grades_lamb{ratio}"].to_numpy()
    discordance, tau = counted(above, expected)
    assert found.objective == pytest.approx((1 - ratio) * discordance - ratio * tau, abs=1e-12)
    assert (found.discordance, found.tau) == pytest.approx((discordance, tau), abs=1e-12)
    assert found.grades.tolist() == expected.tolist()
    assert found.gap == 0.0


@pytest.mark.parametrize("rate", [0.05, 0.1])
def test_discordance_rates_of_drrank(twelve, rate):
    above, reference = twelve
    found = grades(above, discordance_rate=rate)
    expected = reference[f"grades_DR{rate}"].to_numpy()
    assert found.tau == pytest.approx(counted(above, expected)[1], abs=1e-12)
    assert -found.objective == found.tau
    assert found.grades.tolist() == expected.tolist()
    assert found.discordance <= found.discordance_limit <= rate / 2
    wider = grades(above, discordance_rate=rate, counting="pairs")
    assert found.tau <= wider.tau
    assert wider.discordance <= wider.discordance_limit == pytest.approx(rate)


def test_all_names_fall_in_two_grades(shared_reference: Path):
    names = pd.read_csv(shared_reference / "grades/names_input.csv")
    prior = deconvolve(names["thetas"], names["s"])
    found = grades(pairwise_probabilities(prior=prior, estimate=names["thetas"], se=names["s"]), loss_ratio=0.25)
    assert found.n_grades == 2
    assert found.grades.tolist()[:5] == [1] * 5  # the five shown in the README of drrank
    assert found.objective <= (1 - 0.25) * 0.072 - 0.25 * 0.283 + 5e-4  # an earlier solution, to three digits
    assert found.gap < 0.02


@pytest.mark.parametrize("options", [{}, {"loss_ratio": 1.0}, {"discordance_rate": 0.2}])
@pytest.mark.parametrize("n", [2, 8, 30])
def test_equals_share_one_grade(n, options):
    for value in (0.5, 0.0):
        found = grades(np.full((n, n), value), **options)
        assert found.grades.tolist() == [1] * n
        assert found.gap == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("options", [{}, {"loss_ratio": 1.0}, {"discordance_rate": 0.0}])
@pytest.mark.parametrize("n", [2, 8, 40])
def test_separated_units_have_a_grade_each(n, options):
    order = np.random.default_rng(n).permutation(n)
    above = (order[:, None] < order[None, :]).astype(float)
    found = grades(above, **options)
    assert found.grades.tolist() == (order + 1).tolist()
    assert (found.tau, found.discordance) == (1.0, 0.0)
    assert found.gap == pytest.approx(0.0, abs=1e-12)


def simulated(n: int, rng: np.random.Generator, spread: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """True effects, and pairwise probabilities of normal posteriors under the right prior."""
    theta = 0.25 * rng.normal(size=n)
    se = rng.uniform(0.15 - spread / 2, 0.15 + spread / 2, n)
    y = theta + se * rng.normal(size=n)
    variance = 1 / (1 / 0.0625 + 1 / se**2)
    mean = variance * y / se**2
    above = norm.cdf((mean[:, None] - mean) / np.sqrt(variance[:, None] + variance))
    return theta, above


def test_a_loss_ratio_of_zero_tells_nobody_apart_and_of_one_everybody():
    _, above = simulated(40, np.random.default_rng(1))
    assert grades(above, loss_ratio=0.0).n_grades == 1
    assert grades(above, loss_ratio=1.0).n_grades == 40


def test_with_equal_precision_the_grades_are_proved_best():
    _, above = simulated(80, np.random.default_rng(2), spread=0.0)
    found = grades(above)
    assert 3 <= found.n_grades <= 12
    assert found.gap < 1e-9


@pytest.mark.parametrize("n", [12, 40])
def test_realised_discordance_keeps_to_the_rate(n):
    rng = np.random.default_rng(n)
    realised = []
    for _ in range(40):
        theta, above = simulated(n, rng)
        found = grades(above, discordance_rate=0.05, counting="pairs")
        assert found.discordance <= 0.05
        realised.append(counted((theta[:, None] > theta).astype(float), found.grades.to_numpy())[0])
    assert np.mean(realised) <= 0.05 + 2 * np.std(realised) / np.sqrt(40)
    assert np.mean(realised) > 0.03  # the rate is used


def test_expected_discordance_is_that_of_draws():
    rng = np.random.default_rng(7)
    grid = np.linspace(-1, 1, 401)
    density = norm.pdf(grid, 0, 0.25)
    prior = Prior(grid, density / density.sum(), "spline", 0.0, 0.0, True)
    y = 0.29 * rng.normal(size=30)
    posterior = prior.posterior(y, np.full(30, 0.15))
    draws = posterior.draws(2_000, rng)
    found = grades(pairwise_probabilities(draws), loss_ratio=0.5)
    shares = [counted((draw[:, None] > draw).astype(float), found.grades.to_numpy()) for draw in draws]
    assert (found.discordance, found.tau) == pytest.approx(tuple(np.mean(shares, axis=0)), abs=1e-10)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(2, 30), seed=st.integers(0, 999), rate=st.floats(0.01, 0.3))
def test_order_of_input_does_not_matter_and_limits_hold(n, seed, rate):
    rng = np.random.default_rng(seed)
    _, above = simulated(n, rng)
    found = grades(above, discordance_rate=rate, counting="pairs")
    assert found.discordance <= rate + 1e-12
    assert sorted(set(found.grades)) == list(range(1, found.n_grades + 1))
    assert (found.discordance, found.tau) == pytest.approx(counted(above, found.grades.to_numpy()))
    shuffled = rng.permutation(n)
    again = grades(above[np.ix_(shuffled, shuffled)], loss_ratio=rate)
    assert again.objective == pytest.approx(grades(above, loss_ratio=rate).objective, abs=2e-3)


def test_keeps_names_and_prints():
    _, above = simulated(14, np.random.default_rng(3))
    names = [f"school {k}" for k in range(14)]
    found = grades(pd.DataFrame(above, index=names, columns=names))
    assert found.grades.index.tolist() == names
    assert f"14 units in {found.n_grades} grade" in str(found)
    assert "units" in found._repr_html_()
    assert found.loss_ratio == 0.25
    assert found.discordance_limit is None


def _broken(entry: tuple[int, int], value: float) -> np.ndarray:
    above = np.full((4, 4), 0.5)
    above[entry] = value
    return above


@pytest.mark.parametrize(
    ("above", "options", "message"),
    [
        (np.full((3, 3), 0.5), {"loss_ratio": 0.25, "discordance_rate": 0.05}, "both"),
        (np.full((3, 3), 0.5), {"loss_ratio": 1.5}, "loss_ratio must lie between 0 and 1"),
        (np.full((3, 3), 0.5), {"discordance_rate": -0.1}, "discordance_rate must lie"),
        (np.full((3, 3), 0.5), {"discordance_rate": np.nan}, "discordance_rate must lie"),
        (np.full((3, 3), 0.5), {"counting": "half"}, "no counting 'half'"),
        (np.full((3, 3), 0.5), {"loss_ratio": "0.25"}, "loss_ratio must lie between 0 and 1, not 0.25"),
        ([["A", "B"], ["B", "A"]], {}, "pairwise, given as list, holds entries that are not numbers.*square array"),
        (object(), {}, "pairwise, given as object, holds"),
        (np.full((3, 2), 0.5), {}, "shape"),
        (np.full(3, 0.5), {}, "shape"),
        (np.zeros((1, 1)), {}, "1 unit cannot be graded"),
        (_broken((2, 1), np.nan), {}, "probabilities, 0 to 1; 1 row fails; rows 3"),
        (_broken((0, 1), 1.2), {}, "probabilities, 0 to 1"),
        (_broken((0, 1), 0.9), {}, "sum to at most one; 2 rows fail; rows 1, 2"),
    ],
)
def test_refuses(above, options, message):
    with pytest.raises(InputError, match=message):
        grades(above, **options)


def test_rows_and_columns_name_the_same_units() -> None:
    table = pd.DataFrame([[0.9, 0.0], [0.0, 0.1]], index=list("ab"), columns=list("ba"))
    with pytest.raises(InputError, match="rows and columns of pairwise have other labels"):
        grades(table)
    assert grades(table[["a", "b"]]).grades.to_dict() == {"a": 1, "b": 2}
