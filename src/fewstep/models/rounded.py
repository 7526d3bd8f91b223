"""Tensors in 8 bits a number: whole numbers from -127 to 127, and for each output the step that they count in.

A difference between two networks of full rank is stored so at half the bytes of float16, and is off by about 1% of
itself: where the largest of an output is m, a number is off by m / 254 at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput

MOST = 127
STEP = ".step"
"""What the name of a tensor has behind it, where the tensor is its steps."""


class Rounded(NamedTuple):
    """A tensor (out, ..) as `values`, int8 in its shape, times `step`, (out,) float32."""

    values: Tensor
    step: Tensor

    @staticmethod
    def of(tensor: Tensor) -> Rounded:
        """The nearest to a tensor (out, ..) of at least two dimensions."""
        step = (tensor.detach().cpu().double().flatten(1).abs().amax(1) / MOST).float()
        each = step.double().reshape(-1, *[1] * (tensor.ndim - 1))
        values = torch.where(each > 0, tensor.detach().cpu().double() / each, 0.0)
        return Rounded(values.round().clamp(-MOST, MOST).to(torch.int8), step)

    def tensor(self) -> Tensor:
        """It again, float64 on the host."""
        return self.values.double() * self.step.double().reshape(-1, *[1] * (self.values.ndim - 1))


def stored(rounded: Mapping[str, Rounded]) -> dict[str, Tensor]:
    """Tensors for a file."""
    found = {}
    for name, one in rounded.items():
        found |= {name: one.values.contiguous(), name + STEP: one.step.contiguous()}
    return found


def taken(tensors: dict[str, Tensor]) -> dict[str, Rounded]:
    """Those of a file's tensors that are rounded, which it loses.

    Raises `InvalidInput` for one without its steps, or of whose steps are not as many as its outputs.
    """
    found = {}
    for name in [name for name, tensor in tensors.items() if tensor.dtype == torch.int8]:
        values, step = tensors.pop(name), tensors.pop(name + STEP, None)
        if step is None or values.ndim < 2 or step.shape != (len(values),) or step.dtype != torch.float32:
            raise InvalidInput(f"{name} is in 8 bits, and {name + STEP} is not a step for each of its outputs")
        found[name] = Rounded(values, step)
    return found
