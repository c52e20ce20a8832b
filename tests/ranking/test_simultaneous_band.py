"""Joint rank intervals: they hold the truth and new draws jointly, where order statistics do not."""

import numpy as np
import pytest
from simulated_draws import normal_world, places_of

from send_va.errors import InputError
from send_va.ranking.draw_places import DrawPlaces, draw_places
from send_va.ranking.simultaneous_band import simultaneous_band


def share_inside(places: DrawPlaces, lower: np.ndarray, upper: np.ndarray) -> float:
    return float(((places.best >= lower) & (places.worst <= upper)).all(axis=1).mean())


def test_bands_hold_the_true_places_of_all_schools() -> None:
    """300 worlds: the standard error of a share of .95 is .013."""
    rng = np.random.default_rng(5)
    held = []
    for _ in range(300):
        truth, _, draws = normal_world(rng, 30, 300)
        band = simultaneous_band(draw_places(draws))
        place = places_of(truth)
        held.append(((band.lower <= place) & (place <= band.upper)).all())
    assert 0.95 - 4 * 0.013 < np.mean(held) <= 0.99


@pytest.mark.parametrize(("schools", "draws", "se"), [(20, 1000, 0.15), (300, 200, 0.8), (1000, 400, 0.15)])
def test_bands_hold_new_draws(schools: int, draws: int, se: float) -> None:
    """Schools far more than draws, nearly known ones too; 2,000 new draws, two points for the quantile itself."""
    rng = np.random.default_rng(schools)
    _, mean, old = normal_world(rng, schools, draws, se)
    band = simultaneous_band(draw_places(old))
    spread = np.sqrt(se**2 / (1 + se**2))
    new = draw_places(mean + spread * rng.normal(size=(2000, schools)))
    assert share_inside(new, band.lower, band.upper) > 0.93
    assert band.inside == share_inside(draw_places(old), band.lower, band.upper) >= 0.95


def test_order_statistics_would_not_hold_new_draws() -> None:
    """The reason for the method: Besag et al.'s band of 300 schools from 500 draws holds far fewer."""
    rng = np.random.default_rng(1)
    _, mean, old = normal_world(rng, 300, 500, 0.8)
    ranks = np.sort(draw_places(old).best, axis=0)
    needed = np.zeros(500)
    for own, ordered in zip(draw_places(old).best.T, ranks.T, strict=True):
        below, upto = np.searchsorted(ordered, own), np.searchsorted(ordered, own, side="right")
        needed = np.maximum(needed, np.maximum(below + 1, 501 - upto))
    k = int(np.sort(needed)[474])
    new = draw_places(mean + np.sqrt(0.64 / 1.64) * rng.normal(size=(1000, 300)))
    assert share_inside(draw_places(old), ranks[500 - k], ranks[k - 1]) >= 0.95
    assert share_inside(new, ranks[500 - k], ranks[k - 1]) < 0.6


def test_a_school_that_never_moves_keeps_its_place() -> None:
    draws = np.random.default_rng(1).normal([50.0, 0.0, 0.0, -50.0], 1.0, (400, 4))
    band = simultaneous_band(draw_places(draws))
    assert band.lower.tolist() == [1, 2, 2, 4]
    assert band.upper.tolist() == [1, 3, 3, 4]


def test_order_known_without_error_is_bounded_by_itself() -> None:
    band = simultaneous_band(draw_places(np.tile([3.0, 2.0, 1.0], (100, 1))))
    assert band.lower.tolist() == band.upper.tolist() == [1, 2, 3]
    assert band.inside == 1.0


def test_what_is_refused() -> None:
    places = draw_places(np.random.default_rng(1).normal(size=(39, 3)))
    with pytest.raises(InputError, match=r"39 draws cannot bound ranks jointly at 95%. Give 40"):
        simultaneous_band(places)
    with pytest.raises(InputError, match="coverage"):
        simultaneous_band(places, 1.0)
