"""Places and fifths, by brute force."""

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from send_va.sensitivity.school_places import SHARES, by_school, places, quintiles


def fifth_by_counting(theta: np.ndarray) -> list[int]:
    """Fifth of every school by how many are above it; schools with the same value share the first of their places."""
    known = [value for value in theta if np.isfinite(value)]
    out = []
    for value in theta:
        if not np.isfinite(value):
            out.append(0)
            continue
        out.append(1 + sum(v > value for v in known) * 5 // len(known))
    return out


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, st.integers(1, 23), elements=st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, -1.0, np.nan])))
def test_fifths_and_places_by_counting_schools_above(theta: np.ndarray) -> None:
    assert quintiles(theta).tolist() == fifth_by_counting(theta)
    known = np.isfinite(theta)
    assert np.isnan(places(theta)[~known]).all()
    if known.any():
        assert places(theta)[known].mean() == np.float64(0.5).item() or abs(places(theta)[known].mean() - 0.5) < 1e-12


def test_schools_are_summed_up_over_the_tables_they_are_in() -> None:
    rng = np.random.default_rng(5)
    theta = rng.standard_normal((12, 30))
    theta[rng.uniform(size=theta.shape) < 0.2] = np.nan
    theta[:, 4] = np.nan
    theta[3, 7] = np.nan
    schools = np.array([str(k) for k in range(30)])
    table = by_school(schools, theta, 3)
    fifth = np.array([fifth_by_counting(row) for row in theta])
    for k in range(30):
        row, own = table.iloc[k], fifth[:, k][fifth[:, k] > 0]
        assert row["n_specifications"] == len(own) == np.isfinite(theta[:, k]).sum()
        if k == 4:
            assert row[list(SHARES)].isna().all() and pd.isna(row["modal_quintile"]) and not row["depends"]
            continue
        shares = [np.mean(own == q) for q in range(1, 6)]
        np.testing.assert_allclose(row[list(SHARES)].astype(float), shares)
        assert row["modal_quintile"] == 1 + int(np.argmax(shares)) and row["depends"] == (len(set(own)) > 1)
        np.testing.assert_allclose(
            row[["lowest", "median", "highest"]].astype(float),
            [np.nanmin(theta[:, k]), np.nanmedian(theta[:, k]), np.nanmax(theta[:, k])],
        )
        own_places = places(theta)[:, k]
        np.testing.assert_allclose(row["place_range"], np.nanmax(own_places) - np.nanmin(own_places))
        assert pd.isna(row["reference_quintile"]) if fifth[3, k] == 0 else row["reference_quintile"] == fifth[3, k]
