"""Effective draws a second: the collapsed model beside the same model on pupils in PyMC, and beside bambi; one run.

Run: python benchmarks/bayes_against_pupils.py [--pupils 20000] [--schools 120] [--draws 300] [--tune 300]
     [--backends jax numba] [--peers pymc bambi]      (needs send-va[bayes]; bambi: pip install bambi)

Synthetic pupils with a random intercept, need gap and slope on prior attainment by school, one residual SD, and seven
coefficients; no authorities, which bambi cannot nest with unequal effects. All columns are centred, so that every
program means the same by its intercept. Priors are those of `PriorScales` in all of them: normal coefficients,
half-normal SDs, LKJ(2) correlations.

bambi has no correlated effects of groups. Beside it stands the collapsed model with LKJ(1e6), whose correlations have a
prior SD of .0007: bambi's model, where they are 0, to well within Monte Carlo error. Beside PyMC correlations are free.

Peers are sampled by nutpie, as the collapsed model is, 2 chains, in every parametrisation and with every backend asked
for; the quickest is the one compared. Effective draws: the smallest bulk ESS over coefficients, SDs and correlations.
Two rates of each: by seconds of sampling, and by all seconds from the arrays of pupils on, compilation included.
"""

import argparse
import itertools
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from arviz_stats.base import array_stats

from send_va.multilevel.collapsed import CollapsedModel, Start
from send_va.multilevel.collapsed_data import collapsed_data
from send_va.multilevel.collapsed_posterior import sample_posterior
from send_va.multilevel.collapsed_priors import Priors, PriorScales
from send_va.multilevel.crossproducts import cross_products
from send_va.multilevel.elimination import Level
from send_va.value_added.strata import fit_strata

COVARIATES = ["need", "prior", "male", "fsm", "eal", "month"]
COLUMNS = ["Intercept", *COVARIATES]
RANDOM = ["Intercept", "need", "prior"]
NO_CORRELATION = 1e6  # shape of the LKJ prior
WITHIN = 2.0  # combined Monte Carlo standard errors

warnings.filterwarnings("ignore", message="PyTensor could not link to a BLAS")


@dataclass(frozen=True)
class Run:
    """Draws of shared parameters by name, arrays (chains, draws), and seconds."""

    name: str
    parameters: Mapping[str, np.ndarray]
    sampling: float
    whole: float
    divergences: int

    @property
    def ess(self) -> float:
        """Fewest effective draws of a parameter, in bulk."""
        return min(
            float(array_stats.ess(x, chain_axis=0, draw_axis=1, method="bulk")) for x in self.parameters.values()
        )

    @property
    def rhat(self) -> float:
        """Largest R-hat of a parameter."""
        return max(float(array_stats.rhat(x, chain_axis=0, draw_axis=1)) for x in self.parameters.values())

    def mcse(self, name: str) -> float:
        """Monte Carlo standard error of a mean."""
        return float(array_stats.mcse(self.parameters[name], chain_axis=0, draw_axis=1, method="mean"))

    def line(self) -> str:
        """Row of the table."""
        rates = f"{self.ess / self.sampling:12.2f} {self.ess / self.whole:12.2f}"
        times = f"{self.sampling:10.1f} {self.whole:8.1f}"
        return f"{self.name:32s} {times} {self.ess:8.0f} {rates} {self.rhat:7.3f} {self.divergences:5d}"


def pupils(rng: np.random.Generator, n: int, schools: int) -> pd.DataFrame:
    """Outcome SD about 1; school SDs .25 (level), .2 (gap) and .1 (slope), correlated; residual SD .7."""
    school = rng.integers(0, schools, n)
    data = {"prior": rng.standard_normal(n)}
    for name, share in {"need": 0.16, "male": 0.51, "fsm": 0.25, "eal": 0.16}.items():
        data[name] = (rng.random(n) < share).astype(float)
    data["month"] = (rng.integers(1, 13, n) - 6.5) / 12.0
    frame = pd.DataFrame(data)[COVARIATES]
    frame -= frame.mean()
    sd, corr = np.array([0.25, 0.2, 0.1]), np.array([[1.0, -0.3, 0.2], [-0.3, 1.0, 0.0], [0.2, 0.0, 1.0]])
    u = rng.multivariate_normal(np.zeros(3), sd[:, None] * corr * sd, size=schools)[school]
    fixed = frame.to_numpy() @ np.array([-0.3, 0.65, 0.1, -0.2, 0.1, 0.05])
    varying = u[:, 0] + u[:, 1] * frame["need"] + u[:, 2] * frame["prior"]
    return frame.assign(school=school, y=fixed + varying + rng.normal(0.0, 0.7, n))


def collapsed(data: pd.DataFrame, schools: int, priors: Priors) -> CollapsedModel:
    """From pupils to a model ready to be sampled: cross-products, REML, priors."""
    rows = np.column_stack([np.ones(len(data)), data[[*COVARIATES, "y"]].to_numpy()])
    products = cross_products(rows, data["school"].to_numpy(), schools, [*COLUMNS, "outcome"])
    fit = fit_strata([products], [Level(products.index(RANDOM))], products.index(COLUMNS), len(COLUMNS))
    start = Start(
        fit.solution.beta, fit.solution.beta_cov, fit.solution.covariances[0], fit.residual_variance, np.zeros(0)
    )
    groups = [str(school) for school in range(schools)]
    reduced = collapsed_data([products], fixed=COLUMNS, random=RANDOM, outcome="outcome", groups=groups)
    return CollapsedModel.of(reduced, start, priors)


def our_run(data: pd.DataFrame, schools: int, priors: Priors, *, correlated: bool) -> Run:
    """Sampling takes in compilation, which is part of every call: the rate by sampling seconds is a lower bound."""
    begin = time.perf_counter()
    model = collapsed(data, schools, priors)
    ready = time.perf_counter()
    posterior = sample_posterior(model, seed=1)
    end = time.perf_counter()
    shared = named(posterior.beta, posterior.group_sd, posterior.residual_sd[..., 0])
    if correlated:
        shared |= correlations(posterior.group_corr)
    name = "send_va, correlations " + ("free" if correlated else "0")
    return Run(name, shared, end - ready, end - begin, int(posterior.sample_stats["diverging"].sum()))


def named(beta: np.ndarray, group_sd: np.ndarray, residual_sd: np.ndarray) -> dict[str, np.ndarray]:
    shared = {name: beta[..., at] for at, name in enumerate(COLUMNS)}
    shared |= {f"sd {name}": group_sd[..., at] for at, name in enumerate(RANDOM)}
    return shared | {"sd residual": residual_sd}


def correlations(corr: np.ndarray) -> dict[str, np.ndarray]:
    pairs = itertools.combinations(range(len(RANDOM)), 2)
    return {f"corr {RANDOM[a]}, {RANDOM[b]}": corr[..., a, b] for a, b in pairs}


def pupil_model(data: pd.DataFrame, schools: int, scales: PriorScales, form: str) -> Any:
    """The model with effects of schools sampled.

    `centred`: effects around 0; `non-centred`: standard normal times the factor; `hierarchical`: effects around the
    coefficients themselves, so that level and mean of schools are not sampled against each other.
    """
    import pymc as pm
    import pytensor.tensor as pt

    x = data[COVARIATES].to_numpy()
    z = np.column_stack([np.ones(len(x)), x[:, :2]])
    code, y = data["school"].to_numpy(), data["y"].to_numpy()
    q = len(RANDOM)
    with pm.Model() as model:
        beta = pm.Normal("beta", scales.mean, scales.sd, shape=len(COLUMNS))
        spread = pm.HalfNormal.dist(scales.group_sd)
        factor, _, _ = pm.LKJCholeskyCov("factor", n=q, eta=scales.correlation, sd_dist=spread, compute_corr=True)
        residual_sd = pm.HalfNormal("residual_sd", scales.residual_sd)
        around = beta[:q] if form == "hierarchical" else np.zeros(q)
        if form == "non-centred":
            u = pm.Normal("effects", 0.0, 1.0, shape=(schools, q)) @ factor.T
        else:
            u = pm.MvNormal("effects", around, chol=factor, shape=(schools, q))
        if form == "hierarchical":
            mean = pt.sum(u[code] * z, axis=1) + x[:, q - 1 :] @ beta[q:]
        else:
            mean = pt.sum(u[code] * z, axis=1) + beta[0] + x @ beta[1:]
        pm.Normal("y", mean, residual_sd, observed=y)
    return model


def pupil_parameters(posterior: Any) -> dict[str, np.ndarray]:
    sd, corr = posterior["factor_stds"].to_numpy(), posterior["factor_corr"].to_numpy()
    shared = named(posterior["beta"].to_numpy(), sd, posterior["residual_sd"].to_numpy())
    return shared | correlations(corr)


def bambi_model(data: pd.DataFrame, scales: PriorScales, form: str) -> Any:
    """Build the PyMC model that bambi makes of the formula."""
    import bambi

    def normal(at: int) -> Any:
        return bambi.Prior("Normal", mu=scales.mean[at], sigma=scales.sd[at])

    def effects(at: int) -> Any:
        return bambi.Prior("Normal", mu=0, sigma=bambi.Prior("HalfNormal", sigma=scales.group_sd[at]))

    priors = {name: normal(at) for at, name in enumerate(COLUMNS)}
    priors |= {f"{term}|school": effects(at) for at, term in enumerate(["1", "need", "prior"])}
    priors["sigma"] = bambi.Prior("HalfNormal", sigma=scales.residual_sd)
    formula = f"y ~ {' + '.join(COVARIATES)} + (1 + need + prior|school)"
    frame = data.assign(school=pd.Categorical(data["school"]))
    model = bambi.Model(formula, frame, priors=priors, noncentered=form == "non-centred")
    model.build()
    return model.backend.model


def bambi_parameters(posterior: Any) -> dict[str, np.ndarray]:
    beta = np.stack([posterior[name].to_numpy() for name in COLUMNS], axis=-1)
    sd = np.stack([posterior[f"{term}|school_sigma"].to_numpy() for term in ["1", "need", "prior"]], axis=-1)
    return named(beta, sd, posterior["sigma"].to_numpy())


def peer_run(
    name: str, build: Callable[[], Any], read: Callable[[Any], dict[str, np.ndarray]], options: argparse.Namespace
) -> Run:
    """Build, compile and sample a PyMC model with nutpie; `name` ends with the backend."""
    import nutpie
    import pymc as pm

    begin = time.perf_counter()
    model: pm.Model = build()
    kept = [variable.name for variable in model.unobserved_RVs if variable.name != "mu"]
    extra = {"gradient_backend": "pytensor"} if name.endswith("jax") else {}
    compiled = nutpie.compile_pymc_model(model, backend=name.split()[-1], var_names=kept, **extra)
    nutpie.sample(compiled, draws=1, tune=1, chains=1, cores=1, seed=1, progress_bar=False)  # compiles what is left
    ready = time.perf_counter()
    cores = min(2, os.cpu_count() or 1)
    tree = nutpie.sample(
        compiled, draws=options.draws, tune=options.tune, chains=2, cores=cores, seed=1, progress_bar=False
    )
    end = time.perf_counter()
    diverging = int(tree["sample_stats"]["diverging"].sum())
    return Run(name, read(tree["posterior"]), end - ready, end - begin, diverging)


def compare(ours: Run, peer: Run) -> None:
    print(f"\n{ours.name} beside {peer.name}")
    print("  parameter                      ours       peer    difference  in combined MCSEs")
    far = []
    for name, draws in ours.parameters.items():
        mine, theirs = float(draws.mean()), float(peer.parameters[name].mean())
        error = float(np.hypot(ours.mcse(name), peer.mcse(name)))
        apart = abs(mine - theirs) / error
        far += [name] if apart > WITHIN else []
        print(f"  {name:24s} {mine:10.5f} {theirs:10.5f} {mine - theirs:12.5f} {apart:10.2f}")
    share = f"{len(ours.parameters) - len(far)} of {len(ours.parameters)} means within {WITHIN:.0f} MCSEs"
    print(f"  {share}" + (f"; not: {', '.join(far)}" if far else ""))
    by_sampling = ours.ess / ours.sampling / (peer.ess / peer.sampling)
    by_whole = ours.ess / ours.whole / (peer.ess / peer.whole)
    print(f"  effective draws a second, ratio: {by_sampling:.1f} by sampling time, {by_whole:.1f} by whole time")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pupils", type=int, default=20_000)
    parser.add_argument("--schools", type=int, default=120)
    parser.add_argument("--draws", type=int, default=300, help="of each chain of a peer, after tuning")
    parser.add_argument("--tune", type=int, default=300)
    parser.add_argument("--backends", nargs="+", choices=["jax", "numba"], default=["jax", "numba"])
    parser.add_argument("--peers", nargs="+", choices=["pymc", "bambi"], default=["pymc", "bambi"])
    options = parser.parse_args()
    if "bambi" in options.peers:
        try:
            import bambi  # noqa: F401
        except ImportError as error:
            print(
                f"{error.name} is not installed: pip install bambi, or leave it out with --peers pymc", file=sys.stderr
            )
            raise SystemExit(2) from None
    return options


def main() -> None:
    options = parsed()
    data = pupils(np.random.default_rng(1), options.pupils, options.schools)
    scales = collapsed(data, options.schools, Priors()).scales  # and loops are compiled before the clock starts
    print(f"{options.pupils:,} pupils, {options.schools} schools; peers 2 x {options.draws} draws after {options.tune}")
    print(f"load of the machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    print(f"{'':32s} sampling s  whole s  min ESS  ESS/s sampled  ESS/s whole   R-hat  div.")
    forms = {
        "pymc": (
            ("non-centred", "centred", "hierarchical"),
            lambda form: pupil_model(data, options.schools, scales, form),
            pupil_parameters,
        ),
        "bambi": (("non-centred", "centred"), lambda form: bambi_model(data, scales, form), bambi_parameters),
    }
    pairs = []
    for peer in options.peers:
        free = peer == "pymc"
        priors = Priors() if free else Priors(correlation=NO_CORRELATION)
        ours = our_run(data, options.schools, priors, correlated=free)
        print(ours.line(), flush=True)
        kinds, build, read = forms[peer]
        runs = []
        for form, backend in itertools.product(kinds, options.backends):
            name = f"{peer}, {form}, {backend}"
            runs.append(peer_run(name, lambda form=form, build=build: build(form), read, options))
            print(runs[-1].line(), flush=True)
        pairs.append((ours, max(runs, key=lambda run: run.ess / run.sampling)))
    print(f"load of the machine after: {os.getloadavg()[0]:.1f}")
    for ours, best in pairs:
        compare(ours, best)


if __name__ == "__main__":
    main()
