"""What a study file says of the Bayesian engine."""

from __future__ import annotations

from dataclasses import dataclass

from send_va.errors import Failure

SAMPLERS = ("nutpie", "pymc")
SCHOOLS = ("normal", "student_t")


@dataclass(frozen=True)
class BayesSection:
    """``[bayes]``: priors, sampler and limits of ``--engine bayes``.

    Attributes
    ----------
    sampler : str
        ``nutpie``, or ``pymc`` where that cannot be installed (much slower).
    chains, tune, draws : int
        Chains, and draws of each before and after adaptation. More are drawn where ``value_added.draws`` asks for more.
    target_accept : float
        Raise it where draws diverge.
    la_level : bool
        Let authorities differ in level and gap. Without effect where schools are ``student_t``.
    schools : str
        How schools are distributed about their mean: ``normal``, or ``student_t``, which lets outlying schools be.
    prior_coefficient, prior_intercept, prior_school_sd, prior_la_sd, prior_residual_sd : float
        Scales of the priors, in pupil SDs of the outcome.
    prior_correlation : float
        Shape of the LKJ prior of correlations between a school's effects; 1 is uniform.
    rhat, ess, mcse, divergences : float
        Beyond which nothing is published: largest R-hat, fewest effective draws, largest Monte-Carlo error as a share
        of the posterior SD, largest share of draws that diverge.
    """

    sampler: str = "nutpie"
    chains: int = 4
    tune: int = 300
    draws: int = 1000
    target_accept: float = 0.8
    la_level: bool = True
    schools: str = "normal"
    prior_coefficient: float = 2.5
    prior_intercept: float = 2.5
    prior_school_sd: float = 0.5
    prior_la_sd: float = 0.25
    prior_correlation: float = 2.0
    prior_residual_sd: float = 1.0
    rhat: float = 1.01
    ess: float = 400.0
    mcse: float = 0.05
    divergences: float = 0.001

    def failures(self) -> list[Failure]:
        """List values out of range."""
        checks: list[tuple[bool, str, str]] = [
            (self.sampler in SAMPLERS, "sampler", f"must be one of {', '.join(SAMPLERS)}"),
            (self.schools in SCHOOLS, "schools", f"must be one of {', '.join(SCHOOLS)}"),
            (self.chains >= 2, "chains", "must be 2 or more, so that chains can be compared"),
            (self.tune >= 50, "tune", "must be 50 or more"),
            (self.draws >= 50, "draws", "must be 50 or more"),
            (0.5 <= self.target_accept < 1.0, "target_accept", "must be at least 0.5 and below 1"),
            (self.rhat > 1.0, "rhat", "must be above 1"),
            (self.ess >= 1, "ess", "must be 1 or more"),
            (self.mcse > 0, "mcse", "must be above 0"),
            (0 <= self.divergences <= 1, "divergences", "must lie between 0 and 1"),
        ]
        checks += [
            (getattr(self, name) > 0, name, "must be above 0")
            for name in self.__dataclass_fields__
            if name.startswith("prior_")
        ]
        return [
            Failure(rule, column=f"bayes.{name}", values=(repr(getattr(self, name)),))
            for good, name, rule in checks
            if not good
        ]
