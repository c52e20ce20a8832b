"""Need of every pupil when schools change labels or pupils, the national identification parameters held.

Held are the coefficients of background, thresholds, ``kappa``, ``rho``, all variances, and the leniencies of feeders
and authorities. What is a school's own follows its pupils: its intake need ``m_j`` and its leniency ``a_jc`` are found
again at their mode given the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from send_va.identification.model import Parameters, now_likelihood
from send_va.identification.need import Need, NeedEstimator
from send_va.identification.scores import background_need, both_need, entry_need
from send_va.multilevel.crossproducts import FloatArray
from send_va.multilevel.likelihoods import Ordinal
from send_va.sensitivity.held_modes import school_modes

Ints = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class HeldIdentification:
    """Identification with its national parameters held at the estimates; pupils in file order, as in `need.labels`.

    Attributes
    ----------
    need : Need
        Its draws are not used.
    """

    need: Need

    def scores(
        self, estimator: NeedEstimator, now: Ints | None = None, weight: FloatArray | None = None
    ) -> tuple[FloatArray, FloatArray | None]:
        """``pi`` and ``severity`` of every pupil, each (n,), after every school has acted.

        Parameters
        ----------
        estimator : str
        now : integer array, shape (n,), optional
            Labels now; as recorded by default.
        weight : array, shape (n,), optional
            How much each pupil counts for what is estimated of its school.

        Returns
        -------
        pi, severity
            Missing for pupils of schools that are not compared, or whose own effects were not found; no severity for
            ``label_free``.
        """
        records, assumptions = self.need.labels, self.need.assumptions
        if estimator == "label_free":
            return self._compared(background_need(records, self.need.parameters, assumptions)), None
        if not self.need.has_entry:
            parameters, settled = self._split(records.now if now is None else now, weight)
            pi, severity = entry_need(records, parameters, assumptions, records.now if now is None else now)
            return self._compared(pi, settled), self._compared(severity, settled)
        parameters, settled = self.parameters(now, weight, leniency=estimator == "standardised")
        if estimator == "standardised":
            changed = records if now is None else replace(records, now=now)
            pi, severity = both_need(changed, parameters, assumptions, records.entry)
        else:
            pi, severity = entry_need(records, parameters, assumptions, records.entry)
        return self._compared(pi, settled), self._compared(severity, settled)

    def parameters(
        self, now: Ints | None = None, weight: FloatArray | None = None, *, leniency: bool = True
    ) -> tuple[Parameters, NDArray[np.bool_]]:
        """Parameters with the intake need and (if asked for) the leniency of every school found again.

        Returns
        -------
        parameters : Parameters
        settled : bool array, shape (schools,)
            False where a mode was not found.
        """
        intake, settled = self._intake if weight is None else self._intake_at(weight)
        parameters = replace(self.need.parameters, intake=intake)
        if not leniency or self.need.now_fit is None:
            return parameters, settled
        if now is None and weight is None:
            school, found = self._leniency
        else:
            school, found = self._leniency_at(parameters, self.need.labels.now if now is None else now, weight)
        return replace(parameters, school=school), settled & found

    @cached_property
    def _intake(self) -> tuple[FloatArray, NDArray[np.bool_]]:
        return self._intake_at(None)

    @cached_property
    def _leniency(self) -> tuple[FloatArray, NDArray[np.bool_]]:
        parameters = replace(self.need.parameters, intake=self._intake[0])
        return self._leniency_at(parameters, self.need.labels.now, None)

    def _intake_at(self, weight: FloatArray | None) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Intake need at its mode given labels before transfer; held where schools were not found to differ in it."""
        fit, start = self.need.entry_fit, self.need.parameters.intake
        if "school" not in fit.names:
            return start, np.ones(len(start), dtype=bool)
        d = len(self.need.parameters.tau)
        modes, settled = self._of_labels_before(
            self.need.labels.entry, fit.names.index("school"), np.ones((d, 1)), start[:, None], weight
        )
        return modes[:, 0], settled

    def _of_labels_before(
        self, label: Ints, term: int, design: FloatArray, start: FloatArray, weight: FloatArray | None
    ) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Effects of schools in the equation of the label before transfer, feeders' and authorities' held."""
        fit, records, known = self.need.entry_fit, self.need.labels, self.need.parameters
        rows, d = fit.rows, len(known.tau)
        feeder = known.feeder if self.need.has_entry else np.zeros_like(known.feeder)
        others = replace(known, intake=np.zeros_like(known.intake), feeder=feeder)
        likelihood = Ordinal(np.minimum(label[rows], d), d)
        return school_modes(
            lambda at, eta: likelihood.of_rows(at).derivatives(eta)[1:],
            records.school[rows],
            design,
            fit.solution.covariances[term],
            start,
            -others.cuts(records, others.base(records))[rows],
            None if weight is None else weight[rows],
        )

    def _leniency_at(
        self, parameters: Parameters, now: Ints, weight: FloatArray | None
    ) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Leniency at its mode given labels now, at these intake needs."""
        fit = self.need.now_fit
        assert fit is not None  # asked for where there is one
        records, d = replace(self.need.labels, now=now), fit.likelihood.d
        likelihood = now_likelihood(records, fit.rows, parameters, fit.likelihood.reliability)
        likelihood = replace(likelihood, shape=fit.solution.parameters[-1:])
        others = replace(parameters, school=np.zeros_like(parameters.school)).index_now(records)
        before = np.concatenate([[0.0], parameters.rho])[np.minimum(records.entry, d)]
        return school_modes(
            lambda at, eta: likelihood.of_rows(at).derivatives(eta)[1:],
            records.school[fit.rows],
            np.eye(d),
            fit.solution.covariances[fit.names.index("school")],
            parameters.school,
            (others + before[:, None])[fit.rows],
            None if weight is None else weight[fit.rows],
        )

    def _split(self, now: Ints, weight: FloatArray | None) -> tuple[Parameters, NDArray[np.bool_]]:
        """Without labels before transfer: what a school adds to labels, split by the assumed sorting share."""
        known, share = self.need.parameters, self.need.assumptions.sorting_share
        whole = known.feeder + known.intake[:, None]
        term = self.need.entry_fit.names.index("feeder")
        whole, settled = self._of_labels_before(now, term, np.eye(len(known.tau)), whole, weight)
        intake = share * whole[:, 0]
        return replace(known, intake=intake, feeder=whole - intake[:, None]), settled

    def _compared(self, values: FloatArray, settled: NDArray[np.bool_] | None = None) -> FloatArray:
        good = self.need.labels.component == 0
        if settled is not None:
            good = good & settled
        return values if good.all() else np.where(good[self.need.labels.school], values, np.nan)
