"""A two-dimensional map of schools, feeder primaries and local authorities, and who goes where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from send_va.records.simulator.named import find_named

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# A map unit is the side of the square that holds one school on average.
_FEEDERS_PER_SCHOOL = 4.7  # 16,000 feeder primaries to 3,400 mainstream secondaries
_SCHOOLS_PER_LA = 6.7  # the recovery study's 1,000 schools in 150 authorities
_MOST_LAS = 150
_SCHOOLS_PER_TOWN = 12
_TOWN_SHARE = 0.7
_NEIGHBOURHOOD = 60
_OWN_FEEDERS = 5


@dataclass(frozen=True)
class Geography:
    """How pupils travel from feeders to schools.

    Attributes
    ----------
    own_share : float
        Share of a school's intake from its five own feeders.
    far_share : float
        Share from feeders outside the school's neighbourhood (its 60 nearest feeders, or a quarter of all if fewer).
        At least .10: with less the graph of feeders and schools is nearly a band, and timings of crossed models on it
        say nothing about England.
    exclusive : bool
        Whether own feeders are shared with no neighbouring school (True) or are simply the five nearest (False).
    reach : float
        Number of feeders over which the chance of coming from a near feeder falls by a factor e.
    """

    own_share: float
    far_share: float
    exclusive: bool
    reach: float


GEOGRAPHIES: Mapping[str, Geography] = MappingProxyType(
    {
        "scattered": Geography(own_share=0.0, far_share=0.12, exclusive=False, reach=25.0),
        "five_feeders": Geography(own_share=0.70, far_share=0.12, exclusive=False, reach=25.0),
        "nearly_nested": Geography(own_share=0.88, far_share=0.12, exclusive=True, reach=25.0),
    }
)


@dataclass(frozen=True)
class MapOfSchools:
    """Places of schools and feeders, and the authority each lies in.

    Attributes
    ----------
    school_xy, feeder_xy : ndarray of float, shapes (n_schools, 2) and (n_feeders, 2)
        Places, in map units (one school to a unit square).
    feeder_parent : ndarray of int, shape (n_feeders,)
        The school each feeder was built near.
    school_la, feeder_la : ndarray of int, shapes (n_schools,) and (n_feeders,)
        Index of the authority.
    n_las : int
        Number of authorities.
    """

    school_xy: Floats
    feeder_xy: Floats
    feeder_parent: Ints
    school_la: Ints
    feeder_la: Ints
    n_las: int


def find_geography(name: str) -> Geography:
    """Look a geography up by its name.

    Parameters
    ----------
    name : str
        A key of `GEOGRAPHIES`.

    Returns
    -------
    Geography
        The shares of the intake by kind of feeder.

    Raises
    ------
    InputError
        If there is no such geography; the message names the nearest one and lists all.

    Examples
    --------
    >>> find_geography("five_feeders").own_share
    0.7
    """
    return find_named(name, GEOGRAPHIES, "geography", "geographies")


def draw_map(rng: np.random.Generator, n_schools: int) -> MapOfSchools:
    """Place schools in towns and in the country, feeders near schools, and cut the map into authorities.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    n_schools : int
        Number of schools, at least 2.

    Returns
    -------
    MapOfSchools
        About 4.7 feeders a school; an authority is the region nearest to one of its seeds (about 7 schools, at
        most 150 authorities).

    Examples
    --------
    >>> places = draw_map(np.random.default_rng(1), 40)
    >>> places.feeder_xy.shape, places.n_las
    ((188, 2), 6)
    """
    side = np.sqrt(n_schools)
    towns = rng.uniform(0, side, size=(max(1, n_schools // _SCHOOLS_PER_TOWN), 2))
    in_town = rng.random(n_schools) < _TOWN_SHARE
    town_places = towns[rng.integers(len(towns), size=n_schools)] + rng.normal(0, 0.8, size=(n_schools, 2))
    school_xy = np.where(in_town[:, None], town_places, rng.uniform(0, side, size=(n_schools, 2))).clip(0, side)

    extra = round((_FEEDERS_PER_SCHOOL - 4) * n_schools)
    feeder_parent = np.concatenate([np.tile(np.arange(n_schools), 4), rng.permutation(n_schools)[:extra]])
    feeder_xy = (school_xy[feeder_parent] + rng.normal(0, 0.4, size=(len(feeder_parent), 2))).clip(0, side)

    n_las = min(_MOST_LAS, max(1, round(n_schools / _SCHOOLS_PER_LA)))
    seeds = cKDTree(school_xy[rng.choice(n_schools, size=n_las, replace=False)])
    return MapOfSchools(
        school_xy=school_xy,
        feeder_xy=feeder_xy,
        feeder_parent=feeder_parent,
        school_la=seeds.query(school_xy)[1].astype(np.int64),
        feeder_la=seeds.query(feeder_xy)[1].astype(np.int64),
        n_las=n_las,
    )


def smooth_field(rng: np.random.Generator, xy: Floats, length: float) -> Floats:
    """Draw a smooth Gaussian surface over the map by random Fourier features.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    xy : ndarray of float, shape (n, 2)
        Places, in map units.
    length : float
        Distance over which the surface changes (the scale of its squared-exponential covariance), in map units.

    Returns
    -------
    ndarray of float, shape (n,)
        Heights, with mean 0 and SD 1 over the places given.

    References
    ----------
    Rahimi, A. & Recht, B. (2007). Random features for large-scale kernel machines. NeurIPS 20.

    Examples
    --------
    >>> heights = smooth_field(np.random.default_rng(1), np.random.default_rng(2).uniform(0, 9, (50, 2)), 2.0)
    >>> round(float(heights.std()), 6)
    1.0
    """
    waves = rng.normal(0, 1 / length, size=(2, 64))
    heights: Floats = np.cos(xy @ waves + rng.uniform(0, 2 * np.pi, size=64)).sum(axis=1)
    return (heights - heights.mean()) / heights.std()


def assign_feeders(
    rng: np.random.Generator, places: MapOfSchools, geography: Geography, school_of_pupil: Ints
) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Choose every pupil's feeder, given the school.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    places : MapOfSchools
        The map.
    geography : Geography
        Shares from own, near and far feeders.
    school_of_pupil : ndarray of int, shape (n,)
        Index of each pupil's school.

    Returns
    -------
    feeder : ndarray of int, shape (n,)
        Index of each pupil's feeder.
    far : ndarray of bool, shape (n,)
        Whether the feeder lies outside the school's neighbourhood.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> feeder, far = assign_feeders(rng, draw_map(rng, 40), GEOGRAPHIES["scattered"], np.repeat(np.arange(40), 100))
    >>> bool(far.mean() > 0.10)
    True
    """
    n_feeders = len(places.feeder_xy)
    neighbourhood = max(_OWN_FEEDERS + 1, min(_NEIGHBOURHOOD, n_feeders // 4))
    nearest: Ints = cKDTree(places.feeder_xy).query(places.school_xy, k=neighbourhood)[1].astype(np.int64)
    near_pairs = _near_pairs(places, nearest, exclusive=geography.exclusive)
    weights = np.exp(-np.arange(neighbourhood) / geography.reach)
    if geography.own_share and not geography.exclusive:
        weights[:_OWN_FEEDERS] = 0
    rank = np.searchsorted(np.cumsum(weights) / weights.sum(), rng.random(len(school_of_pupil)), side="right")
    feeder = nearest[school_of_pupil, np.minimum(rank, neighbourhood - 1)]

    kind = (rng.permutation(len(school_of_pupil)) + 0.5) / len(school_of_pupil)
    own = np.flatnonzero(kind < geography.own_share)
    feeder[own] = _draw_own(rng, places, geography, nearest, school_of_pupil[own])

    pending = np.flatnonzero(kind > 1 - geography.far_share)
    while len(pending):
        feeder[pending] = rng.integers(n_feeders, size=len(pending))
        pending = pending[_is_in(near_pairs, school_of_pupil[pending] * n_feeders + feeder[pending])]
    return feeder, ~_is_in(near_pairs, school_of_pupil * n_feeders + feeder)


def _draw_own(
    rng: np.random.Generator, places: MapOfSchools, geography: Geography, nearest: Ints, school: Ints
) -> Ints:
    if not geography.exclusive:
        return nearest[school, rng.integers(_OWN_FEEDERS, size=len(school))]
    by_parent = np.argsort(places.feeder_parent, kind="stable")
    count = np.bincount(places.feeder_parent, minlength=len(places.school_xy))
    first = np.cumsum(count) - count
    return by_parent[first[school] + rng.integers(count[school])]


def _near_pairs(places: MapOfSchools, nearest: Ints, *, exclusive: bool) -> Ints:
    """Sorted ``school * n_feeders + feeder`` of every pair that counts as near."""
    n_feeders = len(places.feeder_xy)
    pairs = (np.arange(len(nearest))[:, None] * n_feeders + nearest).ravel()
    if exclusive:
        pairs = np.concatenate([pairs, places.feeder_parent * n_feeders + np.arange(n_feeders)])
    return np.unique(pairs)


def _is_in(sorted_pairs: Ints, pairs: Ints) -> npt.NDArray[np.bool_]:
    at = np.minimum(np.searchsorted(sorted_pairs, pairs), len(sorted_pairs) - 1)
    found: npt.NDArray[np.bool_] = sorted_pairs[at] == pairs
    return found
