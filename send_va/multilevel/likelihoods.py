"""Binomial and ordinal responses: log-likelihoods of linear predictors, with derivatives to third order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, logit, ndtri

from send_va.errors import InputError
from send_va.multilevel import likelihood_kernels as kernels

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

Link = Literal["logit", "probit"]
LINKS: tuple[Link, ...] = ("logit", "probit")
# Variance of the residual of the latent scale: of the standard logistic and the standard normal distribution.
RESIDUAL_VARIANCE: dict[Link, float] = {"logit": float(np.pi**2 / 3.0), "probit": 1.0}


def require_link(link: str) -> None:
    """Refuse a link that is not estimated.

    Raises
    ------
    InputError
        The link is not one of `LINKS`.
    """
    if link not in LINKS:
        raise InputError(f"there is no link {link!r}", f"Use one of {', '.join(LINKS)}.")


@dataclass(frozen=True)
class Binomial:
    """Successes out of trials, ``P(success) = F(eta)``.

    Attributes
    ----------
    successes, trials : array, shape (n,)
        Of every row; trials of one make a yes/no response.
    link : {"logit", "probit"}
        F is the logistic or the normal distribution function.
    constant : float
        Added to the log-likelihood: the log binomial coefficients of the records, see `log_choose`.

    Examples
    --------
    >>> import numpy as np
    >>> one = Binomial(np.array([3.0]), np.array([4.0]), "logit")
    >>> round(one.value(np.array([[0.0]])), 4)
    -2.7726
    """

    successes: FloatArray
    trials: FloatArray
    link: Link = "logit"
    constant: float = 0.0
    d: ClassVar[int] = 1

    def row_values(self, eta: FloatArray) -> FloatArray:
        """Log-likelihood of every row, shape (n,), without the constant; `eta` has shape (n, 1)."""
        return kernels.binomial_values(eta, self.successes, self.trials, self.link == "logit")

    def value(self, eta: FloatArray) -> float:
        """Log-likelihood, constant included."""
        return float(self.row_values(eta).sum()) + self.constant

    def derivatives(self, eta: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        """Log-likelihood, gradient (n, 1) and curvature (n, 1, 1), which is minus the second derivative."""
        logit = self.link == "logit"
        total, gradient, curvature = kernels.binomial_derivatives(eta, self.successes, self.trials, logit)
        return total + self.constant, gradient, curvature

    def third(self, eta: FloatArray) -> FloatArray:
        """Derivative of the curvature by the predictor, shape (n, 1, 1, 1)."""
        return kernels.binomial_third(eta, self.successes, self.trials, self.link == "logit")

    def of_rows(self, rows: IntArray) -> Binomial:
        """That of some of the rows, without the constant."""
        return Binomial(self.successes[rows], self.trials[rows], self.link)


def log_choose(successes: FloatArray, trials: FloatArray) -> float:
    """Sum of log binomial coefficients over records; zero for yes/no responses.

    Examples
    --------
    >>> import numpy as np
    >>> round(float(np.exp(log_choose(np.array([2.0]), np.array([4.0])))), 6)
    6.0
    """
    return float((gammaln(trials + 1.0) - gammaln(successes + 1.0) - gammaln(trials - successes + 1.0)).sum())


@dataclass(frozen=True)
class Ordinal:
    """Ordered categories 0 ... d, ``P(status >= c) = F(eta_c)`` for c = 1 ... d.

    Attributes
    ----------
    status : integer array, shape (n,)
        Category of every row.
    d : int
        Linear predictors of a row: one less than there are categories. They fall with c wherever all categories are
        possible; where they cross, the log-likelihood goes on as a steep parabola, so that a search returns.
    link : {"logit", "probit"}
    weights : array, shape (n,), optional
        How many identical records each row stands for.

    Examples
    --------
    >>> import numpy as np
    >>> three = Ordinal(np.array([0, 1, 2]), 2, "probit")
    >>> eta = np.tile([0.0, -1.0], (3, 1))
    >>> np.exp(three.row_values(eta)).round(4)
    array([0.5   , 0.3413, 0.1587])
    """

    status: IntArray
    d: int
    link: Link = "probit"
    weights: FloatArray = field(default_factory=lambda: np.ones(0))

    def __post_init__(self) -> None:
        if len(self.weights) == 0:
            object.__setattr__(self, "weights", np.ones(len(self.status)))

    def row_values(self, eta: FloatArray) -> FloatArray:
        """Weighted log-likelihood of every row, shape (n,); `eta` has shape (n, d)."""
        return kernels.ordinal_values(eta, self.status, self.weights, self.link == "logit")

    def value(self, eta: FloatArray) -> float:
        """Log-likelihood."""
        return float(self.row_values(eta).sum())

    def derivatives(self, eta: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        """Log-likelihood, gradient (n, d) and curvature (n, d, d), which is minus the second derivative."""
        return kernels.ordinal_derivatives(eta, self.status, self.weights, self.link == "logit")

    def third(self, eta: FloatArray) -> FloatArray:
        """Derivative of the curvature, shape (n, d, d, d); entry [i, a, b, c] is of curvature [a, b] by predictor c."""
        return kernels.ordinal_third(eta, self.status, self.weights, self.link == "logit")

    def of_rows(self, rows: IntArray) -> Ordinal:
        """That of some of the rows."""
        return replace(self, status=self.status[rows], weights=self.weights[rows])


def marginal_predictors(shares: Sequence[float] | FloatArray, link: Link) -> FloatArray:
    """Predictors ``F^-1(P(status >= c))`` that give these shares of categories 0 ... d: where a search starts.

    Examples
    --------
    >>> marginal_predictors([0.5, 0.5], "logit")
    array([0.])
    """
    above = 1.0 - np.cumsum(np.asarray(shares, dtype=np.float64))[:-1]
    return np.asarray((logit if link == "logit" else ndtri)(above), dtype=np.float64)
