"""Worlds by name: one look-up for scenarios and geographies."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from send_va.errors import BrokenRule, InputError


def find_named[T](name: str, known: Mapping[str, T], one: str, many: str) -> T:
    """Find what has a name; `one` and `many` are the words for it in the message.

    Raises
    ------
    InputError
        If nothing has that name; the message names the nearest one and lists all.
    """
    if name in known:
        return known[name]
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {nearest[0]!r}? " if nearest else ""
    raise InputError(
        BrokenRule(
            rule=f"the {one} is one of the known {many}",
            column=one,
            values=(repr(name),),
            remedy=f"{hint}Known {many}: {', '.join(known)}",
        )
    )
