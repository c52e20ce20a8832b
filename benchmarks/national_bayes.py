"""Seconds and memory of one national Bayesian fit, from pupil file to school draws on disk, as a process of its own.

Run: python benchmarks/national_bayes.py [--cohort DIR] [--context cva] [--draws 700] [--tune 300] [--chains 4]

The cohort is a folder that `send-va simulate` wrote; without one, a national cohort is simulated first, outside the
clock. The model: spline on prior attainment and the context's covariates; random level, need gap and slope on prior
attainment by school, correlated; level and gap by authority; residual variance by status. School draws (2 kB a school)
go to netCDF. Passes over groups are compiled at the first run on a machine and kept: with --cold they are compiled
within the clock, as in the first run ever.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LEAST_ESS, MOST_RHAT = 1000, 1.01


def fit_and_write(options: argparse.Namespace) -> None:
    """Run all steps, as the process whose clock began when it was started."""
    import numpy as np
    import xarray as xr

    from send_va.estimation import read_cohort
    from send_va.multilevel.collapsed import CollapsedModel, Start
    from send_va.multilevel.collapsed_data import collapsed_data
    from send_va.multilevel.collapsed_density import CollapsedDensity
    from send_va.multilevel.collapsed_posterior import sample_posterior
    from send_va.multilevel.convergence import check_convergence
    from send_va.multilevel.elimination import Level
    from send_va.multilevel.nuts import Sampling
    from send_va.records.design_columns import INTERCEPT, OUTCOME
    from send_va.study import load_study
    from send_va.value_added.authorities import school_authorities
    from send_va.value_added.design import STRATA, context_columns, labelled_products
    from send_va.value_added.row_coder import NEED, PRIOR_SLOPE
    from send_va.value_added.strata import fit_strata

    steps, last, busy = [], options.began, 0.0

    def done(step: str) -> None:
        nonlocal last, busy
        now = time.time()
        steps.append(f"{step} {now - last:.1f} ({time.process_time() - busy:.1f})")
        last, busy = now, time.process_time()

    done("import")
    study = load_study(options.cohort / "study.toml")
    cohort = read_cohort(study)
    profile = cohort.profile(study.prior.knots)
    records = labelled_products(cohort, profile, context_columns(cohort, profile))
    authorities = school_authorities(cohort, records.schools)
    if authorities is None:
        raise SystemExit("the cohort has no authorities")
    done("read and cross-products")
    fixed = (INTERCEPT, *records.need_columns, *records.context.fixed(options.context))
    random = (INTERCEPT, NEED, PRIOR_SLOPE)
    held = (*fixed, *(name for name in random if name not in fixed), OUTCOME)
    strata = [part.select(held) for part in records.strata]
    at = strata[0].index
    fit = fit_strata(strata, [Level(at(random))], at(fixed), int(at([OUTCOME])[0]))
    done("REML start")
    data = collapsed_data(
        strata,
        fixed=fixed,
        random=random,
        outcome=OUTCOME,
        groups=records.schools,
        strata_names=STRATA,
        parent=authorities[0],
        outer=authorities[1],
        outer_random=random[:2],
    )
    solution = fit.solution
    outer = np.full(2, 0.02 * float(fit.residual_variance.mean()))
    start = Start(solution.beta, solution.beta_cov, solution.covariances[0], fit.residual_variance, outer)
    model = CollapsedModel.of(data, start)
    density = CollapsedDensity(model)
    density.of_thread()(density.initial_point(1))
    done("build and compile")
    sampling = Sampling(
        chains=options.chains, draws=options.draws, tune=options.tune, target_accept=options.target_accept
    )
    posterior = sample_posterior(model, sampling, seed=options.seed)
    done("sampling")
    convergence = check_convergence(posterior)
    done("diagnostics")
    drawn = posterior.thinned(1000).effects(np.random.default_rng(options.seed)).draws
    done("effects")
    effects = xr.DataArray(
        drawn.astype(np.float32), dims=("sample", "school", "effect"), coords={"effect": list(random)}, name="effects"
    )
    xr.merge([effects.assign_coords(school=np.array(records.schools, dtype=object)), posterior.parameters()]).to_netcdf(
        options.out / "posterior.nc", engine="h5netcdf"
    )
    done("write")
    table = convergence.table
    steps_a_draw = float(posterior.sample_stats["n_steps"].mean())
    size = f"{data.n_records:,.0f} pupils, {len(data.groups):,} schools, {len(data.outer)} authorities"
    print(f"{size}, {len(fixed)} columns")
    print("seconds (of processor time): " + ", ".join(steps))
    print(
        f"{options.chains} x {options.draws} draws after {options.tune}, {steps_a_draw:.1f} gradients a draw: "
        f"least ESS {table['ess_bulk'].min():,.0f} in bulk, {table['ess_tail'].min():,.0f} in tails; R-hat at most "
        f"{table['rhat'].max():.4f}; {convergence.divergences} divergences"
    )
    worst = table.loc[table[["ess_bulk", "ess_tail"]].min(axis=1).nsmallest(4).index]
    named = worst[["parameter", "ess_bulk", "ess_tail"]].itertuples(index=False)
    print("fewest: " + "; ".join(f"{name} {bulk:,.0f} and {tail:,.0f}" for name, bulk, tail in named))
    enough = min(table["ess_bulk"].min(), table["ess_tail"].min()) > LEAST_ESS and table["rhat"].max() < MOST_RHAT
    print(f"ESS above {LEAST_ESS:,} and R-hat below {MOST_RHAT}: {'yes' if enough else 'NO'}")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohort", type=Path)
    parser.add_argument("--context", choices=["prior", "cva", "composition"], default="cva")
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--draws", type=int, default=700)
    parser.add_argument("--tune", type=int, default=300)
    parser.add_argument("--target-accept", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cold", action="store_true", help="compile within the clock")
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    return parser.parse_args()


def simulated(folder: Path) -> Path:
    """Write a national cohort: 3,400 schools, about 590,000 pupils."""
    import numpy as np

    from send_va.records.simulator import simulate, write_cohort

    write_cohort(simulate(np.random.default_rng(1), schools=3400), folder)
    return folder


def main() -> None:
    options = parsed()
    if options.began is not None:
        fit_and_write(options)
        return
    with tempfile.TemporaryDirectory() as name:
        cohort = options.cohort or simulated(Path(name) / "cohort")
        environment = dict(os.environ)
        if options.cold:
            environment["NUMBA_CACHE_DIR"] = str(Path(name) / "compiled")
        print(f"load of the machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors", flush=True)
        began = time.time()
        command = [sys.executable, "-W", "ignore", __file__, *sys.argv[1:], "--cohort", str(cohort)]
        process = subprocess.Popen([*command, "--out", name, "--began", repr(began)], env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"the fit failed with status {status}")
        print(
            f"whole process {time.time() - began:.1f} s, {usage.ru_utime + usage.ru_stime:.1f} s of processor time, "
            f"peak memory {usage.ru_maxrss / 1e6:.2f} GB"
        )


if __name__ == "__main__":
    main()
