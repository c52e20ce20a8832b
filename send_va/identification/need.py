"""Need: what the identification model says of every pupil and every school."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from typing import Literal, TypeVar, get_args

import numpy as np
import pandas as pd

from send_va.errors import InputError, NotSupportedError
from send_va.identification.identified import refuse_unidentified
from send_va.identification.kernels import Floats
from send_va.identification.labels import LabelRecords
from send_va.identification.model import EntryFit, NowFit, Parameters, fit_entry, fit_now, now_likelihood
from send_va.identification.scores import Assumptions, background_need, both_need, entry_need
from send_va.multilevel.laplace import LatentDraw
from send_va.multilevel.threads import one_blas_thread

NeedEstimator = Literal["standardised", "entry", "label_free"]
Summary = TypeVar("Summary")
_AVERAGED, _TOGETHER = 24, 4  # draws that expected scores average, and how many are held in memory
NEED_ESTIMATORS: tuple[NeedEstimator, ...] = get_args(NeedEstimator)


@dataclass(frozen=True)
class PupilScores:
    """Expected need of complete pupils under one estimator, at the estimates and for every draw.

    Attributes
    ----------
    need : Need
    estimator : str
    without : bool array, shape (n,), optional
        Pupils whose label before transfer is not used.
    """

    need: Need
    estimator: NeedEstimator
    without: np.ndarray[tuple[int], np.dtype[np.bool_]] | None = None

    @property
    def n_draws(self) -> int:
        """Joint draws of the identification parameters."""
        return len(self.need.draws)

    def plug_in(self) -> tuple[Floats, Floats | None]:
        """``pi`` and ``severity``, each (n,), expected; no severity for `label_free`.

        Averaged over draws of the parameters where there are any: need given the labels, with the uncertainty of
        leniency integrated out, is not need at the most likely leniency.
        """
        if self._key not in self.need.expected:
            self.summed(lambda pi: None, 0)
        return self.need.expected[self._key]

    def summed(self, summary: Callable[[Floats], Summary], most: int) -> list[Summary]:
        """Sum up ``pi`` of each of the first `most` draws, in the pass that averages the expected scores."""
        if self.n_draws < 2:
            self.need.expected[self._key] = self._at(self.need.parameters)
            return []
        averaged, summed = min(self.n_draws, _AVERAGED), min(self.n_draws, most)
        wanted = max(averaged, summed)
        total_pi, total_severity = np.zeros(1), np.zeros(1)
        sums: list[Summary] = []
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as cores:
            for start in range(0, wanted, _TOGETHER):
                together = range(start, min(start + _TOGETHER, wanted))
                for d, (pi, severity) in zip(together, cores.map(self.draw, together), strict=True):
                    if d < summed:
                        sums.append(summary(pi))
                    if d < averaged:
                        total_pi = total_pi + pi
                        total_severity = total_severity + (0.0 if severity is None else severity)
        known = None if self.estimator == "label_free" else total_severity / averaged
        self.need.expected[self._key] = total_pi / averaged, known
        return sums

    @property
    def _key(self) -> tuple[str, bytes | None]:
        return self.estimator, None if self.without is None else self.without.tobytes()

    def draw(self, d: int) -> tuple[Floats, Floats | None]:
        """The same at the d-th draw of the parameters; safe to call from several threads."""
        return self._at(self.need.draws[d])

    def _at(self, parameters: Parameters) -> tuple[Floats, Floats | None]:
        records, assumptions = self.need.labels, self.need.assumptions
        if self.estimator == "label_free":
            return self._connected(background_need(records, parameters, assumptions)), None
        entry = records.entry if self.without is None else np.where(self.without, -1, records.entry)
        both = self.estimator == "standardised" and self.need.now_fit is not None
        pi, severity = (both_need if both else entry_need)(records, parameters, assumptions, entry)
        return self._connected(pi), self._connected(severity)

    def _connected(self, values: Floats) -> Floats:
        """Missing for pupils of schools that cannot be compared."""
        outside = self.need.labels.component[self.need.labels.school] > 0
        return np.where(outside, np.nan, values) if outside.any() else values


@dataclass(frozen=True)
class Need:
    """Who has need, by the model, and who labels leniently.

    Attributes
    ----------
    labels : LabelRecords
    entry_fit : EntryFit
        Equation of the label before transfer (of the label now, where no label before is recorded).
    now_fit : NowFit or None
        Equation of the label now; None without labels before transfer, or where hardly a label changes.
    parameters : Parameters
    draws : tuple of Parameters
        Joint draws: variances, leniencies, intake need, thresholds.
    assumptions : Assumptions
    has_entry : bool
        Whether labels before transfer are recorded. Without them leniency and intake need of a school cannot be told
        apart, and everything depends on ``assumptions.sorting_share``.
    recorded : LabelRecords or None
        Without labels before transfer: the records as they are, `labels` having the label now in place of that before.
    """

    labels: LabelRecords
    entry_fit: EntryFit
    now_fit: NowFit | None
    parameters: Parameters
    draws: tuple[Parameters, ...] = field(repr=False)
    assumptions: Assumptions = field(default_factory=Assumptions)
    has_entry: bool = True
    recorded: LabelRecords | None = field(default=None, repr=False)
    expected: dict[tuple[str, bytes | None], tuple[Floats, Floats | None]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )  # expected scores already made

    @property
    def n_draws(self) -> int:
        """Joint draws of the parameters."""
        return len(self.draws)

    @property
    def estimators(self) -> tuple[NeedEstimator, ...]:
        """Estimators these records allow."""
        if not self.has_entry or self.now_fit is None:
            return ("entry" if self.has_entry else "standardised", "label_free")
        return NEED_ESTIMATORS

    def scores(self, estimator: str, without: np.ndarray[tuple[int], np.dtype[np.bool_]] | None = None) -> PupilScores:
        """Expected need under one estimator.

        Raises
        ------
        NotSupportedError
            The records do not allow the estimator; the message says why.
        """
        if estimator not in self.estimators:
            raise NotSupportedError(self.why_not(estimator))
        return PupilScores(self, next(name for name in NEED_ESTIMATORS if name == estimator), without)

    def why_not(self, estimator: str) -> str:
        """Why these records do not allow an estimator."""
        return why_not(estimator)

    def assumes(self, estimator: str) -> str:
        """What every value of an estimator rests on that labels do not tell; empty where they tell it.

        Examples
        --------
        >>> import numpy as np
        >>> import send_va as sv
        >>> roles = {"pupil": "pupil", "school": "school", "outcome": "outcome", "prior": ["prior"],
        ...          "sen_status": "sen_status"}
        >>> world = sv.simulate(np.random.default_rng(1), schools=20, pupils_per_school=50)
        >>> need = sv.fit_identification(sv.Cohort.from_pandas(world.pupils, roles), draws=0)
        >>> need.assumes("standardised"), need.assumes("label_free")
        ('no label before transfer: 50 % of what the school adds to labels is taken to be need', '')
        """
        if self.has_entry or estimator == "label_free":
            return ""
        share = f"{100 * self.assumptions.sorting_share:.0f} %"
        return f"no label before transfer: {share} of what the school adds to labels is taken to be need"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader must know before anything else."""
        said = []
        if not self.has_entry:
            said.append(
                "no SEN status before transfer: a school's leniency and its intake need cannot be told apart. "
                "'standardised' is shown for the whole range of the share that is need (assumption_ranges.csv); no "
                f"single value of it is an estimate ({100 * self.assumptions.sorting_share:.0f} % is assumed where one "
                "is shown), and no school is given a position by it"
            )
        elif not self.labels.feeders:
            said.append("no feeder is recorded: leniency before transfer is known by authority only")
        if self.labels.levels == 1 and max(self.labels.entry.max(), self.labels.now.max()) > 1:
            said.append("hardly any EHCP before transfer: EHCP and SEN support are taken together, as any SEN")
        unknown = int((self.labels.entry < 0).sum())
        if self.has_entry and unknown:
            said.append(
                f"{unknown:,} of {len(self.labels.entry):,} pupils have no SEN status before transfer: their need is "
                "expected given background, school and, for 'standardised', the label now"
            )
        for when, fit in (("before transfer", self.entry_fit), ("now", self.now_fit)):
            if fit is not None and not fit.solution.convergence.converged:
                said.append(f"the equation of the label {when} did not converge: {fit.solution.convergence.message}")
        return tuple(said)

    def under(self, **changes: float) -> Need:
        """The same fit under other assumptions.

        Exact for `entry` and `label_free`. The equation of the label now is kept as it was fitted: for `standardised`
        under another label reliability, call `estimate_need` with that assumption.

        Raises
        ------
        InputError
            An assumption that does not exist; a share or reliability out of range.
        """
        known = [item.name for item in fields(Assumptions)]
        unknown = [name for name in changes if name not in known]
        if unknown:
            raise InputError(f"no assumption {', '.join(map(repr, unknown))}", f"Assumptions are {', '.join(known)}.")
        assumptions = replace(self.assumptions, **changes)
        _check(assumptions)
        if not self.has_entry and "sorting_share" in changes:
            move = assumptions.sorting_share - self.assumptions.sorting_share
            return replace(
                self,
                assumptions=assumptions,
                parameters=_sorted(self.parameters, move),
                draws=tuple(_sorted(p, move) for p in self.draws),
            )
        return replace(self, assumptions=assumptions)

    @property
    def pupils(self) -> pd.DataFrame:
        """One row per complete pupil: row_number, pi, severity, p0 of the estimator that uses most labels."""
        pi, severity = self.scores(best_estimator(self)).plug_in()
        p0, _ = self.scores("label_free").plug_in()
        return pd.DataFrame({"row_number": self.labels.row_number, "pi": pi, "severity": severity, "p0": p0})

    @property
    def schools(self) -> pd.DataFrame:
        """One row per school, as identification.csv; see `send_va.identification.tables.school_table`."""
        from send_va.identification.tables import school_table

        return school_table(self)

    @property
    def variance(self) -> pd.DataFrame:
        """Variance shares of pupil, feeder, school and authority, as identification_variance.csv; fitted when asked."""
        from send_va.identification.lottery import identification_lottery

        return identification_lottery(self.recorded or self.labels)

    def __repr__(self) -> str:
        return f"<{self}>"

    def __str__(self) -> str:
        before = "labels before transfer and now" if self.has_entry else "labels now only"
        return f"Need of {len(self.labels.school):,} pupils in {len(self.labels.schools):,} schools from {before}"


def why_not(estimator: str) -> str:
    """Say what records lack that do not allow an estimator."""
    if estimator not in NEED_ESTIMATORS:
        return f"no estimator {estimator!r} uses need; there are {', '.join(NEED_ESTIMATORS)}."
    if estimator == "entry":
        return "the estimator 'entry' needs the SEN status before transfer (sen_status_entry under [roles])."
    return (
        "the estimator 'standardised' needs pupils whose label changed between transfer and now: hardly any "
        "did, or all with one label kept it, or hardly any has one of the labels now, so the leniency of schools "
        "cannot be told. Use 'entry', which these records identify."
    )


def best_estimator(need: Need) -> NeedEstimator:
    """The estimator that uses most labels."""
    return "standardised" if "standardised" in need.estimators else "entry"


def _sorted(parameters: Parameters, move: float) -> Parameters:
    """Move a share of the schools' labelling from leniency to intake need (no label before transfer)."""
    total = parameters.intake + parameters.feeder[:, 0]
    return replace(
        parameters,
        intake=parameters.intake + move * total,
        feeder=parameters.feeder - move * total[:, None],
        intake_variance=float(np.var(parameters.intake + move * total)),
    )


@one_blas_thread
def estimate_need(
    labels: LabelRecords,
    *,
    seed: int,
    draws: int = 200,
    assumptions: Assumptions | None = None,
) -> Need:
    """Fit the identification model and draw its parameters.

    Parameters
    ----------
    labels : LabelRecords
    seed : int
        Every draw has a generator of its own, so results do not depend on the number of cores.
    draws : int
        Joint draws of the parameters; 0 for none.
    assumptions : Assumptions, optional

    Returns
    -------
    Need

    Raises
    ------
    InputError
        Labels that do not vary; no two schools share a feeder; a share or reliability out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import send_va as sv
    >>> roles = {"pupil": "pupil", "school": "school", "feeder": "feeder", "outcome": "outcome", "prior": ["prior"],
    ...          "sen_status": "sen_status", "sen_status_entry": "sen_status_entry"}
    >>> world = sv.simulate(np.random.default_rng(1), schools=20, pupils_per_school=50)
    >>> cohort = sv.Cohort.from_pandas(world.pupils, roles)
    >>> labels = sv.fit_identification(cohort, draws=0).labels
    >>> need = estimate_need(labels, seed=1, draws=3)
    >>> print(need)
    Need of 1,019 pupils in 20 schools from labels before transfer and now
    >>> need.estimators, need.n_draws
    (('standardised', 'entry', 'label_free'), 3)
    """
    assumptions = assumptions or Assumptions()
    _check(assumptions)
    refuse_unidentified(labels)
    if not labels.has_entry:
        return _from_labels_now(labels, seed, draws, assumptions)
    fitted = fit_entry(labels)
    parameters = fitted.parameters(labels)
    now = fit_now(labels, fitted, parameters, assumptions.label_reliability)
    if now is not None:
        parameters = now.complete(parameters, now.solution)

    def one(rng: np.random.Generator) -> Parameters:
        drawn = fitted.parameters(labels, fitted.solution.draw(rng))
        if now is None:
            return drawn
        likelihood = replace(
            now_likelihood(labels, now.rows, drawn, assumptions.label_reliability), shape=now.solution.parameters[-1:]
        )
        return now.complete(drawn, now.solution.draw(rng, likelihood))

    return Need(labels, fitted, now, parameters, _drawn(one, seed, draws), assumptions)


def _from_labels_now(labels: LabelRecords, seed: int, draws: int, assumptions: Assumptions) -> Need:
    """One equation for the label now; what a school adds to it is split by the assumed sorting share."""
    single = replace(
        labels,
        entry=labels.now,
        feeder=labels.school,
        feeders=labels.schools,
        feeder_la=labels.la,
        feeder_las=labels.las,
    )
    fitted = fit_entry(single, intake=False)

    def split(values: LatentDraw | None = None) -> Parameters:
        whole = fitted.parameters(single, values)
        return _sorted(replace(whole, intake=np.zeros(len(single.schools))), assumptions.sorting_share)

    def one(rng: np.random.Generator) -> Parameters:
        return split(fitted.solution.draw(rng))

    return Need(single, fitted, None, split(), _drawn(one, seed, draws), assumptions, has_entry=False, recorded=labels)


def _drawn(one: Callable[[np.random.Generator], Parameters], seed: int, draws: int) -> tuple[Parameters, ...]:
    generators = [np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(7, d))) for d in range(draws)]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as cores:
        return tuple(cores.map(one, generators))


def _check(assumptions: Assumptions) -> None:
    for name, value in vars(assumptions).items():
        if not isinstance(value, int | float):
            raise InputError(f"{name} must be one number, not {value!r}")
    for name in ("feeder_sorting_share", "area_sorting_share", "sorting_share"):
        if not 0.0 <= getattr(assumptions, name) <= 1.0:
            raise InputError(f"{name} must be between 0 and 1, not {getattr(assumptions, name)}")
    if not 0.3 <= assumptions.label_reliability <= 1.0:
        raise InputError(f"label_reliability must be between 0.3 and 1, not {assumptions.label_reliability}")
