"""The robustness statement from tables of a run."""

import json
from pathlib import Path

import pandas as pd
import pytest

from send_va.publish.robustness_statement import robustness_statement
from send_va.publish.run_tables import RunTables, all_changes

KEYS = {"estimator": "entry", "context": "cva"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    summary = {
        "schools": 60,
        "published": 57,
        "mean_rank_set": 58.2,
        "certain_of_quintile": 12,
        "quintiles_correct": 0.57,
    }
    write(tmp_path, "ranking_summary", [KEYS | summary])
    rows = [
        ("estimator", "labelled", 0.37, 25),
        ("estimator", "standardised", 0.10, 6),
        ("context", "prior", 0.23, 17),
        ("label_reliability", "0.9", 0.07, 6),
    ]
    names = ["departure", "value", "share_other_fifth", "largest_places"]
    write(tmp_path, "table_changes", [dict(zip(names, row, strict=True)) for row in rows])
    return tmp_path


def write(folder: Path, name: str, rows: list[dict[str, object]]) -> None:
    pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False)


def stated(folder: Path, synthetic: bool = False) -> dict[str, str]:
    """The statement by heading."""
    text = robustness_statement(RunTables(folder, "entry", "cva"), title="A study", certain=0.8, synthetic=synthetic)
    head, *parts = text.split("\n## ")
    return {"": head} | {part.split("\n", 1)[0]: part.split("\n", 1)[1] for part in parts}


CHANGES = "What changes the table (more than 10% of schools in another fifth)"


def test_a_departure_stands_under_the_heading_that_its_share_says(folder: Path) -> None:
    said = stated(folder)
    assert "Estimator: `labelled`: 37% (largest move 25 places)." in said[CHANGES]
    assert said[CHANGES].index("labelled") < said[CHANGES].index("Context: `prior`: 23%")  # largest first
    assert "`standardised`: 10%" in said["What does not"]
    assert "Reliability of labels (headline: 1): 0.9: 7%" in said["What does not"]


def test_chance_and_those_without_a_position(folder: Path) -> None:
    said = stated(folder)
    assert "right for 57% of schools" in said["Chance alone"]
    assert "12 of 60 schools" in said["Chance alone"]
    assert "3 of 60 schools without a position" in said["Whom it could mislead or wrong"]


def test_what_was_not_examined_is_named_until_it_is(folder: Path) -> None:
    assert "send-va audit" in stated(folder)["Not examined in this run"]
    verdict = {"context": "cva", "measure": "theta", "tolerance": 0.02, "tolerance_given": False, "verdict": "fail"}
    acts = [
        ("labelling", False, "label_more", 0.03),
        ("roll", True, "remove_lowest", 0.01),
        ("all", False, "label_more", 0.03),
    ]
    names = ["acts", "roll_weighted", "worst_action", "worst_gain_sd"]
    rows = [verdict | {"estimator": "labelled"} | dict(zip(names, act, strict=True)) for act in acts]
    write(folder, "incentive_verdicts", rows)
    said = stated(folder)
    assert "send-va audit" not in said["Not examined in this run"]
    gains = said["What schools would gain by acting on it"]
    assert "less than 0.02 pupil SDs (the default)" in gains
    assert "`labelled`: labelling acts: fail (labelling more pupils, +0.030 SD on average)" in gains
    assert "pupils weighted by terms on roll" in gains


def test_a_run_of_one_estimator_in_one_context_varied_nothing(folder: Path) -> None:
    (folder / "table_changes.csv").write_text("departure,value,share_other_fifth,largest_places\n")
    said = stated(folder)
    assert (
        said[CHANGES].strip()
        == said["What does not"].strip()
        == "- None of the choices and assumptions that were varied."
    )


def test_synthetic_records_are_stamped(folder: Path) -> None:
    assert "Synthetic data" in stated(folder, synthetic=True)[""]
    assert "Synthetic" not in stated(folder)[""]


def test_other_tables_become_departures_in_the_same_unit(folder: Path) -> None:
    departures = [("leniency", "", 1.0, 0.3), ("leniency", "", 0.5, 0.2), ("sorting", "fsm6", 0.5, 0.9)]
    departures += [("sorting", "prior attainment", 0.5, 0.4)]
    names = ["departure", "benchmark", "size", "share_changed"]
    write(folder, "tipping", [KEYS | dict(zip(names, row, strict=True)) for row in departures])
    write(
        folder,
        "roll_weighting",
        [
            KEYS | {"quintile": 1, "quintile_roll_weighted": 2, "place": 1, "place_roll_weighted": 4},
            KEYS | {"quintile": 2, "quintile_roll_weighted": 2, "place": 3, "place_roll_weighted": 3},
        ],
    )
    imputed = [(0.0, 0.02, 0.0), (-0.5, 0.05, 0.04)]
    names = ["delta", "changed", "changed_from_mar"]
    write(folder, "missing_prior", [{"estimator": "labelled"} | dict(zip(names, row, strict=True)) for row in imputed])
    found = all_changes(RunTables(folder, "entry", "cva")).set_index(["departure", "value"])["share_other_fifth"]
    assert found["leniency", "+1:"] == 0.3
    assert found["sorting", "0.5:"] == 0.4  # as a multiple of that on prior attainment, of no other
    assert found["roll_weighting", ""] == 0.5
    assert found["missing_prior", "filled in and not left out:"] == 0.02
    assert found["missing_prior", "filled in -0.5 SD from there:"] == 0.04


def test_all_choices_at_once(folder: Path) -> None:
    told = {"share_depends": 0.9, "share_top_and_bottom": 0.2, "share_mostly": 0.4}
    (folder / "multiverse.json").write_text(json.dumps(told))
    write(folder, "specifications", [{"status": "done"}] * 3 + [{"status": "failed"}])
    shares = [("place", "estimator", 0.5), ("place", "send", 0.3), ("effect", "prior", 0.8)]
    write(folder, "choice_variance", [{"result": r, "term": t, "order": 1, "share": s} for r, t, s in shares])
    said = stated(folder)["All declared choices at once"]
    assert "Over 3 specifications 90% of schools" in said
    assert "1 of 4 specifications could not run" in said
    assert "Most depends on estimator: 50% of how far schools move" in said
