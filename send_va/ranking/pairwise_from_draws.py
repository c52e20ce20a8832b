"""Chances that one school is higher than another, counted from draws: a pair, one against all, blocks of schools."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from send_va.effects import FloatArray
from send_va.errors import InputError
from send_va.ranking.draw_places import checked_draws, descending
from send_va.ranking.estimate_inputs import refuse
from send_va.ranking.place_kernels import count_block_wins
from send_va.ranking.threads import in_threads

_TILE = 256
_PARTS = 4
MOST_BLOCKS = 2_000  # 32 MB; each draw adds a row of blocks for every school


def chance_above_each(draws: FloatArray, school: int) -> FloatArray:
    """Chance that one school is higher than each other, ties by half.

    Parameters
    ----------
    draws : array, shape (draws, schools)
    school : int
        Its position, from 0.

    Returns
    -------
    array, shape (schools,)
        Its own entry is .5. Above .975 the 95 % interval of the difference lies above zero.

    Raises
    ------
    InputError
        Draws that cannot be ranked, or no such position.

    Examples
    --------
    >>> chance_above_each(np.array([[1.0, 0.0, 1.0], [1.0, 2.0, 0.0]]), 0).tolist()
    [0.5, 0.5, 0.75]
    """
    draws = checked_draws(draws)
    _check_position(school, draws.shape[1])
    own = draws[:, school, None]
    chance = np.empty(draws.shape[1])

    def count(part: slice) -> None:
        chance[part] = (draws[:, part] < own).mean(axis=0) + 0.5 * (draws[:, part] == own).mean(axis=0)

    in_threads(count, [slice(start, start + _TILE) for start in range(0, draws.shape[1], _TILE)])
    return chance


def chance_above(draws: FloatArray, first: int, second: int) -> float:
    """Chance that the school at position `first` is higher than the one at `second`, ties by half.

    Raises
    ------
    InputError
        Draws that cannot be ranked, or no such position.

    Examples
    --------
    >>> chance_above(np.array([[1.0, 0.0], [1.0, 2.0], [3.0, 2.0], [3.0, 3.0]]), 0, 1)
    0.625
    """
    draws = checked_draws(draws)
    for position in (first, second):
        _check_position(position, draws.shape[1])
    return float(chance_above_each(np.ascontiguousarray(draws[:, [first, second]]), 0)[1])


def chance_above_by_block(draws: FloatArray, block: ArrayLike) -> FloatArray:
    """Mean chance that a school of one block is higher than one of another: a pairwise table of any number of schools.

    The mean over pairs is exact, and every pair of every draw is in it, by walking through each draw once in order:
    the work grows with draws x schools x blocks, never with pairs of schools.

    Parameters
    ----------
    draws : array, shape (draws, schools)
    block : int array, shape (schools,)
        Block of each school, from 0; ``numpy.arange(schools)`` gives the table of single schools.

    Returns
    -------
    array, shape (blocks, blocks)
        ``[a, b]``: mean of P(school of a > school of b) over pairs of different schools. A block against itself is .5;
        so is a school against itself.

    Raises
    ------
    InputError
        Draws that cannot be ranked, blocks that are not numbered 0, 1, ..., or more than 2,000 of them.

    Examples
    --------
    >>> draws = np.array([[3.0, 2.0, 1.0], [3.0, 1.0, 2.0], [1.0, 3.0, 2.0]])
    >>> chance_above_by_block(draws, [0, 1, 1]).round(2).tolist()
    [[0.5, 0.67], [0.33, 0.5]]
    """
    draws = checked_draws(draws)
    n = draws.shape[1]
    blocks = _checked_blocks(block, n)
    sizes = np.bincount(blocks).astype(np.float64)
    starts = np.array_split(np.arange(0, draws.shape[0], _TILE), _PARTS)

    def count(part: NDArray[np.intp]) -> FloatArray:
        wins = np.zeros((len(sizes), len(sizes)))  # whole and half numbers: sums are exact in any order
        below = np.zeros(len(sizes), dtype=np.int64)
        for start in part:
            rows = draws[start : start + _TILE]
            count_block_wins(rows, descending(rows), blocks, below, wins)
        return wins

    pairs = np.outer(sizes, sizes) - np.diag(sizes)
    wins: FloatArray = np.sum(in_threads(count, starts), axis=0) / draws.shape[0]
    chance: FloatArray = np.divide(wins, pairs, out=np.full(pairs.shape, 0.5), where=pairs > 0.0)
    return chance


def even_blocks(order: ArrayLike, blocks: int) -> NDArray[np.intp]:
    """Cut schools into blocks of even size by their order: block 0 has the lowest values of `order`.

    Parameters
    ----------
    order : array, shape (schools,)
        Expected ranks, say.
    blocks : int
        At most as many as there are schools are made.

    Returns
    -------
    int array, shape (schools,)

    Raises
    ------
    InputError
        No school, no block, or an order that is not finite.

    Examples
    --------
    >>> even_blocks([3.0, 1.0, 2.0, 4.0], 2).tolist()
    [1, 0, 0, 1]
    """
    values = np.asarray(order, dtype=np.float64)
    if values.ndim != 1 or not values.size or blocks < 1:
        raise InputError(f"{blocks} blocks of schools with an order of shape {values.shape}", "Give one rank a school.")
    refuse(~np.isfinite(values), values, "order", "is not finite", "Give a rank to each school.")
    block = np.empty(len(values), dtype=np.intp)
    block[np.argsort(values, kind="stable")] = np.arange(len(values)) * min(blocks, len(values)) // len(values)
    return block


def _checked_blocks(block: ArrayLike, n: int) -> NDArray[np.intp]:
    blocks = np.ascontiguousarray(block, dtype=np.intp)
    if blocks.shape != (n,):
        raise InputError(f"blocks have shape {blocks.shape} for {n} schools", "Give one block a school.")
    if blocks.min() < 0 or len(np.unique(blocks)) != blocks.max() + 1:
        raise InputError("blocks are not numbered 0, 1, ... without gaps", "Make them by even_blocks.")
    count = int(blocks.max()) + 1
    if count > MOST_BLOCKS:
        size = f"{8 * count**2 / 1e9:,.2g} GB" if 8 * count**2 >= 1e8 else f"{8 * count**2 / 1e6:,.0f} MB"
        remedy = (
            f"Give at most {MOST_BLOCKS:,} blocks (even_blocks), or ask for one school against all (chance_above_each)."
        )
        raise InputError(f"a pairwise table of {count:,} units takes {size} for each of several copies", remedy)
    return blocks


def _check_position(school: int, n: int) -> None:
    if not 0 <= school < n:
        raise InputError(f"there is no school at position {school}", f"Positions go from 0 to {n - 1}.")
