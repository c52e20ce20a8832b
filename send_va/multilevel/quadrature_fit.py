"""Estimates by adaptive quadrature, in the form the named result is made from."""

from __future__ import annotations

import numpy as np

from send_va.multilevel.glmm_result import Estimates, GlmmConvergence
from send_va.multilevel.quadrature import QuadratureSolution
from send_va.multilevel.random_terms import RandomTerm


def quadrature_estimates(solution: QuadratureSolution, term: RandomTerm) -> Estimates:
    """Estimates by adaptive quadrature."""
    zero = solution.sigma < 1e-3
    return Estimates(
        beta=solution.beta,
        beta_cov=solution.cov[:-1, :-1],
        covariances=[np.array([[solution.sigma**2]])],
        modes=[solution.modes[:, None]],
        mode_covs=[solution.mode_sds[:, None, None] ** 2],
        parameters=np.array([solution.sigma]),
        parameters_cov=solution.cov[-1:, -1:],
        covariances_at=lambda parameters: [np.outer(parameters, parameters)],
        llf=solution.llf,
        convergence=GlmmConvergence(
            solution.converged,
            solution.gradient,
            solution.evaluations,
            (term.name,) if zero else (),
            solution.message,
        ),
    )
