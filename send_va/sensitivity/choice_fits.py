"""Value-added under every choice that asks for a fit of its own: what the other choices are then applied to.

Records are read, and need is identified, once for each outcome, definition of SEND and span of years. Scores of need
are made once for each estimator. Contexts and adjustments are other columns of the same products, and each fit of a
context starts where that of the context before ended, as in :func:`send_va.value_added.need_fit.fit_need`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from send_va.effects import SchoolEffects
from send_va.errors import BoundaryWarning, SendVaError
from send_va.identification.labels import LabelRecords, read_labels
from send_va.identification.need import Need, estimate_need
from send_va.multilevel.crossproducts import FloatArray
from send_va.multilevel.threads import one_blas_thread
from send_va.records.design_columns import CONTEXTS, Context, ContextColumns
from send_va.records.profile import CohortProfile
from send_va.records.reader import Cohort
from send_va.sensitivity.base_fits import BaseFit, BaseKey
from send_va.sensitivity.chosen_records import defined_send, latest_years
from send_va.sensitivity.fit_store import FitStore
from send_va.sensitivity.specifications import ADJUSTMENTS
from send_va.value_added.changing_products import ChangingProducts, NeedColumns
from send_va.value_added.design import LabelledProducts, context_columns, labelled_products
from send_va.value_added.labelled import fit_labelled
from send_va.value_added.need_draws import PlugInFit
from send_va.value_added.pupil_design import PupilDesign, pupil_design
from send_va.value_added.readout import CONTRASTS
from send_va.value_added.residual_variance import WeightedFit, fit_weighted
from send_va.value_added.scores import check_estimator, scores_table

NOT_CONVERGED = "REML did not converge"
_DRAWS = 2  # of the labelled estimator, which needs some; they are not looked at
_BROKEN = (SendVaError, np.linalg.LinAlgError)


@dataclass(frozen=True)
class FitOptions:
    """What no choice varies.

    Attributes
    ----------
    seed : int
    prior_knots : int
        Interior knots of the spline of each prior score.
    composition : tuple of str or None
        Columns whose school means enter the ``composition`` context.
    identification_draws : int
        Draws of the identification parameters that expected scores of need average. 24 are averaged at most, so 24
        give the scores of a run that makes more of them; 0 takes need at the most likely parameters.
    correct_error : bool
        Take out the known error of prior scores, for ``labelled``.
    """

    seed: int = 1
    prior_knots: int = 5
    composition: tuple[str, ...] | None = None
    identification_draws: int = 24
    correct_error: bool = False


class Records:
    """One cohort, read for whatever its fits need, when they first need it."""

    def __init__(self, cohort: Cohort, options: FitOptions, other: Need | None) -> None:
        """`other` is need of records that may have the same labels, to be taken over where they do."""
        self._cohort, self.options, self.identified = cohort, options, other

    @cached_property
    def profile(self) -> CohortProfile:
        """Counts, knots, levels."""
        return self._cohort.profile(self.options.prior_knots)

    @cached_property
    def columns(self) -> ContextColumns:
        """Columns of all contexts."""
        return context_columns(self._cohort, self.profile, self.options.composition)

    @cached_property
    def products(self) -> LabelledProducts:
        """For ``labelled``."""
        return labelled_products(self._cohort, self.profile, self.columns)

    @cached_property
    def need(self) -> Need:
        """Identification, for all others."""
        labels = read_labels(self._cohort, self.profile, self.columns)
        if self.identified is None or not _same_labels(self.identified, labels):
            options = self.options
            self.identified = estimate_need(labels, seed=options.seed, draws=options.identification_draws)
        return self.identified

    @cached_property
    def design(self) -> PupilDesign:
        """Rows of all pupils of schools that can be compared."""
        design = pupil_design(self._cohort, self.profile, self.columns)
        return design.without_schools(np.flatnonzero(self.need.labels.component > 0))


def _same_labels(need: Need, labels: LabelRecords) -> bool:
    known = need.recorded or need.labels
    return known.x_names == labels.x_names and known.las == labels.las and not known.differs_from(labels)


def base_fits(
    open_records: Callable[[str], Cohort],
    table: pd.DataFrame,
    options: FitOptions,
    store: FitStore,
    progress: Callable[[int], None] | None = None,
) -> dict[BaseKey, BaseFit]:
    """Fit what the store does not hold, records after records, outcomes innermost: they may share their labels.

    Parameters
    ----------
    open_records : callable
        Called with the column of an outcome.
    table : DataFrame
        Specifications, as of :meth:`send_va.sensitivity.specifications.Choices.table`.
    options, store
    progress : callable, optional
        Called with the number of fits done.

    Returns
    -------
    dict of key to BaseFit
        Each as the store kept it, so that a resumed multiverse has the same bytes.
    """
    keys = list(dict.fromkeys(BaseKey.of(row) for row in table.itertuples()))
    need: Need | None = None
    done = 0

    def tick(more: int) -> None:
        nonlocal done
        done += more
        if progress is not None:
            progress(done)

    for send, years, outcome in sorted({(key.send, key.years, key.outcome) for key in keys}):
        own = [key for key in keys if (key.send, key.years, key.outcome) == (send, years, outcome)]

        def opened(outcome: str = outcome, send: str = send, years: int = years) -> Cohort:
            return latest_years(defined_send(open_records(outcome), send), years)

        need = fit_keys(own, opened, options, store, need, tick)
    return {key: BaseFit.of_arrays(store.load(key.name)) for key in keys}


@one_blas_thread
def fit_keys(
    keys: Sequence[BaseKey],
    open_records: Callable[[], Cohort],
    options: FitOptions,
    store: FitStore,
    other: Need | None = None,
    progress: Callable[[int], None] | None = None,
) -> Need | None:
    """Fit whatever the store does not hold, of keys with the same outcome, definition of SEND and years.

    Parameters
    ----------
    keys : sequence of BaseKey
    open_records : callable
        Opens the records of these keys; not called where all is there.
    options : FitOptions
    store : FitStore
        A fit that fails is kept with its reason.
    other : Need, optional
        Of records that may have the same labels.
    progress : callable, optional
        Called with how many more keys are done.

    Returns
    -------
    Need or None
        What was identified, for the records that come next.
    """
    missing = [key for key in keys if not store.has(key.name)]
    tick = progress or (lambda done: None)
    tick(len(keys) - len(missing))
    if not missing:
        return other
    try:
        records = Records(open_records(), options, other)
    except SendVaError as error:
        _save_failure(store, missing, error, tick)
        return other
    for estimator in dict.fromkeys(key.estimator for key in missing):
        own = [key for key in keys if key.estimator == estimator]
        try:
            fit_context = _labelled(records) if estimator == "labelled" else _by_need(records, estimator)
        except _BROKEN as error:
            _save_failure(store, [key for key in own if not store.has(key.name)], error, tick)
            continue
        for adjustment in dict.fromkeys(key.adjustment for key in own):
            _fit_chain([key for key in own if key.adjustment == adjustment], fit_context, store, tick)
    return records.identified


_FitContext = Callable[[Context, bool, bool, WeightedFit | None], tuple[BaseFit, WeightedFit | None]]


def _fit_chain(keys: Sequence[BaseKey], fit_context: _FitContext, store: FitStore, tick: Callable[[int], None]) -> None:
    """Fit one adjustment in all contexts; all again where one is missing, as each starts from the one before."""
    if all(store.has(key.name) for key in keys):
        return
    last: WeightedFit | None = None
    for key in sorted(keys, key=lambda key: CONTEXTS.index(_context(key))):
        try:
            fit, last = fit_context(_context(key), *ADJUSTMENTS[key.adjustment], last)
        except _BROKEN as error:
            fit = BaseFit.failed(str(error))
        if not store.has(key.name):
            store.save(key.name, fit.arrays())
            tick(1)


def _context(key: BaseKey) -> Context:
    return next(context for context in CONTEXTS if context == key.context)


def _save_failure(store: FitStore, keys: Sequence[BaseKey], error: Exception, tick: Callable[[int], None]) -> None:
    for key in keys:
        store.save(key.name, BaseFit.failed(str(error)).arrays())
    tick(len(keys))


def _labelled(records: Records) -> _FitContext:
    """How a context is fitted with SEN status as recorded."""
    data = records.products

    def fit(context: Context, prior_slope: bool, by_need: bool, last: WeightedFit | None) -> tuple[BaseFit, None]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BoundaryWarning)
            found = fit_labelled(
                data,
                context,
                rng=np.random.default_rng(records.options.seed),
                draws=_DRAWS,
                prior_slope=prior_slope,
                residual_by_need=by_need,
                correct_error=records.options.correct_error,
            )
        return (_of_effects(found.effects) if found.converged else BaseFit.failed(NOT_CONVERGED)), None

    return fit


def _of_effects(effects: SchoolEffects) -> BaseFit:
    data, sd = effects.data, float(effects.attrs["outcome_sd"])
    mean, estimate, se = (data[name].sel(measure="theta").to_numpy() / sd for name in ("mean", "estimate", "se"))
    return BaseFit(
        np.array(effects.schools), mean, estimate, se, data["n_need"].to_numpy(), float(effects.attrs["llf"])
    )


def _by_need(records: Records, estimator: str) -> _FitContext:
    """How a context is fitted with need known by its probability."""
    scores = records.need.scores(estimator)
    design = records.design
    table = scores_table(design.ordered(scores.plug_in()), len(design.rows), check_estimator(estimator))
    reference, expected = design.prior_at(table[:, 0]), design.by_school(table[:, 0])

    def fit(
        context: Context, prior_slope: bool, by_need: bool, last: WeightedFit | None
    ) -> tuple[BaseFit, WeightedFit]:
        columns = NeedColumns.of(design, context, table.shape[1] > 1, prior_slope)
        found = fit_weighted(design, columns, table, reference, by_need=by_need, start=last)
        if not (found.settled and found.solution.convergence.converged):
            return BaseFit.failed(NOT_CONVERGED), found
        changing = ChangingProducts.of(design, columns, found.products, reference)
        return _of_fit(design, PlugInFit(columns, found, changing, design.n_pupils - expected, expected)), found

    return fit


def _of_fit(design: PupilDesign, start: PlugInFit) -> BaseFit:
    solution, sd = start.fit.solution, design.outcome_sd
    own, modes = start.own(solution), solution.modes[0]
    theta: FloatArray = modes @ np.array(CONTRASTS["theta"][: modes.shape[1]])
    return BaseFit(
        np.array(design.schools),
        theta / sd,
        own.estimate["theta"] / sd,
        own.se["theta"] / sd,
        np.rint(start.n_with).astype(np.int64),
        solution.llf,
    )
