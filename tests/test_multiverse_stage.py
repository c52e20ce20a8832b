"""The multiverse of a study, from its file to its directory."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from send_va import multiverse_stage
from send_va.errors import InputError
from send_va.multiverse_stage import run_multiverse
from send_va.records.simulator import simulate, write_cohort
from send_va.sensitivity import choice_fits
from send_va.study import Study, load_study
from send_va.study_multiverse import MultiverseSection

SECTION = MultiverseSection(
    contexts=("prior", "cva"), send=("any",), adjustments=("full",), estimators=("labelled",), years=(0, 2)
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(simulate(np.random.default_rng(2), schools=25, pupils_per_school=70), folder / "study")
    return load_study(folder / "study" / "study.toml")


def test_tables_hold_what_was_found_and_a_resumed_run_the_same_bytes(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Path] = []
    monkeypatch.setattr(multiverse_stage, "save_multiverse_figures", lambda _, folder, **options: drawn.append(folder))
    found = run_multiverse(study, tmp_path / "whole", section=SECTION)
    fit, done = choice_fits.fit_labelled, []

    def stops(*args: object, **options: object) -> object:
        if done:
            raise KeyboardInterrupt
        done.append(1)
        return fit(*args, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(choice_fits, "fit_labelled", stops)
        run_multiverse(study, tmp_path / "parts", section=SECTION)
    assert not (tmp_path / "parts" / "private").exists()
    run_multiverse(study, tmp_path / "parts", section=SECTION, resume=True)
    whole, parts = (tmp_path / name / "private" for name in ("whole", "parts"))
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(parts) for path in parts.rglob("*") if path.is_file())
    for file in files:
        if file.name != "manifest.json":  # which holds timings
            assert (whole / file).read_bytes() == (parts / file).read_bytes(), file
    rows = pd.read_csv(whole / "specifications.csv")
    assert rows["synthetic"].all() and rows["reference"].sum() == 1 and len(rows) == 12
    assert rows["status"].value_counts().to_dict() == {"done": 6, "failed": 6}
    effects = pd.read_parquet(whole / "specification_effects.parquet").set_index("school")
    np.testing.assert_array_equal(effects.to_numpy(), found.effects.to_numpy().T)
    assert {"school_robustness.csv", "choice_variance.csv", "multiverse.json", "manifest.json"} <= {
        f.name for f in files
    }
    assert [folder.name for folder in drawn] == ["figures", "figures"]  # the figures have tests of their own


def test_nothing_is_left_behind_where_nothing_can_run(study: Study, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no_such_column"):
        run_multiverse(study, tmp_path / "out", section=replace(SECTION, outcomes=("no_such_column",)))
    assert not (tmp_path / "out").exists()
