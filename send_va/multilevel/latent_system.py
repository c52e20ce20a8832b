"""Normal equations of a latent Gaussian model: one factor eliminated by blocks, the rest dense."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, solve_triangular
from scipy.linalg.lapack import dpotrf, dpotri, spotri
from scipy.sparse import csr_array

from send_va.errors import InputError
from send_va.multilevel import latent_kernels as kernels

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
_LARGE, _OWN = 2_000, 0.5  # rows from which an inverse is taken in single precision, and the least root of its factor


@dataclass(frozen=True)
class Term:
    """Random effects of one grouping.

    Attributes
    ----------
    codes : integer array, shape (n,)
        Group of each row.
    n_groups : int
    design : array, shape (n, d, q) or (1, d, q)
        What the q effects of a row's group add to its d linear predictors; one slice where all rows have the same.
    """

    codes: Ints
    n_groups: int
    design: Floats

    @property
    def q(self) -> int:
        """Effects of a group."""
        return int(self.design.shape[2])


@dataclass(frozen=True)
class _Pairs:
    """Pairs of groups of two terms that share a row."""

    row: Ints  # (n,) pair of each row
    left: Ints  # (pairs,)
    right: Ints

    @classmethod
    def of(cls, left: Term, right: Term) -> _Pairs:
        keys, row = np.unique(left.codes * right.n_groups + right.codes, return_inverse=True)
        return cls(row.reshape(-1).astype(np.intp), keys // right.n_groups, keys % right.n_groups)


@dataclass(frozen=True)
class Blocks:
    """Sums over rows of the curvature, before the terms' covariances come in."""

    own: list[Floats]  # a term: (groups, q, q)
    fixed: list[Floats]  # a term: (groups, q, fixed)
    pairs: dict[tuple[int, int], Floats]  # (pairs, q_left, q_right)
    xx: Floats  # (fixed, fixed)


@dataclass(frozen=True)
class Factor:
    """The factored Hessian of the penalised log-likelihood in standardised effects.

    Attributes
    ----------
    root : array, shape (groups, q, q)
        Lower Cholesky factors of the eliminated blocks.
    sparse : sparse array, shape (groups * q, R)
        ``root^-1 H_fr`` without the fixed effects.
    touching : array, shape (touched, q)
        Its values, by group and column that the group meets.
    fixed : array, shape (groups * q, fixed)
        ``root^-1 H_fx``.
    lower : array, shape (R + fixed, R + fixed)
        Lower Cholesky factor of the Schur complement.
    logdet : float
    """

    root: Floats
    sparse: csr_array
    touching: Floats
    fixed: Floats
    lower: Floats
    logdet: float


class LatentSystem:
    """Layout of a model and the algebra on it. Terms keep their order; the one with most groups is eliminated."""

    def __init__(
        self, x: Floats, terms: Sequence[Term], *, offset: Floats, cutpoints: bool, integrate_fixed: bool
    ) -> None:
        self.x, self.terms, self.offset, self.cutpoints = np.ascontiguousarray(x), tuple(terms), offset, cutpoints
        self.n, self.d = offset.shape
        self.n_fixed = x.shape[1] + (self.d if cutpoints else 0)
        self.inner_fixed = self.n_fixed if integrate_fixed else 0
        self.first = int(np.argmax([term.n_groups for term in terms]))
        self.rest = [k for k in range(len(terms)) if k != self.first]
        sizes = [terms[k].n_groups * terms[k].q for k in self.rest]
        self.starts = dict(zip(self.rest, np.concatenate([[0], np.cumsum(sizes)])[:-1].tolist(), strict=True))
        self.n_rest = int(sum(sizes))
        self.pairs = {
            (s, t): _Pairs.of(terms[s], terms[t])
            for s, t in [(self.first, k) for k in self.rest]
            + [(a, b) for i, a in enumerate(self.rest) for b in self.rest[i + 1 :]]
        }
        self._lay_out_touched()

    def _lay_out_touched(self) -> None:
        """List, for every eliminated group, the columns of the rest it meets."""
        groups, columns = [], []
        for k in self.rest:
            pairs, q = self.pairs[self.first, k], self.terms[k].q
            groups.append(np.repeat(pairs.left, q))
            columns.append((self.starts[k] + pairs.right[:, None] * q + np.arange(q)).reshape(-1))
        group = np.concatenate(groups) if groups else np.zeros(0, dtype=np.intp)
        order = np.argsort(group, kind="stable")
        self.touched = (np.concatenate(columns) if columns else group)[order].astype(np.intp)
        self.touched_from = np.searchsorted(group[order], np.arange(self.terms[self.first].n_groups + 1))
        place = np.empty(len(order), dtype=np.intp)
        place[order] = np.arange(len(order))
        self.places, done = {}, 0
        for k, part in zip(self.rest, columns, strict=True):
            q = self.terms[k].q
            self.places[k] = place[done : done + len(part)].reshape(-1, q)
            done += len(part)
        self._lay_out_sparse()

    def _lay_out_sparse(self) -> None:
        """Where the q rows of every eliminated group stand in a compressed sparse array; they meet the same columns."""
        q, sizes = self.terms[self.first].q, np.diff(self.touched_from)
        self.row_starts = np.concatenate([[0], np.cumsum(np.repeat(sizes, q))])
        own = np.arange(len(self.touched)) - np.repeat(self.touched_from[:-1], sizes)  # position within the group
        group = np.repeat(np.arange(len(sizes)), sizes)
        self.sparse_places = self.row_starts[group[:, None] * q + np.arange(q)] + own[:, None]
        self.sparse_columns = np.empty(len(self.touched) * q, dtype=np.intp)
        self.sparse_columns[self.sparse_places] = self.touched[:, None]

    def with_fixed(self, integrated: bool) -> LatentSystem:
        """The same model with fixed effects integrated out, or held outside; the layout of the terms is shared."""
        other = copy.copy(self)
        other.inner_fixed = self.n_fixed if integrated else 0
        return other

    def predictors(self, beta: Floats, effects: Sequence[Floats]) -> Floats:
        """Linear predictors (n, d) of fixed effects and effects in their own units."""
        p = self.x.shape[1]
        eta = self.offset + (self.x @ beta[:p])[:, None]
        if self.cutpoints:
            eta += beta[p:]
        for term, b in zip(self.terms, effects, strict=True):
            kernels.add_effects(eta, term.codes, term.design, b)
        return np.asarray(eta)

    def scores(self, gradient: Floats) -> tuple[Floats, list[Floats]]:
        """Sum a derivative by predictor (n, d) over the columns of the fixed effects and over groups."""
        fixed = self.x.T @ _total(gradient)
        if self.cutpoints:
            fixed = np.concatenate([fixed, gradient.sum(axis=0)])
        by_term = [kernels.sum_scores(t.codes, t.design, gradient, t.n_groups) for t in self.terms]
        return fixed, by_term

    def blocks(self, curvature: Floats) -> Blocks:
        """Sum the curvature (n, d, d) over rows."""
        terms = self.terms
        x = self.x if self.inner_fixed else self.x[:, :0]
        cut = self.cutpoints and bool(self.inner_fixed)
        return Blocks(
            own=[kernels.sum_pairs(t.codes, t.design, t.design, curvature, t.n_groups) for t in terms],
            fixed=[kernels.sum_with_fixed(t.codes, t.design, curvature, x, cut, t.n_groups) for t in terms],
            pairs={
                (s, t): kernels.sum_pairs(pairs.row, terms[s].design, terms[t].design, curvature, len(pairs.left))
                for (s, t), pairs in self.pairs.items()
            },
            xx=self.fixed_curvature(curvature) if self.inner_fixed else np.zeros((0, 0)),
        )

    def fixed_curvature(self, curvature: Floats) -> Floats:
        """``X' W X`` with the cutpoints, shape (fixed, fixed)."""
        by_predictor = _total(curvature)
        out = np.zeros((self.n_fixed, self.n_fixed))
        p = self.x.shape[1]
        out[:p, :p] = self.x.T @ (self.x * _total(by_predictor)[:, None])
        if self.cutpoints:
            out[:p, p:] = self.x.T @ by_predictor
            out[p:, :p] = out[:p, p:].T
            out[p:, p:] = curvature.sum(axis=0)
        return out

    def factor(self, blocks: Blocks, lambdas: Sequence[Floats]) -> Factor:
        """Eliminate the largest term by blocks and factor the dense rest.

        Raises
        ------
        InputError
            The system is not positive definite: fixed effects are collinear.
        """
        f, lam = self.first, lambdas
        q, groups = self.terms[f].q, self.terms[f].n_groups
        root = np.linalg.cholesky(np.eye(q) + lam[f].T @ blocks.own[f] @ lam[f])
        fixed = np.linalg.solve(root, lam[f].T @ blocks.fixed[f])  # (groups, q, fixed)
        size = self.n_rest + self.inner_fixed
        schur = np.zeros((size, size), order="F")  # as LAPACK wants it: no copies of a large matrix
        touching = np.zeros((len(self.touched), q))
        for k in self.rest:
            pairs = self.pairs[f, k]
            block = np.linalg.solve(root[pairs.left], lam[f].T @ blocks.pairs[f, k] @ lam[k])
            touching[self.places[k]] = block.transpose(0, 2, 1)
        values = np.empty(touching.size)
        values[self.sparse_places] = touching
        sparse = csr_array((values, self.sparse_columns, self.row_starts), shape=(groups * q, self.n_rest))
        dense_fixed = fixed.reshape(groups * q, -1)
        self._fill_rest(schur, blocks, lam)
        if self.n_rest:
            kernels.subtract_products(schur, self.touched_from, self.touched, touching)
            cross = sparse.T @ dense_fixed
            schur[: self.n_rest, self.n_rest :] -= cross
            schur[self.n_rest :, : self.n_rest] -= cross.T
        schur[self.n_rest :, self.n_rest :] -= dense_fixed.T @ dense_fixed
        lower, failed = dpotrf(schur, lower=1, clean=0, overwrite_a=1) if size else (schur, 0)
        if failed:
            raise InputError(
                "the normal equations are singular: a covariate is constant or a combination of others",
                "Leave out one of the covariates.",
            )
        logdet = 2.0 * float(np.log(np.diagonal(root, axis1=1, axis2=2)).sum() + np.log(np.diag(lower)).sum())
        return Factor(root, sparse, touching, dense_fixed, lower, logdet)

    def _fill_rest(self, schur: Floats, blocks: Blocks, lam: Sequence[Floats]) -> None:
        n = self.n_rest
        for i, k in enumerate(self.rest):
            q, at = self.terms[k].q, self.starts[k] + np.arange(self.terms[k].n_groups) * self.terms[k].q
            own = np.eye(q) + lam[k].T @ blocks.own[k] @ lam[k]
            for a in range(q):
                for b in range(q):
                    schur[at + a, at + b] = own[:, a, b]
            with_fixed = (lam[k].T @ blocks.fixed[k]).reshape(len(at) * q, self.inner_fixed)
            schur[self.starts[k] : self.starts[k] + len(with_fixed), n:] = with_fixed
            schur[n:, self.starts[k] : self.starts[k] + len(with_fixed)] = with_fixed.T
            for m in self.rest[i + 1 :]:
                pairs = self.pairs[k, m]
                block = lam[k].T @ blocks.pairs[k, m] @ lam[m]
                for a in range(q):
                    for b in range(self.terms[m].q):
                        row = self.starts[k] + pairs.left * q + a
                        column = self.starts[m] + pairs.right * self.terms[m].q + b
                        schur[row, column] = schur[column, row] = block[:, a, b]
        schur[n:, n:] = blocks.xx

    def split(self, rest: Floats) -> tuple[Floats, dict[int, Floats]]:
        """Fixed effects and effects by term of a vector of the rest; further axes come after."""
        fixed = rest[self.n_rest :]
        by_term = {}
        for k in self.rest:
            term = self.terms[k]
            part = rest[self.starts[k] : self.starts[k] + term.n_groups * term.q]
            by_term[k] = part.reshape(term.n_groups, term.q, *rest.shape[1:])
        return fixed, by_term

    def join(self, fixed: Floats, effects: Sequence[Floats]) -> Floats:
        """One vector of the rest out of fixed effects and the effects of the rest's terms."""
        return np.concatenate([*(effects[k].reshape(-1) for k in self.rest), fixed[: self.inner_fixed]])

    def solve(self, factor: Factor, fixed: Floats, effects: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
        """Solve the normal equations for a right-hand side laid out as `scores` returns it."""
        groups, q = effects[self.first].shape
        half = np.linalg.solve(factor.root, effects[self.first][:, :, None]).reshape(-1)
        right = self.join(fixed, effects)
        right[: self.n_rest] -= factor.sparse.T @ half
        right[self.n_rest :] -= factor.fixed.T @ half
        rest = cho_solve((factor.lower, True), right, check_finite=False) if len(right) else right
        half = half - factor.sparse @ rest[: self.n_rest] - factor.fixed @ rest[self.n_rest :]
        first = np.linalg.solve(factor.root.transpose(0, 2, 1), half.reshape(groups, q, 1))[:, :, 0]
        solved_fixed, by_term = self.split(rest)
        by_term[self.first] = first
        return solved_fixed, [by_term[k] for k in range(len(self.terms))]

    def draw(self, factor: Factor, rng: np.random.Generator) -> tuple[Floats, list[Floats]]:
        """Draw deviations from the mode (standardised effects) whose covariance is the inverse Hessian."""
        noise = rng.standard_normal(len(factor.lower))
        rest = solve_triangular(factor.lower, noise, trans="T", lower=True, check_finite=False) if len(noise) else noise
        groups, q = factor.root.shape[:2]
        half = (
            rng.standard_normal(groups * q) - factor.sparse @ rest[: self.n_rest] - factor.fixed @ rest[self.n_rest :]
        )
        first = np.linalg.solve(factor.root.transpose(0, 2, 1), half.reshape(groups, q, 1))[:, :, 0]
        fixed, by_term = self.split(rest)
        by_term[self.first] = first
        return fixed, [by_term[k] for k in range(len(self.terms))]

    def covariances(self, factor: Factor) -> Covariances:
        """Blocks of the inverse Hessian (standardised effects) for groups that share a row."""
        groups, q = factor.root.shape[:2]
        n, f = self.n_rest, self.first
        inverse = _inverse(factor.lower)
        back = np.linalg.inv(factor.root).transpose(0, 2, 1)  # root^-T
        owner = np.repeat(np.arange(groups), np.diff(self.touched_from))
        modes = np.einsum("kab,kb->ka", back[owner], factor.touching)
        fixed_modes = back @ factor.fixed.reshape(groups, q, -1)
        own, touching, with_fixed = kernels.eliminated_covariances(
            self.touched_from, self.touched, modes, inverse, back @ back.transpose(0, 2, 1), fixed_modes, n
        )
        result = Covariances({f: own}, {f: with_fixed}, {}, inverse[n:, n:].astype(np.float64))
        for i, k in enumerate(self.rest):
            qk, at = self.terms[k].q, self.starts[k] + np.arange(self.terms[k].n_groups) * self.terms[k].q
            index = at[:, None] + np.arange(qk)
            result.own[k] = inverse[index[:, :, None], index[:, None, :]].astype(np.float64)
            result.fixed[k] = inverse[index[:, :, None], np.arange(n, len(inverse))].astype(np.float64)
            result.pairs[f, k] = touching[self.places[k]].transpose(0, 2, 1)
            for m in self.rest[i + 1 :]:
                pairs, qm = self.pairs[k, m], self.terms[m].q
                right = self.starts[m] + pairs.right[:, None] * qm + np.arange(qm)
                result.pairs[k, m] = inverse[index[pairs.left][:, :, None], right[:, None, :]].astype(np.float64)
        return result

    def predictor_covariance(self, covariances: Covariances, lambdas: Sequence[Floats]) -> Floats:
        """Covariance of every row's predictors given the data, (n, d, d)."""
        out = np.zeros((self.n, self.d, self.d))
        lam = lambdas
        for k, term in enumerate(self.terms):
            kernels.add_own_covariance(out, term.codes, term.design, lam[k] @ covariances.own[k] @ lam[k].T)
            if self.inner_fixed:
                with_fixed = lam[k] @ covariances.fixed[k]
                kernels.add_fixed_covariance(out, term.codes, term.design, with_fixed, self.x, self.cutpoints)
        for (s, t), block in covariances.pairs.items():
            kernels.add_pair_covariance(
                out, self.pairs[s, t].row, self.terms[s].design, self.terms[t].design, lam[s] @ block @ lam[t].T
            )
        if self.inner_fixed:
            p = self.x.shape[1]
            v = covariances.xx
            kernels.add_quadratic_form(out, self.x, np.ascontiguousarray(v[:p, :p]))
            if self.cutpoints:
                cross = self.x @ v[:p, p:]
                out += cross[:, :, None] + cross[:, None, :] + v[p:, p:]
        return out


@dataclass(frozen=True)
class Covariances:
    """Blocks of the inverse Hessian, standardised effects; keys as the terms of the system."""

    own: dict[int, Floats]
    fixed: dict[int, Floats]
    pairs: dict[tuple[int, int], Floats]
    xx: Floats


def _total(values: Floats) -> Floats:
    """Sum over the last axis, which is short: NumPy's own sum is several times slower there."""
    out = values[..., 0].copy()
    for k in range(1, values.shape[-1]):
        out += values[..., k]
    return np.asarray(out)


def _inverse(lower: Floats) -> NDArray[np.floating]:
    """Inverse from a Cholesky factor; a large one in single precision, unless its condition asks for double.

    Only traces and variances are taken from it. In single precision its entries are good to six digits where no row
    depends much on those before it (each has a prior precision of one or the information of all records).
    """
    if not len(lower):
        return lower
    single = len(lower) > _LARGE and np.diag(lower).min() > _OWN
    inverse: NDArray[np.floating] = (
        spotri(lower.astype(np.float32, order="F"), lower=1, overwrite_c=1)[0] if single else dpotri(lower, lower=1)[0]
    )
    kernels.mirror_lower(inverse)
    return np.asarray(inverse)
