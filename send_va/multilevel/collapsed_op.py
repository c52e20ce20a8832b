"""The collapsed likelihood as an operation of PyTensor with its own gradient, so that it can stand in a PyMC model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytensor.tensor as pt
from numpy.typing import NDArray
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op

from send_va.multilevel.collapsed_gradient import value_and_gradient
from send_va.multilevel.collapsed_kernels import workspace


class MarginalLikelihood(Op):  # type: ignore[misc]
    """Log-likelihood of a nested Gaussian model with effects of groups integrated out, and its gradient.

    Inputs are the first four of the kernel: ``w``, ``lower``, ``variance`` and ``outer_sd`` of
    :func:`send_va.multilevel.collapsed_gradient.value_and_gradient`, with ``log_node_weights`` in place of the last for
    :func:`send_va.multilevel.collapsed_robust_kernels.student_value_and_gradient`. Outputs are the kernel's own: the
    gradient comes out with the value, so that one pass over groups serves both.

    Attributes
    ----------
    arrays : tuple of array
        The data, in the order of the kernel. They never enter the graph.
    kernel : callable
    """

    __props__ = ("key",)

    def __init__(self, arrays: tuple[NDArray[Any], ...], kernel: Callable[..., Any] = value_and_gradient) -> None:
        self.arrays, self.kernel = arrays, kernel
        self.key = id(arrays)
        self._of_thread = threading.local()

    def make_node(self, *inputs: Any) -> Apply[Any]:
        """Build the node."""
        out = [pt.dscalar(), pt.dvector(), pt.dmatrix(), pt.dvector(), pt.dvector()]
        return Apply(self, [pt.as_tensor_variable(value) for value in inputs], out)

    def evaluate(self, *inputs: Any) -> tuple[NDArray[Any], ...]:
        """Value and gradients at parameters; every thread has arrays of its own to work in."""
        if not hasattr(self._of_thread, "work"):
            self._of_thread.work = workspace(*self.arrays[0].shape[:2])
        given = [np.asarray(value, dtype=np.float64) for value in inputs]
        return tuple(np.asarray(value) for value in self.kernel(*given, *self.arrays, self._of_thread.work))

    def perform(self, node: Any, inputs: Sequence[Any], output_storage: Sequence[Any]) -> None:
        """Evaluate in a graph of PyTensor."""
        for storage, value in zip(output_storage, self.evaluate(*inputs), strict=True):
            storage[0] = value

    def pullback(self, inputs: Sequence[Any], outputs: Sequence[Any], cotangents: Sequence[Any]) -> list[Any]:
        """Derivative of the value, which is all that is differentiated."""
        return [cotangents[0] * gradient for gradient in outputs[1:]]

    def connection_pattern(self, node: Any) -> list[list[bool]]:
        """Which outputs depend on which inputs, as far as derivatives go."""
        return [[True] + [False] * 4 for _ in node.inputs]
