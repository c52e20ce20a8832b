"""Ranks under uncertainty: SchoolEffects in, Ranking out."""

from send_va.ranking.posterior_ranks import Ranking, rank
from send_va.ranking.publication_rule import PublicationRule

__all__ = ["PublicationRule", "Ranking", "rank"]
