"""Other definitions of need, and the table that holds every tipping point of a school."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from tipping_world import fitted, labelled, world

from send_va.errors import BoundaryWarning, InputError, NotSupportedError
from send_va.identification.scores import both_need, entry_need
from send_va.sensitivity.need_definition import DefinitionSensitivity, need_definitions
from send_va.sensitivity.quintiles import Quintiles
from send_va.sensitivity.school_robustness import COLUMNS, Robustness, robustness
from send_va.validation.recovery import CONTEXT
from send_va.value_added.labelled import fit_labelled
from send_va.value_added.need_fit import fit_need


@pytest.fixture(scope="module")
def definition() -> DefinitionSensitivity:
    return need_definitions(world().design, world().need, "entry", thresholds=[-0.25, 0.0, 0.5, 1.0])


@pytest.fixture(scope="module")
def found() -> Robustness:
    return robustness(world().design, world().need, fitted("entry"), labelled=labelled())


def test_need_above_a_higher_threshold_is_that_of_a_higher_cut_with_the_same_labels() -> None:
    """By moving thresholds and leniency together: labels stay as likely as they were, only need is counted higher."""
    need, records = world().need, world().labels
    known = need.parameters
    assert (records.feeder >= 0).all()
    higher = replace(known, tau=known.tau + 0.4, feeder=known.feeder + 0.4)
    ours = entry_need(records, known, need.assumptions, records.entry, above=0.4)
    theirs = entry_need(records, higher, need.assumptions, records.entry)
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-12)
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-12)
    ours = both_need(records, known, need.assumptions, records.entry, above=0.4)
    theirs = both_need(records, higher, need.assumptions, records.entry)
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-9)


def test_the_support_threshold_is_the_published_fit_and_others_are_refitted(definition: DefinitionSensitivity) -> None:
    long = definition.quintiles
    at_support = long[long["threshold"] == 0.0]
    published = fitted("entry").effects.data["mean"].sel(measure="theta").to_numpy()
    np.testing.assert_allclose(at_support["theta"], published, atol=1e-6)

    class Higher:
        n_draws = 0

        def plug_in(self) -> tuple[np.ndarray, np.ndarray]:
            need = world().need
            tau = need.parameters.tau
            return entry_need(need.labels, need.parameters, need.assumptions, need.labels.entry, tau[1] - tau[0])

        def draw(self, d: int) -> tuple[np.ndarray, np.ndarray]:
            raise IndexError(d)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        fit = fit_need(
            world().design, Higher(), "entry", [CONTEXT], rng=np.random.default_rng(1), draws=2, plug_in=True
        )[CONTEXT]
    refitted = fit.effects.data["mean"].sel(measure="theta").to_numpy()
    np.testing.assert_allclose(long.loc[long["threshold"] == 1.0, "theta"], refitted, atol=1e-6)


def test_first_threshold_that_differs(definition: DefinitionSensitivity) -> None:
    wide = definition.quintiles.pivot(index="school", columns="threshold", values="quintile")
    table = definition.table.set_index("school").loc[wide.index]
    for school, row in wide.iterrows():
        higher = next((share for share in (0.5, 1.0) if row[share] != row[0.0]), np.nan)
        assert table.loc[school, "higher"] == higher or (np.isnan(higher) and np.isnan(table.loc[school, "higher"]))
        assert np.isnan(table.loc[school, "lower"]) == (row[-0.25] == row[0.0])
        assert table.loc[school, "robust"] == bool((row == row[0.0]).all())
    changed = definition.thresholds.set_index("threshold")
    assert changed.loc[0.0, "share_changed"] == 0.0 and changed.loc[1.0, "correlation"] < 1.0
    assert changed.loc[1.0, "share_changed"] == (wide[1.0] != wide[0.0]).mean()
    assert "at the threshold of EHCPs" in str(definition) and "<table" in definition._repr_html_()


def test_one_row_a_school_with_every_tipping_point(found: Robustness) -> None:
    table = found.table
    assert set(COLUMNS) <= set(table.columns) and len(table) == len(world().design.schools)
    assert found.leniency is not None and found.need is not None and found.definition is not None
    np.testing.assert_array_equal(table["leniency_more"], found.leniency.table["more"])
    np.testing.assert_array_equal(table["need_less"], found.need.table["less"])
    np.testing.assert_array_equal(table["definition_higher"], found.definition.table["higher"])
    mean = fitted("entry").effects.data["mean"].sel(measure="theta").to_numpy()
    np.testing.assert_array_equal(table["quintile"].to_numpy(dtype=int), Quintiles.of(mean).quintile)
    three = [part.table["robust"].to_numpy(dtype=bool) for part in (found.leniency, found.need, found.definition)]
    np.testing.assert_array_equal(table["robust"].to_numpy(dtype=bool), np.all(three, axis=0))
    near = np.fmin(table["need_more"].abs(), table["need_less"].abs()) / found.need.intake_sd
    np.testing.assert_allclose(table["need_nearest_intake"].abs(), near, rtol=1e-12)
    assert table["label_bound_lower"].notna().any() and table["label_sign_known"].isna().any()
    assert found.not_applicable == {} and len(found.headlines) == 6
    assert str(found).startswith("The quintile of ") and "<table" in found._repr_html_()


def test_shares_by_departure_are_those_of_the_parts(found: Robustness) -> None:
    shares = found.shares
    assert shares["departure"].unique().tolist() == ["leniency", "need", "definition", "sorting"]
    assert found.need is not None
    part = shares[shares["departure"] == "need"]
    assert part.loc[np.isclose(part["size"], 0.25), "share_changed"].item() == found.need.share_at(0.25)
    assert (shares["estimator"] == "entry").all() and shares["share_changed"].between(0, 1).all()


def test_what_does_not_apply_is_said_and_left_missing() -> None:
    free = robustness(world().design, world().need, fitted("label_free"))
    assert set(free.not_applicable) == {"leniency", "unobserved need", "trimming bounds"}
    assert free.table["leniency_more"].isna().all() and free.table["robust"].notna().all()
    assert "Not applicable: leniency ('label_free' uses no label" in str(free)


def test_bad_input() -> None:
    design, need = world().design, world().need
    with pytest.raises(InputError, match="lack zero"):
        need_definitions(design, need, "entry", thresholds=[0.25, 0.5])
    with pytest.raises(InputError, match="less than one pupil with need"):
        need_definitions(design, need, "entry", thresholds=[0.0, 9.0])
    with pytest.raises(InputError, match="no estimator"):
        need_definitions(design, need, "labelled")
    one = replace(need, parameters=replace(need.parameters, tau=need.parameters.tau[:1]))
    with pytest.raises(NotSupportedError, match="one threshold"):
        need_definitions(design, one, "entry")
    with pytest.raises(InputError, match="of 'labelled'"):
        robustness(design, need, fit_labelled(world().data, "cva", rng=np.random.default_rng(1), draws=2))
