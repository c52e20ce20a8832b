"""The multiverse: equal to the public functions, whole where something fails, the same bytes when resumed."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from send_va.errors import BoundaryWarning, InputError
from send_va.identification.labels import LabelRecords, read_labels
from send_va.identification.need import Need, estimate_need, why_not
from send_va.ranking.shrinkage import shrink
from send_va.records.design_columns import ContextColumns
from send_va.records.profile import CohortProfile
from send_va.records.reader import Cohort
from send_va.records.roles import SenCodes
from send_va.records.simulator import simulate
from send_va.sensitivity import choice_fits
from send_va.sensitivity.choice_fits import FitOptions
from send_va.sensitivity.fit_store import FolderStore, MemoryStore
from send_va.sensitivity.multiverse import Multiverse, multiverse
from send_va.sensitivity.specifications import ADJUSTMENTS, Choices
from send_va.validation import recovery
from send_va.value_added.design import context_columns, labelled_products
from send_va.value_added.fit_result import ValueAddedFit
from send_va.value_added.labelled import fit_labelled
from send_va.value_added.need_fit import fit_need
from send_va.value_added.pupil_design import pupil_design

ROLES = replace(recovery.ROLES, cohort="cohort", context=("C(sex)", "fsm6", "eal"))
OPTIONS = FitOptions(seed=3, prior_knots=0, identification_draws=0)
CHOICES = Choices(
    outcome=("outcome",),
    context=("cva", "prior"),
    adjustment=tuple(ADJUSTMENTS),
    estimator=("entry", "labelled", "label_free"),
    prior=("model", "none", "normal"),
    minimum_cohort=(3, 1),
)
Open = Callable[[str], Cohort]


@pytest.fixture(scope="module")
def pupils() -> pd.DataFrame:
    """A third of those with support are given plans, or plans alone would be too few to identify anything."""
    frame = simulate(np.random.default_rng(4), schools=24, pupils_per_school=60).pupils
    place = np.arange(len(frame))
    for name in ("sen_status", "sen_status_entry"):
        frame[name] = frame[name].mask(frame[name].eq("K") & (place % 3 == 1), "E")
    early = np.where(place % 4 == 0, "2021/22", "2022/23")
    turned = frame.groupby("school")["idaci"].transform(lambda own: own.to_numpy()[::-1])
    return frame.assign(cohort=early, half=frame["outcome"] / 2 + frame["idaci"], turned=turned)


@pytest.fixture(scope="module", autouse=True)
def identified_once() -> Iterator[None]:
    """Identification takes a second, depends on nothing that is tested here, and is the same for the same labels."""
    known: dict[tuple[object, ...], Need] = {}

    def estimated(labels: LabelRecords, *, seed: int, draws: int) -> Need:
        key = (seed, draws, labels.entry.tobytes(), labels.now.tobytes(), labels.x.tobytes(), labels.feeder.tobytes())
        if key not in known:
            known[key] = estimate_need(labels, seed=seed, draws=draws)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choice_fits, "estimate_need", estimated)
        yield


def opener(pupils: pd.DataFrame, **changes: Any) -> Open:
    return lambda outcome: Cohort.from_pandas(pupils, replace(ROLES, outcome=outcome, **changes), synthetic=True)


@pytest.fixture(scope="module")
def found(pupils: pd.DataFrame) -> Multiverse:
    return multiverse(opener(pupils), CHOICES, options=replace(OPTIONS, identification_draws=24), synthetic=True)


def effects(found: Multiverse, **chosen: object) -> pd.Series:
    """Of one specification."""
    rows = found.specifications
    for name, value in chosen.items():
        rows = rows[rows[name] == value]
    assert len(rows) == 1
    return found.effects.loc[int(rows["number"].iloc[0])]


def read(cohort: Cohort) -> tuple[CohortProfile, ContextColumns]:
    profile = cohort.profile(0)
    return profile, context_columns(cohort, profile)


def in_sds(fit: ValueAddedFit, values: str, least: int) -> pd.Series:
    """theta of the schools with so many pupils with need, pupil SDs."""
    kept = fit.effects.data.sel(measure="theta")
    own = pd.Series(kept[values].to_numpy() / fit.effects.attrs["outcome_sd"], kept["school"].to_numpy())
    return own[kept["n_need"].to_numpy() >= least].dropna()


@pytest.fixture(scope="module")
def public_fits(pupils: pd.DataFrame) -> dict[tuple[str, str, str], ValueAddedFit]:
    """By estimator, adjustment and context; of need with 26 draws, of which 24 are averaged."""
    cohort = opener(pupils)("outcome")
    profile, columns = read(cohort)
    need = estimate_need(read_labels(cohort, profile, columns), seed=3, draws=26)
    design, data = pupil_design(cohort, profile, columns), labelled_products(cohort, profile, columns)
    fits = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        for adjustment, (slope, by_need) in ADJUSTMENTS.items():
            options: Any = {"rng": np.random.default_rng(1), "prior_slope": slope, "residual_by_need": by_need}
            for context in CHOICES.context:
                fits["labelled", adjustment, context] = fit_labelled(data, context, draws=2, **options)
            for name in ("entry", "label_free"):
                plug_in: Any = {"plug_in": True} if adjustment != "full" else {"identification_draws": 2}
                found = fit_need(design, need.scores(name), name, CHOICES.context, draws=2, **options, **plug_in)
                fits |= {(name, adjustment, context): fit for context, fit in found.items()}
    return fits


def test_specifications_are_what_the_public_functions_give(
    found: Multiverse, public_fits: dict[tuple[str, str, str], ValueAddedFit]
) -> None:
    """Means are those of a run that draws the identification parameters as of one that does not."""
    assert len(public_fits) == CHOICES.n_fits == 24
    for (estimator, adjustment, context), fit in public_fits.items():
        chosen = {"estimator": estimator, "adjustment": adjustment, "context": context}
        for prior, values in (("model", "mean"), ("none", "estimate")):
            own, expected = effects(found, **chosen, prior=prior, minimum_cohort=3).dropna(), in_sds(fit, values, 3)
            assert own.index.tolist() == expected.index.tolist()
            np.testing.assert_allclose(own, expected, atol=1e-10)


def test_priors_are_those_of_the_ranking_package(
    found: Multiverse, public_fits: dict[tuple[str, str, str], ValueAddedFit]
) -> None:
    fit = public_fits["entry", "plain", "cva"]
    estimate, se = (in_sds(fit, name, 0) for name in ("estimate", "se"))
    chosen = {"estimator": "entry", "adjustment": "plain", "context": "cva", "prior": "normal", "minimum_cohort": 1}
    own = effects(found, **chosen).dropna()
    expected = pd.Series(shrink(estimate, se, prior="normal").table["mean"], estimate.index)
    np.testing.assert_allclose(own, expected[own.index], atol=1e-8)  # the variance of the prior is searched for


def test_plans_alone_are_the_records_opened_with_other_codes(pupils: pd.DataFrame) -> None:
    sen = SenCodes(none=("N", "K"), support=(), ehcp=("E",))
    cohort = Cohort.from_pandas(pupils, ROLES, sen=sen)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        fit = fit_labelled(labelled_products(cohort, *read(cohort)), "cva", rng=np.random.default_rng(1), draws=2)
    choices = Choices(("outcome",), send=("ehcp",), estimator=("labelled",), minimum_cohort=(2,))
    found = multiverse(opener(pupils), choices, options=OPTIONS)
    own, expected = effects(found, send="ehcp").dropna(), in_sds(fit, "mean", 2)
    np.testing.assert_allclose(own, expected, atol=1e-10)
    assert own.index.tolist() == expected.index.tolist() and len(own) < pupils["school"].nunique()


def test_years_are_the_records_of_the_latest_cohorts(pupils: pd.DataFrame) -> None:
    choices = Choices(("outcome",), years=(1,), estimator=("labelled",), minimum_cohort=(1,))
    found = multiverse(opener(pupils), choices, options=OPTIONS)
    late = multiverse(opener(pupils[pupils["cohort"] == "2022/23"]), replace(choices, years=(0,)), options=OPTIONS)
    np.testing.assert_allclose(found.effects.iloc[0], late.effects.iloc[0], atol=1e-10)


def test_every_table_is_compared_with_the_reference(found: Multiverse) -> None:
    rows = found.specifications
    assert (rows["status"] == "done").all() and len(rows) == 144 and found.reference == 1 and found.notes == ()
    assert rows.loc[0, ["rank_correlation", "same_quintile"]].tolist() == [pytest.approx(1.0), 1.0]
    third, first = found.effects.loc[rows["number"].iloc[100]], found.effects.iloc[0]
    both = first.notna() & third.notna()
    assert rows["rank_correlation"].iloc[100] == pytest.approx(first[both].corr(third[both], "spearman"))
    assert rows["sd"].iloc[100] == pytest.approx(third.std()) and rows["n_schools"].iloc[100] == third.count()
    told = found.headline
    own = found.by_school[found.by_school["reference_quintile"].notna()]
    assert told["share_depends"] == pytest.approx(own["depends"].mean()) and told["n_schools"] == len(own)
    assert told["share_nearly_always"] <= told["share_mostly"] <= 1.0
    assert "144 specifications" in str(found) and str(found).startswith("Synthetic")
    shares = found.choices.groupby("result")["share"].sum()
    np.testing.assert_allclose(shares, 1.0)
    assert set(found.choices["term"][found.choices["order"] == 1]) == set(CHOICES.varied)


def test_curve_of_a_school_holds_its_specifications_in_order(found: Multiverse) -> None:
    school = str(found.by_school.sort_values("n_specifications")["school"].iloc[-1])
    curve = found.curve(school)
    row = found.by_school.set_index("school").loc[school]
    assert curve["effect"].is_monotonic_increasing and len(curve) == row["n_specifications"]
    np.testing.assert_allclose(curve["effect"], np.sort(found.effects[school].dropna()))
    assert (curve["quintile"] == row["modal_quintile"]).mean() == pytest.approx(
        row[f"share_quintile_{row['modal_quintile']}"]
    )
    number = int(curve["number"].iloc[0])
    pd.testing.assert_series_equal(
        curve.loc[0, ["context", "prior"]],
        found.specifications.set_index("number").loc[number, ["context", "prior"]],
        check_names=False,
    )
    with pytest.raises(InputError, match="no school 'nowhere'"):
        found.curve("nowhere")


def test_what_cannot_run_is_reported_and_the_others_are_what_they_were(pupils: pd.DataFrame) -> None:
    good = Choices(("outcome", "half"), ("prior",), estimator=("labelled", "entry"), minimum_cohort=(1,))
    more = replace(good, outcome=("outcome", "absent", "half"), years=(0, 7), minimum_cohort=(1, 10_000))
    alone = multiverse(opener(pupils), good, options=OPTIONS)
    mixed = multiverse(opener(pupils), more, options=OPTIONS)
    for row in alone.specifications.itertuples():
        chosen = {"outcome": row.outcome, "context": row.context, "estimator": row.estimator}
        same = effects(mixed, **chosen, years=0, minimum_cohort=1)
        pd.testing.assert_series_equal(same, alone.effects.loc[row.number], check_names=False)
    reasons = mixed.failed.groupby(["outcome", "years", "minimum_cohort"])["reason"].first()
    assert "absent" in reasons["absent", 0, 1]
    assert "the records are of 2 cohorts, so that to pool the latest 7" in reasons["half", 7, 1]
    assert "enough pupils with need" in reasons["outcome", 0, 10_000]
    assert len(mixed.effects) == 4 and len(mixed.failed) == 24 - 4
    assert set(mixed.choices["method"]) == {"exact"}  # what is left is a full crossing again
    assert any("absent" in note for note in mixed.notes)
    first, half = (effects(alone, outcome=name, estimator="entry") for name in ("outcome", "half"))
    assert half.notna().all() and not np.allclose(half, first)


def test_an_estimator_the_records_do_not_allow_is_reported(pupils: pd.DataFrame) -> None:
    opened = opener(pupils, sen_status_entry=None, cohort=None)
    choices = Choices(("outcome",), estimator=("entry", "labelled"), years=(0, 1), minimum_cohort=(1,))
    found = multiverse(opened, choices, options=OPTIONS)
    assert found.specifications["status"].tolist() == ["failed", "done", "failed", "failed"]
    assert found.reference == 2 and "the reference specification failed; number 2" in found.notes[0]
    reasons = found.failed["reason"].tolist()
    assert reasons[0] == why_not("entry") and "no role cohort" in reasons[1]


def test_a_context_that_cannot_be_fitted_takes_no_other_with_it(pupils: pd.DataFrame) -> None:
    """School means of a column and of the same in another order within schools are one."""
    opened = opener(pupils, context=("idaci", "turned"))
    contexts = ("composition", "cva", "prior")
    choices = Choices(("outcome",), contexts, estimator=("entry",), minimum_cohort=(1,))
    found = multiverse(opened, choices, options=OPTIONS)
    assert found.specifications["status"].tolist() == ["failed", "done", "done"]
    assert found.failed["reason"].str.contains("turned").all()
    alone = multiverse(opened, replace(choices, context=("cva", "prior")), options=OPTIONS)
    np.testing.assert_array_equal(found.effects.to_numpy(), alone.effects.to_numpy())


def test_a_resumed_multiverse_has_the_same_bytes(pupils: pd.DataFrame, tmp_path: Path) -> None:
    choices = replace(
        CHOICES, estimator=("labelled", "entry"), send=("any",), adjustment=("full", "plain"), years=(0, 5)
    )
    opened = []

    def counting(outcome: str) -> Cohort:
        opened.append(outcome)
        return opener(pupils)(outcome)

    whole = multiverse(counting, choices, options=OPTIONS, store=FolderStore(tmp_path / "whole"))

    class Stops(FolderStore):
        left = 6

        def save(self, name: str, arrays: Any) -> None:
            if self.left == 0:
                raise KeyboardInterrupt
            super().save(name, arrays)
            self.left -= 1

    with pytest.raises(KeyboardInterrupt):
        multiverse(counting, choices, options=OPTIONS, store=Stops(tmp_path / "parts"))
    assert len(list((tmp_path / "parts").glob("*.npz"))) == 6
    resumed = multiverse(counting, choices, options=OPTIONS, store=FolderStore(tmp_path / "parts"))
    for file in sorted((tmp_path / "whole").glob("*.npz")):
        assert file.read_bytes() == (tmp_path / "parts" / file.name).read_bytes()
    for name in ("specifications", "effects", "by_school", "choices"):
        pd.testing.assert_frame_equal(getattr(whole, name), getattr(resumed, name), check_exact=True)
    before, done = len(opened), []
    multiverse(counting, choices, options=OPTIONS, store=FolderStore(tmp_path / "parts"), progress=done.append)
    assert len(opened) == before and done[-1] == choices.n_fits  # nothing is read again, failures neither


def test_where_nothing_can_run_all_reasons_are_given(pupils: pd.DataFrame) -> None:
    with pytest.raises(InputError, match=r"no specification could run(.|\n)*nothing_like_it"):
        multiverse(opener(pupils), Choices(("nothing_like_it",)), options=OPTIONS, store=MemoryStore())
