"""Tables in the form of a run directory, with unequal school sizes and some schools not estimable."""

import numpy as np
import pandas as pd

TRUE_SD, PUPIL_SD = 4.2, 17.0  # Attainment 8 points


def run_tables(n_schools: int, seed: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    n_pupils = np.clip(rng.normal(175, 60, n_schools), 20, 400).astype(int)
    n_need = rng.binomial(n_pupils, np.clip(rng.normal(0.15, 0.06, n_schools), 0.005, 0.4))
    theta, shift = rng.normal(0, TRUE_SD, n_schools), rng.normal(0, 1.8, n_schools)
    error = rng.normal(0, 1, n_schools)
    se = np.where(n_need > 1, PUPIL_SD / np.sqrt(np.maximum(n_need, 1)) * rng.uniform(0.9, 1.1, n_schools), np.nan)
    effects = []
    for context, truth in (("prior", theta + shift), ("cva", theta), ("composition", theta - 0.2 * shift)):
        estimate = truth + error * se
        reliability = np.nan_to_num(TRUE_SD**2 / (TRUE_SD**2 + se**2))
        mean, sd = np.nan_to_num(reliability * estimate), TRUE_SD * np.sqrt(1 - reliability)
        effects.append(
            pd.DataFrame(
                {
                    "school": 900001 + np.arange(n_schools),
                    "estimator": "labelled",
                    "context": context,
                    "measure": "theta",
                    "mean": mean,
                    "sd": sd,
                    "lower": mean - 1.96 * sd,
                    "upper": mean + 1.96 * sd,
                    "reliability": reliability,
                    "n_pupils": n_pupils,
                    "n_need": n_need,
                    "estimate": estimate,
                    "se": se,
                    "flag": "",
                }
            )
        )
    table = pd.concat(effects, ignore_index=True)
    return table, pd.concat([_ranks(rows, rng) for _, rows in table.groupby("context", sort=False)], ignore_index=True)


def _ranks(rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    draws = rows["mean"].to_numpy() + rng.normal(size=(200, len(rows))) * rows["sd"].to_numpy()
    ranks = (-draws).argsort(axis=1).argsort(axis=1) + 1
    return pd.DataFrame(
        {
            "school": rows["school"].to_numpy(),
            "estimator": "labelled",
            "context": rows["context"].to_numpy(),
            "expected_rank": ranks.mean(axis=0),
            "rank_lower": np.quantile(ranks, 0.025, axis=0).round(),
            "rank_upper": np.quantile(ranks, 0.975, axis=0).round(),
            "published": rows["n_need"].to_numpy() > 5,
            "reason": np.where(rows["n_need"] > 5, "", "fewer than six pupils with need"),
        }
    )
