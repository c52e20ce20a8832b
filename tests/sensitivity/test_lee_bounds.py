"""Lee's trimming bounds against linear programming, a known truth, and the spread of the estimates themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.stats import norm

from send_va.errors import InputError
from send_va.sensitivity.bounds import imbens_manski, kept_weights, lee_bounds, trimmed_mean


@settings(max_examples=25, deadline=None)
@given(
    values=st.lists(st.floats(-50, 50), min_size=2, max_size=12),
    share=st.floats(0.0, 0.9),
)
def test_no_way_of_leaving_out_the_share_gives_a_lower_or_higher_mean(values: list[float], share: float) -> None:
    """The kept mass is a linear programme: weights between 0 and 1 that add up to what is left."""
    n = len(values)
    left = n * (1.0 - share)
    lowest, highest = (
        linprog(sign * np.array(values) / left, A_eq=np.ones((1, n)), b_eq=[left], bounds=(0, 1)).fun * sign
        for sign in (1.0, -1.0)
    )
    close = 1e-4  # the programme's weights are feasible to 1e-7 each, times 12 values of 50
    assert trimmed_mean(values, share, "top").mean == pytest.approx(lowest, abs=close)
    assert trimmed_mean(values, share, "bottom").mean == pytest.approx(highest, abs=close)
    assert kept_weights(n, share).sum() == pytest.approx(left, abs=1e-9)


def drawn(rng: np.random.Generator, n: int, more: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Treatment brings a fifth of the rest into the selected (or keeps it out) and adds 0.3 to the outcome."""
    treated = rng.integers(0, 2, n)
    ability = rng.normal(size=n)
    always = ability + rng.normal(size=n) > 0.3
    marginal = rng.uniform(size=n) < 0.2
    selected = np.where((treated == 1) == more, always | marginal, always)
    return ability + 0.3 * treated + rng.normal(size=n), selected.astype(int), treated


@pytest.mark.parametrize("more", [True, False])
def test_bounds_and_their_errors_over_many_samples(more: bool) -> None:
    rng = np.random.default_rng(4)
    runs = [lee_bounds(*drawn(rng, 1000, more)) for _ in range(300)]
    for end in ("lower", "upper"):
        estimates, errors = (np.array([getattr(run, name) for run in runs]) for name in (end, f"{end}_se"))
        # an SD over 300 samples has a standard error of 4 %
        assert errors.mean() == pytest.approx(estimates.std(), rel=0.12)
    # a population so large that its bounds are the truth: within 4 standard errors of the mean over samples
    whole = lee_bounds(*drawn(np.random.default_rng(9), 300_000, more))
    assert np.mean([run.lower for run in runs]) == pytest.approx(whole.lower, abs=4 * runs[0].lower_se / 17 + 0.02)
    assert np.mean([run.upper for run in runs]) == pytest.approx(whole.upper, abs=4 * runs[0].upper_se / 17 + 0.02)
    assert whole.lower < 0.3 < whole.upper
    assert whole.trimmed == ("treated" if more else "control")
    inside = np.mean([run.interval[0] <= whole.lower <= run.interval[1] for run in runs])
    assert inside > 0.92  # the interval is to hold any point between the bounds with .95, the ends included


def test_where_nothing_differs_nothing_is_trimmed_and_the_bounds_meet() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=400)
    treated = np.repeat([0, 1], 200)
    found = lee_bounds(y, np.ones(400), treated)
    plain = y[200:].mean() - y[:200].mean()
    assert found.lower == pytest.approx(plain) and found.upper == pytest.approx(plain)
    assert found.trimmed == "" and found.share_trimmed == pytest.approx(0.0, abs=1e-12)
    reach = 1.959963984540054 * np.sqrt(y[200:].var() / 200 + y[:200].var() / 200)
    assert found.interval == pytest.approx((plain - reach, plain + reach), rel=1e-6)
    assert "nothing trimmed" in str(found) and found.sign_known == (abs(plain) > reach)


def test_the_interval_for_the_number_itself_solves_its_equation() -> None:
    for width, a, b in ((0.0, 1.0, 2.0), (1.0, 1.0, 2.0), (30.0, 0.5, 0.1)):
        c = imbens_manski(width, a, b, 0.9)
        assert norm.cdf(c + width / max(a, b)) - norm.cdf(-c) == pytest.approx(0.9, abs=1e-9)
    assert imbens_manski(1.0, 0.0, 0.0) == 0.0


def test_bad_input_is_refused_with_what_is_wrong() -> None:
    good = [1.0, 2.0, 3.0, 4.0], [1, 1, 1, 1], [0, 0, 1, 1]
    for wrong, match in (
        ((good[0], good[1], good[2][:3]), "shapes"),
        ((good[0], [1, 1, 1, 2], good[2]), "selected: holds other values"),
        ((good[0], good[1], [0, 0, 1, 0.5]), "treated: holds other values"),
        (([np.nan, 2.0, 3.0, 4.0], good[1], good[2]), "outcome: is missing"),
        ((good[0], [1, 0, 1, 1], good[2]), "fewer than two of the control"),
    ):
        with pytest.raises(InputError, match=match):
            lee_bounds(*wrong)
    with pytest.raises(InputError, match="coverage"):
        lee_bounds(*good, coverage=1.0)
    with pytest.raises(InputError, match="no end"):
        trimmed_mean([1.0], 0.1, "middle")
    for values, share in (([], 0.1), ([1.0], 1.0), ([1.0], -0.1)):
        with pytest.raises(InputError, match="cannot be cut off"):
            trimmed_mean(values, share, "top")
