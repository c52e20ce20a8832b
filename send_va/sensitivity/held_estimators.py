"""One estimator in several contexts with national parameters held: what any change of records gives every school."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from send_va.errors import NotSupportedError
from send_va.identification.labels import LabelRecords
from send_va.identification.need import Need, NeedEstimator
from send_va.multilevel.crossproducts import FloatArray
from send_va.multilevel.gaussian import uncentred
from send_va.multilevel.threads import one_blas_thread
from send_va.records.design_columns import Context, check_contexts
from send_va.sensitivity.held_identification import HeldIdentification
from send_va.sensitivity.held_national import HeldEquation, SchoolValues
from send_va.value_added.design import LabelledProducts
from send_va.value_added.labelled import LabelledColumns, fit_labelled_columns
from send_va.value_added.need_draws import PlugInFit
from send_va.value_added.need_fit import plug_in_fits
from send_va.value_added.pupil_design import PupilDesign
from send_va.value_added.residual_variance import ResidualVariance
from send_va.value_added.row_coder import EHCP, NEED
from send_va.value_added.scores import check_estimator, scores_table
from send_va.value_added.strata import StratifiedSolution

Ints = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class HeldEstimator(ABC):
    """An estimator with its national parameters held. Pupils are in the order of ``PupilDesign.rows``.

    Attributes
    ----------
    estimator : str
        ``labelled``, ``standardised``, ``entry`` or ``label_free``.
    equations : dict of context to HeldEquation
    """

    estimator: str
    equations: Mapping[Context, HeldEquation]

    @abstractmethod
    def need_columns(self, now: Ints | None = None, weight: FloatArray | None = None) -> FloatArray:
        """What it makes of labels and pupils: columns of need (n, k), the first being status or ``pi``.

        Missing for pupils of schools that are not compared. Arguments as those of :meth:`at`.
        """

    @abstractmethod
    def relative_variance(self, context: Context, columns: FloatArray) -> FloatArray:
        """Residual variance of every pupil over the equation's scale, shape (n,)."""

    def at(
        self, now: Ints | None = None, weight: FloatArray | None = None, outcome: FloatArray | None = None
    ) -> dict[Context, SchoolValues]:
        """Values of all schools after every school has changed something of its own, by context.

        Parameters
        ----------
        now : integer array, shape (n,), optional
            Labels now (0 none, 1 support, 2 EHCP); as recorded by default.
        weight : array, shape (n,), optional
            How much each pupil still counts, 0 to 1; 1 by default.
        outcome : array, shape (n,), optional
            As recorded by default.

        Returns
        -------
        dict of context to SchoolValues
            Each school's is what it would get by its change alone, all others as they are.
        """
        return self.with_columns(self.need_columns(now, weight), weight, outcome)

    def with_columns(
        self, columns: FloatArray, weight: FloatArray | None = None, outcome: FloatArray | None = None
    ) -> dict[Context, SchoolValues]:
        """The same at given columns of need."""
        return {
            context: equation.values(columns, self.relative_variance(context, columns), weight, outcome)
            for context, equation in self.equations.items()
        }

    @cached_property
    def columns_before(self) -> FloatArray:
        """Columns of need with nothing changed."""
        return self.need_columns()

    @cached_property
    def before(self) -> dict[Context, SchoolValues]:
        """Values with nothing changed, by the same steps."""
        return self.with_columns(self.columns_before)

    def predictions(self, context: Context) -> FloatArray:
        """Outcome expected of every pupil at its school with nothing changed, shape (n,)."""
        return self.equations[context].predictions(self.columns_before, self.before[context])


@dataclass(frozen=True, eq=False)
class HeldLabelled(HeldEstimator):
    """``labelled``: status now as recorded.

    Attributes
    ----------
    now : integer array, shape (n,)
    status_columns : tuple of str
        ``need`` and, where both statuses occur, ``ehcp``.
    residual_variance : dict of context to array, shape (3,)
        By status, over the scale.
    """

    now: Ints
    status_columns: tuple[str, ...]
    residual_variance: Mapping[Context, FloatArray]

    def need_columns(self, now: Ints | None = None, weight: FloatArray | None = None) -> FloatArray:
        """Indicators of any status and, where both occur, of EHCP."""
        status = self.now if now is None else now
        known = {NEED: status > 0, EHCP: status == 2}
        return np.column_stack([known[name] for name in self.status_columns]).astype(np.float64)

    def relative_variance(self, context: Context, columns: FloatArray) -> FloatArray:
        """By status."""
        return self.residual_variance[context][columns.sum(axis=1).astype(np.intp)]


@dataclass(frozen=True, eq=False)
class HeldNeed(HeldEstimator):
    """``standardised``, ``entry`` or ``label_free``, with need at the estimates of the identification parameters.

    Attributes
    ----------
    identification : HeldIdentification
    order : integer array, shape (n,)
        Place among pupils of the identification records of each row of the design.
    residual : dict of context to ResidualVariance
        Over the scale.
    """

    estimator: NeedEstimator
    identification: HeldIdentification
    order: NDArray[np.int64]
    residual: Mapping[Context, ResidualVariance]

    def need_columns(self, now: Ints | None = None, weight: FloatArray | None = None) -> FloatArray:
        """``pi`` and, but for ``label_free``, ``severity``."""
        if self.estimator == "label_free" and (now is not None or weight is not None):
            return self.columns_before
        if self.estimator == "entry" and weight is None and now is not None:
            return self.columns_before
        scores = self.identification.scores(self.estimator, self._in_file_order(now), self._in_file_order(weight))
        return np.column_stack([part[self.order] for part in scores if part is not None])

    def relative_variance(self, context: Context, columns: FloatArray) -> FloatArray:
        """By ``pi``."""
        return self.residual[context].at(columns[:, 0])

    def _in_file_order[Values: (Ints, FloatArray)](self, values: Values | None) -> Values | None:
        if values is None:
            return None
        out = np.empty_like(values)
        out[self.order] = values
        return out


@one_blas_thread
def hold_labelled(
    design: PupilDesign,
    labels: LabelRecords,
    data: LabelledProducts,
    contexts: Sequence[str],
    *,
    residual_by_need: bool = True,
    prior_slope: bool = True,
) -> HeldLabelled:
    """Fit ``labelled`` and hold its national parameters.

    Error of prior scores is not corrected here.

    Parameters
    ----------
    design : PupilDesign
        All complete pupils.
    labels : LabelRecords
        Of the same pupils, labels now as recorded.
    data : LabelledProducts
        Of the same pupils.
    contexts : sequence of str
    residual_by_need, prior_slope : bool
        As in :func:`send_va.value_added.labelled.fit_labelled`.
    """
    equations, variances = {}, {}
    for context in check_contexts(contexts):
        columns = LabelledColumns.of(data, context, prior_slope)
        strata = [part.select(columns.held) for part in data.strata]
        fit = fit_labelled_columns(strata, columns, columns.x(), residual_by_need)
        equations[context] = HeldEquation.of(
            design,
            estimator="labelled",
            context=context,
            coefficients=dict(zip(columns.fixed, uncentred(fit.solution, fit.products, columns.fixed)[0], strict=True)),
            need_columns=data.need_columns,
            prior_reference=data.prior_reference,
            covariance=fit.solution.covariances[0],
            scale=fit.solution.scale,
            fitted=fit.solution.modes[0],
        )
        variances[context] = _by_status(fit, data)
    return HeldLabelled("labelled", equations, labels.now[design.order], data.need_columns, variances)


def _by_status(fit: StratifiedSolution, data: LabelledProducts) -> FloatArray:
    """Relative residual variance by status; a status nobody has takes that of the other pupils with need."""
    relative = np.broadcast_to(fit.residual_variance / fit.solution.scale, 3).copy()
    counts = data.counts.sum(axis=0)
    if len(data.need_columns) == 1:  # one indicator of need, whichever status it is
        relative[1:] = relative[1] if counts[1] else relative[2]
    return relative


@one_blas_thread
def hold_need(
    design: PupilDesign,
    need: Need,
    estimator: str,
    contexts: Sequence[str],
    *,
    residual_by_need: bool = True,
    prior_slope: bool = True,
) -> HeldNeed:
    """Fit an estimator with need at the estimates of the identification parameters, and hold what is national.

    Parameters
    ----------
    design : PupilDesign
        All complete pupils, those of schools that cannot be compared included.
    need : Need
    estimator : str
    contexts : sequence of str
    residual_by_need, prior_slope : bool
        As in :func:`send_va.value_added.need_fit.fit_need`.

    Raises
    ------
    NotSupportedError
        The records do not allow the estimator.
    """
    known = check_estimator(estimator)
    if known not in need.estimators:
        raise NotSupportedError(need.why_not(known))
    wanted, at_estimates = check_contexts(contexts), replace(need, draws=())
    apart = np.flatnonzero(need.labels.component > 0)
    compared = design.without_schools(apart)
    table = scores_table(compared.ordered(at_estimates.scores(known).plug_in()), len(compared.rows), known)
    reference = compared.prior_at(table[:, 0])
    starts = plug_in_fits(compared, wanted, table, reference, prior_slope, residual_by_need)
    equations = {
        context: HeldEquation.of(
            design,
            estimator=known,
            context=context,
            coefficients=_coefficients(start),
            need_columns=start.columns.changing,
            prior_reference=reference,
            covariance=start.fit.solution.covariances[0],
            scale=start.fit.solution.scale,
            fitted=start.fit.solution.modes[0],
            left_out=apart.tolist(),
        )
        for context, start in starts.items()
    }
    residual = {context: _relative_residual(start, table[:, 0]) for context, start in starts.items()}
    return HeldNeed(known, equations, HeldIdentification(at_estimates), design.order, residual)


def _coefficients(start: PlugInFit) -> dict[str, float]:
    beta, _ = uncentred(start.fit.solution, start.fit.products, start.columns.fixed)
    return dict(zip(start.columns.fixed, beta.tolist(), strict=True))


def _relative_residual(start: PlugInFit, pi: FloatArray) -> ResidualVariance:
    """The variance function that the weights of a fit were made with, over its scale: they say it exactly."""
    basis = np.column_stack([(1.0 - pi) ** 2, 2.0 * pi * (1.0 - pi), pi**2])
    found = np.linalg.lstsq(basis, 1.0 / start.fit.weights, rcond=None)[0]
    return ResidualVariance(*(float(value) for value in found))
