"""Writes a synthetic cohort as a study that is ready to run."""

from __future__ import annotations

import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from send_va.errors import BrokenRule, InputError

if TYPE_CHECKING:
    from send_va.records.simulator.cohort import SimulatedCohort
    from send_va.records.simulator.years import SimulatedYears

PUPILS_FILE = "pupils.parquet"
TRUTH_FILE = "truth.csv"
STUDY_FILE = "study.toml"
_FILES = frozenset({PUPILS_FILE, TRUTH_FILE, STUDY_FILE})

_STUDY = """\
# Synthetic pupils: nobody in this study exists. truth.csv holds what each synthetic school really adds.
[study]
title = "{title}"
synthetic = true

[data]
file = "pupils.parquet"

[roles]
pupil = "pupil"
school = "school"
la = "la"
feeder = "feeder"
feeder_la = "feeder_la"
cohort = "cohort"
outcome = "outcome"
prior = ["prior"]
sen_status = "sen_status"
sen_status_entry = "sen_status_entry"
context = ["C(sex)", "month_of_birth", "fsm6", "eal", "C(ethnicity)", "idaci", "looked_after"]
{roll}
[outcome]
minimum = 0
maximum = 90
unit = "Attainment 8 points"

[value_added]
contexts = ["prior", "cva", "composition"]
"""
_ROLL = 'terms_on_roll = "terms_on_roll"\non_roll_at_end = "on_roll_at_end"\n'


def write_cohort(simulated: SimulatedCohort | SimulatedYears, directory: str | Path) -> Path:
    """Write a synthetic cohort as `pupils.parquet`, `truth.csv` and a `study.toml` that can be run.

    The three files appear together or not at all: they are written to a temporary directory beside `directory`, which
    is then renamed. The same cohort gives the same bytes.

    Parameters
    ----------
    simulated : SimulatedCohort or SimulatedYears
        The cohort, or several. Its pupil-level truth is not written.
    directory : str or Path
        A new or empty directory, or one that holds a previous simulation and nothing else, which is replaced.

    Returns
    -------
    Path
        The path of `study.toml`. Its title and the metadata of the Parquet file say that the pupils are synthetic.

    Raises
    ------
    InputError
        If `directory` is a file, or holds anything but a previous simulation; nothing is written then.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from send_va.records.simulator.cohort import simulate
    >>> cohort = simulate(np.random.default_rng(1), schools=12, pupils_per_school=20)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     study = write_cohort(cohort, Path(folder) / "demo")
    ...     sorted(path.name for path in study.parent.iterdir())
    ['pupils.parquet', 'study.toml', 'truth.csv']
    """
    target = Path(directory).resolve()
    _check_target(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as holder:
        fresh = Path(holder) / "fresh"
        fresh.mkdir()
        _write_files(simulated, fresh)
        _swap(fresh, target, Path(holder) / "previous")
    return Path(directory) / STUDY_FILE


def _swap(fresh: Path, target: Path, previous: Path) -> None:
    """Put `fresh` in the place of `target`, and `target` back if that fails."""
    if target.exists():
        target.rename(previous)
    try:
        fresh.rename(target)
    except OSError:
        if previous.exists():
            previous.rename(target)
        raise


def _check_target(target: Path) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise InputError(
            BrokenRule(
                rule="the simulation goes into a directory",
                column="directory",
                values=(f"{target.name} is a file",),
                remedy="Name a new directory",
            )
        )
    present = {path.name for path in target.iterdir()}
    others = tuple(sorted(present - _FILES))
    if others or (present and not _is_simulation(target)):
        raise InputError(
            BrokenRule(
                rule="the directory is empty or holds a previous simulation and nothing else",
                column="directory",
                count=len(others or present),
                values=others or tuple(sorted(present)),
                remedy="Name a new directory, or move these files away",
            )
        )


def _is_simulation(target: Path) -> bool:
    study = target / STUDY_FILE
    try:
        content = tomllib.loads(study.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return False
    about = content.get("study")
    return isinstance(about, dict) and about.get("synthetic") is True


def _write_files(simulated: SimulatedCohort | SimulatedYears, directory: Path) -> None:
    title = str(simulated.attrs["title"])
    metadata = {"title": title, "synthetic": "true"}
    table = pa.Table.from_pandas(simulated.pupils, preserve_index=False).replace_schema_metadata(metadata)
    pq.write_table(table, directory / PUPILS_FILE, compression="zstd")
    simulated.truth.assign(synthetic=True).to_csv(directory / TRUTH_FILE, index=False, lineterminator="\n")
    study = _STUDY.format(title=title, roll=_ROLL if "terms_on_roll" in simulated.pupils else "")
    (directory / STUDY_FILE).write_text(study, encoding="utf-8", newline="\n")
