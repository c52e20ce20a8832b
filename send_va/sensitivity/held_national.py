r"""What each school's pupils say of it while all that is national stays as it was estimated.

With the fixed effects, the covariance of the effects between schools and the residual variances held, schools are
independent blocks: a school's conditional mean needs its own pupils and nobody else's,

    (u_j, s_j, r_j) = (Z_j' W_j Z_j + sigma^2 G^-1)^-1 Z_j' W_j (y_j - X_j beta).

So one pass in which every school does something at once gives what each would get by doing it alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from send_va.errors import InputError
from send_va.multilevel.crossproducts import FloatArray
from send_va.records.design_columns import INTERCEPT, OUTCOME, Context
from send_va.value_added.changing_products import slope_shift
from send_va.value_added.pupil_design import PupilDesign
from send_va.value_added.readout import CONTRASTS
from send_va.value_added.row_coder import PRIOR_SLOPE
from send_va.value_added.within_school import WithinSchool, within_school


@dataclass(frozen=True, eq=False)
class SchoolValues:
    """What the pupils of every school say of it; missing for a school that is not compared or has no pupil.

    Attributes
    ----------
    effects : array, shape (schools, 2 or 3)
        Conditional means of the level, the extra for pupils with need and, where schools differ in it, the slope on
        prior attainment; outcome units.
    own : WithinSchool
        Unshrunken estimates of theta, u and gap.
    n_pupils, n_need : array, shape (schools,)
        Pupils and (expected) pupils with need; a pupil counts by its weight.
    """

    effects: FloatArray
    own: WithinSchool
    n_pupils: FloatArray
    n_need: FloatArray

    def mean(self, measure: str) -> FloatArray:
        """Conditional mean of ``theta``, ``u`` or ``gap``, shape (schools,), outcome units."""
        return np.asarray(self.effects @ _contrast(measure, self.effects.shape[1]))


@dataclass(frozen=True, eq=False)
class HeldEquation:
    """The value-added equation of one estimator and context with its national parameters held.

    Attributes
    ----------
    estimator, context : str
    schools : tuple of str
    starts : integer array, shape (schools + 1,)
        Pupils of school j are rows ``starts[j]:starts[j + 1]``, in the order of ``PupilDesign.rows``.
    outcome : array, shape (n,)
    left_over : array, shape (n,)
        Outcome minus all fixed effects but those of the columns of need.
    slope : array, shape (n,)
        Prior attainment in SDs from the reference; zeros where schools do not differ in slope.
    need_beta : array, shape (k,)
        Coefficients of the columns of need, the first being status or probability.
    mean_columns, mean_beta : array, shapes (n, c) and (c,)
        Columns whose school means enter (``composition``), and their coefficients. `left_over` has the means of all
        pupils taken out; the means move with the pupils, and the national centre does not.
    covariance : array, shape (q, q)
        Of the effects between schools.
    scale : float
        Residual variance of a pupil of relative variance one.
    compared : bool array, shape (schools,)
        Schools that are compared and have a pupil.
    outcome_sd : float
        Pupil SD of the outcome.
    fitted : array, shape (schools, q)
        The fit's own conditional means.
    """

    estimator: str
    context: Context
    schools: tuple[str, ...]
    starts: NDArray[np.int64]
    outcome: FloatArray
    left_over: FloatArray
    slope: FloatArray
    need_beta: FloatArray
    mean_columns: FloatArray
    mean_beta: FloatArray
    covariance: FloatArray
    scale: float
    compared: NDArray[np.bool_]
    outcome_sd: float
    fitted: FloatArray

    @classmethod
    def of(
        cls,
        design: PupilDesign,
        *,
        estimator: str,
        context: Context,
        coefficients: Mapping[str, float],
        need_columns: Sequence[str],
        prior_reference: float,
        covariance: FloatArray,
        scale: float,
        fitted: FloatArray,
        left_out: Sequence[int] = (),
    ) -> HeldEquation:
        """Take the fixed effects out of every pupil's outcome.

        Parameters
        ----------
        design : PupilDesign
            All pupils, those of schools left out included.
        coefficients : mapping of column to float
            Of columns as they are, not centred.
        need_columns : sequence of str
            The columns of need among them.
        prior_reference : float
            Where effects are stated, in units of the first prior score.
        left_out : sequence of int
            Places of schools that are not compared.
        """
        outcome = _column(design, OUTCOME)
        left_over = outcome - coefficients[INTERCEPT]
        means = dict(zip(design.mean_names, design.means.T, strict=True))
        there = [name for name in design.mean_names if name in coefficients]
        for name in coefficients:
            if name in (INTERCEPT, *need_columns):
                continue
            known = means[name][design.codes] if name in means else _column(design, name)
            left_over = left_over - coefficients[name] * known
        at = [design.columns.index(design.context.composition[design.mean_names.index(name)]) for name in there]
        slope = np.zeros(len(outcome))
        if len(covariance) == 3:
            slope = _column(design, PRIOR_SLOPE) - slope_shift(design, prior_reference)
        compared = design.n_pupils > 0
        compared[list(left_out)] = False
        return cls(
            estimator=estimator,
            context=context,
            schools=design.schools,
            starts=design.starts,
            outcome=outcome,
            left_over=left_over,
            slope=slope,
            need_beta=np.array([coefficients[name] for name in need_columns]),
            mean_columns=np.ascontiguousarray(design.rows[:, at]),
            mean_beta=np.array([coefficients[name] for name in there]),
            covariance=covariance,
            scale=scale,
            compared=compared,
            outcome_sd=design.outcome_sd,
            fitted=fitted,
        )

    @property
    def codes(self) -> NDArray[np.int64]:
        """School of each pupil, shape (n,)."""
        return np.repeat(np.arange(len(self.schools)), np.diff(self.starts))

    def effect_sd(self, measure: str) -> float:
        """SD between schools of the true effect, as estimated; outcome units."""
        c = _contrast(measure, len(self.covariance))
        return float(np.sqrt(max(float(c @ self.covariance @ c), 0.0)))

    def values(
        self,
        columns: FloatArray,
        relative_variance: FloatArray,
        weight: FloatArray | None = None,
        outcome: FloatArray | None = None,
    ) -> SchoolValues:
        """Values of all schools at these columns of need.

        Parameters
        ----------
        columns : array, shape (n, k)
            Columns of need, in the order of `need_beta`.
        relative_variance : array, shape (n,)
            Residual variance of each pupil over `scale`.
        weight : array, shape (n,), optional
            How much each pupil counts, 0 to 1, by multiplying all it adds; 1 by default.
        outcome : array, shape (n,), optional
            In place of the outcomes recorded.
        """
        counted = np.ones(len(columns)) if weight is None else np.asarray(weight, dtype=np.float64)
        counted = np.where(self.compared[self.codes], counted, 0.0)
        left = self._residual_of_fixed(columns, counted, outcome)
        rows, sizes = _school_sums(
            self.starts, counted, relative_variance, np.ascontiguousarray(columns[:, 0]), self.slope, left
        )
        q = len(self.covariance)
        rows = np.ascontiguousarray(rows[:q][:, :, [*range(q), 3]])
        there = sizes[0] > 0
        own = within_school(
            rows,
            np.arange(q),
            np.eye(q + 1)[q],
            slope_variance=float(self.covariance[2, 2]) if q == 3 else 0.0,
            scale=self.scale,
            n_without=sizes[0] - sizes[1],
            n_with=sizes[1],
        )
        effects = np.where(there[:, None], conditional_means(rows, self.covariance / self.scale), np.nan)
        return SchoolValues(effects, own, np.where(there, sizes[0], np.nan), np.where(there, sizes[1], np.nan))

    def predictions(self, columns: FloatArray, values: SchoolValues) -> FloatArray:
        """Outcome that the model expects of every pupil at its school, shape (n,); missing where not compared."""
        left = self._residual_of_fixed(columns, np.ones(len(columns)), None)
        z = np.column_stack([np.ones(len(columns)), columns[:, 0], self.slope])[:, : values.effects.shape[1]]
        return np.asarray(self.outcome - left + (z * values.effects[self.codes]).sum(axis=1))

    def _residual_of_fixed(self, columns: FloatArray, weight: FloatArray, outcome: FloatArray | None) -> FloatArray:
        left = self.left_over - columns @ self.need_beta
        if outcome is not None:
            left = left + (outcome - self.outcome)
        if len(self.mean_beta) and not np.all(weight == 1.0):
            mixed = self.mean_columns @ self.mean_beta
            left = left - _mean_moves(self.starts, mixed, weight)[self.codes]
        return left


def conditional_means(rows: FloatArray, relative_covariance: FloatArray) -> FloatArray:
    """Conditional means of every school's effects, shape (schools, q).

    Parameters
    ----------
    rows : array, shape (q, schools, q + 1)
        Precision-weighted products of the random-effects columns with each other and with the residual.
    relative_covariance : array, shape (q, q)
        Of the effects between schools, over the residual variance; it may be singular.
    """
    q = len(relative_covariance)
    values, vectors = np.linalg.eigh(relative_covariance)
    root = vectors * np.sqrt(np.clip(values, 0.0, None))
    by_school = rows.transpose(1, 0, 2)
    inner = root.T @ by_school[:, :, :q] @ root + np.eye(q)
    return np.asarray(np.linalg.solve(inner, root.T @ by_school[:, :, q:])[:, :, 0] @ root.T)


def _contrast(measure: str, q: int) -> FloatArray:
    if measure not in CONTRASTS:
        raise InputError(f"no measure {measure!r}", f"Measures are {', '.join(CONTRASTS)}.")
    return np.array(CONTRASTS[measure][:q])


def _column(design: PupilDesign, name: str) -> FloatArray:
    at = design.columns.index(name)
    return np.asarray(design.rows[:, at] + design.center[at])


@numba.njit(cache=True, nogil=True)
def _school_sums(
    starts: NDArray[np.int64],
    weight: FloatArray,
    relative_variance: FloatArray,
    need: FloatArray,
    slope: FloatArray,
    left: FloatArray,
) -> tuple[FloatArray, FloatArray]:  # pragma: no cover (compiled)
    """Products of ones, need and slope with these and the residual (3, schools, 4); pupils and those with need."""
    schools = len(starts) - 1
    rows, sizes = np.zeros((3, schools, 4)), np.zeros((2, schools))
    z = np.empty(4)
    for j in range(schools):
        for i in range(starts[j], starts[j + 1]):
            if weight[i] == 0.0:
                continue
            z[0], z[1], z[2], z[3] = 1.0, need[i], slope[i], left[i]
            precision = weight[i] / relative_variance[i]
            for a in range(3):
                for b in range(4):
                    rows[a, j, b] += precision * z[a] * z[b]
            sizes[0, j] += weight[i]
            sizes[1, j] += weight[i] * need[i]
    return rows, sizes


@numba.njit(cache=True, nogil=True)
def _mean_moves(
    starts: NDArray[np.int64], values: FloatArray, weight: FloatArray
) -> FloatArray:  # pragma: no cover (compiled)
    """By how much the mean of each school's values moves with the weights, shape (schools,)."""
    out = np.zeros(len(starts) - 1)
    for j in range(len(out)):
        plain, counted, total = 0.0, 0.0, 0.0
        for i in range(starts[j], starts[j + 1]):
            plain += values[i]
            counted += weight[i] * values[i]
            total += weight[i]
        if total > 0.0:
            out[j] = counted / total - plain / (starts[j + 1] - starts[j])
    return out
