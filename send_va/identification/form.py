"""Is the form of the need model right: labels predicted by it and by gradient boosting, out of sample."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
import statsmodels.api as sm
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import GroupKFold

from send_va.identification.kernels import Floats, Ints
from send_va.identification.labels import LabelRecords
from send_va.multilevel.threads import one_thread

_FOLDS = 5
_MOST_PUPILS = 120_000  # a sample of whole schools beyond this: the standard errors below are then small enough
_BINS = 10
_MATERIAL = 0.005  # relative difference in log loss that matters


class NeedFormWarning(UserWarning):
    """A flexible learner predicts labels better than the need model's form."""


@dataclass(frozen=True)
class NeedForm:
    """Predictions of the need model's form and of gradient boosting, each for schools it was not fitted to.

    Attributes
    ----------
    calibration : DataFrame
        model (``parametric``, ``flexible``), bin, n, predicted, observed: mean predicted and observed share labelled by
        tenths of predicted. Points on the diagonal are calibrated.
    log_loss : DataFrame
        model, log_loss (lower is better); the row ``difference`` (parametric minus flexible) has its standard error,
        clustered by school.
    loses : bool
        The flexible learner is better by more than two standard errors and .5 %.
    """

    calibration: pd.DataFrame
    log_loss: pd.DataFrame
    loses: bool

    def __str__(self) -> str:
        loss = self.log_loss.set_index("model")["log_loss"]
        verdict = "loses to" if self.loses else "is as good as"
        return (
            f"the form of the need model {verdict} gradient boosting: log loss {loss['parametric']:.4f} against "
            f"{loss['flexible']:.4f} (difference {loss['difference']:+.4f}, SE {self.log_loss['se'].iloc[-1]:.4f})"
        )


@one_thread
def check_form(labels: LabelRecords, rng: np.random.Generator) -> NeedForm:
    """Compare the need model's form with gradient boosting on labels of schools left out.

    Both predict any label before transfer (now, where none is recorded) from the predictors of need alone.

    Parameters
    ----------
    labels : LabelRecords
    rng : numpy.random.Generator
        Chooses schools where there are more than 120,000 pupils, and seeds the learner.

    Returns
    -------
    NeedForm

    Warns
    -----
    NeedFormWarning
        The parametric form loses: add knots or interactions to the predictors.

    References
    ----------
    Chernozhukov et al. (2018), doi:10.1111/ectj.12097 (cross-fitting).

    Examples
    --------
    >>> import numpy as np
    >>> import send_va as sv
    >>> roles = {"pupil": "pupil", "school": "school", "feeder": "feeder", "outcome": "outcome", "prior": ["prior"],
    ...          "sen_status": "sen_status", "sen_status_entry": "sen_status_entry"}
    >>> world = sv.simulate(np.random.default_rng(1), schools=20, pupils_per_school=50)
    >>> cohort = sv.Cohort.from_pandas(world.pupils, roles)
    >>> need = sv.fit_identification(cohort, draws=0)
    >>> check_form(need.labels, np.random.default_rng(1)).loses
    False
    """
    status = labels.entry if labels.has_entry else labels.now
    rows = _sample(labels, np.flatnonzero(status >= 0), rng)
    y, x, school = (status[rows] > 0).astype(np.float64), labels.x[rows], labels.school[rows]
    parametric, flexible = np.empty(len(y)), np.empty(len(y))
    seed = int(rng.integers(2**31))
    for train, test in GroupKFold(n_splits=min(_FOLDS, len(np.unique(school)))).split(x, y, school):
        parametric[test] = _probit(x[train], y[train], x[test])
        learner = HistGradientBoostingClassifier(
            max_iter=100, learning_rate=0.1, max_leaf_nodes=16, min_samples_leaf=100, random_state=seed
        )
        flexible[test] = learner.fit(x[train], y[train]).predict_proba(x[test])[:, 1]
    return _compared(y, {"parametric": parametric, "flexible": flexible}, school)


def _sample(labels: LabelRecords, rows: Ints, rng: np.random.Generator) -> Ints:
    if len(rows) <= _MOST_PUPILS:
        return rows
    order = rng.permutation(len(labels.schools))
    n = np.bincount(labels.school[rows], minlength=len(order))[order]
    chosen = np.zeros(len(order), dtype=bool)
    chosen[order[np.cumsum(n) <= _MOST_PUPILS]] = True
    return rows[chosen[labels.school[rows]]]


def _probit(x: Floats, y: Floats, new: Floats) -> Floats:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # separation of a rare category: predictions are fine
        family = sm.families.Binomial(link=sm.families.links.Probit())
        fit = sm.GLM(y, sm.add_constant(x, has_constant="add"), family=family).fit(maxiter=30)
    return np.asarray(fit.predict(sm.add_constant(new, has_constant="add")))


def _compared(y: Floats, predicted: dict[str, Floats], school: Ints) -> NeedForm:
    losses: dict[str, Floats] = {}
    curves, rows = [], []
    for model, p in predicted.items():
        kept = np.clip(p, 1e-9, 1 - 1e-9)
        losses[model] = -(y * np.log(kept) + (1 - y) * np.log(1 - kept))
        rows.append({"model": model, "log_loss": float(losses[model].mean()), "se": float("nan")})
        bins = pd.qcut(p, _BINS, labels=False, duplicates="drop")
        curve = pd.DataFrame({"bin": bins, "predicted": p, "observed": y}).groupby("bin")
        curves.append(curve.mean().assign(n=curve.size(), model=model).reset_index())
    gap = losses["parametric"] - losses["flexible"]
    by_school = np.bincount(school, weights=gap - gap.mean())
    se = float(np.sqrt((by_school**2).sum()) / len(y))
    rows.append({"model": "difference", "log_loss": float(gap.mean()), "se": se})
    loses = bool(gap.mean() > 2 * se and gap.mean() > _MATERIAL * losses["flexible"].mean())
    form = NeedForm(
        pd.concat(curves, ignore_index=True)[["model", "bin", "n", "predicted", "observed"]], pd.DataFrame(rows), loses
    )
    if loses:
        warnings.warn(f"{form}; add knots or terms to the predictors of need", NeedFormWarning, stacklevel=3)
    return form
