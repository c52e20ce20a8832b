"""The identification lottery: how much of who is labelled lies with pupils, feeders, schools and authorities."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import pandas as pd
from scipy.special import ndtri

from send_va.identification.current import covariance_kind
from send_va.identification.kernels import Floats
from send_va.identification.labels import FEWEST_LABELS, LabelRecords
from send_va.identification.model import authority_term, several
from send_va.identification.variance_shares import shares_with_intervals
from send_va.multilevel.laplace import LaplaceSolution, fit_laplace
from send_va.multilevel.latent_system import Term
from send_va.multilevel.likelihoods import Binomial
from send_va.multilevel.threads import one_blas_thread

LEVELS = ("pupil", "feeder", "school", "la")
Label = Literal["entry", "current"]
Model = Literal["null", "full"]


@one_blas_thread
def identification_lottery(labels: LabelRecords, coverage: float = 0.95) -> pd.DataFrame:
    """Variance shares of any SEN label on the latent scale, with and without what is known of pupils.

    Binary probit models with crossed effects of feeder, school and authority. In the full model (prior attainment and
    background held constant) the shares are of what is left. Shares of feeder, school and authority are upper bounds on
    leniency: unobserved need of their populations is in them.

    Parameters
    ----------
    labels : LabelRecords
    coverage : float
        Of the intervals.

    Returns
    -------
    DataFrame
        label (``entry``, ``current``), level (``pupil``, ``feeder``, ``school``, ``la``), model (``null``, ``full``),
        variance (of the latent scale; that of pupils is 1), share, lower, upper. Levels that the records lack are left
        out, and labels that fewer than ten pupils have; `upper` is missing where the records do not bound a variance
        near zero.

    References
    ----------
    Hutchinson, J. (2021). Identifying pupils with special educational needs and disabilities. Education Policy
    Institute.

    Examples
    --------
    A synthetic cohort without authorities:

    >>> import numpy as np
    >>> import send_va as sv
    >>> roles = {"pupil": "pupil", "school": "school", "feeder": "feeder", "outcome": "outcome", "prior": ["prior"],
    ...          "sen_status": "sen_status", "sen_status_entry": "sen_status_entry"}
    >>> world = sv.simulate(np.random.default_rng(1), schools=20, pupils_per_school=50)
    >>> cohort = sv.Cohort.from_pandas(world.pupils, roles)
    >>> need = sv.fit_identification(cohort, draws=0)
    >>> table = identification_lottery(need.labels).query("label == 'current' and model == 'null'")
    >>> table.set_index("level")["share"].round(2).to_dict()
    {'pupil': 0.91, 'feeder': 0.02, 'school': 0.06}
    """
    cases: list[tuple[Label, Model]] = [
        (label, model) for label in ("entry", "current") if _varies(labels, label) for model in ("null", "full")
    ]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as cores:
        parts = list(cores.map(lambda case: _shares(labels, case[0], case[1], coverage), cases))
    return pd.concat(parts, ignore_index=True)


def _shares(labels: LabelRecords, label: Label, model: Model, coverage: float) -> pd.DataFrame:
    names, solution = _fit(labels, label, model)
    variances = np.array([cov[0, 0] for cov in solution.covariances])
    # parameters are log SDs: a variance has derivative 2 * variance
    slope = np.diag(2.0 * variances)
    share, lower, upper = shares_with_intervals(variances, slope @ solution.parameters_cov @ slope, 1.0, coverage)
    # G groups tell at most 2G of a log SD: what claims more is a flat direction, whose error was not estimated
    groups = np.array([len(modes) for modes in solution.modes])
    flat = np.append(np.diag(solution.parameters_cov) < 0.5 / groups, False)
    lower, upper = np.where(flat, 0.0, lower), np.where(flat, np.nan, upper)
    table = pd.DataFrame(
        {"level": [*names, "pupil"], "variance": [*variances, 1.0], "share": share, "lower": lower, "upper": upper}
    )
    table.insert(0, "label", label)
    table.insert(2, "model", model)
    return (
        table.set_index("level")
        .loc[[k for k in LEVELS if k in (*names, "pupil")]]
        .reset_index()[["label", "level", "model", "variance", "share", "lower", "upper"]]
    )


def _varies(labels: LabelRecords, label: Label) -> bool:
    status = labels.entry if label == "entry" else labels.now
    return bool(np.bincount(np.clip(status, -1, 1) + 1, minlength=3)[1:].min() >= FEWEST_LABELS)


def _fit(labels: LabelRecords, label: Label, model: Model) -> tuple[tuple[str, ...], LaplaceSolution]:
    status = labels.entry if label == "entry" else labels.now
    known = status >= 0
    if labels.feeders:
        known &= labels.feeder >= 0
    rows = np.flatnonzero(known)
    one = np.ones((1, 1, 1))
    terms, names = [Term(labels.school[rows], len(labels.schools), one)], ["school"]
    if labels.feeders:
        terms.insert(0, Term(labels.feeder[rows], len(labels.feeders), one))
        names.insert(0, "feeder")
    la, las = (labels.feeder_la, labels.feeder_las) if label == "entry" else (labels.la, labels.las)
    if several(la[rows]):
        terms.append(authority_term(la[rows], len(las), one))
        names.append("la")
    success = (status[rows] > 0).astype(np.float64)
    x: Floats = labels.x[rows] if model == "full" else np.zeros((len(rows), 0))
    solution = fit_laplace(
        Binomial(success, np.ones(len(rows)), "probit"),
        x,
        terms,
        cutpoints=True,
        start_fixed=np.concatenate([np.zeros(x.shape[1]), [ndtri(success.mean())]]),
        parameters_cov=covariance_kind(len(rows)),
    )
    return tuple(names), solution
