"""Results that stand beside those of a run: added to its directory, or in one of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from send_va.errors import InputError
from send_va.publish.manifest import describe_machine, manifest, write_json_atomic
from send_va.robustness_stage import write_statement
from send_va.stage_inputs import StageInputs

MANIFEST = "manifest.json"


def earlier_manifest(out: Path, input_hash: str) -> dict[str, Any] | None:
    """The manifest of the run that a directory holds; None where it holds none.

    Raises
    ------
    InputError
        It is a run of other records.
    """
    file = out / "private" / MANIFEST
    if not file.exists():
        return None
    earlier: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if earlier.get("run", {}).get("input_sha256") != input_hash:
        raise InputError(
            f"{out.name} holds a run of other records", "Name the directory of a run of this study, or a new one."
        )
    return earlier


def finish_beside(
    inputs: StageInputs,
    name: str,
    earlier: dict[str, Any] | None,
    *,
    versions: dict[str, str],
    settings: dict[str, Any],
    notes: dict[str, Any],
) -> None:
    """Write the manifest, take over what the directory holds, write its statement anew, and put all of it in place.

    Parameters
    ----------
    inputs : StageInputs
        Its directory holds the finished tables.
    name : str
        Under which the record stands in the manifest of an earlier run.
    earlier : dict or None
        From :func:`earlier_manifest`.
    versions, settings : dict
    notes : dict
        What is said of convergence.
    """
    study, directory = inputs.study, inputs.directory
    record = manifest(
        versions=versions,
        seed=study.study.seed,
        settings=settings,
        input_hash=inputs.cohort.source.sha256,
        convergence=notes,
        timings=inputs.progress.timings,
        machine=describe_machine(),
    )
    directory.keep_earlier()
    write_json_atomic(directory.work / MANIFEST, record if earlier is None else {**earlier, name: record})
    write_statement(inputs)
    directory.finish()
