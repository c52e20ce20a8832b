r"""The profiled likelihood of Gaussian models with crossed groupings, and its gradient.

Random effects are ``b_t = Lambda_t u_t`` with spherical ``u``; with ``M = Lambda'Z'WZ Lambda + I`` the criterion is
``log|M| + log|S_xx| (REML) + df log(rss)``. The grouping e with most effects has a block-diagonal part of M, with
Cholesky factors ``L_e``, and is eliminated group by group,

    W = L_e^-1 Lambda_e' C_ek Lambda_k,      H = Lambda_k' C_kk Lambda_k + I - W'W,

which leaves the system H of the other groupings (`kept_system`) and, bordered by it, the fixed effects. With
``U = M^-1 Lambda'Z'W[X y]`` the derivative by ``Lambda_t`` is

    2 Lambda_t^-T sum_g [ I - (M^-1)_gg - U_g,X S_xx^-1 U_g,X' (REML) - (df / rss) u_g u_g' ],

so only diagonal blocks of ``M^-1`` are needed.

References
----------
Bates, Maechler, Bolker & Walker (2015), doi:10.18637/jss.v067.i01 (the profiled criterion).
Gao & Owen (2020), doi:10.1214/20-EJS1745 (cost of crossed random effects).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from send_va.errors import InputError
from send_va.multilevel.crossed_products import CrossedProducts, GroupSums, PairSums
from send_va.multilevel.crossproducts import FloatArray, IntArray
from send_va.multilevel.kept_system import KeptFactor, KeptSystem, Layout, concatenated, kept_system, stacked_blocks


@dataclass(frozen=True)
class Profile:
    """The criterion at given factors, and the fixed effects that attain it.

    Attributes
    ----------
    value : float
        Criterion without its constant.
    beta : array, shape (p,)
    weight_of_beta : array, shape (p, p)
        ``S_xx^-1``: times the residual variance it is the covariance of `beta`.
    rss : float
    """

    value: float
    beta: FloatArray
    weight_of_beta: FloatArray
    rss: float


@dataclass(frozen=True)
class Reduced:
    """The model at given factors, all random effects eliminated; as large as the kept system."""

    profile: Profile
    root: FloatArray  # (groups of e, q, q): L_e^-1
    white: FloatArray  # (groups of e, q, m): L_e^-1 Lambda_e' C_ex
    w: FloatArray
    factor: KeptFactor
    half: FloatArray  # (kept, m): L^-1 Lambda_k'(C_kx - ...)


@dataclass(frozen=True)
class Effects:
    """Spherical effects of one grouping at given factors.

    Attributes
    ----------
    modes : array, shape (groups, q)
    inverse : array, shape (groups, q, q)
        Diagonal blocks of ``M^-1``.
    by_column : array, shape (groups, q, p)
        How the modes move with the fixed effects: ``M^-1 Lambda'Z'WX``.
    """

    modes: FloatArray
    inverse: FloatArray
    by_column: FloatArray


class CrossedCriterion:
    """Criterion as a function of the relative covariance factors, columns at unit scale.

    Parameters
    ----------
    data : CrossedProducts
        Columns of `data` are p fixed effects and the outcome.
    reml : bool
    """

    def __init__(self, data: CrossedProducts, reml: bool) -> None:
        size = np.sqrt(np.diag(data.total) / data.n_records)
        self.size = np.where(size > 0.0, size, 1.0)
        self.reml = reml
        self.p = len(data.columns) - 1
        self.degrees = data.n_records - (self.p if reml else 0)
        self.evaluations = 0
        self.total = data.total / np.outer(self.size, self.size)
        self.bases = [_basis(sums, data.n_records) for sums in data.groups]
        self.groups = [self._at_unit_scale(sums, basis) for sums, basis in zip(data.groups, self.bases, strict=True)]
        pairs = [self._pair_at_unit_scale(pair) for pair in data.pairs]
        self.eliminated = int(np.argmax([sums.n_groups * sums.q for sums in self.groups]))
        self.kept = [t for t in range(len(self.groups)) if t != self.eliminated]
        widths = [self.groups[t].n_groups * self.groups[t].q for t in self.kept]
        self.offsets = dict(zip(self.kept, np.cumsum([0, *widths[:-1]]).tolist(), strict=True))
        outward = [pair if pair.first == self.eliminated else pair.turned() for pair in pairs if self._touches(pair)]
        self.outward = sorted(outward, key=lambda pair: pair.second)
        self.among = [pair for pair in pairs if not self._touches(pair)]
        self.system, self.w_order = self._laid_out(sum(widths))

    def _touches(self, pair: PairSums) -> bool:
        return self.eliminated in (pair.first, pair.second)

    def _at_unit_scale(self, sums: GroupSums, basis: FloatArray) -> GroupSums:
        return GroupSums(basis.T @ sums.own @ basis, basis.T @ sums.cross / self.size, sums.counts)

    def _pair_at_unit_scale(self, pair: PairSums) -> PairSums:
        values = self.bases[pair.first].T @ pair.values @ self.bases[pair.second]
        return PairSums(pair.first, pair.second, pair.left, pair.right, values)

    def _laid_out(self, size: int) -> tuple[KeptSystem, IntArray]:
        """Positions of all numbers that `reduce` computes; `w_order` sorts those of W into compressed rows."""
        q = self.groups[self.eliminated].q
        places = [self._block_places(pair.left * q, q, pair) for pair in self.outward]
        w_rows, w_columns = (concatenated([place[k] for place in places]) for k in (0, 1))
        order = np.lexsort((w_columns, w_rows))
        counts = np.bincount(w_rows, minlength=self.groups[self.eliminated].n_groups * q)
        rows: list[IntArray] = []
        columns: list[IntArray] = []
        for t in self.kept:
            down, across = stacked_blocks(self.groups[t].n_groups, self.groups[t].q, self.offsets[t])
            rows.append(down[down >= across])
            columns.append(across[down >= across])
        for pair in self.among:
            first, second = self._block_places(
                self.offsets[pair.first] + pair.left * self.groups[pair.first].q, self.groups[pair.first].q, pair
            )
            rows.append(second)
            columns.append(first)
        starts = np.concatenate([[0], np.cumsum(counts)])
        layout = Layout(size, concatenated(rows), concatenated(columns), starts, w_columns[order], q)
        return kept_system(layout), order

    def _block_places(self, start: IntArray, q: int, pair: PairSums) -> tuple[IntArray, IntArray]:
        """Rows and columns of the (q, q_second) blocks of a pair, whose rows begin at `start`."""
        width = self.groups[pair.second].q
        shape = (len(start), q, width)
        rows = (start[:, None] + np.arange(q))[:, :, None]
        columns = (self.offsets[pair.second] + pair.right[:, None] * width + np.arange(width))[:, None, :]
        return np.broadcast_to(rows, shape).ravel(), np.broadcast_to(columns, shape).ravel()

    def _kept_values(self, factors: list[FloatArray]) -> FloatArray:
        parts = []
        for t in self.kept:
            blocks = factors[t].T @ self.groups[t].own @ factors[t]
            parts.append(blocks[:, *np.tril_indices(self.groups[t].q)].ravel())
        parts += [(factors[pair.first].T @ pair.values @ factors[pair.second]).ravel() for pair in self.among]
        return np.concatenate(parts)

    def reduce(self, factors: list[FloatArray]) -> Reduced:
        """Eliminate all random effects at relative covariance factors ``Lambda_t``, each (q, q)."""
        self.evaluations += 1
        sums, factor = self.groups[self.eliminated], factors[self.eliminated]
        blocks = np.linalg.cholesky(factor.T @ sums.own @ factor + np.eye(sums.q))
        root = np.linalg.inv(blocks)
        half = root @ factor.T
        white = half @ sums.cross
        w = np.concatenate([(half[pair.left] @ pair.values @ factors[pair.second]).ravel() for pair in self.outward])
        w = w[self.w_order]
        kept = self.system.factorise(self._kept_values(factors), w)
        m = self.p + 1
        right = np.concatenate([(factors[t].T @ self.groups[t].cross).reshape(-1, m) for t in self.kept])
        solved = kept.half_solve(right - self._matrix(w).T @ white.reshape(-1, m))
        flat = white.reshape(-1, m)
        schur = self.total - flat.T @ flat - solved.T @ solved
        logdet = 2.0 * float(np.log(np.einsum("gqq->gq", blocks)).sum()) + kept.logdet
        beta, weight, logdet_x, rss = self.fixed_effects(schur)
        value = logdet + self.degrees * float(np.log(rss / self.degrees)) + (logdet_x if self.reml else 0.0)
        return Reduced(Profile(value, beta, weight, rss), root, white, w, kept, solved)

    def fixed_effects(self, schur: FloatArray) -> tuple[FloatArray, FloatArray, float, float]:
        """Estimate, inverse of ``S_xx``, its log-determinant, and residual sum of squares."""
        p = self.p
        factor = cho_factor(schur[:p, :p], lower=True)
        beta = cho_solve(factor, schur[:p, p])
        rss = float(schur[p, p] - schur[:p, p] @ beta)
        if not rss / self.degrees > 1e-10:
            raise no_residual_variance()
        return beta, cho_solve(factor, np.eye(p)), 2.0 * float(np.log(np.diag(factor[0])).sum()), rss

    def _matrix(self, w: FloatArray) -> sp.csr_array:
        at = self.system.layout
        return sp.csr_array((w, at.w_columns, at.w_starts), shape=(len(at.w_starts) - 1, at.size))

    def effects(self, reduced: Reduced) -> list[Effects]:
        """Spherical effects of every grouping; the factor inside `reduced` is used up."""
        m, e = self.p + 1, self.groups[self.eliminated]
        solved = reduced.factor.back_solve(reduced.half)
        direction = np.append(-reduced.profile.beta, 1.0)
        inverse = reduced.factor.invert()
        own = reduced.white - (self._matrix(reduced.w) @ solved).reshape(e.n_groups, e.q, m)
        upward = reduced.root.transpose(0, 2, 1)
        by_column = {self.eliminated: upward @ own}
        blocks = {self.eliminated: upward @ (np.eye(e.q) + inverse.quadratic_forms(reduced.w)) @ reduced.root}
        for t in self.kept:
            n, q = self.groups[t].n_groups, self.groups[t].q
            by_column[t] = solved[self.offsets[t] : self.offsets[t] + n * q].reshape(n, q, m)
            blocks[t] = inverse.elements(*stacked_blocks(n, q, self.offsets[t])).reshape(n, q, q)
        return [
            Effects(by_column[t] @ direction, blocks[t], by_column[t][:, :, : self.p]) for t in range(len(self.groups))
        ]

    def gradient(self, profile: Profile, effects: list[Effects], factors: list[FloatArray]) -> list[FloatArray]:
        """Derivative of the criterion by each ``Lambda_t`` (invertible), full (q, q) arrays."""
        slopes = []
        for found, factor in zip(effects, factors, strict=True):
            n, q = found.modes.shape
            inner = n * np.eye(q) - found.inverse.sum(axis=0)
            inner -= self.degrees / profile.rss * found.modes.T @ found.modes
            if self.reml:
                inner -= np.einsum(
                    "gap,pr,gbr->ab", found.by_column, profile.weight_of_beta, found.by_column, optimize=True
                )
            slopes.append(2.0 * np.asarray(solve_triangular(factor, inner, lower=True, trans="T")))
        return slopes

    def log_likelihood(self, profile: Profile, log_weights: float) -> float:
        """Log-likelihood with its constants, in the units of the columns given."""
        deviance = profile.value + self.degrees * (1.0 + float(np.log(2.0 * np.pi)))
        log_size = self.degrees * float(np.log(self.size[-1]))
        log_size += float(np.log(self.size[:-1]).sum()) if self.reml else 0.0
        return -0.5 * deviance - log_size + 0.5 * log_weights

    def require_residual(self) -> None:
        """Refuse an outcome that the fixed effects reproduce."""
        p = self.p
        try:
            rss = float(self.total[p, p] - self.total[p, :p] @ np.linalg.solve(self.total[:p, :p], self.total[:p, p]))
        except np.linalg.LinAlgError as error:
            raise InputError(
                "the fixed-effects columns are not linearly independent", "Leave out the redundant ones."
            ) from error
        if not rss > 1e-12 * self.total[p, p]:
            raise InputError(
                "the outcome has no variation left: it is constant or an exact combination of the covariates",
                "Check that the outcome is not among the covariates.",
            )


def no_residual_variance() -> InputError:
    """The error of an outcome that its groups determine."""
    return InputError(
        "the outcome does not vary within groups beyond its random effects: there is no residual variance",
        "Check that it is a result of the records, not of their groups.",
    )


def _basis(sums: GroupSums, n_records: float) -> FloatArray:
    """Uncorrelated unit-size combinations of the random-effects columns: the search is as easy whatever their means."""
    lower = np.linalg.cholesky(sums.own.sum(axis=0) / n_records)
    return np.asarray(solve_triangular(lower, np.eye(sums.q), lower=True).T)


def require_groups(data: CrossedProducts) -> None:
    """Refuse groupings whose differences the records cannot show.

    Raises
    ------
    InputError
        A grouping has one group, or one record in every group, or two groupings hold the same groups.
    """
    if min(sums.n_groups for sums in data.groups) < 2:
        raise InputError(
            "there is one group only, so no difference between groups can be estimated", "Give two groups or more."
        )
    for (s, first), (t, second) in itertools.combinations(enumerate(data.groups), 2):
        pair = next(pair for pair in data.pairs if (pair.first, pair.second) == (s, t))
        if len(pair.left) == first.n_groups == second.n_groups:
            raise InputError("two groupings hold the same groups", "Leave one of them out.")
    if any(sums.counts.max() <= 1 for sums in data.groups):
        raise InputError(
            "every group has one record, so differences between groups cannot be told from those between records",
            "Use a coarser grouping.",
        )
