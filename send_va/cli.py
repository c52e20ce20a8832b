"""The command line: one function per verb, which parses, calls and prints."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from send_va.errors import Failure, InputError, SendVaError

if TYPE_CHECKING:
    from send_va.study import Study

app = typer.Typer(
    help="Contextual value-added for pupils with special educational needs, by school, with its uncertainty.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Report no progress.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Seed = Annotated[int | None, typer.Option(help="Seed of every random number, in place of the study's.", min=0)]


def _version(wanted: bool) -> None:
    if wanted:
        import send_va

        typer.echo(f"send-va {send_va.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Hold the options of send-va itself."""


@app.command()
def simulate(
    directory: Annotated[Path, typer.Argument(help="New directory for pupils.parquet, study.toml and truth.csv.")],
    schools: Annotated[int, typer.Option(help="Number of schools.", min=10)] = 300,
    scenario: Annotated[str, typer.Option(help="Name of the scenario; a wrong name lists them.")] = "independent",
    geography: Annotated[str, typer.Option(help="scattered, five_feeders or nearly_nested.")] = "scattered",
    seed: Annotated[int, typer.Option(help="Seed of every random number.", min=0)] = 1,
) -> None:
    """Write a synthetic cohort with known truth and a ready study file."""
    import numpy as np

    from send_va.records.simulator import simulate as draw
    from send_va.records.simulator import write_cohort

    simulated = draw(np.random.default_rng(seed), schools=schools, scenario=scenario, geography=geography)
    write_cohort(simulated, directory)
    typer.echo(f"{len(simulated.pupils):,} synthetic pupils in {schools:,} schools, scenario {scenario}, seed {seed}.")
    typer.echo(f"Next: send-va run {directory / 'study.toml'} --out {directory.parent / (directory.name + '-run')}")


@app.command()
def check(
    study: Annotated[Path, typer.Argument(help="Study file (study.toml).")],
    as_json: AsJson = False,
) -> None:
    """Validate the study and every record; list all for which a run would be refused."""
    from send_va.study import load_study

    try:
        loaded = load_study(study)
        from send_va.estimation import read_cohort
        from send_va.study_check import check_study

        report = check_study(loaded, read_cohort(loaded))
    except InputError as error:
        if not as_json:
            raise
        typer.echo(json.dumps([dataclasses.asdict(failure) for failure in error.failures], indent=2))
        raise typer.Exit(error.exit_code) from error
    if as_json:
        typer.echo(report.table().to_json(orient="records", indent=2))
    else:
        _print_failures(report.failures)
        if not report.failures:
            typer.echo("Every record passes every rule.")
        typer.echo(f"{len(report.errors)} failing rule(s), {len(report.warnings)} warning(s).")
    if not report.ok:
        raise typer.Exit(2)


@app.command()
def run(
    study: Annotated[Path, typer.Argument(help="Study file (study.toml).")],
    out: Annotated[Path, typer.Option(help="Directory: new, empty, or of an earlier run, which is replaced.")],
    engine: Annotated[str, typer.Option(help="reml, or bayes: the posterior by NUTS, with its diagnostics.")] = "reml",
    draws: Annotated[int | None, typer.Option(help="Draws of the school effects.", min=100)] = None,
    seed: Seed = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from an interrupted run.")] = False,
    quiet: Quiet = False,
) -> None:
    """Estimate value-added for every school of a study, with its uncertainty."""
    from send_va.study import load_study

    loaded = load_study(study)  # a mistake in it is said before the heavy libraries are loaded
    from send_va.memory import keep_freed_memory
    from send_va.pipeline import run as run_study

    keep_freed_memory()
    with _kept_when_interrupted():
        result = run_study(loaded, out, engine=engine, draws=draws, seed=seed, resume=resume, quiet=quiet)
    _print_result(loaded, result)


@app.command()
def audit(
    study: Annotated[Path, typer.Argument(help="Study file (study.toml).")],
    out: Annotated[Path, typer.Option(help="Directory: new, empty, or of a run of the same records, which is kept.")],
    seed: Seed = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Work out what schools would gain by labelling, removing or withdrawing pupils, under every estimator."""
    from send_va.study import load_study

    loaded = load_study(study)
    from send_va.audit_stage import audit as audit_study
    from send_va.memory import keep_freed_memory

    keep_freed_memory()
    result = audit_study(loaded, out, seed=seed, quiet=quiet)
    if as_json:
        typer.echo(result.audit.verdicts.to_json(orient="records", indent=2))
        return
    _print_result(loaded, result)


@app.command()
def multiverse(
    study: Annotated[Path, typer.Argument(help="Study file (study.toml), its choices under [multiverse].")],
    out: Annotated[Path, typer.Option(help="Directory: new, empty, or of a run of the same records, which is kept.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from an interrupted multiverse.")] = False,
    quiet: Quiet = False,
) -> None:
    """Estimate every combination of the declared choices, and say which choice decides the table."""
    from send_va.study import load_study

    loaded = load_study(study)
    from send_va.memory import keep_freed_memory
    from send_va.multiverse_stage import run_multiverse

    keep_freed_memory()
    with _kept_when_interrupted():
        result = run_multiverse(loaded, out, resume=resume, quiet=quiet)
    _print_result(loaded, result)


@app.command()
def missing(
    study: Annotated[Path, typer.Argument(help="Study file (study.toml).")],
    out: Annotated[Path, typer.Option(help="Directory: new, empty, or of a run of the same records, which is kept.")],
    seed: Seed = None,
    quiet: Quiet = False,
) -> None:
    """Impute missing prior attainment several times, shift what is imputed, and see what moves."""
    from send_va.study import load_study

    loaded = load_study(study)
    from send_va.memory import keep_freed_memory
    from send_va.missing_stage import run_missing

    keep_freed_memory()
    result = run_missing(loaded, out, seed=seed, quiet=quiet)
    _print_result(loaded, result)


@app.command()
def demo(
    schools: Annotated[int, typer.Option(help="Number of synthetic schools.", min=20)] = 300,
    out: Annotated[Path, typer.Option(help="Directory of the demo; replaced when it holds an earlier one.")] = Path(
        "send-va-demo"
    ),
    quiet: Quiet = False,
) -> None:
    """Simulate a cohort, run the main job on it, and say where to look."""
    from send_va.demo import run_demo

    typer.echo(run_demo(out, schools=schools, quiet=quiet))


@contextmanager
def _kept_when_interrupted() -> Iterator[None]:
    """Say, when the user interrupts, that the work can go on."""
    try:
        yield
    except (KeyboardInterrupt, SystemError) as error:
        if not _is_interrupt(error):
            raise
        typer.echo("send-va: interrupted. What was finished is kept: --resume goes on from there.", err=True)
        raise typer.Exit(130) from None


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether an interrupt is behind an error: compiled code hands it on as a SystemError."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _print_result(study: Study, result: object) -> None:
    if study.study.synthetic:
        typer.echo("SYNTHETIC DATA: no school here exists.")
    typer.echo(str(result))


def _print_failures(failures: Sequence[Failure]) -> None:
    """Print one block a failure, so that nothing is cut off in a narrow terminal."""
    for failure in failures:
        typer.echo(f"{failure.level.upper()} {failure.heading}")
        if failure.count > 1 or failure.rows or failure.unit != "row":
            typer.echo(f"    {failure.unit}s: {failure.count:,}")
        shown = {"examples": failure.rows, "values": failure.values}
        for name, items in shown.items():
            if items:
                typer.echo(f"    {name}: {', '.join(map(str, items))}")
        if failure.remedy:
            typer.echo(f"    remedy: {failure.remedy}")


def main() -> None:
    """Run the command line; errors the package raises on purpose become one message and an exit code."""
    try:
        app()
    except SendVaError as error:
        typer.echo(f"send-va: {error}", err=True)
        sys.exit(error.exit_code)
