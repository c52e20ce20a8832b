"""What a run was made with: versions, seed, settings, input, convergence; and how long each stage took."""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

from send_va.errors import InputError

_READ_BYTES = 1 << 20


def manifest(
    *,
    versions: Mapping[str, str],
    seed: int,
    settings: Mapping[str, object],
    input_hash: str,
    convergence: Mapping[str, object],
    timings: Mapping[str, float],
    machine: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """Assemble the record of a run that lets somebody else repeat it.

    Every value is passed in. Absolute paths and addresses are cut down to the file name, so that no user name,
    folder or password leaves the machine.

    Parameters
    ----------
    versions : mapping
        Program to version, from `installed_versions`.
    seed : int
        Seed of the run.
    settings : mapping
        The study as it was run.
    input_hash : str
        SHA-256 of the input, from `hash_files`.
    convergence : mapping
        What each fit reported.
    timings : mapping
        Seconds by stage.
    machine : mapping, optional
        From `describe_machine`.

    Returns
    -------
    dict
        Keys ``run`` and ``execution``. ``run`` is the same for the same seed, input, settings and versions;
        ``execution`` (timings in seconds, machine) differs from run to run.

    Raises
    ------
    InputError
        A value cannot be written as JSON; the message names its key.

    Examples
    --------
    >>> record = manifest(versions={"numpy": "2.5"}, seed=1, settings={"file": "/home/ann/pupils.parquet"},
    ...                   input_hash="ab12", convergence={"cva": True}, timings={"fit": 0.31234})
    >>> record["run"]["settings"], record["execution"]["timings_seconds"]
    ({'file': 'pupils.parquet'}, {'fit': 0.312})
    """
    run = {
        "versions": dict(versions),
        "seed": seed,
        "settings": settings,
        "input_sha256": input_hash,
        "convergence": convergence,
    }
    execution = {
        "timings_seconds": {stage: round(float(seconds), 3) for stage, seconds in timings.items()},
        "machine": machine or {},
    }
    return {"run": _plain(run, "run"), "execution": _plain(execution, "execution")}


def installed_versions(distribution: str = "send-va") -> dict[str, str]:
    """List Python, a package and those of its declared dependencies that are installed.

    Parameters
    ----------
    distribution : str
        Name of an installed package.

    Returns
    -------
    dict
        Name to version, in alphabetical order after Python and the package. A dependency that is not there is not
        listed.

    Raises
    ------
    InputError
        The package is not installed.

    Examples
    --------
    >>> list(installed_versions("pandas"))[:2]
    ['python', 'pandas']
    """
    try:
        own, required = metadata.version(distribution), metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        raise InputError(
            f"the package {distribution} is not installed", remedy="Install it with pip install -e ."
        ) from None
    found = {}
    for requirement in required:
        match = re.match(r"[A-Za-z0-9._-]+", requirement)
        if match is None:
            continue
        try:
            found[match.group().lower()] = metadata.version(match.group())
        except metadata.PackageNotFoundError:
            continue
    return {"python": platform.python_version(), distribution: own} | dict(sorted(found.items()))


def describe_machine() -> dict[str, object]:
    """Describe the kind of machine, without its name or its user's.

    Returns
    -------
    dict
        Operating system, processor architecture, number of processors, Python implementation.

    Raises
    ------
    OSError
        When the operating system refuses to say.

    Examples
    --------
    >>> sorted(describe_machine())
    ['architecture', 'processors', 'python', 'system']
    """
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "processors": os.cpu_count(),
        "python": sys.implementation.name,
    }


def hash_files(paths: Iterable[Path]) -> str:
    """Compute the SHA-256 of files' contents, in the order given; names do not count.

    Parameters
    ----------
    paths : iterable of pathlib.Path
        Files; read in pieces of 1 MiB.

    Returns
    -------
    str
        64 hexadecimal digits. Equal means the same bytes, split over files in the same way.

    Raises
    ------
    FileNotFoundError
        A file is not there.

    Examples
    --------
    >>> hash_files([])[:8]
    'e3b0c442'
    """
    whole = hashlib.sha256()
    for path in paths:
        single = hashlib.sha256()
        with path.open("rb") as file:
            while piece := file.read(_READ_BYTES):
                single.update(piece)
        whole.update(single.digest())
    return whole.hexdigest()


def write_json_atomic(path: Path, record: Mapping[str, object]) -> None:
    """Write JSON with sorted keys so that a reader sees the old file or the new one, never half of it.

    Parameters
    ----------
    path : pathlib.Path
        File to write; its folder must exist.
    record : mapping
        Numbers, text, lists and mappings.

    Returns
    -------
    None
        The file is in place when the function returns.

    Raises
    ------
    InputError
        A value cannot be written as JSON; the message names its key. Nothing is written then.
    FileNotFoundError
        The folder is not there.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_json_atomic(Path(folder) / "manifest.json", {"seed": 1})
    ...     print((Path(folder) / "manifest.json").read_text(), end="")
    {
      "seed": 1
    }
    """
    text = json.dumps(_plain(record, ""), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _plain(value: object, key: str) -> Any:
    """Reduce to what JSON knows; not-a-number and infinity become null, paths their file name."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item, f"{key}.{name}".lstrip(".")) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [_plain(item, f"{key}[{place}]") for place, item in enumerate(items)]
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str | PurePath):
        return _without_folder(str(value))
    if isinstance(value, datetime.date):
        return value.isoformat()
    raise InputError(
        f"{key or 'the record'} is a {type(value).__name__}, which JSON cannot hold",
        remedy="Pass numbers, text, lists or mappings.",
    )


def _without_folder(text: str) -> str:
    scheme, separator, rest = text.partition("://")
    if separator and scheme.isalnum():
        return f"{scheme}://{PurePosixPath(rest).name}"
    if "\n" in text:
        return text
    if PurePosixPath(text).is_absolute() or text.startswith("~"):
        return PurePosixPath(text).name
    return PureWindowsPath(text).name if PureWindowsPath(text).is_absolute() else text
