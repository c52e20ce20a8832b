"""Run the numbered analyses in order, leaving out those whose inputs have not changed.

``python analyses/run_all.py [--only 03] [--force]``. An analysis runs again when its script, the package's source or
version, another module of this folder or the data have changed, or when one of the files it wrote is missing or was
altered. Stamps are kept beside the results.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STAMPS = ".stamps"


@dataclass(frozen=True)
class Places:
    """Folders the analyses read and write.

    Attributes
    ----------
    analyses, results, package, data : pathlib.Path
        Scripts, what they write, the package's source, and the data (may be absent).
    """

    analyses: Path
    results: Path
    package: Path
    data: Path


def default_places() -> Places:
    """Return this project's folders; data from ``SEND_VA_DATA``, default ``../shared/data``."""
    analyses = ROOT / "analyses"
    data = Path(os.environ.get("SEND_VA_DATA", "../shared/data"))
    return Places(analyses, analyses / "results", ROOT / "send_va", data if data.is_absolute() else ROOT / data)


def numbered_scripts(analyses: Path) -> list[Path]:
    """List the scripts whose names begin with two digits, in order."""
    return sorted(analyses.glob("[0-9][0-9]_*.py"))


def input_hash(script: Path, places: Places) -> str:
    """Hash what an analysis depends on: scripts and package by content, data by name, size and time of change."""
    digest = hashlib.sha256()
    shared = [path for path in places.analyses.glob("*.py") if path not in numbered_scripts(places.analyses)]
    for path in [script, *sorted(set(shared) - {Path(__file__).resolve()}), *sorted(places.package.rglob("*.py"))]:
        digest.update(path.name.encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    try:
        digest.update(metadata.version("send-va").encode())
    except metadata.PackageNotFoundError:
        digest.update(b"not installed")
    for path in sorted(places.data.rglob("*")):
        if path.is_file():
            status = path.stat()
            digest.update(f"{path.relative_to(places.data)} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()


def is_current(script: Path, wanted: str, results: Path) -> bool:
    """Say whether the stamp of a script matches its inputs and every file it wrote is as it left it."""
    stamp = results / STAMPS / f"{script.stem}.json"
    if not stamp.is_file():
        return False
    record = json.loads(stamp.read_text(encoding="utf-8"))
    written: dict[str, str] = record["written"]
    return record["inputs"] == wanted and all(
        (results / name).is_file() and _file_hash(results / name) == content for name, content in written.items()
    )


def run(script: Path, places: Places) -> int:
    """Run one script with this Python from the project's root and stamp it when it succeeds; return its exit code."""
    places.results.mkdir(parents=True, exist_ok=True)
    (places.results / STAMPS).mkdir(exist_ok=True)
    inputs = input_hash(script, places)
    before = _times(places.results)
    finished = subprocess.run([sys.executable, str(script)], cwd=places.analyses.parent, check=False)
    if finished.returncode == 0:
        after = _times(places.results)
        written = {name: _file_hash(places.results / name) for name, at in after.items() if before.get(name) != at}
        stamp = places.results / STAMPS / f"{script.stem}.json"
        stamp.write_text(json.dumps({"inputs": inputs, "written": written}, indent=2, sort_keys=True), encoding="utf-8")
    return finished.returncode


def run_all(places: Places, only: Iterable[str] = (), force: bool = False) -> int:
    """Run every analysis that is not current, print how long each took, and return 1 when one failed."""
    chosen = [path for path in numbered_scripts(places.analyses) if not only or path.name[:2] in set(only)]
    if not chosen:
        print("no such analysis; there are: " + ", ".join(path.name for path in numbered_scripts(places.analyses)))
        return 1
    failed = []
    for script in chosen:
        if not force and is_current(script, input_hash(script, places), places.results):
            print(f"== {script.name}: unchanged", flush=True)
            continue
        print(f"== {script.name}", flush=True)
        started = time.perf_counter()
        code = run(script, places)
        outcome = "done" if code == 0 else f"failed with exit code {code}"
        print(f"== {script.name}: {outcome}, {time.perf_counter() - started:.1f} s", flush=True)
        if code:
            failed.append(script.name)
    if failed:
        print("failed: " + ", ".join(failed))
    return 1 if failed else 0


def _times(results: Path) -> dict[str, int]:
    return {
        path.relative_to(results).as_posix(): path.stat().st_mtime_ns
        for path in sorted(results.rglob("*"))
        if path.is_file() and STAMPS not in path.parts
    }


def _file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(arguments: list[str] | None = None) -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description="Run the numbered analyses whose inputs have changed.")
    parser.add_argument("--only", action="append", default=[], metavar="NN", help="two digits; may be repeated")
    parser.add_argument("--force", action="store_true", help="run also what has not changed")
    chosen = parser.parse_args(arguments)
    return run_all(default_places(), chosen.only, chosen.force)


if __name__ == "__main__":
    raise SystemExit(main())
