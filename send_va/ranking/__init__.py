"""Ranks under uncertainty: SchoolEffects in, Ranking out; and the same for any table of estimates with their errors."""

from send_va.ranking.comparison import Comparison, compare, not_separable
from send_va.ranking.confidence_sets import confidence_sets, tau_best, tau_worst
from send_va.ranking.deconvolution import Prior, deconvolve
from send_va.ranking.flags import comparison_intervals, false_discovery_flags, flag_units
from send_va.ranking.funnel import FunnelLimits, funnel_limits
from send_va.ranking.grades import Grades, grades
from send_va.ranking.operating_characteristic import operating_characteristic, operating_characteristics
from send_va.ranking.pairwise import pairwise_probabilities
from send_va.ranking.posterior_ranks import Ranking, rank
from send_va.ranking.publication_rule import PublicationDecision, PublicationRule
from send_va.ranking.published_groups import published_groups
from send_va.ranking.rank_probabilities import RankProbabilities, rank_probabilities
from send_va.ranking.resolution import Resolution, resolution
from send_va.ranking.robust_intervals import cva, robust_intervals
from send_va.ranking.shrinkage import Shrinkage, shrink
from send_va.ranking.top_intervals import top_intervals

__all__ = [
    "Comparison",
    "FunnelLimits",
    "Grades",
    "Prior",
    "PublicationDecision",
    "PublicationRule",
    "RankProbabilities",
    "Ranking",
    "Resolution",
    "Shrinkage",
    "compare",
    "comparison_intervals",
    "confidence_sets",
    "cva",
    "deconvolve",
    "false_discovery_flags",
    "flag_units",
    "funnel_limits",
    "grades",
    "not_separable",
    "operating_characteristic",
    "operating_characteristics",
    "pairwise_probabilities",
    "published_groups",
    "rank",
    "rank_probabilities",
    "resolution",
    "robust_intervals",
    "shrink",
    "tau_best",
    "tau_worst",
    "top_intervals",
]
