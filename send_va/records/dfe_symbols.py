"""What the symbols in DfE's published tables mean, by family of release."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, get_args

from send_va.errors import InputError

Reason = Literal[
    "blank",
    "suppressed",
    "not applicable",
    "not available",
    "no entries",
    "low coverage",
    "not published",
    "new school",
    "low reliability",
    "rounds to zero",
]
Release = Literal["performance_tables", "open_data", "sen_2024_25", "exclusions_2007_2017", "fft_collated"]

# Compare School and College Performance in England (DfE), abbreviations listed with the downloads. SUPP: 5 or fewer
# pupils. NE: no pupil entered for what the measure covers. LOWCOV: fewer than half of the pupils count in the measure.
# NP: not published. NA: does not apply (independent schools have no Progress 8). SUPPMAT: a trust's figure. SP and SN
# (destinations tables) hide a small percentage and a small number.
_PERFORMANCE_TABLES = {
    "SUPP": "suppressed",
    "SUPPMAT": "suppressed",
    "SP": "suppressed",
    "SN": "suppressed",
    "NE": "no entries",
    "LOWCOV": "low coverage",
    "NP": "not published",
    "NEW": "new school",
    "NA": "not applicable",
}

# Government Analysis Function, Symbols in tables (harmonised symbols), taken over by DfE's open data standards:
# c confidential, z not applicable, x not available, u low reliability, low (elsewhere k, or ~) under half of the last
# place shown. ':' stood for not available before; NA is what statistical programs write for a blank.
_OPEN_DATA = {
    "c": "suppressed",
    "z": "not applicable",
    "x": "not available",
    "u": "low reliability",
    "low": "rounds to zero",
    "k": "rounds to zero",
    "~": "rounds to zero",
    ":": "not available",
    "NA": "not available",
}

SYMBOLS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "performance_tables": MappingProxyType(_PERFORMANCE_TABLES),
        "open_data": MappingProxyType(_OPEN_DATA),
        # Special educational needs in England 2024/25, data guidance: x and z the other way round.
        "sen_2024_25": MappingProxyType({**_OPEN_DATA, "x": "not applicable", "z": "not available"}),
        # Permanent and fixed-period exclusions 2006/07 to 2016/17, school level: x hides a small count (school cells
        # sum to 5,097 of the 7,720 permanent exclusions of 2016/17), '.' a rate without pupils.
        "exclusions_2007_2017": MappingProxyType({"x": "suppressed", ".": "not applicable"}),
        # Tables collated from DfE's by FFT Education Datalab use blanks only.
        "fft_collated": MappingProxyType({}),
    }
)


def symbol_map(release: str, changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the symbols of one family of releases and the reason each stands for.

    Parameters
    ----------
    release : {"performance_tables", "open_data", "sen_2024_25", "exclusions_2007_2017", "fft_collated"}
    changes : mapping of str to str, optional
        Symbols that one release adds or uses otherwise, from its data guidance: ``{"low": "suppressed"}``.

    Returns
    -------
    dict
        Symbol to reason. A blank cell always means ``"blank"``.

    Raises
    ------
    InputError
        The family or a reason is not known; the message lists those that are.

    Examples
    --------
    >>> symbol_map("open_data")["z"], symbol_map("sen_2024_25")["z"]
    ('not applicable', 'not available')
    """
    if release not in SYMBOLS:
        raise InputError(f"no symbols are known for release {release!r}", f"Known: {', '.join(SYMBOLS)}.")
    unknown = sorted(set((changes or {}).values()) - set(get_args(Reason)))
    if unknown:
        raise InputError(f"unknown reason {unknown[0]!r} for a symbol", f"Known: {', '.join(get_args(Reason))}.")
    return {**SYMBOLS[release], **(changes or {}), "": "blank"}
