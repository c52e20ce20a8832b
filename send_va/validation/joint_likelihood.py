r"""Likelihood of a pupil's two labels and outcome, unexplained need integrated out.

Whether need ``e`` is above the national threshold is a step in the outcome, so that ``e`` cannot be sampled by
gradients; given everything else it can be integrated. The label before transfer leaves an interval of ``e``, which the
national threshold cuts into at most two pieces, one without need (N = 0) and one with (N = 1). On a piece

    N(y; g_N + delta e, sigma_N^2) phi(e)  =  N(y; g_N, sigma_N^2 + delta^2) N(e; m_N, v_N),
    v_N = sigma_N^2 / (sigma_N^2 + delta^2),   m_N = delta (y - g_N) / (sigma_N^2 + delta^2),

and the label now is a probit in ``e``: what is left is the probability of a strip of a bivariate normal, with
correlation ``kappa sqrt(v_N) / sqrt(1 + kappa^2 v_N)``. An orthant of that is an integral over the correlation of an
exponential (Drezner & Wesolowsky 1990), for which few nodes do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytensor.tensor as pt
from numpy.typing import NDArray

from send_va.validation.joint_orthant import Orthant

Ints = NDArray[np.intp]
Tensor = Any  # of PyTensor, which has no types

_FLOOR = 1e-14  # probability that is left to what cannot be: keeps a first step away from the mode finite


@dataclass(frozen=True)
class LabelData:
    """Labels and the rows that need more than one orthant; arrays, or tensors that can be given other values.

    Attributes
    ----------
    entry, now : integer, shape (n,)
    bounded : integer
        Rows whose need the label before bounds on both sides: support, where there is EHCP as well. Further rows do no
        harm (they count for nothing), so that data of one shape serve any labels.
    between : integer
        Rows whose label now has an upper threshold too; likewise.
    bounded_between : integer
        Places in `between` whose need is bounded on both sides; likewise.
    """

    entry: Tensor
    now: Tensor
    bounded: Tensor
    between: Tensor
    bounded_between: Tensor

    @classmethod
    def of(cls, entry: Ints, now: Ints, levels: int, *, any_labels: bool = False) -> LabelData:
        """List the rows; all of them with `any_labels`."""
        if any_labels and levels > 1:
            everyone = np.arange(len(entry))
            return cls(entry, now, everyone, everyone, everyone)
        middle = levels > 1
        between = np.flatnonzero((now == 1) & middle)
        return cls(
            entry, now, np.flatnonzero((entry == 1) & middle), between, np.flatnonzero((entry[between] == 1) & middle)
        )


@dataclass(frozen=True)
class PupilTerms:
    """What the parameters say of every pupil; all on the scale of need, but `without` and `with_need`.

    Attributes
    ----------
    base : shape (n,)
        Need that background and school explain.
    tau : scalar
        National threshold.
    cuts : shape (n, d)
        What ``e`` is compared with before transfer.
    index_now : shape (n, d)
        What is added to ``kappa * e`` now.
    kappa : scalar
    without, with_need : shape (n,)
        Expected outcome at ``e`` of zero, for N = 0 and N = 1; outcome units.
    delta : scalar
    sigma : shape (2,)
        Residual SD by N.
    """

    base: Tensor
    tau: Tensor
    cuts: Tensor
    index_now: Tensor
    kappa: Tensor
    without: Tensor
    with_need: Tensor
    delta: Tensor
    sigma: Tensor


@dataclass(frozen=True)
class _Piece:
    """Need of pupils given the outcome, as normal variables, on one side of the threshold or mixed by pupil."""

    mean: Tensor
    sd: Tensor
    norm: Tensor  # SD of the index of the label now, given the outcome
    with_need: Tensor  # on which side, by pupil

    def of(self, rows: Tensor) -> _Piece:
        return _Piece(self.mean[rows], self.sd, self.norm, self.with_need[rows])


def pupil_log_likelihood(outcome: Tensor, labels: LabelData, terms: PupilTerms, levels: int) -> Tensor:
    """Log-likelihood of every pupil's labels and outcome, shape (n,).

    An EHCP asks for at least what support asks for: of the two cuts the higher one counts for it.

    Parameters
    ----------
    outcome : shape (n,)
    labels : LabelData
    terms : PupilTerms
    levels : int
        Thresholds of a label, d.

    Returns
    -------
    tensor, shape (n,)
    """
    variance = terms.sigma**2 + terms.delta**2  # (2,)
    residual = outcome - terms.without, outcome - terms.with_need
    sds = [terms.sigma[N] / pt.sqrt(variance[N]) for N in (0, 1)]
    slopes = [terms.kappa * sd for sd in sds]
    pieces = [
        _Piece(
            terms.delta * residual[N] / variance[N],
            sds[N],
            pt.sqrt(1.0 + slopes[N] ** 2),
            pt.eq(pt.zeros_like(labels.entry), 1 - N),
        )
        for N in (0, 1)
    ]
    log_density = [-0.5 * (np.log(2.0 * np.pi) + pt.log(variance[N]) + residual[N] ** 2 / variance[N]) for N in (0, 1)]
    chance = _chances(labels, terms, pieces, slopes, levels)
    larger = pt.maximum(*log_density)
    weighed = [pt.maximum(chance[N], 0.0) * pt.exp(log_density[N] - larger) for N in (0, 1)]
    return larger + pt.log(weighed[0] + weighed[1] + _FLOOR)


@dataclass(frozen=True)
class _Strip:
    """Where the label before leaves need, each (n,): from below to a cut without label, from a cut upwards with one.

    Read downwards for pupils with a label, so that small probabilities are not differences of large ones.
    """

    none: Tensor  # no label before
    bounded: Tensor  # support before, where there is EHCP as well
    near: Tensor  # the cut that is nearest to the average
    threshold: Tensor  # the national one, moved into the interval
    far: Tensor  # the other cut, of those bounded on both sides
    kappa: Tensor
    slopes: list[Tensor]  # kappa times the SD of need given the outcome, without and with need

    def of(self, rows: Tensor) -> _Strip:
        return _Strip(
            self.none[rows],
            self.bounded[rows],
            self.near[rows],
            self.threshold[rows],
            self.far[rows],
            self.kappa,
            self.slopes,
        )

    def chances(self, pieces: list[_Piece], index: Tensor, up: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Chance of this interval and of ``up * (kappa e + index + w) > 0``, without and with need."""
        way = pt.where(self.none, 1.0, -1.0)
        below_threshold, above = pieces
        mixed = _Piece(
            pt.where(self.none, above.mean, below_threshold.mean),
            pt.where(self.none, above.sd, below_threshold.sd),
            pt.where(self.none, above.norm, below_threshold.norm),
            self.none,
        )

        def below(bound: Tensor, piece: _Piece, index: Tensor, up: Tensor, way: Tensor) -> Tensor:
            h = way * (bound - piece.mean) / piece.sd
            k = up * (index + self.kappa * piece.mean) / piece.norm
            return Orthant()(h, k, -way * up, piece.with_need, *self.slopes)

        at_threshold = [below(self.threshold, piece, index, up, way) for piece in pieces]
        at_near = below(self.near, mixed, index, up, way)
        at_far = below(self.far[rows], pieces[1].of(rows), index[rows], up[rows], way[rows]) * self.bounded[rows]
        without = pt.where(self.none, at_threshold[0], at_near - at_threshold[0])
        with_need = pt.where(self.none, at_near - at_threshold[1], at_threshold[1])
        return without, pt.inc_subtensor(with_need[rows], -at_far)


def _chances(
    labels: LabelData, terms: PupilTerms, pieces: list[_Piece], slopes: list[Tensor], levels: int
) -> tuple[Tensor, Tensor]:
    """Probability of both labels and of no need, and of both labels and need, given the outcome; each (n,)."""
    none, bounded = pt.eq(labels.entry, 0), pt.eq(labels.entry, 1)
    first = near = last = terms.cuts[:, 0]
    index = upper = terms.index_now[:, 0]
    if levels > 1:
        last = pt.maximum(first, terms.cuts[:, 1])
        near = pt.where(pt.eq(labels.entry, 2), last, first)
        upper = pt.minimum(terms.index_now[:, 0], terms.index_now[:, 1])
        index = pt.where(pt.eq(labels.now, 2), upper, terms.index_now[:, 0])
    threshold = terms.tau - terms.base
    cut = pt.where(none, pt.minimum(threshold, near), pt.maximum(threshold, near))
    if levels > 1:
        cut = pt.where(bounded, pt.minimum(cut, last), cut)
    strip = _Strip(none, bounded, near, cut, last, terms.kappa, slopes)
    without, with_need = strip.chances(pieces, index, pt.where(pt.eq(labels.now, 0), -1.0, 1.0), labels.bounded)
    if levels == 1:
        return without, with_need
    rows = labels.between
    counted = -1.0 * pt.eq(labels.now[rows], 1)
    less = strip.of(rows).chances(
        [piece.of(rows) for piece in pieces], upper[rows], pt.ones_like(upper[rows]), labels.bounded_between
    )
    return (
        pt.inc_subtensor(without[rows], counted * less[0]),
        pt.inc_subtensor(with_need[rows], counted * less[1]),
    )
