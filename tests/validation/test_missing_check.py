"""The evidence on missing prior attainment: small, but against the truth."""

import numpy as np
import pytest

from send_va.errors import InputError
from send_va.validation.missing_check import MissingWorld, check_missing, known_delta


def test_imputation_gives_back_part_of_what_leaving_out_took() -> None:
    world = MissingWorld("mar", schools=50, pupils_per_school=100, share=0.15)
    found = check_missing(world, np.random.default_rng(3), imputations=3, draws=90)
    assert list(found) == ["nothing missing", "complete records", "imputed"]
    off = {name: values["from_whole"] for name, values in found.items()}
    assert off["nothing missing"] == 0.0 < off["imputed"] < off["complete records"]
    assert all(values["delta"] == 0.0 for values in found.values())


def test_the_known_shift_is_the_one_realised() -> None:
    """Scores that are missing lie below those seen by `known_delta`, all else in the imputation model given."""
    world = MissingWorld("mnar", schools=300, pupils_per_school=120)
    _, pupils, gone = world.draw(np.random.default_rng(2))
    assert gone.mean() == pytest.approx(0.15, abs=0.01)
    prior, outcome = ((pupils[name] - pupils[name].mean()) / pupils[name].std() for name in ("prior", "outcome"))
    need = (pupils["sen_status"] == "K").to_numpy(np.float64)
    given = [outcome, outcome**2, need, need * outcome, pupils["fsm6"], pupils["eal"], pupils["idaci"]]
    codes = pupils["school"].to_numpy() - pupils["school"].min()
    x = np.column_stack([np.ones(len(prior)), *given, pupils["sex"] == "M", gone]).astype(float)
    x = np.column_stack(
        [x, *(np.bincount(codes, weights=v)[codes] / np.bincount(codes)[codes] for v in (outcome, prior))]
    )
    realised = np.linalg.lstsq(x, prior.to_numpy(), rcond=None)[0][9]
    # 5,400 missing scores with a residual SD of .65 leave an error of .01; curvature of the tilt adds as much again
    assert known_delta(pupils) == pytest.approx(realised, abs=0.04)


def test_an_unknown_mechanism_is_refused() -> None:
    with pytest.raises(InputError, match="mcar, mar, mnar"):
        MissingWorld("nmar")  # type: ignore[arg-type]
