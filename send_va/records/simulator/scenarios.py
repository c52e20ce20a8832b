"""The worlds the simulator can make: one frozen set of parameters each, found by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from send_va.records.simulator.named import find_named


@dataclass(frozen=True)
class Scenario:
    """Everything that makes one synthetic world differ from another.

    Effects on the outcome are in *pupil SDs*: the SD of the outcome over pupils, of which `outcome_sd` is the value
    used to make points. Leniency and need are on the scale of latent need, whose unexplained part within a school has
    an SD of 1 (probit scale).

    Attributes
    ----------
    name, description : str
        How the scenario is asked for, and what it is about.
    u_sd, s_sd : float
        SD over schools of the effect on pupils without need and of the extra for pupils with need (pupil SDs). Values
        of the package's statistical design: .22 is close to the spread of Progress 8 over schools (.47 of 1.28), .20
        to the SEN slope SD of .17 that lme4 finds in the `testscores` data of R package eivtools.
    slope_sd : float
        SD over schools of the slope on prior attainment (pupil SDs per SD of prior attainment).
    delta : float
        Effect of one unit of unexplained need on the outcome (pupil SDs). -.25 gives the published gap in Progress 8
        between pupils with SEN support and others; Crawford & Vignoles (2010) find about -.3 for labelled pupils.
    mu : float
        Effect of need above the national threshold, beyond `delta` (pupil SDs). Tuned so that pupils with EHC plans in
        mainstream schools progress as published.
    leniency_school_sd, leniency_feeder_sd, leniency_la_sd : float
        SDs of labelling leniency (need scale): by how much a threshold lies below the national one. Values of the
        statistical design; they give the published between-school SD of SEN support, and schools that differ by more
        than authorities, as EPI found (Hutchinson 2021).
    leniency_ehcp_ratio : float
        SD of leniency of schools and feeders at the EHCP threshold, as a ratio to that at the support threshold;
        below 1 since authorities decide on plans.
    leniency_correlation : float
        Correlation of the leniency at the support threshold with that at the EHCP threshold of the same body, and of
        an authority's policy before transfer with that after it.
    leniency_s_correlation, leniency_u_correlation : float
        Correlation over schools of leniency with `s` and with `u`.
    intake_need_sd : float
        SD over schools of unexplained need of the intake, the "SEND magnet" effect (need scale).
    feeder_need_sd : float
        SD over feeders of unexplained need, independent between feeders (need scale).
    area_need_sd : float
        SD of unexplained need that varies smoothly over the map (need scale).
    need_skew_shape : float or None
        Shape of the gamma distribution of unexplained need (standardised to mean 0, SD 1); None is normal.
    kappa, rho_support, rho_ehcp : float
        How the label now follows need, and a support label or an EHCP before transfer (SDs of the noise in that label).
        Tuned to the between-school SD of SEN support.
    need_persistence : float
        Correlation of a pupil's unexplained need at transfer with that at the end of the key stage.
    identification_noise_sd : float
        SD of error in judging need, in both labels (need scale). Chan, Gentzkow & Yu (2022) put 39 % of the variation
        in a diagnosis down to skill.
    label_effect : float
        What a label at the end of the key stage adds to the outcome (pupil SDs). It counts into `u` and `theta`.
    residual_sd, residual_sd_need : float
        Residual SD of the outcome for pupils without and with need (pupil SDs).
    floor_share : float
        Share of pupils with an EHCP whose outcome is exactly 0. Schools Week, 23 November 2019: about a third
        of all such pupils in England, special schools included.
    entry_missing_share : float
        Share of pupils with no SEN status before transfer.
    bounded : bool
        Outcomes beyond the 0 to 90 points of Attainment 8 are moved to the bound, as points are in life (about 1 % of
        pupils). False leaves them: the world in which a Gaussian model is exactly right.
    pupils_per_school, pupils_per_school_sd : float
        Mean and SD over schools of the number of pupils. 174.5 is 593,344 pupils in 3,400 schools; the SD is that of
        DfE's KS4 tables (62.9 in 2018/19, 62.5 in 2023/24).
    entry_sen_share, entry_ehcp_share : float
        Shares of pupils with any label, and with an EHCP, before transfer. DfE's key stage 2 attainment by SEN 2018/19
        has 14.7 % with SEN support and 3.4 % with EHCP, special schools included; 48 % of pupils with EHCP are in
        mainstream schools at the end of key stage 4 (2017/18), so the share that joins one lies between 1.6 and 3.4 %.
    sen_share, ehcp_share : float
        The same at the end of key stage 4; `send_va.records.simulator.calibration.PUBLISHED_TARGETS` has the sources.
    outcome_mean, outcome_sd : float
        Mean and SD of the outcome in Attainment 8 points, tuned to DfE's means by SEN status in mainstream schools.

    References
    ----------
    Hutchinson, J. (2021). Identifying pupils with special educational needs and disabilities. Education Policy
    Institute.
    Crawford, C. & Vignoles, A. (2010). An analysis of the educational progress of children with special educational
    needs. DoQSS Working Paper 10-19, Institute of Education.
    Chan, D., Gentzkow, M. & Yu, C. (2022). Selection with variation in diagnostic skill. Quarterly Journal of Economics
    137(2). https://doi.org/10.1093/qje/qjab048

    Examples
    --------
    >>> SCENARIOS["magnets"].intake_need_sd
    0.35
    """

    name: str
    description: str
    u_sd: float = 0.22
    s_sd: float = 0.20
    slope_sd: float = 0.08
    delta: float = -0.25
    mu: float = 0.08
    leniency_school_sd: float = 0.5
    leniency_feeder_sd: float = 0.5
    leniency_la_sd: float = 0.2
    leniency_ehcp_ratio: float = 0.5
    leniency_correlation: float = 0.5
    leniency_s_correlation: float = 0.0
    leniency_u_correlation: float = 0.0
    intake_need_sd: float = 0.0
    feeder_need_sd: float = 0.0
    area_need_sd: float = 0.0
    need_skew_shape: float | None = None
    kappa: float = 0.6
    rho_support: float = 1.7
    rho_ehcp: float = 2.8
    need_persistence: float = 1.0
    identification_noise_sd: float = 0.0
    label_effect: float = 0.0
    residual_sd: float = 0.625
    residual_sd_need: float = 0.70
    floor_share: float = 0.0
    entry_missing_share: float = 0.0
    bounded: bool = True
    pupils_per_school: float = 174.5
    pupils_per_school_sd: float = 62.5
    entry_sen_share: float = 0.169
    entry_ehcp_share: float = 0.022
    sen_share: float = 0.154
    ehcp_share: float = 0.0266
    outcome_mean: float = 46.8
    outcome_sd: float = 16.6


# Section 8 of the statistical design reports the bias per SD of intake need; they imply an SD of .33 to .35.
_MAGNETS = 0.35

_INDEPENDENT = Scenario("independent", "leniency of schools, feeders and authorities, unrelated to anything else")

_VARIANTS: tuple[Scenario, ...] = (
    _INDEPENDENT,
    replace(
        _INDEPENDENT,
        name="magnets",
        description="some schools attract more need than their pupils' background explains; no leniency",
        leniency_school_sd=0.0,
        leniency_feeder_sd=0.0,
        leniency_la_sd=0.0,
        intake_need_sd=_MAGNETS,
    ),
    replace(
        _INDEPENDENT,
        name="lenient_better",
        description="magnets and leniency, and lenient schools do more for pupils with need",
        intake_need_sd=_MAGNETS,
        leniency_s_correlation=0.3,
    ),
    replace(_INDEPENDENT, name="delta_zero", description="unexplained need does not touch the outcome", delta=0.0),
    replace(
        _INDEPENDENT, name="skewed_need", description="unexplained need has a long right tail", need_skew_shape=2.0
    ),
    replace(
        _INDEPENDENT,
        name="heavy_skew",
        description="unexplained need has a very long right tail",
        need_skew_shape=0.5,
    ),
    replace(
        _INDEPENDENT,
        name="skewed_magnets",
        description="skewed need, magnets, and lenient schools do more for pupils with need",
        need_skew_shape=2.0,
        intake_need_sd=_MAGNETS,
        leniency_s_correlation=0.3,
    ),
    replace(
        _INDEPENDENT,
        name="feeder_need",
        description="feeders differ in unexplained need, independently of their neighbours",
        feeder_need_sd=0.3,
    ),
    replace(
        _INDEPENDENT,
        name="clustered_feeder_need",
        description="neighbourhoods of several schools differ in unexplained need",
        area_need_sd=0.3,
    ),
    replace(
        _INDEPENDENT,
        name="evolving_need",
        description="need at the end correlates .7 with need at transfer; labels now and the outcome follow need now",
        need_persistence=0.7,
    ),
    replace(
        _INDEPENDENT,
        name="helpful_label",
        description="a label at the end of the key stage adds .1 SD to the outcome",
        label_effect=0.1,
    ),
    replace(
        _INDEPENDENT,
        name="noisy_labels",
        description="those who label misjudge need with an SD of .6",
        identification_noise_sd=0.6,
    ),
    replace(
        _INDEPENDENT,
        name="small_schools",
        description="60 pupils a school in place of 174.5",
        pupils_per_school=60.0,
        pupils_per_school_sd=25.0,
    ),
    replace(
        _INDEPENDENT,
        name="floor",
        description="a third of pupils with an EHCP have an outcome of exactly 0",
        floor_share=1 / 3,
    ),
    replace(
        _INDEPENDENT,
        name="leniency_with_u",
        description="lenient schools do better by pupils without need",
        leniency_u_correlation=0.3,
    ),
    replace(
        _INDEPENDENT,
        name="missing_entry",
        description="one pupil in ten has no SEN status before transfer",
        entry_missing_share=0.10,
    ),
    replace(
        _INDEPENDENT,
        name="unequal_variance",
        description="residual SDs of 1.15 with need and .72 without, so that more outcomes meet the bounds",
        residual_sd=0.72,
        residual_sd_need=1.15,
    ),
)

SCENARIOS: Mapping[str, Scenario] = MappingProxyType({variant.name: variant for variant in _VARIANTS})


def find_scenario(name: str) -> Scenario:
    """Look a scenario up by its name.

    Parameters
    ----------
    name : str
        A key of `SCENARIOS`.

    Returns
    -------
    Scenario
        Its parameters; compare ``.description`` with what a study is meant to show.

    Raises
    ------
    InputError
        If there is no such scenario; the message names the nearest one and lists all.

    Examples
    --------
    >>> find_scenario("delta_zero").delta
    0.0
    """
    return find_named(name, SCENARIOS, "scenario", "scenarios")
