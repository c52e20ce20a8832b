"""Normal effects seen with normal errors: truth and exact posterior draws."""

import numpy as np


def normal_world(rng: np.random.Generator, schools: int, draws: int, se=None, tau: float = 1.0):
    """Truth (schools,), posterior mean, and draws (draws, schools) of effects N(0, tau^2) estimated with errors se."""
    se = rng.uniform(0.4, 1.2, schools) if se is None else np.broadcast_to(se, schools)
    truth = tau * rng.normal(size=schools)
    reliability = tau**2 / (tau**2 + se**2)
    mean = reliability * (truth + se * rng.normal(size=schools))
    spread = tau * np.sqrt(1.0 - reliability)
    return truth, mean, mean + spread * rng.normal(size=(draws, schools))


def places_of(values: np.ndarray) -> np.ndarray:
    """Places of values without ties, 1 the highest."""
    return np.argsort(np.argsort(-values)) + 1
