"""Linear algebra on one thread: small matrices gain nothing from several, and results do not depend on their number."""

from __future__ import annotations

import functools
from collections.abc import Callable

from threadpoolctl import ThreadpoolController


@functools.cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def one_blas_thread[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Run a function with the linear-algebra libraries on one thread: same seed, same bytes on any number of cores."""
    return _limited(function, "blas")


def one_thread[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Run a function with all compiled libraries on one thread: OpenMP teams stall where cores are shared."""
    return _limited(function, None)


def _limited[**P, R](function: Callable[P, R], user_api: str | None) -> Callable[P, R]:
    @functools.wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        with _controller().limit(limits=1, user_api=user_api):
            return function(*args, **kwargs)

    return limited
