"""Need of single pupils: closed forms of the statistical design and simulation of the model as it reads."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from send_va.identification.labels import LabelRecords
from send_va.identification.model import Parameters
from send_va.identification.scores import Assumptions, background_need, both_need, entry_need

TAU, TAU_EHCP = 1.2, 2.6
GAMMA, INTAKE, FEEDER, LA = 0.5, (0.4, -0.3), (0.6, -0.5), (0.2, -0.1)
N = 300_000


class TwoThresholds(LabelRecords):
    """A dozen pupils of a cohort in which support and EHCP both occur."""

    @property
    def levels(self) -> int:
        return 2


def parameters() -> Parameters:
    return Parameters(
        gamma=np.array([GAMMA]),
        tau=np.array([TAU, TAU_EHCP]),
        intake=np.array(INTAKE),
        feeder=np.column_stack([FEEDER, np.array(FEEDER) / 2]),
        la_entry=np.column_stack([LA, np.array(LA) / 2]),
        intake_variance=0.1,
        rho=np.array([1.7, 2.8]),
        tau_now=np.array([2.0, 4.0]),
        kappa=0.6,
        school=np.array([[0.3, 0.1], [-0.4, -0.2]]),
        la_now=np.array([[0.1, 0.0], [-0.2, 0.1]]),
    )


def records(entry: np.ndarray, now: np.ndarray, x: float = 0.4, school: int = 0, body: int = 0) -> LabelRecords:
    """Pupils who differ in nothing but labels."""
    n = len(entry)
    one = np.full(n, body, dtype=np.intp)
    return TwoThresholds(
        row_number=np.arange(1, n + 1),
        x=np.full((n, 1), x),
        x_names=("x",),
        x_mean=np.zeros(1),
        x_sd=np.ones(1),
        school=np.full(n, school, dtype=np.intp),
        la=one,
        feeder=one,
        feeder_la=one,
        region=np.full(n, -1, dtype=np.intp),
        now=now.astype(np.intp),
        entry=entry.astype(np.intp),
        schools=("a", "b"),
        las=("1", "2"),
        feeder_las=("1", "2"),
        feeders=("p", "q"),
        regions=(),
        same_body=np.zeros(n, dtype=bool),
        component=np.zeros(2, dtype=np.intp),
    )


ALL = np.array([0, 1, 2, -1])
EVERY = records(np.repeat(ALL, 3), np.tile([0, 1, 2], 4))


def test_any_label_before_is_the_closed_form_of_section_4() -> None:
    """With one threshold: Phi(h)/Phi(h + a) for labelled, (Phi(h) - Phi(h + a))/(1 - Phi(h + a)) for unlabelled."""
    for body in (0, 1):
        both = records(np.array([0, 1]), np.array([0, 1]), body=body)
        single = replace(
            parameters(),
            tau=np.array([TAU]),
            feeder=parameters().feeder[:, :1],
            la_entry=parameters().la_entry[:, :1],
        )
        pi, _ = entry_need(both, single, Assumptions(), both.entry)
        h, a = GAMMA * 0.4 + INTAKE[0] - TAU, FEEDER[body] + LA[body]
        labelled = 1.0 if a <= 0 else norm.cdf(h) / norm.cdf(h + a)
        unlabelled = 0.0 if a >= 0 else (norm.cdf(h) - norm.cdf(h + a)) / (1 - norm.cdf(h + a))
        np.testing.assert_allclose(pi, [unlabelled, labelled], atol=1e-12)


def simulated(noise: float, feeder_share: float = 0.0, area_share: float = 0.0) -> dict[str, np.ndarray]:
    """Pupils of the first school, feeder and authority, by the definition of the model.

    In units of unexplained need; noise is what those who label add. Parameters above are in units of judged need.
    """
    rng, p = np.random.default_rng(6), parameters()
    scale = np.sqrt(1 + noise**2)
    sorted_in = scale * (feeder_share * FEEDER[0] + area_share * LA[0])
    base = scale * (GAMMA * 0.4 + INTAKE[0])
    need = rng.standard_normal(N)
    judged = base + need + noise * rng.standard_normal(N)
    leniency = scale * (p.feeder[0] + p.la_entry[0])
    entry = (judged[:, None] + leniency > scale * p.tau).sum(axis=1)
    index = p.kappa * (base + need) / scale + np.array([0.0, *p.rho])[entry] + rng.standard_normal(N)
    now = (index[:, None] + p.school[0] + p.la_now[0] > p.tau_now).sum(axis=1)
    above = base + sorted_in + need > scale * TAU
    return {"entry": entry, "now": now, "above": above, "severity": need + scale * INTAKE[0] + sorted_in}


WORLDS = {
    "labels exact": (0.0, Assumptions()),
    "labels noisy, SD .6": (0.6, Assumptions(label_reliability=1 / 1.36)),
    "a third of feeders' leniency is need": (0.0, Assumptions(feeder_sorting_share=1 / 3)),
    "all of an area's leniency is need, noisy": (0.6, Assumptions(area_sorting_share=1.0, label_reliability=1 / 1.36)),
}


@pytest.mark.parametrize("kind", WORLDS)
def test_scores_are_frequencies_in_simulation(kind: str) -> None:
    """Share above the national threshold and mean severity of pupils with the same labels; four MC errors."""
    noise, assumptions = WORLDS[kind]
    world = simulated(noise, assumptions.feeder_sorting_share, assumptions.area_sorting_share)
    one = entry_need(EVERY, parameters(), assumptions, EVERY.entry)
    two = both_need(EVERY, parameters(), assumptions, EVERY.entry)
    for i, (entry, now) in enumerate(zip(EVERY.entry, EVERY.now, strict=True)):
        before = (world["entry"] == entry) | (entry < 0)
        for those, (pi, severity) in ((before, one), (before & (world["now"] == now), two)):
            n = int(those.sum())
            if n < 400:
                continue
            spread = world["severity"][those].std()
            assert severity[i] == pytest.approx(world["severity"][those].mean(), abs=4 * spread / np.sqrt(n))
            mc = np.sqrt(max(pi[i] * (1 - pi[i]), 2e-4) / n)
            assert pi[i] == pytest.approx(world["above"][those].mean(), abs=4 * mc)


def test_severity_includes_intake_need() -> None:
    """Pupils far above any threshold on either side of it: severity moves by the whole of intake need.

    Without a label there is nothing but intake need to say of a pupil.
    """
    unknown = records(np.array([-1]), np.array([0]))
    for school in (0, 1):
        pi, severity = entry_need(replace(unknown, school=np.array([school])), parameters(), Assumptions(), ALL[-1:])
        assert severity[0] == pytest.approx(INTAKE[school])
        assert pi[0] == pytest.approx(norm.cdf(GAMMA * 0.4 + INTAKE[school] - TAU))


def test_scores_from_the_label_before_ignore_the_label_now() -> None:
    """To the bit, whatever the rated school writes down."""
    pi, severity = entry_need(EVERY, parameters(), Assumptions(), EVERY.entry)
    other = replace(EVERY, now=2 - EVERY.now)
    again = entry_need(other, parameters(), Assumptions(), other.entry)
    np.testing.assert_array_equal(pi, again[0])
    np.testing.assert_array_equal(severity, again[1])
    moved = both_need(other, parameters(), Assumptions(), other.entry)[0]
    assert not np.allclose(moved, both_need(EVERY, parameters(), Assumptions(), EVERY.entry)[0])


def test_background_alone() -> None:
    """No label and no school: a normal share with the schools' variance in it; noise makes judged need vary more."""
    p0 = background_need(EVERY, parameters(), Assumptions())
    assert p0 == pytest.approx(np.full(12, norm.cdf((GAMMA * 0.4 - TAU) / np.sqrt(1.1))))
    r = 1 / 1.36
    noisy = background_need(EVERY, parameters(), Assumptions(label_reliability=r))
    assert noisy == pytest.approx(np.full(12, norm.cdf((GAMMA * 0.4 - TAU) / np.sqrt(r + 0.1))))


@pytest.mark.parametrize("reliability", [0.999, 0.9999])
def test_reliability_goes_to_one_smoothly(reliability: float) -> None:
    exact = both_need(EVERY, parameters(), Assumptions(), EVERY.entry)
    close = both_need(EVERY, parameters(), Assumptions(label_reliability=reliability), EVERY.entry)
    np.testing.assert_allclose(close[1], exact[1], atol=2 * (1 - reliability) ** 0.5)
    np.testing.assert_allclose(close[0], exact[0], atol=(1 - reliability) ** 0.5)


@settings(max_examples=40, deadline=None)
@given(
    leniency=st.floats(-2, 2),
    more=st.floats(0.01, 1.5),
    entry=st.integers(0, 1),
    now=st.integers(0, 2),
    share=st.floats(0, 1),
)
def test_the_more_lenient_the_feeder_the_less_a_label_says(
    leniency: float, more: float, entry: int, now: int, share: float
) -> None:
    """Holds for every label, both estimators, unless the feeder's leniency is itself need."""
    one = records(np.array([entry]), np.array([now]))

    def pi(at: float, assumptions: Assumptions) -> list[float]:
        moved = replace(parameters(), feeder=np.full((2, 2), at))
        return [float(f(one, moved, assumptions, one.entry)[0][0]) for f in (entry_need, both_need)]

    strict, lenient = pi(leniency, Assumptions()), pi(leniency + more, Assumptions())
    sorted_in = pi(leniency, Assumptions(feeder_sorting_share=share))
    for a, b, c in zip(strict, lenient, sorted_in, strict=True):
        assert 0.0 <= b <= a + 1e-3 <= 1.001
        assert (c >= a - 1e-3) if leniency >= 0 else (c <= a + 1e-3)
