"""The identification model: need, thresholds and the leniency of feeders, schools and authorities."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from send_va.errors import InputError
from send_va.identification.current import CurrentLabel, covariance_kind, fit_current
from send_va.identification.identified import labels_change, labels_that_do_not_vary
from send_va.identification.kernels import Floats, Ints, add_by_code, intervals
from send_va.identification.labels import LabelRecords, usable
from send_va.multilevel.laplace import LaplaceSolution, LatentDraw, fit_laplace
from send_va.multilevel.latent_system import Term
from send_va.multilevel.likelihoods import Ordinal


@dataclass(frozen=True)
class Parameters:
    """One set of values of everything the identification model estimates.

    All on the scale of judged need, whose unexplained part within a school and feeder has an SD of 1. Columns of
    leniency are thresholds: support, then EHCP where it occurs.

    Attributes
    ----------
    gamma : array, shape (p,)
        By SD of each predictor.
    tau : array, shape (d,)
        National thresholds before transfer.
    intake : array, shape (schools,)
        Intake need.
    feeder, la_entry : array, shapes (feeders, d) and (authorities, d)
        Leniency before transfer.
    intake_variance : float
    rho, tau_now : array, shape (d,)
        What a label before transfer adds to the index of the label now, and its national thresholds.
    kappa : float
    school, la_now : array, shapes (schools, d) and (authorities, d)
        Leniency now.
    """

    gamma: Floats
    tau: Floats
    intake: Floats
    feeder: Floats
    la_entry: Floats
    intake_variance: float
    rho: Floats = field(default_factory=lambda: np.zeros(0))
    tau_now: Floats = field(default_factory=lambda: np.zeros(0))
    kappa: float = 0.0
    school: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    la_now: Floats = field(default_factory=lambda: np.zeros((0, 0)))

    def base(self, records: LabelRecords) -> Floats:
        """Need that background and school explain, (n,)."""
        return np.asarray(records.x @ self.gamma + self.intake[records.school])

    def leniency_before(self, records: LabelRecords) -> Floats:
        """Leniency of feeder and authority before transfer, by pupil (n, d); 0 where unknown."""
        return _summed((records.feeder, self.feeder), (records.feeder_la, self.la_entry))

    def cuts(self, records: LabelRecords, base: Floats) -> Floats:
        """What unexplained judged need is compared with before transfer, (n, d)."""
        return self.tau - base[:, None] - self.leniency_before(records)

    def index_now(self, records: LabelRecords) -> Floats:
        """What is added to ``kappa * need`` and ``rho`` now, (n, d)."""
        return _summed((records.school, self.school), (records.la, self.la_now)) - self.tau_now


def _summed(*parts: tuple[Ints, Floats]) -> Floats:
    """Sum of every pupil's rows of several tables; a code of -1, or an empty table, adds nothing."""
    out = np.zeros((len(parts[0][0]), parts[0][1].shape[1]))
    for codes, values in parts:
        if len(values):
            add_by_code(out, codes, values)
    return out


@dataclass(frozen=True)
class EntryFit:
    """The equation of the label before transfer.

    Attributes
    ----------
    solution : LaplaceSolution
    names : tuple of str
        What each of its terms is: ``feeder``, ``school``, ``la``.
    rows : integer array
        Pupils it was fitted to.
    """

    solution: LaplaceSolution
    names: tuple[str, ...]
    rows: NDArray[np.intp]

    def parameters(self, records: LabelRecords, values: LatentDraw | None = None) -> Parameters:
        """Parameters at the estimates, or of one draw."""
        d, p = records.levels, records.x.shape[1]
        solution = self.solution
        beta = solution.beta if values is None else values.beta
        effects = dict(zip(self.names, solution.modes if values is None else values.effects, strict=True))
        covs = dict(zip(self.names, solution.covariances if values is None else values.covariances, strict=True))
        return Parameters(
            gamma=beta[:p],
            tau=-beta[p:],
            intake=effects["school"][:, 0] if "school" in effects else np.zeros(len(records.schools)),
            feeder=effects.get("feeder", np.zeros((0, d))),
            la_entry=effects.get("la", np.zeros((0, d))),
            intake_variance=float(covs["school"][0, 0]) if "school" in covs else 0.0,
        )


def fit_entry(records: LabelRecords, entry: Ints | None = None, *, intake: bool = True) -> EntryFit:
    """Fit need and the leniency of feeders and authorities to the labels set before transfer.

    ``status >= c iff x'gamma + m_school + e + a_feeder,c + b_authority,c > tau_c``. Feeders and schools are
    crossed; the feeders are eliminated by blocks.

    Parameters
    ----------
    records : LabelRecords
    entry : integer array, shape (n,), optional
        In place of ``records.entry``.
    intake : bool
        Whether schools differ in intake need, apart from what their feeders' leniency explains.

    Returns
    -------
    EntryFit
        Read ``solution.convergence`` before anything else.

    Raises
    ------
    InputError
        No label varies, or predictors are collinear.

    Examples
    --------
    >>> import numpy as np
    >>> import send_va as sv
    >>> roles = {"pupil": "pupil", "school": "school", "feeder": "feeder", "outcome": "outcome", "prior": ["prior"],
    ...          "sen_status": "sen_status", "sen_status_entry": "sen_status_entry"}
    >>> world = sv.simulate(np.random.default_rng(1), schools=20, pupils_per_school=50)
    >>> cohort = sv.Cohort.from_pandas(world.pupils, roles)
    >>> need = sv.fit_identification(cohort, draws=0)
    >>> fitted = fit_entry(need.labels)
    >>> fitted.names, bool(fitted.solution.convergence.converged)
    (('feeder', 'school'), True)
    """
    status = records.entry if entry is None else entry
    rows = np.flatnonzero(usable(status, records.feeder, records.component[records.school], bool(records.feeders)))
    labels = np.minimum(status[rows], records.levels)
    _require_labels(labels, "at entry")
    d = records.levels
    each, shared = np.eye(d)[None], np.ones((1, d, 1))
    terms, names = [], []
    if records.feeders:
        terms.append(Term(records.feeder[rows], len(records.feeders), each))
        names.append("feeder")
    if intake:
        terms.append(Term(records.school[rows], len(records.schools), shared))
        names.append("school")
    if several(records.feeder_la[rows]):
        terms.append(authority_term(records.feeder_la[rows], len(records.feeder_las), each))
        names.append("la")
    shares = np.array([(labels >= c).mean() for c in range(1, d + 1)])
    solution = fit_laplace(
        Ordinal(labels, d),
        records.x[rows],
        terms,
        cutpoints=True,
        start_fixed=np.concatenate([np.zeros(records.x.shape[1]), ndtri(shares)]),
        parameters_cov=covariance_kind(len(rows)),
    )
    return EntryFit(solution, tuple(names), rows)


def _require_labels(labels: Ints, when: str) -> None:
    failure = labels_that_do_not_vary(labels, np.ones(len(labels), dtype=np.intp), when)
    if failure is not None:
        raise InputError(failure)


def several(la: Ints) -> bool:
    """Whether more than one body is known."""
    known = la[la >= 0]
    return len(known) > 0 and int(known.max()) > int(known.min())


def authority_term(la: Ints, n_las: int, design: Floats) -> Term:
    """Term of the authorities; pupils whose authority is unknown (-1) get none of their leniency."""
    if (la >= 0).all():
        return Term(la, n_las, design)
    return Term(np.maximum(la, 0), n_las, (la >= 0)[:, None, None] * design)


@dataclass(frozen=True)
class NowFit:
    """The equation of the label now, given that of the label before."""

    solution: LaplaceSolution
    names: tuple[str, ...]
    rows: NDArray[np.intp]
    likelihood: CurrentLabel

    def complete(self, parameters: Parameters, values: LatentDraw | LaplaceSolution) -> Parameters:
        """Parameters with those of this equation filled in."""
        d = self.likelihood.d
        modes = values.effects if isinstance(values, LatentDraw) else values.modes
        shape = values.shape if isinstance(values, LatentDraw) else values.parameters[-1:]
        effects = dict(zip(self.names, modes, strict=True))
        return replace(
            parameters,
            rho=values.beta[:d],
            tau_now=-values.beta[d:],
            kappa=float(shape[0]),
            school=effects["school"],
            la_now=effects.get("la", np.zeros((0, d))),
        )


def fit_now(records: LabelRecords, fitted: EntryFit, parameters: Parameters, reliability: float = 1.0) -> NowFit | None:
    """Fit the leniency of schools to labels now, given need before transfer; None where hardly a label changes.

    Parameters
    ----------
    records : LabelRecords
    fitted : EntryFit
    parameters : Parameters
        Of the equation of the label before.
    reliability : float
        Share of judged need, net of what is explained, that is need.

    Returns
    -------
    NowFit or None
        None means that the leniency of schools cannot be told from these records, not that it is zero.
    """
    rows, d = fitted.rows, records.levels
    entry, now = np.minimum(records.entry[rows], d), np.minimum(records.now[rows], d)
    if not labels_change(entry, now, d, np.ones(len(rows), dtype=np.intp)):
        return None
    likelihood = now_likelihood(records, rows, parameters, reliability)
    terms = [Term(records.school[rows], len(records.schools), np.eye(d)[None])]
    names = ["school"]
    if several(records.la[rows]):
        terms.append(authority_term(records.la[rows], len(records.las), np.eye(d)[None]))
        names.append("la")
    return NowFit(fit_current(likelihood, entry, terms), tuple(names), rows, likelihood)


def now_likelihood(
    records: LabelRecords, rows: NDArray[np.intp], parameters: Parameters, reliability: float = 1.0
) -> CurrentLabel:
    """Likelihood of the label now at given parameters of the label before."""
    d = records.levels
    base = parameters.base(records)
    cuts = parameters.cuts(records, base)[rows]
    low, high = intervals(cuts, records.entry[rows])
    return CurrentLabel(
        status=np.minimum(records.now[rows], d),
        base=base[rows],
        low=low,
        high=np.maximum(high, low + 1e-3),
        d=d,
        reliability=reliability,
    )
