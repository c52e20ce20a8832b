"""What a study file says of rankings: how places and grades are worked out, and who gets one."""

from __future__ import annotations

from dataclasses import dataclass

from send_va.errors import Failure

MOST_SET_DRAWS = 100_000
GRADE_PRIORS = ("spline", "mixture")


@dataclass(frozen=True)
class RankingSection:
    """``[ranking]``: rank sets and grades.

    Attributes
    ----------
    set_draws : int
        Draws from which critical values of rank sets are taken.
    loss_ratio : float or None
        What it is worth to tell a pair of schools apart over what it costs to tell it apart wrongly: lambda of Kline,
        Rose & Walters. At .25 two schools are set apart where the odds are four to one. .25 unless either is given.
    discordance_rate : float or None
        In place of `loss_ratio`: the expected share of all pairs in the wrong order that grades keep below.
    grade_prior : str
        Distribution of effects over schools behind grades: ``spline`` or ``mixture``.
    certain : float
        Probability from which a school is said to belong to one quintile.
    """

    set_draws: int = 10_000
    loss_ratio: float | None = None
    discordance_rate: float | None = None
    grade_prior: str = "spline"
    certain: float = 0.8

    def failures(self) -> list[Failure]:
        """List values out of range."""
        checks = [
            (100 <= self.set_draws <= MOST_SET_DRAWS, "set_draws", f"must lie between 100 and {MOST_SET_DRAWS}"),
            (self.loss_ratio is None or 0.0 < self.loss_ratio <= 1.0, "loss_ratio", "must be above 0 and at most 1"),
            (
                self.loss_ratio is None or self.discordance_rate is None,
                "discordance_rate",
                "is given beside loss_ratio: give one of them",
            ),
            (
                self.discordance_rate is None or 0.0 < self.discordance_rate < 0.5,
                "discordance_rate",
                "must be above 0 and below 0.5",
            ),
            (self.grade_prior in GRADE_PRIORS, "grade_prior", f"must be one of {', '.join(GRADE_PRIORS)}"),
            (0.2 < self.certain < 1.0, "certain", "must be above 0.2 and below 1"),
        ]
        return [
            Failure(rule, column=f"ranking.{name}", values=(repr(getattr(self, name)),))
            for good, name, rule in checks
            if not good
        ]


@dataclass(frozen=True)
class PublicationSection:
    """``[publication]``: below which a school gets no position.

    Attributes
    ----------
    minimum_need : int
        Fewest pupils with need. The default of 10 is the usual threshold for outputs of secure environments.
    minimum_reliability : float
        Lowest reliability of theta; 0 asks for none.
    maximum_rank_width : float
        Widest simultaneous rank set, as a share of places; 1 asks for nothing.
    maximum_disagreement : float or None
        Pupil SDs by which another estimator may differ from the one that is ranked; none by default.
    """

    minimum_need: int = 10
    minimum_reliability: float = 0.0
    maximum_rank_width: float = 1.0
    maximum_disagreement: float | None = None

    def failures(self) -> list[Failure]:
        """List values out of range."""
        checks = [
            (self.minimum_need >= 1, "minimum_need", "must be 1 or more"),
            (0.0 <= self.minimum_reliability <= 1.0, "minimum_reliability", "must be between 0 and 1"),
            (0.0 < self.maximum_rank_width <= 1.0, "maximum_rank_width", "must be above 0 and at most 1"),
            (
                self.maximum_disagreement is None or self.maximum_disagreement > 0.0,
                "maximum_disagreement",
                "must be above 0",
            ),
        ]
        return [
            Failure(rule, column=f"publication.{name}", values=(repr(getattr(self, name)),))
            for good, name, rule in checks
            if not good
        ]
